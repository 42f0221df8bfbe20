"""What the replica is told (events), what it asks for (effects), and its parameters.

``Replica.step(event, now_ms)`` returns effects in order. The contract of whoever runs them:

- A list is obeyed to its end, in order. Then each ``Sign`` in it is answered by ``Signed``, in
  order, before any other event, or all that are left by ``SignerAway``. Refusal to sign stops the
  node.
- ``Persist``, ``Broadcast``, ``Send``, ``Deliver`` and ``EndEpoch`` form one first-in-first-out
  queue over all steps: what follows a ``Persist`` leaves only when that is durable. Everything else
  may run at once, so the processor goes on while the disk syncs. Syncs may be merged.
- ``Execute`` comes one at a time, always on the tip of what was executed and not undone;
  ``Executed`` answers it. ``Undo`` takes back that tip.
- ``RequirePayload`` is answered by ``PayloadHeld`` once every batch of the block is held, found
  valid and logged (or covered by the next ``Persist``); never, if one is invalid. The batches stay
  until the block is delivered, so it is asked of own and recovered blocks too.
- A timer is known by its token; setting it again moves it. Early or late firing is harmless.
- After ``Halt`` nothing more is signed or sent.
- ``EndEpoch`` is a replica's last effect. First whatever was delivered is made durable with its
  certificate, then the record in it is, and only then a replica of the next epoch is begun with
  that record; nothing is signed in between. A crash before the record is durable begins again with
  the old epoch's, and with the delivered block as its tip: the effect then comes again.
- A peer is a number: the index of a member of the epoch's committee, or any number from its size
  on, for a node that has no vote in this epoch (which may be a member of another one).
- Messages of other epochs are not verified. ``OtherEpoch`` tells of them; ``epochs.elsewhere``
  says which they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from consensus.codec import INT64_MAX
from consensus.hotstuff.announcing import ANNOUNCE_MS
from consensus.hotstuff.types import (
    Block,
    BlocksRequest,
    CommitCert,
    Message,
    PayloadItem,
    SafetyRecord,
    SignKind,
    VerifiedMessage,
)

# --- construction -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    """Parameters of one replica. ``chain`` and the payload limits are genesis parameters.

    Args:
        chain: hash of the genesis file.
        timeout_base_ms: a round may last this long before it is given up.
        timeout_growth_num, timeout_growth_den: factor per consecutive failed round.
        timeout_max_ms: cap of that growth.
        short_timer_min_ms, short_timer_rounds: how long the proposal of a leader that failed before
            is waited for: so many observed round times, and at least so long.
        announce_ms: a batch that stays unproposed for so long is announced to all.
        heartbeat_ms: an idle chain gets an empty block this often.
        block_spacing_ms, certified_spacing_ms: between the arrival of a block with payload and the
            next payload; the second once the block is certified.
        empty_block_ms: between empty blocks; stalled_block_ms while results disagree.
        execution_ahead_max, certified_ahead_max: windows of heights in which payload is proposed;
            votes on payload wait beyond twice these.
        round_ahead_max: loose votes further ahead are dropped.
        time_ahead_ms: a block may be this far ahead of the local clock.
        round_time_min_ms: bound below of the observed round time.
        resend_ms: own messages are sent again this often while something is undecided.
        fetch_delay_ms, fetch_retry_ms: wait before asking for a missing block, and between asks.
        payload_items_max, payload_bytes_max, payload_transactions_max: of one block; a tenth of
            the bytes is reserved for the protective lane.
        tree_blocks_max: undelivered blocks kept.
        fetch_ahead_max: no further pages of blocks are fetched while more than this many heights
            wait for execution.
    """

    chain: bytes
    timeout_base_ms: int = 1000
    timeout_growth_num: int = 6
    timeout_growth_den: int = 5
    timeout_max_ms: int = 4000
    short_timer_min_ms: int = 50
    short_timer_rounds: int = 2
    announce_ms: int = ANNOUNCE_MS
    heartbeat_ms: int = 3000
    block_spacing_ms: int = 50
    certified_spacing_ms: int = 20
    empty_block_ms: int = 250
    stalled_block_ms: int = 1000
    execution_ahead_max: int = 2
    certified_ahead_max: int = 8
    round_ahead_max: int = 10
    time_ahead_ms: int = 500
    round_time_min_ms: int = 20
    resend_ms: int = 1000
    fetch_delay_ms: int = 20
    fetch_retry_ms: int = 250
    payload_items_max: int = 512
    payload_bytes_max: int = 4 * 1024 * 1024
    payload_transactions_max: int = 16384
    tree_blocks_max: int = 16384
    fetch_ahead_max: int = 256


@dataclass(frozen=True, slots=True)
class CertifiedTip:
    """The last delivered block and the certificate by which it was; None at genesis.

    It is of the record's epoch, or ended the epoch before it, by a certificate of its own.
    """

    block: Block
    commit_cert: CommitCert | None

    def ends(self, epoch: int) -> bool:
        """Whether the block is of that epoch and ended it."""
        certificate = self.commit_cert
        if certificate is None or certificate.statement.block_id != self.block.id:
            return False
        statement = certificate.statement
        return statement.epoch == epoch and statement.next_committee_hash is not None


@dataclass(frozen=True, slots=True)
class RecoveredState:
    """What storage gives back at start.

    Args:
        record: the newest durable safety record (``types.first_record`` on a new node).
        tip: the last delivered block.
        blocks: those in the log above it, in any order; what does not connect is left out.
        silent_upto: nothing is signed for rounds up to this one: they are settled by a certificate
            that the record does not know, or this node does not vote (``NEVER``).
    """

    record: SafetyRecord
    tip: CertifiedTip
    blocks: tuple[Block, ...] = ()
    silent_upto: int = 0


NEVER = INT64_MAX
"""A round that is never reached."""

FOLLOWER = -1
"""In place of the own index: a node without a vote in the epoch. It signs nothing."""


# --- events -------------------------------------------------------------------------------------


class Timer(IntEnum):
    """Tokens of timers; one of each at most."""

    ROUND = 1
    PROPOSE = 2
    RESEND = 3
    EARLY_BLOCK = 4
    FETCH = 5


@dataclass(frozen=True, slots=True)
class Started:
    """The first event. Storage is recovered; timers and the network run."""


@dataclass(frozen=True, slots=True)
class Received:
    """A peer's message, verified outside."""

    sender: int
    message: VerifiedMessage


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer set by ``SetTimer`` is due."""

    token: Timer


@dataclass(frozen=True, slots=True)
class PayloadAvailable:
    """All batches that could be proposed now, in proposing order, replacing what was told before.

    Each is held, valid and logged here, with all earlier ones of its origin, and not delivered.
    """

    items: tuple[PayloadItem, ...]


@dataclass(frozen=True, slots=True)
class PayloadHeld:
    """Every batch of the block is held, valid and logged."""

    block_id: bytes


@dataclass(frozen=True, slots=True)
class ExecutionResult:
    """What executing a block gave: the executor's part of its statement."""

    executor: int
    state_root: bytes
    results_root: bytes
    changes_root: bytes
    history_root: bytes
    next_committee_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Executed:
    """The block of the last ``Execute`` has been executed."""

    block_id: bytes
    result: ExecutionResult


