"""A sealed value on the wire: every frame of every node is read before TLS, in one process.

Each node runs in tasks of its own context, so that what it sends and receives is known as its own.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from comity import Call, Client, Sealed
from comity.founding import CONFIG_NAME
from comity.keys import Key
from consensus.sealed import Item
from node import config
from node.network.framing import FrameReader, FrameWriter
from node.runtime import Node
from scripts.localnet import ROOT, LocalNetwork, found
from tests.network.test_sealed import OUTSIDE, PEOPLE
from tests.network.town import TUNING, eventually

IBAN = "DE02 1203 0000 0000 2020 51"
FINDINGS = "the roof leaks over the archive"
WHO: ContextVar[str] = ContextVar("who", default="")


@dataclass
class Wire:
    """What each node sent and received, by agency, before and after TLS."""

    sent: dict[str, list[bytes]] = field(default_factory=dict)
    received: dict[str, list[bytes]] = field(default_factory=dict)

    def having(self, frames: dict[str, list[bytes]], secret: bytes) -> list[str]:
        return sorted(
            agency for agency, each in frames.items() if any(secret in frame for frame in each)
        )


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    made = Wire()
    send, read = FrameWriter.send, FrameReader.read

    async def sending(self: FrameWriter, data: bytes) -> None:
        made.sent.setdefault(WHO.get(), []).append(bytes(data))
        await send(self, data)

    async def reading(self: FrameReader) -> list[bytes]:
        frames = await read(self)
        made.received.setdefault(WHO.get(), []).extend(frames)
        return frames

    monkeypatch.setattr(FrameWriter, "send", sending)
    monkeypatch.setattr(FrameReader, "read", reading)
    return made


@pytest.fixture
def salts(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    made: list[bytes] = []

    def noted(*parts: Any) -> Any:
        made.append(parts[4])
        return Item(*parts)

    monkeypatch.setattr("comity.sealing.Item", noted)
    return made


class Nodes:
    """The nodes of a network, in this process."""

    def __init__(self, network: LocalNetwork, nursery: trio.Nursery) -> None:
        self.network = network
        self._nursery = nursery
        self._scopes: dict[str, tuple[trio.CancelScope, trio.Event]] = {}

    async def start(self, agency: str) -> None:
        path = self.network.folder / agency / CONFIG_NAME
        node = Node(config.load(path, {}), structlog.get_logger())
        scope, over = trio.CancelScope(), trio.Event()
        self._scopes[agency] = scope, over

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            WHO.set(agency)
            try:
                with scope:
                    await node.run(task_status=task_status)
            finally:
                over.set()

        await self._nursery.start(run)

    async def stop(self, agency: str) -> None:
        scope, over = self._scopes.pop(agency)
        scope.cancel()
        await over.wait()


@asynccontextmanager
async def nodes(folder: Path) -> AsyncIterator[Nodes]:
    rules = [ROOT / "configs/rules/charter.toml", Path(__file__).with_name("sealed.toml")]
    network = found(folder, rules, PEOPLE, tuning=TUNING)
    async with trio.open_nursery() as nursery:
        running = Nodes(network, nursery)
        for agency in network.agencies:
            await running.start(agency)
        yield running
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client(network: LocalNetwork, agency: str, name: str) -> AsyncIterator[Client]:
    key: Key = network.key(agency, name)
    async with Client.connect(
        network.genesis, servers=[agency], key=key, patience_seconds=20
    ) as found_client:
        yield found_client


async def look(network: LocalNetwork, agency: str, name: str) -> dict[str, object]:
    async with client(network, agency, name) as reader:
        found = await reader.unseal(await reader.get("record", "file", 1))
        return {
            name: each.value if each.state == "open" else each.state for name, each in found.items()
        }


@pytest.mark.process
async def test_no_frame_of_a_node_outside_the_audience_has_value_or_salt(
    tmp_path: Path, wire: Wire, salts: list[bytes]
) -> None:
    async with nodes(tmp_path / "network") as running:
        network = running.network
        async with client(network, "social", "clerk") as clerk:
            inputs = {"number": 1, "since": 1, "iban": Sealed(IBAN), "findings": Sealed(FINDINGS)}
            call = Call("files", "open", inputs)
            done = await clerk.transact(call, reads=await clerk.read_for(call))
            assert done.applied, done.detail
            commitment = (await clerk.get("record", "file", 1)).fields["iban"]
        assert await look(network, "registry", "outsider") == {
            "iban": "sealed",
            "findings": "sealed",
        }
        secrets = [IBAN.encode(), FINDINGS.encode(), *salts]
        assert len(secrets) == 4
        for secret in secrets:  # nobody has asked for a value yet: no node has sent one
            assert wire.having(wire.sent, secret) == []
            assert wire.having(wire.received, secret) in (["treasury"], ["integrity", "treasury"])
        assert wire.having(wire.received, IBAN.encode()) == ["treasury"]
        assert "registry" in wire.having(wire.received, commitment)  # so frames are read at all

        await running.stop("integrity")
        shutil.rmtree(network.folder / "integrity" / "data" / "sealed")
        await running.start("integrity")
        keys = network.folder / "integrity" / "data" / "sealed" / "keys"

        async def fetched() -> bool:
            seen = await look(network, "integrity", "auditor")
            assert seen == {"iban": "sealed", "findings": FINDINGS}
            return keys.stat().st_size > 0

        await eventually(fetched, "the value is fetched")
        assert wire.having(wire.sent, FINDINGS.encode()) == ["integrity", "treasury"]
        assert wire.having(wire.received, FINDINGS.encode()) == ["integrity", "treasury"]
        assert wire.having(wire.sent, IBAN.encode()) == []
        for agency in OUTSIDE:
            frames = b"".join(wire.sent[agency] + wire.received[agency])
            assert [secret for secret in secrets if secret in frames] == []
