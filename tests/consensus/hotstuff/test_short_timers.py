"""What leaders that fail cost, in virtual time, and that waiting less for them harms nobody.

A round without a block costs the others what passes until the next block. Expected: the full time
a few times, until the leader is known; then milliseconds, whatever pattern it chooses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest

from consensus.hotstuff import events as ev
from consensus.hotstuff.events import ReplicaConfig
from consensus.hotstuff.pacemaker import Pacemaker
from consensus.hotstuff.types import Message, Proposal, Timeout, Vote

from . import builders as make
from .bench import Bench
from .driver import CHAIN, World, batch
from .test_pacemaker import IDLE

LINK_MS = 10
FULL_MS = 1000
"""A round that is given up by the normal timer lasts no less."""
HEALTHY_MS = 39
"""From one block to the next without failures: proposal, votes, execution and the spacing."""
FAILED_TURN_MS = 130
"""The same over one turn that fails by the short timer: what is waited for, and its certificate."""
Fails = Callable[[int, int], bool]


def failing(size: int, fails: Fails) -> World:
    """A network in which the proposals of (leader, number of its turn) get lost."""

    def delay(_sender: int, _receiver: int, message: Message) -> int | None:
        if isinstance(message, Proposal):
            turn, leader = divmod(message.block.round, size)
            if fails(leader, turn):
                return None
        return LINK_MS

    return World(size, delay=delay, sync_ms=2, execute_ms=2)


def gaps_under_load(world: World, cycles: int, each_ms: int = 20) -> list[int]:
    """Run under steady load for some cycles; return the times between certified blocks, in ms."""
    size, node = len(world.nodes), world.nodes[1]
    number = 0
    last: list[int] = []

    def hook(which: object, effect: ev.Effect) -> None:
        if which is node and isinstance(effect, ev.Deliver):
            last.append(world.now_ms)

    world.effect_hook = hook
    assert node.replica is not None
    until = node.replica.round + cycles * size
    while node.replica.round < until:
        number += 1
        world.submit(batch(number, number % size))
        world.run(each_ms)
    return [after - before for before, after in pairwise(last) if after > before]


@dataclass(frozen=True)
class Case:
    """A pattern of failing turns.

    Args:
        full: how often it costs the full time.
        short_ms_max: what one gap costs afterwards.
    """

    fails: Fails
    full: int
    short_ms_max: int = FAILED_TURN_MS
    size: int = 4
    cycles: int = 24


CASES = {
    "nobody fails": Case(lambda leader, turn: False, 0, HEALTHY_MS),
    "dead": Case(lambda leader, turn: leader == 0, 1),
    "every second turn": Case(lambda leader, turn: leader == 0 and turn % 2 == 0, 1),
    "every third turn": Case(lambda leader, turn: leader == 0 and turn % 3 == 0, 2),
    "two neighbours of seven": Case(
        lambda leader, turn: leader in (2, 3), 1, 2 * FAILED_TURN_MS - HEALTHY_MS, 7, 10
    ),
    "two flaky of seven": Case(
        lambda leader, turn: (leader == 0 and turn % 2 == 0) or (leader == 3 and turn % 3 == 0),
        3,
        size=7,
        cycles=14,
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_failing_leader_costs_the_full_time_until_it_is_known_then_milliseconds(
    case: Case,
) -> None:
    world = failing(case.size, case.fails)
    world.start()
    gaps = gaps_under_load(world, case.cycles)
    assert len([gap for gap in gaps if gap >= FULL_MS]) == case.full
    assert max(gaps[len(gaps) // 2 :]) <= case.short_ms_max


def isolated(leader: int, turn: int) -> bool:
    """One failed turn of each leader, far apart."""
    return 1 <= turn <= 4 and leader == turn - 1


@pytest.mark.parametrize(
    ("link_ms", "execute_ms", "load"),
    [(10, 400, True), (10, 700, False), (150, 400, True), (300, 2, True)],
    ids=["slow machines", "slow machines, empty blocks", "slow machines and links", "slow links"],
)
def test_network_that_becomes_slow_while_leaders_are_marked_does_not_fail_their_turns(
    link_ms: int, execute_ms: int, load: bool
) -> None:
    """The naive rule's short timer expired against every second empty block, for ever."""
    times = {"link": LINK_MS}

    def delay(_sender: int, _receiver: int, message: Message) -> int | None:
        if isinstance(message, Proposal):
            turn, leader = divmod(message.block.round, 4)
            if isolated(leader, turn):
                return None
        return times["link"]

    world = World(delay=delay, sync_ms=2, execute_ms=2)
    world.start()
    gaps_under_load(world, 6)
    times["link"], world.execute_ms = link_ms, execute_ms
    number = 100_000

    def failed(for_ms: int) -> set[int]:
        nonlocal number
        world.sent_log.clear()
        until = world.now_ms + for_ms
        while world.now_ms < until:
            number += 1
            if load:
                world.submit(batch(number))
            world.run(50)
        return {each.round for _, _, each in world.sent_log if isinstance(each, Timeout)}

    assert len(failed(5_000)) <= 2
    before = world.height(0)
    assert failed(10_000) == set()
    assert world.height(0) >= before + 10


