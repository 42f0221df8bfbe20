"""What processes take of the machine, as Linux tells it under ``/proc``.

Elsewhere nothing is told: zeros, and a bound that nothing comes near.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PROC = Path("/proc")
_GROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Used:
    """What some processes have taken: memory that no file is behind, and processor time."""

    memory_bytes: int
    cpu_seconds: float


def used(pids: Iterable[int]) -> Used:
    """Return what living processes take; those that are gone are left out. Cost: 50 µs each."""
    memory, cpu = 0, 0.0
    for pid in pids:
        try:
            resident, shared = (_PROC / str(pid) / "statm").read_text("ascii").split()[1:3]
            fields = (_PROC / str(pid) / "stat").read_text("utf-8").rpartition(")")[2].split()
        except OSError:
            continue
        memory += (int(resident) - int(shared)) * os.sysconf("SC_PAGE_SIZE")
        cpu += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Used(memory, cpu)


def memory_max_bytes() -> float:
    """Return how much this process and its children may take, by control groups or the machine."""
    return min([_machine_bytes(), *_group_limits()])


@cache
def started_seconds() -> float:
    """Return when this process began, in seconds since 1970."""
    try:
        fields = (_PROC / "self" / "stat").read_text("utf-8").rpartition(")")[2].split()
        up_seconds = float((_PROC / "uptime").read_text("ascii").split()[0])
    except OSError:
        return time.time()
    return time.time() - up_seconds + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _machine_bytes() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (OSError, ValueError):
        return math.inf


def _group_limits() -> Iterator[float]:
    """Yield the limits of this process's control group and of those around it."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text("utf-8").splitlines()
    except OSError:
        return
    place = next((line[3:] for line in lines if line.startswith("0::")), "/")
    folder = _GROUPS / place.lstrip("/")
    for each in (folder, *folder.parents):
        if not each.is_relative_to(_GROUPS):
            return
        try:
            text = (each / "memory.max").read_text("ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            yield float(text)
