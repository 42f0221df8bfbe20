"""Intermediate values, effects under conditions, records that may be absent, values of a period.

The rules here are read by nobody but these tests; every expected value is worked out by hand.
"""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from blake3 import blake3
from pycddl import Schema

from consensus.codec import Value
from consensus.errors import RulesError
from consensus.genesis import OpeningBalance
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.effects import hold_id, record_id
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.rules import (
    compile_rulebook,
    decode_definition,
    encode_definition,
    load_toml,
)
from consensus.ledger.transaction import Draft
from consensus.state.state import MemoryBackend, Row
from tests.consensus.ledger.world import TEXTS, World, make_genesis, public_key

Expected = tuple[str, list[Value], int]
SCHEMA = Schema(
    (Path(__file__).parents[3] / "docs/protocol/rules.cddl").read_text(encoding="utf-8")
)

HEAD = """\
domain = "grants"
number = 1
legal_basis = "Grants Act"

[params]
rates = { by = "now", type = "list:int", values = [ { from = "2026-01", value = [300, 200, 100] } ] }

[accounts.fund]
currency = "USD"

[kinds.note]
fields.amount = { type = "int" }
fields.about  = { type = "text", open = true, optional = true }
status = { start = "new", steps = { new = ["seen", "shut"], seen = ["shut"] }, stops = ["shut"] }
"""

LETS = """
[actions.share]
actor   = { role = "payments.clerk", where = "half > 0" }
inputs  = { child = "int", days = "int", of_days = "int", label = "text?" }
require = [ { code = "DAYS", that = "input.of_days > 0", say = "no days" },
            { code = "MUCH", that = "input.of_days < 0 || due <= 250", say = "too much" } ]
let     = [ ["full", "item(params.rates, input.child - 1)"],
            ["due", "muldiv(full, input.days, input.of_days, 'half_up')"],
            ["half", "full / 2"],
            ["never", "1 / 0"] ]
unique  = [["share", "{due}"]]
create  = [ { kind = "note", id = ["{half}", "{due}"], set = { amount = "due + half" } } ]
"""


def make(actions: str) -> World:
    """Return a network with the rules under test beside its own."""
    return World(make_genesis((*TEXTS, HEAD + actions)))


def fault(actions: str) -> RulesError:
    """Return what is wrong with rules."""
    with pytest.raises(RulesError) as caught:
        compile_rulebook([load_toml(HEAD + actions, "grants.toml")])
    return caught.value


def line_of(actions: str, what: str) -> int:
    """Return the line on which ``what`` stands."""
    text = HEAD + actions
    return text[: text.index(what)].count("\n") + 1


def share(world: World, child: int, days: int, of_days: int, *note: int) -> Decision:
    """Make a note of a share; ``note`` is the id of the record that comes of it."""
    expects = [("note", [*note], 0)] if note else []
    return world.do("clerk", "grants.share", child, days, of_days, None, expects=expects)


# --- let --------------------------------------------------------------------------------------


def test_a_let_is_used_by_later_lets_conditions_templates_slots_and_values() -> None:
    world = make(LETS)
    # full 200, due 200 * 10 / 31 = 64.5 rounds to 65, half 100
    assert share(world, 2, 10, 31, 100, 65).code == Code.APPLIED
    assert world.record("note", [100, 65]).fields["amount"] == 165
    assert share(world, 2, 65, 200, 100, 65).code == Code.STALE
    # another child, the same amount due: the slot is taken
    again = share(world, 3, 65, 100, 50, 65)
    assert (again.code, again.detail) == (Code.NOT_UNIQUE, [["unique", "share"]])


def test_a_requirement_stands_before_the_division_it_guards() -> None:
    decision = share(make(LETS), 2, 10, 0)
    assert (decision.code, decision.detail) == (Code.REQUIREMENT, ["DAYS", "no days"])


def test_a_let_without_a_value_is_a_failed_condition() -> None:
    # muldiv(300, 2^62, 1) does not fit 64 bits
    decision = share(make(LETS), 1, 2**62, 1)
    assert decision.code == Code.REQUIREMENT
    assert decision.detail[0] in ("MUCH", "NO_VALUE")


def test_an_actor_condition_on_a_let_without_a_value_is_not_met() -> None:
    decision = share(make(LETS), 9, 1, 1)
    assert (decision.code, decision.detail) == (Code.NOT_AUTHORIZED, [["where"]])


