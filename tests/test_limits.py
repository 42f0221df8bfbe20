"""The manual's table of limits has the values of the code and metrics that exist."""

from __future__ import annotations

import ast
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


ROOT = PAGE.parent.parent
KEEPERS = (
    *sorted(path.stem for path in (ROOT / "consensus" / "hotstuff").glob("[!_]*.py")),
    *("node.batches", "node.chronicle", "node.dissemination", "node.mempool", "node.observers"),
    *("node.ordering", "node.origins", "node.outbox", "node.sealed.keeper", "node.signer"),
    *("node.snapshots.serving", "node.storage.log", "node.verifier", "node.verifier_worker"),
    *("node.network.link", "node.network.outbound", "node.network.peers", "node.network.guests"),
    *("node.guests", "node.links", "consensus.state.state"),
)
"""Modules that hold or do something for others: by its name alone, one of ordering."""
UNLISTED = {
    "consensus.hotstuff.fetching.NEAR_MAX": "which of two ways of asking is taken",
    "consensus.hotstuff.turns.DOUBLINGS_MAX": "an exponent of short timers, docs/consensus.md",
    "node.batches.FETCH_RETRY_MS_MAX": "how far apart two tries may be",
    "node.network.link.CLOSE_SECONDS_MAX": "how long an end may take to be said",
    "node.ordering.CHECK_SECONDS_MAX": "how often timers are looked at",
    "node.observers.CERTIFICATE_BYTES_MAX": "of a format",
    "node.sealed.keeper.FETCH_SECONDS_MAX": "how long a reader waits",
    "node.signer.BODY_BYTES_MAX": "of a format",
    "node.snapshots.serving.BOUNDARY_SECONDS_MAX": "how long an asker waits",
    "node.snapshots.serving.PROOF_CERTIFICATES_MAX": "how far one search goes",
    "node.verifier.ANSWER_BYTES_MAX": "of what the node's own workers answer",
    "node.verifier.ATTEMPTS_MAX": "tries of one request",
    "node.verifier.BATCHES_BYTES_MAX": "how work is shared out among workers",
    "node.verifier.INLINE_BYTES_MAX": "what is done in place",
    "node.verifier.INLINE_REQUESTS_MAX": "what is done in place",
    "node.verifier.IN_FLIGHT_MAX": "how work is shared out among workers",
    "node.verifier.ITEMS_MAX": "how work is shared out among workers",
}
"""Constants by such a name that bound nothing which somebody else could fill, and what they do."""


def test_all_bounds_of_what_is_kept_for_others_are_listed() -> None:
    found = set()
    for name in KEEPERS:
        module = name if "." in name else f"consensus.hotstuff.{name}"
        if module == "consensus.hotstuff.wire":
            continue  # of the format
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                constant = node.target.id
                if constant.endswith("_MAX") and not constant.startswith("_"):
                    found.add(f"{module}.{constant}")
    assert found - {row[0] for row in ROWS} == set(UNLISTED)
