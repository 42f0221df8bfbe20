"""What one address, one key and one connection may cost, and what happens at each limit.

| limit                                  | beyond it                                             |
|----------------------------------------|-------------------------------------------------------|
| connections, of all, an address, a key | closed before the handshake; by key: BUSY, then closed |
| frame size, small until a key is proved | MALFORMED, then closed                               |
| time to hello, a frame, idle, send     | closed                                                |
| bytes per second of a key              | reading pauses until the budget allows                |
| requests and bytes in flight           | BUSY                                                  |
| all waiting transactions               | BUSY to whoever holds more than a fair share          |
| bytes waiting to be sent               | no further request is read                            |
| subscriptions of a connection          | BUSY                                                  |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

KEYS_REMEMBERED_MAX: Final = 4096
"""Byte budgets kept for keys that are not connected now."""


@dataclass(frozen=True, slots=True)
class ApiLimits:
    """Bounds of the client port. Counts, bytes and seconds as the names say."""

    connections_max: int = 2048
    connections_per_address_max: int = 256
    connections_per_key_max: int = 64
    requests_in_flight_max: int = 4096
    bytes_in_flight_max: int = 8 * 2**20
    transactions_waiting_max: int = 65_536
    bytes_per_second_max: int = 16 * 2**20
    bytes_burst_max: int = 32 * 2**20
    outbound_bytes_max: int = 4 * 2**20
    subscriptions_max: int = 4
    unproved_frame_bytes_max: int = 64 * 1024
    hello_seconds_max: float = 5.0
    frame_seconds_max: float = 10.0
    idle_seconds_max: float = 600.0
    send_seconds_max: float = 15.0
    busy_retry_ms: int = 100


class Tally:
    """How many of something each holder has, with a bound for all and one for each."""

    __slots__ = ("_counts", "_each_max", "_total", "_total_max")

    def __init__(self, total_max: int, each_max: int) -> None:
        self._counts: Counter[Hashable] = Counter()
        self._total = 0
        self._total_max = total_max
        self._each_max = each_max

    def __len__(self) -> int:
        return self._total

    def take(self, holder: Hashable) -> bool:
        """Count one more of ``holder`` and return True, or return False at a limit."""
        if self._total >= self._total_max or self._counts[holder] >= self._each_max:
            return False
        self.add(holder, 1)
        return True

    def room(self, holder: Hashable, count: int) -> bool:
        """Return whether ``holder`` may have ``count`` more.

        While all together are below the total, up to its own limit; beyond, only while it has
        less than an equal share, so that one busy key cannot shut out the others.
        """
        held = self._counts[holder] + count
        if held > self._each_max:
            return False
        if self._total + count <= self._total_max:
            return True
        return held <= self._total_max // (2 * (len(self._counts) + 1))

    def add(self, holder: Hashable, count: int) -> None:
        """Count ``count`` more (or, negative, fewer) of ``holder``."""
        self._total += count
        self._counts[holder] += count
        if self._counts[holder] <= 0:
            del self._counts[holder]


class ByteBudget:
    """A token bucket per key: ``rate`` bytes, or whatever is counted, a second with bursts up to
    ``burst``."""

    __slots__ = ("_burst", "_rate", "_spent")

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._spent: dict[Hashable, tuple[float, float]] = {}  # key -> (bytes over, at seconds)

    def spend(self, key: Hashable, count: int, now: float) -> float:
        """Charge ``count`` bytes at ``now`` seconds and return how long to pause, in seconds."""
        over, at = self._spent.pop(key, (0.0, now))
        over = max(0.0, over - (now - at) * self._rate) + count
        if len(self._spent) >= KEYS_REMEMBERED_MAX:
            self._spent.pop(next(iter(self._spent)))
        self._spent[key] = (over, now)
        return max(0.0, (over - self._burst) / self._rate)

    def take(self, key: Hashable, now: float) -> bool:
        """Charge one and return True; or False where that is too much, and charge nothing."""
        if self.spend(key, 1, now) <= 0:
            return True
        self.spend(key, -1, now)
        return False
