"""Sequence windows: each number of a key is accepted once, in any order inside the window.

The anti-replay window of IPsec (RFC 4303, §3.4.3) with 1,024 bits. It implies no order.

Not here: which refusals spend a number (``executor``).
"""

from __future__ import annotations

from typing import Final

from consensus.codec import Value
from consensus.ledger.codes import Code, Refused

WINDOW_BITS: Final = 1024
JUMP_MAX: Final = 2**20
"""How far beyond the highest number seen the next may be."""

_MASK: Final = (1 << WINDOW_BITS) - 1


class Window:
    """The numbers that one key has used. Bit ``i`` of ``used`` stands for ``highest - i``."""

    __slots__ = ("highest", "used")

    def __init__(self, highest: int = 0, used: int = 1) -> None:
        self.highest = highest
        self.used = used

    def check(self, number: int) -> None:
        """Refuse a ``number`` (from 1) that was used, is too old or too far ahead.

        Raises:
            Refused: SEQUENCE_SPENT, SEQUENCE_OLD or SEQUENCE_AHEAD.
        """
        behind = self.highest - number
        if behind < 0:
            if -behind > JUMP_MAX:
                raise Refused(Code.SEQUENCE_AHEAD, [number, self.highest + JUMP_MAX])
        elif behind >= WINDOW_BITS:
            raise Refused(Code.SEQUENCE_OLD, [number, self.highest - WINDOW_BITS + 1])
        elif self.used >> behind & 1:
            raise Refused(Code.SEQUENCE_SPENT, number)

    def spend(self, number: int) -> None:
        """Mark a number that ``check`` accepts."""
        ahead = number - self.highest
        if ahead > 0:
            shifted = self.used << ahead if ahead < WINDOW_BITS else 0
            self.used = shifted & _MASK | 1
            self.highest = number
        else:
            self.used |= 1 << -ahead

    def to_value(self) -> Value:
        """Return the leaf's value: highest number, and the window without leading zero bytes."""
        return [self.highest, self.used.to_bytes((self.used.bit_length() + 7) // 8, "big")]


def from_value(value: Value) -> Window:
    """Return the window of a leaf's value."""
    highest, used = value
    return Window(highest, int.from_bytes(used, "big"))
