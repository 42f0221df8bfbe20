"""A store begun from checked chunks: sorted rows, appended; the node's own index made from them.

Chunks come ascending, so LMDB only ever appends. What a node lists for itself is made from the
rows, never taken from whoever gave the snapshot. The store is blank until ``finish`` writes the
height, the block with its statement, the certificate, and the history's frontier; it has nothing
older, and says so when asked.

Not here: what is right (``consensus.snapshot``), and where the store goes (``begin``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from consensus import codec
from consensus.errors import invariant
from consensus.hashing import ZERO
from consensus.hotstuff import wire
from consensus.ledger.layout import Paths, encode_text
from consensus.ledger.proposals import SPACE as PROPOSAL
from consensus.ledger.proposals import Proposal
from consensus.snapshot import Certified
from consensus.state.record import decode_single, is_record_row
from consensus.state.snapshot import Chunk
from consensus.state.state import Row
from consensus.state.tree import ENTRY_BYTES
from node import register
from node.epochs import ended_of
from node.flushing import META_NUMBERS
from node.listed import index_entries
from node.storage.bulk import Beginning, Index, Rows
from node.storage.store import MAP_BYTES, Store
from node.storage.tables import KEY_BYTES_MAX

COMMIT_BYTES: Final = 48 * 2**20
"""Rows written in one transaction of the store."""
INDEX_ENTRIES_MAX: Final = 200_000
"""Entries of the index that wait to be sorted; in order they cost the store a third."""
_PROPOSALS: Final = encode_text(PROPOSAL)

_STEM_AT: Final = 15
_HEAD_BYTES: Final = {**dict.fromkeys(range(24), 1), 24: 2, 25: 3, 26: 5, 27: 9}
"""Bytes of an unsigned integer, by the first."""

Listed = list[tuple[bytes, bytes]]
"""Keys and values of the node's own index."""


def listed(paths: Paths, chunk: Chunk) -> Listed:
    """Return what the rows of a checked chunk add to the node's own index.

    Cost: about 1 µs a record.
    """
    found: Listed = []
    others: dict[bytes, Row] = {}
    for at, value in zip(range(0, len(chunk.entries), ENTRY_BYTES), chunk.values, strict=True):
        if value and is_record_row(value):
            key = _record_key(value)
            if len(key) <= KEY_BYTES_MAX:
                found.append((key, chunk.entries[at : at + 32]))
        elif value:
            others[chunk.entries[at : at + 32]] = Row(ZERO, 0, value)
    for key, kh in index_entries(others.items(), lambda kh: False, paths):
        if kh is None:
            continue
        found.append((key, kh))
        if key.startswith(_PROPOSALS):
            _, _, data = decode_single(others[kh].value)
            found += register.entries_of(Proposal(*codec.parse(data, PROPOSAL)))
    return found


def _record_key(row: bytes) -> bytes:
    """Return kind and id as they lie in a record's row, with the definition left out."""
    stem = row[_STEM_AT : _STEM_AT + int.from_bytes(row[1:3], "big")]
    kind_end = 1 + stem[0] - 0x60 if stem[0] < 0x78 else 2 + stem[1]
    return stem[:kind_end] + stem[kind_end + _HEAD_BYTES[stem[kind_end]] :]


class Filler:
    """Fills one blank store.

    Args:
        folder: where it is made; must not exist.
        chain: hash of the genesis file.
        map_bytes: first size of the store's map.
    """

    def __init__(self, folder: Path, chain: bytes, *, map_bytes: int = MAP_BYTES) -> None:
        self.store = Store.open(folder, chain=chain, map_bytes=map_bytes)
        invariant(self.store.height < 0, "a snapshot goes into a blank store")
        self._rows: list[tuple[bytes, bytes]] = []
        self._bytes = 0
        self._index: Listed = []
        self._last = b""
        self.entries = 0

    def put(self, chunk: Chunk, index: Listed) -> None:
        """Take a checked chunk, the next one in ascending order, and what it adds to the index.

        Raises:
            StorageFailedError: it cannot be written.

        Cost: about 2.5 µs a row.
        """
        entries = chunk.entries
        invariant(self._last < entries[:32], "the chunks of a snapshot ascend")
        for at, value in zip(range(0, len(entries), ENTRY_BYTES), chunk.values, strict=True):
            invariant(value is not None, "a whole snapshot leaves no row out")
            row = entries[at + 64 : at + 72] + entries[at + 32 : at + 64] + (value or b"")
            self._rows.append((entries[at : at + 32], row))
            self._bytes += 104 + len(row)
        self._last = entries[-ENTRY_BYTES : -ENTRY_BYTES + 32]
        self.entries += len(chunk.values)
        self._index += index
        if self._bytes >= COMMIT_BYTES:
            self._write()
        if len(self._index) >= INDEX_ENTRIES_MAX:
            self._write_index()

    def finish(self, certified: Certified, numbers: Sequence[int]) -> None:
        """Write what makes it a store at the snapshot's height.

        Args:
            numbers: per validator, the highest batch number delivered.
        """
        self._write()
        self._write_index()
        block, statement = certified.block, certified.statement
        self.store.write_bulk(
            Beginning(
                height=certified.height,
                block=codec.encode([wire.encode_block(block), statement.encode()]),
                certificate=wire.encode_commit_cert(certified.certificate),
                history=[(*place, node) for place, node in certified.statement_nodes()],
                meta=[
                    (META_NUMBERS, codec.encode(list(numbers))),
                    *[ended_of(each).meta() for each in certified.manifest.epochs],
                ],
            )
        )

    def close(self) -> None:
        """Release the store."""
        self.store.close()

    def _write(self) -> None:
        if self._rows:
            self.store.write_bulk(Rows(self._rows))
            self._rows, self._bytes = [], 0

    def _write_index(self) -> None:
        if self._index:
            self._index.sort()
            self.store.write_bulk(Index(self._index))
            self._index = []
