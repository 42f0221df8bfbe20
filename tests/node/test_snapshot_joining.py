"""Serving and joining, with links in memory: hostile peers, slow ones, and those that go away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.lowlevel

from consensus.errors import DecodeError
from consensus.hotstuff.types import Certificates
from consensus.hotstuff.wire import encode_message
from consensus.snapshot import verify_manifest
from consensus.state.state import State
from node.errors import PromisesLostError, SnapshotError
from node.identity import Identity
from node.network.peers import Hello
from node.network.wire import Class
from node.signer import Signer
from node.silent import SilentSigner
from node.snapshots import pulling, serving, source, wire
from node.snapshots.joining import Joiner
from node.snapshots.serving import SnapshotServer
from node.snapshots.wire import Ask, Gone, Offer, Part, Want
from node.storage.store import Store
from node.telemetry.metrics import Metrics
from tests.node.test_snapshots import pair_of
from tests.snapshots import CertifiedState, certify, town_state

TOWN = town_state()
OWN = 3
"""Whoever joins; the others serve."""
Bend = Callable[[bytes], bytes | None]
"""What a peer makes of a frame before it leaves; None: it keeps it."""


@dataclass
class Hub:
    """Links of one joiner with several peers, as ``PeerNetwork`` gives them."""

    joiner: Joiner | None = None
    servers: dict[int, SnapshotServer] = field(default_factory=dict)
    bends: dict[int, Bend] = field(default_factory=dict)
    faults: dict[int, str] = field(default_factory=dict)
    closed: dict[int, None] = field(default_factory=dict)
    sent: list[tuple[int, Any]] = field(default_factory=list)
    """What the joiner sent."""

    @property
    def connected(self) -> frozenset[int]:
        return frozenset(self.servers) - self.closed.keys()

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        """From the joiner to a peer."""
        assert cls is Class.SYNC
        if peer not in self.connected:
            return False
        self.sent.append((peer, wire.decode(payload)))
        self.servers[peer].receive(OWN, payload)
        return True

    def close_link(self, peer: int, reason: str, code: str = "") -> None:
        self.faults[peer] = reason
        self.closed[peer] = None

    def outward(self, peer: int) -> Any:
        """The links of a peer that serves."""
        hub = self

        class Links:
            def send(self, to: int, cls: Class, payload: bytes) -> bool:
                assert to == OWN
                assert cls is Class.SYNC
                bent = hub.bends.get(peer, lambda each: each)(payload)
                if bent is not None and peer in hub.connected and hub.joiner is not None:
                    hub.joiner.received(peer, cls, bent)
                return True

        return Links()


def identity_of(state: CertifiedState, index: int) -> Identity:
    return Identity(state.genesis, state.chain, index)


@dataclass
class Serving:
    store: Store
    server: SnapshotServer


def server_of(hub: Hub, folder: Path, peer: int, state: CertifiedState) -> Serving:
    store = Store.open(state.store(folder / str(peer)), chain=state.chain, map_bytes=1 << 26)
    working = State(store.state, state.depth, state.statement.height)
    links = hub.outward(peer)
    server = SnapshotServer(
        identity_of(state, peer), store, lambda: working, links, lambda *a, **k: None, Metrics()
    )
    hub.servers[peer] = server
    return Serving(store, server)


@asynccontextmanager
async def town(tmp_path: Path, *states: CertifiedState, above: int = 0, signer: Any = None) -> Any:
    """A hub with a server for each state, running, and a joiner."""
    hub, running = Hub(), []
    try:
        for peer, state in enumerate(states):
            running.append(server_of(hub, tmp_path / "peers", peer, state))
        folder = tmp_path / "own"
        folder.mkdir()
        signer = signer or SilentSigner(pair_of(OWN), TOWN.chain)
        hub.joiner = Joiner(
            identity_of(TOWN, OWN), signer, folder, above, structlog.get_logger(), Metrics()
        )
        async with trio.open_nursery() as nursery:
            for each in running:
                nursery.start_soon(each.server.run)
            yield hub
            nursery.cancel_scope.cancel()
    finally:
        for each in running:
            each.store.close()


async def join(hub: Hub) -> int:
    """Join; errors come without the groups of nurseries."""
    assert hub.joiner is not None
    try:
        return await hub.joiner.run(hub)  # type: ignore[arg-type]
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        raise error from None


def taken(tmp_path: Path) -> tuple[int, dict[bytes, Any]]:
    """Height and rows of the joiner's store."""
    store = Store.open(tmp_path / "own" / "state", chain=TOWN.chain, map_bytes=1 << 26)
    try:
        found = State(store.state, TOWN.depth, store.height)
        assert found.root == TOWN.statement.state_root
        return store.height, {kh: store.view.get(kh) for kh in TOWN.rows}
    finally:
        store.close()


