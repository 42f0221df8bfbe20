"""A whole network started by `comity devnet` and used through real commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process

RULES = Path(__file__).parents[2] / "configs" / "rules"
START_SECONDS_MAX = 90.0
TOKEN = "0x" + "07" * 32


class Network:
    """A running development network in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, *words: str, status: int = 0) -> Any:
        """Run a command as the registry's officer; return the JSON it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "comity.cli", *words, "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={
                **os.environ,
                "COMITY_GENESIS": str(self.folder),
                "COMITY_KEY_FILE": str(self.folder / "registry" / "keys" / "officer.key"),
            },
        )
        assert done.returncode == status, done
        assert done.stderr == ""
        return json.loads(done.stdout)


@contextmanager
def devnet(folder: Path) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """`comity devnet FOLDER --stay`, and what it printed when every node certified."""
    command = ["devnet", str(folder), "--rules", str(RULES), "--observers", "1", "--stay", "--json"]
    with (folder.parent / "devnet.out").open("w+", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "comity.cli", *command],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + START_SECONDS_MAX
            while not (text := Path(out.name).read_text(encoding="utf-8")).endswith("}\n"):
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < deadline, "the network does not certify"
                time.sleep(0.1)
            yield process, json.loads(text)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def nodes_of(process: subprocess.Popen[str]) -> list[int]:
    """Return the processes of the nodes, in the order of the committee."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii")
    return [int(each) for each in children.split()]


def test_network_is_started_used_outlives_a_node_and_is_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    with devnet(folder) as (process, started):
        assert len(started["nodes"]) == 4
        assert all(node["height"] >= 1 for node in started["nodes"].values())
        comity = Network(folder)

        person = f"person/{TOKEN}"
        inputs = {"given_name": "Ada", "family_name": "King", "street": "High 1", "town": "Oxton"}
        words = [f"{name}={value}" for name, value in inputs.items()]
        done = comity("submit", "identity.register", f"token={TOKEN}", "region=north", *words)
        assert done["code"] == "APPLIED"

        record = comity("get", person, "--server", "audit")
        assert record["fields"]["name"] == ["Ada", "King"]
        assert record["changed"] == done["height"]

        again = comity("submit", "identity.register", f"token={TOKEN}", "region=north", *words,
                       "--expect", f"{person}=0", status=1)  # fmt: skip
        assert again["code"] == "STALE"
        assert again["message"].startswith(f"{person} is at version 1 now")

        rows = comity("decisions", "--from", "0", "--count", str(again["height"] + 1))
        assert [row["txid"] for row in rows] == [done["txid"], again["txid"]]
        assert comity("decision", done["txid"], "--server", "benefits") == done
        assert comity("holds", person)["holds"] == []
        assert comity("list", "person")["ids"] == [[TOKEN]]
        assert comity("get", "person/0x" + "08" * 32, status=1)["present"] is False
        assert comity("committee")["quorum"] == 3
        assert comity("status", "--server", "treasury")["agency"] == "treasury"

        observer = started["observers"]["observer-1"]["server"]
        seen = comity("get", person, "--server", observer)
        assert (seen["fields"], seen["changed"]) == (record["fields"], record["changed"])
        said = comity("status", "--server", observer)
        assert (said["role"], said["votes"], said["agency"]) == ("observer", False, "observer-1")
        freeze = ["submit", "compliance.freeze", f"person={TOKEN}", "--server", observer]
        refused = comity(*freeze, status=1)
        assert refused["error"].startswith("no node that was named takes transactions: observer-1@")
        assert "treasury, registry, benefits, audit" in refused["hint"]

        os.kill(nodes_of(process)[0], signal.SIGKILL)
        assert comity(*freeze, "--server", "benefits")["code"] == "APPLIED"
        assert len(comity("holds", person)["holds"]) == 1

        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0
        assert err.startswith("the node of treasury ended with status -9; the others go on")
        unreachable = comity("status", "--patience", "0.5", status=3)
        assert "nothing listens" in unreachable["error"]
    for agency in {*started["nodes"], *started["observers"]} - {"treasury"}:
        assert '"stopping"' in (folder / agency / "node.log").read_text(encoding="utf-8")
