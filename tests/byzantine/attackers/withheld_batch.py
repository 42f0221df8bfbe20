"""Shows its batches to one peer, and proposes them all the same."""

from __future__ import annotations

from node.batch_wire import Push, Response
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class WithheldBatch(Attacker):
    """The honest fetch what a block names from each other, or give the round up."""

    name = "withheld batch"
    shows = ("batch fetched",)

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Leave batches out, but for one peer."""
        if isinstance(parcel, Push | Response) and peer != (self.index + 1) % self.size:
            return self.lies()
        return [parcel]
