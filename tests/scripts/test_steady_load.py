"""Loads at a steady rate find what a certified log has lost or doubled, and the longest pause."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from scripts import joining_benchmark, members_benchmark
from scripts.steady_load import SteadyLoad, Told, any_wrong, compare
from tests.network.harness.chain import Chain, Height, Outcome


def txid(number: int) -> bytes:
    return bytes([number]) * 32


def told(number: int, height: int, due: float = 0.0, at: float = 0.0) -> Told:
    return Told(due, at, txid(number), height, 0, b"root" * 8)


def height(number: int, *txids: int, statement: bytes = b"said", code: int = 0) -> Height:
    outcomes = tuple(
        Outcome(txid(each), index, code, b"root" * 8) for index, each in enumerate(txids)
    )
    return Height(number, statement, outcomes)


def load(*answers: Told) -> SteadyLoad:
    return SteadyLoad(100, [], list(answers), sent=len(answers))


def log(*heights: Height) -> Chain:
    return Chain(b"chain", heights)


def test_what_is_in_every_log_once_at_its_place_is_kept() -> None:
    chain = log(height(0), height(1, 1), height(2, 2))
    found = compare(load(told(1, 1), told(2, 2)), [chain, chain])
    assert not any_wrong(found)
    assert (found["receipts"], found["logs_compared"]) == (2, 2)


@pytest.mark.parametrize(
    ("heights", "wrong"),
    [
        ((height(1, 1), height(2)), "receipts_lost"),
        ((height(1, 1), height(2), height(3, 2)), "receipts_lost"),
        ((height(1, 1), height(2, 2), height(3, 1)), "took_effect_twice"),
        ((height(1, 1), height(2, 2, statement=b"other")), "heights_in_two_ways"),
    ],
)
def test_what_one_log_lacks_or_has_twice_is_counted(
    heights: tuple[Height, ...], wrong: str
) -> None:
    whole = log(height(1, 1), height(2, 2))
    found = compare(load(told(1, 1), told(2, 2)), [whole, log(*heights)])
    assert found[wrong] >= 1
    assert any_wrong(found)


def test_what_was_sent_and_not_answered_is_counted() -> None:
    half = SteadyLoad(100, [], [told(1, 1)], sent=3, refused=1)
    found = compare(half, [log(height(1, 1))])
    assert (found["unanswered"], found["refused"]) == (1, 1)
    assert any_wrong(found)
    spent = log(height(1, 1), height(2, 1, code=3))  # the same bytes again, refused
    assert compare(load(told(1, 1)), [spent])["took_effect_twice"] == 0


def test_pauses_and_waits_count_from_when_something_was_due() -> None:
    answers = [told(n, 1, due=n * 0.1, at=n * 0.1 + 0.05) for n in range(10)]
    answers += [told(10 + n, 2, due=1 + n * 0.1, at=2.5) for n in range(10)]
    both = load(*answers)
    assert math.isclose(both.longest_gap_ms(0, 3), (2.5 - 0.95) * 1000)
    assert math.isclose(both.longest_gap_ms(0, 1), 100)
    assert math.isclose(both.p99_ms(0, 3), 1500)
    assert math.isclose(both.p99_ms(0, 1), 50)
    assert both.first_above(1) == 2.5
    assert both.newest == 2


def test_each_time_as_many_are_cut_off_as_stop_a_committee(tmp_path: Path) -> None:
    town, newcomers = members_benchmark.found(tmp_path / "network")
    first, second = members_benchmark.all_at_once(town, newcomers)
    assert [len(first.cut), len(second.cut)] == [2, 3]
    assert [len(first.changes), len(second.changes)] == [3, 3]
    steps = members_benchmark.one_by_one(town, newcomers)
    assert [each.name for each in steps] == [
        "4 → 5", "5 → 6", "6 → 7", "7 → 6", "6 → 5", "5 → 4",
    ]  # fmt: skip


@pytest.mark.long
@pytest.mark.process
def test_a_new_agency_fetches_everything_and_votes(tmp_path: Path) -> None:
    given = joining_benchmark.prepare(tmp_path, 500)
    figures = joining_benchmark.joined(given, 20)
    assert figures["entries"] >= 500
    stages = ("offered", "snapshot_in_place", "caught_up", "admitted", "first_vote")
    seconds = [figures[f"{stage}_seconds"] for stage in stages]
    assert seconds == sorted(seconds)
    assert (figures["unanswered"], figures["refused"]) == (0, 0)
