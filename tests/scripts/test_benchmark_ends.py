"""A benchmark that is ended leaves neither nodes nor their folder."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.localnet import ROOT

NODES = 4
SECONDS_MAX = 60.0


def commands_of(parent: int) -> dict[int, list[str]]:
    """Return the command lines of a process's children, by process id."""
    found: dict[int, list[str]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue  # it has ended meanwhile
        if int(status[1]) == parent and "node" in command:
            found[int(folder.name)] = command
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_benchmark_that_is_ended_stops_its_nodes_and_removes_their_folder(number: int) -> None:
    command = [sys.executable, "-m", "scripts.benchmark", "latency", "--seconds", "60"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as bench:
        nodes: dict[int, list[str]] = {}
        deadline = time.monotonic() + SECONDS_MAX
        while len(nodes) < NODES and bench.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
            nodes = commands_of(bench.pid)
        bench.send_signal(number)
        assert bench.wait(SECONDS_MAX) == 130
    assert len(nodes) == NODES
    assert [each for each in nodes if Path(f"/proc/{each}").exists()] == []
    configs = [Path(word) for words in nodes.values() for word in words if word.endswith(".toml")]
    assert len(configs) == NODES
    assert [each for each in configs if each.exists()] == []
