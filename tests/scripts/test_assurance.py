"""The page of assurance says what parts printed, and never that nothing held."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from scripts import assurance_report
from scripts.assurance_report import Figure, Part, judge, main, parts

ROOT = Path(__file__).resolve().parents[2]
PART = Part(
    "counting",
    "numbers",
    ("count",),
    (Figure("seeds", r"(\d+) seeds"), Figure("failed", r"(\d+) failed", zero=True)),
)


@pytest.mark.parametrize(
    ("status", "output", "problem"),
    [
        (0, "7 seeds, 0 failed", None),
        (0, "7 seeds, 0 failed\n9 seeds, 0 failed", None),
        (1, "7 seeds, 0 failed", "exit status 1"),
        (0, "7 seeds, 1 failed", "failed: 1"),
        (0, "0 seeds, 0 failed", "seeds: 0"),
        (0, "", "seeds: missing"),
        (0, "7 seeds", "failed: missing"),
    ],
)
def test_a_part_holds_only_by_what_it_printed(
    status: int, output: str, problem: str | None
) -> None:
    assert judge(PART, lambda _words: (status, output)).problem == problem


def test_states_of_all_models_are_added_up() -> None:
    (models,) = [each for each in parts(1.0) if each.name == "models"]
    output = """model     rounds  with              states  depth    MiB      s  result
voting         2  K=1 FORGETFUL     46,280    155    176    6.8  holds
    A votes for block 1 on 0, holding certificate 0
recovery       2  K=1 ACTIVE=2         439     29    128    1.8  halt
7 searches, 0 wrong
"""
    part = dataclasses.replace(models, needs=None)
    outcome = judge(part, lambda _words: (0, output))
    assert outcome.figures == (("searches", "7"), ("wrong", "0"), ("states", "46,719"))
    assert outcome.problem is None


@pytest.mark.parametrize(("skipped", "told"), [("", "0"), (", 3 skipped", "3")])
def test_checks_that_were_left_out_are_told_and_do_not_count(skipped: str, told: str) -> None:
    part = next(each for each in parts(1.0) if each.name == "real networks")
    outcome = judge(part, lambda _words: (0, f"7 passed{skipped} in 5.00s"))
    assert outcome.figures == (("checks passed", "7"), ("left out", told))
    assert outcome.problem is None
    none = judge(part, lambda _words: (0, f"{skipped or 'no tests ran'} in 0.10s"))
    assert none.problem == "checks passed: missing"


def test_a_part_whose_program_is_missing_is_left_out_and_said_to_be() -> None:
    part = Part("x", "y", ("z",), (), needs="no-such-program-anywhere")

    def never(_words: Sequence[str]) -> tuple[int, str]:
        raise AssertionError("it was run")

    outcome = judge(part, never)
    assert outcome.status is None
    assert outcome.problem == "left out: no-such-program-anywhere is not installed"


def test_the_page_has_every_part_with_its_figures_and_the_end_of_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Part("broken one", "b", ("fail",), (Figure("seeds", r"(\d+) seeds"),))
    monkeypatch.setattr(assurance_report, "parts", lambda _scale: (PART, broken))

    def run(words: Sequence[str]) -> tuple[int, str]:
        return (0, "12 seeds, 0 failed") if words[0] == "count" else (3, "first\nlast line")

    place = tmp_path / "page.md"
    assert main(["--output", str(place)], run) == 1
    text = place.read_text()
    assert "1 of 2 parts held." in text
    assert "| counting | numbers | 12 seeds, 0 failed |" in text
    assert "**exit status 3**" in text
    assert text.rstrip().endswith("first\nlast line\n```")
    assert main(["--only", "counting", "--output", str(place)], run) == 0
    with pytest.raises(SystemExit) as ended:
        main(["--only", "nothing"], run)
    assert ended.value.code == 2
    assert "no part is named 'nothing'" in capsys.readouterr().err


def test_every_part_is_a_command_that_exists() -> None:
    for scale in (0.1, 1.0, 8.0):
        for part in parts(scale):
            if part.words[0] == sys.executable:
                paths = [word for word in part.words if word.startswith("tests/")]
                assert paths
                assert all((ROOT / each).exists() for each in paths)
            else:
                assert os.access(ROOT / part.words[0], os.X_OK)
