"""The previous release's nodes beside this one's, exchanged one at a time under load.

As there is no release yet, the previous one is a fixed commit of this repository, taken out of its
history with ``git archive``; where that is not to be had (a shallow clone, no git), ``Unavailable``
says why. The network is founded by the previous release, with its rules.

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

PREVIOUS: Final = "b16ba49f53e86172d9f2533ad3748be150e29408"
"""The commit that stands for the previous release; a release's tag takes its place."""
PARTS: Final = ("comity", "configs", "consensus", "node", "scripts", "tests")
_FOUND: Final = """\
import dataclasses, json, sys
from pathlib import Path
from tests.network.town import found_town
network = found_town(Path(sys.argv[1]))
print(json.dumps([dataclasses.asdict(member) for member in network.members]))
"""


class Unavailable(Exception):
    """The previous release is not to be had here. The message says why."""


def previous_release(folder: Path) -> Path:
    """Return a folder with the previous release's program.

    Raises:
        Unavailable: this is no clone with that history.
    """
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "archive", PREVIOUS, *PARTS], capture_output=True, check=False
        )
    except OSError as error:
        raise Unavailable(f"there is no git: {error}") from error
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise Unavailable(f"commit {PREVIOUS} is not in this clone: {said[-1] if said else ''}")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as tar:
        tar.extractall(folder)
    return folder


@dataclass(slots=True)
class MixedNetwork(LocalNetwork):
    """Nodes of which some run another release's program: ``roots`` has its folder, by agency."""

    roots: dict[str, Path] = field(default_factory=dict)

    def start(self, agency: str) -> None:
        """Start one node's process with its own program."""
        root = self.roots.get(agency)
        if root is None:
            LocalNetwork.start(self, agency)
            return
        home = self.folder / agency
        with (home / LOG_NAME).open("ab") as log:
            self.processes[agency] = subprocess.Popen(
                [sys.executable, "-m", "node", str(home / founding.CONFIG_NAME)],
                cwd=root,
                env=_environment(root),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def founded_by(root: Path, folder: Path) -> MixedNetwork:
    """Return a network that another release founded, all of whose nodes run its program."""
    done = subprocess.run(
        [sys.executable, "-c", _FOUND, str(folder)],
        cwd=root,
        env=_environment(root),
        stdout=subprocess.PIPE,
        check=True,
    )
    members = [Member(**row) for row in json.loads(done.stdout.splitlines()[-1])]
    return MixedNetwork(folder, members, roots=dict.fromkeys([m.name for m in members], root))


def _environment(root: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(root)}
