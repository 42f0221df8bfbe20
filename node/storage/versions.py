"""Past versions of rows: what each height replaced, and where a search for a version begins.

    replaced    height 8            end 4 … ‖ rows …        one for each change of that height
    milestones  kh 32 ‖ height 8    empty

A row that a height replaced is kept as ``state`` had it, empty where there was none; ends count
from the first row, in the order of ``changes``. So one value a height, put in order, holds every
version once: the newest lies in ``state``. A version is found by walking back along the heights of
previous changes, from the newest or from the first milestone above. A change is a milestone when
its value hash begins with a zero byte, one in 256, which nobody can choose: salts are in the hash.

Change records are hashes and stay, so that a version which was laid long ago and in force lately
can still be proved. The rows go when they are older than the node is to keep them (``forget``); the
*horizon* is the lowest height whose rows can all be told.

Not here: what a version proves (``consensus.state.changes``), and who asks (``node.past``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

from consensus.errors import invariant
from consensus.hashing import DIGEST_BYTES
from consensus.state.changes import CHANGE_BYTES, Change, find, read
from consensus.state.state import Row
from consensus.state.tree import NEVER
from node.storage import tables
from node.storage.tables import BLANK, Tables, height_key, height_of

if TYPE_CHECKING:
    import lmdb

    from node.storage.flush import BlockData, FlushBatch

KEYS_TOGETHER_MAX: Final = 256
"""Rows read in one call of LMDB, which holds the interpreter meanwhile."""
_END_BYTES: Final = 4
_MILESTONE: Final = 0
"""First byte of a milestone's value hash."""


def stored(row: Row) -> bytes:
    """Return a row as the table ``state`` has it."""
    return height_key(row.changed_height) + row.vh + row.value


def row_of(value: bytes) -> Row:
    """Return the row in a value of the table ``state``."""
    return Row(value[8:40], height_of(value), value[40:])


def horizon(txn: lmdb.Transaction[bytes], opened: Tables, batch: FlushBatch) -> int:
    """Return from which height on the rows of every height can be told; note it if it is new.

    A store that jumps (to a snapshot), or was made by software that kept no versions, has none of
    those below.
    """
    value = txn.get(tables.META_HEIGHT, db=opened.meta)
    before = BLANK if value is None else height_of(value)
    known = txn.get(tables.META_HORIZON, db=opened.meta)
    joined = not batch.blocks or batch.blocks[0].height == before + 1
    if joined and (batch.blocks or batch.height == before):
        if known is not None:
            return height_of(known)
        found = max(before, 0)
    else:
        found = batch.height
    txn.put(tables.META_HORIZON, height_key(found), db=opened.meta)
    return found


def put(
    txn: lmdb.Transaction[bytes], opened: Tables, blocks: Sequence[BlockData]
) -> dict[bytes, bytes]:
    """Put what ``blocks`` replaced; return the newest row that they wrote of each key, as stored.

    Must come before the rows themselves are put.

    Cost: about 2.5 µs a row; 5 µs where its row before is not in memory.
    """
    for block in blocks:
        matching = len(block.changes) == CHANGE_BYTES * len(block.rows) or not block.rows
        invariant(matching, "a height has as many rows as changes")
    old = _stored_rows(txn, opened, _unknown(blocks))
    written: dict[bytes, bytes] = {}
    milestones: list[tuple[bytes, bytes]] = []
    for block in blocks:
        before = [
            written.get(kh)
            or old.get(kh)
            or (b"" if at == NEVER or known is None else stored(known))
            for kh, at, known in (_replaced(block) if block.rows else ())
        ]
        written.update({kh: stored(row) for kh, row in block.rows.items()})
        key = height_key(block.height)
        ends = b"".join([end.to_bytes(_END_BYTES, "big") for end in accumulate(map(len, before))])
        txn.put(key, b"".join([ends, *before]), append=True, db=opened.replaced)
        milestones += [(kh + key, b"") for kh, row in block.rows.items() if row.vh[0] == _MILESTONE]
    if milestones:
        with txn.cursor(opened.milestones) as cursor:
            cursor.putmulti(sorted(milestones))
    return written


def _replaced(block: BlockData) -> Iterator[tuple[bytes, bytes, Row | None]]:
    """Yield each key that a block wrote, when it had changed before, and its row then if known."""
    changes = block.changes
    ends = range(CHANGE_BYTES, len(changes) + 1, CHANGE_BYTES)
    known = block.before or [None] * len(block.rows)
    for kh, end, row in zip(block.rows, ends, known, strict=True):
        yield kh, changes[end - tables.HEIGHT_BYTES : end], row


def _unknown(blocks: Sequence[BlockData]) -> list[bytes]:
    """Return the keys, ascending, whose rows below ``blocks`` only the store knows."""
    seen: set[bytes] = set()
    found: list[bytes] = []
    for block in blocks:
        if block.rows:
            for kh, at, row in _replaced(block):
                if kh not in seen:
                    seen.add(kh)
                    if at != NEVER and (row is None or height_key(row.changed_height) != at):
                        found.append(kh)
    return sorted(found)


