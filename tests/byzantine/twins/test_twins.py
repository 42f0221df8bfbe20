"""One key at two sites: whatever they come to say, the others stay one and go on."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, permutations

import pytest

from consensus.hotstuff.replica import Replica
from tests.byzantine.twins.__main__ import main
from tests.byzantine.twins.campaign import SOMETIMES, Plans, run
from tests.byzantine.twins.field import Field
from tests.byzantine.twins.scenario import (
    FREE,
    Scenario,
    Turn,
    canonical,
    enumerate_all,
    keys_of,
    renamings,
    turns_of,
)

SCENARIOS = 250


def test_no_scenario_of_twins_breaks_a_promise() -> None:
    tally = run(Plans(4, SCENARIOS))
    assert tally.broken == []
    often = [mark for mark in SOMETIMES if mark != "two timeouts for one round"]
    assert [mark for mark in often if not tally.marks[mark]] == []


def test_two_pairs_of_twins_among_seven_break_nothing() -> None:
    tally = run(Plans(7, 12))
    assert tally.broken == []
    assert tally.marks["two votes in one round"] > 0


def test_a_copied_folder_is_found_out_and_breaks_nothing() -> None:
    scenario = Scenario(4, tuple(Turn(3) for _ in range(4)), copied=2)
    judge = Field(scenario).run()
    assert judge.marks["a folder was copied"] == 1
    assert judge.marks["two proposals for one round"] > 0


@pytest.mark.parametrize("order", tuple(permutations(range(3))))
def test_renamed_scenarios_make_the_same_run(order: tuple[int, ...]) -> None:
    turns = (Turn(3, (0b10100, FREE, FREE, 0b10100)), Turn(0, (FREE, 0b00110, FREE, FREE)))
    (places, keys), *_ = [each for each in renamings(4) if each[0][:3] == order]
    other = tuple(
        Turn(
            keys[turn.leader],
            tuple(sum(1 << places[p] for p in range(5) if s >> p & 1) for s in turn.splits),  # type: ignore[arg-type]
        )
        for turn in turns
    )
    first, second = Field(Scenario(4, turns)), Field(Scenario(4, other))
    heights = {max(first.run().chain), max(second.run().chain)}
    assert len(heights) == 1
    assert canonical(Scenario(4, turns)) == canonical(Scenario(4, other))


def test_one_scenario_of_each_class_is_run() -> None:
    everything = list(enumerate_all(4, 1))
    classes = {canonical(each) for each in everything}
    # By Burnside: leaders 0, 1, 2 are one class and 3 is another; splits of three equal and two
    # equal places under those renamings were counted by hand.
    assert len(everything) == 4 * 61
    assert {each.turns[0].leader for each in classes} == {0, 3}
    by_leader = {key: sum(each.turns[0].leader == key for each in classes) for key in (0, 3)}
    assert by_leader == {0: 1 + 4 * 8, 3: 1 + 4 * 5}


def test_plans_are_the_same_every_time_and_all_different() -> None:
    first, second = list(Plans(4, 300)), list(Plans(4, 300))
    assert first == second
    assert len(set(first)) == 300
    assert list(Plans(4, 300, seed=1)) != first


def test_places_belong_to_keys_and_splits_are_told_once() -> None:
    assert keys_of(4) == (0, 1, 2, 3, 3)
    assert keys_of(7) == (0, 1, 2, 3, 4, 5, 6, 5, 6)
    assert len(list(turns_of(4))) == 4 * (1 + 15 * 4)


def test_a_scenario_makes_the_same_run_again() -> None:
    (scenario,) = islice(Plans(4, 5), 4, 5)
    lines: list[list[str]] = [[], []]
    for said in lines:
        Field(scenario, trace=said.append).run()
    assert lines[0] == lines[1] != []


def test_late_messages_are_part_of_the_plan() -> None:
    turns = (Turn(0, (FREE, 0b00110, FREE, FREE)), Turn(1), Turn(2))
    held = Field(Scenario(4, turns, late=1)).run()
    lost = Field(replace(Scenario(4, turns), late=0)).run()
    assert "a message came rounds too late" in held.marks
    assert "a message came rounds too late" not in lost.marks


def test_a_replica_that_raises_is_told_with_its_scenario_and_the_others_are_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(replica: Replica, event: object, now_ms: int) -> None:
        raise KeyError("nobody thought of it")

    monkeypatch.setattr(Replica, "step", fail)
    tally = run(Plans(4, 2))
    assert (tally.run, len(tally.broken)) == (2, 2)
    for _, promise, what in tally.broken:
        assert promise == "no own bug"
        assert "KeyError at test_twins.py:" in what


@pytest.mark.parametrize("arguments", [["--scenarios", "0"], ["--nodes", "5"], ["--jobs", "x"]])
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2


def test_one_scenario_is_shown_line_for_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--scenarios", "3", "--number", "2"]) == 0
    assert "says proposal" in capsys.readouterr().out
    assert main(["--scenarios", "3", "--number", "3"]) == 2
