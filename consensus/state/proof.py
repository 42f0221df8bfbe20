"""Proofs of presence and absence in the state tree: one format for one or many keys.

``[version, height, D, key_count, pages, bitmap, hashes]``

``pages`` is the walk down from each touched leaf of the upper tree, ascending, to the pages of the
keys: an integer is a branch's count of entries (more than a page holds), followed by its children
that have keys, in order; a byte string is a whole page. ``bitmap`` and ``hashes`` are the siblings
met on the way up, deepest first, in index order within a level: bit 1 takes the next 32 bytes, bit
0 is an empty subtree.

Checked, in this order: shape and canonical form; positions derived from the keys alone; every
entry's order, prefix and height; the walk; siblings; that nothing is left over; the root. Absence
is a page without the key: the same code as presence. Sources: CVE-2012-2459 and the ICS-23 and
IAVL range-proof forgeries of 2022, whose prover-chosen prefixes and lengths do not exist here.

Not here: whether a quorum certified the root, and what a value hash opens to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.errors import DecodeError, ProofError, invariant
from consensus.hashing import DIGEST_BYTES, ZERO, context
from consensus.state.tree import (
    DEPTH_MAX,
    DEPTH_MIN,
    ENTRY_BYTES,
    KEY_BITS,
    PAGE_BYTES_MAX,
    PAGE_ENTRIES_MAX,
    Tree,
    branch_hash,
    page_hash,
    state_root,
)

VERSION: Final = 1
KEYS_MAX: Final = 1024
"""Keys of one proof."""
PROOF_BYTES_MAX: Final = 4 * 1024 * 1024
_ITEMS_MAX: Final = KEYS_MAX * KEY_BITS // 2

_upper_hash = context("state upper")
_SHAPE: Final = codec.array(
    codec.integer(VERSION, VERSION),
    codec.count,
    codec.integer(DEPTH_MIN, DEPTH_MAX),
    codec.count,
    codec.list_of(
        codec.one_of([codec.octets(high=PAGE_BYTES_MAX), codec.integer(PAGE_ENTRIES_MAX + 1)]),
        _ITEMS_MAX,
        low=1,
    ),
    codec.octets(high=PROOF_BYTES_MAX),
    codec.octets(high=PROOF_BYTES_MAX),
)

Found = tuple[bytes, int] | None
"""``(vh, changed height)``, or None for an absent key. A zero ``vh`` is a tombstone."""


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof as it travels. ``height`` says under which statement its root stands."""

    height: int
    depth: int
    key_count: int
    pages: tuple[int | bytes, ...]
    bitmap: bytes
    hashes: bytes

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(
            [
                VERSION,
                self.height,
                self.depth,
                self.key_count,
                list(self.pages),
                self.bitmap,
                self.hashes,
            ]
        )


def decode(data: bytes) -> Proof:
    """Return the proof that untrusted bytes encode.

    Raises:
        DecodeError: not a canonical proof of this version.
    """
    _, height, depth, key_count, pages, bitmap, hashes = codec.decode(
        data, _SHAPE, bytes_max=PROOF_BYTES_MAX, what="proof"
    )
    if depth % 2:
        raise DecodeError("an odd depth", path="proof[2]")
    return Proof(height, depth, key_count, tuple(pages), bitmap, hashes)


