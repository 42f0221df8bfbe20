"""The working state: rows at the tip above a store that holds certified heights only.

Each block's writes lie in an overlay until they are flushed, with a journal that undoes them.
The store may be written by another thread at any moment between ``pending`` and ``flushed``:
whatever it holds, the overlay above it reads the same.

    apply(h + 1) ─> overlay, journal ─> certified ─> pending(h) ─> store ─> flushed(h)
                          └────────── abandoned ─> undo()

Not here: what rows mean, which heights are certified, the store itself (``Backend``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from consensus.errors import invariant
from consensus.hashing import DIGEST_BYTES, bulk
from consensus.state import proof
from consensus.state.merkle import CHANGES
from consensus.state.tree import Tree, TreeUndo, entry

UNFLUSHED_MAX: Final = 4096
"""Heights above the store. More means that flushing has stopped, which must stop the node."""

_change_leaves = bulk("change")


class Row(NamedTuple):
    """One key's content. A ``vh`` of 32 zero bytes is a tombstone: deleted, yet an entry."""

    vh: bytes
    changed_height: int
    value: bytes


class Backend(Protocol):
    """The store below the working state. Synchronous."""

    def get(self, kh: bytes) -> Row | None:
        """Return a key's row, or None."""
        ...

    def page(self, low: bytes, high: bytes | None) -> list[tuple[bytes, bytes, int]]:
        """Return ``(kh, vh, changed height)`` ascending, ``low <= kh < high`` (None: the end)."""
        ...

    def entries(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield ``(kh, vh, changed height)`` of all rows, ascending."""
        ...


class MemoryBackend:
    """A store in memory, for tests, simulation and witnesses."""

    __slots__ = ("_keys", "_rows")

    def __init__(self, rows: Iterable[tuple[bytes, Row]] = ()) -> None:
        self._rows: dict[bytes, Row] = {}
        self._keys: list[bytes] = []
        self.write(rows)

    def get(self, kh: bytes) -> Row | None:
        """Return a key's row, or None."""
        return self._rows.get(kh)

    def page(self, low: bytes, high: bytes | None) -> list[tuple[bytes, bytes, int]]:
        """Return ``(kh, vh, changed height)`` ascending, ``low <= kh < high`` (None: the end)."""
        keys, rows = self._keys, self._rows
        out = []
        for at in range(bisect_left(keys, low), len(keys)):
            kh = keys[at]
            if high is not None and kh >= high:
                break
            row = rows[kh]
            out.append((kh, row.vh, row.changed_height))
        return out

    def entries(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield ``(kh, vh, changed height)`` of all rows, ascending."""
        return iter(self.page(b"", None))

    def write(self, rows: Iterable[tuple[bytes, Row]]) -> None:
        """Store rows, replacing those of the same key."""
        self._rows.update(rows)
        if len(self._rows) != len(self._keys):
            self._keys = sorted(self._rows)


class Applied(NamedTuple):
    """What a block did to the state.

    ``changes`` are ``(kh, new vh, previous change height)``, ascending by kh, NEVER (-1) for a new
    key; ``changes_root`` is the root over their ``change_leaves``.
    """

    state_root: bytes
    changes_root: bytes
    changes: list[tuple[bytes, bytes, int]]


@dataclass(slots=True)
class _Block:
    """The journal of one height: its rows, and what the overlay held in their place."""

    height: int
    rows: dict[bytes, Row]
    replaced: list[tuple[bytes, Row | None]]
    tree: TreeUndo


def change_leaves(changes: Iterable[tuple[bytes, bytes, int]]) -> list[bytes]:
    """Return the leaves of a block's change tree: one hash a ``(kh, vh, previous height)``."""
    return _change_leaves(
        kh + vh + previous.to_bytes(8, "big", signed=True) for kh, vh, previous in changes
    )


class State:
    """The state at the tip, with undo down to the flushed height.

    Args:
        backend: rows of every height up to ``height`` and of none above.
        depth: D of genesis.
        height: of the newest block in ``backend``; -1 before genesis is applied.

    Cost: about 2 µs a row.
    """

    __slots__ = ("_backend", "_blocks", "_flushed", "_fresh", "_overlay", "_tree", "height", "root")

    def __init__(self, backend: Backend, depth: int, height: int = 0) -> None:
        self._backend = backend
        self._overlay: dict[bytes, Row] = {}
        self._fresh: dict[int, dict[bytes, None]] = {}
        self._blocks: deque[_Block] = deque()
        self._tree = Tree(depth, self._scan)
        self._tree.build(backend.entries())
        self._flushed = height
        self.height = height
        self.root = self._tree.root()

    @property
    def depth(self) -> int:
        """D, the bits of the upper tree."""
        return self._tree.depth

    @property
    def key_count(self) -> int:
        """Entries at the tip, tombstones included."""
        return self._tree.key_count

    @property
    def flushed_height(self) -> int:
        """The height up to which the store holds everything; ``undo`` cannot go below it."""
        return self._flushed

    def get(self, kh: bytes) -> Row | None:
        """Return a key's row at the tip, a tombstone too, or None."""
        row = self._overlay.get(kh)
        return row if row is not None else self._backend.get(kh)

    def apply(self, writes: Sequence[tuple[bytes, bytes, bytes]]) -> Applied:
        """Apply the next height's ``(kh, vh, value)``: distinct keys, in any order.

        The result does not depend on the order.

        Raises:
            LocalProtocolError: a key twice, a length other than 32, or too many unflushed heights.

        Cost: about 7 µs a key at 100,000 keys and D = 16.
        """
        invariant(len(self._blocks) < UNFLUSHED_MAX, "too many heights wait to be flushed")
        height = self.height + 1
        rows = {kh: Row(vh, height, value) for kh, vh, value in sorted(writes)}
        invariant(len(rows) == len(writes), "a block writes a key twice")
        pairs = [(kh, row.vh) for kh, row in rows.items()]
        sized = all(len(kh) == DIGEST_BYTES == len(vh) for kh, vh in pairs)
        invariant(sized, "a key path and a value hash have 32 bytes")
        previous, undo = self._tree.update(pairs, height)
        overlay = self._overlay
        block = _Block(height, rows, [(kh, overlay.get(kh)) for kh in rows], undo)
        for kh, row in rows.items():
            self._put(kh, row)
        self._blocks.append(block)
        self.height = height
        self.root = self._tree.root()
        changes = [(kh, vh, before) for (kh, vh), before in zip(pairs, previous, strict=True)]
        return Applied(self.root, CHANGES.root(change_leaves(changes)), changes)

    def undo(self) -> None:
        """Abandon the tip block. The root is exactly what it was before.

        Raises:
            LocalProtocolError: the tip is flushed; what is certified is never undone.
        """
        invariant(self._blocks, f"height {self.height} is flushed and cannot be undone")
        block = self._blocks.pop()
        for kh, row in block.replaced:
            if row is None or row.changed_height <= self._flushed:
                self._drop(kh)
            else:
                self._overlay[kh] = row
        self._tree.restore(block.tree)
        self.height -= 1
        self.root = self._tree.root()

    def prove(self, keys: Sequence[bytes]) -> proof.Proof:
        """Return the proof of presence or absence of keys at the tip.

        It may be answered once the tip is certified.

        Cost: about 40 µs for one key.
        """
        return proof.prove(self._tree, self.height, keys)

    def pending(self, upto_height: int) -> list[tuple[bytes, Row]]:
        """Return the rows to store so that the store is at ``upto_height``, ascending by kh.

        Each key once, with its newest row at or below that height.
        """
        newest: dict[bytes, Row] = {}
        for block in self._blocks:
            if block.height <= upto_height:
                newest.update(block.rows)
        return sorted(newest.items())

    def flushed(self, upto_height: int) -> None:
        """Forget journals and overlay rows up to a height that the store now holds durably."""
        known = self._flushed <= upto_height <= self.height
        invariant(known, f"height {upto_height} cannot be flushed at {self.height}")
        self._flushed = upto_height
        while self._blocks and self._blocks[0].height <= upto_height:
            for kh, row in self._blocks.popleft().rows.items():
                if self._overlay[kh] is row:
                    self._drop(kh)

    def _put(self, kh: bytes, row: Row) -> None:
        self._overlay[kh] = row
        self._fresh.setdefault(self._tree.slot(kh), {})[kh] = None

    def _drop(self, kh: bytes) -> None:
        del self._overlay[kh]
        slot = self._tree.slot(kh)
        fresh = self._fresh[slot]
        del fresh[kh]
        if not fresh:
            del self._fresh[slot]

    def _scan(self, low: bytes, high: bytes | None) -> bytes:
        """Return the tip's entries under a prefix: the store's, with the overlay's above them."""
        stored = self._backend.page(low, high)
        fresh = self._fresh.get(self._tree.slot(low))
        if not fresh:
            return b"".join([kh + vh + at.to_bytes(8, "big") for kh, vh, at in stored])
        found = {item[0]: entry(*item) for item in stored}
        for kh in fresh:
            if low <= kh and (high is None or kh < high):
                row = self._overlay[kh]
                found[kh] = entry(kh, row.vh, row.changed_height)
        return b"".join([found[kh] for kh in sorted(found)])
