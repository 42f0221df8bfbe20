"""The append log for trio: each request has its turn, here or in a worker thread.

Turns are in the order in which the requests were made. A request returns only when its entries
are on disk. They stay together and in order, and a crash keeps a prefix of them: put first what
the later ones rely on. Whoever has many promises under way gathers them for one request
(``node.outbox``), so that one sync covers them all.

A small request waits for a quick disk here, in the event loop: handing it to a thread and back
takes longer than the disk and costs more processor time than everything else about it
(docs/adr/0023-quick-disks-waited-for-here.md). Large requests, and those that follow a slow one,
go to a thread.

After a failure every waiting and later request raises ``StorageFailedError``; nothing is retried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from node.errors import StorageFailedError
from node.storage.log import Log

HERE_BYTES_MAX: Final = 64 * 1024
"""Longer requests go to a thread, whatever the disk."""
HERE_SECONDS_MAX: Final = 0.002
"""What a quick disk takes for a request made here."""
SLOW_ROW: Final = 32
"""So many longer waits one after the other show a slow disk; a few may show a busy processor."""
SLOW_REQUESTS: Final = 2048
"""So many requests go to a thread before a disk that was slow is tried here again."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Persisted:
    """What ``persist`` returns.

    Attributes:
        offsets: of the request's entries, in order.
        synced: everything of the log below it is on disk.
    """

    offsets: tuple[int, ...]
    synced: int


class LogWriter:
    """Owns a ``Log``'s writing side.

    Args:
        log: an open log. Nobody else may write to it while requests are under way.
        on_sync: metric hook, told the seconds of each ``persist`` that succeeded, write and sync
            and ``then`` together.
        on_failure: called once, in the trio thread, with the failure that ended all writing.
        here_seconds_max: what a quick disk takes at most; 0: none is quick.
    """

    def __init__(
        self,
        log: Log,
        *,
        on_sync: Callable[[float], None] | None = None,
        on_failure: Callable[[StorageFailedError], None] | None = None,
        here_seconds_max: float = HERE_SECONDS_MAX,
    ) -> None:
        self._log = log
        self._on_sync = on_sync
        self._on_failure = on_failure
        self._turn = trio.CapacityLimiter(1)  # hands its one token on in order
        self._told = False
        self._here_seconds_max = here_seconds_max
        self._slow_row = 0
        self._left_to_thread = 0
        """Requests that a thread still takes because the disk was slow."""

    @property
    def synced(self) -> int:
        """Everything of the log below this offset is on disk."""
        return self._log.synced

    @property
    def waiting(self) -> int:
        """Requests whose turn has not come; a gauge."""
        return self._turn.statistics().tasks_waiting

    async def persist(
        self, entries: Sequence[tuple[int, bytes]], then: Callable[[int], None] | None = None
    ) -> Persisted:
        """Append ``entries`` and return once they are on disk.

        If the caller is cancelled, the entries may still be written.

        Args:
            entries: kinds and payloads.
            then: called with the synced offset, maybe in the worker thread, before this returns.

        Raises:
            StorageFailedError: the disk failed, now or before.
        """
        if self._is_quick(entries):
            try:
                persisted, seconds = self._persist(entries, then)
            except StorageFailedError as error:
                self._tell(error)
                raise
            self._look_at(seconds)
        else:
            persisted, seconds = await self._in_turn(lambda: self._persist(entries, then))
        if self._on_sync is not None:
            self._on_sync(seconds)
        return persisted

    def _is_quick(self, entries: Sequence[tuple[int, bytes]]) -> bool:
        """Whether the disk is waited for here: nobody is before us, and it will not take long."""
        if self._left_to_thread:
            self._left_to_thread -= 1
            return False
        if not self._here_seconds_max or self._turn.borrowed_tokens:
            return False
        return sum([len(payload) for _, payload in entries]) <= HERE_BYTES_MAX

    def _look_at(self, seconds: float) -> None:
        """Note how long a request made here has taken."""
        self._slow_row = self._slow_row + 1 if seconds > self._here_seconds_max else 0
        if self._slow_row >= SLOW_ROW:
            self._slow_row = 0
            self._left_to_thread = SLOW_REQUESTS

    async def rotate(self, first_entries: Sequence[tuple[int, bytes]]) -> Persisted:
        """Begin a new segment with ``first_entries``, after all earlier requests. See Log."""
        return await self._in_turn(
            lambda: Persisted(tuple(self._log.rotate(first_entries)), self._log.synced)
        )

    async def drop_before(self, offset: int) -> None:
        """Remove the segments that end at or below ``offset``. See Log."""
        await self._in_turn(lambda: self._log.drop_before(offset))

    async def _in_turn(self, work: Callable[[], Result]) -> Result:
        try:
            return await trio.to_thread.run_sync(work, limiter=self._turn)
        except StorageFailedError as error:
            self._tell(error)
            raise

    def _tell(self, error: StorageFailedError) -> None:
        """Tell of the first failure."""
        if not self._told:
            self._told = True
            if self._on_failure is not None:
                self._on_failure(error)

    def _persist(
        self, entries: Sequence[tuple[int, bytes]], then: Callable[[int], None] | None
    ) -> tuple[Persisted, float]:
        """Do what ``persist`` says, waiting for the disk."""
        begin = time.perf_counter()
        offsets = tuple([self._log.append(kind, payload) for kind, payload in entries])
        synced = self._log.sync()
        if then is not None:
            then(synced)
        return Persisted(offsets, synced), time.perf_counter() - begin
