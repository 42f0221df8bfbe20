"""Introduction and traffic of one connection, on memory streams and a virtual clock."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from consensus.errors import DecodeError, LocalProtocolError, RemoteProtocolError
from node.network import wire
from node.network.errors import ConnectionLost, LinkRefused, UnexpectedFrame
from node.network.framing import pack
from node.network.introduction import introduce
from node.network.link import FRAMES_AT_ONCE_MAX, Link, LinkLimits
from node.network.outbound import QueueLimits
from node.network.stats import LinkStats
from node.network.wire import Class, Hello, Refusal
from tests.node.network.harness import Inbound

CHAIN = bytes(range(32))
LIMITS = LinkLimits(
    frame_bytes_max={Class.CONSENSUS: 1000, Class.BATCH: 2000, Class.SYNC: 3000},
    queues={
        Class.CONSENSUS: QueueLimits(frames_max=4, bytes_max=10_000),
        Class.BATCH: QueueLimits(frames_max=3, bytes_max=10_000),
        Class.SYNC: QueueLimits(frames_max=2, bytes_max=10_000),
    },
)


def hello(index: int) -> Hello:
    return Hello(CHAIN, 1, 100 + index, index, bytes([index]) * 16, b"extras")


@dataclass
class Side:
    """One node's end of a connection: index 0 dials, 1 accepts."""

    index: int
    stream: trio.abc.Stream
    ours: Hello
    stats: LinkStats = field(default_factory=LinkStats)
    link: Link | None = None
    error: Exception | None = None

    async def introduce(self) -> None:
        try:
            self.link = await introduce(
                self.stream, 1 - self.index, self.ours, LIMITS, self.stats, dialled=self.index == 0
            )
        except (RemoteProtocolError, ConnectionLost) as error:
            self.error = error
            await self.stream.aclose()


def sides() -> tuple[Side, Side]:
    left, right = trio.testing.memory_stream_pair()
    return Side(0, left, hello(0)), Side(1, right, hello(1))


async def met(dialer: Side, acceptor: Side) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialer.introduce)
        nursery.start_soon(acceptor.introduce)


