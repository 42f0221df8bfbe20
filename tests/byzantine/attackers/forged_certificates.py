"""Makes certificates up: of rounds to come, with signatures of another body, of too few."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import Certificates, CommitCert, QuorumCert, Vote
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class ForgedCertificates(Attacker):
    """Every one is refused and the link drops: nobody enters a round by it."""

    name = "forged certificates"
    shows = ("refused", "link dropped")

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Add a forgery now and then."""
        rng = self.rng
        if isinstance(parcel, Certificates) and parcel.high_qc is not None:
            real = parcel.high_qc
            forged: QuorumCert = rng.choice(
                (
                    replace(real, round=real.round + 5),
                    replace(real, round=real.round + 1, signatures=real.signatures[:-1]),
                    replace(real, block_id=bytes(32), round=real.round + 1),
                    replace(real, round=real.round + 1, signatures=real.signatures[:1] * 3),
                )
            )
            return self.lies(replace(parcel, high_qc=forged))
        if isinstance(parcel, Vote) and rng.random() < 0.2:
            signatures = tuple((each, parcel.signature) for each in range(self.size - 1))
            quorum = self.size - (self.size - 1) // 3
            own = QuorumCert(
                parcel.epoch, parcel.round, parcel.block_id, parcel.height, signatures[:quorum]
            )
            return self.lies(parcel, Certificates(parcel.epoch, own, None, None))
        if isinstance(parcel, Certificates) and isinstance(parcel.commit_cert, CommitCert):
            statement = replace(parcel.commit_cert.statement, state_root=bytes(32))
            return self.lies(
                replace(parcel, commit_cert=replace(parcel.commit_cert, statement=statement))
            )
        return [parcel]
