"""What a node does with what its links bring."""

from __future__ import annotations

import resource
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import structlog

from consensus import genesis
from consensus.errors import LocalProtocolError, RemoteProtocolError
from node import config, main
from node.keyring import Keyring
from node.network.wire import Class
from node.runtime import Node
from scripts import localnet

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

RULES = Path(__file__).resolve().parents[2] / "configs" / "rules"


def opened(folder: Path) -> Node:
    network = localnet.found(folder, [RULES / "charter.toml"])
    place = folder / network.agencies[0] / "node.toml"
    return Node(config.load(place, {}), structlog.get_logger())


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A node that is open and not running."""
    node = opened(tmp_path / "network")
    yield node
    node.engine.close()


def taking(node: Node, monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[bytes]:
    """Have the engine fail on every frame; return those it gets."""
    taken: list[bytes] = []

    def take(peer: int, cls: Class, payload: bytes) -> None:
        taken.append(payload)
        raise error

    monkeypatch.setattr(node.engine, "take", take)
    return taken


def test_a_frame_that_proves_a_fault_closes_its_link_and_no_other(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed: list[tuple[int, str, str]] = []
    monkeypatch.setattr(node.network, "close_link", lambda *link: closed.append(link))
    taken = taking(node, monkeypatch, RemoteProtocolError("a vote nobody signed"))
    node.received(1, Class.CONSENSUS, b"forged")
    node.received(2, Class.CONSENSUS, b"forged too")
    assert taken == [b"forged", b"forged too"]
    assert closed == [
        (1, "a vote nobody signed", "PROTOCOL"),
        (2, "a vote nobody signed", "PROTOCOL"),
    ]


def test_after_an_own_bug_the_engine_hears_of_nothing_more(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = taking(node, monkeypatch, LocalProtocolError("a bug of ours"))
    with pytest.raises(LocalProtocolError, match="a bug of ours"):
        node.received(1, Class.CONSENSUS, b"one")
    node.received(2, Class.CONSENSUS, b"two")
    assert taken == [b"one"]


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["one.toml", "two.toml"]])
def test_the_module_says_how_it_is_called(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["node", *words])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("node", run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err == "usage: python -m node CONFIG\n"


def test_clients_get_as_many_connections_as_the_systems_limit_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (1000, 1000))
    node = opened(tmp_path / "network")
    assert node.api.limits.connections_max == 1000 - 768
    node.engine.close()


class Told(Exception):
    """What the log was told; ends the node."""


class Loud:
    """A log whose first warning ends the node."""

    def warning(self, event: str, **more: object) -> None:
        raise Told(event)


async def test_a_clock_before_the_genesis_time_is_told_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = localnet.found(tmp_path / "network", [RULES / "charter.toml"])
    found = config.load(tmp_path / "network" / network.agencies[0] / "node.toml", {})
    monkeypatch.setattr(main, "wall_ms", lambda: genesis.decode(network.genesis).time_ms - 1)
    with pytest.RaisesGroup(pytest.RaisesExc(Told, match="clock is before the genesis time")):
        await main._run(found, cast("FilteringBoundLogger", Loud()), Keyring.of(found, {}))
