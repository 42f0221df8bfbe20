"""What a start takes over from the log's record, where the signer's own mark is behind it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from consensus.hotstuff import wire
from consensus.hotstuff.types import (
    Certificates,
    CommitCert,
    QuorumCert,
    Statement,
    first_record,
    genesis_block,
)
from node.errors import PromisesLostError
from node.opening import signed_bodies
from node.promises import check_remembered
from tests.node.storage.memory_disk import MemoryDisk
from tests.node.test_signer import CHAIN, opened

OWN = 1
FIRST = genesis_block(CHAIN, bytes(32), 1_700_000_000_000)
STATEMENT = Statement(
    CHAIN,
    1,
    3,
    1,
    b"b" * 32,
    1_700_000_001_000,
    1,
    *(bytes([each]) * 32 for each in range(4)),
    None,
)


def certified(*signers: int) -> CommitCert:
    """A certificate on a block of round 3."""
    return CommitCert(STATEMENT, tuple((signer, bytes(64)) for signer in signers))


def recovered(certificate: CommitCert) -> Any:
    """What a log holds whose record was synced with that certificate, and then the power failed."""
    entered = QuorumCert(1, 3, b"b" * 32, 1, tuple((each, bytes(64)) for each in (0, 1, 2)))
    record = replace(
        first_record(FIRST), high_qc=entered, entry_cert=entered, commit_cert=certificate
    )
    return cast(Any, SimpleNamespace(found=SimpleNamespace(safety=wire.encode_record(record))))


def test_commit_vote_that_only_a_certificate_tells_of_is_remembered() -> None:
    """Vote and certificate came in one sync, and power failed between it and the signer's mark."""
    certificate = certified(0, OWN, 2)
    signer = opened(MemoryDisk())
    signer.adopt(signed_bodies(recovered(certificate), OWN))
    check_remembered(Certificates(1, None, None, certificate), OWN, signer)


@pytest.mark.parametrize(
    ("kept", "own"), [((0, 2, 3), OWN), ((0, OWN, 2), 3)], ids=["of others", "of another place"]
)
def test_certificate_without_ones_vote_tells_of_nothing(kept: tuple[int, ...], own: int) -> None:
    signer = opened(MemoryDisk())
    signer.adopt(signed_bodies(recovered(certified(*kept)), own))
    with pytest.raises(PromisesLostError, match="peers show a commit vote of this key"):
        check_remembered(Certificates(1, None, None, certified(0, OWN, 2, 3)), own, signer)
