"""Nodes that join by snapshot under load: a new one, one that was away, one whose data is gone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest

from scripts.localnet import LocalNetwork
from tests.network import town as towns
from tests.network.town import (
    TUNING,
    agreed,
    client,
    config_path,
    data,
    kill,
    metric,
    ready,
    start,
    status,
    until,
)
from tests.network.work import Books, working

pytestmark = pytest.mark.process

FAR = 24
"""Heights behind which these nodes ask for a snapshot."""
LATE = "integrity"
OTHERS = tuple(name for name in towns.NAMES if name != LATE)


@pytest.fixture(scope="module")
def far_town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """A network of which one node, with a key that was never used, does not run yet."""
    tuning = f"{TUNING}\nsnapshot_heights = {FAR}"
    with towns.found_town(tmp_path_factory.mktemp("far") / "network", tuning) as network:
        for agency in OTHERS:
            network.start(agency)
        for agency in OTHERS:
            network.wait_ready(agency)
        yield network


@pytest.fixture(scope="module")
def books() -> Books:
    """What the load was told in this network, over all tests."""
    return Books()


def joined(town: LocalNetwork, agency: str) -> list[int]:
    """The heights at which a node joined by snapshot, by its log."""
    lines = [line for line in town.log(agency).splitlines() if "joined by snapshot" in line]
    return [json.loads(line)["height"] for line in lines]


async def height(town: LocalNetwork, agency: str) -> int:
    return int((await status(town, agency)).get("certified", 0))


async def test_a_new_node_joins_by_snapshot_under_load_and_votes(
    far_town: LocalNetwork, books: Books
) -> None:
    town = far_town
    async with working(town, books):
        await books.grown(60, "before the new node")
        while await height(town, OTHERS[0]) < FAR + 16:
            await books.grown(10, "more")
        await start(town, LATE)
        await until(lambda: joined(town, LATE), "the new node joined by snapshot")
        await ready(town, LATE)
        await books.grown(20, "with the new node")
    assert (await agreed(town, height=books.height))[0] >= books.height
    begun = joined(town, LATE)[-1]
    assert begun > 0
    async with client(town, LATE) as reader:
        await books.check(reader, newest=10)
    assert await metric(town, LATE, "comity_node_signing") == 1
    offered = [await metric(town, each, "comity_snapshot_offers_total") for each in OTHERS]
    assert sum(offered) >= 1
    victim = OTHERS[0]
    kill(town, victim)  # its vote is needed now
    async with working(town, books):
        await books.grown(10, f"with the new node in place of {victim}")
    await start(town, victim)
    await agreed(town, height=books.height)


async def test_a_node_whose_data_is_gone_follows_without_voting(
    far_town: LocalNetwork, books: Books
) -> None:
    town = far_town
    victim = OTHERS[1]
    town.kill(victim)
    shutil.rmtree(data(town, victim))
    config = config_path(town, victim)
    before = config.read_text()
    config.write_text(before.replace("[node]\n", "[node]\nvotes = false\n", 1))
    try:
        async with working(town, books):
            await start(town, victim)
            await until(lambda: joined(town, victim), "it joined by snapshot")
            await ready(town, victim)
            await books.grown(10, "beside it")
        await agreed(town, height=books.height)
        said = await status(town, victim)
        assert said["votes"] is False
        assert await metric(town, victim, "comity_node_signing") == 0
        assert not (data(town, victim) / "signer.mark").exists()
        town.kill(victim)
        await start(town, victim)  # and goes on after a crash
        await agreed(town, height=books.height)
    finally:
        config.write_text(before)


async def test_a_used_key_with_new_data_is_not_taken_for_a_new_one(
    far_town: LocalNetwork, books: Books
) -> None:
    town = far_town
    victim = OTHERS[1]
    if town.running(victim):
        town.kill(victim)
    shutil.rmtree(data(town, victim))
    count = len(joined(town, victim))
    async with working(town, books):
        await books.grown(10, "without it")
        town.start(victim)
        await until(
            lambda: "PROMISES_LOST" in town.log(victim) or not town.running(victim),
            "it notices that its promises are lost",
        )
    assert len(joined(town, victim)) == count
