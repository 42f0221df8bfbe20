"""Virtual time: one queue of actions, one source of chance, one trace.

Two runs of a seed make the same trace, line for line, in any process.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable

from tests.sim.errors import require

START_MS = 1_767_312_000_000
"""2026-01-02T00:00:00Z; chain time begins a second earlier."""

AT_ONCE_MAX = 20_000
"""Actions at one millisecond; the busiest seeds have some hundreds."""


class Clock:
    """The scheduler of a run.

    Args:
        seed: of every chance in the run, apart from the options.
        echo: is given each line of the trace.
    """

    def __init__(self, seed: int, echo: Callable[[str], None] | None = None) -> None:
        self.random = random.Random(f"run {seed}")
        self.now_ms = START_MS
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._at_once = 0
        self._digest = hashlib.blake2b(digest_size=16)
        self._echo = echo

    def at(self, when_ms: int, action: Callable[[], None]) -> None:
        """Do ``action`` at a time, after what was planned for that time before."""
        self._sequence += 1
        heapq.heappush(self._queue, (max(when_ms, self.now_ms), self._sequence, action))

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do ``action`` in ``delay_ms``."""
        self.at(self.now_ms + delay_ms, action)

    def run_until(self, end_ms: int, done: Callable[[], bool] = lambda: False) -> None:
        """Act until the time comes or ``done``, which is asked after every action.

        Raises:
            Violation: so much happens at one moment that time stands still.
        """
        while not done():
            if not self._queue or self._queue[0][0] > end_ms:
                self.now_ms = end_ms
                return
            when_ms, _, action = heapq.heappop(self._queue)
            self._at_once = self._at_once + 1 if when_ms == self.now_ms else 0
            require(self._at_once <= AT_ONCE_MAX, "time goes on", f"stuck at {when_ms}")
            self.now_ms = when_ms
            action()

    def chance(self, probability: float) -> bool:
        """Whether something happens that is as likely as that."""
        return probability > 0 and self.random.random() < probability

    def trace(self, line: str) -> None:
        """Add a line to the trace."""
        self._digest.update(b"%d %s\n" % (self.now_ms - START_MS, line.encode()))
        if self._echo is not None:
            self._echo(f"{(self.now_ms - START_MS) / 1000:9.3f} {line}")

    def digest(self) -> str:
        """Return the hash of the trace so far."""
        return self._digest.copy().hexdigest()
