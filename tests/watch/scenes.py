"""Faults, each with the alerts that it must bring and those that it may.

A scene is a coroutine that breaks something and returns once it is mended. ``must`` are
``(alert, agency)``; "" stands for any agency. What else may fire follows from the fault: a node
that is down has no links, leads no round and casts no vote. All other alarms are false.

Not here: running them (``__main__``).
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from comity import Call, Client, drafting
from comity.client import RulesInForce
from comity.errors import NotReachableError, RequestError
from comity.founding import CONFIG_NAME
from consensus import codec, genesis
from consensus.hotstuff import wire as messages
from consensus.hotstuff.types import BlocksRequest
from consensus.keyfile import KeyKind
from consensus.ledger import batch
from consensus.ledger.transaction import assemble
from consensus.protocol import Item, Submit
from node import batch_wire
from node.network.framing import pack
from node.network.wire import Class
from scripts.localmembers import Town
from scripts.localnet import ROOT, LocalNetwork
from tests.consensus.ledger.authors import Author, signed
from tests.network.executors import AGREEING, activate, call_off
from tests.network.guest import guest
from tests.network.harness.certificates import ending_certificate
from tests.network.harness.disk import TMPFS, Disk
from tests.network.harness.network import as_liar, handicapped, honest, with_clock
from tests.network.harness.relay import Relays
from tests.network.town import NAMES, OPENING, children, client, eventually, kill, metric, start
from tests.network.wire import LOST, Declined, Thief

BROKEN = "social"
"""The node that is broken where any would do."""
OTHER = "integrity"
STOLEN = "registry"
DISK_MIB = 16_384
"""Of each node's file system; tmpfs takes memory for what is written only."""
WEEK_MS = 7 * 86_400_000
ROOM_BYTES = 8 * 2**20
"""What is left of a disk that is then filled."""

GONE = {"ComityPeerMissing", "ComityMarginLost", "ComityLeaderFails", "ComityVotesMissing"}
"""What others see of a node that does not take part."""
AWAY = {*GONE, "ComityNodeDown", "ComityNodeNotReady", "ComityFallsBehind", "ComityPeerSlow"}
"""What is seen of a node that is stopped and comes back."""
STILL = {"ComityNothingCertified", "ComityClientsWait", "ComityResultsLag"}
"""What is seen where nothing can be certified."""


