"""What one height changed: its change records, and the rows that it made, where the place is known.

A record's row names its place, an account's value begins with its id; what else was written is
named by the decisions of the height. Key paths say whether it is right.

Not here: who may see it (``node.api``), and where the past lies (``past``).
"""

from __future__ import annotations

from collections.abc import Mapping

from consensus import codec
from consensus.hashing import DIGEST_BYTES, ZERO
from consensus.ledger.layout import Paths
from consensus.protocol import StateKey
from consensus.state.changes import CHANGE_BYTES
from consensus.state.record import decode_single, is_record_row, is_single_row, place_of_row
from node.api.backend import Changed, ChangedRows
from node.past import Past

_ACCOUNT_ITEMS = (4, 5)


def find(past: Past, height: int, places: Mapping[bytes, StateKey], paths: Paths) -> ChangedRows:
    """Return the changes of a certified height.

    Args:
        places: of key paths, as the decisions of the height name them.

    Raises:
        Pruned: not all rows of that height are kept.

    Cost: about 10 µs a change of a height in memory; else as ``Past.rows_at``. For worker threads.
    """
    rows: list[Changed] = []
    with past.moment() as moment:
        moment.check(height)
        changes = moment.change_records(height)
        for index in range(len(changes) // CHANGE_BYTES):
            kh = changes[index * CHANGE_BYTES : index * CHANGE_BYTES + DIGEST_BYTES]
            row = moment.written(height, kh)
            raw = None if row is None or row.vh == ZERO else row.value
            place = places.get(kh) or (None if raw is None else _place(raw, kh, paths))
            if place is not None:
                rows.append(Changed(index, place, raw))
    return ChangedRows(changes, rows)


def _place(raw: bytes, kh: bytes, paths: Paths) -> StateKey | None:
    if is_record_row(raw):
        _, encoded = place_of_row(raw)
        kind, id_ = codec.parse(b"\x82" + encoded, "place")
        return StateKey("record", (kind, *id_))
    if not is_single_row(raw):
        return None
    value = codec.parse(decode_single(raw)[2], "leaf")
    if type(value) is not list or len(value) not in _ACCOUNT_ITEMS or type(value[0]) is not list:
        return None
    return StateKey("account", tuple(value[0])) if paths("account", value[0]) == kh else None
