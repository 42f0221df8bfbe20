"""Load at a steady rate, whatever the network does meanwhile, and whether all of it was kept.

Chunks of transactions are due at moments that are fixed beforehand (an open loop): a network that
stands still does not slow its authors down, so a pause is in the figures of everybody who came
during it. Every answer is a decision that the client has verified; each is kept with its moment.

``compare`` holds the answers against the certified log as an independent reader has it
(``tests/network/harness/chain.py``, which imports nothing of the product).

Not here: what happens to the network (``members_benchmark``, ``joining_benchmark``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import trio

from comity.client import Client
from comity.errors import UndecidedError
from comity.results import Decision, Outcome
from comity.session import Parcel
from scripts.benchmark_load import Load, transfer
from tests.network.harness.chain import Chain

CHUNK: Final = 10
"""Transactions that are due together; with 500 a second such a chunk is due every 20 ms."""
APPLIED: Final = 0


@dataclass(frozen=True, slots=True)
class Told:
    """One answer. ``due`` and ``at`` are of trio's clock: when it was to be sent, when it came."""

    due: float
    at: float
    txid: bytes
    height: int
    index: int
    root: bytes

    @property
    def seconds(self) -> float:
        """From the moment it was due to the verified answer."""
        return self.at - self.due


@dataclass(slots=True)
class SteadyLoad:
    """Transfers at ``rate`` a second, signed beforehand, each sent through one client in turn."""

    rate: int
    parcels: Sequence[Parcel]
    told: list[Told] = field(default_factory=list)
    sent: int = 0
    refused: int = 0
    ending: bool = False

    @classmethod
    def prepared(cls, load: Load, authors: int, rate: int, seconds: float) -> SteadyLoad:
        """Return a load whose transactions last for so long."""
        count = math.ceil(rate * seconds / CHUNK) * CHUNK
        return cls(rate, [load.single(n % authors, transfer(n)) for n in range(count)])

    async def run(self, clients: Sequence[Client]) -> None:
        """Send until ``ending``; return when everything sent has been answered.

        Raises:
            SystemExit: the transactions that were made did not suffice.
            UndecidedError: some were not answered within the clients' patience.
        """
        begin, interval = trio.current_time(), CHUNK / self.rate
        async with trio.open_nursery() as nursery:
            for number in range(len(self.parcels) // CHUNK):
                due = begin + number * interval
                await trio.sleep_until(due)
                if self.ending:
                    return
                chunk = self.parcels[number * CHUNK : (number + 1) * CHUNK]
                self.sent += CHUNK
                nursery.start_soon(self._one, clients[number % len(clients)], chunk, due)
            raise SystemExit("the load ended before the measurement")

    async def _one(self, client: Client, chunk: Sequence[Parcel], due: float) -> None:
        def told(_parcel: int, _position: int, outcome: Outcome) -> None:
            if isinstance(outcome, Decision) and outcome.applied:
                place = outcome.txid, outcome.height, outcome.index, outcome.root
                self.told.append(Told(due, trio.current_time(), *place))
            else:
                self.refused += 1

        with suppress(UndecidedError):  # counted: sent and not answered
            await client.deliver(chunk, told)

    # --- what came of it ------------------------------------------------------------------------

    def since(self, begin: float, end: float) -> list[Told]:
        """Return the answers that came in this time, in their order."""
        return [each for each in self.told if begin <= each.at < end]

    def longest_gap_ms(self, begin: float, end: float) -> float:
        """Return the longest time in which no answer came to any client."""
        moments = [begin, *(each.at for each in self.since(begin, end)), end]
        return max(after - before for before, after in pairwise(moments)) * 1000

    def p99_ms(self, begin: float, end: float) -> float:
        """Return the 99th of 100 waits of what was due in this time."""
        waits = sorted(each.seconds for each in self.told if begin <= each.due < end)
        return waits[int(len(waits) * 0.99)] * 1000 if waits else math.nan

    def first_above(self, height: int) -> float:
        """Return when the first answer of a greater height came."""
        return min(each.at for each in self.told if each.height > height)

    @property
    def unanswered(self) -> int:
        """How many of those sent got no final answer."""
        return self.sent - len(self.told) - self.refused

    @property
    def newest(self) -> int:
        """The greatest height of an answer."""
        return max((each.height for each in self.told), default=0)


def compare(load: SteadyLoad, chains: Iterable[Chain]) -> dict[str, int]:
    """Count what clients were told and each certified log does not have, or has twice.

    Args:
        load: that has ended.
        chains: of different nodes, up to the newest answer at least.
    """
    lost = doubled = forked = 0
    statements: dict[int, bytes] = {}
    count = 0
    for chain in chains:
        count += 1
        places: dict[bytes, tuple[int, int, bytes]] = {}
        for height in chain.heights:
            forked += statements.setdefault(height.height, height.statement) != height.statement
            for outcome in height.outcomes:
                if outcome.code != APPLIED:
                    continue
                doubled += outcome.txid in places
                places[outcome.txid] = height.height, outcome.index, outcome.root
        lost += sum(
            places.get(each.txid) != (each.height, each.index, each.root) for each in load.told
        )
    return {
        "sent": load.sent,
        "receipts": len(load.told),
        "receipts_lost": lost,
        "unanswered": load.unanswered,
        "refused": load.refused,
        "took_effect_twice": doubled,
        "heights_in_two_ways": forked,
        "logs_compared": count,
    }


def any_wrong(found: dict[str, Any]) -> bool:
    """Return whether a comparison found what must not be."""
    wrong = ("receipts_lost", "unanswered", "refused", "took_effect_twice", "heights_in_two_ways")
    return any(found[name] for name in wrong)
