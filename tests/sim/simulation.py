"""One run of a seed: faults first, then the network heals and must go on.

safety phase     loss, delay, partitions, crashes: nothing false may ever be said or forgotten
heal             at least a quorum of validators is up and connected; the rest stay dead
liveness phase   new work is certified everywhere, and everything that waits is decided
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from consensus.hotstuff import events as ev
from consensus.hotstuff.execution import statement_of
from consensus.hotstuff.types import Block
from consensus.ledger import batch as formats
from consensus.ledger.batch import Batch
from consensus.ledger.executor import EXECUTOR
from consensus.ledger.transaction import ORDINARY, PROTECTIVE, Transaction
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.merkle import RESULTS
from consensus.state.state import MemoryBackend, Row, State
from node.checked import CheckedBatch, from_batch
from tests.sim.clock import START_MS, Clock
from tests.sim.disk import Disk, Store
from tests.sim.errors import require
from tests.sim.founding import found, names_of
from tests.sim.keys import Keys
from tests.sim.load import Load
from tests.sim.marks import Marks
from tests.sim.mutants import NONE, Mutant
from tests.sim.network import Network, Parcel
from tests.sim.node import SimNode
from tests.sim.options import Options, draw
from tests.sim.replay import Replay
from tests.sim.watch import Watch

WORK_MS_MAX: Final = 30_000
"""After healing, new work is certified at every node within this time."""
REST_MS_MAX: Final = 60_000
"""And everything else that waits is decided within this further time."""
LOOK_MS: Final = 50
EFFECTS_MAX: Final = 40
"""A crash planned at an effect comes at one of so many next ones."""
CRASH_LOOP: Final = 0.15


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to."""

    seed: int
    digest: str
    virtual_ms: int
    heights: int
    transactions: int
    messages: int
    work_ms: int
    rest_ms: int
    marks: dict[str, int]


