"""Names without a value and what may be absent: each is refused with its reason, or passed over.

Whatever a block decides, a dry run of the same draft says first, and nothing where it applies.
"""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from consensus import codec
from consensus.codec import Value
from consensus.genesis import OpeningBalance, RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.dry import DryRun, Finding
from consensus.ledger.executor import BlockContext
from consensus.ledger.ledger import of_genesis
from consensus.ledger.readers import Row, account_row, record_row
from consensus.ledger.transaction import Draft, Transaction
from consensus.ledger.types import TEXT_BYTES_MAX
from consensus.state.record import decode_row, encode_row, update
from consensus.state.state import Row as Stored
from tests.consensus.ledger.test_language import digest
from tests.consensus.ledger.world import (
    CHARTER,
    DEFAULT,
    IDENTITY,
    TEXTS,
    World,
    make_genesis,
    person,
    token,
)

ODD = """\
domain = "odd"
number = 1
legal_basis = "Odd Act"
uses = { identity = ["person.status"] }

[params]
rate = { by = "period", type = "int", values = [ { from = "2026-01", value = 7 } ] }

[accounts.box]
currency = "USD"

[kinds.thing]
fields.name  = { type = "text", open = true }
fields.count = { type = "int", optional = true }

[actions.make]
actor  = { role = "odd.clerk" }
inputs = { id = "text?", name = "text" }
create = [ { kind = "thing", id = ["{input.id}"], set = { name = "input.name" } } ]

[actions.bump]
actor  = { role = "odd.clerk" }
inputs = { thing = "ref:thing", count = "int" }
load   = [ ["thing", "thing/{input.thing}"] ]
set    = [ { record = "thing", fields = { count = "thing.count + input.count" } } ]

[actions.make_long]
actor  = { role = "odd.clerk" }
inputs = { of = "digest" }
create = [ { kind = "thing", id = ["{input.of}", "LONG"], set = { name = "'a'" } } ]

[actions.twice]
actor   = { role = "odd.clerk" }
require = [ { code = "NO", that = "1 == 2", say = "no" }, { code = "NO", that = "now < 5", say = "no" } ]

[actions.copy]
actor  = { role = "odd.clerk" }
inputs = { thing = "ref:thing", name = "text" }
load   = [ ["thing", "thing/{input.thing}"] ]
create = [ { kind = "thing", id = ["{input.name}"], set = { name = "thing.name" } } ]

[actions.claim]
actor  = { role = "odd.clerk" }
inputs = { id = "text?" }
unique = [["claim", "{input.id}"]]

[actions.needs]
actor  = { role = "odd.clerk" }
inputs = { id = "text?" }
load   = [ ["thing", "thing/{input.id}"] ]

[actions.may_need]
actor   = { role = "odd.clerk" }
inputs  = { id = "text?" }
load    = [ ["thing?", "thing/{input.id}"] ]
fresh   = ["thing"]
depends = ["thing.name"]
let     = [ ["there", "has(thing)"] ]
require = [ { code = "THERE", that = "there || !has(input.id) || input.id != 'must'", say = "it must be there" } ]

[actions.rests]
actor  = { role = "odd.clerk" }
inputs = { id = "text?", name = "text" }
load   = [ ["thing?", "thing/{input.id}"] ]
create = [ { kind = "thing", id = ["{input.name}"], set = { name = "input.name" }, basis = ["thing.name"] } ]

[actions.set_aside]
actor   = { role = "odd.clerk" }
inputs  = { id = "text?", amount = "money:USD" }
reserve = [ { id = ["{input.id}"], from = "account/box", amount = "input.amount" } ]

[actions.look]
actor   = { role = "odd.clerk" }
inputs  = { id = "text", box = "text?" }
load    = [ ["r", "reservation/{input.id} on account/box/{input.box}"] ]

[actions.monthly]
actor   = { role = "odd.clerk" }
inputs  = { month = "month", rate = "int" }
period  = "input.month"
require = [ { code = "RATE", that = "params.rate == input.rate", say = "another rate" } ]

[actions.divide]
actor   = { role = "odd.clerk" }
inputs  = { by = "int" }
require = [ { code = "PART", that = "100 / input.by > 1", say = "too small" } ]

[actions.person_to]
actor   = { role = "odd.clerk" }
inputs  = { person = "ref:person", name = "text" }
load    = [ ["person", "person/{input.person}"] ]
create  = [ { kind = "thing", id = ["{input.name}"], set = { name = "input.name" }, basis = ["person.status"] } ]
"""
LONG = "x" * 1000
ODD = ODD.replace('"LONG"', f'"{"x" * 300}"')


