"""Money is made and unmade by a quorum of agencies, after the notice, and by nothing else.

Four agencies, quorum 3, a notice of ten seconds; each block comes a second after the last. The
charter here asks for two approvals, which is less than the floor.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import cbor2
import pytest

from consensus.codec import INT64_MAX, Value
from consensus.genesis import Genesis, OpeningBalance
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.transaction import PROPOSE, Transaction
from tests.consensus.ledger.governed import GOVERNED, NOTICE_MS, founding
from tests.consensus.ledger.test_reservations import GRANTS, PERMITTED, Recorded, Witness
from tests.consensus.ledger.world import BENEFITS, IDENTITY, World

MONEY = "".join(
    f"""
[actions.{name}]
kernel = true
actor = {{ role = "charter.chief" }}
approvals = {{ role = "charter.chief", count = 2, distinct = "agency" }}
require = [ {{ code = "MUCH", that = "input.amount != 666", say = "not that much" }} ]
"""
    for name in ("issue_money", "retire_money")
) + "".join(
    f'\n[actions.{name}]\nkernel = true\nactor = {{ self = "who.principal" }}\n'
    for name in ("approve", "object")
)
FUND: tuple[Value, ...] = ("fund", ["main"])


@cache
def genesis() -> Genesis:
    found = founding((GOVERNED + MONEY, IDENTITY, BENEFITS, PERMITTED, GRANTS))
    accounts = (OpeningBalance("fund", ("main",), 1000), OpeningBalance("fund", ("a",), INT64_MAX))
    return replace(found, accounts=(*found.accounts, *accounts))


class Mint(World):
    """The network, and words for what its chiefs do about money."""

    def __init__(self) -> None:
        super().__init__(genesis())

    def proposed(
        self, *call: Any, author: str = "chief_t", cosigners: tuple[str, ...] = ()
    ) -> Transaction:
        """Propose in a block of its own."""
        until_ms = self.now_ms + 1_000_000
        proposal = self.draft(
            author, call, mode=PROPOSE, not_after_ms=until_ms, cosigners=cosigners
        )
        result = self.run(proposal)
        assert result.decisions[0].code == Code.PROPOSED, result.decisions[0].detail
        return proposal

    def approve(self, who: str, proposal: Transaction) -> list[Decision]:
        """Approve in a block of its own; return the approval's decision and what it brought."""
        return list(self.run(self.draft(who, ("charter.approve", proposal.txid))).decisions)

    def wait(self) -> None:
        """Let the notice pass."""
        self.now_ms += NOTICE_MS


def test_a_quorum_issues_money_once_the_notice_is_over() -> None:
    mint = Mint()
    proposal = mint.proposed("charter.issue_money", *FUND, 500)
    assert len(mint.approve("chief_r", proposal)) == 1
    mint.wait()
    _, issued = mint.approve("chief_s", proposal)
    assert issued.code == Code.APPLIED, issued.detail
    assert issued.header.txid == proposal.txid
    assert mint.balance("fund", "main") == 1500
    assert cbor2.loads(issued.leaves["moves:grants"]) == [[0, ["fund", "main"], 500]]


def test_a_quorum_retires_money() -> None:
    mint = Mint()
    proposal = mint.proposed("charter.retire_money", *FUND, 400)
    mint.approve("chief_r", proposal)
    mint.wait()
    _, retired = mint.approve("chief_s", proposal)
    assert cbor2.loads(retired.leaves["moves:grants"]) == [[0, ["fund", "main"], -400]]
    assert mint.balance("fund", "main") == 600


def test_before_the_notice_is_over_a_proposal_waits_and_one_more_approval_completes_it() -> None:
    mint = Mint()
    proposal = mint.proposed("charter.issue_money", *FUND, 500)
    for who in ("chief_r", "chief_s"):
        assert len(mint.approve(who, proposal)) == 1
    assert mint.balance("fund", "main") == 1000
    mint.wait()
    assert mint.balance("fund", "main") == 1000
    _, issued = mint.approve("chief_a", proposal)
    assert issued.code == Code.APPLIED
    assert mint.balance("fund", "main") == 1500


def test_if_everybody_has_approved_too_early_any_of_them_approves_again() -> None:
    for who in ("chief_s", "chief_t"):
        mint = Mint()
        others = ("chief_a", "chief_r", "chief_s")
        proposal = mint.proposed("charter.issue_money", *FUND, 500, cosigners=others)
        early = mint.approve(who, proposal)[0]
        code = Code.NOT_AUTHORIZED if who == "chief_t" else Code.REQUIREMENT
        assert early.code == code, early.detail  # the author; twice
        mint.wait()
        assert mint.balance("fund", "main") == 1000
        _, issued = mint.approve(who, proposal)
        assert issued.code == Code.APPLIED
        assert mint.balance("fund", "main") == 1500


def test_too_few_agencies_do_not_renew_after_the_notice() -> None:
    mint = Mint()
    proposal = mint.proposed("charter.issue_money", *FUND, 500, cosigners=("chief_r",))
    mint.wait()
    assert mint.approve("chief_r", proposal)[0].detail[0] == "TWICE"
    assert len(mint.approve("chief_s", proposal)) == 2


def test_what_fails_for_now_does_not_end_a_proposal_that_waits_for_its_quorum() -> None:
    """The charter's own policy is met by two; the floor asks for three agencies and the notice."""
    mint = Mint()
    assert mint.do("clerk", "grants.freeze", "main", "pay").code == Code.APPLIED
    proposal = mint.proposed("charter.issue_money", *FUND, 500)
    for who in ("chief_r", "chief_s"):
        assert len(mint.approve(who, proposal)) == 1
    mint.wait()
    _, held = mint.approve("chief_a", proposal)
    assert held.code == Code.HELD


