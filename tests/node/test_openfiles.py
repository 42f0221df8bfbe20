"""What the system lets a node open is enough for its own files, whoever connects."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from node import openfiles
from node.config import ConfigError

NEVER = resource.RLIM_INFINITY


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What the system says, the newest last."""
    said: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: said[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: said.append(pair))
    return said


@pytest.mark.parametrize(
    ("soft", "hard", "raised", "clients"),
    [
        (1024, 4096, 4096, 2048),
        (1024, NEVER, 16_384, 2048),
        (60, 1024, 1024, 256),
        (60, 832, 832, 64),
        (20_000, 20_000, 20_000, 2048),
        (NEVER, NEVER, NEVER, 2048),
    ],
)
def test_a_limit_is_raised_and_clients_get_what_the_node_can_spare(
    limits: list[tuple[int, int]], soft: int, hard: int, raised: int, clients: int
) -> None:
    limits.append((soft, hard))
    openfiles.prepare()
    assert limits[-1] == (raised, hard)
    assert openfiles.connections_max() == clients


def test_a_limit_below_what_a_node_needs_is_refused(limits: list[tuple[int, int]]) -> None:
    limits.append((60, 831))
    with pytest.raises(ConfigError, match="may open 831 files, a node needs 832") as caught:
        openfiles.prepare()
    assert "ulimit -n" in caught.value.hint


FAILING = """
import logging
from node.telemetry import logs
logs.configure("info", "json", "treasury")
try:
    raise OSError(24, "Too many open files")
except OSError:
    logging.getLogger("trio.serve_listeners").exception("accept returned EMFILE")
"""


def test_a_connection_that_could_not_be_taken_is_one_line_without_traceback() -> None:
    ended = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, check=True)
    told = json.loads(ended.stderr)
    assert told["event"] == "no connection taken"
    assert (told["agency"], told["reason"]) == ("treasury", "accept returned EMFILE")
