"""Four nodes' engines in one process: real logs, marks and stores, links and power in our hands.

The log and the signer's mark lie on disks in memory that lose power and fail on command; the store
is LMDB in a folder. Time is trio's mock clock, threads run in place, so every run is the same.
"""

from __future__ import annotations

import contextlib
import random
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from consensus import genesis, keyfile
from consensus.committee import Committee, Validator
from consensus.genesis import Agency, Genesis, Limits, Principal
from consensus.hotstuff import wire
from consensus.hotstuff.events import FOLLOWER
from consensus.hotstuff.types import (
    Block,
    CommitVote,
    Message,
    Proposal,
    SignKind,
    Timeout,
    Vote,
    epoch_of,
)
from consensus.keyfile import KeyKind
from consensus.ledger.rules import encode_definition, load_toml
from consensus.ledger.transaction import Transaction
from node.config import LimitsSection, TuningSection
from node.engine import Engine
from node.handing import Handed
from node.identity import Identity, Own
from node.network.guests import GUESTS_FROM, Guest
from node.network.wire import Class
from node.ordering import FAULTS
from node.storage.own_thread import OwnThread
from node.telemetry.metrics import Metrics
from node.verifier import Verifier
from tests.consensus.ledger.authors import ANNA, signed
from tests.node.storage.memory_disk import MemoryDisk

KINDS = {
    "Proposal": SignKind.PROPOSAL,
    "Vote": SignKind.VOTE,
    "Timeout": SignKind.TIMEOUT,
    "CommitVote": SignKind.COMMIT_VOTE,
}
SIZE = 4
QUORUM = 3
START_MS = 1_790_000_000_000
CHARTER = """\
domain = "charter"
number = 1
legal_basis = "Charter"

[actions.add_principal]
kernel = true
actor = { role = "charter.admin" }
"""


class PowerLoss(BaseException):  # not an Exception: nothing in the product may catch it
    """The machine has no power."""


class PowerDisk(MemoryDisk):
    """Power may be lost before any operation that changes the disk; writes may fail from then on.

    ``full`` makes every write and sync raise ENOSPC, as a full disk does.
    """

    CHANGING = frozenset({"create", "write", "truncate", "sync", "sync_folder", "rename", "remove"})

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.cut_at: int | None = None
        self.broken: frozenset[str] = frozenset()
        self.before: Callable[[str], None] = lambda name: None

    def _enter(self, name: str) -> None:
        super()._enter(name)
        if name in self.CHANGING:
            self.before(name)
            self.operations += 1
            if self.cut_at is not None and self.operations > self.cut_at:
                raise PowerLoss
            if name in self.broken:
                raise OSError(28, "No space left on device")

    def crash(self, *, keep: str = "none") -> PowerDisk:
        after = PowerDisk()
        lost = super().crash(keep=keep)
        after.files, after.durable_names = lost.files, lost.durable_names
        after.folders, after._seed = lost.folders, lost._seed
        return after


def pair_of(number: int, kind: KeyKind) -> keyfile.KeyPair:
    return keyfile.from_seed(kind, bytes([number]) * 32)


def make_genesis() -> Genesis:
    names = [f"agency-{index}" for index in range(SIZE)]
    keys = [pair_of(40 + index, KeyKind.VALIDATOR).public for index in range(SIZE)]
    nodes = [pair_of(60 + index, KeyKind.NODE).public for index in range(SIZE)]
    validators = tuple(
        Validator(name, key, node, b"certificate", "host", 1, "host", 2)
        for name, key, node in zip(names, keys, nodes, strict=True)
    )
    person = bytes([7]) * 32
    return Genesis(
        network="machines",
        time_ms=START_MS - 1000,
        executor=1,
        tree_depth=4,
        limits=Limits(),
        committee=Committee(1, validators),
        agencies=tuple(Agency(name, name) for name in names),
        principals=(Principal(person, names[0], 1),),
        keys=((ANNA.key, person),),
        roles=(),
        rules=(encode_definition(load_toml(CHARTER)),),
        accounts=(),
    )


GENESIS = make_genesis()
CHAIN = genesis.chain_id(GENESIS.encode())