def prove(tree: Tree, height: int, keys: Sequence[bytes]) -> Proof:
    """Return the proof of presence or absence of 1 to KEYS_MAX distinct ``keys`` in ``tree``."""
    invariant(0 < len(keys) <= KEYS_MAX, f"{len(keys)} keys in one proof")
    invariant(height >= 0, "nothing is proved before genesis is applied")
    pages: list[int | bytes] = []
    terminals: list[int] = []
    branches: dict[int, bytes] = {}
    stack = _by_slot(keys, tree.depth)
    while stack:
        name, below = stack.pop()
        node = tree.node(name)
        if isinstance(node, bytes):
            pages.append(node)
            terminals.append(name)
        else:
            pages.append(node.entries)
            branches[name] = node.children
            stack += _by_child(name, below)
    bits: list[bool] = []
    hashes: list[bytes] = []
    for _, missing in _levels(terminals):
        for name in missing:
            children = branches.get(name >> 2)
            if children is None:
                hash_ = tree.upper(name)
            else:
                hash_ = children[(name & 3) * DIGEST_BYTES : ((name & 3) + 1) * DIGEST_BYTES]
            bits.append(hash_ != ZERO)
            if hash_ != ZERO:
                hashes.append(hash_)
    return Proof(height, tree.depth, tree.key_count, tuple(pages), _pack(bits), b"".join(hashes))


def verify(
    proof_bytes: bytes, root: bytes, keys: Sequence[bytes], *, height: int | None = None
) -> dict[bytes, Found]:
    """Return what a proof shows of ``keys`` under a trusted state root.

    Args:
        proof_bytes: untrusted.
        root: the ``state_root`` of a certified statement.
        keys: 1 to KEYS_MAX key paths of 32 bytes.
        height: of that statement; the proof must then name it. The root does not bind it.

    Raises:
        DecodeError: not a canonical proof.
        ProofError: it does not show exactly these keys under this root.

    Cost: about 40 µs for one key; linear in the proof's bytes for a hostile one.
    """
    return check(decode(proof_bytes), root, keys, height=height)


def check(
    proof: Proof, root: bytes, keys: Sequence[bytes], *, height: int | None = None
) -> dict[bytes, Found]:
    """Verify a decoded proof, as ``verify``.

    Raises:
        ProofError: it does not show exactly these keys under this root.
    """
    if not 0 < len(keys) <= KEYS_MAX or any(len(kh) != DIGEST_BYTES for kh in keys):
        raise ProofError(f"a proof is asked for 1 to {KEYS_MAX} keys of 32 bytes")
    if height is not None and proof.height != height:
        raise ProofError(f"the proof is of height {proof.height}, not {height}")
    counts, pages = _walk(proof, keys)
    nodes = {name: page_hash(page) for name, page in pages.items()}
    levels = list(_levels(list(pages)))
    places = [name for _, missing in levels for name in missing]
    nodes.update(zip(places, _siblings(proof, len(places)), strict=True))
    for parents, _ in levels:
        for name in parents:
            first = name << 2
            below = nodes[first] + nodes[first + 1] + nodes[first + 2] + nodes[first + 3]
            count = counts.get(name)
            if count is not None:
                nodes[name] = branch_hash(count, below)
            else:
                nodes[name] = _upper_hash(below) if any(below) else ZERO
    if state_root(proof.depth, proof.key_count, nodes[1]) != root:
        raise ProofError("the proof leads to another state root")
    shown = {kh: found for page in pages.values() for kh, found in _entries(page)}
    return {kh: shown.get(kh) for kh in keys}


def _walk(proof: Proof, keys: Sequence[bytes]) -> tuple[dict[int, int], dict[int, bytes]]:
    """Return the counts of branches and the pages, by node, that the items of a proof lay out."""
    counts: dict[int, int] = {}
    pages: dict[int, bytes] = {}
    items = iter(proof.pages)
    stack = _by_slot(keys, proof.depth)
    while stack:
        name, below = stack.pop()
        item = next(items, None)
        if item is None:
            raise ProofError("a page is missing")
        if isinstance(item, bytes):
            _check_page(item, name, proof.height)
            pages[name] = item
        elif name >> KEY_BITS:
            raise ProofError("a branch below the last bit of a key")
        else:
            counts[name] = item
            stack += _by_child(name, below)
    if next(items, None) is not None:
        raise ProofError("a page that no key asks for")
    return counts, pages


