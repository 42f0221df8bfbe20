"""Stored proposals: what they go through, and what the last approval brings about."""

from __future__ import annotations

from typing import Any

import pytest

from consensus.codec import Value
from consensus.errors import DecodeError
from consensus.ledger.codes import Code
from consensus.ledger.decision import APPLIED, PROPOSED, REFUSED
from consensus.ledger.rules import load_toml
from consensus.ledger.rules.difference import difference
from consensus.ledger.transaction import PROPOSE, Transaction
from tests.consensus.ledger.desk import HOUR_MS, OBJECTIONS, Desk, outcomes, with_policies
from tests.consensus.ledger.world import (
    PAYMENTS,
    TEXTS,
    founded,
    make_genesis,
    person,
    public_key,
    register,
    token,
)

TRANSFER = ("payments.transfer", "a", "b", 100)

HOLD = ("charter.place_hold", [["account", ["purse", "a"]]], ["pay"], None, "Act")


@pytest.fixture
def desk() -> Desk:
    return Desk()


def refusal(
    desk: Desk, who: str, what: str, proposed: Transaction, *inputs: Value
) -> tuple[Code, Any]:
    """Return code and detail of an act on a proposal that is refused."""
    decision = desk.one(desk.act(who, what, proposed, *inputs))
    assert decision.header.state == REFUSED
    return decision.code, decision.detail


# --- stored -----------------------------------------------------------------------------------


def test_a_proposal_is_stored_whole_and_changes_nothing_else(desk: Desk) -> None:
    proposed = desk.propose("clerk", TRANSFER, reason="the rent")
    decision = desk.one(proposed)
    assert (decision.code, decision.header.state) == (Code.PROPOSED, PROPOSED)
    assert desk.balance("purse", "a") == 1000
    found = desk.proposal(proposed.txid)
    assert found.txid == proposed.txid
    assert (found.author, found.principal) == (public_key("clerk"), token("clerk"))
    assert (found.agency, found.protective) == ("treasury", False)
    assert (found.proposed_ms, found.expires_ms) == (desk.now_ms, proposed.not_after_ms)
    assert found.calls == [["payments", "transfer", proposed.calls[0].action_id]]
    assert (found.approvals, found.end, found.state) == ([], None, 0)
    written: Any = decision.value("writes:charter")
    assert [entry[0][0] for entry in written] == ["proposal", "proposal"]
    assert not any(name.startswith("moves") for name in decision.names)


def test_the_approval_that_completes_the_policy_brings_a_second_decision_at_the_next_position(
    desk: Desk,
) -> None:
    proposed = desk.stored("clerk", TRANSFER)
    before = desk.propose("clerk", ("payments.open_purse", "before"))
    after = desk.propose("clerk", ("payments.open_purse", "after"))
    approval = desk.act("officer", "approve", proposed)
    result = desk.run(before, approval, after)
    assert outcomes(result) == [
        (before.txid, Code.PROPOSED),
        (approval.txid, Code.APPLIED),
        (proposed.txid, Code.APPLIED),
        (after.txid, Code.PROPOSED),
    ]
    assert [each.header.index for each in result.decisions] == [0, 1, 2, 3]
    assert [each.txid for each in result.transactions] == [
        each.header.txid for each in result.decisions
    ]
    assert result.effects == (2,)
    assert desk.balance("purse", "a") == 900
    assert desk.balance("purse", "b") == 600
    found = desk.proposal(proposed.txid)
    officer = [public_key("officer"), token("officer"), "treasury"]
    assert found.approvals == [[*officer, desk.now_ms, approval.txid]]
    assert desk.word(proposed) == "executed"
    assert found.end == [desk.now_ms, officer, approval.txid, None]
    done = result.decisions[2]
    assert done.header.state == APPLIED
    assert done.value("links") == [["approval", approval.txid]]
    assert result.decisions[1].value("links") == [["proposal", proposed.txid]]