def transaction(sequence: int, **options: Any) -> Transaction:
    """A transaction that spends its number and is refused: it names no known action."""
    return signed(ANNA, sequence, chain=CHAIN, **options)


class Links:
    """What one engine sends goes to the others that have power, in order, and is written down."""

    def __init__(self, town: Town, own: int) -> None:
        self._town = town
        self._own = own

    @property
    def _numbers(self) -> list[int]:
        """Of all machines that this one has a link with."""
        town = self._town
        return [
            town.machines[self._own].number_of(m.index)
            for m in town.machines
            if m.index != self._own and m.listening and not town.is_cut(self._own, m.index)
        ]

    @property
    def connected(self) -> frozenset[int]:
        return frozenset(number for number in self._numbers if number < GUESTS_FROM)

    @property
    def guests(self) -> tuple[int, ...]:
        return tuple(number for number in self._numbers if number >= GUESTS_FROM)

    def guest(self, number: int) -> Guest | None:
        if number < GUESTS_FROM:
            return None
        index = number - GUESTS_FROM
        own = self._town.machines[index].own
        upto = None if index in self._town.admitted else self._town.last_vote(self._own, own)
        return Guest(own.agency, own.node_keys[0], upto)

    def has_room(self, peer: int, cls: Class) -> bool:
        return True

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        to = self._town.machines[self._own].at(peer)
        if to is not None:
            self._town.carry(self._own, to, cls, payload)
        return peer in self._numbers

    def broadcast(self, cls: Class, payload: bytes) -> None:
        for peer in sorted(self.connected):
            self.send(peer, cls, payload)

    def close_link(self, peer: int, reason: str) -> None:
        self._town.faults.append((self._own, peer, reason))


