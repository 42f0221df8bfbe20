"""A clock that never runs backwards, for retries and waits, made of one that may be set.

When the machine's clock is set back, this one goes on from where it was; set forward, it follows.
The replica does the same for itself, since it needs the clock as it is for block times.
"""

from __future__ import annotations

from collections.abc import Callable


class SteadyClock:
    """Call it for the time, milliseconds.

    Args:
        now_ms: the clock that may be set, milliseconds since 1970.
    """

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._set_back_ms = 0
        self._last_ms = 0

    def __call__(self) -> int:
        """Return the time."""
        now_ms = self._now_ms() + self._set_back_ms
        if now_ms < self._last_ms:
            self._set_back_ms += self._last_ms - now_ms
        self._last_ms = max(now_ms, self._last_ms)
        return self._last_ms
