"""Hashes of whole subtrees of the state tree, from their entries alone.

What a node of the tree hashes to depends only on the entries below it and on D, so whoever has all
entries with one prefix can compute the node of that prefix (``tree`` says how) without the rest.
Nodes are named as in ``tree``: ``1 << depth | prefix``.

Not here: what the entries' values are (``snapshot``), and the tree at the tip (``tree``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus.errors import ProofError
from consensus.hashing import DIGEST_BYTES, ZERO, bulk
from consensus.state.tree import (
    DEPTH_MAX,
    ENTRY_BYTES,
    KEY_BITS,
    PAGE_BYTES_MAX,
    branch_hash,
    page_hash,
    state_root,
)

_QUAD_BYTES: Final = 4 * DIGEST_BYTES

_page_hashes = bulk("state page")
_upper_hashes = bulk("state upper")


def bits_of(name: int) -> int:
    """Return the depth of a node: how many bits of ``kh`` it fixes."""
    return name.bit_length() - 1


def bounds(name: int) -> tuple[bytes, bytes | None]:
    """Return ``low <= kh < high`` of the entries below a node; None: up to the end."""
    bits = bits_of(name)
    prefix = name - (1 << bits)
    above = prefix + 1
    low = (prefix << (KEY_BITS - bits)).to_bytes(DIGEST_BYTES, "big")
    if above >> bits:
        return low, None
    return low, (above << (KEY_BITS - bits)).to_bytes(DIGEST_BYTES, "big")


def check_entries(name: int, entries: bytes) -> None:
    """Check that untrusted entries ascend strictly and lie below a node.

    Raises:
        ProofError: they do not, or are no whole entries.

    Cost: about 0.15 µs an entry.
    """
    if len(entries) % ENTRY_BYTES:
        raise ProofError("the entries are not of 72 bytes each")
    keys = [entries[at : at + DIGEST_BYTES] for at in range(0, len(entries), ENTRY_BYTES)]
    if not keys:
        return
    if any(map(bytes.__ge__, keys, keys[1:])):
        raise ProofError("the entries do not ascend")
    low, high = bounds(name)
    if keys[0] < low or (high is not None and keys[-1] >= high):
        raise ProofError("an entry lies outside the prefix")


def subtree_hash(depth: int, name: int, entries: bytes) -> bytes:
    """Return the hash of a node from all entries below it, joined and ascending.

    Args:
        depth: D.
        name: of the node, above or below the bottom of the upper tree.
        entries: of 72 bytes each, checked (``check_entries``) or our own.

    Cost: about 1.3 µs an entry.
    """
    if not entries:
        return ZERO
    bits = bits_of(name)
    if bits >= depth:
        return _below(name, entries)
    slots: list[int] = []
    pages: list[bytes] = []
    shift, last, start = DEPTH_MAX - depth, -1, 0
    for at in range(0, len(entries), ENTRY_BYTES):
        slot = int.from_bytes(entries[at : at + 3], "big") >> shift
        if slot != last:
            if at:
                pages.append(entries[start:at])
            slots.append(slot)
            last, start = slot, at
    pages.append(entries[start:])
    hashes = _hashes_of(depth, slots, pages)
    for _ in range(bits, depth, 2):
        slots, quads = _quads(slots, hashes)
        hashes = _upper_hashes([bytes(quad) for quad in quads])
    return hashes[0]


def children_of(depth: int, name: int, entries: bytes) -> bytes:
    """Return the four concatenated hashes of a node's children, from the entries below it."""
    at, shift = bits_of(name) >> 3, 6 - (bits_of(name) & 7)
    parts = [bytearray() for _ in range(4)]
    for start in range(0, len(entries), ENTRY_BYTES):
        parts[entries[start + at] >> shift & 3] += entries[start : start + ENTRY_BYTES]
    return b"".join(
        subtree_hash(depth, name << 2 | child, bytes(part)) for child, part in enumerate(parts)
    )


def parent_hash(depth: int, name: int, entry_count: int, children: bytes) -> bytes:
    """Return the hash of a node of which only its children's hashes are known.

    Args:
        entry_count: entries below it, which a branch binds; above the bottom of the upper tree
            nothing binds it.
    """
    if bits_of(name) >= depth:
        return branch_hash(entry_count, children)
    return _upper_hashes([children])[0] if any(children) else ZERO


def root_of_row(depth: int, key_count: int, row: bytes) -> bytes:
    """Return the state root over one whole row of the upper tree's hashes.

    Args:
        depth: D.
        key_count: entries of the whole tree.
        row: the concatenated hashes of all ``4 ** n`` nodes of one depth, ascending.

    Cost: about 0.2 µs a hash.
    """
    while len(row) > DIGEST_BYTES:
        quads = [row[at : at + _QUAD_BYTES] for at in range(0, len(row), _QUAD_BYTES)]
        hashes = _upper_hashes(quads)
        row = b"".join(
            hash_ if any(quad) else ZERO for quad, hash_ in zip(quads, hashes, strict=True)
        )
    return state_root(depth, key_count, row)


def _hashes_of(depth: int, slots: Sequence[int], pages: Sequence[bytes]) -> list[bytes]:
    """Return the hashes of whole slots of the upper tree's lowest level."""
    hashes = _page_hashes(pages)
    for at, page in enumerate(pages):
        if len(page) > PAGE_BYTES_MAX:
            hashes[at] = _below(1 << depth | slots[at], page)
    return hashes


def _quads(slots: Sequence[int], hashes: Sequence[bytes]) -> tuple[list[int], list[bytearray]]:
    """Return the parents of nodes, with the concatenated hashes of each one's children."""
    parents: list[int] = []
    quads: list[bytearray] = []
    last = -1
    for slot, hash_ in zip(slots, hashes, strict=True):
        if slot >> 2 != last:
            last = slot >> 2
            parents.append(last)
            quads.append(bytearray(_QUAD_BYTES))
        place = (slot & 3) * DIGEST_BYTES
        quads[-1][place : place + DIGEST_BYTES] = hash_
    return parents, quads


def _below(name: int, entries: bytes) -> bytes:
    """Return the hash of a page, or of the branch in its place where it overflows."""
    if len(entries) <= PAGE_BYTES_MAX:
        return page_hash(entries)
    at, shift = bits_of(name) >> 3, 6 - (bits_of(name) & 7)
    parts = [bytearray() for _ in range(4)]
    for start in range(0, len(entries), ENTRY_BYTES):
        parts[entries[start + at] >> shift & 3] += entries[start : start + ENTRY_BYTES]
    children = b"".join(_below(name << 2 | child, bytes(part)) for child, part in enumerate(parts))
    return branch_hash(len(entries) // ENTRY_BYTES, children)
