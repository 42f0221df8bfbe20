"""A seed is a whole run: the same trace each time, in any process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.campaign import command, run
from tests.sim.errors import Violation
from tests.sim.mutants import Mutant
from tests.sim.options import draw
from tests.sim.simulation import Simulation

ROOT = Path(__file__).resolve().parent.parent.parent
SEEDS = range(3, 6)


def digests(hash_seed: str) -> list[str]:
    """Return what another process prints for the seeds."""
    arguments = ["--seeds", f"{SEEDS[0]}..{SEEDS[-1]}", "--jobs", "1", "--digests"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [line for line in done.stdout.splitlines() if line.startswith("seed ")]


def test_seed_makes_the_same_trace_again_and_under_every_hash_seed() -> None:
    here = [f"seed {seed}: {run(seed).digest}" for seed in SEEDS]
    assert digests("0") == here
    assert digests("4242") == here


def test_two_seeds_make_different_traces() -> None:
    assert run(3, 4).digest != run(4, 4).digest


def test_echo_shows_the_lines_of_the_trace_and_changes_nothing() -> None:
    lines: list[str] = []
    result = Simulation(3, echo=lines.append).run()
    assert any("delivers 1 " in line for line in lines)
    assert result.digest == run(3).digest


def test_size_can_be_chosen_apart_from_the_seed() -> None:
    assert {draw(seed, 10).size for seed in range(20)} == {10}
    assert draw(1, 10).quorum == 7
    assert draw(1, 10).faulty_max == 3


def test_violation_names_the_command_that_shows_it_again() -> None:
    with pytest.raises(Violation) as found:
        run(2, 4, mutant=Mutant("weak", weak_quorum=True))
    assert found.value.__notes__ == ["again: scripts/sim --seed 2 --nodes 4"]
    assert command(9) == "scripts/sim --seed 9"
