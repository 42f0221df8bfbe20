"""Persist before send: order, sharing of syncs, the mark, and the end after a failure."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio
import trio.testing

from consensus.errors import LocalProtocolError
from consensus.hotstuff import wire
from consensus.hotstuff.events import Broadcast, Persist, Send
from consensus.hotstuff.types import Block, Certificates, SignKind, genesis_block
from node import outbox
from node.errors import StorageFailedError
from node.outbox import Outbox, Outgoing
from node.signer import Mark, SignedBody
from node.storage import kinds
from node.storage.kinds import Kind

FIRST = genesis_block(b"c" * 32, b"k" * 32, 1_000)


def block(height: int) -> Block:
    return replace(FIRST, height=height, round=height)


def sent(number: int) -> Send:
    """An effect that can be told from others."""
    return Send(number, Certificates(1, None, None, None))


class Disk:
    """A log and a mark that wait to be let through, and write down in which order they came."""

    def __init__(self) -> None:
        self.story: list[object] = []
        self.gate = trio.Semaphore(0)
        self.signed = 0
        self.fails = False

    async def persist(
        self, entries: list[kinds.Entry], then: Callable[[int], None] | None = None
    ) -> object:
        await self.gate.acquire()
        if self.fails:
            raise StorageFailedError("the log failed to sync")
        self.story.append(("log", [(kind.name, data[-8:]) for kind, data in entries]))
        if then is not None:
            then(len(self.story))
        return None

    def snapshot(self) -> Mark:
        body = SignedBody(SignKind.VOTE, 1, self.signed, b"")
        return Mark({SignKind.VOTE: body}, (-1, -1), {})

    def write_mark(self, log_synced: int, mark: Mark | None = None) -> None:
        assert mark is not None
        self.story.append(("mark", mark.last[SignKind.VOTE].round))

    def act(self, effect: Outgoing) -> None:
        assert isinstance(effect, Send)
        self.story.append(("sent", effect.peer))


@asynccontextmanager
async def running(box: Outbox) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(box.run)
        yield
        nursery.cancel_scope.cancel()


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


def record(name: str) -> bytes:
    return name.encode().rjust(8)


async def test_what_follows_a_promise_waits_for_log_then_mark_and_leaves_in_order() -> None:
    disk = Disk()
    box = Outbox(disk, disk, disk.act)
    async with running(box):
        box.put(sent(1))
        assert disk.story == [("sent", 1)], "nothing durable comes before it"
        disk.story.clear()
        box.log((Kind.BATCH, b"b" * 40))
        disk.signed = 7
        box.put(Persist(record("one"), ()))
        box.put(sent(2))
        box.after_sync(lambda: disk.story.append("told"))
        box.put(sent(3))
        await settled()
        assert disk.story == []
        disk.gate.release()
        await settled()
        logged = [("BATCH", b"b" * 8), ("SAFETY", record("one"))]
        assert disk.story == [("log", logged), ("mark", 7), ("sent", 2), "told", ("sent", 3)]
        box.put(sent(4))
        assert disk.story[-1] == ("sent", 4)


async def test_promises_made_during_a_sync_share_the_next_one_under_the_newest_record() -> None:
    disk = Disk()
    box = Outbox(disk, disk, disk.act)
    async with running(box):
        disk.signed = 1
        box.put(Persist(record("one"), (block(1),)))
        box.put(sent(1))
        await settled()  # the first sync has begun
        for number in (2, 3):
            disk.signed = number
            box.put(Persist(record(str(number)), (block(number),)))
            box.put(sent(number))
        disk.signed = 99  # signed, and not yet promised in any record
        disk.gate.release()
        disk.gate.release()
        await settled()
    ends = {n: wire.encode_block(block(n))[-8:] for n in (1, 2, 3)}
    assert disk.story == [
        ("log", [("BLOCK", ends[1]), ("SAFETY", record("one"))]),
        ("mark", 1),
        ("sent", 1),
        ("log", [("BLOCK", ends[2]), ("BLOCK", ends[3]), ("SAFETY", record("3"))]),
        ("mark", 3),
        ("sent", 2),
        ("sent", 3),
    ]


async def test_what_arises_while_effects_leave_goes_behind_them() -> None:
    disk = Disk()

    def act(effect: Outgoing) -> None:
        disk.act(effect)
        if isinstance(effect, Send) and effect.peer < 10:
            box.put(sent(effect.peer + 10))

    box = Outbox(disk, disk, act)
    async with running(box):
        box.put(Persist(record("one"), ()))
        box.put(sent(1))
        box.put(sent(2))
        disk.gate.release()
        await settled()
    assert disk.story[2:] == [("sent", number) for number in (1, 2, 11, 12)]


async def test_after_a_failed_sync_nothing_ever_leaves() -> None:
    disk = Disk()
    box = Outbox(disk, disk, disk.act)
    async with running(box):
        box.put(Persist(record("one"), ()))
        box.put(sent(1))
        await settled()
        box.put(Persist(record("two"), ()))
        box.put(sent(2))
        disk.fails = True
        disk.gate.release()
        disk.gate.release()
        await settled()
        for effect in (sent(3), Persist(record("three"), ()), sent(4)):
            box.put(effect)
        box.after_sync(lambda: disk.story.append("told"))
        disk.fails = False
        await settled()
        assert disk.story == []
        assert box.depth == 0
    assert box.newest_record == record("two")


async def test_closing_while_effects_leave_keeps_the_rest() -> None:
    disk = Disk()

    def act(effect: Outgoing) -> None:
        disk.act(effect)
        box.close()

    box = Outbox(disk, disk, act)
    async with running(box):
        box.put(Persist(record("one"), ()))
        box.put(sent(1))
        box.put(sent(2))
        disk.gate.release()
        await settled()
    assert disk.story[2:] == [("sent", 1)]


async def test_a_disk_that_never_answers_fills_a_bounded_queue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(outbox, "QUEUE_MAX", 3)
    disk = Disk()
    box = Outbox(disk, disk, disk.act)
    box.put(Persist(record("one"), ()))
    box.put(sent(1))
    box.put(sent(2))
    with pytest.raises(LocalProtocolError, match="not synced"):
        box.put(Broadcast(Certificates(1, None, None, None)))


def test_the_blocks_of_the_log_are_known_until_the_store_has_their_height() -> None:
    """Those found at the start, those put since, of every branch; parents first."""
    disk = Disk()
    found = kinds.AtHeight(5, b"f" * 32, b"found")
    box = Outbox(disk, disk, disk.act, record("old"), [found])
    assert box.newest_record == record("old")
    rivals = [replace(block(4), time_ms=time_ms) for time_ms in (1, 2)]
    box.put(Persist(record("new"), (block(6), *rivals)))
    entries = box.blocks()
    heights = [kinds.AtHeight.unpack(payload).height for _, payload in entries]
    assert heights == [4, 4, 5, 6]
    assert {kind for kind, _ in entries} == {Kind.BLOCK}
    assert (Kind.BLOCK, found.pack()) in entries
    assert kinds.block(6, block(6).id, wire.encode_block(block(6))) in entries
    box.flushed(4)
    assert [kinds.AtHeight.unpack(payload).height for _, payload in box.blocks()] == [5, 6]
    box.flushed(6)
    assert box.blocks() == []
