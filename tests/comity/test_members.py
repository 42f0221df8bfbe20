"""The committee through clients and commands: proposed, consented to, in force, followed."""

from __future__ import annotations

import datetime
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from comity import AbsentError, Client, DraftError, keys
from comity.errors import NotReachableError
from comity.keys import Key
from comity.members import admission, departure, replacement, wanted_words
from comity.pool import Pool
from comity.servers import servers_of
from comity.session import Server
from comity.verify import Trust
from consensus import keyfile, memberfile
from consensus.codec import Value
from consensus.committee import Committee, Validator
from consensus.errors import ProofError
from consensus.genesis import Genesis, Limits, Principal, RoleGiven, chain_id
from consensus.keyfile import KeyKind
from consensus.ledger import seats
from consensus.ledger.kernel.committee import decode_changes
from consensus.ledger.rules import encode_definition, load_toml
from consensus.memberfile import Member, Named
from node.config import load
from node.network.tls import make_certificate
from tests.comity.shell import Said, Shell, open_shell
from tests.comity.twin import (
    ADMINISTRATOR,
    AGENCIES,
    CHARTER,
    NODES,
    RULES,
    START_MS,
    VALIDATORS,
    Twin,
    harness,
    key_of,
    make_genesis,
)
from tests.consensus.test_certificate import made

NOTICE_MS = 60_000
ACTS = """
[actions.change_committee]
kernel = true
actor = { role = "charter.administrator" }
approvals = { role = "charter.administrator", distinct = "agency" }

[actions.object_committee]
kernel = true
actor = { role = "charter.administrator" }

[actions.admit_agency]
kernel = true
actor = { role = "charter.administrator" }
approvals = { role = "charter.administrator", distinct = "agency" }

[actions.approve]
kernel = true
actor = { self = "who.principal" }
"""
CHIEFS = {"east": 61, "south": 62, "west": 63}


def genesis() -> Genesis:
    """Return a network with an administrator in each of its four agencies."""
    made = make_genesis()
    ids = {agency: bytes([number]) * 32 for agency, number in CHIEFS.items()}
    people = [Principal(ids[name], name, 0, bytes([CHIEFS[name]]) * 32) for name in CHIEFS]
    return replace(
        made,
        limits=Limits(notice_ms=NOTICE_MS),
        principals=(*made.principals, *people),
        keys=(*made.keys, *((key_of(CHIEFS[name]).public, ids[name]) for name in CHIEFS)),
        roles=(*made.roles, *(RoleGiven(ids[name], "charter.administrator") for name in CHIEFS)),
        rules=tuple(encode_definition(load_toml(text)) for text in (CHARTER + ACTS, RULES)),
    )


