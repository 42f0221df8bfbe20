"""Concurrent requests share one sync, in order; a failure reaches everybody."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from consensus.errors import ComityError
from node.errors import StorageFailedError
from node.storage import writer
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


@asynccontextmanager
async def running(log_writer: LogWriter) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_writer.run)
        yield
        log_writer.close()


async def begun(disk: GatedDisk) -> None:
    await trio.to_thread.run_sync(disk.begun.acquire)


async def test_persist_returns_offsets_and_what_is_on_disk() -> None:
    disk = MemoryDisk()
    log, _ = open_log(disk)
    log_writer = LogWriter(log)
    async with running(log_writer):
        first = await log_writer.persist([(1, b"a"), (2, b"b")])
        assert log.read(first.offsets[0]) == (1, b"a")
        assert log.read(first.offsets[1]) == (2, b"b")
        assert first.synced == log.end == log_writer.synced
        assert await log_writer.persist([]) == Persisted((), first.synced)
    assert open_log(disk.crash())[1] == [b"a", b"b"]


async def test_requests_made_during_a_sync_share_the_next_one_in_their_order() -> None:
    disk = GatedDisk()
    log, _ = open_log(disk)
    groups: list[tuple[int, int]] = []
    log_writer = LogWriter(log, on_group=lambda _s, size, count: groups.append((size, count)))
    results: dict[int, Persisted] = {}

    async def ask(number: int) -> None:
        results[number] = await log_writer.persist([(1, b"%03d" % number), (2, b"!")])

    async with running(log_writer), trio.open_nursery() as nursery:
        disk.gated = True
        before = disk.calls["sync"]
        nursery.start_soon(ask, 0)
        await begun(disk)
        for number in range(1, 51):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
        assert results == {}, "nobody is told before the disk has it"
        assert log_writer.waiting == 50
        disk.gate.release(2)
    assert disk.calls["sync"] - before == 2
    assert groups == [(4, 1), (200, 50)]
    starts = [results[number].offsets[0] for number in range(51)]
    assert starts == sorted(starts)
    assert len({results[number].synced for number in range(1, 51)}) == 1
    expected = [part for number in range(51) for part in (b"%03d" % number, b"!")]
    assert open_log(disk.crash())[1] == expected


async def test_a_group_does_not_grow_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "GROUP_BYTES_MAX", 100)
    disk = GatedDisk()
    log, _ = open_log(disk)
    groups: list[tuple[int, int]] = []
    log_writer = LogWriter(log, on_group=lambda _s, size, count: groups.append((size, count)))
    async with running(log_writer), trio.open_nursery() as nursery:
        disk.gated = True
        nursery.start_soon(log_writer.persist, [(1, b"first")])
        await begun(disk)
        for size in (40, 40, 40, 300, 10):
            nursery.start_soon(log_writer.persist, [(1, bytes(size))])
            await trio.testing.wait_all_tasks_blocked()
        disk.gate.release(10)
    assert groups == [(5, 1), (80, 2), (40, 1), (300, 1), (10, 1)]


async def test_the_queue_is_bounded_and_full_means_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "REQUESTS_MAX", 2)
    disk = GatedDisk()
    log, _ = open_log(disk)
    log_writer = LogWriter(log)
    done: list[int] = []

    async def ask(number: int) -> None:
        await log_writer.persist([(1, b"%d" % number)])
        done.append(number)

    async with running(log_writer), trio.open_nursery() as nursery:
        disk.gated = True
        for number in range(6):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
        await begun(disk)
        assert log_writer.waiting == 2
        disk.gate.release(10)
    assert sorted(done) == list(range(6))
    assert open_log(disk.crash())[1] == [b"%d" % number for number in range(6)]


async def test_rotation_and_dropping_keep_their_place_in_the_order() -> None:
    disk = GatedDisk()
    log, _ = open_log(disk)
    log_writer = LogWriter(log)
    order: list[str] = []

    async def note(name: str, action: object) -> None:
        await action  # type: ignore[misc]
        order.append(name)

    async with running(log_writer), trio.open_nursery() as nursery:
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

    async with running(log_writer), trio.open_nursery() as nursery:
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
    assert log_writer.failed is told[0]
    assert len({id(error) for error in errors}) == len(errors), "each gets an error of its own"


async def test_after_close_accepted_requests_are_served_and_new_ones_refused() -> None:
    disk = GatedDisk()
    log, _ = open_log(disk)
    log_writer = LogWriter(log)
    results: list[Persisted] = []

    async def ask(data: bytes) -> None:
        results.append(await log_writer.persist([(1, data)]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_writer.run)
        disk.gated = True
        nursery.start_soon(ask, b"one")
        await begun(disk)
        nursery.start_soon(ask, b"two")
        await trio.testing.wait_all_tasks_blocked()
        log_writer.close()
        with pytest.raises(StorageFailedError, match="no more entries"):
            await log_writer.persist([(1, b"three")])
        disk.gate.release(2)
    assert len(results) == 2
    assert open_log(disk.crash())[1] == [b"one", b"two"]


async def test_when_the_writer_is_cancelled_waiting_requests_are_refused() -> None:
    disk = GatedDisk()
    log, _ = open_log(disk)
    log_writer = LogWriter(log)
    errors: list[str] = []

    async def ask() -> None:
        try:
            await log_writer.persist([(1, b"x")])
        except StorageFailedError as error:
            errors.append(error.message)

    async with trio.open_nursery() as outer, trio.open_nursery() as inner:
        inner.start_soon(log_writer.run)
        disk.gated = True
        outer.start_soon(ask)
        await begun(disk)
        outer.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        inner.cancel_scope.cancel()
        disk.gate.release(1)
    assert errors == ["the log takes no more entries, the node stops"]
