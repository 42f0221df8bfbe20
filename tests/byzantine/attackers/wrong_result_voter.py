"""Signs results that nobody has."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import CommitVote, SignKind
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class WrongResultVoter(Attacker):
    """Its votes are in no certificate; two of them for one round are evidence."""

    name = "wrong result voter"
    shows = ("two commit votes for one round",)

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Sign another state, to some besides the true one."""
        if not isinstance(parcel, CommitVote):
            return [parcel]
        lie = replace(parcel.statement, state_root=bytes([parcel.round % 256]) * 32)
        other = CommitVote(lie, self.index, self.sign(SignKind.COMMIT_VOTE, lie.encode()))
        return self.lies(*self.rng.choice(((other,), (parcel, other))))
