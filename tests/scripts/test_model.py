"""The protocol's models, within small bounds; ``scripts/model`` runs them within large ones."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from scripts import spin_models
from scripts.spin_models import FORK, HALT, MUTANTS, RUNS, ModelError, Run

MISSING = spin_models.lacking()
needs_spin = pytest.mark.skipif(
    MISSING is not None, reason=f"{MISSING} is not installed: scripts/model says how"
)
PAGE = spin_models.FOLDER / "README.md"


def check(run: Run) -> spin_models.Result:
    """Search within seconds; not behind everything else that the suite does meanwhile."""
    return spin_models.check(run, optimise="-O0", niceness=0)


@needs_spin
@pytest.mark.parametrize(
    "run",
    [Run("voting", 2, 1, ("FORGETFUL", "REDUCED")), Run("boundary", 1, 1)],
    ids=lambda run: run.model,
)
def test_a_model_holds_in_every_state(run: Run) -> None:
    result = check(run)
    assert result.found is None
    assert result.states > 300
    assert result.trail == ()


@needs_spin
@pytest.mark.parametrize(
    ("mutant", "violation", "words"),
    [
        ("NO_GUARD", FORK, "commit-votes for block 2"),
        ("NO_EXEMPTION", HALT, "gives up round 1, reporting certificate 0"),
        ("ENTRY_FORGOTTEN", HALT, "gives up round 2, reporting certificate 0"),
    ],
)
def test_a_broken_rule_is_found_with_the_way_there(mutant: str, violation: str, words: str) -> None:
    result = check(next(run for run in MUTANTS if run.mutant == mutant))
    assert result.found == violation
    assert any(words in line for line in result.trail)


@needs_spin
def test_a_model_that_spin_refuses_is_no_result() -> None:
    with pytest.raises(ModelError):
        check(Run("voting", 2, 1, ("MAY_VOTE=(",)))


def printed(errors: int, extra: str = "") -> str:
    return (
        f"{extra}State-vector 48 byte, depth reached 12, errors: {errors}\n"
        "      345 states, stored\n  17.5\ttotal actual memory usage\n"
    )


def read(text: str) -> spin_models.Result:
    return spin_models._read(Run("voting", 2, 1), text, 1.5, lambda: ("A votes",))


def test_what_the_verifier_prints_is_read() -> None:
    assert read(printed(0)) == spin_models.Result(None, 345, 12, 17.5, 1.5, ())
    found = read(printed(1, "pan:1: assertion violated ok_ (at depth 9)\n"))
    assert (found.found, found.trail) == (HALT, ("A votes",))
    assert read(printed(1, "pan:1: assertion violated yes_ (at depth 9)\n")).found == FORK


@pytest.mark.parametrize(
    "text",
    [
        printed(0, "error: max search depth too small\n"),
        printed(0, "pan: reached -DMEMLIM bound\n"),
        printed(0, "pan: out of memory\n"),
        printed(0, "Warning: Search not completed\n"),
        printed(1, "pan:1: invalid end state (at depth 9)\n"),
        "Killed\n",
    ],
)
def test_a_search_that_came_to_no_end_is_no_result(text: str) -> None:
    with pytest.raises(ModelError):
        read(text)


def test_a_name_that_is_no_model_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert spin_models.main(["nonsense"]) == 2
    assert "nothing of that name" in capsys.readouterr().err


def test_without_spin_the_command_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert spin_models.lacking() == "spin"
    assert spin_models.main(["--quick"]) == 2
    assert "apt-get install spin" in capsys.readouterr().err


def test_as_root_with_apt_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(spin_models, "lacking", lambda: "spin")
    monkeypatch.setattr("shutil.which", lambda tool: f"/usr/bin/{tool}")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("subprocess.run", run)
    assert spin_models.main(["voting", "--quick"]) == 2
    assert asked == [["apt-get", "install", "-y", "-q", "spin"]]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert spin_models.main(["voting", "--quick"]) == 2
    assert len(asked) == 1


def test_the_page_tells_of_every_model_and_mutant() -> None:
    page = PAGE.read_text(encoding="utf-8")
    told = set(re.findall(r"`([A-Z][A-Z_]+)`", page))
    broken = (spin_models.FOLDER / "mutants.pml").read_text(encoding="utf-8")
    defined = re.findall(r"^#ifdef (\w+)", broken, re.MULTILINE)
    assert sorted(defined) == sorted(run.mutant or "" for run in MUTANTS)
    assert set(defined) <= told
    assert {run.model for run in RUNS} == set(spin_models.MODELS)
