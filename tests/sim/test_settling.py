"""A replica leaves out doing what has become possible only where nothing has."""

from __future__ import annotations

import pytest

from consensus.hotstuff.events import Event
from consensus.hotstuff.replica import Replica
from tests.sim.campaign import run
from tests.sim.mutants import Mutant


def _settles_after_every_event(replica: Replica) -> None:
    take = replica._take

    def taken(event: Event) -> bool:
        take(event)
        return True

    replica._take = taken  # type: ignore[method-assign]


ALWAYS = Mutant("settles after every event", on_boot=_settles_after_every_event)


LONG = (1, 6)
"""Seeds that take many seconds."""


@pytest.mark.parametrize(
    "seed", [pytest.param(n, marks=[pytest.mark.long] if n in LONG else []) for n in range(8)]
)
def test_settling_after_every_event_makes_the_same_run(seed: int) -> None:
    assert run(seed, mutant=ALWAYS).digest == run(seed).digest
