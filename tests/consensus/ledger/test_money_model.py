"""Arbitrary programmes of amounts against the model: money is conserved, floors and promises hold.

Transactions of up to four calls, in blocks split at random, with time passing in between. After
each block every balance and every reserved sum is compared, the block is executed again from what
it read, and the sums of the decisions are added up.
"""

# ruff: noqa: E501  rule sets read best with one construct a line

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import cbor2
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consensus.codec import Value
from consensus.genesis import Genesis, OpeningBalance
from consensus.ledger.codes import Code
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.transaction import PROPOSE
from tests.consensus.ledger.governed import GOVERNED, NOTICE_MS, founding
from tests.consensus.ledger.money_model import (
    CLAIMS,
    FLOORS,
    LARGEST,
    Call,
    Fall,
    Model,
    Move,
    Post,
    Reserve,
    Swap,
    Void,
)
from tests.consensus.ledger.reader import read_account, value_hash
from tests.consensus.ledger.test_money import MONEY
from tests.consensus.ledger.test_reservations import Recorded, Witness
from tests.consensus.ledger.world import BENEFITS, IDENTITY, PAYMENTS, World

BANK = """\
domain = "bank"
number = 1
legal_basis = "Banking Act"

[kinds.claim]
fields.name = { type = "text", open = true }
fields.most = { type = "int" }
fields.all  = { type = "bool" }
fields.rank = { type = "int" }
index = ["all"]

[actions.claim]
actor  = { role = "payments.clerk" }
inputs = { name = "text", most = "int", rank = "int" }
create = [ { kind = "claim", id = ["{input.name}"], set = { name = "input.name", most = "input.most", rank = "input.rank", all = "true" } } ]
""" + "".join(
    f"""
[accounts.{currency.lower()}]
currency = "{currency}"
floor = {FLOORS[currency.lower()]}

[actions.move_{currency.lower()}]
actor  = {{ role = "payments.clerk" }}
inputs = {{ from = "text", to = "text", amount = "int" }}
move   = [ {{ from = "account/{currency.lower()}/{{input.from}}", to = "account/{currency.lower()}/{{input.to}}", amount = "input.amount" }} ]

[actions.reserve_{currency.lower()}]
actor   = {{ role = "payments.clerk" }}
inputs  = {{ id = "int", from = "text", amount = "int", until = "time?" }}
reserve = [ {{ id = ["{{input.id}}"], from = "account/{currency.lower()}/{{input.from}}", amount = "input.amount", expires = "input.until" }} ]

[actions.post_{currency.lower()}]
actor  = {{ role = "payments.clerk" }}
inputs = {{ id = "int", from = "text", to = "text", amount = "int?", keep = "bool" }}
post   = [ {{ id = ["{{input.id}}"], from = "account/{currency.lower()}/{{input.from}}", to = "account/{currency.lower()}/{{input.to}}", when = "!has(input.amount)" }},
           {{ id = ["{{input.id}}"], from = "account/{currency.lower()}/{{input.from}}", to = "account/{currency.lower()}/{{input.to}}", amount = "input.amount", when = "has(input.amount) && !input.keep" }},
           {{ id = ["{{input.id}}"], from = "account/{currency.lower()}/{{input.from}}", to = "account/{currency.lower()}/{{input.to}}", amount = "input.amount", keep = true, when = "has(input.amount) && input.keep" }} ]

[actions.void_{currency.lower()}]
actor  = {{ role = "payments.clerk" }}
inputs = {{ id = "int", from = "text" }}
void   = [ {{ id = ["{{input.id}}"], from = "account/{currency.lower()}/{{input.from}}" }} ]

[actions.swap_{currency.lower()}]
actor   = {{ role = "payments.clerk" }}
inputs  = {{ old = "int", new = "int", from = "text", amount = "int" }}
void    = [ {{ id = ["{{input.old}}"], from = "account/{currency.lower()}/{{input.from}}" }} ]
reserve = [ {{ id = ["{{input.new}}"], from = "account/{currency.lower()}/{{input.from}}", amount = "input.amount" }} ]

[actions.fall_{currency.lower()}]
actor  = {{ role = "payments.clerk" }}
inputs = {{ from = "text", amount = "int", rest = "text?" }}
load   = [ ["claims", "index claim.all {{yes}} max 8 by rank"] ]
waterfall = [ {{ from = "account/{currency.lower()}/{{input.from}}", amount = "input.amount", each = "claims", up_to = "each.most", to = "account/{currency.lower()}/{{each.name}}", rest = "account/{currency.lower()}/{{input.rest}}", when = "has(input.rest)" }},
              {{ from = "account/{currency.lower()}/{{input.from}}", amount = "input.amount", each = "claims", up_to = "each.most", to = "account/{currency.lower()}/{{each.name}}", when = "!has(input.rest)" }} ]
"""
    for currency in ("USD", "EUR")
).replace("{yes}", "{input.all}").replace(
    'inputs = { from = "text", amount = "int", rest = "text?" }',
    'inputs = { all = "bool", from = "text", amount = "int", rest = "text?" }',
)
START = {
    ("usd", "a"): 300,
    ("usd", "b"): 0,
    ("eur", "a"): LARGEST - 20,
    ("eur", "b"): 200,
    **{(currency, name): 0 for currency in ("usd", "eur") for name, _ in CLAIMS},
}
"""Those of euros cannot all be in one account by much; there is no account ``none``."""


