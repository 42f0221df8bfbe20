"""Times of proposing and giving up, as arithmetic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.hotstuff.events import ReplicaConfig
from consensus.hotstuff.pacemaker import Pacemaker, Situation

from .driver import CHAIN

CONFIG = ReplicaConfig(CHAIN)
IDLE = Situation(
    entered_ms=10_000,
    by_timeout=False,
    ordered_ms=10_000,
    work_since_ms=None,
    payload_allowed=True,
    proposal_ms=None,
    parent_ms=9_990,
    parent_bytes=300,
    parent_certified=True,
    execution_behind=False,
    results_disagree=False,
)
PACE = Pacemaker(CONFIG)


def start_ms(situation: Situation) -> int:
    return PACE.start_ms(situation, PACE.propose_from_ms(situation))


def test_lesson_1_duration_grows_by_a_fifth_and_stops_at_four_seconds() -> None:
    assert [PACE.duration_ms(n) for n in range(9)] == [
        1000,
        1200,
        1440,
        1728,
        2073,
        2487,
        2984,
        3580,
        4000,
    ]
    assert PACE.duration_ms(1_000_000_000) == 4000


def test_idle_chain_waits_for_the_heartbeat_and_its_timer_counts_from_there() -> None:
    assert PACE.propose_from_ms(IDLE) == 13_000
    assert start_ms(IDLE) == 13_000


def test_payload_after_an_empty_block_is_proposed_at_once() -> None:
    empty = replace(IDLE, parent_bytes=0)
    assert PACE.propose_from_ms(replace(empty, work_since_ms=9_000)) == 10_000
    assert PACE.propose_from_ms(replace(empty, work_since_ms=10_400)) == 10_400


def test_payload_waits_until_the_payload_before_it_is_certified_or_some_time_has_passed() -> None:
    waiting = replace(IDLE, work_since_ms=9_000)
    assert PACE.payload_from_ms(replace(waiting, parent_certified=False)) == 10_040
    assert PACE.payload_from_ms(waiting) == 10_010
    fresh = replace(waiting, parent_ms=9_995)
    assert PACE.payload_from_ms(replace(fresh, parent_certified=False)) == 10_045
    assert PACE.payload_from_ms(fresh) == 10_015
    late = replace(waiting, parent_ms=9_900)
    assert PACE.payload_from_ms(replace(late, parent_certified=False)) == 10_000
    assert PACE.payload_from_ms(late) == 10_000


def test_payload_beyond_the_windows_waits() -> None:
    beyond = replace(IDLE, work_since_ms=9_000, payload_allowed=False)
    assert PACE.payload_from_ms(beyond) is None
    assert PACE.propose_from_ms(beyond) == 13_000


def test_round_entered_by_timeout_certificate_is_proposed_in_at_once() -> None:
    assert PACE.propose_from_ms(replace(IDLE, by_timeout=True)) == 10_000


def test_parent_that_stays_uncertified_for_a_round_time_gets_an_empty_child() -> None:
    pace = Pacemaker(CONFIG)
    waiting = replace(IDLE, parent_certified=False)
    assert pace.propose_from_ms(waiting) == 10_100  # the first guess: a tenth of the timeout
    pace.observe(160)
    assert pace.propose_from_ms(waiting) == 10_160


@pytest.mark.parametrize(
    ("change", "from_ms"),
    [
        ({}, 10_240),
        ({"execution_behind": True}, 10_490),
        ({"results_disagree": True}, 10_990),
    ],
    ids=["250 ms", "behind: 500 ms", "disagreement: a second"],
)
def test_empty_blocks_in_a_row_are_slowed(change: dict[str, bool], from_ms: int) -> None:
    after_empty = replace(IDLE, parent_certified=False, parent_bytes=0)
    assert PACE.propose_from_ms(replace(after_empty, **change)) == from_ms


def test_timer_counts_from_a_proposal_that_came_earlier_than_expected() -> None:
    assert start_ms(replace(IDLE, proposal_ms=10_500)) == 10_500
    assert start_ms(replace(IDLE, proposal_ms=10_500, work_since_ms=10_200)) == 10_200
    assert start_ms(replace(IDLE, proposal_ms=9_000)) == 10_000


def test_observed_round_time_rises_at_once_fades_slowly_and_is_bounded() -> None:
    pace = Pacemaker(CONFIG)
    pace.observe(5)
    assert pace.round_time_ms == 87
    for _ in range(100):
        pace.observe(0)
    assert pace.round_time_ms == 20
    pace.observe(300)
    assert pace.round_time_ms == 300
    pace.observe(99_999)
    assert pace.round_time_ms == 1000