def test_the_notice_ends_exactly_then() -> None:
    for early_ms, decisions in ((1, 1), (0, 2)):
        mint = Mint()
        proposal = mint.proposed("charter.issue_money", *FUND, 500)
        proposed_ms = mint.now_ms
        mint.approve("chief_r", proposal)
        mint.now_ms = proposed_ms + NOTICE_MS - 1000 - early_ms
        assert len(mint.approve("chief_s", proposal)) == decisions


def test_money_is_never_issued_at_once() -> None:
    mint = Mint()
    draft = mint.draft(
        "chief_t",
        ("charter.issue_money", *FUND, 500),
        cosigners=("chief_r", "chief_s", "chief_a"),
    )
    decision = mint.one(draft)
    assert (decision.code, decision.detail) == (
        Code.NEEDS_APPROVAL,
        [["notice", mint.now_ms + NOTICE_MS]],
    )


def test_fewer_agencies_than_a_quorum_do_not_suffice_whatever_the_charter_says() -> None:
    """The administrator is of the treasury, like the author: one agency counts once."""
    mint = Mint()
    draft = mint.draft(
        "chief_t", ("charter.issue_money", *FUND, 500), cosigners=("admin", "chief_r")
    )
    decision = mint.one(draft)
    assert decision.code == Code.NEEDS_APPROVAL
    mint = Mint()
    proposal = mint.proposed("charter.issue_money", *FUND, 500, cosigners=("admin",))
    mint.wait()
    assert len(mint.approve("chief_r", proposal)) == 1
    assert mint.balance("fund", "main") == 1000
    assert len(mint.approve("chief_a", proposal)) == 2


def test_an_objection_ends_it() -> None:
    mint = Mint()
    proposal = mint.proposed("charter.issue_money", *FUND, 500)
    mint.approve("chief_r", proposal)
    objected = mint.one(mint.draft("chief_a", ("charter.object", proposal.txid, "too much")))
    assert objected.code == Code.APPLIED
    mint.wait()
    [late] = mint.approve("chief_s", proposal)
    assert late.detail[0] == "OBJECTED"


def brought(mint: Mint, *call: Any) -> Decision:
    """Return what a proposal with all approvals comes to."""
    proposal = mint.proposed(*call)
    mint.approve("chief_r", proposal)
    mint.wait()
    _, decision = mint.approve("chief_s", proposal)
    return decision


def test_what_is_reserved_and_the_floor_cannot_be_retired() -> None:
    mint = Mint()
    assert mint.do("clerk", "grants.commit", 1, 700, None).code == Code.APPLIED
    decision = brought(mint, "charter.retire_money", *FUND, 301)
    assert (decision.code, decision.detail) == (Code.INSUFFICIENT, [["fund", "main"], "floor"])
    assert brought(mint, "charter.retire_money", *FUND, 300).code == Code.APPLIED
    assert brought(mint, "charter.retire_money", "purse", ["b"], 551).code == Code.INSUFFICIENT
    assert brought(mint, "charter.retire_money", "purse", ["b"], 550).code == Code.APPLIED
    assert mint.balance("purse", "b") == -50


def test_more_than_64_bits_cannot_be_issued() -> None:
    decision = brought(Mint(), "charter.issue_money", "fund", ["a"], 1)
    assert (decision.code, decision.detail) == (Code.INSUFFICIENT, [["fund", "a"], "overflow"])


def test_a_requirement_of_the_charter_counts() -> None:
    assert brought(Mint(), "charter.issue_money", *FUND, 666).detail == ["MUCH", "not that much"]


@pytest.mark.parametrize("scope", ["pay", "all"])
def test_a_hold_on_the_account_binds(scope: str) -> None:
    mint = Mint()
    assert mint.do("clerk", "grants.freeze", "main", scope).code == Code.APPLIED
    assert brought(mint, "charter.issue_money", *FUND, 5).code == Code.HELD


@pytest.mark.parametrize(
    ("inputs", "code", "detail"),
    [
        (("none", ["main"], 5), Code.NOT_FOUND, ["family", None]),
        (("fund", ["none"], 5), Code.NOT_FOUND, ["id", ["account", ["fund", "none"]]]),
        (("fund", ["main"], 0), Code.BAD_INPUT, ["amount", "more than nothing"]),
        (("fund", ["main"], -1), Code.BAD_INPUT, ["amount", "more than nothing"]),
        (("fund", [1] * 8, 1), Code.BAD_INPUT, ["id", "an id has 1 to 8 components, got 9"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("act", ["issue_money", "retire_money"])
def test_bad_inputs_are_refused(
    act: str, inputs: tuple[Value, ...], code: Code, detail: Value
) -> None:
    decision = Mint().do("chief_t", f"charter.{act}", *inputs)
    assert (decision.code, decision.detail) == (code, detail)


def test_who_has_no_role_issues_nothing() -> None:
    assert Mint().do("clerk", "charter.issue_money", *FUND, 5).code == Code.NOT_AUTHORIZED


def test_what_was_read_suffices_to_execute_again() -> None:
    mint = Mint()
    proposal = mint.proposed("charter.retire_money", *FUND, 400)
    mint.approve("chief_r", proposal)
    mint.wait()
    drafts = [mint.draft("chief_s", ("charter.approve", proposal.txid))]
    context = BlockContext(1, mint.height + 1, mint.now_ms + 1000)
    recorded = Recorded(mint.state)
    first = BlockRun(mint.ledger, recorded, context, drafts).finish()
    again = BlockRun(mint.ledger, Witness(recorded.asked), context, drafts).finish()
    assert [each.code for each in first.decisions] == [Code.APPLIED, Code.APPLIED]
    assert (again.results_root, again.writes) == (first.results_root, first.writes)
