"""Every death of the recorded run, one after the other or over several processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.crashes.deaths import CrashRun, Death, Point, fates
from tests.sim.errors import Violation

AGAIN_EVERY: Final = 15
"""At every so many-th moment the victim also dies during its next start."""
AGAIN_MAX: Final = 16
"""At one of so many first moments of that; a start has fewer calls to the disk than this."""


@dataclass(frozen=True)
class Outcome:
    """What came of a death. ``violation``: empty, or the promise broken and a sentence on it."""

    death: Death
    died: int = 0
    violation: str = ""


@cache
def points() -> tuple[Point, ...]:
    """Return the moments of the run without a death."""
    return tuple(CrashRun().play().points)


def deaths() -> list[Death]:
    """Return all deaths, in the order of the run."""
    found: list[Death] = []
    for point in points():
        found += fates(point)
        if point.number % AGAIN_EVERY == 0:
            for again in range(1, AGAIN_MAX + 1):
                fate = ("kill", "lost", "kept", "first", "second")[again % 5]
                found.append(Death(point.number, fate, again % 2 == 0, again))
    return found


def outcome(death: Death) -> Outcome:
    """Have somebody die and return what came of it."""
    try:
        run = CrashRun(death).play()
    except Violation as found:
        return Outcome(death, violation=str(found))
    return Outcome(death, run.fired)


def outcomes(chosen: Sequence[Death], jobs: int) -> Iterator[Outcome]:
    """Return what comes of deaths, in order, over so many processes."""
    if jobs <= 1:
        yield from map(outcome, chosen)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(outcome, chosen, chunksize=16)
        finally:
            pool.shutdown(cancel_futures=True)
