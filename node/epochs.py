"""The epochs of a network as a node keeps them: what ended each, and who votes in the next.

Each ended epoch has one entry in the store's meta table, written by the flush that writes its last
block: the commit certificate on that block and the committee that it elected. The chain of them,
from genesis on, is what a peer that is behind, and anybody who verifies, follows.

Not here: when an epoch ends (``consensus.hotstuff.epochs``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from consensus import codec
from consensus import committee as committees
from consensus.answers import EpochStep
from consensus.committee import COMMITTEE, Committee
from consensus.errors import DecodeError
from consensus.genesis import EPOCH
from consensus.hotstuff import wire
from consensus.hotstuff.types import CommitCert, QuorumCert, start_cert
from node.errors import DamagedStoreError
from node.storage.readonly import DATA_NAME, beside, view_of
from node.storage.recovery import STORE_FOLDER
from node.storage.store import Store, View

META_ENDED: Final = b"epoch "
ENTRY_BYTES_MAX: Final = 512 * 1024

_ENTRY: Final = codec.array(wire.COMMIT_CERT, COMMITTEE)


@dataclass(frozen=True, slots=True)
class Ended:
    """An epoch's end: the certificate on its last block, and the committee of the next epoch."""

    certificate: CommitCert
    committee: Committee

    @property
    def epoch(self) -> int:
        """The epoch that ended."""
        return self.certificate.statement.epoch

    @property
    def height(self) -> int:
        """Of its last block."""
        return self.certificate.statement.height

    @property
    def start(self) -> QuorumCert:
        """The virtual certificate of the next epoch."""
        return start_cert(self.certificate.statement)

    def meta(self) -> tuple[bytes, bytes]:
        """Return the entry in the store's meta table."""
        value = [self.certificate.to_value(), self.committee.to_value()]
        return _name(self.epoch), codec.encode(value)

    def step(self) -> EpochStep:
        """Return what a client follows."""
        return EpochStep(self.certificate.encoded, self.committee.to_value())


def ended_of(step: EpochStep) -> Ended:
    """Return the end of an epoch from a step that was verified."""
    return Ended(wire.decode_commit_cert(step.certificate), committees.from_value(step.committee))


def stored(folder: Path, chain: bytes) -> tuple[Ended, ...]:
    """Return the ends of epochs that a stopped node's data knows of.

    Raises:
        StorageError: the store cannot be used.
    """
    path = folder / STORE_FOLDER
    if not path.exists():
        return ()
    store = Store.open(path, chain=chain)
    try:
        return kept(store.view)
    finally:
        store.close()


def looked_up(folder: Path, chain: bytes) -> tuple[Ended, ...]:
    """Return the ends of epochs that a node's data knows of, while the node may be running.

    Raises:
        StorageError: the store cannot be used.
    """
    path = folder / STORE_FOLDER
    if not (path / DATA_NAME).is_file():
        return ()
    with beside(path) as environment:
        view = view_of(environment, path, chain)
        try:
            return kept(view)
        finally:
            view.close()


def _name(epoch: int) -> bytes:
    return META_ENDED + str(epoch).encode()


def kept(view: View) -> tuple[Ended, ...]:
    """Return the ends of all epochs that a store knows of, from the first on.

    Raises:
        DamagedStoreError: an entry is not what was written, or the committees do not join.
    """
    found: list[Ended] = []
    while (data := view.meta(_name(EPOCH + len(found)))) is not None:
        found.append(_read(data, EPOCH + len(found)))
    return tuple(found)


def _read(data: bytes, epoch: int) -> Ended:
    try:
        value = codec.decode(data, _ENTRY, bytes_max=ENTRY_BYTES_MAX, what="epoch")
        ended = Ended(wire.commit_cert_from(value[0]), committees.from_value(value[1]))
    except DecodeError as error:
        raise DamagedStoreError(f"the end of epoch {epoch} cannot be read: {error}") from error
    elected = ended.certificate.statement.next_committee_hash == ended.committee.hash
    if ended.epoch != epoch or ended.committee.epoch != epoch + 1 or not elected:
        raise DamagedStoreError(f"the end of epoch {epoch} is not what was written")
    return ended
