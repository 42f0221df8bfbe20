"""One small run of four validators, in which one or all die at a chosen moment, once or twice.

Without a death the run is recorded: each moment between two effects, two messages of a broadcast
or two calls to the disk has a number. With a death it is the same run up to that moment, to the
bit; then the machines are off, start again by themselves, and must go on by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from consensus.hotstuff import events as ev
from consensus.hotstuff.types import Block, SignKind, TimeoutCert
from node.checked import CheckedBatch
from tests.crashes.files import KILLS, POWER, DyingFiles
from tests.sim.clock import START_MS
from tests.sim.disk import Disk
from tests.sim.errors import Crash, require
from tests.sim.faults import BOTH_WAYS, LEADER, Fault, Script
from tests.sim.files import Files
from tests.sim.machine import Life
from tests.sim.mutants import NONE, Mutant
from tests.sim.node import SimNode
from tests.sim.options import Options
from tests.sim.simulation import Simulation

RESUME_MS_MAX: Final = 30_000
OPTIONS: Final = Options(
    seed=5,
    safety_ms=1500,
    sync_ms=3,
    execute_ms=2,
    timeout_base_ms=150,
    resend_ms=200,
    flush_heights=2,
    log_bytes=6000,
    reserve_bytes=4096,
    batch_every_ms=220,
    batch_size=2,
    restart_ms=30,
)
"""Some blocks, flushes and turns of the log."""
SCRIPT: Final[Script] = (Fault(600, "cut", (450, BOTH_WAYS, LEADER)),)
"""A leader is cut off: the others give up its round, and it fetches afterwards."""
LONG_MS: Final = 700
"""Every second victim stays away for up to so long: a round and more."""
ROLES: Final = (
    "leads",
    "votes",
    "times out",
    "enters by a timeout certificate",
    "fetches",
    "flushes",
    "turns its log",
    "starts",
)


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of the recorded run.

    Args:
        what: the effect or the call that comes next; ``end``: the last one is through.
        stored: the machine's disk is at work: a power cut tears what it does.
    """

    number: int
    node: int
    role: str
    what: str
    stored: bool


@dataclass(frozen=True, slots=True)
class Death:
    """Where it dies, what the disk then holds, and who dies.

    Args:
        everyone: all machines at that moment.
        again: the victim dies again at this moment of its next start, from 1; 0: it does not.
    """

    point: int
    fate: str
    everyone: bool = False
    again: int = 0

    @property
    def arguments(self) -> str:
        """Return how the command is told of it."""
        whole = " --everyone" if self.everyone else ""
        twice = f" --again {self.again}" if self.again else ""
        return f"--point {self.point} --fate {self.fate}{whole}{twice}"


class DyingNode(SimNode):
    """A validator that tells each moment at which it may die."""

    run: CrashRun

    def __init__(self, run: CrashRun, index: int, disk: Disk) -> None:
        super().__init__(run, index, disk)
        self.run = run
        self.gave_up = -1
        self.marked_at = 0
        """The log's end when the signer's mark was last written."""
        self._turns = False
        self._flushes = False
        self._told = 0
        assert isinstance(disk.files, DyingFiles)
        self.dying = disk.files
        self.dying.tell = partial(self.moment, stored=True)

    def role(self) -> str:
        """What this node is about, in the words of ROLES."""
        life = self.life
        if life is None:
            return "starts"
        if self._turns:
            return "turns its log"
        if self._flushes:
            return "flushes"
        replica = life.replica
        if replica._fetcher.due_ms is not None or life.fetch_ms is not None:
            return "fetches"
        if self.gave_up >= replica.round:
            return "times out"
        if isinstance(replica._safety.record().entry_cert, TimeoutCert):
            return "enters by a timeout certificate"
        return "leads" if replica.leader == self.index else "votes"

    def moment(self, what: str, *, stored: bool = False) -> None:
        """It may die here, before ``what``.

        Raises:
            Crash: it does.
        """
        self._told += 1
        self.run.moment(self, what, stored=stored)

    def begin_effect(self, what: object) -> None:
        """See Machine."""
        name = type(what).__name__
        if isinstance(what, ev.Sign):
            name = f"Sign {what.kind.name}"
            if what.kind is SignKind.TIMEOUT:
                self.gave_up = what.round
        self.moment(name)

    def boot(self) -> bool:
        """See Machine."""
        try:
            return super().boot()
        except Crash:
            self._cut_off(power=True)
            self.crashed()
            return False
        finally:
            self.run.fate = ""

    def enter(self, action: Callable[[], None]) -> None:
        """See Machine."""
        self._told = 0
        super().enter(action)
        self.run.fate = ""

    def _use_disk(self) -> None:
        super()._use_disk()
        if self._told:
            self.moment("end", stored=self.dying.busy and self.alive.at_disk)

    def _sync(self, life: Life) -> None:
        marking = life.outbox._marked is not None
        super()._sync(life)
        if marking and life.at_disk:
            self.marked_at = life.log.synced

    def _turn_log(self, life: Life) -> None:
        self._turns = True
        try:
            super()._turn_log(life)
        finally:
            self._turns = False

    def _flushed(self, upto: int) -> None:
        self._flushes = True
        try:
            self.moment("commit of the store")
            super()._flushed(upto)
        finally:
            self._flushes = False

    def _cut_off(self, *, power: bool) -> None:
        fate = self.run.fate
        if not fate:
            super()._cut_off(power=power)
            return
        if self.index == self.run.victim and self.run.stored:
            made: int | None = self.dying.under_way
        else:
            made = {"lost": 0, "kept": self.dying.under_way}.get(fate)
        self.dying.fall(fate, made)
        self.dying.half = False
        self.life = None
        self.number += 1


