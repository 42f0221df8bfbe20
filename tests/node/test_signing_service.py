"""The signer's socket, asked by hand: who is served, what is signed, and what a mark refuses.

Requests and bodies are written here as the protocol's page has them, not by the code under test.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import cbor2
import pytest
import structlog
import trio

from consensus import genesis as genesis_file
from consensus import keyfile, signing
from consensus.hotstuff.types import SignKind
from consensus.keyfile import KeyKind
from node.config import ConfigError
from node.errors import (
    DamagedMarkError,
    ForeignDataError,
    InUseError,
    PromisesLostError,
    StorageFailedError,
)
from node.keylock import KeyLock
from node.keyring import Keyring
from node.signer import MemoryKey, Signer
from node.signing import main, service
from node.signing.config import load
from node.signing.service import Service
from node.signing.stores import FileStore
from node.storage.disk import SystemDisk
from node.storage.marks import SlotFile
from tests.consensus.hotstuff.builders import block, chain
from tests.consensus.ledger.test_succession import GENESIS

KEY = keyfile.from_seed(KeyKind.VALIDATOR, bytes(range(1, 33)))
CHAIN = bytes(range(32))
LOG, OTHER_LOG = b"log identity 16b", b"another log 16 b"
VOTE, TIMEOUT, COMMIT = 2, 3, 4


def packed(value: Any) -> bytes:
    data = cbor2.dumps(value, canonical=True)
    return len(data).to_bytes(4, "big") + data


class Peer:
    """The node's end of a connection, by hand."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._buffer = b""

    async def say(self, *values: Any) -> None:
        await self._stream.send_all(b"".join(packed(value) for value in values))

    async def raw(self, data: bytes) -> None:
        await self._stream.send_all(data)

    async def hear(self) -> Any:
        """The next message; None at the end."""
        while True:
            if len(self._buffer) >= 4:
                stop = 4 + int.from_bytes(self._buffer[:4], "big")
                if len(self._buffer) >= stop:
                    data, self._buffer = self._buffer[4:stop], self._buffer[stop:]
                    return cbor2.loads(data)
            try:
                more = await self._stream.receive_some()
            except trio.BrokenResourceError:
                return None
            if not more:
                return None
            self._buffer += more

    async def hello(self, log: bytes = LOG, end: int = 1000, **other: Any) -> Any:
        chain_, key = other.get("chain", CHAIN), other.get("key", KEY.public)
        await self.say([1, chain_, key, log, end, other.get("bodies", [])])
        return await self.hear()

    async def ask(self, *request: Any) -> Any:
        await self.say(list(request))
        return await self.hear()


def vote(round_: int, block_id: bytes = b"b" * 32) -> bytes:
    return cbor2.dumps([1, round_, block_id, 7], canonical=True)


def asked(number: int, round_: int, body: bytes | None = None, synced: int = 1000) -> list[Any]:
    return [
        number,
        VOTE,
        1,
        round_,
        vote(round_) if body is None else body,
        False,
        [-1, -1],
        synced,
    ]


class FullDisk(SystemDisk):
    """Has no room for writes while ``error`` is set."""

    error = 0

    def write(self, handle: int, data: bytes, position: int) -> None:
        if self.error:
            raise OSError(self.error, os.strerror(self.error))
        super().write(handle, data, position)


class Desk:
    """A running service, its mark, and connections to it."""

    def __init__(self, folder: Path, uid: int) -> None:
        self.mark = folder / "mark"
        self.socket = folder / "s"
        fresh = None if self.mark.exists() else Signer(KEY, CHAIN).mark_bytes()
        self.disk = FullDisk()
        self.file = SlotFile.open(self.mark, fresh=fresh, disk=self.disk)
        log = structlog.get_logger()
        self.service = Service(MemoryKey(KEY), self.file, CHAIN, uid, log)

    @asynccontextmanager
    async def peer(self) -> AsyncIterator[Peer]:
        async with await trio.open_unix_socket(str(self.socket)) as stream:
            yield Peer(stream)


