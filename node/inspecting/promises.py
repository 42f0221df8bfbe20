"""What a stopped node's key has promised: the log's safety record, and the signer's marks.

Not here: whether they go together (``forecast``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from consensus import codec
from consensus.errors import DecodeError
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert, QuorumCert, SafetyRecord, SignKind, TimeoutCert
from node.errors import DamagedMarkError, NewerFormatError
from node.signer import MARK_SHAPE, Slot
from node.storage import marks

MARKS: Final = "signer*.mark"


@dataclass(frozen=True, slots=True)
class CertificateReport:
    """A certificate. ``kind``: quorum, timeout or commit; ``signers``: places in the committee."""

    kind: str
    epoch: int
    round: int
    height: int | None
    block: bytes | None
    signers: list[int]


@dataclass(frozen=True, slots=True)
class Signed:
    """A message that was signed. ``round`` of a timeout comes with the ``high_round`` it names."""

    round: int
    height: int | None = None
    block: bytes | None = None
    high_round: int | None = None


@dataclass(frozen=True, slots=True)
class RecordReport:
    """The newest safety record of the log.

    Args:
        offset: where it lies.
        behind_damage: it lies behind damage, where no start looks.
        round: the current one when it was written.
        timeouts: ``[round, high_round]`` that bind commit votes.
        commit_floor: no commit vote is signed for a round up to this one.
    """

    offset: int
    behind_damage: bool
    epoch: int
    round: int
    last_vote: Signed | None
    last_timeout: Signed | None
    last_proposal: Signed | None
    commit_votes: list[Signed]
    timeouts: list[list[int]]
    commit_floor: int
    high_qc: CertificateReport
    entry_cert: CertificateReport
    commit_cert: CertificateReport | None


@dataclass(frozen=True, slots=True)
class MarkReport:
    """A signer's mark. ``problem`` is code and words where it cannot be read.

    Args:
        last: per kind, ``[epoch, round]`` of the last body signed.
        settled: no commit vote is signed up to this ``[epoch, round]``.
        commit_votes: how many are remembered above it.
        log_synced: the log was on disk up to here when it was written.
        lost: it was found once that the log has lost promises.
    """

    file: str
    problem: tuple[str, str] | None = None
    key: bytes = b""
    chain: bytes = b""
    log_identity: bytes = b""
    log_synced: int = 0
    lost: bool = False
    last: Mapping[str, list[int]] | None = None
    settled: list[int] | None = None
    commit_votes: int = 0

    @property
    def signed(self) -> dict[SignKind, Slot]:
        """The last slot of each kind."""
        return {SignKind[name.upper()]: (at[0], at[1]) for name, at in (self.last or {}).items()}


def certificate(found: QuorumCert | TimeoutCert | CommitCert) -> CertificateReport:
    """Return what a certificate says."""
    match found:
        case QuorumCert():
            signers = [index for index, _ in found.signatures]
            return CertificateReport(
                "quorum", found.epoch, found.round, found.height, found.block_id, signers
            )
        case TimeoutCert():
            signers = [index for index, _, _ in found.entries]
            return CertificateReport("timeout", found.epoch, found.round, None, None, signers)
        case CommitCert(statement):
            signers = [index for index, _ in found.signatures]
            return CertificateReport(
                "commit",
                statement.epoch,
                statement.round,
                statement.height,
                statement.block_id,
                signers,
            )


def record(found: SafetyRecord, offset: int, behind_damage: bool) -> RecordReport:
    """Return what a safety record promises."""
    vote, timeout, proposal = found.last_vote, found.last_timeout, found.last_proposal
    block = None if proposal is None else proposal.block
    return RecordReport(
        offset,
        behind_damage,
        found.epoch,
        found.entry_cert.round + 1,
        None if vote is None else Signed(vote.round, vote.height, vote.block_id),
        None if timeout is None else Signed(timeout.round, high_round=timeout.high_round),
        None if block is None else Signed(block.round, block.height, block.id),
        [
            Signed(each.round, each.statement.height, each.statement.block_id)
            for each in found.commit_votes
        ],
        [list(each) for each in found.signed_timeouts],
        found.commit_floor,
        certificate(found.high_qc),
        certificate(found.entry_cert),
        None if found.commit_cert is None else certificate(found.commit_cert),
    )


def record_in(payload: bytes) -> SafetyRecord | None:
    """Return the safety record in an entry, None if it is not one of this format."""
    try:
        return wire.decode_record(payload)
    except DecodeError:
        return None


def read_marks(folder: Path) -> list[MarkReport]:
    """Return the signer's marks in a data folder, each read without being opened for writing."""
    return [read_mark(path) for path in sorted(folder.glob(MARKS))]


def read_mark(path: Path) -> MarkReport:
    """Return what one mark says."""
    try:
        content = marks.peek(path)
    except OSError as error:
        return MarkReport(path.name, ("MARK", f"cannot read {path}: {error.strerror}"))
    except (NewerFormatError, DamagedMarkError) as error:
        return MarkReport(path.name, (error.code, error.message))
    try:
        value: list[Any] = codec.decode(
            content, MARK_SHAPE, bytes_max=marks.CONTENT_BYTES_MAX, what="mark"
        )
    except DecodeError as error:
        said = f"the signer's mark is not what was written: {error}"
        return MarkReport(path.name, ("MARK_DAMAGED", said))
    key, chain, identity, synced, lost, bodies, settled, votes = value
    last = {SignKind(kind).name.lower(): [epoch, round_] for kind, epoch, round_, _ in bodies}
    return MarkReport(
        path.name, None, key, chain, identity, synced, lost, last, settled, len(votes)
    )
