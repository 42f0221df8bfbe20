"""Waterfalls: debts are paid in their order, each up to what is open, and the rest is paid out.

Every expected value is worked out by hand. Domain ``debts`` keeps debts and the accounts of
creditors; domain ``tax`` pays refunds, first to those.
"""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest

from consensus import codec
from consensus.codec import INT64_MAX
from consensus.errors import RulesError
from consensus.genesis import OpeningBalance
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.rules import (
    compile_rulebook,
    decode_definition,
    describe,
    encode_definition,
    load_toml,
)
from tests.consensus.ledger.reader import read_holds
from tests.consensus.ledger.test_reservations import Recorded, Witness
from tests.consensus.ledger.world import TEXTS, World, make_genesis

ROOT = Path(__file__).parents[3]

DEBTS = """\
domain = "debts"
number = 1
legal_basis = "Debts Act"
exports = ["debt.person", "debt.open", "debt.rank"]

[accounts.creditor]
currency = "USD"

[accounts.euros]
currency = "EUR"

[kinds.debt]
fields.person = { type = "text", open = true }
fields.open   = { type = "money", currency = "USD" }
fields.rank   = { type = "int" }
index = ["person"]
hold_by = ["tax"]

[actions.owe]
actor  = { role = "payments.clerk" }
inputs = { debt = "ref:debt", person = "text", amount = "money:USD", rank = "int", account = "bool" }
create = [ { kind = "debt", id = "{input.debt}", set = { person = "input.person", open = "input.amount", rank = "input.rank" } } ]
open   = [ { account = "account/creditor/{input.debt}", when = "input.account" } ]

[actions.dispute]
actor  = { role = "payments.clerk" }
inputs = { debt = "ref:debt" }
place_hold = [ { target = "account/creditor/{input.debt}", scopes = ["pay"], reason = "a dispute" } ]
"""

TAX = """\
domain = "tax"
number = 1
legal_basis = "Tax Procedure Act"
uses = { debts = ["debt.person", "debt.open", "debt.rank"] }

[accounts.refunds]
currency = "USD"

[accounts.rail]
currency = "USD"

[actions.settle]
actor  = { role = "payments.clerk" }
inputs = { person = "text", total = "money:USD" }
load   = [ ["debts", "index debt.person {input.person} max 4 by rank"] ]
waterfall = { from = "account/refunds", amount = "input.total", each = "debts", up_to = "each.open", to = "account/creditor/{each.id}", rest = "account/rail/{input.person}" }

[actions.offset]
actor  = { role = "payments.clerk" }
inputs = { person = "text", total = "money:USD", half = "bool" }
load   = [ ["debts", "index debt.person {input.person} max 4 by rank"] ]
let    = [ ["share", "input.total / 2"] ]
move   = [ { from = "account/refunds", to = "account/rail/ann", amount = "1" } ]
waterfall = [ { from = "account/refunds", amount = "share", each = "debts", up_to = "min(each.open, share / 2) - 1", to = "account/creditor/{each.id}", when = "input.half" },
              { from = "account/refunds", amount = "input.total - share", each = "debts", up_to = "each.open + 0 * each.rank", to = "account/creditor/{each.id}" } ]

[actions.freeze]
actor  = { role = "payments.clerk" }
inputs = { name = "text" }
place_hold = [ { target = "account/rail/{input.name}", scopes = ["pay"], reason = "a dispute" } ]
"""


def make(refunds: int = 1000, rail: int = 0) -> World:
    """Return a network with money for refunds and a way to pay Ann."""
    genesis = make_genesis((*TEXTS, DEBTS, TAX))
    accounts = (OpeningBalance("refunds", (), refunds), OpeningBalance("rail", ("ann",), rail))
    return World(replace(genesis, accounts=(*genesis.accounts, *accounts)))


def owe(world: World, name: str, amount: int, rank: int, *, account: bool = True) -> None:
    """Let Ann owe an amount."""
    owed = world.do(
        "clerk", "debts.owe", [name], "ann", amount, rank, account, expects=[("debt", [name], 0)]
    )
    assert owed.code == Code.APPLIED, owed.detail


