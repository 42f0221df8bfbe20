"""What a change of the committee costs those who work meanwhile: ``scripts/bench members``.

    steps   4 → 5 → 6 → 7 → 6 → 5 → 4 validators, one act each, at 500 transactions a second
    cut     4 → 7 → 4, one act each, with f + 1 of the committee cut off from all others as the
            change's time comes, and connected again CUT_SECONDS later; at CUT_RATE a second, since
            what waits meanwhile is worked off beside what comes, by seven nodes on one machine

Nodes are real processes. Who joins has a node that follows before, as ``docs/members.md`` says, and
who has left is stopped; each change is agreed on by a quorum of chiefs through the nodes, under
load. A pause is the longest time in which no client got a certified answer, within AROUND_SECONDS
of the first answer of the new epoch; where nodes are cut off nothing can be certified, so there it
counts from the moment at which they are connected again. In the end an independent reader of the
certified log of every node says whether each receipt is in it, once, at its place.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import trio

from comity.client import Client
from comity.founding import Person
from consensus.codec import Value
from consensus.committee import faulty_max
from consensus.genesis import SYSTEM, OpeningBalance
from scripts import localmembers
from scripts.benchmark_load import WALLETS, Load
from scripts.localmembers import Newcomer, Town
from scripts.localnet import AGENCIES, ROOT
from scripts.steady_load import SteadyLoad, any_wrong, compare
from tests.network.harness import chain as certified_log
from tests.network.harness.load import audit_file
from tests.network.harness.network import relays_between
from tests.network.harness.relay import Relays

RATE: Final = 500
CUT_RATE: Final = 200
AUTHORS: Final = 16
JOINING: Final = ("health", "labour", "land")
CHANGE_SECONDS_MAX: Final = 30.0
"""Until who joins is ready and a change is in force, for which transactions are made in advance."""
STEADY_SECONDS: Final = 6.0
AROUND_SECONDS: Final = 3.0
CUT_SECONDS: Final = 3.0
AHEAD_SECONDS: Final = 0.2
"""How long before the change's time nodes are cut off."""
PATIENCE_SECONDS: Final = 60.0
RULES: Final = (ROOT / "configs/rules/charter.toml", ROOT / "configs/bench/transfers.toml")


@dataclass(frozen=True, slots=True)
class Step:
    """One change: ``cut`` are the agencies cut off at its time.

    ``joining`` have nodes that are started before it, ``leaving`` such that are stopped after it:
    all of them share this machine.
    """

    name: str
    changes: tuple[list[Value], ...]
    joining: tuple[str, ...] = ()
    leaving: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()


def measure(
    seconds: float, rate: int = RATE, cut_rate: int = CUT_RATE, folder: Path | None = None
) -> dict[str, Any]:
    """Return the figures of both networks.

    Args:
        seconds: how long the load runs between two changes.
        rate: transactions a second.
        cut_rate: the same where nodes are cut off.
        folder: empty; None: a temporary one.

    Raises:
        SystemExit: a receipt was lost, or something took effect twice.
    """
    with tempfile.TemporaryDirectory(prefix="comity-bench-", dir="/var/tmp") as temporary:
        place = folder or Path(temporary)
        steps = _run(place / "steps", rate, seconds, one_by_one, relayed=False)
        cut = _run(place / "cut", cut_rate, seconds, all_at_once, relayed=True)
    figures = {"rate": rate, "cut_rate": cut_rate, "steps": steps, "cut": cut}
    if any_wrong(steps["receipts"]) or any_wrong(cut["receipts"]):
        raise SystemExit(f"a promise is broken: {figures}")
    return figures


def one_by_one(town: Town, newcomers: Sequence[Newcomer]) -> list[Step]:
    """Return six changes of one validator each."""
    joins = [
        Step(f"{size} → {size + 1}", (town.admission(each),), joining=(each.member.name,))
        for size, each in enumerate(newcomers, 4)
    ]
    names = [each.member.name for each in reversed(newcomers)]
    leaves = [
        Step(f"{7 - gone} → {6 - gone}", (["leave", name],), leaving=(name,))
        for gone, name in enumerate(names)
    ]
    return [*joins, *leaves]


def all_at_once(town: Town, newcomers: Sequence[Newcomer]) -> list[Step]:
    """Return two changes; who is cut off are f + 1 of the committee whose epoch ends."""
    first = tuple(AGENCIES)[-(faulty_max(4) + 1) :]
    names = tuple(each.member.name for each in newcomers)
    second = (*names[-faulty_max(7) :], first[-1])
    admitted = tuple(town.admission(each) for each in newcomers)
    left: tuple[list[Value], ...] = tuple(["leave", name] for name in names)
    return [
        Step("4 → 7", admitted, joining=names, cut=first),
        Step("7 → 4", left, leaving=names, cut=second),
    ]


def found(folder: Path) -> tuple[Town, list[Newcomer]]:
    """Found a network of four, with nodes of three that are to join; nothing runs."""
    people = [
        Person(f"author-{n}", "treasury", SYSTEM, (("bench.operator", ()),)) for n in range(AUTHORS)
    ]
    accounts = [OpeningBalance("wallet", (number,), 10**9) for number in range(WALLETS)]
    town = localmembers.found(folder, RULES, people, accounts)
    return town, [town.add(name, "joining") for name in JOINING]


