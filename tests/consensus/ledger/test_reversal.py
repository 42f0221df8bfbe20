"""Taking transactions back: amounts, fields, records, slots, debts, and taking that back."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

import pycddl
import pytest

from consensus import codec
from consensus.codec import Value
from consensus.genesis import OpeningBalance, RoleGiven
from consensus.ledger import executor
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.evidence import EvidenceError, check
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.terms import SHAPE
from consensus.ledger.transaction import PROPOSE
from tests.consensus.ledger.world import CHARTER, NORTH, TEXTS, World, make_genesis, token

ROOT = Path(__file__).parents[3]
DAY_MS = 86_400_000

REVERSE = """
[actions.reverse]
kernel = true
actor  = { self = "who.principal" }
"""

LOANS = """\
domain = "loans"
number = 1
legal_basis = "Loans Act"

[accounts.fund]
currency = "USD"

[accounts.wallet]
currency = "USD"
floor = 10

[accounts.debt]
currency = "USD"
floor = -1000

[kinds.loan]
fields.holder = { type = "text", open = true }
fields.amount = { type = "money", currency = "USD" }
fields.street = { type = "text", open = true, group = "address", optional = true }
fields.town   = { type = "text", open = true, group = "address", optional = true }
status = { start = "open", steps = { open = ["paid", "closed"], paid = ["closed"] } }

[kinds.slip]
fields.of = { type = "text", open = true }
index = ["of"]

[actions.lend]
actor  = { role = "loans.clerk" }
inputs = { holder = "text", amount = "money:USD" }
unique = [["loan", "{input.holder}"]]
move   = [ { from = "account/fund", to = "account/wallet/{input.holder}", amount = "input.amount" } ]
create = [ { kind = "loan", id = ["{input.holder}"], set = { holder = "input.holder", amount = "input.amount" } } ]
reversible = { by = "loans.chief", within_days = 90, shortfall = "account/debt/{input.holder}", unique = "free" }

[actions.lend_kept]
actor  = { role = "loans.clerk" }
inputs = { holder = "text", amount = "money:USD" }
unique = [["loan", "{input.holder}"]]
move   = [ { from = "account/fund", to = "account/wallet/{input.holder}", amount = "input.amount" } ]
create = [ { kind = "loan", id = "{tx}", set = { holder = "input.holder", amount = "input.amount" } } ]
reversible = { by = "loans.chief", within_days = 30 }

[actions.lend_again]
actor  = { role = "loans.clerk" }
inputs = { holder = "text", amount = "money:USD" }
unique = [["loan", "{input.holder}"]]
move   = [ { from = "account/fund", to = "account/wallet/{input.holder}", amount = "input.amount" } ]
create = [ { kind = "loan", id = "{tx}", set = { holder = "input.holder", amount = "input.amount" } } ]
reversible = { by = "loans.chief", within_days = 30, unique = "free" }

[actions.settle]
actor  = { role = "loans.clerk" }
inputs = { loan = "ref:loan", town = "text?" }
load   = [ ["loan", "loan/{input.loan}"] ]
set    = [ { record = "loan", status = "paid", fields = { amount = "0", town = "input.town" } } ]
reversible = { by = "loans.chief", within_days = 90 }

[actions.house]
actor  = { role = "loans.clerk" }
inputs = { loan = "ref:loan", street = "text", town = "text" }
load   = [ ["loan", "loan/{input.loan}"] ]
set    = [ { record = "loan", fields = { street = "input.street", town = "input.town" } } ]
reversible = { by = "loans.chief", within_days = 90 }

[actions.amend]
actor  = { role = "loans.clerk" }
inputs = { loan = "ref:loan", amount = "money:USD" }
load   = [ ["loan", "loan/{input.loan}"] ]
set    = [ { record = "loan", fields = { amount = "input.amount" } } ]

[actions.spend]
actor  = { role = "loans.clerk" }
inputs = { holder = "text", amount = "money:USD" }
move   = [ { from = "account/wallet/{input.holder}", to = "account/fund", amount = "input.amount" } ]

[actions.repay]
actor  = { role = "loans.clerk" }
inputs = { holder = "text", amount = "money:USD" }
move   = [ { from = "account/fund", to = "account/debt/{input.holder}", amount = "input.amount" } ]

[actions.pass_on]
actor  = { role = "loans.clerk" }
inputs = { from = "text", to = "text", amount = "money:USD" }
move   = [ { from = "account/wallet/{input.from}", to = "account/wallet/{input.to}", amount = "input.amount" } ]
reversible = { by = "loans.auditor", within_days = 10 }

[actions.promise]
actor  = { role = "loans.clerk" }
inputs = { holder = "text", amount = "money:USD" }
reserve = [ { id = ["{input.holder}"], from = "account/fund", amount = "input.amount" } ]

[actions.keep_aside]
actor  = { role = "loans.clerk" }
inputs = { holder = "text", amount = "money:USD" }
reserve = [ { id = ["aside", "{input.holder}"], from = "account/wallet/{input.holder}", amount = "input.amount" } ]

