"""Change records: which keys a height changed, and when each had changed before.

    record   kh 32 ‖ new vh 32 ‖ previous change height, signed 8 (-1: the key is new)

Not here: proofs of a key's history (``past``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from consensus.hashing import DIGEST_BYTES, bulk

CHANGE_BYTES: Final = 2 * DIGEST_BYTES + 8


class Change(NamedTuple):
    """One change record. ``previous`` is the key's previous change height, -1 for a new key."""

    kh: bytes
    vh: bytes
    previous: int


leaf_hashes = bulk("change")
"""The leaves of ``changes_root``, of change records."""


def split(changes: bytes) -> list[bytes]:
    """Return the records of a height that lie one after the other."""
    return [changes[at : at + CHANGE_BYTES] for at in range(0, len(changes), CHANGE_BYTES)]


def read(changes: bytes | memoryview, index: int = 0) -> Change:
    """Return the record at a position among those of a height."""
    record = bytes(changes[index * CHANGE_BYTES : (index + 1) * CHANGE_BYTES])
    previous = int.from_bytes(record[2 * DIGEST_BYTES :], "big", signed=True)
    return Change(record[:DIGEST_BYTES], record[DIGEST_BYTES : 2 * DIGEST_BYTES], previous)


def find(changes: bytes | memoryview, kh: bytes) -> int | None:
    """Return the position of a key's record among those of a height, None if there is none."""
    low, high = 0, len(changes) // CHANGE_BYTES
    while low < high:
        middle = (low + high) // 2
        found = bytes(changes[middle * CHANGE_BYTES : middle * CHANGE_BYTES + DIGEST_BYTES])
        if found == kh:
            return middle
        if found < kh:
            low = middle + 1
        else:
            high = middle
    return None
