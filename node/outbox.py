"""Persist before send: one queue over all steps of the replica, in order.

What follows a ``Persist`` leaves the machine only when that is durable, with the batches that the
promise relies on and, after them, the signer's own mark. While a sync runs, further effects gather;
the next sync covers them all, so a busy node pays one for many steps. What has nothing durable
before it leaves at once.

Not here: what is sent and to whom (the runtime's ``act``), and the disk (``node.storage``).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final, Protocol

import trio

from consensus.errors import invariant
from consensus.hotstuff import wire
from consensus.hotstuff.events import Broadcast, Deliver, Persist, Send
from node.signer import Mark
from node.storage import kinds

QUEUE_MAX: Final = 65_536
"""Effects that wait for one sync; beyond it the disk has stopped serving, which stops the node."""

Outgoing = Broadcast | Send | Deliver


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


class Outbox:
    """The queue. ``put`` never blocks; ``run`` is a task of the node.

    Args:
        log: makes entries durable.
        mark: makes the signer's memory durable, beside the log.
        act: performs one effect whose promises are durable; must not block.
    """

    def __init__(self, log: DurableLog, mark: DurableMark, act: Callable[[Outgoing], None]) -> None:
        self._log = log
        self._mark = mark
        self._act = act
        self._queue: list[Outgoing | Persist | partial[None]] = []
        self._entries: list[kinds.Entry] = []
        self._busy = False
        self._wake = trio.Event()
        self.newest_record = b""
        """The last safety record that was put; a new log segment begins with it."""

    @property
    def depth(self) -> int:
        """Effects waiting."""
        return len(self._queue)

    def log(self, entry: kinds.Entry) -> None:
        """Append ``entry`` with the next sync, before whatever is put afterwards."""
        self._entries.append(entry)

    def put(self, effect: Outgoing | Persist) -> None:
        """Take one effect, in order."""
        if isinstance(effect, Persist):
            for block in effect.blocks:
                self._entries.append(kinds.block(block.height, block.id, wire.encode_block(block)))
            self.newest_record = effect.record
            self._add(effect)
        elif self._queue or self._busy:
            self._add(effect)
        else:
            self._act(effect)

    def after_sync(self, action: partial[None]) -> None:
        """Call ``action`` once everything logged so far is durable."""
        self._add(action)

    def _add(self, item: Outgoing | Persist | partial[None]) -> None:
        invariant(len(self._queue) < QUEUE_MAX, "the log has not synced for too long")
        self._queue.append(item)
        self._wake.set()

    async def run(self) -> None:
        """Sync and act until cancelled."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            queue, self._queue = self._queue, []
            entries, self._entries = self._entries, []
            self._busy = True
            records = [item.record for item in queue if isinstance(item, Persist)]
            if records:  # the newest record holds every promise of those before it
                entries.append(kinds.safety(records[-1]))
            if records:
                mark = self._mark.snapshot()
                await self._log.persist(entries, partial(self._mark.write_mark, mark=mark))
            elif entries:
                await self._log.persist(entries)
            for item in queue:
                if isinstance(item, partial):
                    item()
                elif not isinstance(item, Persist):
                    self._act(item)
            self._busy = False
