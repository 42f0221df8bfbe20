"""The state tree: 4-ary over ``kh``, pages of up to 16 entries, splitting where it is crowded.

    entry    kh 32 ‖ vh 32 ‖ changed height 8 bytes
    page     H_page(entry ...)                    ascending by kh, 1 to 16 entries
    branch   H_branch(entries below, 8 bytes ‖ 4 children)       in place of an overflowing page
    upper    H_upper(4 children)                  the top D bits, always expanded
    root     H_root(D, 1 byte ‖ key count, 8 bytes ‖ top of the upper tree)

An empty page and an upper node with nothing below are 32 zero bytes. Shape and root depend only on
the entries and D. The upper tree lies in flat bytearrays. Pages are virtual: the caller's ``scan``
yields what the store has under a prefix. What was written above the store stays in memory, beside a
bounded cache of other pages and branches. An attacked prefix costs its depth, not its size.

Nodes are named by one integer, ``1 << depth | prefix``: ``node >> 2`` is the parent.

Not here: values, heights, undo of rows (``state``), proofs (``proof``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice, pairwise
from typing import Final, NamedTuple

from consensus.errors import invariant
from consensus.hashing import DIGEST_BYTES, ZERO, bulk, context, hasher

DEPTH_MIN: Final = 4
DEPTH_MAX: Final = 24
KEY_BITS: Final = 256
ENTRY_BYTES: Final = 72
PAGE_ENTRIES_MAX: Final = 16
PAGE_BYTES_MAX: Final = PAGE_ENTRIES_MAX * ENTRY_BYTES
NODES_MAX: Final = 1 << 15
"""Pages and branches cached between blocks; about 40 MiB when all pages are full. Those that the
store does not have yet may be more."""
NEVER: Final = b"\xff" * 8
"""Previous change height of a key that did not exist: -1."""

_BUILD_PAGES_MAX: Final = 4096
_PAIR_BYTES: Final = 2 * DIGEST_BYTES
_EMPTY_QUAD: Final = bytes(4 * DIGEST_BYTES)

_page_hashes = bulk("state page")
_page_hash = context("state page")
_page_hasher = hasher("state page")
_upper_hasher = hasher("state upper")
_branch_hash = context("state branch")
_root_hash = context("state root")

Scan = Callable[[bytes, bytes | None], bytes]
"""``(low, high) -> entries`` of the store, joined, ascending: ``low <= kh < high`` (None: all)."""


class Branch(NamedTuple):
    """The place of a page that overflowed.

    ``entries`` counts those below it, ``children`` are its four children's hashes, ``changed`` is
    the newest change height below it, 8 bytes.
    """

    entries: int
    children: bytes
    changed: bytes


Node = bytes | Branch
"""A page, as its concatenated entries, or a branch."""


class TreeUndo(NamedTuple):
    """What ``Tree.restore`` puts back: the written nodes as they were, and the key count."""

    nodes: dict[int, Node]
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
        scan: yields what the store has under a prefix of at least D bits.
        flushed_height: of the store. What was written above it is kept in memory.
    """

    __slots__ = (
        "_nodes",
        "_nodes_max",
        "_scan",
        "_shift",
        "depth",
        "flushed_height",
        "key_count",
        "levels",
    )

    def __init__(self, depth: int, scan: Scan, flushed_height: int) -> None:
        check_depth(depth)
        self.depth = depth
        self.flushed_height = flushed_height
        self.key_count = 0
        self.levels = [memoryview(bytearray(DIGEST_BYTES << bits)) for bits in range(depth, -1, -2)]
        self._scan = scan
        self._shift = DEPTH_MAX - depth
        self._nodes: dict[int, Node] = {}
        self._nodes_max = NODES_MAX

    def root(self) -> bytes:
        """Return the state root."""
        return state_root(self.depth, self.key_count, bytes(self.levels[-1]))

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
            slot = (kh[0] << 16 | kh[1] << 8 | kh[2]) >> shift
            if slot != current:
                if page:
                    pages.append((current, b"".join(page)))
                if len(pages) >= _BUILD_PAGES_MAX:
                    touched += self._place(pages)
                    pages = []
                current, page = slot, []
            page.append(entry(kh, vh, height))
            self.key_count += 1
        if page:
            pages.append((current, b"".join(page)))
        touched += self._place(pages)
        self._rehash(touched)

    def _place(self, pages: list[tuple[int, bytes]]) -> list[int]:
        """Hash whole slots into the lowest upper level; return their indices."""
        small = [(slot, page) for slot, page in pages if len(page) <= PAGE_BYTES_MAX]
        hashes = _page_hashes(page for _, page in small)
        for (slot, _), hash_ in zip(small, hashes, strict=True):
            self._set_slot(slot, hash_)
        for slot, page in pages:
            if len(page) > PAGE_BYTES_MAX:
                self._set_slot(slot, _node_hash(self._split(1 << self.depth | slot, page)))
        self._evict()
        return [slot for slot, _ in pages]

    def update(self, entries: Iterable[bytes]) -> tuple[list[bytes], TreeUndo]:
        """Write entries of one height above the store, strictly ascending by kh.

        Returns:
            The previous change height of each key, 8 bytes (NEVER for a new one), and what undoes
            it all.

        Cost: about 3 µs a key at D = 16.
        """
        undo = TreeUndo({}, self.key_count)
        previous: list[bytes] = []
        groups: dict[int, list[bytes]] = {}
        shift = self._shift
        for item in entries:
            slot = (item[0] << 16 | item[1] << 8 | item[2]) >> shift
            if slot in groups:
                groups[slot].append(item)
            else:
                groups[slot] = [item]
        base, bottom, pages = 1 << self.depth, self.levels[0], _page_hasher.copy()
        for slot, group in groups.items():
            node = self._write(base | slot, group, previous, undo.nodes)
            if isinstance(node, Branch):
                hash_ = _node_hash(node)
            else:
                pages.update(node)
                hash_ = pages.digest()
                pages.reset()
            bottom[slot << 5 : (slot + 1) << 5] = hash_
        self.key_count += previous.count(NEVER)
        self._rehash(groups)
        self._evict()
        return previous, undo

    def restore(self, undo: TreeUndo) -> None:
        """Put back what the latest ``update`` changed.

        Nodes that it split off stay in memory below a page, until their height is flushed. Nothing
        reads below a page, and the split that makes them reachable again overwrites them.
        """
        slots: list[int] = []
        for name, node in undo.nodes.items():
            self._nodes[name] = node
            if name >> self.depth == 1:
                slots.append(name - (1 << self.depth))
                self._set_slot(slots[-1], _node_hash(node))
        self.key_count = undo.key_count
        self._rehash(slots, emptied=True)
        self._evict()

    def flushed(self, height: int) -> None:
        """The store has everything up to ``height``: nodes that it can yield may be forgotten."""
        self.flushed_height = height
        self._nodes_max = NODES_MAX
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
        self, name: int, group: list[bytes], previous: list[bytes], undo: dict[int, Node]
    ) -> Node:
        """Write the entries of one node, ascending; return the node as it is then."""
        node = self._nodes.pop(name, None)  # goes to the end: used last
        if node is None:
            node = self._load(name)
        undo[name] = node
        written: Node
        if isinstance(node, Branch):
            written = self._write_branch(name, node, group, previous, undo)
        else:
            written = _merge(node, group, previous)
            if len(written) > PAGE_BYTES_MAX:
                written = self._split(name, written)
        self._nodes[name] = written
        return written

    def _write_branch(
        self,
        name: int,
        branch: Branch,
        group: list[bytes],
        previous: list[bytes],
        undo: dict[int, Node],
    ) -> Branch:
        mark = len(previous)
        hashes = bytearray(branch.children)
        for child, part in _by_child(group, name).items():
            written = self._write(name << 2 | child, part, previous, undo)
            hashes[child * DIGEST_BYTES : (child + 1) * DIGEST_BYTES] = _node_hash(written)
        count = branch.entries + previous[mark:].count(NEVER)
        return Branch(count, bytes(hashes), group[0][_PAIR_BYTES:])

    def _load(self, name: int) -> Node:
        """Return a node from the store's entries below it; cache what lies below it.

        Had anything below been written above the store, the node would not have been forgotten.
        """
        bits = name.bit_length() - 1
        prefix = name - (1 << bits)
        low = (prefix << (KEY_BITS - bits)).to_bytes(DIGEST_BYTES, "big")
        above = (prefix + 1) << (KEY_BITS - bits)
        high = None if above >> KEY_BITS else above.to_bytes(DIGEST_BYTES, "big")
        page = self._scan(low, high)
        return page if len(page) <= PAGE_BYTES_MAX else self._split(name, page)

    def _split(self, name: int, page: bytes) -> Branch:
        """Return the branch over more entries than a page holds; cache the nodes below it."""
        parts = _by_child(_entries(page), name)
        hashes = []
        for child in range(4):
            below = b"".join(parts.get(child, ()))
            child_name = name << 2 | child
            node: Node = below
            if len(below) > PAGE_BYTES_MAX:
                node = self._split(child_name, below)
            self._nodes[child_name] = node
            hashes.append(_node_hash(node))
        return Branch(len(page) // ENTRY_BYTES, b"".join(hashes), _changed(page))

    def _evict(self) -> None:
        """Forget nodes used longest ago when there are many, but none written above the store.

        Where that is not enough, the next attempt waits until there are an eighth more.
        """
        if len(self._nodes) > self._nodes_max:
            above = (self.flushed_height + 1).to_bytes(8, "big")
            stored = (name for name, node in self._nodes.items() if _changed(node) < above)
            excess = len(self._nodes) - NODES_MAX * 7 // 8
            for name in list(islice(stored, excess)):
                del self._nodes[name]
            self._nodes_max = max(NODES_MAX, len(self._nodes) * 9 // 8)

    # --- the upper tree -----------------------------------------------------------------------

    def _set_slot(self, slot: int, hash_: bytes) -> None:
        self.levels[0][slot * DIGEST_BYTES : (slot + 1) * DIGEST_BYTES] = hash_

    def _rehash(self, slots: Iterable[int], *, emptied: bool = False) -> None:
        """Hash each upper node above ``slots`` once.

        Something is below each, unless ``emptied``: then nodes with nothing below become zero.
        """
        uppers = _upper_hasher.copy()
        for below, above in pairwise(self.levels):
            slots = {slot >> 2: None for slot in slots}
            for node in slots:
                quad = below[node << 7 : (node + 1) << 7]
                uppers.update(quad)
                empty = emptied and quad == _EMPTY_QUAD
                above[node << 5 : (node + 1) << 5] = ZERO if empty else uppers.digest()
                uppers.reset()


def _node_hash(node: Node) -> bytes:
    if isinstance(node, Branch):
        return branch_hash(node.entries, node.children)
    return page_hash(node)


def _changed(node: Node) -> bytes:
    """Return the newest change height below a node, 8 bytes; nothing when there is none."""
    if isinstance(node, Branch):
        return node.changed
    return max([item[_PAIR_BYTES:] for item in _entries(node)], default=b"")


def _entries(page: bytes) -> list[bytes]:
    return [page[at : at + ENTRY_BYTES] for at in range(0, len(page), ENTRY_BYTES)]


def _by_child(entries: Iterable[bytes], name: int) -> dict[int, list[bytes]]:
    """Part entries by the two bits of kh that tell the children of the node ``name`` apart."""
    depth = name.bit_length() - 1
    at, shift = depth >> 3, 6 - (depth & 7)
    parts: dict[int, list[bytes]] = {}
    for item in entries:
        parts.setdefault(item[at] >> shift & 3, []).append(item)
    return parts


def _merge(page: bytes, group: list[bytes], previous: list[bytes]) -> bytes:
    """Return the page with the written entries; append each one's previous change height."""
    if len(group) > PAGE_ENTRIES_MAX:
        return _merge_many(page, group, previous)
    for item in group:
        kh = item[:DIGEST_BYTES]
        at = page.find(kh)
        while at % ENTRY_BYTES and at >= 0:
            at = page.find(kh, at + 1)
        if at >= 0:
            end = at + ENTRY_BYTES
            previous.append(page[at + _PAIR_BYTES : end])
            page = page[:at] + item + page[end:]
        else:
            previous.append(NEVER)
            at = 0
            while page[at : at + DIGEST_BYTES] < kh and at < len(page):
                at += ENTRY_BYTES
            page = page[:at] + item + page[at:]
    return page


def _merge_many(page: bytes, group: list[bytes], previous: list[bytes]) -> bytes:
    entries = {item[:DIGEST_BYTES]: item for item in _entries(page)}
    for item in group:
        old = entries.get(item[:DIGEST_BYTES])
        previous.append(NEVER if old is None else old[_PAIR_BYTES:])
        entries[item[:DIGEST_BYTES]] = item
    return b"".join(sorted(entries.values()))
