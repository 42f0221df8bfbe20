"""Pieces of a snapshot: the state cut into whole prefix subtrees, each checked by itself.

    chunk   [0, node, entries, [row | null, ...]]     all entries below a node, with their rows
    split   [1, node, entry_count, children]          four hashes in place of a chunk too long

The state is cut along one row of the upper tree, all nodes of one depth; the hashes of that row
lead to the state root, so each is known before the chunk that belongs to it arrives. A chunk has no
path and no range: it is everything with one prefix. Where somebody has crowded a prefix, so that a
chunk would be too long, a split stands in its place, and the four nodes below follow, those with a
zero hash left out. ``node`` is ``1 << depth | prefix``, which fixes position and order.

A row may be null only where a snapshot is a copy for an auditor; its entry stays.

Ordering of the checks: length, shape, canonical form; the node is the one that is due; entries
ascend below it; the subtree's hash; then each row against its value hash (``ledger.stored``). Not
here: the manifest, and what a row holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from consensus import codec
from consensus.errors import DecodeError, ProofError
from consensus.hashing import DIGEST_BYTES, ZERO
from consensus.state.subtree import bits_of, check_entries, parent_hash, subtree_hash
from consensus.state.tree import ENTRY_BYTES, PAGE_ENTRIES_MAX

PIECE_BYTES_MAX: Final = 32 * 2**20
"""Longest piece that is read. A page that cannot be split has 16 rows of at most 1 MiB each."""
CHUNK_BYTES_AIM: Final = 2**19
"""Average chunk that the cut aims at."""
CHUNK_BYTES_SPLIT: Final = 2**20
"""A longer chunk is split, unless it is a page."""
ENTRIES_MAX: Final = 2**17
"""Most entries of one chunk."""
ROW_BITS_MAX: Final = 16
"""Deepest row of the upper tree along which the state is cut."""
NODE_BITS_MAX: Final = 62

CHUNK: Final = 0
SPLIT: Final = 1
_NAME: Final = codec.integer(1)
_PIECE: Final = codec.tagged(
    {
        CHUNK: codec.array(
            codec.count,
            _NAME,
            codec.octets(low=ENTRY_BYTES, high=ENTRIES_MAX * ENTRY_BYTES),
            codec.list_of(codec.optional(codec.octets(high=PIECE_BYTES_MAX)), ENTRIES_MAX, low=1),
        ),
        SPLIT: codec.array(codec.count, _NAME, codec.count, codec.octets(4 * DIGEST_BYTES)),
    }
)


class Chunk(NamedTuple):
    """All entries below a node, joined, and the row of each (None: left out)."""

    name: int
    entries: bytes
    values: Sequence[bytes | None]


class Split(NamedTuple):
    """A node of which the children follow. ``entry_count`` is 0 above the upper tree's bottom."""

    name: int
    entry_count: int
    children: bytes


class Due(NamedTuple):
    """A node whose piece is due, and the hash that it must have."""

    name: int
    hash: bytes


def row_bits(state_bytes: int, depth: int) -> int:
    """Return the depth of the row along which a state of so many bytes is cut. Even, at most D."""
    bits = 0
    while bits + 2 <= min(depth, ROW_BITS_MAX) and state_bytes >> bits > CHUNK_BYTES_AIM:
        bits += 2
    return bits


def may_split(depth: int, name: int, entry_count: int) -> bool:
    """Return whether the tree has nodes below this one."""
    if bits_of(name) >= NODE_BITS_MAX:
        return False
    return bits_of(name) < depth or entry_count > PAGE_ENTRIES_MAX


def encode_chunk(chunk: Chunk) -> bytes:
    """Return the bytes of a chunk."""
    return codec.encode([CHUNK, chunk.name, chunk.entries, list(chunk.values)])


def encode_split(split: Split) -> bytes:
    """Return the bytes of a split."""
    return codec.encode([SPLIT, split.name, split.entry_count, split.children])


