"""The end of an epoch at one replica, event by event."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff import events as ev
from consensus.hotstuff import wire
from consensus.hotstuff.types import Certificates, CommitVote, Proposal

from . import builders as make
from .bench import Bench, result, result_statement
from .driver import batch

B1, B2, B3 = make.chain(1, 2, 3)
ENDING = replace(result(), next_committee_hash=bytes(32))
END_B1 = replace(result_statement(B1), next_committee_hash=bytes(32))


def names(effects: list[ev.Effect]) -> list[str]:
    """Names of effects, without timers."""
    timers = ev.SetTimer | ev.CancelTimer
    return [type(effect).__name__ for effect in effects if not isinstance(effect, timers)]


def test_certificate_on_the_ending_block_delivers_it_and_then_nothing_more_happens() -> None:
    bench = Bench()
    bench.order(B1)
    bench.feed(ev.Executed(B1.id, ENDING))
    assert [vote.statement for vote in bench.said(CommitVote)] == [END_B1]
    end = make.commit_cert(END_B1)
    bench.receive(Certificates(1, make.quorum_cert(B1), None, end), 2)
    assert bench.replica.ended
    assert names(bench.effects) == [
        "Deliver",
        "Broadcast",
        "EndEpoch",
    ]
    assert bench.said(Certificates) == [Certificates(1, None, None, end)]
    (last,) = bench.of(ev.EndEpoch)
    assert (last.block, last.commit_cert) == (B1, end)
    record = wire.decode_record(last.record)
    assert record.commit_cert == end
    assert (record.epoch, record.high_qc.round, record.high_qc.block_id) == (2, 0, B1.id)
    assert record.entry_cert == record.high_qc
    assert (record.last_vote, record.last_timeout, record.last_proposal) == (None, None, None)
    assert (record.commit_votes, record.signed_timeouts, record.commit_floor) == ((), (), 0)
    for after_ms in (100, 1000, 10_000):
        assert bench.fire(after_ms=after_ms) == []
        assert bench.receive(make.proposal(B2), 2) == []
        assert bench.feed(ev.Connected(1)) == []


def test_certificate_on_what_extends_the_ending_block_delivers_nothing() -> None:
    bench = Bench()
    bench.order(B1)
    bench.feed(ev.Executed(B1.id, ENDING))
    bench.order(B2)
    bench.order(B3)
    assert bench.of(ev.Execute) == []
    bench.receive(Certificates(1, None, None, make.commit_cert(result_statement(B2))), 2)
    assert bench.of(ev.Deliver) == []
    assert bench.said(CommitVote) == []
    assert not bench.replica.ended


def test_two_chain_beyond_the_end_permits_the_commit_vote_on_the_end() -> None:
    bench = Bench()
    bench.receive(make.proposal(B1), 1)
    bench.fire(after_ms=1000)  # our timeout reported less than this block
    bench.receive(Certificates(1, make.quorum_cert(B1), None, None), 2)
    bench.feed(ev.Executed(B1.id, ENDING))
    assert bench.said(CommitVote) == []
    bench.order(B2)
    assert [vote.statement for vote in bench.said(CommitVote)] == [END_B1]


def test_two_chain_far_beyond_the_end_permits_the_commit_vote_too() -> None:
    """Simulator, seed 68: rounds failed above the end, and then no two-chain was its own."""
    bench = Bench()
    bench.receive(make.proposal(B1), 1)
    bench.fire(after_ms=1000)
    bench.receive(Certificates(1, make.quorum_cert(B1), None, None), 2)
    bench.feed(ev.Executed(B1.id, ENDING))
    high = make.quorum_cert(B1)
    for round_ in (3, 5, 7):  # each after a round that failed
        block = make.block(high, round_, entry=make.timeout_cert(round_ - 1, high))
        bench.order(block)
        assert bench.said(CommitVote) == []
        high = make.quorum_cert(block)
    bench.order(make.block(high))
    assert [vote.statement for vote in bench.said(CommitVote)] == [END_B1]


def test_commit_vote_on_the_end_is_resent_while_new_rounds_pass() -> None:
    bench = Bench()
    bench.order(B1)
    bench.feed(ev.Executed(B1.id, ENDING))
    votes = 0
    high = make.quorum_cert(B1)
    for _ in range(20):
        block = make.block(high)
        bench.order(block)
        high = make.quorum_cert(block)
        bench.fire(ev.Timer.RESEND, after_ms=250)
        votes += len(bench.said(CommitVote))
    assert 4 <= votes <= 5


def test_ending_block_may_be_overtaken_and_is_taken_back_then() -> None:
    bench = Bench()
    bench.order(B1)
    bench.feed(ev.Executed(B1.id, ENDING))
    other = make.block(make.GENESIS_QC, 3, entry=make.timeout_cert(2, make.GENESIS_QC))
    bench.order(other)
    assert [effect.block_id for effect in bench.of(ev.Undo)] == [B1.id]
    assert [effect.block for effect in bench.of(ev.Execute)] == [other]
    bench.executed(other)
    child = make.block(make.quorum_cert(other))
    bench.order(child)
    assert [effect.block for effect in bench.of(ev.Execute)] == [child]


def test_own_result_that_ends_the_epoch_where_the_certified_one_does_not_halts() -> None:
    bench = Bench()
    bench.order(B1)
    bench.feed(ev.Executed(B1.id, ENDING))
    bench.receive(Certificates(1, None, None, make.commit_cert(result_statement(B1))), 2)
    assert [effect.code for effect in bench.of(ev.Halt)] == ["RESULT_DIVERGENCE"]


def test_epoch_that_ended_before_the_crash_ends_again_at_the_start() -> None:
    end = make.commit_cert(END_B1)
    bench = Bench(tip=ev.CertifiedTip(B1, end))
    assert names(bench.effects) == ["Broadcast", "EndEpoch"]
    assert bench.replica.ended


def test_follower_orders_and_executes_but_signs_nothing() -> None:
    bench = Bench(ev.FOLLOWER)
    bench.order(B1)
    assert [effect.block for effect in bench.of(ev.Execute)] == [B1]
    bench.executed(B1)
    bench.fire(after_ms=60_000)
    assert bench.of(ev.Sign) == []
    for validator in range(3):
        bench.receive(make.commit_vote(result_statement(B1), validator), validator)
    assert [effect.block for effect in bench.of(ev.Deliver)] == [B1]


def test_leader_that_executed_the_ending_block_proposes_empty_blocks() -> None:
    for result_of_b1, payload in ((ENDING, ()), (result(), (batch(1),))):
        bench = Bench(2)
        bench.order(B1)
        bench.feed(ev.Executed(B1.id, result_of_b1))
        made = [*bench.feed(ev.PayloadAvailable((batch(1),)))]
        made += bench.fire(ev.Timer.PROPOSE, after_ms=900)
        messages = [each.message for each in made if isinstance(each, ev.Broadcast)]
        blocks = [each.block for each in messages if isinstance(each, Proposal)]
        assert [(block.round, block.payload) for block in blocks] == [(2, payload)]
