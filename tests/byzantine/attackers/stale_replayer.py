"""Says again what was said long ago, by itself or by others."""

from __future__ import annotations

from consensus.hotstuff.types import CommitVote, Proposal, Timeout, Vote
from tests.byzantine.attackers.attacker import Attacker, Memory
from tests.sim.network import Parcel


class StaleReplayer(Attacker):
    """Old messages of its own change nothing; those of others are refused and the link drops."""

    name = "stale replayer"
    shows = ("refused", "link dropped")

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._own, self._others = Memory(), Memory()

    def hears(self, sender: int, parcel: Parcel) -> None:
        """Keep what others say."""
        if isinstance(parcel, Proposal | Vote | Timeout | CommitVote):
            self._others.keep(parcel)

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Add something old."""
        if not isinstance(parcel, Proposal | Vote | Timeout | CommitVote):
            return [parcel]
        self._own.keep(parcel)
        rng = self.rng
        if rng.random() < 0.3:
            return self.lies(parcel, rng.choice(self._own.kept))
        if self._others.kept and rng.random() < 0.1:
            return self.lies(parcel, rng.choice(self._others.kept))
        return [parcel]
