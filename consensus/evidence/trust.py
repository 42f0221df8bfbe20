"""What the genesis file vouches for: committees, their certificates, and every statement below.

The committee of an epoch is elected by the statement of the last block of the epoch before, which
that epoch's committee certifies by a certificate on this very block. So whoever knows the first
committee can follow to any later one, each signed for by the one before it, and none is skipped.
Certificates of an epoch count for the heights of that epoch alone: above the end of the one before,
up to its own.

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
        self._ends: dict[int, Statement] = {}
        self._steps: list[EpochStep] = []
        self._first = self._epoch = committee.epoch
        self._certificates: dict[bytes, CommitCert] = {}

    @property
    def committee(self) -> Committee:
        """The newest committee known."""
        return self._committees[self._epoch]

    def steps_to(self, epoch: int) -> tuple[EpochStep, ...]:
        """Return what leads from the first committee to that of an epoch, as it was followed."""
        return tuple(self._steps[: max(epoch - self._first, 0)])

    def certified(self, statement: Statement) -> None:
        """Take notice of a statement that verified."""

    def certificate(self, data: bytes) -> CommitCert:
        """Return the verified commit certificate in ``data``.

        Raises:
            DecodeError: malformed.
            CertificateError: of another chain, an epoch whose committee is not known, a height
                outside of that epoch, or without exactly a quorum.
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
        self._check_place(statement)
        check_commit_cert(certificate, committee, self.chain, verify=_verify)
        self.certified(statement)
        self._certificates[data] = certificate
        if len(self._certificates) > CERTIFICATES_KEPT:
            del self._certificates[next(iter(self._certificates))]
        return certificate

    def _check_place(self, statement: Statement) -> None:
        """Check that a statement's height is one of its epoch, as far as epochs are known."""
        epoch, height = statement.epoch, statement.height
        before, end = self._ends.get(epoch - 1), self._ends.get(epoch)
        if before is not None and height <= before.height:
            raise CertificateError(
                f"height {height} is of epoch {epoch - 1}, which ended at height {before.height}"
            )
        if end is None or height < end.height:
            return
        if height > end.height:
            raise CertificateError(
                f"epoch {epoch} ended at height {end.height}; its committee signs no more"
            )
        if statement.hash != end.hash:
            raise CertificateError(f"another statement of height {height} ended epoch {epoch}")

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

    def follow(self, steps: Sequence[EpochStep], *, again: bool = False) -> None:
        """Learn the committees of later epochs, each elected under the one before.

        Args:
            again: the first of them may be known here already; they are compared.

        Raises:
            CertificateError: a step does not follow, or its committee is not the one elected.
            DecodeError, SignatureError: as ``certificate``.

        Cost: that of a certificate a step.
        """
        for step in steps:
            committee = from_value(step.committee)
            known = self._committees.get(committee.epoch)
            if again and known is not None:
                if known != committee:
                    raise CertificateError(
                        f"another committee of epoch {known.epoch} than the one that was elected"
                    )
                continue
            if committee.epoch != self._epoch + 1:
                raise CertificateError(
                    f"the steps of the committee do not join: epoch {committee.epoch} comes after"
                    f" epoch {self._epoch}"
                )
            statement = self.certificate(step.certificate).statement
            if statement.epoch != self._epoch:
                raise CertificateError(
                    f"the steps of the committee do not join: what ended epoch {self._epoch} is"
                    f" signed in epoch {statement.epoch}"
                )
            if statement.next_committee_hash is None:
                raise CertificateError(
                    f"height {statement.height} did not end epoch {self._epoch}: no committee was"
                    " elected there"
                )
            if statement.next_committee_hash != committee.hash:
                raise CertificateError("the committee is not the one that was elected")
            self._committees[committee.epoch] = committee
            self._ends[self._epoch] = statement
            self._steps.append(step)
            self._epoch = committee.epoch