@pytest.fixture
def town(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """A shell of the administrator of ``north``, with the keys of the others at hand."""
    found = open_shell(Twin(genesis=genesis()), tmp_path, monkeypatch, capsys)
    monkeypatch.setenv("COMITY_KEY_FILE", "administrator.key")
    for name, seed in CHIEFS.items():
        pair = keyfile.from_seed(KeyKind.CLIENT, bytes([seed]) * 32)
        keys.create(found.folder / f"{name}.key", pair)
    return found


def as_(who: str, *words: str) -> tuple[str, ...]:
    return (*words, "--key", f"{who}.key")


def enrol(town: Shell, agency: str = "health", *more: str) -> Said:
    said = town(
        "network", "enrol", "genesis.cbor", "--agency", agency, "--peers", f"{agency}:7400",
        "--clients", f"{agency}:7401", "-o", agency, *more, "--json",
    )  # fmt: skip
    assert said.status == 0, said.err
    return said


def node_folder(town: Shell, index: int = 3) -> Path:
    """Lay down the folder of a node, as founding made it."""
    folder = town.folder / AGENCIES[index]
    (folder / "keys").mkdir(parents=True)
    for name, key in (("validator", VALIDATORS[index]), ("node", NODES[index])):
        kind = KeyKind.VALIDATOR if name == "validator" else KeyKind.NODE
        seed = 1 + index if name == "validator" else 11 + index
        assert keyfile.from_seed(kind, bytes([seed]) * 32).public == key.public
        keys.create(folder / "keys" / f"{name}.key", keyfile.from_seed(kind, bytes([seed]) * 32))
    (folder / "node.toml").write_text(
        f'[node]\nagency = "{AGENCIES[index]}"\ngenesis = "genesis.cbor"\n'
    )
    return folder


def consent(town: Shell, txid: str, *who: str) -> None:
    for each in who:
        assert town(*as_(each, "approve", txid)).status == 0


def pass_notice(town: Shell) -> None:
    town.twin.now_ms += NOTICE_MS
    town.twin.make_block()


def test_an_agency_joins_by_one_file_one_proposal_and_a_quorum_of_approvals(town: Shell) -> None:
    made = enrol(town, "health", "--person", "chief")
    assert sorted(Path(each).name for each in made.json["keys"]) == [
        "chief.key", "node.key", "validator.key",
    ]  # fmt: skip
    assert (town.folder / "health" / "genesis.cbor").read_bytes() == town.twin.genesis.encode()
    assert load(town.folder / "health" / "node.toml", {}).node.role == "joining"
    member = memberfile.decode((town.folder / "health" / "health.member").read_bytes())
    assert (town.folder / "health" / "health.crt").read_bytes() == member.validator.certificate
    proposed = town(
        "network", "propose-member", "health/health.member", "--title", "Health Agency",
        "--scope", "roles=health.", "--reason", "as agreed",
    )  # fmt: skip
    assert proposed.status == 0, proposed.err
    assert made.json["digest"].removeprefix("0x")[:8] in proposed.out.replace(" ", "")
    value = town("network", "members", "--json").json
    (waiting,) = value["proposed"]
    assert waiting["consented"] == ["north"]
    assert waiting["missing"] == ["east", "south", "west"]
    assert waiting["needed"] == 2
    txid = waiting["proposal"]
    shown = town("network", "members").out
    assert "2 more of east, south, west" in shown
    assert "health is admitted, a new agency: Health Agency" in shown
    assert "60 s after the last consent" in shown
    assert "acts for it: chief" in shown
    assert "roles=health." in town(*as_("east", "proposal", txid)).out
    consent(town, txid, "east")
    assert town("network", "members", "--json").json["proposed"][0]["needed"] == 1
    consent(town, txid, "west")
    value = town("network", "members", "--json").json
    assert value["proposed"] == []
    assert value["coming"]["number"] == 1
    assert value["coming"]["from_ms"] == town.twin.now_ms + NOTICE_MS
    assert "2 more would end it" in town("network", "members").out
    again = town("network", "leave", "east")
    assert again.status == 2
    assert "change 1 of the committee is still to come" in again.err
    pass_notice(town)
    value = town("network", "members", "--json").json
    assert [each["agency"] for each in value["validators"]] == [*AGENCIES, "health"]
    assert (value["epoch"], value["quorum"], value["coming"]) == (2, 4, None)
    assert "no change is agreed or proposed" in town("network", "members").out
    own = ("--key", "health/keys/chief.key")
    assert "charter.administrator" in town("authority", *own).out


PLACES = ("--peers", "west:7400", "--clients", "west:7401")


def test_a_member_rotates_its_keys_in_its_own_folder(town: Shell) -> None:
    folder = node_folder(town)
    said = town(*as_("west", "network", "rotate", "west", *PLACES))
    assert said.status == 0, said.err
    assert sorted(each.name for each in (folder / "keys").iterdir()) == [
        "node-next.key", "node.key", "validator-next.key", "validator.key",
    ]  # fmt: skip
    twice = town(*as_("west", "network", "rotate", "west", *PLACES))
    assert twice.status == 2
    assert "keys were made for a change already" in twice.err
    txid = town("network", "members", "--json").json["proposed"][0]["proposal"]
    shown = town("network", "members").out
    assert "west has another validator" in shown
    consent(town, txid, "east", "south")
    pass_notice(town)
    row = town.twin.committee.validators[3]
    key = keys.open_pair(folder / "keys" / "validator-next.key")
    assert (row.key, row.peer_host) == (key.public, "west")


def test_a_key_that_may_not_propose_them_makes_no_next_keys(town: Shell) -> None:
    folder = node_folder(town)
    before = {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()}
    said = town(*as_("official", "network", "rotate", "west", *PLACES))
    assert said.status == 2, said.out + said.err
    assert "NOT_AUTHORIZED: the role charter.administrator is" in said.err
    assert "no key was made" in said.err
    assert {each: each.read_bytes() for each in folder.rglob("*") if each.is_file()} == before
    assert town("network", "members", "--json").json["proposed"] == []
    assert town(*as_("west", "network", "rotate", "west", *PLACES)).status == 0


def test_an_address_changes_and_both_keys_stay(town: Shell) -> None:
    folder = node_folder(town)
    said = town(
        "network", "rotate", "west", "--keep", "validator", "--keep", "node",
        "--peers", "10.9.0.1:7400", "--clients", "10.9.0.1:7401", "--json",
    )  # fmt: skip
    assert said.status == 0, said.err
    assert not list((folder / "keys").glob("*next*"))
    member = memberfile.decode((folder / "west.member").read_bytes())
    assert (member.validator.key, member.validator.node_key) == (
        VALIDATORS[3].public,
        NODES[3].public,
    )
    shown = town("network", "members").out
    assert f"{VALIDATORS[3].public.hex()} (as before)" in shown


def signer_folder(town: Shell, name: str, seed: int) -> bytes:
    """Lay down a signer's configuration with its key file; return the key's public half."""
    folder = town.folder / name
    folder.mkdir()
    pair = keyfile.from_seed(KeyKind.VALIDATOR, bytes([seed]) * 32)
    keys.create(folder / "validator.key", pair)
    (folder / "signer.toml").write_text(
        '[signer]\ngenesis = "g"\nsocket = "s"\nclient_user = "0"\nkey = "validator.key"\n'
    )
    return pair.public


def with_a_signer(town: Shell) -> Path:
    """Lay down the folder of a node whose validator key a signer holds."""
    folder = node_folder(town)
    (folder / "keys" / "validator.key").unlink()
    with (folder / "node.toml").open("a") as file:
        file.write(f'[signer]\nsocket = "s"\nkey = "{VALIDATORS[3].public.hex()}"\n')
    return folder


def test_the_key_of_the_next_signer_takes_the_place_of_the_present_ones(town: Shell) -> None:
    folder = with_a_signer(town)
    following = signer_folder(town, "next", 99)
    said = town(
        "network", "rotate", "west", "--keep", "node", "--signer", "next/signer.toml", *PLACES
    )
    assert said.status == 0, said.err
    assert [each.name for each in (folder / "keys").iterdir()] == ["node.key"]
    txid = town("network", "members", "--json").json["proposed"][0]["proposal"]
    consent(town, txid, "east", "south")
    pass_notice(town)
    row = town.twin.committee.validators[3]
    assert (row.key, row.node_key) == (following, NODES[3].public)


def test_an_address_changes_while_a_signer_holds_the_key(town: Shell) -> None:
    folder = with_a_signer(town)
    assert signer_folder(town, "own", 4) == VALIDATORS[3].public
    said = town(
        "network", "rotate", "west", "--keep", "node", "--signer", "own/signer.toml",
        *PLACES,
    )  # fmt: skip
    assert said.status == 0, said.err
    member = memberfile.decode((folder / "west.member").read_bytes())
    assert member.validator.key == VALIDATORS[3].public
    assert member.validator.peer_host == "west"


def test_a_key_file_is_not_made_beside_a_signer_that_holds_the_key(town: Shell) -> None:
    folder = with_a_signer(town)
    signer_folder(town, "next", 99)
    for words, what, hint in (
        ((), "a signer holds the validator key of west", "--signer"),
        (("--keep", "validator", "--signer", "next/signer.toml"), "both say", "leave --keep"),
        (("--signer", "absent/signer.toml"), "cannot read absent/signer.toml", "name the"),
    ):
        said = town("network", "rotate", "west", *PLACES, *words)
        assert said.status == 2, (words, said.out, said.err)
        assert what in said.err, (words, said.err)
        assert hint in said.err, (words, said.err)
    assert [each.name for each in (folder / "keys").iterdir()] == ["node.key"]


def test_an_agency_joins_with_a_key_that_its_signer_holds(town: Shell) -> None:
    public = signer_folder(town, "own", 99)
    enrol(town, "health", "--person", "chief", "--signer", "own/signer.toml")
    folder = town.folder / "health"
    member = memberfile.decode((folder / "health.member").read_bytes())
    assert member.validator.key == public
    assert sorted(each.name for each in (folder / "keys").iterdir()) == ["chief.key", "node.key"]
    said = town("network", "propose-member", "health/health.member", "--title", "Health")
    assert said.status == 0, said.err


def test_next_keys_are_under_the_passphrase_of_the_present_ones_or_are_not_made(
    town: Shell,
) -> None:
    folder = node_folder(town)
    for name in ("right", "wrong"):
        (town.folder / name).write_text(f"{name} words\n")
        (town.folder / name).chmod(0o600)
    rotate = ("network", "rotate", "west", *PLACES)
    unsealed = town(*rotate, "--passphrase-file", "right")
    (folder / "keys" / "node.key").unlink()
    (folder / "keys" / "validator.key").unlink()
    pair = keyfile.from_seed(KeyKind.NODE, bytes([14]) * 32)
    keys.create(folder / "keys" / "node.key", pair, "right words")
    for said, what, hint in (
        (unsealed, "under no passphrase", "leave --passphrase-file out"),
        (town(*rotate), "the next keys would be under none", "--passphrase-file"),
        (town(*rotate, "--passphrase-file", "wrong"), "does not open", "keys in use"),
    ):
        assert said.status == 2, said.out
        assert what in said.err, said.err
        assert hint in said.err, said.err
    assert not list(folder.glob("**/*-next.key"))
    done = town(*rotate, "--passphrase-file", "right")
    assert done.status == 0, done.err
    keys.open_pair(folder / "keys" / "validator-next.key", ask=lambda _: "right words")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_what_root_makes_in_a_nodes_folder_is_the_nodes_users(town: Shell) -> None:
    with tempfile.TemporaryDirectory() as place:  # others may pass through, unlike pytest's own
        folder = Path(shutil.move(node_folder(town), Path(place, "west")))
        for each in (Path(place), folder, *folder.rglob("*")):
            os.chown(each, 65534, 65534)
        said = town("network", "rotate", str(folder), "--keep", "node", *PLACES)
        assert said.status == 0, said.err
        owners = {each.name: each.stat().st_uid for each in folder.rglob("*")}
    assert owners["validator-next.key"] == owners["west.member"] == 65534
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_without_a_key_rotating_makes_the_file_and_members_shows_the_committee(
    town: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    node_folder(town)
    monkeypatch.delenv("COMITY_KEY_FILE")
    said = town("network", "rotate", "west", "--peers", "w:1", "--clients", "w:2")
    assert said.status == 0, said.err
    assert "comity network propose-member west/west.member" in said.out
    shown = town("network", "members")
    assert "epoch 1: 3 of 4 signatures certify" in shown.out
    assert "add --key" in shown.out


def test_f_plus_one_agencies_object_on_the_command_line(town: Shell) -> None:
    enrol(town, "health", "--person", "chief")
    town("network", "propose-member", "health/health.member", "--title", "Health")
    txid = town("network", "members", "--json").json["proposed"][0]["proposal"]
    consent(town, txid, "east", "south")
    assert town(*as_("west", "network", "object", "1")).status == 0
    assert "west; 1 more would end it" in town("network", "members").out
    assert town(*as_("east", "network", "object", "1")).status == 0
    pass_notice(town)
    assert town("network", "members", "--json").json["epoch"] == 1


def test_a_lost_machine_is_replaced_by_enrolling_again(town: Shell) -> None:
    enrol(town, "south")
    said = town("network", "propose-member", "south/south.member", "--reason", "lost")
    assert said.status == 0, said.err
    titled = town("network", "propose-member", "south/south.member", "--title", "South")
    assert titled.status == 2
    assert "south is a member" in titled.err


def test_an_agency_without_a_validator_is_admitted_with_its_first_administrator(
    town: Shell,
) -> None:
    made = town("keys", "new", "curator.key", "--json")
    public = made.json["public"].removeprefix("0x")
    said = town(
        "network", "admit", "museum", "--title", "City Museum", "--administrator", "curator.key",
        "--scope", "roles=museum.",
    )  # fmt: skip
    assert said.status == 0, said.err
    assert public in said.out
    txid = said.out.rsplit("comity approve ", 1)[1].split()[0]
    shown = town("proposal", txid).out
    assert "museum" in shown
    assert "City Museum" in shown
    consent(town, txid, "east")
    assert town("get", "agency/museum").status == 1
    consent(town, txid, "south")
    assert "City Museum" in town("get", "agency/museum").out
    held = town("authority", "--key", "curator.key", "--json").json
    assert (held["agency"], held["fault"]) == ("museum", None)
    (role,) = held["roles"]
    assert (role["role"], role["scope"]) == ("charter.administrator", {"roles": "museum."})
    assert town("network", "members", "--json").json["epoch"] == 1


def test_mistakes_in_admitting_an_agency_are_explained_before_anything_is_sent(town: Shell) -> None:
    key = key_of(77).public.hex()
    enrol(town, "health")
    validator = town.folder / "health" / "keys" / "validator.key"
    for words, what, hint in (
        (("--administrator", "absent.key"), "absent.key", ""),
        (("--administrator", str(validator)), "is a validator key", "client keys"),
        (("--administrator", key, "--subject", "12"), "is no token", "64 hex digits"),
        (("--administrator", key, "--scope", "roles"), "not NAME=VALUE", "roles="),
    ):
        said = town("network", "admit", "museum", "--title", "City Museum", *words)
        assert said.status == 2, (words, said.out, said.err)
        assert what in said.err, (words, said.err)
        assert hint in said.err, (words, said.err)
    known = town("network", "admit", "west", "--title", "West", "--administrator", key)
    assert known.status == 2
    assert "west is an agency of the ledger already" in known.err


def test_mistakes_are_one_sentence_of_what_and_one_of_what_to_do(town: Shell) -> None:
    node_folder(town)
    enrol(town, "health", "--person", "chief")
    file = town.folder / "health" / "health.member"
    other = town.folder / "other.member"
    for words, what, hint in (
        (("propose-member", "absent.member"), "cannot read absent.member", "check the path"),
        (("propose-member", "genesis.cbor"), "the member file cannot be used", "make it again"),
        (("leave", "west"), "3 validators would be left", "at least 4 members: admit another"),
        (("leave", ""), "0 bytes of text, allowed 1..64", "name each agency once"),
        (("leave", "west", "--from", "soon"), "--from", "2026-07-03"),
        (("rotate", "west", *PLACES, "--from", str(START_MS)), "end of the notice", "--from"),
        (("rotate", "west", "--keep", "client"), "no key of a node", "validator or node"),
        (("rotate", "west", "--peers", "nowhere", "--clients", "w:2"), "host:port", "10.3.0.5"),
        (("rotate", "absent"), "cannot read", "node.toml"),
        (("propose-member", str(file), "--scope", "roles"), "not NAME=VALUE", "roles="),
        (("enrol", "node.toml.cbor", "--agency", "a", "--peers", "a:1", "--clients", "a:2",
          "-o", "x"), "cannot read", "check the path"),
        (("enrol", "administrator.key", "--agency", "a", "--peers", "a:1", "--clients", "a:2",
          "-o", "x"), "neither terms in TOML nor a genesis file", "genesis.cbor"),
    ):  # fmt: skip
        said = town("network", *words)
        assert said.status == 2, (words, said.out, said.err)
        assert what in said.err, (words, said.err)
        assert hint in said.err, (words, said.err)
    nobody = town("network", "leave", "nobody")
    assert nobody.status == 1
    assert nobody.err.splitlines() == [
        "error: nobody has no validator.",
        "hint:  members are north, east, south, west.",
    ]
    assert not list((town.folder / "west").glob("**/*-next.key"))
    data = file.read_bytes()
    other.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    forged = town("network", "propose-member", "other.member", "--title", "Health")
    assert forged.status == 2
    assert "was changed after it was made" in forged.err
    without = town("network", "propose-member", str(file))
    assert without.status == 1
    assert "health" in without.out
    assert town("network", "object", "9").status == 1
    assert town("network", "members", "--json").json["proposed"] == []


async def test_a_state_that_names_other_members_than_the_certificates_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    twin = Twin(genesis=genesis())
    async with harness(twin) as net, net.client(ADMINISTRATOR) as client:
        assert isinstance(client, Client)
        found = await client.members()
        assert (found.latest, found.coming, found.committee.epoch) == (0, None, 1)
        entry = await client.get("committee")
        pairs = [[each.agency, bytes(32)] for each in found.committee.validators]
        lie = replace(entry, value=list(seats.Seats(1, pairs, 0, None)), version=1, present=True)

        async def lying(namespace: str, *components: object) -> object:
            return lie

        monkeypatch.setattr(client, "get", lying)
        with pytest.raises(ProofError, match="other members"):
            await client.members()


async def test_what_is_asked_for_is_told_in_words_and_checked_before_it_is_sent() -> None:
    twin = Twin(genesis=genesis())
    async with harness(twin) as net, net.client(ADMINISTRATOR) as client:
        with pytest.raises(DraftError, match="cannot be used"):
            await client.propose_member(b"nothing")
        decision = await client.propose_changes([admits(file_of()), departure("west")])
        (waiting,) = await client.proposed_changes()
        assert waiting.proposed.txid == decision.txid
        assert waiting.wanted is not None
        words = wanted_words(waiting.wanted)
        assert words[0] == "health is admitted, a new agency: Health"
        assert words[-1] == "west leaves"
        assert await client.committee_change(1) is None
        data = waiting.proposed.draft
        assert data is not None
        assert [each.agency for each in decode_changes(data.inputs(0)[0][1])] == ["health", "west"]


CHAIN = chain_id(genesis().encode())
SEED = bytes([71]) * 32


def file_of(
    agency: str = "health",
    *,
    key: Key | None = None,
    peers: tuple[str, int] = ("h", 1),
    clients: tuple[str, int] = ("h", 2),
    certificate: bytes | None = None,
) -> bytes:
    """Return a member file for the network of ``genesis``."""
    key = key or key_of(70, KeyKind.VALIDATOR)
    node = Key(keyfile.from_seed(KeyKind.NODE, SEED))
    shown = certificate or make_certificate(SEED, agency)
    row = Validator(agency, key.public, node.public, shown, *peers, *clients)
    chief = Named("chief", bytes([70]) * 32, bytes([72]) * 32, key_of(72).public)
    member = Member(CHAIN, row, () if agency in AGENCIES else (chief,))
    return memberfile.encode(member, key.sign, node.sign)


def admits(file: bytes, title: str | None = "Health") -> list[Value]:
    return admission(file, memberfile.peek(file), title)


def replaces(file: bytes) -> list[Value]:
    return replacement(file, memberfile.peek(file))


def ended() -> bytes:
    """Return a certificate of the node key that was good until the year before the founding."""
    begin = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    return made(begin, signer=key, public=key.public_key())


async def test_a_change_that_can_never_come_true_is_not_even_proposed() -> None:
    others = VALIDATORS[2]
    async with harness(Twin(genesis=genesis())) as net, net.client(ADMINISTRATOR) as client:
        assert isinstance(client, Client)
        for change, what, hint in (
            (departure("west"), "3 validators would be left, at least 4", "admit another one"),
            (departure("health"), "health has no validator", "north, east, south, west"),
            (replaces(file_of("health")), "health has no validator", "north, east, south, west"),
            (admits(file_of("west"), None), "west has a validator already", "replace"),
            (admits(file_of(key=others)), "a key of health is in use", "new keys"),
            (replaces(file_of("west", key=others)), "a key of west is in use", "new keys"),
            (admits(file_of(key=ADMINISTRATOR)), "a key of health is in use", "new keys"),
            (admits(file_of(clients=("h", 1))), "an address of health is another's", "--peers"),
            (admits(file_of(peers=("h", 0))), "an address is a host and a port", "make it again"),
            (admits(file_of(certificate=ended())), "certificate of health ends", "new keys"),
        ):
            absent = "has no validator" in what
            with pytest.raises(AbsentError if absent else DraftError) as found:
                await client.propose_changes([change])
            assert what in found.value.message
            assert hint in (found.value.hint or ""), what
        for from_ms in (START_MS + NOTICE_MS - 1, START_MS + 3 * 366 * 86_400_000):
            with pytest.raises(DraftError, match="before the end of the notice") as found:
                await client.propose_changes([admits(file_of())], from_ms=from_ms)
            assert "--from" in (found.value.hint or "")
        assert await client.proposed_changes() == ()
        for change in (admits(file_of()), replaces(file_of("west"))):
            assert (await client.propose_changes([change])).state == "proposed"
        together = [admits(file_of()), departure("west")]
        decision = await client.propose_changes(together, from_ms=START_MS + 2 * NOTICE_MS)
        assert decision.state == "proposed"


async def test_a_validator_that_stays_as_it_is_and_one_too_many_are_not_proposed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = genesis().committee.validators
    same = file_of("west")
    more = [replace(rows[0], agency=f"agency{at}") for at in range(60)]
    async with harness(Twin(genesis=genesis())) as net, net.client(ADMINISTRATOR) as client:
        assert isinstance(client, Client)
        for seated, change, what, hint in (
            ((*rows[:3], memberfile.peek(same).validator), replaces(same), "is so already", "as"),
            ((*rows, *more), admits(file_of()), "65 validators, at most 64", "another one leaves"),
        ):

            async def committee(seated: tuple[Validator, ...] = seated) -> Committee:
                return Committee(1, seated)

            monkeypatch.setattr(client, "committee", committee)
            with pytest.raises(DraftError, match=what) as found:
                await client.propose_changes([change])
            assert hint in (found.value.hint or "")


async def test_a_client_asks_the_nodes_of_the_committee_that_it_has_followed() -> None:
    first = make_genesis(ports=(1, 2, 3, 4)).committee
    trust = Trust(bytes(32), first)
    servers = servers_of(first)
    own = (servers[0], replace(servers[1], host="relay", port=9), *servers[2:])
    asked: list[Server] = []

    async def dial(server: Server) -> trio.abc.Stream:
        asked.append(server)
        raise NotReachableError("nobody is there")

    async with trio.open_nursery() as nursery:
        pool = Pool(own, trust, None, nursery, dial)
        some = Pool(own[:2], trust, None, nursery, dial)
        rows = [
            replace(each, node_key=bytes([7]) * 32, client_port=70) for each in first.validators
        ]
        rows[3] = replace(rows[3], agency="health")
        trust._committees[2], trust._epoch = Committee(2, tuple(rows)), 2
        for each in (pool, some):
            asked.clear()
            with pytest.raises(NotReachableError):
                await each.pick(())
            found = {server.agency: server for server in asked}
            assert (found["north"].port, found["north"].node_key) == (70, bytes([7]) * 32)
            assert (found["east"].host, found["east"].port) == ("relay", 9)
            assert found["east"].node_key == bytes([7]) * 32
            assert set(found) == ({*AGENCIES, "health"} if each is pool else {"north", "east"})