def indebted(**more: int) -> World:
    """Return a network where Ann owes 300 first, then 50, then 200."""
    world = make(**more)
    for name, amount, rank in (("last", 200, 9), ("first", 300, 1), ("middle", 50, 5)):
        owe(world, name, amount, rank)
    return world


def settle(world: World, total: int) -> Decision:
    return world.do("clerk", "tax.settle", "ann", total)


def paid(world: World) -> tuple[int, ...]:
    """Return what the creditors have in the order of rank, what Ann got, and what is left."""
    creditors = [world.balance("creditor", [name]) for name in ("first", "middle", "last")]
    return (*creditors, world.balance("rail", "ann"), world.balance("refunds"))


@pytest.mark.parametrize(
    ("total", "expected"),
    [
        (0, (0, 0, 0, 0, 1000)),
        (299, (299, 0, 0, 0, 701)),
        (300, (300, 0, 0, 0, 700)),
        (340, (300, 40, 0, 0, 660)),
        (550, (300, 50, 200, 0, 450)),
        (551, (300, 50, 200, 1, 449)),
        (1000, (300, 50, 200, 450, 0)),
    ],
)
def test_debts_are_paid_in_order_and_the_rest_goes_to_the_last(
    total: int, expected: tuple[int, ...]
) -> None:
    world = indebted()
    assert settle(world, total).code == Code.APPLIED
    assert paid(world) == expected


def test_without_debts_everything_is_rest() -> None:
    world = make()
    assert settle(world, 400).code == Code.APPLIED
    assert (world.balance("rail", "ann"), world.balance("refunds")) == (400, 600)


def test_a_decision_names_each_payment_that_was_more_than_nothing() -> None:
    world = indebted()
    decision = settle(world, 310)
    moves = {name: cbor2.loads(data) for name, data in decision.leaves.items() if "moves" in name}
    assert moves == {
        "moves:debts": [[0, ["creditor", ["first"]], 300], [1, ["creditor", ["middle"]], 10]],
        "moves:tax": [[0, ["refunds"], -300], [1, ["refunds"], -10]],
    }


def test_the_sum_must_be_there_or_nothing_is_paid() -> None:
    world = indebted(refunds=500)
    decision = settle(world, 501)
    assert (decision.code, decision.detail) == (Code.INSUFFICIENT, [["refunds"], "floor"])
    assert paid(world) == (0, 0, 0, 0, 500)


def test_a_sum_that_does_not_fit_64_bits_is_refused() -> None:
    world = indebted(rail=INT64_MAX - 10)
    decision = settle(world, 561)
    assert (decision.code, decision.detail) == (Code.INSUFFICIENT, [["rail", "ann"], "overflow"])
    assert settle(world, 560).code == Code.APPLIED


def test_negative_amounts_and_bounds_are_refused() -> None:
    world = indebted()
    assert settle(world, -1).detail == ["NEGATIVE", "input.total is < 0"]
    owe(world, "credit", -5, 0)
    assert settle(world, 0).detail == ["NEGATIVE", "each.open is < 0"]


def test_every_account_must_exist_even_if_nothing_is_left_for_it() -> None:
    world = indebted()
    owe(world, "later", 10, 99, account=False)
    decision = settle(world, 5)
    assert (decision.code, decision.detail) == (
        Code.NOT_FOUND,
        ["creditor", ["account", ["creditor", ["later"]]]],
    )


def test_more_debts_than_the_rules_take_are_refused() -> None:
    world = indebted()
    owe(world, "fourth", 10, 99)
    assert settle(world, 600).code == Code.APPLIED
    owe(world, "fifth", 10, 100)
    assert settle(world, 100).code == Code.LIMIT


def test_holds_on_any_account_bind_even_if_nothing_is_left_for_it() -> None:
    world = indebted()
    assert world.do("clerk", "debts.dispute", ["last"]).code == Code.APPLIED
    [hold] = read_holds(world.state, world.ledger.paths, "account", ["creditor", ["last"]])
    decision = settle(world, 5)
    assert (decision.code, decision.detail) == (Code.HELD, [hold.id])
    world = indebted()
    assert world.do("clerk", "tax.freeze", "ann").code == Code.APPLIED
    assert settle(world, 5).code == Code.HELD


