"""Each rule of an epoch's end is needed: without it, the simulator names what does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.byzantine.mutants.epochs import ANY_COUNTS, CAUGHT_BY, EVERYWHERE
from tests.sim.campaign import Case, run
from tests.sim.errors import Violation
from tests.sim.kept import read
from tests.sim.mutants import NONE, Mutant
from tests.sim.options import draw

SEEDS_MAX = 20
"""With elections, from a mutant's first on."""


def electing(first: int) -> Iterator[int]:
    """Yield the first seeds in which committees change."""
    seed = first
    for _ in range(SEEDS_MAX):
        while not draw(seed).elect_every_ms:
            seed += 1
        yield seed
        seed += 1


def broken(first: int, mutant: Mutant) -> str:
    """Return the first promise that a seed breaks, or nothing."""
    for seed in electing(first):
        try:
            run(seed, mutant=mutant)
        except Violation as found:
            return found.promise
    return ""


LONG = ("no two-chain lifts the guard", "who speaks of another epoch gets no answer")
"""Mutants that take many seeds."""


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(each, marks=[pytest.mark.long] if each.name in LONG else [])
        for each in CAUGHT_BY
    ],
    ids=lambda mutant: mutant.name,
)
def test_broken_rule_is_found(mutant: Mutant) -> None:
    first, promises = CAUGHT_BY[mutant]
    assert broken(first, mutant) in promises


@pytest.mark.parametrize("name", EVERYWHERE)
def test_rule_broken_at_every_node_is_found(name: str) -> None:
    breaks, first, promise = EVERYWHERE[name]
    with breaks():
        assert broken(first, NONE) == promise


def test_counts_of_any_epoch_are_found() -> None:
    """In the run that once showed it, with more elections: one seed in ten or so does."""
    kept = read()["numbers-of-the-next-epoch"].case
    often = replace(kept.options, elect_every_ms=200, elect_again=0.7, notice_ms=20)

    def promise(seed: int) -> str:
        try:
            Case(replace(often, seed=seed), kept.script).run()
        except Violation as found:
            return found.promise
        return ""

    with ANY_COUNTS():
        assert "no fault of the honest" in map(promise, range(SEEDS_MAX))
