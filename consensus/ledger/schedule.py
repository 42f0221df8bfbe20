"""Values of parameters over time, as an action sees them.

Not here: parameters as a rule set declares them (``rules.values``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

from consensus.codec import Value


@dataclass(frozen=True, slots=True)
class ParamValues:
    """The parameters of one action at one time."""

    values: Mapping[str, Value]
    digest: bytes
    """Hash of the values, as an author's inputs name it."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Values of an action's parameters over time: ``intervals[i]`` holds from ``starts[i]``."""

    starts: tuple[int, ...]
    """Ascending milliseconds; the first is the beginning of time."""
    intervals: tuple[ParamValues, ...]

    def at(self, now_ms: int) -> ParamValues:
        """Return what is in force at ``now_ms``. Cost: O(log intervals)."""
        return self.intervals[max(bisect_right(self.starts, now_ms), 1) - 1]
