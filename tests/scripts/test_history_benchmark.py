"""What the history of a key costs can be measured, on a small chain in the suite."""

from __future__ import annotations

from scripts import evidence_benchmark, history_benchmark


def test_the_proof_measured_shows_what_the_key_held_and_grows_with_the_chain() -> None:
    few, more = (history_benchmark.history_figures(heights) for heights in (300, 9_000))
    assert few["bytes"] < more["bytes"] < 4_000
    assert all(figures["make_us"] > 0 < figures["check_us"] for figures in (few, more))


def test_it_is_part_of_the_benchmark_of_evidence() -> None:
    assert evidence_benchmark.PARTS["history"] is history_benchmark.history_figures