def test_an_approval_that_completes_nothing_is_only_recorded(desk: Desk) -> None:
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    for who in ("registrar", "officer"):
        result = desk.approve(who, proposed)
        assert [each.code for each in result.decisions] == [Code.APPLIED]
        assert desk.word(proposed) == "open"
    result = desk.approve("deputy", proposed)
    assert [each.code for each in result.decisions] == [Code.APPLIED, Code.APPLIED]
    assert desk.balance("purse", "new") == 5
    approved = [row[1] for row in desk.proposal(proposed.txid).approvals]
    assert approved == [token("registrar"), token("officer"), token("deputy")]


def test_the_number_of_a_proposal_is_spent_when_it_is_proposed(desk: Desk) -> None:
    proposed = desk.stored("clerk", TRANSFER)
    assert desk.one(proposed).code == Code.SEQUENCE_SPENT
    desk.approve("officer", proposed)
    assert desk.one(proposed).code == Code.SEQUENCE_SPENT
    assert desk.balance("purse", "a") == 900


def test_cosigners_of_a_proposal_are_its_first_approvals(desk: Desk) -> None:
    proposed = desk.stored(
        "clerk", ("payments.seed_purse", "new", "a", 5), cosigners=["officer", "deputy"]
    )
    rows = desk.proposal(proposed.txid).approvals
    assert {row[1] for row in rows} == {token("officer"), token("deputy")}
    assert {row[4] for row in rows} == {proposed.txid}
    assert refusal(desk, "deputy", "approve", proposed)[0] == Code.REQUIREMENT
    assert [each.code for each in desk.approve("registrar", proposed).decisions] == [
        Code.APPLIED,
        Code.APPLIED,
    ]


def test_a_proposal_that_lacks_no_approval_takes_effect_at_once(desk: Desk) -> None:
    full = desk.propose("clerk", TRANSFER, cosigners=["officer"])
    assert outcomes(desk.run(full)) == [(full.txid, Code.PROPOSED), (full.txid, Code.APPLIED)]
    needs_none = desk.propose("clerk", ("payments.check_purse", "a", 900))
    assert outcomes(desk.run(needs_none)) == [
        (needs_none.txid, Code.PROPOSED),
        (needs_none.txid, Code.APPLIED),
    ]
    assert desk.word(needs_none) == "executed"


def test_both_decisions_of_one_block_have_salts_of_their_own(desk: Desk) -> None:
    full = desk.propose("clerk", TRANSFER, cosigners=["officer"])
    first, second = desk.run(full).decisions
    assert not set(first.salts) & set(second.salts)


def test_one_transaction_may_approve_many(desk: Desk) -> None:
    two = [desk.stored("clerk", ("payments.transfer", "a", "b", n)) for n in (1, 2)]
    approval = desk.draft("officer", *[("charter.approve", each.txid) for each in two])
    assert outcomes(desk.run(approval)) == [
        (approval.txid, Code.APPLIED),
        (two[0].txid, Code.APPLIED),
        (two[1].txid, Code.APPLIED),
    ]
    assert desk.balance("purse", "a") == 997


def test_slices_do_not_change_what_proposals_come_to(desk: Desk) -> None:
    def block(desk: Desk) -> list[Transaction]:
        two = [desk.stored("clerk", ("payments.transfer", "a", "b", n)) for n in (1, 2)]
        calls = [("charter.approve", each.txid) for each in two]
        return [
            desk.draft("officer", *calls),
            desk.draft("clerk", ("payments.check_purse", "a", 9)),
        ]

    roots = []
    for size in (1, 2, 3, 100):
        other = Desk()
        made = block(other)
        roots.append(other.run(*made, slice_=size).results_root)
    assert len(set(roots)) == 1


# --- what could never succeed -------------------------------------------------------------------


