"""Makes a failing run smaller: fewer faults first, then fewer options away from their defaults.

Delta debugging (Zeller and Hildebrandt 2002) over the script: halves, quarters and so on are kept
alone or left out as long as the same promise breaks. Then each option is set back by itself, as
often as that succeeds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any, Final

from tests.sim.campaign import Case
from tests.sim.errors import Violation
from tests.sim.mutants import NONE, Mutant
from tests.sim.options import Options

RUNS_MAX: Final = 400
FIXED: Final = ("seed", "size")


@dataclass(frozen=True)
class Shrunk:
    """What was left, the promise that it still breaks, and how many runs that took."""

    case: Case
    promise: str
    violation: str
    runs: int


class Shrinker:
    """Shrinks one run.

    Args:
        told: is called after each run with the number of faults and options left.
    """

    def __init__(
        self, mutant: Mutant = NONE, told: Callable[[int, int], None] = lambda faults, options: None
    ) -> None:
        self._mutant = mutant
        self._told = told
        self._promise = ""
        self._violation = ""
        self._runs = 0

    def shrink(self, case: Case) -> Shrunk | None:
        """Return a smaller run that breaks the same promise; None if this one breaks none."""
        self._promise = self._broken(case)
        if not self._promise:
            return None
        if self._fails(replace(case, script=())):
            case = replace(case, script=())
        case = self._fewer_faults(case)
        case = self._fewer_options(case)
        case = self._fewer_faults(case)
        self._broken(case)
        return Shrunk(case, self._promise, self._violation, self._runs)

    def _broken(self, case: Case) -> str:
        self._runs += 1
        try:
            case.run(mutant=self._mutant)
        except Violation as found:
            self._violation = str(found)
            return found.promise
        return ""

    def _fails(self, case: Case) -> bool:
        if self._runs >= RUNS_MAX:
            return False
        fails = self._broken(case) == self._promise
        self._told(len(case.script), len(case.options.to_table()))
        return fails

    def _fewer_faults(self, case: Case) -> Case:
        parts = 2
        while len(case.script) > 1:
            smaller, parts_next = self._smaller(case, parts)
            if smaller is not None:
                case, parts = smaller, parts_next
            elif parts >= len(case.script):
                return case
            else:
                parts = min(len(case.script), 2 * parts)
        return case

    def _smaller(self, case: Case, parts: int) -> tuple[Case | None, int]:
        """Return the case with one part of its script alone, or without it, if that fails too."""
        script = case.script
        edges = [part * len(script) // parts for part in range(parts + 1)]
        bounds = list(pairwise(edges))
        for low, high in bounds:
            if self._fails(smaller := replace(case, script=script[low:high])):
                return smaller, 2
        for low, high in bounds:
            if self._fails(smaller := replace(case, script=script[:low] + script[high:])):
                return smaller, max(2, parts - 1)
        return None, parts

    def _fewer_options(self, case: Case) -> Case:
        changed = True
        while changed:
            changed = False
            for each in fields(Options):
                if each.name in FIXED or getattr(case.options, each.name) == each.default:
                    continue
                neutral: dict[str, Any] = {each.name: each.default}
                options = replace(case.options, **neutral)
                if options.machines <= max(options.slow_node, *options.traitors, 0):
                    continue
                if self._fails(smaller := replace(case, options=options)):
                    case, changed = smaller, True
        return case
