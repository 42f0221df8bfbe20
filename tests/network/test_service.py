"""A node under a service manager: it says when it serves, and lives on while it waits."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from comity.founding import CONFIG_NAME
from scripts.localnet import ROOT
from tests.network.town import AGENT, found_town, home

PATIENCE_SECONDS = 40.0


def test_a_node_that_waits_for_its_peers_is_alive_to_the_watchdog(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        found_town(tmp_path / "network") as town,
    ):
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(PATIENCE_SECONDS)
        with subprocess.Popen(
            [sys.executable, "-m", "node", str(home(town, AGENT) / CONFIG_NAME)],
            cwd=ROOT,
            env={
                **os.environ,
                "NOTIFY_SOCKET": manager.getsockname(),
                "WATCHDOG_USEC": "600000",
            },
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                heard: list[str] = []
                while heard.count("WATCHDOG=1 waiting") < 3:
                    said = dict(
                        line.split("=", 1) for line in manager.recv(4096).decode().split("\n")
                    )
                    waiting = "1 of 3 validators are connected" in said.get("STATUS", "")
                    heard += [
                        f"{name}=1{' waiting' if waiting else ''}"
                        for name in ("READY", "WATCHDOG", "STOPPING")
                        if name in said
                    ]
                assert heard[0] == "WATCHDOG=1"
                assert heard.count("READY=1 waiting") == 1
                process.send_signal(signal.SIGTERM)
                while "STOPPING=1" not in heard:
                    said = manager.recv(4096).decode()
                    heard += ["STOPPING=1"] if "STOPPING=1" in said else []
                assert process.wait(PATIENCE_SECONDS) == 0
            finally:
                process.kill()
