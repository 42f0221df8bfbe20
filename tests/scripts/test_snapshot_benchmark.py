"""The benchmark of snapshots gives all its figures."""

from __future__ import annotations

from pathlib import Path

from scripts import evidence_benchmark, snapshot_benchmark


def test_all_figures_are_made(tmp_path: Path) -> None:
    figures = snapshot_benchmark.measure(tmp_path, 300)
    assert figures["records"] == 300
    for part in ("export", "verify", "import"):
        assert figures[f"{part}_seconds"] >= 0
        assert figures[f"{part}_per_s"] > 0


def test_it_is_part_of_the_benchmark_of_evidence() -> None:
    assert evidence_benchmark.PARTS["snapshot"] is snapshot_benchmark.snapshot_figures
