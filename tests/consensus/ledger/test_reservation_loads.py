"""Loading a reservation: what conditions read of it, as of now, and what rules may say."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.codec import Value
from consensus.errors import RulesError
from consensus.genesis import OpeningBalance
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.delegation import compile_condition
from consensus.ledger.dry import DryRun
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.rules import check_text, compile_rulebook, describe, load_toml
from consensus.ledger.rules.report import Problem
from tests.consensus.ledger.reader import Recorded, Witness
from tests.consensus.ledger.test_reservations import (
    BENEFITS,
    CHARTER,
    GRANTS,
    IDENTITY,
    PERMITTED,
    ok,
    refused,
)
from tests.consensus.ledger.world import World, make_genesis

LOOK = """
[actions.look]
actor  = { role = "payments.clerk" }
inputs = { award = "int", state = "text", left = "money:USD", posted = "money:USD" }
load   = [ ["r", "reservation/{input.award} on account/fund/main"] ]
require = [ { code = "STATE", that = "r.state == input.state", say = "another state" },
            { code = "LEFT", that = "r.left == input.left", say = "another amount is left" },
            { code = "POSTED", that = "r.posted == input.posted", say = "another amount was posted" },
            { code = "AMOUNT", that = "r.state == 'voided' || r.left + r.posted <= r.amount", say = "more than was reserved" } ]

[actions.look_when]
actor  = { role = "payments.clerk" }
inputs = { award = "int", ends = "time" }
load   = [ ["r", "reservation/{input.award} on account/fund/main"] ]
require = [ { code = "ENDS", that = "r.ends == input.ends", say = "another time" } ]

[actions.withdraw_if]
actor  = { role = "payments.clerk" }
inputs = { award = "int" }
load   = [ ["r?", "reservation/{input.award} on account/fund/main"] ]
let    = [ ["there", "has(r.left)"] ]
open   = [ { account = "account/fund/none", when = "!there" } ]
void   = [ { id = ["{input.award}"], from = "account/fund/main", when = "there && r.state == 'reserved' && r.left >= 50" } ]

[actions.look_from]
actor  = { role = "payments.clerk" }
inputs = { award = "int", from = "text" }
load   = [ ["r", "reservation/{input.award} on account/fund/{input.from}"] ]

