"""What changes from one rule set to another, in words."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

import pytest

from consensus.errors import RulesError
from consensus.ledger.rules import load_toml
from consensus.ledger.rules.difference import Difference, difference
from tests.consensus.ledger.world import BENEFITS, CHARTER, IDENTITY, PAYMENTS

OTHERS = [load_toml(text) for text in (CHARTER, IDENTITY, BENEFITS, PAYMENTS)]


def between(text: str, *changes: tuple[str, str]) -> Difference:
    """Return the difference that replacing texts makes."""
    new = text.replace("number = 1", "number = 2", 1)
    for old, after in changes:
        assert old in new, old
        new = new.replace(old, after, 1)
    return difference(load_toml(text), load_toml(new), OTHERS)


def lines(found: Difference) -> dict[str, list[str]]:
    return {each.part: list(each.lines) for each in found.changes}


def test_the_same_text_under_another_number_changes_nothing() -> None:
    found = between(BENEFITS)
    assert (found.old, found.new) == (1, 2)
    assert (found.changes, dict(found.moved), found.powers, found.faults) == ((), {}, (), ())


def test_a_requirement_and_an_actor() -> None:
    found = between(
        BENEFITS,
        ("input.monthly <= params.most", "input.monthly < params.most"),
        ('[actions.renew]\nactor   = { role = "benefits.officer" }',
         '[actions.renew]\nactor   = { role = "benefits.chief" }'),
    )  # fmt: skip
    assert lines(found) == {
        "action grant": [
            "- requires: MOST: input.monthly <= params.most",
            "+ requires: MOST: input.monthly < params.most",
        ],
        "action renew": ["- who: role benefits.officer", "+ who: role benefits.chief"],
    }
    assert dict(found.moved) == {"grant": "changed", "renew": "changed"}
    assert found.powers == (
        "+ benefits.chief now: renew",
        "- benefits.officer no longer: renew",
    )


def test_the_same_role_in_other_cases() -> None:
    found = between(BENEFITS, ("who.scope.region == person.region", "who.scope.region == 'north'"))
    assert found.powers == ("  benefits.officer in other cases: grant",)


def test_a_parameter_changes_no_action() -> None:
    found = between(
        BENEFITS, ('{ from = "2026-02", value = 600 }', '{ from = "2027-01", value = 700 }')
    )
    assert lines(found) == {
        "parameter most": ["- value: from 2026-02: 600", "+ value: from 2027-01: 700"]
    }
    assert dict(found.moved) == {}


def test_a_kind_moves_the_actions_that_use_it() -> None:
    found = between(
        BENEFITS, ('active = ["suspended"],', 'active = ["suspended", "ended"], ended = [],')
    )
    assert lines(found)["kind entitlement"] == [
        "- step: active -> suspended",
        "+ step: active -> suspended, ended",
        "+ step: ended -> end",
    ]
    assert dict(found.moved) == {
        "grant": "what it rests on changed",
        "renew": "what it rests on changed",
    }


def test_what_comes_and_what_goes() -> None:
    start = BENEFITS.index("[actions.rely]")
    found = difference(
        load_toml(BENEFITS),
        load_toml(
            BENEFITS[:start].replace("number = 1", "number = 2")
            + '[actions.note]\nactor = { self = "who.principal" }\n'
            + '[accounts.fund]\ncurrency = "USD"\n'
        ),
        OTHERS,
    )
    assert lines(found) == {
        "account family fund": ["+ it is new"],
        "action note": ["+ it is new"],
        "action rely": ["- it is gone"],
    }
    assert dict(found.moved) == {"note": "added", "rely": "removed"}
    assert found.powers == ("- benefits.officer no longer: rely",)


def test_keys_without_words_of_their_own_are_named() -> None:
    found = between(
        PAYMENTS,
        ('phase  = "protective"\nactor  = { role = "payments.officer" }\ninputs = { person',
         'phase  = "protective"\nlegal = "section 9"\nactor  = { role = "payments.officer" }\ninputs = { person'),
        ('depends = ["ent.status", "ent.monthly"]', 'depends = ["ent.status"]'),
        ('currency = "USD"\nfloor = -50', 'currency = "USD"\nfloor = 0'),
        ('reason = "inquiry"', 'reason = "an inquiry"'),
    )  # fmt: skip
    assert lines(found) == {
        "account family purse": ["- floor: -50", "+ floor: 0"],
        "action disburse": ["- depends: ent.monthly"],
        "action freeze": [
            "- writes: the hold lasts until input.until, under Public Finance Act, because of 'inquiry'",
            "+ writes: the hold lasts until input.until, under section 9, because of 'an inquiry'",
            "- legal: none",
            "+ legal: section 9",
        ],
    }


def test_the_head_and_what_may_not_follow() -> None:
    found = between(
        BENEFITS,
        ('legal_basis = "Child Benefit Act"', 'legal_basis = "Family Act"'),
        ('uses = { identity = ["person.status", "person.region", "person.name"] }',
         'uses = { identity = ["person.status", "person.region"] }'),
        ('fields.to = { type = "ref", kind = "link", optional = true }',
         'fields.to = { type = "ref", kind = "link", optional = true }\nfields.no = { type = "int" }'),
        ('set = { } } ]', 'set = { no = "1" } } ]'),
        ('create  = [ { kind = "link", id = ["{input.name}"], set = { to = "input.to" }, basis',
         'create  = [ { kind = "link", id = ["{input.name}"], set = { to = "input.to", no = "2" }, basis'),
        ('id = "{tx}", set = { to = "input.link" }', 'id = "{tx}", set = { to = "input.link", no = "3" }'),
    )  # fmt: skip
    assert lines(found)["rule set"] == [
        "- legal basis: Child Benefit Act",
        "+ legal basis: Family Act",
        "- reads elsewhere: identity: person.name",
    ]
    assert found.faults == ("kinds.link.fields.no: field no is new",)


def test_what_does_not_compile_has_no_difference() -> None:
    with pytest.raises(RulesError, match="cannot compare"):
        between(BENEFITS, ("person.status == 'alive'", "person.status == 1"))


def test_what_an_effect_writes_is_said_when_it_changes() -> None:
    found = between(BENEFITS, ('monthly = "input.monthly"', 'monthly = "input.monthly + 1"'))
    assert lines(found)["action grant"] == [
        "- writes: entitlement.monthly = input.monthly",
        "+ writes: entitlement.monthly = input.monthly + 1",
    ]


STOPS = """domain = "stops"
number = 1
legal_basis = "Stops Act"

