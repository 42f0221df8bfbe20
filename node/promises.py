"""What certificates show that this key has signed, against what its signer remembers.

The mark is durable before a signature leaves, so a certificate can hold no signature of ours that
the signer does not know, unless the data folder is gone or was put back from a backup. Whoever
comes back like that is shown its forgotten votes while it catches up, in the blocks that it lacks.

Only verified certificates count, and those inside blocks that a verified certificate proves: the
honest voters on them have checked every one.
"""

from __future__ import annotations

from collections.abc import Iterator

from consensus.hotstuff.types import (
    Block,
    BlocksResponse,
    Certificates,
    CommitCert,
    Message,
    Proposal,
    QuorumCert,
    SignKind,
    Timeout,
    TimeoutCert,
)
from node.errors import PromisesLostError
from node.signer import Signer, Slot

Certificate = QuorumCert | TimeoutCert | CommitCert


def check_remembered(message: Message, own: int, signer: Signer) -> None:
    """Check that this key's signatures in a verified message are remembered.

    Args:
        message: a peer's, verified.
        own: index of this key's validator, in the message's epoch.
        signer: of this key.

    Raises:
        PromisesLostError: a certificate holds one for a round beyond the signer's mark.

    Cost: 1 µs unless a certificate is newer than what was signed here.
    """
    for certificate in _certificates(message):
        kind, slot = _slot(certificate)
        if slot > signer.slot_of(kind) and own in _signers(certificate):
            name = kind.name.lower().replace("_", " ")
            raise PromisesLostError(
                f"peers show a {name} of this key for {_words(slot)}, the signer's mark is at "
                f"{_words(signer.slot_of(kind))}: the data folder is new or was put back"
            )


def _words(slot: Slot) -> str:
    epoch, round_ = slot
    return f"epoch {epoch} round {round_}"


def _slot(certificate: Certificate) -> tuple[SignKind, Slot]:
    match certificate:
        case QuorumCert():
            return SignKind.VOTE, (certificate.epoch, certificate.round)
        case TimeoutCert():
            return SignKind.TIMEOUT, (certificate.epoch, certificate.round)
        case CommitCert(statement):
            return SignKind.COMMIT_VOTE, (statement.epoch, statement.round)


def _signers(certificate: Certificate) -> list[int]:
    if isinstance(certificate, TimeoutCert):
        return [index for index, _, _ in certificate.entries]
    return [index for index, _ in certificate.signatures]


def _certificates(message: Message) -> Iterator[Certificate]:
    match message:
        case Proposal(block):
            yield from _of_block(block)
            yield from _present(message.high_qc, message.timeout_cert, message.commit_cert)
        case Timeout() | Certificates():
            yield from _present(message.high_qc, message.timeout_cert, message.commit_cert)
        case BlocksResponse(blocks, proof) if proof is not None:
            yield from _present(proof)
            for block in blocks:
                yield from _of_block(block)
        case _:
            return


def _of_block(block: Block) -> Iterator[Certificate]:
    yield from _present(block.justify, block.timeout_cert)


def _present(*certificates: Certificate | None) -> Iterator[Certificate]:
    for certificate in certificates:
        if certificate is not None:
            yield certificate
            if isinstance(certificate, TimeoutCert):
                yield certificate.high_qc
