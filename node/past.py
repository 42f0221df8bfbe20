"""What the state was after any certified height that is kept, from memory and store alike.

    newest ─ change ─ change ─ milestone ─ ... ─ change ─ first          of one key
                                   └── a search for what was before begins here

A key's row after height h is what its first change above h replaced, or its newest row. The search
goes back along the heights of previous changes, from the nearest milestone above h, so it takes
some hundred steps at most, whatever a key's age.

Everything here reads a snapshot of its own: for worker threads, not the main one. Nothing certified
is ever undone, so what several calls return fits together; only what is older than the node is to
keep goes away between them, and then they say so.

Not here: proofs (``consensus.state.changes``), who may see what (``node.api``), and the tables
(``node.storage.versions``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

from consensus import codec
from consensus.errors import ComityError, invariant
from consensus.state import statement
from consensus.state.changes import find, leaf_hashes, read, split
from consensus.state.merkle import CHANGES
from consensus.state.state import Row
from node.chronicle import Height
from node.storage.store import Store, View
from node.storage.versions import PastView

STEPS_MAX: Final = 1 << 15
"""Changes gone back over in one search. One in 256 is a milestone, so there are never as many."""
CHANGES_TOGETHER_MAX: Final = 256
"""Changes of a key read on one snapshot."""
KEYS_MAX: Final = 4096
"""Keys of one call."""


FORGOTTEN_MAX: Final = 256
"""Heights whose replaced rows one flush forgets: as many as it flushes."""


def forgotten(view: View, before_ms: int) -> int:
    """Return up to which height rows that were replaced may go, FORGOTTEN_MAX more at most.

    Rows can then be told of every height that was the newest one at ``before_ms`` or later.

    Cost: about 20 µs a height.
    """
    upto = view.horizon
    last = min(upto + FORGOTTEN_MAX, view.height)
    while upto < last:
        data = view.block(upto + 1)
        if data is None or statement.read(codec.parse(data)[1]).time_ms > before_ms:
            break
        upto += 1
    return upto


class Pruned(ComityError):
    """What is asked for is older than what this node keeps, ``horizon`` being the first height."""

    code = "PRUNED"
    advice = "ask a node that keeps more, or for a later height"

    def __init__(self, horizon: int) -> None:
        super().__init__(f"this node keeps no rows of the state before height {horizon}")
        self.horizon = horizon


class Changed(NamedTuple):
    """One change of a key: its value hash from ``height`` on; ``previous`` is -1 for a new key."""

    height: int
    vh: bytes
    previous: int


@dataclass(frozen=True, slots=True)
class ChangePath:
    """A change of a key with its place in the change tree of its height."""

    height: int
    vh: bytes
    previous: int
    count: int
    index: int
    path: list[bytes]


class Past:
    """What the state was.

    Args:
        store: of the node.
        recent: returns the certified heights that the store may lack, ascending; any thread calls.
    """

    def __init__(self, store: Store, recent: Callable[[], Sequence[Height]]) -> None:
        self._store = store
        self._recent = recent

    @contextmanager
    def moment(self) -> Iterator[Moment]:
        """Read on one snapshot; the other methods do it for one call each. Not for long."""
        recent = self._recent()  # first: what leaves the memory later is in the store
        with self._store.reading() as view:
            yield Moment(view, recent)

    def rows_at(self, height: int, keys: Sequence[bytes]) -> list[Row | None]:
        """Return each key's row after block ``height``, tombstones too; None: it was not there.

        Args:
            height: certified.
            keys: at most KEYS_MAX.

        Raises:
            Pruned: not all rows of that height are kept.

        Cost: about 20 µs for a key that has not changed since, else up to 2 ms.
        """
        invariant(len(keys) <= KEYS_MAX, f"{len(keys)} rows of the past at once")
        with self.moment() as moment:
            moment.check(height)
            return [moment.row(height, kh) for kh in keys]

    def changes_of(self, kh: bytes, upto: int) -> Iterator[Changed]:
        """Yield the changes of a key up to height ``upto``, the newest first.

        Raises:
            Pruned: the change records that come next are not kept; ``horizon`` is where they begin.
        """
        while upto >= 0:
            with self.moment() as moment:
                page = moment.changes(kh, upto, CHANGES_TOGETHER_MAX)
            yield from page
            if len(page) < CHANGES_TOGETHER_MAX:
                return
            upto = page[-1].previous

    def change_path(self, height: int, kh: bytes) -> ChangePath:
        """Return the change of a key at a height that changed it, with its path.

        Raises:
            Pruned: the change records of that height are not kept.

        Cost: 0.7 µs for each key that the height changed.
        """
        with self.moment() as moment:
            return moment.change_path(height, kh)


class Moment:
    """The past on one snapshot; one thread's.

    Args:
        view: of the store.
        recent: certified heights, ascending, that follow each other and cover all above the view.
    """

    __slots__ = ("_heights", "_recent", "_view", "height")

    def __init__(self, view: PastView, recent: Sequence[Height]) -> None:
        self._view = view
        self._recent = [each for each in recent if each.block.height > view.height]
        self._heights = {each.block.height: each for each in self._recent}
        self.height = self._recent[-1].block.height if self._recent else view.height

    @property
    def horizon(self) -> int:
        """The lowest height whose rows can all be told."""
        return self._view.horizon

    def check(self, height: int) -> None:
        """Raise ``Pruned`` unless all rows of a certified height are kept."""
        invariant(0 <= height <= self.height, f"height {height} is not certified")
        if height < self._view.horizon:
            raise Pruned(self._view.horizon)

    def row(self, height: int, kh: bytes) -> Row | None:
        """Return a key's row after ``height``, which ``check`` has passed."""
        after, at = self._around(height, kh)
        return None if at < 0 else self.version(kh, at, after)

    def written(self, height: int, kh: bytes) -> Row | None:
        """Return the row that a height, which ``check`` has passed, made of a key it changed."""
        recent = self._heights.get(height)
        return self.row(height, kh) if recent is None else recent.rows[kh]

    def version(self, kh: bytes, at: int, after: int | None) -> Row | None:
        """Return the row that a key got at height ``at`` and had until ``after``; None: it has it.

        Raises:
            Pruned: it was replaced at or below the horizon.
        """
        if at in self._heights:
            return self._heights[at].rows[kh]
        if after is None or after in self._heights:
            return self._view.row(kh)
        if after <= self._view.horizon:
            raise Pruned(self._view.horizon)
        return self._view.replaced(after, kh)

    def line(self, kh: bytes, height: int, count_max: int) -> tuple[int, list[int]]:
        """Return the last change of a key up to ``height``, -1 if there is none, and the next ones.

        Args:
            count_max: how many changes above ``height`` are returned at most, ascending.

        Raises:
            Pruned: the records that tell are not kept.
        """
        row = self._view.row(kh)
        newest = -1 if row is None else row.changed_height
        first, found, reached = newest, list[int](), height
        while reached < newest and len(found) < count_max:
            start = self._view.milestone(kh, reached) or newest
            part, at = self._back(kh, start, reached)
            first = first if found else at
            found += part
            reached = start
        for each in self._recent:
            if kh in each.rows:
                if each.block.height <= height:
                    first = each.block.height
                else:
                    found.append(each.block.height)
        return first, found[:count_max]

    def changes(self, kh: bytes, upto: int, count_max: int) -> list[Changed]:
        """Return up to ``count_max`` changes of a key up to ``upto``, the newest first.

        Raises:
            Pruned: the first that would be returned is not kept. Later ones are left out.
        """
        found: list[Changed] = []
        _, at = self._around(min(upto, self.height), kh)
        while at >= 0 and len(found) < count_max:
            change = self._change(at, kh)
            if change is None and not found:
                raise Pruned(self._kept_from(at))
            if change is None:
                break
            found.append(change)
            at = change.previous
        return found

    def change_path(self, height: int, kh: bytes) -> ChangePath:
        """Return the change of a key at a height that changed it, with its path.

        Raises:
            Pruned: the change records of that height are not kept.
        """
        changes = self.change_records(height)
        index = find(changes, kh)
        invariant(index is not None, f"height {height} did not change the key")
        records = split(changes)
        found = read(records[index or 0])
        path = CHANGES.path(leaf_hashes(records), index or 0)
        return ChangePath(height, found.vh, found.previous, len(records), index or 0, path)

    def change_records(self, height: int) -> bytes:
        """Return all change records of a height. Raises ``Pruned``."""
        recent = self._heights.get(height)
        changes = self._view.changes(height) if recent is None else recent.changes
        if changes is None:
            raise Pruned(self._kept_from(height))
        return changes

    def _kept_from(self, height: int) -> int:
        """Return from where on change records are kept, those of ``height`` not being kept."""
        return self._view.first_changes(height)

    def _change(self, height: int, kh: bytes) -> Changed | None:
        """Return a change of a key, None where it is not kept."""
        recent = self._heights.get(height)
        if recent is None:
            found = self._view.change(height, kh)
            return None if found is None else Changed(height, found.vh, found.previous)
        index = find(recent.changes, kh)
        invariant(index is not None, f"height {height} did not change the key")
        change = read(recent.changes, index or 0)
        return Changed(height, change.vh, change.previous)

    def _around(self, height: int, kh: bytes) -> tuple[int | None, int]:
        """Return the first change of a key above ``height``, None if there is none, and the last
        up to it, -1 if there is none.

        Raises:
            Pruned: the records that tell are not kept.
        """
        row = self._view.row(kh)
        at = -1 if row is None else row.changed_height
        if at <= height:
            return self._around_recent(height, kh, at)
        above, before = self._back(kh, self._view.milestone(kh, height) or at, height)
        return above[0], before

    def _back(self, kh: bytes, at: int, height: int) -> tuple[list[int], int]:
        """Return the changes of a key above ``height`` up to the one at ``at``, ascending, and the
        one before them, -1 if there is none.

        Raises:
            Pruned: the records that tell are not kept.
        """
        found: list[int] = []
        while at > height:
            change = self._change(at, kh)
            if change is None:
                raise Pruned(self._kept_from(at))
            found.append(at)
            at = change.previous
            invariant(len(found) <= STEPS_MAX, "a search for a version found no milestone")
        found.reverse()
        return found, at

    def _around_recent(self, height: int, kh: bytes, at: int) -> tuple[int | None, int]:
        """Return the same of a key that the store last changed at ``at``, not above ``height``."""
        for each in self._recent:
            if kh in each.rows:
                if each.block.height > height:
                    return each.block.height, at
                at = each.block.height
        return None, at
