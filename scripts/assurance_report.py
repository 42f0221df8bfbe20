"""Runs a bounded selection of everything that shows that it holds, and writes one page of it.

Each part is a command of this project with the lines of its output that say how much it did. A part
fails by its exit status, or where a figure that it must print is missing or nought: a run that did
nothing shows nothing. What a part did is never written here, only what it prints.

Not here: what each part checks, which its own page says (docs/assurance.md).
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

ROOT: Final = Path(__file__).resolve().parent.parent
PART_SECONDS_MAX: Final = 4 * 3600
"""A part that takes longer is stopped and has failed."""
TAIL_LINES: Final = 30
"""Lines of a failed part's output that the page shows."""

Run = Callable[[Sequence[str]], tuple[int, str]]
"""Runs words as a command; returns exit status and output."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number that a part prints: the first group of a pattern, where it occurs last.

    ``zero``: it must be nought; else it must not be. ``total``: the sum of all occurrences.
    ``told``: whatever it is, and nought where it is not printed.
    """

    what: str
    pattern: str
    zero: bool = False
    total: bool = False
    told: bool = False


@dataclass(frozen=True, slots=True)
class Part:
    """One thing that is run.

    Args:
        promise: what it would show broken.
        words: the command, below the checkout.
        figures: all of which it must print.
        needs: a program without which it is left out, and said to be.
    """

    name: str
    promise: str
    words: tuple[str, ...]
    figures: tuple[Figure, ...]
    needs: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a part. ``problem`` is None where it held; left out ones have no status."""

    part: Part
    status: int | None
    seconds: float
    figures: tuple[tuple[str, str], ...]
    problem: str | None
    tail: tuple[str, ...] = ()


def parts(scale: float) -> tuple[Part, ...]:
    """Return what is run, each as long as its share of ``scale`` (1: about half an hour)."""

    def times(number: int) -> str:
        return str(max(1, round(number * scale)))

    python = sys.executable
    suite = (
        python,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        "2",
        "--dist",
        "loadfile",
    )
    left_out = Figure("left out", r"(\d+) skipped", told=True)
    passed = (Figure("checks passed", r"(\d+) passed"), left_out)
    return (
        Part(
            "simulator",
            "agreement, durability and progress of the real replica under drawn faults",
            ("scripts/sim", "--seeds", f"0..{max(200, round(400 * scale))}"),
            (
                Figure("seeds", r"(\d+) seeds,"),
                Figure("failed", r"seeds, (\d+) failed", zero=True),
                Figure("simulated hours", r"([\d.]+) simulated hours"),
                Figure("transactions", r"(\d+) transactions in"),
            ),
        ),
        Part(
            "steady network",
            "a loaded network of four over a long time",
            ("scripts/sim", "--steady", times(10)),
            (
                Figure("virtual minutes", r"([\d.]+) virtual minutes"),
                Figure("transactions", r"(\d+) transactions"),
            ),
        ),
        Part(
            "kept runs",
            "every run that once failed",
            ("scripts/sim", "--kept"),
            (Figure("trace of the last", r"trace ([0-9a-f]{16})"),),
        ),
        Part(
            "twins",
            "one key at two sites never makes two certificates",
            ("scripts/twins", "--scenarios", str(max(5000, round(5000 * scale)))),
            (
                Figure("scenarios", r"(\d+) scenarios of"),
                Figure("broken", r"validators, (\d+) broken", zero=True),
                Figure("messages and timers", r"(\d+) messages and timers"),
            ),
        ),
        *(
            Part(
                f"attackers among {size}",
                f"up to {faulty} liars of {size} harm nobody and are dealt with",
                ("scripts/attackers", "--nodes", str(size), "--seeds", f"0..{times(1)}"),
                (
                    Figure("runs", r"(\d+) runs,"),
                    Figure("broken", r"runs, (\d+) broken", zero=True),
                ),
            )
            for size, faulty in ((4, 1), (7, 2))
        ),
        Part(
            "mutants",
            "the harness finds every rule that is broken on purpose",
            (*suite, "--long=with", "tests/byzantine/mutants"),
            (Figure("mutants and controls", r"(\d+) passed"), left_out),
        ),
        Part(
            "models",
            "no fork and no halt in any state of the protocol's models",
            ("scripts/model", *(() if scale >= 4 else ("--quick",))),
            (
                Figure("searches", r"(\d+) searches,"),
                Figure("wrong", r"searches, (\d+) wrong", zero=True),
                Figure(
                    "states", r"(?m)^\w+ +\d+  K=.*? ([\d,]+) +\d+ +\d+ +[\d.]+ +\w+$", total=True
                ),
            ),
            needs="spin",
        ),
        Part(
            "crash points",
            "one or all may die at any moment, and any byte of a log may be damaged",
            ("scripts/crashes", "--stride", str(max(1, round(7 / scale)) | 1)),
            (
                Figure("deaths", r"(\d+) deaths at"),
                Figure("broken by them", r"next start; (\d+) failed", zero=True),
                Figure("damages", r"(\d+) damages to"),
                Figure("broken by those", r"and refused; (\d+) failed", zero=True),
            ),
        ),
        Part(
            "crash and damage of real disks",
            "nothing final is lost, nothing is signed twice",
            (*suite, "tests/node/storage", "tests/node/test_runtime_disk.py"),
            passed,
        ),
        Part(
            "real networks",
            "four processes that are killed, cut off, slowed, lied to and attacked",
            (*suite, "tests/network"),
            passed,
        ),
        Part(
            "soak",
            "mixed load and random faults, histories held against the certified log",
            ("scripts/soak", "--minutes", times(5)),
            (
                Figure("acts decided", r"decided\W+(\d+)"),
                Figure("proved reads", r"\bread\W+(\d+)"),
            ),
        ),
        Part(
            "fuzzed readers, by what is kept of the fuzzing",
            "no reader of untrusted bytes does anything but accept or refuse",
            (*suite, "tests/fuzz", "tests/consensus/test_hostile_bytes.py"),
            passed,
        ),
        Part(
            "forged evidence",
            "no changed byte, transplanted part or guess passes the verifiers",
            (*suite, "tests/consensus/evidence", "tests/comity/test_lies.py"),
            passed,
        ),
    )


def judge(part: Part, run: Run) -> Outcome:
    """Run a part and judge it by its status and figures."""
    if part.needs is not None and shutil.which(part.needs) is None:
        return Outcome(part, None, 0.0, (), f"left out: {part.needs} is not installed")
    begin = time.monotonic()
    status, output = run(part.words)
    seconds = time.monotonic() - begin
    figures, problem = [], None if status == 0 else f"exit status {status}"
    for figure in part.figures:
        found = re.findall(figure.pattern, output)
        value = found[-1] if found else "0" if figure.told else "missing"
        if found and figure.total:
            value = f"{sum(int(each.replace(',', '')) for each in found):,}"
        figures.append((figure.what, value))
        is_zero = not value.strip("0.,")
        if problem is None and not figure.told and (not found or is_zero != figure.zero):
            problem = f"{figure.what}: {value}"
    tail = () if problem is None else tuple(output.rstrip().splitlines()[-TAIL_LINES:])
    return Outcome(part, status, seconds, tuple(figures), problem, tail)


def page(outcomes: Sequence[Outcome], about: Sequence[str]) -> str:
    """Return the page: what held, with its figures, and what did not."""
    held = sum(each.problem is None for each in outcomes)
    rows = [
        "# What was run",
        "",
        *about,
        "",
        f"{held} of {len(outcomes)} parts held.",
        "",
        "| part | what it would show broken | figures | seconds | |",
        "|---|---|---|---|---|",
    ]
    for each in outcomes:
        figures = ", ".join(f"{value} {what}" for what, value in each.figures)
        verdict = "held" if each.problem is None else f"**{each.problem}**"
        part = each.part
        rows.append(
            f"| {part.name} | {part.promise} | {figures} | {each.seconds:.0f} | {verdict} |"
        )
    rows += ["", "## Again", "", "```console"]
    rows += [f"$ {' '.join(_shown(word) for word in each.part.words)}" for each in outcomes]
    rows += ["```"]
    for each in outcomes:
        if each.tail:
            rows += ["", f"## {each.part.name}: {each.problem}", "", "```", *each.tail, "```"]
    return "\n".join([*rows, ""])


def _shown(word: str) -> str:
    return ".venv/bin/python" if word == sys.executable else word


def about() -> list[str]:
    """Return what the page says of this machine and checkout."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return [
        f"- checkout {done.stdout.strip() or 'unknown'}",
        f"- {platform.system()}, Python {platform.python_version()}, {os.cpu_count()} processors",
        f"- {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC",
    ]


