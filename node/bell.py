"""How a task waits for work that others put somewhere for it."""

from __future__ import annotations

import trio


class Bell:
    """Wakes the one task that waits for it; rung before, the next wait returns at once."""

    __slots__ = ("_rung", "_waiting")

    def __init__(self) -> None:
        self._rung = False
        self._waiting: trio.Event | None = None

    def ring(self) -> None:
        """Wake the waiting task, now or when it next waits."""
        if not self._rung:
            self._rung = True
            if self._waiting is not None:
                self._waiting.set()

    async def heard(self) -> None:
        """Wait until it was rung since the last time. No checkpoint if it was already."""
        if not self._rung:
            self._waiting = trio.Event()
            try:
                await self._waiting.wait()
            finally:
                self._waiting = None
        self._rung = False
