"""What would become of a proposal, who could approve it, and what ends it before it is judged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from consensus.codec import Value
from consensus.ledger.bench import Bench
from consensus.ledger.codes import Code, Refused
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.proposals import Proposal
from consensus.ledger.proposing import Proposing
from consensus.ledger.transaction import PROPOSE, Draft, Transaction
from tests.consensus.ledger.desk import DESK, DESK_CHARTER, HOUR_MS, Desk, with_policies
from tests.consensus.ledger.world import TEXTS, World, make_genesis, person, public_key, token

PAY = ("payments.transfer", "a", "b", 7)
LOST = ("charter.revoke_key", "treasury", token("clerk"), public_key("clerk"), False)
NEW = ("identity.register", token("eve"), "Eve", "north"), ("identity.rename", person("eve"), "Eva")
"""The second call rests on what the first one makes."""


def ahead(at: World) -> Proposing:
    """A dry run of the block that follows."""
    context = BlockContext(1, at.height + 1, at.now_ms + 1000, history=at.history.root)
    return BlockRun(at.ledger.apart(), at.state, context, ()).proposing


def told(refused: Refused | None) -> tuple[Code, Value] | None:
    return None if refused is None else (refused.code, refused.detail)


def with_approval(desk: Desk, proposed: Transaction, who: str = "officer") -> Proposal:
    """The proposal as if somebody had approved it and it had not been judged yet."""
    row = [public_key(who), token(who), "treasury", desk.now_ms, proposed.txid]
    return desk.proposal(proposed.txid)._replace(approvals=[row])


# --- outlook --------------------------------------------------------------------------------------


def test_outlook_is_what_would_refuse_it_and_nothing_if_it_would_take_effect() -> None:
    desk = Desk()
    proposed = desk.stored("clerk", PAY)
    waiting = ahead(desk).outlook(desk.proposal(proposed.txid))
    assert waiting is not None
    assert waiting.code == Code.NEEDS_APPROVAL
    before = dict(desk.state._rows)
    assert ahead(desk).outlook(with_approval(desk, proposed)) is None
    assert desk.state._rows == before
    poor = desk.stored("clerk", ("payments.transfer", "a", "b", 70_000))
    refused = ahead(desk).outlook(with_approval(desk, poor))
    assert refused is not None
    assert refused.code == Code.INSUFFICIENT
    approved = desk.approve("officer", proposed).decisions
    assert [each.code for each in approved] == [Code.APPLIED, Code.APPLIED]


def test_outlook_of_a_call_that_needs_what_an_earlier_one_makes_is_that_of_the_whole() -> None:
    desk = Desk()
    calls = (("payments.open_purse", "new"), ("payments.seed_purse", "newer", "new", 0))
    proposed = desk.stored("clerk", *calls)
    found = ahead(desk).outlook(desk.proposal(proposed.txid))
    assert found is not None
    assert found.code == Code.NEEDS_APPROVAL


@pytest.mark.parametrize(
    ("act", "refused"),
    [
        (("charter.suspend_principal", "treasury", token("clerk")),
         (Code.SUSPENDED, ["principal", [token("clerk")]])),
        (("charter.suspend_agency", "treasury"), (Code.SUSPENDED, ["agency", ["treasury"]])),
        (LOST, None),
    ],
)  # fmt: skip
def test_what_was_signed_before_stands_as_long_as_its_author_may_act(
    act: tuple[Any, ...], refused: tuple[Code, Value] | None
) -> None:
    """A key that was lost since signs nothing any more; what it signed stands, and who it was."""
    desk = Desk()
    proposed = desk.stored("clerk", PAY)
    assert desk.do("admin", *LOST).code == Code.APPLIED
    if act != LOST:
        assert desk.do("admin", *act).code == Code.APPLIED
    judged = with_approval(desk, proposed, "auditor")
    assert told(ahead(desk).outlook(judged)) == refused


# --- who could approve ----------------------------------------------------------------------------


def test_a_proposal_is_complete_while_its_actions_are_there_and_approved(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    desk = Desk()
    proposed = desk.stored("clerk", PAY)
    waiting, approved = desk.proposal(proposed.txid), with_approval(desk, proposed)
    for proposal, complete in ((waiting, False), (approved, True)):
        asked = ahead(desk)
        asked._view.begin()
        assert asked.is_complete(proposal) is complete
    gone = ahead(desk)
    monkeypatch.setattr(Bench, "action", lambda *_: None)
    gone._view.begin()
    assert gone.is_complete(approved) is False


def test_whoever_may_not_act_is_asked_for_nothing_and_lacks_the_key() -> None:
    desk = Desk()
    proposed = desk.stored("clerk", PAY)
    proposal = desk.proposal(proposed.txid)
    asked = ahead(desk).asked_of(public_key("officer"))
    assert "payments.transfer" in asked
    assert ahead(desk).lacking(proposal, public_key("officer")) == []
    assert desk.do("admin", "charter.suspend_principal", "treasury", token("officer")).code == 0
    assert ahead(desk).asked_of(public_key("officer")) == []
    assert ahead(desk).lacking(proposal, public_key("officer")) == [["key"]]
    assert ahead(desk).lacking(proposal, b"k" * 32) == [["key"]]


def registering(**changes: Any) -> tuple[Desk, Transaction]:
    """A network where the registrar proposes ``NEW``, which one may object to."""
    texts = [with_policies(text) for text in (DESK_CHARTER, *TEXTS[1:])]
    head = "[actions.rename]\n"
    texts[1] = texts[1].replace(head, f'{head}objections = {{ role = "payments.officer" }}\n')
    desk = Desk()
    World.__init__(desk, replace(DESK, rules=make_genesis(texts).rules, **changes))
    return desk, desk.stored("registrar", *NEW, expects=[("person", person("eve"), 0)])


def test_what_rests_on_what_an_earlier_call_makes_is_judged_by_role_alone() -> None:
    desk, proposed = registering()
    proposal = desk.proposal(proposed.txid)
    assert ahead(desk).lacking(proposal, public_key("deputy")) == []
    missing = [["role", "identity.officer", "missing"]]
    assert ahead(desk).lacking(proposal, public_key("officer")) == [["not asked"], *missing]
    refused = desk.approve("officer", proposed).decisions[0]
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, [["not asked"], *missing])
    effect = desk.approve("deputy", proposed).decisions[-1]
    assert effect.code == Code.APPLIED, effect.detail
    assert desk.record("person", person("eve")).fields["name"] == "Eva"


def test_whoever_is_the_author_under_another_name_approves_nothing() -> None:
    principals = tuple(
        replace(each, subject=token("subject registrar")) if each.id == token("deputy") else each
        for each in DESK.principals
    )
    desk, proposed = registering(principals=principals)
    lacks = ahead(desk).lacking(desk.proposal(proposed.txid), public_key("deputy"))
    assert lacks == [["not asked"], ["author"]]
    refused = desk.approve("deputy", proposed).decisions[0]
    assert (refused.code, refused.detail) == (Code.NOT_AUTHORIZED, lacks)


def test_outlook_of_what_rests_on_what_an_earlier_call_makes_is_that_of_the_whole() -> None:
    desk, proposed = registering()
    assert ahead(desk).outlook(with_approval(desk, proposed, "deputy")) is None


def test_who_may_object_to_what_an_earlier_call_makes_is_judged_by_role_too() -> None:
    desk, proposed = registering()
    refused = desk.one(desk.act("deputy", "object", proposed, "no"))
    missing = ["role", "payments.officer", "missing"]
    assert (refused.code, missing in refused.detail) == (Code.NOT_AUTHORIZED, True)
    assert desk.one(desk.act("officer", "object", proposed, "no")).code == Code.APPLIED
    assert desk.word(proposed) == "objected"


# --- storing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first", [("payments.open_purse", "new"), ("payments.check_purse", "a", 1)]
)
def test_a_proposal_of_an_unknown_action_is_not_stored(first: tuple[Any, ...]) -> None:
    """Neither where the call before it could be carried out, nor where it could one day."""
    desk = Desk()
    unknown = Draft("payments", "nothing", bytes(32), [], bytes(32), False)
    proposed = desk.draft(
        "clerk",
        desk.call(*first),
        unknown,
        mode=PROPOSE,
        not_after_ms=desk.now_ms + HOUR_MS,
    )
    decision = desk.one(proposed)
    assert (decision.code, decision.call) == (Code.UNKNOWN_ACTION, 1)


def test_two_keys_of_one_person_approve_once() -> None:
    desk = Desk()
    keys = (*DESK.keys, (public_key("second"), token("officer")))
    World.__init__(desk, replace(DESK, keys=keys))
    proposed = desk.stored("clerk", PAY, cosigners=("officer", "second"))
    approvals = desk.proposal(proposed.txid).approvals
    assert [row[1] for row in approvals] == [token("officer")]
