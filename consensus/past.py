"""What a client reads of the past: versions of a leaf with their proof, and heights by time.

These are the results of ``history`` and ``moment``. Shapes are checked here and nothing is
believed: ``comity.past`` computes every hash again. Specified in ``docs/protocol/client.cddl``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.reads import ROW, Row, row_from
from consensus.state.changes import PROOF_BYTES_MAX, STEPS_MAX

CLOSED: Final = 0
"""In place of a row: whoever asked may not read that version."""
FORGOTTEN: Final = 1
"""In place of a row: this node does not keep it any more."""

Told = Row | int | None
"""A version's row; CLOSED or FORGOTTEN; None where the key was deleted."""

_UNTOLD: Final = 2
_TOLD: Final = codec.one_of(
    (codec.array(codec.integer(_UNTOLD, _UNTOLD), codec.integer(CLOSED, FORGOTTEN)), ROW)
)
_HISTORY: Final = codec.array(
    codec.count,
    codec.count,
    codec.octets(low=1, high=PROOF_BYTES_MAX),
    codec.list_of(codec.optional(_TOLD), STEPS_MAX),
    codec.array(codec.count, codec.optional(codec.count)),
)
_MOMENT: Final = codec.optional(codec.count)


@dataclass(frozen=True, slots=True)
class History:
    """Versions of a leaf, proved under the statement of ``height``.

    Args:
        height: of the newest statement that the proof rests on.
        last: how far the history goes; at most as far as was asked.
        proof: encoded ``consensus.state.changes.HistoryProof`` from what was asked to ``last``.
        rows: of each version that the proof shows, ascending.
        horizon: rows replaced up to this height are not kept here.
        horizon_ms: its chain time, where that is known.
    """

    height: int
    last: int
    proof: bytes
    rows: tuple[Told, ...]
    horizon: int
    horizon_ms: int | None

    def to_value(self) -> Value:
        """Return the canonical array."""
        rows = [_value(row) for row in self.rows]
        horizon = [self.horizon, self.horizon_ms]
        return [self.height, self.last, self.proof, rows, horizon]


def _value(row: Told) -> Value:
    if isinstance(row, int):
        return [_UNTOLD, row]
    return None if row is None else row.to_value()


def read_history(result: Value) -> History:
    """Return the answer to ``history``. Raises DecodeError."""
    _HISTORY(result, "history")
    height, last, proof, rows, horizon = result
    told = tuple(row[1] if row and row[0] == _UNTOLD else row_from(row) for row in rows)
    return History(height, last, proof, told, *horizon)


def read_moment(result: Value) -> int | None:
    """Return the answer to ``moment``: a height, None before the first. Raises DecodeError."""
    _MOMENT(result, "moment")
    height: int | None = result
    return height
