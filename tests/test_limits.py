"""The manual's table of limits has the values of the code and metrics that exist."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

from consensus.hotstuff.events import ReplicaConfig
from node import batches
from node.api.limits import ApiLimits
from node.telemetry.metrics import Metrics

PAGE = Path(__file__).resolve().parent.parent / "docs" / "limits.md"
ROWS = re.findall(
    r"^\| `([\w.]+)` \| ([\d,.]+) \| (.+) \| (.+) \|$", PAGE.read_text(), re.MULTILINE
)


def in_code(name: str) -> Any:
    """The value of a module's constant, or the default of a field of a dataclass."""
    place, _, last = name.rpartition(".")
    module, _, kind = place.rpartition(".")
    if not kind[0].isupper():
        return getattr(importlib.import_module(place), last)
    fields = dataclasses.fields(getattr(importlib.import_module(module), kind))
    return next(field.default for field in fields if field.name == last)


@pytest.mark.parametrize(("name", "value"), [row[:2] for row in ROWS], ids=[row[0] for row in ROWS])
def test_limit_has_the_value_of_the_code(name: str, value: str) -> None:
    assert float(value.replace(",", "")) == in_code(name)


def test_every_row_is_read_and_names_metrics_that_exist() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert len(lines) == len(ROWS) == len({row[0] for row in ROWS})
    known = {entry.name for entry in Metrics().catalogue}
    shown = {metric for row in ROWS for metric in re.findall(r"comity_\w+", row[3])}
    assert shown <= known
    assert all(row[3] == "—" or "comity_" in row[3] for row in ROWS)


@pytest.mark.parametrize("kind", [ApiLimits, ReplicaConfig])
def test_all_bounds_of_the_client_port_and_the_windows_of_ordering_are_listed(kind: type) -> None:
    elsewhere = {"timeout_max_ms", "payload_items_max", "payload_bytes_max"}
    elsewhere |= {"payload_transactions_max"}  # genesis parameters
    names = {field.name for field in dataclasses.fields(kind) if field.name.endswith("_max")}
    assert names - elsewhere == {
        name.rpartition(".")[2] for name, *_ in ROWS if f".{kind.__name__}." in name
    }


def test_all_bounds_against_a_hostile_origin_are_listed() -> None:
    bounds = {name for name in vars(batches) if re.fullmatch(r"[A-Z]+_(BYTES_|BATCHES_)?MAX", name)}
    listed = {name.rpartition(".")[2] for name, *_ in ROWS if name.startswith("node.batches.")}
    assert {name for name in bounds if not name.startswith(("RESEND", "DIGESTS"))} <= listed
