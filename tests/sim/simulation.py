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
from tests.sim.elections import Ballot
from tests.sim.epochs import Committees
from tests.sim.errors import require
from tests.sim.faults import Script, draw_script
from tests.sim.files import Files
from tests.sim.founding import found, names_of
from tests.sim.injector import Injector
from tests.sim.keys import KEYS_EACH, Keys
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
ROUNDS_BEYOND: Final = 3
"""And within so many rounds and f more: see ``rounds_max``."""
ROUND_MS_ENOUGH: Final = 500
"""No healed round needs more: to be entered by all (20), a proposal (20), batches that the first
peer lacks (250 + 45), two syncs of 40, votes (20), and an execution under way (30)."""
ROUNDS_LOST: Final = 3
"""What messages that are lost even then may cost; nothing certain can be said of chance."""
REST_MS_MAX: Final = 60_000
"""And everything else that waits is decided within this further time."""
LOOK_MS: Final = 50
AGAIN_MS: Final = 3000
"""Clients whose node is in another epoch by now ask again after this time."""
LAPSE_MS: Final = 60_000
"""Clocks are apart, and batches whose transactions lapse soon are dropped."""


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
        self.founded = found(self.options.size, self.options.notice_ms)
        self.committees = Committees(self.founded.committee)
        names = names_of(self.options.machines, KEYS_EACH)
        self.keys = Keys(names, real=self.options.real_signatures)
        self.config = self._config()
        self.watch = Watch(
            self.options,
            self.founded,
            self.committees,
            self.keys,
            self.marks,
            self.is_down,
            mutant.ignore,
        )
        self.network = Network(self.options, self.clock, self._receive, self._connect)
        self.blocks: dict[bytes, Block] = {}
        """Every block that some machine has logged, by id."""
        disks = [self._first_disk() for _ in range(self.options.machines)]
        first = disks[0].store.blocks[0][1].hash
        self.replay = Replay(self.founded, seed, self.marks, first)
        self._ballot = Ballot(self.options, self.clock.random)
        self.load = Load(
            self.founded, self.options, self.keys, self.replay.books, self.clock.random
        )
        self.nodes = [self._node(index, disk) for index, disk in enumerate(disks)]
        self._checked: dict[bytes, tuple[CheckedBatch, Batch]] = {}
        self._delivered: list[set[bytes]] = [set() for _ in self.nodes]
        """Transactions, by node."""
        self._accepted: dict[bytes, int] = {}
        """Transactions of batches that are on the disk of the node that made them."""
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
                founding = node.index < options.size
                start_ms = clock.random.randint(0, 200 if founding else options.safety_ms)
                clock.after(start_ms, partial(self._start, node))
        self._plan_load()
        self._plan_election()
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

    def _start(self, node: SimNode) -> None:
        """Start a machine for the first time; who joins may do so long after it was elected."""
        joins = node.index >= self.options.size
        if joins and node.index in self.watch.newest.machines:
            self.marks.reach("a joiner started after it was elected")
        self._injector.boot(node)

    def is_down(self, machine: int) -> bool:
        """Whether a machine is off."""
        return self.nodes[machine].life is None

    @property
    def healed(self) -> bool:
        """Whether the time of faults is over."""
        return self._injector.healed

    def _heal(self) -> None:
        options, clock = self.options, self.clock
        clock.trace("heals")
        mortal = [index for index in range(options.machines) if index not in options.traitors]
        self._dead = tuple(clock.random.sample(mortal, options.stay_dead))
        self._injector.heal(self._dead)

    @property
    def survivors(self) -> list[SimNode]:
        """The honest nodes that are up after healing."""
        gone = {*self._dead, *self.options.traitors}
        return [node for node in self.nodes if node.index not in gone]

    @property
    def members(self) -> list[SimNode]:
        """Those survivors that vote in the newest epoch and are there by now."""
        epoch, roster = max(self.watch.epochs.items())
        return [
            node
            for node in self.survivors
            if node.index in roster.machines and node.life is not None and node.life.epoch == epoch
        ]

    def _certify_new_work(self) -> tuple[int, int]:
        """Submit something; return after how long all have it certified, and the rounds it took.

        Rounds are counted from the moment when a quorum of honest nodes has executed what was
        ordered at healing, up to that of the first block with payload. If the epoch ends meanwhile,
        they are counted from the beginning of the next one.
        """
        clock, options = self.clock, self.options
        start_ms = clock.now_ms
        clock.run_until(start_ms + WORK_MS_MAX, lambda: bool(self.members))
        require(bool(self.members), "a quorum catches up", self._standing())
        node = clock.random.choice(self.members)
        self.load.now_ms = clock.now_ms
        work = [self.load.lasting()]
        node.enter(lambda: _nothing(node.submit(ORDINARY, work)))
        ordered = max(each.alive.replica.ordered_height for each in self.members)

        def together() -> bool:
            up = [each for each in self.members if each.alive.executed >= ordered]
            return len(up) >= self.watch.newest.quorum

        clock.run_until(start_ms + WORK_MS_MAX, together)
        require(together(), "a quorum catches up", self._standing())
        start = max((each.alive.epoch, each.alive.replica.round) for each in self.members)

        again_ms = clock.now_ms + AGAIN_MS

        def done() -> bool:
            nonlocal again_ms
            if options.elect_every_ms and clock.now_ms >= again_ms and self.members:
                # What a node had not on disk when its epoch ended is gone, or it left: they ask
                # another one.
                again_ms = clock.now_ms + AGAIN_MS
                other = clock.random.choice(self.members)
                other.enter(lambda: _nothing(other.submit(ORDINARY, work)))
            return all(work[0].txid in self._delivered[each.index] for each in self.survivors)

        work_ms = self._await(done, start_ms, WORK_MS_MAX, "new work is certified")
        first = min(
            [(b.epoch, b.round) for b in self.watch.chain.values() if b.payload],
            key=lambda at: (at <= start, at),
            default=start,
        )
        rounds = max(0, first[1] - (start[1] if first[0] == start[0] else 0))
        most = rounds_max(options, self.watch.epochs[first[0]].faulty_max)
        promise = "new work is certified within so many rounds"
        require(rounds <= most, promise, f"{rounds} from round {start}, at most {most}")
        return work_ms, rounds

    def _decide_the_rest(self) -> int:
        def settled() -> bool:
            last = max(self.watch.chain)
            return all(
                node.life is not None
                and node.life.certified == last
                and not node.life.batches.proposable()
                and not node.life.waiting
                for node in self.survivors
            )

        took_ms = self._await(settled, self.clock.now_ms, REST_MS_MAX, "all that waits is decided")
        self._check_accepted()
        return took_ms

    def _check_accepted(self) -> None:
        """Check that nothing was lost that a living node took, if it could still be decided.

        Whoever has left a committee makes no batches, and of what it took no new ones either.
        """
        members = {node.index for node in self.members}
        for roster in self.watch.epochs.values():
            members &= {*roster.machines}
        last_ms = self.clock.now_ms + LAPSE_MS
        lost = [
            txid
            for txid, index in self._accepted.items()
            if index in members
            and txid not in self.replay.decided
            and self.load.intents[txid].not_after_ms > last_ms
        ]
        require(not lost, "what was accepted is decided", f"{len(lost)} transactions")

    def _await(self, done: Callable[[], bool], start_ms: int, most_ms: int, promise: str) -> int:
        clock = self.clock
        while not done():
            clock.run_until(clock.now_ms + LOOK_MS)
            require(clock.now_ms - start_ms <= most_ms, promise, self._standing())
        return clock.now_ms - start_ms

    def _standing(self) -> str:
        return "; ".join(
            f"{node.index}: round {node.alive.epoch}/{node.alive.replica.round}, ordered "
            f"{node.alive.replica.ordered_height}, executed {node.alive.executed}, certified "
            f"{node.alive.certified}, {len(node.alive.batches.proposable())} batches"
            if node.life is not None
            else f"{node.index}: off"
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

    def _plan_election(self) -> None:
        options, clock = self.options, self.clock
        if options.elect_every_ms and not self.healed:
            again = clock.chance(options.elect_again)
            every_ms = 50 if again else options.elect_every_ms
            clock.after(1 + int(clock.random.expovariate(1 / every_ms)), self._elect)

    def _elect(self) -> None:
        if self.healed:
            return
        self.load.now_ms = self.clock.now_ms
        motions = self._ballot.draw(self.replay.books.electorate)
        for motion in motions:
            self.clock.trace(f"motion {motion.number} {motion.wanted} by {motion.voices}")
        if motions:
            lane = ORDINARY if motions[0].wanted else PROTECTIVE
            self._submit(lane, [self.load.motion(motion) for motion in motions])
        self._plan_election()

    def next_epoch(self, index: int) -> None:
        """A machine has stored the end of an epoch: it starts into the next one."""
        self._injector.boot(self.nodes[index])

    def known(self, index: int) -> set[bytes]:
        """Return the transactions that a node knows to be decided."""
        return self._delivered[index]

    def accepted(self, index: int, batch: CheckedBatch) -> None:
        """A node has a batch of its own on disk."""
        for transaction in self.decoded(batch):
            self._accepted[transaction.txid] = index

    def _submit(self, lane: int, transactions: list[Transaction]) -> None:
        node = self.clock.random.choice(self.nodes)
        if node.life is not None and not node.life.stopped and node.life.votes:
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
        for batch in batches:
            txids = batch.txids
            self._delivered[index] |= {txids[at : at + 32] for at in range(0, len(txids), 32)}
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
        ends = [self.nodes[first], self.nodes[second]]
        if any(node.life is None for node in ends):
            return
        hellos = [node.hello() for node in ends]
        for node, peer, hello in zip(ends, reversed(ends), reversed(hellos), strict=True):
            if node.life is not None:
                node.enter(partial(node.connected, peer.index, hello))


def rounds_max(options: Options, faulty_max: int) -> int:
    """Return within how many rounds new work is certified once a quorum is together.

    One round may be under way and lost, f leaders in a row may be dead or false, one round orders
    the block, and one more may pass without payload since what is ordered is not yet certified:
    f + 3. Rounds too short for what they are to bring may all fail until they have grown; those
    of the product are not.
    """
    length_ms, short = float(options.timeout_base_ms), 0
    while length_ms < ROUND_MS_ENOUGH:
        length_ms, short = length_ms * 1.2, short + 1
    return faulty_max + ROUNDS_BEYOND + short + (ROUNDS_LOST if options.healed_loss else 0)


def _nothing(_value: object) -> None:
    """Take a value that is not needed."""


def run(seed: int) -> Result:
    """Run one seed."""
    return Simulation(seed).run()