[actions.fulfil]
actor  = { role = "loans.clerk" }
inputs = { holder = "text" }
post   = [ { id = ["{input.holder}"], from = "account/fund", to = "account/wallet/{input.holder}" } ]
reversible = { by = "loans.chief", within_days = 90, shortfall = "account/debt/{input.holder}" }

[actions.share]
actor  = { role = "loans.clerk" }
inputs = { of = "text", amount = "money:USD" }
load   = [ ["slips", "index slip.of {input.of} max 8"] ]
waterfall = { from = "account/fund", amount = "input.amount", each = "slips", up_to = "30", to = "account/wallet/{each.of}", rest = "account/wallet/bob" }
reversible = { by = "loans.chief", within_days = 90 }

[actions.note]
actor  = { role = "loans.clerk" }
inputs = { name = "text" }
create = [ { kind = "slip", id = ["{input.name}"], set = { of = "input.name" } } ]
reversible = { by = "loans.chief", within_days = 90 }

[actions.read_note]
actor  = { role = "loans.clerk" }
inputs = { slip = "ref:slip" }
load   = [ ["slip", "slip/{input.slip}"] ]
create = [ { kind = "slip", id = "{tx}", set = { of = "slip.of" } } ]

[actions.count]
actor  = { role = "loans.clerk" }
inputs = { of = "text", wanted = "int" }
load   = [ ["slips", "index slip.of {input.of} max 8"] ]
require = [ { code = "COUNT", that = "size(slips) == input.wanted", say = "another number" } ]

[actions.maybe]
actor  = { role = "loans.clerk" }
inputs = { slip = "ref:slip" }
load   = [ ["slip?", "slip/{input.slip}"] ]
create = [ { kind = "slip", id = "{tx}", set = { of = "'x'" }, when = "has(slip)" } ]

[actions.derive]
actor  = { role = "loans.clerk" }
inputs = { slip = "ref:slip", name = "text" }
load   = [ ["slip", "slip/{input.slip}"] ]
create = [ { kind = "slip", id = ["{input.name}"], set = { of = "slip.of" }, basis = ["slip.of"] } ]

