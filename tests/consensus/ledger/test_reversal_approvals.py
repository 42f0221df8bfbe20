"""Who must approve taking an act back: fixed when it takes place, judged when it is taken back."""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pycddl
import pytest

from consensus import codec
from consensus.codec import Value
from consensus.errors import RulesError
from consensus.genesis import Genesis, OpeningBalance, Principal, RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.fixed_policies import policy_of
from consensus.ledger.rules import compile_rulebook, decode_definition, encode_definition, load_toml
from consensus.ledger.rules.policies import in_words
from consensus.ledger.terms import SHAPE
from consensus.ledger.transaction import PROPOSE, Transaction
from tests.consensus.ledger.desk import DESK_CHARTER, Desk
from tests.consensus.ledger.reader import Witness
from tests.consensus.ledger.test_reservations import Recorded
from tests.consensus.ledger.world import (
    DEFAULT,
    IDENTITY,
    NORTH,
    make_genesis,
    person,
    public_key,
    register,
    token,
)

ROOT = Path(__file__).parents[3]
LOANS = """\
domain = "loans"
number = 1
legal_basis = "Loans Act"
uses = { identity = ["person.name"] }

[params]
large = { by = "now", type = "int", values = [ { from = "2026-01", value = 100 } ] }

[accounts.fund]
currency = "USD"

[accounts.wallet]
currency = "USD"

[kinds.loan]
fields.holder = { type = "ref", kind = "person" }
fields.region = { type = "text", open = true }
fields.amount = { type = "int" }
status = { start = "open", steps = { open = ["paid"], paid = [] } }

[actions.lend]
actor  = { role = "loans.clerk" }
inputs = { name = "text", holder = "ref:person", region = "text", amount = "int" }
create = [ { kind = "loan", id = ["{input.name}"], set = { holder = "input.holder", region = "input.region", amount = "input.amount" } } ]
reversible = { by = "loans.chief", within_days = 90, approvals = { self = "input.holder" } }

[actions.change]
actor  = { role = "loans.clerk" }
inputs = { loan = "ref:loan", amount = "int" }
load   = [ ["loan", "loan/{input.loan}"] ]
let    = [ ["sum", "loan.amount + input.amount"] ]
set    = [ { record = "loan", fields = { amount = "input.amount" } } ]

[actions.change.reversible]
by = "loans.chief"
within_days = 90
approvals = { all = [ { role = "loans.auditor", where = "who.scope.region == loan.region", not = ["loan.by.created"], distinct = "agency" }, { role = "loans.board", count = 2, when = "sum > params.large" } ] }

[actions.note]
actor  = { role = "loans.clerk" }
inputs = { loan = "ref:loan", n = "int" }
load   = [ ["loan", "loan/{input.loan}"] ]
set    = [ { record = "loan", fields = { amount = "input.n" } } ]
reversible = { by = "loans.chief", within_days = 90, approvals = { any = [ { role = "loans.board", when = "10 / input.n > 4" }, { role = "loans.auditor", not_agency = ["author", "loan.region"], when = "input.n > 7" } ] } }

[actions.pay]
actor  = { role = "loans.clerk" }
inputs = { amount = "money:USD" }
move   = [ { from = "account/fund", to = "account/wallet", amount = "input.amount" } ]
reversible = { by = "loans.chief", within_days = 90, approvals = { role = "loans.board", author = true } }
"""
REVERSE = """
[actions.reverse]
kernel = true
actor  = { self = "who.principal" }
"""
PEOPLE = {
    # name: agency, kind, person, region, roles
    "chief": ("treasury", 0, "chief", "north", ("loans.chief",)),
    "boss": ("services", 0, "boss", "north", ("loans.chief", "loans.board")),
    "aud_n": ("audit", 0, "aud_n", "north", ("loans.auditor",)),
    "aud_s": ("audit", 0, "aud_s", "south", ("loans.auditor",)),
    "aud_t": ("treasury", 0, "aud_t", "north", ("loans.auditor",)),
    "maker": ("registry", 0, "maker", "north", ("loans.clerk", "loans.auditor")),
    "b1": ("audit", 0, "b1", "north", ("loans.board",)),
    "b2": ("registry", 0, "b2", "north", ("loans.board",)),
}


