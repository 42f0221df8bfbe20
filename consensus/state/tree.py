"""The state tree: 4-ary over ``kh``, pages of up to 16 entries, splitting where it is crowded.

    entry    kh 32 ‖ vh 32 ‖ changed height 8 bytes
    page     H_page(entry ...)                    ascending by kh, 1 to 16 entries
    branch   H_branch(entries below, 8 bytes ‖ 4 children)       in place of an overflowing page
    upper    H_upper(4 children)                  the top D bits, always expanded
    root     H_root(D, 1 byte ‖ key count, 8 bytes ‖ top of the upper tree)

An empty page and an upper node with nothing below are 32 zero bytes. Shape and root depend only on
the entries and D. The upper tree lies in flat bytearrays. Pages are virtual: the caller's ``scan``
yields the entries under a prefix; a bounded cache keeps recently used pages and branches, and may
lose any of them. An attacked prefix costs its depth, not its size.

Nodes are named by one integer, ``1 << depth | prefix``: ``node >> 2`` is the parent.

Not here: values, heights, undo of rows (``state``), proofs (``proof``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Final, NamedTuple

from consensus.errors import invariant
from consensus.hashing import DIGEST_BYTES, ZERO, bulk, context

DEPTH_MIN: Final = 4
DEPTH_MAX: Final = 24
KEY_BITS: Final = 256
ENTRY_BYTES: Final = 72
PAGE_ENTRIES_MAX: Final = 16
PAGE_BYTES_MAX: Final = PAGE_ENTRIES_MAX * ENTRY_BYTES
NODES_MAX: Final = 1 << 15
"""Pages and branches cached between blocks; about 40 MiB when all pages are full."""
NEVER: Final = -1
"""Previous change height of a key that did not exist."""

_BUILD_PAGES_MAX: Final = 4096
_QUAD_BYTES: Final = 4 * DIGEST_BYTES
_EMPTY_QUAD: Final = bytes(_QUAD_BYTES)

page_hashes: Final = bulk("state page")
upper_hashes: Final = bulk("state upper")
_page_hash = context("state page")
_branch_hash = context("state branch")
_root_hash = context("state root")

Scan = Callable[[bytes, bytes | None], bytes]
"""``(low, high) -> entries``: concatenated, ascending, ``low <= kh < high`` (None: to the end)."""


class Branch(NamedTuple):
    """The place of a page that overflowed: entries below it and its four children's hashes."""

    entries: int
    children: bytes


Node = bytes | Branch
"""A page, as its concatenated entries, or a branch."""


class TreeUndo(NamedTuple):
    """What ``Tree.restore`` puts back: the written nodes as they were, and the key count."""

    nodes: list[tuple[int, Node]]
    key_count: int


def page_hash(page: bytes) -> bytes:
    """Return the hash of a page's entries; zero of none."""
    return _page_hash(page) if page else ZERO


def branch_hash(count: int, children: bytes) -> bytes:
    """Return the hash of a branch over ``count`` entries and four concatenated hashes."""
    return _branch_hash(count.to_bytes(8, "big") + children)


def state_root(depth: int, key_count: int, top: bytes) -> bytes:
    """Return the root that a statement names."""
    return _root_hash(bytes((depth,)) + key_count.to_bytes(8, "big") + top)


def entry(kh: bytes, vh: bytes, changed_height: int) -> bytes:
    """Return the 72 bytes of one entry."""
    return kh + vh + changed_height.to_bytes(8, "big")


def check_depth(depth: int) -> None:
    """Stop unless ``depth`` is a number of upper bits that genesis may choose."""
    fits = DEPTH_MIN <= depth <= DEPTH_MAX and depth % 2 == 0
    invariant(fits, f"a tree depth of {depth} is not an even number in {DEPTH_MIN}..{DEPTH_MAX}")


