"""Compiled rule sets: what each construct becomes, and that borders hold."""

from __future__ import annotations

from typing import Any

import pytest

from consensus.errors import RulesError
from consensus.ledger.model import (
    Action,
    Assign,
    Create,
    EvaluationError,
    Move,
    OpenAccount,
    PlaceHold,
    ReleaseHold,
)
from consensus.ledger.types import InputError, Type
from tests.consensus.ledger.rule_texts import TEXTS, edited, line_of, rulebook

BOOK = rulebook()
YEAR_2026_MS = 1_767_225_600_000
JAN_15_2027_MS = 1_799_971_200_000


def action(domain: str, name: str) -> Action:
    found = BOOK.action(domain, name)
    assert found is not None
    return found


def refusal(domain: str, old: str, new: str) -> RulesError:
    with pytest.raises(RulesError) as caught:
        rulebook(**{domain: edited(domain, old, new)})
    return caught.value


# --- what constructs become -------------------------------------------------------------------


def test_leaves_ascend_and_groups_hold_their_fields_in_declared_order() -> None:
    person = BOOK.kinds["person"]
    assert person.definition == 2
    assert list(person.leaves) == [
        "address", "basis", "by", "died", "income", "photo", "region", "status", "~holds",
    ]  # fmt: skip
    assert person.leaves["address"] == ("street", "town")
    assert person.leaves["status"] == ()
    assert person.leaf_of["town"] == "address"


def test_an_earlier_definition_lacks_the_fields_added_since() -> None:
    first, second = BOOK.kinds["person"].layouts
    assert "photo" not in first
    assert second["photo"] == ("photo",)


def test_a_sealed_field_stores_a_commitment_for_its_audience() -> None:
    note = BOOK.kinds["entitlement"].fields["note"]
    assert note.type == Type("text")
    assert note.stored == Type("sealed", "audit,treasury")
    assert note.stored.audience == ("audit", "treasury")


def test_statuses_carry_their_steps_and_stops() -> None:
    kind = BOOK.kinds["entitlement"]
    assert kind.start == "granted"
    assert kind.steps == {
        "active": ("suspended", "ended"), "ended": (), "granted": ("active", "ended"),
        "suspended": ("active",),
    }  # fmt: skip
    assert kind.stops == ("suspended", "ended")
    assert BOOK.kinds["revision"].start == ""


def test_exports_open_what_they_name_and_no_more() -> None:
    assert BOOK.kinds["person"].exported == ("region", "status")
    assert BOOK.kinds["entitlement"].exported == ("monthly", "note", "person", "status")
    assert BOOK.kinds["licence"].exported == ()


def test_the_owner_may_always_debit_and_others_only_where_listed() -> None:
    assert BOOK.families["program"].debit_by == ("payments", "benefits")
    assert BOOK.families["payee"].debit_by == ("payments",)
    assert BOOK.families["program"].floor == -500


def test_loads_resolve_to_ids() -> None:
    record, account = action("payments", "disburse").loads
    env = {"input": {"entitlement": [b"e" * 32], "period": 24312}}
    assert record.reference.resolve(env) == [b"e" * 32]
    assert record.kind is BOOK.kinds["entitlement"]
    assert account.reference.resolve(env) == ["program"]
    assert account.family is BOOK.families["program"]


def test_effects_come_in_declared_order_with_resolved_parts() -> None:
    first, second = action("benefits", "approve").effects
    assert isinstance(first, Assign)
    assert isinstance(second, Create)
    env: dict[str, Any] = {
        "ent": {"monthly": 7},
        "params": {"rates": [5, 6]},
        "input": {"entitlement": ["e"]},
    }
    assert first.status == "active"
    assert first.basis == ()
    assert [(name, each.evaluate(env)) for name, each in first.assignments] == [("monthly", 12)]
    assert second.id is not None
    assert second.id.resolve(env) == [["e"], "first"]


def test_an_id_from_the_transaction_has_no_template() -> None:
    (effect,) = action("benefits", "grant").effects
    assert isinstance(effect, Create)
    assert effect.id is None
    assert effect.index == 0
    assert effect.basis == (("person", "status"),)
    assert [name for name, _ in effect.assignments] == ["person", "monthly", "note"]


