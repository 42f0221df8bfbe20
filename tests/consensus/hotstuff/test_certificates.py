"""What is accepted as proof, and above all what is not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import nacl.signing
import pytest

from consensus import signing
from consensus.committee import Committee, Validator
from consensus.errors import CertificateError, LocalProtocolError, SignatureError, VerificationError
from consensus.hotstuff.certificates import (
    CACHED_MAX,
    Verifier,
    check_block,
    check_commit_cert,
    describes,
)
from consensus.hotstuff.types import (
    BlocksRequest,
    BlocksResponse,
    Certificates,
    CommitCert,
    Message,
    QuorumCert,
    SignKind,
    Vote,
    start_cert,
    vote_body,
)

from . import builders as make
from .driver import CHAIN, batch, committee_among, sign, verifier, verify_signature

B1, B2, B3 = make.chain(1, 2, 3)
QC1, QC2, QC3 = (make.quorum_cert(block) for block in (B1, B2, B3))
TC2 = make.timeout_cert(2, QC1)
SECOND = committee_among(2, (0, 1, 2, 3, 4))
CC1 = make.commit_cert(make.statement(B1))


def accepted(message: Message, sender: int) -> None:
    assert verifier(make.COMMITTEE).verify(message, sender).message is message


def refused(message: Message, sender: int, why: str = ".") -> None:
    with pytest.raises(VerificationError, match=why):
        verifier(make.COMMITTEE).verify(message, sender)


# --- what honest validators send ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "sender"),
    [
        (make.proposal(B1), 1),
        (make.proposal(B2, CC1), 2),
        (make.proposal(make.block(QC1, 3, entry=TC2)), 3),
        (make.proposal(make.block(make.GENESIS_QC, payload=[batch(1, lane=1), batch(2)])), 1),
        (make.vote(B1, 3, held=(1, 2, 3, 4)), 3),
        (make.timeout(1, 0), 0),
        (make.timeout(3, 0, QC2), 0),
        (make.timeout(3, 0, QC1, TC2, CC1), 0),
        (make.commit_vote(make.statement(B1), 2), 2),
        (Certificates(1, QC1, TC2, CC1), 0),
        (Certificates(1, None, None, None), 0),
        (BlocksRequest(1, 1, None, 32), 0),
        (BlocksResponse((B1, B2), QC2), 0),
        (BlocksResponse((B1,), CC1), 0),
        (BlocksResponse((B2, B3), None), 0),
    ],
)
def test_honest_message_is_accepted(message: Message, sender: int) -> None:
    accepted(message, sender)


# --- signers of a certificate -------------------------------------------------------------------


def with_signers(*signers: int) -> QuorumCert:
    return make.quorum_cert(B1, signers)


@pytest.mark.parametrize(
    "signers",
    [(), (0,), (0, 1), (0, 1, 2, 3), (0, 0, 1), (0, 1, 1), (2, 1, 0), (0, 2, 1), (0, 1, 63)],
    ids=str,
)
def test_certificate_needs_exactly_a_quorum_of_members_in_order(signers: tuple[int, ...]) -> None:
    refused(Certificates(1, with_signers(*signers), None, None), 0)
    commit = make.commit_cert(make.statement(B1), signers)
    refused(Certificates(1, None, None, commit), 0)
    gave_up = make.timeout_cert(2, QC1, [(i, 1) for i in signers])
    refused(Certificates(1, None, gave_up, None), 0)
    refused(make.proposal(make.block(with_signers(*signers))), 2)


def test_count_of_signers_is_checked_before_any_signature() -> None:
    def never(_key: bytes, _signed: bytes, _signature: bytes) -> None:
        raise AssertionError("a signature was checked")

    checker = Verifier(CHAIN, make.COMMITTEE, make.GENESIS_QC, verify=never)
    for certificate in (with_signers(0, 1), with_signers(0, 1, 1), with_signers(0, 1, 2, 3)):
        with pytest.raises(CertificateError):
            checker.verify(make.proposal(make.block(certificate)), 2)


def test_each_signature_of_a_certificate_must_hold() -> None:
    for place in range(3):
        rows = list(QC1.signatures)
        rows[place] = (rows[place][0], bytes(64))
        refused(Certificates(1, replace(QC1, signatures=tuple(rows)), None, None), 0, "verify")


def test_vote_signature_does_not_serve_another_block_round_height_or_kind() -> None:
    for changed in (
        replace(QC1, block_id=B2.id),
        replace(QC1, round=2),
        replace(QC1, height=2),
    ):
        refused(Certificates(1, changed, None, None), 0)
    body = vote_body(1, 1, B1.id, 1)
    rows = tuple((i, sign(i, SignKind.TIMEOUT, body)) for i in make.QUORUM)
    refused(Certificates(1, replace(QC1, signatures=rows), None, None), 0)


@pytest.mark.parametrize(
    "forged",
    [
        replace(make.GENESIS_QC, block_id=B1.id),
        replace(make.GENESIS_QC, height=1),
        replace(make.GENESIS_QC, signatures=QC1.signatures),
        replace(QC1, epoch=2),
        replace(make.quorum_cert(make.GENESIS), round=1),
        replace(QC1, signatures=()),
    ],
)
def test_only_the_genesis_block_has_a_certificate_without_signatures(forged: QuorumCert) -> None:
    refused(Certificates(1, forged, None, None), 0)


# --- timeout certificates -----------------------------------------------------------------------


def test_timeout_certificate_must_carry_the_highest_certificate_it_names() -> None:
    named = [(0, 1), (1, 2), (2, 0)]
    accepted(Certificates(1, None, make.timeout_cert(4, QC2, named), None), 0)
    refused(Certificates(1, None, make.timeout_cert(4, QC1, named), None), 0, "highest")
    refused(Certificates(1, None, make.timeout_cert(4, QC3, named), None), 0, "highest")


def test_timeout_certificate_names_no_round_at_or_above_its_own() -> None:
    refused(Certificates(1, None, make.timeout_cert(3, QC3), None), 0, "beyond")


def test_timeout_entry_signs_its_own_high_round() -> None:
    good = make.timeout_cert(4, QC2, [(0, 1), (1, 2), (2, 0)])
    lowered = tuple((v, 0 if v == 0 else h, s) for v, h, s in good.entries)
    refused(Certificates(1, None, replace(good, entries=lowered), None), 0, "verify")


def test_timeout_certificate_of_another_epoch_is_refused() -> None:
    refused(Certificates(1, None, replace(TC2, epoch=2), None), 0, "epoch")


# --- statements ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [{"chain": bytes(32)}, {"epoch": 2}, {"height": 0}, {"round": 0}],
    ids=lambda change: next(iter(change)),
)
def test_statement_of_another_place_is_refused(change: dict[str, Any]) -> None:
    other = replace(make.statement(B1), **change)
    refused(make.commit_vote(other, 0), 0)
    refused(Certificates(1, None, None, make.commit_cert(other)), 0)


def test_certificate_that_ends_an_epoch_is_one_of_that_epoch() -> None:
    ending = replace(make.statement(B1), next_committee_hash=bytes(32))
    accepted(make.commit_vote(ending, 0), 0)
    accepted(Certificates(1, None, None, make.commit_cert(ending)), 0)
    refused(Certificates(2, None, None, make.commit_cert(ending)), 0, "another epoch")


def test_node_without_a_vote_may_ask_and_tell_but_signs_nothing() -> None:
    guest = make.COMMITTEE.size
    accepted(Certificates(1, QC1, None, None), guest)
    accepted(BlocksRequest(1, 1, None, 1), guest)
    refused(make.vote(B1, 0), guest)
    for message in (
        replace(make.vote(B1, 0), validator=guest),
        replace(make.timeout(1, 0), validator=guest),
        replace(make.commit_vote(make.statement(B1), 0), validator=guest),
    ):
        refused(message, guest, "without a vote")
    refused(make.proposal(B1), guest, "leader")


def test_round_0_is_the_start_of_the_verifiers_own_epoch() -> None:
    ending = replace(make.statement(B1), next_committee_hash=SECOND.hash)
    start = start_cert(ending)
    assert (start.epoch, start.round, start.block_id, start.height) == (2, 0, B1.id, B1.height)
    later = Verifier(CHAIN, SECOND, start, verify=verify_signature)
    later.verify(Certificates(2, start, None, None), 0)
    for forged in (
        replace(start, block_id=bytes(32)),
        replace(start, height=2),
        make.GENESIS_QC,
        replace(make.GENESIS_QC, epoch=2),
    ):
        with pytest.raises(CertificateError):
            later.verify(Certificates(2, forged, None, None), 0)


@pytest.mark.parametrize("number", [2**40 + 1, 2**63 - 1])
def test_block_with_a_batch_of_another_epoch_is_refused(number: int) -> None:
    item = replace(batch(1), number=number)
    refused(make.proposal(make.block(payload=[item])), 1, "another epoch")
    last = replace(batch(1), number=2**40)
    accepted(make.proposal(make.block(payload=[last])), 1)


def test_blocks_of_earlier_epochs_may_be_asked_for_and_later_ones_not() -> None:
    ending = replace(make.statement(B1), next_committee_hash=SECOND.hash)
    later = Verifier(CHAIN, SECOND, start_cert(ending), verify=verify_signature)
    later.verify(BlocksRequest(1, 1, None, 1), 0)
    with pytest.raises(CertificateError):
        later.verify(BlocksRequest(3, 1, None, 1), 0)


def test_verifier_of_another_epochs_start_is_a_mistake() -> None:
    with pytest.raises(LocalProtocolError):
        Verifier(CHAIN, SECOND, make.GENESIS_QC)


def test_light_client_check_uses_real_signatures() -> None:
    keys = [nacl.signing.SigningKey(bytes([i]) * 32) for i in range(1, 5)]
    rows = tuple(
        Validator(f"a{i}", bytes(key.verify_key), bytes([i]) * 32, b"x", "h", 1, "h", 2)
        for i, key in enumerate(keys)
    )
    committee = Committee(1, rows)
    claim = make.statement(B1)
    signed = signing.message(signing.TAG_COMMIT_VOTE, CHAIN, claim.encode())
    signatures = tuple((i, keys[i].sign(signed).signature) for i in (0, 2, 3))
    check_commit_cert(CommitCert(claim, signatures), committee, CHAIN)
    with pytest.raises(SignatureError):
        check_commit_cert(CommitCert(claim, ((0, bytes(64)), *signatures[1:])), committee, CHAIN)
    with pytest.raises(CertificateError):
        check_commit_cert(CommitCert(claim, signatures[:2]), committee, CHAIN)
    with pytest.raises(CertificateError):
        check_commit_cert(CommitCert(claim, signatures), committee, bytes(32))


# --- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"epoch": 2}, "epoch"),
        ({"committee_hash": bytes(32)}, "committee"),
        ({"parent_id": bytes(32)}, "parent"),
        ({"height": 3}, "height"),
        ({"height": 1}, "height"),
        ({"round": 1}, "round"),
        ({"round": 3}, "no timeout certificate"),
        ({"timeout_cert": make.timeout_cert(1, make.GENESIS_QC)}, "none belongs"),
        ({"justify": replace(QC1, epoch=2)}, "epoch"),
        ({"payload": (batch(1), batch(2, lane=1))}, "protective"),
        ({"payload": (batch(1), batch(1))}, "twice"),
        ({"payload": (batch(1, origin=4),)}, "nobody"),
    ],
    ids=lambda case: next(iter(case)) if isinstance(case, dict) else case,
)
def test_block_that_breaks_a_link_is_refused(change: dict[str, Any], why: str) -> None:
    check_block(B2, make.COMMITTEE)
    broken = replace(B2, **change)
    with pytest.raises(CertificateError, match=why):
        check_block(broken, make.COMMITTEE)
    refused(make.proposal(broken), make.COMMITTEE.leader(broken.round))


def test_lesson_10_skipped_round_without_its_proof_is_refused() -> None:
    refused(make.proposal(make.block(QC1, 3)), 3, "no timeout certificate")
    other_round = make.timeout_cert(3, QC1)
    refused(make.proposal(make.block(QC1, 3, entry=other_round)), 3, "no timeout certificate")


def test_block_below_the_highest_certificate_of_its_timeout_proof_is_refused() -> None:
    proof = make.timeout_cert(4, QC2, [(0, 1), (1, 2), (2, 1)])
    refused(make.proposal(make.block(QC1, 5, entry=proof)), 1, "below")
    accepted(make.proposal(make.block(QC2, 5, entry=proof)), 1)


def test_lesson_12_every_field_of_a_block_is_under_the_leaders_signature() -> None:
    good = make.proposal(B2)
    for change in ({"time_ms": B2.time_ms + 1}, {"payload": (batch(9),)}):
        refused(replace(good, block=replace(B2, **change)), 2, "verify")


def test_proposal_is_the_leaders_alone() -> None:
    for sender in (0, 1, 3):
        refused(make.proposal(B2), sender, "leader")


# --- loose messages -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [make.vote(B1, 1), make.timeout(1, 1), make.commit_vote(make.statement(B1), 1)],
)
def test_message_in_anothers_name_is_refused(message: Message) -> None:
    refused(message, 2, "another's name")


def test_vote_of_another_epoch_or_on_genesis_is_refused() -> None:
    refused(replace(make.vote(B1, 1), epoch=2), 1, "epoch")
    refused(make.vote(make.GENESIS, 1), 1, "genesis")
    refused(replace(make.vote(B1, 1), signature=bytes(64)), 1)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (replace(make.timeout(3, 0, QC2), high_round=1), "another high round"),
        (make.timeout(2, 0, QC2), "below its own"),
        (make.timeout(3, 0, QC2, TC2), "two certificates"),
        (make.timeout(3, 0, QC1), "by which its round was entered"),
        (make.timeout(4, 0, QC1, TC2), "by which its round was entered"),
        (make.timeout(5, 0, QC1, make.timeout_cert(4, QC2)), "below that of its entry"),
        (replace(make.timeout(1, 0), epoch=2), "epoch"),
    ],
    ids=lambda case: case if isinstance(case, str) else "",
)
def test_timeout_that_contradicts_its_certificates_is_refused(broken: Message, why: str) -> None:
    refused(broken, 0, why)


def test_requests_and_certificates_of_another_epoch_are_refused() -> None:
    refused(BlocksRequest(2, 1, None, 1), 0, "epoch")
    refused(Certificates(2, None, None, None), 0, "epoch")


# --- pages of blocks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (BlocksResponse((B1, B3), QC3), "no chain"),
        (BlocksResponse((B2, B1), QC1), "no chain"),
        (BlocksResponse((B1, B2), QC1), "another block"),
        (BlocksResponse((B1, B2), CC1), "another block"),
        (BlocksResponse((B1,), with_signers(0, 1)), "needed"),
        (BlocksResponse((replace(B1, height=2),), None), "height"),
    ],
    ids=["gap", "backwards", "other qc", "other commit", "too few", "false height"],
)
def test_lesson_15_page_of_blocks_must_be_one_proved_chain(page: Message, why: str) -> None:
    refused(page, 0, why)


def test_statement_describes_only_its_own_block() -> None:
    assert describes(make.statement(B1), B1)
    assert not describes(make.statement(B1), B2)
    assert not describes(replace(make.statement(B1), time_ms=0), B1)


# --- remembered signatures ----------------------------------------------------------------------


def counting() -> tuple[Verifier, Callable[[], int]]:
    calls = []

    def verify(key: bytes, signed: bytes, signature: bytes) -> None:
        calls.append(1)
        verify_signature(key, signed, signature)

    return Verifier(CHAIN, make.COMMITTEE, make.GENESIS_QC, verify=verify), lambda: len(calls)


def test_certificate_made_of_votes_already_seen_costs_no_signature_check() -> None:
    checker, calls = counting()
    for validator in make.QUORUM:
        checker.verify(make.vote(B1, validator), validator)
    assert calls() == 3
    checker.verify(make.proposal(B2), 2)
    assert calls() == 4
    checker.verify(make.proposal(B2), 2)
    assert calls() == 4


def test_remembered_signature_serves_only_the_same_body_and_signer() -> None:
    checker, _ = counting()
    good = make.vote(B1, 0)
    checker.verify(good, 0)
    with pytest.raises(SignatureError):
        checker.verify(replace(good, block_id=B2.id), 0)
    with pytest.raises(SignatureError):
        checker.verify(replace(good, validator=1), 1)


def test_own_signature_can_be_remembered_without_a_check() -> None:
    checker, calls = counting()
    own = make.vote(B1, 0)
    checker.remember(SignKind.VOTE, 0, own.body, own.signature)
    checker.verify(own, 0)
    assert calls() == 0


def test_memory_of_signatures_is_bounded() -> None:
    checker, calls = counting()
    first = make.vote(B1, 0)
    checker.verify(first, 0)
    for number in range(CACHED_MAX):
        checker.remember(SignKind.VOTE, 1, b"body", number.to_bytes(64, "big"))
    checker.verify(first, 0)
    assert calls() == 2


def test_real_signature_scheme_is_the_default() -> None:
    checker = Verifier(CHAIN, make.COMMITTEE, make.GENESIS_QC)
    message: Vote = make.vote(B1, 0)
    with pytest.raises(SignatureError):
        checker.verify(message, 0)
