"""docs/reference.md says what the code says."""

from __future__ import annotations

from consensus.ledger.codes import Code
from consensus.ledger.kernel.catalogue import KERNEL_ACTIONS
from scripts.reference import PAGE, page


def test_the_reference_is_what_the_code_makes() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "run python -m scripts.reference"


def test_every_code_and_kernel_action_has_its_row() -> None:
    made = page()
    for name in (*KERNEL_ACTIONS, *(code.name for code in Code)):
        assert f"| `{name}` |" in made


def test_every_refusal_of_a_block_says_what_its_detail_holds() -> None:
    rows = [line.split(" | ") for line in page().splitlines() if line.startswith("| ")]
    details = {row[1].strip("`"): row[2].rstrip(" |") for row in rows if len(row) == 3}
    for code in Code:
        if Code.PROPOSED < code < Code.MALFORMED:
            assert details[code.name], code