def decode_piece(data: bytes, what: str = "piece") -> Chunk | Split:
    """Return the chunk or split in untrusted bytes, well-formed and no more.

    Raises:
        DecodeError: too long, of another shape, not canonical, or rows and entries differ in count.
    """
    if len(data) > PIECE_BYTES_MAX:
        raise DecodeError(f"{len(data)} bytes, at most {PIECE_BYTES_MAX} allowed", path=what)
    codec.refuse_crowd(data, what, ENTRIES_MAX + 8)
    value = codec.decode(data, _PIECE, bytes_max=PIECE_BYTES_MAX, what=what)
    if value[0] == SPLIT:
        return Split(*value[1:])
    _, name, entries, values = value
    if len(entries) != len(values) * ENTRY_BYTES:
        raise DecodeError(f"{len(values)} rows for {len(entries)} bytes of entries", path=what)
    return Chunk(name, entries, values)


def name_in(data: bytes) -> int:
    """Return the node that an untrusted piece says it is of; 0 when it does not say."""
    head = data[2:3]
    if data[:1] != b"\x84" or not head:
        return 0
    if head[0] < 24:
        return head[0]
    size = {24: 1, 25: 2, 26: 4, 27: 8}.get(head[0], 0)
    return int.from_bytes(data[3 : 3 + size], "big") if len(data) >= 3 + size else 0


def is_split(data: bytes) -> bool:
    """Return whether an untrusted piece says it is a split."""
    return data[1:2] == bytes([SPLIT])


def place_of(name: int, bits: int) -> str:
    """Return how errors name a node of a snapshot that is cut at depth ``bits``."""
    below = max(bits_of(name) - bits, 0)
    index = (name >> below) - (1 << bits) if bits_of(name) >= bits else name
    if not below:
        return f"chunk {index}"
    path = name & ((1 << below) - 1)
    return f"chunk {index} ({path:0{below}b} below it)"


def check_split(depth: int, split: Split, due: Due) -> list[Due]:
    """Return the nodes that come in place of the one that is due, ascending.

    Raises:
        ProofError: the split is not that of the node, or of one that is a page.
    """
    _check_name(split.name, due)
    if not may_split(depth, split.name, split.entry_count):
        raise ProofError("a split where the tree has no nodes below")
    if bits_of(split.name) < depth and split.entry_count:
        raise ProofError("a split of the upper tree says a count that nothing binds")
    if parent_hash(depth, split.name, split.entry_count, split.children) != due.hash:
        raise ProofError("the hashes of the split do not lead to its node")
    hashes = [
        split.children[at : at + DIGEST_BYTES] for at in range(0, len(split.children), DIGEST_BYTES)
    ]
    return [
        Due(split.name << 2 | child, hash_) for child, hash_ in enumerate(hashes) if hash_ != ZERO
    ]


def check_chunk(depth: int, chunk: Chunk, due: Due, height: int) -> None:
    """Check that the entries of a chunk are all those below the node that is due.

    Args:
        depth: D.
        height: of the snapshot; no entry changed later.

    Raises:
        ProofError: they are not.

    Cost: about 1.8 µs an entry. The rows are not looked at: ``ledger.stored.check_rows``.
    """
    _check_name(chunk.name, due)
    entries = chunk.entries
    check_entries(chunk.name, entries)
    if subtree_hash(depth, chunk.name, entries) != due.hash:
        raise ProofError("the entries are not those that the certificate vouches for")
    newest = max(
        entries[at + 2 * DIGEST_BYTES : at + ENTRY_BYTES]
        for at in range(0, len(entries), ENTRY_BYTES)
    )
    if int.from_bytes(newest, "big") > height:
        raise ProofError("an entry changed after the height of the snapshot")


def _check_name(name: int, due: Due) -> None:
    if name != due.name:
        raise ProofError("the piece of another node came in its place")