class Odd(World):
    """A network on which every act is tried out first."""

    def __init__(self) -> None:
        genesis = make_genesis((CHARTER, IDENTITY, *TEXTS[2:], ODD))
        roles = (
            *DEFAULT.roles,
            *(RoleGiven(token(n), "odd.clerk") for n in ("clerk", "registrar")),
        )
        accounts = (*genesis.accounts, OpeningBalance("box", (), 1000))
        super().__init__(replace(genesis, roles=roles, accounts=accounts))
        self.dry = of_genesis(self.genesis)
        self.walked = 0

    def one(self, transaction: Transaction) -> Decision:
        context = BlockContext(1, self.height + 1, self.now_ms + 1000, history=self.history.root)
        tried = DryRun(self.dry, self.state, context, transaction)
        decision = super().one(transaction)
        outcome = Finding(decision.code, decision.call, decision.detail)
        assert tried.outcome.root == decision.root
        if decision.code == Code.APPLIED:
            assert (tried.findings, tried.complete) == ([], True)
        else:
            assert tried.findings[0] == outcome
        self.walked = len(tried.findings)
        return decision

    def act(self, name: str, *inputs: Value, **more: Any) -> tuple[Code, Value]:
        decision = self.do("clerk", f"odd.{name}", *inputs, **more)
        return decision.code, decision.detail


@pytest.fixture
def odd() -> Odd:
    return Odd()


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize("id_", [None, LONG], ids=["none", "too long"])
def test_what_nothing_names_is_not_made_loaded_or_reserved(odd: Odd, id_: Value) -> None:
    code, detail = odd.act("make", id_, "a")
    assert (code, detail[0]) == (Code.REQUIREMENT, "NO_VALUE")
    code, detail = odd.act("claim", id_)
    assert (code, detail[0]) == (Code.REQUIREMENT, "NO_VALUE")
    assert odd.act("needs", id_) == (Code.NOT_FOUND, ["thing", None])
    code, detail = odd.act("set_aside", id_, 5)
    assert (code, detail[0]) == (Code.REQUIREMENT, "NO_VALUE")
    assert odd.act("may_need", id_) == (Code.APPLIED, None)
    code, detail = odd.act("rests", id_, "b", expects=[("thing", ["b"], 0)])
    assert (code, detail[0], "thing.name" in detail[1]) == (Code.REQUIREMENT, "NO_VALUE", True)


def test_a_reservation_on_an_account_that_nothing_names_is_not_found(odd: Odd) -> None:
    assert odd.act("set_aside", "r", 5) == (Code.APPLIED, None)
    assert odd.act("look", "r", None) == (Code.NOT_FOUND, ["r", None])
    assert odd.act("look", "r", LONG) == (Code.NOT_FOUND, ["r", None])
    assert odd.act("look", "r", "b")[0] == Code.REQUIREMENT


def test_a_name_that_is_too_long_whatever_the_inputs_names_nothing(odd: Odd) -> None:
    code, detail = odd.act("make_long", b"d" * 32)
    assert (code, detail[0]) == (Code.REQUIREMENT, "NO_VALUE")


def test_what_fails_twice_in_the_same_words_is_told_once(odd: Odd) -> None:
    assert odd.act("twice") == (Code.REQUIREMENT, ["NO", "no"])
    assert odd.walked == 1


