"""Nodes killed with SIGKILL under load: work goes on, and nothing that was proved is ever lost."""

from __future__ import annotations

from contextlib import aclosing

import pytest

from comity import Cursor, Decision
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


async def test_a_follower_misses_nothing_and_gets_nothing_twice_while_its_node_is_killed(
    town: LocalNetwork, books: Books
) -> None:
    followed: list[Decision] = []
    async with working(town, books), client(town, *NAMES) as reader:
        first = (await reader.statements(-1))[0].height + 1
        killed = False
        async with aclosing(reader.follow(Cursor(first))) as feed:
            async for decision in feed:
                followed.append(decision)
                if len(followed) == 20 and not killed:
                    killed = True
                    kill(town, NAMES[0])  # the one it prefers
                if len(followed) >= 60:
                    break
        await start(town, NAMES[0])
    last = followed[-1]
    async with client(town, NAMES[0]) as reader:
        told: list[Decision] = []
        while not told or told[-1].height < last.height:
            for height in await reader.decisions(told[-1].height + 1 if told else first, 64):
                told += height.decisions or ()
    assert followed == told[: len(followed)]


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
