"""What the metrics of coordination say of a real network, also after a node has begun again."""

from __future__ import annotations

import pytest
import trio

from comity import Call, Client, Decision
from scripts.localnet import LocalNetwork
from tests.network.town import (
    AGENT,
    OPENING,
    WALLETS,
    agreed,
    client,
    eventually,
    kill,
    metric,
    start,
)

pytestmark = pytest.mark.process

SOURCE, TARGET, NOTE = WALLETS + 4, WALLETS + 5, 7001
"""Wallets and a note that nobody else uses."""
PROPOSALS_MANY, PROPOSERS = 1_536, 32
FREEZE = Call("desk", "freeze", {"note": [NOTE]})
NAMES = {
    "refused": ("comity_ledger_refusals_total", {"domain": "desk", "code": "INSUFFICIENT"}),
    "held": ("comity_ledger_refusals_total", {"domain": "desk", "code": "HELD"}),
    "holds": ("comity_ledger_holds_in_force", {"domain": "desk"}),
    "placed": ("comity_ledger_holds_total", {"domain": "desk", "event": "placed"}),
    "waiting": ("comity_ledger_proposals_waiting", {"domain": "desk"}),
    "objected": ("comity_ledger_proposal_seconds_count", {"domain": "desk", "end": "objected"}),
    "decided": ("comity_client_seconds_count", {"work": "decision"}),
}


async def act(own: Client, call: Call) -> Decision:
    return await own.transact(call, reads=await own.read_for(call))


async def told(town: LocalNetwork) -> dict[str, float]:
    return {key: await metric(town, AGENT, name, **labels) for key, (name, labels) in NAMES.items()}


@pytest.mark.long
async def test_drafts_of_whatever_salt_stop_no_node(town: LocalNetwork) -> None:
    """Salts are drawn: of so many, one in 400 times none ends in some one byte."""
    promise = Call("desk", "promise", {"source": SOURCE, "target": TARGET, "amount": 1})
    async with client(town, AGENT) as clerk:

        async def propose() -> None:
            for _ in range(PROPOSALS_MANY // PROPOSERS):
                assert (await clerk.propose(promise)).code == "PROPOSED"

        async with trio.open_nursery() as nursery:
            for _ in range(PROPOSERS):
                nursery.start_soon(propose)
        newest = (await clerk.propose(promise)).height
    await agreed(town, height=newest)


async def test_conflicts_holds_and_proposals_are_told_by_domain_and_outlive_a_restart(
    town: LocalNetwork,
) -> None:
    before = await told(town)
    auditor = town.key("integrity", "auditor")
    wallets = {"source": SOURCE, "target": TARGET}
    async with client(town, AGENT) as clerk, client(town, AGENT, key=auditor) as asked:
        too_much = Call("desk", "pay", {**wallets, "amount": 2 * OPENING})
        assert (await clerk.transact(too_much)).code == "INSUFFICIENT"
        note = Call("desk", "write", {"number": NOTE, "text": "a", "amount": 1})
        assert (await act(clerk, note)).applied
        assert (await act(asked, FREEZE)).applied
        amend = Call("desk", "amend", {"note": [NOTE], "text": "b"})
        held = await act(clerk, amend)
        assert held.code == "HELD"
        promise = Call("desk", "promise", {**wallets, "amount": 1})
        waiting = await clerk.propose(promise)
        ended = await clerk.propose(promise)
        assert (await asked.object_to(ended.txid, "no")).applied
        expected = dict.fromkeys(("refused", "held", "holds", "placed", "waiting", "objected"), 1)

        async def shown() -> bool:
            now = await told(town)
            return {key: now[key] - before[key] for key in expected} == expected

        await eventually(shown, "the node tells what happened")
        now = await told(town)
        assert now["decided"] - before["decided"] >= 6
        height, _ = await agreed(town, height=ended.height)

    kill(town, AGENT)
    await start(town, AGENT)
    await agreed(town, height=height)

    async def again() -> bool:
        found = await told(town)
        return [found[key] for key in ("holds", "waiting")] == [now["holds"], now["waiting"]]

    await eventually(again, "what was before is counted again")
    async with client(town, AGENT) as clerk, client(town, AGENT, key=auditor) as asked:
        assert (await asked.approve(waiting.txid)).applied

        async def over() -> bool:
            return (
                await metric(town, AGENT, NAMES["waiting"][0], domain="desk") == before["waiting"]
            )

        await eventually(over, "nothing waits any more")