def test_what_a_record_must_have_and_lacks_is_not_written_elsewhere(odd: Odd) -> None:
    """No act leaves a record so; of a state that says it all the same no copy is made."""
    assert odd.act("make", "a", "name", expects=[("thing", ["a"], 0)]) == (Code.APPLIED, None)
    kh = odd.ledger.paths("record", ["thing", "a"])
    row = odd.state.get(kh)
    assert row is not None
    bare, vh = update(decode_row(row.value), kh, {"name": codec.encode(None)}, [bytes(16)], 2)
    odd.state.write([(kh, Stored(vh, row.changed_height, encode_row(bare)))])
    refused = odd.act("copy", ["a"], "b", expects=[("thing", ["b"], 0)])
    assert refused == (Code.REQUIREMENT, ["NO_VALUE", "thing.name has no value"])


# --- what may be absent -------------------------------------------------------------------------


def test_what_may_be_absent_is_named_as_that(odd: Odd) -> None:
    absent = [("thing", ["a"], 0)]
    assert odd.act("may_need", "a")[0] == Code.STALE
    assert odd.act("may_need", "a", expects=absent) == (Code.APPLIED, None)
    must = [("thing", ["must"], 0)]
    assert odd.act("may_need", "must", expects=must)[1] == ["THERE", "it must be there"]
    assert odd.act("make", "a", "name", expects=absent) == (Code.APPLIED, None)
    assert odd.act("may_need", "a", expects=absent)[0] == Code.STALE
    assert odd.act("may_need", "a", expects=[("thing", ["a"], 1)]) == (Code.APPLIED, None)


def test_a_condition_or_a_value_without_a_value_is_not_met(odd: Odd) -> None:
    assert odd.act("divide", 0) == (Code.REQUIREMENT, ["PART", "too small"])
    assert odd.act("divide", 200) == (Code.REQUIREMENT, ["PART", "too small"])
    assert odd.act("divide", 2) == (Code.APPLIED, None)
    odd.act("make", "a", "name", expects=[("thing", ["a"], 0)])
    code, detail = odd.act("bump", ["a"], 1, expects=[("thing", ["a"], 1)])
    assert (code, detail[0]) == (Code.REQUIREMENT, "NO_VALUE")


def test_the_parameters_of_a_period_are_tried_out_as_they_are_decided(odd: Odd) -> None:
    action = odd.ledger.rules(odd.state, odd.now_ms).book.action("odd", "monthly")
    assert action is not None
    month = 2026 * 12
    for rate, code in ((7, Code.APPLIED), (8, Code.REQUIREMENT)):
        call = Draft("odd", "monthly", action.action_id, [month, rate], digest(rate=7), False)
        assert odd.one(odd.draft("clerk", call)).code == code
    call = Draft("odd", "monthly", action.action_id, [month, 7], bytes(32), False)
    assert odd.one(odd.draft("clerk", call)).code == Code.RULES_MOVED


# --- the transaction ----------------------------------------------------------------------------


def test_an_unknown_action_keeps_the_others_from_being_judged_whole(odd: Odd) -> None:
    known = odd.call("odd.divide", 0)
    unknown = Draft("odd", "nothing", bytes(32), [], bytes(32), False)
    decision = odd.one(odd.draft("clerk", unknown, known))
    assert (decision.code, decision.call) == (Code.UNKNOWN_ACTION, 0)
    assert odd.walked == 2


def test_a_draft_that_is_late_and_of_a_suspended_author_is_told_both(odd: Odd) -> None:
    suspend = ("charter.suspend_principal", "treasury", token("clerk"))
    assert odd.do("admin", *suspend).code == Code.APPLIED
    late = odd.draft("clerk", ("odd.divide", 2), not_after_ms=odd.now_ms)
    assert odd.one(late).code == Code.EXPIRED
    assert odd.walked == 2
    assert odd.do("clerk", "odd.divide", 2).code == Code.SUSPENDED
    assert odd.walked == 1


