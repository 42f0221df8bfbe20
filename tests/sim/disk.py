"""The disk of a simulated machine: a log, the signer's mark, and the store of certified heights.

The log and the mark are durable only once their sync has ended. When power fails during a sync,
what was being written is there as a whole or not at all; which of the two is chance. The store
takes a flush at once, as LMDB does.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from consensus.hotstuff.types import Block, CommitCert, SignKind, Statement
from consensus.state.history import MemoryNodes
from consensus.state.state import MemoryBackend
from node.checked import CheckedBatch


@dataclass(frozen=True, slots=True)
class Group:
    """What one sync makes durable: entries of the log, in order.

    ``record`` is the newest safety record of the group, None if it has none.
    """

    blocks: tuple[Block, ...]
    batches: tuple[CheckedBatch, ...]
    record: bytes | None


@dataclass(frozen=True, slots=True)
class Mark:
    """What the signer had signed: the last body of each kind, and commit votes by round."""

    last: dict[SignKind, tuple[int, bytes]] = field(default_factory=dict)
    settled: int = 0
    commit_votes: dict[int, bytes] = field(default_factory=dict)
    log_groups: int = 0
    """Groups of the log that were durable when this was written."""


@dataclass
class Store:
    """Certified heights, durable."""

    backend: MemoryBackend
    nodes: MemoryNodes
    blocks: list[tuple[Block, Statement, CommitCert | None]]
    """By height."""
    numbers: list[int]
    batches: dict[bytes, CheckedBatch] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """The newest height."""
        return len(self.blocks) - 1


@dataclass
class Disk:
    """What survives a crash."""

    store: Store
    groups: int = 0
    record: bytes | None = None
    blocks: dict[bytes, Block] = field(default_factory=dict)
    batches: dict[bytes, CheckedBatch] = field(default_factory=dict)
    mark: Mark = field(default_factory=Mark)

    def append(self, group: Group) -> None:
        """Make a group durable."""
        self.groups += 1
        if group.record is not None:
            self.record = group.record
        for block in group.blocks:
            self.blocks[block.id] = block
        for batch in group.batches:
            self.batches[batch.digest] = batch

    def forget_flushed(self) -> None:
        """Drop what the store has from the log, as recovery does."""
        height = self.store.height
        self.blocks = {i: block for i, block in self.blocks.items() if block.height > height}
        self.batches = {d: b for d, b in self.batches.items() if d not in self.store.batches}
