"""What validators agree on and tell each other: blocks, certificates, statements, messages.

Signed bodies are canonical CBOR arrays; every signature is over ``tag ‖ chain ‖ body``
(consensus/signing.py). Certificates list ``(validator index, signature)`` in strictly increasing
order and hold exactly a quorum. Nothing a sender could vary stays outside a block's hash.

Source: Jolteon (arXiv 2106.10362), HotStuff (arXiv 1803.05069); the commit vote signs an executed
result besides. Not here: bytes on the wire (``wire``), what the replica is told and asks for
(``events``), whether anything is valid (``certificates``) or may be signed (``safety``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Final, assert_never

from consensus import codec
from consensus.codec import Value
from consensus.errors import invariant
from consensus.hashing import H_BLOCK, H_STATEMENT
from consensus.signing import TAG_COMMIT_VOTE, TAG_PROPOSAL, TAG_TIMEOUT, TAG_VOTE

EPOCH_FIRST: Final = 1

NUMBERS_PER_EPOCH: Final = 1 << 40
"""Batches that one origin may make in one epoch. Those of epoch e are numbered above (e - 1) times
this: a batch whose origin is an index of another committee is never taken for one of this epoch."""

LANE_ORDINARY: Final = 0
LANE_PROTECTIVE: Final = 1

Signatures = tuple[tuple[int, bytes], ...]
"""(validator index, signature), strictly increasing by index."""


class SignKind(IntEnum):
    """What a validator key signs in consensus; one tag each."""

    PROPOSAL = 1
    VOTE = 2
    TIMEOUT = 3
    COMMIT_VOTE = 4


SIGN_TAGS: Final = {
    SignKind.PROPOSAL: TAG_PROPOSAL,
    SignKind.VOTE: TAG_VOTE,
    SignKind.TIMEOUT: TAG_TIMEOUT,
    SignKind.COMMIT_VOTE: TAG_COMMIT_VOTE,
}


def _encode(whole: Any) -> bytes:
    return codec.encode(whole.to_value())


def number_before(epoch: int) -> int:
    """Return the number below the first that a batch of the epoch has."""
    return (epoch - EPOCH_FIRST) * NUMBERS_PER_EPOCH


def epoch_of_number(number: int) -> int:
    """Return the epoch of a batch with this number, from 1 on."""
    return EPOCH_FIRST + (number - 1) // NUMBERS_PER_EPOCH


# --- blocks and certificates ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PayloadItem:
    """One batch named by a block: its digest, who made it, and what it weighs."""

    digest: bytes
    origin: int
    number: int
    lane: int
    count: int
    size_bytes: int

    def to_value(self) -> Value:
        """Return ``[digest, origin, number, lane, count, bytes]``."""
        return [self.digest, self.origin, self.number, self.lane, self.count, self.size_bytes]


@dataclass(frozen=True)
class QuorumCert:
    """A quorum voted for one block, which is thereby *ordered*.

    Round 0 is the virtual certificate of the block that an epoch starts from: no signatures.
    """

    epoch: int
    round: int
    block_id: bytes
    height: int
    signatures: Signatures

    @cached_property
    def body(self) -> bytes:
        """The bytes that each voter signed."""
        return vote_body(self.epoch, self.round, self.block_id, self.height)

    encoded = cached_property(_encode)
    """The canonical bytes, made once."""

    def to_value(self) -> Value:
        """Return ``[epoch, round, block_id, height, [[validator, signature], ...]]``."""
        return [self.epoch, self.round, self.block_id, self.height, _rows(self.signatures)]


@dataclass(frozen=True)
class TimeoutCert:
    """A quorum gave up ``round``. ``entries`` are ``(validator, high_round, signature)``.

    ``high_qc`` is the full quorum certificate whose round is the largest high_round.
    """

    epoch: int
    round: int
    entries: tuple[tuple[int, int, bytes], ...]
    high_qc: QuorumCert

    @cached_property
    def high_round(self) -> int:
        """The largest high_round among the entries; -1 when there is none."""
        return max((high for _, high, _ in self.entries), default=-1)

    encoded = cached_property(_encode)
    """The canonical bytes, made once."""

    def to_value(self) -> Value:
        """Return ``[epoch, round, [[validator, high_round, signature], ...], high_qc]``."""
        return [
            self.epoch,
            self.round,
            [list(row) for row in self.entries],
            self.high_qc.to_value(),
        ]


@dataclass(frozen=True)
class Block:
    """A proposal for one height. ``time_ms`` is chain time, milliseconds since 1970."""

    epoch: int
    round: int
    height: int
    parent_id: bytes
    justify: QuorumCert
    timeout_cert: TimeoutCert | None
    time_ms: int
    payload: tuple[PayloadItem, ...]
    committee_hash: bytes

    @cached_property
    def id(self) -> bytes:
        """H_BLOCK of the whole encoding; computed once."""
        return H_BLOCK(self.encoded)

    @cached_property
    def payload_bytes(self) -> int:
        """Sum of the batches' sizes."""
        return sum(item.size_bytes for item in self.payload)

    encoded = cached_property(_encode)
    """The canonical bytes, made once."""

    def to_value(self) -> Value:
        """Return the canonical array of nine items."""
        return [
            self.epoch,
            self.round,
            self.height,
            self.parent_id,
            self.justify.to_value(),
            None if self.timeout_cert is None else self.timeout_cert.to_value(),
            self.time_ms,
            [item.to_value() for item in self.payload],
            self.committee_hash,
        ]