@pytest.fixture
def running(tmp_path: Path) -> Callable[..., Any]:
    @asynccontextmanager
    async def run(uid: int | None = None) -> AsyncIterator[Desk]:
        desk = Desk(tmp_path, os.geteuid() if uid is None else uid)
        started = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(desk.service.run, desk.socket, started.set)
            await started.wait()
            try:
                with trio.fail_after(10):
                    yield desk
            finally:
                nursery.cancel_scope.cancel()
                desk.file.close()

    return run


async def test_a_vote_is_signed_and_on_disk_before_it_is_answered(
    running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running() as desk, desk.peer() as peer:
        assert await peer.hello() == [0, []]
        number, status, signature = await peer.ask(*asked(7, 5))
        assert (number, status) == (7, 0)
        signing.verify(KEY.public, b"comity vote\0" + CHAIN + vote(5), signature)
        on_disk = desk.mark.read_bytes()
        assert vote(5) in on_disk


async def test_a_second_body_for_a_slot_is_refused_over_connections_and_starts(
    running: Callable[..., Any],
) -> None:
    other = vote(5, b"c" * 32)
    for start in range(2):
        async with running() as desk:
            for _ in range(2):
                async with desk.peer() as peer:
                    said = await peer.hello()
                    first = await peer.ask(*asked(1, 5))
                    assert first[1] == 0, "the same body again is no second one"
                    refused = await peer.ask(*asked(2, 5, other))
                    assert refused[:3] == [2, 1, "SIGNING_REFUSED"]
                    assert (await peer.ask(*asked(3, 4)))[1] == 1, "nor is one below the mark"
            assert said == [0, [[VOTE, 1, 5, vote(5)]]], f"start {start}"


async def test_requests_that_come_together_share_a_sync_and_are_answered_in_order(
    running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[bytes] = []
    whole = SlotFile.write
    async with running() as desk, desk.peer() as peer:
        await peer.hello()

        def counted(self: SlotFile, content: bytes) -> None:
            writes.append(content)
            whole(self, content)

        monkeypatch.setattr(SlotFile, "write", counted)
        await peer.say(*[asked(n, n) for n in range(1, 9)])
        assert [(await peer.hear())[:2] for _ in range(8)] == [[n, 0] for n in range(1, 9)]
        assert len(writes) == 1


@pytest.mark.parametrize(
    ("body", "kind", "round_"),
    [
        (vote(6), VOTE, 5),  # of another round
        (cbor2.dumps([2, 5, b"b" * 32, 7]), VOTE, 5),  # of another epoch
        (b"b" * 32, VOTE, 5),  # a bare hash
        (cbor2.dumps([1, 5, 5]), TIMEOUT, 5),  # a certificate of the round itself
        (cbor2.dumps([1, 5, b"x"]), TIMEOUT, 5),
        (b"", COMMIT, 5),
        (vote(5), COMMIT, 5),
        (vote(5) + b"\0", VOTE, 5),
        (b"h" * 32, 1, 5),  # a proposal by its id alone
    ],
)
async def test_what_is_not_of_its_kind_and_round_ends_the_connection_unsigned(
    running: Callable[..., Any], body: bytes, kind: int, round_: int
) -> None:
    async with running() as desk:
        async with desk.peer() as peer:
            await peer.hello()
            assert await peer.ask(1, kind, 1, round_, body, False, [-1, -1], 1000) is None
        async with desk.peer() as peer:
            assert await peer.hello() == [0, []]


async def test_a_statement_of_another_network_is_not_signed(running: Callable[..., Any]) -> None:
    row = [bytes(32), 1, 5, 3, b"b" * 32, 1000, 1, *[bytes(32)] * 4, None]
    body = cbor2.dumps(row, canonical=True)
    own = cbor2.dumps([CHAIN, *row[1:]], canonical=True)
    async with running() as desk:
        async with desk.peer() as peer:
            await peer.hello()
            assert await peer.ask(1, COMMIT, 1, 5, body, False, [-1, -1], 1000) is None
        async with desk.peer() as peer:
            await peer.hello()
            answer = await peer.ask(1, COMMIT, 1, 5, own, False, [-1, -1], 1000)
            signing.verify(KEY.public, b"comity commit vote\0" + CHAIN + own, answer[2])


async def test_a_proposal_is_signed_from_its_whole_block(running: Callable[..., Any]) -> None:
    proposed = chain(1, 2)[1]
    async with running() as desk, desk.peer() as peer:
        await peer.hello()
        answer = await peer.ask(1, 1, 1, 2, proposed.encoded, False, [-1, -1], 1000)
        signing.verify(KEY.public, b"comity proposal\0" + CHAIN + proposed.id, answer[2])
        another = block(round_=2, time_ms=proposed.time_ms + 1, justify=proposed.justify)
        refused = await peer.ask(2, 1, 1, 2, another.encoded, False, [-1, -1], 1000)
        assert refused[:3] == [2, 1, "SIGNING_REFUSED"]


async def test_one_node_at_a_time_and_always_of_the_same_log(running: Callable[..., Any]) -> None:
    async with running() as desk:
        async with desk.peer() as first, desk.peer() as second:
            assert (await first.hello())[0] == 0
            assert (await first.ask(*asked(1, 5)))[1] == 0
            refused = await second.hello(OTHER_LOG)
            assert refused[:2] == [1, "IN_USE"]
            assert await second.hear() is None
        async with desk.peer() as second:
            assert (await second.hello(OTHER_LOG))[:2] == [1, "PROMISES_LOST"]
        async with desk.peer() as first:
            assert (await first.hello())[0] == 0


async def test_a_log_that_lost_its_end_gets_nothing_ever_again(
    running: Callable[..., Any],
) -> None:
    async with running() as desk:
        async with desk.peer() as peer:
            await peer.hello(end=1000)
            await peer.ask(*asked(1, 5, synced=5000))
        async with desk.peer() as peer:
            assert (await peer.hello(end=4999))[:2] == [1, "PROMISES_LOST"]
        async with desk.peer() as peer:
            assert (await peer.hello(end=9000))[:2] == [1, "PROMISES_LOST"]


async def test_what_the_log_tells_of_is_taken_over(running: Callable[..., Any]) -> None:
    async with running() as desk, desk.peer() as peer:
        body = [VOTE, 1, 9, vote(9)]
        assert await peer.hello(bodies=[body]) == [0, [body]]
        assert (await peer.ask(*asked(1, 8)))[1] == 1


@pytest.mark.parametrize(
    ("other", "code"),
    [({"chain": bytes(32)}, "FOREIGN_DATA"), ({"key": bytes(32)}, "FOREIGN_DATA")],
)
async def test_another_network_or_key_is_refused(
    running: Callable[..., Any], other: dict[str, bytes], code: str
) -> None:
    async with running() as desk, desk.peer() as peer:
        assert (await peer.hello(**other))[:2] == [1, code]


async def test_another_users_process_is_not_served(running: Callable[..., Any]) -> None:
    async with running(uid=os.geteuid() + 1) as desk, desk.peer() as peer:
        await peer.say([1, CHAIN, KEY.public, LOG, 1000, []])
        assert await peer.hear() is None


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x00\x00\x00",
        b"\xff\xff\xff\xff",
        (128 * 1024 + 1).to_bytes(4, "big"),
        packed([2, CHAIN, KEY.public, LOG, 0, []]),
        packed("hello"),
        packed([]),
        b"\x00\x00\x00\x01\x9f",
    ],
)
async def test_malformed_hellos_end_the_connection_and_nothing_else(
    running: Callable[..., Any], data: bytes
) -> None:
    async with running() as desk:
        async with desk.peer() as peer:
            await peer.raw(data)
            said = await peer.hear()
            assert said is None or said[:2] == [1, "MALFORMED"]
        async with desk.peer() as peer:
            assert await peer.hello() == [0, []]


