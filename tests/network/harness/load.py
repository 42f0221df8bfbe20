"""Clients that pay, write and read without pause, and record what they ask and are told.

A client sends the same bytes until they are decided. Payments go between wallets, some of more than
there is; notes are written and amended by several clients at once, so that some come too late.

Not here: which faults happen meanwhile; whether the answers fit (``checker``).
"""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from comity import Call, Client, UndecidedError
from comity.auditing import exporting, fetching
from comity.errors import NotReachableError, RequestError
from comity.keys import Key
from scripts.localnet import LocalNetwork
from tests.network.harness import chain, checker
from tests.network.harness.history import Recorder
from tests.network.town import CLERKS, NAMES, OPENING, WALLETS, client, until

NOTES = 8
READ_SHARE = 0.3
NOTE_SHARE = 0.2
TOO_MUCH_SHARE = 0.02
PAUSE_SECONDS = 0.02
"""After a request that nobody took."""


class Load:
    """What clients do in one network.

    Args:
        seed: of what they choose; when things happen is the machine's.
        pause_seconds: between two requests of a client, so that a machine has room for faults.
    """

    def __init__(
        self, town: LocalNetwork, recorder: Recorder, seed: int = 0, pause_seconds: float = 0.0
    ) -> None:
        self.town = town
        self.recorder = recorder
        self.pause_seconds = pause_seconds
        self.longest_gap_seconds = 0.0
        """Longest time without any receipt so far, of all clients together."""
        self._random = random.Random(seed)
        self._decided_at: float | None = None
        self._ending = False

    @asynccontextmanager
    async def running(
        self, clerks: int = CLERKS, agencies: Sequence[str] = NAMES
    ) -> AsyncIterator[None]:
        """Keep clients at work for the length of the block; at its end all is decided."""
        self._ending = False
        self._decided_at = None
        async with trio.open_nursery() as nursery:
            for index in range(clerks):
                nursery.start_soon(self._clerk, index, tuple(agencies))
            yield
            self._ending = True

    async def grown(self, count: int, what: str) -> None:
        """Wait until so many more acts are decided."""
        wanted = self.recorder.decided + count
        await until(lambda: self.recorder.decided >= wanted, f"{count} more decisions {what}")

    async def _clerk(self, index: int, agencies: tuple[str, ...]) -> None:
        turn = index % len(agencies)
        order = agencies[turn:] + agencies[:turn]
        name = f"clerk{index}"
        async with client(self.town, *order, key=self.town.key("treasury", name)) as own:
            while not self._ending:
                await self._once(own, name)
                await trio.sleep(self.pause_seconds)

    async def _once(self, own: Client, name: str) -> None:
        draw = self._random.random()
        if draw < READ_SHARE:
            kind, number = self._random.choice((("wallet", self._wallet()), ("note", self._note())))
            await read(self.recorder, own, name, kind, number)
        elif draw < READ_SHARE + NOTE_SHARE:
            note = self._note()
            version = await read(self.recorder, own, name, "note", note)
            if version is not None:
                await self._note_act(own, name, note, version)
        else:
            source = self._wallet()
            target = (source + self._random.randrange(1, WALLETS)) % WALLETS
            too_much = self._random.random() < TOO_MUCH_SHARE
            amount = OPENING * WALLETS if too_much else self._random.randrange(1, 100)
            inputs = {"source": source, "target": target, "amount": amount}
            await self._submit(own, name, Call("desk", "pay", inputs), list(inputs.values()))

    def _wallet(self) -> int:
        return self._random.randrange(WALLETS)

    def _note(self) -> int:
        return self._random.randrange(NOTES)

    async def _note_act(self, own: Client, name: str, note: int, version: int) -> None:
        if version == 0:
            inputs: dict[str, Any] = {"number": note, "text": "new", "amount": 1}
            call = Call("desk", "write", inputs)
        else:
            call = Call("desk", "amend", {"note": [note], "text": "newer"})
        try:
            reads = await own.read_for(call)
        except NotReachableError:
            return
        expected = next(e.version for e in reads if e.key.components[0] == "note")
        if (expected == 0) == (version == 0):  # else another client was quicker
            await self._submit(own, name, call, [note, expected], reads)

    async def _submit(
        self, own: Client, name: str, call: Call, inputs: list[Any], reads: Sequence[Any] = ()
    ) -> None:
        try:
            signed = own.sign(await own.draft(call, reads=reads))
        except NotReachableError:
            return
        what = {"do": "submit", "txid": signed.txid.hex(), "call": [call.action, *inputs]}
        n = self.recorder.asked(name, what)
        while True:
            try:
                decision = await own.submit(signed)
            except UndecidedError:
                continue
            except (NotReachableError, RequestError) as error:
                if isinstance(error, RequestError) and not error.elsewhere:
                    raise
                await trio.sleep(PAUSE_SECONDS)
                continue
            break
        self._note_receipt()
        assert decision.txid == signed.txid
        self.recorder.told(
            n,
            "decided",
            height=decision.height,
            index=decision.index,
            code=decision.code,
            root=decision.root.hex(),
        )

    def _note_receipt(self) -> None:
        now = trio.current_time()
        if self._decided_at is not None:
            self.longest_gap_seconds = max(self.longest_gap_seconds, now - self._decided_at)
        self._decided_at = now


async def read(recorder: Recorder, own: Client, name: str, kind: str, number: int) -> int | None:
    """Read a balance or a version with proof; None if no node answered."""
    n = recorder.asked(name, {"do": "read", "of": [kind, number]})
    try:
        space = ("account", "wallet") if kind == "wallet" else ("record", "note")
        entry = await own.get(*space, number)
    except NotReachableError:
        recorder.told(n, "unknown")
        return None
    value = int(entry.value[1]) if kind == "wallet" else entry.version
    recorder.told(n, "read", height=entry.height, value=value)
    return value


async def audit_file(
    town: LocalNetwork, agency: str, height: int, folder: Path, key: Key | None = None
) -> Path:
    """Have a node tell its whole log up to a height at least, as an audit file.

    Asked with ``key``, or as the first clerk.
    """
    path = folder / f"{agency}-{height}.audit"

    def run(work: fetching.Work) -> None:
        async def main() -> None:
            async with client(town, agency, key=key) as reader:
                await reader.past(height)  # waits for a later certificate
                await work(reader)

        trio.run(main)

    def write() -> None:
        frames = fetching.from_node(run, town.genesis, 0, height)
        exporting.export(frames, path, 0, height, lambda *_: None)

    await trio.to_thread.run_sync(write)
    return path


async def verdict(
    town: LocalNetwork, recorder: Recorder, *agencies: str, others: Iterable[bytes] = ()
) -> checker.Verdict:
    """Read all wallets; hold what was recorded against the log of nodes, of all if none is named.

    ``others`` are transactions that none of the clients sent. Nobody may be at work any more.
    """
    named = agencies or town.agencies
    async with client(town, named[0]) as counter:
        await counter.past(recorder.newest_height)
        for wallet in range(WALLETS):
            await read(recorder, counter, "counter", "wallet", wallet)
    height = recorder.newest_height
    chains = []
    for agency in named:
        path = await audit_file(town, agency, height, recorder.path.parent)
        chains.append(await trio.to_thread.run_sync(chain.read, path, town.genesis))
        path.unlink()
    lines = recorder.path.read_text(encoding="utf-8").splitlines()
    opening = dict.fromkeys(range(WALLETS), OPENING)
    found = checker.judge(checker.read_history(lines), chains, opening, frozenset(others))
    if not found.marks.get("money counted"):
        found.complain("the wallets could not be read after the last payment")
    return found