@dataclass(frozen=True)
class Statement:
    """What a height means: the result of executing its block on its ancestors."""

    chain: bytes
    epoch: int
    round: int
    height: int
    block_id: bytes
    time_ms: int
    executor: int
    state_root: bytes
    results_root: bytes
    changes_root: bytes
    history_root: bytes
    next_committee_hash: bytes | None

    def encode(self) -> bytes:
        """Return the canonical bytes, which a commit vote signs."""
        return self.encoded

    encoded = cached_property(_encode)
    """The same, made once."""

    @cached_property
    def hash(self) -> bytes:
        """H_STATEMENT of the encoding: the leaf of the history tree."""
        return H_STATEMENT(self.encoded)

    def to_value(self) -> Value:
        """Return the canonical array of twelve items."""
        return [
            self.chain,
            self.epoch,
            self.round,
            self.height,
            self.block_id,
            self.time_ms,
            self.executor,
            self.state_root,
            self.results_root,
            self.changes_root,
            self.history_root,
            self.next_committee_hash,
        ]


@dataclass(frozen=True)
class CommitCert:
    """A quorum signed one statement: the block and its ancestors are *certified* (final)."""

    statement: Statement
    signatures: Signatures

    @cached_property
    def encoded(self) -> bytes:
        """The canonical bytes, made once."""
        return b"\x82" + self.statement.encoded + codec.encode(_rows(self.signatures))

    def to_value(self) -> Value:
        """Return ``[statement, [[validator, signature], ...]]``."""
        return [self.statement.to_value(), _rows(self.signatures)]


def _rows(signatures: Signatures) -> Value:
    return [[validator, signature] for validator, signature in signatures]


def genesis_block(chain: bytes, committee_hash: bytes, time_ms: int) -> Block:
    """Return the block of height 0. Its parent is ``chain``, so its id binds the genesis file.

    Args:
        chain: hash of the genesis file.
        committee_hash: of the first committee (epoch 1).
        time_ms: the genesis time.
    """
    nothing = QuorumCert(EPOCH_FIRST, 0, chain, 0, ())
    return Block(EPOCH_FIRST, 0, 0, chain, nothing, None, time_ms, (), committee_hash)


def genesis_cert(block: Block) -> QuorumCert:
    """Return the virtual certificate of the genesis block: round 0, no signatures."""
    return QuorumCert(block.epoch, 0, block.id, 0, ())


def start_cert(ending: Statement) -> QuorumCert:
    """Return the virtual certificate that the epoch after ``ending`` starts from.

    Args:
        ending: statement of the block that ended its epoch, proved by its own commit certificate.
    """
    invariant(ending.next_committee_hash is not None, "a statement that ends no epoch")
    return QuorumCert(ending.epoch + 1, 0, ending.block_id, ending.height, ())


# --- messages ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proposal:
    """The leader's block and its signature over the block's id.

    The certificates are the sender's highest, unsigned; null where they repeat the block's own.
    """

    block: Block
    signature: bytes
    high_qc: QuorumCert | None
    timeout_cert: TimeoutCert | None
    commit_cert: CommitCert | None


@dataclass(frozen=True)
class Vote:
    """``validator`` votes for one block of a round.

    ``held`` is unsigned and means nothing here: the voter's contiguous count of batches per origin.
    """

    epoch: int
    round: int
    block_id: bytes
    height: int
    validator: int
    signature: bytes
    held: tuple[int, ...]

    @cached_property
    def body(self) -> bytes:
        """The signed bytes."""
        return vote_body(self.epoch, self.round, self.block_id, self.height)


@dataclass(frozen=True)
class Timeout:
    """``validator`` gives up ``round``; its highest quorum certificate is of ``high_round``.

    ``high_qc`` is that certificate in full. ``timeout_cert`` is of ``round - 1``, the one by which
    the sender entered; null exactly when ``high_round == round - 1``. ``commit_cert`` is unsigned.
    """

    epoch: int
    round: int
    high_round: int
    validator: int
    signature: bytes
    high_qc: QuorumCert
    timeout_cert: TimeoutCert | None
    commit_cert: CommitCert | None

    @cached_property
    def body(self) -> bytes:
        """The signed bytes."""
        return timeout_body(self.epoch, self.round, self.high_round)