def test_what_could_never_take_effect_is_refused_when_proposed(desk: Desk) -> None:
    register(desk, "ann")
    rename = ("identity.rename", person("ann"), "Anne")
    moved = desk.call(*TRANSFER)
    cases: list[tuple[str, tuple[Value, ...], object, Code]] = [
        ("officer", TRANSFER, (), Code.NOT_AUTHORIZED),
        ("clerk", ("payments.transfer", "a", "b", "many"), (), Code.BAD_INPUT),
        ("clerk", ("payments.transfer", "a", "nobody", 1), (), Code.NOT_FOUND),
        ("registrar", rename, (), Code.STALE),
        ("registrar", rename, [("person", person("ann"), 7)], Code.STALE),
    ]
    for author, call, expects, code in cases:
        decision = desk.one(desk.propose(author, call, expects=expects))
        assert decision.code == code
        row = desk.state.get(desk.ledger.paths("proposal", [decision.header.txid]))
        assert row is None
    other = type(moved)("payments", "transfer", bytes(32), moved.inputs, moved.params)
    assert desk.one(desk.draft("clerk", other, mode=PROPOSE)).code == Code.RULES_MOVED


def test_a_later_call_that_can_never_be_right_is_found_behind_one_that_may_become_right(
    desk: Desk,
) -> None:
    poor = ("payments.transfer", "a", "b", 99_999)
    assert desk.one(desk.propose("clerk", poor)).code == Code.PROPOSED
    wrong = desk.propose("clerk", poor, ("payments.transfer", "a", "b", "many"))
    decision = desk.one(wrong)
    assert (decision.code, decision.call) == (Code.BAD_INPUT, 1)


def test_what_may_change_by_itself_keeps_nobody_from_proposing(desk: Desk) -> None:
    poor = desk.stored("clerk", ("payments.transfer", "c", "b", 500))
    fund = desk.stored("clerk", ("payments.transfer", "main", "c", 500))
    desk.approve("officer", fund)
    desk.approve("officer", poor)
    assert desk.balance("purse", "b") == 1000
    assert desk.do("admin", *HOLD).code == Code.APPLIED
    assert desk.one(desk.propose("clerk", TRANSFER)).code == Code.PROPOSED


def test_the_life_of_a_proposal_is_bounded_by_the_charter(desk: Desk) -> None:
    latest_ms = desk.now_ms + 1000 + 48 * HOUR_MS
    late = desk.one(desk.propose("clerk", TRANSFER, not_after_ms=latest_ms + 1))
    assert (late.code, late.detail) == (Code.NOT_AFTER_TOO_FAR, [latest_ms + 1, latest_ms])
    latest_ms += 1000
    assert desk.one(desk.propose("clerk", TRANSFER, not_after_ms=latest_ms)).code == Code.PROPOSED
    over = desk.one(desk.propose("clerk", TRANSFER, not_after_ms=desk.now_ms))
    assert over.code == Code.EXPIRED


def test_acts_on_proposals_are_not_proposed(desk: Desk) -> None:
    proposed = desk.stored("clerk", TRANSFER)
    nested = desk.propose("officer", ("charter.approve", proposed.txid))
    decision = desk.one(nested)
    assert (decision.code, decision.detail) == (Code.UNSUPPORTED, "proposal")


# --- who may approve ------------------------------------------------------------------------------


def test_approvals_that_do_not_count_are_refused_with_the_reason(desk: Desk) -> None:
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    missing = [["role", "payments.officer", "missing"], ["role", "identity.officer", "missing"]]
    assert refusal(desk, "social", "approve", proposed) == (Code.NOT_AUTHORIZED, missing)
    code, detail = refusal(desk, "clerk", "approve", proposed)
    assert code == Code.NOT_AUTHORIZED
    assert ["author"] in detail
    desk.approve("officer", proposed)
    twice = ["TWICE", "this person has approved it already"]
    assert refusal(desk, "officer", "approve", proposed) == (Code.REQUIREMENT, twice)
    never = desk.draft("clerk", TRANSFER)
    unknown = ["proposal", ["proposal", [never.txid]]]
    assert refusal(desk, "officer", "approve", never) == (Code.NOT_FOUND, unknown)
    assert refusal(desk, "officer", "approve_protective", proposed) == (
        Code.BAD_INPUT,
        ["proposal", "it takes approve"],
    )