def test_a_fault_of_two_calls_is_told_once_for_each(odd: Odd) -> None:
    twice = [odd.call("odd.divide", 0), odd.call("odd.divide", 0)]
    assert odd.one(odd.draft("clerk", *twice)).call == 0
    assert odd.walked == 2


def test_what_one_call_makes_another_of_the_same_transaction_rests_on(odd: Odd) -> None:
    """At the version that it will have: 1 if it is made, one more if it is changed."""
    both = odd.draft(
        "registrar",
        ("identity.register", token("eve"), "Eve", "north"),
        ("odd.person_to", person("eve"), "one"),
        expects=[("person", person("eve"), 0), ("thing", ["one"], 0)],
    )
    decision = odd.one(both)
    assert decision.code == Code.APPLIED, decision.detail
    assert odd.record("thing", ["one"]).fields["basis"] == [
        [["person", person("eve")], "status", 1]
    ]
    changed = odd.draft(
        "registrar",
        ("identity.go_abroad", person("eve")),
        ("odd.person_to", person("eve"), "two"),
        expects=[("person", person("eve"), 1), ("thing", ["two"], 0)],
    )
    assert odd.one(changed).code == Code.APPLIED
    assert odd.record("thing", ["two"]).fields["basis"] == [
        [["person", person("eve")], "status", 2]
    ]
    renamed = odd.draft(
        "registrar",
        ("identity.rename", person("eve"), "Eva"),
        ("odd.person_to", person("eve"), "three"),
        expects=[("person", person("eve"), 2), ("thing", ["three"], 0)],
    )
    assert odd.one(renamed).code == Code.APPLIED
    assert odd.record("thing", ["three"]).fields["basis"] == [
        [["person", person("eve")], "status", 2]
    ]


def test_an_account_is_read_by_the_transaction_that_opens_it(odd: Odd) -> None:
    both = odd.draft("clerk", ("payments.open_purse", "new"), ("payments.check_purse", "new", 0))
    decision = odd.one(both)
    assert decision.code == Code.APPLIED
    kh = odd.ledger.paths("account", ["purse", "new"])
    assert kh + bytes(32) in codec.parse(decision.leaves["reads"])[0]
    other = odd.draft(
        "clerk", ("payments.open_purse", "newer"), ("payments.check_purse", "newer", 1)
    )
    assert odd.one(other).detail[0] == "BALANCE"


# --- rows for those who read --------------------------------------------------------------------


def test_a_row_has_its_id_and_what_was_asked_for() -> None:
    kind = World().ledger.rules(World().state, World().now_ms).book.kinds["person"]
    row = record_row(kind, ["person", token("ann")], None)
    assert (row["id"], row["name"]) == ([token("ann")], None)
    assert (sorted(row), len(row)) == (["id", "name"], 2)
    fund = account_row(["purse", "a"], None)
    assert (fund["id"], fund["balance"]) == (["a"], None)
    assert Row([1], None, None).set({"x": 2})["x"] == 2


def test_a_value_out_of_the_range_of_its_field_is_refused() -> None:
    """No expression gives one; should one do so, it is not stored."""
    odd = Odd()
    book = odd.ledger.rules(odd.state, odd.now_ms).book
    action = book.action("odd", "make")
    assert action is not None
    [create] = action.effects
    [(name, expression)] = create.assignments  # type: ignore[union-attr]
    long = replace(expression, evaluate=lambda env: "x" * (TEXT_BYTES_MAX + 1))
    object.__setattr__(create, "assignments", ((name, long),))
    try:
        decision = World.one(
            odd, odd.draft("clerk", ("odd.make", "a", "b"), expects=[("thing", ["a"], 0)])
        )
    finally:
        object.__setattr__(create, "assignments", ((name, expression),))
    said = f"name: {TEXT_BYTES_MAX + 1} bytes of text, at most {TEXT_BYTES_MAX}"
    assert (decision.code, decision.detail) == (Code.REQUIREMENT, ["OUT_OF_RANGE", said])
