"""Persist before send: one queue over all steps of the replica, in order.

What follows a ``Persist`` leaves the machine only when that is durable, with the batches that the
promise relies on and, after them, the signer's own mark. While a sync runs, further effects gather;
the next sync covers them all, so a busy node pays one for many steps. What has nothing durable
before it leaves at once. Once a sync has failed, nothing leaves any more.

The outbox also knows what a new log segment must begin with: the newest record, and every block
that was given to the log or found in it.

``take`` and ``carry_out`` are the queue's two halves, one before and one after a sync, and need no
event loop; ``run`` puts a sync between them.

Not here: what is sent and to whom (the runtime's ``act``), and the disk (``node.storage``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from consensus.errors import invariant
from consensus.hotstuff import wire
from consensus.hotstuff.events import Broadcast, Deliver, EndEpoch, Persist, Send
from node.errors import StorageFailedError
from node.signer import Mark
from node.storage import kinds

QUEUE_MAX: Final = 65_536
"""Effects that wait for one sync; beyond it the disk has stopped serving, which stops the node."""

Outgoing = Broadcast | Send | Deliver | EndEpoch
Action = Callable[[], None]


class DurableLog(Protocol):
    """Where entries become durable (``node.storage.writer.LogWriter``)."""

    async def persist(
        self, entries: list[kinds.Entry], then: Callable[[int], None] | None = None
    ) -> object:
        """Return once all entries are on disk, in order, and ``then`` has been called."""
        ...


class DurableMark(Protocol):
    """The signer's own mark (``node.signer.Signer``)."""

    def snapshot(self) -> Mark:
        """Return everything signed so far."""
        ...

    def write_mark(self, log_synced: int, mark: Mark | None = None) -> None:
        """Return once ``mark`` is on disk; the log holds what it tells of."""
        ...


@dataclass(frozen=True, slots=True)
class Turn:
    """What one sync covers.

    Args:
        queue: carried out once ``entries`` and then ``mark`` are on disk.
        entries: of the log; the newest safety record last, if one was put.
        mark: the signer's, as it was put with that record; None: the mark need not move.
    """

    queue: list[Outgoing | Persist | Action]
    entries: list[kinds.Entry]
    mark: Mark | None


class Outbox:
    """The queue. ``put`` never blocks; ``run`` is a task of the node.

    Args:
        log: makes entries durable.
        mark: makes the signer's memory durable, beside the log.
        act: performs one effect whose promises are durable; must not block.
        record: the safety record that the log holds, if there is one.
        blocks: those that the log holds above the store.
    """

    def __init__(
        self,
        log: DurableLog,
        mark: DurableMark,
        act: Callable[[Outgoing], None],
        record: bytes | None = None,
        blocks: Iterable[kinds.AtHeight] = (),
    ) -> None:
        self._log = log
        self._mark = mark
        self._act = act
        self._queue: list[Outgoing | Persist | Action] = []
        self._entries: list[kinds.Entry] = []
        self._marked: Mark | None = None
        self._blocks = {block.block_id: block for block in blocks}
        self._busy = False
        self._closed = False
        self._wake = trio.Event()
        self.newest_record = record
        """The last safety record that was put, or found; None while nothing was ever promised."""

    @property
    def depth(self) -> int:
        """Effects waiting."""
        return len(self._queue)

    @property
    def settled(self) -> bool:
        """Whether everything that was put is durable and has left."""
        return not (self._queue or self._busy or self._closed)

    def log(self, entry: kinds.Entry) -> None:
        """Append ``entry`` with the next sync, before whatever is put afterwards."""
        if not self._closed:
            self._entries.append(entry)

    def log_record(self, record: bytes) -> None:
        """Append a safety record that promises nothing new with the next sync."""
        if not self._closed:
            self._entries.append(kinds.safety(record))
            self.newest_record = record

    def put(self, effect: Outgoing | Persist) -> None:
        """Take one effect, in order."""
        if self._closed:
            return
        if isinstance(effect, Persist):
            for block in effect.blocks:
                found = kinds.AtHeight(block.height, block.id, wire.encode_block(block))
                self._blocks[block.id] = found
                self._entries.append((kinds.Kind.BLOCK, found.pack()))
            self.newest_record = effect.record
            self._marked = self._mark.snapshot()
            self._add(effect)
        elif self._queue or self._busy:
            self._add(effect)
        else:
            self._act(effect)

    def after_sync(self, action: Action) -> None:
        """Call ``action`` once everything logged so far is durable, after what was put before."""
        if not self._closed:
            self._add(action)

    def close(self) -> None:
        """Let nothing leave any more; what waits is dropped."""
        self._closed = True
        self._queue = []
        self._entries = []

    def flushed(self, height: int) -> None:
        """The store holds every certified block up to ``height``."""
        self._blocks = {i: block for i, block in self._blocks.items() if block.height > height}

    def blocks(self) -> list[kinds.Entry]:
        """Return the log's blocks above the store, of every branch, each after its parent."""
        ordered = sorted(self._blocks.values(), key=lambda block: block.height)
        return [(kinds.Kind.BLOCK, block.pack()) for block in ordered]

    def _add(self, item: Outgoing | Persist | Action) -> None:
        invariant(len(self._queue) < QUEUE_MAX, "the log has not synced for too long")
        self._queue.append(item)
        self._wake.set()

    def take(self) -> Turn | None:
        """Return what the next sync covers, or None if nothing waits or a sync is under way."""
        if self._busy or self._closed or not self._queue:
            return None
        queue, self._queue = self._queue, []
        entries, self._entries = self._entries, []
        mark, self._marked = self._marked, None
        records = [item.record for item in queue if isinstance(item, Persist)]
        if records:  # the newest record holds every promise of those before it
            entries.append(kinds.safety(records[-1]))
        self._busy = True
        return Turn(queue, entries, mark)

    def carry_out(self, turn: Turn) -> None:
        """Let leave what waited for a sync that has succeeded, in order."""
        for item in turn.queue:
            if self._closed:
                return
            if isinstance(item, Broadcast | Send | Deliver | EndEpoch):
                self._act(item)
            elif not isinstance(item, Persist):
                item()
        self._busy = False

    async def run(self) -> None:
        """Sync and act until cancelled, or until the disk fails; then nothing leaves any more."""
        while not self._closed:
            await self._wake.wait()
            self._wake = trio.Event()
            turn = self.take()
            if turn is None:
                continue
            try:
                await self._sync(turn)
            except StorageFailedError:  # whoever owns the log tells the node
                self.close()
                return
            self.carry_out(turn)

    async def _sync(self, turn: Turn) -> None:
        """Make durable what a turn relies on, and then the mark as it was put with it."""
        mark = turn.mark
        if mark is not None:
            await self._log.persist(
                turn.entries, lambda synced: self._mark.write_mark(synced, mark)
            )
        elif turn.entries:
            await self._log.persist(turn.entries)