[kinds.stop]
status = { start = "open", steps = { open = ["shut"] }, stops = ["shut"] }

[actions.shut]
phase = "protective"
actor = { role = "stops.officer" }
inputs = { stop = "ref:stop" }
load = [ ["stop", "stop/{input.stop}"] ]
set = [ { record = "stop", status = "shut" } ]
approvals = { role = "stops.chief" }
"""


def test_an_emergency_form_is_said_in_words_and_with_who_reviews() -> None:
    form = 'emergency = { approvals = "none", review = { role = "stops.judge", within_days = 3 } }'
    found = between(STOPS, ("[actions.shut]", f"[actions.shut]\n{form}"))
    assert lines(found) == {
        "action shut": [
            "+ in an emergency: role stops.officer",
            "+ in an emergency: approved by nobody",
            "+ in an emergency: reviewed by role stops.judge within 3 days",
        ]
    }
    assert dict(found.moved) == {"shut": "changed", "shut!emergency": "added"}
    assert found.powers == (
        "+ stops.judge now: review shut!emergency",
        "+ stops.officer now: shut!emergency",
    )


def test_who_may_object_now_is_among_the_powers() -> None:
    found = between(
        STOPS, ("[actions.shut]", "[actions.shut]\nobjections = { role = 'stops.jury' }")
    )
    assert found.powers == ("+ stops.jury now: object to shut",)


def test_duties_that_are_kept_apart_from_now_on_are_said() -> None:
    law = 'legal_basis = "Public Finance Act"'
    apart = 'separate = [["audit.reader", "payments.clerk"]]'
    found = between(PAYMENTS, (law, f"{law}\n{apart}"))
    assert lines(found) == {"rule set": ["+ separate: audit.reader payments.clerk"]}


def test_the_same_lines_in_another_order_are_said_as_that() -> None:
    rows = [
        '{ code = "DEAD", that = "person.status == \'alive\'", say = "the person is not alive" }',
        '{ code = "MOST", that = "input.monthly <= params.most", say = "too much" }',
    ]
    found = between(BENEFITS, (rows[0], "X"), (rows[1], rows[0]), ("X", rows[1]))
    assert lines(found)["action grant"] == [
        "  requires: in another order",
        "  says: in another order",
    ]


def test_another_sentence_of_a_requirement_is_said() -> None:
    found = between(BENEFITS, ('say = "too much"', 'say = "more than the law allows"'))
    assert lines(found)["action grant"] == [
        "- says: MOST: too much",
        "+ says: MOST: more than the law allows",
    ]