async def test_whoever_says_nothing_is_cut_off_and_many_are_bounded(
    running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "HELLO_SECONDS_MAX", 0.05)
    async with running() as desk:
        async with desk.peer() as peer:
            assert await peer.hear() is None
        async with trio.open_nursery() as nursery:

            async def silent() -> None:
                async with desk.peer() as peer:
                    assert await peer.hear() is None

            for _ in range(3 * service.CONNECTIONS_MAX):
                nursery.start_soon(silent)
        async with desk.peer() as peer:
            assert (await peer.hello())[0] == 0


# --- a full disk ----------------------------------------------------------------------------------


async def test_without_room_for_its_mark_it_signs_nothing_says_so_and_goes_on_by_itself(
    running: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "RETRY_SECONDS", 0.01)
    async with running() as desk:
        async with desk.peer() as peer:
            await peer.hello()
            assert (await peer.ask(*asked(1, 5)))[1] == 0
            desk.disk.error = errno.ENOSPC
            assert await peer.ask(*asked(2, 6)) is None, "no answer, and the connection ends"
        assert "nothing is signed" in desk.service.summary()
        assert vote(6) not in desk.mark.read_bytes()
        async with desk.peer() as peer:
            refused = await peer.hello()
            assert refused[:2] == [1, "STORAGE_FAILED"]
            assert "is full: nothing is signed" in refused[2]
            assert "make room" in refused[3]
        desk.disk.error = 0
        while desk.file.full:  # noqa: ASYNC110 - of a service, which has no event for it
            await trio.sleep(0.01)
        async with desk.peer() as peer:
            # what was asked without an answer is promised: it is told, and signed word for word
            assert await peer.hello() == [0, [[VOTE, 1, 6, vote(6)]]]
            refused = await peer.ask(*asked(1, 6, vote(6, b"c" * 32)))
            assert refused[:3] == [1, 1, "SIGNING_REFUSED"]
            assert (await peer.ask(*asked(2, 6)))[1] == 0
            assert (await peer.ask(*asked(3, 7)))[1] == 0
        assert vote(7) in desk.mark.read_bytes()


