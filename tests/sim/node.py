"""One simulated validator: the real replica, executor, state and batch store, and power that fails.

It drives them as ``node.ordering``, ``execution``, ``dissemination`` and ``flushing`` do, without
trio. What the real modules decide is not decided again here. Its machine (``machine``) has log,
mark, recovery and outbox of the product.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING

from consensus.errors import ComityError, RemoteProtocolError, VerificationError
from consensus.hotstuff import events as ev
from consensus.hotstuff import wire
from consensus.hotstuff.epochs import elsewhere
from consensus.hotstuff.execution import statement_of
from consensus.hotstuff.types import (
    Block,
    BlocksRequest,
    BlocksResponse,
    Certificates,
    CommitCert,
    Message,
    Proposal,
    QuorumCert,
    Statement,
)
from consensus.ledger.executor import EXECUTOR, BlockContext, BlockRun
from consensus.ledger.transaction import Transaction
from node.batch_verdicts import Drop, Payload, Verify
from node.batch_wire import DIGESTS_MAX, Absent, Announce, Push, Request, Response
from node.checked import CheckedBatch
from node.errors import PromisesLostError, SigningRefusedError
from node.outbox import Outgoing
from node.promises import check_remembered
from node.storage import kinds
from tests.sim.byzantine import Traitor
from tests.sim.disk import Disk
from tests.sim.epochs import Ended
from tests.sim.errors import Violation, require
from tests.sim.machine import Height, Life, Machine
from tests.sim.network import Parcel

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

SWEEP_MS = 1000
FLUSH_MS = 1000


class SimNode(Machine):
    """A validator on its machine. See ``Machine``."""

    def __init__(self, simulation: Simulation, index: int, disk: Disk) -> None:
        super().__init__(simulation, index, disk)
        self._traitor: Traitor | None = None
        self._traitor_of = 0
        """The epoch in which the traitor lies."""

    def _lie(self, life: Life) -> None:
        """Have a traitor lie in this epoch; it remembers across restarts what it told whom."""
        if self.index not in self._options.traitors or self._traitor_of == life.epoch:
            return
        self._traitor_of = life.epoch
        if life.votes:
            self._traitor = Traitor(
                life.own,
                self._simulation.keys.signer(life.roster.committee.keys[life.own]),
                self._founded.chain,
                life.roster.size,
                self._clock.random,
            )

    def _begin(self, life: Life) -> None:
        self._lie(life)
        self._simulation.mutant.on_boot(life.replica)
        self._marks.watch_replica(life.replica)
        self._watch.booted(self.index, life.tip)
        self._clock.trace(
            f"{self.index} boots at {life.certified}, round {life.replica.round}, "
            f"{len(self.disk.blocks)} blocks, {len(self.disk.batches)} batches"
            + (f", epoch {life.epoch}" if life.epoch > 1 else "")
        )
        life.payload_changed = True
        self.enter(partial(self.post, ev.Started()))
        if life.votes and not self._simulation.mutant.forgets_earlier:
            self._make_anew(life)
        self.repeat(SWEEP_MS, self._sweep)
        self.repeat(FLUSH_MS, self._flush)

    # --- events in, effects out ---------------------------------------------------------------

    def post(self, event: ev.Event) -> None:
        """Take up an event, after those that are being taken up."""
        life = self.alive
        if life.stopped:
            return
        life.events.append(event)
        self._drain(life)

    def _changed(self) -> None:
        self.alive.payload_changed = True
        if not self.alive.replica.has_work:
            self._drain(self.alive)

    def _drain(self, life: Life) -> None:
        if life.stepping or life.stopped:
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
            effects = life.replica.step(taken, self.now_ms())
            self._marks.stepped(taken, effects)
            for effect in effects:
                self.begin_effect(effect)
                if isinstance(effect, ev.Sign):
                    signature = self._sign(life, effect)
                    life.verifier.remember(effect.kind, life.own, effect.body, signature)
                    self._watch.signed(self.index, effect, self.disk)
                    self._clock.trace(f"{self.index} signs {effect.kind.name} {effect.round}")
                    held = life.batches.held_counts()
                    waiting.append(ev.Signed(effect.kind, effect.body, signature, held))
                else:
                    self._carry_out(life, effect)

    def _sign(self, life: Life, request: ev.Sign) -> bytes:
        """Return the signature; nothing may ask for a second one."""
        try:
            return life.signer.sign(
                request.kind,
                request.epoch,
                request.round,
                request.body,
                two_chain=request.two_chain,
            )
        except SigningRefusedError as error:
            raise Violation("signer agrees", f"node {self.index}: {error}") from error

    def _carry_out(self, life: Life, effect: ev.Effect) -> None:
        match effect:
            case ev.Persist():
                self._simulation.blocks.update({block.id: block for block in effect.blocks})
                life.shown.persist(effect)
            case ev.Broadcast() | ev.Send() | ev.Deliver() | ev.EndEpoch():
                life.outbox.put(effect)
            case ev.RequirePayload(block, ordered):
                self._require(life, block, ordered=ordered)
            case ev.Execute(block):
                options = self._options
                most_ms = options.execute_ms
                if self.index == options.slow_node and not self._simulation.healed:
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
            case ev.ServeEnd(peer, epoch):
                self._marks.reach("old epoch's message answered")
                end = self.disk.store.ended[epoch - 1].certificate
                self._send(peer, Certificates(epoch, None, None, end))
            case ev.PeerHeld(peer, counts):
                self._peer_holds(life, peer, counts)
            case ev.SetTimer(token, at_ms):
                self.set_timer(life, token, at_ms)
            case ev.CancelTimer(token):
                life.timers.pop(token, None)
            case ev.ReportEvidence(kind, first, second):
                self._watch.evidence(self.index, kind, first)
                self._keep(life, wire.encode_message(first), wire.encode_message(second))
            case ev.Halt(code, reason):
                raise Violation("no halt", f"node {self.index}: {code}, {reason}")

    def _keep(self, life: Life, first: bytes, second: bytes) -> None:
        pair = len(first).to_bytes(4) + first + second
        if pair not in life.evidence:
            life.evidence.append(pair)
            life.outbox.log(kinds.evidence(pair))

    # --- what the outbox asks ------------------------------------------------------------------

    def act(self, effect: Outgoing) -> None:
        """Send or deliver; everything that it promises must be durable."""
        self.begin_effect(effect)
        match effect:
            case ev.Broadcast(message):
                self._watch.sends(self.index, message, self.disk)
                for machine in range(self._options.machines):
                    if machine != self.index:
                        self.begin_effect(message)
                        self._tell(self.alive.roster.number(machine), message)
            case ev.Send(peer, message):
                self._watch.sends(self.index, message, self.disk)
                self._tell(peer, message)
            case ev.Deliver(block, certificate):
                self._deliver(self.alive, block, certificate)
            case ev.EndEpoch(block):
                self._watch.leaves(self.index, block)
                if self.alive.replica.ordered_height > block.height:
                    self._marks.reach("blocks ordered beyond the end of an epoch")
                self.end_epoch()

    def _tell(self, peer: int, message: Message) -> None:
        if self._traitor is None or not self.alive.votes:
            self._send(peer, message)
            return
        for said in self._traitor.tell(peer, message):
            self._watch.lies(self.index, said)
            self._send(peer, said)

    def _send(self, peer: int, parcel: Parcel) -> None:
        self._simulation.network.send(self.index, self.alive.roster.at(peer), parcel)

    # --- messages in --------------------------------------------------------------------------

    def receive(self, machine: int, parcel: Parcel) -> None:
        """Take what a link brings."""
        life = self.alive
        sender = life.roster.number(machine)
        if isinstance(parcel, Push | Announce) and sender >= life.roster.size:
            return  # of one who makes no batches
        asked = isinstance(parcel, Request | BlocksRequest)
        if asked and not life.votes and self._watch.has_left(self.index, life.epoch):
            self._marks.reach("a removed node was asked")
        match parcel:
            case Push(public, private):
                self._offer(life, sender, public, private, solicited=False)
            case Response(public, private):
                self._offer(life, sender, public, private, solicited=True)
            case Request(digests):
                self._serve_batches(life, sender, digests)
            case Absent(digests):
                life.batches.absent(digests, self.steady_ms())
                self._fetch()
            case Announce(counts, digests):
                self._peer_holds(life, sender, counts)
                life.batches.hear(sender, digests, self.steady_ms())
                self._fetch()
                self._announce()
            case _:
                if (epoch := elsewhere(parcel, life.epoch)) is not None:
                    self._clock.trace(f"{self.index} hears of epoch {epoch} from {sender}")
                    if epoch > life.epoch + 1:
                        self._marks.reach("several epochs behind")
                    self.post(ev.OtherEpoch(sender, epoch))
                elif life.replica.wants(parcel):
                    if self._traitor is not None and isinstance(parcel, Proposal):
                        self._pretend(life, self._traitor, parcel)
                    try:
                        verified = life.verifier.verify(parcel, sender)
                    except (RemoteProtocolError, VerificationError) as error:
                        self._refuse(machine, error)
                        return
                    self._look_for_own(life, parcel)
                    self._clock.trace(f"{self.index} takes {type(parcel).__name__} of {sender}")
                    if isinstance(parcel, BlocksResponse):
                        self.post(ev.BlocksFetched(sender, verified))
                    else:
                        self.post(ev.Received(sender, verified))

    def _pretend(self, life: Life, traitor: Traitor, proposal: Proposal) -> None:
        """Vote although this machine has left the committee, if it has."""
        if not life.votes:
            for peer in life.peers:
                self._send(peer, traitor.pretend(proposal))

    def _refuse(self, machine: int, error: ComityError) -> None:
        """Drop a message that does not hold; a node closes the link for it."""
        false = machine in self._options.traitors
        require(false, "no fault of the honest", f"{machine} to {self.index}: {error}")
        self._marks.reach("a vote without a seat refused")

    def hello(self) -> Certificates:
        """Return what this machine shows whoever connects to it."""
        life = self.alive
        newest, shown = life.replica.certificates(), life.shown.certificates()
        if shown != newest:
            self._marks.reach("hello without what is not durable yet")
        if self._simulation.mutant.hasty_hellos:
            shown = newest
        self._watch.shows(self.index, shown, self.disk)
        return shown

    def connected(self, machine: int, hello: Certificates) -> None:
        """A link stands, and the peer has shown its certificates."""
        life = self.alive
        peer = life.roster.number(machine)
        message = wire.decode_message(wire.encode_message(hello))
        epoch = elsewhere(message, life.epoch)
        verified = None
        if epoch is None:
            verified = life.verifier.verify(message, peer)
            self._look_for_own(life, message)
        self.post(ev.Connected(peer, verified))
        if epoch is not None:
            self.post(ev.OtherEpoch(peer, epoch))

    def _look_for_own(self, life: Life, message: Message) -> None:
        """Check that nobody holds what this key has signed and forgotten."""
        if not life.votes or self.index in self._options.traitors:
            return
        try:
            check_remembered(message, life.own, life.signer)
        except PromisesLostError as error:
            raise Violation("no promise is lost", f"node {self.index}: {error}") from error

    def _serve(self, life: Life, peer: int, request: BlocksRequest) -> None:
        if request.block_id is not None:
            return
        blocks: list[Block] = []
        proof: CommitCert | QuorumCert | None = None
        proved = 0
        for height in range(request.from_height, request.from_height + request.count):
            found = self._ordered(life, height)
            if found is None or found[0].epoch != request.epoch:
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
        batch = life.batches.add_own(lane, transactions, self.steady_ms())
        self._log_batch(life, batch)
        life.outbox.after_sync(partial(self._push, batch))
        return batch

    def _make_anew(self, life: Life) -> None:
        """Make batches of what earlier epochs left, each transaction once, as the pool sees to."""
        known = set(self._simulation.known(self.index))
        for batch in life.batches.undelivered():
            if batch.origin == life.own:
                known |= {each.txid for each in self._simulation.decoded(batch)}
        for batch in life.earlier:
            left = [each for each in self._simulation.decoded(batch) if each.txid not in known]
            known |= {each.txid for each in left}
            if left:
                self._marks.reach("batch of an earlier epoch made anew")
                self.enter(partial(self._submit_again, life, batch.lane, left))

    def _submit_again(self, life: Life, lane: int, transactions: list[Transaction]) -> None:
        if self.life is life and not life.stopped:
            self.submit(lane, transactions)

    def _push(self, batch: CheckedBatch) -> None:
        self._simulation.accepted(self.index, batch)
        for peer in self.alive.peers:
            push = Push(batch.public, batch.private)
            self.begin_effect(push)
            self._send(peer, push)
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
        life.batches.checked(request, batch, self.steady_ms())
        self._log_batch(life, batch)
        self._held(batch.digest)

    def _log_batch(self, life: Life, batch: CheckedBatch) -> None:
        life.outbox.log(kinds.batch(batch.digest, batch.public))
        life.outbox.log(kinds.private(batch.digest, batch.private))

    def _held(self, digest: bytes) -> None:
        for block_id in self.alive.batches.held(digest):
            self.post(ev.PayloadHeld(block_id))
        self._changed()
        self._announce()

    def _peer_holds(self, life: Life, peer: int, counts: tuple[int, ...]) -> None:
        if life.batches.take_counts(peer, counts):
            self._changed()
        if life.votes and life.own < len(counts):
            for batch in life.batches.peer_held(peer, counts[life.own], self.steady_ms()):
                self._marks.reach("batch pushed again")
                self._send(peer, Push(batch.public, batch.private))

    def _announce(self) -> None:
        life, now_ms = self.alive, self.steady_ms()
        if not life.votes:
            return
        counts = life.batches.held_counts()
        for peer, digests in life.batches.announcements(now_ms, life.peers):
            self._marks.reach("batch announced" if digests else "announcement answered")
            self._send(peer, Announce(counts, digests))
        due_ms = life.batches.announcer.next_ms()
        if due_ms is not None and (life.announce_ms is None or due_ms < life.announce_ms):
            life.announce_ms = due_ms
            self.soon(max(due_ms - now_ms, 1), self._announce_again)

    def _announce_again(self) -> None:
        self.alive.announce_ms = None
        self._announce()

    def _require(self, life: Life, block: Block, *, ordered: bool) -> None:
        batches, now_ms = life.batches, self.steady_ms()
        leader = life.roster.committee.leader(block.round)
        match batches.require(
            block.id, block.payload, block.height, now_ms, leader=leader, ordered=ordered
        ):
            case Payload.COMPLETE:
                self.post(ev.PayloadHeld(block.id))
            case Payload.MISSING:
                self._fetch()
            case Payload.INVALID:
                raise Violation("no fault of the honest", "a block with an invalid batch")

    def _fetch(self) -> None:
        life, now_ms = self.alive, self.steady_ms()
        for peer, digests in life.batches.fetches(now_ms, life.peers):
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
        if life.stopped:
            return
        before = self._statement(life, block.height - 1)
        beyond = before.next_committee_hash is not None and before.epoch == block.epoch
        require(not beyond, "nothing is executed beyond the end of an epoch", f"{block.height}")
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
        elected = outcome.next_committee
        if elected is not None:
            self._simulation.committees.know(elected)
        result = ev.ExecutionResult(
            executor=EXECUTOR,
            state_root=applied.state_root,
            results_root=outcome.results_root,
            changes_root=applied.changes_root,
            history_root=life.history.root(),
            next_committee_hash=None if elected is None else elected.hash,
        )
        statement = statement_of(self._founded.chain, block, result)
        life.history.append(statement.hash)
        life.executed += 1
        require(block.height == life.executed, "executed in order", f"height {block.height}")
        life.heights[block.height] = Height(block, statement, tuple(batches), elected=elected)
        self._clock.trace(f"{self.index} executes {block.height} {statement.hash[:4].hex()}")
        self.post(ev.Executed(block.id, result))

    def _statement(self, life: Life, height: int) -> Statement:
        """Return what an executed height came to."""
        stored = self.disk.store.blocks
        return stored[height][1] if height < len(stored) else life.heights[height].statement

    def _undo(self, life: Life, block_id: bytes) -> None:
        height = life.heights.pop(life.executed)
        require(height.block.id == block_id, "only the tip is undone", f"{life.executed}")
        require(life.executed > life.certified, "what is certified stays", f"{life.executed}")
        if height.elected is not None:
            self._marks.reach("end of an epoch undone")
        life.executed -= 1
        life.state.undo()
        life.history.truncate(life.history.size - 1)
        self._clock.trace(f"{self.index} undoes {height.block.height}")

    # --- delivery -----------------------------------------------------------------------------

    def _deliver(self, life: Life, block: Block, certificate: CommitCert) -> None:
        life.signer.settle(certificate.statement.epoch, certificate.statement.round)
        height = life.heights[block.height]
        self._watch.delivered(self.index, block, height.statement, certificate)
        self._clock.trace(f"{self.index} delivers {block.height} {block.id[:4].hex()}")
        life.certified = block.height
        life.tip = block
        if certificate.statement.height == block.height:
            height.certificate = certificate
        life.batches.delivered(block.payload, self.steady_ms())
        life.batches.settle(block.height)
        self._simulation.delivered(self.index, block, height.batches)
        if life.certified - self.disk.store.height >= self._options.flush_heights:
            self._flush()
        # The replica knows of its deliveries; news of other batches reach it by itself.

    def _sweep(self) -> None:
        self.alive.batches.close_gaps(self.steady_ms())
        gone = self.alive.batches.expire(self.alive.tip.time_ms)
        for _ in gone:
            self._marks.reach("batch expired undecided")
        self._changed()

    def _flush(self) -> None:
        """Begin a flush up to the newest height that has a certificate of its own."""
        life = self.alive
        proved = [n for n, height in life.heights.items() if height.certificate is not None]
        if life.flushing or life.stopped or not proved:
            return
        life.flushing = True
        delay_ms = self._clock.random.randint(0, 20)
        self.soon(delay_ms, lambda: self._flushed(max(proved)))

    def _flushed(self, upto: int) -> None:
        life = self.alive
        life.flushing = False
        if self.disk.files.failing:  # the store lies on the same disk
            self.fail(life, "a flush failed")
        if not life.stopped:
            self.store_heights(life, upto)

    def store_heights(self, life: Life, upto: int) -> None:
        """Flush the heights up to this one, which has a certificate of its own."""
        store = self.disk.store
        if upto <= store.height:
            return
        store.backend.write(life.state.pending(upto))
        store.nodes.write(life.history.pending(upto))
        for number in range(store.height + 1, upto + 1):
            height = life.heights.pop(number)
            store.blocks.append((height.block, height.statement, height.certificate))
            if height.elected is not None and height.certificate is not None:
                store.ended.append(Ended(height.certificate, height.elected))
            for item, batch in zip(height.block.payload, height.batches, strict=True):
                store.numbers[item.origin] = max(store.numbers[item.origin], item.number)
                store.batches[batch.digest] = batch
        self.begin_effect(store)
        life.state.flushed(upto)
        life.history.flushed(upto)
        self.disk.flushed()
        life.outbox.flushed(upto)
        if life.log.end - life.grown_from >= self._options.log_bytes:
            life.turning = True

    def carried(self, life: Life) -> list[kinds.Entry]:
        """Return what a new log segment begins with, as ``node.engine`` does."""
        flushing = [batch for height in life.heights.values() for batch in height.batches]
        batches = {batch.digest: batch for batch in (*flushing, *life.batches.undelivered())}
        entries: list[kinds.Entry] = []
        for batch in batches.values():
            entries.append(kinds.batch(batch.digest, batch.public))
            entries.append(kinds.private(batch.digest, batch.private))
        entries += life.outbox.blocks()
        entries += [kinds.evidence(pair) for pair in life.evidence]
        if life.outbox.newest_record is not None:
            entries.append(kinds.safety(life.outbox.newest_record))
        return entries