@pytest.fixture(autouse=True)
def many_small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state is cut into 16 chunks of several parts, and the longest are split."""
    monkeypatch.setattr(serving, "row_bits", lambda size, depth: 4)
    monkeypatch.setattr(source, "CHUNK_BYTES_SPLIT", 3_000)
    monkeypatch.setattr(wire, "PART_BYTES", 700)
    monkeypatch.setattr(serving, "BOUNDARY_SECONDS_MAX", 0.01)


@pytest.fixture(autouse=True)
def threads_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker threads work in place: virtual time does not pass meanwhile."""

    async def run_sync(work: Callable[..., Any], *args: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return work(*args)

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)


async def test_a_node_takes_pieces_from_all_who_have_the_same(tmp_path: Path) -> None:
    async with town(tmp_path, TOWN, TOWN, TOWN) as hub:
        assert await join(hub) == 12
        asked = {peer for peer, message in hub.sent if isinstance(message, Want)}
        assert asked == {0, 1, 2}
        assert not hub.faults
    assert taken(tmp_path) == (12, TOWN.rows)


def forging(at: int) -> Bend:
    """A peer that changes a byte of every piece."""

    def bend(payload: bytes) -> bytes:
        message = wire.decode(payload)
        if isinstance(message, Part) and message.part == 0:
            data = bytearray(message.data)
            data[at % len(data)] ^= 1
            return wire.encode(replace(message, data=bytes(data)))
        return payload

    return bend


@pytest.mark.parametrize("at", [0, 2, 60, 200, -1])
async def test_whoever_sends_a_forged_piece_is_used_no_more(tmp_path: Path, at: int) -> None:
    async with town(tmp_path, TOWN, TOWN, TOWN) as hub:
        hub.bends[1] = forging(at)
        assert await join(hub) == 12
        assert list(hub.faults) == [1]
        assert "chunk " in hub.faults[1]
        last = max(n for n, (peer, _) in enumerate(hub.sent) if peer == 1)
        assert last < len(hub.sent) - 1
    assert taken(tmp_path) == (12, TOWN.rows)


async def test_a_piece_of_another_node_is_refused(tmp_path: Path) -> None:
    async with town(tmp_path, TOWN, TOWN) as hub:
        others: dict[int, bytes] = {}

        def swap(payload: bytes) -> bytes:
            message = wire.decode(payload)
            if isinstance(message, Part) and message.count == 1:
                others.setdefault(message.node, message.data)
                wrong = next((d for n, d in others.items() if n != message.node), message.data)
                return wire.encode(replace(message, data=wrong))
            return payload

        hub.bends[0] = swap
        assert await join(hub) == 12
        assert list(hub.faults) == [0]


@pytest.mark.parametrize("fault", ["manifest", "part", "other network", "malformed"])
async def test_a_false_offer_closes_the_link_and_changes_nothing(
    tmp_path: Path, fault: str
) -> None:
    other = certify(replace(TOWN.genesis, network="other"), TOWN.rows).manifest(4)

    def bend(payload: bytes) -> bytes:
        message = wire.decode(payload)
        if not isinstance(message, Offer):
            return payload
        match fault:
            case "manifest":
                bad = replace(TOWN.manifest(4), row=bytes(512)).encode()
            case "part":
                bad = replace(TOWN.manifest(4), parts=(0,)).encode()
            case "other network":
                bad = other.encode()
            case _:
                return payload[:-1]
        return wire.encode(Offer(bad, None))

    async with town(tmp_path, TOWN, TOWN) as hub:
        hub.bends[0] = bend
        assert await join(hub) == 12
        assert list(hub.faults) == [0]
    assert taken(tmp_path) == (12, TOWN.rows)


