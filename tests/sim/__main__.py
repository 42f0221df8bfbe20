"""Runs the simulator from the command line. See docs/simulator.md.

Exit status 0 if every promise held, 1 if not, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tests.ranges import numbers
from tests.sim.campaign import Case, Outcome, command, outcomes
from tests.sim.errors import Violation
from tests.sim.kept import KEPT, Kept, read
from tests.sim.marks import SOMETIMES
from tests.sim.shrink import RUNS_MAX, Shrinker
from tests.sim.simulation import Result

MARKS_SEEDS = 200
"""A set of so many seeds fails if it never reaches a mark."""
HOUR_MS = 3_600_000
ALARMING = re.compile(r"loses power|is killed|fault:|cannot start|fails|stops|clock set|undoes")
GOOD = re.compile(r"delivers|heals|boots")
NODE_STYLES = ("cyan", "magenta", "yellow", "green", "blue", "red", "white")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.steady is not None:
        return _show(Case.steady(chosen.steady), "", quiet=True)
    if chosen.kept is not None:
        return _kept(parser, chosen.file, chosen.kept, quiet=chosen.quiet)
    if chosen.seed is None:
        return campaign(chosen.seeds, chosen.nodes, chosen.jobs, digests=chosen.digests)
    case = Case.of_seed(chosen.seed, chosen.nodes)
    if chosen.shrink:
        return _shrink(case, Path(chosen.into or f"sim-{chosen.seed}.toml"))
    return _show(case, command(chosen.seed, chosen.nodes), quiet=chosen.quiet)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/sim", description=__doc__)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--seed", type=int, help="run one seed and print its trace")
    what.add_argument(
        "--seeds", type=numbers, default=range(100), metavar="A..B", help="run from A to B"
    )
    what.add_argument(
        "--kept", nargs="?", const="", metavar="NAME", help="run a kept run; without NAME, all"
    )
    what.add_argument(
        "--steady", type=_minutes, metavar="MINUTES", help="run a healthy network under even load"
    )
    parser.add_argument("--nodes", type=_nodes, help="validators (4 or more); else each seed draws")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--digests", action="store_true", help="print the digest of each trace")
    parser.add_argument("--quiet", action="store_true", help="print no trace")
    parser.add_argument(
        "--shrink", action="store_true", help="find the fewest faults with which --seed fails"
    )
    parser.add_argument("--into", metavar="FILE", help="where --shrink writes what is left")
    parser.add_argument("--file", type=Path, default=KEPT, help="where --kept reads")
    return parser


# --- one run ------------------------------------------------------------------------------------


def _show(case: Case, again: str, *, quiet: bool = False) -> int:
    """Run a case, print its trace and what it came to; return the exit status."""
    console = Console(highlight=False)
    if not quiet:
        _describe(console, case)
    begin = time.process_time()
    try:
        result = case.run(echo=None if quiet else lambda line: console.print(styled(line)))
    except Violation as found:
        console.print(Text(f"violated: {found}", "bold red"))
        if again:
            console.print(f"fewer faults: {again} --shrink")
        return 1
    seconds = time.process_time() - begin
    told = (
        f"{result.virtual_ms / 60_000:.1f} virtual minutes, {result.heights} heights, "
        f"{result.transactions} transactions, {result.messages} messages in {seconds:.1f} s of "
        f"one core; new work after {result.work_rounds} rounds; trace {result.digest}"
    )
    console.print(told, soft_wrap=True)
    return 0


def _describe(console: Console, case: Case) -> None:
    table = case.options.to_table()
    console.print("options: " + ", ".join(f"{k} {v}" for k, v in table.items()), soft_wrap=True)
    for fault in case.script:
        console.print(f"planned {fault}")


def styled(line: str) -> Text:
    """Return a line of a trace, coloured: who, and what is out of the ordinary."""
    moment, _, told = line.lstrip().partition(" ")
    text = Text(f"{moment:>9} ", "dim")
    who, _, what = told.partition(" ")
    if who.isdigit():
        text.append(f"{who:>2} ", NODE_STYLES[int(who) % len(NODE_STYLES)])
        told = what
    else:
        text.append(" · ", "bold")
    alarming, good = ALARMING.search(told), GOOD.match(told)
    text.append(told, "bold red" if alarming else "green" if good else "default")
    return text


def _kept(parser: argparse.ArgumentParser, path: Path, name: str, *, quiet: bool) -> int:
    try:
        runs = read(path)
    except (OSError, KeyError, TypeError, ValueError) as error:
        parser.error(f"{path} cannot be read as kept runs: {error}")
    if not name:
        return max([_show(kept.case, "", quiet=True) for kept in runs.values()], default=0)
    if name not in runs:
        parser.error(f"no run is named {name!r}; there are {', '.join(runs) or 'none'}")
    print(runs[name].found)
    return _show(runs[name].case, "", quiet=quiet)


def _shrink(case: Case, into: Path) -> int:
    """Shrink a failing run; return 1 if it fails, 0 if it does not."""
    console = Console(stderr=True)
    before = len(case.script), len(case.options.to_table())
    with console.status("running it") as status:

        def told(faults: int, options: int) -> None:
            status.update(f"{faults} faults and {options} options are tried")

        shrunk = Shrinker(told=told).shrink(case)
    if shrunk is None:
        print("every promise holds: there is nothing to shrink")
        return 0
    left = shrunk.case
    name = f"seed-{case.options.seed}"
    kept = Kept(name, f"{shrunk.promise}: to be written", replace(left))
    into.write_text(kept.to_toml(), encoding="utf-8")
    print(
        f"{before[0]} faults and {before[1]} options became {len(left.script)} and "
        f"{len(left.options.to_table())} in {shrunk.runs} runs (at most {RUNS_MAX})"
    )
    for option, value in left.options.to_table().items():
        print(f"  {option} = {value}")
    for fault in left.script:
        print(f"  {fault}")
    print(f"violated: {shrunk.violation}")
    print(f"again: scripts/sim --file {into} --kept {name}")
    return 1


# --- many ---------------------------------------------------------------------------------------


def campaign(seeds: range, size: int | None, jobs: int, *, digests: bool = False) -> int:
    """Run seeds with a bar of progress; print what was violated and reached.

    Stopped by Ctrl-C it reports of the seeds that have ended, with exit status 1.
    """
    begin = time.monotonic()
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    total = _Total(seeds, size, digests=digests)
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(seeds), told="")
        with suppress(KeyboardInterrupt):
            for outcome in outcomes(seeds, size, jobs):
                for line in total.take(outcome):
                    progress.console.file.flush()
                    print(line, flush=True)
                progress.update(bar, advance=1, told=total.line())
    return total.report(time.monotonic() - begin)


class _Total:
    """What a campaign has come to so far."""

    def __init__(self, seeds: range, size: int | None, *, digests: bool) -> None:
        self._seeds = seeds
        self._size = size
        self._digests = digests
        self._marks: Counter[str] = Counter()
        self._rounds: Counter[int] = Counter()
        self._failed: list[int] = []
        self._ended = self._virtual_ms = self._heights = self._transactions = 0

    def take(self, outcome: Outcome) -> Iterable[str]:
        """Enter an outcome; return what is to be printed of it."""
        self._ended += 1
        result: Result | None = outcome.result
        if result is None:
            self._failed.append(outcome.seed)
            return [
                f"seed {outcome.seed}: {outcome.violation}",
                f"  again: {command(outcome.seed, self._size)}",
            ]
        self._marks.update(result.marks)
        self._rounds[result.work_rounds] += 1
        self._virtual_ms += result.virtual_ms
        self._heights += result.heights
        self._transactions += result.transactions
        return [f"seed {outcome.seed}: {result.digest}"] if self._digests else []

    def line(self) -> str:
        """Return where things stand, in a few words."""
        return f"{self._virtual_ms / HOUR_MS:.1f} simulated hours, {len(self._failed)} failed"

    def report(self, seconds: float) -> int:
        """Print everything; return the exit status."""
        table = Table("times", "mark", title="What was reached")
        table.columns[0].justify = "right"
        for mark, count in self._marks.items():
            table.add_row(str(count) if count else "never", mark, style="" if count else "yellow")
        Console().print(table)
        rounds = ", ".join(f"{count} in {n}" for n, count in sorted(self._rounds.items()))
        print(f"new work after healing, seeds by rounds: {rounds}")
        print(
            f"{self._ended} seeds, {len(self._failed)} failed; "
            f"{self._virtual_ms / HOUR_MS:.2f} simulated hours, {self._heights} heights, "
            f"{self._transactions} transactions in {seconds:.0f} s"
        )
        if self._failed:
            print(f"failed: {' '.join(map(str, self._failed))}")
            return 1
        if self._ended < len(self._seeds):
            print(f"stopped: {len(self._seeds) - self._ended} seeds have not been run")
            return 1
        missed = [mark for mark in SOMETIMES if not self._marks[mark]]
        if missed and len(self._seeds) >= MARKS_SEEDS:
            print(f"{len(missed)} marks never reached: these seeds test less than they say")
            return 1
        if not any(self._marks.values()):
            print("no mark was reached: nothing was tested")
            return 1
        return 0


# --- arguments ----------------------------------------------------------------------------------


def _nodes(text: str) -> int:
    size = int(text)
    if not 4 <= size <= 31:
        raise argparse.ArgumentTypeError("4 to 31 validators")
    return size


def _minutes(text: str) -> int:
    minutes = int(text)
    if not 1 <= minutes <= 1440:
        raise argparse.ArgumentTypeError("1 to 1440 minutes")
    return minutes


if __name__ == "__main__":
    sys.exit(main())
