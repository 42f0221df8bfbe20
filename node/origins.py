"""What is kept of one origin's batches: which numbers are held without a gap, and their room.

Not here: the batches themselves (``batches``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

GAP_MS: Final = 20_000
"""What has been held for so long waits no longer for lower numbers: nobody may have them."""
NUMBERS_AHEAD_MAX: Final = 4096
NUMBERS_SKIPPED_MAX: Final = 1 << 20
"""How far above the contiguous count a block may name a number and get a vote."""
NUMBERS_KEPT_MAX: Final = 1024
"""Numbers up to the contiguous count whose digests are remembered, to see a second batch."""


@dataclass(slots=True)
class Origin:
    """One origin's numbering and room."""

    contiguous: int = 0
    digests: dict[int, bytes] = field(default_factory=dict)
    held: dict[int, int] = field(default_factory=dict)
    """Numbers above ``contiguous`` that are held or were delivered, and since when."""
    batches: int = 0
    size_bytes: int = 0

    def name(self, number: int, digest: bytes) -> None:
        """Remember which batch has a number, the first that came with it."""
        if -NUMBERS_KEPT_MAX < number - self.contiguous <= NUMBERS_AHEAD_MAX:
            self.digests.setdefault(number, digest)

    def mark(self, number: int, since_ms: int) -> None:
        """Count a number as held, if it is within the window."""
        if not self.contiguous < number <= self.contiguous + NUMBERS_AHEAD_MAX:
            return
        self.held.setdefault(number, since_ms)
        self._advance()

    def is_skipping(self, number: int) -> bool:
        """Whether a number is so far ahead that delivering it would use up those in between."""
        return number > self.contiguous + NUMBERS_SKIPPED_MAX

    def delivered(self, number: int, now_ms: int) -> None:
        """A number was delivered: gaps further behind than the window are closed for good."""
        self.close(number - NUMBERS_AHEAD_MAX)
        self.mark(number, now_ms)

    def close_gaps(self, now_ms: int) -> None:
        """Close the gaps below what has been held, or delivered, for GAP_MS."""
        self.close(
            max((n for n, since in self.held.items() if now_ms - since >= GAP_MS), default=0)
        )

    def close(self, upto: int) -> None:
        """Count all numbers up to this one, whether they are held or not."""
        if upto <= self.contiguous:
            return
        self.contiguous = upto
        self.held = {n: since for n, since in self.held.items() if n > upto}
        low = upto - NUMBERS_KEPT_MAX
        self.digests = {n: digest for n, digest in self.digests.items() if n > low}
        self._advance()

    def _advance(self) -> None:
        while self.contiguous + 1 in self.held:
            self.contiguous += 1
            del self.held[self.contiguous]
            self.digests.pop(self.contiguous - NUMBERS_KEPT_MAX, None)
