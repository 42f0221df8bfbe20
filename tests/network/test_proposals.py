"""Proposals over the real network: kept, found and approved through other nodes, and by crashes."""

from __future__ import annotations

import pytest
import trio

from comity import Call, Client
from scripts.localnet import LocalNetwork
from tests.network.town import AGENT, WALLETS, agreed, client, eventually, kill, start

pytestmark = pytest.mark.process

SOURCE, TARGET = WALLETS + 2, WALLETS + 3
"""Wallets that nobody else pays from or to."""


def promise(amount: int) -> Call:
    return Call("desk", "promise", {"source": SOURCE, "target": TARGET, "amount": amount})


async def waiting(reader: Client) -> list[bytes]:
    return [each.txid for each in (await reader.pending()).proposals]


async def balance(reader: Client) -> int:
    return int((await reader.get("account", "wallet", TARGET)).value[1])


async def test_proposals_outlive_the_death_of_all_nodes_and_take_effect_everywhere_alike(
    town: LocalNetwork,
) -> None:
    auditor = town.key("integrity", "auditor")
    async with client(town, "treasury") as clerk:
        before = await balance(clerk)
        made = [await clerk.propose(promise(amount)) for amount in (3, 5, 7)]
        assert {each.code for each in made} == {"PROPOSED"}
        txids = [each.txid for each in made]
        assert await waiting(clerk) == []
        kill(town, *town.agencies)
        await start(town, *town.agencies)
    async with client(town, AGENT, key=auditor) as asked, client(town, "treasury") as clerk:
        found = await eventually(lambda: waiting(asked), "the auditor is told what waits")
        assert sorted(found) == sorted(txids)
        assert (await asked.approve(txids[0])).applied
        assert (await asked.object_to(txids[1], "no")).applied
        with trio.fail_after(30):
            done = await clerk.settled(txids[0])
            refused = await clerk.settled(txids[1])
        assert (done.state, refused.state) == ("executed", "objected")
        assert await balance(clerk) == before + 3
        effect = await clerk.effect(txids[0])
        assert (effect.code, effect.txid) == ("APPLIED", txids[0])
        height, _ = await agreed(town, height=effect.height)
        assert height >= effect.height
        kill(town, AGENT)
    await start(town, AGENT)
    async with client(town, AGENT, key=auditor) as asked:
        assert await asked.effect(txids[0]) == effect
        assert (await asked.decision(txids[0])).state == "proposed"
        assert await waiting(asked) == [txids[2]]
        ended = (await asked.proposals("treasury", "objected")).proposals
        reasons = {each.txid: each.end and each.end.why for each in ended}
        assert {txid: reasons.get(txid) for txid in txids} == {
            txids[0]: None,
            txids[1]: "no",
            txids[2]: None,
        }
        assert (await asked.approve(txids[2])).applied
        assert (await asked.effect(txids[2])).applied
        assert await balance(asked) == before + 10