def run_words(words: Sequence[str]) -> tuple[int, str]:
    """Run a command of this checkout; its output and errors in one."""
    try:
        done = subprocess.run(
            words,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PART_SECONDS_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 124, f"stopped after {PART_SECONDS_MAX} s"
    return done.returncode, done.stdout


def main(arguments: Sequence[str] | None = None, run: Run = run_words) -> int:
    """Run the command line; 0 if everything that ran held, 1 if not, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="scripts/assurance", description=__doc__)
    parser.add_argument(
        "--scale",
        type=_scale,
        default=1.0,
        help="how much of it; 1: about half an hour; from 4 on the models in full",
    )
    parser.add_argument("--only", metavar="NAME", action="append", help="a part; may be repeated")
    parser.add_argument(
        "--output", type=Path, default=Path("build/assurance.md"), help="the page (%(default)s)"
    )
    chosen = parser.parse_args(arguments)
    selected = parts(chosen.scale)
    if chosen.only:
        names = [each.name for each in selected]
        if unknown := [name for name in chosen.only if name not in names]:
            parser.error(f"no part is named {unknown[0]!r}; there are {', '.join(names)}")
        selected = tuple(each for each in selected if each.name in chosen.only)
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    outcomes = []
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=len(selected))
        for part in selected:
            progress.update(bar, description=part.name)
            outcomes.append(judge(part, run))
            progress.advance(bar)
    text = page(outcomes, about())
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_text(text, encoding="utf-8")
    print(text)
    failed = [each for each in outcomes if each.problem is not None and each.status is not None]
    return 1 if failed else 0


def _scale(text: str) -> float:
    scale = float(text)
    if not 0 < scale <= 100:
        raise argparse.ArgumentTypeError("more than 0, at most 100")
    return scale


if __name__ == "__main__":
    sys.exit(main())
