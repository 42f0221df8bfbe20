"""``scripts/sim``: what it prints and how it ends."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from consensus.hotstuff.replica import Replica
from tests.sim import __main__ as command
from tests.sim import campaign
from tests.sim.campaign import Case
from tests.sim.errors import Violation

SEED = "3"


def test_one_seed_prints_options_planned_faults_a_trace_and_what_it_came_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["--seed", SEED, "--nodes", "4"]) == 0
    told = capsys.readouterr().out
    digest = Case.of_seed(int(SEED), 4).run().digest
    assert told.startswith("options: seed 3, ")
    assert re.search(r"^ +\d+\.\d{3}  [0-3] delivers 1 ", told, re.MULTILINE)
    assert "heals" in told
    assert f"trace {digest}" in told


def test_campaign_counts_seeds_hours_rounds_and_marks(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--seeds", "3..4", "--nodes", "4", "--jobs", "1"]) == 0
    told = capsys.readouterr().out
    assert "2 seeds, 0 failed; 0.00 simulated hours" in told
    assert "new work after healing, seeds by rounds: " in told
    assert "never │ f + 1 away" in told


def test_campaign_that_finds_something_fails_and_names_the_seed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(case: Case) -> None:
        raise Violation("one reality", f"seed {case.options.seed} has two")

    monkeypatch.setattr(campaign.Case, "run", fail)
    assert command.main(["--seeds", "8..9", "--nodes", "4", "--jobs", "1"]) == 1
    told = capsys.readouterr().out
    assert "seed 8: one reality: seed 8 has two\n  again: scripts/sim --seed 8 --nodes 4" in told
    assert "failed: 8 9" in told


def test_campaign_names_the_seed_in_which_a_node_raises_something_unforeseen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(replica: Replica, event: object, now_ms: int) -> None:
        raise KeyError("nobody thought of it")

    monkeypatch.setattr(Replica, "step", fail)
    assert command.main(["--seeds", "8..9", "--nodes", "4", "--jobs", "1"]) == 1
    told = capsys.readouterr().out
    assert re.search(
        r"^seed 8: no own bug: node \d: KeyError at test_command.py:\d+: ", told, re.MULTILINE
    )
    assert "failed: 8 9" in told


def test_campaign_that_is_stopped_tells_of_the_seeds_that_have_ended(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Case.of_seed(int(SEED), 4).run()

    def run(case: Case) -> object:
        if case.options.seed == 5:
            raise KeyboardInterrupt
        return one

    monkeypatch.setattr(campaign.Case, "run", run)
    assert command.main(["--seeds", "3..9", "--jobs", "1"]) == 1
    told = capsys.readouterr().out
    assert "2 seeds, 0 failed; " in told
    assert told.endswith("stopped: 5 seeds have not been run\n")


def test_large_campaign_that_misses_a_mark_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Case.of_seed(int(SEED), 4).run()
    monkeypatch.setattr(campaign.Case, "run", lambda case: one)
    assert command.main(["--seeds", "0..198", "--jobs", "1"]) == 0
    assert command.main(["--seeds", "0..199", "--jobs", "1"]) == 1
    assert "marks never reached" in capsys.readouterr().out


def test_campaign_that_reaches_no_mark_at_all_fails_however_small(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Case.of_seed(int(SEED), 4).run()
    idle = replace(one, marks=dict.fromkeys(one.marks, 0))
    monkeypatch.setattr(campaign.Case, "run", lambda case: idle)
    assert command.main(["--seeds", "0..1", "--jobs", "1"]) == 1
    assert "nothing was tested" in capsys.readouterr().out


def test_failing_seed_is_shrunk_into_a_file_that_replays(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(case: Case, **_: object) -> None:
        if case.script:
            raise Violation("one reality", "two")

    monkeypatch.setattr(campaign.Case, "run", fail)
    into = tmp_path / "found.toml"
    assert command.main(["--seed", "13", "--shrink", "--into", str(into)]) == 1
    told = capsys.readouterr().out
    assert re.search(r"^9 faults and \d+ options became 1 and 1 in \d+ runs", told)
    assert f"again: scripts/sim --file {into} --kept seed-13" in told
    assert command.main(["--file", str(into), "--kept", "seed-13", "--quiet"]) == 1
    assert "violated: one reality: two" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong",
    [
        ["--seeds", "9..3"],
        ["--seeds", "0-99"],
        ["--seed", "x"],
        ["--nodes", "3"],
        ["--seed", "1", "--seeds", "1..2"],
        ["--kept", "no such run"],
        ["--kept", "--file", "/no/such/file"],
        ["--steady", "0"],
    ],
)
def test_wrong_arguments_end_with_status_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(wrong)
    assert ended.value.code == 2