@cache
def genesis() -> Genesis:
    found = founding((GOVERNED + MONEY, IDENTITY, BENEFITS, PAYMENTS, BANK))
    accounts = [OpeningBalance(family, (name,), n) for (family, name), n in START.items()]
    return replace(found, accounts=(*found.accounts, *accounts))


def inputs_of(call: Call) -> tuple[Any, ...]:
    """Return action and inputs of a call."""
    name = f"bank.{type(call).__name__.lower()}_{call.currency}"
    match call:
        case Move():
            return (name, call.source, call.target, call.amount)
        case Reserve():
            return (name, call.id, call.source, call.amount, call.until_ms)
        case Post():
            return (name, call.id, call.source, call.target, call.amount, call.keep)
        case Void():
            return (name, call.id, call.source)
        case Swap():
            return (name, call.old, call.new, call.source, call.amount)
        case Fall():
            return (name, True, call.source, call.amount, call.rest)


names = st.sampled_from(["a"] * 14 + ["b"] * 14 + ["c1", "c1", "c3", "c3", "none"])
amounts = st.one_of(
    st.integers(0, 60), st.integers(0, 60), st.integers(-1, 400), st.sampled_from([2**62, LARGEST])
)
later = st.sampled_from([-1, 1, 1000, 2000, 3000, 4000, 6000, 9000])
kinds = st.sampled_from([Move, Reserve, Reserve, Post, Post, Post, Void, Swap, Fall])