async def test_a_disk_that_fails_otherwise_ends_the_signer(running: Callable[..., Any]) -> None:
    async def until_it_ends() -> None:
        async with running() as desk, desk.peer() as peer:
            await peer.hello()
            desk.disk.error = errno.EIO
            assert await peer.ask(*asked(1, 5)) is None
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await until_it_ends()
    assert caught.group_contains(StorageFailedError)


# --- files --------------------------------------------------------------------------------------


def configured(folder: Path, **changed: str) -> Path:
    """A signer's folder with key, genesis file and configuration."""
    folder.chmod(0o700)
    (folder / "genesis.cbor").write_bytes(GENESIS.encode())
    key = folder / "validator.key"
    key.write_bytes(keyfile.pack(KEY))
    key.chmod(0o600)
    given = {
        "genesis": "genesis.cbor",
        "socket": "s",
        "client_user": str(os.geteuid()),
        "key": "validator.key",
        **changed,
    }
    path = folder / "signer.toml"
    path.write_text("[signer]\n" + "".join(f'{k} = "{v}"\n' for k, v in given.items() if v))
    return path


def test_a_mark_is_begun_once_and_without_one_nothing_starts(tmp_path: Path) -> None:
    path = configured(tmp_path)
    with pytest.raises(PromisesLostError, match="there is no mark") as caught:
        main.check(path)
    assert "comity signer init" in caught.value.hint
    begun = main.init(path)
    assert (begun.public, begun.took_over) == (KEY.public, False)
    assert any("signs" in line for line in main.check(path))
    with pytest.raises(ConfigError, match="there is a mark"):
        main.init(path)


