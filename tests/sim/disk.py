"""What a simulated machine keeps: the files of log and mark, and the store of certified heights.

The files are bytes under the product's own log and recovery (``files``). The store takes a flush at
once, as LMDB does. Beside them stands what this module itself noted of every sync that returned:
the next start must find all of it, and nothing may be sent that is not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from consensus.hotstuff import wire
from consensus.hotstuff.types import Block, CommitCert, SafetyRecord, Statement
from consensus.state.history import MemoryNodes
from consensus.state.state import MemoryBackend
from node.checked import CheckedBatch
from node.storage.kinds import AtHeight, BatchPart, Entry, Kind
from node.storage.recovery import Found
from tests.sim.epochs import Ended
from tests.sim.errors import require
from tests.sim.files import Files

FOUND_AGAIN = "what was synced is found again"


@lru_cache(maxsize=256)
def read_record(data: bytes) -> SafetyRecord:
    """Return a record on a disk: the same one is asked for at every signature and every send."""
    return wire.decode_record(data)


@dataclass
class Store:
    """Certified heights, durable."""

    backend: MemoryBackend
    nodes: MemoryNodes
    blocks: list[tuple[Block, Statement, CommitCert | None]]
    """By height."""
    numbers: list[int]
    """Of the highest batch delivered, by origin."""
    batches: dict[bytes, CheckedBatch] = field(default_factory=dict)
    ended: list[Ended] = field(default_factory=list)
    """The ends of epochs, from the first on."""

    @property
    def height(self) -> int:
        """The newest height."""
        return len(self.blocks) - 1

    @property
    def view(self) -> Store:
        """What recovery reads of it."""
        return self

    def has_batch(self, digest: bytes) -> bool:
        """Return whether a flushed block contains the batch."""
        return digest in self.batches

    def block(self, height: int) -> Block | None:
        """Return the block of a height."""
        return self.blocks[height][0] if height <= self.height else None


@dataclass
class Disk:
    """What survives a crash.

    Attributes:
        record, blocks, batches: in the log, by every sync that has returned.
        writing: what a sync under way is to add; some of it may be found after a crash.
    """

    store: Store
    files: Files
    record: bytes | None = None
    blocks: dict[bytes, Block] = field(default_factory=dict)
    batches: dict[bytes, None] = field(default_factory=dict)
    writing: Sequence[Entry] = ()
    marks: set[bytes] = field(default_factory=set)
    """Keys that have a mark here."""

    @property
    def epoch(self) -> int:
        """The epoch of the record on disk."""
        return 1 if self.record is None else read_record(self.record).epoch

    def synced(self, known: dict[bytes, Block]) -> None:
        """The sync under way has returned.

        Args:
            known: blocks by id.
        """
        entries, self.writing = self.writing, ()
        for kind, payload in entries:
            match kind:
                case Kind.SAFETY:
                    self.record = payload
                case Kind.BLOCK:
                    block_id = AtHeight.unpack(payload).block_id
                    self.blocks[block_id] = known[block_id]
                case Kind.PRIVATE:  # after its public part
                    self.batches[BatchPart.unpack(payload).digest] = None
                case _:
                    pass

    def turned(self, where: str) -> None:
        """What is being written is a log that begins anew: it holds no other batch.

        So every batch that a block names is to be among what is written, if it was synced before.
        What no block names may have expired; a block that comes later is fetched with its batches.
        """
        carried = {
            BatchPart.unpack(data).digest for kind, data in self.writing if kind == Kind.PRIVATE
        }
        self.flushed()
        for block in self.blocks.values():
            for item in block.payload:
                kept = item.digest in carried or item.digest not in self.batches
                require(kept, FOUND_AGAIN, f"{where}: a new log lacks a batch of {block.height}")
        self.batches = {digest: None for digest in self.batches if digest in carried}

    def flushed(self) -> None:
        """Forget of the log what the store has by now, and blocks of epochs that have ended.

        Nothing is built on those: a log that begins anew may hold them without their batches.
        """
        height, epoch = self.store.height, self.epoch
        self.blocks = {
            block_id: block
            for block_id, block in self.blocks.items()
            if block.height > height and block.epoch == epoch
        }
        self.batches = {d: None for d in self.batches if d not in self.store.batches}

    def compare(self, found: Found, blocks: Iterable[Block], where: str) -> None:
        """Check what a start has found against what was synced.

        Args:
            blocks: those found, decoded.
        """
        self.flushed()
        records = [self.record, *(p for kind, p in self.writing if kind == Kind.SAFETY)]
        require(found.safety in records, FOUND_AGAIN, f"{where}: another safety record")
        ids = {block.id: block for block in blocks}
        for block_id, block in self.blocks.items():
            require(block_id in ids, FOUND_AGAIN, f"{where}: no block of {block.height}")
            for item in block.payload:
                synced = item.digest in self.batches
                again = item.digest in found.batches and item.digest in found.private
                require(again or not synced, FOUND_AGAIN, f"{where}: no batch of {block.height}")

    def started(self, found: Found, blocks: Iterable[Block]) -> None:
        """A start has synced all that it found; until then a power cut may take what was not."""
        self.record = found.safety
        self.blocks = {block.id: block for block in blocks}
        self.batches = {digest: None for digest in found.private if digest in found.batches}
        self.writing = ()
