"""Opens store and log after a stop or a crash, and sorts what the log still holds.

The store ends at a certified height; the log holds what is above it (and some below, until its
segment is dropped). The newest safety record in the log counts. Batches stay on disk and are
given by offset; ``Log.read`` returns them.

A log that is shorter than the signer's mark says, or another log, has lost promises:
``open_signer`` then raises ``PromisesLostError``, and the node does not start.

Not here: connecting blocks to a chain, executing them again, merging the signer's bodies into the
safety record (the runtime), and fetching what is missing (sync).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from consensus.errors import invariant
from consensus.keyfile import KeyPair
from node.errors import NewerFormatError
from node.signer import Signer
from node.storage.disk import SYSTEM_DISK, Disk
from node.storage.kinds import AtHeight, BatchPart, Kind
from node.storage.log import RESERVE_BYTES, Log
from node.storage.store import MAP_BYTES, Store

LOG_FOLDER: Final = "log"
STORE_FOLDER: Final = "state"


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry of the log with its offset. ``value`` is the payload, or its parts."""

    offset: int
    value: AtHeight


@dataclass(slots=True)
class Found:
    """What the log holds above the store, in the log's order.

    Args:
        safety: bytes of the newest safety record, None if there is none.
        blocks: above the store's height, each block once.
        certificates: commit certificates above the store's height.
        batches: digest -> offset of the newest BATCH entry, of batches not in the store.
        private: the same of PRIVATE entries.
        evidence: payloads of EVIDENCE entries.
    """

    safety: bytes | None = None
    blocks: list[Logged] = field(default_factory=list)
    certificates: list[Logged] = field(default_factory=list)
    batches: dict[bytes, int] = field(default_factory=dict)
    private: dict[bytes, int] = field(default_factory=dict)
    evidence: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Recovered:
    """Open store and log, and what is between them."""

    store: Store
    log: Log
    found: Found

    @property
    def height(self) -> int:
        """The store's height, -1 if it is empty."""
        return self.store.height

    @property
    def fresh(self) -> bool:
        """Nothing was ever signed here, as far as store and log can tell."""
        return self.store.height <= 0 and self.log.start == 0 and self.found.safety is None

    def close(self) -> None:
        """Close log and store."""
        try:
            self.log.close()
        finally:
            self.store.close()


def recover(
    folder: Path, *, chain: bytes, disk: Disk = SYSTEM_DISK, map_bytes: int = MAP_BYTES
) -> Recovered:
    """Open the node's data in ``folder``, creating what is absent.

    Args:
        folder: the node's data folder; ``log`` and ``state`` lie in it.
        chain: 32 bytes.
        disk: the system calls of the log.
        map_bytes: first size of the store's map.

    Raises:
        StorageError: one of its kinds, each with what the operator can do.
    """
    store = Store.open(folder / STORE_FOLDER, chain=chain, map_bytes=map_bytes)
    try:
        return recover_log(store, folder, chain=chain, disk=disk)
    except BaseException:
        store.close()
        raise


def recover_log(
    store: Store,
    folder: Path,
    *,
    chain: bytes,
    disk: Disk = SYSTEM_DISK,
    reserve_bytes: int = RESERVE_BYTES,
) -> Recovered:
    """Open the log of ``folder`` beside its open store, and sort what is above that.

    Args:
        store: open; stays open if this fails.
        folder: the node's data folder.
        chain: 32 bytes.
        disk: the system calls of the log.
        reserve_bytes: see ``Log.open``.

    Raises:
        StorageError: as ``Log.open``.
    """
    sorter = _Sorter(store)
    log = Log.open(
        folder / LOG_FOLDER, sorter.take, chain=chain, disk=disk, reserve_bytes=reserve_bytes
    )
    return Recovered(store, log, sorter.found)


def open_signer(
    recovered: Recovered,
    key: KeyPair,
    mark: Path,
    *,
    chain: bytes,
    disk: Disk = SYSTEM_DISK,
    first: bool = False,
) -> Signer:
    """Open the signer, checked against the recovered log. See ``Signer.open`` for what it raises.

    Args:
        recovered: of this start.
        key: the validator's.
        mark: path of the signer's mark file.
        chain: 32 bytes.
        disk: the system calls of the mark file.
        first: the node has run here, and never signed with this key.
    """
    return Signer.open(
        key,
        mark,
        chain=chain,
        log_identity=recovered.log.identity,
        log_end=recovered.log.end,
        fresh=recovered.fresh or first,
        disk=disk,
    )


class _Sorter:
    """Takes the log's entries in order; forgets what the store has."""

    def __init__(self, store: Store) -> None:
        self.found = Found()
        self._view = store.view
        self._seen: set[bytes] = set()

    def take(self, offset: int, kind: int, payload: bytes) -> None:
        """Sort one entry."""
        found = self.found
        match kind:
            case Kind.SAFETY:
                found.safety = payload
            case Kind.BLOCK:
                block = AtHeight.unpack(payload)
                if block.height > self._view.height and block.block_id not in self._seen:
                    self._seen.add(block.block_id)
                    found.blocks.append(Logged(offset, block))
            case Kind.COMMIT_CERT:
                certificate = AtHeight.unpack(payload)
                if certificate.height > self._view.height:
                    found.certificates.append(Logged(offset, certificate))
            case Kind.BATCH:
                self._place(found.batches, BatchPart.unpack(payload).digest, offset)
            case Kind.PRIVATE:
                self._place(found.private, BatchPart.unpack(payload).digest, offset)
            case Kind.EVIDENCE:
                found.evidence.append(payload)
            case _:
                invariant(kind != Kind.GROUP, "the log keeps its group headers to itself")
                raise NewerFormatError(f"the log holds an entry of unknown kind {kind}")

    def _place(self, places: dict[bytes, int], digest: bytes, offset: int) -> None:
        if not self._view.has_batch(digest):
            places[digest] = offset
