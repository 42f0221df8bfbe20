"""The next executor comes into force in a real network, where one node's release lacks it.

It stops before the first block of that time and says so, the others go on under load, it goes on
after its upgrade, and there is no way back. All of it in memory: ``tests.node.test_activation``.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import trio

from scripts.localnet import LocalNetwork
from tests.network.executors import activate, until_in_force
from tests.network.town import (
    NAMES,
    agreed,
    client,
    eventually,
    found_changing,
    metric,
    start,
    status,
    until,
)
from tests.network.work import Books, working

pytestmark = [pytest.mark.process, pytest.mark.long]

LATE = "integrity"
OTHERS = tuple(each for each in NAMES if each != LATE)


@pytest.fixture
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    folder = tmp_path_factory.mktemp("activation") / "network"
    with found_changing(folder).network as town:
        town.programs[LATE] = ("tests.network.older",)
        town.start_all()
        yield town


async def test_a_node_that_lacks_the_next_executor_stops_before_it_and_goes_on_once_upgraded(
    network: LocalNetwork,
) -> None:
    books = Books()
    async with working(network, books):
        await books.grown(20, "before")
        from_ms = await activate(network, 2)
        lacking = "comity_executor_lacking_from_seconds"

        async def knows() -> bool:
            return await metric(network, LATE, lacking) == from_ms / 1000

        await eventually(knows, f"{LATE} knows when it will stop")
        assert await metric(network, OTHERS[0], lacking) == 0
        await until(lambda: "an executor to come is lacking" in network.log(LATE), "it says so")
        assert (await status(network, LATE))["halted"] is None
        await until_in_force(network, 2, *OTHERS)
        await books.grown(20, "by the next executor, without it")
        said = await status(network, LATE)
        assert "executor 2 is in force, and this release has 1 (release" in said["halted"]
        assert "install a release that has it" in said["problem"]
        assert said["executor"]["known"] == [1]
        assert await metric(network, LATE, "comity_node_signing") == 0
        async with client(network, LATE) as reader:  # it serves what it has
            oldest = min(books.decisions.values(), key=lambda each: each.height)
            assert await reader.decision(oldest.txid) == oldest
        await trio.to_thread.run_sync(network.kill, LATE, signal.SIGTERM)
        del network.programs[LATE]
        await start(network, LATE)
        await books.grown(20, "with it")
    await agreed(network, height=books.height)
    async with client(network, LATE) as reader:
        await books.check(reader)
    network.kill(LATE, signal.SIGTERM)
    network.programs[LATE] = ("tests.network.older",)
    network.start(LATE)
    await until(lambda: not network.running(LATE), "the older release refuses the data")
    last = network.log(LATE).splitlines()[-2:]
    assert last[0].startswith("error: the state of height")
    assert "is of executor 2, and this release" in last[0]
    assert last[1].startswith("hint: run the release that wrote it")
