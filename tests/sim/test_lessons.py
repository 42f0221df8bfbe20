"""The table of lessons in docs/simulator.md names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROW = re.compile(
    r"^\| (?P<what>.+) \| `(?P<path>tests/\S+)` \| `(?P<test>test_\w+)` \|$", re.MULTILINE
)
ROWS = ROW.findall((ROOT / "docs" / "simulator.md").read_text(encoding="utf-8"))


def test_table_has_every_lesson() -> None:
    assert len(ROWS) >= 28


@pytest.mark.parametrize(("what", "path", "test"), ROWS, ids=[test for _, _, test in ROWS])
def test_lesson_has_its_test(what: str, path: str, test: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), what
