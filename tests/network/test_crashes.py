"""Nodes killed with SIGKILL under load: work goes on, and nothing that was proved is ever lost."""

from __future__ import annotations

import pytest

from scripts.localnet import LocalNetwork
from tests.network.town import NAMES, agreed, client, kill, leader, start
from tests.network.work import Books, working

pytestmark = pytest.mark.process


async def test_work_goes_on_while_one_node_after_the_other_is_killed_and_comes_back(
    town: LocalNetwork, books: Books
) -> None:
    async with working(town, books):
        for turn in range(3):
            victim = await leader(town) if turn % 2 else NAMES[turn]
            kill(town, victim)
            await books.grown(10, f"without {victim}")
            await start(town, victim)
            await agreed(town, height=books.height)
    assert (await agreed(town, height=books.height))[0] >= books.height
    async with client(town, "registry") as reader:
        await books.check(reader)


async def test_every_receipt_outlives_the_death_of_all_nodes_at_once(
    town: LocalNetwork, books: Books
) -> None:
    async with working(town, books):
        before = dict(books.decisions)
        kill(town, *town.agencies)
        await start(town, *town.agencies)
        async with client(town, "treasury") as reader:
            for txid, told in before.items():
                assert await reader.decision(txid) == told
        await books.grown(10, "after all had died")
    await agreed(town, height=books.height)
    for agency in town.agencies:
        async with client(town, agency) as reader:
            await books.check(reader)
