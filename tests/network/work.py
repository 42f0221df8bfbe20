"""Clerks who pay without pause, each bytes again until decided, and the books that must result.

The books are kept apart from the product: from what was sent and the outcomes that were proved.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from comity import Call, Client, Decision, UndecidedError
from scripts.localnet import LocalNetwork
from tests.network.town import CLERKS, NAMES, OPENING, WALLETS, client, until


class Books:
    """What clerks were told: every proved decision, and the balances that follow from them."""

    def __init__(self) -> None:
        self.decisions: dict[bytes, Decision] = {}
        self.balances = dict.fromkeys(range(WALLETS), OPENING)
        self.pausing = False
        self._numbers = itertools.count(1)

    @property
    def count(self) -> int:
        """Decisions so far."""
        return len(self.decisions)

    @property
    def height(self) -> int:
        """The highest height of a decision so far."""
        return max((each.height for each in self.decisions.values()), default=0)

    async def pay(self, clerk: Client) -> Decision:
        """Pay once, sending the same bytes until they are decided, and enter the outcome."""
        source, target, amount, call = self._call()
        signed = clerk.sign(await clerk.draft(call))
        while True:
            try:
                decision = await clerk.submit(signed)
                break
            except UndecidedError:
                continue
        assert decision.txid == signed.txid
        assert signed.txid not in self.decisions
        self.decisions[signed.txid] = decision
        if decision.applied:
            self.balances[source] -= amount
            self.balances[target] += amount
        return decision

    def _call(self) -> tuple[int, int, int, Call]:
        number = next(self._numbers)
        source, target, amount = number % WALLETS, (number * 7 + 3) % WALLETS, number % 90 + 1
        inputs = {"source": source, "target": target, "amount": amount}
        return source, target, amount, Call("desk", "pay", inputs)

    async def pay_once(self, clerk: Client) -> Decision:
        """Pay with one try, at a node that must refuse; nothing is entered."""
        return await clerk.submit(clerk.sign(await clerk.draft(self._call()[3])))

    async def grown(self, count: int, what: str) -> None:
        """Wait until this many more decisions are in the books."""
        wanted = self.count + count
        await until(lambda: self.count >= wanted, f"{count} more decisions {what}")

    async def check(self, reader: Client, newest: int = 100) -> None:
        """The newest decisions are still there with their proofs, and all balances are right."""
        assert Counter(each.code for each in self.decisions.values()) == {"APPLIED": self.count}
        for txid, told in list(self.decisions.items())[-newest:]:
            assert await reader.decision(txid) == told
        for number, balance in self.balances.items():
            assert (await reader.get("account", "wallet", number)).value[1] == balance


@asynccontextmanager
async def working(town: LocalNetwork, books: Books) -> AsyncIterator[Books]:
    """Keep clerks paying at every node for the length of the block; at its end all is decided."""
    ending = False

    async def clerk(index: int) -> None:
        order = NAMES[index:] + NAMES[:index]
        key = town.key("treasury", f"clerk{index}")
        async with client(town, *order, key=key) as own:
            while not ending:
                if books.pausing:
                    await trio.sleep(0.02)
                else:
                    await books.pay(own)

    async with trio.open_nursery() as nursery:
        for index in range(CLERKS):
            nursery.start_soon(clerk, index)
        await books.grown(CLERKS, "before anything is broken")
        yield books
        ending = True
