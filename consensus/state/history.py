"""The tree over all statements: the newest certificate vouches for every earlier one.

RFC 9162 §2.1 in shape, with contexts of its own and the size bound into the root:

    leaf    H_leaf(statement hash)                 leaf index = height; genesis is leaf 0
    node    H_node(left ‖ right)                   left: the largest complete power of two
    root    H_root(size, 8 bytes ‖ top)            top of an empty tree: 32 zero bytes

Only nodes of complete subtrees are kept, as ``(level, index) -> hash``; they never change. Those
above the store lie in an overlay until they are flushed. A store that starts at a snapshot holds
the frontier of that size: it can append, and proves what was appended since.

Not here: what a statement is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Protocol

from consensus.codec import INT64_MAX
from consensus.errors import ProofError, invariant
from consensus.hashing import DIGEST_BYTES, ZERO, context

UNFLUSHED_MAX: Final = 4096
"""Statements above the store; as many heights as the working state may hold."""

_leaf = context("history leaf")
_node = context("history node")
_root = context("history root")

Place = tuple[int, int]
"""``(level, index)``: the complete subtree over leaves ``[index << level, index + 1 << level)``."""


class NodeSource(Protocol):
    """The store of complete nodes."""

    def node(self, level: int, index: int) -> bytes | None:
        """Return a node's hash, or None when it is not kept."""
        ...


class MemoryNodes:
    """A store of nodes in memory."""

    __slots__ = ("_nodes",)

    def __init__(self) -> None:
        self._nodes: dict[Place, bytes] = {}

    def node(self, level: int, index: int) -> bytes | None:
        """Return a node's hash, or None when it is not kept."""
        return self._nodes.get((level, index))

    def write(self, nodes: Sequence[tuple[Place, bytes]]) -> None:
        """Store nodes."""
        self._nodes.update(nodes)


class HistoryTree:
    """An append-only tree with undo down to the flushed size.

    Args:
        source: complete nodes of the first ``size`` leaves, or at least their frontier.
        size: statements in ``source``.
    """

    __slots__ = ("_flushed", "_overlay", "_peaks", "_source", "size")

    def __init__(self, source: NodeSource, size: int = 0) -> None:
        self._source = source
        self._overlay: dict[Place, bytes] = {}
        self._flushed = size
        self.size = size
        self._peaks = [hash_ for _, hash_ in self.frontier()]

    def append(self, statement_hash: bytes) -> None:
        """Append the statement of height ``size``. Cost: about 2 µs."""
        invariant(len(statement_hash) == DIGEST_BYTES, "a statement hash has 32 bytes")
        room = self.size - self._flushed < UNFLUSHED_MAX
        invariant(room, "too many statements wait to be flushed")
        hash_ = _leaf(statement_hash)
        for level, index in _completed_by(self.size):
            if level:
                hash_ = _node(self._peaks.pop() + hash_)
            self._overlay[level, index] = hash_
        self._peaks.append(hash_)
        self.size += 1

    def truncate(self, size: int) -> None:
        """Forget the newest leaves down to ``size``.

        Raises:
            LocalProtocolError: those leaves are flushed; what is certified is never undone.
        """
        allowed = self._flushed <= size <= self.size
        invariant(allowed, f"a history of {self.size} cannot be cut to {size}")
        for leaf in range(size, self.size):
            for place in _completed_by(leaf):
                del self._overlay[place]
        self.size = size
        self._peaks = [hash_ for _, hash_ in self.frontier()]

    def node(self, level: int, index: int) -> bytes:
        """Return the hash of a complete subtree.

        Raises:
            LookupError: the node is older than the snapshot that the store started from.
        """
        found = self._overlay.get((level, index)) or self._source.node(level, index)
        if found is None:
            raise LookupError(f"history node {level}/{index} is not kept")
        return found

    def root(self, size: int | None = None) -> bytes:
        """Return the ``history_root`` over the first ``size`` leaves (None: all)."""
        peaks = self._peaks if size is None else [hash_ for _, hash_ in self.frontier(size)]
        top = peaks[-1] if peaks else ZERO
        for peak in reversed(peaks[:-1]):
            top = _node(peak + top)
        return _bind(self._checked(size), top)

    def frontier(self, size: int | None = None) -> list[tuple[Place, bytes]]:
        """Return the complete subtrees that make up the first ``size`` leaves, left to right.

        What a snapshot carries: a source that holds them can append.
        """
        return [(place, self.node(*place)) for place in frontier_places(self._checked(size))]

    def path(self, index: int, size: int | None = None) -> list[bytes]:
        """Return the inclusion path of leaf ``index`` among the first ``size``, bottom up.

        Raises:
            LookupError: a node is older than the snapshot that the store started from.

        Cost: about 1 µs a level.
        """
        size = self._checked(size)
        invariant(0 <= index < size, f"leaf {index} of a history of {size}")
        out: list[bytes] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _left_size(end - start)
            if index < middle:
                out.append(self._hash(middle, end))
                end = middle
            else:
                out.append(self._hash(start, middle))
                start = middle
        out.reverse()
        return out

    def pending(self, upto_height: int) -> list[tuple[Place, bytes]]:
        """Return the nodes to store so that the store holds the leaves up to ``upto_height``."""
        end = min(upto_height + 1, self.size)
        places = [place for leaf in range(self._flushed, end) for place in _completed_by(leaf)]
        return [(place, self._overlay[place]) for place in places]

    def flushed(self, upto_height: int) -> None:
        """Forget the overlay up to a height whose nodes the store now holds durably."""
        size = upto_height + 1
        known = self._flushed <= size <= self.size
        invariant(known, f"height {upto_height} cannot be flushed in a history of {self.size}")
        for leaf in range(self._flushed, size):
            for place in _completed_by(leaf):
                del self._overlay[place]
        self._flushed = size

    def _checked(self, size: int | None) -> int:
        if size is None:
            return self.size
        invariant(0 <= size <= self.size, f"a history of {self.size} has no size {size}")
        return size

    def _hash(self, start: int, end: int) -> bytes:
        """Return the hash over leaves ``[start, end)`` of a subtree that begins at ``start``."""
        left = _left_size(end - start)
        if end - start == left * 2 or end - start == 1:
            level = (end - start).bit_length() - 1
            return self.node(level, start >> level)
        return _node(self._hash(start, start + left) + self._hash(start + left, end))


