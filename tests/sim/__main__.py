"""Runs seeds of the simulator from the command line. See docs/simulator.md.

A violation ends with the command that shows it again, and exit status 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial

from tests.sim.campaign import command
from tests.sim.errors import Violation
from tests.sim.options import draw
from tests.sim.simulation import Result, Simulation

PROGRESS_SECONDS = 5.0


@dataclass(frozen=True)
class Outcome:
    """What a seed came to: a result, or a sentence on what was violated."""

    seed: int
    result: Result | None
    violation: str


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/sim", description=__doc__)
    parser.add_argument(
        "--seeds", type=_seeds, default=range(100), metavar="A-B", help="from A to B, or one seed"
    )
    parser.add_argument("--nodes", type=_nodes, help="validators (4 or more); else each seed draws")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--digests", action="store_true", help="print the digest of each trace")
    parser.add_argument("--trace", action="store_true", help="print every line of the traces")
    chosen = parser.parse_args(arguments)
    if chosen.trace:
        outcomes: Iterator[Outcome] = (run(seed, chosen.nodes, True) for seed in chosen.seeds)
        return report(outcomes, chosen.seeds, chosen.nodes, chosen.digests)
    if chosen.jobs <= 1 or len(chosen.seeds) == 1:
        outcomes = (run(seed, chosen.nodes) for seed in chosen.seeds)
        return report(outcomes, chosen.seeds, chosen.nodes, chosen.digests)
    with ProcessPoolExecutor(chosen.jobs) as pool:
        outcomes = pool.map(partial(run, size=chosen.nodes), chosen.seeds, chunksize=4)
        try:
            return report(outcomes, chosen.seeds, chosen.nodes, chosen.digests)
        finally:
            pool.shutdown(cancel_futures=True)


def run(seed: int, size: int | None, trace: bool = False) -> Outcome:
    """Run one seed."""
    simulation = Simulation(seed, options=draw(seed, size), echo=print if trace else None)
    if trace:
        print(simulation.options)
    try:
        return Outcome(seed, simulation.run(), "")
    except Violation as found:
        return Outcome(seed, None, str(found))


def report(
    outcomes: Iterable[Outcome], seeds: range, size: int | None, digests: bool = False
) -> int:
    """Print progress, violations and what was reached; return the exit status."""
    begin = told = time.monotonic()
    marks: Counter[str] = Counter()
    failed = heights = transactions = 0
    for done, outcome in enumerate(outcomes, 1):
        if outcome.result is None:
            failed += 1
            print(f"seed {outcome.seed}: {outcome.violation}")
            print(f"  again: {command(outcome.seed, size)}", flush=True)
        else:
            marks.update(outcome.result.marks)
            heights += outcome.result.heights
            transactions += outcome.result.transactions
            if digests:
                print(f"seed {outcome.seed}: {outcome.result.digest}")
        now = time.monotonic()
        if now - told >= PROGRESS_SECONDS:
            told = now
            rate = done / (now - begin)
            left = (len(seeds) - done) / rate
            print(
                f"{done}/{len(seeds)} seeds, {rate:.1f} a second, {left:.0f} s left, "
                f"{failed} failed",
                file=sys.stderr,
                flush=True,
            )
    print(f"{len(seeds)} seeds, {failed} failed; {heights} heights, {transactions} transactions")
    for mark, count in marks.items():
        print(f"{count:9} {mark}" if count else f"    never {mark}")
    return 1 if failed else 0


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    low = int(first)
    high = int(last or first)
    if high < low:
        raise argparse.ArgumentTypeError("the first seed comes after the last")
    return range(low, high + 1)


def _nodes(text: str) -> int:
    size = int(text)
    if not 4 <= size <= 31:
        raise argparse.ArgumentTypeError("4 to 31 validators")
    return size


if __name__ == "__main__":
    sys.exit(main())
