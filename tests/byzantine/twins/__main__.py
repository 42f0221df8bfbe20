"""Runs Twins scenarios from the command line. See docs/byzantine.md.

A broken promise is printed with the scenario and the command that shows it again; exit status 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import islice

from tests.byzantine.twins.campaign import Plans, Tally, run_chunk
from tests.byzantine.twins.field import Field
from tests.byzantine.twins.judge import Broken
from tests.byzantine.twins.scenario import Scenario

CHUNK = 100
BAR = 24
MARKS_FROM = 5_000
"""A campaign of so many scenarios fails if it misses a mark."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/twins", description=__doc__)
    parser.add_argument("--scenarios", type=_positive, default=2000, metavar="N")
    parser.add_argument("--nodes", type=int, choices=(4, 7), default=4, help="validators")
    parser.add_argument("--seed", type=int, default=0, help="of the scenarios drawn")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--number", type=int, help="run this scenario alone and print its trace")
    chosen = parser.parse_args(arguments)
    plans = Plans(chosen.nodes, chosen.scenarios, chosen.seed)
    if chosen.number is not None:
        return show(next(islice(plans, chosen.number, None), None))
    begin = time.monotonic()
    tally = Tally()
    numbers: dict[Scenario, int] = {}
    for part in spread(plans, chosen.jobs, numbers):
        tally.add(part)
        progress(tally, chosen.scenarios, begin)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    return report(tally, plans, numbers, chosen, time.monotonic() - begin)


def spread(plans: Iterable[Scenario], jobs: int, numbers: dict[Scenario, int]) -> Iterator[Tally]:
    """Run scenarios in processes; keep the numbers of those under way."""
    source = iter(plans)
    following = 0
    with ProcessPoolExecutor(jobs) as pool:
        running: dict[Future[Tally], list[Scenario]] = {}
        try:
            while True:
                while len(running) < 2 * jobs and (chunk := list(islice(source, CHUNK))):
                    numbers.update((each, following + at) for at, each in enumerate(chunk))
                    following += len(chunk)
                    running[pool.submit(run_chunk, chunk)] = chunk
                if not running:
                    return
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    part = future.result()
                    broken = {scenario for scenario, _, _ in part.broken}
                    for scenario in running.pop(future):
                        if scenario not in broken:
                            del numbers[scenario]
                    yield part
        finally:
            pool.shutdown(cancel_futures=True)


def progress(tally: Tally, count: int, begin: float) -> None:
    """Draw the bar, or a line now and then where there is no terminal."""
    elapsed = max(time.monotonic() - begin, 0.001)
    rate = tally.run / elapsed
    left = (count - tally.run) / rate
    line = f"{tally.run}/{count} scenarios, {rate:.0f} a second, {left:.0f} s left"
    if tally.broken:
        line += f", {len(tally.broken)} broken"
    if sys.stderr.isatty():
        filled = BAR * tally.run // count
        print(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {line} ", end="", file=sys.stderr)
    elif tally.run % (CHUNK * 50) == 0:
        print(line, file=sys.stderr, flush=True)


def report(
    tally: Tally,
    plans: Plans,
    numbers: dict[Scenario, int],
    chosen: argparse.Namespace,
    seconds: float,
) -> int:
    """Print what was run and found; return the exit status."""
    for scenario, _, what in tally.broken:
        print(f"{what}\n  {scenario}")
        print(
            f"  again: scripts/twins --scenarios {chosen.scenarios} --nodes {chosen.nodes} "
            f"--seed {chosen.seed} --number {numbers[scenario]}"
        )
    print(
        f"{tally.run} scenarios of {chosen.nodes} validators, {len(tally.broken)} broken; "
        f"{tally.steps} messages and timers; {plans.pruned} left out as the same but for names "
        f"({plans.enumerated} enumerated, the others drawn); "
        f"{tally.run / max(seconds, 0.001):.0f} a second in {chosen.jobs} processes"
    )
    for mark, count in sorted(tally.marks.items()):
        print(f"{count:9} {mark}")
    for mark in tally.missed:
        print(f"    never {mark}")
    missed = tally.run >= MARKS_FROM and bool(tally.missed)
    return 1 if tally.broken or missed else 0


def show(scenario: Scenario | None) -> int:
    """Run one scenario and print every line of its trace."""
    if scenario is None:
        print("there is no scenario of this number")
        return 2
    print(scenario)
    try:
        Field(scenario, trace=print).run()
    except Broken as broken:
        print(broken)
        return 1
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
