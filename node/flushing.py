"""Certified heights go from memory into the store, behind the log, in a worker thread.

A flush ends at a height that has a certificate of its own, so the store proves all that it holds.
Afterwards the log begins a new segment when it has grown, with everything that is still promised
or not yet flushed, and older segments go: first the store, then the new segment, then the removal,
each on disk before the next. What a segment begins with does not count as growth.

Not here: what a flush writes in detail (``node.storage.flush``), and what is listed (``listed``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import trio

from consensus import codec
from consensus.ledger.layout import Paths
from consensus.ledger.terms import DAY_MS
from consensus.state.history import HistoryTree
from consensus.state.state import State
from node import aside, past, retention
from node.chronicle import Chronicle
from node.errors import StorageFailedError
from node.execution import Execution
from node.listed import index_entries
from node.retention import Retention
from node.sealed.vault import Change
from node.storage import kinds
from node.storage.flush import FlushBatch
from node.storage.log import Log
from node.storage.store import Store
from node.storage.writer import LogWriter
from node.telemetry.metrics import Metrics

SECONDS_MAX: Final = 1.0
"""A certified height waits at most this long, if nothing else brings a flush about."""
HEIGHTS_PER_FLUSH_MAX: Final = 256
LOG_BYTES_ROTATE: Final = 64 * 2**20
Settle = Callable[[Sequence[Change], int], Awaitable[None]]
META_NUMBERS: Final = b"batch numbers"
"""Per origin, the highest batch number delivered; CBOR."""


class Flusher:
    """Brings the store up to the certified heights.

    Args:
        blocks: flush once this many heights wait.
        paths: key paths of the network.
        numbers: per origin, the highest batch number delivered up to the store's height.
        carry: returns the entries that a new log segment must begin with.
        flushed: is told each height that the store has reached.
        failed: is told of a disk that failed; nothing more is flushed.
        settle: takes over what the heights mean for sealed values, before they are flushed.
        kept: says whose private parts go; None: they stay.
        dropped: is told of batches whose private parts are gone from the store.
        keep_days: rows replaced so many days of chain time ago are forgotten; 0: never.
        boundary: returns at multiples of which height a flush is to end where it can; 0: any.
    """

    def __init__(
        self,
        store: Store,
        log: Log,
        writer: LogWriter,
        execution: Execution,
        chronicle: Chronicle,
        paths: Paths,
        numbers: Sequence[int],
        blocks: int,
        carry: Callable[[], list[kinds.Entry]],
        flushed: Callable[[int], None],
        failed: Callable[[StorageFailedError], None],
        metrics: Metrics,
        settle: Settle | None = None,
        kept: Retention | None = None,
        dropped: Callable[[Sequence[bytes]], None] = lambda digests: None,
        keep_days: int = 0,
        boundary: Callable[[], int] = lambda: 0,
    ) -> None:
        self._settle = settle
        self._retention = kept or Retention(0, None, lambda height: None)
        self._dropped = dropped
        self._store = store
        self._boundary = boundary
        self._log = log
        self._writer = writer
        self._execution = execution
        self._chronicle = chronicle
        self._paths = paths
        self._numbers = list(numbers)
        self._blocks = blocks
        self._carry = carry
        self._flushed = flushed
        self._failed = failed
        self._metrics = metrics
        self._keep_days = keep_days
        self._bell = trio.Event()
        self._grown_from = log.end - log.segment_bytes

    def ring(self) -> None:
        """A height was certified."""
        if self._chronicle.provable() - self._store.height >= self._blocks:
            self._bell.set()

    async def run(self) -> None:
        """Flush and turn the log until cancelled, or until the disk fails."""
        while True:
            with trio.move_on_after(SECONDS_MAX):
                await self._bell.wait()
            self._bell = trio.Event()
            try:
                if await self.flush():
                    await self.turn_log(LOG_BYTES_ROTATE)
            except StorageFailedError as error:
                self._failed(error)
                return

    async def flush(self) -> bool:
        """Flush what is certified by certificates of its own; return whether there was any.

        Raises:
            StorageFailedError: the store is as it was.
        """
        before = self._store.height
        while (upto := self._target()) > self._store.height:
            begin = trio.current_time()
            state, history = self._execution.state, self._execution.history
            numbers = self._numbers_at(upto)
            if self._settle is not None:
                await self._settle(*self._chronicle.sealed_upto(upto))
            first, private = self._retention.step(upto, self._chronicle.time_ms())
            batch = self._batch(upto, state, history, numbers)
            drafts = self._retention.drafts(self._store.view, self._paths, first)
            if drafts.unlisted:
                index = [*batch.index, *drafts.unlisted]
                batch = replace(batch, index=index, bared=drafts.rows)
            if private:
                more = [*batch.meta, *retention.meta(first)]
                batch = replace(batch, meta=more, private=private)
            await self._store.flush(batch)
            self._retention.done(first)
            self._dropped(private)
            state.flushed(upto)
            state.reread(kh for kh, _ in drafts.rows)
            history.flushed(upto)
            self._chronicle.flushed(upto)
            self._flushed(upto)
            self._numbers = numbers
            self._metrics.flush_seconds.observe(trio.current_time() - begin)
        return self._store.height > before

    def _target(self) -> int:
        height, boundary = self._store.height, self._boundary()
        if boundary:
            upto = height // boundary * boundary + boundary
            if self._chronicle.provable_upto(upto) == upto:
                return upto
        upto = self._chronicle.provable_upto(height + HEIGHTS_PER_FLUSH_MAX)
        # One certificate may cover more, as after a start with much that was not flushed.
        return upto or self._chronicle.first_provable()

    def _batch(
        self, upto: int, state: State, history: HistoryTree, numbers: list[int]
    ) -> FlushBatch:
        rows = state.pending(upto)
        return FlushBatch(
            height=upto,
            rows=rows,
            blocks=self._chronicle.to_flush(upto),
            history=[(level, index, node) for (level, index), node in history.pending(upto)],
            index=[
                *index_entries(rows, self._is_stored, self._paths),
                *self._chronicle.index_entries(upto),
            ],
            aside=[
                *aside.ended(self._store.view.aside_keys, self._chronicle.time_ms()),
                *self._chronicle.to_set_aside(upto),
            ],
            meta=[
                (META_NUMBERS, codec.encode(numbers)),
                *[ended.meta() for ended in self._chronicle.ended(upto)],
            ],
            forget=self._forgotten(),
        )

    def _forgotten(self) -> int:
        """Return up to which height replaced rows are forgotten now; -1: none are."""
        if not self._keep_days:
            return -1
        before_ms = self._chronicle.time_ms() - self._keep_days * DAY_MS
        return past.forgotten(self._store.view, before_ms)

    def _is_stored(self, kh: bytes) -> bool:
        return self._store.view.get(kh) is not None

    def _numbers_at(self, upto: int) -> list[int]:
        numbers = list(self._numbers)
        for block in self._chronicle.blocks(self._store.height + 1, upto):
            for item in block.payload:
                numbers[item.origin] = max(numbers[item.origin], item.number)
        return numbers

    async def turn_log(self, from_bytes: int) -> None:
        """Begin a new segment of the log, if this one has grown by so much or retention asks.

        Raises:
            StorageFailedError: the log holds what it held.
        """
        due = self._retention.turns_log(self._chronicle.time_ms())
        if self._log.end - self._grown_from < from_bytes and not due:
            return
        persisted = await self._writer.rotate(self._carry())
        self._grown_from = persisted.synced
        await self._writer.drop_before(persisted.synced)