class CrashRun(Simulation):
    """The run, with a death or none.

    Args:
        death: None: it is recorded in ``points``.
        mutant: what is broken on purpose.
        echo: is given the trace, line for line.
    """

    def __init__(
        self,
        death: Death | None = None,
        *,
        mutant: Mutant = NONE,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self.points: list[Point] = []
        self.death = death
        self.fate = ""
        """While somebody dies: what their disks are to hold."""
        self.victim = -1
        self.stored = False
        self.fired = 0
        """How often somebody died."""
        self.moments = 0
        self._starts = 0
        self._open = True
        self.receipts: dict[bytes, tuple[int, bytes]] = {}
        """Batch -> height and block id, as the first node that had it certified told clients."""
        options = OPTIONS
        if death is not None and death.point % 2:
            options = replace(options, restart_ms=LONG_MS)
        super().__init__(options.seed, mutant=mutant, options=options, script=SCRIPT, echo=echo)

    def _node(self, index: int, disk: Disk) -> SimNode:
        return DyingNode(self, index, disk)

    def _files(self) -> Files:
        return DyingFiles(self.clock.random, self.marks.reach)

    def moment(self, node: DyingNode, what: str, *, stored: bool) -> None:
        """A node may die here."""
        death = self.death
        if not self._open:
            return
        number, self.moments = self.moments, self.moments + 1
        if death is None:
            self.points.append(Point(number, node.index, node.role(), what, stored))
        elif self.fired == 0 and number == death.point:
            self._die(node, death, stored=stored)
        elif self.fired == 1 and death.again and node.index == self.victim and node.life is None:
            self._starts += 1
            if self._starts == death.again:
                self._die(node, death, stored=stored)

    def _die(self, node: DyingNode, death: Death, *, stored: bool) -> None:
        self.fired += 1
        self.fate, self.victim, self.stored = death.fate, node.index, stored
        node.dying.half = death.fate == "short"
        if death.everyone and self.fired == 1:
            self._injector._takes_all.add(node.index)
        self.clock.trace(f"{node.index} dies: {death.arguments}")
        raise Crash

    def delivered(self, index: int, block: Block, batches: tuple[CheckedBatch, ...]) -> None:
        """See Simulation. From now on clients may have receipts."""
        super().delivered(index, block, batches)
        for item in block.payload:
            self.receipts.setdefault(item.digest, (block.height, block.id))

    def play(self) -> CrashRun:
        """Run it to its end and judge it.

        Raises:
            Violation: a promise was broken.
        """
        for node in self.nodes:
            self.clock.after(7 * node.index, partial(self._injector.boot, node))
        self._plan_load()
        self._injector.plan(self.script)
        self.clock.run_until(START_MS + self.options.safety_ms)
        self._open = self.death is not None
        reached = self.death is None or self.fired > 0
        require(reached, "the run is the recorded one", f"no moment {self.death}")
        self._heal()
        self._await(self._resumed, self.clock.now_ms, RESUME_MS_MAX, "they resume by themselves")
        self._certify_new_work()
        self._decide_the_rest()
        self.watch.finish()
        self.replay.finish()
        self._receipts_hold()
        return self

    def _resumed(self) -> bool:
        """Whether all that was ordered or waited is certified at every node, unasked."""
        last = max(self.watch.chain)
        return all(
            node.life is not None
            and node.life.certified == last
            and node.life.replica.ordered_height == last
            and not node.life.batches.proposable()
            for node in self.nodes
        )

    def _standing(self) -> str:
        off = [node.index for node in self.nodes if node.life is None]
        return f"off: {off}" if off else super()._standing()

    def _receipts_hold(self) -> None:
        """Check that each receipt's block is where it was, at every node, and nowhere twice."""
        promise = "a receipt that was given stays true"
        for node in self.nodes:
            blocks = [each[0] for each in node.disk.store.blocks]
            heights = sorted(node.alive.heights)
            blocks += [node.alive.heights[h].block for h in heights if h <= node.alive.certified]
            where: dict[bytes, tuple[int, bytes]] = {}
            for height, block in enumerate(blocks):
                require(block.height == height, promise, f"node {node.index}: a gap at {height}")
                for item in block.payload:
                    require(item.digest not in where, promise, f"twice: {height}")
                    where[item.digest] = height, block.id
            for digest, place in self.receipts.items():
                require(where.get(digest) == place, promise, f"node {node.index}: {place[0]}")


def fates(point: Point) -> list[Death]:
    """Return every death at a moment."""
    number = point.number
    if not point.stored:
        return [
            Death(number, "kill"),
            Death(number, "lost"),
            Death(number, "lost", everyone=True),
            Death(number, "kept", everyone=True),
        ]
    kills = KILLS if point.what.startswith("write") else KILLS[:1]
    alone = [Death(number, fate) for fate in (*kills, *POWER)]
    return alone + [Death(number, fate, everyone=True) for fate in ("kill", *POWER[:3])]
