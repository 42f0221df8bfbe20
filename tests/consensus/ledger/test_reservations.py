"""Reserving, posting and voiding: what may be spent, who may end what, and time.

Every expected value is worked out by hand. The reservations are made by domain ``grants`` on its
own fund and on the purse of domain ``payments``, which permits it.
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
from consensus.codec import INT64_MAX, Value
from consensus.errors import RulesError
from consensus.genesis import OpeningBalance
from consensus.ledger.accounts import EXPIRIES_MAX
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision, decode
from consensus.ledger.delegation import compile_condition
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.layout import POSTED, RESERVED, VOIDED, Balance, Reservation
from consensus.ledger.rules import (
    check_text,
    compile_rulebook,
    decode_definition,
    describe,
    encode_definition,
    load_toml,
)
from consensus.ledger.transaction import Transaction
from consensus.state.record import decode_single
from tests.consensus.ledger.reader import (
    Recorded,
    Witness,
    read_account,
    read_holds,
    read_single,
    value_hash,
)
from tests.consensus.ledger.world import TEXTS, World, make_genesis, public_key

ROOT = Path(__file__).parents[3]
DAY_MS = 86_400_000
MIDNIGHT_MS = 1_767_398_400_000
"""2026-01-03T00:00:00Z; worlds begin on the day before."""
MIDNIGHT = 20_456

GRANTS = """\
domain = "grants"
number = 1
legal_basis = "Grants Act"

[accounts.fund]
currency = "USD"

[accounts.other]
currency = "EUR"

[actions.commit]
actor   = { role = "payments.clerk" }
inputs  = { award = "int", amount = "money:USD", until = "time?" }
reserve = [ { id = ["{input.award}"], from = "account/fund/main", amount = "input.amount", expires = "input.until" } ]

[actions.commit_for_day]
actor   = { role = "payments.clerk" }
inputs  = { award = "int", amount = "money:USD", until = "date" }
reserve = [ { id = "{input.award}", from = "account/fund/main", amount = "input.amount", expires = "input.until" } ]

[actions.pay]
actor  = { role = "payments.clerk" }
inputs = { award = "int", to = "text" }
post   = [ { id = ["{input.award}"], from = "account/fund/main", to = "account/fund/{input.to}" } ]

[actions.pay_part]
actor  = { role = "payments.clerk" }
inputs = { award = "int", amount = "money:USD" }
post   = [ { id = ["{input.award}"], from = "account/fund/main", to = "account/fund/a", amount = "input.amount" } ]

[actions.pay_instalment]
actor  = { role = "payments.clerk" }
inputs = { award = "int", amount = "money:USD" }
post   = [ { id = ["{input.award}"], from = "account/fund/main", to = "account/fund/a", amount = "input.amount", keep = true } ]

[actions.pay_from]
actor  = { role = "payments.clerk" }
inputs = { award = "int", from = "text" }
post   = [ { id = ["{input.award}"], from = "account/fund/{input.from}", to = "account/fund/a" } ]

[actions.withdraw]
actor  = { role = "payments.clerk" }
inputs = { award = "int" }
void   = [ { id = ["{input.award}"], from = "account/fund/main" } ]

[actions.replace]
actor   = { role = "payments.clerk" }
inputs  = { old = "int", new = "int", amount = "money:USD" }
void    = [ { id = ["{input.old}"], from = "account/fund/main" } ]
reserve = [ { id = ["{input.new}"], from = "account/fund/main", amount = "input.amount" } ]

[actions.replace_late]
actor   = { role = "payments.clerk" }
inputs  = { old = "int", new = "int", amount = "money:USD" }
reserve = [ { id = ["{input.new}"], from = "account/fund/main", amount = "input.amount" } ]
void    = [ { id = ["{input.old}"], from = "account/fund/main" } ]

[actions.spend]
actor  = { role = "payments.clerk" }
inputs = { amount = "money:USD" }
move   = [ { from = "account/fund/main", to = "account/fund/a", amount = "input.amount" } ]

[actions.all_at_once]
actor   = { role = "payments.clerk" }
inputs  = { award = "int", amount = "money:USD" }
open    = [ { account = "account/fund/{input.award}" } ]
move    = [ { from = "account/fund/main", to = "account/fund/{input.award}", amount = "input.amount" } ]
reserve = [ { id = ["{input.award}"], from = "account/fund/{input.award}", amount = "input.amount / 2" } ]

[actions.maybe]
actor   = { role = "payments.clerk" }
inputs  = { award = "int", amount = "money:USD" }
reserve = [ { id = ["{input.award}"], from = "account/fund/main", amount = "input.amount", when = "input.amount > 0" } ]