async def test_a_peer_that_keeps_silent_is_passed_over(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with town(tmp_path, TOWN, TOWN) as hub:
        hub.bends[0] = lambda p: None if isinstance(wire.decode(p), Part) else p
        assert await join(hub) == 12
    assert taken(tmp_path) == (12, TOWN.rows)


async def test_a_peer_that_closes_its_snapshot_is_passed_over(tmp_path: Path) -> None:
    async with town(tmp_path, TOWN, TOWN) as hub:
        count = [0]

        def bend(payload: bytes) -> bytes:
            count[0] += isinstance(wire.decode(payload), Part)
            return wire.encode(Gone(12)) if count[0] > 2 else payload

        hub.bends[0] = bend
        assert await join(hub) == 12
    assert taken(tmp_path) == (12, TOWN.rows)


async def test_when_nobody_has_the_rest_the_old_store_stays(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with town(tmp_path, TOWN) as hub:
        (tmp_path / "own" / "state").mkdir()
        (tmp_path / "own" / "state" / "old").write_bytes(b"old")
        (tmp_path / "own" / "signer.mark").write_bytes(b"promises")
        hub.bends[0] = forging(-1)
        with pytest.raises(SnapshotError, match="no peer has the rest"):
            await join(hub)
    assert (tmp_path / "own" / "state" / "old").read_bytes() == b"old"
    assert (tmp_path / "own" / "signer.mark").read_bytes() == b"promises"
    assert sorted(each.name for each in (tmp_path / "own").iterdir()) == ["signer.mark", "state"]


async def test_no_offer_ends_joining(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with town(tmp_path, TOWN, above=12) as hub:
        with pytest.raises(SnapshotError, match="no peer offers"):
            await join(hub)


async def test_what_most_have_is_taken_and_others_give_what_is_the_same(tmp_path: Path) -> None:
    changed = dict(TOWN.rows)
    kh = b"\xe0" * 32
    changed[kh] = changed[kh]._replace(changed_height=8)
    other = certify(TOWN.genesis, changed, height=13)
    async with town(tmp_path, TOWN, other, TOWN) as hub:
        assert await join(hub) == 12
        wanted = [m for peer, m in hub.sent if peer == 1 and isinstance(m, Want)]
        assert wanted
        assert {each.height for each in wanted} == {13}
        assert all(each.node >> (each.node.bit_length() - 5) != 0b1_1110 for each in wanted)
        assert not hub.faults
    assert taken(tmp_path) == (12, TOWN.rows)


# --- promises ------------------------------------------------------------------------------------


def signer_of(index: int) -> Signer:
    """A signer that has signed nothing."""
    return Signer(pair_of(index), TOWN.chain)


async def test_a_key_that_a_peer_shows_to_have_signed_takes_no_snapshot(tmp_path: Path) -> None:
    proof = certify(TOWN.genesis, TOWN.rows, height=4, signers=(0, 1, OWN)).certificate

    def bend(payload: bytes) -> bytes:
        message = wire.decode(payload)
        if isinstance(message, Offer):
            return wire.encode(replace(message, proof=proof.encoded))
        return payload

    async with town(tmp_path, TOWN, TOWN, signer=signer_of(OWN)) as hub:
        hub.bends[1] = bend
        with pytest.raises(PromisesLostError, match="commit vote of this key for epoch 1 round 5"):
            await join(hub)
    assert list((tmp_path / "own").iterdir()) == []


async def test_the_server_finds_what_the_asker_has_signed(tmp_path: Path) -> None:
    state = certify(TOWN.genesis, TOWN.rows, signers=(0, 1, OWN))
    async with town(tmp_path, state, signer=signer_of(OWN)) as hub:
        with pytest.raises(PromisesLostError, match="commit vote of this key for epoch 1 round 13"):
            await join(hub)


async def test_a_false_proof_keeps_no_new_key_away(tmp_path: Path) -> None:
    real = certify(TOWN.genesis, TOWN.rows, height=4, signers=(0, 1, OWN)).certificate
    forged = replace(real, signatures=(*real.signatures[:2], (OWN, bytes(64))))

    def bend(payload: bytes) -> bytes:
        message = wire.decode(payload)
        if isinstance(message, Offer):
            return wire.encode(replace(message, proof=forged.encoded))
        return payload

    async with town(tmp_path, TOWN, TOWN, signer=signer_of(OWN)) as hub:
        hub.bends[0] = bend
        assert await join(hub) == 12
        assert list(hub.faults) == [0]


async def test_a_hello_that_shows_a_forgotten_signature_ends_joining(tmp_path: Path) -> None:
    state = certify(TOWN.genesis, TOWN.rows, signers=(0, 1, OWN))
    extras = encode_message(Certificates(1, None, None, state.certificate))
    async with town(tmp_path, TOWN, signer=signer_of(OWN)) as hub:
        hub.joiner.connected(0, Hello(TOWN.chain, 1, 12, 0, bytes(16), extras))
        with pytest.raises(PromisesLostError, match="round 13"):
            await join(hub)


# --- what a server bears -------------------------------------------------------------------------


async def answered(hub: Hub, *messages: Any) -> list[Any]:
    """What a server answers to messages that come all at once."""
    hub.joiner = None
    payloads: list[bytes] = []
    hub.bends[0] = lambda payload: payloads.append(payload)  # type: ignore[func-returns-value]
    for message in messages:
        hub.servers[0].receive(OWN, wire.encode(message))
    with trio.move_on_after(0.5):
        while len(payloads) < len(messages):  # noqa: ASYNC110 - of a server, which has no event
            await trio.sleep(0.005)
    return [wire.decode(each) for each in payloads]


async def test_wants_beyond_what_one_peer_may_have_waiting_are_dropped(tmp_path: Path) -> None:
    async with town(tmp_path, TOWN) as hub:
        assert isinstance((await answered(hub, Ask()))[0], Offer)
        many = [Want(12, 0b1_0000 + n % 16, 0) for n in range(100)]
        assert len(await answered(hub, *many)) == serving.WANTS_MAX


@pytest.mark.parametrize(
    "want",
    [
        Want(11, 0b1_0000, 0),
        Want(12, 1, 0),
        Want(12, 0b1_00000, 0),
        Want(12, (1 << 62) + 5, 0),
        Want(12, (1 << 63) - 1, 0),
    ],
)
async def test_a_want_that_fits_nothing_is_answered_with_gone(tmp_path: Path, want: Want) -> None:
    async with town(tmp_path, TOWN) as hub:
        await answered(hub, Ask())
        assert await answered(hub, want) == [Gone(want.height)]


async def test_asking_again_at_once_is_not_answered_and_later_gets_the_same(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with town(tmp_path, TOWN) as hub:
        assert len(await answered(hub, Ask(), Ask(), Ask())) == 1
        await trio.sleep(serving.ASK_SECONDS_MIN)
        assert isinstance((await answered(hub, Ask()))[0], Offer)


async def test_a_snapshot_nobody_uses_is_closed(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with town(tmp_path, TOWN) as hub:
        await answered(hub, Ask())
        server = hub.servers[0]
        assert server._store._pinned
        await trio.sleep(serving.FRESH_SECONDS + serving.IDLE_SECONDS + 1)
        assert not server._store._pinned


async def test_a_snapshot_in_use_is_closed_in_the_end(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    async with town(tmp_path, TOWN) as hub:
        await answered(hub, Ask())
        begun = trio.current_time()
        while trio.current_time() - begun < serving.HOLD_SECONDS_MAX + 10:
            last = await answered(hub, Want(12, 0b1_0000, 0))
            await trio.sleep(serving.IDLE_SECONDS)
        assert last == [Gone(12)]
        assert not hub.servers[0]._store._pinned


async def test_a_store_whose_map_grows_closes_what_is_pinned(tmp_path: Path) -> None:
    async with town(tmp_path, TOWN) as hub:
        await answered(hub, Ask())
        hub.servers[0]._store._map(1 << 27)
        assert await answered(hub, Want(12, 0b1_0000, 0)) == [Gone(12)]
        await trio.lowlevel.checkpoint()
        assert hub.servers[0]._store.view.get(b"\xe0" * 32) is not None


# --- bytes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        Ask(),
        Offer(b"manifest", None),
        Offer(b"manifest", b"proof"),
        Want(7, 1 << 10 | 5, 3),
        Part(7, 1 << 10 | 5, 3, 4, b"data"),
        Gone(0),
    ],
    ids=lambda each: type(each).__name__,
)
def test_a_message_is_read_as_it_was_written(message: Any) -> None:
    encoded = wire.encode(message)
    assert wire.is_known(encoded)
    assert wire.decode(encoded) == message
    for cut in range(len(encoded)):
        with pytest.raises(DecodeError):
            wire.decode(encoded[:cut])
    with pytest.raises(DecodeError):
        wire.decode(encoded + b"\x00")


@pytest.mark.parametrize(
    "data",
    ["81185f", "82186100", "8618630705040440", "861863070504044100", "83186407", "84186207000000"],
)
def test_a_message_of_another_form_is_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        wire.decode(bytes.fromhex(data))


def test_no_more_pieces_wait_than_the_window_holds() -> None:
    state = TOWN.manifest(4)
    certified = verify_manifest(state, TOWN.chain)
    found = pulling.Pulling(certified, {0: certified, 1: certified})
    wants = found.wants(0.0)
    assert len(wants) == 2 * pulling.ASKED_OF_ONE_MAX
    assert found.wants(0.0) == []
    peer, want = wants[0]
    assert found.take(1 - peer, Part(12, want.node, 0, 1, b"x"), 0.0) is None  # not asked of it
    assert found.take(peer, Part(12, want.node, 1, 2, b"x"), 0.0) is None  # out of order
    assert found.take(peer, Part(12, 99, 0, 1, b"x"), 0.0) is None
    slot = found.take(peer, Part(12, want.node, 0, 1, b"x"), 0.0)
    assert isinstance(slot, pulling.Slot)
    assert found.take(peer, Part(12, want.node, 0, 1, b"x"), 0.0) is None  # a second time
    late = found.wants(pulling.LATE_SECONDS + 1)
    assert late
