"""Checks the protocol's models (docs/model) with Spin, exhaustively, and that they notice mutants.

A *run* is a model with its bounds, which must hold in every state; a *mutant* is a model with one
rule broken, in which Spin must find the named violation. Spin writes a verifier in C, which the
compiler of the machine builds in a temporary folder; the wrapper installs nothing but Spin itself.

Not here: what the models say (``docs/model/README.md``).
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).resolve().parent.parent / "docs" / "model"
MODELS: Final = ("voting", "boundary", "recovery")
MEMORY_MIB_MAX: Final = 12_000
DEPTH_MAX: Final = 1_000_000
"""Steps of the verifier within one run of a model; beyond it the search would not be complete."""

FORK: Final = "fork"
HALT: Final = "halt"

LOWEST: Final = "FORGETFUL"
REDUCED: Final = "REDUCED"
TWO: Final = "ACTIVE=2"


class ModelError(Exception):
    """A model could not be checked; says why."""


@dataclass(frozen=True, slots=True)
class Run:
    """A model, its bounds, and where it is a mutant.

    ``options`` are names that the model is compiled with; ``expected`` is None, FORK or HALT.
    """

    model: str
    rounds: int
    blocks: int
    options: tuple[str, ...] = ()
    mutant: str | None = None
    expected: str | None = None

    @property
    def settings(self) -> tuple[str, ...]:
        mutant = () if self.mutant is None else (self.mutant,)
        return (f"R={self.rounds}", f"K={self.blocks}", *self.options, *mutant)


@dataclass(frozen=True, slots=True)
class Result:
    """What a search found: ``found`` is None, FORK or HALT; the trail is its shortest way there."""

    found: str | None
    states: int
    depth: int
    memory_mib: float
    seconds: float
    trail: tuple[str, ...]


RUNS: Final = (
    Run("voting", 2, 2),
    Run("voting", 3, 1, (LOWEST,)),
    Run("voting", 4, 1, (LOWEST, REDUCED)),
    Run("boundary", 2, 1),
    Run("boundary", 3, 1, (REDUCED,)),
    Run("recovery", 2, 1),
    Run("recovery", 3, 1, (LOWEST,)),
    Run("recovery", 3, 1, (REDUCED,)),
)
QUICK: Final = (
    Run("voting", 2, 1, (LOWEST,)),
    Run("voting", 3, 1, (LOWEST, REDUCED)),
    Run("boundary", 2, 1, (LOWEST, REDUCED)),
    Run("recovery", 2, 1, (LOWEST, REDUCED)),
)


def _mutant(
    name: str, model: str, rounds: int, expected: str, options: tuple[str, ...], blocks: int = 1
) -> Run:
    return Run(model, rounds, blocks, options, name, expected)


MUTANTS: Final = (
    _mutant("NO_GUARD", "voting", 2, FORK, (LOWEST, TWO)),
    _mutant("GUARD_LATE", "voting", 2, FORK, (LOWEST, TWO)),
    _mutant("VOTE_TWICE", "voting", 2, FORK, (LOWEST, TWO), 2),
    _mutant("VOTE_FORGETS", "voting", 3, FORK, (LOWEST, TWO)),
    _mutant("COMMIT_VOTE_FORGETS", "voting", 2, FORK, (LOWEST, TWO)),
    _mutant("TWO_CHAIN_WITH_GAP", "voting", 4, FORK, (LOWEST, TWO)),
    _mutant("TWO_CHAIN_TIP", "voting", 3, FORK, (LOWEST, TWO)),
    _mutant("TWO_VOTES_ORDER", "voting", 2, FORK, (LOWEST, TWO), 2),
    _mutant("TWO_TIMEOUTS_ENTER", "voting", 2, FORK, (LOWEST,)),
    _mutant("TWO_COMMIT_VOTES_CERTIFY", "voting", 2, FORK, (LOWEST,)),
    _mutant("NO_HIGH_ROUND", "voting", 3, FORK, (LOWEST, TWO)),
    _mutant("NO_TIMEOUT_CERT", "voting", 2, FORK, (LOWEST, TWO)),
    _mutant("VOTE_AFTER_TIMEOUT", "voting", 3, FORK, (LOWEST, TWO)),
    _mutant("TIMEOUT_BELOW", "voting", 3, FORK, (LOWEST, TWO)),
    _mutant("NO_EXEMPTION", "boundary", 1, HALT, (TWO,)),
    _mutant("COMMIT_VOTES_RISE", "boundary", 3, HALT, (LOWEST, REDUCED)),
    _mutant("COMMIT_BEYOND", "boundary", 2, FORK, (LOWEST, TWO)),
    _mutant("COMMIT_VOTES_FORGOTTEN", "boundary", 1, HALT, (TWO,)),
    _mutant("GUARD_PRUNED_EARLY", "recovery", 2, FORK, ()),
    _mutant("TIMEOUT_FORGOTTEN", "recovery", 1, HALT, ()),
    _mutant("ENTRY_FORGOTTEN", "recovery", 2, HALT, (TWO,)),
)
QUICK_MUTANTS: Final = ("NO_GUARD", "NO_EXEMPTION", "ENTRY_FORGOTTEN")

VIOLATIONS: Final = {"ok_": HALT}
"""Which assertion of the models means what; the others say that two certificates conflict."""


def lacking() -> str | None:
    """Return the program that is needed and missing, if one is."""
    return next((tool for tool in ("spin", "gcc") if shutil.which(tool) is None), None)


def check(run: Run, *, optimise: str = "-O2", niceness: int = 19) -> Result:
    """Search a model through, or as far as its first violation.

    Mutants are searched breadth first, so their trail is a shortest one; the rest depth first,
    which needs less memory. Either way every state is kept whole: nothing is left out.

    Args:
        run: what to search.
        optimise: the compiler's option; with small bounds "-O0" is sooner done.
        niceness: of the search, which may take long and leaves the machine to others.

    Raises:
        ModelError: Spin or the compiler refuse the model, or a bound was reached before the end.

    Cost: minutes and up to 1.5 GiB for the larger bounds; see docs/model/README.md.
    """
    breadth = run.mutant is not None
    with tempfile.TemporaryDirectory(prefix="comity-model-") as name:
        folder = Path(name)
        for file in FOLDER.glob("*.pml"):
            shutil.copy(file, folder)
        source = f"{run.model}.pml"
        defined = [f"-D{setting}" for setting in run.settings]
        if breadth:
            defined.append("-DBREADTH_FIRST")
        run_here = partial(_run, folder, niceness)
        run_here("spin", "-a", *defined, source)
        search = ["-DBFS"] if breadth else []
        run_here(
            "gcc", optimise, "-w", "-fwrapv", "-DSAFETY", "-DNOREDUCE", "-DNOFAIR", *search,
            f"-DMEMLIM={MEMORY_MIB_MAX}", "-o", "pan", "pan.c",
        )  # fmt: skip
        began = time.monotonic()
        printed = run_here("./pan", "-E", "-n", f"-m{DEPTH_MAX}")
        seconds = time.monotonic() - began
        return _read(run, printed, seconds, lambda: _replay(folder, defined, source))


def _run(folder: Path, niceness: int, *command: str) -> str:
    done = subprocess.run(
        ["nice", "-n", str(niceness), *command],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise ModelError(f"{' '.join(command[:2])}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return done.stdout + done.stderr


def _replay(folder: Path, defined: Sequence[str], source: str) -> tuple[str, ...]:
    command = ["spin", "-t", *defined, source]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return tuple(
        re.findall(r"^ *([ABC] (?:votes|gives|commit|learns).*)$", done.stdout, re.MULTILINE)
    )


def _read(run: Run, printed: str, seconds: float, replay: Callable[[], tuple[str, ...]]) -> Result:
    """Take the figures out of what the verifier printed, and insist that it came to an end."""

    def number(pattern: str) -> float:
        match = re.search(pattern, printed)
        if match is None:
            raise ModelError(f"{run.model}: the verifier did not finish:\n{printed[-800:]}")
        return float(match.group(1))

    errors = number(r"errors: (\d+)")
    states = number(r"([\d.e+]+) states, stored")
    depth = number(r"depth reached (\d+)")
    memory = number(r"([\d.]+)\s+total actual memory usage")
    violated = re.search(r"assertion violated\s+(\S+)", printed)
    if "max search depth too small" in printed or "out of memory" in printed:
        raise ModelError(f"{run.model}: a bound was reached before the search was complete")
    if not errors and ("Search not completed" in printed or "reached -DMEMLIM" in printed):
        raise ModelError(f"{run.model}: the search was not completed")
    if errors and violated is None:
        raise ModelError(f"{run.model}: an error that is no assertion:\n{printed[-800:]}")
    found = None if violated is None else VIOLATIONS.get(violated.group(1), FORK)
    trail = () if found is None else replay()
    return Result(found, int(states), int(depth), memory, seconds, trail)


def _install() -> str | None:
    """Install Spin where that is possible; return what is still lacking."""
    missing = lacking()
    if missing == "spin" and shutil.which("apt-get") and os.geteuid() == 0:
        print("installing Spin (apt-get install spin)", flush=True)
        subprocess.run(
            ["apt-get", "install", "-y", "-q", "spin"],
            check=False, stdout=subprocess.DEVNULL, env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        missing = lacking()
    return missing


def _selected(arguments: argparse.Namespace) -> list[Run]:
    if arguments.quick:
        runs = [*QUICK, *(run for run in MUTANTS if run.mutant in QUICK_MUTANTS)]
    elif arguments.mutants:
        runs = list(MUTANTS)
    else:
        runs = list(RUNS)
    if arguments.rounds is not None:
        runs = [run for run in runs if run.rounds == arguments.rounds]
    if arguments.name is not None:
        runs = [run for run in runs if arguments.name in (run.model, run.mutant)]
    return runs


def main(words: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="scripts/model",
        description="Checks the models in docs/model with Spin.",
        epilog="Exit status 0 if every model holds and every mutant is noticed, 1 if not, "
        "2 if nothing could be run.",
    )
    parser.add_argument("name", nargs="?", help=f"one of {', '.join(MODELS)}, or a mutant")
    parser.add_argument("--mutants", action="store_true", help="every broken rule, and its trail")
    parser.add_argument("--rounds", type=int, metavar="N", help="only what is bounded to N rounds")
    parser.add_argument("--quick", action="store_true", help="small bounds and three mutants")
    arguments = parser.parse_args(words)
    runs = _selected(arguments)
    if not runs and arguments.name is not None and not arguments.mutants:
        arguments.mutants = True
        runs = _selected(arguments)
    if not runs:
        print("nothing of that name and bound: see docs/model/README.md", file=sys.stderr)
        return 2
    if (missing := _install()) is not None:
        print(
            f"{missing} is missing. On Debian and Ubuntu: apt-get install spin gcc libc6-dev; "
            "elsewhere: https://spinroot.com",
            file=sys.stderr,
        )
        return 2
    print(f"{'model':<10}{'rounds':>6}  {'with':<44}{'states':>12}{'depth':>7}"
          f"{'MiB':>7}{'s':>7}  result")  # fmt: skip
    failed = 0
    for run in runs:
        label = " ".join((f"K={run.blocks}", *run.options, *filter(None, (run.mutant,))))
        print(f"{run.model:<10}{run.rounds:>6}  {label:<44}", end="", flush=True)
        try:
            result = check(run)
        except ModelError as error:
            print(f" not checked: {error}")
            failed += 1
            continue
        right = result.found == run.expected
        failed += not right
        verdict = "holds" if result.found is None else result.found
        print(
            f"{result.states:>12,}{result.depth:>7}{result.memory_mib:>7.0f}{result.seconds:>7.1f}"
            f"  {verdict}{'' if right else '  WRONG'}",
            flush=True,
        )
        for line in result.trail:
            print(f"    {line}")
    print(f"{len(runs)} searches, {failed} wrong")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
