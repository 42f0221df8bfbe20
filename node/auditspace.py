"""Where an audit keeps the state that it executes: a store of its own, in the node's format.

Memory then does not grow with the state, and an audit that was kept goes on where it stopped. The
heights executed are written with their statements and certificates, without transactions and
decisions. What is kept is the auditor's own result: it is as trustworthy as the folder.

Not here: what is executed (``consensus.audit.replay``).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Final

from consensus import codec
from consensus.audit.replay import Origin, Replay, Tip
from consensus.errors import invariant
from consensus.hotstuff import wire
from consensus.hotstuff.types import Statement
from consensus.snapshot import Reader
from node.errors import DamagedStoreError, SnapshotError
from node.opening import StoreNodes
from node.snapshots.importing import Progress, fill
from node.storage.flush import BlockData, FlushBatch
from node.storage.store import Store

META_AUDIT: Final = b"audit"
CURRENCIES_MAX: Final = 4096
_SHAPE: Final = codec.array(
    codec.count, codec.optional(codec.map_of(codec.integer(), CURRENCIES_MAX))
)
_NOTHING: Final = codec.encode([])


class AuditSpace:
    """The open folder of an audit."""

    def __init__(self, folder: Path, chain: bytes) -> None:
        self._store = Store.open(folder, chain=chain)
        self._blocks: list[BlockData] = []
        self.backend = self._store.state
        self.nodes = StoreNodes(self._store)

    @classmethod
    def begin(cls, folder: Path, chain: bytes, snapshot: Path, progress: Progress) -> AuditSpace:
        """Return a new space that begins with the state of a snapshot, each chunk checked.

        Args:
            folder: must not exist.
            progress: is told ``(done, of)`` in entries.

        Raises:
            SnapshotError: the file is a copy of a part.
            DecodeError, VerificationError: the file is not right; nothing is left behind.
        """
        try:
            with snapshot.open("rb") as opened:
                fill(_whole(Reader(opened.read, chain)), folder, progress)
            space = cls(folder, chain)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        kept = codec.encode([space.height, None])
        space._store.write(FlushBatch(height=space.height, meta=[(META_AUDIT, kept)]))
        return space

    @property
    def height(self) -> int:
        """The newest height kept; -1 if there is none."""
        return self._store.height

    def origin(self) -> Origin | None:
        """Return where the audit kept here stopped; None if it has not begun.

        Raises:
            DamagedStoreError: the folder is not that of an audit.
        """
        view = self._store.view
        if view.height < 0:
            return None
        data, kept = view.block(view.height), view.meta(META_AUDIT)
        if data is None or kept is None:
            raise DamagedStoreError(
                "the folder holds something else than a kept audit",
                hint="name another folder with --keep",
            )
        block_data, statement_data = codec.parse(data)
        certified, totals = codec.decode(kept, _SHAPE, bytes_max=len(kept), what="audit")
        block = wire.decode_block(block_data)
        statement = Statement(*codec.parse(statement_data))
        tip = Tip(block.height, block.round, block.id, block.time_ms, statement)
        executed = view.block(0) is not None
        return Origin(tip, self.backend, self.nodes, totals, certified, executed)

    def note(self, block: bytes, statement: Statement, certificate: bytes | None) -> None:
        """Take note of a height that was executed, until the next ``flush``."""
        data = codec.encode([block, statement.encoded])
        height = statement.height
        self._blocks.append(BlockData(height, data, _NOTHING, b"", certificate, [], []))

    def flush(self, replay: Replay) -> None:
        """Write what was executed since the last time."""
        height = replay.height
        if height == self.height:
            return
        invariant(not self._blocks or self._blocks[-1].height == height, "heights are noted")
        rows = replay.state.pending(height)
        kept = codec.encode([replay.certified, replay.money.totals])
        self._store.write(
            FlushBatch(
                height=height,
                rows=rows,
                blocks=self._blocks,
                history=[(*place, node) for place, node in replay.history.pending(height)],
                meta=[(META_AUDIT, kept)],
            )
        )
        replay.state.flushed(height)
        replay.history.flushed(height)
        self._blocks = []

    def close(self) -> None:
        """Release the folder; what was not flushed is forgotten."""
        self._store.close()


def _whole(reader: Reader) -> Reader:
    """Refuse the copy of a part."""
    if not reader.certified.whole:
        raise SnapshotError(
            "this is a copy of a part; nothing can be executed on it",
            hint="export one without --prefix and --kind",
        )
    return reader
