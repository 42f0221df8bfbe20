"""A failing run is reduced to the faults that make it fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.sim.campaign import Case
from tests.sim.errors import Violation
from tests.sim.faults import AT_ONCE, BOTH_WAYS, Fault
from tests.sim.kept import Kept, read
from tests.sim.mutants import Mutant
from tests.sim.options import Options
from tests.sim.shrink import Shrinker

SEEDS = range(172, 252)
"""The search begins where one of its first seeds shows it; any other beginning takes longer."""
NOISE = tuple(Fault(at_ms, "cut", (20, BOTH_WAYS, at_ms // 100)) for at_ms in (100, 200, 300))
POWER_CUT = Fault(400, "all", (0, AT_ONCE))
FORGETFUL = Mutant(
    "sends before it persists, seen by what comes of it",
    eager_outbox=True,
    ignore=("durable before sent", "block durable before sent", "batches durable before sent"),
)


def broken(case: Case) -> str:
    """Return the promise that a run breaks, or nothing."""
    try:
        case.run(mutant=FORGETFUL)
    except Violation as found:
        return found.promise
    return ""


def broken_by_power() -> Case:
    """Return a run that fails among noise, and with the power cut alone, in the same way."""
    for seed in SEEDS:
        options = Options(
            seed=seed, safety_ms=500, sync_ms=40, batch_every_ms=60, loss=0.01, resend_ms=200
        )
        case = Case(options, (*NOISE, POWER_CUT))
        promise = broken(case)
        if promise and broken(replace(case, script=(POWER_CUT,))) == promise:
            return case
    raise AssertionError("no seed shows it")


def test_run_is_reduced_to_faults_that_are_all_needed_and_can_be_replayed(tmp_path: Path) -> None:
    case = broken_by_power()
    shrunk = Shrinker(FORGETFUL).shrink(case)
    assert shrunk is not None
    script = shrunk.case.script
    assert len(script) < len(case.script)
    for left_out in range(len(script)):
        fewer = replace(shrunk.case, script=script[:left_out] + script[left_out + 1 :])
        assert broken(fewer) != shrunk.promise
    assert len(shrunk.case.options.to_table()) < len(case.options.to_table())
    assert shrunk.case.options.sync_ms == 40
    path = tmp_path / "run.toml"
    path.write_text(Kept("it", "found", shrunk.case).to_toml(), encoding="utf-8")
    again = read(path)["it"].case
    with pytest.raises(Violation) as found:
        again.run(mutant=FORGETFUL)
    assert found.value.promise == shrunk.promise
    assert str(found.value) == shrunk.violation


def test_run_that_holds_is_not_shrunk() -> None:
    assert Shrinker().shrink(Case(Options(seed=1, safety_ms=200), NOISE)) is None
