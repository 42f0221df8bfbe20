"""The count-bound 4-ary tree over a list: results, changes, signed groups, large salted lists.

    level 1     H_leaf(leaf ‖ ... )        one to four consecutive leaves, not padded
    level n+1   H_node(child0 ‖ child1 ‖ child2 ‖ child3)     a missing child is 32 zero bytes
    root        H_root(count, 8 bytes ‖ top)                  top of an empty list: 32 zero bytes

Every purpose has its own three contexts, so no node of one tree reads as a node of another, or of
another level kind (second-preimage confusion). The root binds the count and no odd leaf is ever
duplicated (CVE-2012-2459). A path holds only the existing siblings, bottom up, in index order:
their number follows from count and index alone, and every one of them is consumed.

Not here: what the leaves mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from consensus.codec import INT64_MAX
from consensus.errors import ProofError, invariant
from consensus.hashing import DIGEST_BYTES, ZERO, bulk, context

_QUAD_BYTES: Final = 4 * DIGEST_BYTES


class CountTree:
    """The tree of one purpose. Holds only its hash functions.

    Args:
        purpose: names the contexts ``<purpose> leaf``, ``<purpose> node``, ``<purpose> root``.
    """

    __slots__ = ("_leaf", "_node", "_one_node", "_root", "purpose")

    def __init__(self, purpose: str) -> None:
        self.purpose = purpose
        self._leaf = bulk(f"{purpose} leaf")
        self._node = bulk(f"{purpose} node")
        self._one_node = context(f"{purpose} node")
        self._root = context(f"{purpose} root")

    def root(self, leaves: Sequence[bytes]) -> bytes:
        """Return the root over 32-byte leaves in order.

        Cost: about 0.2 µs a leaf.
        """
        data = b"".join(leaves)
        invariant(len(data) == len(leaves) * DIGEST_BYTES, "a leaf has 32 bytes")
        return self.joined_root(data)

    def joined_root(self, data: bytes) -> bytes:
        """Return ``root`` of concatenated leaves. Cost: about 4 µs for 5 to 16 leaves."""
        total = count = len(data) // DIGEST_BYTES
        if 4 < total <= 16:  # two levels; what short lists cost is mostly calls
            quads = self._leaf(
                [data[at : at + _QUAD_BYTES] for at in range(0, len(data), _QUAD_BYTES)]
            )
            return self._bind(total, self._one_node(b"".join(quads).ljust(_QUAD_BYTES, b"\0")))
        level = 0
        while count > 1 or (count and level == 0):
            data = self._parents(data, level)
            count = _parent_count(count)
            level += 1
        return self._bind(total, data or ZERO)

    def path(self, leaves: Sequence[bytes], index: int) -> list[bytes]:
        """Return the siblings that lead from leaf ``index`` to the root, bottom up."""
        return self.multi_path(leaves, [index])

    def subtree_path(self, leaves: Sequence[bytes], first: int, length: int) -> list[bytes]:
        """Return the siblings that lead from the aligned leaves ``[first, first + length)`` up.

        ``length`` is a power of four that divides ``first``, or the part is the tail of the list.
        """
        aligned = subtree_level(len(leaves), first, length) is not None
        invariant(aligned, f"leaves {first}..{first + length} are no aligned subtree")
        return self.multi_path(leaves, range(first, first + length))

    def multi_path(self, leaves: Sequence[bytes], indices: Iterable[int]) -> list[bytes]:
        """Return the siblings missing to whoever holds the leaves at ``indices``.

        Level by level from the bottom, within a level in index order.
        """
        return self.multi_paths(leaves, [indices])[0]

    def multi_paths(
        self, leaves: Sequence[bytes], parts: Iterable[Iterable[int]]
    ) -> list[list[bytes]]:
        """Return ``multi_path`` of every part; the tree is hashed once for all of them."""
        count = len(leaves)
        data = b"".join(leaves)
        levels: list[tuple[bytes, int]] = []
        while count > 1 or not levels:
            levels.append((data, count))
            data = self._parents(data, len(levels) - 1)
            count = _parent_count(count)
        paths: list[list[bytes]] = []
        for indices in parts:
            known = sorted(frozenset(indices))
            within = bool(known) and known[0] >= 0 and known[-1] < len(leaves)
            invariant(within, f"leaf indices outside 0..{len(leaves) - 1}")
            out: list[bytes] = []
            for data, count in levels:
                out += [
                    data[child * DIGEST_BYTES : (child + 1) * DIGEST_BYTES]
                    for child in _missing(known, count)
                ]
                known = list(dict.fromkeys(index >> 2 for index in known))
            paths.append(out)
        return paths

    def verify_path(
        self, root: bytes, count: int, index: int, leaf: bytes, path: Sequence[bytes]
    ) -> None:
        """Check that ``leaf`` is at ``index`` of the ``count`` leaves under ``root``.

        Raises:
            ProofError: it is not, or count, index or path are malformed.
        """
        _same(root, self.multi_root(count, {index: leaf}, path))

    def subtree_root(
        self, total: int, first: int, leaves: Sequence[bytes], path: Sequence[bytes]
    ) -> bytes:
        """Return the root that an aligned part and its path lead to.

        For a signed group, whose root is not sent: the signatures are checked over the result.

        Raises:
            ProofError: the part is not aligned or the path is malformed.

        Cost: about 0.2 µs a leaf.
        """
        target = subtree_level(total, first, len(leaves))
        if target is None:
            raise ProofError(f"{len(leaves)} leaves from {first} of {total} are no aligned subtree")
        _check_hashes(leaves, "a leaf")
        data = b"".join(leaves)
        for level in range(target):
            data = self._parents(data, level)
        count = total
        for _ in range(target):
            count = _parent_count(count)
        return self._climb(total, count, target, {first >> (2 * target): data}, path)

    def narrowed(
        self, total: int, known: Mapping[int, bytes], path: Sequence[bytes], index: int
    ) -> list[bytes]:
        """Return the path of the leaf ``index`` from an aligned part of the list and its path.

        Args:
            known: the leaves of the part, by index; ``index`` is among them.
            path: of the part, as ``subtree_path`` gives it.

        Raises:
            ProofError: the part is not aligned, or its path too short.
        """
        first, length = min(known), len(known)
        target = subtree_level(total, first, length)
        if target is None:
            raise ProofError(f"{length} leaves from {first} of {total} are no aligned subtree")
        nodes, out, count, rest = dict(sorted(known.items())), [], total, iter(path)
        for level in range(target):
            out += [nodes[child] for child in _missing([index], count)]
            parents = list(dict.fromkeys(child >> 2 for child in nodes))
            inputs = [b"".join(nodes[at] for at in _children(each, count)) for each in parents]
            nodes = dict(zip(parents, self._hash(inputs, level), strict=True))
            index, count = index >> 2, _parent_count(count)
        out += rest
        return out

    def multi_root(self, count: int, known: Mapping[int, bytes], path: Sequence[bytes]) -> bytes:
        """Return the root that the leaves ``known`` by index and the path lead to.

        Raises:
            ProofError: an index is out of range or the path is malformed.
        """
        if not 0 < count <= INT64_MAX:
            raise ProofError(f"a count of {count} leaves is out of range")
        if not known or min(known) < 0 or max(known) >= count:
            raise ProofError(f"leaf indices are outside 0..{count - 1}")
        _check_hashes(list(known.values()), "a leaf")
        return self._climb(count, count, 0, dict(sorted(known.items())), path)

    def _climb(
        self, total: int, count: int, level: int, nodes: dict[int, bytes], path: Sequence[bytes]
    ) -> bytes:
        """Walk up from ``nodes``, ascending, at a level of ``count`` nodes; consume ``path``."""
        _check_hashes(path, "a path entry")
        used = 0
        while count > 1 or level == 0:
            indices = list(nodes)
            missing = _missing(indices, count)
            if used + len(missing) > len(path):
                raise ProofError("the path is too short")
            for child in missing:
                nodes[child] = path[used]
                used += 1
            parents = list(dict.fromkeys(index >> 2 for index in indices))
            inputs = [
                b"".join(nodes[child] for child in _children(parent, count)) for parent in parents
            ]
            nodes = dict(zip(parents, self._hash(inputs, level), strict=True))
            count = _parent_count(count)
            level += 1
        if used != len(path):
            raise ProofError(f"the path has {len(path) - used} entries too many")
        return self._bind(total, nodes[0])

    def _parents(self, data: bytes, level: int) -> bytes:
        """Return the concatenated parents of the concatenated nodes of one level."""
        inputs = [data[at : at + _QUAD_BYTES] for at in range(0, len(data), _QUAD_BYTES)]
        return b"".join(self._hash(inputs, level))

    def _hash(self, inputs: list[bytes], level: int) -> list[bytes]:
        if level == 0:
            return self._leaf(inputs)
        inputs[-1] = inputs[-1].ljust(_QUAD_BYTES, b"\0")  # no other lacks children
        return self._node(inputs)

    def _bind(self, count: int, top: bytes) -> bytes:
        return self._root(count.to_bytes(8, "big") + top)


def subtree_level(total: int, first: int, length: int) -> int | None:
    """Return j of the smallest aligned subtree of 4^j places that holds the part, None if none.

    The part must fill its places, or end the list.
    """
    if not (first >= 0 and 0 < length <= total - first and total <= INT64_MAX):
        return None
    level = 0
    while 4**level < length:
        level += 1
    filled = length == 4**level or first + length == total
    return level if filled and first % 4**level == 0 else None


def _parent_count(count: int) -> int:
    return (count + 3) >> 2


def _children(parent: int, count: int) -> range:
    return range(4 * parent, min(4 * parent + 4, count))


def _missing(known: Sequence[int], count: int) -> list[int]:
    """Return the existing siblings, ascending, of the ascending ``known`` that are not known."""
    have = frozenset(known)
    parents = dict.fromkeys(index >> 2 for index in known)
    return [child for parent in parents for child in _children(parent, count) if child not in have]


def _check_hashes(items: Sequence[bytes], what: str) -> None:
    if any(type(item) is not bytes or len(item) != DIGEST_BYTES for item in items):
        raise ProofError(f"{what} does not have 32 bytes")


def _same(root: bytes, found: bytes) -> None:
    if root != found:
        raise ProofError("the path leads to another root")


RESULTS: Final = CountTree("results")
"""Decisions of a block by index; its root is ``results_root``."""
CHANGES: Final = CountTree("changes")
"""Change records of a block by ascending ``kh``; its root is ``changes_root``."""
GROUP: Final = CountTree("group")
"""Transaction ids of a signed group."""
SALTED: Final = CountTree("salted")
"""Leaf hashes, and decoys, of a salted list of more than 8 leaves."""