@dataclass
class Machine:
    """A machine with its disk; ``engine`` is that of the present or last life."""

    town: Town
    index: int
    folder: Path
    disk: PowerDisk = field(default_factory=PowerDisk)
    metrics: Metrics = field(default_factory=Metrics)
    powered: bool = False
    """From its start until it stopped or lost power, between two epochs too."""
    listening: bool = False
    """Frames reach it; not while one epoch's engine hands over to the next one's."""
    power: trio.CancelScope = field(default_factory=trio.CancelScope)
    retention_ms: int = 0
    rechecks: bool = False
    own: Own = field(init=False)
    keys: list[keyfile.KeyPair] = field(init=False)
    """Validator keys that it holds; the first ones are those of its place at the beginning."""
    engine: Engine = field(init=False)
    handed: Handed | None = None
    """What the engine of the epoch before has left, until it is taken."""
    sent: list[Message] = field(default_factory=list)
    """Signed messages that left, of all lives."""
    certified: dict[int, bytes] = field(default_factory=dict)
    """Statements announced, by height, of all lives."""

    def __post_init__(self) -> None:
        self.hold(f"agency-{self.index}", pair_of(40 + self.index, KeyKind.VALIDATOR))

    def hold(self, agency: str, *keys: keyfile.KeyPair) -> None:
        """Be the machine of an agency with these validator keys, from the next epoch on."""
        self.keys = list(keys)
        node_key = pair_of(60 + self.index, KeyKind.NODE).public
        self.own = Own(agency, tuple(key.public for key in keys), (node_key,))

    @property
    def row(self) -> Validator:
        """This machine in a committee, under its newest key."""
        own = self.own
        places = b"certificate", "host", 1, "host", 2
        return Validator(own.agency, own.keys[-1], own.node_keys[0], *places)

    @property
    def height(self) -> int:
        return self.engine.chronicle.certified

    @property
    def epoch(self) -> int:
        return self.engine.identity.committee.epoch

    def number_of(self, index: int) -> int:
        """What the engine calls another machine: its place in the epoch's committee, if any."""
        place = self.town.machines[index].own.place(self.engine.identity.committee)
        return GUESTS_FROM + index if place == FOLLOWER else place

    def at(self, number: int) -> int | None:
        """The machine of a number; None for a member that does not run here."""
        if number >= GUESTS_FROM:
            return number - GUESTS_FROM
        machines = self.town.machines
        return next((m.index for m in machines if self.number_of(m.index) == number), None)

    def announce(self, heights: range) -> None:
        for height in heights:
            found = self.engine.chronicle._statement(height)
            assert found is not None
            assert self.certified.setdefault(height, found) == found
            assert self.town.statements.setdefault(height, found) == found

    def open(self) -> None:
        """Recover, without running."""
        handed, self.handed = self.handed, None
        self.verifier = Verifier(CHAIN, GENESIS.limits, inline_bytes_max=1 << 24)
        self.engine = Engine(
            Identity(GENESIS, CHAIN, self.own.place(GENESIS.committee), (), self.own),
            self.keys,
            self.folder,
            TuningSection(flush_blocks=2, heartbeat_ms=1000),
            LimitsSection(),
            Links(self.town, self.index),
            self.verifier,
            self.announce,
            self.town.now_ms,
            structlog.get_logger(),
            self.metrics,
            self.disk,
            self.retention_ms,
            rechecks=self.rechecks,
            handed=handed,
            ended=self._epoch_ended,
        )

    def _epoch_ended(self) -> None:
        self.scope.cancel()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Live until stopped or power is lost; the store is released either way.

        Where an epoch ends, a new engine goes on, as in a node's main loop.
        """
        started = False
        self.power, self.powered = trio.CancelScope(), True
        try:
            with self.power:
                while True:
                    self.scope = trio.CancelScope()
                    self.open()
                    inbox_in, inbox = trio.open_memory_channel[tuple[int, Class, bytes]](100_000)
                    self.inbox = inbox_in
                    with self.scope:
                        async with trio.open_nursery() as nursery:
                            self.engine.start(nursery)
                            self.listening = True
                            self.town.meet(self.index)
                            if not started:
                                task_status.started()
                            started = True
                            await self._take(inbox)
                    self.listening = False
                    if not self.engine.epoch_over:
                        return
                    await self.engine.finish()
                    self.handed = self.engine.hand_over()
        except* PowerLoss:
            pass
        finally:
            self.powered = self.listening = False
            if hasattr(self, "engine"):
                self.engine.store.close()

    async def _take(self, inbox: trio.MemoryReceiveChannel[tuple[int, Class, bytes]]) -> None:
        async for sender, cls, payload in inbox:
            try:
                self.engine.take(self.number_of(sender), cls, payload)
            except FAULTS as error:
                self.town.faults.append((self.index, sender, str(error)))

    def cut_power(self) -> None:
        """Stop at once; what was not synced is gone."""
        self.power.cancel()

    def lose(self, keep: str = "none") -> None:
        """Leave what a power cut leaves on the disk."""
        self.disk = self.disk.crash(keep=keep)


class Town:
    """The machines and what is between them."""

    def __init__(self, folder: Path, *, size: int = SIZE) -> None:
        self.machines = [Machine(self, index, folder / str(index)) for index in range(size)]
        self.admitted: set[int] = set()
        """Machines that may observe."""
        self.faults: list[tuple[int, int, str]] = []
        self.statements: dict[int, bytes] = {}
        self.signed: dict[tuple[str, int, int, int], bytes] = {}
        self.blocks: dict[bytes, Block] = {}
        """Every block that was proposed."""
        self.forgetful: set[int] = set()
        """Machines whose disk was tampered with: they may contradict themselves."""
        self.cuts: set[frozenset[int]] = set()
        self.clocks_ms = 0
        """By how much every machine's clock was set."""
        self.taps: list[Callable[[int, int, Class, bytes], bool]] = []
        """Asked of every frame, ``(sender, peer, class, payload)``; False loses it."""
        self._sequence = 0

    def now_ms(self) -> int:
        return START_MS + self.clocks_ms + int(trio.current_time() * 1000)

    def last_vote(self, at: int, own: Own) -> int:
        """The last epoch in which a machine had a vote, as another one knows; 0: none."""
        committees = self.machines[at].engine.identity.committees
        return max((c.epoch for c in committees if own.place(c) != FOLLOWER), default=0)

    def is_cut(self, one: int, other: int) -> bool:
        return frozenset({one, other}) in self.cuts

    def carry(self, sender: int, peer: int, cls: Class, payload: bytes) -> None:
        if cls is Class.CONSENSUS:
            self._write_down(sender, wire.decode_message(payload))
        machine = self.machines[peer]
        verdicts = [tap(sender, peer, cls, payload) for tap in self.taps]  # each hears it
        if all(verdicts) and machine.listening and not self.is_cut(sender, peer):
            machine.inbox.send_nowait((sender, cls, payload))

    def _write_down(self, sender: int, message: Message) -> None:
        """Nobody ever signs two things for one slot, in whatever life."""
        match message:
            case Proposal(block):
                self.blocks[block.id] = block
                slot, body = ("Proposal", sender, block.epoch, block.round), block.id
            case Vote() | Timeout() | CommitVote():
                place = epoch_of(message), message.round
                slot, body = (type(message).__name__, sender, *place), message.body
            case _:
                return
        kind = KINDS[slot[0]]
        marked = self.machines[sender].engine.signer.slot_of(kind)
        assert marked >= slot[2:], f"{slot} left, and the mark does not tell of it"
        again = self.signed.setdefault(slot, body) == body
        assert again or sender in self.forgetful, f"two signatures for {slot}"
        self.machines[sender].sent.append(message)

    def meet(self, index: int) -> None:
        """The links of a machine that just started."""
        own = self.machines[index].engine.ordering
        for machine in self.machines:
            if machine.index != index and machine.listening:
                self._hear(machine, self.machines[index], own.extras())
                self._hear(self.machines[index], machine, machine.engine.ordering.extras())

    def _hear(self, machine: Machine, other: Machine, extras: bytes) -> None:
        """A machine is connected with another one, as the runtime tells its engine."""
        number = machine.number_of(other.index)
        if number >= GUESTS_FROM:
            machine.engine.guests.connected(number, other.epoch)
        else:
            machine.engine.ordering.connected(number, extras)

    def submit(self, at: int, count: int = 1, **options: Any) -> list[bytes]:
        """Give transactions to one node; return their ids."""
        txids: list[bytes] = []
        for _ in range(count):
            self._sequence += 1
            one = transaction(self._sequence, **options)
            txids += self.machines[at].engine.dissemination.add(one)
        return txids

    async def until(self, claim: Callable[[], bool], seconds: float = 60) -> None:
        """Wait in virtual time until ``claim`` holds."""
        with trio.fail_after(seconds):
            while not claim():  # noqa: ASYNC110 - of a node, which has no event for it
                await trio.sleep(0.01)

    async def until_certified(self, height: int, *indices: int) -> None:
        chosen = [self.machines[index] for index in indices or range(SIZE)]
        await self.until(lambda: all(machine.height >= height for machine in chosen))


