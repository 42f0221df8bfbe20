"""The judge of the payment job: it accepts what may happen, and finds each thing that must not."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest

from comity.results import Decision
from scripts import register
from scripts.benefits import Case, absent
from scripts.demo_parts import payday
from scripts.demo_parts.payday import HELD_PER_THIRD, Outcome

HOUSEHOLDS = register.households(register.people(1_000), 500)
CASES = [Case(each, absent("entitlement", each.child.token)) for each in HOUSEHOLDS]
PAYMENT_STALE = [["payment", [[b"child"], 24320]], 1, []]
HOLD = (10, 5)


def decided(code: str, height: int, index: int = 7, detail: Any = None) -> Decision:
    """A decision with a code at a position; nothing else of it is looked at."""
    state = "applied" if code == "APPLIED" else "refused"
    return Decision(b"t" * 32, height, index, 0, state, code, None, detail, (), b"r" * 32, Mock())


def fault(first: Decision, second: Decision, held: tuple[int, int] | None = None) -> str:
    return payday._fault(Outcome(CASES[0], (first, second), held))


@pytest.mark.parametrize(
    ("first", "second", "held"),
    [
        (decided("APPLIED", 5), decided("STALE", 6, detail=PAYMENT_STALE), None),
        (decided("STALE", 6, detail=PAYMENT_STALE), decided("APPLIED", 5), None),
        (decided("APPLIED", 9), decided("STALE", 11, detail=PAYMENT_STALE), HOLD),
        (decided("APPLIED", 9), decided("HELD", 11), HOLD),
        (decided("APPLIED", 10, 4), decided("HELD", 10, 6), HOLD),
        (decided("HELD", 10, 6), decided("HELD", 12), HOLD),
    ],
)
def test_what_may_happen_is_no_fault(
    first: Decision, second: Decision, held: tuple[int, int] | None
) -> None:
    assert fault(first, second, held) == ""


@pytest.mark.parametrize(
    ("first", "second", "held", "said"),
    [
        (decided("APPLIED", 5), decided("APPLIED", 6), None, "paid twice"),
        (decided("APPLIED", 11), decided("HELD", 12), HOLD, "after the hold"),
        (decided("APPLIED", 10, 6), decided("HELD", 12), HOLD, "after the hold"),
        (decided("HELD", 5), decided("HELD", 6), None, "HELD"),
        (decided("HELD", 10, 4), decided("HELD", 12), HOLD, "HELD"),
        (decided("STALE", 5, detail=PAYMENT_STALE), decided("HELD", 11), HOLD, "STALE"),
        (decided("STALE", 4, detail=PAYMENT_STALE), decided("APPLIED", 5), None, "STALE"),
        (
            decided("APPLIED", 5),
            decided("STALE", 6, detail=[["entitlement", [b"child"]], 2, []]),
            None,
            "STALE",
        ),
        (decided("APPLIED", 5), decided("INSUFFICIENT", 6), None, "INSUFFICIENT"),
    ],
)
def test_what_must_not_happen_is_named(
    first: Decision, second: Decision, held: tuple[int, int] | None, said: str
) -> None:
    assert said in fault(first, second, held)


def test_persons_to_freeze_are_distinct_and_spread_over_the_job() -> None:
    chosen = payday._to_freeze(CASES)
    assert len(chosen) == len(set(chosen.values())) == 3 * HELD_PER_THIRD
    order = list(chosen)
    assert min(order[:HELD_PER_THIRD]) > 400
    assert max(order[-HELD_PER_THIRD:]) < 100
    for index, token in chosen.items():
        household = CASES[index].household
        assert token in (household.child.token, household.caregiver.token)
