"""Numbers for the transactions of one key, kept within the ledger's window.

The ledger accepts each number of a key once, in any order, within 1,024 of the highest it has seen.
So a number is given out only while it is less than a window above the lowest one in flight; beyond,
the caller waits. Two programs that use one key at the same time may take the same number: the
second transaction is refused as SEQUENCE_SPENT, and the network is asked before the next number is
given out. Give each program a key of its own.

What goes round for signatures is sent later, perhaps by another program. It gets a number ahead of
those that come next, at random, so that the author can act meanwhile.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Final

import trio

from consensus.ledger.sequence import WINDOW_BITS

IN_FLIGHT_SPAN_MAX: Final = WINDOW_BITS - 1
"""Largest distance between two numbers in flight."""
ASIDE_MIN: Final = 32
"""Numbers between the next one and those that are set aside."""
ASIDE_SPAN: Final = 256
"""Numbers among which one is chosen to be set aside; small beside the ledger's window."""


class Sequencer:
    """Gives out numbers of one key.

    Args:
        highest: asks the network for the highest number it has seen of the key.
    """

    def __init__(self, highest: Callable[[], Awaitable[int]]) -> None:
        self._highest = highest
        self._next = 1
        self._asked = False
        self._in_flight: dict[int, None] = {}  # ascending: numbers are given out in order
        self._aside: dict[int, None] = {}
        self._freed = trio.Event()
        self._starting = trio.Lock()

    async def take(self) -> int:
        """Return a number that is not in use; wait while it would leave the window."""
        await self._start()
        while self._next in self._aside:
            del self._aside[self._next]
            self._next += 1
        while self._in_flight and self._next - next(iter(self._in_flight)) > IN_FLIGHT_SPAN_MAX:
            await self._freed.wait()
        number = self._next
        self._next += 1
        self._in_flight[number] = None
        return number

    async def set_aside(self) -> int:
        """Return a number for a transaction that is submitted later, by whatever program."""
        await self._start()
        number = self._next + ASIDE_MIN + secrets.randbelow(ASIDE_SPAN)
        while number in self._aside:
            number += 1
        self._aside[number] = None
        return number

    async def _start(self) -> None:
        if not self._asked:
            async with self._starting:
                if not self._asked:
                    # Never back: an earlier number's transaction may still be decided.
                    self._next = max(self._next, await self._highest() + 1)
                    self._asked = True

    def release(self, number: int) -> None:
        """Note that a number's transaction is decided, or will never be submitted."""
        self._in_flight.pop(number, None)
        if number > self._next:
            self._aside.pop(number, None)
        self._freed.set()
        self._freed = trio.Event()

    def ask_again(self) -> None:
        """Ask the network before the next number: another program uses the key."""
        self._asked = False