class Programme(RuleBasedStateMachine):
    """A network beside the model."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(genesis())
        for rank, (name, most) in enumerate(CLAIMS):
            expects: list[tuple[str, list[Value], int]] = [("claim", [name], 0)]
            made = self.world.do("clerk", "bank.claim", name, most, rank, expects=expects)
            assert made.code == Code.APPLIED
        self.model = Model(dict(START))
        self.sums = {currency: self.total(currency) for currency in FLOORS}
        self.ids = 0

    def total(self, currency: str) -> int:
        return sum(n for (family, _), n in self.model.balances.items() if family == currency)

    def call(self, data: st.DataObject) -> Call:
        """Return a call, which often is about a reservation that there is."""
        draw = data.draw
        currency = draw(st.sampled_from(["usd", "usd", "usd", "eur"]))
        source, amount = draw(names), draw(amounts)
        known = [id_ for id_, kept in self.model.kept.items() if not kept.over]
        id_ = draw(st.integers(1, self.ids + 2))
        kind = draw(kinds if known else st.sampled_from([Move, Reserve, Fall]))
        if known and kind in (Post, Void, Swap) and draw(st.integers(0, 7)):
            id_ = draw(st.sampled_from(known))
            currency, source = self.model.kept[id_].account
        if kind in (Reserve, Swap) and draw(st.integers(0, 7)):
            self.ids += 1
        match kind:
            case _ if kind is Move:
                return Move(currency, source, draw(names), amount)
            case _ if kind is Reserve:
                ends = st.none() | later.map(lambda n: self.world.now_ms + n)
                return Reserve(currency, self.ids, source, amount, draw(ends))
            case _ if kind is Post:
                part = draw(st.none() | amounts)
                return Post(currency, id_, source, draw(names), part, draw(st.booleans()))
            case _ if kind is Void:
                return Void(currency, id_, source)
            case _ if kind is Swap:
                return Swap(currency, id_, self.ids, source, amount)
        return Fall(currency, source, amount, draw(st.none() | names))

    @rule(data=st.data(), gap_ms=st.sampled_from([1, 1000, 3000]), slice_=st.integers(1, 4))
    def block(self, data: st.DataObject, gap_ms: int, slice_: int) -> None:
        """Execute a block of some transactions, and again from what it read."""
        world = self.world
        sizes = data.draw(st.lists(st.sampled_from([1, 1, 1, 2, 3]), min_size=1, max_size=6))
        block = [[self.call(data) for _ in range(size)] for size in sizes]
        drafts = [world.draft("clerk", *[inputs_of(call) for call in calls]) for calls in block]
        world.now_ms += gap_ms - 1000  # a block comes a second later
        now_ms = world.now_ms + 1000
        recorded = Recorded(world.state)
        context = BlockContext(1, world.height + 1, now_ms)
        before = BlockRun(world.ledger, recorded, context, drafts).finish()
        again = BlockRun(world.ledger, Witness(recorded.asked), context, drafts).finish()
        result = world.run(*drafts, slice_=slice_)
        assert world.now_ms == now_ms
        assert before.results_root == again.results_root == result.results_root
        assert before.writes == again.writes == result.writes
        for write in result.writes:
            assert value_hash(write.kh, write.row) == write.vh
        for transaction, decision in zip(block, result.decisions, strict=True):
            code = self.model.run(transaction, now_ms)
            assert decision.code == code, (transaction, decision.detail)
            deltas: dict[int, int] = {}
            for name, data in decision.leaves.items():
                if name.startswith("moves:"):
                    for position, _, delta, *_ in cbor2.loads(data):
                        deltas[position] = deltas.get(position, 0) + delta
            assert not any(deltas.values())

    @rule(
        issue=st.booleans(),
        currency=st.sampled_from(["usd", "eur"]),
        name=st.sampled_from("ab"),
        amount=amounts,
    )
    def change_sum(self, issue: bool, currency: str, name: str, amount: int) -> None:
        """Issue or retire money by a proposal; the only way to change a sum."""
        world, account = self.world, (currency, name)
        act = "charter.issue_money" if issue else "charter.retire_money"
        until_ms = world.now_ms + 10 * NOTICE_MS
        draft = world.draft(
            "chief_t",
            (act, currency, [name], amount),
            mode=PROPOSE,
            not_after_ms=until_ms,
            cosigners=("chief_r",),
        )
        stored = world.one(draft)
        if amount <= 0:
            assert stored.code == Code.BAD_INPUT
            return
        assert stored.code == Code.PROPOSED
        world.now_ms += NOTICE_MS
        result = world.run(world.draft("chief_s", ("charter.approve", draft.txid)))
        code = result.decisions[1].code
        balance = self.model.balances[account]
        if issue:
            fits = balance + amount <= LARGEST
        else:
            left = balance - amount - self.model.reserved(account, world.now_ms)
            fits = left >= FLOORS[currency]
        assert code == (Code.APPLIED if fits else Code.INSUFFICIENT)
        if fits:
            delta = amount if issue else -amount
            self.model.balances[account] += delta
            self.sums[currency] += delta

    @invariant()
    def the_ledger_is_what_the_model_says(self) -> None:
        paths, state, now_ms = self.world.ledger.paths, self.world.state, self.world.now_ms
        for account, balance in self.model.balances.items():
            row = state.get(paths("account", list(account)))
            assert row is not None
            found = read_account(row.value)
            reserved = found.reserved_at(now_ms)
            assert (found.balance, reserved) == (balance, self.model.reserved(account, now_ms))
            assert found.balance - reserved >= FLOORS[account[0]]
            assert 0 <= reserved <= found.reserved

    @invariant()
    def money_is_neither_made_nor_lost(self) -> None:
        assert {currency: self.total(currency) for currency in FLOORS} == self.sums


Programme.TestCase.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
TestProgramme = Programme.TestCase
