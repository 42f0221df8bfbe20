"""Runs attackers in the simulator from the command line. See docs/byzantine.md.

Exit status 0 if every promise held, each attacker had its chance and the honest did what they owe
about it, 1 if not, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.byzantine.attackers.stage import AttackedSimulation
from tests.byzantine.attackers.table import ATTACKERS
from tests.ranges import numbers
from tests.sim.errors import Violation

BAR = 24


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/attackers", description=__doc__)
    parser.add_argument(
        "--attackers",
        metavar="NAME,...",
        help=f"who lies, at most f at once; else each in turn: {', '.join(ATTACKERS)}",
    )
    parser.add_argument("--seeds", type=numbers, default=range(10), metavar="A..B")
    parser.add_argument("--nodes", type=int, choices=(4, 7), default=4, help="validators")
    chosen = parser.parse_args(arguments)
    faulty_max = (chosen.nodes - 1) // 3
    sets = lineups(faulty_max)
    if chosen.attackers is not None:
        names = tuple(each.strip() for each in chosen.attackers.split(","))
        if unknown := [name for name in names if name not in ATTACKERS]:
            parser.error(f"no attacker is named {unknown[0]!r}; there are {', '.join(ATTACKERS)}")
        if len(names) > faulty_max:
            parser.error(f"at most {faulty_max} of {chosen.nodes} validators may lie")
        sets = [names]
    return campaign(sets, chosen.seeds, chosen.nodes)


def lineups(count: int) -> list[tuple[str, ...]]:
    """Return sets of so many attackers, each of them in ``count`` sets."""
    names = tuple(ATTACKERS)
    return [
        tuple(names[(at + step) % len(names)] for step in range(count)) for at in range(len(names))
    ]


def campaign(sets: list[tuple[str, ...]], seeds: range, size: int) -> int:
    """Run every set with every seed, print what was seen; return the exit status."""
    begin = time.monotonic()
    total = len(sets) * len(seeds)
    done = broken = 0
    attacks: Counter[str] = Counter()
    seen: dict[str, Counter[str]] = {name: Counter() for name in ATTACKERS}
    for seed in seeds:
        for names in sets:
            simulation = AttackedSimulation(seed, size, names)
            try:
                simulation.run()
            except Violation as violation:
                broken += 1
                listed = ",".join(names)
                print(f"seed {seed}, {listed}: {violation}")
                print(
                    f"  again: scripts/attackers --attackers '{listed}' --nodes {size} "
                    f"--seeds {seed}",
                    flush=True,
                )
            for attacker in simulation.attackers.values():
                attacks[attacker.name] += attacker.attacks
                seen[attacker.name].update(simulation.seen)
            done += 1
            _progress(done, total, broken, begin)
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(f"{done} runs, {broken} broken, in {time.monotonic() - begin:.0f} s")
    missed: list[str] = []
    for name in dict.fromkeys(name for names in sets for name in names):
        shows = ", ".join(f"{seen[name][mark]} {mark}" for mark in ATTACKERS[name].shows)
        print(f"{attacks[name]:9} lies of the {name}: {shows}")
        missed += [] if attacks[name] else [f"no lie of the {name}"]
        missed += [f"no {mark} ({name})" for mark in ATTACKERS[name].shows if not seen[name][mark]]
    if missed:
        print(f"not seen: {', '.join(missed)}: these runs test less than they say")
    return 1 if broken or missed else 0


def _progress(done: int, total: int, broken: int, begin: float) -> None:
    if sys.stderr.isatty():
        filled = BAR * done // total
        left = (time.monotonic() - begin) / done * (total - done)
        bar = f"[{'#' * filled}{'.' * (BAR - filled)}]"
        print(
            f"\r{bar} {done}/{total}, {broken} broken, {left:.0f} s left ", end="", file=sys.stderr
        )


if __name__ == "__main__":
    sys.exit(main())
