"""Does everything but propose."""

from __future__ import annotations

from consensus.hotstuff.types import Proposal
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel


class SilentLeader(Attacker):
    """The honest give its rounds up and go on."""

    name = "silent leader"
    shows = ("timeout signed",)

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Leave proposals out."""
        return self.lies() if isinstance(parcel, Proposal) else [parcel]
