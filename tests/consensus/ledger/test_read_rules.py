"""Read rules: what authors may write, what stays the same, and whom a rule lets in."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pycddl
import pytest

from consensus import codec, genesis
from consensus.errors import RulesError
from consensus.ledger.layout import ACTIVE, REVOKED, Agency, Principal, Role
from consensus.ledger.model import Kind, Rulebook
from consensus.ledger.readers import (
    ALWAYS,
    BY_ROW,
    NEVER,
    Reader,
    Row,
    account_row,
    record_row,
)
from consensus.ledger.rules import (
    check_text,
    compile_rulebook,
    decode_definition,
    encode_definition,
    load_toml,
    parts_root,
)
from consensus.ledger.rules import readers as reader_rules
from consensus.state.record import create, encode_row, encode_single

GRAMMAR = (Path(__file__).parents[3] / "docs/protocol/rules.cddl").read_text()
BASE = """
domain = "care"
number = 1
legal_basis = "Care Act"

[kinds.person]
fields.name = { type = "text", open = true }

[kinds.case]
fields.person  = { type = "ref", kind = "person" }
fields.others  = { type = "list:ref:person", optional = true }
fields.region  = { type = "text", open = true }
fields.points  = { type = "int", optional = true }
fields.scores  = { type = "list:int", optional = true }
fields.token   = { type = "token:civil", optional = true }
status = { start = "open", steps = { open = ["shut"] } }
READ

[accounts.fund]
currency = "USD"
READ_FUND

[actions.open]
actor  = { role = "care.worker" }
inputs = { person = "ref:person", region = "text" }
create = [ { kind = "case", id = "{tx}", set = { person = "input.person", \
region = "input.region" } } ]

[actions.name]
actor  = { role = "care.registrar" }
inputs = { token = "token:civil", name = "text" }
create = [ { kind = "person", id = ["{input.token}"], set = { name = "input.name" } } ]
"""
ME, SUBJECT, TOKEN = b"m" * 32, b"s" * 32, b"t" * 32


def text(read: str = "", fund: str = "") -> str:
    return BASE.replace("READ_FUND", fund).replace("READ", read)


def book(read: str = "", fund: str = "") -> Rulebook:
    return compile_rulebook([load_toml(text(read, fund))])


def fault(read: str) -> RulesError:
    with pytest.raises(RulesError) as caught:
        book(read)
    return caught.value


# --- what authors may write -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("read", "said"),
    [
        ("read = [ {} ]", "one of role, agency, self and anyone"),
        ('read = [ { role = "care.worker", anyone = true } ]', "one of role"),
        ('read = [ { where = "now > 3" } ]', "one of role"),
        ('read = [ { role = "worker" } ]', "'worker' is not a role"),
        ('read = [ { role = "care.w*" } ]', "is not a role"),
        ('read = [ { role = "cure.*" } ]', "no actor, approval or read rule names a role cure.*"),
        ('read = [ { agency = "No Such" } ]', "is not the name of an agency"),
        ('read = [ { self = "holder" } ]', "case has no field holder"),
        ('read = [ { self = "region" } ]', "expected ref or token or digest or list"),
        ('read = [ { self = "scores" } ]', "scores is list:int, which names nobody"),
        ('read = [ { self = "record.person" } ]', "is not a field of case"),
        ('read = [ { anyone = true, where = "input.x == 1" } ]', "reading has no input"),
        ('read = [ { anyone = true, where = "params.x == 1" } ]', "reading has no params"),
        ('read = [ { anyone = true, where = "record.nothing == 1" } ]', "case has no field"),
        ('read = [ { anyone = true, where = "record.region" } ]', "bool"),
        ('read = [ { anyone = true, where = "account.balance > 1" } ]', "account"),
        ('read = [ { anyone = true, when = "now > 3" } ]', "unknown key when"),
        ("read = { anyone = true }", "expected an array"),
        ('read = []\nclass = "secret"', "there is no class 'secret'"),
        ('class = "restricted"', "case does not say who reads it"),
        ("read = [ " + "{ anyone = true }, " * 17 + "]", "17 items, at most 16"),
    ],
)
def test_fault_names_its_line(read: str, said: str) -> None:
    found = fault(read)
    assert said in found.message
    assert found.line >= text().count("\n", 0, text().index("[kinds.case]")) + 1
    assert found.hint


def test_a_name_stands_for_so_many_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 'read = [ { role = "care.*" } ]'
    monkeypatch.setattr(reader_rules, "ROLES_MAX", 2)
    assert book(read).kinds["case"].readers is not None
    monkeypatch.setattr(reader_rules, "ROLES_MAX", 1)
    assert "care.* stands for 2 roles, at most 1" in fault(read).message


def test_canonical_form_is_of_the_grammar_and_keeps_what_was_said() -> None:
    schema = pycddl.Schema("start = rule-set\n" + GRAMMAR)
    for read in ("", "read = []", 'class = "restricted"\nread = [ { self = "person" } ]'):
        definition = load_toml(text(read, read.replace("person", "id")))
        data = encode_definition(definition)
        schema.validate_cbor(data)
        assert decode_definition(data) == definition


def test_empty_list_of_readers_is_not_silence() -> None:
    assert book().kinds["case"].readers is None
    readers = book("read = []").kinds["case"].readers
    assert readers is not None
    assert readers.rules == ()


def test_who_reads_disturbs_no_caller_and_is_proved_all_the_same() -> None:
    before, after = (load_toml(text(read)) for read in ("", 'read = [ { agency = "audit" } ]'))
    ids = [
        {
            name: each.action_id
            for name, each in compile_rulebook([d]).rule_sets["care"].actions.items()
        }
        for d in (before, after)
    ]
    assert ids[0] == ids[1]
    assert parts_root(before) != parts_root(after)


def test_example_of_the_guide_is_sound() -> None:
    guide = (Path(__file__).parents[3] / "docs/rules.md").read_text()
    (example,) = re.findall(r"```toml\n# who reads\n(.*?)```", guide, re.DOTALL)
    head = 'domain = "benefits"\nnumber = 1\nlegal_basis = "Act"\n[kinds.person]\n'
    found = compile_rulebook([load_toml(head + 'fields.born = { type = "date" }\n' + example)])
    owners = [each.name for each in found.read_by_rules]
    assert owners == ["entitlement", "payee"]


@pytest.mark.parametrize(
    ("read", "noted"),
    [
        ("", False),
        ('read = [ { role = "care.*" } ]', False),
        ('read = [ { role = "care.registrar" } ]', True),
        ('read = [ { self = "person" } ]', True),
        ('read = [ { agency = "north" } ]', False),
        ("read = []", True),
    ],
)
def test_actor_who_may_not_read_what_is_loaded_is_noted(read: str, noted: bool) -> None:
    shut = """
