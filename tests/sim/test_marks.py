"""The simulator reaches the rare situations: a run set that misses one tests less than it says."""

from __future__ import annotations

from collections import Counter

from tests.sim.campaign import run, sweep
from tests.sim.marks import SOMETIMES
from tests.sim.options import draw

FIRST = 1000
SEEDS_MAX = 200
CHOSEN = (1186, 1120, 1191, 1163, 1138, 1135, 1130)
"""Of these, seeds that reach together what all reach. Once they miss something, the others run."""
LONG = 15
"""A seed of half an hour in which f + 1 validators are away."""


def test_every_rare_situation_is_reached_within_two_hundred_seeds() -> None:
    assert draw(LONG).is_long
    assert draw(LONG).away_ms
    reached: Counter[str] = Counter(run(LONG).marks)
    everyone = range(FIRST, FIRST + SEEDS_MAX)
    for seed in (*CHOSEN, *(each for each in everyone if each not in CHOSEN)):
        reached += sweep([seed])
        if all(reached[mark] for mark in SOMETIMES):
            return
    assert [mark for mark in SOMETIMES if not reached[mark]] == []