def test_the_mark_of_a_node_is_taken_over_and_must_be_of_this_key(tmp_path: Path) -> None:
    chain_ = genesis_file.chain_id(GENESIS.encode())
    other = keyfile.from_seed(KeyKind.VALIDATOR, bytes(32))
    path = configured(tmp_path)
    for pair, name in ((KEY, "own"), (other, "other")):
        signer = Signer.open(
            pair, tmp_path / name, chain=chain_, log_identity=LOG, log_end=10, fresh=True
        )
        signer.sign(SignKind.VOTE, 1, 6, vote(6))
        signer.write_mark(10)
        signer.close()
    with pytest.raises(ForeignDataError, match="another key"):
        main.init(path, took_from=tmp_path / "other")
    with pytest.raises(ConfigError, match="there is no mark at"):
        main.init(path, took_from=tmp_path / "none")
    assert main.init(path, took_from=tmp_path / "own").took_over
    assert vote(6) in (tmp_path / "signer.mark").read_bytes()


def test_two_processes_cannot_hold_one_key_file_nor_one_mark(tmp_path: Path) -> None:
    path = configured(tmp_path)
    main.init(path)
    lock = KeyLock(tmp_path / "validator.key")
    with pytest.raises(InUseError, match=r"another process.* signs with the key file"):
        FileStore(tmp_path / "validator.key", Keyring(None, {}))
    with pytest.raises(InUseError):
        main.check(path)
    lock.close()
    file = SlotFile.open(tmp_path / "signer.mark")
    with pytest.raises(InUseError):
        SlotFile.open(tmp_path / "signer.mark")
    file.close()
    main.check(path)


def test_a_check_beside_a_running_signer_says_so_and_what_its_next_start_would_find(
    tmp_path: Path,
) -> None:
    path = configured(tmp_path)
    main.init(path)
    before = main.check(path)
    mark = tmp_path / "signer.mark"
    lock, file = KeyLock(tmp_path / "validator.key"), SlotFile.open(mark)
    content = mark.read_bytes()
    running, *found = main.check(path)
    who = rf"running: a signer \(process {os.getpid()}, .*\) uses {re.escape(str(mark))}; "
    assert re.match(who + "what follows is for its next start", running)
    assert [each.split(": ")[0] for each in found] == [each.split(": ")[0] for each in before]
    assert f"mark: {mark}, of this key and network" in found
    assert mark.read_bytes() == content
    mark.write_bytes(bytes(len(content)))
    with pytest.raises(DamagedMarkError, match="neither slot"):
        main.check(path)
    mark.unlink()
    with pytest.raises(PromisesLostError, match="there is no mark"):
        main.check(path)
    mark.write_bytes(content)
    other = keyfile.from_seed(KeyKind.VALIDATOR, bytes(32))
    (tmp_path / "validator.key").write_bytes(keyfile.pack(other))
    with pytest.raises(ForeignDataError, match="belongs to another key"):
        main.check(path)
    file.close()
    lock.close()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"key": ""}, "either [signer] key or a [token]"),
        ({"client_user": "nobody-of-this-name"}, "is no user of this machine"),
        ({"genesis": "gone"}, "cannot read the genesis file"),
        ({"genesis": "validator.key"}, "cannot be used"),
        ({"key": "gone.key"}, "cannot open the key file"),
        ({"sockets": "s"}, "unknown [signer] key 'sockets'; did you mean 'socket'?"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    path = configured(tmp_path, **changed)
    with pytest.raises(Exception) as caught:
        main.init(path)
    assert said in str(caught.value)
    assert getattr(caught.value, "hint", "")


def test_overrides_and_paths_are_those_of_a_nodes_configuration(tmp_path: Path) -> None:
    path = configured(tmp_path)
    config = load(path, {"COMITY_SIGNER_SOCKET": "/run/other"})
    assert config.signer.socket == "/run/other"
    assert config.path("x") == tmp_path / "x"


def test_a_folder_of_the_mark_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    path = configured(tmp_path)
    main.init(path)
    tmp_path.chmod(0o770)
    with pytest.raises(Exception, match="others may write to the folder"):
        main.check(path)
    tmp_path.chmod(0o700)
