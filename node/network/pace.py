"""How fast some links may send together: those that must not take the line from others.

Not here: what waits meanwhile (``outbound``).
"""

from __future__ import annotations

import trio

from node.api.limits import ByteBudget


class Pace:
    """A bound of bytes a second, shared by all links that have it.

    Args:
        bytes_per_second: at least 1; as much may be sent at once after a rest.
    """

    def __init__(self, bytes_per_second: int) -> None:
        self._budget = ByteBudget(bytes_per_second, bytes_per_second)

    async def spend(self, count: int) -> None:
        """Return when bytes that were just sent are paid for."""
        pause_seconds = self._budget.spend(None, count, trio.current_time())
        if pause_seconds > 0:
            await trio.sleep(pause_seconds)
