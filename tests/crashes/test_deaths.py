"""Deaths at an even sample of the moments of a run; ``scripts/crashes`` takes all of them."""

from __future__ import annotations

import pytest

from tests.crashes.__main__ import main
from tests.crashes.campaign import AGAIN_MAX, deaths, outcome, points
from tests.crashes.deaths import ROLES, CrashRun, Death
from tests.sim.errors import Violation
from tests.sim.mutants import Mutant

SAMPLE = 40
PARTS = 4
UNASKED = (
    "durable before sent",
    "block durable before sent",
    "batches durable before sent",
)
EAGER = Mutant("sends at once", eager_outbox=True, ignore=UNASKED)


def sample() -> list[Death]:
    """Return deaths spread evenly over all: the widest stride but some that meets every fate."""
    everything = deaths()
    fates = {death.fate for death in everything}
    most = len(everything) // SAMPLE
    strides = (everything[::stride] for stride in range(most, 0, -1))
    return next(chosen for chosen in strides if {death.fate for death in chosen} == fates)


@pytest.mark.parametrize("part", range(PARTS))
def test_every_promise_holds_whoever_dies_wherever(part: int) -> None:
    for death in sample()[part::PARTS]:
        found = outcome(death)
        assert not found.violation, f"scripts/crashes {death.arguments}"
        assert found.died >= 1


def test_run_has_every_role_and_every_kind_of_call() -> None:
    assert {point.role for point in points()} == {*ROLES}
    calls = {point.what for point in points() if point.stored}
    logged = {f"{call} log" for call in ("create", "write", "sync", "rename", "truncate", "remove")}
    marked = {f"{call} mark" for call in ("create", "write", "sync", "rename")}
    assert calls >= logged | marked | {"sync folder", "end"}
    effects = {point.what for point in points() if not point.stored}
    signs = {f"Sign {kind}" for kind in ("PROPOSAL", "VOTE", "TIMEOUT", "COMMIT_VOTE")}
    others = {"Persist", "Broadcast", "Send", "Deliver", "Execute", "RequirePayload", "FetchBlocks"}
    assert effects >= signs | others | {"commit of the store", "Store", "Push", "end"}


def test_sample_has_one_and_all_dying_every_fate_and_a_second_death() -> None:
    chosen = sample()
    assert {death.everyone for death in chosen} == {False, True}
    assert {death.fate for death in chosen} == {"kill", "short", "lost", "kept", "first", "second"}
    assert any(death.again for death in chosen)
    assert max(death.again for death in deaths()) == AGAIN_MAX


def test_run_up_to_its_death_is_the_recorded_one() -> None:
    recorded: list[str] = []
    died: list[str] = []
    CrashRun(echo=recorded.append).play()
    CrashRun(Death(700, "lost"), echo=died.append).play()
    at = next(number for number, line in enumerate(died) if "dies:" in line)
    assert at > 50
    assert died[:at] == recorded[:at]


def test_sending_before_the_disk_has_it_is_found_by_a_death_alone() -> None:
    """Nobody looks whether what leaves is durable here: only what comes of it is seen."""
    CrashRun(mutant=EAGER).play()
    signed = [point for point in points() if point.what == "write log" and point.role == "leads"]
    found: list[str] = []
    for point in signed:
        try:
            CrashRun(Death(point.number, "lost"), mutant=EAGER).play()
        except Violation as violation:
            found.append(violation.promise)
    assert "one signature a slot" in found


def test_moment_that_is_not_in_the_run_is_told() -> None:
    with pytest.raises(Violation, match="the run is the recorded one"):
        CrashRun(Death(10**6, "lost")).play()


def test_command_runs_one_death(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--point", "5", "--fate", "first", "--everyone"]) == 0
    told = capsys.readouterr().out
    assert "dies: --point 5 --fate first --everyone" in told
    assert "every promise held" in told


def test_command_runs_a_range_of_the_deaths(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--only", "deaths", "--range", "700..702", "--jobs", "1"]) == 0
    told = capsys.readouterr().out
    assert "3 deaths at " in told
    assert f"numbers 700 to 702 of {len(deaths())}," in told


def test_range_beyond_the_last_has_shown_nothing() -> None:
    assert main(["--only", "deaths", "--range", "1000000..1000001", "--jobs", "1"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["--point", "999999"],
        ["--point", "-1"],
        ["--point", "0", "--fate", "short"],
        ["--everyone"],
        ["--again", "2"],
        ["--stride", "0"],
        ["--range", "0..5"],
        ["--range", "5..0", "--only", "deaths"],
        ["--fate", "unknown"],
    ],
)
def test_command_refuses_wrong_arguments(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err
