"""docs/reference.md says what the code says."""

from __future__ import annotations

import re

from consensus.ledger.codes import Code
from consensus.ledger.kernel.catalogue import KERNEL_ACTIONS
from scripts.reference import LEDGER, PAGE, page

CDDL = PAGE.parent / "protocol" / "ledger.cddl"


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


def described(code: Code) -> str:
    """Return what the CDDL says of a code's detail."""
    text = CDDL.read_text(encoding="utf-8")
    found = re.search(rf"^; *{int(code)} {code.name} (.*\n(?:; {{10,}}.*\n)*)", text, re.MULTILINE)
    assert found, code
    return found[1]


def test_the_cddl_names_every_condition_of_the_kernel() -> None:
    rows = page().split("## Conditions of the kernel")[1].split("\n## ")[0]
    codes = set(re.findall(r"^\| `([A-Z_]+)` \|", rows, re.MULTILINE))
    assert len(codes) > 40
    assert codes - set(re.findall(r"[A-Z_]+", described(Code.REQUIREMENT))) == set()


def test_page_and_cddl_name_everything_that_may_be_full() -> None:
    full: set[str] = set()
    for path in LEDGER.rglob("*.py"):
        full |= set(re.findall(r'Code\.LIMIT, ("[a-z]+")', path.read_text(encoding="utf-8")))
    assert {'"holds"', '"lists"', '"domains"'} < full
    (row,) = [line for line in page().splitlines() if line.startswith(f"| {int(Code.LIMIT)} |")]
    for words in (row, described(Code.LIMIT)):
        assert full - set(re.findall(r'"[a-z]+"', words)) == set()