def test_one_act_does_not_approve_twice(desk: Desk) -> None:
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    both = [("charter.approve", proposed.txid)] * 2
    decision = desk.one(desk.draft("officer", *both))
    assert (decision.code, decision.call) == (Code.REQUIREMENT, 1)
    assert desk.proposal(proposed.txid).approvals == []


@pytest.mark.parametrize("end", ["executed", "stale", "withdrawn", "objected", "expired"])
def test_nothing_can_be_done_with_a_proposal_after_its_end(desk: Desk, end: str) -> None:
    amount = 5000 if end == "stale" else 100
    proposed = desk.stored("clerk", ("payments.transfer", "a", "b", amount))
    if end in ("executed", "stale"):
        desk.approve("officer", proposed)
    elif end == "withdrawn":
        desk.run(desk.act("clerk", "withdraw", proposed))
    elif end == "objected":
        desk.run(desk.act("auditor", "object", proposed, "too much"))
    else:
        desk.now_ms = proposed.not_after_ms
    for who, what, *inputs in (
        ("auditor", "approve"), ("auditor", "object", "no"), ("clerk", "withdraw")
    ):  # fmt: skip
        code, detail = refusal(desk, who, what, proposed, *inputs)
        assert (code, detail[0]) == (Code.REQUIREMENT, end.upper())
        assert desk.word(proposed) == end


# --- the moment of effect -------------------------------------------------------------------------


def test_a_proposal_whose_facts_have_moved_is_stale_and_says_why(desk: Desk) -> None:
    register(desk, "ann")
    rename = ("identity.rename", person("ann"), "Anne")
    named = [("person", person("ann"), 1)]
    first = desk.stored("registrar", rename, expects=named)
    second = desk.stored("registrar", rename, expects=named)
    assert [each.code for each in desk.approve("deputy", first).decisions][1] == Code.APPLIED
    result = desk.approve("deputy", second)
    decision = result.decisions[1]
    assert (decision.code, decision.header.state) == (Code.STALE, REFUSED)
    assert decision.detail == [["person", person("ann")], 2, ["name"]]
    assert desk.word(second) == "stale"
    found = desk.proposal(second.txid)
    assert found.end is not None
    assert found.end[3] == [int(Code.STALE), 0, decision.detail]
    assert result.proposals[0][1] == found


def test_holds_and_funds_are_looked_at_when_it_takes_effect(desk: Desk) -> None:
    held = desk.stored("clerk", TRANSFER)
    hold = desk.do("admin", *HOLD)
    assert hold.code == Code.APPLIED
    assert desk.approve("officer", held).decisions[1].code == Code.HELD
    poor = desk.stored("clerk", ("payments.transfer", "c", "b", 500))
    assert desk.approve("officer", poor).decisions[1].code == Code.INSUFFICIENT
    assert desk.word(held) == desk.word(poor) == "stale"


def test_a_proposal_that_lacks_approvals_does_not_become_stale(desk: Desk) -> None:
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "c", 500))
    result = desk.approve("officer", proposed)
    assert [each.code for each in result.decisions] == [Code.APPLIED]
    desk.run(desk.act("registrar", "approve", proposed))
    assert desk.word(proposed) == "open"
    fund = desk.stored("clerk", ("payments.transfer", "main", "c", 500))
    desk.approve("officer", fund)
    assert desk.approve("deputy", proposed).decisions[1].code == Code.APPLIED


def test_of_several_calls_all_must_be_approved_before_anything_makes_it_stale(desk: Desk) -> None:
    poor = ("payments.transfer", "c", "b", 500)
    more = ("payments.seed_purse", "new", "a", 5)
    proposed = desk.stored("clerk", poor, more)
    for who in ("officer", "registrar"):
        assert len(desk.approve(who, proposed).decisions) == 1
    decision = desk.approve("deputy", proposed).decisions[1]
    assert (decision.code, decision.call) == (Code.INSUFFICIENT, 0)


def test_a_later_call_may_rest_on_what_an_earlier_one_makes(desk: Desk) -> None:
    opens = ("payments.open_purse", "new")
    uses = ("payments.transfer", "a", "new", 7)
    proposed = desk.stored("clerk", opens, uses)
    assert desk.approve("officer", proposed).decisions[1].code == Code.APPLIED
    assert desk.balance("purse", "new") == 7


