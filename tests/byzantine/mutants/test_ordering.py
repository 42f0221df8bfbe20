"""Twins can fail: with one rule broken, they name the promise that does not hold."""

from __future__ import annotations

import random

import pytest

from tests.byzantine.mutants.ordering import CALM, ORDERING, Mutant
from tests.byzantine.mutants.scripts import SCRIPTS, Script
from tests.byzantine.twins.field import Field
from tests.byzantine.twins.judge import Broken
from tests.byzantine.twins.scenario import Scenario, sample

SAMPLES_MAX = 150
"""Scenarios in which a mutant without a script must be found."""


@pytest.mark.parametrize("mutant", ORDERING, ids=lambda mutant: mutant.name)
def test_broken_rule_is_found(mutant: Mutant) -> None:
    with mutant.patched():
        assert found(mutant) in mutant.found_as


def found(mutant: Mutant) -> str:
    """Return the promise that a mutant is seen to break, or nothing."""
    if mutant.script:
        return broken(SCRIPTS[mutant.script], mutant)
    rng = random.Random("mutants")
    for _ in range(SAMPLES_MAX):
        if promise := broken(Script(sample(4, rng), ""), mutant):
            return promise
    return ""


def broken(script: Script, mutant: Mutant) -> str:
    """Return the promise that one scenario breaks, or nothing."""
    liar = None if script.liar is None else script.liar()
    stage = Field(script.scenario, on_boot=mutant.on_boot, ignore=mutant.ignore, liar=liar)
    try:
        judge = stage.run()
    except Broken as seen:
        return seen.promise
    return CALM if script.mark and script.mark not in judge.marks else ""


@pytest.mark.parametrize("name", SCRIPTS)
def test_unbroken_replicas_come_to_the_point_of_every_script(name: str) -> None:
    script = SCRIPTS[name]
    liar = None if script.liar is None else script.liar()
    judge = Field(script.scenario, liar=liar).run()
    assert script.mark in judge.marks


@pytest.mark.parametrize("name", [name for name, script in SCRIPTS.items() if script.liar])
def test_an_unbroken_node_refuses_a_lying_leader_and_goes_on(name: str) -> None:
    script = SCRIPTS[name]
    assert script.liar is not None
    judge = Field(script.scenario, liar=script.liar()).run()
    assert judge.marks["a lie refused"] == 3


def test_scripts_tell_a_scenario_from_another() -> None:
    scenarios: set[Scenario] = {script.scenario for script in SCRIPTS.values()}
    assert len(scenarios) == len(SCRIPTS) - 1  # two liars have one stage
