"""One replica, event by event: what it does, in which order, and what it refuses to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.errors import LocalProtocolError
from consensus.hotstuff import events as ev
from consensus.hotstuff.types import (
    Block,
    BlocksRequest,
    BlocksResponse,
    Certificates,
    CommitVote,
    Message,
    PayloadItem,
    Proposal,
    QuorumCert,
    Timeout,
    Vote,
    first_record,
)

from . import builders as make
from .bench import ROOT, Bench, result_statement
from .driver import CHAIN, START_MS, batch

B1, B2, B3, B4 = make.chain(1, 2, 3, 4)
QC1, QC2, QC3, QC4 = (make.quorum_cert(block) for block in (B1, B2, B3, B4))
RIVAL = replace(B1, time_ms=B1.time_ms + 1)
FULL = make.block(payload=[batch(1)])


def certificates(
    high: QuorumCert | None = None, commit: Block | None = None, root: bytes = ROOT
) -> Certificates:
    proof = None if commit is None else make.commit_cert(result_statement(commit, root))
    return Certificates(1, high, None, proof)


def kinds(effects: list[ev.Effect]) -> list[str]:
    """Names of effects, messages by their own, without timers."""
    names = []
    for effect in effects:
        match effect:
            case ev.Broadcast(message) | ev.Send(_, message):
                names.append(f"{type(effect).__name__} {type(message).__name__}")
            case ev.Sign(kind):
                names.append(f"Sign {kind.name}")
            case ev.SetTimer() | ev.CancelTimer():
                pass
            case _:
                names.append(type(effect).__name__)
    return names


# --- propose and vote ---------------------------------------------------------------------------


def test_leader_with_payload_proposes_at_once_block_and_vote_in_one_sync() -> None:
    bench = Bench(own=1)
    bench.feed(ev.PayloadAvailable((batch(1), batch(2, lane=1))), after_ms=40)
    assert kinds(bench.effects) == [
        "Sign PROPOSAL",
        "RequirePayload",
        "Sign VOTE",
        "Persist",
        "Broadcast Proposal",
        "Broadcast Vote",
    ]
    (proposal,) = bench.said(Proposal)
    assert [effect.block for effect in bench.of(ev.RequirePayload)] == [proposal.block]
    assert proposal.block.payload == (batch(2, lane=1), batch(1))
    assert proposal.block.time_ms == START_MS + 40
    (record,) = bench.persisted()
    assert record.last_proposal == proposal
    assert record.last_vote is not None
    assert bench.of(ev.Persist)[0].blocks == (proposal.block,)
    bench.verifier.verify(proposal, 1)


def test_nothing_leaves_before_the_last_signature_of_the_step() -> None:
    bench = Bench(own=1)
    first = bench.replica.step(ev.PayloadAvailable((batch(1),)), START_MS)
    assert "Persist" not in kinds(first)
    assert not [name for name in kinds(first) if name.startswith("Broadcast")]


def test_replica_that_does_not_lead_waits_and_arms_the_timer() -> None:
    bench = Bench(own=0)
    bench.feed(ev.PayloadAvailable((batch(1),)))
    assert kinds(bench.effects) == []
    assert bench.timer(ev.Timer.ROUND) == 1000


def test_idle_replica_proposes_nothing_until_the_heartbeat() -> None:
    bench = Bench(own=1)
    assert kinds(bench.effects) == ["Broadcast Certificates"]
    assert bench.timer(ev.Timer.PROPOSE) == 3000
    assert kinds(bench.fire(ev.Timer.PROPOSE, after_ms=2999)) == []
    bench.fire(ev.Timer.PROPOSE, after_ms=1)
    assert [message.block.payload for message in bench.said(Proposal)] == [()]


def test_vote_is_sent_to_all_behind_block_and_vote_on_disk() -> None:
    bench = Bench()
    bench.receive(make.proposal(B1), 1)
    assert kinds(bench.effects) == ["Sign VOTE", "Persist", "Broadcast Vote"]
    assert bench.of(ev.Persist)[0].blocks == (B1,)
    (vote,) = bench.said(Vote)
    assert bench.persisted()[0].last_vote == vote


def test_vote_waits_until_the_payload_is_held() -> None:
    bench = Bench()
    bench.receive(make.proposal(FULL), 1)
    assert kinds(bench.effects) == ["RequirePayload"]
    assert kinds(bench.hold(FULL)) == ["Sign VOTE", "Persist", "Broadcast Vote"]


def test_payload_is_required_once_and_once_more_when_its_block_is_ordered() -> None:
    bench = Bench()
    bench.receive(make.proposal(FULL), 1)
    assert bench.of(ev.RequirePayload) == [ev.RequirePayload(FULL)]
    bench.order(make.block(make.quorum_cert(FULL)))
    assert bench.of(ev.RequirePayload) == [ev.RequirePayload(FULL, ordered=True)]
    bench.receive(make.proposal(make.block(make.quorum_cert(FULL))), 2)
    assert bench.of(ev.RequirePayload) == []


def test_payload_that_is_held_is_not_required_again_when_its_block_is_ordered() -> None:
    bench = Bench()
    bench.receive(make.proposal(FULL), 1)
    bench.hold(FULL)
    bench.order(make.block(make.quorum_cert(FULL)))
    assert bench.of(ev.RequirePayload) == []


def test_recovered_blocks_keep_their_payload_before_they_are_ordered() -> None:
    bench = Bench(blocks=(FULL,))
    assert [effect.block for effect in bench.of(ev.RequirePayload)] == [FULL]


def test_held_counts_travel_with_votes_and_those_of_peers_are_passed_on() -> None:
    bench = Bench()
    bench.held = (4, 3, 2, 1)
    bench.receive(make.proposal(B1), 1)
    assert [vote.held for vote in bench.said(Vote)] == [(4, 3, 2, 1)]
    bench.receive(make.vote(B1, 2, held=(9, 8, 7, 6)), 2)
    assert bench.of(ev.PeerHeld) == [ev.PeerHeld(2, (9, 8, 7, 6))]


@pytest.mark.parametrize(
    "payload",
    [
        [batch(1, size_bytes=4 * 1024 * 1024)],
        [batch(i) for i in range(513)],
    ],
    ids=["bytes", "items"],
)
def test_payload_beyond_the_limits_gets_no_vote(payload: list[PayloadItem]) -> None:
    bench = Bench()
    block = make.block(payload=payload)
    bench.receive(make.proposal(block), 1)
    assert bench.said(Vote) == []
    bench.hold(block)
    assert bench.said(Vote) == []


def test_batch_proposed_twice_on_one_branch_gets_no_vote() -> None:
    bench = Bench()
    bench.receive(make.proposal(FULL), 1)
    bench.hold(FULL)
    again = make.block(make.quorum_cert(FULL), payload=[batch(1)])
    bench.receive(make.proposal(again), 2)
    bench.hold(again)
    assert bench.said(Vote) == []


def test_vote_for_a_block_whose_parent_comes_later() -> None:
    bench = Bench()
    bench.receive(make.proposal(B2), 2)
    assert bench.said(Vote) == []
    bench.receive(make.proposal(B1), 1)
    assert [vote.block_id for vote in bench.said(Vote)] == [B2.id]


# --- rule 10: time ------------------------------------------------------------------------------


def test_block_from_the_future_is_held_until_acceptable_not_refused() -> None:
    bench = Bench()
    early = make.block(time_ms=START_MS + 800)
    bench.receive(make.proposal(early), 1)
    assert bench.said(Vote) == []
    assert bench.timer(ev.Timer.EARLY_BLOCK) == 300
    bench.fire(ev.Timer.EARLY_BLOCK, after_ms=299)
    assert bench.said(Vote) == []
    bench.fire(ev.Timer.EARLY_BLOCK, after_ms=1)
    assert [vote.block_id for vote in bench.said(Vote)] == [early.id]


def test_block_from_the_future_that_others_certified_is_delivered_without_a_vote() -> None:
    bench = Bench()
    early = make.block(time_ms=START_MS + 60_000)
    bench.receive(make.proposal(early), 1)
    bench.receive(certificates(commit=early), 2)
    bench.executed(early)
    assert [effect.block for effect in bench.of(ev.Deliver)] == [early]
    assert (bench.replica.round, bench.said(Vote)) == (1, [])
    bench.fire(ev.Timer.EARLY_BLOCK, after_ms=60_000)
    assert bench.said(Vote) == []


def test_waits_go_on_when_the_clock_is_set_back() -> None:
    bench = Bench()
    bench.feed(ev.PayloadAvailable((batch(1),)))
    wait_ms = bench.timer(ev.Timer.ROUND)
    assert wait_ms is not None
    assert wait_ms > 100
    bench.fire(ev.Timer.ROUND, after_ms=100)
    bench.now_ms -= 3_600_000
    bench.fire(ev.Timer.ROUND)
    assert bench.said(Timeout) == []
    assert bench.timer(ev.Timer.ROUND) == wait_ms - 100
    bench.fire(ev.Timer.ROUND, after_ms=wait_ms - 101)
    assert bench.said(Timeout) == []
    bench.fire(ev.Timer.ROUND, after_ms=1)
    assert len(bench.said(Timeout)) == 1


def test_block_is_early_by_the_clock_as_it_was_set() -> None:
    bench = Bench()
    bench.feed(ev.PayloadAvailable(()))
    bench.now_ms -= 60_000
    block = make.block(time_ms=START_MS)
    bench.receive(make.proposal(block), 1)
    assert bench.said(Vote) == []
    assert bench.timer(ev.Timer.EARLY_BLOCK) == 59_500
    bench.fire(ev.Timer.EARLY_BLOCK, after_ms=59_500)
    assert [vote.block_id for vote in bench.said(Vote)] == [block.id]


def test_leader_dates_its_block_by_the_clock_as_it_was_set() -> None:
    bench = Bench(own=make.COMMITTEE.leader(1))
    bench.feed(ev.PayloadAvailable(()), after_ms=500)
    bench.now_ms -= 400
    bench.feed(ev.PayloadAvailable((batch(1),)))
    assert [each.block.time_ms for each in bench.said(Proposal)] == [START_MS + 100]


def test_block_not_after_its_parent_gets_no_vote() -> None:
    bench = Bench()
    bench.receive(make.proposal(make.block(time_ms=make.GENESIS.time_ms)), 1)
    bench.fire(after_ms=500)
    assert bench.said(Vote) == []


def test_lesson_3_parent_from_the_future_allows_one_millisecond_more() -> None:
    """A leader whose clock is behind the chain uses parent + 1; nobody may refuse that."""
    bench = Bench()
    ahead = make.block(time_ms=START_MS + 500)
    bench.order(ahead)
    bench.now_ms -= 400
    child = make.block(make.quorum_cert(ahead), time_ms=START_MS + 501)
    bench.receive(make.proposal(child), 2)
    assert [vote.block_id for vote in bench.said(Vote)] == [child.id]


def test_leader_behind_chain_time_uses_the_parents_plus_one() -> None:
    bench = Bench(own=2)
    ahead = make.block(time_ms=START_MS + 400)
    bench.order(ahead)
    bench.feed(ev.PayloadAvailable((batch(1),)))
    assert [message.block.time_ms for message in bench.said(Proposal)] == [START_MS + 401]


# --- rule 3: ordered ----------------------------------------------------------------------------


def test_own_vote_completes_the_certificate_and_the_next_leader_is_told() -> None:
    bench = Bench()
    for validator in (1, 3):
        bench.receive(make.vote(B1, validator), validator)
    bench.receive(make.proposal(B1), 1)
    assert bench.replica.round == 2
    assert bench.told(2) == [Certificates(1, make.quorum_cert(B1, (0, 1, 3)), None, None)]
    assert kinds(bench.effects) == [
        "Sign VOTE",
        "Execute",
        "Persist",
        "Broadcast Vote",
        "Send Certificates",
    ]


def test_next_leader_does_not_write_to_itself() -> None:
    bench = Bench(own=2)
    for validator in (0, 1, 3):
        bench.receive(make.vote(B1, validator), validator)
    assert bench.replica.round == 2
    assert bench.of(ev.Send) == []


def test_rule_8_certificate_from_far_ahead_moves_the_round_at_once() -> None:
    bench = Bench()
    far = make.quorum_cert(replace(B1, round=5000, height=900))
    bench.receive(certificates(far), 3)
    assert bench.replica.round == 5001


def test_votes_beyond_the_window_are_not_kept() -> None:
    bench = Bench()
    for validator in (1, 2, 3):
        bench.receive(make.vote(replace(B1, round=12), validator), validator)
    assert bench.replica.round == 1
    for validator in (1, 2, 3):
        bench.receive(make.vote(replace(B1, round=11), validator), validator)
    assert bench.replica.round == 12


def test_branch_change_undoes_before_it_executes() -> None:
    bench = Bench()
    bench.order(B1)
    bench.executed(B1)
    bench.order(B2)
    bench.executed(B2)
    skipped = make.chain(1, 4)[1]
    bench.order(skipped)
    assert [e for e in bench.effects if isinstance(e, ev.Undo | ev.Execute)] == [
        ev.Undo(B2.id),
        ev.Execute(skipped),
    ]


def test_result_of_a_block_on_an_abandoned_branch_is_undone_when_it_arrives() -> None:
    bench = Bench()
    bench.order(B1)
    skipped = make.chain(3)[0]
    bench.order(skipped)
    assert bench.of(ev.Undo) == []
    bench.executed(B1)
    assert [e for e in bench.effects if isinstance(e, ev.Undo | ev.Execute)] == [
        ev.Undo(B1.id),
        ev.Execute(skipped),
    ]


def test_result_nobody_asked_for_is_a_bug_of_the_runtime() -> None:
    bench = Bench()
    with pytest.raises(LocalProtocolError, match="nobody asked"):
        bench.executed(B1)
    bench.order(B1)
    with pytest.raises(LocalProtocolError, match="nobody asked"):
        bench.executed(B2)


# --- rules 4 and 5: certified -------------------------------------------------------------------


def test_executed_block_is_commit_voted_behind_its_certificate_on_disk() -> None:
    bench = Bench()
    bench.order(B1)
    bench.executed(B1)
    assert kinds(bench.effects) == ["Sign COMMIT_VOTE", "Persist", "Broadcast CommitVote"]
    (record,) = bench.persisted()
    assert record.high_qc == QC1
    assert [vote.statement for vote in record.commit_votes] == [result_statement(B1)]


def test_quorum_of_commit_votes_delivers_without_further_blocks() -> None:
    bench = Bench()
    bench.order(B1)
    for validator in (1, 2):
        bench.receive(make.commit_vote(result_statement(B1), validator), validator)
    bench.executed(B1)
    assert kinds(bench.effects) == [
        "Sign COMMIT_VOTE",
        "Persist",
        "Broadcast CommitVote",
        "Deliver",
    ]
    assert bench.of(ev.Deliver) == [ev.Deliver(B1, make.commit_cert(result_statement(B1)))]


def test_commit_certificate_delivers_ancestors_by_height_each_once() -> None:
    bench = Bench()
    for block in (B1, B2, B3):
        bench.order(block)
        bench.executed(block)
    bench.receive(certificates(commit=B3), 1)
    proof = make.commit_cert(result_statement(B3))
    assert bench.of(ev.Deliver) == [ev.Deliver(block, proof) for block in (B1, B2, B3)]
    bench.receive(certificates(commit=B2), 1)
    bench.receive(certificates(commit=B3), 2)
    assert bench.of(ev.Deliver) == []


def test_nothing_is_delivered_before_the_own_result_is_known() -> None:
    bench = Bench()
    bench.order(B1)
    bench.receive(certificates(commit=B1), 1)
    assert bench.of(ev.Deliver) == []
    bench.executed(B1)
    assert [effect.block for effect in bench.of(ev.Deliver)] == [B1]


def test_two_chain_alone_delivers_nothing() -> None:
    bench = Bench()
    for block in (B1, B2, B3):
        bench.order(block)
        bench.executed(block)
        assert bench.of(ev.Deliver) == []


def test_lesson_19_own_result_unlike_the_certified_one_halts_the_node() -> None:
    bench = Bench()
    bench.order(B1)
    bench.receive(certificates(commit=B1), 1)
    bench.executed(B1, root=b"x" * 32)
    (halt,) = bench.of(ev.Halt)
    assert halt.code == "RESULT_DIVERGENCE"
    assert bench.of(ev.Deliver) == []
    assert bench.replica.halted
    assert bench.receive(make.proposal(B2), 2) == []


def test_divergence_is_seen_when_the_certificate_comes_last_too() -> None:
    bench = Bench()
    bench.order(B1)
    bench.executed(B1, root=b"x" * 32)
    bench.receive(certificates(commit=B1), 1)
    assert [halt.code for halt in bench.of(ev.Halt)] == ["RESULT_DIVERGENCE"]


def test_commit_vote_refused_after_timeout_is_given_once_the_two_chain_is_ordered() -> None:
    bench = Bench()
    bench.receive(make.proposal(B1), 1)
    bench.fire(after_ms=1000)
    assert [message.round for message in bench.said(Timeout)] == [1]
    bench.receive(certificates(QC1), 2)
    bench.executed(B1)
    assert bench.said(CommitVote) == []
    bench.order(B2)
    assert [vote.statement for vote in bench.said(CommitVote)] == [result_statement(B1)]
    assert [sign.two_chain for sign in bench.of(ev.Sign) if sign.kind == 4] == [True]


def test_commit_votes_beyond_the_window_are_not_kept() -> None:
    bench = Bench()
    far = replace(result_statement(B1), round=13)
    bench.receive(make.commit_vote(far, 1), 1)
    assert bench.replica.wants(make.commit_vote(far, 2)) is False


# --- rules 6 and 7: timeouts --------------------------------------------------------------------


def test_round_without_progress_is_given_up_after_the_timeout() -> None:
    bench = Bench()
    bench.feed(ev.PayloadAvailable((batch(1),)))
    assert bench.fire(after_ms=999) is not None
    assert bench.said(Timeout) == []
    bench.fire(after_ms=1)
    assert [name for name in kinds(bench.effects) if name != "Broadcast Certificates"] == [
        "Sign TIMEOUT",
        "Persist",
        "Broadcast Timeout",
    ]
    assert bench.persisted()[0].signed_timeouts == ((1, 0),)


def test_f_plus_one_timeouts_make_us_join_one_does_not() -> None:
    bench = Bench()
    bench.receive(make.timeout(1, 1), 1)
    assert bench.said(Timeout) == []
    bench.receive(make.timeout(1, 2), 2)
    assert [message.round for message in bench.said(Timeout)] == [1]


def test_quorum_of_timeouts_enters_the_next_round_and_tells_its_leader() -> None:
    bench = Bench()
    for validator in (1, 3):
        bench.receive(make.timeout(1, validator), validator)
    assert bench.replica.round == 2
    proof = make.timeout_cert(1, make.GENESIS_QC, [(0, 0), (1, 0), (3, 0)])
    assert bench.told(2) == [Certificates(1, None, proof, None)]


def test_leader_of_a_round_entered_by_timeouts_proposes_at_once_with_the_proof() -> None:
    bench = Bench(own=2)
    for validator in (1, 3):
        bench.receive(make.timeout(1, validator), validator)
    (proposal,) = bench.said(Proposal)
    assert proposal.block.timeout_cert is not None
    assert proposal.block.timeout_cert.round == 1
    assert proposal.block.payload == ()
    bench.verifier.verify(proposal, 2)


def test_timeout_brings_its_certificates_along() -> None:
    bench = Bench()
    proof = make.timeout_cert(7, QC1)
    bench.receive(make.timeout(8, 3, QC1, proof), 3)
    assert bench.replica.round == 8


def test_no_vote_after_giving_the_round_up() -> None:
    bench = Bench()
    bench.feed(ev.PayloadAvailable((batch(1),)))
    bench.fire(after_ms=1000)
    bench.receive(make.proposal(B1), 1)
    assert bench.said(Vote) == []


def test_successive_failures_stretch_the_round() -> None:
    bench = Bench(own=3)
    for round_, lasts in ((1, 1200), (2, 1440)):
        entry = None if round_ == 1 else make.timeout_cert(round_ - 1, make.GENESIS_QC)
        for validator in (0, 1):
            bench.receive(make.timeout(round_, validator, entry=entry), validator)
        assert bench.replica.round == round_ + 1
        if bench.replica.leader != 3:
            assert bench.timer(ev.Timer.ROUND) == lasts


# --- rule 9: pacing -----------------------------------------------------------------------------


def test_leader_beyond_its_execution_window_proposes_no_payload() -> None:
    bench = Bench(own=0, config=ev.ReplicaConfig(CHAIN, execution_ahead_max=2))
    for block in (B1, B2, B3):
        bench.order(block)
    bench.feed(ev.PayloadAvailable((batch(1),)))
    assert bench.said(Proposal) == []
    bench.executed(B1)
    assert [message.block.payload for message in bench.said(Proposal)] == [(batch(1),)]


def test_vote_on_payload_waits_beyond_twice_the_window_but_empty_blocks_get_theirs() -> None:
    config = ev.ReplicaConfig(CHAIN, execution_ahead_max=1)
    blocks = make.chain(1, 2, 3)
    for payload, expected in (((), 1), ((batch(1),), 0)):
        bench = Bench(config=config)
        for block in blocks:
            bench.order(block)
        child = make.block(QC3, payload=payload)
        bench.receive(make.proposal(child), 0 if child.round % 4 == 0 else child.round % 4)
        bench.hold(child)
        bench.hold(child)
        assert len(bench.replica._safety.own_messages()) == expected
        bench.executed(B1)
        assert len([m for m in bench.replica._safety.own_messages() if isinstance(m, Vote)]) == 1


def test_results_that_cannot_agree_are_reported_once_and_slow_the_chain() -> None:
    bench = Bench(own=2)
    bench.order(B1)
    other = result_statement(B1, root=b"x" * 32)
    for validator in (0, 1):
        bench.receive(make.commit_vote(other, validator), validator)
    bench.executed(B1)
    assert bench.of(ev.ReportEvidence) == []
    bench.receive(make.commit_vote(result_statement(B1), 3), 3)
    (evidence,) = bench.of(ev.ReportEvidence)
    assert evidence.kind is ev.EvidenceKind.RESULTS_DISAGREE
    assert bench.timer(ev.Timer.PROPOSE) == 1000
    bench.feed(ev.PayloadAvailable((batch(1),)))
    assert bench.said(Proposal) == []
    bench.fire(ev.Timer.PROPOSE, after_ms=1000)
    assert [message.block.payload for message in bench.said(Proposal)] == [()]


# --- rule 11: evidence --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "sender", "kind"),
    [
        (make.proposal(B1), make.proposal(RIVAL), 1, ev.EvidenceKind.TWO_PROPOSALS),
        (make.vote(B1, 1), make.vote(RIVAL, 1), 1, ev.EvidenceKind.TWO_VOTES),
        (
            make.timeout(3, 1, QC2),
            make.timeout(3, 1, QC1, make.timeout_cert(2, QC1)),
            1,
            ev.EvidenceKind.TWO_TIMEOUTS,
        ),
        (
            make.commit_vote(result_statement(B1), 1),
            make.commit_vote(result_statement(B1, root=b"x" * 32), 1),
            1,
            ev.EvidenceKind.TWO_COMMIT_VOTES,
        ),
    ],
    ids=["proposal", "vote", "timeout", "commit vote"],
)
def test_two_messages_for_one_slot_are_reported_once_with_the_pair(
    first: Message, second: Message, sender: int, kind: ev.EvidenceKind
) -> None:
    bench = Bench()
    bench.receive(first, sender)
    assert bench.of(ev.ReportEvidence) == []
    bench.receive(first, sender)
    assert bench.of(ev.ReportEvidence) == []
    bench.receive(second, sender)
    assert bench.of(ev.ReportEvidence) == [ev.ReportEvidence(kind, first, second)]
    bench.receive(second, sender)
    assert bench.of(ev.ReportEvidence) == []


def test_only_the_first_of_two_proposals_gets_a_vote() -> None:
    bench = Bench()
    bench.receive(make.proposal(FULL), 1)
    bench.receive(make.proposal(RIVAL), 1)
    assert bench.said(Vote) == []
    bench.hold(FULL)
    assert [vote.block_id for vote in bench.said(Vote)] == [FULL.id]


def test_rival_that_a_quorum_ordered_is_fetched_and_executed() -> None:
    bench = Bench()
    bench.receive(make.proposal(B1), 1)
    bench.receive(make.proposal(RIVAL), 1)
    qc = make.quorum_cert(RIVAL)
    bench.receive(certificates(qc), 3)
    assert bench.of(ev.FetchBlocks) == []
    bench.fire(ev.Timer.FETCH, after_ms=20)
    (fetch,) = bench.of(ev.FetchBlocks)
    assert fetch == ev.FetchBlocks(BlocksRequest(1, 1, RIVAL.id, 1), (3, 1))
    answer = bench.verifier.verify(BlocksResponse((RIVAL,), None), 3)
    bench.feed(ev.BlocksFetched(3, answer))
    assert bench.of(ev.Execute) == [ev.Execute(RIVAL)]
    assert bench.said(Vote) == []


# --- resending, answering, connecting -----------------------------------------------------------


def test_undecided_round_is_repeated_at_intervals_with_the_same_bytes() -> None:
    bench = Bench()
    bench.receive(make.proposal(B1), 1)
    (vote,) = bench.said(Vote)
    bench.fire(ev.Timer.RESEND, after_ms=999)
    assert bench.of(ev.Broadcast) == []
    bench.fire(ev.Timer.RESEND, after_ms=1)
    assert bench.said(Vote) == [vote]
    assert bench.timer(ev.Timer.RESEND) == 1000


def test_new_link_gets_certificates_and_own_messages() -> None:
    bench = Bench()
    bench.order(B1)
    bench.executed(B1)
    (commit_vote,) = bench.said(CommitVote)
    bench.receive(make.proposal(B2), 2)
    (vote,) = bench.said(Vote)
    bench.feed(ev.Connected(3))
    assert bench.told(3) == [Certificates(1, QC1, None, None), vote, commit_vote]
    assert bench.of(ev.Persist) == []


def test_certificates_of_a_new_link_are_learned() -> None:
    bench = Bench()
    hello = bench.verifier.verify(certificates(QC3), 2)
    bench.feed(ev.Connected(2, hello))
    assert bench.replica.round == 4


def test_peer_with_lower_certificates_is_answered_once_in_a_while() -> None:
    bench = Bench()
    newest = certificates(QC3, commit=B2)
    bench.receive(newest, 1)
    assert bench.told(1) == []
    for after_ms, answers in ((0, 1), (10, 0), (489, 0), (1, 1)):
        bench.receive(certificates(QC1, commit=B1), 3, after_ms=after_ms)
        assert len(bench.told(3)) == answers
    bench.receive(certificates(), 2)
    assert bench.told(2) == [newest]


def test_certificate_told_to_the_leader_is_not_taken_for_all_its_sender_has() -> None:
    bench = Bench()
    bench.receive(certificates(QC3, commit=B2), 1)
    bench.receive(certificates(QC3), 3)
    bench.receive(Certificates(1, None, make.timeout_cert(2, QC1), None), 3)
    assert bench.told(3) == []


@pytest.mark.parametrize(
    ("late", "sender"),
    [
        (make.timeout(1, 2), 2),
        (make.vote(B1, 2), 2),
        (make.proposal(B2), 2),
        (make.commit_vote(result_statement(B1), 2), 2),
    ],
    ids=lambda case: type(case).__name__ if not isinstance(case, int) else "",
)
def test_message_of_an_old_round_is_answered_with_certificates(late: Message, sender: int) -> None:
    bench = Bench()
    blocks = make.chain(*range(1, 12))
    high = make.quorum_cert(blocks[-1])
    bench.receive(certificates(high, commit=blocks[-1]), 1)
    assert bench.replica.wants(late)
    bench.receive(late, sender)
    newest = make.commit_cert(result_statement(blocks[-1]))
    assert bench.told(2) == [Certificates(1, high, None, newest)]
    assert not bench.replica.wants(late) or isinstance(late, Proposal)


def test_vote_that_was_merely_overtaken_gets_no_answer() -> None:
    bench = Bench()
    bench.receive(Certificates(1, QC3, None, None), 1)
    bench.receive(make.vote(B2, 2), 2)
    assert bench.told(2) == []
    bench.receive(make.vote(B1, 2), 2)
    assert bench.told(2) == [Certificates(1, QC3, None, None)]


def test_commit_vote_that_was_merely_overtaken_gets_no_answer() -> None:
    blocks = make.chain(*range(1, 10))
    bench = Bench(config=ev.ReplicaConfig(CHAIN, certified_ahead_max=8))
    newest = certificates(commit=blocks[-1])
    bench.receive(newest, 1)
    bench.receive(make.commit_vote(result_statement(blocks[1]), 2), 2)
    assert bench.told(2) == []
    bench.receive(make.commit_vote(result_statement(blocks[0]), 2), 2)
    assert bench.told(2) == [newest]


def test_stale_proposal_of_a_delivered_round_is_answered() -> None:
    bench = Bench()
    for block in (B1, B2):
        bench.order(block)
        bench.executed(block)
    bench.receive(certificates(commit=B2), 3)
    assert bench.replica.wants(make.proposal(RIVAL))
    bench.receive(make.proposal(RIVAL), 1)
    assert len(bench.told(1)) == 1


# --- wants: cheap answers before signatures -----------------------------------------------------


def test_duplicates_settled_rounds_and_the_far_future_are_not_wanted() -> None:
    bench = Bench()
    wants = bench.replica.wants
    assert wants(make.vote(B1, 1))
    bench.receive(make.vote(B1, 1), 1)
    assert not wants(make.vote(B1, 1))
    assert wants(make.vote(RIVAL, 1))
    assert not wants(make.vote(replace(B1, round=12), 1))
    bench.order(B1)
    assert not wants(make.vote(B1, 2))
    assert not wants(make.proposal(B1))
    assert wants(make.proposal(B2))
    assert wants(make.timeout(2, 1, QC1))
    bench.receive(make.timeout(2, 1, QC1), 1)
    assert not wants(make.timeout(2, 1, QC1))
    bench.executed(B1)
    bench.receive(certificates(commit=B1), 1)
    assert not wants(make.commit_vote(result_statement(B1), 3))
    assert wants(make.commit_vote(result_statement(B2), 3))
    assert wants(certificates())
    assert wants(Certificates(1, QC2, None, None))
    assert not wants(Certificates(1, QC1, None, None))
    assert wants(BlocksRequest(1, 1, None, 1))


def test_signer_outside_the_committee_is_left_to_verification() -> None:
    bench = Bench()
    assert bench.replica.wants(replace(make.vote(B1, 1), validator=63))
    assert bench.replica.wants(replace(make.timeout(1, 1), validator=63))


# --- recovery -----------------------------------------------------------------------------------


def test_restart_sends_stored_messages_and_signs_nothing_again() -> None:
    before = Bench()
    before.receive(make.proposal(B1), 1)
    (vote,) = before.said(Vote)
    after = Bench(record=before.persisted()[-1], blocks=(B1,))
    assert after.of(ev.Sign) == []
    assert after.said(Vote) == [vote]
    assert after.receive(make.proposal(RIVAL), 1) is not None
    assert after.said(Vote) == []


def test_lesson_7_own_stored_vote_counts_after_restart() -> None:
    before = Bench()
    before.receive(make.proposal(B1), 1)
    after = Bench(record=before.persisted()[-1], blocks=(B1,))
    for validator in (1, 2):
        after.receive(make.vote(B1, validator), validator)
    assert after.replica.round == 2


def test_lesson_8_ordered_blocks_above_the_tip_are_executed_again_after_restart() -> None:
    before = Bench()
    full = make.block(QC1, payload=[batch(1)])
    before.order(B1)
    before.executed(B1)
    before.receive(make.proposal(full), 2)
    before.hold(full)
    record = before.persisted()[-1]
    after = Bench(record=record, blocks=(full, B1))
    assert after.of(ev.Execute) == [ev.Execute(B1)]
    after.executed(B1)
    assert after.said(CommitVote) == []
    for validator in (1, 2):
        after.receive(make.commit_vote(result_statement(B1), validator), validator)
    assert [effect.block for effect in after.of(ev.Deliver)] == [B1]


def test_restart_on_a_certified_tip_goes_on_from_it() -> None:
    before = Bench()
    before.order(B1)
    before.executed(B1)
    record = before.persisted()[-1]
    proof = make.commit_cert(result_statement(B1))
    after = Bench(own=0, record=record, tip=ev.CertifiedTip(B1, proof))
    assert after.replica.ordered_height == 1
    assert after.replica.round == 2
    assert after.said(CommitVote) == []
    assert after.said(Certificates) == [Certificates(1, QC1, None, proof)]
    after.receive(make.proposal(B2), 2)
    assert [vote.block_id for vote in after.said(Vote)] == [B2.id]


def test_restart_in_a_round_entered_by_timeouts_keeps_the_proof() -> None:
    proof = make.timeout_cert(5, QC1)
    record = replace(first_record(make.GENESIS), high_qc=QC1, entry_cert=proof)
    bench = Bench(record=record, blocks=(B1,))
    assert bench.replica.round == 6
    assert bench.said(Certificates) == [Certificates(1, QC1, proof, None)]


def test_record_of_another_epoch_is_refused_at_start() -> None:
    with pytest.raises(LocalProtocolError, match="epoch"):
        Bench(record=replace(first_record(make.GENESIS), epoch=2))


# --- serving blocks -----------------------------------------------------------------------------


def grown() -> Bench:
    bench = Bench()
    for block in (B1, B2, B3):
        bench.order(block)
        bench.executed(block)
    bench.receive(certificates(commit=B1), 1)
    return bench


def test_undelivered_blocks_are_served_from_the_tree_with_their_proof() -> None:
    bench = grown()
    bench.receive(BlocksRequest(1, 2, None, 32), 3)
    assert bench.told(3) == [BlocksResponse((B2, B3), QC3)]
    bench.receive(BlocksRequest(1, 2, None, 1), 3)
    assert bench.told(3) == [BlocksResponse((B2,), QC2)]
    bench.receive(BlocksRequest(1, 2, B2.id, 5), 3)
    assert bench.told(3) == [BlocksResponse((B2,), QC2)]


def test_delivered_blocks_are_left_to_storage() -> None:
    bench = grown()
    bench.receive(BlocksRequest(1, 1, B3.id, 3), 3)
    assert bench.of(ev.ServeBlocks) == [ev.ServeBlocks(3, BlocksRequest(1, 1, None, 3))]


@pytest.mark.parametrize(
    "request_",
    [
        BlocksRequest(1, 2, bytes(32), 3),
        BlocksRequest(1, 9, None, 3),
        BlocksRequest(1, 2, B3.id, 1),
    ],
    ids=["unknown id", "beyond the tip", "too few asked"],
)
def test_request_that_cannot_be_met_gets_no_answer(request_: BlocksRequest) -> None:
    bench = grown()
    assert bench.receive(request_, 3) == []
