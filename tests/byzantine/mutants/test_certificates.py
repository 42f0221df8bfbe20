"""Certificates whose signatures are only partly verified, or fields unchecked, let forged ones in.

Lesson 16: light clients that left fields unchecked (ASA-2024-009), evidence whose signatures were
only partly verified (cometbft #1749).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from consensus.errors import CertificateError, SignatureError
from consensus.hotstuff.certificates import Verifier
from consensus.hotstuff.types import Certificates, CommitCert, SignKind
from tests.consensus.hotstuff import builders as make
from tests.consensus.hotstuff.driver import CHAIN, verify_signature

(BLOCK,) = make.chain(1)
GOOD = make.commit_cert(make.statement(BLOCK))
LAST = (*GOOD.signatures[:-1], (GOOD.signatures[-1][0], bytes(64)))
FORGED = {
    "one signature is nobody's": replace(GOOD, signatures=LAST),
    "a field was changed under the signatures": replace(
        GOOD, statement=replace(GOOD.statement, state_root=b"x" * 32)
    ),
    "it is of another chain": make.commit_cert(replace(GOOD.statement, chain=bytes(32))),
    "too few signed": replace(GOOD, signatures=GOOD.signatures[:-1]),
    "one signed twice": replace(GOOD, signatures=(GOOD.signatures[0], *GOOD.signatures[:-1])),
}


def _first_only(self: Verifier, certificate: CommitCert) -> None:
    validator, signature = certificate.signatures[0]
    self._signature(SignKind.COMMIT_VOTE, validator, certificate.statement.encoded, signature)


def _of_something_else(self: Verifier, certificate: CommitCert) -> None:
    for validator, signature in certificate.signatures:
        self._signature(SignKind.COMMIT_VOTE, validator, GOOD.statement.encoded, signature)


def _nothing(self: Verifier, certificate: CommitCert) -> None:
    pass


MUTANTS: dict[str, tuple[str, Callable[[Verifier, CommitCert], None], str]] = {
    "the first signature alone is verified": (
        "_commit_signatures",
        _first_only,
        "one signature is nobody's",
    ),
    "signatures are verified over less than all of it": (
        "_commit_signatures",
        _of_something_else,
        "a field was changed under the signatures",
    ),
    "nobody counts the signers": ("_commit_shape", _nothing, "too few signed"),
    "nobody looks whether signers are distinct": ("_commit_shape", _nothing, "one signed twice"),
}
"""Each mutant with the forged certificate that it lets in."""


def refused(certificate: CommitCert) -> bool:
    """Whether a fresh verifier refuses a certificate."""
    verifier = Verifier(CHAIN, make.COMMITTEE, make.GENESIS_QC, verify=verify_signature)
    try:
        verifier.verify(Certificates(1, None, None, certificate), 2)
    except (CertificateError, SignatureError):
        return True
    return False


@pytest.mark.parametrize("forged", FORGED)
def test_forged_certificate_is_refused(forged: str) -> None:
    assert not refused(GOOD)
    assert refused(FORGED[forged])


@pytest.mark.parametrize("name", MUTANTS)
def test_broken_rule_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place, mutant, forged = MUTANTS[name]
    monkeypatch.setattr(Verifier, place, mutant)
    assert not refused(FORGED[forged])
