"""The append log for trio: concurrent requests share one group and one fdatasync.

Requests are served in the order in which they were made. While a sync runs in its worker thread,
new requests gather; the next group takes all of them, up to ``GROUP_BYTES_MAX``. A request
returns only when its entries are on disk. Entries of one request stay together and in order, and
a crash keeps a prefix of them: put first what the later ones rely on.

After a failure every waiting and later request raises ``StorageFailedError``; nothing is retried.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

import trio

from consensus.errors import invariant
from node.errors import StorageFailedError
from node.storage.log import Log

REQUESTS_MAX: Final = 4096
"""Requests waiting for a sync; when full, ``persist`` waits for room."""
GROUP_BYTES_MAX: Final = 16 * 2**20
"""A group takes no further request once it holds this much."""

OnGroup = Callable[[float, int, int], None]
"""``(seconds, payload_bytes, requests)`` of one group, write and sync together."""


@dataclass(frozen=True, slots=True)
class Persisted:
    """What ``persist`` returns.

    Attributes:
        offsets: of the request's entries, in order.
        synced: everything of the log below it is on disk.
    """

    offsets: tuple[int, ...]
    synced: int


@dataclass(slots=True, eq=False)
class _Request:
    entries: Sequence[tuple[int, bytes]]
    then: Callable[[int], None] | None = None
    rotate: bool = False
    drop_before: int | None = None
    done: trio.Event = field(default_factory=trio.Event)
    result: Persisted | None = None
    error: StorageFailedError | None = None

    @property
    def alone(self) -> bool:
        return self.rotate or self.drop_before is not None

    @property
    def payload_bytes(self) -> int:
        return sum(len(payload) for _kind, payload in self.entries)


class LogWriter:
    """Owns a ``Log``'s writing side; ``run`` must be a task of the node.

    Args:
        log: an open log. Until ``run`` has ended nobody else may write to it.
        on_group: metric hook, called in the trio thread after each sync.
        on_failure: called once, in the trio thread, with the failure that ended all writing.
    """

    def __init__(
        self,
        log: Log,
        *,
        on_group: OnGroup | None = None,
        on_failure: Callable[[StorageFailedError], None] | None = None,
    ) -> None:
        self._log = log
        self._on_group = on_group
        self._on_failure = on_failure
        self._send, self._receive = trio.open_memory_channel[_Request](REQUESTS_MAX)
        self._threads = trio.CapacityLimiter(1)
        self._told = False

    @property
    def synced(self) -> int:
        """Everything of the log below this offset is on disk."""
        return self._log.synced

    @property
    def failed(self) -> StorageFailedError | None:
        """The failure after which nothing is written, or None."""
        return self._log.failed

    @property
    def waiting(self) -> int:
        """Requests not yet taken into a group; a gauge."""
        return self._receive.statistics().current_buffer_used

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
        return await self._ask(_Request(entries, then))

    async def rotate(self, first_entries: Sequence[tuple[int, bytes]]) -> Persisted:
        """Begin a new segment with ``first_entries``, after all earlier requests. See Log."""
        return await self._ask(_Request(first_entries, rotate=True))

    async def drop_before(self, offset: int) -> None:
        """Remove the segments that end at or below ``offset``. See Log."""
        await self._ask(_Request((), drop_before=offset))

    async def run(self) -> None:
        """Serve requests until ``close``; what was accepted before is still served."""
        held: _Request | None = None
        try:
            while True:
                try:
                    first = held or await self._receive.receive()
                except trio.EndOfChannel:
                    return
                group, held = self._gather(first)
                await self._serve(group)
        finally:
            self._refuse_rest(held)

    def close(self) -> None:
        """Take no more requests; ``run`` ends when those accepted are served."""
        self._send.close()

    async def _ask(self, request: _Request) -> Persisted:
        try:
            await self._send.send(request)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise StorageFailedError("the log takes no more entries, the node stops") from error
        await request.done.wait()
        if request.error is not None:
            raise StorageFailedError(request.error.message) from request.error
        invariant(request.result is not None, "a served request has a result or an error")
        return cast("Persisted", request.result)

    def _gather(self, first: _Request) -> tuple[list[_Request], _Request | None]:
        """Return the next group, and a request taken from the queue that must wait for it."""
        group = [first]
        group_bytes = first.payload_bytes
        while not first.alone and group_bytes < GROUP_BYTES_MAX:
            try:
                following = self._receive.receive_nowait()
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            group_bytes += following.payload_bytes
            if following.alone or group_bytes > GROUP_BYTES_MAX:
                return group, following
            group.append(following)
        return group, None

    async def _serve(self, group: list[_Request]) -> None:
        try:
            seconds = await trio.to_thread.run_sync(self._work, group, limiter=self._threads)
        except StorageFailedError as error:
            for request in group:
                request.error = error
                request.done.set()
            if not self._told:
                self._told = True
                if self._on_failure is not None:
                    self._on_failure(error)
            return
        for request in group:
            request.done.set()
        if self._on_group is not None:
            self._on_group(seconds, sum(item.payload_bytes for item in group), len(group))

    def _work(self, group: list[_Request]) -> float:
        """Runs in the worker thread."""
        begin = time.perf_counter()
        first = group[0]
        if first.rotate:
            first.result = Persisted(tuple(self._log.rotate(first.entries)), self._log.synced)
        elif first.drop_before is not None:
            self._log.drop_before(first.drop_before)
            first.result = Persisted((), self._log.synced)
        else:
            offsets = [
                tuple(self._log.append(kind, payload) for kind, payload in request.entries)
                for request in group
            ]
            synced = self._log.sync()
            for request, places in zip(group, offsets, strict=True):
                request.result = Persisted(places, synced)
            for request in group:
                if request.then is not None:
                    request.then(synced)
        return time.perf_counter() - begin

    def _refuse_rest(self, held: _Request | None) -> None:
        """Answer what was never taken, when ``run`` ends early."""
        rest = [held] if held is not None else []
        with contextlib.suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                rest.append(self._receive.receive_nowait())
        self._receive.close()
        for request in rest:
            request.error = StorageFailedError("the log takes no more entries, the node stops")
            request.done.set()
