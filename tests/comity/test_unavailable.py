"""Whom a client submits to next when a node takes nothing."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from comity.network import _unavailable
from comity.results import Refusal
from consensus.protocol import Status


def test_only_a_node_that_takes_nothing_at_all_is_passed_over_at_once() -> None:
    def deferred(status: int) -> Any:
        return SimpleNamespace(deferred=Refusal(None, status, "CODE", "no vote: submit to b", ""))

    error = _unavailable(deferred(int(Status.UNAVAILABLE)))
    assert error is not None
    assert error.message == "no vote: submit to b"
    assert _unavailable(deferred(Status.BUSY)) is None
    assert _unavailable(SimpleNamespace(deferred=None)) is None  # type: ignore[arg-type]
