"""A disk that can be full: a small file system of its own under a node's data.

``full_disk`` mounts a tmpfs where the data folder will be, if this user may mount; ``how`` says so.
Elsewhere the node's process is forbidden to make files longer than they are (RLIMIT_FSIZE), which
it meets as the error EFBIG. Either way the node runs into a write that fails, for as long as the
disk stays full.

Not here: what the node makes of it (``tests/network/test_faults.py``).
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.localnet import LOG_NAME, LocalNetwork

TMPFS = "tmpfs"
FSIZE = "RLIMIT_FSIZE"
SIZE_MIB = 512
"""Of the file system. tmpfs takes memory for what is written only."""
BALLAST = "ballast"
CHUNK_BYTES = 1 << 20
LOG_SPARE_BYTES = 64 * 1024
"""Room for the node's last words, where the limit is on the length of files."""


@dataclass
class Disk:
    """The disk of one node's data. ``how``: TMPFS or FSIZE."""

    town: LocalNetwork
    agency: str
    how: str

    @property
    def data(self) -> Path:
        """The data folder."""
        return self.town.folder / self.agency / "data"

    def fill(self) -> None:
        """Leave not a byte of room."""
        if self.how == FSIZE:
            size = (self.town.folder / self.agency / LOG_NAME).stat().st_size
            self._limit(size + LOG_SPARE_BYTES)
            return
        with (self.data / BALLAST).open("ab", buffering=0) as file:
            length = CHUNK_BYTES
            while length:
                try:
                    written = file.write(bytes(length))
                except OSError:
                    written = 0
                if written < length:
                    length //= 2

    def free(self) -> None:
        """Make room again; a process that is dead needs none."""
        if self.how == TMPFS:
            (self.data / BALLAST).unlink(missing_ok=True)
        elif self.town.running(self.agency):
            self._limit(resource.RLIM_INFINITY)

    def _limit(self, size: int) -> None:
        pid = self.town.processes[self.agency].pid
        hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


@contextmanager
def full_disk(town: LocalNetwork, agency: str) -> Iterator[Disk]:
    """Give a node that was not started yet a disk that can be filled; it goes at the end."""
    disk = Disk(town, agency, TMPFS)
    disk.data.mkdir(parents=True, exist_ok=True)
    disk.data.chmod(0o700)
    options = f"size={SIZE_MIB}m,mode=0700"
    words = ["mount", "-t", "tmpfs", "-o", options, "comity-test", str(disk.data)]
    try:
        mounted = subprocess.run(words, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        yield Disk(town, agency, FSIZE)
        return
    try:
        yield disk
    finally:
        with contextlib.suppress(OSError):
            subprocess.run(["umount", "-l", str(disk.data)], capture_output=True, check=False)
