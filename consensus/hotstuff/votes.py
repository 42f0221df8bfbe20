"""Counting: one message per (signer, round, kind), one conflict kept as evidence.

The first message of a slot stays; a different one is reported once and never counted; the same
body again changes nothing. Slots are bounded per signer, so a hostile signer displaces only itself.

Not here: signatures (verified before) and which rounds are of interest (``replica``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from consensus.committee import Committee
from consensus.errors import invariant
from consensus.hotstuff.types import (
    CommitCert,
    CommitVote,
    QuorumCert,
    Timeout,
    TimeoutCert,
    Vote,
)

ROUNDS_PER_SIGNER_MAX: Final = 64
"""Rounds of votes or timeouts kept of one signer; the lowest goes first."""


class Ballot(Protocol):
    """A signed message that takes the slot (validator, round)."""

    @property
    def round(self) -> int: ...
    @property
    def validator(self) -> int: ...
    @property
    def body(self) -> bytes: ...


B = TypeVar("B", bound=Ballot)


@dataclass(slots=True)
class _Slot(Generic[B]):
    ballot: B
    body: bytes
    disputed: bool = False


class Tally(Generic[B]):
    """Ballots of one kind by signer and round.

    Args:
        size: number of validators.
        rounds_max: slots kept per signer.
    """

    def __init__(self, size: int, rounds_max: int = ROUNDS_PER_SIGNER_MAX) -> None:
        self._rounds_max = rounds_max
        self._signers: list[dict[int, _Slot[B]]] = [{} for _ in range(size)]

    def add(self, ballot: B) -> tuple[B, B] | None:
        """Count a verified ballot; return the pair if it contradicts the one counted before.

        Each slot reports one contradiction, then no more.
        """
        round_, slots = ballot.round, self._signers[ballot.validator]
        slot = slots.get(round_)
        if slot is None:
            slots[round_] = _Slot(ballot, ballot.body)
            if len(slots) > self._rounds_max:
                del slots[min(slots)]
            return None
        if slot.disputed or slot.body == ballot.body:
            return None
        slot.disputed = True
        return slot.ballot, ballot

    def has(self, validator: int, round_: int, body: bytes) -> bool:
        """Whether adding such a ballot would change nothing. The signer may be nobody yet."""
        if validator >= len(self._signers):
            return False
        slot = self._signers[validator].get(round_)
        return slot is not None and (slot.disputed or slot.body == body)

    def of_round(self, round_: int) -> list[B]:
        """Return the ballots counted for a round, by validator index."""
        return [slots[round_].ballot for slots in self._signers if round_ in slots]

    def count(self, round_: int) -> int:
        """Number of signers with a ballot of the round."""
        return len([None for slots in self._signers if round_ in slots])

    def matching(self, ballot: B) -> list[B]:
        """Return the ballots counted in the same round for the same body, by validator index."""
        round_, body = ballot.round, ballot.body
        found = [slots[round_] for slots in self._signers if round_ in slots]
        return [slot.ballot for slot in found if slot.body == body]

    def forget(self, below: int) -> None:
        """Drop the rounds below ``below``."""
        for slots in self._signers:
            for round_ in [round_ for round_ in slots if round_ < below]:
                del slots[round_]


def quorum_cert(votes: Sequence[Vote], committee: Committee) -> QuorumCert | None:
    """Return the certificate that votes on one block form, or None while they are too few.

    Args:
        votes: verified, on one block, distinct signers in increasing order.

    Source: Jolteon (arXiv 2106.10362), fig. 3.
    """
    if len(votes) < committee.quorum:
        return None
    first = votes[0]
    invariant(all(vote.block_id == first.block_id for vote in votes), "votes on several blocks")
    signatures = tuple([(vote.validator, vote.signature) for vote in votes[: committee.quorum]])
    return QuorumCert(first.epoch, first.round, first.block_id, first.height, signatures)


def timeout_cert(timeouts: Sequence[Timeout], committee: Committee) -> TimeoutCert | None:
    """Return the certificate that timeouts of one round form, or None while they are too few.

    Args:
        timeouts: verified, of one round, distinct signers in increasing order.
    """
    if len(timeouts) < committee.quorum:
        return None
    chosen = timeouts[: committee.quorum]
    invariant(all(t.round == chosen[0].round for t in chosen), "timeouts of several rounds")
    highest = max(chosen, key=lambda timeout: timeout.high_round)
    entries = tuple((t.validator, t.high_round, t.signature) for t in chosen)
    return TimeoutCert(chosen[0].epoch, chosen[0].round, entries, highest.high_qc)


def commit_cert(votes: Sequence[CommitVote], committee: Committee) -> CommitCert | None:
    """Return the certificate that commit votes on one statement form, or None while too few.

    Args:
        votes: verified, on one statement, distinct signers in increasing order.
    """
    if len(votes) < committee.quorum:
        return None
    statement = votes[0].statement
    invariant(all(vote.statement == statement for vote in votes), "votes on several statements")
    signatures = tuple([(vote.validator, vote.signature) for vote in votes[: committee.quorum]])
    return CommitCert(statement, signatures)


def unattainable(votes: Sequence[CommitVote], committee: Committee) -> bool:
    """Whether the commit votes of one round are so split that none can reach a quorum."""
    counts: dict[bytes, int] = {}
    for vote in votes:
        counts[vote.body] = counts.get(vote.body, 0) + 1
    missing = committee.size - len(votes)
    return max(counts.values(), default=0) + missing < committee.quorum