@cache
def genesis(reverse: str = REVERSE) -> Genesis:
    return make_genesis(
        (DESK_CHARTER + reverse, IDENTITY, LOANS),
        principals=(
            *DEFAULT.principals,
            *(Principal(token(n), a, k, token(p)) for n, (a, k, p, _, _) in PEOPLE.items()),
        ),
        keys=(*DEFAULT.keys, *((public_key(n), token(n)) for n in PEOPLE)),
        roles=(
            *DEFAULT.roles,
            RoleGiven(token("clerk"), "loans.clerk", NORTH),
            *(
                RoleGiven(token(n), role, (("region", region),))
                for n, (_, _, _, region, roles) in PEOPLE.items()
                for role in roles
            ),
        ),
        accounts=(OpeningBalance("fund", (), 1000), OpeningBalance("wallet", (), 0)),
    )


class Loans(Desk):
    """A network with a loan of Ann's in the north, of 10, which ``maker`` made."""

    def __init__(self, reverse: str = REVERSE) -> None:
        super(Desk, self).__init__(genesis(reverse))
        register(self, "ann")
        self.lent = self.do(
            "maker", "loans.lend", "l", person("ann"), "north", 10, expects=[("loan", ["l"], 0)]
        )
        assert self.lent.code == Code.APPLIED

    def changed(self, amount: int, action: str = "change") -> Decision:
        """Change the loan and return the decision."""
        version = self.record("loan", ["l"]).version
        made = self.do(
            "clerk", f"loans.{action}", ["l"], amount, expects=[("loan", ["l"], version)]
        )
        assert made.code == Code.APPLIED, made.detail
        return made

    def reversal(
        self, decision: Decision, *cosigners: str, author: str = "chief", **more: Any
    ) -> Transaction:
        """Return the transaction that takes a decision's back."""
        call = ("charter.reverse", decision.header.txid, self.evidence(decision).encode())
        return self.draft(author, call, cosigners=cosigners, **more)

    def back(self, decision: Decision, *cosigners: str, author: str = "chief") -> tuple[Code, Any]:
        """Return what taking a decision's transaction back comes to."""
        made = self.one(self.reversal(decision, *cosigners, author=author))
        return made.code, made.detail


def terms(decision: Decision) -> Any:
    """Return what the terms say of approvals."""
    (row,) = decision.value("reversible")  # type: ignore[misc]
    return row[9] if len(row) == 10 else None  # type: ignore[arg-type, index]


APPLIED = (Code.APPLIED, None)
AUDITOR = [0, "loans.auditor", 1, [
    ["distinct", "agency"],
    ["not", [["loan.by.created", token("maker")]]],
    ["where", [["scope.region", "loan.region", "north"]]],
]]  # fmt: skip


# --- fixed ----------------------------------------------------------------------------------------


def test_terms_name_what_the_act_knew() -> None:
    world = Loans()
    assert terms(world.lent) == [0, "", 1, [["self", ["input.holder", person("ann")]]]]
    assert terms(world.changed(20)) == [1, 0, "", [AUDITOR]]
    assert terms(world.changed(200)) == [1, 0, "", [AUDITOR, [0, "loans.board", 2, []]]]


def test_a_condition_without_a_value_leaves_an_approval_that_nobody_gives() -> None:
    world = Loans()
    noted = world.changed(0, "note")
    assert terms(noted) == [1, 1, "", [[2, "10 / input.n > 4"]]]
    missing = [["of", 1, [["when", "10 / input.n > 4"]]]]
    code, detail = world.back(noted, "b1")
    assert code == Code.NEEDS_APPROVAL
    assert detail in (missing, missing[0][2])  # type: ignore[comparison-overlap]


def test_of_parts_that_are_not_asked_for_too_few_are_left() -> None:
    world = Loans()
    noted = world.changed(5, "note")
    assert terms(noted) == [1, 1, "", []]
    assert world.back(noted, "b1", "aud_n") == (Code.NEEDS_APPROVAL, [["of", 1, []]])


def test_agencies_are_named_as_they_were() -> None:
    world = Loans()
    noted = world.changed(8, "note")
    assert terms(noted) == [1, 1, "", [
        [0, "loans.auditor", 1, [["not_agency", [["loan.region", "north"], ["author", None]]]]]
    ]]  # fmt: skip
    assert world.back(noted, "aud_t")[0] == Code.NEEDS_APPROVAL  # of the reversal's author's agency
    assert world.back(noted, "aud_n") == APPLIED