class Simulation:
    """One run.

    Args:
        seed: draws options and chance.
        mutant: what is broken on purpose.
        echo: is given the trace, line for line.
    """

    def __init__(
        self,
        seed: int,
        *,
        mutant: Mutant = NONE,
        options: Options | None = None,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self.options = options or draw(seed)
        self.mutant = mutant
        self.clock = Clock(seed, echo)
        self.marks = Marks()
        self.founded = found(self.options.size)
        self.committee = mutant.committee(self.founded.committee)
        self.keys = Keys(names_of(self.options.size), real=self.options.real_signatures)
        self.config = self._config()
        self.watch = Watch(self.options, self.founded, self.keys, self.marks, mutant.ignore)
        self.network = Network(self.options, self.clock, self._receive, self._connect)
        disks = [self._first_disk() for _ in range(self.options.size)]
        first = disks[0].store.blocks[0][1].hash
        self.replay = Replay(self.founded, seed, self.marks, first)
        self.load = Load(
            self.founded, self.options, self.keys, self.replay.books, self.clock.random
        )
        self.nodes = [SimNode(self, index, disk) for index, disk in enumerate(disks)]
        self._checked: dict[bytes, tuple[CheckedBatch, Batch]] = {}
        self._delivered: list[dict[bytes, None]] = [{} for _ in self.nodes]
        self._healed = False
        self._dead: list[int] = []
        self._power_cut = False

    def _config(self) -> ev.ReplicaConfig:
        options, limits = self.options, self.founded.genesis.limits
        return ev.ReplicaConfig(
            self.founded.chain,
            timeout_base_ms=options.timeout_base_ms,
            timeout_max_ms=options.timeout_max_ms,
            resend_ms=options.resend_ms,
            execution_ahead_max=options.execution_ahead_max,
            certified_ahead_max=options.certified_ahead_max,
            payload_items_max=options.payload_items_max,
            payload_bytes_max=limits.payload_bytes_max,
        )

    def _first_disk(self) -> Disk:
        """Return the disk of a node whose state was founded, as ``node.runtime`` does."""
        founded = self.founded
        rows = [(kh, Row(vh, 0, row)) for kh, vh, row in founded.state]
        state = State(MemoryBackend(), founded.genesis.tree_depth, -1)
        applied = state.apply(founded.state)
        nodes = MemoryNodes()
        history = HistoryTree(nodes)
        result = ev.ExecutionResult(
            EXECUTOR, applied.state_root, RESULTS.root([]), applied.changes_root, history.root()
        )
        statement = statement_of(founded.chain, founded.first, result)
        history.append(statement.hash)
        nodes.write(history.pending(0))
        numbers = [0] * founded.committee.size
        store = Store(MemoryBackend(rows), nodes, [(founded.first, statement, None)], numbers)
        return Disk(store)

    # --- one run ------------------------------------------------------------------------------

    def run(self) -> Result:
        """Run both phases.

        Raises:
            Violation: a promise was broken.
        """
        options, clock = self.options, self.clock
        for node in self.nodes:
            if node.index != options.late:
                clock.after(clock.random.randint(0, 200), partial(self._boot, node))
        self._plan_load()
        self._plan_faults()
        clock.run_until(START_MS + options.safety_ms)
        self._heal()
        work_ms = self._certify_new_work()
        rest_ms = self._decide_the_rest()
        self.watch.finish()
        self.replay.finish()
        return Result(
            options.seed,
            clock.digest(),
            clock.now_ms - START_MS,
            self.replay.height,
            len(self.replay.decided),
            self.network.delivered,
            work_ms,
            rest_ms,
            self.marks.counts,
        )

    def _heal(self) -> None:
        options, clock = self.options, self.clock
        clock.trace("heals")
        self._healed = True
        mortal = [index for index in range(options.size) if index != options.traitor]
        self._dead = clock.random.sample(mortal, options.stay_dead)
        for node in self.nodes:
            node.effects_left = None
            if node.index in self._dead:
                self.marks.reach("a validator stayed dead")
                node.crash()
        self.network.heal()
        for node in self.nodes:
            if node.life is None:
                self._boot(node)

    @property
    def survivors(self) -> list[SimNode]:
        """The honest nodes that take part after healing."""
        gone = {*self._dead, self.options.traitor}
        return [node for node in self.nodes if node.index not in gone]

    def _certify_new_work(self) -> int:
        start_ms = self.clock.now_ms
        node = self.clock.random.choice(self.survivors)
        self.load.now_ms = self.clock.now_ms
        digests: list[bytes] = []
        work = [self.load.lasting()]
        node.enter(lambda: digests.append(node.submit(ORDINARY, work).digest))
        return self._await(
            lambda: all(digests[0] in self._delivered[node.index] for node in self.survivors),
            start_ms,
            WORK_MS_MAX,
            "new work is certified",
        )

    def _decide_the_rest(self) -> int:
        def settled() -> bool:
            last = max(self.watch.chain)
            return all(
                node.alive.certified == last and not node.alive.batches.proposable()
                for node in self.survivors
            )

        return self._await(settled, self.clock.now_ms, REST_MS_MAX, "all that waits is decided")

    def _await(self, done: Callable[[], bool], start_ms: int, most_ms: int, promise: str) -> int:
        clock = self.clock
        while not done():
            clock.run_until(clock.now_ms + LOOK_MS)
            require(clock.now_ms - start_ms <= most_ms, promise, self._standing())
        return clock.now_ms - start_ms

    def _standing(self) -> str:
        return "; ".join(
            f"{node.index}: round {node.alive.replica.round}, ordered "
            f"{node.alive.replica.ordered_height}, executed {node.alive.executed}, certified "
            f"{node.alive.certified}, {len(node.alive.batches.proposable())} batches"
            for node in self.survivors
        )

    # --- faults -------------------------------------------------------------------------------

    def _boot(self, node: SimNode) -> None:
        if node.life is not None or node.index in self._dead:
            return
        node.crashed = partial(self._after_crash, node)
        node.boot()
        rng, options = self.clock.random, self.options
        if options.crash_every_ms and not self._healed and rng.random() < CRASH_LOOP:
            node.effects_left = rng.randint(0, EFFECTS_MAX)
        self.network.restarted(node.index)

    def _after_crash(self, node: SimNode) -> None:
        if self._power_cut:
            self._power_cut = False
            self.marks.reach("all crashed at one node's effect")
            self._crash_all()
        self._plan_restart(node)

    def _plan_restart(self, node: SimNode) -> None:
        delay_ms = self.clock.random.randint(10, self.options.restart_ms)
        self.clock.after(delay_ms, partial(self._boot, node))

    def _crash_all(self) -> None:
        self.marks.reach("all crashed at once")
        for node in self.nodes:
            if node.life is not None:
                node.crash()
                self._plan_restart(node)

    def _plan_faults(self) -> None:
        options, clock, rng = self.options, self.clock, self.clock.random
        end_ms = options.safety_ms
        for every_ms, fault in (
            (options.partition_every_ms, self._partition),
            (options.crash_every_ms, self._crash_one),
        ):
            when_ms = 0
            while every_ms:
                when_ms += 1 + int(rng.expovariate(1 / every_ms))
                if when_ms >= end_ms:
                    break
                clock.after(when_ms, fault)
        for _ in range(options.all_crashes):
            clock.after(rng.randrange(end_ms), self._cut_power)

    def _cut_power(self) -> None:
        if self.clock.chance(0.5):
            self._crash_all()
            return
        node = self.clock.random.choice(self.nodes)
        if node.life is not None:
            self._power_cut = True
            node.effects_left = self.clock.random.randint(0, EFFECTS_MAX)

    def _crash_one(self) -> None:
        rng = self.clock.random
        node = rng.choice(self.nodes)
        if node.life is None:
            return
        if rng.random() < 0.3:
            node.crash()
            self._plan_restart(node)
        else:
            node.effects_left = rng.randint(0, EFFECTS_MAX)

    def _partition(self) -> None:
        rng, size = self.clock.random, self.options.size
        group = rng.sample(range(size), rng.randint(1, size - 1))
        if rng.random() < 0.3:
            leaders = [node.alive.replica.leader for node in self.nodes if node.life is not None]
            group = leaders[:1] or group
        rest = [index for index in range(size) if index not in group]
        pairs = [(a, b) for a in group for b in rest]
        if rng.random() < 0.3:
            self.marks.reach("one-way partition")
            if rng.random() < 0.5:
                pairs = [(b, a) for a, b in pairs]
        else:
            pairs += [(b, a) for a, b in pairs]
        self.clock.trace(f"cut {pairs}")
        cut = self.network.cut(frozenset(pairs))
        self.clock.after(rng.randint(1, self.options.partition_ms), partial(self.network.mend, cut))

    # --- load ---------------------------------------------------------------------------------

    def _plan_load(self) -> None:
        if self._healed:
            return
        options, clock = self.options, self.clock
        clock.after(1 + int(clock.random.expovariate(1 / options.batch_every_ms)), self._offer)

    def _offer(self) -> None:
        if self._healed:
            return
        rng, options = self.clock.random, self.options
        self.load.now_ms = self.clock.now_ms
        lane = PROTECTIVE if self.clock.chance(options.protective) else ORDINARY
        make = self.load.protective if lane == PROTECTIVE else self.load.ordinary
        count = 1 if lane == PROTECTIVE else rng.randint(1, options.batch_size)
        transactions = [make() for _ in range(count)]
        self._submit(lane, transactions)
        again = [each for each in transactions if self.clock.chance(options.repeat)]
        if again:
            self._submit(lane, again)
        self._plan_load()

    def _submit(self, lane: int, transactions: list[Transaction]) -> None:
        node = self.clock.random.choice(self.nodes)
        if node.life is not None:
            node.enter(lambda: _nothing(node.submit(lane, transactions)))

    # --- what nodes ask -----------------------------------------------------------------------

    def check_batch(self, public: bytes, private: bytes) -> CheckedBatch:
        """Return a batch as a worker would: decoded, every signature verified. Once for all."""
        digest = formats.digest(public)
        known = self._checked.get(digest)
        if known is None:
            batch = formats.decode(self.founded.chain, public, private, self.founded.genesis.limits)
            for key, message, signature in formats.messages(self.founded.chain, batch.items):
                self.keys.verify(key, message, signature)
            known = self._checked[digest] = (from_batch(batch), batch)
        return known[0]

    def decoded(self, batch: CheckedBatch) -> tuple[Transaction, ...]:
        """Return the transactions of a batch."""
        self.check_batch(batch.public, batch.private)
        return self._checked[batch.digest][1].transactions

    def delivered(self, index: int, block: Block, batches: tuple[CheckedBatch, ...]) -> None:
        """A node delivered a block; the first one has it executed again."""
        for item in block.payload:
            self._delivered[index][item.digest] = None
        if block.height > self.replay.height:
            fresh = [
                formats.decode(
                    self.founded.chain, each.public, each.private, self.founded.genesis.limits
                )
                for each in batches
            ]
            said = self.watch.statements[block.height]
            self.replay.execute(block, fresh, said, self.load.intents)

    def _receive(self, receiver: int, sender: int, parcel: Parcel) -> None:
        node = self.nodes[receiver]
        if node.life is not None:
            node.enter(lambda: node.receive(sender, parcel))

    def _connect(self, first: int, second: int) -> None:
        for index, peer in ((first, second), (second, first)):
            node, life = self.nodes[index], self.nodes[peer].life
            if node.life is not None and life is not None:
                node.enter(partial(node.connected, peer, life))


def _nothing(_value: object) -> None:
    """Take a value that is not needed."""


def run(seed: int) -> Result:
    """Run one seed."""
    return Simulation(seed).run()
