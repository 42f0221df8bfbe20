"""Whole nodes' networks over TLS on loopback. The clock stands still unless a test moves it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from consensus.errors import LocalProtocolError
from node.network import wire
from node.network.framing import pack
from node.network.link import LinkLimits
from node.network.listener import Doorstep
from node.network.outbound import QueueLimits
from node.network.peers import Class
from node.network.stats import ListenerStats
from node.network.tls import make_certificate, peer_contexts
from node.network.wire import Hello, Refusal
from tests.node.network.harness import (
    CHAIN,
    COMMITTEE,
    FOREIGNERS,
    Inbound,
    Member,
    Node,
    address,
    contexts,
    dial,
    node,
    running,
    until,
)

pytestmark = pytest.mark.usefixtures("mock_clock")

NOWHERE = 1
"""A port nobody is dialled at in the test."""


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def two(**settings: object) -> tuple[Node, Node]:
    """Return nodes 0 and 1 that know each other's address; 0 will dial."""
    port = unused_port()
    one = node(1, [address(COMMITTEE[0], NOWHERE)], port=port, **settings)  # type: ignore[arg-type]
    zero = node(0, [address(COMMITTEE[1], port)], **settings)  # type: ignore[arg-type]
    return zero, one


@asynccontextmanager
async def linked(*, count: int = 2) -> AsyncIterator[list[Node]]:
    """Run ``count`` nodes until all are connected with each other."""
    ports = [unused_port() for _ in range(count)]
    everyone = [address(COMMITTEE[index], port) for index, port in enumerate(ports)]
    nodes = [node(index, everyone, port=ports[index]) for index in range(count)]
    async with running(*reversed(nodes)):
        for each in nodes:
            peers = {(await each.connected()).peer for _ in range(count - 1)}
            assert peers == set(range(count)) - {each.config.own_index}
        yield nodes


class ByHand:
    """A member's end of a link, played by the test."""

    def __init__(self, tls: trio.SSLStream[Any]) -> None:
        self.tls = tls

    @classmethod
    async def dial(cls, own: Member, to: Node) -> ByHand:
        return cls(await dial(to.port, contexts(own).dial))

    async def send(self, *payloads: bytes) -> None:
        await self.tls.send_all(b"".join(map(pack, payloads)))

    async def introduce(self, own: int, chain: bytes = CHAIN) -> None:
        """Say hello and echo what comes."""
        await self.send(wire.encode_hello(Hello(chain, 1, 0, own, bytes(16))))
        hello = wire.decode_hello((await self.receive(2))[0])
        await self.send(b"\x02" + hello.nonce)

    async def receive(self, count: int = 1) -> list[bytes]:
        data = b""
        frames: list[bytes] = []
        while len(frames) < count:
            got = await self.tls.receive_some()
            assert got, "the node closed the connection"
            data += got
            while len(data) >= 4 and len(data) >= 4 + int.from_bytes(data[:4]):
                end = 4 + int.from_bytes(data[:4])
                frames.append(data[4:end])
                data = data[end:]
        return frames

    async def closed(self) -> bool:
        """Read to the end, however it comes."""
        try:
            while await self.tls.receive_some():
                pass
        except trio.BrokenResourceError:
            pass
        await self.tls.aclose()
        return True


# --- links ------------------------------------------------------------------------------------


async def test_four_nodes_connect_and_every_class_travels() -> None:
    async with linked(count=4) as nodes:
        for each in nodes:
            own = each.config.own_index
            assert each.network.connected == {0, 1, 2, 3} - {own}
            for cls in Class:
                each.network.broadcast(cls, b"%s of %d" % (cls.name.encode(), own))
        for each in nodes:
            own = each.config.own_index
            got = [await each.inbound() for _ in range(9)]
            for peer in {0, 1, 2, 3} - {own}:
                assert [event for event in got if event.peer == peer] == [
                    Inbound(peer, cls, b"%s of %d" % (cls.name.encode(), peer)) for cls in Class
                ]
            assert each.quiet()


async def test_the_lower_index_dials_and_the_pair_has_one_connection() -> None:
    async with linked(count=3) as nodes:
        assert [each.network.stats.listener.accepted for each in nodes] == [0, 1, 2]
        for each in nodes:
            assert all(stats.connects == 1 for stats in each.network.stats.peers.values())


