"""Measure the history of a key, in this process: what it held at a moment, and the proof of it.

    bytes       of the proof: the change that was in force then, and the one that ended it
    make        from the change records of the two heights and the history tree at hand
    check       from the newest statement, whose certificate is checked apart

Times are processor time, the best of several repetitions. There are as many heights as asked for,
and CHANGES changes at each of the two.
"""

from __future__ import annotations

from typing import Any, Final

from consensus.hashing import context
from consensus.hotstuff.types import Statement
from consensus.state import statement
from consensus.state.changes import Change, HistoryProof, Step, find, leaf_hashes, verify
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.merkle import CHANGES as CHANGE_TREE
from scripts.stopwatch import best_us

HEIGHTS: Final = 1_000_000
CHANGES: Final = 1_000
REPETITIONS: Final = 200
FLUSH_HEIGHTS: Final = 1_000
"""A tree holds so many heights in memory, as a node's does."""

_some = context("benchmark history")


def history_figures(heights: int = HEIGHTS) -> dict[str, Any]:
    """Return bytes, and microseconds of processor time."""
    bench = _Bench(heights)
    data = bench.proof().encode()
    newest, kh, moment = bench.newest, bench.kh, heights // 2
    held = verify(data, newest, kh, moment, moment)
    if [each.height for each in held] != [heights // 3]:
        raise SystemExit("the proof shows another version")
    return {
        "heights": heights,
        "changes": CHANGES,
        "bytes": len(data),
        "make_us": best_us(lambda: bench.proof().encode(), REPETITIONS),
        "check_us": best_us(lambda: verify(data, newest, kh, moment, moment), REPETITIONS),
    }


class _Bench:
    """A chain of statements in which a key was changed a third and two thirds of the way."""

    def __init__(self, heights: int) -> None:
        self.kh = _some(b"key")
        places = (heights // 3, 2 * heights // 3)
        self._records = {
            height: self._changes(height, previous)
            for height, previous in zip(places, (1, places[0]), strict=True)
        }
        self._statements = {
            height: self._statement(height, CHANGE_TREE.root(leaf_hashes(records)))
            for height, records in self._records.items()
        }
        nodes = MemoryNodes()
        self._history = HistoryTree(nodes)
        for height in range(heights):
            made = self._statements.get(height)
            self._history.append(_some(height.to_bytes(8, "big")) if made is None else made.hash)
            if height % FLUSH_HEIGHTS == 0:
                nodes.write(self._history.pending(height))
                self._history.flushed(height)
        newest = self._statement(heights, _some(b"changes"), self._history.root())
        self.newest = statement.read(newest.encoded, "newest")

    def _changes(self, height: int, previous: int) -> list[bytes]:
        seeds = [
            height.to_bytes(8, "big") + bytes([each & 255, each >> 8]) for each in range(CHANGES)
        ]
        keys = [self.kh, *map(_some, seeds[1:])]
        return [Change(kh, _some(kh), previous).encode() for kh in sorted(keys)]

    def _statement(self, height: int, changes_root: bytes, history: bytes = b"") -> Statement:
        some = _some(height.to_bytes(8, "big"))
        roots = (some, some, changes_root, history or some)
        return Statement(_some(b"chain"), 1, height, height, some, height, 2, *roots, None)

    def proof(self) -> HistoryProof:
        """Return the proof of what the key held between its two changes."""
        return HistoryProof(tuple(map(self._step, self._records)), None)

    def _step(self, height: int) -> Step:
        records = self._records[height]
        index = find(b"".join(records), self.kh) or 0
        change = Change(self.kh, _some(self.kh), int.from_bytes(records[index][64:], "big"))
        return Step(
            self._statements[height].encoded,
            tuple(self._history.path(height, self.newest.height)),
            len(records),
            index,
            tuple(CHANGE_TREE.path(leaf_hashes(records), index)),
            change.vh,
            change.previous,
        )
