"""Speaks of epochs and committees that do not exist."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import Certificates, CommitVote, SignKind, Timeout, Vote
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class EpochConfuser(Attacker):
    """Refused by everybody, and the link drops: nothing is signed for another epoch."""

    name = "epoch confuser"
    shows = ("refused", "link dropped")

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Move a message to another epoch now and then."""
        if self.rng.random() < 0.8:
            return [parcel]
        match parcel:
            case Vote():
                vote = replace(parcel, epoch=2)
                return self.lies(replace(vote, signature=self.sign(SignKind.VOTE, vote.body)))
            case Timeout():
                timeout = replace(parcel, epoch=2)
                signature = self.sign(SignKind.TIMEOUT, timeout.body)
                return self.lies(replace(timeout, signature=signature))
            case Certificates():
                return self.lies(replace(parcel, epoch=2))
            case CommitVote(statement):
                lie = replace(statement, epoch=2)
                signature = self.sign(SignKind.COMMIT_VOTE, lie.encode())
                return self.lies(CommitVote(lie, self.index, signature))
            case _:
                return [parcel]
