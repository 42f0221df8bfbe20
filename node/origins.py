"""What is kept of one origin's batches: which numbers are held without a gap, and their room.

Not here: the batches themselves (``batches``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

NUMBERS_AHEAD_MAX: Final = 4096
NUMBERS_KEPT_MAX: Final = 1024
"""Numbers up to the contiguous count whose digests are remembered, to see a second batch."""


@dataclass(slots=True)
class Origin:
    """One origin's numbering and room."""

    contiguous: int = 0
    digests: dict[int, bytes] = field(default_factory=dict)
    held: set[int] = field(default_factory=set)
    """Numbers above ``contiguous`` that are held or were delivered."""
    batches: int = 0
    size_bytes: int = 0

    def name(self, number: int, digest: bytes) -> None:
        """Remember which batch has a number, the first that came with it."""
        if abs(number - self.contiguous) <= NUMBERS_AHEAD_MAX:
            self.digests.setdefault(number, digest)

    def mark(self, number: int) -> None:
        """Count a number as held, if it is within the window."""
        if not self.contiguous < number <= self.contiguous + NUMBERS_AHEAD_MAX:
            return
        self.held.add(number)
        self._advance()

    def delivered(self, number: int) -> None:
        """A number was delivered: gaps further behind than the window are closed for good."""
        self.close(number - NUMBERS_AHEAD_MAX)
        self.mark(number)

    def close(self, upto: int) -> None:
        """Count all numbers up to this one, whether they are held or not."""
        if upto <= self.contiguous:
            return
        self.contiguous = upto
        self.held = {each for each in self.held if each > upto}
        low = upto - NUMBERS_KEPT_MAX
        self.digests = {n: digest for n, digest in self.digests.items() if n > low}
        self._advance()

    def _advance(self) -> None:
        while self.contiguous + 1 in self.held:
            self.contiguous += 1
            self.held.discard(self.contiguous)
            self.digests.pop(self.contiguous - NUMBERS_KEPT_MAX, None)
