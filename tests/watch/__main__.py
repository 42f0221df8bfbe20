"""``scripts/watch``: break a real network in every way and see which alerts fire.

    scripts/watch                     every scene
    scripts/watch --only disk clock   those whose names contain one of these words
    scripts/watch --list              the scenes, and the alerts that none provokes

Four nodes work under load on this machine; Debian's Prometheus scrapes them with the rules of
``deploy/prometheus``, whose ``for`` alone is 60 times shorter. In each scene every alert that the
fault must bring has to fire, and none that it does not explain; before it, none at all.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trio
from rich.console import Console
from rich.table import Table

from comity import Client
from scripts.localnet import LocalNetwork
from tests.network.harness.history import Recorder
from tests.network.harness.load import Load
from tests.network.harness.network import honest, relays_between
from tests.network.town import agreed, eventually, found_changing, start, status
from tests.watch.boards import empty
from tests.watch.prometheus import Firing, Prometheus, alerts, names, present
from tests.watch.scenes import DISK_MIB, NOT_PROVOKED, SCENES, Scene, Stage, nothing

POLL_SECONDS = 0.5
SCENE_SECONDS_MAX = 180.0
PAUSE_SECONDS = 0.03
RESTS_SECONDS = 0.1
FLUSHED_WITHIN = 64


@dataclass
class Outcome:
    """What a scene brought.

    ``before``: alerts that fired while nothing was broken. ``empty``: panels that show nothing.
    """

    scene: Scene
    seconds: float = 0.0
    before: set[Firing] = field(default_factory=set)
    fired: set[Firing] = field(default_factory=set)
    empty: list[str] = field(default_factory=list)

    @property
    def missing(self) -> list[str]:
        """What had to fire and did not."""
        return sorted(
            f"{name} of {agency or 'any'}"
            for name, agency in self.scene.must
            if not any(each[0] == name and agency in ("", each[1]) for each in self.fired)
        )

    @property
    def false(self) -> list[str]:
        """What fired and is not explained."""
        explained = {name for name, _ in self.scene.must} | self.scene.may
        wrong = {each for each in self.fired if each[0] not in explained} | self.before
        return sorted(" ".join(each).strip() for each in wrong)


class Work(Load):
    """The usual load, which rests while a scene has its own clients."""

    stage: Stage

    async def _once(self, own: Client, name: str) -> None:
        if self.stage.pausing:
            await trio.sleep(RESTS_SECONDS)
        else:
            await super()._once(own, name)


@contextmanager
def own_disks(town: LocalNetwork) -> Iterator[bool]:
    """A file system of its own for each node's data, if this user may mount; yields whether."""
    mounted: list[Path] = []
    try:
        for agency in town.agencies:
            data = town.folder / agency / "data"
            data.mkdir(mode=0o700, exist_ok=True)
            options = f"size={DISK_MIB}m,mode=0700"
            words = ["mount", "-t", "tmpfs", "-o", options, "comity-watch", str(data)]
            if subprocess.run(words, capture_output=True, check=False).returncode:
                break
            mounted.append(data)
        yield len(mounted) == len(town.agencies)
    finally:
        for data in mounted:
            subprocess.run(["umount", "-l", str(data)], capture_output=True, check=False)


async def played(scene: Scene, stage: Stage, folder: Path) -> Outcome:
    """Play one scene."""
    outcome = Outcome(scene)
    begin = time.monotonic()
    with Prometheus(folder, stage.town) as prometheus:

        async def firing() -> set[Firing]:
            return await trio.to_thread.run_sync(prometheus.firing)

        await trio.sleep(scene.calm_seconds)
        outcome.before = await firing()

        async def collect() -> None:
            while True:
                outcome.fired |= await firing()
                await trio.sleep(POLL_SECONDS)

        async def until() -> None:
            with trio.move_on_after(SCENE_SECONDS_MAX):
                while outcome.missing:  # noqa: ASYNC110 - of another program
                    await trio.sleep(POLL_SECONDS)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            await scene.play(stage, until)
            if scene.play is nothing:
                outcome.empty = await trio.to_thread.run_sync(empty, prometheus)
            nursery.cancel_scope.cancel()
    stage.pausing = False
    outcome.seconds = time.monotonic() - begin
    return outcome