def test_an_absent_optional_input_is_copied_as_null() -> None:
    (effect,) = action("benefits", "grant").effects
    assert isinstance(effect, Create)
    note = dict(effect.assignments)["note"]
    assert note.evaluate({"input": {"note": None}}) is None


def test_a_single_reference_is_the_id_itself_and_a_component_elsewhere() -> None:
    (effect,) = action("payments", "open_payee").effects
    assert isinstance(effect, OpenAccount)
    env = {"input": {"person": [b"t" * 32]}}
    assert effect.account.resolve(env) == ["payee", [b"t" * 32]]
    (made,) = action("identity", "register").effects
    assert isinstance(made, Create)
    assert made.id is not None
    assert made.id.resolve({"input": {"token": b"t" * 32}}) == [b"t" * 32]


def test_a_move_names_both_accounts_and_the_amount() -> None:
    (effect,) = action("payments", "disburse").effects
    assert isinstance(effect, Move)
    env = {"ent": {"person": ["p"], "monthly": 90}}
    assert effect.source.resolve(env) == ["program"]
    assert effect.target.resolve(env) == ["payee", ["p"]]
    assert effect.amount.evaluate(env) == 90


def test_holds_are_placed_on_own_and_on_permitted_targets() -> None:
    record, account = action("payments", "freeze").effects
    assert isinstance(record, PlaceHold)
    assert isinstance(account, PlaceHold)
    assert record.scopes == ("all", "pay")
    assert record.until is not None
    assert record.until.evaluate({"input": {"until": None}}) is None
    assert account.targets[0].space == "account"
    assert account.until is None
    (release,) = action("payments", "thaw").effects
    assert isinstance(release, ReleaseHold)
    assert release.hold.evaluate({"input": {"hold": b"h" * 32}}) == b"h" * 32


def test_a_unique_slot_belongs_to_its_domain() -> None:
    (slot,) = action("payments", "disburse").unique
    env = {"input": {"entitlement": ["e"], "period": 24312}}
    assert slot.resolve(env) == ["payments", "payment", ["e"], 24312]


def test_excluded_authors_and_agencies_are_read_from_by() -> None:
    actor = action("benefits", "approve").actor
    ent = {"by": [["created", b"p" * 32, "welfare"], ["active", b"q" * 32, "audit"]],
           "person": ["x"]}  # fmt: skip
    assert [each.evaluate({"ent": ent}) for each in actor.not_paths] == [b"p" * 32, ["x"]]
    assert [each.evaluate({"ent": ent}) for each in actor.not_agencies] == ["welfare"]
    assert actor.not_agencies[0].evaluate({"ent": {"by": []}}) is None


def test_parameters_are_those_in_force_at_the_time() -> None:
    schedule = action("benefits", "grant").schedule
    assert schedule.at(YEAR_2026_MS - 1).values == {}
    assert schedule.at(YEAR_2026_MS).values == {"large": 100}
    assert schedule.at(JAN_15_2027_MS - 1).values == {"large": 100}
    assert schedule.at(JAN_15_2027_MS).values == {"large": 200}
    digests = {schedule.at(at).digest for at in (0, YEAR_2026_MS, JAN_15_2027_MS)}
    assert len(digests) == 3


PARAMS = """
a = { by = "now", type = "month", values = [ { from = "2026-01", value = "2026-07" } ] }
b = { by = "now", type = "date", values = [ { from = "2026-01", value = "2000-02-29" } ] }
c = { by = "now", type = "time", values = [ { from = "2026-01", value = "1970-01-02" } ] }
d = { by = "now", type = "time", values = [ { from = "2026-01", value = 5 } ] }
e = { by = "now", type = "bytes", values = [ { from = "2026-01", value = "00ff" } ] }
f = { by = "now", type = "bool", values = [ { from = "2026-01", value = true } ] }
g = { by = "now", type = "text", values = [ { from = "2026-01", value = "x" } ] }
h = { by = "now", type = "list:month", values = [ { from = "1969-12-31", value = ["0000-01"] } ] }
"""