[actions.look_purse]
actor  = { role = "payments.clerk" }
inputs = { award = "int", left = "money:USD" }
load   = [ ["r", "reservation/purse/{input.award} on account/purse/a"] ]
require = [ { code = "LEFT", that = "r.left == input.left", say = "another amount" } ]
"""
DAY_MS = 86_400_000


def make(text: str = GRANTS + LOOK) -> World:
    funds = {"main": 1000, "a": 0, "b": 0}
    genesis = make_genesis((CHARTER, IDENTITY, BENEFITS, PERMITTED, text))
    accounts = [OpeningBalance("fund", (name,), amount) for name, amount in funds.items()]
    return World(replace(genesis, accounts=(*genesis.accounts, *accounts)))


def look(world: World, *inputs: Value) -> Decision:
    return world.do("clerk", "grants.look", *inputs)


def test_state_and_amounts_are_those_of_the_moment() -> None:
    world = make()
    ok(world, "commit", 1, 100, world.now_ms + DAY_MS)
    ok(world, "look", 1, "reserved", 100, 0)
    ok(world, "pay_instalment", 1, 30)
    ok(world, "look", 1, "reserved", 70, 30)
    world.now_ms += DAY_MS
    ok(world, "look", 1, "expired", 0, 30)
    ok(world, "withdraw", 1)
    ok(world, "look", 1, "voided", 0, 30)
    ok(world, "commit", 2, 100, None)
    ok(world, "pay_part", 2, 60)
    ok(world, "look", 2, "posted", 0, 60)
    assert refused(look(world, 2, "posted", 1, 60)) == (
        Code.REQUIREMENT,
        ["LEFT", "another amount is left"],
    )


def test_it_expires_at_its_moment_and_not_before() -> None:
    world = make()
    until = world.now_ms + DAY_MS
    ok(world, "commit", 1, 100, until)
    ok(world, "look_when", 1, until)
    world.now_ms = until - 1001  # the next block is a millisecond before
    ok(world, "look", 1, "reserved", 100, 0)
    world.now_ms = until - 1000
    ok(world, "look", 1, "expired", 0, 0)


def test_what_never_ends_has_no_end() -> None:
    world = make()
    ok(world, "commit", 1, 100, None)
    assert refused(world.do("clerk", "grants.look_when", 1, 5))[0] == Code.REQUIREMENT


def test_one_that_is_not_there_is_not_found_unless_it_may_be_absent() -> None:
    world = make()
    assert refused(look(world, 9, "reserved", 0, 0)) == (
        Code.NOT_FOUND,
        ["r", ["reservation", ["grants", 9]]],
    )
    ok(world, "withdraw_if", 9)
    assert world.balance("fund", "none") == 0


def test_conditions_of_effects_read_it() -> None:
    world = make()
    ok(world, "commit", 1, 100, None)
    ok(world, "commit", 2, 49, None)
    ok(world, "withdraw_if", 1)
    ok(world, "withdraw_if", 2)
    ok(world, "look", 1, "voided", 0, 0)
    ok(world, "look", 2, "reserved", 49, 0)


def test_one_on_another_account_is_refused() -> None:
    world = make()
    ok(world, "commit", 1, 100, None)
    other = ["OTHER_ACCOUNT", "the reservation is on another account"]
    assert refused(world.do("clerk", "grants.look_from", 1, "b")) == (Code.REQUIREMENT, other)
    assert world.do("clerk", "grants.look_from", 1, "main").code == Code.APPLIED


def test_one_on_an_account_of_others_is_read_where_they_permit_to_reserve() -> None:
    world = make()
    ok(world, "borrow", 1, 70)
    ok(world, "look_purse", 1, 70)


def test_later_calls_see_what_earlier_ones_did() -> None:
    world = make()
    both = world.draft(
        "clerk", ("grants.commit", 1, 40, None), ("grants.look", 1, "reserved", 40, 0)
    )
    assert world.one(both).code == Code.APPLIED


def test_whoever_has_no_power_does_not_learn_whether_it_is_there() -> None:
    world = make()
    ok(world, "commit", 1, 100, None)
    for award in (1, 9):
        found = world.do("officer", "grants.look", award, "reserved", 100, 0)
        assert found.code == Code.NOT_AUTHORIZED


def test_decision_names_what_was_read_and_is_judged_again_from_that_alone() -> None:
    world = make()
    ok(world, "commit", 1, 100, world.now_ms + DAY_MS)
    drafts = [
        world.draft("clerk", ("grants.look", 1, "reserved", 100, 0)),
        world.draft("clerk", ("grants.look", 9, "reserved", 100, 0)),
        world.draft("clerk", ("grants.withdraw_if", 8)),
    ]
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    recorded = Recorded(world.state)
    first = BlockRun(world.ledger, recorded, context, drafts).finish()
    again = BlockRun(world.ledger, Witness(recorded.asked), context, drafts).finish()
    assert (again.results_root, again.writes) == (first.results_root, first.writes)
    for decision, award in zip(first.decisions, (1, 9, 8), strict=True):
        pairs = decision.value("reads")[0]  # type: ignore[index]
        named = {pairs[at : at + 32] for at in range(0, len(pairs), 64)}
        assert world.ledger.paths("reservation", ["grants", award]) in named


def test_trial_names_the_account_whose_readers_count() -> None:
    world = make()
    ok(world, "commit", 1, 100, None)
    draft = world.draft("clerk", ("grants.look", 1, "reserved", 1, 0))
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    run = DryRun(world.ledger, world.state, context, draft)
    assert [each.code for each in run.findings] == [Code.REQUIREMENT]
    assert run.places == [("account", ["fund", "main"])]


# --- what rules may say -----------------------------------------------------------------------

OTHERS = [load_toml(each) for each in (CHARTER, IDENTITY, BENEFITS, PERMITTED)]


def problem(load: str, that: str = "true") -> str:
    """The first problem of an action that loads ``r``, with what to do."""
    action = f"""
