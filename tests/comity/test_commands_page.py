"""docs/commands.md names every command, option and JSON field there is, and no other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from comity.cli.app import DONE, INTERRUPTED, REFUSED, UNREACHABLE, USAGE, whole
from tests.comity.shell import Shell, shell

__all__ = ["shell"]

PAGE = Path("docs/commands.md").read_text(encoding="utf-8")
SECTION = r"^## `comity ([^`]+)`\n(.*?)(?=^## |\Z)"
SECTIONS = dict(re.findall(SECTION, PAGE, re.MULTILINE | re.DOTALL))
COMMON = PAGE[: PAGE.index("\n## `comity")]
SHARED = {"--json", "--debug", "--genesis", "--server", "--key", "--patience", "--purpose"}


def commands(group: App, path: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    for name in group:
        if name.startswith("-"):
            continue
        found = group[name]
        if any(not each.startswith("-") for each in found):
            yield from commands(found, (*path, name))
        else:
            yield " ".join((*path, name)), found


COMMANDS = dict(commands(whole()))


def options(command: App) -> set[str]:
    return {
        name
        for argument in command.assemble_argument_collection(parse_docstring=True)
        for name in argument.names
        if name.startswith("-") and not name.startswith(("--no-", "--empty-"))
    }


def test_every_command_has_its_section() -> None:
    assert set(SECTIONS) == set(COMMANDS)


NAMED = re.compile(r"(?<!`)`comity ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?")


def test_commands_that_errors_name_exist() -> None:
    groups = {name.split()[0] for name in COMMANDS if " " in name}
    found = {
        words
        for folder in ("comity", "consensus", "node")
        for path in Path(folder).rglob("*.py")
        for words in NAMED.findall(path.read_text(encoding="utf-8"))
    }
    assert len(found) > 30
    for first, second in found:
        known = first in COMMANDS or first in groups
        if first in groups and second:
            known = any(f"{name} ".startswith(f"{first} {second} ") for name in COMMANDS)
        assert known, f"there is no `comity {first} {second}`"


@pytest.mark.parametrize("name", COMMANDS)
def test_options_are_those_that_exist(name: str) -> None:
    rows = re.findall(r"^\| (`-[^|]*) \|", SECTIONS[name], re.MULTILINE)
    written = {option for row in rows for option in re.findall(r"`(-[^`]+)`", row)}
    assert written == options(COMMANDS[name]) - SHARED


def test_shared_options_and_exit_statuses_are_written_once() -> None:
    rows = re.findall(r"^\| `(--[^`]+)` \|", COMMON, re.MULTILINE)
    assert set(rows) == SHARED | {"--help"}
    statuses = re.findall(r"^\| (\d+) \|", COMMON, re.MULTILINE)
    assert [int(each) for each in statuses] == [DONE, REFUSED, USAGE, UNREACHABLE, INTERRUPTED]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_text_says_what_the_command_does(name: str, shell: Shell) -> None:
    said = shell(*name.split(), "--help")
    assert said.status == 0
    assert "Examples:" in said.out
    assert f"comity {name}" in said.out.split("Examples:")[1]


def fields(name: str) -> list[str]:
    """The words in code after "JSON:" in a section, without those in brackets."""
    text = SECTIONS[name].split("JSON", 1)[1].split("; with `--dry`")[0]
    text = re.sub(r"\([^)]*\)", "", text)
    return re.findall(r"`([a-z_]+)`", text)


def keys(value: Any) -> list[str]:
    return list(value[0] if isinstance(value, list) else value)


def test_json_fields_are_those_written(shell: Shell) -> None:
    txid = shell.note(1).json["txid"]
    said = {
        "keys new": shell("keys", "new", "a.key", "--json").json,
        "decision": shell("decision", txid, "--json").json,
        "list": shell("list", "note", "--json").json,
        "holds": shell("holds", "note/1", "--json").json,
        "statements": shell("statements", "--json").json,
        "history": shell("history", "note/1", "--json").json,
        "committee": shell("committee", "--json").json,
    }
    for name, value in said.items():
        assert sorted(fields(name)) == sorted(keys(value)), name
    assert sorted(keys(shell("decisions", "--json").json)) == sorted(fields("decision"))
    record = shell("get", "note/1", "--json").json
    account = shell("get", "account/pot/a", "--json").json
    assert set(fields("get")) == set(record) | set(account)
    shown = shell("rules", "show", "--json").json
    one = shell("rules", "show", "notes", "--json").json
    assert set(fields("rules show")) == set(keys(shown)) | set(one)
    rules = str(Path(__file__).parents[2] / "configs" / "rules")
    made = shell("network", "init", "--rules", rules, "--json").json
    assert sorted(fields("network init")) == sorted(made)
    node = next(iter(made["nodes"].values()))
    assert all(f"`{name}`" in SECTIONS["network init"] for name in node)
    Path("bad.toml").write_text("domain = 1")
    history = shell("rules", "history", "notes", "--json").json
    assert sorted(fields("rules history")) == sorted(keys(history))
    problems = shell("rules", "check", "bad.toml", "--json").json
    assert sorted(fields("rules check")) == sorted(keys(problems))
