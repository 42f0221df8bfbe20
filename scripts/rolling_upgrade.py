"""The previous release's nodes beside this one's, exchanged one at a time under load.

As there is no release yet, the previous one is a fixed commit of this repository, taken out of its
history with ``git archive``; where that is not to be had (a shallow clone, no git), ``Unavailable``
says why. What runs is what would be installed: the wheel that is built of it, in a folder of its
own. The network is founded by the previous release, with its rules.

The commit is the last one before protocols had minor versions and nodes told of executors to come,
with committees that change: what a network in use had before it upgraded to this. An earlier one
would try less, since its formats of disk and wire are the same but for what it does not have.

Not here: the load and what is checked (``tests.network``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Final

from comity import founding
from comity.founding import Member
from scripts.localnet import LOG_NAME, ROOT, LocalNetwork

PREVIOUS: Final = "c34cdf0abffbe32f3db9732fb94fb71579ae44d7"
"""The commit that stands for the previous release; a release's tag takes its place."""
ASIDE: Final = ("configs", "scripts", "tests")
"""What is not in the wheel and founds the network: rules, and the tests' people and accounts."""
BUILD_SECONDS_MAX: Final = 300.0
_FOUND: Final = """\
import dataclasses, json, sys
from pathlib import Path
from scripts import localmembers
from tests.network.town import OPENING, PEOPLE, RULES, TUNING, WALLETS
from consensus.genesis import OpeningBalance
accounts = [OpeningBalance("wallet", (number,), OPENING) for number in range(2 * WALLETS)]
town = localmembers.found(Path(sys.argv[1]), RULES, PEOPLE, accounts, tuning=TUNING)
print(json.dumps([dataclasses.asdict(member) for member in town.network.members]))
"""


class Unavailable(Exception):
    """The previous release is not to be had here. The message says why."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release's wheel, installed into ``site``, and the folder with what is not in it."""

    wheel: str
    site: Path
    aside: Path


def previous_release(folder: Path) -> Release:
    """Build the previous release's wheel in a folder, and install it there.

    Raises:
        Unavailable: this is no clone with that history, or nothing here builds wheels.
    """
    source, site, aside = folder / "source", folder / "site", folder / "aside"
    source.mkdir()
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "archive", PREVIOUS], capture_output=True, check=False
        )
    except OSError as error:
        raise Unavailable(f"there is no git: {error}") from error
    if done.returncode:
        raise Unavailable(f"commit {PREVIOUS} is not in this clone: {_last(done.stderr)}")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as tar:
        tar.extractall(source)
    _pip("wheel", "--wheel-dir", str(folder), str(source))
    [wheel] = folder.glob("comity-*.whl")
    _pip("install", "--target", str(site), str(wheel))
    aside.mkdir()
    for name in ASIDE:
        (source / name).rename(aside / name)
    return Release(wheel.name, site, aside)


def _pip(command: str, *words: str) -> None:
    """Run pip without a network and without dependencies: those of this environment serve."""
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-index"]
    if command == "wheel":
        options.append("--no-build-isolation")
    done = subprocess.run(
        [sys.executable, "-m", "pip", command, *options, *words],
        capture_output=True,
        check=False,
        timeout=BUILD_SECONDS_MAX,
    )
    if done.returncode:
        raise Unavailable(f"pip {command} of commit {PREVIOUS} failed: {_last(done.stderr)}")


def _last(said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"


@dataclass(slots=True)
class MixedNetwork(LocalNetwork):
    """Nodes of which some run another release's program, by agency."""

    releases: dict[str, Release] = field(default_factory=dict)

    def start(self, agency: str) -> None:
        """Start one node's process with its own program."""
        release = self.releases.get(agency)
        if release is None:
            LocalNetwork.start(self, agency)
            return
        home = self.folder / agency
        with (home / LOG_NAME).open("ab") as log:
            self.processes[agency] = subprocess.Popen(
                [sys.executable, "-m", "node", str(home / founding.CONFIG_NAME)],
                cwd=release.site,
                env=_environment(release.site),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def founded_by(release: Release, folder: Path) -> MixedNetwork:
    """Return a network that another release founded, all of whose nodes run its program."""
    done = subprocess.run(
        [sys.executable, "-c", _FOUND, str(folder)],
        cwd=release.aside,
        env=_environment(release.site, release.aside),
        stdout=subprocess.PIPE,
        check=True,
    )
    members = [Member(**row) for row in json.loads(done.stdout.splitlines()[-1])]
    return MixedNetwork(folder, members, releases={each.name: release for each in members})


def runs_from(release: Release) -> Path:
    """Return where Python finds the program when a node of a release is started."""
    done = subprocess.run(
        [sys.executable, "-c", "import node, consensus; print(node.__file__)"],
        cwd=release.site,
        env=_environment(release.site),
        stdout=subprocess.PIPE,
        check=True,
    )
    return Path(done.stdout.decode().strip())


def _environment(*folders: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