[actions.rely]
actor  = { role = "loans.clerk" }
inputs = { slip = "ref:slip" }
load   = [ ["slip", "slip/{input.slip}"] ]
fresh  = ["slip"]
create = [ { kind = "slip", id = "{tx}", set = { of = "slip.of" } } ]
"""


@lru_cache(maxsize=2)
def _genesis(reverse: str) -> object:
    before = make_genesis()
    roles = [
        RoleGiven(token("clerk"), "loans.clerk", NORTH),
        RoleGiven(token("admin"), "loans.chief", NORTH),
        RoleGiven(token("auditor"), "loans.auditor", NORTH),
        RoleGiven(token("auditor"), "loans.chief", NORTH),
    ]
    texts = (CHARTER + reverse, *TEXTS[1:], LOANS)
    return make_genesis(
        texts,
        roles=(*before.roles, *roles),
        accounts=(
            *before.accounts,
            OpeningBalance("fund", (), 1000),
            OpeningBalance("wallet", ("ann",), 10),
            OpeningBalance("wallet", ("bob",), 10),
            OpeningBalance("debt", ("ann",), 0),
        ),
    )


def town(reverse: str = REVERSE) -> World:
    """Return a network with the domain of loans."""
    return World(_genesis(reverse))  # type: ignore[arg-type]


def lend(world: World, holder: str = "ann", amount: int = 100, name: str = "lend") -> Decision:
    expects = [("loan", [holder], 0)] if name == "lend" else []
    made = world.do("clerk", f"loans.{name}", holder, amount, expects=expects)
    assert made.code == Code.APPLIED, made.detail
    return made


def total(world: World) -> int:
    """Return the sum of every account that the tests use."""
    found = 0
    for id_ in (["fund"], ["wallet", "ann"], ["wallet", "bob"], ["debt", "ann"], ["debt", "bob"]):
        if world.state.get(world.ledger.paths("account", list(id_))) is not None:
            found += world.balance(*id_)
    return found


def leaf(decision: Decision, name: str) -> Any:
    """Return the rows of a leaf that a decision has."""
    return decision.value(name)


def refused(decision: Decision) -> tuple[Code, Value]:
    return decision.code, decision.detail


def test_amounts_go_back_and_the_record_is_voided() -> None:
    world = town()
    made = lend(world)
    assert (world.balance("fund"), world.balance("wallet", "ann")) == (900, 110)
    back = world.reverse("admin", made)
    assert back.code == Code.APPLIED, back.detail
    assert (world.balance("fund"), world.balance("wallet", "ann")) == (1000, 10)
    assert world.record("loan", ["ann"]).fields["status"] == "voided"
    assert leaf(back, "links") == [["reverses", made.header.txid]]
    assert leaf(back, "moves:loans") == [[0, ["fund"], 100], [0, ["wallet", "ann"], -100]]


# --- amounts and debts ------------------------------------------------------------------------


def test_what_the_payee_no_longer_has_becomes_a_debt() -> None:
    world = town()
    made = lend(world)
    world.do("clerk", "loans.spend", "ann", 60)
    before = total(world)
    assert world.reverse("admin", made).code == Code.APPLIED
    # Ann had 110, spent 60, and 10 of the rest are her floor
    assert world.balance("wallet", "ann") == 10
    assert world.balance("debt", "ann") == -60
    assert world.balance("fund") == 1000 - 100 + 60 + 100
    assert total(world) == before


def test_the_account_of_the_debt_is_opened_when_it_is_first_needed() -> None:
    world = town()
    made = lend(world, "bob")
    assert world.state.get(world.ledger.paths("account", ["debt", "bob"])) is None
    world.do("clerk", "loans.spend", "bob", 100)
    before = total(world)
    back = world.reverse("admin", made)
    assert back.code == Code.APPLIED
    assert world.balance("debt", "bob") == -100
    assert total(world) == before
    assert leaf(back, "moves:loans") == [
        [0, ["fund"], 100],
        [0, ["wallet", "bob"], 0],
        [0, ["debt", "bob"], -100],
    ]


def test_a_debt_beyond_the_floor_of_its_account_is_insufficient() -> None:
    world = town()
    made = lend(world, "ann", 990)
    world.do("clerk", "loans.spend", "ann", 990)
    world.do("clerk", "loans.repay", "ann", 5)
    assert world.balance("debt", "ann") == 5
    first = world.reverse("admin", made)
    assert first.code == Code.APPLIED
    assert world.balance("debt", "ann") == -985
    again = lend(world, "bob", 990)
    world.do("clerk", "loans.spend", "bob", 990)
    assert world.reverse("admin", again).code == Code.APPLIED
    third = lend(world, "ann", 20, "lend_kept")
    world.do("clerk", "loans.spend", "ann", 20)
    assert refused(world.reverse("admin", third)) == (
        Code.INSUFFICIENT,
        [["wallet", "ann"], "floor"],
    )


def test_without_a_shortfall_account_what_was_spent_is_insufficient_and_nothing_changes() -> None:
    world = town()
    made = lend(world, name="lend_kept")
    world.do("clerk", "loans.spend", "ann", 1)
    assert refused(world.reverse("admin", made)) == (
        Code.INSUFFICIENT,
        [["wallet", "ann"], "floor"],
    )
    assert (world.balance("fund"), world.balance("wallet", "ann")) == (901, 109)
    record = next(e for e in leaf(made, "writes:loans") if e[0][0] == "record")
    assert world.record("loan", record[0][1][1:]).fields["status"] == "open"


def test_a_chain_of_moves_goes_back_last_first() -> None:
    world = town()
    calls = (("loans.pass_on", "ann", "bob", 50), ("loans.pass_on", "bob", "ann", 50))
    world.do("clerk", "loans.repay", "ann", 1)
    lend(world, "ann", 50)
    made = world.one(world.draft("clerk", *calls))
    assert made.code == Code.APPLIED, made.detail
    back = world.reverse("auditor", made)
    assert back.code == Code.APPLIED, back.detail
    assert [row[0] for row in leaf(back, "moves:loans")] == [0, 0, 1, 1]
    assert leaf(back, "moves:loans")[0] == [0, ["wallet", "bob"], 50]


def test_what_a_reservation_paid_goes_back_and_is_reserved_again() -> None:
    world = town()
    assert world.do("clerk", "loans.promise", "ann", 900).code == Code.APPLIED
    paid = world.do("clerk", "loans.fulfil", "ann")
    assert paid.code == Code.APPLIED, paid.detail
    assert world.do("clerk", "loans.spend", "ann", 100).code == Code.APPLIED
    back = world.reverse("admin", paid)
    assert back.code == Code.APPLIED, back.detail
    assert (world.balance("fund"), world.balance("debt", "ann")) == (1100, -100)
    refused = world.do("clerk", "loans.lend", "bob", 201, expects=[("loan", ["bob"], 0)])
    assert (refused.code, refused.detail) == (Code.INSUFFICIENT, [["fund"], "floor"])
    lend(world, "bob", 200)
    assert world.do("clerk", "loans.fulfil", "ann").code == Code.APPLIED
    assert (world.balance("fund"), world.balance("wallet", "ann")) == (0, 910)


def test_a_waterfall_goes_back() -> None:
    world = town()
    world.do("clerk", "loans.note", "ann", expects=[("slip", ["ann"], 0)])
    shared = world.do("clerk", "loans.share", "ann", 100)
    assert shared.code == Code.APPLIED, shared.detail
    assert (world.balance("wallet", "ann"), world.balance("wallet", "bob")) == (40, 80)
    assert world.reverse("admin", shared).code == Code.APPLIED
    balances = [world.balance(*id_) for id_ in (["wallet", "ann"], ["wallet", "bob"], ["fund"])]
    assert balances == [10, 10, 1000]
    nothing = world.do("clerk", "loans.share", "ann", 0)
    assert world.reverse("admin", nothing).code == Code.APPLIED


def test_what_is_reserved_is_not_taken_back_from_the_one_who_reserved_it() -> None:
    world = town()
    world.do("clerk", "loans.repay", "ann", 1)
    made = lend(world)
    assert world.do("clerk", "loans.keep_aside", "ann", 70).code == Code.APPLIED
    assert world.reverse("admin", made).code == Code.APPLIED
    assert (world.balance("wallet", "ann"), world.balance("debt", "ann")) == (80, 1 - 70)


# --- fields and records -----------------------------------------------------------------------


def test_fields_groups_and_status_are_restored_with_who_set_them() -> None:
    world = town()
    lend(world)
    housed = world.do(
        "clerk", "loans.house", ["ann"], "Hill 1", "Ely", expects=[("loan", ["ann"], 1)]
    )
    assert housed.code == Code.APPLIED
    settled = world.do("clerk", "loans.settle", ["ann"], "Rye", expects=[("loan", ["ann"], 2)])
    assert settled.code == Code.APPLIED
    before = world.record("loan", ["ann"])
    assert (before.fields["street"], before.fields["town"], before.fields["status"]) == (
        "Hill 1",
        "Rye",
        "paid",
    )
    back = world.reverse("admin", settled)
    assert back.code == Code.APPLIED, back.detail
    after = world.record("loan", ["ann"])
    assert after.version == 4
    assert (after.fields["street"], after.fields["town"], after.fields["amount"]) == (
        "Hill 1",
        "Ely",
        100,
    )
    assert after.fields["status"] == "open"
    assert [row[0] for row in after.fields["by"]] == ["created", "open"]
    assert (after.versions["amount"], after.versions["holder"]) == (4, 1)


def test_a_field_that_was_absent_is_absent_again() -> None:
    world = town()
    lend(world)
    housed = world.do(
        "clerk", "loans.house", ["ann"], "Hill 1", "Ely", expects=[("loan", ["ann"], 1)]
    )
    assert world.reverse("admin", housed).code == Code.APPLIED
    after = world.record("loan", ["ann"])
    assert (after.fields["street"], after.fields["town"]) == (None, None)


def test_a_field_that_changed_since_makes_the_reversal_stale_and_is_named() -> None:
    world = town()
    lend(world)
    settled = world.do("clerk", "loans.settle", ["ann"], None, expects=[("loan", ["ann"], 1)])
    world.do("clerk", "loans.amend", ["ann"], 7, expects=[("loan", ["ann"], 2)])
    assert refused(world.reverse("admin", settled)) == (
        Code.STALE,
        [["loan", ["ann"]], 3, ["amount"]],
    )


def test_a_change_of_another_field_does_not_disturb() -> None:
    world = town()
    lend(world)
    housed = world.do(
        "clerk", "loans.house", ["ann"], "Hill 1", "Ely", expects=[("loan", ["ann"], 1)]
    )
    world.do("clerk", "loans.amend", ["ann"], 7, expects=[("loan", ["ann"], 2)])
    assert world.reverse("admin", housed).code == Code.APPLIED
    after = world.record("loan", ["ann"])
    assert (after.fields["amount"], after.fields["street"]) == (7, None)


def test_a_record_that_was_changed_since_it_was_made_is_not_voided() -> None:
    world = town()
    made = lend(world)
    world.do("clerk", "loans.amend", ["ann"], 7, expects=[("loan", ["ann"], 1)])
    assert refused(world.reverse("admin", made)) == (Code.STALE, [["loan", ["ann"]], 2, ["amount"]])


def test_a_voided_record_is_neither_loaded_nor_changed_nor_made_again() -> None:
    world = town()
    made = world.do("clerk", "loans.note", "n", expects=[("slip", ["n"], 0)])
    assert world.do("clerk", "loans.read_note", ["n"]).code == Code.APPLIED
    assert world.reverse("admin", made).code == Code.APPLIED
    gone = (Code.NOT_FOUND, ["slip", ["slip", ["n"]], "voided"])
    assert refused(world.do("clerk", "loans.read_note", ["n"])) == gone
    assert refused(world.do("clerk", "loans.maybe", ["n"])) == gone
    for version, outcome in ((0, Code.STALE), (2, Code.NOT_UNIQUE)):
        again = world.do("clerk", "loans.note", "n", expects=[("slip", ["n"], version)])
        assert again.code == outcome


def test_a_voided_record_leaves_its_indexes_and_comes_back_when_restored() -> None:
    world = town()
    made = world.do("clerk", "loans.note", "n", expects=[("slip", ["n"], 0)])
    assert world.do("clerk", "loans.count", "n", 1).code == Code.APPLIED
    back = world.reverse("admin", made)
    assert world.do("clerk", "loans.count", "n", 0).code == Code.APPLIED
    assert world.reverse("admin", back).code == Code.APPLIED
    assert world.do("clerk", "loans.count", "n", 1).code == Code.APPLIED


def test_what_rests_on_a_voided_record_has_a_basis_that_moved() -> None:
    world = town()
    made = world.do("clerk", "loans.note", "n", expects=[("slip", ["n"], 0)])
    world.do("clerk", "loans.derive", ["n"], "m", expects=[("slip", ["m"], 0)])
    assert world.do("clerk", "loans.rely", ["m"]).code == Code.APPLIED
    assert world.reverse("admin", made).code == Code.APPLIED
    assert refused(world.do("clerk", "loans.rely", ["m"])) == (
        Code.BASIS_MOVED,
        [["slip", ["n"]], "of"],
    )


def test_a_record_is_voided_for_later_transactions_of_the_same_block_and_calls_too() -> None:
    world = town()
    made = world.do("clerk", "loans.note", "n", expects=[("slip", ["n"], 0)])
    call = ("charter.reverse", made.header.txid, world.evidence(made).encode())
    outcomes = world.run(
        world.draft("admin", call),
        world.draft("clerk", ("loans.read_note", ["n"])),
    ).decisions
    assert [each.code for each in outcomes] == [Code.APPLIED, Code.NOT_FOUND]
    other = town()
    made = other.do("clerk", "loans.note", "n", expects=[("slip", ["n"], 0)])
    hold = ("charter.place_hold", [["record", ["slip", "n"]]], ["edit"], None, "Act")
    back = other.reverse("admin", made)
    assert back.code == Code.APPLIED
    assert other.do("admin", *hold).code == Code.APPLIED
    outcomes = other.run(
        other.draft("admin", hold), other.draft("clerk", ("loans.read_note", ["n"]))
    ).decisions
    assert [each.code for each in outcomes] == [Code.APPLIED, Code.NOT_FOUND]


# --- slots ------------------------------------------------------------------------------------


def test_a_slot_is_free_again_only_where_the_action_says_so() -> None:
    world = town()
    kept = lend(world, name="lend_kept")
    assert world.reverse("admin", kept).code == Code.APPLIED
    again = world.do("clerk", "loans.lend", "ann", 5, expects=[("loan", ["ann"], 0)])
    assert refused(again) == (Code.NOT_UNIQUE, [["unique", "loan"]])
    freed = lend(world, "bob")
    assert world.reverse("admin", freed).code == Code.APPLIED
    assert lend(world, "bob", 5, "lend_kept").code == Code.APPLIED


def test_one_transaction_takes_back_and_does_anew() -> None:
    world = town()
    made = lend(world)
    calls = (
        ("charter.reverse", made.header.txid, world.evidence(made).encode()),
        ("loans.lend_again", "ann", 70),
    )
    world.do(
        "admin",
        "charter.give_role",
        "treasury",
        token("admin"),
        "loans.clerk",
        [],
        world.now_ms,
        None,
        expects=[("role", [token("admin"), "loans.clerk"], 0)],
    )
    both = world.one(world.draft("admin", *calls))
    assert both.code == Code.APPLIED, both.detail
    assert world.balance("wallet", "ann") == 80
    undone = world.reverse("auditor", both)
    assert undone.code == Code.APPLIED, undone.detail
    assert world.balance("wallet", "ann") == 110
    assert world.record("loan", ["ann"]).fields["status"] == "open"
    third = world.reverse("auditor", undone)
    assert third.code == Code.APPLIED, third.detail
    assert world.balance("wallet", "ann") == 80
    taken = world.do("clerk", "loans.lend_kept", "ann", 1)
    assert refused(taken) == (Code.NOT_UNIQUE, [["unique", "loan"]])


# --- reversals of reversals -------------------------------------------------------------------


def test_a_reversal_can_be_taken_back_and_that_too() -> None:
    world = town()
    made = lend(world)
    world.do("clerk", "loans.spend", "ann", 60)
    before = total(world)
    first = world.reverse("admin", made)
    second = world.reverse("admin", first)
    assert second.code == Code.APPLIED, second.detail
    assert (world.balance("wallet", "ann"), world.balance("debt", "ann")) == (50, 0)
    record = world.record("loan", ["ann"])
    assert (record.fields["status"], record.fields["amount"], record.version) == ("open", 100, 3)
    assert [row[0] for row in record.fields["by"]] == ["created", "open"]
    third = world.reverse("admin", second)
    assert third.code == Code.APPLIED, third.detail
    assert (world.balance("wallet", "ann"), world.balance("debt", "ann")) == (10, -60)
    assert world.record("loan", ["ann"]).fields["status"] == "voided"
    assert total(world) == before
    assert world.reverse("admin", made).detail == [
        "REVERSED",
        f"transaction {first.header.txid.hex()} has taken it back",
    ]


def test_restoring_takes_the_slot_again_or_says_that_it_is_taken() -> None:
    world = town()
    first = world.reverse("admin", lend(world))
    other = lend(world, "ann", 5, "lend_kept")
    assert refused(world.reverse("admin", first)) == (Code.NOT_UNIQUE, [["unique", "loan"]])
    assert world.reverse("admin", other).code == Code.APPLIED  # which keeps the slot
    assert world.reverse("admin", first).code == Code.NOT_UNIQUE


def test_the_slot_of_a_restored_act_is_freed_again_with_it() -> None:
    world = town()
    made = lend(world)
    second = world.reverse("admin", world.reverse("admin", made))
    assert refused(world.do("clerk", "loans.lend_kept", "ann", 5)) == (
        Code.NOT_UNIQUE,
        [["unique", "loan"]],
    )
    assert world.reverse("admin", second).code == Code.APPLIED
    assert lend(world, "ann", 5, "lend_kept").code == Code.APPLIED


def test_restoring_a_payment_that_the_fund_cannot_make_is_insufficient() -> None:
    world = town()
    first = world.reverse("admin", lend(world))
    lend(world, "bob", 950)
    assert refused(world.reverse("admin", first)) == (Code.INSUFFICIENT, [["fund"], "floor"])


# --- who, when, what --------------------------------------------------------------------------


def test_only_the_role_that_the_action_names_may() -> None:
    world = town()
    made = lend(world)
    assert refused(world.reverse("clerk", made)) == (
        Code.NOT_AUTHORIZED,
        [["role", "loans.chief", "missing"]],
    )
    world.do("admin", "charter.revoke_role", "treasury", token("admin"), "loans.chief")
    assert refused(world.reverse("admin", made)) == (
        Code.NOT_AUTHORIZED,
        [["role", "loans.chief", "revoked"]],
    )
    assert world.reverse("auditor", made).code == Code.APPLIED


def test_roles_of_all_calls_are_needed() -> None:
    world = town()
    lend(world, "ann", 50)
    world.do("clerk", "loans.house", ["ann"], "Hill 1", "Ely", expects=[("loan", ["ann"], 1)])
    calls = (("loans.pass_on", "ann", "bob", 50), ("loans.note", "n"))
    made = world.one(world.draft("clerk", *calls, expects=[("slip", ["n"], 0)]))
    assert refused(world.reverse("admin", made)) == (
        Code.NOT_AUTHORIZED,
        [["role", "loans.auditor", "missing"]],
    )
    assert world.reverse("auditor", made).code == Code.APPLIED


@pytest.mark.parametrize(("late_ms", "outcome"), [(0, Code.APPLIED), (1, Code.REQUIREMENT)])
def test_the_last_moment_is_days_after_the_act(late_ms: int, outcome: Code) -> None:
    world = town()
    made = lend(world)
    world.now_ms = made.header.time_ms + 90 * DAY_MS + late_ms - 1000
    back = world.reverse("admin", made)
    assert back.code == outcome
    if late_ms:
        assert back.detail == ["TOO_LATE", "the time in which it could be taken back is over"]


def test_the_shortest_time_of_all_calls_counts() -> None:
    world = town()
    lend(world, "ann", 50)
    calls = (("loans.pass_on", "ann", "bob", 50), ("loans.note", "n"))
    made = world.one(world.draft("clerk", *calls, expects=[("slip", ["n"], 0)]))
    world.now_ms += 10 * DAY_MS
    assert world.reverse("auditor", made).detail[0] == "TOO_LATE"


def test_a_reversal_has_the_time_of_the_act_anew() -> None:
    world = town()
    made = lend(world)
    world.now_ms += 80 * DAY_MS
    first = world.reverse("admin", made)
    world.now_ms += 80 * DAY_MS
    assert world.reverse("admin", first).code == Code.APPLIED


def test_what_cannot_be_taken_back_says_why() -> None:
    world = town()
    lend(world)
    plain = world.do("clerk", "loans.spend", "ann", 5)
    mixed = world.one(
        world.draft("clerk", ("loans.spend", "ann", 5), ("loans.pass_on", "ann", "bob", 5))
    )
    bad = world.do("clerk", "loans.spend", "ann", 50_000)
    assert (mixed.code, bad.code) == (Code.APPLIED, Code.INSUFFICIENT)
    for decision, code in (
        (plain, "NOT_REVERSIBLE"),
        (mixed, "NOT_REVERSIBLE"),
        (bad, "NOT_APPLIED"),
    ):
        back = world.reverse("admin", decision)
        assert (back.code, back.detail[0]) == (Code.REQUIREMENT, code)


def test_twice_is_refused_even_within_one_transaction() -> None:
    world = town()
    made = lend(world)
    call = ("charter.reverse", made.header.txid, world.evidence(made).encode())
    twice = world.one(world.draft("admin", call, call))
    assert (twice.code, twice.call, twice.detail[0]) == (Code.REQUIREMENT, 1, "REVERSED")
    assert world.state.get(world.ledger.paths("corrections", [made.header.txid])) is None
    assert world.reverse("admin", made).code == Code.APPLIED
    assert world.reverse("admin", made).detail[0] == "REVERSED"


def test_holds_bind_reversals() -> None:
    places = {
        "record": ("record", ["loan", "ann"], ["edit"]),
        "payee": ("account", ["wallet", "ann"], ["pay"]),
        "fund": ("account", ["fund"], ["all"]),
        "domain": ("domain", ["loans"], ["pay"]),
        "action": ("action", ["loans", "lend"], ["edit"]),
    }
    for space, target, scopes in places.values():
        world = town()
        made = lend(world)
        placed = world.do("admin", "charter.place_hold", [[space, target]], scopes, None, "Act")
        assert placed.code == Code.APPLIED, placed.detail
        [hold] = [e[0][1] for e in leaf(placed, "writes:charter") if e[0][0] == "hold"]
        assert refused(world.reverse("admin", made)) == (Code.HELD, hold)


def test_a_hold_that_does_not_concern_it_leaves_a_reversal_alone() -> None:
    world = town()
    noted = world.do("clerk", "loans.note", "n", expects=[("slip", ["n"], 0)])
    held = world.do("admin", "charter.place_hold", [["domain", ["loans"]]], ["pay"], None, "Act")
    assert held.code == Code.APPLIED
    assert world.reverse("admin", noted).code == Code.APPLIED


# --- evidence ---------------------------------------------------------------------------------


def shown(world: World, decision: Decision, /, **changes: Any) -> Decision:
    """Take back with evidence of which some parts are replaced."""
    evidence = replace(world.evidence(decision), **changes)
    return world.do("admin", "charter.reverse", decision.header.txid, evidence.encode())


def settled(world: World) -> Decision:
    lend(world)
    return world.do("clerk", "loans.settle", ["ann"], None, expects=[("loan", ["ann"], 1)])


def reason(decision: Decision) -> Value:
    assert decision.code == Code.BAD_INPUT
    assert decision.detail[0] == "evidence"
    return decision.detail[1]


def test_evidence_of_another_transaction_is_refused() -> None:
    world = town()
    made, other = lend(world), lend(world, "bob")
    data = world.evidence(other).encode()
    back = world.do("admin", "charter.reverse", made.header.txid, data)
    assert reason(back) == "it is of another transaction"


def test_evidence_of_another_network_is_refused() -> None:
    world, other = town(), town()
    other.run()
    decision = settled(other)
    data = other.evidence(decision, other.history.size).encode()
    settled(world)
    world.run()
    back = world.do("admin", "charter.reverse", decision.header.txid, data)
    assert reason(back) == "the statement is not in the history of this network"


def test_evidence_that_lacks_an_opening_or_opens_something_else_is_refused() -> None:
    world = town()
    decision = settled(world)
    openings = world.evidence(decision).openings
    assert len(openings) == 4  # address, amount, by, status
    assert (
        reason(shown(world, decision, openings=openings[1:]))
        == "it opens 3 overwritten leaves of 4"
    )
    more = (*openings, openings[0])
    assert reason(shown(world, decision, openings=more)) == "it opens 5 overwritten leaves of 4"
    lie = openings[1]._replace(value=b"\x19\x27\x0f")
    lied = (openings[0], lie, *openings[2:])
    assert reason(shown(world, decision, openings=lied)) == "amount was not what it opens"
    swapped = (openings[1], openings[0], *openings[2:])
    assert reason(shown(world, decision, openings=swapped)) == "address was not what it opens"


def test_evidence_rests_on_a_history_that_every_node_knows() -> None:
    world = town()
    decision = settled(world)
    for _ in range(3):
        world.run()
    unknown = "it rests on a history that is too old, or not certain yet"
    assert reason(shown(world, decision, size=world.history.size + 1)) == unknown
    height = decision.header.height
    too_small = "the statement is not in the history of this network"
    assert reason(shown(world, decision, size=height)) == too_small
    for size in (height + 1, world.history.size):
        assert check(
            world.evidence(decision, size).encode(),
            decision.header.txid,
            world.history.root,
            world.ledger.paths,
        )
    assert (
        world.do(
            "admin",
            "charter.reverse",
            decision.header.txid,
            world.evidence(decision, height + 1).encode(),
        ).code
        == Code.APPLIED
    )


def test_a_history_older_than_the_horizon_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "HISTORY_HEIGHTS_MAX", 2)
    world = town()
    decision = lend(world)
    old = world.evidence(decision).encode()
    world.run()
    world.run()
    assert check(
        old,
        decision.header.txid,
        BlockContext(1, 4, 0, history=world.history.root).history_root,
        world.ledger.paths,
    )
    world.run()
    back = world.do("admin", "charter.reverse", decision.header.txid, old)
    assert reason(back) == "it rests on a history that is too old, or not certain yet"
    assert world.reverse("admin", decision).code == Code.APPLIED


def test_no_flipped_bit_of_evidence_passes() -> None:
    world = town()
    decision = settled(world)
    for _ in range(3):
        world.run()
    data = world.evidence(decision).encode()
    txid, root, paths = decision.header.txid, world.history.root, world.ledger.paths
    assert check(data, txid, root, paths).decision.root == decision.root

    def known(size: int) -> bytes | None:
        return root(size) if 0 <= size <= world.history.size else None

    for at in range(len(data)):
        for bit in (1, 0x80):
            flipped = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
            with pytest.raises(EvidenceError):
                check(flipped, txid, known, paths)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"\x80", b"\x87" + b"\x40" * 7, b"\xff" * 40, bytes(200_000)]
)
def test_what_is_no_evidence_is_a_bad_input(data: bytes) -> None:
    world = town()
    made = lend(world)
    back = world.do("admin", "charter.reverse", made.header.txid, data)
    assert (back.code, back.detail[0]) == (Code.BAD_INPUT, "evidence")


@pytest.mark.parametrize("value", [None, 7, "text", [b"x"], True])
def test_evidence_is_bytes(value: Value) -> None:
    world = town()
    assert world.do("admin", "charter.reverse", bytes(32), value).code == Code.BAD_INPUT


def test_a_node_that_knows_no_history_refuses() -> None:
    world = town()
    made = lend(world)
    call = ("charter.reverse", made.header.txid, world.evidence(made).encode())
    run = BlockRun(
        world.ledger, world.state, BlockContext(1, 9, world.now_ms), [world.draft("admin", call)]
    )
    assert (
        reason(run.finish().decisions[0])
        == "it rests on a history that is too old, or not certain yet"
    )


# --- with approvals, as proposals, on the wire ------------------------------------------------


def test_the_charter_may_ask_for_approvals_of_reversals() -> None:
    asking = REVERSE + 'approvals = { role = "loans.auditor" }\n'
    world = town(asking)
    made = lend(world)
    call = ("charter.reverse", made.header.txid, world.evidence(made).encode())
    assert world.one(world.draft("admin", call)).code == Code.NEEDS_APPROVAL
    assert world.one(world.draft("admin", call, cosigners=["clerk"])).code == Code.NEEDS_APPROVAL
    assert world.one(world.draft("admin", call, cosigners=["auditor"])).code == Code.APPLIED


def test_what_a_proposal_did_is_taken_back_by_its_second_decision() -> None:
    world = town()
    expects = [("loan", ["ann"], 0)]
    stored, effect = world.run(
        world.draft("clerk", ("loans.lend", "ann", 100), mode=PROPOSE, expects=expects)
    ).decisions
    assert (stored.code, effect.code) == (Code.PROPOSED, Code.APPLIED)
    early = world.reverse("admin", stored)
    assert early.detail[0] == "NOT_APPLIED"
    assert world.reverse("admin", effect).code == Code.APPLIED
    assert (world.balance("fund"), world.balance("wallet", "ann")) == (1000, 10)


def test_a_reversal_may_be_proposed_itself() -> None:
    world = town()
    lent = lend(world)
    settled_ = world.do("clerk", "loans.settle", ["ann"], None, expects=[("loan", ["ann"], 1)])
    call = ("charter.reverse", settled_.header.txid, world.evidence(settled_).encode())
    stored, effect = world.run(world.draft("admin", call, mode=PROPOSE)).decisions
    assert (stored.code, effect.code) == (Code.PROPOSED, Code.APPLIED)
    assert "reversible" not in stored.names
    assert "links" not in stored.names
    assert leaf(effect, "links") == [
        ["approval", effect.header.txid],
        ["reverses", settled_.header.txid],
    ]
    assert world.reverse("admin", effect).code == Code.APPLIED
    assert world.record("loan", ["ann"]).fields["status"] == "paid"
    assert world.reverse("admin", lent).code == Code.STALE


def test_what_is_written_fits_the_grammar() -> None:
    grammar = (ROOT / "docs/protocol/ledger.cddl").read_text(encoding="utf-8")

    def fits(rule: str, data: bytes) -> None:
        pycddl.Schema(f"start = {rule}\n{grammar}").validate_cbor(data)

    world = town()
    first = settled(world)
    made = [first, lend(world, "bob"), world.reverse("admin", first)]
    made.append(world.reverse("admin", made[2]))
    for decision in made:
        fits("reversible-leaf", decision.leaves["reversible"])
        fits("evidence", world.evidence(decision).encode())
    fits("links-leaf", made[2].leaves["links"])
    bare = made[0].leaves["reversible"]
    assert SHAPE(codec.parse(bare), "terms") == len(bare)


@pytest.mark.parametrize(
    "changed", [{5: 0}, {3: 0}, {3: 3661}, {6: -1}, {8: b"x"}, {4: []}, {7: [[]]}, {2: ""}]
)
def test_terms_of_another_shape_are_no_decision(changed: dict[int, Value]) -> None:
    world = town()
    decision = lend(world)
    [row] = codec.parse(decision.leaves["reversible"])
    for at, value in changed.items():
        row[at] = value
    lie = Decision(
        decision.header_cbor,
        decision.kh,
        {**decision.leaves, "reversible": codec.encode([row])},
        decision.salts,
    )
    assert reason(shown(world, decision, decision=lie.encode())) == "it is not readable"


# --- conservation -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_no_order_of_acts_and_reversals_makes_or_loses_money(seed: int) -> None:
    world, chance = town(), Random(seed)
    world.do("clerk", "loans.repay", "ann", 1)
    before = total(world)
    done: list[Decision] = []
    for _ in range(40):
        holder, amount = chance.choice(("ann", "bob")), chance.randrange(200)
        made: Decision | None = None
        match chance.randrange(4):
            case 0:
                made = world.do("clerk", "loans.lend_kept", holder, amount)
            case 1:
                version = 0
                made = world.do(
                    "clerk", "loans.lend", holder, amount, expects=[("loan", [holder], version)]
                )
            case 2:
                made = world.do("clerk", "loans.spend", holder, amount)
            case _:
                made = world.reverse("auditor", chance.choice(done)) if done else None
        if made is not None:
            done.append(made)
        assert total(world) == before
    assert {each.code for each in done} >= {Code.APPLIED, Code.REQUIREMENT}