[actions.check]
actor   = { role = "payments.clerk" }
inputs  = { balance = "int", reserved = "int", available = "int" }
load    = [ ["main", "account/fund/main"] ]
require = [ { code = "BALANCE", that = "main.balance == input.balance", say = "another balance" },
            { code = "RESERVED", that = "main.reserved == input.reserved", say = "another sum" },
            { code = "AVAILABLE", that = "main.available == input.available", say = "other funds" } ]

[actions.freeze]
actor      = { role = "payments.clerk" }
inputs     = { name = "text", scope = "text" }
place_hold = [ { target = "account/fund/{input.name}", scopes = ["pay"], reason = "a dispute", when = "input.scope == 'pay'" },
               { target = "account/fund/{input.name}", scopes = ["all"], reason = "a dispute", when = "input.scope == 'all'" } ]

[actions.borrow]
actor   = { role = "payments.clerk" }
inputs  = { award = "int", amount = "money:USD" }
reserve = [ { id = ["purse", "{input.award}"], from = "account/purse/a", amount = "input.amount" } ]

[actions.lend]
actor  = { role = "payments.clerk" }
inputs = { award = "int" }
post   = [ { id = ["purse", "{input.award}"], from = "account/purse/a", to = "account/fund/a" } ]
"""
CHARTER, IDENTITY, BENEFITS, PAYMENTS = TEXTS
PERMITTED = PAYMENTS.replace("floor = -50\n", 'floor = -50\ndebit_by = ["grants"]\n')


def make(**balances: int) -> World:
    """Return a network whose main fund has 1,000, and ``a`` and ``b`` nothing."""
    funds = {"main": 1000, "a": 0, "b": 0} | balances
    genesis = make_genesis((CHARTER, IDENTITY, BENEFITS, PERMITTED, GRANTS))
    accounts = [OpeningBalance("fund", (name,), amount) for name, amount in funds.items()]
    return World(replace(genesis, accounts=(*genesis.accounts, *accounts)))


def do(world: World, action: str, *inputs: Value) -> Decision:
    """Execute one act of the clerk in a block of its own."""
    return world.do("clerk", f"grants.{action}", *inputs)


def ok(world: World, action: str, *inputs: Value) -> Decision:
    """Execute one act that must be applied."""
    decision = do(world, action, *inputs)
    assert decision.code == Code.APPLIED, (action, decision.code, decision.detail)
    return decision


def account(world: World, *id_: Value) -> Balance:
    row = world.state.get(world.ledger.paths("account", list(id_)))
    assert row is not None
    return read_account(row.value)


def reserved(world: World, *id_: Value) -> int:
    """Return what is reserved of an account now."""
    return account(world, *(id_ or ("fund", "main"))).reserved_at(world.now_ms)


def reservation(world: World, *id_: Value) -> Reservation:
    row = world.state.get(world.ledger.paths("reservation", list(id_)))
    assert row is not None
    found: Reservation = read_single("reservation", list(id_), row.value).value
    return found


def refused(decision: Decision) -> tuple[Code, Any]:
    return decision.code, decision.detail


# --- what may be spent ------------------------------------------------------------------------


def test_what_is_reserved_stays_in_the_account_and_cannot_be_spent() -> None:
    world = make()
    ok(world, "commit", 1, 700, None)
    assert (account(world, "fund", "main").balance, reserved(world)) == (1000, 700)
    assert refused(do(world, "spend", 301)) == (Code.INSUFFICIENT, [["fund", "main"], "floor"])
    assert refused(do(world, "commit", 2, 301, None)) == (
        Code.INSUFFICIENT,
        [["fund", "main"], "floor"],
    )
    ok(world, "spend", 100)
    ok(world, "commit", 2, 200, None)
    assert refused(do(world, "spend", 1))[0] == Code.INSUFFICIENT
    assert (account(world, "fund", "main").balance, reserved(world)) == (900, 900)


def test_post_moves_what_was_reserved_and_the_rest_may_be_spent() -> None:
    world = make()
    ok(world, "commit", 1, 700, None)
    ok(world, "pay", 1, "a")
    assert world.balance("fund", "main") == 300
    assert world.balance("fund", "a") == 700
    assert reserved(world) == 0
    assert reservation(world, "grants", 1) == Reservation(
        ["grants", 1], ["fund", "main"], 700, 700, None, POSTED
    )
    ok(world, "spend", 300)


def test_of_a_part_that_is_posted_the_rest_is_given_back() -> None:
    world = make()
    ok(world, "commit", 1, 700, None)
    ok(world, "pay_part", 1, 300)
    assert (world.balance("fund", "main"), reserved(world)) == (700, 0)
    assert reservation(world, "grants", 1)[2:] == (700, 300, None, POSTED)
    assert refused(do(world, "pay_part", 1, 1)) == (
        Code.REQUIREMENT,
        ["POSTED", "the reservation was posted"],
    )


def test_with_keep_the_rest_stays_reserved_until_it_is_posted_too() -> None:
    world = make()
    ok(world, "commit", 1, 700, None)
    ok(world, "pay_instalment", 1, 300)
    assert (world.balance("fund", "main"), reserved(world)) == (700, 400)
    assert reservation(world, "grants", 1)[2:] == (700, 300, None, RESERVED)
    assert do(world, "pay_instalment", 1, 401).detail[0] == "OVER_RESERVED"
    ok(world, "pay_instalment", 1, 0)
    ok(world, "pay_instalment", 1, 400)
    assert (world.balance("fund", "main"), reserved(world)) == (300, 0)
    assert do(world, "pay_instalment", 1, 0).detail[0] == "POSTED"


def test_of_a_reservation_paid_in_part_the_rest_is_voided() -> None:
    world = make()
    ok(world, "commit", 1, 700, None)
    ok(world, "pay_instalment", 1, 300)
    ok(world, "withdraw", 1)
    assert (world.balance("fund", "main"), reserved(world)) == (700, 0)
    assert reservation(world, "grants", 1)[2:] == (700, 300, None, VOIDED)


def test_void_gives_back_once() -> None:
    world = make()
    ok(world, "commit", 1, 700, None)
    ok(world, "withdraw", 1)
    assert (world.balance("fund", "main"), reserved(world)) == (1000, 0)
    assert refused(do(world, "withdraw", 1)) == (
        Code.REQUIREMENT,
        ["VOIDED", "the reservation was voided"],
    )
    assert do(world, "pay", 1, "a").detail[0] == "VOIDED"
    assert do(world, "pay_part", 1, 0).detail[0] == "VOIDED"


def test_an_id_can_never_be_used_again() -> None:
    world = make()
    ok(world, "commit", 1, 10, None)
    taken = (Code.NOT_UNIQUE, [["reservation", ["grants", 1]]])
    assert refused(do(world, "commit", 1, 10, None)) == taken
    ok(world, "withdraw", 1)
    assert refused(do(world, "commit", 1, 10, None)) == taken
    assert reserved(world) == 0


def test_an_id_is_not_made_twice_in_one_transaction() -> None:
    world = make()
    twice = world.draft("clerk", ("grants.commit", 1, 5, None), ("grants.commit", 1, 5, None))
    assert world.one(twice).code == Code.NOT_UNIQUE
    assert reserved(world) == 0
    made_and_paid = world.draft("clerk", ("grants.commit", 1, 5, None), ("grants.pay", 1, "a"))
    assert world.one(made_and_paid).code == Code.APPLIED
    assert (world.balance("fund", "a"), reserved(world)) == (5, 0)


def test_what_was_never_reserved_is_not_found() -> None:
    world = make()
    missing = (Code.NOT_FOUND, ["reservation", ["reservation", ["grants", 9]]])
    assert refused(do(world, "pay", 9, "a")) == missing
    assert refused(do(world, "withdraw", 9)) == missing


def test_an_amount_of_nothing_may_be_reserved_but_not_less() -> None:
    world = make(main=0)
    ok(world, "commit", 1, 0, None)
    ok(world, "pay", 1, "a")
    assert refused(do(world, "commit", 2, -1, None)) == (
        Code.REQUIREMENT,
        ["NEGATIVE", "input.amount is < 0"],
    )
    ok(world, "maybe", 3, 0)
    assert do(world, "withdraw", 3).code == Code.NOT_FOUND


def test_amounts_change_in_the_order_of_the_rules() -> None:
    world = make()
    ok(world, "commit", 1, 900, None)
    assert do(world, "replace_late", 1, 2, 950).code == Code.INSUFFICIENT
    ok(world, "replace", 1, 2, 950)
    assert reserved(world) == 950
    assert do(world, "replace", 2, 2, 1).code == Code.NOT_UNIQUE
    assert do(world, "replace", 2, 1, 1).code == Code.NOT_UNIQUE


def test_the_floor_is_kept_free_too_and_money_of_others_is_reserved_where_they_permit_it() -> None:
    world = make()  # purse a has 1,000 and a floor of -50
    assert do(world, "borrow", 1, 1051).code == Code.INSUFFICIENT
    ok(world, "borrow", 1, 1050)
    transfer = world.do("clerk", "payments.transfer", "a", "b", 1)
    assert refused(transfer) == (Code.INSUFFICIENT, [["purse", "a"], "floor"])
    lent = ok(world, "lend", 1)
    assert world.balance("purse", "a") == -50
    moves = {name: value for name, value in lent.leaves.items() if name.startswith("moves:")}
    assert {name: cbor2.loads(value) for name, value in moves.items()} == {
        "moves:grants": [[0, ["fund", "a"], 1050]],
        "moves:payments": [[0, ["purse", "a"], -1050, -1050, ["grants", "purse", 1]]],
    }


def test_an_account_that_the_call_opens_can_be_reserved_from() -> None:
    world = make()
    ok(world, "all_at_once", 7, 301)
    assert account(world, "fund", 7) == Balance(["fund", 7], 301, 150, 0)


def test_the_account_of_a_post_must_be_that_of_the_reservation() -> None:
    world = make(b=500)
    ok(world, "commit", 1, 100, None)
    assert refused(do(world, "pay_from", 1, "b")) == (
        Code.REQUIREMENT,
        ["OTHER_ACCOUNT", "the reservation is on another account"],
    )
    assert do(world, "pay_from", 1, "none").code == Code.NOT_FOUND
    ok(world, "pay_from", 1, "main")


# --- 64 bits ----------------------------------------------------------------------------------


def test_sums_beyond_64_bits_are_refused() -> None:
    world = make(main=INT64_MAX, a=5)
    assert do(world, "commit", 1, INT64_MAX, None).code == Code.APPLIED
    assert do(world, "commit", 2, INT64_MAX, None).code == Code.INSUFFICIENT
    assert refused(do(world, "pay", 1, "a")) == (
        Code.INSUFFICIENT,
        [["fund", "a"], "overflow"],
    )
    assert reserved(world) == INT64_MAX
    ok(world, "check", INT64_MAX, INT64_MAX, 0)
    ok(world, "withdraw", 1)


def test_reserved_may_exceed_the_balance_by_the_floor_but_not_64_bits() -> None:
    deep = PERMITTED.replace("floor = -50", f"floor = {-(2**62)}")
    genesis = make_genesis((CHARTER, IDENTITY, BENEFITS, deep, GRANTS))
    world = World(replace(genesis, accounts=(OpeningBalance("purse", ("a",), INT64_MAX - 10),)))
    ok(world, "borrow", 1, INT64_MAX)
    assert refused(do(world, "borrow", 2, 1)) == (
        Code.INSUFFICIENT,
        [["purse", "a"], "overflow"],
    )


# --- time -------------------------------------------------------------------------------------


def test_a_reservation_ends_by_itself_at_its_moment_and_not_before() -> None:
    world = make()
    until_ms = world.now_ms + 4000
    ok(world, "commit", 1, 700, until_ms)  # blocks are a second apart: this was the first
    ok(world, "check", 1000, 700, 300)
    assert do(world, "spend", 301).code == Code.INSUFFICIENT
    assert world.now_ms == until_ms - 1000
    ok(world, "check", 1000, 0, 1000)
    assert refused(do(world, "pay", 1, "a")) == (
        Code.REQUIREMENT,
        ["EXPIRED", "the reservation has expired"],
    )
    ok(world, "spend", 1000)


def test_nobody_wrote_anything_when_it_ended() -> None:
    world = make()
    ok(world, "commit", 1, 700, world.now_ms + 2000)
    ok(world, "check", 1000, 0, 1000)
    leaf = account(world, "fund", "main")
    assert leaf == Balance(["fund", "main"], 1000, 700, 0, [[world.now_ms, 700]])
    assert leaf.reserved_at(world.now_ms - 1) == 700
    assert leaf.reserved_at(world.now_ms) == 0
    ok(world, "spend", 1)
    assert account(world, "fund", "main") == Balance(["fund", "main"], 999, 0, 0)


def test_what_expired_can_be_voided_and_then_no_more() -> None:
    world = make()
    ok(world, "commit", 1, 700, world.now_ms + 2000)
    ok(world, "commit", 2, 10, world.now_ms + 9000)
    decision = ok(world, "withdraw", 1)
    assert cbor2.loads(decision.leaves["moves:grants"]) == [
        [0, ["fund", "main"], 0, 0, ["grants", 1]]
    ]
    assert reserved(world) == 10
    assert do(world, "withdraw", 1).detail[0] == "VOIDED"


def test_a_date_is_its_first_moment_in_utc() -> None:
    world = make()
    ok(world, "commit_for_day", 1, 700, MIDNIGHT)
    assert reservation(world, "grants", 1).until_ms == MIDNIGHT_MS
    world.now_ms = MIDNIGHT_MS - 2000
    ok(world, "check", 1000, 700, 300)
    ok(world, "check", 1000, 0, 1000)
    assert world.now_ms == MIDNIGHT_MS


def test_a_reservation_that_would_end_at_once_is_refused() -> None:
    world = make()
    for until_ms in (0, world.now_ms + 1000):
        assert refused(do(world, "commit", 1, 1, until_ms)) == (
            Code.REQUIREMENT,
            ["NOT_LATER", "the reservation would end at once"],
        )
    assert do(world, "commit_for_day", 1, 1, -719_528).detail[0] == "NOT_LATER"
    ok(world, "commit", 1, 1, world.now_ms + 1001)


def test_those_that_end_together_share_a_moment_and_there_are_so_many() -> None:
    world = make(main=10_000)
    first = world.now_ms + 1_000_000
    block = [
        world.draft("clerk", ("grants.commit", number, 3, first + number))
        for number in range(EXPIRIES_MAX)
    ]
    assert {each.code for each in world.run(*block).decisions} == {Code.APPLIED}
    assert refused(do(world, "commit", 900, 1, first - 1)) == (Code.LIMIT, "expiries")
    ok(world, "commit", 901, 1, first + 5)
    ok(world, "commit", 902, 0, first - 1)
    ok(world, "commit", 903, 1, None)
    assert reserved(world) == 3 * EXPIRIES_MAX + 2
    ok(world, "withdraw", 7)
    ok(world, "commit", 904, 1, first - 1)
    world.now_ms = first + 63 - 1000  # all up to the moment + 63 have ended, and one more before
    ok(world, "check", 10_000, 3 * 64 + 1, 10_000 - 3 * 64 - 1)
    ok(world, "commit", 905, 1, first + 5000)


def test_a_part_that_is_kept_ends_with_the_whole() -> None:
    world = make()
    ok(world, "commit", 1, 700, world.now_ms + 3500)
    ok(world, "pay_instalment", 1, 300)
    assert account(world, "fund", "main").expiring == [[world.now_ms + 1500, 400]]
    ok(world, "check", 700, 400, 300)
    ok(world, "check", 700, 0, 700)
    assert do(world, "pay_instalment", 1, 1).detail[0] == "EXPIRED"


# --- holds ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["main", "a"])
@pytest.mark.parametrize("scope", ["pay", "all"])
def test_a_hold_of_either_account_blocks_a_post(name: str, scope: str) -> None:
    world = make()
    ok(world, "commit", 1, 700, None)
    ok(world, "freeze", name, scope)
    [hold] = read_holds(world.state, world.ledger.paths, "account", ["fund", name])
    assert refused(do(world, "pay", 1, "a")) == (Code.HELD, [hold.id])


def test_a_hold_on_payments_blocks_reserving_but_not_giving_back() -> None:
    world = make()
    ok(world, "commit", 1, 700, None)
    ok(world, "freeze", "main", "pay")
    assert do(world, "commit", 2, 1, None).code == Code.HELD
    ok(world, "withdraw", 1)


def test_a_hold_on_everything_blocks_giving_back_too() -> None:
    world = make()
    ok(world, "commit", 1, 700, None)
    ok(world, "freeze", "main", "all")
    assert do(world, "withdraw", 1).code == Code.HELD


@pytest.mark.parametrize(("scope", "void"), [("pay", Code.APPLIED), ("all", Code.HELD)])
def test_a_hold_on_the_domain_blocks_reserving_and_posting(scope: str, void: Code) -> None:
    world = make()
    ok(world, "commit", 1, 7, None)
    ok(world, "commit", 2, 7, None)
    placed = world.do("admin", "charter.place_hold", [["domain", ["grants"]]], [scope], None, "Act")
    assert placed.code == Code.APPLIED
    assert do(world, "commit", 3, 1, None).code == Code.HELD
    assert do(world, "pay", 1, "a").code == Code.HELD
    assert do(world, "withdraw", 2).code == void


# --- decisions, reads, bytes ------------------------------------------------------------------


def test_a_decision_says_what_was_reserved_and_never_shows_the_balance() -> None:
    world = make()
    decision = ok(world, "commit", 1, 700, 1_800_000_000_000)
    assert cbor2.loads(decision.leaves["moves:grants"]) == [
        [0, ["fund", "main"], 0, 700, ["grants", 1]]
    ]
    [row] = cbor2.loads(decision.leaves["writes:grants"])
    assert row[:3] == [["reservation", ["grants", 1]], 0, 1]
    paths = world.ledger.paths
    full, moved = cbor2.loads(decision.leaves["reads"])
    named = {full[at : at + 32]: full[at + 32 : at + 64] for at in range(0, len(full), 64)}
    assert named[paths("reservation", ["grants", 1])] == bytes(32)
    assert paths("account", ["fund", "main"]) not in named
    assert moved == paths("account", ["fund", "main"])
    part = ok(world, "pay_instalment", 1, 300)
    assert cbor2.loads(part.leaves["moves:grants"]) == [
        [0, ["fund", "main"], -300, -300, ["grants", 1]],
        [0, ["fund", "a"], 300],
    ]
    rest = ok(world, "pay_part", 1, 100)
    assert cbor2.loads(rest.leaves["moves:grants"]) == [
        [0, ["fund", "main"], -100, -400, ["grants", 1]],
        [0, ["fund", "a"], 100],
    ]
    for each in (decision, part, rest):
        assert decode(each.encode()).root == each.root


def test_positions_go_on_over_the_calls_of_a_transaction() -> None:
    world = make()
    ok(world, "commit", 1, 7, None)
    calls = [("grants.spend", 5), ("grants.replace", 1, 2, 9), ("grants.spend", 6)]
    decision = world.one(world.draft("clerk", *calls))
    rows = cbor2.loads(decision.leaves["moves:grants"])
    assert [(row[0], *row[2:4]) for row in rows] == [
        (0, -5), (0, 5), (1, 0, -7), (2, 0, 9), (3, -6), (3, 6),
    ]  # fmt: skip


def grammar(rule: str) -> pycddl.Schema:
    text = (ROOT / "docs/protocol/ledger.cddl").read_text(encoding="utf-8")
    return pycddl.Schema(f"start = {rule}\n{text}")


def test_leaves_match_the_cddl() -> None:
    world = make()
    decisions = [
        ok(world, "commit", 1, 700, world.now_ms + 100_000),
        ok(world, "pay_instalment", 1, 300),
    ]
    paths, state = world.ledger.paths, world.state
    for rule, place in (
        ("account-leaf", ("account", ["fund", "main"])),
        ("account-leaf", ("account", ["fund", "a"])),
        ("reservation-leaf", ("reservation", ["grants", 1])),
    ):
        row = state.get(paths(*place))
        assert row is not None
        assert value_hash(paths(*place), row.value) == row.vh
        grammar(rule).validate_cbor(decode_single(row.value)[2])
    for decision in decisions:
        grammar("moves-leaf").validate_cbor(decision.leaves["moves:grants"])


def test_the_bytes_of_the_leaves() -> None:
    world = make()
    until_ms = world.now_ms + 100_000
    ok(world, "commit", 1, 700, until_ms)
    ok(world, "commit", 2, 50, None)
    ok(world, "commit", 3, 5, until_ms)
    row = world.state.get(world.ledger.paths("account", ["fund", "main"]))
    assert row is not None
    assert decode_single(row.value)[2] == cbor2.dumps(
        [["fund", "main"], 1000, 755, 0, [[until_ms, 705]]], canonical=True
    )
    row = world.state.get(world.ledger.paths("reservation", ["grants", 1]))
    assert row is not None
    assert decode_single(row.value)[2] == cbor2.dumps(
        [["grants", 1], ["fund", "main"], 700, 0, until_ms, 0], canonical=True
    )


def test_what_was_read_suffices_to_execute_again_and_the_decision_names_it() -> None:
    world = make()
    ok(world, "commit", 1, 600, world.now_ms + 1500)
    ok(world, "commit", 2, 400, None)
    drafts: list[Transaction] = [
        world.draft("clerk", ("grants.replace", 1, 3, 600)),
        world.draft("clerk", ("grants.pay", 2, "a")),
        world.draft("clerk", ("grants.pay", 2, "a")),
        world.draft("clerk", ("grants.check", 600, 600, 0)),
    ]
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    recorded = Recorded(world.state)
    first = BlockRun(world.ledger, recorded, context, drafts).finish()
    again = BlockRun(world.ledger, Witness(recorded.asked), context, drafts).finish()
    assert [each.code for each in first.decisions] == [
        Code.APPLIED, Code.APPLIED, Code.REQUIREMENT, Code.APPLIED,
    ]  # fmt: skip
    assert (again.results_root, again.writes) == (first.results_root, first.writes)
    named = set[bytes]()
    for decision in first.decisions:
        full, moved = cbor2.loads(decision.leaves["reads"])
        named |= {full[at : at + 32] for at in range(0, len(full), 64)}
        named |= {moved[at : at + 32] for at in range(0, len(moved), 32)}
    paths = world.ledger.paths
    attested = {
        paths.pool,
        paths.rules,
        paths.executor,
        paths.committee,
        paths("sequence", [public_key("clerk")]),
    }
    rules = {
        kh
        for each in ("charter", "identity", "benefits", "payments")
        for kh in (paths("rules", [each]), paths("rules", [each, 1]))
    }
    assert set(recorded.asked) - named <= attested | rules


def test_slices_of_a_block_make_no_difference() -> None:
    worlds = [make(), make()]
    results = []
    for world, slice_ in zip(worlds, (1, 1000), strict=True):
        ok(world, "commit", 1, 600, world.now_ms + 1500)
        block = [
            world.draft("clerk", ("grants.commit", 5, 100, None)),
            world.draft("clerk", ("grants.commit", 5, 100, None)),
            world.draft("clerk", ("grants.pay", 5, "a"), ("grants.spend", 600)),
            world.draft("clerk", ("grants.spend", 400)),
        ]
        results.append(world.run(*block, slice_=slice_))
    assert results[0].results_root == results[1].results_root
    assert results[0].writes == results[1].writes
    assert [each.code for each in results[0].decisions] == [
        Code.APPLIED, Code.NOT_UNIQUE, Code.APPLIED, Code.INSUFFICIENT,
    ]  # fmt: skip


# --- rules ------------------------------------------------------------------------------------


def test_rules_survive_their_canonical_form_and_match_the_grammar() -> None:
    definition = load_toml(GRANTS)
    encoded = encode_definition(definition)
    assert decode_definition(encoded) == definition
    text = (ROOT / "docs/protocol/rules.cddl").read_text(encoding="utf-8")
    pycddl.Schema(text).validate_cbor(encoded)
    actions = dict(codec.parse(encoded, "rules")[1][8])
    assert actions["commit"][11] == [
        [6, [["{input.award}"], "account/fund/main", "input.amount", [["expires", "input.until"]]]]
    ]
    assert actions["pay"][11] == [
        [7, [["{input.award}"], "account/fund/main", "account/fund/{input.to}"]]
    ]
    assert actions["pay_instalment"][11] == [
        [
            7,
            [
                ["{input.award}"],
                "account/fund/main",
                "account/fund/a",
                [["amount", "input.amount"], ["keep", True]],
            ],
        ]
    ]
    assert actions["withdraw"][11] == [[8, [["{input.award}"], "account/fund/main"]]]


OWN = GRANTS[: GRANTS.index("[actions.borrow]")]
RESERVE = 'reserve = [ { id = ["{input.award}"], from = "account/fund/main", amount = "input.amount", expires = "input.until" } ]'
POST = 'post   = [ { id = ["{input.award}"], from = "account/fund/main", to = "account/fund/{input.to}" } ]'
FAULTS = [
    (RESERVE, RESERVE.replace("fund/main", "purse/a"), "does not let domain grants debit purse"),
    (RESERVE, RESERVE.replace("input.amount", "input.award > 1"), "expected money:USD"),
    (RESERVE, RESERVE.replace('"input.until"', '"input.amount"'), "expected time or date"),
    (RESERVE, RESERVE.replace("input.until", "input.till"), "there is no input till"),
    (RESERVE, RESERVE.replace('["{input.award}"]', "[]"), "at least one component"),
    (RESERVE, RESERVE.replace("{input.award}", "{input.amount}"), "may not stand in an id"),
    (RESERVE, RESERVE.replace("account/fund/main", "fund/main"), "is not an account"),
    (RESERVE, RESERVE.replace("fund", "fnd"), "there is no account family 'fnd'"),
    (RESERVE, RESERVE.replace("expires", "expire"), "unknown key expire"),
    (RESERVE, RESERVE.replace(' amount = "input.amount",', ""), "amount is missing"),
    (POST, POST.replace("fund/{input.to}", "other/a"), "fund is in USD, other in EUR"),
    (POST, POST.replace("fund/main", "purse/a"), "does not let domain grants debit purse"),
    (POST, POST.replace(' from = "account/fund/main",', ""), "from is missing"),
    (POST, POST.replace(" }", ", keep = true }"), "nothing is left to keep"),
    (POST, POST.replace(" }", ", keep = 1 }"), "expected true or false"),
    (POST, POST.replace(" }", ", expires = 'now' }"), "unknown key expires"),
    (POST, 'phase = "protective"\n' + POST, "a protective action has no post"),
    (POST, POST.replace("post   =", "move ="), "unknown key id"),
]


@pytest.mark.parametrize(("old", "new", "message"), FAULTS)
def test_faults_of_rules_are_named_with_their_line(old: str, new: str, message: str) -> None:
    text = OWN.replace(old, new)
    assert text != OWN
    texts = (CHARTER, IDENTITY, BENEFITS, PAYMENTS)
    with pytest.raises(RulesError) as caught:
        compile_rulebook([*map(load_toml, texts), load_toml(text, "grants.toml")])
    assert message in caught.value.message
    start = text[: text.index(new)].count("\n") + 1
    assert start <= caught.value.line <= start + new.count("\n")
    assert caught.value.where == "grants.toml"


def test_giving_back_needs_no_permission_of_the_owner() -> None:
    text = f"""{OWN}
