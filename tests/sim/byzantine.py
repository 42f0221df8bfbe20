"""A traitor: one validator that lies on its links, with its own key, as far as signatures let it.

Inside, the honest replica goes on; what it sends is changed on the way out:

    proposal     two different blocks for one round, each to some peers; or nothing
    vote         for both blocks of a round, to whom it likes; or nothing
    timeout      one that hides the newest quorum certificate it knows; or nothing
    commit vote  for a result that nobody else has; or nothing

Once it has left the committee, it goes on to vote as if it had its place still (``pretend``).
"""

from __future__ import annotations

import random
from dataclasses import replace

from consensus import signing
from consensus.hotstuff.types import (
    SIGN_TAGS,
    Block,
    CommitVote,
    Message,
    Proposal,
    SignKind,
    Timeout,
    Vote,
)
from tests.sim.keys import Sign

WITHHELD = 0.2
SHOWN_BOTH = 0.1
ROUNDS_KEPT = 16


class Traitor:
    """Decides what each peer is told.

    Args:
        index: of the validator. sign: with its key.
        rng: the run's.
    """

    def __init__(self, index: int, sign: Sign, chain: bytes, size: int, rng: random.Random) -> None:
        self._index = index
        self._sign_bytes = sign
        self._chain = chain
        self._size = size
        self._rng = rng
        self._pairs: dict[int, tuple[Block, Block]] = {}
        self._others: dict[int, frozenset[int]] = {}

    def tell(self, peer: int, message: Message) -> list[Message]:
        """Return what ``peer`` is sent in place of ``message``."""
        match message:
            case Proposal():
                other: Message | None = self._other_proposal(message)
            case Vote():
                other = self._other_vote(message)
            case Timeout():
                other = self._older_timeout(message)
            case CommitVote():
                other = self._other_result(message) if self._rng.random() < 0.2 else None
            case _:
                return [message]
        if self._rng.random() < WITHHELD:
            return []
        if other is None:
            return [message]
        if self._rng.random() < SHOWN_BOTH:
            return [message, other]
        round_ = message.block.round if isinstance(message, Proposal) else message.round
        return [other if peer in self._deceived(round_) else message]

    def pretend(self, proposal: Proposal) -> Vote:
        """Return a vote for a block of an epoch in which this key has no place any more."""
        block = proposal.block
        unsigned = Vote(block.epoch, block.round, block.id, block.height, self._index, b"", ())
        return replace(unsigned, signature=self._sign(SignKind.VOTE, unsigned.body))

    def _deceived(self, round_: int) -> frozenset[int]:
        """Return who is told the other story of a round."""
        chosen = self._others.get(round_)
        if chosen is None:
            chosen = frozenset(i for i in range(self._size) if self._rng.random() < 0.5)
            self._others[round_] = chosen
            if len(self._others) > ROUNDS_KEPT:
                del self._others[min(self._others)]
        return chosen

    def _sign(self, kind: SignKind, body: bytes) -> bytes:
        return self._sign_bytes(signing.message(SIGN_TAGS[kind], self._chain, body))

    def _other_proposal(self, proposal: Proposal) -> Proposal:
        block = proposal.block
        if block.round not in self._pairs:
            if block.payload and self._rng.random() < 0.5:
                other = replace(block, payload=())
            else:
                other = replace(block, time_ms=block.time_ms + 1)
            self._pairs[block.round] = block, other
            if len(self._pairs) > ROUNDS_KEPT:
                del self._pairs[min(self._pairs)]
        first, second = self._pairs[block.round]
        lie = second if block.id == first.id else first
        signature = self._sign(SignKind.PROPOSAL, lie.id)
        return Proposal(lie, signature, None, None, proposal.commit_cert)

    def _other_vote(self, vote: Vote) -> Vote | None:
        pair = self._pairs.get(vote.round)
        if pair is None:
            return None
        first, second = pair
        lie = second if vote.block_id == first.id else first
        unsigned = replace(vote, block_id=lie.id, height=lie.height, signature=b"")
        return replace(unsigned, signature=self._sign(SignKind.VOTE, unsigned.body))

    def _older_timeout(self, timeout: Timeout) -> Timeout | None:
        entry = timeout.timeout_cert
        if entry is None or entry.high_qc.round >= timeout.high_round:
            return None
        older = entry.high_qc
        unsigned = replace(timeout, high_round=older.round, high_qc=older, signature=b"")
        return replace(unsigned, signature=self._sign(SignKind.TIMEOUT, unsigned.body))

    def _other_result(self, vote: CommitVote) -> CommitVote:
        lie = replace(vote.statement, state_root=bytes(32))
        return CommitVote(lie, self._index, self._sign(SignKind.COMMIT_VOTE, lie.encode()))
