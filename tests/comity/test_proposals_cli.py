"""The commands for proposals: what people type, see, and get as an exit status."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from comity import keys
from consensus import keyfile
from consensus.keyfile import KeyKind
from tests.comity.shell import Shell, open_shell
from tests.comity.test_commands_page import SECTIONS
from tests.comity.test_proposals import genesis
from tests.comity.twin import Twin


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    """A shell of a writer, with the keys of two reviewers at hand, and a note."""
    found = open_shell(Twin(genesis=genesis()), tmp_path, monkeypatch, capsys)
    for name, seed in (("one", 60), ("two", 61)):
        pair = keyfile.from_seed(KeyKind.CLIENT, bytes([seed]) * 32)
        keys.create(found.folder / f"{name}.key", pair)
    assert found.note(1).status == 0
    return found


def propose(desk: Shell, text: str = "better") -> str:
    said = desk("propose", "notes.agree", "note=1", f"text={text}", "--reason", "agreed", "--json")
    assert said.status == 0
    assert (said.json["state"], said.json["code"]) == ("proposed", "PROPOSED")
    txid: str = said.json["txid"]
    return txid


def as_(who: str, *words: str) -> tuple[str, ...]:
    return (*words, "--key", f"{who}.key")


def test_a_proposal_goes_its_way_on_the_command_line(desk: Shell) -> None:
    txid = propose(desk)
    assert txid.removeprefix("0x") in desk(*as_("one", "pending")).out
    assert desk("pending", "--json").json == {"proposals": [], "next": None}
    shown = desk("proposal", txid)
    assert re.search(r"state\s+open", shown.out)
    for words in ("notes.agree", "better", "agreed", "2 with the role notes.reviewer"):
        assert words in shown.out
    assert "authors do not approve their own acts" in shown.out
    assert "may approve it" in desk(*as_("one", "proposal", txid)).out
    first = desk(*as_("one", "approve", txid))
    assert first.status == 0
    assert "the proposal is open: approvals are missing: one with the role" in first.out
    last = desk(*as_("two", "approve", txid, "--reason", "fine"))
    assert last.status == 0
    assert "what it brought about" in last.out
    shown = desk("proposal", txid)
    assert re.search(r"state\s+executed", shown.out)
    assert shown.out.count("approved by") == 2
    listed = desk("proposals", "north", "--state", "executed", "--json").json["proposals"]
    assert [each["txid"].removeprefix("0x") for each in listed] == [txid.removeprefix("0x")]


def test_an_act_that_needs_approvals_says_how_to_wait_for_them(desk: Shell) -> None:
    said = desk("submit", "notes.agree", "note=1", "text=now")
    assert said.status == 1
    assert "`comity propose notes.agree …`" in said.err


def test_what_became_stale_says_why_and_is_drafted_again(desk: Shell) -> None:
    txid = propose(desk)
    assert desk("submit", "notes.amend", "note=1", "text=meanwhile").status == 0
    assert desk(*as_("one", "approve", txid)).status == 0
    last = desk(*as_("two", "approve", txid))
    assert last.status == 1
    assert "note/1 is at version 2 now" in last.out
    assert "note/1 is at version 2 now" in desk("proposal", txid).out
    asked = desk("redraft", txid)
    assert asked.status == 2
    assert "note/1 was at version 1, is at 2" in asked.err
    assert "--yes" in asked.err
    again = desk("redraft", txid, "--yes", "--json")
    assert (again.status, again.json["state"]) == (0, "proposed")
    assert again.json["txid"] != txid


def test_its_leaves_are_shown_like_others(desk: Shell) -> None:
    txid = propose(desk)
    for place in (f"proposal/{txid}", f"proposal/{txid}/draft"):
        for words in ((), ("--json",)):
            said = desk("get", place, *words)
            assert said.status == 0, said.err
            assert txid.removeprefix("0x")[:12] in said.out


def test_objecting_and_withdrawing_end_it_and_say_so(desk: Shell) -> None:
    txid = propose(desk)
    refused = desk(*as_("one", "withdraw", txid))
    assert refused.status == 1
    assert "only its author takes it back" in refused.out
    assert desk(*as_("one", "object", txid, "paid already")).status == 0
    assert "paid already" in desk("proposal", txid).out
    late = desk(*as_("two", "approve", txid))
    assert late.status == 1
    assert "somebody objected to the proposal" in late.out
    other = propose(desk)
    assert desk("withdraw", other).status == 0
    assert re.search(r"state\s+withdrawn", desk("proposal", other).out)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("proposal", "12"), "'12' is no transaction id"),
        (("approve", "zz"), "'zz' is no transaction id"),
        (("proposals", "north", "--state", "done"), "'done' is no state"),
        (("pending", "--limit", "65"), "--limit 65 is not between 1 and 64"),
        (("pending", "--after", "xx"), "--after 'xx' is not what a page said"),
        (("propose", "agree"), "'agree' is not domain.action"),
        (("propose", "notes.agree", "note=1", "text=a", "--hours", "0"), "--hours 0 is not"),
    ],
)
def test_bad_words_are_usage_errors(desk: Shell, words: tuple[str, ...], said: str) -> None:
    found = desk(*words)
    assert found.status == 2
    assert said in found.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("proposal", "00" * 32), "there is no proposal"),
        (("approve", "00" * 32), "there is no proposal"),
        (("proposals", "nroth"), "the network has no agency 'nroth'"),
        (("proposals", "x" * 64, "--state", "stale"), "the network has no agency 'xxx"),
    ],
)
def test_what_is_not_there_is_said(desk: Shell, words: tuple[str, ...], said: str) -> None:
    found = desk(*words)
    assert found.status == 1
    assert said in found.err


def test_an_agency_that_there_is_and_that_has_none_is_no_mistake(desk: Shell) -> None:
    for agency, words in (("north", "0 proposals of north, open"), ("west", "0 proposals of west")):
        said = desk("proposals", agency)
        assert said.status == 0, said.err
        assert words in said.out
    unknown = desk("proposals", "nroth", "--json").json
    assert unknown["code"] == "NOT_FOUND"
    assert "agencies with a validator are north, east, south, west" in unknown["hint"]


def test_json_has_the_fields_that_the_manual_says(desk: Shell) -> None:
    txid = propose(desk)
    desk(*as_("one", "approve", txid))
    value: dict[str, Any] = desk("proposal", txid, "--json").json
    section = SECTIONS["proposal"].split("JSON:", 1)[1]
    written = re.findall(r"`([a-z_]+)`", re.sub(r"\([^)]*\)", "", section))
    assert sorted(written) == sorted(value)
    nested = set(re.findall(r"`([a-z_]+)`", " ".join(re.findall(r"\(([^)]*)\)", section))))
    assert set(value["calls"][0]) | set(value["approvals"][0]) <= nested