class Tree:
    """The tree at the tip.

    Args:
        depth: D, the bits of the upper tree; even, 4 to 24. Memory: 43 bytes times 2^D.
        scan: yields the entries of the tip under a prefix of at least D bits.
    """

    __slots__ = ("_nodes", "_scan", "_shift", "depth", "key_count", "levels")

    def __init__(self, depth: int, scan: Scan) -> None:
        check_depth(depth)
        self.depth = depth
        self.key_count = 0
        self.levels = [bytearray(DIGEST_BYTES << bits) for bits in range(depth, -1, -2)]
        self._scan = scan
        self._shift = DEPTH_MAX - depth
        self._nodes: dict[int, Node] = {}

    def root(self) -> bytes:
        """Return the state root."""
        return state_root(self.depth, self.key_count, bytes(self.levels[-1]))

    def slot(self, kh: bytes) -> int:
        """Return the index of the upper tree's leaf above ``kh``."""
        return int.from_bytes(kh[:3], "big") >> self._shift

    def build(self, entries: Iterable[tuple[bytes, bytes, int]]) -> None:
        """Fill an empty tree from ``(kh, vh, changed height)``, strictly ascending by kh.

        Cost: about 2 µs an entry.
        """
        invariant(self.key_count == 0 and not self._nodes, "a tree is built once")
        shift = self._shift
        current, last = -1, b""
        page: list[bytes] = []
        pages: list[tuple[int, bytes]] = []
        touched: list[int] = []
        for kh, vh, height in entries:
            invariant(last < kh, "the entries of the store do not ascend")
            last = kh
            slot = int.from_bytes(kh[:3], "big") >> shift
            if slot != current:
                if page:
                    pages.append((current, b"".join(page)))
                if len(pages) >= _BUILD_PAGES_MAX:
                    touched += self._place(pages)
                    pages = []
                current, page = slot, []
            page.append(kh + vh + height.to_bytes(8, "big"))
            self.key_count += 1
        if page:
            pages.append((current, b"".join(page)))
        touched += self._place(pages)
        self._rehash(touched)

    def _place(self, pages: list[tuple[int, bytes]]) -> list[int]:
        """Hash whole slots into the lowest upper level; return their indices."""
        small = [(slot, page) for slot, page in pages if len(page) <= PAGE_BYTES_MAX]
        hashes = page_hashes(page for _, page in small)
        for (slot, _), hash_ in zip(small, hashes, strict=True):
            self._set_slot(slot, hash_)
        for slot, page in pages:
            if len(page) > PAGE_BYTES_MAX:
                branch = self._split(1 << self.depth | slot, page)
                self._set_slot(slot, branch_hash(*branch))
        self._evict()
        return [slot for slot, _ in pages]

    def update(
        self, writes: Sequence[tuple[bytes, bytes]], height: int
    ) -> tuple[list[int], TreeUndo]:
        """Write ``(kh, vh)``, strictly ascending by kh, as changed at ``height``.

        Returns:
            The previous change height of each key (NEVER for a new one), and what undoes it all.

        Cost: about 5 µs a key at D = 16.
        """
        undo = TreeUndo([], self.key_count)
        previous: list[int] = []
        tail = height.to_bytes(8, "big")
        groups: dict[int, list[tuple[bytes, bytes]]] = {}
        shift = self._shift
        for kh, vh in writes:
            slot = int.from_bytes(kh[:3], "big") >> shift
            if slot in groups:
                groups[slot].append((kh, kh + vh + tail))
            else:
                groups[slot] = [(kh, kh + vh + tail)]
        base = 1 << self.depth
        page_slots: list[int] = []
        pages: list[bytes] = []
        for slot, group in groups.items():
            node = self._write(base | slot, group, previous, undo.nodes)
            if isinstance(node, Branch):
                self._set_slot(slot, branch_hash(*node))
            else:
                page_slots.append(slot)
                pages.append(node)
        with memoryview(self.levels[0]) as bottom:
            for slot, hash_ in zip(page_slots, page_hashes(pages), strict=True):
                bottom[slot << 5 : (slot << 5) + 32] = hash_
        self.key_count += previous.count(NEVER)
        self._rehash(groups)
        self._evict()
        return previous, undo

    def restore(self, undo: TreeUndo) -> None:
        """Put back what the latest ``update`` changed.

        Nodes that it split off stay in the cache below a page. Nothing reads below a page, and
        the split that makes them reachable again overwrites them.
        """
        slots: list[int] = []
        for name, node in undo.nodes:
            self._nodes[name] = node
            if name >> self.depth == 1:
                slots.append(name - (1 << self.depth))
                self._set_slot(slots[-1], _node_hash(node))
        self.key_count = undo.key_count
        self._rehash(slots, emptied=True)
        self._evict()

    def node(self, name: int) -> Node:
        """Return a page, or the branch in its place, at or below the upper tree's leaves."""
        found = self._nodes.get(name)
        if found is None:
            found = self._nodes[name] = self._load(name)
            self._evict()
        return found

    def upper(self, name: int) -> bytes:
        """Return the hash of a node of the upper tree, leaves included."""
        bits = name.bit_length() - 1
        at = (name - (1 << bits)) * DIGEST_BYTES
        return bytes(self.levels[(self.depth - bits) >> 1][at : at + DIGEST_BYTES])

    # --- below the upper tree ---------------------------------------------------------------

    def _write(
        self,
        name: int,
        group: list[tuple[bytes, bytes]],
        previous: list[int],
        undo: list[tuple[int, Node]],
    ) -> Node:
        """Write ``(kh, entry)`` of one node, ascending; return the node as it is then."""
        node = self._nodes.pop(name, None)
        if node is None:
            node = self._load(name)
        undo.append((name, node))
        written: Node
        if isinstance(node, Branch):
            written = self._write_branch(name, node, group, previous, undo)
        else:
            page = _merge(node, group, previous)
            written = page if len(page) <= PAGE_BYTES_MAX else self._split(name, page)
        self._nodes[name] = written
        return written

    def _write_branch(
        self,
        name: int,
        branch: Branch,
        group: list[tuple[bytes, bytes]],
        previous: list[int],
        undo: list[tuple[int, Node]],
    ) -> Branch:
        depth = name.bit_length() - 1
        mark = len(previous)
        hashes = bytearray(branch.children)
        for child, part in _by_child(group, depth).items():
            written = self._write(name << 2 | child, part, previous, undo)
            hashes[child * DIGEST_BYTES : (child + 1) * DIGEST_BYTES] = _node_hash(written)
        return Branch(branch.entries + previous[mark:].count(NEVER), bytes(hashes))

    def _load(self, name: int) -> Node:
        """Return a node from the entries below it; cache what lies below it."""
        bits = name.bit_length() - 1
        prefix = name - (1 << bits)
        low = (prefix << (KEY_BITS - bits)).to_bytes(DIGEST_BYTES, "big")
        above = (prefix + 1) << (KEY_BITS - bits)
        high = None if above >> KEY_BITS else above.to_bytes(DIGEST_BYTES, "big")
        page = self._scan(low, high)
        return page if len(page) <= PAGE_BYTES_MAX else self._split(name, page)

    def _split(self, name: int, page: bytes) -> Branch:
        """Return the branch over more entries than a page holds; cache the nodes below it."""
        depth = name.bit_length() - 1
        entries = [
            (page[at : at + DIGEST_BYTES], page[at : at + ENTRY_BYTES])
            for at in range(0, len(page), ENTRY_BYTES)
        ]
        parts = _by_child(entries, depth)
        hashes = []
        for child in range(4):
            below = b"".join(item for _, item in parts.get(child, ()))
            child_name = name << 2 | child
            node: Node = below
            if len(below) > PAGE_BYTES_MAX:
                node = self._split(child_name, below)
            self._nodes[child_name] = node
            hashes.append(_node_hash(node))
        return Branch(len(entries), b"".join(hashes))

    def _evict(self) -> None:
        """Forget the nodes written or loaded longest ago when the cache is full."""
        if len(self._nodes) > NODES_MAX:
            oldest = len(self._nodes) - NODES_MAX * 3 // 4
            for name in list(islice(self._nodes, oldest)):
                del self._nodes[name]

    # --- the upper tree -----------------------------------------------------------------------

    def _set_slot(self, slot: int, hash_: bytes) -> None:
        self.levels[0][slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES] = hash_

    def _rehash(self, slots: Iterable[int], *, emptied: bool = False) -> None:
        """Hash each upper node above the ascending ``slots`` once.

        Something is below each, unless ``emptied``: then nodes with nothing below become zero.
        """
        touched: Iterable[int] = slots
        for below, above in zip(self.levels, self.levels[1:], strict=False):
            touched = list(dict.fromkeys([index >> 2 for index in touched]))
            with memoryview(below) as children, memoryview(above) as parents:
                quads = [children[node << 7 : (node << 7) + _QUAD_BYTES] for node in touched]
                for node, hash_ in zip(touched, upper_hashes(quads), strict=True):
                    parents[node << 5 : (node << 5) + 32] = hash_
                if emptied:
                    for node, quad in zip(touched, quads, strict=True):
                        if quad == _EMPTY_QUAD:
                            parents[node << 5 : (node << 5) + 32] = ZERO


