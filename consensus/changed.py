"""Heights of a subscription to changes: all that a height decided, all that it changed.

    part   [4, height, decisions | null, changes | null, [shown, ...], more]
    shown  [at, place, row]                          of a change whose row the reader may read

The first part of a height has its decisions, as in a stream of decisions, and the change records of
all keys that it changed, joined: their tree's root is in the statement, so none is missing. What
the reader may not read stays a record of hashes. Rows come in the order of the change records, in
as many parts as they take; the last one says that there are no more.

Shapes are checked here and nothing is believed: ``comity.changes`` computes every hash again.
Specified in ``docs/protocol/client.cddl``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from consensus import codec
from consensus.answers import DECISION_BYTES_MAX
from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.frames import ANSWER_BYTES_MAX
from consensus.kinds import Event
from consensus.place import STATE_KEY, StateKey, key_from
from consensus.reads import ROW, Row, row_from
from consensus.state.changes import CHANGE_BYTES

DECISIONS_MAX: Final = 65_536
ROWS_MAX: Final = 65_536
"""Rows of one part."""

_SHOWN: Final = codec.array(codec.count, STATE_KEY, codec.optional(ROW))
_PART: Final = codec.array(
    codec.integer(Event.CHANGES, Event.CHANGES),
    codec.count,
    codec.optional(
        codec.list_of(codec.octets(low=1, high=DECISION_BYTES_MAX), DECISIONS_MAX),
    ),
    codec.optional(codec.octets(high=ANSWER_BYTES_MAX)),
    codec.list_of(_SHOWN, ROWS_MAX),
    codec.boolean,
)


class Shown(NamedTuple):
    """The row that a change made of a place, None: it is gone; ``at``: of which change record."""

    at: int
    place: StateKey
    row: Row | None

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [
            self.at,
            self.place.to_value(),
            None if self.row is None else self.row.to_value(),
        ]


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a height; ``decisions`` and ``changes`` are there in the first one alone."""

    height: int
    decisions: tuple[bytes, ...] | None
    changes: bytes | None
    rows: tuple[Shown, ...]
    more: bool

    def to_value(self) -> Value:
        """Return the canonical array of the event."""
        decisions = None if self.decisions is None else [*self.decisions]
        rows = [row.to_value() for row in self.rows]
        return [int(Event.CHANGES), self.height, decisions, self.changes, rows, self.more]


def read_part(result: Value) -> Part:
    """Return one part of a height. Raises DecodeError."""
    _PART(result, "changes event")
    _, height, decisions, changes, rows, more = result
    if (decisions is None) is not (changes is None):
        raise DecodeError("decisions and changes come together", path="changes event")
    if changes is not None and len(changes) % CHANGE_BYTES:
        raise DecodeError("no whole number of change records", path="changes event")
    return Part(
        height,
        None if decisions is None else tuple(decisions),
        changes,
        tuple(Shown(index, key_from(place), row_from(row)) for index, place, row in rows),
        more,
    )
