"""What is drawn of elections stays within what a committee bears."""

from __future__ import annotations

import random

import pytest

from tests.sim.elections import Ballot, Electorate
from tests.sim.options import Options, draw

SEEDS = range(1000)


def test_no_seed_has_more_liars_and_dead_than_its_committee_bears() -> None:
    drawn = [draw(seed) for seed in SEEDS]
    assert all(len(each.traitors) + each.stay_dead <= (each.size - 1) // 3 for each in drawn)
    assert any(each.elect_every_ms and len(each.traitors) == 2 for each in drawn)
    joins = [each for each in drawn if each.traitors and max(each.traitors) >= each.size]
    assert joins, "some traitors have no vote at first"


@pytest.mark.parametrize(
    ("size", "traitors", "dead"), [(4, (5,), 0), (5, (), 1), (7, (0, 8), 0), (7, (1,), 1)]
)
def test_every_committee_bears_its_liars_and_the_dead(
    size: int, traitors: tuple[int, ...], dead: int
) -> None:
    options = Options(seed=0, size=size, spare=2, traitors=traitors, stay_dead=dead)
    rng = random.Random(size)
    now = Electorate(size, notice_ms=50)
    ballot = Ballot(options, rng)
    keys = {*now.members}
    sizes, time_ms = set(), 0
    for _ in range(100):
        time_ms += 30
        for motion in ballot.draw(now):
            assert {*motion.voices} <= now.seated
            if motion.wanted:
                now.change(motion, time_ms)
            else:
                now.objection(motion, time_ms)
        before = dict(now.members)
        if now.end_block(time_ms) is None:
            continue
        machines = [machine for machine, _ in now.members]
        assert len(set(machines)) == len(machines)
        assert (len(machines) - 1) // 3 >= dead + len({*machines} & {*traitors})
        fresh = {member for member in now.members if before.get(member[0]) != member[1]}
        assert not fresh & keys, "a key comes back"
        keys |= fresh
        sizes.add(len(machines))
    assert now.epoch > 10
    assert len(sizes) > 1