def test_leader_whose_batches_nobody_has_is_waited_for_no_longer_than_one_that_is_silent() -> None:
    """A proposal that cannot be voted for does not buy the full time."""
    world = World(sync_ms=2, execute_ms=2)

    def hook(node: object, effect: ev.Effect) -> None:
        if isinstance(effect, ev.RequirePayload) and effect.block.round % 4 == 0:
            world.withheld.update((index, effect.block.id) for index in range(1, 4))
        if node is world.nodes[1] and isinstance(effect, ev.Deliver):
            times.append(world.now_ms)

    times: list[int] = []
    world.effect_hook = hook
    world.start()
    number = 0
    while len(times) < 60:
        number += 1
        world.submit(batch(number))
        world.run(20)
    gaps = [after - before for before, after in pairwise(times)]
    assert sum(gap >= FULL_MS for gap in gaps) == 1
    assert max(gaps[20:]) <= 200


# --- one replica ---------------------------------------------------------------------------------


def bench_before_round_6(*rounds: int) -> Bench:
    """A replica in round 6, of leader 2, after blocks in these rounds of its leaders.

    It has executed nothing, so that empty blocks are expected 500 ms apart; 100 of them are over.
    """
    bench = Bench(own=3)
    blocks = make.chain(*rounds)
    for block in blocks:
        bench.order(block)
    bench.feed(ev.PayloadAvailable((batch(1),)), after_ms=100)
    if rounds[-1] < 5:
        high = make.quorum_cert(blocks[-1])
        for validator in (0, 1):
            bench.receive(make.timeout(5, validator, high), validator)
    assert bench.replica.round == 6
    return bench


def timeout_in_ms(bench: Bench) -> int:
    start = bench.now_ms
    while 6 not in [timeout.round for timeout in bench.said(Timeout)]:
        bench.fire(after_ms=1)
    return bench.now_ms - start


def test_leader_that_failed_is_given_up_sooner_and_one_that_did_not_is_not() -> None:
    assert timeout_in_ms(bench_before_round_6(1, 2, 3, 4, 5)) == 400 + 1000
    assert timeout_in_ms(bench_before_round_6(1, 3, 4, 5)) <= 400 + 200


def test_after_f_failed_rounds_in_a_row_nobody_is_given_up_sooner() -> None:
    assert timeout_in_ms(bench_before_round_6(1, 3, 4)) == 1200


def test_proposal_that_can_be_voted_for_brings_the_normal_timer_back() -> None:
    bench = bench_before_round_6(1, 3, 4, 5)
    block = make.block(make.quorum_cert(make.chain(1, 3, 4, 5)[-1]))
    bench.receive(make.proposal(block), 2)
    assert bench.said(Vote) != []
    assert timeout_in_ms(bench) >= 900


def test_block_from_the_future_does_not_bring_the_normal_timer_back() -> None:
    bench = bench_before_round_6(1, 3, 4, 5)
    high = make.quorum_cert(make.chain(1, 3, 4, 5)[-1])
    bench.receive(make.proposal(make.block(high, time_ms=bench.now_ms + 10_000)), 2)
    assert timeout_in_ms(bench) <= 400 + 200


# --- the arithmetic -----------------------------------------------------------------------------

PACE = Pacemaker(ReplicaConfig(CHAIN))
"""Its round time is 100 ms: the first guess."""


def test_short_timer_is_two_round_times_and_fifty_milliseconds_at_least() -> None:
    pace = Pacemaker(ReplicaConfig(CHAIN))
    assert pace.short_ms == 200
    for _ in range(100):
        pace.observe(0)
    assert pace.short_ms == 50
    pace.observe(400)
    assert pace.short_ms == 800


@pytest.mark.parametrize(
    ("change", "deadline_ms"),
    [
        ({"by_timeout": True}, 10_200),
        ({"work_since_ms": 9_000}, 10_240),
        ({"work_since_ms": 10_000}, 10_250),
        ({"work_since_ms": 9_000, "parent_certified": False}, 10_300),
        ({"parent_certified": False, "parent_bytes": 0}, 10_690),
        ({"work_since_ms": 9_000, "parent_certified": False, "parent_bytes": 0}, 10_690),
        ({"payload_allowed": False}, 13_200),
    ],
    ids=[
        "after a failed round: proposes at once",
        "spacing, if it lacks the certificate",
        "it may have to be told of the batch",
        "parent uncertified: a round time",
        "empty blocks in a row, if it is behind",
        "likewise with work",
        "idle",
    ],
)
def test_short_timer_counts_from_when_an_honest_leader_proposes_at_the_latest(
    change: dict[str, Any], deadline_ms: int
) -> None:
    situation = replace(IDLE, **change)
    propose_ms = PACE.propose_from_ms(situation)
    assert PACE.deadline_ms(situation, propose_ms, 0, hurried=True) == deadline_ms
    full = PACE.start_ms(situation, propose_ms) + 1000
    assert PACE.deadline_ms(situation, propose_ms, 0, hurried=False) == full


def test_short_timer_is_never_longer_than_the_normal_one() -> None:
    pace = Pacemaker(ReplicaConfig(CHAIN))
    pace.observe(900)
    situation = replace(IDLE, work_since_ms=9_000)
    assert pace.deadline_ms(situation, 10_000, 0, hurried=True) == 11_000
