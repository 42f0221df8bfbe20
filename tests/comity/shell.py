"""The command line against a node in memory: words in, exit status and output out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import comity.client
from comity import Client, keys
from comity.cli.app import run
from consensus import keyfile
from consensus.keyfile import KeyKind
from tests.comity.twin import Twin, harness

SEEDS = {"official": 50, "administrator": 51, "citizen": 52, "stranger": 53}


@dataclass(frozen=True)
class Said:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON value printed."""
        return json.loads(self.out)


class Shell:
    """Runs commands in a folder with a genesis file and key files."""

    def __init__(self, folder: Path, twin: Twin, capture: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.twin = twin
        self._capture = capture
        (folder / "genesis.cbor").write_bytes(twin.genesis.encode())
        for name, seed in SEEDS.items():
            pair = keyfile.from_seed(KeyKind.CLIENT, bytes([seed]) * 32)
            keys.create(folder / f"{name}.key", pair)

    def __call__(self, *words: str) -> Said:
        """Run one command line; no command may end in a traceback."""
        self._capture.readouterr()
        status = run(words)
        out, err = self._capture.readouterr()
        assert "Traceback" not in out + err
        return Said(status, out, err)

    def note(self, number: int, text: str = "n") -> Said:
        """Write a note as the official."""
        return self(
            "submit", "notes.write", f"number={number}", f"text={text}", "amount=5", "--json"
        )


def in_memory(twin: Twin) -> Callable[..., Any]:
    """Return a stand-in for ``Client.connect`` that reaches the twin without sockets."""

    @asynccontextmanager
    async def connect(genesis: bytes, **given: Any) -> AsyncIterator[Client]:
        servers = given.pop("servers") or ["north"]
        failure: Exception | None = None
        async with harness(twin) as h, h.client(given.pop("key"), servers=servers, **given) as c:
            try:
                yield c
            except Exception as error:
                failure = error  # raised below as it is, as the client does
        if failure is not None:
            raise failure

    return connect


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """A shell in a fresh folder, acting as the official on a fresh ledger."""
    return open_shell(Twin(), tmp_path, monkeypatch, capsys)


@pytest.fixture
def idle_shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """The same on a ledger that all its users share, for what changes nothing."""
    return open_shell(_idle(), tmp_path, monkeypatch, capsys)


@cache
def _idle() -> Twin:
    return Twin()


def open_shell(
    twin: Twin,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Shell:
    found = Shell(tmp_path, twin, capsys)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COMITY_KEY_FILE", "official.key")
    monkeypatch.delenv("COMITY_GENESIS", raising=False)
    monkeypatch.delenv("COMITY_SERVERS", raising=False)
    monkeypatch.setattr(comity.client, "Client", SimpleNamespace(connect=in_memory(twin)))
    return found
