"""Every lesson of docs/lessons.md has a test that exists and that the suite runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
ROW = re.compile(
    r"^\| (?P<lesson>\d+) \| (?P<what>.+) \| `(?P<path>tests/\S+)` \| `(?P<test>test_\w+)` \|$",
    re.MULTILINE,
)
PAGE = (ROOT / "docs" / "lessons.md").read_text(encoding="utf-8")
ROWS = ROW.findall(PAGE)
LESSONS = 26


def test_every_line_of_the_table_is_read_and_every_lesson_has_one() -> None:
    lines = [line for line in PAGE.splitlines() if re.match(r"\| \d", line)]
    assert len(lines) == len(ROWS)
    numbers = [int(lesson) for lesson, *_ in ROWS]
    assert numbers == sorted(numbers)
    assert {*numbers} == {*range(1, LESSONS + 1)}


@pytest.mark.parametrize(("what", "path", "test"), [row[1:] for row in ROWS])
def test_lesson_has_its_test(what: str, path: str, test: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    before, found, _ = source.partition(f"def {test}(")
    assert found, what
    decorated = before.rpartition("\n\n\n")[2]
    assert "mark.skip" not in decorated, what
    assert "mark.long" not in decorated, what
