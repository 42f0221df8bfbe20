"""Strangers judge again what acts rest on, approvals in person, renewed, and of reversals."""

from __future__ import annotations

import pytest

from consensus.codec import Value
from consensus.evidence.verify import verify
from consensus.genesis import RoleGiven
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.effects import hold_id
from consensus.ledger.transaction import PROPOSE
from tests.consensus.evidence.town import Town
from tests.consensus.ledger import test_extra_entries as entries
from tests.consensus.ledger import test_proposal_bounds as bounds
from tests.consensus.ledger import test_reversal_approvals as reversals
from tests.consensus.ledger import test_self_approvals as consents
from tests.consensus.ledger.desk import DESK_CHARTER
from tests.consensus.ledger.world import (
    BENEFITS,
    DEFAULT,
    IDENTITY,
    make_genesis,
    person,
    public_key,
    register,
    token,
)


def judged(town: Town, decision: Decision) -> None:
    """Check that a stranger comes to the same decision."""
    town.run()
    found = verify(town.file(decision), town.ledger.chain)
    assert found.decision.root == decision.root
    assert found.judged


def test_what_an_act_may_rest_on_is_judged_again() -> None:
    town = Town(entries.genesis())
    register(town, "ann")
    for call, name in (
        (("payments.file", "s", "north", person("ann")), entries.SECRET),
        (("payments.write", "m", None), entries.MEMO),
    ):
        assert town.do("clerk", *call, expects=[(*name, 0)]).code == Code.APPLIED
    held = entries.held(town, "watch", "s")
    for who, named, code in (
        ("clerk", (*entries.SECRET, 1), Code.NOT_AUTHORIZED),
        ("clerk", (*entries.ABSENT, 0), Code.NOT_AUTHORIZED),
        ("clerk", ("hold", held, 1), Code.NOT_AUTHORIZED),
        ("clerk", ("hold", [bytes(32)], 0), Code.NOT_AUTHORIZED),
        ("officer", (*entries.SECRET, 1), Code.APPLIED),
        ("officer", (*entries.SECRET, 2), Code.STALE),
        ("ann's", (*entries.SECRET, 1), Code.APPLIED),
        ("ann's", (*entries.MEMO, 1), Code.NOT_AUTHORIZED),
        ("social", (*entries.MEMO, 1), Code.APPLIED),
        ("social", ("person", person("ann"), 1), Code.APPLIED),
    ):
        decision = town.do(who, "payments.ping", 1, expects=[named])
        assert decision.code == code, (who, named)
        judged(town, decision)


def test_read_rules_that_stand_for_many_roles_are_judged_again() -> None:
    """The officer's role is named by actions alone, of which a bundle shows no more than called."""
    text = entries.PAY.replace('{ role = "payments.officer", where', '{ role = "benefits.*", where')
    town = Town(make_genesis((DESK_CHARTER, IDENTITY, BENEFITS, text), accounts=()))
    made = town.do("clerk", "payments.file", "s", "north", None, expects=[(*entries.SECRET, 0)])
    judged(town, made)
    for who, code in (("social", Code.APPLIED), ("officer", Code.NOT_AUTHORIZED)):
        decision = town.do(who, "payments.ping", 1, expects=[(*entries.SECRET, 1)])
        assert decision.code == code
        judged(town, decision)


def test_a_proposal_whose_money_was_not_there_yet_is_judged_again() -> None:
    """Tried with enough of it, the judgement goes on to leaves that the decision never read."""
    roles = (
        RoleGiven(token("admin"), "payments.clerk"),
        RoleGiven(token("officer"), "charter.admin"),
    )
    town = Town(make_genesis(roles=(*DEFAULT.roles, *roles)))
    target: list[Value] = ["action", ["identity", "register"]]
    placed = town.do("officer", "charter.place_hold", [target], ["all"], None, "Act")
    hold = hold_id(placed.header.txid, 0, 0)
    calls = (
        ("charter.confirm_hold", hold, None),
        ("payments.transfer", "a", "b", 10**9),
        ("charter.release_hold", "treasury", hold),
    )
    expects: list[tuple[str, list[Value], int]] = [("hold", [hold], 1)]
    proposed = town.draft(
        "admin", *calls, expects=expects, mode=PROPOSE, not_after_ms=town.now_ms + 1_000_000
    )
    decision = town.one(proposed)
    assert decision.code == Code.PROPOSED
    judged(town, decision)


def test_an_effect_brought_about_by_a_renewed_approval_is_judged_again() -> None:
    town = Town(bounds.genesis())
    until_ms = town.now_ms + bounds.WATCH_MS
    proposed = town.draft(
        "clerk",
        ("payments.wait", until_ms),
        mode=PROPOSE,
        not_after_ms=town.now_ms + 1_000_000,
    )
    assert town.one(proposed).code == Code.PROPOSED
    town.do("officer", "charter.approve", proposed.txid)
    early = town.do("officer", "charter.approve", proposed.txid)
    assert early.code == Code.REQUIREMENT
    judged(town, early)
    town.now_ms = until_ms
    renewed, effect = town.run(town.draft("officer", ("charter.approve", proposed.txid))).decisions
    assert (renewed.code, effect.code) == (Code.APPLIED, Code.APPLIED)
    judged(town, renewed)
    judged(town, effect)


def test_consent_is_judged_again() -> None:
    town = Town(consents.genesis())
    town.signers |= {public_key(name): name for name in ("bob's", "ann_clerk")}
    for name in ("ann", "bob"):
        register(town, name)
    town.do("clerk", "payments.issue", "l", person("ann"), expects=[(*consents.LIC, 0)])
    for cosigners, code in (
        (("bob's", "officer"), Code.NEEDS_APPROVAL),
        (("ann's", "officer"), Code.APPLIED),
    ):
        draft = town.draft(
            "clerk",
            ("payments.transfer", ["l"], person("bob")),
            expects=[(*consents.LIC, 1)],
            cosigners=cosigners,
        )
        decision = town.one(draft)
        assert decision.code == code
        judged(town, decision)


@pytest.mark.parametrize("stored", [False, True])
def test_a_reversal_with_approvals_is_judged_again(stored: bool) -> None:
    town = Town(reversals.genesis())
    town.signers |= {public_key(name): name for name in reversals.PEOPLE}
    register(town, "ann")
    lent = town.do(
        "maker", "loans.lend", "l", person("ann"), "north", 10, expects=[("loan", ["l"], 0)]
    )
    changed = town.do("clerk", "loans.change", ["l"], 20, expects=[("loan", ["l"], 1)])
    assert (lent.code, changed.code) == (Code.APPLIED, Code.APPLIED)
    judged(town, changed)
    call = ("charter.reverse", changed.header.txid, town.evidence(changed).encode())
    if not stored:
        for cosigners, code in ((("b1",), Code.NEEDS_APPROVAL), (("aud_n",), Code.APPLIED)):
            decision = town.one(town.draft("chief", call, cosigners=cosigners))
            assert decision.code == code
            judged(town, decision)
        return
    until_ms = town.now_ms + 1_000_000
    proposed = town.draft("chief", call, mode=PROPOSE, not_after_ms=until_ms)
    first = town.one(proposed)
    assert first.code == Code.PROPOSED
    judged(town, first)
    approval, effect = town.run(town.draft("aud_n", ("charter.approve", proposed.txid))).decisions
    assert (approval.code, effect.code) == (Code.APPLIED, Code.APPLIED)
    judged(town, approval)
    judged(town, effect)