def test_parameters_of_every_type_have_the_encoded_value() -> None:
    text = edited("benefits", "[params]", "[params]" + PARAMS)
    params = rulebook(benefits=text).rule_sets["benefits"].params
    values = {name: params[name].values[0][1] for name in "abcdefgh"}
    # 2000-02-29 is 30 years of 365 days, 7 leap days and 59 days after 1970-01-01.
    assert values == {
        "a": 2026 * 12 + 6, "b": 30 * 365 + 7 + 59, "c": 86_400_000, "d": 5, "e": b"\x00\xff",
        "f": True, "g": "x", "h": [0],
    }  # fmt: skip
    assert params["h"].values[0][0] == -86_400_000
    assert params["a"].values[0][0] == YEAR_2026_MS


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("month", "24312", "a month is written as text"),
        ("month", '"2026-07-01"', "expected a month"),
        ("month", '"2026-13"', "there is no date"),
        ("date", '"2026-07"', "expected a date"),
        ("date", '"1900-02-29"', "there is no date"),
        ("date", '"2026-01-00"', "there is no date"),
        ("time", "-1", "outside the range"),
        ("bytes", '"0"', "lower case hex"),
        ("digest", '"00ff"', "has 32 bytes"),
        ("bool", "1", "expected bool"),
        ("list:int", '["a"]', "expected int"),
        ("list:int", "[[1]]", "found an array"),
        ("token:identity", '"00"', "may not stand here"),
        ("int", "[]", "expected int"),
    ],
)
def test_parameter_value_of_another_type_is_refused(kind: str, value: str, message: str) -> None:
    line = (
        f'x = {{ by = "now", type = "{kind}", values = [ {{ from = "2026", value = {value} }} ] }}'
    )
    text = edited("benefits", "[params]", "[params]\n" + line.replace('"2026"', '"2026-01"'))
    with pytest.raises(RulesError, match=message) as caught:
        rulebook(benefits=text)
    assert caught.value.line == line_of(text, "x = {")


def test_a_parameter_without_values_and_too_many_values_are_refused() -> None:
    for values, message in (("", "at least one value"), (MANY_VALUES, "512 in all")):
        text = "".join(
            f'x{n} = {{ by = "now", type = "int", values = [{values}] }}\n' for n in "abc"
        )
        with pytest.raises(RulesError, match=message):
            rulebook(benefits=edited("benefits", "[params]", "[params]\n" + text))


MANY_VALUES = ", ".join(
    f'{{ from = "{2000 + n // 12}-{n % 12 + 1:02}", value = 1 }}' for n in range(200)
)


def test_an_action_without_parameters_has_one_digest_for_all_times() -> None:
    schedule = action("payments", "disburse").schedule
    assert schedule.at(0).digest == schedule.at(JAN_15_2027_MS).digest


def test_inputs_are_bound_by_position_and_checked() -> None:
    grant = action("benefits", "grant")
    bound = grant.bind([["p"], 5, None])
    assert bound == {"person": ["p"], "monthly": 5, "note": None}
    for values, reason in (
        ([["p"], 5], "2 inputs, expected 3"),
        ([["p"], 5, b"short"], "note: sealed:audit,treasury has 32 bytes, got 5"),
        ([["p"], True, None], "monthly: expected money:USD, got bool"),
        ([[], 5, None], "person: an id has 1 to 8 components, got 0"),
        (["p", 5, None], "person: expected an id"),
        ([["p"], None, None], "monthly: expected money:USD, got nothing"),
    ):
        with pytest.raises(InputError, match=reason):
            grant.bind(values)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("bool", [True], [1, None]),
        ("int", [0, -(2**63)], [True, "1"]),
        ("text", ["", "é" * 2048], ["é" * 2049, b"a"]),
        ("bytes", [b"", bytes(4096)], [bytes(4097), "a"]),
        ("list:int", [[], [1, 2]], [[1, "a"], [0] * 65, 1]),
        ("list:ref:person", [[["p"]]], [["p"]]),
        ("month", [0, 119_999], [-1, 120_000, "2026-01"]),
        ("date", [-719_528, 2_932_896], [-719_529, 2_932_897]),
        ("time", [0], [-1, 253_402_300_800_000]),
        ("digest", [bytes(32)], [bytes(31), "a"]),
        ("token:identity", [bytes(32)], [bytes(33)]),
        ("commitment", [bytes(32)], [b""]),
        ("ref:person", [["p", 1, b"x", [["y"]]]], [["p", None], [[[[["deep"]]]]], ["x" * 257],
                                                  [bytes(65)], [1] * 9, [1.5]]),
    ],
)  # fmt: skip
def test_values_are_checked_against_their_types(kind: str, good: list[Any], bad: list[Any]) -> None:
    base, _, argument = kind.partition(":")
    checked = Type(base, argument)
    for value in good:
        checked.check(value)
    for value in bad:
        with pytest.raises(InputError):
            checked.check(value)


