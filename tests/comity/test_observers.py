"""Observers in a client: read from like any node, never asked to take a transaction."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from comity import Call, DraftError, RequestError
from comity.servers import choose_servers, observer, servers_of
from comity.session import Server
from consensus import keyfile
from consensus.keyfile import KeyKind
from consensus.protocol import Status
from node.api.backend import Admission, Rejected, Submission
from node.network.tls import make_certificate
from tests.comity.shell import Shell, shell
from tests.comity.twin import Twin, harness

__all__ = ["shell"]

NO_VOTE = Rejected(Status.UNAVAILABLE, "NO_VOTE", "this one follows", "submit to east (b:2)", 1000)
SEED = bytes([77]) * 32
NODE_KEY = keyfile.from_seed(KeyKind.NODE, SEED).public
FAR = "court@far:1"


def write(number: int) -> Call:
    return Call("notes", "write", {"number": number, "text": "hello", "amount": 5})


class Voteless:
    """A node of the twin that takes nothing."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin
        self.asked = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._twin, name)

    async def submit(self, submissions: Sequence[Submission]) -> Sequence[Admission]:
        self.asked += 1
        return [NO_VOTE] * len(submissions)


def follows(running: Any, name: str, index: int) -> Voteless:
    """Have the node under a name follow without a vote, with the node key of a member."""
    backend = Voteless(running.twin)
    running.servers[name] = server = running.twin.server(index)
    server.backend = backend
    return backend


def far(twin: Twin) -> Server:
    row = servers_of(twin.committee)[3]
    return Server(FAR, "far", 1, row.node_key, row.certificate, votes=False)


async def test_an_observer_is_read_from_and_others_take_the_transactions() -> None:
    async with harness() as running:
        backend = follows(running, FAR, 3)
        async with running.client(servers=[far(running.twin), "east"]) as client:
            call = write(1)
            done = await client.transact(call, reads=await client.read_for(call))
            assert done.applied
            running.down.add("east")
            note = await client.get("record", "note", 1)
            assert (note.version, note.fields["text"]) == (1, "hello")
            async with aclosing(client.changes(done.height)) as feed:
                assert (await anext(feed)).height.height == done.height
        assert backend.asked == 0
        assert running.dialled[0] == FAR


async def test_who_says_that_it_has_no_vote_is_asked_once_and_read_from_on() -> None:
    async with harness() as running:
        backend = follows(running, "north", 0)
        async with running.client(servers=["north", "east"]) as client:
            for number in (1, 2):
                assert (await client.transact(write(number), reads=[])).code in ("APPLIED", "STALE")
            assert backend.asked == 1
            running.down.add("east")
            assert (await client.status()) is not None
            running.cut()
            await client.status()
            with pytest.raises(Exception, match="east"):  # the other one votes, and is away
                await client.transact(write(3), reads=[])
            assert backend.asked == 2  # after a new connection it is asked again


async def test_without_a_node_that_votes_a_client_says_so_at_once() -> None:
    async with harness() as running:
        backend = follows(running, FAR, 3)
        options = {"patience_seconds": 1e6}
        async with running.client(servers=[far(running.twin)], **options) as client:
            with pytest.raises(RequestError) as refused:
                await client.transact(write(1), reads=[])
        error = refused.value
        assert (error.reason, error.status) == ("NO_VOTE", Status.UNAVAILABLE)
        assert error.message == (
            "no node that was named takes transactions: court@far:1 follow without a vote"
        )
        assert error.hint == "name the node of a member as well: north, east, south, west"
        assert backend.asked == 0


async def test_what_a_follower_says_is_what_its_client_says() -> None:
    async with harness() as running:
        follows(running, "north", 0)
        async with running.client(servers=["north"], patience_seconds=1e6) as client:
            with pytest.raises(RequestError) as refused:
                await client.transact(write(1), reads=[])
        assert refused.value.message == NO_VOTE.message
        assert refused.value.hint == NO_VOTE.hint


async def test_a_new_committee_is_reason_to_ask_again() -> None:
    async with harness() as running:
        twin = running.twin
        backend = follows(running, "north", 0)
        async with running.client(servers=["north", "east"]) as client:
            assert await client.transact(write(1), reads=[])
            assert await client.transact(write(2), reads=[])
            assert backend.asked == 1
            twin.elect(*twin.committee.validators)
            twin.make_block()
            await client.committee()
            assert await client.transact(write(3), reads=[])
        assert backend.asked == 2


# --- naming one -----------------------------------------------------------------------------------


def test_a_certificate_and_an_address_name_an_observer(tmp_path: Path) -> None:
    committee = Twin().committee
    der = make_certificate(SEED, "court")
    (tmp_path / "der.crt").write_bytes(der)
    (tmp_path / "pem.crt").write_text(ssl.DER_cert_to_PEM_cert(der))
    (one,) = choose_servers([committee], [f"{tmp_path}/der.crt=10.0.0.9:7401"])
    assert one == Server("court@10.0.0.9:7401", "10.0.0.9", 7401, NODE_KEY, der, votes=False)
    assert choose_servers([committee], [f"{tmp_path}/pem.crt=10.0.0.9:7401"]) == (one,)
    assert choose_servers([committee], [one, "east", one]) == (one, servers_of(committee)[1])
    (six,) = choose_servers([committee], [f"{tmp_path}/der.crt=[::1]:7401"])
    assert (six.host, six.port) == ("::1", 7401)


