"""Who holds a lock: the process that the kernel names, as far as this one may see it.

Under a hardened unit (``ProcSubset=pid``), in another process namespace and on a network file
system nobody is named; the lock holds all the same. Source: proc(5), ``/proc/locks``.
"""

from __future__ import annotations

import fcntl
import os
import re
from pathlib import Path
from typing import Final

LOCKS: Final = Path("/proc/locks")
_ROW: Final = re.compile(
    r"^\d+: FLOCK +\S+ +\S+ +(\d+) +([0-9a-f]+):([0-9a-f]+):(\d+) ", re.MULTILINE
)


def is_held(path: Path) -> bool:
    """Return whether a process has the file at ``path`` locked for itself."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False  # a copy without it
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def holder_words(path: Path) -> str:
    """Return `` (process 4711, comity)`` of who has the file at ``path`` locked; "" if unknown."""
    try:
        status = path.stat()
        text = LOCKS.read_text()
    except OSError:
        return ""
    place = os.major(status.st_dev), os.minor(status.st_dev)
    for pid, major, minor, inode in _ROW.findall(text):
        if int(inode) == status.st_ino and (int(major, 16), int(minor, 16)) == place:
            return process_words(int(pid))
    return ""


def process_words(pid: int) -> str:
    """Return `` (process 4711, comity)``; "" where the process is in another namespace."""
    if pid <= 0:
        return ""
    try:
        name = Path(f"/proc/{pid}/comm").read_text(errors="replace").strip()
    except OSError:
        name = ""
    return f" (process {pid}{f', {name}' if name else ''})"