[actions.return]
actor  = {{ role = "payments.clerk" }}
inputs = {{ award = "int" }}
void   = [ {{ id = ["purse", "{{input.award}}"], from = "account/purse/a" }} ]
"""
    texts = (CHARTER, IDENTITY, BENEFITS, PAYMENTS, text)
    assert compile_rulebook([load_toml(each) for each in texts]).action("grants", "return")


def test_a_domain_cannot_name_the_reservations_of_another() -> None:
    """The id begins with the domain that acts, so payments finds nothing under the same words."""
    action = """
[actions.seize]
actor  = { role = "payments.clerk" }
inputs = { award = "int" }
void   = [ { id = ["purse", "{input.award}"], from = "account/purse/a" } ]
"""
    genesis = make_genesis((CHARTER, IDENTITY, BENEFITS, PERMITTED + action, GRANTS))
    world = World(replace(genesis, accounts=(OpeningBalance("purse", ("a",), 100),)))
    ok(world, "borrow", 1, 100)
    seized = world.do("clerk", "payments.seize", 1)
    assert refused(seized) == (
        Code.NOT_FOUND,
        ["reservation", ["reservation", ["payments", "purse", 1]]],
    )


def test_a_kind_cannot_be_called_reservation() -> None:
    text = GRANTS + '\n[kinds.reservation]\nfields.x = { type = "int" }\n'
    with pytest.raises(RulesError, match="may not be called reservation"):
        compile_rulebook([load_toml(text)])


def test_a_condition_of_a_grant_sees_what_is_reserved() -> None:
    world = make()
    action = world.ledger.rules(world.state, world.now_ms).book.action("grants", "check")
    assert action is not None
    condition = compile_condition(action, "main.reserved < 5 && main.available > main.balance - 9")
    for reserved_, holds in ((4, True), (5, False)):
        env = {"main": {"balance": 100, "reserved": reserved_, "available": 100 - reserved_}}
        assert condition.evaluate(env) is holds
    with pytest.raises(RulesError):
        compile_condition(action, "main.floor < 5")


def test_a_moment_of_its_own_for_every_reservation_is_noted() -> None:
    others = [CHARTER, IDENTITY, BENEFITS, PERMITTED]
    known = [load_toml(each) for each in others]
    said = [each.message for each in check_text(GRANTS, "grants.toml", known)]
    assert not any("moment of its own" in each for each in said)
    text = GRANTS.replace('expires = "input.until" } ]', 'expires = "days_add(now, 9)" } ]', 1)
    notes = [each for each in check_text(text, "grants.toml", known) if "moment" in each.message]
    assert len(notes) == 1
    assert "128 of these ahead" in notes[0].message
    assert notes[0].line == text[: text.index("days_add(now")].count("\n") + 1


def test_what_actions_do_is_said_in_words() -> None:
    texts = (CHARTER, IDENTITY, BENEFITS, PERMITTED, GRANTS)
    book = compile_rulebook([load_toml(each) for each in texts])
    (grants,) = [each for each in describe(book) if each.domain == "grants"]
    does = {each.name: each.does for each in grants.actions}
    assert does["commit"] == (
        "reserves input.amount of account/fund/main as reservation/grants/{input.award} "
        "until input.until",
    )
    assert does["pay"] == (
        "posts reservation/grants/{input.award} from account/fund/main to account/fund/{input.to}",
    )
    assert does["pay_instalment"] == (
        "posts input.amount of reservation/grants/{input.award} from account/fund/main "
        "to account/fund/a, keeping the rest reserved",
    )
    assert does["withdraw"] == ("voids reservation/grants/{input.award} of account/fund/main",)
    assert does["maybe"][0].endswith(" when input.amount > 0")