def test_the_certificate_of_a_member_names_that_member(tmp_path: Path) -> None:
    twin = Twin()
    row = twin.committee.validators[2]
    der = make_certificate(SEED, row.agency)
    twin.elect(
        *twin.committee.validators[:2],
        type(row)(row.agency, row.key, NODE_KEY, der, *row_address(row)),
        twin.committee.validators[3],
    )
    twin.make_block()
    (tmp_path / "south.crt").write_bytes(der)
    (found,) = choose_servers([twin.committee], [f"{tmp_path}/south.crt=tunnel:9"])
    assert (found.agency, found.host, found.votes) == ("south", "tunnel", True)


def row_address(row: Any) -> tuple[str, int, str, int]:
    return row.peer_host, row.peer_port, row.client_host, row.client_port


@pytest.mark.parametrize(
    ("word", "said", "hint"),
    [
        ("court", "no agency 'court' has a node", "court.crt=host:port"),
        ("{0}/good.crt", "says nothing of where", "=host:port"),
        ("{0}/good.crt=here", "'here' is not an address", "=host:port"),
        ("{0}/good.crt=here:0", "'here:0' is not an address", "=host:port"),
        ("{0}/good.crt=here:٣", "is not an address", "=host:port"),
        ("{0}/none.crt=a:1", "cannot read the certificate", "name the file"),
        ("{0}/text.crt=a:1", "neither DER nor PEM", "for its .crt file"),
        ("{0}/torn.crt=a:1", "neither DER nor PEM", "for its .crt file"),
        ("{0}/long.crt=a:1", "too long for a certificate", "for its .crt file"),
    ],
)
def test_a_server_that_cannot_be_says_why(tmp_path: Path, word: str, said: str, hint: str) -> None:
    der = make_certificate(SEED, "court")
    (tmp_path / "good.crt").write_bytes(der)
    (tmp_path / "text.crt").write_bytes(b"-----BEGIN CERTIFICATE-----\nno\n")
    (tmp_path / "torn.crt").write_bytes(der[:-1])
    (tmp_path / "long.crt").write_bytes(der + bytes(9000))
    with pytest.raises(DraftError) as refused:
        choose_servers([Twin().committee], [word.format(tmp_path)])
    assert said in refused.value.message
    assert hint in refused.value.hint


def test_a_key_of_another_kind_is_no_nodes() -> None:
    pem = Path(ssl.get_default_verify_paths().cafile or "/nothing")
    if not pem.is_file():
        pytest.skip("this machine has no certificates of others")
    first = pem.read_bytes().split(b"-----END CERTIFICATE-----")[0]
    with pytest.raises(DraftError, match="not Ed25519"):
        observer(first + b"-----END CERTIFICATE-----\n", "a", 1)


# --- making one -----------------------------------------------------------------------------------


def observe(shell: Shell, *more: str) -> Any:
    given = {"--name": "court", "--clients": "10.9.0.2:7401", "-o": str(shell.folder / "court")}
    words = [each for name in given if name not in more for each in (name, given[name])]
    genesis = str(shell.folder / "genesis.cbor")
    return shell("network", "observe", genesis, *words, *more)


def test_an_observers_folder_holds_all_it_begins_with(shell: Shell) -> None:
    doors = ["--follow", "north=10.1.0.4:7409", "--follow", "late=[::1]:7409"]
    made = observe(shell, *doors, "--json")
    assert made.status == 0, made
    court = shell.folder / "court"
    assert made.json["server"] == f"{court / 'court.crt'}=10.9.0.2:7401"
    assert (court / "keys" / "node.key").stat().st_mode & 0o777 == 0o600
    assert (court / "genesis.cbor").read_bytes() == shell.twin.genesis.encode()
    text = (court / "node.toml").read_text()
    assert 'late = "::1:7409"' in text
    assert "validator_key" not in text
    (server,) = choose_servers([shell.twin.committee], [made.json["server"]])
    assert server.agency == "court@10.9.0.2:7401"
    again = observe(shell, *doors)
    assert again.status == 2
    assert "is not empty" in again.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--follow", "nobody=a:1"], "no door of a member is named: nobody"),
        (["--follow", "north"], "names no door of its own"),
        (["--follow", "north=a:1", "--follow", "north=b:2"], "names no door of its own"),
        (["--follow", 'no"rth=a:1'], "is no name of an agency"),
        (["--follow", "north=a:1", "--name", "two words"], "is no name of an observer"),
        (["--follow", "north=a:1", "--clients", "a:99999"], "is not host:port"),
    ],
)
def test_an_observer_that_cannot_be_says_why_and_leaves_nothing(
    shell: Shell, words: list[str], said: str
) -> None:
    refused = observe(shell, *words)
    assert refused.status == 2, refused
    assert said in refused.err.replace("\n", " ")
    assert "hint:" in refused.err
    assert not (shell.folder / "court").exists()


def test_what_is_no_genesis_file_is_said(shell: Shell) -> None:
    words = ["--name", "a", "--clients", "a:1", "--follow", "north=a:1", "-o", "x"]
    for name in ("nothing.cbor", "official.key"):
        refused = shell("network", "observe", str(shell.folder / name), *words)
        assert refused.status == 2
        assert "genesis" in refused.err or "cannot read" in refused.err
