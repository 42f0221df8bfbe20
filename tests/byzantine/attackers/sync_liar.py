"""Answers those who catch up with other blocks, poisoned heights and foreign proofs."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import BlocksResponse, CommitCert
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class SyncLiar(Attacker):
    """The hashes and the certificate do not fit: refused, the link drops, others are asked."""

    name = "sync liar"
    shows = ("refused", "link dropped")

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Change the last block, all heights, or the proof."""
        if not isinstance(parcel, BlocksResponse):
            return [parcel]
        *before, last = parcel.blocks
        poisoned = tuple(replace(b, height=b.height + 1) for b in parcel.blocks)
        proof = parcel.certificate
        if isinstance(proof, CommitCert):
            proof = replace(proof, statement=replace(proof.statement, height=10**9))
        return self.lies(
            self.rng.choice(
                (
                    BlocksResponse((*before, replace(last, time_ms=last.time_ms + 1)), proof),
                    BlocksResponse(poisoned, parcel.certificate),
                    BlocksResponse(parcel.blocks[::-1], parcel.certificate),
                )
            )
        )