@pytest.fixture
def inline_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker threads work in place and in one moment, but are slow to begin and to report.

    Tasks take turns in an order that is the same in every run.
    """
    draw = random.Random(7)
    monkeypatch.setattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING", True)
    monkeypatch.setattr("trio._core._run._r", random.Random(7))

    async def run_sync(work: Callable[..., Any], *args: Any, **options: Any) -> Any:
        async with options.get("limiter") or contextlib.nullcontext():
            with trio.CancelScope(shield=True):
                await trio.sleep(draw.choice((0, 0.002, 0.01, 0.03)))
                try:
                    return work(*args)
                finally:
                    await trio.sleep(draw.choice((0, 0.002, 0.01)))

    turns = weakref.WeakKeyDictionary[OwnThread, trio.CapacityLimiter]()

    async def run(own: OwnThread, work: Callable[[], Any]) -> Any:
        return await run_sync(work, limiter=turns.setdefault(own, trio.CapacityLimiter(1)))

    monkeypatch.setattr(trio.to_thread, "run_sync", run_sync)
    monkeypatch.setattr(OwnThread, "run", run)


@asynccontextmanager
async def running(town: Town, *indices: int) -> AsyncIterator[trio.Nursery]:
    """Run some machines, by default all, until the block ends."""
    async with trio.open_nursery() as nursery:
        for index in indices or range(SIZE):
            await nursery.start(town.machines[index].run)
        yield nursery
        for machine in town.machines:
            machine.cut_power()
