"""The benchmark of the executor runs on the default charter and gives all its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import executor_benchmark


def test_all_figures_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"RECORDS": 400, "BLOCK": 20, "REPETITIONS": 1, "FEW": 2, "MANY": 40, "APPROVED": 3}
    for name, value in small.items():
        monkeypatch.setattr(executor_benchmark, name, value)
    figures = executor_benchmark.measure(tmp_path / "network")
    assert set(figures["plain_us"]) == {"transfer", "amend"}
    assert set(figures["proposals"]) == {"effect_us_among_2", "effect_us_among_40", "ratio"}
    assert figures["activation"]["open_proposals"] == 40
    assert figures["approvals"]["signatures_ratio"] > 0
