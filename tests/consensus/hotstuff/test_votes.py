"""Counting: each signer once, conflicts kept and never counted, memory bounded per signer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.errors import LocalProtocolError
from consensus.hotstuff.certificates import Verifier
from consensus.hotstuff.types import Certificates, CommitVote, Timeout, Vote
from consensus.hotstuff.votes import (
    Tally,
    commit_cert,
    quorum_cert,
    timeout_cert,
    unattainable,
)

from . import builders as make
from .driver import CHAIN, verify_signature

B1, B2 = make.chain(1, 2)
RIVAL = replace(B1, time_ms=B1.time_ms + 1)
QC1 = make.quorum_cert(B1)
CHECK = Verifier(CHAIN, make.COMMITTEE, make.GENESIS_QC, verify=verify_signature)


def votes(*validators: int) -> Tally[Vote]:
    tally: Tally[Vote] = Tally(4)
    for validator in validators:
        assert tally.add(make.vote(B1, validator)) is None
    return tally


def test_quorum_of_votes_is_a_certificate_that_verifies() -> None:
    tally = votes(3, 0)
    assert quorum_cert(tally.matching(make.vote(B1, 0)), make.COMMITTEE) is None
    tally.add(make.vote(B1, 2))
    certificate = quorum_cert(tally.matching(make.vote(B1, 0)), make.COMMITTEE)
    assert certificate == make.quorum_cert(B1, (0, 2, 3))
    CHECK.check_quorum_cert(certificate)


def test_more_votes_than_a_quorum_still_give_exactly_a_quorum() -> None:
    certificate = quorum_cert(votes(0, 1, 2, 3).matching(make.vote(B1, 0)), make.COMMITTEE)
    assert certificate == make.quorum_cert(B1, (0, 1, 2))


def test_lesson_26_votes_count_by_equal_contents_not_by_number() -> None:
    tally = votes(0, 1)
    tally.add(make.vote(RIVAL, 2))
    tally.add(make.vote(RIVAL, 3))
    for block in (B1, RIVAL):
        assert quorum_cert(tally.matching(make.vote(block, 0)), make.COMMITTEE) is None


def test_same_vote_again_counts_once_and_is_no_conflict() -> None:
    tally = votes(0, 1)
    again = replace(make.vote(B1, 1), held=(9, 9, 9, 9))
    assert tally.add(again) is None
    assert quorum_cert(tally.matching(again), make.COMMITTEE) is None
    assert tally.has(1, 1, again.body)


def test_first_of_two_contradicting_votes_counts_and_the_pair_is_reported_once() -> None:
    tally = votes(0)
    second = make.vote(RIVAL, 0)
    assert tally.add(second) == (make.vote(B1, 0), second)
    assert tally.add(replace(second, held=(1,))) is None
    assert tally.add(make.vote(replace(B1, time_ms=5), 0)) is None
    assert tally.matching(second) == []
    assert tally.matching(make.vote(B1, 3)) == [make.vote(B1, 0)]
    assert tally.has(0, 1, b"anything else of that slot")


def test_conflict_is_judged_by_round_whatever_the_height() -> None:
    tally = votes(0)
    taller = replace(make.vote(B1, 0), height=7)
    assert tally.add(taller) == (make.vote(B1, 0), taller)


def test_signer_with_many_rounds_displaces_only_its_own_lowest() -> None:
    tally: Tally[Vote] = Tally(4, rounds_max=3)
    tally.add(make.vote(B1, 1))
    for round_ in range(1, 6):
        tally.add(replace(make.vote(B1, 0), round=round_))
    assert [tally.count(round_) for round_ in range(1, 6)] == [1, 0, 1, 1, 1]
    assert tally.of_round(1) == [make.vote(B1, 1)]


def test_settled_rounds_are_forgotten() -> None:
    tally = votes(0, 1)
    tally.add(make.vote(B2, 0))
    tally.forget(2)
    assert (tally.count(1), tally.count(2)) == (0, 1)


def test_index_beyond_the_committee_is_unknown_and_not_an_error() -> None:
    assert not votes(0).has(63, 1, b"")


def test_timeout_certificate_carries_the_highest_certificate_of_its_signers() -> None:
    high = make.quorum_cert(B2)
    entry = make.timeout_cert(4, QC1)
    tally: Tally[Timeout] = Tally(4)
    for message in (
        make.timeout(5, 3, high, make.timeout_cert(4, high)),
        make.timeout(5, 1, QC1, entry),
        make.timeout(5, 0, make.GENESIS_QC, entry),
    ):
        assert timeout_cert(tally.of_round(5), make.COMMITTEE) is None
        tally.add(message)
    certificate = timeout_cert(tally.of_round(5), make.COMMITTEE)
    assert certificate == make.timeout_cert(5, high, [(0, 0), (1, 1), (3, 2)])
    assert certificate is not None
    CHECK.verify(Certificates(1, None, certificate, None), 0)


def test_commit_votes_on_one_statement_are_a_certificate_that_verifies() -> None:
    claim = make.statement(B1)
    tally: Tally[CommitVote] = Tally(4)
    tally.add(make.commit_vote(make.statement(B1, root=b"x" * 32), 0))
    for validator in (3, 1):
        tally.add(make.commit_vote(claim, validator))
    assert commit_cert(tally.matching(make.commit_vote(claim, 1)), make.COMMITTEE) is None
    tally.add(make.commit_vote(claim, 2))
    certificate = commit_cert(tally.matching(make.commit_vote(claim, 1)), make.COMMITTEE)
    assert certificate == make.commit_cert(claim, (1, 2, 3))
    CHECK.check_commit_cert(certificate)


@pytest.mark.parametrize(
    ("roots", "lost"),
    [(b"", False), (b"a", False), (b"ab", False), (b"aab", False), (b"aabb", True), (b"abc", True)],
)
def test_results_are_past_agreement_when_no_missing_vote_can_help(roots: bytes, lost: bool) -> None:
    cast = [
        make.commit_vote(make.statement(B1, root=bytes([root]) * 32), i)
        for i, root in enumerate(roots)
    ]
    assert unattainable(cast, make.COMMITTEE) is lost


def test_mixed_ballots_are_our_own_bug() -> None:
    with pytest.raises(LocalProtocolError):
        quorum_cert([make.vote(B1, 0), make.vote(B1, 1), make.vote(B2, 2)], make.COMMITTEE)
    with pytest.raises(LocalProtocolError):
        timeout_cert([make.timeout(1, 0), make.timeout(1, 1), make.timeout(2, 2)], make.COMMITTEE)
    mixed = [make.commit_vote(make.statement(b), i) for i, b in enumerate((B1, B1, B2))]
    with pytest.raises(LocalProtocolError):
        commit_cert(mixed, make.COMMITTEE)
