"""Knows nothing of what it promised: votes in rounds that it gave up."""

from __future__ import annotations

from consensus.hotstuff.types import Block, Proposal, Timeout
from tests.byzantine.attackers.attacker import REMEMBERED_MAX, Attacker
from tests.sim.network import Parcel


class Amnesiac(Attacker):
    """A late vote may complete a certificate; the honest keep their own promises."""

    name = "amnesiac"
    shows = ("timeout signed",)

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._blocks: dict[int, Block] = {}

    def hears(self, sender: int, parcel: Parcel) -> None:
        """Keep the blocks of rounds."""
        if isinstance(parcel, Proposal):
            self._blocks[parcel.block.round] = parcel.block
            if len(self._blocks) > REMEMBERED_MAX:
                del self._blocks[min(self._blocks)]

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Give a round up early, and vote in it all the same."""
        if isinstance(parcel, Timeout):
            block = self._blocks.get(parcel.round)
            return self.lies(parcel) if block is None else self.lies(parcel, self.vote(block))
        # Its proposals get lost, so that rounds are given up.
        return [] if isinstance(parcel, Proposal) and self.rng.random() < 0.7 else [parcel]