def test_several_waterfalls_each_from_what_was_loaded() -> None:
    """Two times 500: up to min(open, 250) - 1 each, then up to what was open before the act."""
    world = indebted(refunds=2000)
    decision = world.do("clerk", "tax.offset", "ann", 1000, True)
    assert decision.code == Code.APPLIED, decision.detail
    first = (249, 49, 199)
    second = (300, 50, 150)
    both = tuple(map(sum, zip(first, second, strict=True)))
    assert paid(world) == (*both, 1, 2000 - 1 - sum(both))
    positions = [row[0] for row in cbor2.loads(decision.leaves["moves:debts"])]
    assert positions == [1, 2, 3, 4, 5, 6]


def test_a_waterfall_whose_condition_is_false_pays_nothing() -> None:
    world = indebted()
    decision = world.do("clerk", "tax.offset", "ann", 100, False)
    assert decision.code == Code.APPLIED
    assert paid(world) == (50, 0, 0, 1, 949)


def test_a_bound_without_a_value_is_refused() -> None:
    world = indebted()
    owe(world, "huge", 5, 2**62)
    overflow = TAX.replace("0 * each.rank", "each.rank * each.rank")
    genesis = make_genesis((*TEXTS, DEBTS, overflow))
    accounts = (OpeningBalance("refunds", (), 100), OpeningBalance("rail", ("ann",), 0))
    world = World(replace(genesis, accounts=accounts))
    owe(world, "huge", 5, 2**62)
    decision = world.do("clerk", "tax.offset", "ann", 10, False)
    assert decision.code == Code.REQUIREMENT
    assert decision.detail[0] == "NO_VALUE"


def test_what_was_read_suffices_to_execute_again() -> None:
    world = indebted()
    drafts = [world.draft("clerk", ("tax.settle", "ann", 340)) for _ in range(3)]
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    recorded = Recorded(world.state)
    first = BlockRun(world.ledger, recorded, context, drafts).finish()
    again = BlockRun(world.ledger, Witness(recorded.asked), context, drafts).finish()
    assert [each.code for each in first.decisions] == [
        Code.APPLIED, Code.APPLIED, Code.INSUFFICIENT,
    ]  # fmt: skip
    assert (again.results_root, again.writes) == (first.results_root, first.writes)


def test_a_transaction_changes_amounts_so_many_times_and_no_more() -> None:
    falls = ", ".join(
        '{ from = "account/refunds", amount = "4", each = "debts", up_to = "1", '
        'to = "account/creditor/{each.id}" }'
        for _ in range(32)
    )
    many = f"""
[actions.many]
actor  = {{ role = "payments.clerk" }}
inputs = {{ person = "text" }}
load   = [ ["debts", "index debt.person {{input.person}} max 4"] ]
waterfall = [ {falls} ]
"""
    genesis = make_genesis((*TEXTS, DEBTS, TAX + many))
    world = World(replace(genesis, accounts=(OpeningBalance("refunds", (), 5000),)))
    for number in range(4):
        owe(world, f"d{number}", 1, number)
    call = ("tax.many", "ann")
    refused = world.one(world.draft("clerk", *[call] * 9))
    assert (refused.code, refused.call, refused.detail) == (Code.LIMIT, 8, "moves")
    assert world.one(world.draft("clerk", *[call] * 8)).code == Code.APPLIED
    assert world.balance("refunds") == 5000 - 1024


# --- rules ------------------------------------------------------------------------------------


def test_rules_survive_their_canonical_form_and_match_the_grammar() -> None:
    definition = load_toml(TAX)
    encoded = encode_definition(definition)
    assert decode_definition(encoded) == definition
    text = (ROOT / "docs/protocol/rules.cddl").read_text(encoding="utf-8")
    pycddl.Schema(text).validate_cbor(encoded)
    actions: Any = dict(codec.parse(encoded, "rules")[1][8])
    assert actions["settle"][11] == [
        [
            9,
            [
                "account/refunds",
                "input.total",
                "debts",
                "each.open",
                "account/creditor/{each.id}",
                [["rest", "account/rail/{input.person}"]],
            ],
        ]
    ]


def test_one_table_and_an_array_of_one_are_the_same() -> None:
    [line] = [each for each in TAX.splitlines() if each.startswith("waterfall = {")]
    array = line.replace("= {", "= [ {", 1) + " ]"
    assert load_toml(TAX.replace(line, array)) == load_toml(TAX)