def test_of_what_an_earlier_call_will_make_a_role_is_enough_to_approve(desk: Desk) -> None:
    proposed = desk.stored(
        "registrar",
        ("identity.register", token("zed"), "Zed", "north"),
        ("identity.rename", person("zed"), "Zedd"),
        expects=[("person", person("zed"), 0)],
    )
    missing = [["not asked"], ["role", "identity.officer", "missing"]]
    assert refusal(desk, "officer", "approve", proposed) == (Code.NOT_AUTHORIZED, missing)
    assert refusal(desk, "registrar", "approve", proposed) == (Code.NOT_AUTHORIZED, [["author"]])
    assert desk.approve("deputy", proposed).decisions[1].code == Code.APPLIED
    assert desk.record("person", person("zed")).fields["name"] == "Zedd"


def test_grants_that_a_proposal_acts_under_are_judged_when_it_takes_effect(desk: Desk) -> None:
    nothing = desk.propose("clerk", TRANSFER, under=[token("no grant")])
    decision = desk.one(nothing)
    assert decision.code == Code.NOT_AUTHORIZED
    assert decision.detail == [["grant", token("no grant"), "missing"]]


# --- keys and people ------------------------------------------------------------------------------


def key_of(who: str) -> tuple[str, bytes, bytes]:
    agency = {"clerk": "treasury", "officer": "treasury", "auditor": "audit"}[who]
    return agency, token(who), public_key(who)


def revoke(desk: Desk, who: str, *, compromised: bool) -> None:
    desk_admin = desk.do("admin", "charter.revoke_key", *key_of(who), compromised)
    assert desk_admin.code == Code.APPLIED, desk_admin.detail


@pytest.mark.parametrize("compromised", [False, True])
def test_a_lost_key_keeps_its_proposals_and_a_compromised_one_loses_them(
    desk: Desk, compromised: bool
) -> None:
    proposed = desk.stored("clerk", TRANSFER)
    revoke(desk, "clerk", compromised=compromised)
    decision = desk.approve("officer", proposed).decisions[1]
    if compromised:
        assert decision.code == Code.KEY_INACTIVE
        assert decision.detail == [public_key("clerk"), "compromised"]
        assert desk.word(proposed) == "stale"
    else:
        assert decision.code == Code.APPLIED


@pytest.mark.parametrize("compromised", [False, True])
def test_a_lost_key_keeps_its_approvals_and_a_compromised_one_loses_them(
    desk: Desk, compromised: bool
) -> None:
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    desk.approve("officer", proposed)
    revoke(desk, "officer", compromised=compromised)
    desk.approve("registrar", proposed)
    assert len(desk.approve("deputy", proposed).decisions) == (1 if compromised else 2)


def test_who_approved_with_a_key_that_others_may_hold_approves_again_with_another(
    desk: Desk,
) -> None:
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    desk.approve("officer", proposed)
    revoke(desk, "officer", compromised=True)
    new = public_key("officer's new key")
    added = desk.do(
        "admin", "charter.add_key", "treasury", token("officer"), new, expects=[("key", [new], 0)]
    )
    assert added.code == Code.APPLIED, added.detail
    desk.approve("officer's new key", proposed)
    assert [row[0] for row in desk.proposal(proposed.txid).approvals] == [new]
    desk.approve("registrar", proposed)
    assert desk.approve("deputy", proposed).decisions[1].code == Code.APPLIED


def test_a_suspended_author_makes_a_complete_proposal_stale_and_not_an_incomplete_one(
    desk: Desk,
) -> None:
    suspend = ("charter.suspend_principal", "treasury", token("clerk"))
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    assert desk.do("admin", *suspend).code == Code.APPLIED
    for who in ("officer", "registrar"):
        assert len(desk.approve(who, proposed).decisions) == 1
        assert desk.word(proposed) == "open"
    decision = desk.approve("deputy", proposed).decisions[1]
    assert (decision.code, decision.detail) == (Code.SUSPENDED, ["principal", [token("clerk")]])


