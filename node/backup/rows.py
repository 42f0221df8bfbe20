"""The rows of the state in a store, hashed again part by part, and what is listed of them.

A part is what lies under one prefix of the key paths. Each row must be the one that its value hash
was made of, and stand in the node's own index where it is to be listed; the part's entries give the
hash of its node in the tree. The hashes of all parts lead to the state root.

If they do not, though every row is right by itself, a whole row is missing, too many, or says
another height: the change records tell which (``blame``). That takes long, and only then.

Not here: the heights (``heights``), and who puts the parts together (``verifying``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from consensus.errors import ProofError
from consensus.hashing import DIGEST_BYTES
from consensus.ledger.stored import check_row, check_rows
from consensus.state import changes as records
from consensus.state.snapshot import Chunk
from consensus.state.subtree import bounds, subtree_hash
from consensus.state.tree import ENTRY_BYTES
from node.backup.errors import DamagedRowError
from node.backup.heights import Stored, damage, require
from node.snapshots.filling import listed
from node.storage.tables import HEIGHT_BYTES, height_of

ROWS_MAX: Final = 4096
"""Rows checked together."""
_VH_END: Final = HEIGHT_BYTES + DIGEST_BYTES


class Part(NamedTuple):
    """What the rows under one prefix come to."""

    hash: bytes
    entries: int


def check(stored: Stored, name: int) -> Part:
    """Check the rows below a node of the tree, and return its hash.

    Raises:
        DamagedRowError: the first row that is wrong.

    Cost: about 8 µs a row.
    """
    entries: list[bytes] = []
    for chunk in _chunks(stored, name):
        _check(stored, chunk)
        entries.append(chunk.entries)
    joined = b"".join(entries)
    return Part(subtree_hash(stored.genesis.tree_depth, name, joined), len(joined) // ENTRY_BYTES)


def entries_hash(stored: Stored, name: int) -> tuple[Part, int]:
    """Return the hash of a node from the entries alone, and how many bytes its rows have.

    The rows' values are not looked at. Cost: about 3 µs a row.
    """
    entries: list[bytes] = []
    size = 0
    for chunk in _chunks(stored, name):
        entries.append(chunk.entries)
        size += len(chunk.entries) + sum([len(each or b"") for each in chunk.values])
    joined = b"".join(entries)
    count = len(joined) // ENTRY_BYTES
    return Part(subtree_hash(stored.genesis.tree_depth, name, joined), count), size


def _chunks(stored: Stored, name: int) -> Iterator[Chunk]:
    low, high = bounds(name)
    entries: list[bytes] = []
    values: list[bytes | None] = []
    with stored.txn.cursor(stored.opened.state) as cursor:
        if not cursor.set_range(low):
            return
        for kh, value in cursor:
            if high is not None and kh >= high:
                break
            whole = len(kh) == DIGEST_BYTES and len(value) >= _VH_END
            require(whole, "state", None, "the row is cut short", kh)
            entries.append(kh + value[HEIGHT_BYTES:_VH_END] + value[:HEIGHT_BYTES])
            values.append(value[_VH_END:])
            if len(values) >= ROWS_MAX:
                yield Chunk(name, b"".join(entries), values)
                entries, values = [], []
    if values:
        yield Chunk(name, b"".join(entries), values)


def _check(stored: Stored, chunk: Chunk) -> None:
    chain = stored.chain.chain
    try:
        check_rows(chain, stored.paths, chunk.entries, chunk.values, stored.time_ms)
    except ProofError as error:
        for kh, vh, height, row in _rows(chunk):
            with damage("state", height, kh):
                check_row(chain, stored.paths, kh, vh, row, stored.time_ms)
        raise DamagedRowError("state", b"", None, error.message) from error
    newest = stored.view.height
    for kh, _, height, _ in _rows(chunk):
        require(height <= newest, "state", height, f"it is above the newest height {newest}", kh)
    with damage("state"):
        expected = listed(stored.paths, chunk)
    for key, value in expected:
        found = stored.txn.get(key, db=stored.opened.index)
        require(found == value, "index", None, "a row of the state is not listed here", key)


def _rows(chunk: Chunk) -> Iterator[tuple[bytes, bytes, int, bytes]]:
    for at, row in zip(range(0, len(chunk.entries), ENTRY_BYTES), chunk.values, strict=True):
        entry = chunk.entries[at : at + ENTRY_BYTES]
        vh = entry[DIGEST_BYTES : 2 * DIGEST_BYTES]
        yield entry[:DIGEST_BYTES], vh, height_of(entry[2 * DIGEST_BYTES :]), row or b""


def blame(stored: Stored, names: Sequence[int]) -> DamagedRowError:
    """Return why right rows do not lead to the certified state root: the first that is at fault.

    Cost: one look-up for every row, and for every change record that is kept.
    """
    view = stored.view
    for name in names:
        for chunk in _chunks(stored, name):
            for kh, vh, height, _ in _rows(chunk):
                told = view.changes(height) if height > stored.first or height == 0 else None
                if told is None:
                    continue
                index = records.find(told, kh)
                if index is None or records.read(told, index).vh != vh:
                    what = f"height {height} did not change it to this"
                    return DamagedRowError("state", kh, height, what)
    for height in range(view.height, stored.first - 1, -1):
        for record in records.split(view.changes(height) or b""):
            kh = record[:DIGEST_BYTES]
            row = view.get(kh)
            if row is None or row.changed_height < height:
                return DamagedRowError("state", kh, height, "the row that it wrote is missing")
    return DamagedRowError("state", b"", None, "the rows do not lead to the certified state root")
