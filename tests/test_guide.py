"""docs/guide.md: every rule set that it builds holds; every command that the pages name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from comity.cli.app import app
from consensus.ledger.rules import Problem, check_text

GUIDE = Path("docs/guide.md").read_text(encoding="utf-8")
STEPS = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_a_step_of_the_guide_holds(number: int) -> None:
    found = check_text(STEPS[number], f"step {number}", [])
    assert [each for each in found if isinstance(each, Problem)] == []


def test_the_first_step_has_ten_lines() -> None:
    assert len([line for line in STEPS[0].splitlines() if line]) == 10


@pytest.mark.parametrize("page", ["docs/guide.md", "docs/authority.md"])
def test_the_commands_that_a_page_names_exist(page: str) -> None:
    named = re.findall(r"`comity ([a-z]+)(?: ([a-z]+))?", Path(page).read_text(encoding="utf-8"))
    assert named
    for first, second in named:
        assert first in app, first
        group = app[first]
        if any(not each.startswith("-") for each in group):
            assert second in group, (first, second)
