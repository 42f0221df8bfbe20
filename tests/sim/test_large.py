"""The largest committee that a network may have: 64 validators, 43 signatures to a certificate."""

from __future__ import annotations

import pytest

from tests.sim.campaign import Case
from tests.sim.faults import AT_ONCE, Fault
from tests.sim.options import Options

VALIDATORS = 64
FAULTY = 21


@pytest.mark.long
def test_sixty_four_validators_certify_with_twenty_one_of_them_gone() -> None:
    """Rounds of dead leaders bring certificates of timeouts, which are the longest messages."""
    options = Options(
        seed=64,
        size=VALIDATORS,
        safety_ms=1500,
        sync_ms=2,
        execute_ms=2,
        timeout_base_ms=300,
        batch_every_ms=300,
        batch_size=2,
        stay_dead=FAULTY,
    )
    dead = tuple(Fault(400 + 3 * index, "power", (index, AT_ONCE)) for index in range(8))
    result = Case(options, dead).run()
    assert result.heights > 3
    assert result.marks["timeout signed"] > 0
    assert result.marks["proposal after a timeout certificate"] > 0
    assert result.marks["a validator stayed dead"] > 0
