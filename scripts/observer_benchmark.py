"""How much reading an observer takes off a validator, in processor time of each.

    python -m scripts.observer_benchmark [SECONDS]

One network, an idle ledger, READERS clients that read a wallet each with proof, one after another:
first all at one validator, then all at an observer that follows it. Processor time of a process
does not depend on what else the machine does, so it is the figure; reads a second are of this
machine in this moment.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import trio

from comity import servers
from comity.client import Client
from comity.founding import Person
from comity.keys import Key
from comity.session import Server
from consensus.genesis import SYSTEM, OpeningBalance
from node.telemetry import process
from scripts import localmembers
from scripts.localmembers import Town
from scripts.localnet import ROOT

READERS: Final = 8
WALLETS: Final = 64
SECONDS: Final = 8.0
VALIDATOR: Final = "treasury"
OBSERVER: Final = "court"
RULES: Final = [ROOT / "configs/rules/charter.toml", ROOT / "configs/bench/transfers.toml"]
READER: Final = Person("reader", VALIDATOR, SYSTEM, (("bench.operator", ()),))


async def reads(town: Town, server: str | Server, key: Key, seconds: float) -> dict[str, Any]:
    """Have clients of one node read for a while; return counts and processor time of nodes."""
    network = town.network
    pids = {each: network.processes[each].pid for each in (VALIDATOR, OBSERVER)}
    count = 0

    async def reader(number: int, clients: Sequence[Client]) -> None:
        nonlocal count
        while True:
            entry = await clients[number].get("account", "wallet", number % WALLETS)
            if not entry.present:
                raise RuntimeError(f"wallet {number % WALLETS} is not there")
            count += 1

    async def connected(left: int, clients: list[Client]) -> None:
        if left:
            async with Client.connect(network.genesis, servers=[server], key=key) as client:
                await client.status()
                await connected(left - 1, [*clients, client])
            return
        before = {each: process.used([pid]).cpu_seconds for each, pid in pids.items()}
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in range(READERS):
                    nursery.start_soon(reader, number, clients)
        for each, pid in pids.items():
            used[each] = process.used([pid]).cpu_seconds - before[each]

    used: dict[str, float] = {}
    await connected(READERS, [])
    return {"reads": count, "reads_per_second": round(count / seconds), "cpu_seconds": used}


async def idle(town: Town, seconds: float) -> dict[str, float]:
    """Return the processor time that nodes take while nobody asks."""
    pids = {each: town.network.processes[each].pid for each in (VALIDATOR, OBSERVER)}
    before = {each: process.used([pid]).cpu_seconds for each, pid in pids.items()}
    await trio.sleep(seconds)
    return {each: process.used([pid]).cpu_seconds - before[each] for each, pid in pids.items()}


def measure(seconds: float) -> dict[str, Any]:
    """Return what reading costs whom."""
    accounts = [OpeningBalance("wallet", (number,), 10**6) for number in range(WALLETS)]
    with tempfile.TemporaryDirectory(prefix="comity-observer-", dir="/var/tmp") as folder:
        town = localmembers.found(Path(folder) / "network", RULES, [READER], accounts)
        newcomer = town.add(OBSERVER, "observer")
        with town.network as network:
            network.start_all()
            key = network.key(VALIDATOR, READER.name)
            member = network.member(OBSERVER)
            near = servers.observer(newcomer.validator.certificate, member.host, member.client_port)

            async def both() -> dict[str, Any]:
                quiet = await idle(town, seconds)
                found: dict[str, Any] = {"idle": {"cpu_seconds": quiet}}
                found["at the validator"] = await reads(town, VALIDATOR, key, seconds)
                found["at the observer"] = await reads(town, near, key, seconds)
                for each in ("at the validator", "at the observer"):
                    row = found[each]
                    row["us_per_read"] = {
                        name: round((used - quiet[name]) / row["reads"] * 1e6)
                        for name, used in row["cpu_seconds"].items()
                    }
                return found

            return trio.run(both)


if __name__ == "__main__":
    print(json.dumps(measure(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS), indent=1))
