"""Taking acts back over the real network, with evidence that outlives the death of all nodes."""

from __future__ import annotations

import pytest

from comity import Call, Client
from comity.results import Decision
from scripts.localnet import LocalNetwork
from tests.network.town import AGENT, WALLETS, agreed, client, kill, start

pytestmark = pytest.mark.process

SOURCE, TARGET = WALLETS + 4, WALLETS + 5
"""Wallets that nobody else pays from or to."""
NOTE = 700_001


async def act(clerk: Client, action: str, **inputs: object) -> Decision:
    call = Call("desk", action, inputs)
    done = await clerk.transact(call, reads=await clerk.read_for(call))
    assert done.applied, done.detail
    return done


async def balance(reader: Client, family: str, number: int) -> int:
    found = await reader.get("account", family, number)
    return int(found.value[1]) if found.present else 0


async def test_acts_are_taken_back_with_evidence_of_any_node_before_and_after_all_died(
    town: LocalNetwork,
) -> None:
    auditor = town.key("integrity", "auditor")
    async with client(town, "treasury") as clerk:
        before = [await balance(clerk, "wallet", each) for each in (SOURCE, TARGET)]
        await act(clerk, "write", number=NOTE, text="first", amount=1)
        changed = []
        for text in ("second", "third"):
            inputs = {"note": [NOTE], "text": text, "source": SOURCE, "target": TARGET}
            changed.append(await act(clerk, "correct", **inputs, amount=5))
        spent = before[1] + 10 - 4
        await act(clerk, "pay", source=TARGET, target=SOURCE, amount=spent)
    async with client(town, AGENT, key=auditor) as asked:
        shown = await asked.reversal(changed[0].txid)
        assert shown.obstacle == "others have changed since what it would restore"
        back = await asked.reverse(changed[1].txid, "a slip")
        assert back.applied, back.detail
        assert (await asked.get("record", "note", NOTE)).fields["text"] == "second"
        assert await balance(asked, "wallet", TARGET) == 0
        assert await balance(asked, "debt", TARGET) == -1
        assert await balance(asked, "wallet", SOURCE) == before[0] - 10 + spent + 5
        height, _ = await agreed(town, height=back.height)
        assert height >= back.height
        kill(town, *town.agencies)
        await start(town, *town.agencies)
    for agency in town.agencies:
        async with client(town, agency, key=auditor) as asked:
            shown = await asked.reversal(back.txid)
            assert (shown.obstacle, shown.roles) == ("", ("desk.auditor",))
            assert shown.records[0].fields == {"text": "third"}
    async with client(town, key=auditor) as asked:
        again = await asked.submit_reversal(shown)
        assert again.applied, again.detail
        assert (await asked.get("record", "note", NOTE)).fields["text"] == "third"
        assert await balance(asked, "debt", TARGET) == 0
        refused = await asked.submit_reversal(shown)
        assert (refused.code, refused.detail[0]) == ("REQUIREMENT", "REVERSED")
