"""The only place that may allow a signature. All stateful safety checks, and nothing else.

Every method that allows one returns ``Sign`` and treats the message as signed from then on; the
signature arrives through ``signed``, in the same order. A refusal is a value, ``Refused``, with
the rule that forbids. The record made by ``record`` holds every promise and is durable before any
message made here leaves the machine.

Why the commit vote is safe (rule 4): a commit certificate of round r has f + 1 honest signers, each
of which holds the quorum certificate of r durably and reports high_round >= r in every timeout
of a round >= r, before or after. So every later timeout certificate forces an extension of the
block. The classic two-chain of consecutive rounds proves the same without them.

Sources: Jolteon (arXiv 2106.10362) fig. 3; Aptos ``safety-rules`` and its order votes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, assert_never

from consensus import codec
from consensus.committee import Committee
from consensus.errors import CertificateError, invariant
from consensus.hotstuff.certificates import check_block
from consensus.hotstuff.events import FOLLOWER, NEVER, Sign, Signed
from consensus.hotstuff.types import (
    Block,
    CommitCert,
    CommitVote,
    Proposal,
    QuorumCert,
    SafetyRecord,
    SignKind,
    Statement,
    Timeout,
    TimeoutCert,
    Vote,
    timeout_body,
    vote_body,
)
from consensus.hotstuff.wire import COMMIT_VOTES_MAX, SIGNED_TIMEOUTS_MAX, encode_record

PENDING_MAX: Final = 16
"""Signatures asked for and not yet given."""


@dataclass(frozen=True, slots=True)
class Refused:
    """No signature; ``rule`` says which promise forbids it."""

    rule: str


_AWAY: Final = Refused("whoever signs is away")


@dataclass(frozen=True, slots=True)
class TwoChain:
    """Proof that a block is committed: an ordered child of the round after its ordered parent.

    ``blocks`` run from that child D over its parent C down to the block in question, each the
    parent of the one before; ``child_cert`` orders D, and D's justify orders C.
    """

    child_cert: QuorumCert
    blocks: tuple[Block, ...]


class Safety:
    """The promises of one key in one epoch. Nothing is signed for another epoch than the record's.

    Args:
        committee: validators of the record's epoch.
        own: index of the key's validator; ``FOLLOWER`` signs nothing.
        record: the newest durable record.

    Raises:
        LocalProtocolError: the record is of another epoch, or not begun by the certificate in it.
    """

    def __init__(self, chain: bytes, committee: Committee, own: int, record: SafetyRecord) -> None:
        invariant(record.epoch == committee.epoch, "the safety record is of another epoch")
        self._chain = chain
        self._committee = committee
        self._own = own
        self.high_qc = record.high_qc
        self.entry_cert = record.entry_cert
        self.round = record.entry_cert.round + 1
        """The current round: the one after the certificate by which it was entered."""
        self.commit_cert: CommitCert | None = None
        """The newest of this epoch."""
        self.beginning: CommitCert | None = None
        """What ended the epoch before, while the record holds it."""
        self._begin_with(record.commit_cert)
        self._vote = record.last_vote
        self._timeout = record.last_timeout
        self._proposal = record.last_proposal
        self._commit_votes = {vote.round: vote for vote in record.commit_votes}
        self._commit_floor = record.commit_floor
        self._signed_timeouts = list(record.signed_timeouts)
        # Rounds promised, from the moment a signature is asked for.
        self.voted_round = 0 if self._vote is None else self._vote.round
        self.timeout_round = 0 if self._timeout is None else self._timeout.round
        self.proposed_round = 0 if self._proposal is None else self._proposal.block.round
        self._commit_rounds = dict.fromkeys(self._commit_votes)
        self._silent_upto = 0
        self._pending: deque[tuple[Sign, Block | Timeout | Statement]] = deque()
        self.away = False
        """Whether whoever signs is gone, so that nothing may be asked for."""
        self._unanswered: list[tuple[Sign, Block | Timeout | Statement]] = []
        """Asked for before the signer went; what is promised stays promised."""
        self._recorded = record.high_qc
        self._lost_timeout = (0, 0)
        """``(round, high_round)`` of a timeout that the key signed and that is not known here."""
        self._lost_commit = (0, b"")
        """``(round, body)`` of such a commit vote."""
        if own == FOLLOWER:
            self.hold_back(NEVER)

    def _begin_with(self, certificate: CommitCert | None) -> None:
        if certificate is None or certificate.statement.epoch == self._committee.epoch:
            self.commit_cert = certificate
            return
        ending = certificate.statement
        follows = ending.epoch + 1 == self._committee.epoch
        elected = ending.next_committee_hash == self._committee.hash
        invariant(follows and elected, "the record's epoch was not begun by its certificate")
        self.beginning = certificate

    @property
    def pending(self) -> int:
        """Signatures asked for and not yet given."""
        return len(self._pending)

    def hold_back(self, round_: int) -> None:
        """Sign nothing for rounds up to this one, whatever the record says.

        What was promised there is not weakened: only signatures are left out.
        """
        self.voted_round = max(self.voted_round, round_)
        self.timeout_round = max(self.timeout_round, round_)
        self.proposed_round = max(self.proposed_round, round_)
        self._silent_upto = max(self._silent_upto, round_)

    # --- a signer that goes and comes ---

    def leave(self) -> None:
        """Ask for nothing until ``come_back``; what was asked for stays promised."""
        self.away = True
        self._unanswered += self._pending
        self._pending.clear()

    def come_back(self, signed: Iterable[tuple[SignKind, int, bytes]]) -> list[Sign]:
        """Ask again; return the requests of before that still count, in their order.

        Args:
            signed: ``(kind, round, body)``: the last of each kind that the key has signed in this
                epoch. What is not known here was signed by a process that died before it could
                log it, or was logged in a folder that is gone; either way it is promised.

        Raises:
            LocalProtocolError: a body is not of its kind.
        """
        self.away = False
        for kind, round_, body in signed:
            self._promised_elsewhere(kind, round_, body)
        again = [each for each in self._unanswered if self._counts(*each)]
        self._unanswered = []
        self._pending.extend(again)
        return [request for request, _ in again]

    def _promised_elsewhere(self, kind: SignKind, round_: int, body: bytes) -> None:
        match kind:
            case SignKind.PROPOSAL:
                self.proposed_round = max(self.proposed_round, round_)
            case SignKind.VOTE:
                self.voted_round = max(self.voted_round, round_)
            case SignKind.TIMEOUT if round_ > max(self.timeout_round, self._lost_timeout[0]):
                fields = codec.parse(body, "timeout")
                invariant(fields[:2] == [self._committee.epoch, round_], "a body of another round")
                self._lost_timeout = round_, fields[2]
                self.voted_round = max(self.voted_round, round_)
                self.proposed_round = max(self.proposed_round, round_)
                self._note_timeout(*self._lost_timeout)
            case SignKind.COMMIT_VOTE if round_ not in self._commit_rounds and self._open(round_):
                self._commit_rounds[round_] = None
                self._lost_commit = round_, body

    def _counts(self, request: Sign, subject: Block | Timeout | Statement) -> bool:
        """Whether an unanswered request can still bring anything, and is still in order."""
        if isinstance(subject, Statement):
            return self._open(request.round)
        return request.round == self.round

    def _open(self, round_: int) -> bool:
        """Whether the commit votes of a round are neither settled nor dropped."""
        settled = 0 if self.commit_cert is None else self.commit_cert.statement.round
        return round_ > max(settled, self._commit_floor)

    # --- what is learned ---

    def learn_quorum(self, certificate: QuorumCert) -> bool:
        """Keep a verified certificate if it is the highest; return whether it was (rule 3)."""
        if certificate.round <= self.high_qc.round:
            return False
        self.high_qc = certificate
        return True

    def learn_commit(self, certificate: CommitCert) -> bool:
        """Keep a verified certificate if it is the newest, and forget what it settles (rule 6)."""
        invariant(certificate.statement.epoch == self._committee.epoch, "of another epoch")
        round_ = certificate.statement.round
        if self.commit_cert is not None and round_ <= self.commit_cert.statement.round:
            return False
        self.commit_cert, self.beginning = certificate, None
        self._signed_timeouts = [pair for pair in self._signed_timeouts if pair[0] > round_]
        self._commit_votes = {r: vote for r, vote in self._commit_votes.items() if r > round_}
        self._commit_rounds = {r: None for r in self._commit_rounds if r > round_}
        if self._lost_commit[0] <= round_:
            self._lost_commit = 0, b""
        return True

    def enter(self, certificate: QuorumCert | TimeoutCert) -> bool:
        """Enter the round after a verified certificate if that is higher (rule 8).

        A timeout certificate's own quorum certificate is kept first: whoever enters by it must
        never report less than it proves.
        """
        self.learn_quorum(
            certificate.high_qc if isinstance(certificate, TimeoutCert) else certificate
        )
        if certificate.round < self.round:
            return False
        self.entry_cert = certificate
        self.round = certificate.round + 1
        if self._proposal is not None and self._proposal.block.round < self.round:
            self._proposal = None
        return True

    # --- what may be signed ---

    def propose(self, block: Block) -> Sign | Refused:
        """Allow the leader's block, once per round (rule 1)."""
        if self.away:
            return _AWAY
        if self._committee.leader(block.round) != self._own:
            return Refused("not the leader of the round")
        if block.round != self.round:
            return Refused("not the current round")
        if block.round <= self.proposed_round:
            return Refused("proposed in this round already")
        if block.round <= self.timeout_round:
            return Refused("this round was given up")
        if (refused := self._unlinked(block)) is not None:
            return refused
        self.proposed_round = block.round
        return self._ask(SignKind.PROPOSAL, block.round, block.id, block)

    def vote(self, block: Block) -> Sign | Refused:
        """Allow a vote (rule 2). That the round's leader signed the block was verified before."""
        if self.away:
            return _AWAY
        if block.round != self.round:
            return Refused("not the current round")
        if block.round <= self.voted_round:
            return Refused("voted in this round already")
        if block.round <= self.timeout_round:
            return Refused("this round was given up")
        if (refused := self._unlinked(block)) is not None:
            return refused
        self.voted_round = block.round
        body = vote_body(block.epoch, block.round, block.id, block.height)
        return self._ask(SignKind.VOTE, block.round, body, block)

    def timeout(self) -> Sign | Refused:
        """Allow giving up the current round, with the highest certificate (rule 6)."""
        if self.away:
            return _AWAY
        round_, high = self.round, self.high_qc
        if round_ <= self.timeout_round:
            return Refused("this round was given up already")
        if round_ < max(self.voted_round, self._lost_timeout[0]):
            return Refused("below the last voted round")
        if round_ == self._lost_timeout[0]:
            known = [qc for qc in (high, self._recorded) if qc.round == self._lost_timeout[1]]
            if not known:
                return Refused("given up already, with a certificate that is not known here")
            high = known[0]
        elif high.round < self._lost_commit[0]:
            return Refused("a certificate that was commit-voted on is not known here")
        entry = None
        if high.round != round_ - 1:
            if high is not self.high_qc and not isinstance(self.entry_cert, TimeoutCert):
                return Refused("given up already, before it was known how the round began")
            invariant(isinstance(self.entry_cert, TimeoutCert), "round entered without proof")
            entry = self.entry_cert if isinstance(self.entry_cert, TimeoutCert) else None
        invariant(high.round < round_, "the highest certificate is beyond the round")
        self.timeout_round = round_
        self._note_timeout(round_, high.round)
        message = Timeout(
            self._committee.epoch, round_, high.round, self._own, b"", high, entry, self.commit_cert
        )
        body = timeout_body(message.epoch, round_, high.round)
        return self._ask(SignKind.TIMEOUT, round_, body, message)

    def _note_timeout(self, round_: int, high_round: int) -> None:
        while self._signed_timeouts and self._signed_timeouts[-1][1] >= high_round:
            self._signed_timeouts.pop()
        self._signed_timeouts.append((round_, high_round))
        if len(self._signed_timeouts) > SIGNED_TIMEOUTS_MAX:
            # Merged towards the stricter: as late as the second, as ignorant as the first.
            (_, low), (late, _) = self._signed_timeouts[:2]
            self._signed_timeouts[:2] = [(late, low)]

    def commit_vote(self, statement: Statement, proof: TwoChain | None) -> Sign | Refused:
        """Allow a commit vote on an ordered and executed block (rule 4).

        Args:
            statement: of a block that, like its ancestors, this node has executed itself.
            proof: that the block is committed by the two-chain, if known.

        Raises:
            LocalProtocolError: ``proof`` proves nothing.
        """
        round_ = statement.round
        invariant(statement.epoch == self._committee.epoch, "statement of another epoch")
        if self.away:
            return _AWAY
        if self.commit_cert is not None and round_ <= self.commit_cert.statement.round:
            return Refused("certified already")
        if round_ <= self._commit_floor:
            return Refused("at or below the commit vote floor")
        if round_ <= self._silent_upto:
            return Refused("nothing is signed for this round here")
        again = (round_, statement.encoded) == self._lost_commit
        if round_ in self._commit_rounds and not again:
            return Refused("commit-voted in this round already")
        if self.high_qc.round < round_:
            return Refused("the block's quorum certificate is not kept")
        exempt = False
        if again:
            self._lost_commit = 0, b""
        elif not self._guard_allows(round_):
            if proof is None:
                return Refused("a timeout reported a lower certificate, and no two-chain")
            check_two_chain(proof, statement.block_id)
            exempt = True
        self._commit_rounds[round_] = None
        if len(self._commit_rounds) > COMMIT_VOTES_MAX:
            self._commit_floor = min(self._commit_rounds)
            del self._commit_rounds[self._commit_floor]
            self._commit_votes.pop(self._commit_floor, None)
        return self._ask(SignKind.COMMIT_VOTE, round_, statement.encoded, statement, exempt)

    def _guard_allows(self, round_: int) -> bool:
        if round_ < max(self._commit_rounds, default=0):
            return False
        return all(high >= round_ for late, high in self._signed_timeouts if late >= round_)

    def _unlinked(self, block: Block) -> Refused | None:
        try:
            check_block(block, self._committee)
        except CertificateError as error:
            return Refused(error.message)
        if block.justify.round > self.high_qc.round:
            return Refused("the block's certificate is not kept")
        return None

    # --- signatures ---

    def _ask(
        self,
        kind: SignKind,
        round_: int,
        body: bytes,
        subject: Block | Timeout | Statement,
        two_chain: bool = False,
    ) -> Sign:
        invariant(len(self._pending) < PENDING_MAX, "signatures asked for and never given")
        block = subject if kind is SignKind.PROPOSAL and isinstance(subject, Block) else None
        record = encode_record(self.record()) if kind is SignKind.TIMEOUT else b""
        request = Sign(kind, self._committee.epoch, round_, body, two_chain, block, record)
        self._pending.append((request, subject))
        return request

    def signed(self, event: Signed) -> Proposal | Vote | Timeout | CommitVote:
        """Return the whole message of the oldest pending signature, and keep it for the record."""
        invariant(self._pending, "a signature nobody asked for")
        request, subject = self._pending.popleft()
        invariant(
            request.kind is event.kind and request.body == event.body, "signatures out of order"
        )
        match subject:
            case Timeout():
                self._timeout = replace(subject, signature=event.signature)
                return self._timeout
            case Statement():
                commit_vote = CommitVote(subject, self._own, event.signature)
                if commit_vote.round in self._commit_rounds:
                    self._commit_votes[commit_vote.round] = commit_vote
                return commit_vote
            case Block() if event.kind is SignKind.PROPOSAL:
                proposal = Proposal(subject, event.signature, None, None, self.commit_cert)
                self._proposal = proposal if subject.round >= self.round else None
                return proposal
            case Block(epoch, round_, height):
                self._vote = Vote(
                    epoch, round_, subject.id, height, self._own, event.signature, event.held
                )
                return self._vote
            case _:
                assert_never(subject)

    def own_messages(self) -> tuple[Proposal | Vote | Timeout | CommitVote, ...]:
        """Return the stored messages that others may still need, as they were first sent."""
        proposal = () if self._proposal is None else (self._proposal,)
        vote, timeout = self._vote, self._timeout
        votes = () if vote is None or vote.round <= self.high_qc.round else (vote,)
        timeouts = () if timeout is None or timeout.round < self.round else (timeout,)
        return (*proposal, *votes, *timeouts, *self._ordered_commit_votes())

    def record(self) -> SafetyRecord:
        """Return every promise, to be durable before what was signed leaves."""
        return SafetyRecord(
            self._committee.epoch,
            self.high_qc,
            self.entry_cert,
            self.commit_cert or self.beginning,
            self._vote,
            self._timeout,
            self._proposal,
            self._ordered_commit_votes(),
            self._commit_floor,
            tuple(self._signed_timeouts),
        )

    def _ordered_commit_votes(self) -> tuple[CommitVote, ...]:
        return tuple(self._commit_votes[round_] for round_ in sorted(self._commit_votes))


def check_two_chain(proof: TwoChain, block_id: bytes) -> None:
    """Check that ``proof`` commits the block.

    Raises:
        LocalProtocolError: certificates, rounds or parents do not fit; the proof is our own work.
    """
    blocks = proof.blocks
    invariant(len(blocks) >= 2, "a two-chain has at least two blocks")
    child, parent = blocks[0], blocks[1]
    cert = proof.child_cert
    invariant((cert.block_id, cert.round) == (child.id, child.round), "the child is not ordered")
    invariant(child.justify.round == parent.round, "the parent is not ordered by its child")
    invariant(child.round == parent.round + 1, "rounds of the two-chain are not consecutive")
    for above, below in pairwise(blocks):
        invariant(above.parent_id == below.id, "the two-chain is no chain")
    invariant(blocks[-1].id == block_id, "the two-chain is of another block")