class Peer:
    """The other end, driven by hand."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self.received = b""

    async def send(self, *payloads: bytes) -> None:
        await self.stream.send_all(b"".join(map(pack, payloads)))

    async def receive(self) -> bytes:
        """Return the next payload."""
        while True:
            if len(self.received) >= 4:
                end = 4 + int.from_bytes(self.received[:4])
                if len(self.received) >= end:
                    payload, self.received = self.received[4:end], self.received[end:]
                    return payload
            data = await self.stream.receive_some(10_000)
            assert data, "the node closed the stream"
            self.received += data

    async def receive_data(self) -> bytes:
        """Return the next payload that is no ping."""
        while (payload := await self.receive())[0] == wire.PING:
            pass
        return payload


# --- introduction -----------------------------------------------------------------------------


async def test_both_sides_know_each_other_after_the_introduction() -> None:
    dialer, acceptor = sides()
    await met(dialer, acceptor)
    assert dialer.link is not None
    assert acceptor.link is not None
    assert dialer.link.hello == hello(1)
    assert acceptor.link.hello == hello(0)


async def test_a_dialer_is_not_connected_before_its_nonce_comes_back() -> None:
    side, other = sides()
    peer = Peer(other.stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.introduce)
        assert wire.decode_hello(await peer.receive()) == hello(0)
        await peer.send(wire.encode_hello(hello(1)))
        await trio.testing.wait_all_tasks_blocked()
        assert side.link is None
        await peer.send(b"\x02" + hello(0).nonce)
        assert await peer.receive() == b"\x02" + hello(1).nonce
    assert side.link is not None


async def test_an_acceptor_is_not_connected_before_its_nonce_comes_back() -> None:
    other, side = sides()
    peer = Peer(other.stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.introduce)
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(wire.encode_hello(hello(0)))
        assert wire.decode_hello(await peer.receive()) == hello(1)
        assert await peer.receive() == b"\x02" + hello(0).nonce
        await trio.testing.wait_all_tasks_blocked()
        assert side.link is None
        await peer.send(b"\x02" + hello(1).nonce)
    assert side.link is not None


async def test_an_acceptor_tells_nothing_of_itself_before_hello() -> None:
    other, side = sides()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.introduce)
        await trio.testing.wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await other.stream.receive_some()
        assert scope.cancelled_caught
        nursery.cancel_scope.cancel()


async def test_traffic_right_behind_the_introduction_is_not_lost() -> None:
    other, side = sides()
    await Peer(other.stream).send(
        wire.encode_hello(hello(0)), b"\x02" + hello(1).nonce, b"\x10early", b"\x11bird"
    )
    await side.introduce()
    assert side.link is not None
    async with carrying(side.link) as (events, _):
        assert await events.receive() == Inbound(0, Class.CONSENSUS, b"early")
        assert await events.receive() == Inbound(0, Class.BATCH, b"bird")


@pytest.mark.parametrize(
    ("wrong", "change", "reason"),
    [
        (0, {"chain": bytes(32)}, Refusal.OTHER_CHAIN),
        (0, {"index": 7}, Refusal.NOT_A_MEMBER),
        (1, {"index": 7}, Refusal.NOT_A_MEMBER),
    ],
)
async def test_an_unfit_hello_is_refused_and_the_sender_told_why(
    wrong: int, change: dict[str, Any], reason: Refusal
) -> None:
    pair = sides()
    right = 1 - wrong
    pair[wrong].ours = replace(pair[wrong].ours, **change)
    await met(*pair)
    error = pair[right].error
    assert isinstance(error, LinkRefused)
    assert (error.reason, error.by_peer) == (reason, False)
    told = pair[wrong].error
    assert isinstance(told, LinkRefused)
    assert told.reason == reason
    assert pair[0].link is pair[1].link is None


async def test_another_version_is_refused_and_the_sender_told_why() -> None:
    other, side = sides()
    peer = Peer(other.stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.introduce)
        await peer.send(b"\x01\x82\x02\xf6")  # [2, null]
        told = wire.decode_refused(await peer.receive())
        assert told.reason == Refusal.OTHER_VERSION
        await other.stream.aclose()
    assert isinstance(side.error, LinkRefused)


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"\x01\xff\xff", DecodeError),  # a hello that is not CBOR
        (b"\x10data before hello", UnexpectedFrame),
        (b"\x02" + bytes(16), UnexpectedFrame),
        (b"GET / HTTP/1.1", UnexpectedFrame),
    ],
)
async def test_a_malformed_introduction_is_refused(first: bytes, expected: type[Exception]) -> None:
    other, side = sides()
    peer = Peer(other.stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.introduce)
        await peer.send(first)
        assert wire.decode_refused(await peer.receive()).reason == Refusal.MALFORMED
        await other.stream.aclose()
    assert isinstance(side.error, expected)


@pytest.mark.parametrize("echo", [bytes(16), b"", hello(1).nonce + b"\0", hello(0).nonce])
async def test_an_echo_of_another_nonce_is_refused(echo: bytes) -> None:
    other, side = sides()
    peer = Peer(other.stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(side.introduce)
        await peer.send(wire.encode_hello(hello(0)), b"\x02" + echo)
        await trio.testing.wait_all_tasks_blocked()
        await other.stream.aclose()
    assert isinstance(side.error, UnexpectedFrame)


async def test_an_end_during_the_introduction_is_a_lost_connection() -> None:
    other, side = sides()
    await other.stream.aclose()
    await side.introduce()
    assert isinstance(side.error, ConnectionLost)


async def test_a_refused_peer_that_stays_is_left_after_a_second(
    autojump_clock: MockClock,
) -> None:
    other, side = sides()
    await Peer(other.stream).send(b"\x01garbage")
    await side.introduce()
    assert isinstance(side.error, DecodeError)
    assert trio.current_time() == pytest.approx(1.0)


# --- traffic ----------------------------------------------------------------------------------

Carried = tuple["trio.MemoryReceiveChannel[Inbound]", trio.Event]


@asynccontextmanager
async def carrying(
    link: Link, handle: Callable[[Inbound], None] = lambda _: None
) -> AsyncIterator[Carried]:
    """Run a link for the length of the block; yield what it hands on and an event of its end."""
    send, receive = trio.open_memory_channel[Inbound](1000)
    ended = trio.Event()

    def received(peer: int, cls: Class, payload: bytes) -> None:
        event = Inbound(peer, cls, payload)
        send.send_nowait(event)
        handle(event)

    async def run() -> None:
        await link.run(received)
        await link.aclose()
        ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        yield receive, ended
        nursery.cancel_scope.cancel()


async def introduced() -> tuple[Link, Peer, LinkStats]:
    """Return the accepting side's link with a peer driven by hand."""
    other, side = sides()
    peer = Peer(other.stream)
    await peer.send(wire.encode_hello(hello(0)), b"\x02" + hello(1).nonce)
    await side.introduce()
    assert side.link is not None
    assert await peer.receive() == wire.encode_hello(hello(1))
    assert await peer.receive() == b"\x02" + hello(0).nonce
    return side.link, peer, side.stats


async def test_payloads_travel_both_ways_and_are_counted() -> None:
    link, peer, stats = await introduced()
    async with carrying(link) as (events, _):
        assert link.offer(Class.SYNC, b"question")
        assert await peer.receive_data() == b"\x12question"
        await peer.send(b"\x12answer")
        assert await events.receive() == Inbound(0, Class.SYNC, b"answer")
    sync = stats.by_class[Class.SYNC]
    assert (sync.frames_sent, sync.bytes_sent) == (1, 8)
    assert (sync.frames_received, sync.bytes_received) == (1, 6)


