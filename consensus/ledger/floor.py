"""The floor: what changing the rules takes at least, whatever the rules say.

It follows from the committee in force and the genesis file. Quorums are those of the committee:
with at most f agencies faulty, a quorum always has an honest one, and so has any f + 1 that object.

Not here: what it is applied to (``kernel.rulesets``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from consensus.committee import faulty_max
from consensus.ledger.layout import Agency


@dataclass(frozen=True, slots=True)
class Floor:
    """What no rule set can lower.

    ``seats`` are the agencies that hold validators; ``quorum`` of them activate a charter,
    ``objectors`` of them stop any rule set, and ``notice_ms`` must lie between.
    """

    seats: tuple[str, ...]
    quorum: int
    objectors: int
    notice_ms: int

    def seated(self, agency: Agency) -> bool:
        """Return whether an agency holds a validator, or stands for one that does."""
        return any(agency.stands_for(name) for name in self.seats)

    def count(self, agencies: Iterable[Agency]) -> int:
        """Return how many distinct agencies with a validator are among ``agencies``."""
        return len({each.name for each in agencies if self.seated(each)})


def floor_of(seats: Sequence[str], notice_ms: int) -> Floor:
    """Return the floor under which ``seats`` are the agencies with a validator."""
    faulty = faulty_max(len(seats))
    return Floor(tuple(seats), len(seats) - faulty, faulty + 1, notice_ms)
