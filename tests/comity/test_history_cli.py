"""`comity history` and `comity get --at`: what was, in words and as JSON."""

from __future__ import annotations

import datetime

import pytest

from tests.comity.shell import Shell, idle_shell, shell

__all__ = ["idle_shell", "shell"]


def height(said: object) -> int:
    return int(said.json["height"])  # type: ignore[attr-defined]


def amend(shell: Shell, text: str) -> int:
    return height(shell("submit", "notes.amend", "note=1", f"text={text}", "--json"))


def test_a_record_is_shown_as_it_was_at_a_height_and_at_a_time(shell: Shell) -> None:
    made = height(shell.note(1, "first"))
    later = amend(shell, "second")
    then = shell("get", "note/1", "--at", str(later - 1), "--json")
    assert then.json["fields"]["text"] == "first"
    assert then.json["height"] == later - 1
    now = shell("get", "note/1", "--at", str(later))
    assert "second" in now.out
    absent = shell("get", "note/1", "--at", str(made - 1))
    assert (absent.status, "absent" in absent.out) == (1, True)
    time_ms = shell.twin.statements[later - 1].time_ms
    moment = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).isoformat()
    timed = shell("get", "note/1", "--at", moment, "--json").json
    times = [each.time_ms for each in shell.twin.statements]
    assert timed["height"] == max(h for h, each in enumerate(times) if each <= time_ms)


def test_all_versions_are_listed_with_what_changed_and_said_to_be_complete(shell: Shell) -> None:
    shell.note(1, "first")
    amend(shell, "second")
    closed = shell("submit", "notes.close", "note=1", "--json").json
    said = shell("history", "note/1", "--acts")
    assert said.status == 0
    lines = said.out.splitlines()
    assert lines[0] == "note/1"
    assert "text first" in said.out
    assert "text second" in said.out
    assert "status closed" in said.out
    assert closed["txid"].removeprefix("0x") in said.out
    assert "complete for heights 0 to" in said.out
    assert "no other version was there" in said.out
    found = shell("history", "note/1", "--json").json
    assert found["complete"] is True
    assert [each["version"] for each in found["versions"]] == [1, 2, 3]
    assert [each["state"] for each in found["versions"]] == ["shown"] * 3
    assert found["versions"][1]["changed"] == ["text"]
    assert found["versions"][1]["transactions"] is None
    assert found["versions"][2]["value"]["status"] == "closed"


def test_a_range_that_is_longer_than_the_limit_says_where_it_goes_on(shell: Shell) -> None:
    shell.note(1, "first")
    second, third = amend(shell, "second"), amend(shell, "third")
    said = shell("history", "note/1", "--limit", "2")
    assert f"complete for heights 0 to {third - 1} alone" in said.out
    assert f"go on with --from {third}" in said.out
    rest = shell("history", "note/1", "--from", str(third), "--json").json
    assert [each["height"] for each in rest["versions"]] == [third]
    part = shell("history", "note/1", "--from", str(second), "--to", str(second), "--json").json
    assert [each["height"] for each in part["versions"]] == [second]
    assert (part["first"], part["last"]) == (second, second)


def test_an_account_and_its_movements(shell: Shell) -> None:
    paid = shell("submit", "notes.pay", "source=a", "target=b", "amount=250", "--json").json
    said = shell("history", "account/pot/b", "--acts")
    assert "balance 250" in said.out
    assert paid["txid"].removeprefix("0x") in said.out
    found = shell("history", "account/pot/b", "--json").json
    assert [each["value"][1] for each in found["versions"]] == [0, 250]


def test_whether_a_hold_was_on_a_target_and_when(shell: Shell) -> None:
    never = shell("history", "holds/note/1")
    assert (never.status, "never there" in never.out) == (1, True)
    assert "no rules in force" not in never.out
    mistyped = shell("history", "nte/1")
    assert (mistyped.status, "never there" in mistyped.out) == (1, True)
    assert "no rules in force have it; did you mean note?" in mistyped.out
    assert "complete" in never.out
    placed = shell(
        "submit", "charter.place_hold", 'targets=[["record", ["note", 1]]]',
        'scopes=["edit"]', "legal=Act", "--reason", "inquiry", "--key", "administrator.key",
        "--json",
    ).json  # fmt: skip
    for place in ("holds/note/1", "holds/record/[note/1]"):
        said = shell("history", place)
        assert "holds 1" in said.out
        assert "scopes edit" in said.out
        assert str(placed["height"]) in said.out
    before = shell("history", "holds/note/1", "--to", str(placed["height"] - 1))
    assert "never there" in before.out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("history", "note/1", "--from", "yesterday"), 2, "is no time"),
        (("history", "note/1", "--from", "2026-07-03T09:00"), 2, "does not say its time zone"),
        (("history", "note/1", "--to", "1969-01-01"), 2, "is before 1970"),
        (("history", "note/1", "--from", "5", "--to", "4"), 2, "comes before"),
        (("history", "note/1", "--limit", "0"), 2, "not between 1 and 1000"),
        (("history", "note/1", "--from", "999999"), 1, "not certified yet"),
        (("history", "note"), 2, "names a kind and no id"),
        (("get", "note/1", "--at", "-1"), 2, "is no time"),
        (("get", "note/1", "--at", "999999"), 1, "not certified yet"),
        (("get", "note/1", "--at", "1980-01-01"), 1, "had not begun"),
        (("get", "note/1", "--at", "9" * 18), 1, "not certified yet"),
        (("get", "note/1", "--at", "9" * 19), 2, "is no time"),
    ],
)
def test_what_is_no_height_or_time_is_said(
    idle_shell: Shell, words: tuple[str, ...], status: int, said: str
) -> None:
    found = idle_shell(*words)
    assert found.status == status
    assert said in found.err


def test_who_may_not_read_is_told_so(idle_shell: Shell) -> None:
    found = idle_shell("history", "note/1", "--key", "citizen.key")
    assert found.status == 1
    assert "may not read" in found.err
