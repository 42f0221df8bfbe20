"""The history of a key, proved under a certified height; and heights by chain time.

The changes and rows are found in a worker thread, statements and their paths by the main one.

Not here: the search (``past``), the form of the proof (``consensus.state.changes``), and who may
see it (``node.api``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from consensus.errors import invariant
from consensus.hashing import ZERO
from consensus.past import FORGOTTEN
from consensus.state import statement
from consensus.state.changes import Step
from node.api.backend import Lineage
from node.past import ChangePath, Past, Pruned

THREADS_MAX: Final = 2
"""Histories that are looked for at once; the others wait."""


class Statements(Protocol):
    """What is asked of a chronicle."""

    def provable(self) -> int:
        """Return the newest height that a certificate vouches for."""

    def statement(self, height: int) -> bytes | None:
        """Return the encoded statement of an executed height; None where it is not kept."""

    def statement_under(self, height: int, size: int) -> tuple[bytes, list[bytes]] | None:
        """Return a height's statement, and its path to the root over the first ``size`` heights."""


class Lineages:
    """Proved histories of one node.

    Args:
        past: what the state was.
        chronicle: its statements.

    Attributes:
        turn: of whoever looks into the past in a thread, so that no other threads wait for it.
    """

    def __init__(self, past: Past, chronicle: Statements) -> None:
        self._past = past
        self._chronicle = chronicle
        self.turn = trio.CapacityLimiter(THREADS_MAX)

    async def of(self, kh: bytes, newest: int, first: int, last: int, limit: int) -> Lineage:
        """Return the versions of a key after the blocks ``first..last``, as far as ``limit`` goes.

        Args:
            newest: a certified height, under whose statement they are proved.
            first, last: ``0 <= first <= last <= newest``.

        Raises:
            Pruned: change records or statements are not kept.
        """
        found = await trio.to_thread.run_sync(
            gather, self._past, kh, newest, first, last, limit, limiter=self.turn
        )
        return self.proved(found, newest)

    def proved(self, found: Found, newest: int) -> Lineage:
        """Return what a thread has found, with statements and their paths.

        Raises:
            Pruned: statements are not kept.
        """
        steps = tuple(self._step(each, newest) for each in found.shown)
        return Lineage(found.last, steps, found.ended, found.rows, found.horizon)

    def _step(self, change: ChangePath, newest: int) -> Step:
        own: bytes | None = None
        path: list[bytes] = []
        if change.height != newest:
            try:
                found = self._chronicle.statement_under(change.height, newest)
            except LookupError:  # older than the snapshot that the store started from
                found = None
            if found is None:
                raise Pruned(change.height + 1)
            own, path = found
        return Step(
            own,
            tuple(path),
            change.count,
            change.index,
            tuple(change.path),
            change.vh,
            change.previous,
        )

    def at(self, time_ms: int) -> int | None:
        """Return the greatest provable height whose time is not after ``time_ms``; None: none.

        Raises:
            Pruned: its statement is not kept, or that of the next height.

        Cost: about 0.3 ms among a million heights.
        """
        low, high = -1, self._chronicle.provable()
        while low < high:
            middle = (low + high + 1) // 2
            found = self.time_of(middle)
            if found is None or found <= time_ms:
                low = middle
            else:
                high = middle - 1
        if low >= 0 and self.time_of(low) is None:
            raise Pruned(low + 1)
        return low if low >= 0 else None

    def time_of(self, height: int) -> int | None:
        """Return chain time at a height, None where its statement is not kept."""
        data = self._chronicle.statement(height)
        return None if data is None else statement.read(data).time_ms


@dataclass(frozen=True, slots=True)
class Found:
    """What a thread has found; ``shown`` are the steps of the proof."""

    last: int
    shown: Sequence[ChangePath]
    ended: bool
    rows: Sequence[bytes | int | None]
    horizon: int


def gather(past: Past, kh: bytes, newest: int, first: int, last: int, limit: int) -> Found:
    """Return changes and rows of a key, for ``Lineages.of``; in a worker thread."""
    invariant(0 <= first <= last <= newest, "a range of certified heights")
    with past.moment() as moment:
        at, line = moment.line(kh, first, limit + 1)
        after = [height for height in line if height <= newest]
        between = [height for height in after if height <= last][:limit]
        ended = len(between) == len(after)
        follower = None if ended else after[len(between)]
        if follower is not None:
            last = min(last, follower - 1)
        shown = [] if ended and not between else [*([at] if at >= 0 else []), *between]
        if follower is not None:
            shown.append(follower)
        laid = [*([at] if at >= 0 else []), *between]
        rows: list[bytes | int | None] = []
        for index, height in enumerate(laid):
            replaced = laid[index + 1] if index + 1 < len(laid) else follower
            if replaced is None and len(line) > len(after):
                replaced = line[len(after)]
            try:
                row = moment.version(kh, height, replaced)
            except Pruned:
                rows.append(FORGOTTEN)
            else:
                rows.append(None if row is None or row.vh == ZERO else row.value)
        steps = [moment.change_path(height, kh) for height in shown]
        return Found(last, steps, ended, rows, moment.horizon)