# --- judged ---------------------------------------------------------------------------------------


def test_whoever_has_the_role_needs_the_approvals_too() -> None:
    world = Loans()
    changed = world.changed(20)
    missing = ["role", "loans.auditor", 1, "agency"]
    code, detail = world.back(changed)
    assert (code, detail[0][:4]) == (Code.NEEDS_APPROVAL, missing)
    for who, why in (
        ("aud_s", ["where"]),
        ("aud_t", ["distinct", "agency"]),
        ("maker", ["not", "loan.by.created"]),
        ("b1", ["role", "loans.auditor", "missing"]),
    ):
        code, detail = world.back(changed, who)
        assert (code, detail[0]) == (Code.NEEDS_APPROVAL, [*missing, [[token(who), why]]]), who
    assert world.back(changed, "aud_n") == APPLIED
    assert world.record("loan", ["l"]).fields["amount"] == 10


def test_what_was_asked_for_counts_although_the_record_says_otherwise_now() -> None:
    """The sum was large; that it is small now, and in another place, changes nothing."""
    world = Loans()
    changed = world.changed(200)
    code, detail = world.back(changed, "aud_n")
    assert (code, [each[:3] for each in detail]) == (
        Code.NEEDS_APPROVAL,
        [["role", "loans.board", 2]],
    )
    assert world.back(changed, "aud_n", "b1", "b2") == APPLIED


def test_the_person_concerned_agrees() -> None:
    world = Loans()
    missing = ["self", "input.holder", []]
    assert world.back(world.lent) == (Code.NEEDS_APPROVAL, [missing])
    assert world.back(world.lent, "aud_n")[0] == Code.NEEDS_APPROVAL
    assert world.back(world.lent, "ann's") == APPLIED


def test_the_author_of_the_reversal_counts_only_where_the_leaf_says_so() -> None:
    world = Loans()
    paid = world.do("clerk", "loans.pay", 5)
    assert terms(paid) == [0, "loans.board", 1, [["author", True]]]
    assert world.back(paid)[0] == Code.NEEDS_APPROVAL
    assert world.back(paid, author="boss") == APPLIED
    assert world.balance("fund") == 1000


def test_the_policy_of_the_charter_and_that_of_the_terms_are_both_met() -> None:
    world = Loans(REVERSE + 'approvals = { role = "loans.board" }\n')
    changed = world.changed(20)
    for some in (("aud_n",), ("b1",), ()):
        assert world.back(changed, *some)[0] == Code.NEEDS_APPROVAL
    decision = world.one(world.reversal(changed, "aud_n", "b1"))
    assert decision.code == Code.APPLIED
    filled = decision.value("authority")[3]  # type: ignore[index]
    assert [row[1] for row in filled] == [0, 1]
    assert [row[3][0] for row in filled] == ["loans.board", "loans.auditor"]


def test_each_policy_of_several_calls_is_met_and_equal_ones_once() -> None:
    world = Loans()
    calls = (("loans.pay", 5), ("loans.pay", 6), ("loans.change", ["l"], 20))
    made = world.one(world.draft("clerk", *calls, expects=[("loan", ["l"], 1)]))
    assert made.code == Code.APPLIED
    assert world.back(made, "b1")[0] == Code.NEEDS_APPROVAL
    assert world.back(made, "aud_n")[0] == Code.NEEDS_APPROVAL
    assert world.back(made, "aud_n", "b1") == APPLIED


def test_taking_a_reversal_back_needs_the_same() -> None:
    world = Loans()
    changed = world.changed(20)
    back = world.one(world.reversal(changed, "aud_n"))
    assert terms(back) == terms(changed)
    assert world.back(back)[0] == Code.NEEDS_APPROVAL
    assert world.back(back, "aud_n") == APPLIED
    assert world.record("loan", ["l"]).fields["amount"] == 20


def test_what_comes_before_approvals_is_said_first() -> None:
    world = Loans()
    changed = world.changed(20)
    assert world.back(changed, author="b1")[0] == Code.NOT_AUTHORIZED
    world.changed(30)
    assert world.back(changed)[0] == Code.STALE
    done = world.do("clerk", "loans.pay", 5)
    assert world.back(done, "b1") == APPLIED
    assert world.back(done)[1][0] == "REVERSED"


