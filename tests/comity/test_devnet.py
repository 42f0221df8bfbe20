"""A whole network started by `comity devnet` and used through real commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from comity.cli.app import run

pytestmark = pytest.mark.process

RULES = Path(__file__).parents[2] / "configs" / "rules"
SAID_SECONDS_MAX = 90.0
TOKEN = "0x" + "07" * 32


class Network:
    """A running development network in ``folder``.

    Commands run in this process, since each takes longer to start than to be carried out; some
    tests here and the walk of the README start the program.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def environment(self) -> dict[str, str]:
        """The registry's officer's."""
        return {
            "COMITY_GENESIS": str(self.folder),
            "COMITY_KEY_FILE": str(self.folder / "registry" / "keys" / "officer.key"),
        }

    def __call__(self, *words: str, status: int = 0) -> Any:
        """Run a command as the registry's officer; return the JSON it prints."""
        out, err = StringIO(), StringIO()
        with patch.dict(os.environ, self.environment), redirect_stdout(out), redirect_stderr(err):
            assert run([*words, "--json"]) == status, out.getvalue()
        assert err.getvalue() == ""
        return json.loads(out.getvalue())

    def program(self, *words: str, status: int = 0) -> Any:
        """Start the program for the same."""
        done = subprocess.run(
            [sys.executable, "-m", "comity.cli", *words, "--json"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, **self.environment},
        )
        assert done.returncode == status, done
        assert done.stderr == ""
        return json.loads(done.stdout)


@contextmanager
def devnet(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """`comity devnet FOLDER --stay`, and what it printed when every node certified."""
    command = ["devnet", str(folder), "--rules", str(RULES), "--observers", "1", "--stay", "--json"]
    with (folder.parent / "out").open("wb") as out, (folder.parent / "err").open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "comity.cli", *command],
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            yield process, json.loads(until_said(process, folder.parent / "out", "}\n"))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)


def until_said(process: subprocess.Popen[bytes], file: Path, last: str) -> str:
    """Wait until what it writes into a file ends so, and return it all."""
    deadline = time.monotonic() + SAID_SECONDS_MAX
    while not (text := file.read_text(encoding="utf-8")).endswith(last):
        assert process.poll() is None, file.with_name("err").read_text(encoding="utf-8")
        assert time.monotonic() < deadline, f"it does not say {last!r}"
        time.sleep(0.1)
    return text


def nodes_of(process: subprocess.Popen[bytes]) -> list[int]:
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
        register = ["submit", "identity.register", f"token={TOKEN}", "region=north", *words]
        done = comity.program(*register)
        assert done["code"] == "APPLIED"

        record = comity("get", person, "--server", "audit")
        assert record["fields"]["name"] == ["Ada", "King"]
        assert record["changed"] == done["height"]

        again = comity.program(*register, "--expect", f"{person}=0", status=1)
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

        ended = until_said(process, tmp_path / "err", "starts it again\n")
        assert ended.startswith("the node of treasury ended with status -9; the others go on")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        unreachable = comity.program("status", "--patience", "0.5", status=3)
        assert "nothing listens" in unreachable["error"]
    for agency in {*started["nodes"], *started["observers"]} - {"treasury"}:
        assert '"stopping"' in (folder / agency / "node.log").read_text(encoding="utf-8")
