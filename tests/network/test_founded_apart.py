"""Four agencies that do not trust one another's machines found a network, and it works.

Each has a folder of its own, sends one file, and merges what it was sent. Not here: the mistakes
that merging explains (``tests.comity.test_ceremony``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comity import founding
from comity.cli.app import DONE, UNREACHABLE, run
from comity.founding import Member
from node.network.tls import make_certificate
from scripts.localnet import LocalNetwork
from scripts.ports import free_ports
from tests.comity.test_ceremony import AGENCIES, ROOT, TERMS

Say = Callable[..., Any]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Runs a command line and returns what it prints, which must be as expected."""

    def call(*words: str | Path, status: int = DONE) -> Any:
        capsys.readouterr()
        found = run([*map(str, words), "--json"])
        out = capsys.readouterr().out
        assert found == status, out
        return json.loads(out)

    return call


@pytest.mark.long
def test_four_folders_four_merges_one_network(tmp_path: Path, say: Say) -> None:
    ports = iter(free_ports(3 * len(AGENCIES)))
    members = [Member(each, each, "127.0.0.1", *(next(ports) for _ in "123")) for each in AGENCIES]
    text = TERMS.replace("2026-11-20", "2020-01-01")
    for each in members:
        desk = tmp_path / f"desk of {each.name}"
        (desk / "rules").mkdir(parents=True)
        for rules in ("charter.toml", "identity.toml"):
            shutil.copy(ROOT / "configs" / "rules" / rules, desk / "rules")
        (desk / "terms.toml").write_text(text)
        doors = [f"--peers=127.0.0.1:{each.peer_port}", f"--clients=127.0.0.1:{each.client_port}"]
        line = ("enrol", desk / "terms.toml", "--agency", each.name, *doors, "-o", desk / "node")
        said = say("network", *line)
        # what is sent, and nothing else
        shutil.copy(said["member"], tmp_path / f"{each.name}.member")
    sent = [tmp_path / f"{each}.member" for each in AGENCIES]
    chains, transcripts = set(), set()
    for each in members:
        desk = tmp_path / f"desk of {each.name}"
        said = say("network", "merge", desk / "terms.toml", *sent, "-o", desk / "node")
        assert said["agency"] == each.name
        chains.add(said["chain"])
        transcripts.add((desk / "node" / "transcript.txt").read_text())
        config = desk / "node" / "node.toml"
        telemetry = f'telemetry = "127.0.0.1:{each.telemetry_port}"'
        config.write_text(config.read_text().replace('telemetry = "127.0.0.1:9400"', telemetry))
        shutil.move(desk / "node", tmp_path / "net" / each.name)
    assert len(chains) == len(transcripts) == 1
    genesis = tmp_path / "net" / "registry" / "genesis.cbor"
    shutil.copy(genesis, tmp_path / "net" / "genesis.cbor")
    with LocalNetwork(tmp_path / "net", members) as network:
        network.start_all()
        for each in AGENCIES:
            assert say("status", "--genesis", genesis, "--server", each)["agency"] == each
    # the archive proves itself: the same files make the same network again
    archive = tmp_path / "archive"
    again = say("network", "merge", tmp_path / "desk of social/terms.toml", *sent, "-o", archive)
    assert {again["chain"]} == chains
    assert {(archive / "transcript.txt").read_text()} == transcripts


def test_a_node_of_another_network_is_told_from_one_that_is_down(
    town: LocalNetwork, tmp_path: Path, say: Say
) -> None:
    rules = [founding.encode_rules([ROOT / "configs/rules/charter.toml"])[0]]
    other = founding.found(
        "other", town.members, rules, [], [], time_ms=1, make_certificate=make_certificate
    )
    (tmp_path / "genesis.cbor").write_bytes(other.genesis)
    line = ("status", "--genesis", tmp_path, "--server", "treasury", "--patience", "0.5")
    said = say(*line, status=UNREACHABLE)
    assert "shows another certificate than the one that the committee names" in said["error"]
    assert "another machine listens there" in said["hint"]
    for command in (("node", "status"), ("network", "members")):
        said = say(*command, *line[1:], status=UNREACHABLE)
        assert "shows another certificate than the one that the committee names" in said["error"]
