"""Kills validators at every moment of a small run. See docs/assurance.md, "Crash points".

Exit status 0 if every promise held, 1 if not, 2 for wrong arguments.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from tests.crashes import damage
from tests.crashes.campaign import deaths, outcomes, points
from tests.crashes.deaths import ROLES, CrashRun, Death
from tests.crashes.files import KILLS, POWER
from tests.ranges import numbers
from tests.sim.errors import Violation

ALL: Final = range(sys.maxsize)
"""The numbers of deaths or damages, unless some are asked for."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    if chosen.list:
        for each in points():
            print(f"{each.number:5} node {each.node} {each.role}: before {each.what}")
        return 0
    if chosen.point is not None:
        if not 0 <= chosen.point < len(points()):
            parser.error(f"the run has the moments 0 to {len(points()) - 1}")
        if chosen.fate == "short" and not points()[chosen.point].what.startswith("write"):
            parser.error("only a write can be half made: see --list")
        return _one(Death(chosen.point, chosen.fate, chosen.everyone, chosen.again))
    if chosen.everyone or chosen.again:
        parser.error("--everyone and --again go with --point")
    if chosen.range != ALL and not chosen.only:
        parser.error("--range goes with --only: deaths and damages have numbers of their own")
    begin = time.monotonic()
    parts = []
    if chosen.only != "damage":
        parts.append(_deaths(deaths()[:: chosen.stride], chosen.range, chosen.jobs))
    if chosen.only != "deaths":
        parts.append(_damage(chosen.stride, chosen.range))
    print(f"{time.monotonic() - begin:.0f} s")
    return max(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/crashes", description=__doc__)
    parser.add_argument("--list", action="store_true", help="print the moments of the run")
    parser.add_argument("--point", type=int, metavar="N", help="die there only; print the trace")
    parser.add_argument("--fate", choices=(*KILLS, *POWER), default="lost", help="with --point")
    parser.add_argument("--everyone", action="store_true", help="with --point: all die at once")
    parser.add_argument(
        "--again",
        type=_positive,
        default=0,
        metavar="N",
        help="with --point: and at its next start",
    )
    parser.add_argument(
        "--stride", type=_positive, default=1, metavar="N", help="only every N-th (default: all)"
    )
    parser.add_argument(
        "--range",
        type=numbers,
        default=ALL,
        metavar="A..B",
        help="with --only: from the A-th to the B-th of these, counted from 0",
    )
    parser.add_argument("--only", choices=("deaths", "damage"), help="one of the two parts")
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="processes")
    return parser


def _one(death: Death) -> int:
    try:
        run = CrashRun(death, echo=print).play()
    except Violation as found:
        print(f"violated: {found}")
        return 1
    print(f"died {run.fired} times, {run.replay.height} heights: every promise held")
    return 0


def _progress() -> Progress:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=Console(stderr=True))


def _deaths(every: Sequence[Death], part: range, jobs: int) -> int:
    chosen = every[part.start : part.stop]
    failed = twice = 0
    roles: dict[str, Counter[str]] = {role: Counter() for role in ROLES}
    with _progress() as progress:
        bar = progress.add_task("", total=len(chosen), told="")
        for each in outcomes(chosen, jobs):
            point = points()[each.death.point]
            kind = "all" if each.death.everyone else "one"
            roles[point.role][kind] += 1
            roles[point.role]["at the disk"] += point.stored
            twice += each.died > 1
            if each.violation:
                failed += 1
                print(f"{each.violation}\n  again: scripts/crashes {each.death.arguments}")
            progress.update(bar, advance=1, told=f"{failed} failed")
    table = Table("what the node was about", "one dies", "all die", "at a call to the disk")
    for role, counts in roles.items():
        table.add_row(role, *(str(counts[kind]) for kind in ("one", "all", "at the disk")))
    Console().print(table)
    at = len({each.point for each in chosen})
    print(
        f"{len(chosen)} deaths at {at} of {len(points())} moments, {twice} of them followed by a "
        f"death during the next start; {failed} failed"
    )
    if part != ALL:
        return _told(part, len(chosen), len(every), failed)
    missed = [role for role, counts in roles.items() if not counts.total()]
    if missed:
        print(f"nobody died who {', '.join(missed)}")
    return int(bool(failed or missed))


def _damage(stride: int, part: range) -> int:
    total = damage.Total()
    every = [(log, each) for log in damage.logs() for each in log.damages(stride)]
    chosen = every[part.start : part.stop]
    with _progress() as progress:
        bar = progress.add_task("", total=len(chosen), told="")
        for log, each in chosen:
            try:
                total.enter(log.judge(each))
            except Violation as found:
                total.failed += 1
                print(f"{log.name}, {each}: {found}")
            progress.update(bar, advance=1, told=f"{total.failed} failed")
    print(total)
    return _told(part, len(chosen), len(every), total.failed)


def _told(part: range, done: int, count: int, failed: int) -> int:
    """Say which of all were chosen; return the exit status."""
    print(f"numbers {part.start} to {part.start + done - 1} of {count}, which begin with 0")
    return int(failed > 0 or not done)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return number


if __name__ == "__main__":
    sys.exit(main())
