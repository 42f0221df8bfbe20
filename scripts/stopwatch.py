"""How long a piece of work takes at best, for the benchmarks of evidence."""

from __future__ import annotations

import time
from collections.abc import Callable


def best_us(work: Callable[[], object], repetitions: int) -> float:
    """Return the least processor time of one of so many repetitions, in microseconds."""
    times = []
    for _ in range(repetitions):
        start = time.process_time_ns()
        work()
        times.append(time.process_time_ns() - start)
    return round(min(times) / 1000, 1)
