"""From a height on: heights are verified, gathered and handed to whatever keeps the copy.

The copy says how far it is; whatever ended the run before, this goes on right after that. Heights
are written in a worker thread while the next ones are received. A database that is away is tried
again with growing pauses; so is a network, unless the run has an end.

Not here: what a copy is kept in (``postgres``, ``parquet``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final, ParamSpec, Protocol, TypeVar

import trio

from comity.changes import ChangedHeight
from comity.client import Client
from comity.errors import AbsentError, NotReachableError
from comity.feeding.baseline import standing
from comity.feeding.catalogue import Catalogue
from comity.feeding.errors import StoreDownError
from comity.results import Entry

P = ParamSpec("P")
T = TypeVar("T")

HEIGHTS_WAITING_MAX: Final = 32
"""Heights received and not written yet."""
HEIGHTS_TOGETHER_MAX: Final = 128
CHANGES_TOGETHER_MAX: Final = 20_000
"""How much is written in one transaction, where more than one height waits."""
PAUSE_SECONDS: Final = 0.5
PAUSE_SECONDS_MAX: Final = 30.0


class Sink(Protocol):
    """What keeps a copy. Its methods are called in worker threads, one at a time."""

    linger_seconds: float
    """How long heights are gathered before they are written, in a run that goes on."""

    def open(self, chain: bytes) -> int | None:
        """Return the last height written, None for a new copy.

        Raises:
            FeedSetupError, CopyDamagedError, StoreDownError: it cannot go on there.
        """

    def begin(self, catalogue: Catalogue, first: int, rows: Sequence[Entry]) -> None:
        """Begin a new copy with height ``first``, and rows of what was there before."""

    def write(self, heights: Sequence[ChangedHeight], catalogue: Catalogue) -> int:
        """Write heights that follow what is written, all of them or none; return how many rows.

        Raises:
            CopyDamagedError: somebody else has changed the copy.
            StoreDownError: it is not known whether they are written: open it again.
        """

    def close(self) -> None:
        """Let go of it."""


@dataclass(slots=True)
class Progress:
    """How far a copy is. Times are chain times in milliseconds."""

    height: int = -1
    time_ms: int = 0
    newest: int = -1
    newest_ms: int = 0
    heights: int = 0
    rows: int = 0
    retries: int = 0

    @property
    def lag_heights(self) -> int:
        """Certified heights that are known and not written."""
        return max(self.newest - self.height, 0)

    @property
    def lag_ms(self) -> int:
        """Chain time between what is written and the newest known."""
        return max(self.newest_ms - self.time_ms, 0) if self.heights else 0


Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Bounds:
    """From where a new copy begins, and where a run ends.

    Args:
        first: height that a new copy begins with; 0 is the founding.
        last: height after which the run ends; None: it goes on. -1: the newest as it begins.
        patience_seconds: until a run that has an end gives up on a database.
    """

    first: int = 0
    last: int | None = None
    patience_seconds: float = 10.0


class Follower:
    """One copy that is being written."""

    def __init__(self, client: Client, sink: Sink, bounds: Bounds, told: Told) -> None:
        self.progress = Progress()
        self._client = client
        self._sink = sink
        self._bounds = bounds
        self._told = told
        self._catalogue = Catalogue()
        self._last = bounds.last

    async def run(self) -> None:
        """Write heights until the run has its end.

        Raises:
            FeedSetupError, CopyDamagedError: the copy cannot go on.
            AbsentError: the height to begin with is not certified yet.
            StoreDownError, NotReachableError: a run with an end, or its beginning, waited in vain.
        """
        try:
            place = await self._call(self._sink.open, self._client.chain)
            await self._begin(place)
            await self._steadily()
        finally:
            with trio.CancelScope(shield=True):
                await self._call(self._sink.close)

    async def _begin(self, place: int | None) -> None:
        await self._client.statements(-1)
        newest = self._client.trust.height
        if self._last == -1:
            self._last = newest
        await self._catalogue.load(self._client)
        if place is None:
            first = self._bounds.first
            if first > newest:
                raise AbsentError(
                    f"height {first} is not certified yet", hint=f"the newest one is {newest}"
                )
            rows: Sequence[Entry] = ()
            if first:
                self._told(f"taking what there was at height {first - 1}")
                rows = await standing(self._client, self._catalogue, first - 1)
            await self._call(self._sink.begin, self._catalogue, first, rows)
            place = first - 1
        self.progress.height = place
        self._look()

    async def _steadily(self) -> None:
        pause = PAUSE_SECONDS
        deadline = trio.current_time() + self._bounds.patience_seconds
        while self._last is None or self.progress.height < self._last:
            before = self.progress.height
            try:
                await self._follow()
            except BaseExceptionGroup as group:
                error = _single(group)
                if not isinstance(error, StoreDownError | NotReachableError):
                    raise error from None
                if self.progress.height > before:
                    pause = PAUSE_SECONDS
                    deadline = trio.current_time() + self._bounds.patience_seconds
                if self._last is not None and trio.current_time() + pause > deadline:
                    raise error from None
                self.progress.retries += 1
                self._told(f"{error.message}; trying again in {pause:g} s")
            else:
                return
            await trio.sleep(pause)
            pause = min(2 * pause, PAUSE_SECONDS_MAX)
            await self._reopen()

    async def _reopen(self) -> None:
        try:
            place = await self._call(self._sink.open, self._client.chain)
        except StoreDownError:
            return  # the next write says so
        if place is not None:
            self.progress.height = place

    async def _follow(self) -> None:
        sender, receiver = trio.open_memory_channel[ChangedHeight](HEIGHTS_WAITING_MAX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._receive, sender)
            await self._write(receiver)
            nursery.cancel_scope.cancel()

    async def _receive(self, sender: trio.MemorySendChannel[ChangedHeight]) -> None:
        async with sender, aclosing(self._client.changes(self.progress.height + 1)) as feed:
            async for height in feed:
                try:
                    await sender.send(height)
                except trio.BrokenResourceError:
                    return  # who writes has failed, and says why
                self._look()
                if height.height.height == self._last:
                    return

    async def _write(self, receiver: trio.MemoryReceiveChannel[ChangedHeight]) -> None:
        async with receiver:
            while self._last is None or self.progress.height < self._last:
                heights = await _gathered(receiver, self._sink.linger_seconds)
                if not heights:
                    return
                if any(self._catalogue.lacks(each) for each in heights):
                    await self._catalogue.load(self._client)
                rows = await self._call(self._sink.write, heights, self._catalogue)
                newest = heights[-1].height
                progress = self.progress
                progress.height, progress.time_ms = newest.height, newest.time_ms
                progress.heights += len(heights)
                progress.rows += rows
                self._look()

    def _look(self) -> None:
        newest = self._client.trust.newest
        if newest is not None:
            self.progress.newest, self.progress.newest_ms = newest.height, newest.time_ms

    async def _call(self, function: Callable[P, T], *arguments: P.args, **none: P.kwargs) -> T:
        return await trio.to_thread.run_sync(lambda: function(*arguments, **none))


def _single(group: BaseException) -> BaseException:
    """Return the first error in groups of groups."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


async def _gathered(
    receiver: trio.MemoryReceiveChannel[ChangedHeight], seconds: float
) -> list[ChangedHeight]:
    """Return the next height and what comes with it, up to the bounds; nothing at the end."""
    try:
        found = [await receiver.receive()]
    except trio.EndOfChannel:
        return []
    changes = len(found[0].changes)
    with trio.move_on_after(seconds):
        while len(found) < HEIGHTS_TOGETHER_MAX and changes < CHANGES_TOGETHER_MAX:
            try:
                found.append(await receiver.receive() if seconds else receiver.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
            changes += len(found[-1].changes)
    return found
