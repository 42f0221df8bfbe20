"""What was verified once is not verified again, and nothing forged is taken for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from comity.verify import Trust
from consensus import codec, genesis, signing
from consensus.answers import DecisionAnswer, StatementEvidence
from consensus.errors import ComityError, ProofError, SignatureError
from consensus.evidence import trust as trusting
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert, Statement
from consensus.ledger.decision import REFUSED, Decision, Maker
from consensus.state.merkle import RESULTS
from tests.comity.twin import certify, make_genesis

GENESIS = make_genesis()
CHAIN = genesis.chain_id(GENESIS.encode())
TXIDS = [bytes([40 + i]) * 32 for i in range(5)]
LEAVES = {"code": codec.encode([64, None, None]), "authority": codec.encode([None, [], []])}
MAKER = Maker(height=7, time_ms=65_536)


def decided(index: int) -> Decision:
    return MAKER.make(TXIDS[index], index, REFUSED, [], dict(LEAVES), bytes(32))


DECISIONS = [decided(index) for index in range(5)]
ROOTS = [decision.root for decision in DECISIONS]
STATEMENT = Statement(
    chain=CHAIN,
    epoch=GENESIS.committee.epoch,
    round=9,
    height=7,
    block_id=b"b" * 32,
    time_ms=65_536,
    executor=1,
    state_root=b"s" * 32,
    results_root=RESULTS.root(ROOTS),
    changes_root=b"c" * 32,
    history_root=b"h" * 32,
    next_committee_hash=None,
)


class Counted:
    """Signatures really checked. Starts with nothing remembered."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, key: bytes, signed: bytes, signature: bytes) -> None:
        self.count += 1
        signing.verify(key, signed, signature)


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> Counted:
    counted = Counted()
    monkeypatch.setattr(trusting, "_verify", trusting.remembering(counted))
    return counted


def trust() -> Trust:
    return Trust(CHAIN, GENESIS.committee)


def test_certificates_of_one_height_share_the_signatures_that_were_checked(checks: Counted) -> None:
    one, other = certify(STATEMENT, (0, 1, 2)), certify(STATEMENT, (1, 2, 3))
    first, second = trust(), trust()
    assert first.certificate(one).statement == STATEMENT
    assert checks.count == 3
    assert first.certificate(other).statement == STATEMENT
    assert checks.count == 4
    second.certificate(one)
    second.certificate(other)
    assert checks.count == 4


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


def parts() -> tuple[Statement, list[tuple[int, bytes]]]:
    certificate = wire.decode_commit_cert(certify(STATEMENT))
    return certificate.statement, list(certificate.signatures)


def on_another_statement() -> bytes:
    statement, rows = parts()
    forged = replace(statement, state_root=b"f" * 32)
    return wire.encode_commit_cert(CommitCert(forged, tuple(rows)))


def with_a_flipped_signature() -> bytes:
    return flipped(certify(STATEMENT))


def with_a_signature_of_another_signer() -> bytes:
    statement, rows = parts()
    rows[2] = (3, rows[2][1])
    return wire.encode_commit_cert(CommitCert(statement, tuple(rows)))


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize(
    "forge", [on_another_statement, with_a_flipped_signature, with_a_signature_of_another_signer]
)
def test_forged_certificate_is_refused(
    forge: Callable[[], bytes], warm: bool, checks: Counted
) -> None:
    mine = trust()
    if warm:
        mine.certificate(certify(STATEMENT, (0, 1, 2)))
        mine.certificate(certify(STATEMENT, (1, 2, 3)))
    for again in (mine, mine, trust()):  # and a refusal is not remembered as anything else
        with pytest.raises(SignatureError):
            again.certificate(forge())
        assert again.height == (7 if warm and again is mine else 0)


def found(index: int) -> DecisionAnswer:
    path = tuple(RESULTS.path(ROOTS, index))
    return DecisionAnswer(7, 5, path, index, DECISIONS[index].encode())


def with_another_path(answer: DecisionAnswer) -> DecisionAnswer:
    return replace(answer, path=(b"f" * 32, *answer.path[1:]))


def with_another_leaf(answer: DecisionAnswer) -> DecisionAnswer:
    leaves = {**LEAVES, "code": codec.encode([0, None, None])}
    forged = MAKER.make(TXIDS[4], 4, REFUSED, [], leaves, bytes(32))
    return replace(answer, decision=forged.encode())


def with_the_index_of_another(answer: DecisionAnswer) -> DecisionAnswer:
    return replace(answer, index=3, path=tuple(RESULTS.path(ROOTS, 3)))


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("forge", [with_another_path, with_another_leaf, with_the_index_of_another])
def test_forged_decision_or_path_is_refused(
    forge: Callable[[DecisionAnswer], DecisionAnswer], warm: bool, checks: Counted
) -> None:
    mine = trust()
    statement = mine.statement(StatementEvidence(certify(STATEMENT)))
    if warm:
        assert mine.decision(found(4), statement, TXIDS[4]).txid == TXIDS[4]
    with pytest.raises(ProofError):
        mine.decision(forge(found(4)), statement, TXIDS[4])


def test_what_failed_is_checked_again(checks: Counted) -> None:
    mine = trust()
    for _ in range(2):
        before = checks.count
        with pytest.raises(ComityError):
            mine.certificate(with_a_flipped_signature())
        assert checks.count > before