def test_an_id_whose_components_grow_too_large_is_an_evaluation_error() -> None:
    text = edited("payments", '"account/payee/{input.person}"', '"account/payee/{input.name}"')
    text = text.replace('inputs = { person = "ref:person" }', 'inputs = { name = "text" }', 1)
    found = rulebook(payments=text).action("payments", "open_payee")
    assert found is not None
    (effect,) = found.effects
    assert isinstance(effect, OpenAccount)
    with pytest.raises(EvaluationError, match="text in an id"):
        effect.account.resolve({"input": {"name": "x" * 300}})


def test_kernel_actions_take_their_inputs_and_lane_from_the_kernel() -> None:
    add, revoke = action("charter", "add_key"), action("charter", "revoke_key")
    assert [each.name for each in add.inputs] == ["agency", "principal", "key"]
    assert (add.kernel, add.protective, add.effects) == (True, False, ())
    assert revoke.protective


def test_protective_actions_are_marked() -> None:
    assert action("benefits", "suspend").protective
    assert not action("benefits", "grant").protective


def test_the_order_of_definitions_changes_nothing() -> None:
    again = rulebook(**dict(reversed(TEXTS.items())))
    for domain, rules in BOOK.rule_sets.items():
        assert again.rule_sets[domain].encoded == rules.encoded
        assert {n: a.action_id for n, a in again.rule_sets[domain].actions.items()} == {
            n: a.action_id for n, a in rules.actions.items()
        }


# --- what is refused --------------------------------------------------------------------------

