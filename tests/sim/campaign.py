"""Many seeds, one after the other, and what they reached together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from tests.sim.errors import Violation
from tests.sim.mutants import NONE, Mutant
from tests.sim.options import draw
from tests.sim.simulation import Result, Simulation


def run(seed: int, size: int | None = None, *, mutant: Mutant = NONE) -> Result:
    """Run one seed.

    Args:
        size: validators, if the seed is not to choose.

    Raises:
        Violation: a promise was broken; the text ends with how to see it again.
    """
    try:
        return Simulation(seed, mutant=mutant, options=draw(seed, size)).run()
    except Violation as found:
        found.add_note(f"again: {command(seed, size)}")
        raise


def command(seed: int, size: int | None = None) -> str:
    """Return the command that runs a seed again and prints its trace."""
    nodes = "" if size is None else f" --nodes {size}"
    return f"scripts/sim --seeds {seed}{nodes} --trace"


def sweep(seeds: Iterable[int]) -> Counter[str]:
    """Run seeds and return how often each mark was reached.

    Raises:
        Violation: at the first seed that breaks a promise.
    """
    reached: Counter[str] = Counter()
    for seed in seeds:
        reached.update(run(seed).marks)
    return reached
