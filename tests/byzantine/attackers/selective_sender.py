"""Speaks to one peer only, another one for each kind of message."""

from __future__ import annotations

from consensus.hotstuff.types import CommitVote, Proposal, Timeout, Vote
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel

KINDS = (Proposal, Vote, Timeout, CommitVote)


class SelectiveSender(Attacker):
    """The honest tell each other what they know, so that nobody stays behind."""

    name = "selective sender"
    shows = ("timeout signed",)

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Leave out what the peer is not to hear."""
        for at, kind in enumerate(KINDS):
            if isinstance(parcel, kind) and (self.index + 1 + at) % self.size != peer:
                return self.lies()
        return [parcel]
