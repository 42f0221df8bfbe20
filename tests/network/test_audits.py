"""Audits of the real network: a running node, its data once it is stopped, copies of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import trio

from comity import Call
from comity.cli.app import run
from comity.errors import RequestError
from consensus.protocol import Status
from scripts.localnet import LocalNetwork
from tests.network.town import client, data, kill, start

pytestmark = pytest.mark.process

AGENCY = "social"


def audited(capture: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    capture.readouterr()
    status = run(("audit", *words, "--json"))
    return status, json.loads(capture.readouterr().out)


async def worked(town: LocalNetwork) -> int:
    """Pay something; return the height of the payment."""
    async with client(town, AGENCY) as clerk:
        call = Call("desk", "pay", {"source": 25, "target": 26, "amount": 1})
        done = await clerk.transact(call, reads=await clerk.read_for(call))
        assert done.applied, done.detail
        await clerk.past(done.height - 1)
        return done.height


def test_a_node_is_audited_while_it_runs_when_it_is_stopped_and_from_a_copy(
    town: LocalNetwork, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    height = trio.run(worked, town)
    genesis = str(town.folder / "genesis.cbor")
    key = str(town.key_file("treasury", "clerk0"))
    asked = (AGENCY, "--genesis", genesis, "--key", key)
    status, live = audited(capsys, *asked)
    assert (status, live["holds"]) == (0, True)
    assert live["certified"] >= height
    assert live["transactions"] >= 1
    status, said = audited(capsys, *asked, "--to", str(height), "--export", str(tmp_path / "a"))
    assert status == 0
    status, exported = audited(capsys, str(tmp_path / "a"), "--genesis", live["chain"])
    assert (status, exported["certified"] >= height) == (0, True)
    status, said = audited(capsys, str(town.folder / AGENCY))
    assert (status, said["code"]) == (2, "SOURCE")
    assert "a node runs" in said["error"]
    kill(town, AGENCY)
    known = f"{exported['to']}:{exported['statement'].removeprefix('0x')}"
    status, stopped = audited(capsys, str(town.folder / AGENCY), "--trust", known)
    assert (status, stopped["holds"]) == (0, True)
    assert stopped["certified"] >= live["certified"]
    assert stopped["rows"] > 0
    copy = tmp_path / "copy"
    shutil.copytree(data(town, AGENCY), copy)
    trio.run(start, town, AGENCY)
    status, copied = audited(capsys, str(copy), "--genesis", genesis)
    assert (status, copied["statement"]) == (0, stopped["statement"])


async def test_blocks_are_for_those_from_whom_nothing_is_kept(town: LocalNetwork) -> None:
    auditor, visitor = town.key("integrity", "auditor"), town.key("registry", "visitor")
    for key in (auditor, visitor):
        async with client(town, AGENCY, key=key) as reader:
            with pytest.raises(RequestError) as caught:
                await reader.blocks(0)
            assert caught.value.status == Status.DENIED
    async with client(town, AGENCY) as clerk:
        await clerk.past(0)  # a height above it is certified
        page = await clerk.blocks(0, 2)
        assert len(page.heights) == 2
        assert page.certified >= 1
        with pytest.raises(RequestError):
            await clerk.past(10**9)