async def test_connected_carries_what_the_peer_says_of_itself() -> None:
    zero, one = two()
    async with running(one, zero):
        event = await zero.connected()
        assert event.peer == 1
        assert (event.hello.epoch, event.hello.height) == (1, 101)
        assert event.hello.extras == b"from 1"
        assert (await one.connected()).hello.extras == b"from 0"


async def test_large_payloads_arrive_whole_and_in_order() -> None:
    async with linked() as (zero, one):
        batches = [bytes([number]) * (256 * 1024 + number) for number in range(20)]
        for batch in batches:
            assert zero.network.send(1, Class.BATCH, batch)
        assert [(await one.inbound()).payload for _ in batches] == batches


async def test_sending_to_nobody_is_not_taken() -> None:
    zero, one = two()
    async with running(one):
        assert not zero.network.send(1, Class.CONSENSUS, b"x")
        assert not zero.network.send(7, Class.CONSENSUS, b"x")
        zero.network.broadcast(Class.CONSENSUS, b"x")
        zero.network.close_link(1, "none")


async def test_two_peers_with_one_key_are_our_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        node(0, [address(COMMITTEE[1], 1), replace(address(COMMITTEE[1], 1), index=2)])


# --- who is refused ---------------------------------------------------------------------------


async def refused_dial(zero: Node, at: Node) -> str:
    """Let ``zero`` dial a node it must not take for node 1; return why it failed."""
    stats = zero.network.stats.peers[1]
    async with running(at, zero):
        await until(lambda: stats.attempts_failed)
        await until(lambda: at.network.stats.listener.pending == 0)
        assert zero.network.connected == at.network.connected == frozenset()
        assert zero.quiet()
        assert at.quiet()
    return stats.last_error


async def test_another_member_at_the_address_is_refused() -> None:
    two_ = node(2, [address(COMMITTEE[0], NOWHERE)], port=unused_port())
    zero = node(0, [address(COMMITTEE[1], two_.port)])
    error = await refused_dial(zero, two_)
    assert COMMITTEE[1].key.hex() in error
    assert COMMITTEE[2].key.hex() in error


async def test_a_node_of_another_network_is_refused_by_the_dialer() -> None:
    foreign = node(1, [address(FOREIGNERS[0], NOWHERE)], committee=FOREIGNERS, port=unused_port())
    zero = node(0, [address(COMMITTEE[1], foreign.port)])
    assert "CERTIFICATE_VERIFY_FAILED" in await refused_dial(zero, foreign)


async def test_a_node_of_another_network_is_refused_by_the_acceptor() -> None:
    one = node(1, [address(COMMITTEE[0], NOWHERE)], port=unused_port())
    spy = FOREIGNERS[0]
    trusting = peer_contexts(spy.certificate, spy.seed, [COMMITTEE[1].certificate])
    zero = node(0, [address(COMMITTEE[1], one.port)], contexts=trusting)
    await refused_dial(zero, one)
    assert one.network.stats.listener.failed == 1


async def test_a_certificate_with_another_name_is_refused() -> None:
    renamed = Member(
        1,
        COMMITTEE[1].seed,
        "agency-9",
        make_certificate(COMMITTEE[1].seed, "agency-9"),
        COMMITTEE[1].key,
    )
    committee = [COMMITTEE[0], renamed]
    one = node(1, [address(COMMITTEE[0], NOWHERE)], committee=committee, port=unused_port())
    zero = node(0, [address(COMMITTEE[1], one.port)], committee=committee)
    assert "agency-9" in await refused_dial(zero, one)


async def test_a_node_of_another_chain_is_refused_with_the_reason() -> None:
    one = node(1, [address(COMMITTEE[0], NOWHERE)], port=unused_port())
    zero = node(0, [address(COMMITTEE[1], one.port)], chain=bytes(32))
    assert "OTHER_CHAIN" in await refused_dial(zero, one)
    assert "of chain 0000" in one.network.stats.peers[0].last_error
    assert one.network.stats.peers[0].refused == zero.network.stats.peers[1].refused == 1


async def test_the_higher_index_must_not_dial() -> None:
    listening = node(2, [address(COMMITTEE[3], NOWHERE)], port=unused_port())
    async with running(listening):
        peer = await ByHand.dial(COMMITTEE[3], listening)
        await peer.send(wire.encode_hello(Hello(CHAIN, 1, 0, 3, bytes(16))))
        refusal = wire.decode_refused((await peer.receive())[0])
        assert refusal.reason == Refusal.WRONG_DIRECTION
        await peer.tls.aclose()


