"""What authors are told: all problems of a text, notes, summaries, and what may follow what."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.ledger.expr.functions import FUNCTIONS
from consensus.ledger.rules import (
    Note,
    Problem,
    check_successor,
    check_text,
    describe,
    load_toml,
    moved_actions,
    report,
)
from tests.consensus.ledger.rule_texts import (
    BENEFITS,
    IDENTITY,
    PAYMENTS,
    TEXTS,
    line_of,
    rulebook,
)

IDENTITY_RULES = load_toml(IDENTITY, "identity.toml")
BENEFITS_RULES = load_toml(BENEFITS, "benefits.toml")


def problems(text: str, *others: str) -> list[Problem]:
    found = check_text(text, "new.toml", [load_toml(each, "other.toml") for each in others])
    return [each for each in found if isinstance(each, Problem)]


def test_a_sound_rule_set_has_no_problems() -> None:
    assert problems(IDENTITY) == []
    assert problems(BENEFITS, IDENTITY) == []
    assert problems(PAYMENTS, IDENTITY, BENEFITS) == []
    assert problems(TEXTS["charter"]) == []


def test_all_problems_are_found_in_one_run_in_order_of_lines() -> None:
    text = BENEFITS
    faults = [
        ("person.status == 'alive'", "person.status == 1"),
        ("params.large\"", "params.larg\""),
        ('basis = ["person.status"]', 'basis = ["person.income"]'),
        ('fresh   = ["ent"]', 'fresh   = ["entt"]'),
        ('"ent", status = "suspended"', '"ent", status = "granted"'),
    ]  # fmt: skip
    for old, new in faults:
        text = text.replace(old, new, 1)
    found = problems(text, IDENTITY)
    expected = [line_of(text, new) for _, new in faults]
    assert [each.line for each in found] == sorted(expected)
    assert all(each.where == "new.toml" and each.hint for each in found)
    assert not any(each.message.startswith("new.toml") for each in found)


def test_faults_of_structure_come_together_too() -> None:
    text = BENEFITS.replace("summary =", "sumary =").replace("number = 12", 'number = "12"')
    text = text.replace(
        'fresh   = ["ent"]', 'reversible = { by = "a.b", within_days = 1, approvals = 1 }'
    )
    assert [each.message for each in problems(text, IDENTITY)] == [
        "expected a whole number, found text",
        "unknown key sumary",
        "this is not a policy",
    ]


def test_a_faulty_kind_is_reported_once_and_not_where_it_is_used() -> None:
    text = IDENTITY.replace("since = 2", "since = 3")
    assert len(problems(text, BENEFITS)) == 1


def test_text_that_is_not_toml_is_one_problem_with_its_line() -> None:
    (found,) = problems("domain = \n")
    assert (found.line, found.message.startswith("not TOML")) == (1, True)


def test_what_others_lose_by_a_change_is_a_problem() -> None:
    text = IDENTITY.replace("number = 3", "number = 4").replace('"person.region", ', "")
    found = problems(text, BENEFITS, IDENTITY)
    assert any(each.where == "other.toml" and "person.region" in each.message for each in found)


def test_notes_name_what_is_never_used_or_reached() -> None:
    text = BENEFITS.replace("input.monthly <= params.large", "input.monthly > 0").replace(
        ', note = "input.note"', ""
    )
    notes = [each for each in check_text(text, "b.toml", [IDENTITY_RULES]) if type(each) is Note]
    messages = {each.message: each.line for each in notes}
    assert messages["parameter large is never read"] == line_of(text, "large =")
    assert messages["input note is never used"] == line_of(text, "inputs  = { person")
    assert messages["no action moves entitlement to ended"] > 0
    assert [each.line for each in notes] == sorted(each.line for each in notes)


def test_a_condition_on_what_the_author_need_not_have_seen_is_noted() -> None:
    text = BENEFITS.replace('depends = ["person.status"]\n', "")
    notes = [each.message for each in check_text(text, "b.toml", [IDENTITY_RULES])]
    assert any(each.startswith("conditions read person.status") for each in notes)
    kept = [each.message for each in check_text(BENEFITS, "b.toml", [IDENTITY_RULES])]
    assert not any(each.startswith("conditions read") for each in kept)


def test_summary_says_who_may_do_what_on_which_facts() -> None:
    benefits, _, _, payments = describe(rulebook())
    assert (benefits.domain, benefits.number) == ("benefits", 12)
    grant = next(each for each in benefits.actions if each.name == "grant")
    assert grant.who == "role benefits.officer where who.scope.region == person.region"
    assert grant.inputs == ("person: ref:person", "monthly: money:USD",
                            "note: sealed:audit,treasury?")  # fmt: skip
    assert grant.reads == ("person = person/{input.person}",)
    assert grant.requires[0] == "DEAD: person.status == 'alive'"
    assert grant.does == ("makes entitlement/{tx}",)
    approve = next(each for each in benefits.actions if each.name == "approve")
    assert approve.who.endswith(", not ent.by.created, not ent.person, not ent.by.created")
    assert approve.does == (
        "sets status active, monthly, basis of ent (entitlement)",
        "makes revision/{input.entitlement}/first",
    )
    entitlement = benefits.kinds[0]
    assert entitlement.fields[2] == "note: text, optional, sealed for audit, treasury"
    assert entitlement.steps[0] == "active -> suspended, ended"
    disburse = next(each for each in payments.actions if each.name == "disburse")
    assert disburse.does == (
        "moves ent.monthly from account/program to account/payee/{ent.person}",
    )
    assert payments.accounts[0] == "euros (EUR), debited by payments"


# --- succession -------------------------------------------------------------------------------


NUMBERS = {"identity": "number = 3", "benefits": "number = 12", "payments": "number = 7"}


def successor(domain: str, *edits: tuple[str, str], **others: str) -> list[str]:
    """What keeps an edited text with a higher number from following; ``others`` replace texts."""
    text = (TEXTS | others)[domain]
    for old, new in ((NUMBERS[domain], "number = 99"), *edits):
        assert old in text
        text = text.replace(old, new, 1)
    before = rulebook(**others).rule_sets[domain]
    after = rulebook(**(others | {domain: text})).rule_sets[domain]
    return [str(each) for each in check_successor(before, after)]


def test_a_new_number_alone_may_follow() -> None:
    assert successor("identity") == []


def test_a_new_field_brings_a_new_definition() -> None:
    field = "fields.email = { type = 'digest', optional = true, since = 3 }\n"
    assert successor("identity", ("status = { start", field + "status = { start")) == []
    unnumbered = field.replace(", since = 3", "")
    (found,) = successor("identity", ("status = { start", unnumbered + "status = { start"))
    assert "field email is new" in found


@pytest.mark.parametrize(
    ("domain", "edits", "message"),
    [
        ("identity", [('fields.died    = { type = "date", optional = true }\n', "")],
         "field died is gone"),
        ("identity", [('type = "date"', 'type = "time"')],
         "the type of field died was date, not time"),
        ("identity", [('town    = { type = "text", open = true, group = "address" }',
                       'town    = { type = "text", open = true }')],
         "the group of field town was address, not none"),
        ("identity", [('fields.died    = { type = "date", optional = true }',
                       'fields.died    = { type = "date" }'),
                      ('inputs = { token', 'inputs = { died = "date", token'),
                      ('income = "0"', 'income = "0", died = "input.died"')],
         "field died may be absent in records"),
        ("identity", [('alive = ["dead"], dead = []', "alive = []")], "status dead is gone"),
        ("benefits", [('sealed_for = ["treasury", "audit"]', 'sealed_for = ["treasury"]'),
                      ("sealed:audit,treasury", "sealed:treasury")],
         "the audience of field note was audit, treasury, not treasury"),
        ("payments", [('[accounts.euros]\ncurrency = "EUR"\n', "")],
         "account family euros is gone"),
        ("payments", [('currency = "EUR"', 'currency = "CHF"')], "family euros holds EUR"),
        ("identity", [('fields.income  = { type = "money", currency = "USD" }\n', ""),
                      ("status = { start = \"alive\"",
                       'fields.income  = { type = "money", currency = "USD" }\n'
                       'status = { start = "alive"')],
         "the fields changed their order"),
        ("benefits", [('fields.entitlement = { type = "ref", kind = "entitlement" }',
                       'status = { start = "new", steps = {} }\n'
                       'fields.entitlement = { type = "ref", kind = "entitlement" }')],
         "existing records have no status"),
    ],
)  # fmt: skip
def test_what_existing_records_rely_on_is_kept(
    domain: str, edits: list[tuple[str, str]], message: str
) -> None:
    (found,) = successor(domain, *edits)
    assert message in found


def test_a_status_that_records_have_is_not_dropped() -> None:
    kind = '[kinds.extra]\nstatus = { start = "new", steps = { new = ["old"] } }\n[kinds.licence]'
    plain = '[kinds.extra]\nfields.x = { type = "int", optional = true }\n[kinds.licence]'
    before = IDENTITY.replace("[kinds.licence]", kind)
    after = before.replace(kind, plain).replace("number = 3", "number = 4")
    one, other = (rulebook(identity=each).rule_sets["identity"] for each in (before, after))
    found = [str(each) for each in check_successor(one, other)]
    assert any("the status is gone" in each for each in found)


def test_a_rule_set_follows_one_of_its_own_domain() -> None:
    (found,) = check_successor(rulebook().rule_sets["identity"], rulebook().rule_sets["benefits"])
    assert "benefits cannot follow identity" in str(found)


def test_the_same_rule_set_follows_itself_and_one_that_is_too_long_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert problems(IDENTITY, IDENTITY) == []
    monkeypatch.setattr(report, "DEFINITION_BYTES_MAX", 100)
    (found,) = problems(IDENTITY, IDENTITY)
    assert (found.line, found.hint) == (0, "divide the domain")
    assert found.message.endswith("bytes encoded, at most 100")


def test_a_kind_is_never_dropped() -> None:
    payments = PAYMENTS.replace(', identity = ["licence"]', "")
    edits = [
        ('"person.region", "licence"]', '"person.region"]'),
        ('[kinds.licence]\nfields.owner = { type = "ref", kind = "person" }\n', ""),
    ]
    (found,) = successor("identity", *edits, payments=payments)
    assert "kind licence is gone" in found


def test_the_number_must_grow() -> None:
    text = IDENTITY.replace("Civil Registration Act", "Registers Act")
    (found,) = problems(text, IDENTITY)
    assert found.message == "number 3 does not follow 3"
    assert found.line == line_of(IDENTITY, "number")


def test_moved_actions_are_named_with_what_happened_to_them() -> None:
    text = BENEFITS.replace("section 4", "section 5").replace("[actions.suspend]", "[actions.halt]")
    found = moved_actions(rulebook().rule_sets["benefits"],
                          rulebook(benefits=text).rule_sets["benefits"])  # fmt: skip
    assert found == {"grant": "changed", "halt": "added", "suspend": "removed"}


# --- the guide --------------------------------------------------------------------------------

GUIDE = (Path(__file__).parents[3] / "docs/rules.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
HEAD = 'domain = "licensing"\nnumber = 1\nlegal_basis = "Act"\n'


def test_the_first_rule_set_of_the_guide_is_sound() -> None:
    assert problems(EXAMPLES[0], IDENTITY) == []


@pytest.mark.parametrize("section", ["[kinds.", "[accounts.", "[params]"])
def test_a_section_shown_in_the_guide_is_sound(section: str) -> None:
    (example,) = [each for each in EXAMPLES[1:] if each.startswith(section)]
    assert problems(HEAD + example, IDENTITY.replace("licence", "permit")) == []


def test_the_charter_of_the_guide_is_sound() -> None:
    found = [each for each in EXAMPLES if "kernel = true" in each]
    assert len(found) == 5
    assert problems(HEAD.replace("licensing", "charter") + "".join(found)) == []


AROUND = """
[params]
tz_minutes = { by = "now", type = "int", values = [ { from = "2026-01", value = 60 } ] }
[kinds.permit]
fields.person = { type = "ref", kind = "permit" }
fields.monthly = { type = "money", currency = "USD" }
fields.suspended_at = { type = "time", optional = true }
[accounts.program]
currency = "USD"
[accounts.payee]
currency = "USD"
[actions.pay]
actor = { role = "licensing.officer" }
inputs = { permit = "ref:permit", period = "month", days = "int", of_days = "int" }
load = [ ["lic", "permit/{input.permit}"], ["ent", "permit/{input.permit}"] ]
"""


def test_the_conditions_of_the_guide_are_sound() -> None:
    (example,) = [each for each in EXAMPLES if "muldiv" in each]
    assert problems(HEAD + AROUND + example) == []


def test_the_guide_shows_every_function() -> None:
    section = GUIDE.split("## Expressions")[1].split("\n## ")[0]
    for name, method in FUNCTIONS:
        assert f".{name}(" in section if method else re.search(rf"(?<!\.)\b{name}\(", section), name


# --- whatever authors write -------------------------------------------------------------------

FRAGMENTS = [
    *("{", "}", "[", "]", '"', "'", ".", "/", "?", "=", " ", "\n", "0", "-1", "é", ""),
    *("true", "ent", "input.", "{tx}", "person", "account/", "money:", "list:", "sealed:", "ref:"),
]


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    st.sampled_from(sorted(TEXTS)),
    st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 6), st.sampled_from(FRAGMENTS)),
        min_size=1, max_size=3,
    ),
)  # fmt: skip
def test_any_slip_of_the_pen_gives_problems_or_notes_and_never_an_exception(
    domain: str, slips: list[tuple[int, int, str]]
) -> None:
    text = TEXTS[domain]
    for position, length, fragment in slips:
        position %= len(text)
        text = text[:position] + fragment + text[position + length :]
    others = [load_toml(each) for name, each in TEXTS.items() if name != domain]
    for each in check_text(text, "x.toml", others):
        assert each.message
        assert each.line <= text.count("\n") + 1


ROLES = """domain = "permits"
number = 1
legal_basis = "Permit Act"

[kinds.permit]

[actions.issue]
actor = {{ role = "permits.officer" }}
create = [ {{ kind = "permit", id = "{{tx}}" }} ]
approvals = {{ role = "{approver}" }}

[actions.copy]
actor = {{ role = "permits.officer" }}
create = [ {{ kind = "permit", id = "{{tx}}" }} ]
"""


@pytest.mark.parametrize(
    ("approver", "noted"),
    [
        ("permits.oficer", ["permits.oficer is much like permits.officer: is it meant?"]),
        ("permits.officers", ["permits.officers is much like permits.officer: is it meant?"]),
        ("permits.manager", []),
        ("permits.officer", []),
    ],
)
def test_a_role_that_looks_misspelt_is_noted(approver: str, noted: list[str]) -> None:
    found = check_text(ROLES.format(approver=approver), "permits.toml", [])
    assert [each.message for each in found if "much like" in each.message] == noted