def test_an_approver_must_hold_the_role_at_the_moment_of_effect(desk: Desk) -> None:
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    desk.approve("officer", proposed)
    gone = ("charter.revoke_role", "treasury", token("officer"), "payments.officer")
    assert desk.do("admin", *gone).code == Code.APPLIED
    for who in ("registrar", "deputy"):
        assert len(desk.approve(who, proposed).decisions) == 1
    assert desk.approve("auditor", proposed).decisions[1].code == Code.APPLIED


def replaced(desk: Desk, who: str) -> str:
    """Replace somebody's key at once; return the name of the new one."""
    new = public_key(f"{who}'s new key")
    agency, id_, old = key_of(who)
    decision = desk.do(
        "admin",
        *("charter.replace_key", agency, id_, old, new, None),
        expects=[("key", [old], 1), ("key", [new], 0)],
    )
    assert decision.code == Code.APPLIED, decision.detail
    return f"{who}'s new key"


def test_a_replaced_key_keeps_what_it_proposed_and_approved(desk: Desk) -> None:
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    desk.approve("officer", proposed)
    replaced(desk, "clerk")
    again = replaced(desk, "officer")
    twice = ["TWICE", "this person has approved it already"]
    assert refusal(desk, again, "approve", proposed) == (Code.REQUIREMENT, twice)
    desk.approve("registrar", proposed)
    assert desk.approve("deputy", proposed).decisions[1].code == Code.APPLIED


def test_proposals_of_an_agency_that_left_go_on_with_its_successor(desk: Desk) -> None:
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    desk.approve("officer", proposed)
    for call, expects in (
        (("name_successor", "treasury", "audit"), [("agency", ["treasury"], 1)]),
        (
            ("accept_succession", "audit", "treasury"),
            [("agency", ["audit"], 1), ("agency", ["treasury"], 2)],
        ),
    ):
        decision = desk.do("admin", f"charter.{call[0]}", *call[1:], expects=expects)
        assert decision.code == Code.APPLIED, decision.detail
    desk.approve("registrar", proposed)
    done = desk.approve("deputy", proposed).decisions[1]
    assert done.code == Code.APPLIED
    authority: Any = done.value("authority")
    assert authority[0] == [token("clerk"), "audit", public_key("clerk")]
    assert desk.proposal(proposed.txid).agency == "treasury"


def test_a_revoked_or_suspended_approver_is_refused(desk: Desk) -> None:
    proposed = desk.stored("clerk", TRANSFER)
    revoke(desk, "officer", compromised=False)
    code, detail = refusal(desk, "officer", "approve", proposed)
    assert (code, detail) == (Code.KEY_INACTIVE, [public_key("officer"), "revoked"])


def test_the_author_must_have_the_power_at_the_moment_of_effect(desk: Desk) -> None:
    proposed = desk.stored("clerk", TRANSFER)
    gone = ("charter.revoke_role", "treasury", token("clerk"), "payments.clerk")
    assert desk.do("admin", *gone).code == Code.APPLIED
    decision = desk.approve("officer", proposed).decisions[1]
    assert decision.code == Code.NOT_AUTHORIZED
    assert decision.detail == [["role", "payments.clerk", "revoked"]]


# --- objecting and withdrawing ------------------------------------------------------------------


def test_whoever_may_approve_may_object_and_that_ends_it(desk: Desk) -> None:
    proposed = desk.stored("clerk", TRANSFER)
    missing = [["role", "payments.officer", "missing"]]
    assert refusal(desk, "social", "object", proposed, "no") == (Code.NOT_AUTHORIZED, missing)
    assert refusal(desk, "auditor", "object", proposed, "")[0] == Code.BAD_INPUT
    objection = desk.act("auditor", "object", proposed, "paid twice")
    result = desk.run(objection)
    assert [each.code for each in result.decisions] == [Code.APPLIED]
    found = desk.proposal(proposed.txid)
    by = [public_key("auditor"), token("auditor"), "audit"]
    assert found.end == [desk.now_ms, by, objection.txid, "paid twice"]


