"""Runs the replica: events in, effects out, in their order.

Nothing here waits. An event is taken up at once, in whatever task brings it, and the effects are
carried out before the next; what needs a disk goes through the outbox. Peers' messages are decoded
and verified here, before ``step`` sees them; what is not wanted costs no signature check. After
``close``, and after a ``Halt`` or a refusal of the signer, nothing is taken up any more.

Not here: the rules (``consensus.hotstuff``), batches (``dissemination``), and tasks (``runtime``).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final, Protocol

import trio
from structlog.typing import FilteringBoundLogger

from consensus.committee import Committee
from consensus.errors import (
    ComityError,
    LocalProtocolError,
    RemoteProtocolError,
    VerificationError,
)
from consensus.hotstuff import wire
from consensus.hotstuff.certificates import Verifier
from consensus.hotstuff.epochs import elsewhere
from consensus.hotstuff.events import (
    BlocksFetched,
    Broadcast,
    CancelTimer,
    Connected,
    Deliver,
    EndEpoch,
    Event,
    Execute,
    FetchBlocks,
    Halt,
    OtherEpoch,
    PayloadAvailable,
    PeerHeld,
    Persist,
    Received,
    ReportEvidence,
    RequirePayload,
    Send,
    ServeBlocks,
    ServeEnd,
    SetTimer,
    Sign,
    Signed,
    SignerAway,
    SignerBack,
    Timer,
    TimerFired,
    Undo,
)
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.types import (
    Block,
    BlocksRequest,
    BlocksResponse,
    Certificates,
    CommitCert,
    Message,
    PayloadItem,
    Proposal,
    QuorumCert,
    SignKind,
    Vote,
)
from node.activation import Horizon
from node.api.limits import ByteBudget
from node.chronicle import Chronicle
from node.dissemination import Dissemination
from node.errors import PromisesLostError, SigningRefusedError, StorageFailedError
from node.execution import Execution
from node.network.wire import Class
from node.outbox import Outbox, Outgoing
from node.promises import check_remembered
from node.remote_signer import RemoteSigner
from node.shown import Shown
from node.signer import SignedBody, Signer
from node.storage import kinds
from node.telemetry.metrics import Metrics

SERVES_PER_SECOND_MAX: Final = 20
"""Requests for blocks that one peer gets answered; who catches up has one at a time."""
SERVES_BURST_MAX: Final = 40
SERVE_BYTES_MAX: Final = 2 * 1024 * 1024
"""Blocks in one answer to a node that catches up, by size."""
RECEIVED_MAX: Final = 1024
"""Blocks whose receipt is timed; of those never delivered the oldest are forgotten first."""
EVIDENCE_MAX: Final = 256
"""Pairs of contradicting messages kept; the first of them, since one already convicts."""
GUEST_LABEL: Final = "guest"
"""What all nodes without a vote are called together in metrics."""
NEVER_MS: Final = 2**63
CHECK_SECONDS_MAX: Final = 0.5
"""A timer is looked at again at least this often, because the wall clock may be set."""


class Links(Protocol):
    """What is needed of ``node.network.peers.PeerNetwork``."""

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        """Queue a payload for one peer."""
        ...

    def broadcast(self, cls: Class, payload: bytes) -> None:
        """Queue a payload for every connected peer."""
        ...


class Ordering:
    """The replica of one node and its surroundings.

    Args:
        delivered: is told each final block in order.
        halted: is told the reason for which nothing more is signed.
        now_ms: this node's clock.
        evidence: pairs that the log holds.
        ends: what ended each earlier epoch.
        epoch_over: is told that the epoch ended; nothing is taken up any more.
        horizon: knows which blocks this release cannot execute.
    """

    def __init__(
        self,
        replica: Replica,
        committee: Committee,
        own: int,
        verifier: Verifier,
        signer: Signer,
        outbox: Outbox,
        links: Links,
        chronicle: Chronicle,
        delivered: Callable[[Block, CommitCert], None],
        halted: Callable[[Halt], None],
        now_ms: Callable[[], int],
        log: FilteringBoundLogger,
        metrics: Metrics,
        evidence: Iterable[bytes] = (),
        ends: Mapping[int, CommitCert] = MappingProxyType({}),
        epoch_over: Callable[[], None] = lambda: None,
        horizon: Horizon | None = None,
    ) -> None:
        self.replica = replica
        self._horizon = horizon
        self.evidence = list(dict.fromkeys(evidence))[:EVIDENCE_MAX]
        """Pairs of contradicting signed messages, as they are logged."""
        self._ends = ends
        self._epoch_over = epoch_over
        self._committee = committee
        self._own = own
        self._verifier = verifier
        self._signer = signer
        self._remote = signer if isinstance(signer, RemoteSigner) else None
        self._outbox = outbox
        self._links = links
        self._chronicle = chronicle
        self._delivered = delivered
        self._halted = halted
        self._now_ms = now_ms
        self._log = log
        self._metrics = metrics
        self._serves = ByteBudget(SERVES_PER_SECOND_MAX, SERVES_BURST_MAX)
        self._vote_seconds = metrics.stage_seconds.labels(stage="vote")
        self._clock_skew = [
            metrics.clock_skew.labels(validator=each.agency) for each in committee.validators
        ]
        self._events: deque[Event] = deque()
        self._of_signer: deque[Event] = deque()
        """What a signer in another process tells; goes before all other events."""
        self._stepping = False
        self._closed = False
        self._payload_changed = False
        self._told_items: tuple[PayloadItem, ...] = ()
        self._timers: dict[Timer, int] = {}
        self._shown = Shown(outbox, replica.certificates)
        self._timer_bell = trio.Event()
        self._looks_at_ms = 0
        """When ``run_timers`` looks again by itself; only an earlier timer need wake it."""
        self._received: dict[bytes, float] = {}
        self._voted: set[int] = set()
        """Rounds whose vote was signed in this life and is not yet sent."""
        self.dissemination: Dissemination | None = None
        self.execution: Execution | None = None

    # --- events in ----------------------------------------------------------------------------

    def post(self, event: Event) -> None:
        """Take up an event, after those that are being taken up."""
        self._events.append(event)
        self._drain()

    def payload_changed(self) -> None:
        """Other batches may be proposed than was told last.

        To a replica without work this is news. Else it changes what the next block holds, not when
        that is made, and is told before the next event.
        """
        self._payload_changed = True
        if not self.replica.has_work:
            self._drain()

    def close(self) -> None:
        """Take up nothing any more."""
        self._closed = True
        self._events.clear()
        self._of_signer.clear()
        self._timers.clear()

    def _drain(self) -> None:
        if self._stepping or self._closed:
            return
        self._stepping = True
        try:
            while not self._closed:
                if self._of_signer:
                    self._step(self._of_signer.popleft())
                    continue
                if self._awaited:
                    break
                if self._payload_changed and self.dissemination is not None:
                    self._payload_changed = False
                    self._tell_payload(self.dissemination)
                    if self._awaited:
                        break
                if not self._events:
                    break
                self._step(self._events.popleft())
        except SigningRefusedError as error:
            self._halted(Halt(error.code, error.message))
        except StorageFailedError:  # of the mark; whoever writes it tells the node
            self.close()
        except FAULTS as error:  # all that came from others was verified before
            said = f"what was verified could not be taken up: {error.message}"
            raise LocalProtocolError(said) from error
        finally:
            self._stepping = False

    def _tell_payload(self, dissemination: Dissemination) -> None:
        items = dissemination.unproposed()
        if items != self._told_items:
            self._told_items = items
            self._step(PayloadAvailable(items))

    def _step(self, event: Event) -> None:
        waiting: deque[Event] = deque([event])
        while waiting:
            for effect in self.replica.step(waiting.popleft(), self._now_ms()):
                match effect:
                    case Sign() if (halt := self._beyond(effect)) is not None:
                        self._halted(halt)
                        return
                    case Sign() if self._remote is not None:
                        self._ask(self._remote, effect)
                    case Sign():
                        waiting.append(self._sign(effect))
                    case Persist():
                        self._shown.persist(effect)
                    case Broadcast() | Send() | Deliver() | EndEpoch():
                        self._outbox.put(effect)
                    case _:
                        self._carry_out(effect)

    def _beyond(self, request: Sign) -> Halt | None:
        """Return why a block is not signed that this release cannot execute."""
        return None if self._horizon is None else self._horizon.forbids(request)

    def _sign(self, request: Sign) -> Signed:
        kind, round_, body = request.kind, request.round, request.body
        signature = self._signer.sign(
            kind, request.epoch, round_, body, two_chain=request.two_chain
        )
        return self._signed(request, signature)

    def _signed(self, request: Sign, signature: bytes) -> Signed:
        kind, round_, body = request.kind, request.round, request.body
        self._verifier.remember(kind, self._own, body, signature)
        held: tuple[int, ...] = ()
        if kind is SignKind.VOTE and self.dissemination is not None:
            self._voted.add(round_)
            held = self.dissemination.batches.held_counts()
        elif kind is SignKind.TIMEOUT:
            name = self._committee.validators[self._committee.leader(round_)].agency
            self._metrics.timeouts.labels(leader=name).inc()
        return Signed(kind, body, signature, held)

    # --- a signer in another process ------------------------------------------------------------

    @property
    def _awaited(self) -> bool:
        """Whether a signature is under way: until it comes, nothing else is taken up."""
        return self._remote is not None and self._remote.awaited > 0

    def _ask(self, signer: RemoteSigner, request: Sign) -> None:
        """Ask for a signature; of a timeout once the log holds what it rests on."""
        if request.kind is SignKind.TIMEOUT:
            self._outbox.log_record(request.record)
            self._outbox.after_sync(signer.ask(request, ready=False))
        else:
            signer.ask(request)

    def signed(self, request: Sign, signature: bytes) -> None:
        """Take the signature for the oldest request."""
        self._of_signer.append(self._signed(request, signature))
        self._drain()

    def signer_away(self) -> None:
        """Go on without a vote; what is under way is not answered."""
        self._of_signer.append(SignerAway())
        self._drain()

    def signer_back(self, bodies: Iterable[SignedBody]) -> None:
        """Vote again, with what the signer says that this key has signed last."""
        epoch = self.replica.epoch
        later = [body for body in bodies if body.epoch > epoch]
        if later:
            self.refused(
                PromisesLostError(
                    f"this key signed in epoch {later[0].epoch}, the log ends in epoch {epoch}"
                )
            )
            return
        signed = tuple((each.kind, each.round, each.body) for each in bodies if each.epoch == epoch)
        self._of_signer.append(SignerBack(signed))
        self._drain()

    def refused(self, error: ComityError) -> None:
        """The signer will not sign: stop."""
        self._halted(Halt(error.code, error.message))

    # --- effects out --------------------------------------------------------------------------

    def _carry_out(self, effect: object) -> None:
        execution, dissemination = self.execution, self.dissemination
        if execution is None or dissemination is None:
            return
        match effect:
            case RequirePayload(block, ordered):
                self._received.setdefault(block.id, time.monotonic())
                if len(self._received) > RECEIVED_MAX:
                    del self._received[next(iter(self._received))]
                leader = self._committee.leader(block.round)
                dissemination.require(block, leader, ordered=ordered)
            case Execute(block):
                execution.start(block)
            case Undo(block_id):
                execution.undo(block_id)
            case FetchBlocks(request, peers):
                payload = wire.encode_message(request)
                for peer in peers:
                    self._links.send(peer, Class.SYNC, payload)
            case ServeBlocks(peer, request):
                self._serve(peer, request)
            case ServeEnd(peer, epoch):
                if epoch in self._ends:
                    end = Certificates(epoch, None, None, self._ends[epoch])
                    self._links.send(peer, Class.CONSENSUS, wire.encode_message(end))
            case PeerHeld(peer, counts):
                dissemination.peer_holds(peer, counts)
            case SetTimer(token, at_ms):
                self._timers[token] = at_ms
                if at_ms < self._looks_at_ms:
                    self._timer_bell.set()
            case CancelTimer(token):
                self._timers.pop(token, None)
            case ReportEvidence(kind, first, second):
                self._metrics.equivocations.inc()
                self._log.warning("evidence", kind=kind.value)
                self._keep(wire.encode_message(first), wire.encode_message(second))
            case Halt():
                self._halted(effect)

    def _keep(self, first: bytes, second: bytes) -> None:
        """Log a pair of messages as evidence, while there is room for it."""
        pair = len(first).to_bytes(4) + first + second
        if len(self.evidence) < EVIDENCE_MAX and pair not in self.evidence:
            self.evidence.append(pair)
            self._outbox.log(kinds.evidence(pair))

    def act(self, effect: Outgoing) -> None:
        """Send or deliver; everything that it promises is durable."""
        match effect:
            case Broadcast(Vote(block_id=block_id) as vote):
                begin = self._received.get(block_id)
                if begin is not None and vote.round in self._voted:
                    self._vote_seconds.observe(time.monotonic() - begin)
                self._voted.discard(vote.round)
                self._links.broadcast(Class.CONSENSUS, wire.encode_message(vote))
            case Broadcast(message):
                self._links.broadcast(Class.CONSENSUS, wire.encode_message(message))
            case Send(peer, message):
                self._links.send(peer, Class.CONSENSUS, wire.encode_message(message))
            case Deliver(block, commit_cert):
                self._signer.settle(commit_cert.statement.epoch, commit_cert.statement.round)
                begin = self._received.pop(block.id, None)
                if begin is not None:
                    self._metrics.commit_seconds.observe(time.monotonic() - begin)
                self._delivered(block, commit_cert)
            case EndEpoch(block):
                self._log.info("epoch ended", epoch=block.epoch, height=block.height)
                self.close()
                self._epoch_over()

    def _serve(self, peer: int, request: BlocksRequest) -> None:
        """Answer a peer that catches up, from certified heights.

        What is asked for by id lies above the delivered blocks; the replica answers that itself.
        """
        blocks: list[Block] = []
        proof: CommitCert | QuorumCert | None = None
        proved = room = 0
        for height in range(request.from_height, request.from_height + request.count):
            found = self._chronicle.ordered(height)
            if found is None or found[0].epoch != request.epoch:
                break
            block, certificate = found
            room += len(wire.encode_block(block))
            if room > SERVE_BYTES_MAX:
                break
            blocks.append(block)
            if certificate is not None:
                proved, proof = len(blocks), certificate
        if proof is None and blocks:
            following = self._chronicle.ordered(blocks[-1].height + 1)
            if following is not None:
                proved, proof = len(blocks), following[0].justify
        if proof is not None:
            message = BlocksResponse(tuple(blocks[:proved]), proof)
            self._links.send(peer, Class.SYNC, wire.encode_message(message))

    # --- peers --------------------------------------------------------------------------------

    def connected(self, peer: int, extras: bytes) -> None:
        """A link stands; ``extras`` are the peer's highest certificates.

        Raises:
            RemoteProtocolError, VerificationError: they are malformed or forged.
        """
        verified = other = None
        if extras:
            message = wire.decode_message(extras)
            if not isinstance(message, Certificates):
                raise RemoteProtocolError("a hello carries certificates")
            other = elsewhere(message, self.replica.epoch)
            if other is None:
                verified = self._verifier.verify(message, peer)
                self._look_for_own(message)
        self.post(Connected(peer, verified))
        if other is not None:
            self.post(OtherEpoch(peer, other))

    def extras(self) -> bytes:
        """Return our highest certificates that may be shown, for a hello."""
        return wire.encode_message(self._shown.certificates())

    def receive(self, peer: int, payload: bytes) -> None:
        """Take a consensus message of a peer.

        Raises:
            RemoteProtocolError, VerificationError: malformed or forged.
        """
        message = wire.decode_message(payload)
        if self._closed:
            return
        if (epoch := elsewhere(message, self.replica.epoch)) is not None:
            self.post(OtherEpoch(peer, epoch))
            return
        if not self.replica.wants(message):
            return
        if isinstance(message, BlocksRequest):
            self.ask(peer, message)
            return
        if isinstance(message, Proposal):
            skew = message.block.time_ms - self._now_ms()
            self._clock_skew[self._committee.leader(message.block.round)].set(skew / 1000)
        verified = self._verifier.verify(message, peer)
        self._look_for_own(message)
        if isinstance(message, Proposal) and self._horizon is not None:
            self._horizon.proposed(message)
        if isinstance(message, BlocksResponse):
            self.post(BlocksFetched(peer, verified))
        else:
            self.post(Received(peer, verified))

    def ask(self, peer: int, request: BlocksRequest) -> None:
        """Take a request for blocks of this epoch or an earlier one, from a peer or a guest.

        Raises:
            VerificationError: it is of a later epoch.
        """
        if self._may_ask(peer):
            self.post(Received(peer, self._verifier.verify(request, peer)))

    def _may_ask(self, peer: int) -> bool:
        """Whether a peer's request is answered; who asks more has to ask again."""
        now = trio.current_time()
        if self._serves.take(peer, now):
            return True
        self._metrics.peer_refused.labels(peer=self._name(peer)).inc()
        return False

    def _name(self, peer: int) -> str:
        validators = self._committee.validators
        return validators[peer].agency if peer < len(validators) else GUEST_LABEL

    def _look_for_own(self, message: Message) -> None:
        """Stop if peers hold what this key has signed and forgotten."""
        try:
            check_remembered(message, self._own, self._signer)
        except PromisesLostError as error:
            self._halted(Halt(error.code, error.message))

    # --- timers -------------------------------------------------------------------------------

    async def run_timers(self) -> None:
        """Fire timers when they are due, until cancelled.

        All of them when the clock was set back: the replica sets them anew.
        """
        last_ms = self._now_ms()
        while True:
            now_ms = self._now_ms()
            set_back, last_ms = now_ms < last_ms, now_ms
            due = [token for token, at_ms in self._timers.items() if set_back or at_ms <= now_ms]
            for token in due:
                if self._timers.pop(token, None) is not None:
                    self.post(TimerFired(token))
            if due:
                await trio.lowlevel.checkpoint()
                continue
            at_ms = min(self._timers.values(), default=None)
            self._looks_at_ms = NEVER_MS if at_ms is None else at_ms
            if at_ms is None:
                await self._timer_bell.wait()
            else:
                with trio.move_on_after(min((at_ms - now_ms) / 1000, CHECK_SECONDS_MAX)):
                    await self._timer_bell.wait()
            self._timer_bell = trio.Event()


FAULTS: Final = (RemoteProtocolError, VerificationError)
"""What a peer's message may raise; its link is closed for it."""
