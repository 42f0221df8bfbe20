"""What no file of an honest network says: a quorum signs it, and whoever reads it alone refuses.

Each bundle is valid but for one thing, and is certified anew with that in it.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from consensus import codec, signing
from consensus.errors import DecodeError, LocalProtocolError
from consensus.evidence import making
from consensus.evidence.bundle import Bundle, Sealed
from consensus.evidence.stages import FailedError
from consensus.evidence.verify import verify
from consensus.evidence.witness import SingleLeaf
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert
from consensus.ledger import group, private
from consensus.ledger.codes import Code
from consensus.ledger.decision import REFUSED, Decision, decode
from consensus.ledger.executor import BlockContext
from consensus.ledger.proposals import EXECUTED, OPEN, Proposal
from consensus.ledger.transaction import PROPOSE, Unsigned
from consensus.signing import TAG_COMMIT_VOTE
from consensus.state import salted
from consensus.state.merkle import RESULTS
from tests.consensus.evidence.test_bundle import populated, sealed
from tests.consensus.evidence.town import AGENCIES, Town, sign
from tests.consensus.ledger import test_proposal_bounds as bounds
from tests.consensus.ledger import test_sealing
from tests.consensus.ledger.test_reversal import REVERSE, _genesis, lend
from tests.consensus.ledger.world import public_key


def refused(town: Town, bundle: Bundle, chain: bytes = b"") -> tuple[str, str]:
    """The stage at which a bundle fails, and what is said."""
    with pytest.raises((FailedError, DecodeError)) as caught:
        verify(sealed(bundle), chain or town.ledger.chain)
    return getattr(caught.value, "stage", "malformed"), caught.value.message


def certified(town: Town, decision: Decision, bundle: Bundle, **said: Any) -> Bundle:
    """The bundle as a quorum certifies it with this decision, and with this in the statement."""
    own = town.statements[decision.header.height]
    own = replace(own, results_root=RESULTS.root([decision.root]), **said)
    message = signing.message(TAG_COMMIT_VOTE, own.chain, own.encode())
    rows = tuple((i, sign(f"validator {AGENCIES[i]}", message)) for i in range(3))
    certificate = wire.encode_commit_cert(CommitCert(own, rows))
    return replace(bundle, certificate=certificate, decision=decision.encode())


def other(decision: Decision, **leaves: Any) -> Decision:
    """The decision with other leaves; None: without."""
    kept = {**decision.leaves, **{name: codec.encode(value) for name, value in leaves.items()}}
    names = [name for name in kept if leaves.get(name, 0) is not None]
    salts = [decision.salts[list(decision.leaves).index(name)] for name in names]
    return Decision(
        decision.header_cbor,
        decision.kh,
        {name: kept[name] for name in names},
        [*salts, *decision.salts[len(decision.leaves) :]][: len(decision.salts)],
    )


def headed(decision: Decision, at: int, value: Any) -> Decision:
    """The decision with another item in its header."""
    header = codec.parse(decision.header_cbor)
    header[at] = value
    return Decision(codec.encode(header), decision.kh, decision.leaves, decision.salts)


def reread(
    town: Town, bundle: Bundle, decision: Decision, place: tuple[str, list[Any]], value: bytes
) -> tuple[Bundle, Decision]:
    """The bundle and the decision as if a leaf that it read had been another."""
    old = next(each for each in bundle.witness if (each.space, each.components) == place)
    assert isinstance(old, SingleLeaf)
    new = replace(old, value=value)
    kh = town.ledger.paths(*place)
    pairs, moved = codec.parse(decision.leaves["reads"])
    assert pairs.count(kh + old.vh(kh)) == 1
    pairs = pairs.replace(kh + old.vh(kh), kh + new.vh(kh))
    witness = tuple(new if each is old else each for each in bundle.witness)
    return replace(bundle, witness=witness), other(decision, reads=[pairs, moved])


@cache
def paid() -> tuple[Town, Decision, Bundle]:
    """A transfer in a block of its own, which is the newest."""
    town = populated()
    decision = town.do("clerk", "payments.transfer", "a", "b", 7)
    return town, decision, town.bundle(decision)


@cache
def denied() -> tuple[Town, Decision, Bundle]:
    """A transfer by somebody who may not."""
    town = populated()
    decision = town.do("social", "payments.transfer", "a", "b", 7)
    return town, decision, town.bundle(decision)


def test_what_is_certified_anew_and_not_changed_holds() -> None:
    for town, decision, bundle in (paid(), denied()):
        again = certified(town, decision, bundle)
        assert again == bundle
        assert verify(sealed(again), town.ledger.chain).judged


# --- the decision -------------------------------------------------------------------------------


def test_a_statement_is_of_the_time_and_the_executor_of_its_decisions() -> None:
    town, decision, bundle = paid()
    for said in ({"time_ms": decision.header.time_ms + 1}, {"executor": 2}):
        stage, message = refused(town, certified(town, decision, bundle, **said))
        assert (stage, "differ in time or executor" in message) == ("decision", True)


def test_another_amount_than_the_rules_give_is_named() -> None:
    """It is tried with every balance that the account may have had; the first one speaks."""
    town, decision, bundle = paid()
    rows = codec.parse(decision.leaves["moves:payments"])
    rows[0][2] -= 1
    false = other(decision, **{"moves:payments": rows})
    stage, message = refused(town, certified(town, false, bundle))
    assert stage == "judgement"
    assert message.endswith("run again, the decision differs in its moves:payments")


def test_another_reason_of_a_refusal_is_named_with_both() -> None:
    town, decision, bundle = denied()
    code = codec.parse(decision.leaves["code"])
    stage, message = refused(
        town, certified(town, other(decision, code=[code[0] + 1, *code[1:]]), bundle)
    )
    assert stage == "judgement"
    false = other(decision, code=[code[0] + 1, *code[1:]]).code.name
    assert message.endswith(f"differs in its code: {decision.code.name} instead of {false}")


def test_an_outcome_of_another_kind_is_named() -> None:
    town, decision, bundle = paid()
    stage, message = refused(town, certified(town, headed(decision, 4, REFUSED), bundle))
    assert stage == "judgement"
    assert "run again, the outcome is APPLIED" in message


# --- what was read ------------------------------------------------------------------------------


def test_a_decision_that_says_not_what_it_read_shows_nothing() -> None:
    town, decision, bundle = paid()
    stage, message = refused(town, certified(town, other(decision, reads=None), bundle))
    assert (stage, "is not as the decision found it" in message) == ("witness", True)
    full, only = codec.parse(decision.leaves["reads"])
    for reads in ([full[:-1], only], [full, only + b"x"]):
        stage, message = refused(town, certified(town, other(decision, reads=reads), bundle))
        assert (stage, message.endswith("reads of the decision are malformed")) == ("witness", True)


def test_rules_that_were_not_in_force_are_not_judged_by() -> None:
    town, decision, bundle = paid()
    place = ("rules", ["payments"])
    head = next(each for each in bundle.witness if (each.space, each.components) == place)
    assert isinstance(head, SingleLeaf)
    value = codec.parse(head.value)
    assert value[1] == [[1, value[1][0][1]]]
    value[1] = [[2, value[1][0][1]]]
    spoiled, false = reread(town, bundle, decision, place, codec.encode(value))
    stage, message = refused(town, certified(town, false, spoiled))
    assert (stage, "another rule set of payments was in force" in message) == ("witness", True)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (b"\xff", "the rules cannot be run on it"),
        (codec.encode([1]), "it is malformed (TypeError)"),
    ],
)
def test_a_leaf_of_no_form_does_no_harm(value: bytes, said: str) -> None:
    town, decision, bundle = paid()
    place = next(
        (each.space, list(each.components)) for each in bundle.witness if each.space == "principal"
    )
    spoiled, false = reread(town, bundle, decision, place, value)
    stage, message = refused(town, certified(town, false, spoiled))
    assert (stage, said in message) == ("judgement", True), message


def agreed() -> tuple[Town, Decision, Bundle]:
    """What an approval brought about, as if it alone had been decided in its block."""
    town = Town(bounds.genesis())
    proposed = town.draft(
        "clerk", ("payments.wait", 0), mode=PROPOSE, not_after_ms=town.now_ms + 1_000_000
    )
    assert town.one(proposed).code == Code.PROPOSED
    _, effect = town.run(town.draft("officer", ("charter.approve", proposed.txid))).decisions
    assert effect.code == Code.APPLIED
    bundle = replace(town.bundle(effect), total=1, path=())
    return town, decode(headed(effect, 2, 0).encode()), bundle


def test_a_proposal_that_lacks_approvals_had_no_effect() -> None:
    town, effect, bundle = agreed()
    assert verify(sealed(certified(town, effect, bundle)), town.ledger.chain).judged
    place = ("proposal", [effect.header.txid])
    leaf = next(each for each in bundle.witness if (each.space, each.components) == place)
    assert isinstance(leaf, SingleLeaf)
    value = codec.parse(leaf.value)
    [at] = [
        at
        for at, each in enumerate(value)
        if type(each) is list and each and type(each[0]) is list and len(each[0]) == 5
    ]
    value[at] = []
    spoiled, false = reread(town, bundle, effect, place, codec.encode(value))
    stage, message = refused(town, certified(town, false, spoiled))
    assert (stage, message.endswith("still lacks approvals")) == ("judgement", True), message


def test_a_proposal_that_had_ended_had_no_effect() -> None:
    town, effect, bundle = agreed()
    place = ("proposal", [effect.header.txid])
    leaf = next(each for each in bundle.witness if (each.space, each.components) == place)
    assert isinstance(leaf, SingleLeaf)
    value = codec.parse(leaf.value)
    at = Proposal._fields.index("state")
    assert value[at] == OPEN
    value[at] = EXECUTED
    spoiled, false = reread(town, bundle, effect, place, codec.encode(value))
    stage, message = refused(town, certified(town, false, spoiled))
    assert (stage, message.endswith("still lacks approvals")) == ("judgement", True), message


def test_a_draft_is_that_of_its_proposal() -> None:
    town, effect, bundle = agreed()
    place = ("proposal", [effect.header.txid, "draft"])
    spoiled, false = reread(town, bundle, effect, place, codec.encode(bytes(32)))
    stage, message = refused(town, certified(town, false, spoiled))
    assert (stage, message.endswith("a draft is of another proposal")) == ("witness", True), message


# --- what came later ----------------------------------------------------------------------------


@cache
def reversed_() -> tuple[Town, Bundle, Bundle]:
    """The bundle of an act that was taken back, and that of the act that did."""
    town = Town(_genesis(REVERSE))  # type: ignore[arg-type]
    made = lend(town)
    town.run()
    data = town.evidence(made, made.header.height + 1).encode()
    back = town.do("admin", "charter.reverse", made.header.txid, data)
    assert back.code == Code.APPLIED
    return town, town.bundle(made), town.bundle(back)


def test_what_came_later_is_what_the_state_holds() -> None:
    town, taken, _ = reversed_()
    leaf = taken.later.leaf
    assert leaf is not None
    paid_town, _, bundle = paid()
    cases: list[tuple[Town, Bundle, Any, str]] = [
        (paid_town, bundle, leaf, "a correction is shown that the state does not have"),
        (town, taken, None, "the state has a correction that is not shown"),
        (town, taken, (leaf[0] + 1, *leaf[1:]), "the correction is not the one"),
        (town, taken, (*leaf[:2], codec.encode([bytes(32)])), "the correction is not the one"),
    ]
    for where, file, shown, said in cases:
        forged = replace(file, later=replace(file.later, leaf=shown))
        stage, message = refused(where, forged)
        assert (stage, said in message) == ("since", True)


def test_what_came_later_is_proved_at_a_height_that_is_shown() -> None:
    town, _, bundle = paid()
    proof = codec.parse(bundle.later.proof)
    proof[1] -= 1
    forged = replace(bundle, later=replace(bundle.later, proof=codec.encode(proof)))
    stage, message = refused(town, forged)
    assert (stage, f"the statement of height {proof[1]} is not shown" in message) == ("since", True)


def test_each_rule_set_that_nobody_read_is_proved() -> None:
    town, _, bundle = paid()
    rules = (*bundle.later.rules, (1, bytes(16)))
    forged = replace(bundle, later=replace(bundle.later, rules=rules))
    stage, message = refused(town, forged)
    assert (stage, "another number of rule sets" in message) == ("since", True)


def test_a_reversal_is_not_judged_without_the_history_that_it_rests_on() -> None:
    town, _, back = reversed_()
    assert verify(sealed(back), town.ledger.chain).judged
    assert len(back.statements) == 1
    stage, message = refused(town, replace(back, statements=()))
    assert stage == "judgement"
    assert "is needed and not shown" in message


# --- who signed, and the private part -----------------------------------------------------------


def test_a_private_part_is_of_the_form_that_its_calls_ask_for() -> None:
    town, _, bundle = paid()
    part = bundle.private
    for changed, said in (
        (replace(part, leaves=part.leaves * 3), "other leaves than its calls ask for"),
        (replace(part, decoys=(*part.decoys, bytes(32))), "another number of decoys"),
    ):
        stage, message = refused(town, replace(bundle, private=changed))
        assert (stage, said in message) == ("transaction", True)


def test_the_signers_of_a_group_ascend_and_all_of_them_sign_the_act() -> None:
    town = populated()
    unsigned = [Unsigned(town.draft("clerk", ("payments.transfer", "a", "b", 7)), b"")]
    message = group.group_message(town.ledger.chain, 1, group.group_root(unsigned))
    whole = group.build(unsigned, [(public_key("clerk"), sign("clerk", message))])
    bundle = town.bundle(town.one(whole.transactions[0]), group=whole)
    assert bundle.group is not None
    [row] = bundle.group.signatures
    foreign = (public_key("officer"), sign("officer", message))
    for rows, said in (
        ([row, row], "signers ascend"),
        (sorted([row, foreign], reverse=True), "signers ascend"),
        (sorted([row, foreign]), "somebody who is no signer"),
    ):
        forged = replace(bundle, group=replace(bundle.group, signatures=tuple(rows)))
        stage, said_ = refused(town, forged)
        assert said in said_, stage


def without_acks(town: Town, bundle: Bundle, calls: int) -> Bundle:
    """The bundle of the clerk's first act with what nodes have acknowledged hidden."""
    leaves = bundle.private.leaves
    salt, opening = leaves[-1]
    kh = private.slot(town.ledger.chain, public_key("clerk"), 1)
    hidden = salted.leaf_hash(kh, private.leaf_names(calls, len(leaves))[-1], 0, salt, opening)
    return replace(bundle, private=replace(bundle.private, leaves=(*leaves[:-1], hidden)))