@dataclass(frozen=True, slots=True)
class CommitVote:
    """``validator`` signs the statement of an ordered and executed block."""

    statement: Statement
    validator: int
    signature: bytes

    @property
    def round(self) -> int:
        """Round of the statement's block."""
        return self.statement.round

    @property
    def body(self) -> bytes:
        """The signed bytes."""
        return self.statement.encoded


@dataclass(frozen=True, slots=True)
class Certificates:
    """The sender's highest certificates: part of ``hello``, and the answer to whoever is behind.

    With a quorum or timeout certificate alone: what the sender completed, for the next leader.
    """

    epoch: int
    high_qc: QuorumCert | None
    timeout_cert: TimeoutCert | None
    commit_cert: CommitCert | None


@dataclass(frozen=True, slots=True)
class BlocksRequest:
    """Ask for ordered blocks.

    With ``block_id``: that block and its ancestors of height >= ``from_height``. Without: the
    sender's chain from ``from_height`` upwards. At most ``count`` blocks.
    """

    epoch: int
    from_height: int
    block_id: bytes | None
    count: int


@dataclass(frozen=True, slots=True)
class BlocksResponse:
    """Blocks of consecutive heights, each the parent of the next.

    ``certificate`` proves the last one, and by their hashes all. It may be null in the answer to a
    request by ``block_id``: then whoever asked must hold the proof.
    """

    blocks: tuple[Block, ...]
    certificate: QuorumCert | CommitCert | None


Message = Proposal | Vote | Timeout | CommitVote | Certificates | BlocksRequest | BlocksResponse


def epoch_of(message: Message) -> int:
    """Return the epoch that a message speaks of. Of blocks: that of the first."""
    match message:
        case Proposal(block):
            return block.epoch
        case CommitVote(statement):
            return statement.epoch
        case BlocksResponse(blocks):
            return blocks[0].epoch
        case Vote() | Timeout() | Certificates() | BlocksRequest():
            return message.epoch
        case _:
            assert_never(message)


@dataclass(frozen=True, slots=True)
class VerifiedMessage:
    """A message whose every signature and certificate has been checked, and who sent it.

    Only ``certificates.Verifier.verify`` makes one; ``Replica.step`` takes nothing else.
    """

    message: Message
    sender: int


def vote_body(epoch: int, round_: int, block_id: bytes, height: int) -> bytes:
    """Return what a vote signs: ``[epoch, round, block_id, height]``."""
    return codec.encode([epoch, round_, block_id, height])


def timeout_body(epoch: int, round_: int, high_round: int) -> bytes:
    """Return what a timeout signs: ``[epoch, round, high_round]``."""
    return codec.encode([epoch, round_, high_round])


# --- what must survive a crash ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SafetyRecord:
    """Every promise a key has made in one epoch, with the whole messages that made it.

    Args:
        epoch: nothing is signed for another one.
        high_qc: the highest quorum certificate known when something was last signed.
        entry_cert: the certificate by which the current round, its round + 1, was entered.
        last_proposal: ours of the current round, if any.
        commit_cert: the newest. Until the epoch has one of its own, that which ended the epoch
            before it; its round then is of that epoch, and settles nothing in this one.
        commit_votes: ours above ``commit_cert``, by increasing round.
        commit_floor: no commit vote is ever signed again for a round up to this one.
        signed_timeouts: ``(round t, high_round h)`` above ``commit_cert``, t and h increasing.
    """

    epoch: int
    high_qc: QuorumCert
    entry_cert: QuorumCert | TimeoutCert
    commit_cert: CommitCert | None
    last_vote: Vote | None
    last_timeout: Timeout | None
    last_proposal: Proposal | None
    commit_votes: tuple[CommitVote, ...]
    commit_floor: int
    signed_timeouts: tuple[tuple[int, int], ...]


def first_record(genesis: Block) -> SafetyRecord:
    """Return the record of a key that has signed nothing yet."""
    start = genesis_cert(genesis)
    return SafetyRecord(genesis.epoch, start, start, None, None, None, None, (), 0, ())


def next_record(ending: CommitCert) -> SafetyRecord:
    """Return the first record of the epoch that a certificate began: it is durable before anything
    is signed there.

    Args:
        ending: on the block that ended the epoch before.
    """
    start = start_cert(ending.statement)
    return SafetyRecord(start.epoch, start, start, ending, None, None, None, (), 0, ())
