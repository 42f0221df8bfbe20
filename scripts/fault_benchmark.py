"""What one dead validator of four costs, and how soon it votes again, under two loads.

The first load is as much as three nodes take: each author has chunks under way all the time. The
second is steady, 500 transactions a second whatever becomes of them, as long as the first.

Under each, three times, another node each time: load comes in at the three others throughout, so
that only ordering differs. After the healthy part the fourth is killed (SIGKILL), stays dead for as
long, and is started again; the load goes on until it votes for new blocks. What processor time its
main process used by then says how soon that would be on a machine of its own. A gap is the time
between two verified answers of any client. Each figure is the median of the three.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import trio

from comity.client import Client
from comity.keys import Key
from comity.session import Parcel
from node.telemetry import process
from scripts.benchmark_load import Load, transfer
from scripts.localnet import LocalNetwork

KILLS = 3
CHUNK = 64
IN_FLIGHT = 4
"""Chunks that each author has under way."""
CHUNKS_PER_SECOND = 3
"""Chunks of each author that are made in advance, a second of full load."""
STEADY_RATE = 500
"""Transactions a second of the steady load."""
STEADY_CHUNK = 25
"""Transactions of the steady load that are handed over together."""
WARM_SECONDS = 2.0
RECOVERY_SECONDS_MAX = 45.0
"""So long a node is waited for; one that does not vote by then counts as that."""
POLL_SECONDS = 0.25
USED = 100_000
"""Numbers of an author's key that one kill takes at most."""
VOTES = b'comity_stage_seconds_count{stage="vote"} '
"""Votes for blocks that were received; stored ones that are sent again do not count."""


EACH = ("votes_again_seconds", "longest_gap_after_kill_ms")
"""Figures that are given of each kill as well."""


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


async def _until_it_votes(network: LocalNetwork, agency: str) -> float:
    begin = trio.current_time()
    while not await trio.to_thread.run_sync(_votes, network, agency):
        if trio.current_time() - begin > RECOVERY_SECONDS_MAX:
            break
        await trio.sleep(POLL_SECONDS)
    return trio.current_time() - begin


async def measure(
    network: LocalNetwork, keys: Sequence[Key], seconds: float, kills: int = KILLS
) -> dict[str, Any]:
    """Kill one node after the other under load; return medians of rates, gaps and recovery.

    Args:
        seconds: how long each of the two rates is measured.
        kills: how many under each load, at most as many as there are nodes.
    """
    figures: dict[str, Any] = {}
    for number, (name, load) in enumerate((("full", _full), ("steady", _steady))):
        victims = network.agencies[::-1][:kills]
        first = number * kills
        runs = [
            await _kill_one(network, keys, seconds, victim, load, (first + each) * USED)
            for each, victim in enumerate(victims)
        ]
        figures[name] = {
            **{name: round(statistics.median(run[name] for run in runs), 3) for name in runs[0]},
            **{f"{name}_each": [round(run[name], 3) for run in runs] for name in EACH},
        }
    return {**figures.pop("full"), **figures}


_Driver = Callable[[Sequence[Client], _Answers], Awaitable[None]]


def _full(load: Load, authors: int, seconds: float) -> tuple[int, _Driver]:
    """Make as much as three nodes take; return how many transactions, and what submits them."""
    per_lane = int(seconds * CHUNKS_PER_SECOND)
    lanes = [
        [
            [load.single(author, transfer(author * 100_003 + n * CHUNK + i)) for i in range(CHUNK)]
            for n in range(per_lane)
        ]
        for author in range(authors)
    ]

    async def lane(client: Client, chunks: Iterator[list[Parcel]], answers: _Answers) -> None:
        for chunk in chunks:
            await client.deliver(chunk, answers.told)

    async def submit(clients: Sequence[Client], answers: _Answers) -> None:
        async with trio.open_nursery() as nursery:
            for index, chunks in enumerate(lanes):
                queue = iter(chunks)
                for _ in range(IN_FLIGHT):
                    nursery.start_soon(lane, clients[index % len(clients)], queue, answers)

    return authors * per_lane * CHUNK, submit


def _steady(load: Load, authors: int, seconds: float) -> tuple[int, _Driver]:
    """Make STEADY_RATE for so many seconds; return how many transactions, and what submits them."""
    chunks = [
        [load.single(n % authors, transfer(n * STEADY_CHUNK + i)) for i in range(STEADY_CHUNK)]
        for n in range(int(seconds * STEADY_RATE / STEADY_CHUNK))
    ]

    async def submit(clients: Sequence[Client], answers: _Answers) -> None:
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            for n, chunk in enumerate(chunks):
                await trio.sleep_until(begin + n * STEADY_CHUNK / STEADY_RATE)
                nursery.start_soon(clients[n % len(clients)].deliver, chunk, answers.told)

    return len(chunks) * STEADY_CHUNK, submit


async def _kill_one(
    network: LocalNetwork,
    keys: Sequence[Key],
    seconds: float,
    victim: str,
    make: Callable[[Load, int, float], tuple[int, _Driver]],
    used: int,
) -> dict[str, float]:
    """Run a load, kill ``victim``, wait, start it again, and wait until it votes.

    Args:
        used: numbers of each author's key that are passed over.
    """
    others = [agency for agency in network.agencies if agency != victim]
    answers = _Answers()
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Client.connect(network.genesis, servers=[agency], key=key)
            )
            for agency, key in zip(others, keys, strict=False)
        ]
        rules = await clients[0].rules()
        load = Load(clients[0].chain, keys, rules.book, rules.time_ms, used)
        most_seconds = 2 * seconds + 2 * WARM_SECONDS + RECOVERY_SECONDS_MAX
        made, submit = make(load, len(keys), most_seconds)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(submit, clients, answers)
            await trio.sleep(WARM_SECONDS)
            begin = trio.current_time()
            await trio.sleep(seconds)
            killed = trio.current_time()
            network.kill(victim)
            await trio.sleep(WARM_SECONDS + seconds)
            started = trio.current_time()
            network.start(victim)
            recovered = await _until_it_votes(network, victim)
            used_seconds = process.used([network.processes[victim].pid]).cpu_seconds
            end = trio.current_time()
            nursery.cancel_scope.cancel()
    if len(answers.times) == made:
        raise SystemExit("the load ended before the measurement")
    if answers.refused:
        raise SystemExit(f"{answers.refused} transactions were not applied")
    healthy = answers.rate(begin, killed)
    dead = answers.rate(killed + WARM_SECONDS, started)
    return {
        "tx_per_s": dead,
        "healthy_tx_per_s": healthy,
        "catching_up_tx_per_s": answers.rate(started, end),
        "rate_beside_healthy": dead / healthy,
        "longest_gap_healthy_ms": answers.longest_gap(begin, killed) * 1000,
        "longest_gap_after_kill_ms": answers.longest_gap(killed, started) * 1000,
        "longest_gap_after_start_ms": answers.longest_gap(started, end) * 1000,
        "votes_again_seconds": recovered,
        "votes_again_cpu_seconds": used_seconds,
    }
