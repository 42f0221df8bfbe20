"""What the genesis file vouches for: committees, their certificates, and every statement below.

Not here: what a statement proves.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from consensus import answers, codec, signing
from consensus.answers import EpochStep, StatementEvidence
from consensus.committee import Committee, from_value
from consensus.errors import CertificateError, ProofError
from consensus.hotstuff import wire
from consensus.hotstuff.certificates import VerifySignature, check_commit_cert
from consensus.hotstuff.types import CommitCert, Statement
from consensus.state import history

CERTIFICATES_KEPT: Final = 64
"""Certificates whose verification is remembered, by their bytes."""
SIGNATURES_KEPT: Final = 1024
"""Signatures that verified, remembered by key, message and signature: nodes send certificates of
one height that differ in a signature, and the clients of one program see the same ones."""


def remembering(verify: VerifySignature) -> VerifySignature:
    """Return ``verify`` as it is, but for signatures that verified lately. Errors are not kept."""
    return lru_cache(maxsize=SIGNATURES_KEPT)(verify)


_verify = remembering(signing.verify)


class Chain:
    """The committees of a network, from its first.

    Args:
        chain: hash of the genesis file.
        committee: of the first epoch, from the genesis file.
    """

    def __init__(self, chain: bytes, committee: Committee) -> None:
        self.chain = chain
        self._committees = {committee.epoch: committee}
        self._ends: dict[int, int] = {}
        self._epoch = committee.epoch
        self._certificates: dict[bytes, CommitCert] = {}

    @property
    def committee(self) -> Committee:
        """The newest committee known."""
        return self._committees[self._epoch]

    def certified(self, statement: Statement) -> None:
        """Take notice of a statement that verified."""

    def certificate(self, data: bytes) -> CommitCert:
        """Return the verified commit certificate in ``data``.

        Raises:
            DecodeError: malformed.
            CertificateError: of another chain, an epoch whose committee is not known, or without
                exactly a quorum.
            SignatureError: a signature does not verify.

        Cost: about 70 µs a signature not seen before; certificates of one height share most.
        """
        known = self._certificates.get(data)
        if known is not None:
            return known
        certificate = wire.decode_commit_cert(data)
        statement = certificate.statement
        if statement.chain != self.chain:
            raise CertificateError("the certificate is of another network")
        committee = self._committees.get(statement.epoch)
        if committee is None:
            raise CertificateError(
                f"the committee of epoch {statement.epoch} is not known here",
                hint="follow the committee's changes first",
            )
        end = self._ends.get(statement.epoch)
        if end is not None and statement.height > end:
            raise CertificateError(
                f"epoch {statement.epoch} ended at height {end}; its committee signs no more"
            )
        check_commit_cert(certificate, committee, self.chain, verify=_verify)
        self.certified(statement)
        self._certificates[data] = certificate
        if len(self._certificates) > CERTIFICATES_KEPT:
            del self._certificates[next(iter(self._certificates))]
        return certificate

    def statement(self, evidence: StatementEvidence) -> Statement:
        """Return the verified statement of a height.

        Raises:
            DecodeError: malformed.
            CertificateError, SignatureError: as ``certificate``.
            ProofError: the statement is not in the certificate's history.
        """
        certified = self.certificate(evidence.certificate).statement
        if evidence.statement is None:
            if evidence.path:
                raise ProofError("a path where the certificate is for the height itself")
            return certified
        value = codec.decode(
            evidence.statement,
            wire.STATEMENT,
            bytes_max=answers.EVIDENCE_BYTES_MAX,
            what="statement",
        )
        statement = wire.statement_from(value)
        history.verify_inclusion(
            certified.history_root,
            certified.height,
            statement.height,
            statement.hash,
            evidence.path,
        )
        if statement.chain != self.chain:
            raise CertificateError("the statement is of another network")
        self.certified(statement)
        return statement

    def follow(self, steps: Sequence[EpochStep]) -> None:
        """Learn the committees of later epochs, each elected under the one before.

        Raises:
            CertificateError: a step does not follow, or its committee is not the one elected.
            DecodeError, SignatureError: as ``certificate``.
        """
        for step in steps:
            statement = self.certificate(step.certificate).statement
            committee = from_value(step.committee)
            if committee.epoch <= self._epoch:
                continue
            if statement.epoch != self._epoch or committee.epoch != self._epoch + 1:
                raise CertificateError("the steps of the committee do not join")
            if statement.next_committee_hash != committee.hash:
                raise CertificateError("the committee is not the one that was elected")
            self._committees[committee.epoch] = committee
            self._ends[self._epoch] = statement.height
            self._epoch = committee.epoch
