"""Who a network is founded with: plans in TOML, and officers where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from comity import founding
from comity.errors import DraftError
from comity.founding import Person, everybody, members_of, read_plan
from consensus.genesis import OFFICIAL, OpeningBalance
from consensus.ledger.rules import compile_rulebook, load_toml

TOKEN = bytes([0xAA]) * 32

PERMITS = """domain = "permits"
number = 1
legal_basis = "Permit Act"
separate = [["permits.officer", "permits.auditor"]]

[kinds.permit]
status = { start = "valid", steps = { valid = ["suspended"] }, stops = ["suspended"] }

[actions.issue]
actor = { role = "permits.officer" }
create = [ { kind = "permit", id = "{tx}" } ]
approvals = { any = [ { role = "permits.manager" }, { role = "permits.director" } ] }
objections = { role = "permits.ombudsman" }
reversible = { by = "permits.court", within_days = 3 }

[actions.suspend]
phase = "protective"
actor = { role = "permits.auditor" }
inputs = { permit = "ref:permit" }
load = [ ["permit", "permit/{input.permit}"] ]
set = [ { record = "permit", status = "suspended" } ]
approvals = { role = "permits.manager" }
emergency = { approvals = "none", review = { role = "permits.reviewer", within_days = 3 } }
"""


def plan(folder: Path, text: str) -> tuple[list[Person], list[OpeningBalance]]:
    path = folder / "plan.toml"
    path.write_text(text, encoding="utf-8")
    return read_plan(path)


def test_hex_in_the_ids_of_a_plan_is_bytes(tmp_path: Path) -> None:
    people, accounts = plan(
        tmp_path,
        f"""
        [[people]]
        name = "anna"
        agency = "registry"
        kind = "citizen"
        person = ["0x{"aa" * 32}"]

        [[people]]
        name = "ada"
        agency = "benefits"
        subject = "0x{"aa" * 32}"

        [[accounts]]
        account = ["rail", ["0x{"aa" * 32}", 7], "main"]
        balance = 5
        """,
    )
    assert [(each.person, each.subject) for each in people] == [((TOKEN,), None), (None, TOKEN)]
    assert accounts == [OpeningBalance("rail", ([TOKEN, 7], "main"), 5)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('person = ["0xzz"]', "plan.toml:4: '0xzz' is no hex"),
        ('subject = "0xaa"', "plan.toml:4: the subject of a is no token of an official"),
        ('subject = "anna"', "plan.toml:4: the subject of a is no token of an official"),
        (f'kind = "system"\nsubject = "0x{"aa" * 32}"', "toml:5: .* is no token of an official"),
        ('[[people]]\nname = "a"\nagency = "b"', "toml:5: b has two people named 'a'"),
        ('[[people]]\nname = "sealed"\nagency = "b"', "toml:5: nobody can be named sealed"),
        ('[[people]]\nname = "a/../b"\nagency = "b"', "toml:5: .* is no name of a key file"),
        ('[[people]]\nname = "a\\u0000"\nagency = "b"', "toml:5: .* is no name of a key file"),
        ('[[accounts]]\naccount = ["x", "0xz"]\nbalance = 1', "toml:5: '0xz' is no hex"),
    ],
)
def test_what_cannot_be_in_a_plan_is_refused_with_its_line(
    tmp_path: Path, line: str, said: str
) -> None:
    with pytest.raises(DraftError, match=said):
        plan(tmp_path, f'[[people]]\nname = "a"\nagency = "b"\n{line}\n')


def test_without_a_plan_somebody_at_every_agency_can_act_approve_object_and_review() -> None:
    book = compile_rulebook([load_toml(PERMITS)])
    people = everybody(members_of(["a", "b", "c", "d"], 7400), book)
    mine = {each.name: {role for role, _ in each.roles} for each in people if each.agency == "c"}
    assert mine == {
        "officer": {
            "permits.auditor", "permits.court", "permits.director", "permits.manager",
            "permits.ombudsman", "permits.reviewer",
        },
        "officer-2": {"permits.officer"},
    }  # fmt: skip
    assert len(people) == 8
    assert {each.kind for each in people} == {OFFICIAL}


def test_an_official_has_the_subject_that_the_plan_says(tmp_path: Path) -> None:
    people, _ = plan(tmp_path, f'[[people]]\nname = "a"\nagency = "b"\nsubject = "0x{"aa" * 32}"\n')
    made = founding.found(
        "town",
        members_of(["b", "c", "d", "e"], 7400),
        founding.read_rules(Path(__file__).parents[2] / "configs/rules"),
        people,
        [],
        time_ms=1,
        make_certificate=lambda seed, name: b"certificate " + name.encode(),
    )
    assert TOKEN in made.genesis
