"""The benchmark of audits runs on real rule sets and gives all its figures."""

from __future__ import annotations

import pytest

from scripts import audit_benchmark


def test_all_figures_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"BLOCK": 20, "PERSONS": 30, "ENTITLEMENTS": 10, "WALLETS": 40, "IDLE_HEIGHTS": 48}
    for name, value in small.items():
        monkeypatch.setattr(audit_benchmark, name, value)
    figures = audit_benchmark.audit_figures(blocks=2, repetitions=1)
    assert figures["transfers"]["decisions"] == 40
    # people, households with accounts and entitlements, payments
    assert figures["disburse"]["decisions"] == 30 + 3 * 10 + 40
    assert figures["transfers"]["executed_per_s"] > 0
    assert figures["disburse"]["audited_per_s_two_processes"] > 0
    assert figures["idle_heights_per_s"] > 0