@dataclass
class Stage:
    """The network, its links, and whether each node has a disk of its own."""

    changing: Town
    relays: Relays
    disks: bool
    pausing: bool = False
    """Whether the usual load rests."""

    @property
    def town(self) -> LocalNetwork:
        """The network, apart from how its committee changes."""
        return self.changing.network

    async def again(self, agency: str, *options: str) -> None:
        """Start a node again, as it should be or with a handicap."""
        kill(self.town, agency)
        honest(self.town, agency)
        if options:
            handicapped(self.town, agency, *options)
        await start(self.town, agency)

    @asynccontextmanager
    async def handicap(self, agency: str, *options: str) -> AsyncIterator[None]:
        """A node with a handicap for the length of the block."""
        await self.again(agency, *options)
        try:
            yield
        finally:
            await self.again(agency)

    def _begin(self, words: list[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(words, cwd=ROOT, start_new_session=True)

    @asynccontextmanager
    async def attack(self, name: str, victim: str) -> AsyncIterator[None]:
        """An attack of ``siege`` on a node for the length of the block."""
        files = [str(self.town.key_file("treasury", f"clerk{number}")) for number in range(4)]
        module = "tests.network.harness.siege"
        words = [sys.executable, "-m", module, name, str(self.town.folder), victim, *files]
        process = self._begin(words)
        try:
            yield
        finally:
            process.kill()
            process.wait(10)

    def resize(self, agency: str, size_bytes: int) -> None:
        """Make a node's file system larger or smaller than it was."""
        data = self.town.folder / agency / "data"
        options = f"remount,size={max(size_bytes, 4096)}"
        subprocess.run(["mount", "-o", options, str(data)], check=True, capture_output=True)

    def used_bytes(self, agency: str) -> int:
        """What a node's file system holds."""
        found = os.statvfs(self.town.folder / agency / "data")
        return (found.f_blocks - found.f_bfree) * found.f_frsize


Until = Callable[[], Awaitable[None]]
"""Returns once all alerts that must fire have fired."""


@dataclass(frozen=True)
class Scene:
    """A fault. ``play`` breaks, waits for the alerts, and mends."""

    name: str
    play: Callable[[Stage, Until], Awaitable[None]]
    must: set[tuple[str, str]]
    may: set[str] = field(default_factory=set)
    needs_disks: bool = False
    calm_seconds: float = 6.0
    """How long the healthy network is watched before."""


async def nothing(stage: Stage, until: Until) -> None:
    await trio.sleep(40)


async def idle(stage: Stage, until: Until) -> None:
    stage.pausing = True
    await trio.sleep(20)


async def killed(stage: Stage, until: Until) -> None:
    kill(stage.town, BROKEN)
    await until()
    await start(stage.town, BROKEN)


async def frozen(stage: Stage, until: Until) -> None:
    stage.town.kill(BROKEN, signal.SIGSTOP)
    try:
        await until()
    finally:
        stage.town.kill(BROKEN, signal.SIGCONT)


async def halves(stage: Stage, until: Until) -> None:
    stage.relays.separate(["registry", "social"], ["treasury", "integrity"])
    await until()
    stage.relays.heal()


async def cut_off(stage: Stage, until: Until) -> None:
    stage.relays.isolate(BROKEN)
    await until()
    stage.relays.heal()


async def waiting(stage: Stage, until: Until) -> None:
    """Clients of a node that is cut off for 8 s again and again."""
    stage.pausing = True

    async def pay(number: int) -> None:
        key = stage.town.key("treasury", f"clerk{number}")
        async with client(stage.town, BROKEN, key=key) as own:
            while True:
                with contextlib.suppress(NotReachableError, RequestError):
                    await own.transact(payment(1))
                await trio.sleep(2)

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(pay, number)
        async with trio.open_nursery() as breaking:

            async def cut() -> None:
                while True:
                    stage.relays.isolate(BROKEN)
                    await trio.sleep(8)
                    stage.relays.heal()
                    await trio.sleep(3)

            breaking.start_soon(cut)
            await until()
            breaking.cancel_scope.cancel()
        stage.relays.heal()
        nursery.cancel_scope.cancel()


async def lying(stage: Stage, until: Until) -> None:
    kill(stage.town, BROKEN)
    as_liar(stage.town, BROKEN, 1)
    stage.town.start(BROKEN)
    await until()
    await stage.again(BROKEN)


async def wrong_clock(stage: Stage, until: Until) -> None:
    kill(stage.town, BROKEN)
    with_clock(stage.town, BROKEN, 60_000)
    await start(stage.town, BROKEN)
    await until()
    await stage.again(BROKEN)


async def slow_sync(stage: Stage, until: Until) -> None:
    async with stage.handicap(BROKEN, "--slow", "sync", "0.12"):
        await until()


async def slow_execution(stage: Stage, until: Until) -> None:
    async with stage.handicap(BROKEN, "--slow", "execute", "1"):
        await until()


async def slow_flush(stage: Stage, until: Until) -> None:
    async with stage.handicap(BROKEN, "--slow", "flush", "3600"):
        await until()


async def little_memory(stage: Stage, until: Until) -> None:
    async with stage.handicap(BROKEN, "--memory", str(10 * 2**20)):
        await until()


async def results_withheld(stage: Stage, until: Until) -> None:
    """Three nodes tell nobody their votes on results, so that none has a quorum of them."""
    async with (
        stage.handicap(BROKEN, "--withhold"),
        stage.handicap(OTHER, "--withhold"),
        stage.handicap("treasury", "--withhold"),
    ):
        await until()


async def stuttering(stage: Stage, until: Until) -> None:
    """Stopped for half a second again and again, as by a machine that is too busy."""
    async with trio.open_nursery() as nursery:

        async def stutter() -> None:
            try:
                while True:
                    stage.town.kill(BROKEN, signal.SIGSTOP)
                    await trio.sleep(0.5)
                    stage.town.kill(BROKEN, signal.SIGCONT)
                    await trio.sleep(0.3)
            finally:
                stage.town.kill(BROKEN, signal.SIGCONT)

        nursery.start_soon(stutter)
        await until()
        nursery.cancel_scope.cancel()


async def worker_killed(stage: Stage, until: Until) -> None:
    for pid in children([stage.town.processes[BROKEN].pid]):
        os.kill(pid, signal.SIGKILL)
    await until()


async def started_again(stage: Stage, until: Until) -> None:
    for _ in range(3):
        await stage.again(BROKEN)
        await trio.sleep(2)
    await until()


async def disk_full(stage: Stage, until: Until) -> None:
    disk = Disk(stage.town, BROKEN, TMPFS)
    stage.resize(BROKEN, stage.used_bytes(BROKEN) + ROOM_BYTES)
    disk.fill()
    await until()
    stage.resize(BROKEN, DISK_MIB * 2**20)
    disk.free()
    await stage.again(BROKEN)


async def disk_filling(stage: Stage, until: Until) -> None:
    """Room goes from 60 times what is used to a twentieth of it."""
    async with trio.open_nursery() as nursery:

        async def shrink() -> None:
            share = 60.0
            while True:
                used = stage.used_bytes(BROKEN)
                stage.resize(BROKEN, int(used + used * share))
                share = max(0.05, share * 0.8)
                await trio.sleep(1)

        nursery.start_soon(shrink)
        await until()
        nursery.cancel_scope.cancel()
    stage.resize(BROKEN, DISK_MIB * 2**20)


async def broken_link(stage: Stage, until: Until) -> None:
    async with trio.open_nursery() as nursery:

        async def reset() -> None:
            while True:
                stage.relays.reset("registry", BROKEN)
                await trio.sleep(2)

        nursery.start_soon(reset)
        await until()
        nursery.cancel_scope.cancel()


async def silent_link(stage: Stage, until: Until) -> None:
    """A line that carries nothing for a while, twice, without either side being told."""

    async def linked(count: int) -> bool:
        return await metric(stage.town, "registry", "comity_peers_connected") == count

    async with trio.open_nursery() as nursery:

        async def hush() -> None:
            while True:
                stage.relays.separate(["registry"], [BROKEN])
                await eventually(lambda: linked(2), "the link is given up")
                stage.relays.heal()
                await eventually(lambda: linked(3), "the link is back")

        nursery.start_soon(hush)
        await until()
        nursery.cancel_scope.cancel()
    stage.relays.heal()


async def hostile_member(stage: Stage, until: Until) -> None:
    """Somebody with a member's keys sends rubbish, forged batches, and asks for far too much."""
    kill(stage.town, STOLEN)
    thief = Thief(stage.town, STOLEN)
    request = pack(bytes([Class.SYNC]) + messages.encode_message(BlocksRequest(1, 1, None, 32)))

    async def attack(victim: str, what: str) -> None:
        number = 0
        while True:
            number += 1
            with contextlib.suppress(*LOST, Declined, trio.TooSlowError, AssertionError):
                async with thief.link(victim) as link:
                    if what == "rubbish":
                        await link.data(b"\xff" * 9)
                    elif what == "forgery":
                        item = signed(Author(9), number, chain=thief.chain).signed([bytes(64)])
                        origin = (thief.index + 1) % len(stage.town.agencies)
                        public = batch.encode_public(origin, number, 0, [item])
                        made = [batch_wire.KIND_PUSH, public, batch.encode_private([item])]
                        await link.data(codec.encode(made), Class.BATCH)
                    else:
                        await link.stream.send_all(request * 100)
                    await trio.sleep(0.5)
            await trio.sleep(0.2)

    async with trio.open_nursery() as nursery:
        for victim, what in zip(
            ("social", "treasury", "integrity"), ("rubbish", "forgery", "greed"), strict=True
        ):
            nursery.start_soon(attack, victim, what)
        await until()
        nursery.cancel_scope.cancel()
    await start(stage.town, STOLEN)


async def certificate_ends(stage: Stage, until: Until) -> None:
    """A member's node gets a certificate that another tool made, and that ends soon."""
    validators = genesis.decode(stage.town.genesis).committee.validators
    before = next(each for each in validators if each.agency == BROKEN)
    seed = stage.changing.pair(BROKEN, "node", KeyKind.NODE).seed
    ending = replace(before, certificate=ending_certificate(seed, BROKEN, days=20))
    for validator in (ending, before):
        await stage.changing.change(stage.changing.replacement(validator), by=AGREEING)
        if validator is ending:
            await until()


async def executor_lacking(stage: Stage, until: Until) -> None:
    """The next executor is agreed on, which one node's release lacks; then it is called off."""
    kill(stage.town, BROKEN)
    stage.town.programs[BROKEN] = ("tests.network.older",)
    await start(stage.town, BROKEN)
    await activate(stage.town, 2, WEEK_MS)
    await until()
    await call_off(stage.town, 2)
    await stage.again(BROKEN)


def besieged(attack: str, victim: str = BROKEN) -> Callable[[Stage, Until], Awaitable[None]]:
    async def play(stage: Stage, until: Until) -> None:
        async with stage.attack(attack, victim):
            await until()

    return play


async def flood(town: LocalNetwork, rules: RulesInForce) -> None:
    """Submit payments to one node without waiting for what becomes of them."""
    key, chain = town.key("treasury", "clerk3"), genesis.chain_id(town.genesis)
    async with guest(town, BROKEN) as own, trio.open_nursery() as nursery:
        await own.greet(key)

        async def read() -> None:
            while await own.reader.read():
                pass

        nursery.start_soon(read)
        for number in itertools.count(1):
            unsigned = drafting.build(
                chain,
                rules.book,
                [payment(1)],
                author=key.public,
                sequence=100_000 + number,
                now_ms=rules.time_ms,
                not_after_ms=rules.time_ms + 3_600_000,
                seed=secrets.token_bytes(32),
            )
            item = (Item.ENVELOPE, assemble(unsigned, [key.sign(unsigned.message)]))
            await own.request(Submit(False, (item,)), number + 10)
            await trio.sleep(0.005)


async def small_pool(stage: Stage, until: Until) -> None:
    """A pool of little room, whose transactions nobody certifies, and clients who go on."""
    town = stage.town
    config = town.folder / BROKEN / CONFIG_NAME
    before = config.read_text("utf-8")
    config.write_text(f"{before}\n[limits]\npool_bytes_max = 65536\n", "utf-8")
    try:
        await stage.again(BROKEN)
        async with client(town, BROKEN) as own:
            rules = await own.rules()
        stage.relays.isolate(BROKEN)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(flood, town, rules)
            await until()
            nursery.cancel_scope.cancel()
    finally:
        stage.relays.heal()
        config.write_text(before, "utf-8")
    await stage.again(BROKEN)


def payment(amount: int) -> Call:
    return Call("desk", "pay", {"source": 1, "target": 2, "amount": amount})


async def refused(stage: Stage, until: Until) -> None:
    """Payments of more than there is."""
    stage.pausing = True
    await repeated(stage, until, lambda own: own.transact(payment(OPENING * 100)))


async def contended(stage: Stage, until: Until) -> None:
    """A note that is amended again and again by somebody who saw it long ago."""
    stage.pausing = True
    note = 5000 + secrets.randbelow(1000)
    write = Call("desk", "write", {"number": note, "text": "a", "amount": 1})
    amend = Call("desk", "amend", {"note": [note], "text": "b"})
    async with client(stage.town, BROKEN) as own:
        await own.transact(write, reads=await own.read_for(write))
        old = await own.read_for(amend)
        await own.transact(amend, reads=old)
    await repeated(stage, until, lambda own: own.transact(amend, reads=old))


async def repeated(stage: Stage, until: Until, act: Callable[[Client], Awaitable[object]]) -> None:
    async with trio.open_nursery() as nursery:

        async def go_on() -> None:
            async with client(stage.town, BROKEN) as own:
                while True:
                    await act(own)

        nursery.start_soon(go_on)
        await until()
        nursery.cancel_scope.cancel()


ALL = {("", "")}
SCENES = (
    Scene("a healthy network under load", nothing, set(), calm_seconds=0),
    Scene("a healthy idle network", idle, set(), calm_seconds=0),
    Scene(
        "a node is killed",
        killed,
        {
            ("ComityNodeDown", BROKEN),
            ("ComityPeerMissing", "treasury"),
            ("ComityMarginLost", "treasury"),
            ("ComityLeaderFails", "treasury"),
            ("ComityVotesMissing", "treasury"),
        },
        AWAY,
        calm_seconds=2,
    ),
    Scene(
        "a node is frozen", frozen, {("ComityNodeDown", BROKEN), ("ComityPeerMissing", OTHER)}, AWAY
    ),
    Scene(
        "a node is cut off",
        cut_off,
        {("ComityNodeNotReady", BROKEN), ("ComityPeerMissing", BROKEN)},
        AWAY | STILL | {"ComityLinkFlaps"},
    ),
    Scene(
        "the network falls apart into halves",
        halves,
        {
            ("ComityNothingCertified", "registry"),
            ("ComityNothingCertified", "integrity"),
            ("ComityMarginLost", "treasury"),
            ("ComityNodeNotReady", "social"),
        },
        AWAY | STILL,
    ),
    Scene(
        "clients wait",
        waiting,
        {("ComityClientsWait", BROKEN)},
        AWAY | STILL | {"ComityPeerSlow", "ComityLinkFlaps"},
    ),
    Scene(
        "a node lies",
        lying,
        {("ComityEquivocation", "treasury")},
        AWAY | {"ComityPeerFaults", "ComityBatchesRejected", "ComityLinkFlaps", "ComityNotSigning"},
    ),
    Scene(
        "a clock is wrong",
        wrong_clock,
        {("ComityClockSkew", BROKEN), ("ComityClockSkew", "treasury")},
        AWAY,
    ),
    Scene(
        "the disk syncs slowly", slow_sync, {("ComitySlowDisk", BROKEN)}, AWAY | {"ComityClockSkew"}
    ),
    Scene(
        "a node executes too slowly",
        slow_execution,
        {("ComityFallsBehind", BROKEN)},
        AWAY | {"ComityFlushingStalls"},
    ),
    Scene("the store is not written", slow_flush, {("ComityFlushingStalls", BROKEN)}, AWAY),
    Scene("memory is short", little_memory, {("ComityMemoryHigh", BROKEN)}, AWAY),
    Scene(
        "results are not told", results_withheld, {("ComityResultsLag", "registry")}, AWAY | STILL
    ),
    Scene("a machine is too busy", stuttering, {("ComityLoopDelay", BROKEN)}, AWAY),
    Scene("a worker is killed", worker_killed, {("ComityWorkersDie", BROKEN)}),
    Scene(
        "a node is started again and again", started_again, {("ComityNodeRestarts", BROKEN)}, AWAY
    ),
    Scene(
        "a disk is full",
        disk_full,
        {
            ("ComityDiskFailed", BROKEN),
            ("ComityNotSigning", BROKEN),
            ("ComityNodeNotReady", BROKEN),
            ("ComityDiskLow", BROKEN),
        },
        AWAY | {"ComityDiskFillsUp"},
        needs_disks=True,
    ),
    Scene(
        "a disk fills up",
        disk_filling,
        {("ComityDiskFillsUp", BROKEN), ("ComityDiskLow", BROKEN)},
        needs_disks=True,
    ),
    Scene(
        "a link breaks again and again",
        broken_link,
        {("ComityLinkFlaps", "registry")},
        {"ComityPeerMissing"},
    ),
    Scene(
        "a line goes silent",
        silent_link,
        {("ComityPeerSlow", "")},
        {"ComityPeerMissing", "ComityMarginLost"},
    ),
    Scene(
        "a member is hostile",
        hostile_member,
        {
            ("ComityPeerFaults", "social"),
            ("ComityBatchesRejected", "treasury"),
            ("ComityPeerAsksTooMuch", "integrity"),
        },
        AWAY | {"ComityLinkFlaps", "ComityPeerSlow", "ComityPeerFaults", "ComityLoopDelay"},
    ),
    Scene(
        "strangers knock", besieged("strangers"), {("ComityStrangers", BROKEN)}, {"ComityLoopDelay"}
    ),
    Scene(
        "connections crowd", besieged("silent"), {("ComityClientsCut", BROKEN)}, {"ComityLoopDelay"}
    ),
    Scene(
        "doors are tried",
        besieged("doors"),
        {("ComityClientsDenied", BROKEN)},
        {"ComityLoopDelay", "ComityTurnsAway"},
    ),
    Scene(
        "telemetry is crowded",
        besieged("scrapes"),
        {("ComityTelemetryCrowded", BROKEN)},
        {"ComityLoopDelay", "ComityNodeDown", "ComityLeaderFails"},
    ),
    Scene(
        "a pool is full",
        small_pool,
        {("ComityPoolFull", BROKEN), ("ComityTurnsAway", BROKEN)},
        AWAY | STILL | {"ComityLoopDelay", "ComityLinkFlaps", "ComityPeerSlow"},
    ),
    Scene(
        "a certificate ends soon",
        certificate_ends,
        {("ComityCertificateEnds", agency) for agency in NAMES},
    ),
    Scene(
        "an executor is lacking",
        executor_lacking,
        {("ComityExecutorLacking", BROKEN)},
        AWAY,
    ),
    Scene("much is refused", refused, {("ComityRefusals", BROKEN)}),
    Scene(
        "desks are in each other's way",
        contended,
        {("ComityConflicts", "treasury")},
        {"ComityRefusals"},
    ),
)
"""In this order; the first two bring nothing."""

NOT_PROVOKED = {
    "ComityBadSignatures": "a quorum of validators must certify what no client signed",
    "ComityProposalsWait": "a proposal must have waited for a week of chain time",
}
"""Alerts that a run of minutes on one machine cannot bring about; promtool alone tests them."""
