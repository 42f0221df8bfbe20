"""How a simulation may depart from the real thing, to know that the harness can fail.

The mutants themselves, each with what must find it: ``tests/byzantine/mutants/simulated``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from consensus.committee import Committee
from consensus.hotstuff.replica import Replica
from consensus.ledger.view import Write


class WeakCommittee(Committee):
    """One signature fewer makes a certificate."""

    quorum = property(lambda self: self.size - self.faulty_max - 1)


def _same(replica: Replica) -> None:
    pass


@dataclass(frozen=True)
class Mutant:
    """How a simulation departs from the real thing.

    Args:
        eager_outbox: sends do not wait for the disk.
        hasty_hellos: hellos show certificates as soon as the replica has them.
        weak_quorum: q - 1 signatures suffice.
        miscounting: this node's executor writes something else.
        on_boot: changes a replica that was just made.
        hasty_epoch: an epoch's first record is used before it is on disk.
        forgets_earlier: what an earlier epoch left undecided is not batched again.
        ignore: promises that notice at once and are not asked, so that others must.
    """

    name: str = "none"
    eager_outbox: bool = False
    hasty_hellos: bool = False
    weak_quorum: bool = False
    miscounting: int | None = None
    on_boot: Callable[[Replica], None] = _same
    hasty_epoch: bool = False
    forgets_earlier: bool = False
    ignore: tuple[str, ...] = ()

    def committee(self, real: Committee) -> Committee:
        """Return the committee that replicas are told of."""
        return WeakCommittee(real.epoch, real.validators) if self.weak_quorum else real

    def writes(self, index: int, writes: Sequence[Write]) -> Sequence[Write]:
        """Return what a node's executor writes."""
        return writes[1:] if index == self.miscounting else writes


NONE = Mutant()