REFUSED = [
    # names and structure
    ("benefits", 'domain = "benefits"', 'domain = "Benefits"', "not the name of a domain"),
    ("benefits", "number = 12", "number = 0", "outside 1 to"),
    ("benefits", "number = 12", "number = true", "expected a whole number"),
    ("benefits", 'legal_basis = "Child Benefit Act"', 'legal_basis = ""', "its legal basis"),
    ("benefits", "[kinds.revision]", "[kinds.Revision]", "is not a name"),
    ("benefits", "[kinds.revision]", "[kinds.principal]", "a meaning of its own"),
    ("benefits", "[kinds.revision]", "[kinds.person]\n[kinds.revision]",
     "kind person belongs to domain benefits"),
    ("benefits", "fields.monthly", "fields.basis", "a meaning of its own"),
    ("benefits", "fields.monthly", "fields.in", "a meaning of its own"),
    ("benefits", 'summary = "Grant a benefit"', "summary = 3", "expected text"),
    ("benefits", 'summary = "Grant a benefit"', 'sumary = "x"', "unknown key sumary"),
    ("benefits", "summary =", "sum.mary =", "unknown key sum"),
    # types
    ("benefits", 'currency = "USD" }', 'currency = "usd" }', "not a currency"),
    ("benefits", 'type = "ref", kind = "person"', 'type = "ref", kind = "persona"', "no kind 'pe"),
    ("benefits", 'type = "ref", kind = "person"', 'type = "ref"', "a ref names its kind"),
    ("benefits", 'type = "ref", kind = "person"', 'type = "int", kind = "person"', "goes with"),
    ("benefits", 'type = "ref", kind = "person"', 'type = "float"', "there is no type 'float'"),
    ("benefits", 'type = "ref", kind = "person"', 'type = "int:4"', "int takes no argument"),
    ("benefits", 'type = "ref", kind = "person"', 'type = "sealed:audit"', "may not stand here"),
    ("benefits", 'type = "ref", kind = "person"', 'type = "list:list:int"', "may not stand here"),
    ("benefits", ', sealed_for = ["treasury", "audit"]', "", "free text says who may see it"),
    ("benefits", "sealed_for = [", "open = true, sealed_for = [", "open or sealed, not both"),
    ("benefits", '"treasury", "audit"]', '"audit", "audit"]', "named twice"),
    ("benefits", '"treasury", "audit"]', '"Au dit"]', "not the name of an agency"),
    ("benefits", 'person = "ref:person", monthly', 'person = "ref:persn", monthly', "no kind"),
    ("benefits", 'person = "ref:person", monthly', 'person = "ref", monthly', "names its kind"),
    ("identity", 'hold_by = ["payments"]', 'hold_by = ["Payments"]', "is not a name"),
    ("payments", "floor = -500", 'floor = "0"', "expected a whole number"),
    ("payments", "[accounts.euros]", "[accounts.index]", "a meaning of its own"),
    ("identity", "optional = true, since = 2", "since = 2", "earlier records lack this field"),
    ("identity", "since = 2", "since = 3", "left out"),
    ("identity", 'since = 2 }', 'since = 2, group = "address" }', "a leaf of its own"),
    ("identity", 'group = "address"', 'group = "region"', "is a field already"),
    # statuses
    ("benefits", 'suspended = ["active"] }', 'suspended = ["suspended"] }', "steps to itself"),
    ("benefits", 'suspended = ["active"] }', 'lost = ["active"] }', "no step leads to lost"),
    ("benefits", 'stops = ["suspended"', 'stops = ["granted"', "no step leads to granted"),
    ("benefits", 'start = "granted"', 'start = "voided"', "a meaning of its own"),
    # parameters
    ("benefits", 'by = "now"', 'by = "then"', "by = 'then' is unknown"),
    ("benefits", '"2027-01-15"', '"2025-12"', "not in ascending order"),
    ("benefits", '"2027-01-15"', '"2027-02-29"', "there is no date 2027-02-29"),
    ("benefits", '"2027-01-15"', '"15.1.2027"', "is not a date"),
    ("benefits", '"2027-01-15"', "2027-01-15", "expected text, found a date"),
    ("benefits", "value = 100", 'value = "100"', "expected int, got text"),
    ("benefits", "value = 100", "value = 1.5", "found a number with a fraction"),
    ("benefits", "value = [5, 6]", "value = 5", "expected an array of money:USD"),
    # borders
    ("benefits", 'uses = { identity = ["person.status", "person.region"] }', "uses = {}",
     "kind person belongs to domain identity and is not in `uses`"),
    ("benefits", 'uses = { identity = ["person.status", "person.region"] }',
     'uses = { identity = ["person.status"] }', "person.region belongs to domain identity"),
    ("benefits", 'identity = ["person.status"', 'identity = ["person.income"',
     "domain identity exports no 'person.income'"),
    ("benefits", 'identity = ["person.status"', 'identity = ["people.status"', "exports no kind"),
    ("benefits", "uses = { identity", "uses = { idenity", "there is no other domain 'idenity'"),
    ("benefits", 'exports = ["entitlement.*"]', 'exports = ["entitlement.sum"]', "has no"),
    ("benefits", "input.monthly <= params", "person.income <= params", "does not export"),
    ("benefits", 'depends = ["person.status"]', 'depends = ["person.income"]', "does not export"),
    ("benefits", 'basis = ["person.status"]', 'basis = ["person.income"]', "does not export"),
    ("identity", '"person.region", "licence"]', '"licence"]', "exports no 'person.region'"),
    ("benefits", '{ kind = "revision", id', '{ kind = "licence", id', "belongs to domain identity"),
    ("payments", 'open   = [ { account = "account/payee',
     'set = [ { record = "ent", status = "ended" } ]\n'
     'load = [ ["ent", "entitlement/x"] ]\nopen = [ { account = "account/payee',
     "kind entitlement belongs to domain benefits"),
    ("benefits", 'phase  = "protective"\n',
     'move = [ { from = "account/payee/{input.entitlement}", to = "account/program", '
     'amount = "1" } ]\n', "does not let domain benefits debit payee"),
    ("benefits", 'phase  = "protective"\n',
     'open = [ { account = "account/payee/{input.entitlement}" } ]\n', "belongs to domain pay"),
    ("benefits", '["ent", "entitlement/{input.entitlement}"] ]\nset',
     '["ent", "entitlement/{input.entitlement}"], ["p", "account/program"] ]\nset',
     "account family program belongs to domain payments"),
    ("identity", 'hold_by = ["payments"]', "hold_by = []", "does not let domain payments hold"),
    ("benefits", 'actor   = { role = "benefits.manager", not = ["ent.by.created"',
     'actor   = { role = "benefits.manager", not = ["ent.by.paid"', "has no status 'paid'"),
    ("benefits", 'sealed_for = ["treasury", "audit"]', 'open = true, sealed_for = ["treasury"]',
     "a field is open or sealed, not both"),
    ("benefits", 'type = "text", sealed_for = ["treasury", "audit"]',
     'type = "commitment", sealed_for = ["treasury"]', "a commitment hides its value already"),
    ("benefits", 'set    = [ { record = "ent", status = "suspended" } ]',
     "set = [ " + '{ record = "ent", status = "suspended" }, ' * 20 + "]\nopen = [ "
     + '{ account = "account/payee" }, ' * 20 + "]", "40 effects, at most"),
    ("identity", 'alive = ["dead"]', 'alive = ["dead", "dead"]', "a step is named twice"),
    ("identity", 'hold_by = ["payments"]', 'hold_by = ["' + "x" * 70_000 + '"]', "bytes of text"),
    ("identity", 'alive = ["dead"]', "alive = [" + '"dead", ' * 300 + "]", "items, at most"),
    ("identity", "alive = [\"dead\"]", ", ".join(f"s{n} = []" for n in range(300)), "at most"),
    ("benefits", "value = [5, 6] }", "value = [" + "5, " * 300 + "] }", "items, at most"),
    ("benefits", 'set    = [ { record = "ent", status = "suspended" } ]',
     "set = [ " + '{ record = "ent", status = "suspended" }, ' * 65 + "]", "at most"),
    # loads and templates
    ("benefits", "person/{input.person}", "persn/{input.person}", "there is no kind 'persn'"),
    ("benefits", "person/{input.person}", "person", "which record"),
    ("benefits", "person/{input.person}", "person/{input.persn}", "there is no input persn"),
    ("benefits", "person/{input.person}", "person/{input.monthly}", "may not stand in an id"),
    ("benefits", "person/{input.person}", "person/x{input.person}", "neither {path} nor"),
    ("benefits", "person/{input.person}", "person/{size('a')}", "more than a path"),
    ("benefits", "person/{input.person}", "person/1/2/3/4/5/6/7/8/9", "9 components"),
    ("payments", "entitlement/{input.entitlement}", "entitlement/{input.period}/{prog.balance}",
     "nothing is called prog"),
    ("payments", '["prog", "account/program"]', '["ent", "account/program"]', "loaded twice"),
    ("payments", '["prog", "account/program"]', '["prog", "account/programme"]', "no account fam"),
    ("payments", '["prog", "account/program"]', '["now", "account/program"]', "meaning of its own"),
    ("payments", '["prog", "account/program"]', '["prog"]', "expected a load such as"),
    ("benefits", 'load   = [ ["ent", "entitlement/{input.entitlement}"] ]\nset',
     'load   = [ ["ent", "entitlement/{input.person}"] ]\nset', "there is no input person"),
    ("payments", 'account = "account/payee/{input.person}"', 'account = "payee"', "not an account"),
    ("benefits", 'inputs = { entitlement = "ref:entitlement" }\nload   = [ ["ent", "ent',
     'inputs = { entitlement = "ref:person" }\nload   = [ ["ent", "ent',
     "expected a reference to entitlement, found one to person"),
    ("benefits", 'inputs = { entitlement = "ref:entitlement" }\nload   = [ ["ent", "ent',
     'inputs = { in = "int", entitlement = "ref:entitlement" }\nload   = [ ["ent", "ent',
     "a meaning of its own"),
    # actors
    ("benefits", 'actor  = { role = "benefits.officer" }', "actor = {}", "either role or self"),
    ("benefits", '{ role = "benefits.officer" }', '{ role = "officer" }', "is not a role"),
    ("benefits", '{ role = "benefits.officer" }', '{ self = "ent.monthly" }', "is money:USD, exp"),
    ("benefits", "who.scope.region == person", "who.region == person", "who.region is not a val"),
    ("benefits", "who.scope.region == person.region", "person.region", "expected bool"),
    ("benefits", 'not_agency = ["ent.by.created"]', 'not_agency = ["ent.person"]', "expected text"),
    # conditions
    ("benefits", 'code = "DEAD"', 'code = "dead"', "is not a code"),
    ("benefits", 'say = "the person is dead"', 'say = ""', "says what is wrong"),
    ("benefits", "person.status == 'alive'", "person.status == 1", "cannot compare"),
    ("benefits", "input.monthly <= params.large", "input.monthly <= params.lrge", "no parameter"),
    ("benefits", "input.monthly <= params.large", "person.a.b == 1", "is not a value"),
    ("benefits", "input.monthly <= params.large", "person.by == 1", "only in `not`"),
    ("payments", "prog.balance > ent", "prog.sum > ent", "an account has no sum"),
    ("benefits", 'fresh   = ["ent"]', 'fresh = ["entt"]', "not a loaded record"),
    ("payments", 'fresh  = ["ent"]', 'fresh = ["prog"]', "not a loaded record"),
    ("benefits", '"ent.status", "ent.monthly"', '"ent.id"', "an id never changes"),
    ("benefits", '"ent.status", "ent.monthly"', '"input.entitlement"', "not a field of a loaded"),
    ("benefits", '[["benefit",', '[["Benefit",', "is not a name"),
    ("benefits", '[["benefit",', '[["benefit", "{input.monthly}",', "may not stand in an id"),
    # effects
    ("benefits", '{ kind = "revision"', '{ kind = "revue"', "there is no kind 'revue'"),
    ("benefits", 'id = ["{input.entitlement}", "first"]', "id = []", "at least one component"),
    ("benefits", ' monthly = "input.monthly", note', " note", "field monthly of entitlement is no"),
    ("benefits", 'note = "input.note" }', 'noted = "input.note" }', "has no field noted"),
    ("benefits", 'note = "input.note" }', "note = \"'x'\" }", "expected sealed:audit,treasury"),
    ("benefits", 'note = "input.note" }', 'status = "input.note" }', "status is not a field"),
    ("benefits", 'monthly = "input.monthly", note', 'monthly = "person.status", note', "expected"),
    ("identity", 'income = "0" }', 'income = "0", died = "input.town" }', "expected date"),
    ("benefits", '{ record = "ent", status = "active", fields', '{ record = "en", fields', "not a"),
    ("benefits", 'set    = [ { record = "ent", status = "suspended" } ]',
     'set = [ { record = "ent" } ]', "nothing is set"),
    ("benefits", 'status = "active", fields', 'status = "granted", fields', "no step of"),
    ("benefits", '{ record = "ent", status = "active"',
     '{ record = "ent", status = "ended" }, { record = "ent", status = "active"', "set twice"),
    ("payments", 'amount = "ent.monthly" }', 'amount = "true" }', "expected money:USD"),
    ("payments", "account/payee/{ent.person}", "account/euros", "in USD, euros in EUR"),
    ("payments", 'scopes = ["pay", "all"]', 'scopes = ["pays"]', "one or more different scopes"),
    ("payments", 'scopes = ["pay", "all"]', "scopes = []", "one or more different scopes"),
    ("payments", 'until = "input.until"', 'until = "input.person"', "expected time"),
    ("payments", 'until = "input.until", reason = "under review"', 'reason = ""', "its reason"),
    ("payments", 'hold = "input.hold"', 'hold = "input.person"', "expected digest"),
    ("benefits", 'set    = [ { record = "ent", status = "suspended" } ]',
     'place_hold = [ { target = "account/payee", scopes = ["pay"], reason = "x" } ]',
     "domain payments does not let domain benefits hold payee"),
    ("payments", 'scope = "edit"', 'scope = "edits"', "there is no scope"),
    ("payments", 'reason = "paying edits nothing"', 'reason = ""', "gives its reason"),
    # the protective lane
    ("benefits", 'phase  = "protective"', 'phase = "urgent"', "there is no phase"),
    ("benefits", '"ent", status = "suspended"', '"ent", status = "active"', "cannot move entitl"),
    ("benefits", '"ent", status = "suspended" }', '"ent", fields = { monthly = "1" } }', "to stop"),
    ("benefits", 'phase  = "protective"', 'phase = "protective"\ndepends = ["ent.status"]',
     "judged on the present state"),
    ("payments", 'inputs = { person = "ref:person", hold = "digest" }',
     'phase = "protective"\ninputs = { person = "ref:person", hold = "digest" }',
     "a protective action has no release_hold"),
    ("identity", 'actor  = { role = "identity.registrar" }',
     'phase = "protective"\nactor = { role = "identity.registrar" }', "action has no create"),
    # the charter
    ("charter", "[actions.add_key]", "[actions.add_keys]", "there is no kernel action"),
    ("charter", "kernel = true\nactor = { role = \"charter.administrator\" }",
     'actor = { role = "charter.administrator" }', "the actions of domain charter are the ker"),
    ("charter", "kernel = true\n", 'kernel = true\ninputs = { a = "int" }\n', "decides inputs of"),
    ("charter", "== input.agency\" }\n\n", "== input.office\" }\n\n", "there is no input office"),
    ("identity", "[actions.register]\n", "[actions.register]\nkernel = true\n", "only domain char"),
]  # fmt: skip