def test_an_effect_on_a_let_without_a_value_is_refused() -> None:
    text = """
[actions.divide]
actor  = { role = "payments.clerk" }
inputs = { by = "int" }
let    = [ ["part", "100 / input.by"] ]
create = [ { kind = "note", id = "{tx}", set = { amount = "part" } } ]
"""
    world = make(text)
    assert world.do("clerk", "grants.divide", 7).code == Code.APPLIED
    decision = world.do("clerk", "grants.divide", 0)
    assert (decision.code, decision.detail) == (Code.REQUIREMENT, ["NO_VALUE", "part has no value"])


def test_a_chain_of_lets_is_computed_once_each_with_and_without_a_value() -> None:
    # Were each let computed for every use, this would take 2^31 steps.
    rows = ["[ 'v0', '1 / input.by' ]"]
    rows += [f"[ 'v{n}', 'v{n - 1} > 1 || v{n - 1} < 1 ? 0 : v{n - 1}' ]" for n in range(1, 32)]
    text = f"""
[actions.chain]
actor   = {{ role = "payments.clerk" }}
inputs  = {{ by = "int" }}
let     = [ {", ".join(rows)} ]
require = [ {{ code = "V", that = "v31 == 1 || v31 == 2", say = "no" }} ]
"""
    world = make(text)
    assert world.do("clerk", "grants.chain", 1).code == Code.APPLIED
    assert world.do("clerk", "grants.chain", 0).detail == ["V", "no"]


def test_a_let_is_seen_inside_a_macro_and_may_hold_a_list() -> None:
    text = """
[actions.scan]
actor   = { role = "payments.clerk" }
inputs  = { least = "int" }
let     = [ ["rates", "params.rates"], ["bound", "input.least + 0"] ]
require = [ { code = "LOW", that = "rates.all(r, r >= bound)", say = "low" } ]
"""
    world = make(text)
    assert world.do("clerk", "grants.scan", 100).code == Code.APPLIED
    assert world.do("clerk", "grants.scan", 101).detail == ["LOW", "low"]


def test_what_lets_read_belongs_to_the_action() -> None:
    (rules,) = compile_rulebook([load_toml(HEAD + LETS)]).rule_sets.values()
    action = rules.actions["share"]
    assert ("params", "rates") in action.reads
    assert all(path[0] in ("input", "params") for path in action.reads)
    guard = action.require[1].that
    assert guard.reads == (
        ("input", "of_days"), ("params", "rates"), ("input", "child"), ("input", "days"),
    )  # fmt: skip


