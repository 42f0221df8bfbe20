"""Speaks of an epoch that does not exist, and shows certificates that begin one where it likes."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import (
    Certificates,
    CommitVote,
    QuorumCert,
    SignKind,
    Timeout,
    Vote,
)
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class EpochConfuser(Attacker):
    """Told where the others are; a beginning of its own is refused by everybody, the link drops."""

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
            case Certificates() if self.rng.random() < 0.5:
                return self.lies(replace(parcel, epoch=2))
            case Certificates():
                start = QuorumCert(1, 0, self.rng.randbytes(32), self.rng.randrange(99), ())
                return self.lies(replace(parcel, high_qc=start))
            case CommitVote(statement):
                lie = replace(statement, epoch=2)
                signature = self.sign(SignKind.COMMIT_VOTE, lie.encode())
                return self.lies(CommitVote(lie, self.index, signature))
            case _:
                return [parcel]
