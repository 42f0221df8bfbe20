"""docs/guide.md: every rule set that it builds holds; every command that the pages name exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from comity.cli.app import whole
from comity.founding import read_plan
from consensus.ledger.rules import Problem, check_text
from tests.comity.shell import Shell, idle_shell

__all__ = ["idle_shell"]

GUIDE = Path("docs/guide.md").read_text(encoding="utf-8")
RULES = Path("configs/rules").resolve()
COMMAND = whole()
STEPS = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.parametrize("number", range(len(STEPS)))
def test_a_step_of_the_guide_holds(number: int) -> None:
    found = check_text(STEPS[number], f"step {number}", [])
    assert [each for each in found if isinstance(each, Problem)] == []


def test_the_first_step_has_ten_lines() -> None:
    assert len([line for line in STEPS[0].splitlines() if line]) == 10


def typed(name: str) -> str:
    """Return the file that the guide has people type."""
    found = re.search(rf"^\$ cat > {name} <<'END'\n(.*?)^END$", GUIDE, re.DOTALL | re.MULTILINE)
    assert found is not None, name
    return found[1]


def test_the_plan_and_the_cases_that_are_typed_fit_the_third_step(idle_shell: Shell) -> None:
    for name in ("people.toml", "cases.toml"):
        Path(name).write_text(typed(name), encoding="utf-8")
    Path("permits.toml").write_text(STEPS[2], encoding="utf-8")
    said = idle_shell("rules", "test", "permits.toml", "cases.toml", "--with", str(RULES), "--json")
    assert (said.status, [row["ok"] for row in said.json]) == (0, [True])
    people, _ = read_plan(Path("people.toml"))
    asked = {role for role, _ in (pair for each in people for pair in each.roles)}
    assert asked == {"permits.clerk", "permits.officer", "permits.manager"}


@pytest.mark.parametrize("page", ["docs/guide.md", "docs/authority.md"])
def test_the_commands_that_a_page_names_exist(page: str) -> None:
    named = re.findall(r"`comity ([a-z]+)(?: ([a-z]+))?", Path(page).read_text(encoding="utf-8"))
    assert named
    for first, second in named:
        assert first in COMMAND, first
        group = COMMAND[first]
        if any(not each.startswith("-") for each in group):
            assert second in group, (first, second)