BAD_LETS = [
    ('["half", "full / 2"]', '["half", "later / 2"]', "nothing is called later"),
    ('["half", "full / 2"]', '["due", "full / 2"]', "due is named twice"),
    ('["half", "full / 2"]', '["input", "full / 2"]', "may not be called input"),
    ('["half", "full / 2"]', '["Half", "full / 2"]', "is not a name"),
    ('["half", "full / 2"]', '["half", "full /"]', "at the end"),
    ('["half", "full / 2"]', '["half", "full && true"]', "an operand of && is int"),
    ('["half", "full / 2"]', '["half"]', "expected a name and an expression"),
    ('["half", "full / 2"]', '["half", "full.x"]', "full has no fields"),
    ('["half", "full / 2"]', '["half", "input.label"], ["x", "has(half)"]', "has() takes a field"),
    ('where = "half > 0"', 'where = "half"', "expected bool, the expression is int"),
    ('where = "half > 0"', 'not = ["half"]', "expected a path"),
    ('kind = "note", id = ["{half}"', 'kind = "note", id = ["{half + 1}"', "more than a path"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD_LETS)
def test_a_bad_let_is_refused_with_its_line(old: str, new: str, message: str) -> None:
    text = LETS.replace(old, new)
    assert text != LETS
    error = fault(text)
    assert message in error.message
    assert error.line == line_of(text, new)


def test_a_load_cannot_be_named_by_a_let_nor_share_its_name() -> None:
    text = LETS.replace("require =", 'load = [ ["n", "note/{half}"] ]\nrequire =', 1)
    assert "nothing is called half" in fault(text).message
    text = LETS.replace("require =", 'load = [ ["half", "note/{input.child}"] ]\nrequire =', 1)
    assert "half is a load" in fault(text).message


def test_the_kernel_has_no_lets() -> None:
    text = TEXTS[0].replace("kernel = true", 'kernel = true\nlet = [["a", "1"]]', 1)
    with pytest.raises(RulesError, match="the kernel decides let"):
        compile_rulebook([load_toml(text)])


# --- when -------------------------------------------------------------------------------------

WHEN = """
[actions.note]
actor  = { role = "payments.clerk" }
inputs = { name = "text", amount = "int" }
create = [ { kind = "note", id = ["{input.name}"], set = { amount = "input.amount" } } ]

[actions.decide]
actor  = { role = "payments.clerk" }
inputs = { note = "ref:note", seen = "bool", more = "bool" }
load   = [ ["n", "note/{input.note}"] ]
set    = [ { record = "n", status = "seen", fields = { amount = "n.amount + 1" }, when = "input.seen" },
           { record = "n", status = "shut", fields = { amount = "n.amount + 10" }, when = "input.more" } ]

[actions.spread]
actor   = { role = "payments.clerk" }
inputs  = { to = "text", amount = "money:USD", other = "text", rest = "int" }
require = [ { code = "SIGN", that = "input.amount != 7", say = "seven" } ]
open    = [ { account = "account/fund/{input.to}", when = "input.amount > 100" } ]
move    = [ { from = "account/fund/main", to = "account/fund/{input.to}", amount = "input.amount", when = "input.amount > 0" },
            { from = "account/fund/main", to = "account/fund/{input.other}", amount = "input.rest", when = "100 / input.rest > 0" } ]
create  = [ { kind = "note", id = ["{input.to}"], set = { amount = "1" }, when = "input.amount > 100" } ]

[actions.freeze]
actor      = { role = "payments.clerk" }
inputs     = { a = "bool", b = "bool" }
place_hold = [ { target = "account/fund/main", scopes = ["pay"], reason = "first", when = "input.a" },
               { target = "account/fund/main", scopes = ["all"], reason = "second", when = "input.b" } ]

[actions.thaw]
actor        = { role = "payments.clerk" }
inputs       = { hold = "digest?" }
release_hold = [ { target = "account/fund/main", hold = "input.hold", when = "has(input.hold)" } ]
"""


def funded(actions: str) -> World:
    """Return a network with a fund of 1,000."""
    genesis = make_genesis((*TEXTS, HEAD + actions))
    main = OpeningBalance("fund", ("main",), 1000)
    return World(replace(genesis, accounts=(*genesis.accounts, main)))


def decide(world: World, seen: bool, more: bool, *version: int) -> Decision:
    """Decide on the note ``n``."""
    expects = [("note", ["n"], each) for each in version]
    return world.do("clerk", "grants.decide", ["n"], seen, more, expects=expects)


def noted(world: World) -> World:
    """Return the network with a note of 5 under ``n``."""
    made = world.do("clerk", "grants.note", "n", 5, expects=[("note", ["n"], 0)])
    assert made.code == Code.APPLIED
    return world


def test_an_effect_whose_condition_is_false_does_nothing_and_needs_no_version() -> None:
    world = noted(make(WHEN))
    assert decide(world, False, False).code == Code.APPLIED
    assert decide(world, True, False).code == Code.STALE
    assert world.record("note", ["n"]).version == 1
    assert decide(world, True, False, 1).code == Code.APPLIED
    record = world.record("note", ["n"])
    assert (record.version, record.fields["status"], record.fields["amount"]) == (2, "seen", 6)


def test_one_of_two_sets_takes_place_and_of_both_the_second_prevails() -> None:
    world = noted(make(WHEN))
    assert decide(world, False, True, 1).code == Code.APPLIED
    assert world.record("note", ["n"]).fields["amount"] == 15
    world = noted(make(WHEN))
    assert decide(world, True, True, 1).code == Code.APPLIED
    record = world.record("note", ["n"])
    assert (record.version, record.fields["status"], record.fields["amount"]) == (2, "shut", 15)


def test_a_status_step_is_checked_only_if_it_takes_place() -> None:
    world = noted(make(WHEN))
    assert decide(world, False, True, 1).code == Code.APPLIED
    assert decide(world, False, False).code == Code.APPLIED
    assert decide(world, True, False, 2).detail[0] == "NO_STEP"


def spread(world: World, to: str, amount: int, other: str, rest: int, *named: int) -> Decision:
    """Spread amounts over two accounts."""
    expects = [("note", [to], each) for each in named]
    return world.do("clerk", "grants.spread", to, amount, other, rest, expects=expects)


def test_accounts_of_an_effect_that_does_not_take_place_need_not_exist() -> None:
    world = funded(WHEN)
    assert spread(world, "new", 200, "nobody", -1, 0).code == Code.APPLIED
    assert world.balance("fund", "main") == 800
    assert world.balance("fund", "new") == 200
    assert spread(world, "new", 50, "nobody", -1).code == Code.APPLIED  # no open, no note
    assert world.balance("fund", "new") == 250
    assert spread(world, "nobody", 50, "new", -1).code == Code.NOT_FOUND
    assert spread(world, "nobody", 0, "new", 30).code == Code.APPLIED
    assert (world.balance("fund", "main"), world.balance("fund", "new")) == (720, 280)


def test_a_condition_without_a_value_is_a_failed_requirement_after_those_written_down() -> None:
    world = funded(WHEN)
    decision = spread(world, "x", 7, "y", 0)
    assert decision.detail == ["SIGN", "seven"]
    decision = spread(world, "x", 6, "y", 0)
    assert decision.code == Code.REQUIREMENT
    assert decision.detail[0] == "NO_VALUE"
    assert world.balance("fund", "main") == 1000


def test_a_hold_stops_only_the_effects_that_take_place() -> None:
    world = funded(WHEN)
    assert spread(world, "new", 200, "nobody", -1, 0).code == Code.APPLIED
    assert world.do("clerk", "grants.freeze", True, False).code == Code.APPLIED
    assert spread(world, "new", 1, "new", -1).code == Code.HELD
    assert spread(world, "new", 0, "new", -1).code == Code.APPLIED


def test_the_id_of_a_hold_does_not_depend_on_effects_that_did_not_take_place() -> None:
    world = funded(WHEN)
    transaction = world.draft("clerk", ("grants.freeze", False, True))
    assert world.one(transaction).code == Code.APPLIED
    ids = [hold_id(transaction.txid, 0, at) for at in (0, 1)]
    released = [world.do("clerk", "grants.thaw", each).detail for each in ids]
    assert released == [["NO_HOLD", "the target has no such hold"], None]
    assert world.do("clerk", "grants.thaw", None).code == Code.APPLIED


def test_a_decision_names_moves_that_took_place() -> None:
    world = funded(WHEN)
    assert spread(world, "new", 200, "nobody", -1, 0).code == Code.APPLIED
    decision = spread(world, "new", 0, "new", 30)
    assert cbor2.loads(decision.leaves["moves:grants"]) == [
        [0, ["fund", "main"], -30],
        [0, ["fund", "new"], 30],
    ]


BAD_WHENS = [
    ('when = "input.seen"', 'when = "n.amount"', "expected bool, the expression is int"),
    ('when = "input.seen"', 'when = "input.sen"', "there is no input sen"),
    ('when = "input.seen"', "when = true", "expected text, found true or false"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD_WHENS)
def test_a_bad_condition_of_an_effect_is_refused_with_its_line(
    old: str, new: str, message: str
) -> None:
    text = WHEN.replace(old, new)
    error = fault(text)
    assert message in error.message
    assert error.line == line_of(text, new)


def test_two_sets_of_one_record_without_a_condition_are_refused() -> None:
    text = WHEN.replace(', when = "input.seen"', "").replace(', when = "input.more"', "")
    assert "n is set twice" in fault(text).message
    compile_rulebook([load_toml(HEAD + WHEN.replace(', when = "input.seen"', ""))])


def test_conditions_of_effects_have_the_shape_of_the_grammar_and_survive_it() -> None:
    for text in (LETS, WHEN):
        definition = load_toml(HEAD + text)
        data = encode_definition(definition)
        SCHEMA.validate_cbor(data)
        assert decode_definition(data) == definition


# --- optional loads ---------------------------------------------------------------------------

OPTIONAL = """
[kinds.debt]
fields.open = { type = "int" }
fields.heir = { type = "ref", kind = "debt", optional = true }
status = { start = "due", steps = { due = ["settled"], settled = [] } }

[kinds.report]
fields.sum = { type = "int" }

[actions.owe]
actor  = { role = "payments.clerk", not = ["debt.by.settled"] }
inputs = { person = "text", amount = "int" }
load   = [ ["debt?", "debt/{input.person}"] ]
create = [ { kind = "debt", id = ["{input.person}"], set = { open = "input.amount" }, when = "!has(debt)" } ]
set    = [ { record = "debt", fields = { open = "debt.open + input.amount" }, when = "has(debt)" } ]

[actions.settle]
actor  = { role = "payments.clerk" }
inputs = { person = "text" }
load   = [ ["debt?", "debt/{input.person}"] ]
set    = [ { record = "debt", status = "settled" } ]

[actions.inherit]
actor   = { role = "payments.clerk" }
inputs  = { person = "text", sum = "int" }
load    = [ ["debt?", "debt/{input.person}"], ["heir?", "debt/{debt.heir}"], ["fund?", "account/fund/{input.person}"] ]
depends = ["debt.open", "heir.open"]
require = [ { code = "SUM", that = "(has(debt) ? debt.open : 0) + (has(heir) ? heir.open : 0) + (has(fund) ? 1000 : 0) == input.sum", say = "another sum" } ]
create  = [ { kind = "report", id = ["{input.person}"], set = { sum = "input.sum" }, basis = ["debt.open"] } ]

[actions.rest]
actor  = { role = "payments.clerk" }
inputs = { report = "ref:report" }
load   = [ ["r", "report/{input.report}"] ]
fresh  = ["r"]

[actions.hold]
actor      = { role = "payments.clerk" }
inputs     = { person = "text" }
place_hold = [ { target = "debt/{input.person}", scopes = ["all"], reason = "inquiry" } ]

[actions.look]
actor   = { role = "payments.clerk" }
inputs  = { person = "text" }
load    = [ ["debt?", "debt/{input.person}"] ]
require = [ { code = "OPEN", that = "debt.open == 0", say = "open" } ]
"""


def owe(world: World, amount: int, *version: int) -> Decision:
    """Let ``p`` owe more."""
    expects = [("debt", ["p"], each) for each in version]
    return world.do("clerk", "grants.owe", "p", amount, expects=expects)


def inherit(world: World, total: int, debt: int | None, report: int = 0) -> Decision:
    """Report what ``p`` and its heir owe."""
    expects = [("report", ["p"], report)] + [("debt", ["p"], debt)] * (debt is not None)
    return world.do("clerk", "grants.inherit", "p", total, expects=expects)


def test_one_action_makes_what_is_missing_and_changes_what_is_there() -> None:
    world = make(OPTIONAL)
    assert owe(world, 5, 0).code == Code.APPLIED
    assert owe(world, 7, 0).code == Code.STALE
    assert owe(world, 7, 1).code == Code.APPLIED
    record = world.record("debt", ["p"])
    assert (record.version, record.fields["open"]) == (2, 12)


def test_two_calls_of_one_transaction_make_and_change_one_record() -> None:
    world = make(OPTIONAL)
    call = ("grants.owe", "p", 5)
    assert world.one(world.draft("clerk", call, call, expects=[("debt", ["p"], 0)])).detail is None
    record = world.record("debt", ["p"])
    assert (record.version, record.fields["open"]) == (1, 10)


def test_to_set_what_is_absent_is_not_found() -> None:
    decision = make(OPTIONAL).do("clerk", "grants.settle", "p")
    assert (decision.code, decision.detail) == (Code.NOT_FOUND, ["debt", ["debt", ["p"]]])


def test_a_condition_on_a_field_of_what_is_absent_is_false() -> None:
    decision = make(OPTIONAL).do("clerk", "grants.look", "p")
    assert (decision.code, decision.detail) == (Code.REQUIREMENT, ["OPEN", "open"])


def test_who_depends_on_what_is_absent_names_version_0() -> None:
    world = make(OPTIONAL)
    missing = inherit(world, 0, None)
    assert (missing.code, missing.detail) == (Code.STALE, [["debt", ["p"]], 0, []])
    assert inherit(world, 0, 1).code == Code.STALE
    assert inherit(world, 0, 0).code == Code.APPLIED
    assert owe(world, 5, 0).code == Code.APPLIED
    assert inherit(world, 5, 0, 1).detail == [["debt", ["p"]], 1, []]


def test_what_is_named_by_something_absent_is_absent_and_an_account_may_be() -> None:
    world = make(OPTIONAL)
    assert owe(world, 5, 0).code == Code.APPLIED
    assert inherit(world, 6, 1).detail == ["SUM", "another sum"]
    assert inherit(world, 5, 1).code == Code.APPLIED
    genesis = make_genesis((*TEXTS, HEAD + OPTIONAL))
    fund = OpeningBalance("fund", ("p",), 0)
    rich = World(replace(genesis, accounts=(*genesis.accounts, fund)))
    assert inherit(rich, 0, 0).detail == ["SUM", "another sum"]
    assert inherit(rich, 1000, 0).code == Code.APPLIED


def test_what_rests_on_an_absence_moves_when_it_ends() -> None:
    world = make(OPTIONAL)
    assert inherit(world, 0, 0).code == Code.APPLIED
    assert world.do("clerk", "grants.rest", ["p"]).code == Code.APPLIED
    assert owe(world, 5, 0).code == Code.APPLIED
    decision = world.do("clerk", "grants.rest", ["p"])
    assert (decision.code, decision.detail) == (Code.BASIS_MOVED, [["debt", ["p"]], "open"])


def test_a_hold_on_what_does_not_exist_yet_blocks_its_optional_load() -> None:
    world = make(OPTIONAL)
    assert world.do("clerk", "grants.hold", "p").code == Code.APPLIED
    assert world.do("clerk", "grants.look", "p").code == Code.HELD
    assert world.do("clerk", "grants.look", "q").code == Code.REQUIREMENT


def test_an_absence_is_among_the_reads_of_a_decision() -> None:
    world = make(OPTIONAL)
    decision = world.do("clerk", "grants.look", "p")
    kh = world.ledger.paths("record", ["debt", "p"])
    assert kh + bytes(32) in cbor2.loads(decision.leaves["reads"])[0]


BAD_OPTIONALS = [
    ('["debt?", "debt/{input.person}"]', '["debt", "debt/{input.person}?"]', "follows its name"),
    ('["debt?", "debt/{input.person}"]', '["?", "debt/{input.person}"]', "is not a name"),
    ('["debt?", "debt/{input.person}"]', '["debt", "debt/{input.person}"]', "has() takes a field"),
    ('when = "!has(debt)"', 'when = "debt == debt"', "debt is not a value"),
    ('when = "!has(debt)"', 'when = "!has(now)"', "has() takes a field"),
    ('when = "!has(debt)"', 'when = "!has(debt.opn)"', "has no field opn"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD_OPTIONALS)
def test_a_bad_optional_load_is_refused_with_its_line(old: str, new: str, message: str) -> None:
    text = OPTIONAL.replace(old, new, 1)
    assert text != OPTIONAL
    error = fault(text)
    assert message in error.message
    assert error.hint or "has()" in message or "is not a name" in message


def test_the_time_has_no_fields() -> None:
    assert "now has no fields" in fault(LETS.replace('"half > 0"', '"now.year > 0"')).message


# --- period -----------------------------------------------------------------------------------

PERIOD = """
[kinds.cycle]
fields.month = { type = "month" }
fields.extra = { type = "month", optional = true }

[actions.open_cycle]
actor  = { role = "payments.clerk" }
inputs = { name = "text", month = "month" }
create = [ { kind = "cycle", id = ["{input.name}"], set = { month = "input.month" } } ]

[actions.by_month]
actor  = { role = "payments.clerk" }
inputs = { month = "month" }
period = "input.month"
create = [ { kind = "note", id = "{tx}", set = { amount = "params.rate + params.bonus" } } ]

[actions.by_day]
actor   = { role = "payments.clerk" }
inputs  = { day = "date", rate = "int" }
period  = "input.day"
require = [ { code = "RATE", that = "params.rate == input.rate", say = "another rate" } ]

[actions.by_cycle]
actor   = { role = "payments.clerk" }
inputs  = { cycle = "ref:cycle", rate = "int" }
load    = [ ["c", "cycle/{input.cycle}"] ]
period  = "c.month"
require = [ { code = "RATE", that = "params.rate == input.rate", say = "another rate" } ]
"""
DATED = HEAD.replace(
    "[params]\n",
    """[params]
rate  = { by = "period", type = "int", values = [ { from = "2025-03", value = 10 }, { from = "2025-12-15", value = 20 }, { from = "2027-01", value = 30 } ] }
bonus = { by = "now", type = "int", values = [ { from = "2026-01", value = 1 } ] }
first = { by = "now", type = "month", values = [ { from = "2026-01", value = "2026-01" } ] }
""",
)


def month(year: int, number: int) -> int:
    """Return months since January of the year 0."""
    return year * 12 + number - 1


def digest(**values: int) -> bytes:
    """Return the hash of parameter values by the documented formula."""
    data = cbor2.dumps([[name, values[name]] for name in sorted(values)])
    return blake3(data, derive_key_context="comity 2026-11-21 rule param values v1").digest()


def dated() -> World:
    """Return a network with rates by period; its time is January 2026."""
    return World(make_genesis((*TEXTS, DATED + PERIOD)))


def seen(
    world: World, action: str, *inputs: Value, params: bytes, expects: Sequence[Expected] = ()
) -> Decision:
    """Make a call of an author who saw ``params``."""
    found = world.ledger.rules(world.state, world.now_ms).book.action("grants", action)
    assert found is not None
    call = Draft("grants", action, found.action_id, list(inputs), params, found.protective)
    return world.one(world.draft("clerk", call, expects=expects))


@pytest.mark.parametrize(
    ("at", "rate"),
    [
        (month(2025, 3), 10),
        (month(2025, 12), 10),  # its first day counts
        (month(2026, 1), 20),
        (month(2026, 12), 20),
        (month(2027, 1), 30),
        (month(9999, 12), 30),
    ],
)
def test_the_month_of_the_act_selects_a_value_whatever_the_time(at: int, rate: int) -> None:
    decision = seen(dated(), "by_month", at, params=digest(bonus=1, rate=rate))
    assert decision.code == Code.APPLIED, decision.detail


def test_the_value_of_the_period_is_what_expressions_read() -> None:
    world = dated()
    call = Draft(
        "grants", "by_month", action_of(world, "by_month"), [month(2027, 5)], digest(bonus=1, rate=30)
    )  # fmt: skip
    transaction = world.draft("clerk", call)
    assert world.one(transaction).code == Code.APPLIED
    made = record_id(transaction.txid, 0, 0)
    assert world.record("note", [made]).fields["amount"] == 31


def action_of(world: World, name: str) -> bytes:
    """Return the identity of an action in force."""
    found = world.ledger.rules(world.state, world.now_ms).book.action("grants", name)
    assert found is not None
    return found.action_id


def test_a_date_selects_by_the_day() -> None:
    world = dated()
    days = 20_436  # 2025-12-14, days since 1970-01-01
    assert seen(world, "by_day", days, 10, params=digest(rate=10)).code == Code.APPLIED
    assert seen(world, "by_day", days + 1, 20, params=digest(rate=20)).code == Code.APPLIED


def test_values_of_another_period_than_the_author_saw_are_refused() -> None:
    world = dated()
    decision = seen(world, "by_day", 20_436, 20, params=digest(rate=20))
    assert (decision.code, decision.detail) == (Code.RULES_MOVED, [1, True])
    now_only = seen(world, "by_month", month(2026, 1), params=digest(bonus=1))
    assert now_only.code == Code.RULES_MOVED


def test_before_its_first_date_a_parameter_of_the_period_has_no_value() -> None:
    world = dated()
    decision = seen(world, "by_month", month(2025, 2), params=digest(bonus=1))
    assert decision.code == Code.REQUIREMENT
    assert decision.detail[0] == "NO_VALUE"
    assert seen(world, "by_month", 0, params=digest(bonus=1)).code == Code.REQUIREMENT


def test_a_period_in_a_loaded_record_counts_as_depended_on() -> None:
    world = dated()
    opened = ("grants.open_cycle", "c", month(2027, 1))
    assert world.do("clerk", *opened, expects=[("cycle", ["c"], 0)]).code == Code.APPLIED
    named: list[Expected] = [("cycle", ["c"], 1)]
    good = digest(rate=30)
    assert seen(world, "by_cycle", ["c"], 30, params=good, expects=named).code == Code.APPLIED
    assert seen(world, "by_cycle", ["c"], 30, params=good).code == Code.STALE
    bad = seen(world, "by_cycle", ["c"], 30, params=digest(rate=20), expects=named)
    assert bad.code == Code.RULES_MOVED
    assert seen(world, "by_cycle", ["d"], 30, params=good).code == Code.NOT_FOUND


@pytest.mark.parametrize("value", [-1, 120_000, "2026-01", None, b""])
def test_a_period_that_is_none_is_bad_input(value: Value) -> None:
    decision = seen(dated(), "by_month", value, params=digest(bonus=1))
    assert decision.code == Code.BAD_INPUT


BAD_PERIODS = [
    ('period  = "c.month"', 'period  = "c.extra"', "c.extra may be absent"),
    ('period  = "c.month"', 'period  = "now"', "now is time, expected month or date"),
    ('period  = "c.month"', 'period  = "c.mont"', "cycle has no field mont"),
    ('period  = "c.month"', 'period  = "month_of(now, 0)"', "expected a path"),
    ('period  = "c.month"', 'period  = "params.first"', "params.first is no input and no field"),
    ('period  = "c.month"\n', "", "selected by a period, which is not known here"),
    ("cycle/{input.cycle}", "cycle/{params.rate}", "selected by a period, which is not known here"),
    ('by = "period"', 'by = "month"', "by = 'month' is unknown"),
]


@pytest.mark.parametrize(("old", "new", "message"), BAD_PERIODS)
def test_a_bad_period_is_refused_with_its_line(old: str, new: str, message: str) -> None:
    text = DATED + PERIOD
    changed = text.replace(old, new)
    assert changed != text
    with pytest.raises(RulesError) as caught:
        compile_rulebook([load_toml(changed, "grants.toml")])
    assert message in caught.value.message
    assert caught.value.line > 0


def test_an_action_of_a_period_survives_its_canonical_form() -> None:
    definition = load_toml(DATED + PERIOD)
    data = encode_definition(definition)
    SCHEMA.validate_cbor(data)
    assert decode_definition(data) == definition
    actions = dict(cbor2.loads(data)[1][8])
    assert actions["by_cycle"][13:] == [[["period", "c.month"]]]


# --- whatever is sent -------------------------------------------------------------------------


def test_the_longest_chain_of_the_deepest_lets_has_a_value() -> None:
    rows = ["['v0', 'input.day']"]
    rows += [f"['v{n}', 'v{n - 1}{' + 1' * 20}']" for n in range(1, 32)]
    text = f"""
[actions.chain]
actor   = {{ role = "payments.clerk" }}
inputs  = {{ day = "date" }}
let     = [ {", ".join(rows)} ]
require = [ {{ code = "V", that = "v31 - input.day == 620", say = "no" }} ]
"""
    assert make(text).do("clerk", "grants.chain", 20_000).code == Code.APPLIED


UGLY: list[Value] = [
    0, -1, 2**63 - 1, -(2**63), True, None, "", "n", b"", bytes(32), [], ["n"], [["n"]], ["p", 1],
]  # fmt: skip


@pytest.mark.parametrize("rules", [HEAD + LETS, HEAD + WHEN, HEAD + OPTIONAL, DATED + PERIOD])
def test_any_input_of_any_action_gets_an_outcome(rules: str) -> None:
    world = World(make_genesis((*TEXTS, rules)))
    actions = world.ledger.rules(world.state, world.now_ms).book.rule_sets["grants"].actions
    calls = []
    for action in actions.values():
        for at in range(len(UGLY)):
            inputs = [UGLY[(at + 3 * n) % len(UGLY)] for n in range(len(action.inputs))]
            calls.append(("grants." + action.name, *inputs))
            if action.inputs:
                calls.append(("grants." + action.name, *[UGLY[at]] * len(action.inputs)))
    decisions = world.run(*[world.draft("clerk", each) for each in calls]).decisions
    assert len(decisions) == len(calls)
    assert {each.code for each in decisions} >= {Code.BAD_INPUT}


class Noting:
    """A state that notes which keys were asked for."""

    def __init__(self, state: MemoryBackend) -> None:
        self.state = state
        self.asked: dict[bytes, None] = {}

    def get(self, kh: bytes) -> Row | None:
        self.asked[kh] = None
        return self.state.get(kh)


@pytest.mark.parametrize(
    ("rules", "call", "expects"),
    [
        (HEAD + WHEN, ("spread", "new", 200, "nobody", -1), [("note", ["new"], 0)]),
        (HEAD + WHEN, ("spread", "new", 0, "nobody", -1), []),
        (HEAD + OPTIONAL, ("inherit", "p", 0), [("report", ["p"], 0), ("debt", ["p"], 0)]),
        (HEAD + OPTIONAL, ("owe", "p", 1), [("debt", ["p"], 0)]),
        (HEAD + OPTIONAL, ("settle", "p"), []),
    ],
)
def test_a_decision_names_all_that_was_read_for_it(
    rules: str, call: tuple[Value, ...], expects: list[Expected]
) -> None:
    genesis = make_genesis((*TEXTS, rules))
    main = OpeningBalance("fund", ("main",), 1000)
    world = World(replace(genesis, accounts=(*genesis.accounts, main)))
    transaction = world.draft("clerk", ("grants." + str(call[0]), *call[1:]), expects=expects)
    source = Noting(world.state)
    run = BlockRun(world.ledger, source, BlockContext(1, 1, world.now_ms), [transaction])
    (decision,) = run.finish().decisions
    full, only = cbor2.loads(decision.leaves["reads"])
    named = {full[at : at + 32] for at in range(0, len(full), 64)}
    named |= {only[at : at + 32] for at in range(0, len(only), 32)}
    paths = world.ledger.paths
    domains = ["charter", "identity", "benefits", "payments", "grants"]
    aside = {paths.pool, paths("sequence", [public_key("clerk")]), paths("rules", [])}
    aside |= {paths.executor, paths.committee, *(paths("rules", [each]) for each in domains)}
    aside |= {paths("rules", [each, 1]) for each in domains}
    # An account that the act opens was found absent: its opening is among the writes.
    aside |= {paths("account", ["fund", "new"])}
    assert source.asked.keys() - named - aside == set()
