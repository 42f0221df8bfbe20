"""What disclosing costs: the sizes are those that the format promises."""

from __future__ import annotations

from scripts.disclosure_benchmark import disclosure_figures


def test_one_of_eight_leaves_is_opened_in_250_bytes() -> None:
    found = disclosure_figures(records=500)
    opened = found["opened_field_bytes"]
    assert opened["8"] <= 248  # and its value, here one byte
    # Above eight leaves a tree shows a path, not all others: eight declared fields have 12 leaves.
    assert opened["12"] < opened["16"] <= 250
    assert found["file_bytes"] > found["state_proof_bytes"] + opened["8"]
    assert 0 < found["make_us"] < found["check_us"]
