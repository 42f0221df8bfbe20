"""Emergency acts that wait for a review: none left out, and reviewed, in code and by command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from comity import Call
from consensus.genesis import RoleGiven
from consensus.ledger.emergency import review_id
from consensus.ledger.layout import Review
from consensus.ledger.rules import encode_definition, load_toml
from tests.comity.shell import Shell, open_shell
from tests.comity.twin import ADMINISTRATOR, CHARTER, OFFICIAL, RULES, Twin, harness, make_genesis

EMERGENCY = """
[actions.close]
actor = { role = "notes.writer" }
inputs = { note = "ref:note" }
load = [ ["note", "note/{input.note}"] ]
set = [ { record = "note", status = "closed" } ]
approvals = { role = "notes.chief" }
emergency = { approvals = "none", review = { role = "notes.chief", within_days = 2 } }
"""
REVIEW = '\n[actions.review]\nkernel = true\nactor = { self = "who.principal" }\n'


def twin() -> Twin:
    made = make_genesis()
    rules = RULES.replace("[actions.close]", "[actions.shut]") + EMERGENCY
    roles = (*made.roles, RoleGiven(bytes([102]) * 32, "notes.chief"))
    texts = (CHARTER + REVIEW, rules)
    encoded = tuple(encode_definition(load_toml(text)) for text in texts)
    return Twin(replace(made, rules=encoded, roles=roles))


def write(number: int) -> Call:
    return Call("notes", "write", {"number": number, "text": "n", "amount": 5, "owner": None})


def close(number: int) -> Call:
    return Call("notes", "close!emergency", {"note": [number]})


async def test_open_reviews_are_listed_and_one_given_leaves_the_list() -> None:
    async with harness(twin()) as h:
        async with h.client(OFFICIAL) as client:
            assert await client.reviews("notes.chief") == ()
            used = []
            for number in (1, 2):
                for call in (write(number), close(number)):
                    done = await client.transact(call, reads=await client.read_for(call))
                    assert done.applied, done
                used.append(done)
            found = await client.reviews("notes.chief")
            ids = [review_id(each.txid, 0) for each in used]
            assert [entry.key.components for entry in found] == [(id_,) for id_ in ids]
            first = Review(*found[0].value)
            assert (first.action, first.agency) == (["notes", "close!emergency"], "north")
            assert first.due_ms == used[0].time_ms + 2 * 86_400_000
        async with h.client(ADMINISTRATOR) as chief:
            done = await chief.review(ids[0], justified=True, reason="file 12")
            assert done.applied, done
            (left,) = await chief.reviews("notes.chief")
            assert left.key.components == (ids[1],)
            again = await chief.review(ids[0], justified=False)
            assert (again.code, again.detail[0]) == ("REQUIREMENT", "REVIEWED")


@pytest.fixture
def shell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    return open_shell(twin(), tmp_path, monkeypatch, capsys)


def test_reviews_are_shown_and_given_by_command(shell: Shell) -> None:
    assert "nothing waits" in shell("reviews", "notes.chief").out
    assert shell.note(1).status == 0
    used = shell("submit", "notes.close!emergency", "note=1", "--json")
    assert used.status == 0, used
    (due,) = shell("reviews", "notes.chief", "--json").json
    assert (due["action"], due["txid"]) == ("notes.close!emergency", used.json["txid"])
    said = shell("reviews", "notes.chief").out
    assert "notes.close!emergency" in said
    assert due["id"] in said
    own = shell("review", due["id"], "--justified", "--json")
    assert (own.status, own.json["detail"]) == (1, [["same_person"]])
    given = shell("review", due["id"], "--unjustified", "--key", "administrator.key")
    assert given.status == 0, given
    assert "nothing waits" in shell("reviews", "notes.chief").out
    assert shell.note(2).status == 1  # the power is gone


def test_a_role_that_no_rules_name_is_no_empty_list(shell: Shell) -> None:
    said = shell("reviews", "notes.cheif")
    assert said.status == 2
    assert "no rule set in force names a role 'notes.cheif'" in said.err
    assert "did you mean notes.chief?" in said.err


@pytest.mark.parametrize(
    "words",
    [
        ("0x12", "--justified"),
        ("0x" + "00" * 32,),
        ("0x" + "00" * 32, "--justified", "--unjustified"),
    ],
)
def test_a_review_says_which_and_what(shell: Shell, words: tuple[str, ...]) -> None:
    assert shell("review", *words).status == 2
