"""Runs of the simulator: one, many over several processes, and what they reached together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.sim.errors import Violation
from tests.sim.faults import Script, draw_script
from tests.sim.mutants import NONE, Mutant
from tests.sim.options import Options, draw
from tests.sim.simulation import Result, Simulation

Echo = Callable[[str], None]
MINUTE_MS = 60_000


@dataclass(frozen=True)
class Case:
    """All that a run is made of."""

    options: Options
    script: Script

    @classmethod
    def of_seed(cls, seed: int, size: int | None = None) -> Case:
        """Return what a seed draws; ``size``: validators, if the seed is not to choose."""
        options = draw(seed, size)
        return cls(options, draw_script(options))

    @classmethod
    def steady(cls, minutes: int, seed: int = 0, *, batch_every_ms: int = 1000) -> Case:
        """Return a healthy network of four under even load, for so long."""
        options = Options(
            seed=seed,
            safety_ms=minutes * MINUTE_MS,
            sync_ms=2,
            execute_ms=2,
            skew_ms=(3, -2, 0, 1),
            batch_every_ms=batch_every_ms,
            repeat=0.05,
            protective=0.01,
        )
        return cls(options, ())

    def run(self, *, mutant: Mutant = NONE, echo: Echo | None = None) -> Result:
        """Run it.

        Raises:
            Violation: a promise was broken.
        """
        options = self.options
        simulation = Simulation(
            options.seed, mutant=mutant, options=options, script=self.script, echo=echo
        )
        return simulation.run()


@dataclass(frozen=True)
class Outcome:
    """What a seed came to: a result, or the promise broken and a sentence on it."""

    seed: int
    result: Result | None
    promise: str = ""
    violation: str = ""


def run(seed: int, size: int | None = None, *, mutant: Mutant = NONE) -> Result:
    """Run one seed.

    Args:
        size: validators, if the seed is not to choose.

    Raises:
        Violation: a promise was broken; the text ends with how to see it again.
    """
    try:
        return Case.of_seed(seed, size).run(mutant=mutant)
    except Violation as found:
        found.add_note(f"again: {command(seed, size)}")
        raise


def command(seed: int, size: int | None = None) -> str:
    """Return the command that runs a seed again and prints its trace."""
    nodes = "" if size is None else f" --nodes {size}"
    return f"scripts/sim --seed {seed}{nodes}"


def outcome(seed: int, size: int | None = None) -> Outcome:
    """Run one seed and return what it came to."""
    try:
        return Outcome(seed, Case.of_seed(seed, size).run())
    except Violation as found:
        return Outcome(seed, None, found.promise, str(found))


def outcomes(seeds: range, size: int | None, jobs: int) -> Iterator[Outcome]:
    """Run seeds, in order, over so many processes."""
    if jobs <= 1 or len(seeds) == 1:
        yield from (outcome(seed, size) for seed in seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        try:
            yield from pool.map(partial(outcome, size=size), seeds, chunksize=2)
        finally:
            pool.shutdown(cancel_futures=True)


def sweep(seeds: Iterable[int]) -> Counter[str]:
    """Run seeds and return how often each mark was reached.

    Seeds that draw half an hour are left to ``scripts/sim`` and to tests that name them.

    Raises:
        Violation: at the first seed that breaks a promise.
    """
    reached: Counter[str] = Counter()
    for seed in seeds:
        if not draw(seed).is_long:
            reached.update(run(seed).marks)
    return reached
