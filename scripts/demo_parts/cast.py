"""The network of the demonstration and the people who act on it.

Four agencies with a node each. Everybody has an own key in an own file, and an own client that
prefers one node; all receipts that anybody gets are kept, so that they can be asked for later.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import trio

from comity import founding, keys
from comity.client import Client
from comity.drafting import Call
from comity.keys import Key
from comity.results import Decision, Entry, Height
from consensus import genesis as genesis_file
from consensus.codec import Value
from consensus.keyfile import KeyKind, KeyPair
from consensus.ledger.transaction import Unsigned
from consensus.protocol import HEIGHTS_MAX, KEYS_MAX, StateKey
from scripts import localnet
from scripts.localnet import ROOT, START_SECONDS_MAX, LocalNetwork

RULES: Final = ROOT / "configs" / "rules"
PLAN: Final = ROOT / "configs" / "demonstration.toml"
PATIENCE_SECONDS: Final = 90.0
"""Clients outlast an outage of all nodes."""
CAUGHT_UP_SECONDS_MAX: Final = 40.0
POLL_SECONDS: Final = 0.05


def found(folder: Path) -> LocalNetwork:
    """Make genesis file, keys and configurations of the network in an empty folder."""
    people, accounts = founding.read_plan(PLAN)
    rules = sorted(RULES.glob("*.toml"))
    return localnet.found(folder, rules, people, accounts, network="demonstration")


async def eventually(holds: Callable[[], Awaitable[bool]], seconds_max: float) -> bool:
    """Wait until something holds; return whether it did so in time."""
    with trio.move_on_after(seconds_max):
        while True:
            if await holds():
                return True
            await trio.sleep(POLL_SECONDS)
    return False


@dataclass(slots=True)
class Receipts:
    """Every decision that anybody got, in the order they came."""

    decisions: list[Decision] = field(default_factory=list)
    height: int = 0
    """The highest of them."""

    def keep(self, decisions: Sequence[Decision]) -> None:
        """Keep receipts."""
        self.decisions += decisions
        self.height = max(self.height, *(each.height for each in decisions))

    @property
    def roots(self) -> dict[tuple[int, int], bytes]:
        """The hash of each decision at its height and index."""
        return {(each.height, each.index): each.root for each in self.decisions}


@dataclass(frozen=True, slots=True)
class Office:
    """Somebody at work: a name, a client with the own key, and where receipts go.

    Before an office reads, its node has certified whatever anybody has a receipt of: people talk.
    """

    name: str
    agency: str
    client: Client
    receipts: Receipts

    async def informed(self) -> None:
        """Wait until the office's node has certified every receipt that anybody has got.

        Raises:
            RuntimeError: it takes longer than CAUGHT_UP_SECONDS_MAX.
        """
        height = self.receipts.height

        async def reached() -> bool:
            return self.client.trust.height >= height or bool(await self.client.statements(height))

        if not await eventually(reached, CAUGHT_UP_SECONDS_MAX):
            raise RuntimeError(f"no node shows height {height} to {self.name}")

    async def read(self, *calls: Call) -> tuple[Entry, ...]:
        """Read everything that the calls rest on: what their author looks at before acting."""
        await self.informed()
        return tuple([entry for call in calls for entry in await self.client.read_for(call)])

    async def send(self, *calls: Call, reads: Sequence[Entry] = ()) -> Decision:
        """Submit one transaction on what was read; return its decision."""
        decision = await self.client.transact(*calls, reads=reads)
        self.receipts.keep([decision])
        return decision

    async def act(self, *calls: Call) -> Decision:
        """Read, then submit."""
        return await self.send(*calls, reads=await self.read(*calls))

    async def entry(self, namespace: str, *components: Value) -> Entry:
        """Return one proved leaf of the state."""
        await self.informed()
        return await self.client.get(namespace, *components)

    async def entries(self, wanted: Sequence[StateKey]) -> list[Entry]:
        """Return proved leaves, asked for in as many requests as it takes, several at a time."""
        await self.informed()
        found: dict[int, tuple[Entry, ...]] = {}
        limit = trio.CapacityLimiter(4)

        async def some(first: int) -> None:
            async with limit:
                found[first] = await self.client.get_many(wanted[first : first + KEYS_MAX])

        async with trio.open_nursery() as nursery:
            for first in range(0, len(wanted), KEYS_MAX):
                nursery.start_soon(some, first)
        return [entry for first in sorted(found) for entry in found[first]]

    async def decisions_since(self, first: int) -> list[Height]:
        """Return all certified heights from one on, with all their decisions."""
        await self.informed()
        newest = await self.client.statements(-1)
        found: list[Height] = []
        while first <= newest[-1].height:
            found += await self.client.decisions(first, HEIGHTS_MAX)
            first = found[-1].height + 1
        return found

    async def draft(self, call: Call, reads: Sequence[Entry]) -> Unsigned:
        """Return a transaction, not yet signed."""
        return await self.client.draft(call, reads=reads)


@dataclass
class Cast:
    """Everybody, on one network. ``office`` opens a client for somebody; all end together."""

    network: LocalNetwork
    nursery: trio.Nursery
    receipts: Receipts = field(default_factory=Receipts)
    offices: dict[str, Office] = field(default_factory=dict)

    async def office(self, name: str, node: str = "", fallback: bool = True) -> Office:
        """Return somebody's client: ``agency/person``, at ``node`` or else the agency's own.

        Args:
            name: of a key file.
            node: preferred; the others stand in for it.
            fallback: False: only that node.
        """
        found = self.offices.get(name)
        if found is None:
            agency, _, person = name.partition("/")
            key = self.network.key(agency, person)
            found = await self.open(name, key, node or agency, fallback)
            self.offices[name] = found
        return found

    async def open(self, name: str, key: Key | None, node: str, fallback: bool = True) -> Office:
        """Return a new client with a key, at a node."""
        others = [agency for agency in self.network.agencies if agency != node and fallback]
        client = await self.nursery.start(self._host, [node, *others], key)
        return Office(name, name.partition("/")[0], client, self.receipts)

    async def _host(
        self,
        servers: Sequence[str],
        key: Key | None,
        task_status: trio.TaskStatus[Client] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Keep a client open, in a task of its own, until the cast ends."""
        async with Client.connect(
            self.network.genesis, servers=servers, key=key, patience_seconds=PATIENCE_SECONDS
        ) as client:
            task_status.started(client)
            await trio.sleep_forever()

    def new_key(self, agency: str, person: str) -> KeyPair:
        """Make a key in an agency's folder, as its own machine would."""
        pair = keys.new_pair(KeyKind.CLIENT)
        keys.create(self.network.key_file(agency, person), pair)
        return pair

    def principal(self, name: str) -> bytes:
        """Return the id of somebody whom the genesis file names."""
        agency, _, person = name.partition("/")
        public = self.network.key(agency, person).public
        return dict(genesis_file.decode(self.network.genesis).keys)[public]

    # --- nodes --------------------------------------------------------------------------------

    async def ready(self, agency: str) -> None:
        """Wait until a node says that it is ready.

        Raises:
            RuntimeError: it stopped, or took longer than START_SECONDS_MAX.
        """

        async def over() -> bool:
            return not self.network.running(agency) or await ready()

        async def ready() -> bool:
            return bool((await self.telemetry(agency)).get("ready"))

        if not await eventually(over, START_SECONDS_MAX) or not self.network.running(agency):
            raise self.network.not_ready(agency)

    async def telemetry(self, agency: str) -> dict[str, Any]:
        """Return what a node says of itself on its telemetry port; empty when it is down."""
        page = await trio.to_thread.run_sync(
            self.network.http, agency, "/readyz", abandon_on_cancel=True
        )
        body = page.partition(b"\r\n\r\n")[2]
        return dict(json.loads(body)) if body else {}

    async def reached(self, agency: str, height: int) -> int:
        """Wait until a node has certified a height; return how far it is.

        Raises:
            RuntimeError: it takes longer than CAUGHT_UP_SECONDS_MAX.
        """
        certified = 0

        async def there() -> bool:
            nonlocal certified
            certified = int((await self.telemetry(agency)).get("certified", 0))
            return certified >= height

        if not await eventually(there, CAUGHT_UP_SECONDS_MAX):
            raise RuntimeError(f"the node of {agency} is at height {certified}, not at {height}")
        return certified

    async def same_root(self) -> tuple[int, dict[str, str]]:
        """Wait until all nodes have certified the same height; return it and each one's root.

        After CAUGHT_UP_SECONDS_MAX the roots of whatever heights there are come back.
        """
        found: dict[str, dict[str, Any]] = {}

        async def agree() -> bool:
            for agency in self.network.agencies:
                found[agency] = await self.telemetry(agency)
            return len({each.get("certified") for each in found.values()}) == 1

        await eventually(agree, CAUGHT_UP_SECONDS_MAX)
        height = max(int(each.get("certified", 0)) for each in found.values())
        return height, {name: str(each.get("state_root")) for name, each in found.items()}


@asynccontextmanager
async def assembled(network: LocalNetwork) -> AsyncIterator[Cast]:
    """Give a cast on a running network; all clients end with the block."""
    async with trio.open_nursery() as nursery:
        yield Cast(network, nursery)
        nursery.cancel_scope.cancel()
