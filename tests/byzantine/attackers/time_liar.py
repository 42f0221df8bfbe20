"""Proposes blocks of tomorrow and of yesterday."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import Proposal
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class TimeLiar(Attacker):
    """Early blocks wait for their time, and miss the round; those of the past get no vote."""

    name = "time liar"
    shows = ("block held because it came early",)

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Move a block in time, the same for every peer."""
        if not isinstance(parcel, Proposal):
            return [parcel]
        shift_ms = (700, 86_400_000, -86_400_000)[parcel.block.round % 3]
        block = replace(parcel.block, time_ms=parcel.block.time_ms + shift_ms)
        return self.lies(self.propose(block, parcel))
