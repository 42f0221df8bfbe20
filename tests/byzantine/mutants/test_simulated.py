"""The simulator can fail: with one rule broken, it names the promise that does not hold."""

from __future__ import annotations

import pytest

from tests.byzantine.mutants.simulated import CAUGHT_BY
from tests.sim.campaign import run
from tests.sim.errors import Violation
from tests.sim.mutants import Mutant

SEEDS_MAX = 60


@pytest.mark.parametrize("mutant", CAUGHT_BY, ids=lambda mutant: mutant.name)
def test_broken_rule_is_found(mutant: Mutant) -> None:
    promises = (broken(seed, mutant) for seed in range(SEEDS_MAX))
    found = (promise for promise in promises if promise and promise not in mutant.ignore)
    assert next(found, "nothing") in CAUGHT_BY[mutant]


def broken(seed: int, mutant: Mutant) -> str:
    """Return the promise that a seed breaks, or nothing."""
    try:
        run(seed, 4, mutant=mutant)
    except Violation as found:
        return found.promise
    return ""
