"""The door for observers: who is let in, how many, how fast, and that members notice nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from consensus.hotstuff import wire as consensus_wire
from consensus.hotstuff.types import BlocksRequest
from node.guests import Guests
from node.network import wire
from node.network.framing import pack
from node.network.guests import GUESTS_FROM, Admitted, Guest, ObserverDoor
from node.network.link import LinkLimits
from node.network.outbound import QueueLimits
from node.network.pace import Pace
from node.network.tls import make_certificate, peer_contexts
from node.network.wire import Class, Hello
from node.observers import QUEUES
from node.telemetry.metrics import Metrics
from tests.node.network.harness import (
    CHAIN,
    COMMITTEE,
    Member,
    Node,
    address,
    member,
    node,
    running,
    until,
)

HOST = COMMITTEE[0]
OBSERVERS = [member(index, network=7) for index in range(4)]
STRANGER = member(9, network=7)


class Doorkeeper:
    """Who is admitted at the door; changed by the tests."""

    def __init__(self, *observers: Member) -> None:
        self.observers = list(observers)
        self.names = {each.key: each.name for each in observers}

    def __call__(self) -> Admitted | None:
        if not self.observers:
            return None
        certificates = [each.certificate for each in self.observers]
        guests = {each.key: Guest(self.names[each.key], each.key) for each in self.observers}
        return Admitted(peer_contexts(HOST.certificate, HOST.seed, certificates).accept, guests)


def host(keeper: Doorkeeper, **options: Any) -> Node:
    """A member with a door for observers."""
    limits = options.pop("limits", LinkLimits(queues=QUEUES))
    settings = {"connections_max": 8, **options}
    door = ObserverDoor(
        listen_host="127.0.0.1", listen_port=0, admitted=keeper, limits=limits, **settings
    )
    return node(0, [address(COMMITTEE[1], 1)], observers=door)


def observer(who: Member, at: Node, **settings: Any) -> Node:
    """A node without a vote that dials the door of a member."""
    contexts = peer_contexts(who.certificate, who.seed, [HOST.certificate])
    door = address(HOST, at.network.observers_port)
    given = {"listen_port": -1, "own_key": who.key, "contexts": contexts, **settings}
    return node(-1, [door], identity=who, **given)


async def by_hand(who: Member, at: Node, certificate: bytes | None = None) -> Any:
    """A connection to the door, up to the end of the handshake of TLS."""
    own = certificate or who.certificate
    context = peer_contexts(own, who.seed, [HOST.certificate]).dial
    tcp = await trio.open_tcp_stream("127.0.0.1", at.network.observers_port)
    stream: trio.SSLStream[Any] = trio.SSLStream(tcp, context)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


async def ended(stream: Any) -> bool:
    """Whether the other side ends a connection without a word of the protocol."""
    try:
        with trio.fail_after(20):
            return not await stream.receive_some()
    except trio.BrokenResourceError:
        return True
    finally:
        await trio.aclose_forcefully(stream)


@asynccontextmanager
async def watched(keeper: Doorkeeper, *observers: Member, **options: Any) -> AsyncIterator[Any]:
    """A member and observers that are connected with it."""
    here = host(keeper, **options)
    async with running(here) as nursery:
        there = [observer(each, here) for each in observers]
        for each in there:
            await each.start(nursery)
            assert (await each.connected()).hello.index == 0
            await here.connected()
        yield SimpleNamespace(here=here, there=there, nursery=nursery)


async def test_observers_are_guests_and_hear_only_what_is_sent_to_them() -> None:
    async with watched(Doorkeeper(*OBSERVERS[:2]), *OBSERVERS[:2]) as town:
        here = town.here.network
        assert here.connected == frozenset()
        assert len(here.guests) == 2
        assert all(number >= GUESTS_FROM for number in here.guests)
        here.broadcast(Class.CONSENSUS, b"for members")
        first, second = here.guests
        assert here.send(first, Class.CONSENSUS, b"for the first")
        assert (await town.there[0].inbound()).payload == b"for the first"
        assert town.there[1].quiet()
        assert {here.guest(first).name, here.guest(second).name} == {"agency-0", "agency-1"}


async def test_no_more_are_let_in_than_may_be_and_a_place_that_is_left_is_taken() -> None:
    keeper = Doorkeeper(*OBSERVERS[:3])
    async with watched(keeper, *OBSERVERS[:2], connections_max=2) as town:
        third = observer(OBSERVERS[2], town.here)
        await third.start(town.nursery)
        stats = third.network.stats.peers[0]
        await until(lambda: stats.refused)
        assert "CROWDED: '2 observers are connected, as many as may be'" in stats.last_error
        assert len(town.here.network.guests) == 2
        town.there[0].scope.cancel()
        assert (await third.connected()).hello.index == 0
        await until(lambda: len(town.here.network.guests) == 2)


async def test_those_that_come_at_one_moment_are_not_too_many_either() -> None:
    here = host(Doorkeeper(*OBSERVERS), connections_max=1)
    streams = []
    async with running(here) as nursery:
        for each in OBSERVERS:  # all are introduced but for their last word
            stream = await by_hand(each, here)
            await stream.send_all(pack(wire.encode_hello(Hello(CHAIN, 1, 0, 255, bytes(16)))))
            data = b""
            while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4]) + 21:
                data += await stream.receive_some()
            hello = wire.decode_hello(data[4 : 4 + int.from_bytes(data[:4])])
            streams.append((stream, b"\x02" + hello.nonce))
        for stream, echo in streams:
            await stream.send_all(pack(echo))
        await until(lambda: here.network.guests)
        peers = here.network.stats.peers
        await until(lambda: sum(each.refused for each in peers.values()) == len(OBSERVERS) - 1)
        assert len(here.network.guests) == 1
        for stream, _ in streams:
            await trio.aclose_forcefully(stream)
        nursery.cancel_scope.cancel()


async def test_where_nobody_is_admitted_the_door_is_closed() -> None:
    here = host(Doorkeeper())
    async with running(here):
        with pytest.raises((trio.BrokenResourceError, OSError)):
            await by_hand(OBSERVERS[0], here)
        await until(lambda: here.network.stats.observers.failed == 1)
        assert here.quiet()


@pytest.mark.parametrize("case", ["unknown key", "another certificate of the key", "of a member"])
async def test_who_is_not_admitted_gets_no_word_of_the_protocol(case: str) -> None:
    here = host(Doorkeeper(OBSERVERS[0]))
    who, certificate = {
        "unknown key": (STRANGER, None),
        "another certificate of the key": (OBSERVERS[0], make_certificate(OBSERVERS[0].seed, "x")),
        "of a member": (COMMITTEE[2], None),
    }[case]
    async with running(here):
        stream = await by_hand(who, here, certificate)  # TLS 1.3: refused after its own part
        assert await ended(stream)
        await until(lambda: here.network.stats.observers.failed == 1)
        assert here.quiet()
        assert not here.network.guests


async def test_a_certificate_under_another_name_than_its_own_is_refused() -> None:
    keeper = Doorkeeper(OBSERVERS[0])
    keeper.names[OBSERVERS[0].key] = "somebody else"
    here = host(keeper)
    async with running(here):
        assert await ended(await by_hand(OBSERVERS[0], here))
        [stats] = [s for at, s in here.network.stats.peers.items() if at >= GUESTS_FROM]
        await until(lambda: stats.attempts_failed == 1)
        assert "the certificate is for 'agency-0'" in stats.last_error


async def test_a_link_ends_when_its_certificate_is_taken_away() -> None:
    keeper = Doorkeeper(*OBSERVERS[:2])
    async with watched(keeper, *OBSERVERS[:2]) as town:
        town.here.network.recheck()
        assert len(town.here.network.guests) == 2
        del keeper.observers[0]
        town.here.network.recheck()
        assert "not admitted any more" in (await town.here.disconnected()).reason
        await town.there[0].disconnected()
        assert [town.here.network.guest(n).name for n in town.here.network.guests] == ["agency-1"]
        del keeper.observers[0]
        town.here.network.recheck()
        await town.here.disconnected()
        assert not town.here.network.guests


async def test_half_open_connections_are_bounded_and_an_observer_still_gets_in() -> None:
    here = host(Doorkeeper(OBSERVERS[0]), pending_max=4)
    async with running(here) as nursery:
        port = here.network.observers_port
        silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(12)]
        await until(lambda: here.network.stats.observers.accepted == 12)
        assert here.network.stats.observers.pending <= 4
        there = observer(OBSERVERS[0], here)
        await there.start(nursery)
        await there.connected()
        assert here.network.stats.observers.evicted >= 8
        assert here.network.stats.listener.accepted == 0  # the members' door has its own places
        for each in silent:
            await trio.aclose_forcefully(each)


async def test_who_does_not_introduce_itself_is_cut(mock_clock: MockClock) -> None:
    here = host(Doorkeeper(OBSERVERS[0]), limits=LinkLimits(handshake_seconds_max=5))
    async with running(here):
        stream = await by_hand(OBSERVERS[0], here)
        await until(lambda: here.network.stats.observers.pending == 1)
        mock_clock.jump(5.1)
        await until(lambda: here.network.stats.observers.expired == 1)
        assert await ended(stream)


# --- who reads slowly -----------------------------------------------------------------------------


async def test_an_observer_that_does_not_read_loses_answers_and_then_its_link() -> None:
    queues = {
        Class.CONSENSUS: QueueLimits(frames_max=8, bytes_max=1 << 22),
        Class.BATCH: QueueLimits(frames_max=1, bytes_max=1),
        Class.SYNC: QueueLimits(frames_max=4, bytes_max=1 << 20),
    }
    here = host(Doorkeeper(OBSERVERS[0]), limits=LinkLimits(queues=queues))
    async with running(here):
        stream = await by_hand(OBSERVERS[0], here)
        await stream.send_all(pack(wire.encode_hello(Hello(CHAIN, 1, 0, 255, bytes(16)))))
        data = b""
        while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4]) + 21:
            data += await stream.receive_some()
        hello = wire.decode_hello(data[4 : 4 + int.from_bytes(data[:4])])
        await stream.send_all(pack(b"\x02" + hello.nonce))
        number = (await here.connected()).peer
        network, stats = here.network, here.network.stats.peers[number]
        answer = bytes(200_000)
        while stats.by_class[Class.SYNC].frames_dropped == 0:  # the kernel's buffers are full
            network.send(number, Class.SYNC, answer)
            await trio.lowlevel.checkpoint()
        assert not network.has_room(number, Class.SYNC)  # nothing more is made for it
        assert not network.send(number, Class.BATCH, b"ab")
        assert stats.by_class[Class.SYNC].queued_bytes <= 4 * len(answer)
        for _ in range(9):
            network.send(number, Class.CONSENSUS, b"news")
        assert stats.consensus_overflows == 1
        assert "does not take consensus messages" in (await here.disconnected()).reason
        assert not network.guests
        await trio.aclose_forcefully(stream)


async def test_all_observers_together_are_sent_no_more_than_the_pace(
    autojump_clock: MockClock,
) -> None:
    pace = Pace(1000)
    began = trio.current_time()

    async def link(sends: int) -> None:
        for _ in range(sends):
            await pace.spend(500)

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(link, 10)
    # 15,000 bytes, of which a second's worth may go at once after a rest
    assert trio.current_time() - began == pytest.approx(14.0)


# --- who asks too much ----------------------------------------------------------------------------


class Asked:
    """An ordering that counts what it is asked."""

    def __init__(self) -> None:
        self.replica = SimpleNamespace(epoch=1)
        self.count = 0

    def ask(self, peer: int, message: object) -> None:
        self.count += 1


class Links:
    """Two guests, with or without room for answers."""

    guests = (GUESTS_FROM, GUESTS_FROM + 1)

    def __init__(self) -> None:
        self.room = True

    def guest(self, number: int) -> Guest:
        return Guest(f"guest {number}", b"")

    def has_room(self, peer: int, cls: Class) -> bool:
        return self.room

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        return True


QUESTION = consensus_wire.encode_message(BlocksRequest(1, 1, None, 10))


def asking() -> tuple[Guests, Asked, Links, Metrics]:
    ordering, links, metrics = Asked(), Links(), Metrics()
    parts: list[Any] = [ordering, None, None, links, metrics]
    return Guests(*parts), ordering, links, metrics


def refused(metrics: Metrics) -> float:
    return metrics.observer_refused._value.get()


async def test_questions_of_all_guests_together_have_a_rate(autojump_clock: MockClock) -> None:
    guests, ordering, _, metrics = asking()
    for number in range(80 + 50):
        guests.receive(Links.guests[number % 2], Class.SYNC, QUESTION)
    assert ordering.count == 80
    assert refused(metrics) == 50
    for second in range(1, 6):
        await trio.sleep(1)
        for _ in range(1000):
            guests.receive(Links.guests[0], Class.SYNC, QUESTION)
        assert ordering.count == 80 + 40 * second, "the rate and no more, but not less either"
    assert refused(metrics) == 50 + 5 * (1000 - 40)
    await trio.sleep(1)
    guests.receive(Links.guests[1], Class.SYNC, QUESTION)
    assert ordering.count == 80 + 40 * 5 + 1, "what was refused is no debt of the others"


async def test_no_question_is_looked_into_whose_answer_has_no_room() -> None:
    guests, ordering, links, metrics = asking()
    links.room = False
    guests.receive(GUESTS_FROM, Class.SYNC, QUESTION)
    assert (ordering.count, refused(metrics)) == (0, 1)
    links.room = True
    guests.receive(GUESTS_FROM, Class.SYNC, QUESTION)
    assert ordering.count == 1
