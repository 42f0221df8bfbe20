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
from tests.sim.faults import Script, draw_script
from tests.sim.files import Files
from tests.sim.founding import found, names_of
from tests.sim.injector import Injector
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
ROUNDS_MAX: Final = 5
"""Of those in which it could have been, some with a dead or a false leader."""
TIMEOUT_MS: Final = 1000
REST_MS_MAX: Final = 60_000
"""And everything else that waits is decided within this further time."""
LOOK_MS: Final = 50


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
    work_rounds: int
    rest_ms: int
    marks: dict[str, int]


class Simulation:
    """One run.

    Args:
        seed: draws options and chance.
        mutant: what is broken on purpose.
        options, script: instead of those that the seed draws.
        echo: is given the trace, line for line.
    """

    def __init__(
        self,
        seed: int,
        *,
        mutant: Mutant = NONE,
        options: Options | None = None,
        script: Script | None = None,
        echo: Callable[[str], None] | None = None,
    ) -> None:
        self.options = options or draw(seed)
        self.script = draw_script(self.options) if script is None else script
        self.mutant = mutant
        self.clock = Clock(seed, echo)
        self.marks = Marks()
        self.founded = found(self.options.size)
        self.committee = mutant.committee(self.founded.committee)
        self.keys = Keys(names_of(self.options.size), real=self.options.real_signatures)
        self.config = self._config()
        self.watch = Watch(self.options, self.founded, self.keys, self.marks, mutant.ignore)
        self.network = Network(self.options, self.clock, self._receive, self._connect)
        self.blocks: dict[bytes, Block] = {}
        """Every block that some machine has logged, by id."""
        disks = [self._first_disk() for _ in range(self.options.size)]
        first = disks[0].store.blocks[0][1].hash
        self.replay = Replay(self.founded, seed, self.marks, first)
        self.load = Load(
            self.founded, self.options, self.keys, self.replay.books, self.clock.random
        )
        self.nodes = [self._node(index, disk) for index, disk in enumerate(disks)]
        self._checked: dict[bytes, tuple[CheckedBatch, Batch]] = {}
        self._delivered: list[dict[bytes, None]] = [{} for _ in self.nodes]
        self._injector = Injector(self)
        self._dead: tuple[int, ...] = ()

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

    def _node(self, index: int, disk: Disk) -> SimNode:
        return SimNode(self, index, disk)

    def _files(self) -> Files:
        return Files(self.clock.random, self.marks.reach)

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
        return Disk(store, self._files())

    # --- one run ------------------------------------------------------------------------------

    def run(self) -> Result:
        """Run both phases.

        Raises:
            Violation: a promise was broken.
        """
        options, clock = self.options, self.clock
        for node in self.nodes:
            if node.index != options.late:
                start_ms = clock.random.randint(0, 200)
                clock.after(start_ms, partial(self._injector.boot, node))
        self._plan_load()
        self._injector.plan(self.script)
        clock.run_until(START_MS + options.safety_ms)
        self._heal()
        work_ms, work_rounds = self._certify_new_work()
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
            work_rounds,
            rest_ms,
            self.marks.counts,
        )

    @property
    def healed(self) -> bool:
        """Whether the time of faults is over."""
        return self._injector.healed

    def _heal(self) -> None:
        options, clock = self.options, self.clock
        clock.trace("heals")
        mortal = [index for index in range(options.size) if index != options.traitor]
        self._dead = tuple(clock.random.sample(mortal, options.stay_dead))
        self._injector.heal(self._dead)

    @property
    def survivors(self) -> list[SimNode]:
        """The honest nodes that take part after healing."""
        gone = {*self._dead, self.options.traitor}
        return [node for node in self.nodes if node.index not in gone]

    def _certify_new_work(self) -> tuple[int, int]:
        """Submit something; return after how long all have it certified, and the rounds it took.

        Rounds are counted from the moment when a quorum of honest nodes has executed what was
        ordered at healing, up to that of the first block with payload. One round may be under way
        and lost, f leaders in a row may be dead or false, one round orders the block, and one more
        may pass without payload since what is ordered is not yet certified: f + 3, which is 5 for
        seven.
        """
        clock, options = self.clock, self.options
        start_ms = clock.now_ms
        node = clock.random.choice(self.survivors)
        self.load.now_ms = clock.now_ms
        digests: list[bytes] = []
        work = [self.load.lasting()]
        node.enter(lambda: digests.append(node.submit(ORDINARY, work).digest))
        ordered = max(each.alive.replica.ordered_height for each in self.survivors)

        def together() -> bool:
            up = [each for each in self.survivors if each.alive.executed >= ordered]
            return len(up) >= options.quorum

        clock.run_until(start_ms + WORK_MS_MAX, together)
        require(together(), "a quorum catches up", self._standing())
        start_round = max(each.alive.replica.round for each in self.survivors)
        work_ms = self._await(
            lambda: all(digests[0] in self._delivered[node.index] for node in self.survivors),
            start_ms,
            WORK_MS_MAX,
            "new work is certified",
        )
        later = [b.round - start_round for b in self.watch.chain.values() if b.payload]
        rounds = min([count for count in later if count > 0], default=0)
        as_built = options.timeout_base_ms >= TIMEOUT_MS and not options.healed_loss
        if as_built:  # rounds of the product's length; links lose nothing while they stand
            promise = "new work is certified within 5 rounds"
            require(rounds <= ROUNDS_MAX, promise, f"{rounds} from round {start_round}")
        return work_ms, rounds

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

    # --- load ---------------------------------------------------------------------------------

    def _plan_load(self) -> None:
        if self.healed:
            return
        options, clock = self.options, self.clock
        clock.after(1 + int(clock.random.expovariate(1 / options.batch_every_ms)), self._offer)

    def _offer(self) -> None:
        if self.healed:
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
        if node.life is not None and not node.life.stopped:
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
