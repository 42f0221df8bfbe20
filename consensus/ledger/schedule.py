"""Values of parameters over time, as an action sees them: by the block's time, or by its period.

Not here: parameters as a rule set declares them (``rules.values``).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from consensus import codec
from consensus.codec import Value
from consensus.hashing import context

_H_PARAMS: Final = context("rule param values")


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

    def start_of(self, at_ms: int) -> int:
        """Return from when on what is in force at ``at_ms`` has been so."""
        return self.starts[max(bisect_right(self.starts, at_ms), 1) - 1]


def param_values(values: Mapping[str, Value]) -> ParamValues:
    """Return values with their digest. Source: docs/formats/rules.md, "Parameter values"."""
    ordered = {name: values[name] for name in sorted(values)}
    pairs = [[name, value] for name, value in ordered.items()]
    return ParamValues(ordered, _H_PARAMS(codec.encode(pairs)))


@dataclass(frozen=True, slots=True)
class Periods:
    """The parameters of an action that the period of the act selects, not the block's time."""

    path: tuple[str, ...]
    """Where the period stands: an input, or a field of a loaded record; never absent."""
    start_ms: Callable[[Mapping[str, Any]], int]
    """Gives the first millisecond (UTC) of the period in an environment with all loads."""
    schedule: Schedule
    """Of these parameters alone."""

    def with_those_of(self, now: ParamValues, start_ms: int) -> ParamValues:
        """Return the action's parameters: ``now`` and those of the period from ``start_ms``."""
        return param_values({**now.values, **self.schedule.at(start_ms).values})
