"""Power, holds, approvals and proposals in random programmes, beside a model in plain Python."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consensus.codec import Value
from consensus.genesis import RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.effects import hold_id
from consensus.ledger.proposals import STATES, Proposal
from consensus.ledger.transaction import PROPOSE
from tests.consensus.ledger.governed_model import Model
from tests.consensus.ledger.pairs import CHARTER, PAYMENTS
from tests.consensus.ledger.reader import read_single
from tests.consensus.ledger.world import (
    DEFAULT,
    NORTH,
    TEXTS,
    World,
    make_genesis,
    public_key,
    token,
)

PURSES = st.sampled_from(["a", "b", "c"])
AMOUNTS = st.sampled_from([0, 1, 40, 300, 700, 1500, -5])
CLERKS = st.sampled_from(["clerk", "admin", "officer"])
OFFICERS = st.sampled_from(["officer", "auditor", "registrar"])
ANYBODY = st.sampled_from(["clerk", "admin", "officer", "auditor", "registrar"])
OURS = st.sampled_from(["clerk", "officer"])
"""Whom the treasury's administrator suspends, whose role and key it revokes."""
ROLES = (
    *DEFAULT.roles,
    RoleGiven(token("registrar"), "payments.officer", NORTH),
    RoleGiven(token("admin"), "payments.clerk"),
)
GENESIS = make_genesis((CHARTER, *TEXTS[1:3], PAYMENTS), roles=ROLES)
MODEL_ROLE = {"clerk": "payments.clerk", "officer": "payments.officer"}


