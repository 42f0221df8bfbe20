"""Pieces of a snapshot, read from one LMDB transaction at the height it shows.

A piece is read when it is asked for; nothing is kept. A chunk that would be too long is read no
further than that, and a split is made from its entries instead.

Not here: who holds the transaction and for how long.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from consensus.hashing import ZERO
from consensus.state.snapshot import (
    CHUNK_BYTES_SPLIT,
    Chunk,
    Split,
    encode_chunk,
    encode_split,
    may_split,
)
from consensus.state.subtree import bits_of, bounds, children_of, subtree_hash
from consensus.state.tree import ENTRY_BYTES
from node.storage.tables import HEIGHT_BYTES, Table

if TYPE_CHECKING:
    import lmdb

LeaveOut = Callable[[bytes, bytes], bool]
"""``(kh, row)``: whether the row is left out of a copy for an auditor."""

_VH_END = HEIGHT_BYTES + 32


class Source:
    """The state rows of one transaction, as pieces.

    Args:
        txn: a read transaction; not used by two threads at once.
        table: of the state rows.
        depth: D of genesis.
        leave_out: of a copy for an auditor.
    """

    def __init__(
        self,
        txn: lmdb.Transaction[bytes],
        table: Table,
        depth: int,
        leave_out: LeaveOut | None = None,
    ) -> None:
        self._cursor = txn.cursor(table)
        self._depth = depth
        self._leave_out = leave_out
        self.left_out = 0
        """Rows left out of all chunks so far."""

    def piece(self, name: int) -> bytes:
        """Return the chunk of a node, or the split in its place. Cost: about 2 µs a row."""
        chunk = self.chunk(name)
        if chunk is not None:
            return encode_chunk(chunk)
        entries = self.entries(name)
        count = len(entries) // ENTRY_BYTES if bits_of(name) >= self._depth else 0
        return encode_split(Split(name, count, children_of(self._depth, name, entries)))

    def pieces(self, name: int) -> Iterator[bytes]:
        """Yield the pieces of a node and of those below it, in the order of a file.

        Nothing where the node has no entries.
        """
        chunk = self.chunk(name)
        if chunk is not None:
            if chunk.values:
                yield encode_chunk(chunk)
            return
        yield self.piece(name)
        for child in range(4):
            yield from self.pieces(name << 2 | child)

    def chunk(self, name: int) -> Chunk | None:
        """Return the chunk of a node; None if it is too long and the tree has nodes below."""
        entries: list[bytes] = []
        values: list[bytes | None] = []
        size = 0
        leave_out = self._leave_out
        for kh, value in self._rows(name):
            row: bytes | None = value[_VH_END:]
            if leave_out is not None and leave_out(kh, value[_VH_END:]):
                row = None
            entries.append(kh + value[HEIGHT_BYTES:_VH_END] + value[:HEIGHT_BYTES])
            values.append(row)
            size += ENTRY_BYTES + (1 if row is None else len(row))
            if size > CHUNK_BYTES_SPLIT and may_split(self._depth, name, len(values)):
                return None
        self.left_out += values.count(None)
        return Chunk(name, b"".join(entries), values)

    def entries(self, name: int) -> bytes:
        """Return all entries below a node, joined."""
        return b"".join(
            kh + value[HEIGHT_BYTES:_VH_END] + value[:HEIGHT_BYTES]
            for kh, value in self._rows(name)
        )

    def hash(self, name: int) -> bytes:
        """Return the hash of a node. Cost: about 3 µs an entry."""
        entries = self.entries(name)
        return subtree_hash(self._depth, name, entries) if entries else ZERO

    def _rows(self, name: int) -> Iterator[tuple[bytes, bytes]]:
        low, high = bounds(name)
        cursor = self._cursor
        if cursor.set_range(low):
            for kh, value in cursor:
                if high is not None and kh >= high:
                    return
                yield kh, value