def _check_page(page: bytes, name: int, height: int) -> None:
    """Check size, order, prefix and heights of a page's entries."""
    if len(page) % ENTRY_BYTES or len(page) > PAGE_BYTES_MAX:
        raise ProofError(f"a page of {len(page)} bytes")
    bits = name.bit_length() - 1
    last = b""
    for kh, (_, changed_height) in _entries(page):
        if kh <= last:
            raise ProofError("the entries of a page do not ascend")
        if int.from_bytes(kh, "big") >> (KEY_BITS - bits) != name - (1 << bits):
            raise ProofError("an entry lies outside its page")
        if changed_height > height:
            raise ProofError(f"an entry changed at {changed_height}, above height {height}")
        last = kh


def _entries(page: bytes) -> Iterator[tuple[bytes, tuple[bytes, int]]]:
    for at in range(0, len(page), ENTRY_BYTES):
        changed_height = int.from_bytes(page[at + 64 : at + ENTRY_BYTES], "big")
        yield page[at : at + 32], (page[at + 32 : at + 64], changed_height)


def _siblings(proof: Proof, wanted: int) -> list[bytes]:
    """Return the siblings of a proof in order; neither a bit nor a byte may be left over."""
    if len(proof.bitmap) != (wanted + 7) // 8:
        raise ProofError(f"a bitmap of {len(proof.bitmap)} bytes for {wanted} siblings")
    padding = -wanted % 8
    value = int.from_bytes(proof.bitmap, "big")
    if value & ((1 << padding) - 1):
        raise ProofError("bits beyond the last sibling")
    bits = format(value >> padding, f"0{wanted}b") if wanted else ""
    if len(proof.hashes) != bits.count("1") * DIGEST_BYTES:
        raise ProofError(f"{len(proof.hashes)} bytes of siblings for {bits.count('1')} of them")
    present = [
        proof.hashes[at : at + DIGEST_BYTES] for at in range(0, len(proof.hashes), DIGEST_BYTES)
    ]
    if ZERO in present:
        raise ProofError("an empty subtree is marked present")
    found = iter(present)
    return [next(found) if bit == "1" else ZERO for bit in bits]


# --- positions, shared by who makes and who checks ---------------------------------------------

_Below = list[tuple[int, list[int]]]
"""Nodes with the keys (as integers) asked for below them, descending: a stack to pop from."""


def _by_slot(keys: Sequence[bytes], depth: int) -> _Below:
    parts: dict[int, list[int]] = {}
    for key in sorted({int.from_bytes(kh, "big") for kh in keys}, reverse=True):
        parts.setdefault(1 << depth | key >> (KEY_BITS - depth), []).append(key)
    return list(parts.items())


def _by_child(name: int, keys: list[int]) -> _Below:
    shift = KEY_BITS - name.bit_length() - 1
    parts: dict[int, list[int]] = {}
    for key in keys:
        parts.setdefault(name << 2 | key >> shift & 3, []).append(key)
    return list(parts.items())


def _levels(terminals: Sequence[int]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield, from the deepest level up, the parents to compute and the siblings missing for them.

    Both ascend. ``terminals`` are the nodes of the pages.
    """
    at_depth: dict[int, list[int]] = {}
    for name in terminals:
        at_depth.setdefault(name.bit_length(), []).append(name)
    known: list[int] = []
    for length in range(max(at_depth), 1, -2):
        known = sorted(known + at_depth.get(length, []))
        have = known if len(known) == 1 else frozenset(known)
        parents = list(dict.fromkeys([name >> 2 for name in known]))
        missing = [
            child
            for name in parents
            for child in range(name << 2, (name << 2) + 4)
            if child not in have
        ]
        yield parents, missing
        known = parents


def _pack(bits: list[bool]) -> bytes:
    """Return the bits, first the most significant, padded with zeros to whole bytes."""
    count = (len(bits) + 7) // 8
    value = int("".join("1" if bit else "0" for bit in bits) or "0", 2)
    return (value << (8 * count - len(bits))).to_bytes(count, "big")
