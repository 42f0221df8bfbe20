"""Whom a client submits to next when a node takes nothing; what a person is told meanwhile."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from comity.cli import options
from comity.cli.app import INTERRUPTED, UNREACHABLE, run
from comity.network import _unavailable
from comity.results import Refusal
from consensus.protocol import Status
from tests.comity.twin import make_genesis


def test_only_a_node_that_takes_nothing_at_all_is_passed_over_at_once() -> None:
    def deferred(status: int) -> Any:
        return SimpleNamespace(deferred=Refusal(None, status, "CODE", "no vote: submit to b", ""))

    error = _unavailable(deferred(int(Status.UNAVAILABLE)))
    assert error is not None
    assert error.message == "no vote: submit to b"
    assert _unavailable(deferred(Status.BUSY)) is None
    assert _unavailable(SimpleNamespace(deferred=None)) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_person_is_told_that_nobody_answers_while_a_command_waits(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is told interrupts the command, which would wait for a minute."""
    file = tmp_path / "genesis.cbor"
    file.write_bytes(make_genesis(ports=[1, 1, 1, 1]).encode())
    told: list[tuple[str, float]] = []

    def interrupted(why: str, patience_seconds: float) -> None:
        told.append((why, patience_seconds))
        raise KeyboardInterrupt

    monkeypatch.setattr(options, "WAIT_SECONDS", 0.0)
    monkeypatch.setattr(options, "_tell_waiting", interrupted)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    line = ["status", "--genesis", str(file), "--patience", "60" if terminal else "0.25"]
    assert run(line) == (INTERRUPTED if terminal else UNREACHABLE)
    if not terminal:
        assert told == []
        return
    [(why, patience)] = told
    assert patience == 60
    for name in ("north", "east", "south", "west"):
        assert f"{name} at 127.0.0.1:1: nothing listens there" in why


def test_what_a_person_is_told_names_the_option(capsys: pytest.CaptureFixture[str]) -> None:
    options._tell_waiting("north: nothing listens there", 10.0)
    assert capsys.readouterr().err == (
        "no node answers yet (north: nothing listens there); trying for 10 s (--patience), "
        "Ctrl-C ends it\n"
    )
