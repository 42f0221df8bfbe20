"""Proposes two blocks for one round; some see the one, some the other, some both."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import Proposal
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class EquivocatingLeader(Attacker):
    """The honest keep the pair as evidence and vote for one at most."""

    name = "equivocating leader"
    shows = ("two proposals for one round",)

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Return one block, the other, or both."""
        if not isinstance(parcel, Proposal):
            return [parcel]
        other = self.propose(replace(parcel.block, time_ms=parcel.block.time_ms + 1), parcel)
        return self.lies(*self.rng.choice(((parcel,), (other,), (parcel, other))))
