"""The store's tables: names, keys and values. All integers are big-endian.

    state      kh 32                    changed_height 8 ‖ vh 32 ‖ value
    blocks     height 8                 block with its statement, as the node encodes it
    batches    digest 32                height 8 ‖ public part
    private    digest 32                private parts, where this node has them
    batch_at   height 8 ‖ number 4      digest, in payload order
    decisions  height 8                 all decisions of the block
    certs      height 8                 commit certificate on this height
    txs        txid 32                  (height 8 ‖ index 4)…   at most POSITIONS_MAX
    changes    height 8                 the block's change records
    replaced   height 8                 the rows that the block replaced: see ``versions``
    milestones kh 32 ‖ height 8         empty: see ``versions``
    history    level 1 ‖ index 8        hash 32
    index      kind ‖ id                kh 32; node-local, for lists
               1, 2 or 3 ‖ ...       of proposals: see ``node.register``
    aside      any                      node-local: overwritten openings
    meta       name                     names that begin with "_" are the store's own

Not here: transactions and threads (``store``), what one flush writes (``flush``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from node.errors import DamagedStoreError, ForeignDataError, NewerFormatError

if TYPE_CHECKING:
    import lmdb

FORMAT_VERSION: Final = 1
POSITIONS_MAX: Final = 16
"""Positions kept for one txid: the first one and the newest others."""
KEY_BYTES_MAX: Final = 511
"""LMDB's own limit for keys of ``index`` and ``aside``."""
HEIGHT_BYTES: Final = 8
INDEX_BYTES: Final = 4
POSITION_BYTES: Final = HEIGHT_BYTES + INDEX_BYTES
BLANK: Final = -1
"""Height of a store that holds nothing yet."""

META_FORMAT: Final = b"_format"
META_CHAIN: Final = b"_chain"
META_HEIGHT: Final = b"_height"
META_HORIZON: Final = b"_horizon"

Table = Any
"""An open LMDB sub-database."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The open sub-databases."""

    state: Table
    blocks: Table
    batches: Table
    private: Table
    batch_at: Table
    decisions: Table
    certs: Table
    txs: Table
    changes: Table
    replaced: Table
    milestones: Table
    history: Table
    index: Table
    aside: Table
    meta: Table


TABLES_MAX: Final = 24


def open_tables(environment: lmdb.Environment, *, create: bool = True) -> Tables:
    """Open every table, creating the missing ones (in LMDB's own write transaction)."""
    names = Tables.__dataclass_fields__
    return Tables(**{name: environment.open_db(name.encode(), create=create) for name in names})


def check_stamp(version: bytes | None, found: bytes | None, chain: bytes | None) -> None:
    """Check what a store says of itself.

    Args:
        version, found: format and chain, as under ``META_FORMAT`` and ``META_CHAIN``.
        chain: whose store it must be; None: anybody's.

    Raises:
        StorageError: it says nothing of itself, is of a newer format, or of another network.
    """
    if version is None or found is None:
        raise DamagedStoreError("the store does not say its format and network")
    number = int.from_bytes(version, "big")
    if number > FORMAT_VERSION:
        raise NewerFormatError(
            f"the store has format {number}, this software knows {FORMAT_VERSION}"
        )
    if chain is not None and found != chain:
        raise ForeignDataError(f"the store belongs to another network, 0x{found.hex()}")


def height_key(height: int) -> bytes:
    """Return the key of a height."""
    return height.to_bytes(HEIGHT_BYTES, "big")


def height_of(key: bytes) -> int:
    """Return the height in the first 8 bytes of a key or value."""
    return int.from_bytes(key[:HEIGHT_BYTES], "big")


def history_key(level: int, index: int) -> bytes:
    """Return the key of a node of the history tree."""
    return level.to_bytes(1, "big") + index.to_bytes(8, "big")


def batch_at_key(height: int, number: int) -> bytes:
    """Return the key of the ``number``-th batch of a height."""
    return height_key(height) + number.to_bytes(INDEX_BYTES, "big")


def position(height: int, index: int) -> bytes:
    """Return the value of one position of a transaction."""
    return height_key(height) + index.to_bytes(INDEX_BYTES, "big")


def positions_of(value: bytes) -> tuple[tuple[int, int], ...]:
    """Return the ``(height, index)`` in a value of ``txs``, ascending."""
    return tuple(
        (height_of(value[at:]), int.from_bytes(value[at + HEIGHT_BYTES : at + POSITION_BYTES]))
        for at in range(0, len(value), POSITION_BYTES)
    )