# --- hostile connections ----------------------------------------------------------------------


async def test_garbage_before_tls_costs_only_its_connection() -> None:
    zero, one = two()
    async with running(one):
        for garbage in (b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff" + bytes(99)):
            async with await trio.open_tcp_stream("127.0.0.1", one.port) as tcp:
                await tcp.send_all(garbage)
        await until(lambda: one.network.stats.listener.failed == 3)
        async with running(zero):
            assert (await one.connected()).peer == 0


async def test_half_open_connections_are_bounded_and_a_member_still_gets_in() -> None:
    zero, one = two(pending_max=8)
    listener = one.network.stats.listener
    async with running(one), AsyncExitStack() as stack:
        for _ in range(40):
            before = listener.accepted
            await stack.enter_async_context(await trio.open_tcp_stream("127.0.0.1", one.port))
            await until(lambda before=before: listener.accepted == before + 1)  # type: ignore[misc]
            assert listener.pending <= 8
        assert listener.evicted == 32
        async with running(zero):
            assert (await one.connected()).peer == 0
            assert (await zero.connected()).peer == 1


async def test_a_connection_that_does_not_introduce_itself_is_closed_after_its_time(
    mock_clock: MockClock,
) -> None:
    _, one = two()
    listener = one.network.stats.listener
    async with running(one):
        silent = await trio.open_tcp_stream("127.0.0.1", one.port)
        mute = await ByHand.dial(COMMITTEE[0], one)  # a member, but it says nothing
        await until(lambda: listener.pending == 2)
        mock_clock.jump(4.9)
        await trio.lowlevel.checkpoint()
        assert listener.pending == 2
        mock_clock.jump(0.2)
        await until(lambda: listener.pending == 0)
        assert listener.expired == 2
        assert await ByHand(mute.tls).closed()
        await silent.aclose()


async def test_a_dialer_gives_up_on_a_side_that_says_nothing(mock_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:
        held: list[trio.SocketStream] = []

        async def hold(stream: trio.SocketStream) -> None:
            held.append(stream)
            await trio.sleep_forever()

        [mute] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, hold, [mute])
        zero = node(0, [address(COMMITTEE[1], mute.socket.getsockname()[1])])
        stats = zero.network.stats.peers[1]
        async with running(zero):
            await until(lambda: held)
            mock_clock.jump(5.1)
            await until(lambda: stats.attempts_failed == 1)
            assert "in time" in stats.last_error
        nursery.cancel_scope.cancel()


def test_a_flood_from_one_address_displaces_itself_oldest_first() -> None:
    async def main() -> None:
        doorstep = Doorstep(4, 5.0, ListenerStats())
        honest = doorstep.take("10.0.0.1")
        flood = [doorstep.take("10.6.6.6") for _ in range(10)]
        assert not honest.evicted
        assert [place.evicted for place in flood] == [True] * 7 + [False] * 3
        assert [place.scope.cancel_called for place in flood] == [True] * 7 + [False] * 3

    trio.run(main)


# --- faults and new beginnings ----------------------------------------------------------------


async def test_a_killed_node_comes_back_and_both_hear_of_it(mock_clock: MockClock) -> None:
    async with linked() as (zero, one), trio.open_nursery() as nursery:
        one.scope.cancel()
        assert (await zero.disconnected()).peer == 1
        assert zero.network.connected == frozenset()
        again = node(1, [address(COMMITTEE[0], NOWHERE)], port=one.port)
        await again.start(nursery)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(0.11)  # the first pause is at most 0.1 s
        assert (await again.connected()).peer == 0
        assert (await zero.connected()).peer == 1
        assert zero.network.send(1, Class.CONSENSUS, b"welcome back")
        assert (await again.inbound()).payload == b"welcome back"
        nursery.cancel_scope.cancel()


async def test_pauses_between_attempts_grow_to_their_cap(mock_clock: MockClock) -> None:
    zero = node(0, [address(COMMITTEE[1], unused_port())])
    stats = zero.network.stats.peers[1]
    pauses: list[float] = []
    async with running(zero):
        while len(pauses) < 11:
            await until(lambda: stats.attempts_failed > len(pauses))
            pauses.append(zero.network._standing[1].dial_at - trio.current_time())
            mock_clock.jump(pauses[-1])
    assert "cannot connect" in stats.last_error
    for number, pause in enumerate(pauses):
        longest = min(5.0, 0.1 * 2**number)
        assert longest / 2 <= pause <= longest
    assert len({round(pause, 6) for pause in pauses}) == len(pauses)  # jittered


@pytest.mark.parametrize(("lasts", "pause_max"), [(10.0, 0.1), (9.0, 0.2)])
async def test_a_link_that_lasted_ends_the_row_of_failures(
    lasts: float, pause_max: float, mock_clock: MockClock
) -> None:
    # Node 0 fails once before node 1 is there, so its next pause would be the second of a row.
    zero, one = two(limits=LinkLimits(idle_seconds_max=100.0))
    async with running(zero):
        await until(lambda: zero.network.stats.peers[1].attempts_failed)
        async with running(one):
            mock_clock.jump(0.11)
            await zero.connected()
            await one.connected()
            mock_clock.jump(lasts)
        await zero.disconnected()
        pause = zero.network._standing[1].dial_at - trio.current_time()
        assert pause_max / 2 <= pause <= pause_max


async def test_a_newer_connection_of_a_peer_replaces_the_older() -> None:
    _, one = two()
    async with running(one):
        older = await ByHand.dial(COMMITTEE[0], one)
        await older.introduce(0)
        assert (await one.connected()).peer == 0
        newer = await ByHand.dial(COMMITTEE[0], one)
        await newer.introduce(0)
        assert "newer" in (await one.disconnected()).reason
        assert (await one.connected()).peer == 0
        assert await older.closed()
        await newer.send(b"\x10still here")
        assert (await one.inbound()).payload == b"still here"
        assert one.network.stats.peers[0].faults.total() == 0
        assert one.network.stats.peers[0].replaced == 1
        await newer.tls.aclose()


async def test_a_connection_that_is_not_introduced_replaces_nothing() -> None:
    async with linked() as (zero, one):
        impostor = await ByHand.dial(COMMITTEE[0], one)
        await impostor.send(wire.encode_hello(Hello(CHAIN, 1, 0, 0, bytes(16))))
        await impostor.receive(2)
        assert one.quiet()
        await impostor.tls.aclose()
        assert zero.network.send(1, Class.SYNC, b"unharmed")
        assert (await one.inbound()).payload == b"unharmed"


@pytest.mark.parametrize("frame", [b"\x7fwhat", b"\x10" + bytes(2**20 + 1), b"\x01again"])
async def test_a_peer_that_sent_what_it_must_not_is_left_alone_for_a_while(
    frame: bytes, mock_clock: MockClock
) -> None:
    _, one = two()
    stats = one.network.stats.peers[0]
    async with running(one):
        peer = await ByHand.dial(COMMITTEE[0], one)
        await peer.introduce(0)
        await one.connected()
        await peer.send(frame)
        await one.disconnected()
        assert stats.faults.total() == 1
        assert await peer.closed()

        early = await ByHand.dial(COMMITTEE[0], one)
        refusal = wire.decode_refused((await early.receive())[0])
        assert refusal.reason == Refusal.PAUSED
        await early.tls.aclose()
        await until(lambda: stats.refused == 1)
        assert stats.faults.total() == 1

        mock_clock.jump(1.1)
        late = await ByHand.dial(COMMITTEE[0], one)
        await late.introduce(0)
        await one.connected()
        await late.tls.aclose()


async def test_the_runtime_can_close_a_link_and_both_wait(mock_clock: MockClock) -> None:
    async with linked() as (zero, one):
        one.network.close_link(0, "a vote with a wrong signature")
        assert (await one.disconnected()).reason == "a vote with a wrong signature"
        await zero.disconnected()
        assert one.network.connected == zero.network.connected == frozenset()
        assert one.network.stats.peers[0].faults == {"PROTOCOL": 1}
        mock_clock.jump(0.11)  # node 0 dials again, too early
        await until(lambda: zero.network.stats.peers[1].refused)
        assert "PAUSED" in zero.network.stats.peers[1].last_error
        mock_clock.jump(2.0)
        assert (await zero.connected()).peer == 1
        assert (await one.connected()).peer == 0


async def test_a_full_consensus_queue_reconnects_and_says_so(mock_clock: MockClock) -> None:
    limits = LinkLimits(queues=dict.fromkeys(Class, QueueLimits(frames_max=2, bytes_max=10_000)))
    zero, one = two(limits=limits)
    async with running(one, zero):
        await zero.connected()
        await one.connected()
        taken = [zero.network.send(1, Class.CONSENSUS, b"vote") for _ in range(3)]
        assert taken == [True, True, False]
        assert "consensus" in (await zero.disconnected()).reason
        assert (await one.inbound()).payload == b"vote"  # what was taken may still leave
        assert (await one.inbound()).payload == b"vote"
        await one.disconnected()
        mock_clock.jump(0.11)
        await zero.connected()
        await one.connected()
        assert zero.network.stats.peers[1].consensus_overflows == 1
        assert zero.network.stats.peers[1].faults.total() == 0


async def test_a_flooding_peer_leaves_the_others_their_turn() -> None:
    ports = [unused_port() for _ in range(3)]
    everyone = [address(COMMITTEE[index], port) for index, port in enumerate(ports)]
    nodes = [node(index, everyone, port=ports[index]) for index in range(3)]
    zero, one, two_ = nodes
    async with running(two_, one, zero):
        for each in nodes:
            await each.connected()
            await each.connected()
        for number in range(5000):
            assert zero.network.send(2, Class.CONSENSUS, b"%d" % number)
        await two_.inbound()
        one.network.send(2, Class.CONSENSUS, b"urgent")
        urgent = Inbound(1, Class.CONSENSUS, b"urgent")
        await until(lambda: urgent in two_.heard.events)
        assert Inbound(0, Class.CONSENSUS, b"4999") not in two_.heard.events


class Relay:
    """A TCP relay that can be cut."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.scopes: list[trio.CancelScope] = []

    async def start(self, nursery: trio.Nursery) -> int:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, self.carry, [listener])
        port: int = listener.socket.getsockname()[1]
        return port

    async def carry(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self.target)
        async with far, trio.open_nursery() as nursery:
            self.scopes.append(nursery.cancel_scope)
            nursery.start_soon(self.copy, near, far)
            nursery.start_soon(self.copy, far, near)

    async def copy(self, source: trio.SocketStream, sink: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            async for data in source:
                await sink.send_all(data)


async def test_a_link_through_a_relay_comes_back_after_a_cut(mock_clock: MockClock) -> None:
    one = node(1, [address(COMMITTEE[0], NOWHERE)], port=unused_port())
    async with trio.open_nursery() as nursery:
        relay = Relay(one.port)
        zero = node(0, [address(COMMITTEE[1], await relay.start(nursery))])
        async with running(one, zero):
            await zero.connected()
            await one.connected()
            relay.scopes[0].cancel()
            await zero.disconnected()
            await one.disconnected()
            mock_clock.jump(0.11)
            await zero.connected()
            await one.connected()
        nursery.cancel_scope.cancel()


async def test_a_peer_that_falls_silent_is_noticed(mock_clock: MockClock) -> None:
    _, one = two()
    async with running(one):
        peer = await ByHand.dial(COMMITTEE[0], one)
        await peer.introduce(0)
        await one.connected()
        await trio.testing.wait_all_tasks_blocked()  # it waits for a frame now
        mock_clock.jump(10.1)
        assert "nothing came" in (await one.disconnected()).reason
        assert one.network.stats.peers[0].slow == 1
        await peer.closed()


async def test_a_bug_of_the_runtime_stops_the_network() -> None:
    zero, one = two()

    def received(peer: int, cls: Class, payload: bytes) -> None:
        raise LocalProtocolError("a bug of ours")

    zero.heard.received = received  # type: ignore[method-assign]

    async def run_into_it() -> None:
        async with running(one, zero):
            await one.connected()
            one.network.send(0, Class.CONSENSUS, b"too much")
            await until(lambda: False)

    with pytest.raises(BaseExceptionGroup) as caught:
        await run_into_it()
    assert caught.value.subgroup(LocalProtocolError) is not None


async def test_an_address_that_cannot_be_bound_is_said_at_the_start() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        one = node(1, [], port=taken.getsockname()[1])
        with pytest.raises(BaseExceptionGroup) as caught:
            async with running(one):
                pass
    assert caught.value.subgroup(OSError) is not None
