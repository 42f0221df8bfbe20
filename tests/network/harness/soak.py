"""Mixed load and random faults on a real network of four processes, for as long as is asked.

    scripts/soak --minutes 30 --seed 1

The seed draws which fault follows which, whom it meets and how long it lasts; when things happen is
the machine's. One fault at a time, each within what f = 1 allows except that the network is also
split in halves, and killed but for one node; between two faults everything mends. Clients write
down what they ask and are told; at the end every node's log is fetched, and all is compared.

Memory is watched at every node's main process and judged by the slope of a line through its
private pages (resident, without mapped files) after a warm-up of each process. Processes that
faults kill start anew; all lives of a node count together, and one node is never killed.

Exit status: 0 everything held; 1 a promise was broken, a node's memory grew, or a fault never came.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from scripts.localnet import LocalNetwork
from tests.network.harness.disk import Disk, full_disk
from tests.network.harness.history import Recorder
from tests.network.harness.load import Load, verdict
from tests.network.harness.network import honest, relayed_town, with_clock
from tests.network.harness.relay import Relays
from tests.network.town import agreed, eventually, kill, metric, start

SLOPE_MIB_PER_MINUTE_MAX = 1.0
JUDGED_MINUTES_MIN = 10.0
"""Of processes past their warm-up; what is shorter says nothing."""
ALL_SECONDS = 600.0
"""A run of this length meets every kind of fault, or fails."""
MARKS = ("receipts", "reads after a certificate", "ordered in real time", "APPLIED", "STALE")
"""What a history must have had for its verdict to mean something."""
WARM_UP_SECONDS = 240.0
"""Of each process: caches fill, and what grows meanwhile shows no leak."""
SAMPLE_SECONDS = 5.0
FAULT_SECONDS = (2.0, 12.0)
REST_SECONDS = (3.0, 10.0)
PAUSE_SECONDS = 0.05
"""Between two requests of one client."""
CLOCK_MS = (-5_000, 5_000)
SLOW_SECONDS, SLOW_BYTES_PER_SECOND = 0.2, 100_000
KEPT = "treasury"
"""The node that no fault kills, so that its memory is seen over the whole run."""
FULL = "social"
"""The node whose disk can be full."""


@dataclass
class Soak:
    """One run."""

    town: LocalNetwork
    relays: Relays
    disk: Disk
    load: Load
    draw: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[str, int, float, float]] = field(default_factory=list)
    """(agency, process, age in seconds, MiB)"""
    recoveries: list[float] = field(default_factory=list)
    """Seconds from the start of a killed node's process until it has signed something."""
    gaps: dict[str, float] = field(default_factory=dict)
    """Longest time without a receipt by the fault that was there."""
    born: dict[int, float] = field(default_factory=dict)

    def anyone(self, *but: str) -> str:
        """Return a node, none of ``but``."""
        return self.draw.choice([name for name in self.town.agencies if name not in but])

    # --- faults -------------------------------------------------------------------------------

    async def killed(self, last: float) -> None:
        """SIGKILL, and a start after a while."""
        victim = self.anyone(KEPT)
        kill(self.town, victim)
        await trio.sleep(last)
        await self.revived(victim)

    async def stopped(self, last: float) -> None:
        """SIGTERM, and a start after a while."""
        victim = self.anyone(KEPT)
        self.town.processes[victim].terminate()
        await trio.to_thread.run_sync(self.town.processes[victim].wait, 30)
        await trio.sleep(last)
        await self.revived(victim)

    async def paused(self, last: float) -> None:
        """SIGSTOP, SIGCONT."""
        victim = self.anyone()
        self.town.kill(victim, signal.SIGSTOP)
        await trio.sleep(last)
        self.town.kill(victim, signal.SIGCONT)

    async def isolated(self, last: float) -> None:
        """One node alone."""
        self.relays.isolate(self.anyone())
        await trio.sleep(last)

    async def halved(self, last: float) -> None:
        """Two and two: nobody has a quorum."""
        one = self.anyone()
        other = self.anyone(one)
        rest = [name for name in self.town.agencies if name not in (one, other)]
        self.relays.separate([one, other], rest)
        await trio.sleep(last)

    async def one_way(self, last: float) -> None:
        """One node hears and is not heard, or is heard and does not hear."""
        victim, mute = self.anyone(), self.draw.random() < 0.5
        for other in self.town.agencies:
            if other != victim:
                self.relays.cut(*((victim, other) if mute else (other, victim)))
        await trio.sleep(last)

    async def ring(self, last: float) -> None:
        """Each node hears its predecessor and successor only."""
        names = self.town.agencies
        self.relays.separate([names[0]], [names[2]])
        self.relays.separate([names[1]], [names[3]])
        await trio.sleep(last)

    async def slow(self, last: float) -> None:
        """A node at the end of a slow line."""
        victim = self.anyone()
        for other in self.town.agencies:
            if other != victim:
                self.relays.slow(victim, other, SLOW_SECONDS, SLOW_BYTES_PER_SECOND)
                self.relays.slow(other, victim, SLOW_SECONDS, SLOW_BYTES_PER_SECOND)
        await trio.sleep(last)

    async def broken(self, last: float) -> None:
        """Connections that break again and again."""
        end = trio.current_time() + last
        while trio.current_time() < end:
            one = self.anyone()
            self.relays.reset(one, self.anyone(one))
            await trio.sleep(0.3)

    async def clock(self, last: float) -> None:
        """A node whose clock is wrong."""
        victim = self.anyone(KEPT)
        kill(self.town, victim)
        with_clock(self.town, victim, self.draw.randrange(*CLOCK_MS))
        await self.revived(victim, signs=False)
        await trio.sleep(last)
        kill(self.town, victim)
        honest(self.town, victim)
        await self.revived(victim)

    async def full(self, last: float) -> None:
        """A disk without room."""
        self.disk.fill()

        async def failed() -> bool:
            return await metric(self.town, FULL, "comity_storage_failed") == 1

        await eventually(failed, "the node meets its full disk")
        await trio.sleep(last)
        kill(self.town, FULL)
        self.disk.free()
        await self.revived(FULL)

    async def three_killed(self, _last: float) -> None:
        """Power fails at three nodes at once: what they had promised, the disks alone know."""
        others = [name for name in self.town.agencies if name != KEPT]
        kill(self.town, *others)
        for name in others:
            self.town.start(name)
        await start_ready(self.town, *others)

    async def revived(self, agency: str, *, signs: bool = True) -> None:
        """Start a node; note how soon it has signed a certificate again."""
        watch = next(name for name in self.town.agencies if name != agency)
        begin = trio.current_time()
        await start(self.town, agency)
        if not signs:
            return
        missing = await self.signed(watch, agency)

        async def again() -> bool:
            return await self.signed(watch, agency) > missing

        await eventually(again, f"{agency} signs again")
        self.recoveries.append(trio.current_time() - begin)

    async def signed(self, watch: str, agency: str) -> float:
        """How many certificates a node has seen with the signature of another."""
        height = await metric(self.town, watch, "comity_consensus_certified_height")
        name = "comity_consensus_votes_missing_total"
        return height - await metric(self.town, watch, name, validator=agency)

    @property
    def kinds(self) -> dict[str, Callable[[float], Awaitable[None]]]:
        """All faults by name."""
        found: list[Callable[[float], Awaitable[None]]] = [
            self.killed, self.stopped, self.paused, self.isolated, self.halved, self.one_way,
            self.ring, self.slow, self.broken, self.clock, self.full, self.three_killed,
        ]  # fmt: skip
        return {each.__name__: each for each in found}

    # --- running ------------------------------------------------------------------------------

    async def run(self, seconds: float, show: Callable[[float, str], None]) -> None:
        """Draw faults until the time is over; then everything mends and comes to one state."""
        begin = trio.current_time()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch)
            async with self.load.running():
                queue: list[Callable[[float], Awaitable[None]]] = []
                while (gone := trio.current_time() - begin) < seconds:
                    if not queue:
                        kinds = list(self.kinds.values())
                        queue = self.draw.sample(kinds, len(kinds))  # each once a round
                    fault = queue.pop()
                    show(gone, fault.__name__)
                    self.load.longest_gap_seconds = 0.0
                    await fault(self.draw.uniform(*FAULT_SECONDS))
                    self.relays.heal()
                    self.faults[fault.__name__] += 1
                    await self.load.grown(5, f"after {fault.__name__}")
                    gap = max(self.gaps.get(fault.__name__, 0.0), self.load.longest_gap_seconds)
                    self.gaps[fault.__name__] = gap
                    show(trio.current_time() - begin, "rest")
                    await trio.sleep(self.draw.uniform(*REST_SECONDS))
            await agreed(self.town, height=self.load.recorder.newest_height)
            show(seconds, "comparing")
            nursery.cancel_scope.cancel()

    async def watch(self) -> None:
        """Sample the memory of every node that runs."""
        while True:
            for agency, process in self.town.processes.items():
                if process.poll() is None:
                    begun = self.born.setdefault(process.pid, trio.current_time())
                    age = trio.current_time() - begun
                    self.samples.append((agency, process.pid, age, private_mib(process.pid)))
            await trio.sleep(SAMPLE_SECONDS)

    def slopes(self) -> dict[str, dict[str, Any]]:
        """Of each node: the slope over all its processes, each from its own level."""
        found = {}
        for agency in self.town.agencies:
            lives: dict[int, list[tuple[float, float]]] = {}
            for name, pid, age, mib in self.samples:
                if name == agency and age >= WARM_UP_SECONDS:
                    lives.setdefault(pid, []).append((age / 60, mib))
            slope, minutes = joint_slope([life for life in lives.values() if len(life) > 1])
            sizes = [mib for name, _, _, mib in self.samples if name == agency]
            found[agency] = {
                "mib_per_minute": round(slope or 0.0, 3),
                "minutes_after_warm_up": round(minutes, 1),
                "judged": minutes >= JUDGED_MINUTES_MIN,
                "mib_max": round(max(sizes, default=0.0), 1),
                "processes": len({pid for name, pid, _, _ in self.samples if name == agency}),
            }
        return found


