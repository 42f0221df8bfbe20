"""Writes of a store that is begun from a snapshot, each one transaction, synced as every other.

The store is blank until ``begin`` writes the height; what was written before means nothing without.

Not here: flushes of certified heights (``flush``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.errors import invariant
from node.storage import tables
from node.storage.tables import Tables, height_key

if TYPE_CHECKING:
    import lmdb


@dataclass(frozen=True, slots=True)
class Rows:
    """Ascending ``(kh, value)`` of state rows, above all that are there."""

    rows: Sequence[tuple[bytes, bytes]]

    def write(self, txn: lmdb.Transaction[bytes], opened: Tables) -> None:
        """Append them. Cost: about 1.5 µs a row."""
        with txn.cursor(opened.state) as cursor:
            _consumed, added = cursor.putmulti(self.rows, append=True)
        invariant(added == len(self.rows), "the rows of a snapshot ascend")


@dataclass(frozen=True, slots=True)
class Index:
    """Ascending entries of the node's own index."""

    entries: Iterable[tuple[bytes, bytes]]

    def write(self, txn: lmdb.Transaction[bytes], opened: Tables) -> None:
        """Put them."""
        with txn.cursor(opened.index) as cursor:
            cursor.putmulti(self.entries)


@dataclass(frozen=True, slots=True)
class Beginning:
    """What makes a store one of a height: all but the rows.

    ``block`` is encoded with its statement; ``history`` are nodes, ``(level, index, hash)``.
    """

    height: int
    block: bytes
    certificate: bytes
    history: Sequence[tuple[int, int, bytes]]
    meta: Sequence[tuple[bytes, bytes]]

    def write(self, txn: lmdb.Transaction[bytes], opened: Tables) -> None:
        """Put it; the height last."""
        key = height_key(self.height)
        txn.put(key, self.block, db=opened.blocks)
        txn.put(key, self.certificate, db=opened.certs)
        for level, index, node in self.history:
            txn.put(tables.history_key(level, index), node, db=opened.history)
        for name, value in self.meta:
            txn.put(name, value, db=opened.meta)
        txn.put(tables.META_HORIZON, key, db=opened.meta)
        txn.put(tables.META_HEIGHT, key, db=opened.meta)