@pytest.mark.parametrize(
    ("payload", "oversize"),
    [
        (b"\x10" + bytes(1001), 1),
        (b"\x11" + bytes(2001), 1),
        (b"\x12" + bytes(3001), 1),
        (b"\x10", 0),  # no body
        (b"\x00", 0),  # no such kind
        (b"\x7f" + bytes(50), 0),
        (b"\x04" + bytes(7), 0),  # a ping has eight bytes
        (b"\x05" + bytes(9), 0),
        (b"\x01" + bytes(50), 0),  # hello has no place here
        (b"\x03", 0),
    ],
)
async def test_a_frame_that_has_no_place_is_a_fault_that_ends_the_link(
    payload: bytes, oversize: int
) -> None:
    link, peer, stats = await introduced()
    async with carrying(link) as (events, ended):
        await peer.send(payload)
        await ended.wait()
        assert events.statistics().current_buffer_used == 0
    assert link.fault
    assert link.reason
    assert stats.oversize == oversize


async def test_the_longest_payloads_are_taken() -> None:
    link, peer, _ = await introduced()
    async with carrying(link) as (events, _):
        for cls, size in LIMITS.frame_bytes_max.items():
            await peer.send(bytes([cls]) + bytes(size))
            assert (await events.receive()).payload == bytes(size)


async def test_a_length_beyond_every_limit_is_a_fault() -> None:
    link, peer, stats = await introduced()
    async with carrying(link) as (_, ended):
        await peer.stream.send_all(b"\x7f\xff\xff\xff")
        await ended.wait()
    assert link.fault
    assert stats.oversize == 1


@pytest.mark.parametrize("payload", [b"", bytes(1001)])
async def test_a_payload_of_ours_out_of_bounds_is_our_bug(payload: bytes) -> None:
    link, _, _ = await introduced()
    with pytest.raises(LocalProtocolError):
        link.offer(Class.CONSENSUS, payload)


async def test_a_full_consensus_queue_closes_the_link() -> None:
    link, _, stats = await introduced()
    async with carrying(link) as (_, ended):
        taken = [link.offer(Class.CONSENSUS, b"vote") for _ in range(6)]
        assert taken == [True] * 4 + [False] * 2
        await ended.wait()
    assert "consensus" in link.reason
    assert not link.fault
    assert stats.consensus_overflows == 1


@pytest.mark.parametrize(("cls", "room"), [(Class.BATCH, 3), (Class.SYNC, 2)])
async def test_a_full_queue_of_another_class_drops_the_frame_and_keeps_the_link(
    cls: Class, room: int
) -> None:
    link, peer, stats = await introduced()
    async with carrying(link) as (_, ended):
        taken = [link.offer(cls, b"%d" % number) for number in range(room + 2)]
        assert taken == [True] * room + [False] * 2
        assert link.offer(Class.CONSENSUS, b"vote")
        assert await peer.receive_data() == b"\x10vote"
        for number in range(room):
            assert await peer.receive_data() == bytes([cls]) + b"%d" % number
        assert not ended.is_set()
    assert stats.by_class[cls].frames_dropped == 2
    assert stats.consensus_overflows == 0


async def test_the_round_trip_is_measured(autojump_clock: MockClock) -> None:
    link, peer, stats = await introduced()
    async with carrying(link):
        for delay in (0.25, 0.75):
            ping = await peer.receive()
            assert ping[0] == wire.PING
            await trio.sleep(delay)
            await peer.send(b"\x05" + ping[1:])
            await trio.testing.wait_all_tasks_blocked()
            assert stats.round_trip_seconds == pytest.approx(delay)


async def test_an_unanswered_ping_is_repeated_and_measured_from_the_first(
    autojump_clock: MockClock,
) -> None:
    link, peer, stats = await introduced()
    async with carrying(link):
        first = await peer.receive()
        assert await peer.receive() == first
        assert trio.current_time() == pytest.approx(2.0)
        await trio.sleep(1.0)
        await peer.send(b"\x05" + first[1:], b"\x05" + first[1:])
        await trio.testing.wait_all_tasks_blocked()
        assert stats.round_trip_seconds == pytest.approx(3.0)
        assert await peer.receive() not in (first, b"")


async def test_a_pong_nobody_asked_for_measures_nothing() -> None:
    link, peer, stats = await introduced()
    async with carrying(link):
        await peer.send(b"\x05anything")
        await trio.testing.wait_all_tasks_blocked()
    assert stats.round_trip_seconds is None


async def test_a_ping_is_answered() -> None:
    link, peer, _ = await introduced()
    async with carrying(link):
        await peer.send(b"\x0412345678")
        assert await peer.receive_data() == b"\x0512345678"