async def start_ready(town: LocalNetwork, *agencies: str) -> None:
    """Wait until nodes that were started are ready."""
    for agency in agencies:
        await trio.to_thread.run_sync(town.wait_ready, agency)


def joint_slope(lives: list[list[tuple[float, float]]]) -> tuple[float | None, float]:
    """The least-squares slope that several rows of points share, each with a level of its own.

    Returns the slope, None without points, and how much x the rows cover together.
    """
    above = below = covered = 0.0
    for life in lives:
        mean_x = sum(x for x, _ in life) / len(life)
        mean_y = sum(y for _, y in life) / len(life)
        above += sum((x - mean_x) * (y - mean_y) for x, y in life)
        below += sum((x - mean_x) ** 2 for x, _ in life)
        covered += life[-1][0] - life[0][0]
    return (above / below if below else None), covered


def private_mib(pid: int) -> float:
    """Resident pages of a process that no file is behind."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text().split()[1:3]
    except OSError:
        return 0.0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE") / 2**20


def soak(minutes: float, seed: int, folder: Path) -> dict[str, Any]:
    """Run once and return what was found."""
    seconds = minutes * 60
    console = Console(stderr=True)
    bar = Progress(
        TextColumn("{task.description:11}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
        console=console,
    )
    begin = time.monotonic()
    with (
        relayed_town(folder / "network") as (town, relays),
        full_disk(town, FULL) as disk,
        town,
        Recorder(folder / "history.jsonl") as recorder,
        bar,
    ):
        town.start_all()
        load = Load(town, recorder, seed, PAUSE_SECONDS)
        run = Soak(town, relays, disk, load, random.Random(seed))
        task = bar.add_task("soak", total=seconds, said="")

        def show(gone: float, what: str) -> None:
            said = f"{recorder.decided} decided, {recorder.read} read"
            bar.update(task, completed=min(gone, seconds), description=what, said=said)
            if not console.is_terminal:
                print(f"{gone:7.1f} s  {what:11} {said}", file=sys.stderr, flush=True)

        trio.run(run.run, seconds, show)
        found = trio.run(verdict, town, recorder)
        memory = run.slopes()
        tracebacks = [name for name in town.agencies if "Traceback" in town.log(name)]
    complaints = list(found.complaints)
    complaints += [f"{name}: an error in its log" for name in tracebacks]
    complaints += [f"none of the history: {name}" for name in MARKS if not found.marks.get(name)]
    if seconds >= ALL_SECONDS:
        complaints += [f"never came: {name}" for name in run.kinds if not run.faults[name]]
    complaints += [
        f"{name}: memory grows by {row['mib_per_minute']} MiB a minute"
        for name, row in memory.items()
        if row["judged"] and row["mib_per_minute"] >= SLOPE_MIB_PER_MINUTE_MAX
    ]
    judged_from = WARM_UP_SECONDS + 60 * JUDGED_MINUTES_MIN + 60  # starting takes less than 60 s
    if seconds >= judged_from and not memory[KEPT]["judged"]:
        complaints.append(f"{KEPT}: its memory was not watched for {JUDGED_MINUTES_MIN:g} minutes")
    return {
        "seed": seed,
        "minutes": round((time.monotonic() - begin) / 60, 1),
        "disk": disk.how,
        "faults": dict(sorted(run.faults.items())),
        "decided": recorder.decided,
        "read": recorder.read,
        "marks": found.marks,
        "memory": memory,
        "signs_again_seconds_max": round(max(run.recoveries, default=0.0), 2),
        "recoveries": len(run.recoveries),
        "longest_gap_seconds": {name: round(gap, 2) for name, gap in sorted(run.gaps.items())},
        "complaints": complaints,
    }


def tables(found: dict[str, Any]) -> list[Table]:
    """Return the summary for people."""
    counts = Table("what", "count", title=f"soak, seed {found['seed']}, {found['minutes']} minutes")
    for name in ("decided", "read", "recoveries", "signs_again_seconds_max"):
        counts.add_row(name, str(found[name]))
    for name, count in found["marks"].items():
        counts.add_row(f"checked: {name}", str(count))
    faults = Table("fault", "times", "longest s without a receipt", title="faults")
    for name, count in found["faults"].items():
        faults.add_row(name, str(count), str(found["longest_gap_seconds"].get(name, "")))
    memory = Table(
        "node", "MiB a minute", "minutes", "judged", "MiB at most", "processes", title="memory"
    )
    for name, row in found["memory"].items():
        memory.add_row(name, *(str(value) for value in row.values()))
    return [counts, faults, memory]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write what was found to this file as well")
    parser.add_argument("--keep", type=Path, help="keep network, logs and history in this folder")
    options = parser.parse_args()
    if options.minutes <= 0:
        parser.error("--minutes must be more than 0")
    folder = options.keep or Path(tempfile.mkdtemp(prefix="comity-soak-", dir="/var/tmp"))
    if options.keep:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            parser.error(f"--keep must name a folder that can be made: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        found = soak(options.minutes, options.seed, folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    console = Console()
    for table in tables(found):
        console.print(table)
    for complaint in found["complaints"]:
        console.print(f"[bold red]broken[/]: {complaint}")
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if found["complaints"] else 0)


if __name__ == "__main__":
    main()
