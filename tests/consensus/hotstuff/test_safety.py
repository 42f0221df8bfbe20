"""Every promise of a key, one test per sentence of the rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from consensus.errors import LocalProtocolError
from consensus.hotstuff.events import FOLLOWER, NEVER, Sign, Signed
from consensus.hotstuff.safety import PENDING_MAX, Refused, Safety, TwoChain
from consensus.hotstuff.types import (
    Block,
    CommitCert,
    CommitVote,
    Proposal,
    QuorumCert,
    SafetyRecord,
    SignKind,
    Statement,
    Timeout,
    TimeoutCert,
    Vote,
    first_record,
    next_record,
)
from consensus.hotstuff.wire import (
    COMMIT_VOTES_MAX,
    SIGNED_TIMEOUTS_MAX,
    decode_record,
    encode_record,
)

from . import builders as make
from .driver import CHAIN, committee_among, sign

OWN = 0
B1, B2, B3, B4 = make.chain(1, 2, 3, 4)
QC1, QC2, QC3, QC4 = (make.quorum_cert(block) for block in (B1, B2, B3, B4))


def safety(record: SafetyRecord | None = None, own: int = OWN) -> Safety:
    return Safety(CHAIN, make.COMMITTEE, own, record or first_record(make.GENESIS))


def signed(key: Safety, request: Sign | Refused) -> Proposal | Vote | Timeout | CommitVote:
    """Give the signature that was asked for."""
    assert isinstance(request, Sign), request
    signature = sign(OWN, request.kind, request.body)
    return key.signed(Signed(request.kind, request.body, signature))


def rule(request: Sign | Refused) -> str:
    assert isinstance(request, Refused), "it was allowed"
    return request.rule


def enter(key: Safety, certificate: QuorumCert | TimeoutCert) -> None:
    key.enter(certificate)


def restarted(key: Safety) -> Safety:
    """What a crash leaves: the durable record, through its bytes."""
    return safety(decode_record(encode_record(key.record())))


def gave_up(round_: int, high: QuorumCert) -> TimeoutCert:
    return make.timeout_cert(round_, high)


# --- rule 1: propose ----------------------------------------------------------------------------


def test_leader_proposes_once_per_round() -> None:
    key = safety(own=1)
    message = key.propose(B1)
    assert isinstance(message, Sign)
    assert (message.kind, message.round, message.body) == (SignKind.PROPOSAL, 1, B1.id)
    other = replace(B1, time_ms=B1.time_ms + 1)
    assert rule(key.propose(other)) == "proposed in this round already"
    assert rule(key.propose(B1)) == "proposed in this round already"


def test_only_the_leader_proposes_and_only_in_its_round() -> None:
    assert "leader" in rule(safety(own=2).propose(B1))
    key = safety(own=1)
    enter(key, QC1)
    assert rule(key.propose(B1)) == "not the current round"


def test_nothing_is_proposed_in_a_round_given_up() -> None:
    key = safety(own=1)
    assert isinstance(key.timeout(), Sign)
    assert rule(key.propose(B1)) == "this round was given up"


def test_proposal_with_broken_links_is_not_signed() -> None:
    assert "height" in rule(safety(own=1).propose(replace(B1, height=5)))


# --- rule 2: vote -------------------------------------------------------------------------------


def test_vote_once_per_round() -> None:
    key = safety()
    request = key.vote(B1)
    assert isinstance(request, Sign)
    assert (request.kind, request.epoch, request.round) == (SignKind.VOTE, 1, 1)
    assert request.body == make.vote(B1, 0).body
    assert rule(key.vote(replace(B1, time_ms=B1.time_ms + 1))) == "voted in this round already"
    assert rule(key.vote(B1)) == "voted in this round already"


def test_lesson_11_double_vote_guard_holds_from_the_moment_of_asking_and_after_restart() -> None:
    key = safety()
    signed(key, key.vote(B1))
    again = restarted(key)
    assert rule(again.vote(replace(B1, time_ms=B1.time_ms + 1))) == "voted in this round already"


def test_no_vote_in_a_round_given_up() -> None:
    key = safety()
    signed(key, key.timeout())
    assert rule(key.vote(B1)) == "this round was given up"
    assert rule(restarted(key).vote(B1)) == "this round was given up"


def test_no_vote_outside_the_current_round() -> None:
    key = safety()
    assert rule(key.vote(B2)) == "not the current round"
    enter(key, QC2)
    assert rule(key.vote(B2)) == "not the current round"


def test_vote_on_a_skipped_round_needs_the_timeout_certificate_and_its_highest() -> None:
    key = safety()
    enter(key, gave_up(3, QC2))
    good = make.block(QC2, 4, entry=gave_up(3, QC2))
    assert "no timeout certificate" in rule(key.vote(replace(good, timeout_cert=None)))
    below = make.block(QC1, 4, entry=make.timeout_cert(3, QC2, [(0, 1), (1, 2), (2, 1)]))
    assert "below" in rule(key.vote(below))
    assert isinstance(key.vote(good), Sign)


def test_no_vote_before_the_blocks_certificate_is_kept() -> None:
    key = safety()
    key.entry_cert, key.round = QC1, 2
    assert rule(key.vote(B2)) == "the block's certificate is not kept"


# --- rule 6: timeout ----------------------------------------------------------------------------


def test_timeout_carries_the_highest_certificate_and_comes_once() -> None:
    key = safety()
    enter(key, QC2)
    message = signed(key, key.timeout())
    assert isinstance(message, Timeout)
    assert (message.round, message.high_round, message.high_qc) == (3, 2, QC2)
    assert message.timeout_cert is None
    assert rule(key.timeout()) == "this round was given up already"
    assert rule(restarted(key).timeout()) == "this round was given up already"


def test_lesson_2_timeout_carries_the_certificate_that_entered_the_round() -> None:
    key = safety()
    enter(key, QC1)
    proof = gave_up(2, QC1)
    enter(key, proof)
    message = signed(key, key.timeout())
    assert isinstance(message, Timeout)
    assert (message.round, message.high_round, message.timeout_cert) == (3, 1, proof)


def test_late_certificate_of_the_round_before_replaces_the_proof_of_entry() -> None:
    key = safety()
    enter(key, gave_up(2, QC1))
    key.learn_quorum(QC2)
    message = signed(key, key.timeout())
    assert isinstance(message, Timeout)
    assert (message.high_round, message.timeout_cert) == (2, None)


def test_timeout_never_below_the_last_voted_round() -> None:
    record = replace(first_record(make.GENESIS), last_vote=make.vote(B3, OWN))
    assert rule(safety(record).timeout()) == "below the last voted round"


def test_entering_by_timeout_certificate_keeps_its_highest_certificate() -> None:
    """Mutant: whoever enters by it and reports less would undo what it proves."""
    key = safety()
    enter(key, gave_up(3, QC2))
    assert (key.round, key.high_qc) == (4, QC2)


# --- rule 8: rounds -----------------------------------------------------------------------------


def test_any_certificate_moves_to_its_round_plus_one_and_never_back() -> None:
    key = safety()
    assert key.round == 1
    far = replace(QC1, round=1_000_000)
    assert key.enter(far)
    assert key.round == 1_000_001
    assert not key.enter(QC4)
    assert not key.enter(gave_up(5, QC4))
    assert key.round == 1_000_001


# --- rule 4: commit vote ------------------------------------------------------------------------


def executed(key: Safety, block: Block, proof: TwoChain | None = None) -> Sign | Refused:
    return key.commit_vote(make.statement(block), proof)


def test_commit_vote_signs_the_statement_once_per_round() -> None:
    key = safety()
    enter(key, QC1)
    request = executed(key, B1)
    assert isinstance(request, Sign)
    assert request.body == make.statement(B1).encode()
    assert not request.two_chain
    other = make.statement(B1, root=b"x" * 32)
    assert rule(key.commit_vote(other, None)) == "commit-voted in this round already"
    signed(key, request)
    assert rule(restarted(key).commit_vote(other, None)) == "commit-voted in this round already"


def test_lesson_9_commit_vote_is_refused_after_timeout_of_same_round() -> None:
    key = safety()
    signed(key, key.timeout())  # round 1, knowing only round 0
    enter(key, QC1)
    assert "timeout reported a lower certificate" in rule(executed(key, B1))
    assert "timeout reported a lower certificate" in rule(executed(restarted(key), B1))


def test_commit_vote_is_refused_after_timeout_of_a_later_round_that_reported_less() -> None:
    key = safety()
    enter(key, QC1)
    enter(key, gave_up(2, QC1))
    signed(key, key.timeout())  # round 3, high round 1
    key.learn_quorum(QC2)
    assert "timeout" in rule(executed(key, B2))


def test_commit_vote_is_allowed_after_timeouts_that_reported_the_block_or_came_before_it() -> None:
    key = safety()
    signed(key, key.timeout())  # round 1, high 0: before round 2
    enter(key, QC1)
    enter(key, QC2)
    signed(key, key.timeout())  # round 3, high 2: reports the block
    assert isinstance(executed(key, B2), Sign)


def test_commit_vote_needs_the_blocks_certificate_kept() -> None:
    assert "not kept" in rule(executed(safety(), B1))


def test_commit_vote_below_the_last_one_needs_the_two_chain() -> None:
    key = safety()
    enter(key, QC3)
    assert isinstance(executed(key, B2), Sign)
    assert "no two-chain" in rule(executed(key, B1))
    request = executed(key, B1, TwoChain(QC2, (B2, B1)))
    assert isinstance(request, Sign)
    assert request.two_chain


def test_two_chain_exempts_from_the_timeout_guard() -> None:
    key = safety()
    signed(key, key.timeout())
    enter(key, QC2)
    request = executed(key, B1, TwoChain(QC2, (B2, B1)))
    assert isinstance(request, Sign)
    assert request.two_chain


def test_two_chain_above_the_block_exempts_it_too() -> None:
    key = safety()
    signed(key, key.timeout())
    enter(key, QC3)
    assert isinstance(executed(key, B1, TwoChain(QC3, (B3, B2, B1))), Sign)


FORK = make.block(QC1, 3, entry=gave_up(2, QC1))
SKIP = make.chain(1, 3)


@pytest.mark.parametrize(
    ("proof", "why"),
    [
        (TwoChain(make.quorum_cert(SKIP[1]), (SKIP[1], SKIP[0])), "not consecutive"),
        (TwoChain(QC1, (B2, B1)), "child is not ordered"),
        (TwoChain(replace(QC2, block_id=B3.id), (B2, B1)), "child is not ordered"),
        (TwoChain(QC3, (B3, B2)), "another block"),
        (TwoChain(QC3, (B3, B1)), "not ordered by its child"),
        (TwoChain(QC4, (B4, B3, FORK, B1)), "no chain"),
        (TwoChain(QC1, (B1,)), "at least two"),
    ],
    ids=[
        "lesson 5: skipped round",
        "child unordered",
        "other child",
        "other",
        "gap",
        "fork",
        "one",
    ],
)
def test_two_chain_that_proves_nothing_is_our_own_bug(proof: TwoChain, why: str) -> None:
    key = safety()
    signed(key, key.timeout())
    enter(key, QC4)
    with pytest.raises(LocalProtocolError, match=why):
        executed(key, B1, proof)


def test_nothing_is_commit_voted_at_or_below_the_newest_commit_certificate() -> None:
    key = safety()
    enter(key, QC3)
    key.learn_commit(make.commit_cert(make.statement(B2)))
    assert rule(executed(key, B2)) == "certified already"
    assert rule(executed(key, B1, TwoChain(QC2, (B2, B1)))) == "certified already"
    assert isinstance(executed(key, B3), Sign)


def test_statement_of_another_epoch_is_never_signed() -> None:
    key = safety()
    enter(key, QC1)
    with pytest.raises(LocalProtocolError, match="epoch"):
        key.commit_vote(replace(make.statement(B1), epoch=2), None)


SECOND = committee_among(2, (0, 1, 2, 3, 4))
END = make.commit_cert(replace(make.statement(B1), next_committee_hash=SECOND.hash))


def test_next_epoch_starts_in_round_1_from_the_block_that_ended_the_last() -> None:
    key = Safety(CHAIN, SECOND, OWN, next_record(END))
    assert (key.round, key.high_qc.round, key.high_qc.block_id) == (1, 0, B1.id)
    assert key.commit_cert is None
    assert key.record().commit_cert == END
    request = key.timeout()
    assert isinstance(request, Sign)
    assert (request.epoch, request.round) == (2, 1)


def test_rounds_of_the_last_epoch_settle_nothing_in_the_next() -> None:
    late = replace(make.statement(B1), round=500, next_committee_hash=SECOND.hash)
    key = Safety(CHAIN, SECOND, OWN, next_record(make.commit_cert(late)))
    start = key.high_qc
    child = Block(2, 1, 2, start.block_id, start, None, 10**9, (), SECOND.hash)
    assert isinstance(key.vote(child), Sign)
    signature = bytes(64)
    rows = tuple((i, signature) for i in range(SECOND.quorum))
    key.learn_quorum(QuorumCert(2, 1, child.id, 2, rows))
    first = Statement(CHAIN, 2, 1, 2, child.id, 10**9, 1, *(bytes(32),) * 4, None)
    assert isinstance(key.commit_vote(first, None), Sign)
    assert key.learn_commit(CommitCert(first, rows))
    assert key.record().commit_cert == CommitCert(first, rows)


def test_block_of_the_last_epoch_gets_no_signature_in_the_next() -> None:
    key = Safety(CHAIN, SECOND, OWN, next_record(END))
    assert isinstance(key.vote(B1), Refused)
    assert isinstance(key.propose(B1), Refused)
    with pytest.raises(LocalProtocolError, match="epoch"):
        key.commit_vote(make.statement(B1), None)
    with pytest.raises(LocalProtocolError, match="epoch"):
        key.learn_commit(END)


@pytest.mark.parametrize(
    "statement",
    [
        replace(make.statement(B1), next_committee_hash=make.COMMITTEE.hash),
        replace(make.statement(B1), next_committee_hash=bytes(32)),
        replace(make.statement(B1), epoch=3, next_committee_hash=SECOND.hash),
    ],
)
def test_record_begun_by_another_committees_certificate_is_refused(statement: Statement) -> None:
    record = replace(next_record(END), commit_cert=make.commit_cert(statement))
    with pytest.raises(LocalProtocolError, match="not begun"):
        Safety(CHAIN, SECOND, OWN, record)


def test_epoch_without_an_end_has_no_next_record() -> None:
    with pytest.raises(LocalProtocolError):
        next_record(make.commit_cert(make.statement(B1)))


def test_follower_is_refused_every_signature() -> None:
    key = safety(own=FOLLOWER)
    enter(key, QC1)
    assert isinstance(key.vote(B2), Refused)
    assert isinstance(key.timeout(), Refused)
    assert isinstance(key.propose(B2), Refused)
    assert isinstance(key.commit_vote(make.statement(B1), None), Refused)


# --- the record ---------------------------------------------------------------------------------


def test_timeout_pairs_leave_only_with_the_certificate_that_settles_them() -> None:
    key = safety()
    signed(key, key.timeout())  # (1, 0)
    enter(key, QC1)
    enter(key, QC2)
    signed(key, key.timeout())  # (3, 2)
    assert key.record().signed_timeouts == ((1, 0), (3, 2))
    key.learn_commit(make.commit_cert(make.statement(B1)))
    record = key.record()
    assert record.signed_timeouts == ((3, 2),)
    assert record.commit_cert is not None


def test_of_timeouts_with_one_high_round_the_latest_stays() -> None:
    key = safety()
    for round_ in (1, 2, 3):
        signed(key, key.timeout())
        enter(key, gave_up(round_, make.GENESIS_QC))
    assert key.record().signed_timeouts == ((3, 0),)
    key.learn_quorum(QC2)
    assert "timeout" in rule(executed(key, B2))


def test_commit_votes_leave_the_record_once_settled() -> None:
    key = safety()
    enter(key, QC2)
    signed(key, executed(key, B1))
    signed(key, executed(key, B2))
    assert [vote.round for vote in key.record().commit_votes] == [1, 2]
    key.learn_commit(make.commit_cert(make.statement(B1)))
    assert [vote.round for vote in key.record().commit_votes] == [2]


def test_older_commit_certificate_changes_nothing() -> None:
    key = safety()
    newest = make.commit_cert(make.statement(B2))
    assert key.learn_commit(newest)
    assert not key.learn_commit(make.commit_cert(make.statement(B1)))
    assert key.commit_cert == newest


def fake_statement(round_: int) -> Statement:
    return replace(make.statement(B1), round=round_, height=round_, block_id=bytes([round_]) * 32)


def test_commit_votes_are_bounded_and_what_is_dropped_is_never_signed_again() -> None:
    key = safety()
    key.enter(replace(QC1, round=1000))
    for round_ in range(1, COMMIT_VOTES_MAX + 2):
        signed(key, key.commit_vote(fake_statement(round_), None))
    record = key.record()
    assert len(record.commit_votes) == COMMIT_VOTES_MAX
    assert record.commit_floor == 1
    for again in (key, restarted(key)):
        assert "floor" in rule(executed(again, B1, TwoChain(QC2, (B2, B1))))


def timeout_history(count: int) -> Sequence[tuple[int, int]]:
    key = safety()
    for step in range(1, count + 1):
        round_ = 2 * step
        key.enter(replace(QC1, round=round_))
        signed(key, key.timeout())
        assert len(key.record().signed_timeouts) <= SIGNED_TIMEOUTS_MAX
    return key.record().signed_timeouts


def test_timeout_pairs_are_bounded_by_merging_towards_the_stricter() -> None:
    exact = [(2 * step + 1, 2 * step) for step in range(1, SIGNED_TIMEOUTS_MAX + 3)]
    kept = timeout_history(SIGNED_TIMEOUTS_MAX + 2)
    for round_ in range(1, exact[-1][0] + 1):
        forbidden = any(t >= round_ and h < round_ for t, h in exact)
        assert not forbidden or any(t >= round_ and h < round_ for t, h in kept)


def test_record_of_another_epoch_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="epoch"):
        safety(replace(first_record(make.GENESIS), epoch=2))


def test_restart_recovers_the_round_with_its_certificates() -> None:
    key = safety()
    enter(key, QC1)
    proof = gave_up(2, QC1)
    enter(key, proof)
    signed(key, key.timeout())
    again = restarted(key)
    assert (again.round, again.high_qc, again.entry_cert) == (3, QC1, proof)


# --- signatures and own messages ----------------------------------------------------------------


def test_signatures_come_in_the_order_they_were_asked_for() -> None:
    key = safety()
    key.vote(B1)
    with pytest.raises(LocalProtocolError, match="order"):
        key.signed(Signed(SignKind.TIMEOUT, b"", bytes(64)))
    with pytest.raises(LocalProtocolError, match="nobody asked"):
        key.signed(Signed(SignKind.VOTE, make.vote(B1, 0).body, bytes(64)))


def test_signatures_asked_for_and_not_given_are_bounded() -> None:
    key = safety()
    key.enter(replace(QC1, round=1000))
    for round_ in range(1, PENDING_MAX + 1):
        key.commit_vote(fake_statement(round_), None)
    with pytest.raises(LocalProtocolError, match="never given"):
        key.commit_vote(fake_statement(PENDING_MAX + 1), None)


def test_own_messages_are_those_that_others_may_still_need() -> None:
    key = Safety(CHAIN, make.COMMITTEE, 1, first_record(make.GENESIS))
    messages = [signed(key, key.propose(B1)), signed(key, key.vote(B1))]
    assert list(key.own_messages()) == messages
    messages.append(signed(key, key.timeout()))
    assert list(key.own_messages()) == messages
    enter(key, QC1)
    assert key.own_messages() == ()
    commit = signed(key, executed(key, B2)) if key.learn_quorum(QC2) else None
    assert key.own_messages() == (commit,)


def test_held_counts_travel_with_the_vote_and_stay_as_first_sent() -> None:
    key = safety()
    request = key.vote(B1)
    assert isinstance(request, Sign)
    message = key.signed(Signed(request.kind, request.body, bytes(64), (4, 3, 2, 1)))
    assert isinstance(message, Vote)
    assert message.held == (4, 3, 2, 1)
    assert key.own_messages() == (message,)


def test_commit_vote_settled_while_being_signed_is_not_kept() -> None:
    key = safety()
    enter(key, QC1)
    request = executed(key, B1)
    key.learn_commit(make.commit_cert(make.statement(B1)))
    signed(key, request)
    assert key.record().commit_votes == ()


def test_proposal_of_a_round_left_while_being_signed_is_not_kept() -> None:
    key = Safety(CHAIN, make.COMMITTEE, 1, first_record(make.GENESIS))
    request = key.propose(B1)
    enter(key, QC1)
    signed(key, request)
    assert key.record().last_proposal is None


# --- rounds that are settled without the record --------------------------------------------------


def test_nothing_is_signed_up_to_a_round_that_is_held_back() -> None:
    key = safety(own=1)
    key.hold_back(1)
    assert isinstance(key.propose(B1), Refused)
    assert isinstance(key.vote(B1), Refused)
    assert isinstance(key.timeout(), Refused)
    enter(key, QC1)
    assert rule(executed(key, B1)) == "nothing is signed for this round here"
    assert isinstance(key.vote(B2), Sign)  # beyond it everything is as ever
    enter(key, QC2)
    assert isinstance(executed(key, B2), Sign)


def test_whoever_never_votes_signs_in_no_round_at_all() -> None:
    key = safety(own=2)
    key.hold_back(NEVER)
    enter(key, QC1)
    for request in (key.vote(B2), key.propose(B2), key.timeout(), executed(key, B1)):
        assert isinstance(request, Refused)
    assert key.pending == 0
