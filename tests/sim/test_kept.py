"""Runs that once showed something are kept with everything that was drawn for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim.campaign import Case
from tests.sim.kept import KEPT, Kept, read

RUNS = read()


@pytest.mark.parametrize("kept", RUNS.values(), ids=RUNS)
def test_kept_run_holds_every_promise(kept: Kept) -> None:
    kept.case.run()


def test_kept_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    runs = [
        Kept(f"seed {seed}", 'it said "no" \\ yes', Case.of_seed(seed, 4)) for seed in range(40)
    ]
    path = tmp_path / "runs.toml"
    path.write_text("".join(run.to_toml() for run in runs), encoding="utf-8")
    assert list(read(path).values()) == runs


def test_kept_run_means_the_same_when_an_option_it_does_not_name_is_added(tmp_path: Path) -> None:
    path = tmp_path / "runs.toml"
    path.write_text(
        '[[run]]\nname = "a"\nfound = "b"\n[run.options]\nseed = 3\n[run.script]\nfaults = []\n',
        encoding="utf-8",
    )
    options = read(path)["a"].case.options
    rates = [getattr(options, name) for name in dir(options) if name.endswith("_every_ms")]
    assert [rate for rate in rates if rate] == [options.batch_every_ms]
    assert options.loss == options.duplication == options.all_crashes == options.away_ms == 0


@pytest.mark.parametrize(
    "wrong",
    [
        'name = "a"\nfound = "b"\n[run.options]\nseed = 3\nrain = 1\n[run.script]\nfaults = []',
        'name = "a"\n[run.options]\nseed = 3\n[run.script]\nfaults = []',
        'name = "a"\nfound = "b"\n[run.options]\nseed = 3\n[run.script]\nfaults = [[1]]',
    ],
    ids=["unknown option", "no sentence", "half a fault"],
)
def test_wrong_file_is_refused(wrong: str, tmp_path: Path) -> None:
    path = tmp_path / "runs.toml"
    path.write_text(f"[[run]]\n{wrong}\n", encoding="utf-8")
    with pytest.raises((KeyError, TypeError, ValueError)):
        read(path)


def test_every_kept_run_says_what_it_found() -> None:
    assert KEPT.exists()
    assert RUNS
    assert all(len(kept.found) > 40 for kept in RUNS.values())
