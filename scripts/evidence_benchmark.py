"""Measure evidence: ``scripts/bench evidence``. What third parties make, carry and check.

    audit          decisions executed again a second (``audit_benchmark``)
    bundle         a payment with two approvals: bytes, making, verifying; a state proof of one key
                   among a million (``bundle_benchmark``)
    disclosure     one opened field: bytes, making and checking (``disclosure_benchmark``)
    history        a key at one moment, a million heights: bytes, making and checking
                   (``history_benchmark``)
    snapshot       a million records written, verified, begun from (``snapshot_benchmark``)

Each part is a module of its own and is measured in this process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from scripts.audit_benchmark import audit_figures
from scripts.bundle_benchmark import bundle_figures
from scripts.disclosure_benchmark import disclosure_figures
from scripts.history_benchmark import history_figures
from scripts.snapshot_benchmark import snapshot_figures

PARTS: Final[Mapping[str, Callable[[], dict[str, Any]]]] = {
    "audit": audit_figures,
    "bundle": bundle_figures,
    "disclosure": disclosure_figures,
    "history": history_figures,
    "snapshot": snapshot_figures,
}


def measure() -> dict[str, Any]:
    """Return the figures of every part."""
    return {name: figures() for name, figures in PARTS.items()}