async def test_a_silent_peer_is_cut_after_ten_seconds(autojump_clock: MockClock) -> None:
    link, peer, stats = await introduced()
    async with carrying(link) as (_, ended):
        await peer.send(b"\x10hello?")
        await ended.wait()
        assert trio.current_time() == pytest.approx(10.0)
    assert stats.slow == 1
    assert not link.fault


async def test_two_idle_nodes_stay_connected(autojump_clock: MockClock) -> None:
    pair = sides()
    await met(*pair)
    assert pair[0].link is not None
    assert pair[1].link is not None
    async with carrying(pair[0].link) as (_, first), carrying(pair[1].link) as (_, second):
        await trio.sleep(600.0)
        assert not first.is_set()
        assert not second.is_set()


async def test_a_busy_runtime_does_not_blame_the_peer(mock_clock: MockClock) -> None:
    link, peer, stats = await introduced()
    async with carrying(link, lambda _: mock_clock.jump(1000.0)) as (events, ended):
        await peer.send(b"\x10one", b"\x10two")
        assert (await events.receive()).payload == b"one"
        assert (await events.receive()).payload == b"two"
        await trio.testing.wait_all_tasks_blocked()
        assert not ended.is_set()
    assert stats.slow == 0


async def test_nothing_is_handed_on_after_the_runtime_closed_the_link() -> None:
    link, peer, _ = await introduced()

    def refuse(event: Inbound) -> None:
        link.close(f"{event.payload!r} is forged", fault="PROTOCOL")

    async with carrying(link, refuse) as (events, ended):
        await peer.send(b"\x10one", b"\x10two")
        await ended.wait()
        assert events.statistics().current_buffer_used == 1
    assert (link.reason, link.fault) == ("b'one' is forged", "PROTOCOL")


async def test_other_tasks_have_their_turn_within_many_frames() -> None:
    link, peer, _ = await introduced()
    handled = 0
    seen: list[int] = []

    def count(_: Inbound) -> None:
        nonlocal handled
        handled += 1

    async def look() -> None:
        while handled < 1000:
            seen.append(handled)
            await trio.lowlevel.checkpoint()

    await peer.send(*[b"\x10x"] * 1000)
    async with carrying(link, count):
        await look()
    # Tasks that can go on do so in any order, so between two looks there may be two turns.
    assert max(b - a for a, b in itertools.pairwise(seen)) <= 2 * FRAMES_AT_ONCE_MAX


async def test_a_peer_that_stops_reading_is_cut(autojump_clock: MockClock) -> None:
    left, right = trio.testing.lockstep_stream_pair()
    side = Side(1, right, hello(1))
    other = Side(0, left, hello(0))
    await met(other, side)
    assert side.link is not None

    async def keep_talking() -> None:
        with suppress(trio.BrokenResourceError):
            while True:  # it sends, so it is not silent; but it takes nothing
                await left.send_all(pack(b"\x05alive..."))
                await trio.sleep(1.0)

    async with carrying(side.link) as (_, ended), trio.open_nursery() as nursery:
        nursery.start_soon(keep_talking)
        await ended.wait()
        nursery.cancel_scope.cancel()
        assert trio.current_time() == pytest.approx(10.0, abs=1.0)
    assert "took no" in side.link.reason


async def test_an_end_inside_a_frame_is_no_fault() -> None:
    link, peer, _ = await introduced()
    async with carrying(link) as (_, ended):
        assert (await peer.receive())[0] == wire.PING  # nothing else is on its way to the peer
        await peer.stream.send_all(b"\0\0\0\x09\x10abc")
        await peer.stream.aclose()
        await ended.wait()
    assert not link.fault
    assert "inside a frame" in link.reason


async def test_nothing_is_taken_after_the_end_and_the_first_reason_stays() -> None:
    link, _, _ = await introduced()
    async with carrying(link) as (_, ended):
        link.close("first", fault="PROTOCOL")
        link.close("second")
        assert not link.offer(Class.CONSENSUS, b"x")
        await ended.wait()
    assert (link.reason, link.fault) == ("first", "PROTOCOL")


async def test_a_link_closed_before_it_runs_ends_at_once() -> None:
    link, _, _ = await introduced()
    link.close("too late")
    async with carrying(link) as (_, ended):
        await ended.wait()
    assert link.reason == "too late"


async def test_an_error_of_the_runtime_is_not_swallowed() -> None:
    link, peer, _ = await introduced()

    def handle(peer: int, cls: Class, payload: bytes) -> None:
        raise LocalProtocolError("a bug of ours")

    await peer.send(b"\x10x")
    with pytest.raises(BaseException) as caught:
        await link.run(handle)
    assert isinstance(caught.value, BaseExceptionGroup)
    assert caught.value.subgroup(LocalProtocolError) is not None
    await link.aclose()