def test_who_approved_may_still_object(desk: Desk) -> None:
    proposed = desk.stored("clerk", ("payments.seed_purse", "new", "a", 5))
    desk.approve("officer", proposed)
    assert desk.one(desk.act("officer", "object", proposed, "after all not")).code == Code.APPLIED
    assert desk.word(proposed) == "objected"


def test_an_action_may_say_who_objects(desk: Desk) -> None:
    proposed = desk.stored("clerk", ("payments.open_purse", "new"))
    code, detail = refusal(desk, "officer", "object", proposed, "no")
    assert (code, detail) == (Code.NOT_AUTHORIZED, [["role", "benefits.officer", "missing"]])
    missing = [["role", "payments.officer", "missing"]]
    assert refusal(desk, "social", "approve", proposed) == (Code.NOT_AUTHORIZED, missing)
    assert desk.one(desk.act("social", "object", proposed, "no")).code == Code.APPLIED


def test_objections_need_approvals_to_object_to() -> None:
    text = PAYMENTS.replace(
        "[actions.open_purse]\n",
        '[actions.open_purse]\nobjections = { role = "payments.officer" }\n',
    )
    with pytest.raises(DecodeError, match="nobody is asked to approve the action"):
        founded(make_genesis((*TEXTS[:3], text)))


def test_a_change_of_who_objects_is_said_in_words() -> None:
    before = with_policies(PAYMENTS)
    after = before.replace("number = 1\n", "number = 2\n", 1)
    after = after.replace(OBJECTIONS, OBJECTIONS.replace("benefits", "identity"))
    others = [load_toml(text) for text in TEXTS[1:3]]
    (change,) = difference(load_toml(before), load_toml(after), others).changes
    assert change.part == "action open_purse"
    assert change.lines == (
        "- objections: role benefits.officer",
        "+ objections: role identity.officer",
    )


def test_an_objection_comes_before_an_approval_of_the_same_block(desk: Desk) -> None:
    proposed = desk.stored("clerk", TRANSFER)
    approval = desk.act("officer", "approve", proposed)
    objection = desk.act("auditor", "object", proposed, "no")
    assert outcomes(desk.run(approval, objection)) == [
        (objection.txid, Code.APPLIED),
        (approval.txid, Code.REQUIREMENT),
    ]


def test_the_author_or_an_office_of_the_agency_withdraws(desk: Desk) -> None:
    first = desk.stored("clerk", TRANSFER)
    for who in ("auditor", "officer"):
        assert refusal(desk, who, "withdraw", first) == (
            Code.NOT_AUTHORIZED,
            [["not the author"]],
        )
    assert desk.one(desk.act("clerk", "withdraw", first)).code == Code.APPLIED
    assert desk.word(first) == "withdrawn"
    register(desk, "ann")
    second = desk.stored("officer", ("payments.freeze", person("ann"), None))
    withdrawal = desk.act("clerk", "withdraw", second)  # an office: a system of the same agency
    assert desk.one(withdrawal).code == Code.APPLIED
    clerk = [public_key("clerk"), token("clerk"), "treasury"]
    assert desk.proposal(second.txid).end == [desk.now_ms, clerk, withdrawal.txid, None]


# --- protective -----------------------------------------------------------------------------------


def test_a_protective_proposal_is_approved_in_the_protective_lane(desk: Desk) -> None:
    register(desk, "ann")
    freeze = ("payments.freeze", person("ann"), None)
    proposed = desk.stored("officer", freeze)
    assert desk.proposal(proposed.txid).protective
    assert refusal(desk, "auditor", "approve", proposed) == (
        Code.BAD_INPUT,
        ["proposal", "it takes approve_protective"],
    )
    payment = desk.draft("clerk", ("payments.check_purse", "a", 1000))
    approval = desk.act("auditor", "approve_protective", proposed)
    assert outcomes(desk.run(payment, approval)) == [
        (approval.txid, Code.APPLIED),
        (proposed.txid, Code.APPLIED),
        (payment.txid, Code.APPLIED),
    ]