def frontier_places(size: int) -> list[Place]:
    """Return the complete subtrees that make up the first ``size`` leaves, left to right."""
    out: list[Place] = []
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            out.append((level, start >> level))
            start += 1 << level
    return out


def verify_inclusion(
    root: bytes, size: int, index: int, statement_hash: bytes, path: Sequence[bytes]
) -> None:
    """Check that the statement of height ``index`` is among the first ``size`` under ``root``.

    Args:
        root: a certified ``history_root``; the statement of height h has the root of size h.
        size, index, statement_hash, path: untrusted.

    Raises:
        ProofError: it is not, or something is malformed.

    Source: RFC 9162 §2.1.3.2.
    """
    if not 0 <= index < size <= INT64_MAX:
        raise ProofError(f"leaf {index} of a history of {size}")
    if len(statement_hash) != DIGEST_BYTES or any(len(item) != DIGEST_BYTES for item in path):
        raise ProofError("a hash does not have 32 bytes")
    position, last = index, size - 1
    hash_ = _leaf(statement_hash)
    for sibling in path:
        if last == 0:
            raise ProofError("the path is too long")
        if position & 1 or position == last:
            hash_ = _node(sibling + hash_)
            while not position & 1 and position:
                position >>= 1
                last >>= 1
        else:
            hash_ = _node(hash_ + sibling)
        position >>= 1
        last >>= 1
    if last:
        raise ProofError("the path is too short")
    if _bind(size, hash_) != root:
        raise ProofError("the path leads to another history root")


def _bind(size: int, top: bytes) -> bytes:
    return _root(size.to_bytes(8, "big") + top)


def _left_size(count: int) -> int:
    """Return the largest power of two below ``count``; 0 for one leaf."""
    return 1 << (count - 1).bit_length() - 1 if count > 1 else 0


def _completed_by(leaf: int) -> Iterator[Place]:
    """Yield the complete subtrees, bottom up, whose last leaf is ``leaf``."""
    level = 0
    yield level, leaf
    while leaf & 1:
        leaf >>= 1
        level += 1
        yield level, leaf
