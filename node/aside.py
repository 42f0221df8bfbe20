"""What transactions overwrote, kept aside while they may be taken back.

The state has no old values. Whoever takes an act back shows the leaves that it overwrote; nodes
keep them for as long as its action says, and remove them some at a time afterwards. The table is
local: nothing of it is certified, and whoever gets a leaf compares its hash with the decision.

    o ‖ txid                   [until_ms, [[leaf hash, version, salt, value], ...]]
    e ‖ until_ms (8) ‖ txid    empty: what may be removed after that moment of chain time

Not here: who may read them (``node.api``), and what they prove (``consensus.ledger.evidence``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from consensus import codec
from consensus.ledger.evidence import Overwritten
from consensus.ledger.executor import Aside
from consensus.ledger.terms import DAY_MS

REMOVED_MAX: Final = 1024
"""Transactions whose leaves one flush removes."""

Change = tuple[bytes, bytes | None]
"""A key of the table, with its value or None to remove it."""

_LEAVES: Final = b"o"
_ENDS: Final = b"e"
_TIME_BYTES: Final = 8


def key(txid: bytes) -> bytes:
    """Return where the leaves that a transaction overwrote lie."""
    return _LEAVES + txid


def entries(found: Sequence[Aside], time_ms: int) -> list[Change]:
    """Return what a block of ``time_ms`` adds to the table."""
    out: list[Change] = []
    for each in found:
        if each.leaves:
            until_ms = time_ms + each.days * DAY_MS
            rows = [
                [leaf.leaf_hash, leaf.version, leaf.salt, leaf.value_cbor] for leaf in each.leaves
            ]
            out.append((key(each.txid), codec.encode([until_ms, rows])))
            out.append((_ENDS + until_ms.to_bytes(_TIME_BYTES, "big") + each.txid, b""))
    return out


def read(value: bytes) -> Mapping[bytes, Overwritten]:
    """Return the leaves in a value of our own table, by their hash."""
    return {row[0]: Overwritten(*row[1:]) for row in codec.parse(value, "aside")[1]}


def ended(keys: Callable[[bytes, bytes, int], Sequence[bytes]], time_ms: int) -> list[Change]:
    """Return the removal of what nobody may need any more at chain time ``time_ms``.

    Args:
        keys: returns up to so many keys of the table, ``low <= key < high``, ascending.
    """
    out: list[Change] = []
    high = _ENDS + time_ms.to_bytes(_TIME_BYTES, "big")
    for end in keys(_ENDS, high, REMOVED_MAX):
        out += [(end, None), (key(end[len(high) :]), None)]
    return out