def _node_hash(node: Node) -> bytes:
    return branch_hash(*node) if isinstance(node, Branch) else page_hash(node)


def _by_child(
    items: Iterable[tuple[bytes, bytes]], depth: int
) -> dict[int, list[tuple[bytes, bytes]]]:
    """Part ascending ``(kh, entry)`` by the two bits of kh below ``depth``."""
    at, shift = depth >> 3, 6 - (depth & 7)
    parts: dict[int, list[tuple[bytes, bytes]]] = {}
    for item in items:
        parts.setdefault(item[0][at] >> shift & 3, []).append(item)
    return parts


def _merge(page: bytes, group: list[tuple[bytes, bytes]], previous: list[int]) -> bytes:
    """Return the page with the written entries; append each one's previous change height."""
    if len(group) > PAGE_ENTRIES_MAX:
        return _merge_many(page, group, previous)
    for kh, item in group:
        at = page.find(kh)
        while at % ENTRY_BYTES and at >= 0:
            at = page.find(kh, at + 1)
        if at >= 0:
            previous.append(int.from_bytes(page[at + 64 : at + ENTRY_BYTES], "big"))
            page = page[:at] + item + page[at + ENTRY_BYTES :]
        else:
            previous.append(NEVER)
            at = 0
            while at < len(page) and page[at : at + DIGEST_BYTES] < kh:
                at += ENTRY_BYTES
            page = page[:at] + item + page[at:]
    return page


def _merge_many(page: bytes, group: list[tuple[bytes, bytes]], previous: list[int]) -> bytes:
    entries = {
        page[at : at + DIGEST_BYTES]: page[at : at + ENTRY_BYTES]
        for at in range(0, len(page), ENTRY_BYTES)
    }
    for kh, item in group:
        old = entries.get(kh)
        previous.append(NEVER if old is None else int.from_bytes(old[64:], "big"))
        entries[kh] = item
    return b"".join(entries[kh] for kh in sorted(entries))