def test_what_it_reads_of_the_list_belongs_to_the_identity_of_the_action() -> None:
    book = compile_rulebook([*map(load_toml, TEXTS), load_toml(DEBTS), load_toml(TAX)])
    action = book.action("tax", "settle")
    assert action is not None
    assert ("debts", "open") in action.reads
    assert not any(path[0] == "each" for path in action.reads)
    other = DEBTS.replace('type = "money", currency = "USD"', 'type = "int"')
    other = other.replace('"money:USD"', '"int"')
    moved = compile_rulebook([*map(load_toml, TEXTS), load_toml(other), load_toml(TAX)])
    changed = moved.action("tax", "settle")
    assert changed is not None
    assert changed.action_id != action.action_id


WATERFALL = next(each for each in TAX.splitlines() if each.startswith("waterfall = {"))
FAULTS: list[tuple[str, str, str]] = [
    (WATERFALL, WATERFALL.replace('each = "debts"', 'each = "input"'), "is not a loaded list"),
    (WATERFALL, WATERFALL.replace("each.open", "each.opn"), "has no field opn"),
    (WATERFALL, WATERFALL.replace("each.open", "each.id"), "expected money:USD"),
    (WATERFALL, WATERFALL.replace("each.open", "debts.open"), "is a list of debt records"),
    (WATERFALL, WATERFALL.replace("{each.id}", "{each.open}"), "may not stand in an id"),
    (WATERFALL, WATERFALL.replace("creditor", "euros"), "refunds is in USD, euros in EUR"),
    (WATERFALL, WATERFALL.replace("account/rail/{input.person}", "account/euros"), "in EUR"),
    (WATERFALL, WATERFALL.replace("rail/{input.person}", "rail/{each.id}"), "nothing is called each"),
    (WATERFALL, WATERFALL.replace("input.total", "each.open"), "nothing is called each"),
    (WATERFALL, WATERFALL.replace("account/refunds", "account/creditor/x"), "does not let domain tax debit"),
    (WATERFALL, WATERFALL.replace(' up_to = "each.open",', ""), "up_to is missing"),
    (WATERFALL, WATERFALL.replace("rest =", "remainder ="), "unknown key remainder"),
    (WATERFALL, 'waterfall = "debts"', "expected an array"),
    ('["debts", "index debt.person {input.person} max 4 by rank"] ]\nw', '["each", "index debt.person {input.person} max 4 by rank"] ]\nw', "is not a loaded list"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "message"), FAULTS)
def test_faults_of_rules_are_named_with_their_line(old: str, new: str, message: str) -> None:
    text = TAX.replace(old, new, 1)
    assert text != TAX
    with pytest.raises(RulesError) as caught:
        compile_rulebook([*map(load_toml, TEXTS), load_toml(DEBTS), load_toml(text, "tax.toml")])
    assert message in caught.value.message
    assert abs(caught.value.line - text[: text.index(new)].count("\n") - 1) <= 1


def test_each_has_a_meaning_of_its_own() -> None:
    text = TAX.replace('["debts", "index', '["each", "index').replace(
        'each = "debts"', 'each = "each"'
    )
    with pytest.raises(RulesError, match="each has a meaning of its own in a waterfall"):
        compile_rulebook([*map(load_toml, TEXTS), load_toml(DEBTS), load_toml(text)])


def test_a_field_that_is_not_exported_is_not_read_by_a_waterfall_either() -> None:
    text = DEBTS.replace('"debt.open", ', "")
    tax = TAX.replace('"debt.open", ', "")
    with pytest.raises(RulesError, match=r"does not export debt\.open"):
        compile_rulebook([*map(load_toml, TEXTS), load_toml(text), load_toml(tax)])


def test_what_a_waterfall_does_is_said_in_words() -> None:
    book = compile_rulebook([*map(load_toml, TEXTS), load_toml(DEBTS), load_toml(TAX)])
    (tax,) = [each for each in describe(book) if each.domain == "tax"]
    (settled,) = [each for each in tax.actions if each.name == "settle"]
    assert settled.does == (
        "pays input.total from account/refunds in the order of debts, each up to each.open "
        "to account/creditor/{each.id}, the rest to account/rail/{input.person}",
    )