def _run(
    folder: Path,
    rate: int,
    seconds: float,
    plan: Callable[[Town, Sequence[Newcomer]], list[Step]],
    *,
    relayed: bool,
) -> dict[str, Any]:
    town, newcomers = found(folder)
    with town.network, _relays(town, relayed) as relays:
        for agency in AGENCIES:
            town.network.start(agency)
        for agency in AGENCIES:
            town.network.wait_ready(agency)
        return trio.run(_measured, town, relays, rate, seconds, plan(town, newcomers))


@contextmanager
def _relays(town: Town, relayed: bool) -> Iterator[Relays | None]:
    if not relayed:
        yield None
        return
    with relays_between(town.network) as relays:
        yield relays


async def _measured(
    town: Town, relays: Relays | None, rate: int, seconds: float, steps: Sequence[Step]
) -> dict[str, Any]:
    network = town.network
    keys = [network.key("treasury", f"author-{n}") for n in range(AUTHORS)]
    agencies = tuple(AGENCIES)
    figures: dict[str, Any] = {}
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                Client.connect(
                    network.genesis,
                    servers=agencies[turn:] + agencies[:turn],
                    key=keys[0],
                    patience_seconds=PATIENCE_SECONDS,
                )
            )
            for turn in range(len(agencies))
        ]
        rules = await clients[0].rules()
        making = Load(clients[0].chain, keys, rules.book, rules.time_ms)
        lasts = 2 * STEADY_SECONDS + len(steps) * (seconds + CHANGE_SECONDS_MAX)
        load = SteadyLoad.prepared(making, AUTHORS, rate, lasts)
        moments: list[dict[str, float]] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run, clients)
            await trio.sleep(STEADY_SECONDS / 2)
            begin = trio.current_time()
            await trio.sleep(STEADY_SECONDS)
            steady = begin, trio.current_time()
            for step in steps:
                committee = await clients[0].committee()
                members = [each.agency for each in committee.validators]
                await _started(town, step.joining)
                moments.append(await _change(town, relays, step, members))
                await trio.sleep(seconds)
                for name in step.leaving:
                    await trio.to_thread.run_sync(network.kill, name, signal.SIGTERM)
            load.ending = True
    figures["steady"] = {
        "longest_gap_ms": round(load.longest_gap_ms(*steady), 1),
        "p99_ms": round(load.p99_ms(*steady), 1),
    }
    chains = await _logs(town, load.newest)
    ends = [one.height for one, two in pairwise(chains[0].heights) if one.epoch != two.epoch]
    if len(ends) != len(steps):
        raise SystemExit(f"{len(steps)} changes were agreed on, {len(ends)} took effect")
    for step, end, told in zip(steps, ends, moments, strict=True):
        figures[step.name] = _figures(load, end, told)
    figures["longest_pause_ms"] = max(figures[step.name]["pause_ms"] for step in steps)
    figures["receipts"] = compare(load, chains)
    return figures


async def _started(town: Town, names: Sequence[str]) -> None:
    """Have nodes follow: the committee needs those who join from the first block of its epoch."""
    for name in names:
        town.network.start(name)
    for name in names:
        await trio.to_thread.run_sync(town.network.wait_ready, name)


async def _change(
    town: Town, relays: Relays | None, step: Step, members: Sequence[str]
) -> dict[str, float]:
    """Have one change agreed on and wait until it is in force; return when nodes were cut off."""
    told: dict[str, float] = {}
    async with trio.open_nursery() as nursery:
        if relays is not None:
            nursery.start_soon(_cut_off, town, relays, step.cut, told)
        await town.change(*step.changes, by=members[: len(members) - faulty_max(len(members))])
    return told


async def _cut_off(
    town: Town, relays: Relays, names: Sequence[str], told: dict[str, float]
) -> None:
    """Cut these off from all others just before the change's time; then connect them again."""
    at_ms = await town.coming(next(iter(AGENCIES)))
    await trio.sleep(max(0.0, at_ms / 1000 - AHEAD_SECONDS - time.time()))
    told["cut"] = trio.current_time()
    for name in names:
        await trio.to_thread.run_sync(relays.isolate, name)
    await trio.sleep(CUT_SECONDS)
    await trio.to_thread.run_sync(relays.heal)
    told["healed"] = trio.current_time()


def _figures(load: SteadyLoad, end: int, told: dict[str, float]) -> dict[str, Any]:
    """Return the figures of a change whose epoch ended at a height."""
    begun = load.first_above(end)
    if "healed" not in told:
        around = begun - AROUND_SECONDS, begun + AROUND_SECONDS
        return {
            "pause_ms": round(load.longest_gap_ms(*around), 1),
            "p99_ms": round(load.p99_ms(*around), 1),
        }
    healed = told["healed"]
    until = max(healed, begun) + AROUND_SECONDS
    meanwhile = load.since(told["cut"], healed)
    return {
        "cut_off_seconds": round(healed - told["cut"], 2),
        "answers_while_cut_off": len(meanwhile),
        "epoch_began_ms_after": round((begun - healed) * 1000, 1),
        "pause_ms": round(load.longest_gap_ms(healed, until), 1),
        "p99_ms": round(load.p99_ms(told["cut"], until), 1),
    }


async def _logs(town: Town, height: int) -> list[certified_log.Chain]:
    """Return the log of every node of the committee, read and checked by another program."""
    key = town.network.key("treasury", "author-0")
    chains = []
    for agency in AGENCIES:
        folder = town.network.folder
        path = await audit_file(town.network, agency, height, folder, key)
        chains.append(await trio.to_thread.run_sync(certified_log.read, path, town.network.genesis))
        path.unlink()
    return chains