def _stored_rows(
    txn: lmdb.Transaction[bytes], opened: Tables, keys: Sequence[bytes]
) -> dict[bytes, bytes]:
    rows: dict[bytes, bytes] = {}
    with txn.cursor(opened.state) as cursor:
        for first in range(0, len(keys), KEYS_TOGETHER_MAX):
            rows.update(cursor.getmulti(keys[first : first + KEYS_TOGETHER_MAX]))
    return rows


def forget(txn: lmdb.Transaction[bytes], opened: Tables, horizon: int, upto: int) -> None:
    """Forget the rows that heights above ``horizon`` and up to ``upto`` replaced."""
    if upto <= horizon:
        return
    with txn.cursor(opened.replaced) as cursor:
        found = cursor.first()
        while found and height_of(cursor.key()) <= upto:
            found = cursor.delete()
    txn.put(tables.META_HORIZON, height_key(upto), db=opened.meta)


class PastView:
    """One LMDB snapshot, read by one thread other than the main one.

    Attributes:
        height: of the store at this snapshot.
        horizon: the lowest height whose rows can all be told.
    """

    __slots__ = ("_opened", "_txn", "height", "horizon")

    def __init__(self, txn: lmdb.Transaction[memoryview], opened: Tables) -> None:
        self._txn = txn
        self._opened = opened
        value = txn.get(tables.META_HEIGHT, db=opened.meta)
        self.height = BLANK if value is None else height_of(bytes(value))
        known = txn.get(tables.META_HORIZON, db=opened.meta)
        self.horizon = max(self.height, 0) if known is None else height_of(bytes(known))

    def row(self, kh: bytes) -> Row | None:
        """Return a key's newest row. Cost: 3 µs."""
        value = self._txn.get(kh, db=self._opened.state)
        return None if value is None else row_of(bytes(value))

    def keys(self, low: bytes, high: bytes | None) -> Iterator[bytes]:
        """Yield the keys that have a row, deleted ones too, ascending: ``low <= kh < high``."""
        with self._txn.cursor(self._opened.state) as cursor:
            found = cursor.set_range(low) if low else cursor.first()
            while found:
                kh = bytes(cursor.key())
                if high is not None and kh >= high:
                    return
                yield kh
                found = cursor.next()

    def block(self, height: int) -> bytes | None:
        """Return the block of a height with its statement."""
        value = self._txn.get(height_key(height), db=self._opened.blocks)
        return None if value is None else bytes(value)

    def changes(self, height: int) -> bytes | None:
        """Return the change records of a height, None where they are not kept."""
        value = self._txn.get(height_key(height), db=self._opened.changes)
        return None if value is None else bytes(value)

    def first_changes(self, height: int) -> int:
        """Return the first height above ``height`` whose change records are kept."""
        with self._txn.cursor(self._opened.changes) as cursor:
            found = cursor.set_range(height_key(height + 1))
            return height_of(bytes(cursor.key())) if found else self.height + 1

    def change(self, height: int, kh: bytes) -> Change | None:
        """Return the change of a key at a height that changed it; None where it is not kept."""
        value = self._txn.get(height_key(height), db=self._opened.changes)
        if value is None:
            return None
        index = find(value, kh)
        invariant(index is not None, "a key that changed is among the changes of that height")
        return read(value, index or 0)

    def replaced(self, height: int, kh: bytes) -> Row | None:
        """Return the row of a key that the height changed, as it was before.

        Cost: 10 µs.
        """
        changes = self._txn.get(height_key(height), db=self._opened.changes)
        rows = self._txn.get(height_key(height), db=self._opened.replaced)
        invariant(changes is not None and rows is not None, "a height above the horizon is kept")
        if changes is None or rows is None:
            return None
        index = find(changes, kh)
        invariant(index is not None, "a key that changed is among the changes of that height")
        base = len(changes) // CHANGE_BYTES * _END_BYTES
        at = (index or 0) * _END_BYTES
        first = int.from_bytes(rows[at - _END_BYTES : at], "big") if at else 0
        last = int.from_bytes(rows[at : at + _END_BYTES], "big")
        value = bytes(rows[base + first : base + last])
        return row_of(value) if value else None

    def milestone(self, kh: bytes, height: int) -> int | None:
        """Return the first milestone of a key above ``height``."""
        with self._txn.cursor(self._opened.milestones) as cursor:
            if not cursor.set_range(kh + height_key(height + 1)):
                return None
            key = bytes(cursor.key())
        return height_of(key[DIGEST_BYTES:]) if key.startswith(kh) else None

    def close(self) -> None:
        """End the snapshot."""
        self._txn.abort()