async def mended(stage: Stage) -> None:
    """Have every node run as it should, all at one height."""
    town = stage.town
    stage.relays.heal()
    for agency in town.agencies:
        honest(town, agency)
        if not town.running(agency):
            await start(town, agency)
        town.kill(agency, signal.SIGCONT)
    await agreed(town)
    for agency in town.agencies:

        async def is_flushed() -> bool:
            said = await status(town, agency)  # noqa: B023 - awaited before the next
            return bool(said) and said["certified"] - said["flushed"] < FLUSHED_WITHIN

        await eventually(is_flushed, f"{agency} writes its store")


async def run(chosen: Sequence[Scene], stage: Stage, load: Work, folder: Path) -> list[Outcome]:
    """Play scenes one after the other under load."""
    console = Console(stderr=True)
    outcomes = []
    async with load.running():
        await load.grown(20, "before anything is broken")
        for number, scene in enumerate(chosen):
            outcome = await played(scene, stage, folder / f"prometheus-{number}")
            outcomes.append(outcome)
            fired = ", ".join(sorted(names(outcome.fired))) or "nothing"
            console.print(f"{outcome.seconds:6.1f} s  {scene.name}: {fired}")
            for what, found in found_in(outcome):
                if found:
                    console.print(f"          [red]{what}[/]: {', '.join(found)}")
            await mended(stage)
    return outcomes


def found_in(outcome: Outcome) -> list[tuple[str, list[str]]]:
    """What is wrong in a scene, by kind."""
    return [("silent", outcome.missing), ("false", outcome.false), ("empty", outcome.empty)]


def uncovered() -> set[str]:
    """Alerts that no scene provokes and of which it is not said why."""
    provoked = {name for scene in SCENES for name, _ in scene.must}
    return {each["alert"] for each in alerts()} - provoked - set(NOT_PROVOKED)


def tables(outcomes: Sequence[Outcome]) -> list[Table]:
    """The summary for people."""
    scenes = Table("scene", "seconds", "fired as they must", "also, explained", "silent", "false")
    for each in outcomes:
        must = {name for name, _ in each.scene.must}
        fired = names(each.fired)
        scenes.add_row(
            each.scene.name,
            f"{each.seconds:.0f}",
            "\n".join(sorted(must & fired)),
            "\n".join(sorted(fired & each.scene.may - must)),
            "\n".join(each.missing),
            "\n".join(each.false),
        )
    missing = Table("not provoked", "why")
    for name, why in NOT_PROVOKED.items():
        missing.add_row(name, why)
    return [scenes, missing]


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="watch", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], help="words of the scenes to play")
    parser.add_argument("--list", action="store_true", help="show the scenes and end")
    parser.add_argument("--json", type=Path, help="write what was found to this file as well")
    parser.add_argument("--keep", type=Path, help="keep network, logs and series in this folder")
    options = parser.parse_args()
    if options.list:
        for scene in SCENES:
            print(f"{scene.name}: {', '.join(sorted({n for n, _ in scene.must})) or 'nothing'}")
        for name, why in NOT_PROVOKED.items():
            print(f"never {name}: {why}")
        return
    if not present():
        parser.error("there is no Prometheus here; scripts/tools installs Debian's")
    chosen = [each for each in SCENES if any(word in each.name for word in options.only)]
    if not chosen:
        parser.error("no scene has a name like that; --list shows them")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = options.keep or Path(tempfile.mkdtemp(prefix="comity-watch-", dir="/var/tmp"))
    if options.keep:
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            parser.error(f"--keep must name a folder that can be made: {error}")
    console = Console()
    try:
        with ExitStack() as stack:
            changing = found_changing(folder / "network")
            relays = stack.enter_context(relays_between(changing.network))
            disks = stack.enter_context(own_disks(changing.network))
            town = stack.enter_context(changing.network)
            recorder = stack.enter_context(Recorder(folder / "history.jsonl"))
            town.start_all()
            stage = Stage(changing, relays, disks)
            load = Work(town, recorder, 1, PAUSE_SECONDS)
            load.stage = stage
            playable = [each for each in chosen if disks or not each.needs_disks]
            outcomes = trio.run(run, playable, stage, load, folder)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    for table in tables(outcomes):
        console.print(table)
    for scene in chosen:
        if scene not in [each.scene for each in outcomes]:
            console.print(f"not played, since this user may not mount: {scene.name}")
    if options.json:
        found = [
            {
                "scene": each.scene.name,
                "seconds": round(each.seconds, 1),
                "fired": sorted(each.fired),
                "silent": each.missing,
                "false": each.false,
                "empty": each.empty,
            }
            for each in outcomes
        ]
        options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    sys.exit(1 if any(found for each in outcomes for _, found in found_in(each)) else 0)


if __name__ == "__main__":
    main()