[actions.shut]
actor  = { role = "care.worker" }
inputs = { case = "ref:case" }
load   = [ ["case", "case/{input.case}"] ]
set    = [ { record = "case", status = "shut" } ]
"""
    notes = check_text(text(read) + shut, "care.toml")
    found = [each for each in notes if "may not read case" in each.message]
    assert bool(found) is noted
    assert all(each.line for each in found)


# --- whom a rule lets in ----------------------------------------------------------------------


def reader(
    rules: Rulebook,
    *roles: Role,
    kind: int = genesis.OFFICIAL,
    agency: Agency | None = None,
    person: list[Any] | None = None,
    now_ms: int = 1000,
) -> Reader:
    given = {(each.principal, each.role): each for each in roles}

    def leaf(space: str, components: Any) -> Any:
        assert space == "role"
        return given.get(tuple(components))

    who = Principal(ME, "north", kind, SUBJECT, person, ACTIVE)
    return Reader(rules, who, agency or Agency("north", "North", ACTIVE, 0), now_ms, leaf)


def role(name: str, scope: dict[str, str] | None = None, **changes: Any) -> Role:
    rows = [[key, value] for key, value in (scope or {}).items()]
    return Role(ME, name, rows, 0, None, None, ACTIVE)._replace(**changes)


def row(rules: Rulebook, **fields: Any) -> Row:
    kind = rules.kinds["case"]
    defaults: dict[str, Any] = {"person": [TOKEN], "region": "north", "status": "open"}
    values = {name: codec.encode({**defaults, **fields}.get(name)) for name in kind.leaves}
    stem = codec.encode(["case", 1, [7]])[1:]
    stored, _ = create(bytes(32), stem, values, [bytes([n]) * 16 for n in range(len(values))])
    return record_row(kind, ["case", 7], encode_row(stored))


def lets_in(read: str, *roles: Role, fields: dict[str, Any] | None = None, **who: Any) -> bool:
    rules = book(f"read = [ {read} ]")
    return reader(rules, *roles, **who).may_read(rules.kinds["case"], row(rules, **(fields or {})))


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, True),
        ({"status": REVOKED}, False),
        ({"from_ms": 1001}, False),
        ({"until_ms": 1000}, False),
        ({"until_ms": 1001}, True),
        ({"suspends_at_ms": 1000}, False),
    ],
)
def test_role_counts_while_it_is_in_force(changes: dict[str, Any], may: bool) -> None:
    assert lets_in('{ role = "care.worker" }', role("care.worker", **changes)) is may


def test_any_role_of_a_name_lets_in_under_its_own_scope() -> None:
    read = '{ role = "care.*", where = "who.scope.region == record.region" }'
    north, south = {"region": "north"}, {"region": "south"}
    assert lets_in(read, role("care.worker", south), role("care.registrar", north))
    assert not lets_in(read, role("care.worker", south), role("care.registrar", south))
    assert not lets_in(read, role("care.worker"))
    assert not lets_in(read)


def test_roles_that_only_approve_or_review_belong_to_a_name_too() -> None:
    stop = """
