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

NOISE = tuple(Fault(at_ms, "cut", (20, BOTH_WAYS, at_ms // 100)) for at_ms in (100, 200, 300))
POWER_CUT = Fault(400, "all", (0, AT_ONCE))


def broken_by_power() -> Case:
    """Return a run that the mutant fails only because power fails: no oracle of the disk asked."""
    options = Options(seed=23, safety_ms=500, sync_ms=40, batch_every_ms=60, loss=0.01)
    script = tuple(sorted((*NOISE, POWER_CUT), key=lambda fault: fault.at_ms))
    return Case(options, script)


def test_run_is_reduced_to_faults_that_are_all_needed_and_can_be_replayed(tmp_path: Path) -> None:
    mutant = Mutant(
        "sends before it persists",
        eager_outbox=True,
        ignore=(
            "durable before sent",
            "block durable before sent",
            "batches durable before sent",
        ),
    )
    case = broken_by_power()
    shrunk = Shrinker(mutant).shrink(case)
    assert shrunk is not None
    script = shrunk.case.script
    assert POWER_CUT in script
    assert len(script) < len(case.script) / 2
    for left_out in range(len(script)):
        fewer = replace(shrunk.case, script=script[:left_out] + script[left_out + 1 :])
        assert broken(fewer, mutant) != shrunk.promise
    assert len(shrunk.case.options.to_table()) < len(case.options.to_table())
    assert shrunk.case.options.sync_ms == 40
    path = tmp_path / "run.toml"
    path.write_text(Kept("it", "found", shrunk.case).to_toml(), encoding="utf-8")
    again = read(path)["it"].case
    with pytest.raises(Violation) as found:
        again.run(mutant=mutant)
    assert found.value.promise == shrunk.promise
    assert str(found.value) == shrunk.violation


def broken(case: Case, mutant: Mutant) -> str:
    """Return the promise that a run breaks, or nothing."""
    try:
        case.run(mutant=mutant)
    except Violation as found:
        return found.promise
    return ""


def test_run_that_holds_is_not_shrunk() -> None:
    assert Shrinker().shrink(broken_by_power()) is None
