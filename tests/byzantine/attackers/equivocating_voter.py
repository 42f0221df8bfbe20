"""Votes for its round's block, and for one that nobody proposed."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import SignKind, Vote
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class EquivocatingVoter(Attacker):
    """The honest count the first vote and keep the pair as evidence."""

    name = "equivocating voter"
    shows = ("two votes in one round",)

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Return one vote, the other, or both."""
        if not isinstance(parcel, Vote):
            return [parcel]
        lie = replace(parcel, block_id=bytes([self.rng.randrange(256)]) * 32, signature=b"")
        lie = replace(lie, signature=self.sign(SignKind.VOTE, lie.body))
        return self.lies(*self.rng.choice(((parcel, lie), (lie, parcel), (lie,))))
