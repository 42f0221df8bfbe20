"""What one dead validator of four costs, and how soon it votes again.

Load comes in at the three others throughout, so that only ordering differs. After the healthy part
the fourth is killed (SIGKILL) and stays dead for as long. Then it is started again under a light
load: on one machine a full one leaves it no processor to catch up with. A gap is the time between
two verified answers of any client.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import trio

from comity.client import Client
from comity.keys import Key
from comity.session import Parcel
from scripts.benchmark_load import Load, transfer
from scripts.localnet import LocalNetwork

CHUNK = 64
IN_FLIGHT = 4
"""Chunks that each author has under way."""
CHUNKS_PER_SECOND = 3
"""Chunks of each author that are made in advance, a second of load."""
WARM_SECONDS = 2.0
RECOVERY_SECONDS_MAX = 30.0
POLL_SECONDS = 0.05
USED = 500_000
"""Numbers of an author's key that are passed over for the light load."""
VOTES = b'comity_stage_seconds_count{stage="vote"} '


@dataclass
class _Answers:
    """When verified answers came, by the clock of trio."""

    times: list[float] = field(default_factory=list)
    refused: int = 0

    def told(self, _parcel: int, _position: int, outcome: object) -> None:
        self.times.append(trio.current_time())
        self.refused += not getattr(outcome, "applied", False)

    def rate(self, begin: float, end: float) -> float:
        return sum(begin <= at < end for at in self.times) / (end - begin)

    def longest_gap(self, begin: float, end: float) -> float:
        inside = [begin, *sorted(at for at in self.times if begin <= at < end), end]
        return max(after - before for before, after in pairwise(inside))


def _votes(network: LocalNetwork, agency: str) -> bool:
    """Whether a node has voted since it started."""
    for line in network.http(agency, "/metrics").splitlines():
        if line.startswith(VOTES):
            return float(line.removeprefix(VOTES)) > 0
    return False


async def _until_it_votes(network: LocalNetwork, agency: str) -> float | None:
    begin = time.monotonic()
    while not await trio.to_thread.run_sync(_votes, network, agency):
        if time.monotonic() - begin > RECOVERY_SECONDS_MAX:
            return None
        await trio.sleep(POLL_SECONDS)
    return time.monotonic() - begin


async def measure(network: LocalNetwork, keys: Sequence[Key], seconds: float) -> dict[str, Any]:
    """Run the load, kill, wait, start again; return rates, gap and time of recovery.

    Args:
        seconds: how long each of the two rates is measured.
    """
    *others, victim = network.agencies
    answers = _Answers()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Client.connect(network.genesis, servers=[agency], key=key)
            )
            for agency, key in zip(others, keys, strict=False)
        ]
        rules = await clients[0].rules()
        load = Load(clients[0].chain, keys, rules.book, rules.time_ms)
        per_lane = int((2 * seconds + 2 * WARM_SECONDS) * CHUNKS_PER_SECOND)
        lanes = [
            [
                [
                    load.single(author, transfer(author * 100_003 + n * CHUNK + i))
                    for i in range(CHUNK)
                ]
                for n in range(per_lane)
            ]
            for author in range(len(keys))
        ]

        async def lane(client: Client, chunks: Iterator[list[Parcel]]) -> None:
            for chunk in chunks:
                await client.deliver(chunk, answers.told)

        async with trio.open_nursery() as nursery:
            for index, chunks in enumerate(lanes):
                queue = iter(chunks)
                for _ in range(IN_FLIGHT):
                    nursery.start_soon(lane, clients[index % len(clients)], queue)
            await trio.sleep(WARM_SECONDS)
            begin = trio.current_time()
            await trio.sleep(seconds)
            killed = trio.current_time()
            network.kill(victim)
            await trio.sleep(WARM_SECONDS + seconds)
            end = trio.current_time()
            healthy = answers.rate(begin, killed)
            dead = answers.rate(killed + WARM_SECONDS, end)
            nursery.cancel_scope.cancel()
        if len(answers.times) == len(keys) * per_lane * CHUNK:
            raise SystemExit("the load ended before the measurement")

        async def trickle() -> None:
            number = USED
            light = Load(clients[0].chain, keys, rules.book, rules.time_ms, USED)
            while True:
                number += 1
                await clients[0].deliver([light.single(0, transfer(number))])
                await trio.sleep(POLL_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle)
            network.start(victim)
            recovered = await _until_it_votes(network, victim)
            nursery.cancel_scope.cancel()
    if answers.refused:
        raise SystemExit(f"{answers.refused} transactions were not applied")
    return {
        "tx_per_s": round(dead, 1),
        "healthy_tx_per_s": round(healthy, 1),
        "rate_beside_healthy": round(dead / healthy, 3),
        "longest_gap_healthy_ms": round(answers.longest_gap(begin, killed) * 1000),
        "longest_gap_after_kill_ms": round(answers.longest_gap(killed, end) * 1000),
        "votes_again_seconds": None if recovered is None else round(recovered, 2),
    }
