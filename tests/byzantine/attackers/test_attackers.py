"""Every attacker has its chance, nothing false comes of it, and the honest do what they owe."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.byzantine.attackers.__main__ import main
from tests.byzantine.attackers.stage import AttackedSimulation, run
from tests.byzantine.attackers.table import ATTACKERS

NAMES = tuple(ATTACKERS)
SEEDS_MAX = 12
PAIRS = (*zip(NAMES[::2], NAMES[1::2], strict=False), (NAMES[-1], NAMES[0]))


@pytest.mark.parametrize("name", NAMES)
def test_one_attacker_among_four_is_dealt_with(name: str) -> None:
    owed = ATTACKERS[name].shows
    seen: Counter[str] = Counter()
    attacks = 0
    for seed in range(SEEDS_MAX):
        simulation = run(seed, 4, (name,))
        seen += simulation.seen
        attacks += sum(each.attacks for each in simulation.attackers.values())
        if attacks and all(seen[mark] for mark in owed):
            return
    assert (attacks > 0, [mark for mark in owed if not seen[mark]]) == (True, [])


@pytest.mark.parametrize("names", PAIRS, ids=" and ".join)
def test_two_attackers_among_seven_break_nothing(names: tuple[str, str]) -> None:
    attacks: Counter[str] = Counter()
    for seed in range(SEEDS_MAX):
        for attacker in run(seed, 7, names).attackers.values():
            attacks[attacker.name] += attacker.attacks
        if all(attacks[name] for name in names):
            return
    assert [name for name in names if not attacks[name]] == []


def test_more_attackers_than_f_are_no_simulation() -> None:
    with pytest.raises(ValueError, match="more attackers than f"):
        AttackedSimulation(0, 4, NAMES[:2])


def test_campaign_names_what_was_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--attackers", "silent leader", "--seeds", "0..1"]) == 0
    told = capsys.readouterr().out
    assert "2 runs, 0 broken" in told
    assert "timeout signed" in told


def test_campaign_in_which_the_honest_never_do_what_they_owe_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ATTACKERS["silent leader"], "shows", ("timeout signed", "undo"))
    assert main(["--attackers", "silent leader", "--seeds", "0..0"]) == 1
    told = capsys.readouterr().out
    assert "1 runs, 0 broken" in told
    assert "not seen: no undo (silent leader)" in told


@pytest.mark.parametrize(
    "arguments",
    [
        ["--attackers", "nobody"],
        ["--attackers", "silent leader,time liar"],
        ["--seeds", "3..1"],
        ["--seeds", "x"],
        ["--nodes", "5"],
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == 2