# --- stored ---------------------------------------------------------------------------------------


def lacking(world: Loans, who: str, txid: bytes) -> list[Value]:
    context = BlockContext(1, world.height + 1, world.now_ms + 1000, history=world.history.root)
    run = BlockRun(world.ledger, world.state, context, ())
    return run.proposing.lacking(world.proposal(txid), public_key(who))


def stored(world: Loans, decision: Decision) -> Transaction:
    """Return a stored reversal."""
    proposed = world.reversal(decision, mode=PROPOSE, not_after_ms=world.now_ms + 1_000_000)
    result = world.run(proposed)
    assert [each.code for each in result.decisions] == [Code.PROPOSED]
    return proposed


def test_a_reversal_waits_as_a_proposal_for_those_whom_the_terms_name() -> None:
    world = Loans()
    proposed = stored(world, world.changed(200))
    refused = world.one(world.act("aud_s", "approve", proposed))
    assert (refused.code, refused.detail) == (
        Code.NOT_AUTHORIZED,
        [["where"], ["role", "loans.board", "missing"]],
    )
    assert lacking(world, "aud_s", proposed.txid) == refused.detail
    assert lacking(world, "b1", proposed.txid) == []
    for who in ("b1", "aud_n"):
        assert [each.code for each in world.approve(who, proposed).decisions] == [Code.APPLIED]
    assert lacking(world, "b1", proposed.txid) == [["twice"]]
    done = world.approve("b2", proposed).decisions
    assert [each.code for each in done] == [Code.APPLIED, Code.APPLIED]
    assert world.record("loan", ["l"]).fields["amount"] == 10
    assert len(done[1].value("authority")[3]) == 3  # type: ignore[arg-type, index]


def test_those_whom_the_terms_name_may_object() -> None:
    world = Loans()
    proposed = stored(world, world.lent)
    assert world.one(world.act("aud_n", "object", proposed, "no")).code == Code.NOT_AUTHORIZED
    assert world.one(world.act("ann's", "object", proposed, "no")).code == Code.APPLIED
    assert world.word(proposed) == "objected"


def test_reversals_wait_for_holders_of_roles_that_terms_in_force_name() -> None:
    world = Loans()
    context = BlockContext(1, world.height + 1, world.now_ms + 1000)
    proposing = BlockRun(world.ledger, world.state, context, ()).proposing
    for who, asked in (("b1", True), ("aud_n", True), ("ann's", True), ("chief", True)):
        assert ("charter.reverse" in proposing.asked_of(public_key(who))) is asked
    plain = Desk()
    run = BlockRun(plain.ledger, plain.state, BlockContext(1, 1, plain.now_ms), ()).proposing
    assert "charter.reverse" not in run.asked_of(public_key("officer"))


def test_what_was_read_suffices_to_execute_again() -> None:
    world = Loans()
    changed = world.changed(20)
    for cosigners in ((), ("aud_n",)):
        draft = world.reversal(changed, *cosigners)
        context = BlockContext(1, world.height + 1, world.now_ms + 1000, history=world.history.root)
        recorded = Recorded(world.state)
        first = BlockRun(world.ledger, recorded, context, [draft]).finish()
        again = BlockRun(world.ledger, Witness(recorded.asked), context, [draft]).finish()
        assert first.results_root == again.results_root


# --- written --------------------------------------------------------------------------------------


def test_what_is_written_fits_the_grammar_and_the_shape() -> None:
    grammar = (ROOT / "docs/protocol/ledger.cddl").read_text(encoding="utf-8")
    schema = pycddl.Schema(f"start = reversible-leaf\n{grammar}")
    world = Loans()
    acts = [world.lent, world.changed(200), world.do("clerk", "loans.pay", 5)]
    acts += [world.changed(n, "note") for n in (0, 5, 8)]
    for decision in acts:
        data = decision.leaves["reversible"]
        schema.validate_cbor(data)
        assert SHAPE(codec.parse(data), "terms") == len(data)
    rules = pycddl.Schema((ROOT / "docs/protocol/rules.cddl").read_text(encoding="utf-8"))
    definition = load_toml(LOANS)
    rules.validate_cbor(encode_definition(definition))
    assert decode_definition(encode_definition(definition)) == definition


