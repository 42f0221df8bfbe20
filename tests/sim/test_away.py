"""Long absences: rounds must not drift apart, nor waits grow beyond their bound."""

from __future__ import annotations

import pytest

from tests.sim.campaign import Case
from tests.sim.faults import Fault
from tests.sim.options import Options

HALF_AN_HOUR_MS = 1_800_000


def test_after_half_an_hour_without_a_quorum_work_is_certified_within_a_few_rounds() -> None:
    """f + 1 validators are off, the others give up round after round; then all are back.

    Besu 7642 and besu-docs 611, tendermint 1464: rounds had become hours long, and only restarting
    everybody helped. The run itself requires new work within f + 3 rounds.
    """
    come_back(4)


@pytest.mark.long
def test_so_it_is_where_three_of_seven_are_away() -> None:
    come_back(7)


def come_back(size: int) -> None:
    gone = tuple(range(1, (size - 1) // 3 + 2))
    options = Options(
        seed=1, size=size, safety_ms=HALF_AN_HOUR_MS, skew_ms=(0,) * size, batch_every_ms=60_000
    )
    result = Case(options, (Fault(1000, "away", (HALF_AN_HOUR_MS, *gone)),)).run()
    assert result.virtual_ms >= HALF_AN_HOUR_MS
    assert result.marks["f + 1 away"] == 1
    assert result.marks["timeout signed"] > 0
    assert result.work_rounds <= 5
    assert result.work_ms < 10_000
