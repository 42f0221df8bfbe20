"""Nodes that are told to stop, and nodes that stand still for a while."""

from __future__ import annotations

import signal

import pytest
import trio

from scripts.localnet import LocalNetwork
from tests.network.town import (
    agreed,
    children,
    client,
    eventually,
    kill,
    metric,
    ready,
    start,
    status,
    until,
)
from tests.network.work import Books, working

pytestmark = pytest.mark.process

STOP_SECONDS_MAX = 5.0
RESTART_SECONDS_MAX = 10.0
"""Generous, because the machine may be busy; about one second each otherwise."""


async def test_sigterm_stops_within_seconds_with_status_nought_and_everything_flushed(
    town: LocalNetwork, books: Books
) -> None:
    process = town.processes["social"]
    async with working(town, books):
        workers = children([process.pid])
        assert workers, "the node has no verifier process"
        begin = trio.current_time()
        process.send_signal(signal.SIGTERM)
        await until(lambda: process.poll() is not None, "the node has ended")
        assert trio.current_time() - begin < STOP_SECONDS_MAX
        assert process.returncode == 0
        assert "Traceback" not in town.log("social")
        await until(lambda: not alive(workers), "its workers have ended too")
        await books.grown(10, "without it")
        begin = trio.current_time()
        await start(town, "social")
        assert trio.current_time() - begin < RESTART_SECONDS_MAX
    await agreed(town, height=books.height)
    async with client(town, "social") as reader:
        await books.check(reader)


async def test_what_was_certified_before_sigterm_is_in_the_store_at_the_next_start(
    town: LocalNetwork,
) -> None:
    height, _ = await agreed(town)
    town.kill("treasury", signal.SIGTERM)
    assert town.processes["treasury"].returncode == 0
    town.start("treasury")
    said = await eventually(lambda: status(town, "treasury"), "the node answers")
    assert said["flushed"] >= height
    await ready(town, "treasury")


async def test_workers_end_with_a_node_that_was_killed(town: LocalNetwork) -> None:
    workers = children([town.processes["registry"].pid])
    kill(town, "registry")
    await until(lambda: not alive(workers), "the workers have ended")
    await start(town, "registry")


async def test_a_node_ended_by_a_bus_error_leaves_a_word_of_it(town: LocalNetwork) -> None:
    """So it ends when the store's file was cut: nothing else could tell the operator."""
    town.kill("registry", signal.SIGBUS)
    await until(lambda: town.processes["registry"].poll() is not None, "the node has ended")
    assert "Fatal Python error: Bus error" in town.log("registry")
    await start(town, "registry")


async def test_a_node_that_stood_still_for_longer_than_all_timeouts_catches_up(
    town: LocalNetwork, books: Books
) -> None:
    still, others = "integrity", [a for a in town.agencies if a != "integrity"]
    before = {a: await metric(town, a, "comity_consensus_timeouts_total") for a in others}
    town.kill(still, signal.SIGSTOP)
    try:
        async with working(town, books):

            async def given_up() -> bool:
                counts = [await metric(town, a, "comity_consensus_timeouts_total") for a in others]
                links = [await metric(town, a, "comity_peers_connected") for a in others]
                turns = [now - before[a] for now, a in zip(counts, others, strict=True)]
                return min(turns) >= 2 and max(links) == 2

            await eventually(given_up, "the others give up its turns, and its links")
            await books.grown(10, "while it stands still")
            town.kill(still, signal.SIGCONT)
            await agreed(town, height=books.height)
            await books.grown(10, "with it again")
    finally:
        town.kill(still, signal.SIGCONT)
    await agreed(town, height=books.height)
    async with client(town, still) as reader:
        await books.check(reader)


def alive(pids: list[int]) -> list[int]:
    """Those of ``pids`` that still run; a zombie that init has not collected is gone."""
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as file:
                state = file.read().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z":
            found.append(pid)
    return found
