"""The queues of one link."""

from __future__ import annotations

import trio
import trio.testing

from node.network.framing import SEND_BYTES_MAX
from node.network.outbound import Outbound, QueueLimits
from node.network.stats import ClassStats
from node.network.wire import PING, PONG, Class

LIMITS = {
    Class.CONSENSUS: QueueLimits(frames_max=3, bytes_max=1000),
    Class.BATCH: QueueLimits(frames_max=100, bytes_max=1000),
    Class.SYNC: QueueLimits(frames_max=100, bytes_max=10 * SEND_BYTES_MAX),
}


def queues() -> tuple[Outbound, dict[Class, ClassStats]]:
    stats = {cls: ClassStats() for cls in Class}
    return Outbound(LIMITS, stats), stats


def test_consensus_goes_before_batches_before_sync_and_each_in_order() -> None:
    outbound, _ = queues()
    for cls, payload in [
        (Class.SYNC, b"s1"),
        (Class.BATCH, b"b1"),
        (Class.CONSENSUS, b"c1"),
        (Class.SYNC, b"s2"),
        (Class.CONSENSUS, b"c2"),
    ]:
        assert outbound.offer(cls, payload)
    outbound.offer_control(PING, b"12345678")
    assert outbound.take() == (
        b"\0\0\0\x09\x0412345678"
        b"\0\0\0\x03\x10c1"
        b"\0\0\0\x03\x10c2"
        b"\0\0\0\x03\x11b1"
        b"\0\0\0\x03\x12s1"
        b"\0\0\0\x03\x12s2"
    )
    assert outbound.take() == b""


def test_a_queue_is_bounded_by_count() -> None:
    outbound, stats = queues()
    assert [outbound.offer(Class.CONSENSUS, b"x") for _ in range(5)] == [True] * 3 + [False] * 2
    assert stats[Class.CONSENSUS].frames_dropped == 2
    outbound.take()
    assert outbound.offer(Class.CONSENSUS, b"x")


def test_a_queue_is_bounded_by_bytes_without_touching_the_others() -> None:
    outbound, stats = queues()
    assert outbound.offer(Class.BATCH, bytes(600))
    assert not outbound.offer(Class.BATCH, bytes(401))
    assert outbound.offer(Class.BATCH, bytes(400))
    assert not outbound.offer(Class.BATCH, b"x")
    assert outbound.offer(Class.CONSENSUS, b"x")
    assert outbound.offer(Class.SYNC, b"x")
    assert stats[Class.BATCH].queued_bytes == 1000
    assert stats[Class.BATCH].queued_frames == 2
    assert stats[Class.BATCH].frames_dropped == 2


def test_one_send_takes_no_more_than_its_limit() -> None:
    outbound, stats = queues()
    third = bytes(SEND_BYTES_MAX // 3)
    for _ in range(7):
        assert outbound.offer(Class.SYNC, third)
    taken = []
    while data := outbound.take():
        assert len(data) <= SEND_BYTES_MAX
        taken.append(len(data) // len(third))
    assert sum(taken) == 7
    assert stats[Class.SYNC].queued_bytes == stats[Class.SYNC].queued_frames == 0
    assert stats[Class.SYNC].frames_sent == 7
    assert stats[Class.SYNC].bytes_sent == 7 * len(third)


def test_a_frame_larger_than_a_send_travels_alone() -> None:
    outbound, _ = queues()
    large = bytes(SEND_BYTES_MAX + 1)
    outbound.offer(Class.SYNC, b"before")
    outbound.offer(Class.SYNC, large)
    outbound.offer(Class.SYNC, b"after")
    assert [len(outbound.take()) for _ in range(4)] == [11, len(large) + 5, 10, 0]


def test_a_class_that_waits_for_room_is_not_overtaken_by_a_later_one() -> None:
    outbound = Outbound(
        dict.fromkeys(Class, QueueLimits(frames_max=10, bytes_max=10 * SEND_BYTES_MAX)),
        {cls: ClassStats() for cls in Class},
    )
    outbound.offer(Class.CONSENSUS, b"c")
    outbound.offer(Class.BATCH, bytes(SEND_BYTES_MAX))
    outbound.offer(Class.SYNC, b"s")
    assert [len(outbound.take()) for _ in range(3)] == [6, SEND_BYTES_MAX + 5, 6]


def test_a_flood_of_pings_makes_one_pong_wait() -> None:
    outbound, _ = queues()
    for number in range(1000):
        outbound.offer_control(PONG, number.to_bytes(8))
    assert outbound.take() == b"\0\0\0\x09\x05" + (999).to_bytes(8)


async def test_the_bell_rings_when_something_is_queued_and_not_before() -> None:
    outbound, _ = queues()
    heard = 0

    async def listen() -> None:
        nonlocal heard
        while True:
            await outbound.bell.heard()
            heard += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        await trio.testing.wait_all_tasks_blocked()
        assert heard == 0
        outbound.offer(Class.SYNC, b"x")
        await trio.testing.wait_all_tasks_blocked()
        assert heard == 1
        outbound.offer_control(PING, bytes(8))
        await trio.testing.wait_all_tasks_blocked()
        assert heard == 2
        nursery.cancel_scope.cancel()


def test_forgetting_empties_queues_and_gauges() -> None:
    outbound, stats = queues()
    for cls in Class:
        outbound.offer(cls, b"x")
    outbound.offer_control(PING, bytes(8))
    outbound.clear()
    assert outbound.take() == b""
    assert all(each.queued_frames == each.queued_bytes == 0 for each in stats.values())