def test_an_outcome_is_not_judged_without_the_acknowledgements_that_it_rests_on() -> None:
    town = Town(test_sealing.GENESIS)
    iban = test_sealing.opening(town, "DE02")
    decision = test_sealing.decide(town, iban, acks=test_sealing.acks_of(town, iban))
    bundle = town.bundle(decision)
    assert verify(sealed(bundle), town.ledger.chain).judged
    stage, message = refused(town, without_acks(town, bundle, 1))
    assert (stage, "the rules cannot be run on it" in message) == ("judgement", True), message


def test_acknowledgements_may_be_hidden_where_nothing_is_judged_by_them() -> None:
    town = Town(test_sealing.GENESIS)
    iban = test_sealing.opening(town, "DE02")
    acks = test_sealing.acks_of(town, iban)
    calls = (("files.open", "x", test_sealing.SINCE, iban.commitment, None),
             ("payments.transfer", "a", "b", 10**9))  # fmt: skip
    draft = town.draft("clerk", *calls, expects=[("file", ["x"], 0)], acks=acks)
    decision = town.one(draft)
    assert decision.code == Code.INSUFFICIENT
    bundle = town.bundle(decision)
    for file in (bundle, without_acks(town, bundle, 2)):
        assert not verify(sealed(file), town.ledger.chain).judged


def test_a_bundle_is_encoded_in_one_way() -> None:
    town, _, bundle = paid()
    content = bundle.content()
    count = content[0] - 0x80
    longer = b"\x98" + bytes([count]) + content[1:]
    with pytest.raises(DecodeError, match="not the canonical encoding"):
        verify(Sealed(longer).encode(), town.ledger.chain)


# --- making -------------------------------------------------------------------------------------


def test_a_node_makes_no_bundle_of_a_decision_that_it_does_not_come_to_itself() -> None:
    town, decision, _ = paid()
    rows = codec.parse(decision.leaves["moves:payments"])
    rows[0][2] -= 1
    with pytest.raises(LocalProtocolError, match="comes out differently"):
        town.bundle(other(decision, **{"moves:payments": rows}))


def test_a_node_makes_no_bundle_of_a_decision_that_the_block_does_not_have() -> None:
    town, decision, _ = paid()
    header = decision.header
    context = BlockContext(1, header.height, header.time_ms, history=town.history.root)
    with pytest.raises(LocalProtocolError, match="the block has no decision 1"):
        making.trace(
            town.ledger.apart(),
            town.past[header.height - 1],
            context,
            town.payloads[header.height],
            1,
            (),
        )