class Governed(RuleBasedStateMachine):
    """The executor and the model, act by act."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(GENESIS)
        self.model = Model({"a": 1000, "b": 500, "c": 0})
        self.total = 1500
        self.hold_ids: list[bytes] = []
        self.proposed: list[bytes] = []

    def run(self, author: str, *call: Value, **more: Any) -> tuple[Decision, ...]:
        self.transaction = self.world.draft(author, call, **more)
        return self.world.run(self.transaction).decisions

    def same(self, author: str, *call: Value, expected: Code, **more: Any) -> Decision:
        (decision,) = self.run(author, *call, **more)
        assert decision.code == expected, (call, decision.code, decision.detail)
        return decision

    def version(self, space: str, *id_: Value) -> tuple[str, list[Value], int]:
        row = self.world.state.get(self.world.ledger.paths(space, list(id_)))
        return space, list(id_), 0 if row is None else read_single(space, id_, row.value).version

    @rule(author=CLERKS, source=PURSES, to=PURSES, amount=AMOUNTS)
    def transfer(self, author: str, source: str, to: str, amount: int) -> None:
        expected = self.model.transfer(author, source, to, amount, None)
        self.same(author, "payments.transfer", source, to, amount, expected=expected)

    @rule(
        source=PURSES,
        to=PURSES,
        amount=AMOUNTS,
        people=st.lists(OFFICERS, max_size=3, unique=True),
    )
    def large(self, source: str, to: str, amount: int, people: list[str]) -> None:
        cosigners = sorted(people, key=public_key)
        expected = self.model.transfer("clerk", source, to, amount, cosigners)
        call = ("payments.large", source, to, amount)
        self.same("clerk", *call, expected=expected, cosigners=cosigners)

    @rule(author=CLERKS, source=PURSES, to=PURSES, amount=AMOUNTS)
    def propose(self, author: str, source: str, to: str, amount: int) -> None:
        expected = self.model.propose(author, source, to, amount)
        call = ("payments.large", source, to, amount)
        decision = self.same(author, *call, expected=expected, mode=PROPOSE)
        if expected == Code.PROPOSED:
            self.proposed.append(decision.header.txid)

    @precondition(lambda self: self.proposed)
    @rule(who=ANYBODY, data=st.data())
    def approve(self, who: str, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.proposed) - 1))
        expected, effect = self.model.approve(who, number)
        decisions = self.run(who, "charter.approve", self.proposed[number])
        assert decisions[0].code == expected, (decisions[0].code, decisions[0].detail)
        codes = [each.code for each in decisions[1:]]
        assert codes == ([] if effect is None else [effect]), decisions[-1].detail

    @precondition(lambda self: self.proposed)
    @rule(who=ANYBODY, data=st.data(), withdraw=st.booleans())
    def end(self, who: str, data: st.DataObject, withdraw: bool) -> None:
        number = data.draw(st.integers(0, len(self.proposed) - 1))
        state = "withdrawn" if withdraw else "objected"
        expected = self.model.end(who, number, state)
        call: tuple[Value, ...] = ("charter.withdraw", self.proposed[number])
        if not withdraw:
            call = ("charter.object", self.proposed[number], "no")
        self.same(who, *call, expected=expected)

    @rule(who=ANYBODY, purse=PURSES)
    def freeze(self, who: str, purse: str) -> None:
        if len(self.hold_ids) >= 20:
            return
        expected = self.model.freeze(who, purse)
        self.same(who, "payments.freeze_purse", purse, expected=expected)
        if expected == Code.APPLIED:
            self.hold_ids.append(hold_id(self.transaction.txid, 0, 0))

    @precondition(lambda self: self.hold_ids)
    @rule(who=OFFICERS, data=st.data())
    def thaw(self, who: str, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.hold_ids) - 1))
        purse = self.model.holds[number].purse
        expected = self.model.thaw(who, number)
        self.same(who, "payments.thaw_purse", purse, self.hold_ids[number], expected=expected)

    @rule(who=OURS, to=st.booleans())
    def suspend(self, who: str, to: bool) -> None:
        expected = self.model.change(self.model.suspended, who, to=to)
        act = "suspend_principal" if to else "reinstate_principal"
        named = [self.version("principal", token(who))]
        self.same(
            "admin", f"charter.{act}", "treasury", token(who), expected=expected, expects=named
        )

    @rule(to=st.booleans())
    def suspend_agency(self, to: bool) -> None:
        expected = self.model.change(self.model.suspended_agencies, "audit", to=to)
        act = "suspend_agency" if to else "reinstate_agency"
        named = [self.version("agency", "audit")]
        self.same("admin", f"charter.{act}", "audit", expected=expected, expects=named)

    @rule(who=OURS, to=st.booleans())
    def revoke_role(self, who: str, to: bool) -> None:
        role = MODEL_ROLE[who]
        named = [self.version("role", token(who), role)]
        if to:
            expected = self.model.change(self.model.without_role, who, to=True)
            self.same(
                "admin", "charter.revoke_role", "treasury", token(who), role, expected=expected
            )
            return
        self.model.without_role.discard(who)
        give: tuple[Value, ...] = ("treasury", token(who), role, ["region", "north"], 0, None)
        self.same("admin", "charter.give_role", *give, expected=Code.APPLIED, expects=named)

    @rule(who=OURS, really=st.integers(0, 5))
    def compromise(self, who: str, really: int) -> None:
        if really:
            return  # rarely: it is for good
        expected = self.model.change(self.model.compromised, who, to=True)
        call = ("charter.revoke_key", "treasury", token(who), public_key(who), True)
        self.same("admin", *call, expected=expected)

    @invariant()
    def balances_are_those_of_the_model(self) -> None:
        for name, balance in self.model.balances.items():
            assert self.world.balance("purse", name) == balance, name
        assert sum(self.model.balances.values()) == self.total

    @invariant()
    def proposals_are_those_of_the_model(self) -> None:
        for txid, expected in zip(self.proposed, self.model.proposals, strict=True):
            row = self.world.state.get(self.world.ledger.paths("proposal", [txid]))
            assert row is not None
            found = Proposal(*read_single("proposal", [txid], row.value).value)
            assert STATES[found.state] == expected.state


Governed.TestCase.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestGoverned = Governed.TestCase