@pytest.mark.parametrize(
    "value",
    [
        [], [3, "x"], [0, "a.b", 0, []], [0, "a.b", 65, []], [0, "a.b", 1], [2, ""], [1, 9, "", []],
        [0, "a.b", 1, [["self", 1]]], [0, "a.b", 1, [["other", True]]], [0, "a.b", 1, [[1, True]]],
        [0, "a.b", 1, [["not", []]]], [1, 0, "", [[1, 0, "", [[1, 0, "", []]]]]],
        [1, 0, "", [[2, "x"]] * 9],
    ],
    ids=repr,
)  # fmt: skip
def test_approvals_of_another_shape_are_no_terms(value: Value) -> None:
    row: list[Value] = ["loans", "pay", "loans.chief", 90, None, False, 1, [], None]
    SHAPE([row], "terms")
    SHAPE([[*row, [2, "x"]]], "terms")
    with pytest.raises(Exception, match="terms"):
        SHAPE([[*row, value]], "terms")


def test_fixed_policies_are_said_in_words() -> None:
    world = Loans()
    said = in_words(policy_of(terms(world.changed(200))))
    assert said == (
        "all of (role loans.auditor where who.scope.region == loan.region, not loan.by.created, "
        "different agencies; 2 with role loans.board)"
    )


def fault(approvals: str) -> str:
    """Return what is said of a reversal's approvals."""
    text = LOANS.replace('approvals = { self = "input.holder" } }', f"approvals = {approvals} }}")
    assert text != LOANS
    with pytest.raises(RulesError) as caught:
        compile_rulebook([load_toml(IDENTITY), load_toml(text)])
    assert caught.value.line == text[: text.index("approvals = ")].count("\n") + 1
    return caught.value.message


@pytest.mark.parametrize(
    ("approvals", "said"),
    [
        ("{}", "a policy says who approves"),
        ('{ role = "board" }', "not a role"),
        ('{ role = "loans.board", where = "who.scope.region != input.region" }', "cannot be"),
        ('{ role = "loans.board", where = "who.agency == \'audit\' || true" }', "cannot be"),
        ('{ role = "loans.board", where = "input.amount > 3" }', "cannot be"),
        ('{ role = "loans.board", where = "now == 3" }', "cannot be"),
        ('{ role = "loans.board", where = "who.agency == who.scope.agency" }', "cannot be"),
        ('{ self = "input.region" }', "expected ref or token or digest"),
        ('{ role = "loans.board", when = "input.none" }', "input"),
        ('{ all = [' + '{ role = "loans.board" }, ' * 8 + '] }', "9 leaves and branches, at most 8"),
        ('{ all = [ { any = [ { all = [ { role = "loans.board" } ] } ] } ] }', "nested at most 3 deep"),
        ('{ role = "loans.board", not = [' + '"input.holder", ' * 5 + '], where = "' + " && ".join(["who.scope.region == input.region"] * 4) + '" }', "name 9 things, at most 8"),
    ],
)  # fmt: skip
def test_faults_of_a_reversal_s_approvals(approvals: str, said: str) -> None:
    assert said in fault(approvals)


def test_literals_and_both_orders_are_understood() -> None:
    text = LOANS.replace(
        '{ self = "input.holder" }',
        '{ role = "loans.board", where = "\'audit\' == who.agency && input.region == who.scope.region" }',
    )
    world = Loans.__new__(Loans)
    founded = make_genesis(
        (DESK_CHARTER + REVERSE, IDENTITY, text),
        principals=genesis().principals,
        keys=genesis().keys,
        roles=genesis().roles,
        accounts=(),
    )
    super(Desk, world).__init__(founded)
    register(world, "ann")
    lent = world.do(
        "maker", "loans.lend", "l", person("ann"), "north", 10, expects=[("loan", ["l"], 0)]
    )
    pins = [["agency", "audit", "audit"], ["scope.region", "input.region", "north"]]
    assert terms(lent) == [0, "loans.board", 1, [["where", pins]]]
    assert world.back(lent, "b2")[0] == Code.NEEDS_APPROVAL
    assert world.back(lent, "b1") == APPLIED