[actions.x]
actor  = {{ role = "payments.clerk" }}
inputs = {{ award = "int", name = "text", amount = "money:USD" }}
load   = [ ["r", "{load}"] ]
require = [ {{ code = "X", that = "{that}", say = "x" }} ]
"""
    found = [e for e in check_text(GRANTS + action, "g.toml", OTHERS) if isinstance(e, Problem)]
    return f"{found[0].message}; {found[0].hint}" if found else ""


def test_rules_that_load_one_compile() -> None:
    assert problem("reservation/{input.award} on account/fund/main", "r.left > 0") == ""
    assert problem("reservation/a/{input.name} on account/other", "r.ends > now") == ""


@pytest.mark.parametrize(
    ("load", "that", "said"),
    [
        ("reservation/{input.award}", "true", "does not name the account"),
        ("reservation/{input.award} on ", "true", "no load of a reservation"),
        ("reservation/ on account/fund/main", "true", "no load of a reservation"),
        ("reservation/{input.award} on fund/main", "true", "is not an account"),
        ("reservation/{input.award} on account/find/main", "true", "no account family 'find'"),
        ("reservation/{input.award} on account/payee/a", "true", "reserves nothing of payee"),
        ("reservation/{input.what} on account/fund/a", "true", "there is no input what"),
        ("reservation/a{input.name} on account/fund/a", "true", "neither {path} nor plain text"),
        ("reservation/a on account/fund/main", "r.balance > 0", "a reservation has no balance"),
        ("reservation/a on account/fund/main", "r.left > 'x'", ""),
        ("reservation/a on account/other", "r.left > input.amount", ""),
        ("reservation/a on account/fund/main", "r == 1", "is not a value"),
    ],
)
def test_bad_loads_say_why(load: str, that: str, said: str) -> None:
    found = problem(load, that)
    assert found
    assert said in found


def test_fields_of_a_reservation_are_no_fields_of_a_record() -> None:
    text = GRANTS + LOOK.replace(
        'load   = [ ["r", "reservation/{input.award} on account/fund/main"] ]\nrequire = [ { code = "ENDS"',
        'load   = [ ["r", "reservation/{input.award} on account/fund/main"] ]\ndepends = ["r.ends"]\nrequire = [ { code = "ENDS"',
    )
    assert text != GRANTS + LOOK
    with pytest.raises(RulesError, match="not a field of a loaded record"):
        compile_rulebook([*OTHERS, load_toml(text)])


def test_grants_do_not_name_them() -> None:
    book = compile_rulebook([*OTHERS, load_toml(GRANTS + LOOK)])
    action = book.action("grants", "look")
    assert action is not None
    with pytest.raises(RulesError, match="nothing that a grant may name"):
        compile_condition(action, "r.left > 0")


def test_the_rules_in_words_name_it() -> None:
    book = compile_rulebook([*OTHERS, load_toml(GRANTS + LOOK)])
    shown = next(each for each in describe(book) if each.domain == "grants")
    (found,) = [each for each in shown.actions if each.name == "withdraw_if"]
    assert found.reads == ("r? = reservation/{input.award} on account/fund/main",)


def test_action_is_another_where_the_account_is_another() -> None:
    one = compile_rulebook([*OTHERS, load_toml(GRANTS + LOOK)]).action("grants", "look")
    text = LOOK.replace("on account/fund/main", "on account/other", 1).replace(
        "money:USD", "money:EUR", 2
    )
    other = compile_rulebook([*OTHERS, load_toml(GRANTS + text)]).action("grants", "look")
    assert one is not None
    assert other is not None
    assert one.action_id != other.action_id
