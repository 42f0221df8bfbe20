"""The next executor of a real network: activated by the charter, called off, waited for.

Not here: releases that lack it (``older``).
"""

from __future__ import annotations

from typing import Any

from comity import Call, Client
from scripts.localmembers import CHIEF
from scripts.localnet import LocalNetwork
from tests.network.town import PATIENCE_SECONDS, eventually, status

AHEAD_MS = 15_000
"""From the proposal to the executor's time: the approvals and the notice lie between."""
AGREEING = ("registry", "social", "treasury")


async def activate(network: LocalNetwork, number: int, ahead_ms: int = AHEAD_MS) -> int:
    """Have a quorum of agencies say from when an executor is in force; return when."""
    first, *others = AGREEING
    async with chief(network, first) as client:
        from_ms = await client.now_ms() + ahead_ms
        call = Call("charter", "activate_executor", {"number": number, "from": from_ms})
        made = await client.propose(call, reads=await client.read_for(call))
        assert made.state == "proposed", made
    for agency in others:
        async with chief(network, agency) as client:
            assert (await client.approve(made.txid)).applied
    async with chief(network, first) as client:
        assert (await client.settled(made.txid)).state == "executed"
    return from_ms


async def call_off(network: LocalNetwork, number: int) -> None:
    """Have f + 1 agencies object to an executor that is still to come."""
    for agency in AGREEING[:2]:
        async with chief(network, agency) as client:
            assert (await client.object_rules("~executor", number)).applied


def chief(network: LocalNetwork, agency: str) -> Any:
    """A client of an agency's chief."""
    return Client.connect(
        network.genesis,
        servers=[agency],
        key=network.key(agency, CHIEF),
        patience_seconds=PATIENCE_SECONDS,
    )


async def until_in_force(network: LocalNetwork, number: int, *agencies: str) -> None:
    """Wait until nodes execute by an executor."""

    async def everywhere() -> bool:
        said = [await status(network, agency) for agency in agencies]
        return all(each.get("executor", {}).get("in_force") == number for each in said)

    await eventually(everywhere, f"executor {number} is in force")
