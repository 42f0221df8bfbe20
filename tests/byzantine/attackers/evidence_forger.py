"""Tries to make others look guilty: second votes and proposals in their names."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import Proposal, SignKind, Vote
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class EvidenceForger(Attacker):
    """No evidence against the honest comes of it, and the link drops."""

    name = "evidence forger"
    shows = ("refused", "link dropped")

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._heard: Proposal | None = None

    def hears(self, sender: int, parcel: Parcel) -> None:
        """Keep a proposal of another leader."""
        if isinstance(parcel, Proposal):
            self._heard = parcel

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Add a second message of somebody else."""
        if not isinstance(parcel, Vote) or self.rng.random() < 0.7:
            return [parcel]
        victim = (self.index + 1 + self.rng.randrange(self.size - 1)) % self.size
        framed: Parcel = replace(parcel, block_id=bytes(32), validator=victim)
        if self._heard is not None and self.rng.random() < 0.5:
            other = replace(self._heard.block, time_ms=self._heard.block.time_ms + 1)
            framed = replace(
                self._heard, block=other, signature=self.sign(SignKind.PROPOSAL, other.id)
            )
        return self.lies(parcel, framed)
