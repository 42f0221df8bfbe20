"""The append log for trio: each request has its turn in a thread of the log's own.

Turns are in the order in which the requests were made. A request returns only when its entries
are on disk. They stay together and in order, and a crash keeps a prefix of them: put first what
the later ones rely on. Whoever has many promises under way gathers them for one request
(``node.outbox``), so that one sync covers them all.

After a failure every waiting and later request raises ``StorageFailedError``; nothing is retried.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from node.errors import StorageFailedError
from node.storage.log import Log
from node.storage.own_thread import OwnThread

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
    """

    def __init__(
        self,
        log: Log,
        *,
        on_sync: Callable[[float], None] | None = None,
        on_failure: Callable[[StorageFailedError], None] | None = None,
    ) -> None:
        self._log = log
        self._on_sync = on_sync
        self._on_failure = on_failure
        self._thread = OwnThread("log")
        self._told = False

    @property
    def synced(self) -> int:
        """Everything of the log below this offset is on disk."""
        return self._log.synced

    @property
    def waiting(self) -> int:
        """Requests whose turn has not come; a gauge."""
        return self._thread.waiting

    async def persist(
        self, entries: Sequence[tuple[int, bytes]], then: Callable[[int], None] | None = None
    ) -> Persisted:
        """Append ``entries`` and return once they are on disk.

        If the caller is cancelled, the entries may still be written.

        Args:
            entries: kinds and payloads.
            then: called in the worker thread with the synced offset, before this returns.

        Raises:
            StorageFailedError: the disk failed, now or before.
        """
        persisted, seconds = await self._in_turn(lambda: self._persist(entries, then))
        if self._on_sync is not None:
            self._on_sync(seconds)
        return persisted

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
            return await self._thread.run(work)
        except StorageFailedError as error:
            if not self._told:
                self._told = True
                if self._on_failure is not None:
                    self._on_failure(error)
            raise

    def _persist(
        self, entries: Sequence[tuple[int, bytes]], then: Callable[[int], None] | None
    ) -> tuple[Persisted, float]:
        """Runs in the worker thread."""
        begin = time.perf_counter()
        offsets = tuple([self._log.append(kind, payload) for kind, payload in entries])
        synced = self._log.sync()
        if then is not None:
            then(synced)
        return Persisted(offsets, synced), time.perf_counter() - begin