@pytest.mark.parametrize(("domain", "old", "new", "message"), REFUSED)
def test_fault_of_an_author_is_refused_with_its_reason(
    domain: str, old: str, new: str, message: str
) -> None:
    error = refusal(domain, old, new)
    with pytest.raises(RulesError, match=message.replace("{", r"\{")):
        raise error
    assert error.hint
    assert error.line > 0
    assert error.where.endswith(".toml")


def test_an_error_names_the_line_of_the_expression_at_fault() -> None:
    text = edited("benefits", "input.monthly <= params.large", "input.monthly <= params.lrge")
    error = refusal("benefits", "input.monthly <= params.large", "input.monthly <= params.lrge")
    assert error.line == line_of(text, "params.lrge")
    assert error.message.startswith(f"benefits.toml:{error.line}: ")
    assert error.hint == "did you mean large?"


def test_a_misspelt_key_gets_the_right_one_suggested() -> None:
    for old, new, hint in (
        ("summary =", "sumary =", "did you mean summary?"),
        ("require =", "requires =", "did you mean require?"),
        ("stops =", "stop =", "did you mean stops?"),
        ("exports =", "export =", "did you mean exports?"),
        ("basis = [", "bases = [", "did you mean basis?"),
        ("granted = [", "grantd = [", "did you mean granted?"),
    ):
        assert refusal("benefits", old, new).hint == hint


def test_two_rule_sets_of_one_domain_are_refused() -> None:
    with pytest.raises(RulesError, match="domain identity has two rule sets"):
        rulebook(other=TEXTS["identity"])


def test_an_account_family_of_another_domain_is_not_declared_again() -> None:
    text = edited(
        "benefits", "[kinds.revision]", '[accounts.payee]\ncurrency = "USD"\n[kinds.revision]'
    )
    with pytest.raises(RulesError, match="family payee belongs to domain benefits"):
        rulebook(benefits=text)