@dataclass(frozen=True, slots=True)
class Signed:
    """The signature asked for by the oldest unanswered ``Sign``.

    ``held``: this node's contiguous count of batches held per origin, to travel with a vote.
    """

    kind: SignKind
    body: bytes
    signature: bytes
    held: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class SignerAway:
    """Whoever signs is gone: no ``Sign`` is answered, and none comes, until ``SignerBack``."""


@dataclass(frozen=True, slots=True)
class SignerBack:
    """Whoever signs is there again. ``signed``: the last body of each kind in this epoch that the
    key has signed, as ``(kind, round, body)``; this process may not know of them.
    """

    signed: tuple[tuple[SignKind, int, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class Connected:
    """A link to ``peer`` stands. ``certificates`` are those of its hello, verified, if it sent any.

    ``certificates.message`` is a ``Certificates``.
    """

    peer: int
    certificates: VerifiedMessage | None = None


@dataclass(frozen=True, slots=True)
class BlocksFetched:
    """A peer's answer to ``FetchBlocks``: a verified ``BlocksResponse``."""

    peer: int
    response: VerifiedMessage


@dataclass(frozen=True, slots=True)
class OtherEpoch:
    """A peer spoke of another epoch than this replica's; nothing that it said was verified."""

    peer: int
    epoch: int


Event = (
    Started
    | Received
    | TimerFired
    | PayloadAvailable
    | PayloadHeld
    | Executed
    | Signed
    | SignerAway
    | SignerBack
    | Connected
    | BlocksFetched
    | OtherEpoch
)


# --- effects ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sign:
    """Sign ``body`` under its tag. ``two_chain``: a commit vote may be below the last one.

    ``block``: of a proposal, whose body is the block's id. ``record``: of a timeout, the safety
    record with the certificates that it rests on; nothing is promised by it that was not before.
    """

    kind: SignKind
    epoch: int
    round: int
    body: bytes
    two_chain: bool = False
    block: Block | None = None
    record: bytes = b""


@dataclass(frozen=True, slots=True)
class Persist:
    """Log the encoded safety record together with ``blocks``, each of which is logged once."""

    record: bytes
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Broadcast:
    """Send to every peer."""

    message: Message


@dataclass(frozen=True, slots=True)
class Send:
    """Send to one peer."""

    peer: int
    message: Message


@dataclass(frozen=True, slots=True)
class RequirePayload:
    """Hold the block's batches; ask other nodes for what is missing.

    ``ordered``: a certificate shows that f + 1 honest nodes hold them and have checked them. One
    that is required before it is ordered, and still lacks some then, is required once more.
    """

    block: Block
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class Execute:
    """Execute the block on the executed tip."""

    block: Block


@dataclass(frozen=True, slots=True)
class Undo:
    """Take back the executed tip, which is this block."""

    block_id: bytes


@dataclass(frozen=True, slots=True)
class Deliver:
    """The block is final. ``commit_cert`` is on it or on a descendant. By height, each once."""

    block: Block
    commit_cert: CommitCert


@dataclass(frozen=True, slots=True)
class EndEpoch:
    """The block, delivered just before, ended the epoch: begin the next one with ``record``.

    ``commit_cert`` is on this very block, and ``record`` is the next epoch's first, encoded.
    """

    block: Block
    commit_cert: CommitCert
    record: bytes


@dataclass(frozen=True, slots=True)
class FetchBlocks:
    """Send ``request`` to these peers; the first good answer serves."""

    request: BlocksRequest
    peers: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServeBlocks:
    """Answer ``peer`` from storage with a ``BlocksResponse``, if the blocks are there.

    By height: at most ``count`` blocks of the request's epoch, ending at the last of them that has
    a commit certificate of its own (given as proof), or else proved by the justify of the block
    that follows.
    """

    peer: int
    request: BlocksRequest


@dataclass(frozen=True, slots=True)
class ServeEnd:
    """Send ``peer`` the commit certificate that ended an earlier epoch, as ``Certificates`` of it.

    If it is not kept, nothing is sent.
    """

    peer: int
    epoch: int


@dataclass(frozen=True, slots=True)
class PeerHeld:
    """A verified vote told how many batches its sender holds per origin."""

    peer: int
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire ``token`` at ``at_ms``, in place of any earlier setting."""

    token: Timer
    at_ms: int


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget the timer."""

    token: Timer


class EvidenceKind(Enum):
    """What two messages together prove."""

    TWO_PROPOSALS = "two proposals for one round"
    TWO_VOTES = "two votes in one round"
    TWO_TIMEOUTS = "two timeouts for one round"
    TWO_COMMIT_VOTES = "two commit votes for one round"
    RESULTS_DISAGREE = "validators disagree on a result so that no certificate can form"


@dataclass(frozen=True, slots=True)
class ReportEvidence:
    """Keep and show the pair. RESULTS_DISAGREE names no culprit: the signers differ."""

    kind: EvidenceKind
    first: Message
    second: Message


@dataclass(frozen=True, slots=True)
class Halt:
    """Stop signing for good and keep all data. ``code`` is stable, ``reason`` a sentence."""

    code: str
    reason: str


Effect = (
    Sign
    | Persist
    | Broadcast
    | Send
    | RequirePayload
    | Execute
    | Undo
    | Deliver
    | EndEpoch
    | FetchBlocks
    | ServeBlocks
    | ServeEnd
    | PeerHeld
    | SetTimer
    | CancelTimer
    | ReportEvidence
    | Halt
)