[actions.stop]
actor     = { role = "care.worker" }
inputs    = { case = "ref:case" }
phase     = "protective"
load      = [ ["case", "case/{input.case}"] ]
set       = [ { record = "case", status = "shut" } ]
approvals = { any = [ { role = "cure.chief" }, { all = [ { role = "cure.deputy" } ] } ] }
emergency = { approvals = { role = "cure.duty" }, \
review = { role = "cure.board", within_days = 3 } }
"""
    rules = text('read = [ { role = "cure.*" } ]') + stop
    rules = rules.replace('shut"] }', 'shut"] }, stops = ["shut"]')
    readers = compile_rulebook([load_toml(rules)]).kinds["case"].readers
    assert readers is not None
    assert readers.rules[0].roles == ("cure.board", "cure.chief", "cure.deputy", "cure.duty")


@pytest.mark.parametrize(
    ("where", "may"),
    [
        ("record.points > 3", False),
        ("record.points > 3 || true", True),
        ("!has(record.points)", True),
        ("1 / record.points == 0", False),
        ("record.status == 'open'", True),
        ("now < 1000", False),
        ("who.scope.x == 'y'", False),
        ("who.agency == 'north' && record.region == who.agency", True),
    ],
)
def test_condition_without_a_value_lets_nobody_in(where: str, may: bool) -> None:
    assert lets_in(f'{{ anyone = true, where = "{where}" }}') is may


@pytest.mark.parametrize(
    ("own", "fields", "may"),
    [
        ("person", {}, True),
        ("person", {"person": [b"o" * 32]}, False),
        ("person", {"person": [ME]}, True),
        ("token", {"token": SUBJECT}, True),
        ("token", {"token": TOKEN}, False),
        ("token", {}, False),
        ("others", {"others": [[b"o" * 32], [TOKEN]]}, True),
        ("others", {"others": [[b"o" * 32]]}, False),
        ("others", {}, False),
        ("id", {}, False),
    ],
)
def test_self_is_whom_the_field_names(own: str, fields: dict[str, Any], may: bool) -> None:
    found = lets_in(f'{{ self = "{own}" }}', fields=fields, kind=genesis.CITIZEN, person=[TOKEN])
    assert found is may


def test_agency_means_its_people_and_those_of_one_that_took_its_place() -> None:
    assert lets_in('{ agency = "north" }')
    assert not lets_in('{ agency = "audit" }')
    heir = Agency("north", "North", ACTIVE, 0, None, ["audit"])
    assert lets_in('{ agency = "audit" }', agency=heir)
    assert lets_in('{ agency = "*" }')
    assert not lets_in('{ agency = "*" }', kind=genesis.CITIZEN)
    assert not lets_in('{ agency = "north" }', kind=genesis.CITIZEN)
    assert lets_in("{ anyone = true }", kind=genesis.CITIZEN)


def test_account_is_read_by_balance_and_by_whom_its_id_names() -> None:
    fund = 'read = [ { self = "id" }, { role = "care.worker", where = "account.balance < 100" } ]'
    rules = book("", fund)
    family = rules.families["fund"]

    def account(id_: Any, balance: int) -> Row:
        value = codec.encode([["fund", id_], balance, 0, 0])
        return account_row(["fund", id_], encode_single(1, bytes(16), value))

    citizen = reader(rules, kind=genesis.CITIZEN, person=[TOKEN])
    assert citizen.may_read(family, account([TOKEN], 5))
    assert not citizen.may_read(family, account([b"o" * 32], 5))
    assert not citizen.may_read(family, account("main", 5))
    worker = reader(rules, role("care.worker"))
    assert worker.may_read(family, account("main", 99))
    assert not worker.may_read(family, account("main", 100))


@pytest.mark.parametrize(
    ("read", "level"),
    [
        ('{ role = "care.worker" }', ALWAYS),
        ('{ role = "care.worker", where = "now > 0" }', ALWAYS),
        ('{ role = "care.worker", where = "now < 0" }', NEVER),
        ('{ role = "care.worker", where = "record.points > 3" }', BY_ROW),
        ('{ self = "person" }', BY_ROW),
        ('{ role = "care.registrar" }', NEVER),
        ('{ self = "person" }, { agency = "*" }', ALWAYS),
    ],
)
def test_what_does_not_depend_on_the_record_is_known_for_the_kind(read: str, level: int) -> None:
    rules = book(f"read = [ {read} ]")
    assert reader(rules, role("care.worker")).level(rules.kinds["case"]) == level


@pytest.mark.parametrize(
    ("marked", "read", "may"),
    [
        ("", '{ role = "care.registrar" }', True),
        ('class = "restricted"', '{ role = "care.registrar" }', False),
        ('class = "restricted"', '{ role = "care.worker" }', True),
        ('class = "restricted"', '{ role = "care.worker", where = "!has(record.points)" }', False),
        ('class = "restricted"', '{ anyone = true, where = "record.id == record.id" }', True),
    ],
)
def test_absence_is_shown_to_whom_any_record_of_that_id_would_be(
    marked: str, read: str, may: bool
) -> None:
    rules = book(f"{marked}\nread = [ {read} ]")
    kind = rules.kinds["case"]
    assert reader(rules, role("care.worker")).may_see_absence(kind, Row([7], kind, None)) is may
    citizen = reader(rules, kind=genesis.CITIZEN, person=[b"z" * 32])
    restricted = marked or "registrar" in read or "worker" in read
    if restricted and "anyone" not in read:
        assert not citizen.may_see_absence(kind, Row([7], kind, None))


def test_explanation_is_the_verdict() -> None:
    read = (
        '{ role = "care.worker", where = "who.scope.region == record.region" }, '
        '{ agency = "audit" }, { self = "person" }'
    )
    rules = book(f"read = [ {read} ]")
    kind = rules.kinds["case"]
    for who in (
        reader(rules, role("care.worker", {"region": "north"})),
        reader(rules, role("care.worker", {"region": "south"})),
        reader(rules, role("care.worker", until_ms=5)),
        reader(rules, person=[TOKEN]),
    ):
        told = who.explain(kind, row(rules))
        assert [each.source.split()[0] for each in told] == ["role", "agency", "self"]
        assert any(each.lets_in for each in told) is who.may_read(kind, row(rules))
        assert all(each.why for each in told)
    why = reader(rules, role("care.worker", until_ms=5)).explain(kind, row(rules))[0].why
    assert why == "no role care.worker: expired"


def test_kind_of_an_older_definition_reads_null_where_it_had_no_field() -> None:
    added = BASE.replace(
        'fields.token   = { type = "token:civil", optional = true }',
        'fields.token   = { type = "token:civil", optional = true }\n'
        'fields.late    = { type = "int", optional = true, since = 2 }',
    )
    read = 'read = [ { anyone = true, where = "!has(record.late)" } ]'
    rules = compile_rulebook([load_toml(added.replace("READ_FUND", "").replace("READ", read))])
    old = book(read.replace("record.late", "record.points"))
    kind: Kind = replace(rules.kinds["case"], name="case")
    shown = row(old)
    stored = shown._stored
    assert reader(rules).may_read(kind, Row([7], kind, stored))


def test_what_is_reserved_of_an_account_is_no_reason_to_show_it() -> None:
    rule = 'read = [ { anyone = true, where = "account.reserved > 1" } ]'
    with pytest.raises(RulesError, match=r"reading sees no account\.reserved"):
        book(fund=rule)
