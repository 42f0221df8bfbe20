"""Requests have their turns in order, each told when the disk has it; a failure reaches all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import trio
import trio.testing

from consensus.errors import ComityError
from node.errors import StorageFailedError
from node.storage.log import Log
from node.storage.writer import LogWriter, Persisted
from tests.node.storage.memory_disk import MemoryDisk

FOLDER = Path("/data/log")
CHAIN = bytes(32)


class GatedDisk(MemoryDisk):
    """Each sync waits until the test lets it through, and says when it has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Semaphore(0)
        self.gated = False
        self.begun = threading.Semaphore(0)

    def sync(self, handle: int) -> None:
        if self.gated:
            self.begun.release()
            self.gate.acquire()
        super().sync(handle)


def open_log(disk: MemoryDisk) -> tuple[Log, list[bytes]]:
    seen: list[bytes] = []
    return Log.open(FOLDER, lambda _o, _k, data: seen.append(data), chain=CHAIN, disk=disk), seen


async def begun(disk: GatedDisk) -> None:
    await trio.to_thread.run_sync(disk.begun.acquire)


async def test_persist_returns_offsets_and_what_is_on_disk() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    log_writer = LogWriter(log)
    first = await log_writer.persist([(1, b"a"), (2, b"b")])
    assert log.read(first.offsets[0]) == (1, b"a")
    assert log.read(first.offsets[1]) == (2, b"b")
    assert first.synced == log.end == log_writer.synced
    assert await log_writer.persist([]) == Persisted((), first.synced)
    assert open_log(disk.crash())[1] == [b"a", b"b"]


async def test_requests_are_served_in_their_order_and_told_when_the_disk_has_them() -> None:
    disk = GatedDisk()
    log, _ = open_log(disk)
    seconds: list[float] = []
    log_writer = LogWriter(log, on_sync=seconds.append)
    results: dict[int, Persisted] = {}
    marked: list[int] = []

    async def ask(number: int) -> None:
        results[number] = await log_writer.persist(
            [(1, b"%03d" % number), (2, b"!")], marked.append
        )

    async with trio.open_nursery() as nursery:
        disk.gated = True
        nursery.start_soon(ask, 0)
        await begun(disk)
        for number in range(1, 20):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
        assert results == {}, "nobody is told before the disk has it"
        assert marked == seconds == []
        assert log_writer.waiting == 19
        disk.gate.release(20)
    assert log_writer.waiting == 0
    assert list(results) == list(range(20))
    assert marked == [each.synced for each in results.values()] == sorted(marked)
    assert len(seconds) == 20
    expected = [part for number in range(20) for part in (b"%03d" % number, b"!")]
    assert open_log(disk.crash())[1] == expected


async def test_rotation_and_dropping_keep_their_place_in_the_order() -> None:
    disk = GatedDisk()
    log, _ = open_log(disk)
    log_writer = LogWriter(log)
    order: list[str] = []

    async def note(name: str, action: object) -> None:
        await action  # type: ignore[misc]
        order.append(name)

    async with trio.open_nursery() as nursery:
        disk.gated = True
        requests = [
            ("a", log_writer.persist([(1, b"a")])),
            ("b", log_writer.persist([(1, b"b")])),
            ("rotate", log_writer.rotate([(4, b"record")])),
            ("c", log_writer.persist([(1, b"c")])),
            ("drop", log_writer.drop_before(2**62)),
            ("d", log_writer.persist([(1, b"d")])),
        ]
        for name, action in requests:
            nursery.start_soon(note, name, action)
            await trio.testing.wait_all_tasks_blocked()
        disk.gate.release(20)
    assert order == [name for name, _ in requests]
    assert open_log(disk.crash())[1] == [b"record", b"c", b"d"]


async def test_a_failed_sync_reaches_every_waiting_and_later_request_and_is_told_once() -> None:
    disk = GatedDisk()
    log, _ = open_log(disk)
    told: list[StorageFailedError] = []
    log_writer = LogWriter(log, on_failure=told.append)
    errors: list[ComityError] = []

    async def ask() -> None:
        with pytest.raises(StorageFailedError, match="injected") as caught:
            await log_writer.persist([(1, b"x")])
        errors.append(caught.value)

    async with trio.open_nursery() as nursery:
        disk.gated = True
        nursery.start_soon(ask)
        await begun(disk)
        for _ in range(3):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        disk.fail = {"sync": 0}
        disk.gate.release(1)
        with trio.fail_after(5):
            while len(errors) < 4:
                await trio.testing.wait_all_tasks_blocked()
                await trio.lowlevel.checkpoint()
        syncs = disk.calls["sync"]
        await ask()
        with pytest.raises(StorageFailedError):
            await log_writer.rotate([])
    assert disk.calls["sync"] == syncs
    assert len(told) == 1
    assert log.failed is told[0]
    assert len({id(error) for error in errors}) == len(errors), "each gets an error of its own"


async def test_a_failure_of_what_follows_the_sync_is_told_too() -> None:
    log, _ = open_log(MemoryDisk())
    told: list[StorageFailedError] = []
    log_writer = LogWriter(log, on_failure=told.append)

    def fail(_synced: int) -> None:
        raise StorageFailedError("the mark's disk")

    for _ in range(2):
        with pytest.raises(StorageFailedError, match="the mark's disk"):
            await log_writer.persist([(1, b"x")], fail)
    assert len(told) == 1


async def test_a_cancelled_request_is_written_whole_or_not_at_all() -> None:
    """One whose turn it is goes on to the end; one that waits is as if never made."""
    disk = GatedDisk()
    log, _ = open_log(disk)
    log_writer = LogWriter(log)
    marked: list[int] = []

    async def ask(data: bytes) -> None:
        await log_writer.persist([(1, data)], marked.append)

    async with trio.open_nursery() as nursery:
        disk.gated = True
        nursery.start_soon(ask, b"one")
        await begun(disk)
        nursery.start_soon(ask, b"two")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        disk.gate.release(1)
    assert marked == [log_writer.synced]
    disk.gated = False
    await log_writer.persist([(1, b"three")])
    assert open_log(disk.crash())[1] == [b"one", b"three"]
