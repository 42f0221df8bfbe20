"""Requests for the past: versions of a leaf, and the height of a time.

Not here: what comes back (``past``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.place import STATE_KEY, StateKey, key_from

VERSIONS_MAX: Final = 64
"""Most versions in one answer of ``history``."""
HISTORY: Final = codec.array(
    codec.count,
    STATE_KEY,
    codec.count,
    codec.optional(codec.count),
    codec.integer(1, VERSIONS_MAX),
)
MOMENT: Final = codec.array(codec.count)


@dataclass(frozen=True, slots=True)
class GetHistory:
    """The versions of a leaf after the blocks of ``first`` to ``last`` (None: the newest).

    Complete up to the ``last`` of the answer, which is lower where there are more than ``limit``
    versions. Proved at a height of at least ``height_min``.
    """

    height_min: int
    key: StateKey
    first: int
    last: int | None
    limit: int

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.height_min, self.key.to_value(), self.first, self.last, self.limit]


@dataclass(frozen=True, slots=True)
class GetMoment:
    """The greatest height whose time is not after ``time_ms``."""

    time_ms: int


def history_from(params: Value) -> GetHistory:
    """Return the request in params of the shape HISTORY.

    Raises:
        DecodeError: the heights are in the wrong order.
    """
    height_min, key, first, last, limit = params
    if last is not None and last < first:
        raise DecodeError("the last height is below the first", path="history")
    return GetHistory(height_min, key_from(key), first, last, limit)
