"""One simulated validator: the real replica, executor, state and batch store, and power that fails.

It drives them as ``node.ordering``, ``execution``, ``dissemination`` and ``flushing`` do, without
trio: every wait is an action of the scheduler, every effect may be the last one before power fails.
What the real modules decide is not decided again here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from consensus.errors import ComityError
from consensus.hotstuff import events as ev
from consensus.hotstuff import wire
from consensus.hotstuff.certificates import Verifier
from consensus.hotstuff.execution import statement_of
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.types import (
    Block,
    BlocksRequest,
    BlocksResponse,
    CommitCert,
    Message,
    PayloadItem,
    QuorumCert,
    Statement,
    first_record,
    genesis_cert,
)
from consensus.ledger.executor import EXECUTOR, BlockContext, BlockRun
from consensus.ledger.transaction import Transaction
from consensus.state.history import HistoryTree
from consensus.state.state import State
from node.batch_wire import DIGESTS_MAX, Absent, Push, Request, Response
from node.batches import BatchStore, Drop, Payload, Verify
from node.checked import CheckedBatch
from tests.sim.byzantine import Traitor
from tests.sim.disk import Disk, Mark
from tests.sim.errors import Crash, Violation, require
from tests.sim.network import Parcel
from tests.sim.outbox import Outbox, Outgoing
from tests.sim.signer import Signer

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

SWEEP_MS = 1000
FLUSH_MS = 1000


@dataclass
class Height:
    """One executed height above the store."""

    block: Block
    statement: Statement
    batches: tuple[CheckedBatch, ...]
    certificate: CommitCert | None = None


@dataclass
class Life:
    """Everything that a crash takes."""

    replica: Replica
    signer: Signer
    verifier: Verifier
    outbox: Outbox
    batches: BatchStore
    state: State
    history: HistoryTree
    certified: int
    executed: int
    tip: Block
    heights: dict[int, Height] = field(default_factory=dict)
    events: deque[ev.Event] = field(default_factory=deque)
    stepping: bool = False
    payload_changed: bool = False
    told_items: tuple[PayloadItem, ...] = ()
    timers: dict[ev.Timer, int] = field(default_factory=dict)
    fetch_ms: int | None = None
    flushing: bool = False


class SimNode:
    """A machine with a disk, alive or not.

    Args:
        simulation: what it is part of.
        index: of the validator.
        disk: as the first start finds it.
    """

    def __init__(self, simulation: Simulation, index: int, disk: Disk) -> None:
        self._simulation = simulation
        self._founded = simulation.founded
        self._options = simulation.options
        self._clock = simulation.clock
        self._marks = simulation.marks
        self._watch = simulation.watch
        self._traitor: Traitor | None = None
        if index == simulation.options.traitor:
            public = simulation.founded.committee.keys[index]
            self._traitor = Traitor(
                index,
                public,
                simulation.keys,
                simulation.founded.chain,
                simulation.options.size,
                simulation.clock.random,
            )
        self.index = index
        self.disk = disk
        self.number = 0
        """Which life this is; actions planned in an earlier one come to nothing."""
        self.life: Life | None = None
        self.effects_left: int | None = None
        """Power fails when this many further effects have begun."""
        self.crashed: Callable[[], None] = lambda: None

    # --- power --------------------------------------------------------------------------------

    def boot(self) -> None:
        """Start from the disk, as ``node.runtime`` does."""
        self.number += 1
        self.effects_left = None
        founded, disk = self._founded, self.disk
        disk.forget_flushed()
        store = disk.store
        tip, _, certificate = store.blocks[-1]
        if disk.record is None:
            record = first_record(founded.first)
        else:
            record = wire.decode_record(disk.record)
        recovered = ev.RecoveredState(
            record, ev.CertifiedTip(tip, certificate), tuple(disk.blocks.values())
        )
        committee = self._simulation.committee
        keys = self._simulation.keys
        batches = BatchStore(committee.size, self.index)
        batches.restore(store.numbers, disk.batches.values(), self._now_ms())
        self.life = Life(
            replica=Replica(self._simulation.config, committee, self.index, recovered),
            signer=Signer(keys, committee.keys[self.index], founded.chain, disk.mark, disk.groups),
            verifier=Verifier(
                founded.chain, committee, genesis_cert(founded.first), verify=keys.verify
            ),
            outbox=Outbox(self, disk, eager=self._simulation.mutant.eager_outbox),
            batches=batches,
            state=State(store.backend, founded.genesis.tree_depth, store.height),
            history=HistoryTree(store.nodes, store.height + 1),
            certified=store.height,
            executed=store.height,
            tip=tip,
        )
        self._simulation.mutant.on_boot(self.life.replica)
        self._marks.watch_replica(self.life.replica)
        self._watch.booted(self.index, tip)
        self._clock.trace(
            f"{self.index} boots at {store.height}, round {self.life.replica.round}, "
            f"{len(disk.blocks)} blocks, {len(disk.batches)} batches"
        )
        if disk.blocks:
            self._marks.reach("restart with blocks above the store")
        self.life.payload_changed = True
        self.enter(partial(self.post, ev.Started()))
        self._repeat(SWEEP_MS, self._sweep)
        self._repeat(FLUSH_MS, self._flush)

    def crash(self) -> None:
        """Power fails. What was being written is on the disk, or is not."""
        life = self.life
        if life is None:
            return
        outbox = life.outbox
        if outbox.writing is not None:
            kept = self._clock.chance(0.5)
            self._marks.reach("crash during a sync that " + ("held" if kept else "was lost"))
            if kept:
                self.disk.append(outbox.writing)
        if outbox.marking is not None and self._clock.chance(0.5):
            self.disk.mark = outbox.marking
        self._clock.trace(f"{self.index} crashes")
        self.life = None
        self.number += 1

    def enter(self, action: Callable[[], None]) -> None:
        """Do something on this machine; power may fail in the middle."""
        try:
            action()
            if self.life is not None:
                self.life.outbox.kick()
        except Crash:
            self._marks.reach("crash between two effects")
            self.crash()
            self.crashed()
        except ComityError as error:
            raise Violation("no own bug", f"node {self.index}: {error}") from error

    def soon(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do ``action`` after a delay, unless this machine has crashed by then."""
        number = self.number

        def act() -> None:
            if self.number == number:
                self.enter(action)

        self._clock.after(delay_ms, act)

    def _repeat(self, every_ms: int, action: Callable[[], None]) -> None:
        def act() -> None:
            action()
            self.soon(every_ms, act)

        self.soon(every_ms, act)

    def _begin_effect(self) -> None:
        if self.effects_left is not None:
            self.effects_left -= 1
            if self.effects_left < 0:
                raise Crash

    def _now_ms(self) -> int:
        return self._clock.now_ms + self._options.skew_ms[self.index]

    @property
    def alive(self) -> Life:
        """The present life of a node that is up."""
        if self.life is None:
            raise Crash
        return self.life

    # --- events in, effects out ---------------------------------------------------------------

    def post(self, event: ev.Event) -> None:
        """Take up an event, after those that are being taken up."""
        life = self.alive
        life.events.append(event)
        self._drain(life)

    def _changed(self) -> None:
        self.alive.payload_changed = True
        if not self.alive.replica.has_work:
            self._drain(self.alive)

    def _drain(self, life: Life) -> None:
        if life.stepping:
            return
        life.stepping = True
        while True:
            if life.payload_changed:
                life.payload_changed = False
                self._tell_payload(life)
            if not life.events:
                break
            self._step(life, life.events.popleft())
        life.stepping = False

    def _tell_payload(self, life: Life) -> None:
        items = life.batches.proposable()
        if items != life.told_items:
            life.told_items = items
            self._step(life, ev.PayloadAvailable(items))

    def _step(self, life: Life, event: ev.Event) -> None:
        waiting: deque[ev.Event] = deque([event])
        while waiting:
            taken = waiting.popleft()
            effects = life.replica.step(taken, self._now_ms())
            self._marks.stepped(taken, effects)
            for effect in effects:
                self._begin_effect()
                if isinstance(effect, ev.Sign):
                    signature = life.signer.sign(effect)
                    life.verifier.remember(effect.kind, self.index, effect.body, signature)
                    self._watch.signed(self.index, effect)
                    self._clock.trace(f"{self.index} signs {effect.kind.name} {effect.round}")
                    held = life.batches.held_counts()
                    waiting.append(ev.Signed(effect.kind, effect.body, signature, held))
                else:
                    self._carry_out(life, effect)

    def _carry_out(self, life: Life, effect: ev.Effect) -> None:
        match effect:
            case ev.Persist() | ev.Broadcast() | ev.Send() | ev.Deliver():
                life.outbox.put(effect)
            case ev.RequirePayload(block):
                self._require(life, block)
            case ev.Execute(block):
                options = self._options
                most_ms = options.execute_ms
                if self.index == options.slow_node:
                    most_ms += options.slow_node_ms
                delay_ms = self._clock.random.randint(0, most_ms)
                self.soon(delay_ms, lambda: self._execute(block))
            case ev.Undo(block_id):
                self._undo(life, block_id)
            case ev.FetchBlocks(request, peers):
                for peer in peers:
                    self._send(peer, request)
            case ev.ServeBlocks(peer, request):
                self._serve(life, peer, request)
            case ev.PeerHeld(peer, counts):
                if self.index < len(counts):
                    for batch in life.batches.peer_held(peer, counts[self.index], self._now_ms()):
                        self._marks.reach("batch pushed again")
                        self._send(peer, Push(batch.public, batch.private))
            case ev.SetTimer(token, at_ms):
                life.timers[token] = at_ms
                due_ms = at_ms - self._options.skew_ms[self.index]
                late_ms = self._clock.random.choice((0, 0, 0, 1, 5))
                self.soon(
                    max(due_ms - self._clock.now_ms, 0) + late_ms,
                    lambda: self._fire(token, at_ms),
                )
            case ev.CancelTimer(token):
                life.timers.pop(token, None)
            case ev.ReportEvidence(kind, first):
                self._watch.evidence(self.index, kind, first)
            case ev.Halt(code, reason):
                raise Violation("no halt", f"node {self.index}: {code}, {reason}")

    def _fire(self, token: ev.Timer, at_ms: int) -> None:
        timers = self.alive.timers
        if timers.get(token) == at_ms:
            del timers[token]
            self.post(ev.TimerFired(token))

    # --- what the outbox asks ------------------------------------------------------------------

    def sync_ms(self) -> int:
        """Return how long the next sync takes."""
        options, rng = self._options, self._clock.random
        sync_ms = rng.randint(0, options.sync_ms)
        return sync_ms * 30 if self._clock.chance(options.sync_spike) else sync_ms

    def snapshot(self, log_groups: int) -> Mark:
        """Return the signer's mark."""
        return self.alive.signer.snapshot(log_groups)

    def act(self, effect: Outgoing) -> None:
        """Send or deliver; everything that it promises must be durable."""
        self._begin_effect()
        match effect:
            case ev.Broadcast(message):
                self._watch.sends(self.index, message, self.disk)
                for peer in range(self._options.size):
                    if peer != self.index:
                        self._begin_effect()
                        self._tell(peer, message)
            case ev.Send(peer, message):
                self._watch.sends(self.index, message, self.disk)
                self._tell(peer, message)
            case ev.Deliver(block, certificate):
                self._deliver(self.alive, block, certificate)

    def _tell(self, peer: int, message: Message) -> None:
        if self._traitor is None:
            self._send(peer, message)
            return
        for said in self._traitor.tell(peer, message):
            self._watch.lies(self.index, said)
            self._send(peer, said)

    def _send(self, peer: int, parcel: Parcel) -> None:
        self._simulation.network.send(self.index, peer, parcel)

    # --- messages in --------------------------------------------------------------------------

    def receive(self, sender: int, parcel: Parcel) -> None:
        """Take what a link brings."""
        life = self.alive
        match parcel:
            case Push(public, private):
                self._offer(life, sender, public, private, solicited=False)
            case Response(public, private):
                self._offer(life, sender, public, private, solicited=True)
            case Request(digests):
                self._serve_batches(life, sender, digests)
            case Absent(digests):
                life.batches.absent(digests, self._now_ms())
                self._fetch()
            case _:
                if life.replica.wants(parcel):
                    verified = life.verifier.verify(parcel, sender)
                    self._clock.trace(f"{self.index} takes {type(parcel).__name__} of {sender}")
                    if isinstance(parcel, BlocksResponse):
                        self.post(ev.BlocksFetched(sender, verified))
                    else:
                        self.post(ev.Received(sender, verified))

    def connected(self, peer: int, peer_life: Life) -> None:
        """A link stands; the peer's hello has its highest certificates."""
        hello = wire.decode_message(wire.encode_message(peer_life.replica.certificates()))
        self.post(ev.Connected(peer, self.alive.verifier.verify(hello, peer)))

    def _serve(self, life: Life, peer: int, request: BlocksRequest) -> None:
        if request.block_id is not None:
            return
        blocks: list[Block] = []
        proof: CommitCert | QuorumCert | None = None
        proved = 0
        for height in range(request.from_height, request.from_height + request.count):
            found = self._ordered(life, height)
            if found is None:
                break
            blocks.append(found[0])
            if found[1] is not None:
                proved, proof = len(blocks), found[1]
        if proof is None and blocks:
            following = self._ordered(life, blocks[-1].height + 1)
            if following is not None:
                proved, proof = len(blocks), following[0].justify
        if proof is not None:
            self._marks.reach("delivered blocks served")
            self._send(peer, BlocksResponse(tuple(blocks[:proved]), proof))

    def _ordered(self, life: Life, height: int) -> tuple[Block, CommitCert | None] | None:
        if height > life.certified:
            return None
        if height <= self.disk.store.height:
            block, _, certificate = self.disk.store.blocks[height]
            return block, certificate
        return life.heights[height].block, life.heights[height].certificate

    # --- batches ------------------------------------------------------------------------------

    def submit(self, lane: int, transactions: list[Transaction]) -> CheckedBatch:
        """Make a batch, log it and push it once it is durable."""
        life = self.alive
        batch = life.batches.add_own(lane, transactions, self._now_ms())
        life.outbox.log_batch(batch)
        life.outbox.after_sync(partial(self._push, batch))
        return batch

    def _push(self, batch: CheckedBatch) -> None:
        for peer in range(self._options.size):
            if peer != self.index:
                self._begin_effect()
                self._send(peer, Push(batch.public, batch.private))
        self._held(batch.digest)

    def _offer(
        self, life: Life, sender: int, public: bytes, private: bytes, *, solicited: bool
    ) -> None:
        request = life.batches.offer(sender, public, private, solicited=solicited)
        if isinstance(request, Drop):
            require(not request.fault, "no fault of the honest", f"{sender}: {request.sentence}")
            return
        delay_ms = self._clock.random.randint(0, 5)
        self.soon(delay_ms, lambda: self._checked(request))

    def _checked(self, request: Verify) -> None:
        life = self.alive
        batch = self._simulation.check_batch(request.public, request.private)
        life.batches.checked(request, batch, self._now_ms())
        life.outbox.log_batch(batch)
        self._held(batch.digest)

    def _held(self, digest: bytes) -> None:
        for block_id in self.alive.batches.held(digest):
            self.post(ev.PayloadHeld(block_id))
        self._changed()

    def _require(self, life: Life, block: Block) -> None:
        match life.batches.require(block.id, block.payload, block.height, self._now_ms()):
            case Payload.COMPLETE:
                self.post(ev.PayloadHeld(block.id))
            case Payload.MISSING:
                self._fetch()
            case Payload.INVALID:
                raise Violation("no fault of the honest", "a block with an invalid batch")

    def _fetch(self) -> None:
        life, now_ms = self.alive, self._now_ms()
        peers = [peer for peer in range(self._options.size) if peer != self.index]
        for peer, digests in life.batches.fetches(now_ms, peers):
            self._marks.reach("batch fetched")
            self._send(peer, Request(digests[:DIGESTS_MAX]))
        due_ms = life.batches.next_fetch_ms()
        if due_ms is not None and life.fetch_ms is None:
            life.fetch_ms = max(due_ms, now_ms + 5)
            self.soon(life.fetch_ms - now_ms, self._fetch_again)

    def _fetch_again(self) -> None:
        self.alive.fetch_ms = None
        self._fetch()

    def _serve_batches(self, life: Life, peer: int, digests: tuple[bytes, ...]) -> None:
        absent: list[bytes] = []
        for digest in digests:
            batch = life.batches.get(digest) or self.disk.store.batches.get(digest)
            if batch is None:
                absent.append(digest)
            else:
                self._send(peer, Response(batch.public, batch.private))
        if absent:
            self._send(peer, Absent(tuple(absent)))

    # --- execution ----------------------------------------------------------------------------

    def _execute(self, block: Block) -> None:
        life = self.alive
        batches: list[CheckedBatch] = []
        transactions: list[Transaction] = []
        for item in block.payload:
            batch = life.batches.get(item.digest)
            if batch is None:
                raise Violation("a held batch stays", f"node {self.index}, height {block.height}")
            batches.append(batch)
            transactions += self._simulation.decoded(batch)
        context = BlockContext(block.epoch, block.height, block.time_ms, EXECUTOR)
        outcome = BlockRun(self._founded.ledger, life.state, context, transactions).finish()
        applied = life.state.apply(self._simulation.mutant.writes(self.index, outcome.writes))
        result = ev.ExecutionResult(
            executor=EXECUTOR,
            state_root=applied.state_root,
            results_root=outcome.results_root,
            changes_root=applied.changes_root,
            history_root=life.history.root(),
        )
        statement = statement_of(self._founded.chain, block, result)
        life.history.append(statement.hash)
        life.executed += 1
        require(block.height == life.executed, "executed in order", f"height {block.height}")
        life.heights[block.height] = Height(block, statement, tuple(batches))
        self._clock.trace(f"{self.index} executes {block.height} {statement.hash[:4].hex()}")
        self.post(ev.Executed(block.id, result))

    def _undo(self, life: Life, block_id: bytes) -> None:
        height = life.heights.pop(life.executed)
        require(height.block.id == block_id, "only the tip is undone", f"{life.executed}")
        require(life.executed > life.certified, "what is certified stays", f"{life.executed}")
        life.executed -= 1
        life.state.undo()
        life.history.truncate(life.history.size - 1)
        self._clock.trace(f"{self.index} undoes {height.block.height}")

    # --- delivery -----------------------------------------------------------------------------

    def _deliver(self, life: Life, block: Block, certificate: CommitCert) -> None:
        life.signer.settle(certificate.statement.round)
        height = life.heights[block.height]
        self._watch.delivered(self.index, block, height.statement, certificate)
        self._clock.trace(f"{self.index} delivers {block.height} {block.id[:4].hex()}")
        life.certified = block.height
        life.tip = block
        if certificate.statement.height == block.height:
            height.certificate = certificate
        life.batches.delivered(block.payload)
        life.batches.settle(block.height)
        self._simulation.delivered(self.index, block, height.batches)
        if life.certified - self.disk.store.height >= self._options.flush_heights:
            self._flush()
        # The replica knows of its deliveries; news of other batches reach it by itself.

    def _sweep(self) -> None:
        gone = self.alive.batches.expire(self.alive.tip.time_ms)
        for _ in gone:
            self._marks.reach("batch expired undecided")
        self._changed()

    def _flush(self) -> None:
        """Begin a flush up to the newest height that has a certificate of its own."""
        life = self.alive
        proved = [n for n, height in life.heights.items() if height.certificate is not None]
        if life.flushing or not proved:
            return
        life.flushing = True
        delay_ms = self._clock.random.randint(0, 20)
        self.soon(delay_ms, lambda: self._flushed(max(proved)))

    def _flushed(self, upto: int) -> None:
        life, store = self.alive, self.disk.store
        life.flushing = False
        store.backend.write(life.state.pending(upto))
        store.nodes.write(life.history.pending(upto))
        for number in range(store.height + 1, upto + 1):
            height = life.heights.pop(number)
            store.blocks.append((height.block, height.statement, height.certificate))
            for item, batch in zip(height.block.payload, height.batches, strict=True):
                store.numbers[item.origin] = max(store.numbers[item.origin], item.number)
                store.batches[batch.digest] = batch
        self._begin_effect()
        life.state.flushed(upto)
        life.history.flushed(upto)
