"""What a node keeps of a height, as auditors get it: from its store, or from memory above it.

Not here: who may have it (``node.api``), and what is done with it (``consensus.audit``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consensus import codec
from consensus.audit.stream import Recorded
from consensus.errors import DecodeError
from consensus.hotstuff import wire
from consensus.hotstuff.types import Block

if TYPE_CHECKING:
    from node.chronicle import Height
    from node.storage.store import View


def block_of(data: bytes, height: int) -> tuple[Block, bytes, bytes]:
    """Return a stored block, its bytes and those of its statement.

    Raises:
        DecodeError: the row is none.
    """
    where = f"table blocks, height {height}"
    value = codec.parse(data, where)
    if type(value) is not list or [type(each) for each in value] != [bytes, bytes]:
        raise DecodeError("expected a block and a statement", path=where)
    return wire.decode_block(value[0]), value[0], value[1]


def stored(view: View, height: int) -> Recorded | None:
    """Return what a store keeps of a height; None if it has no such block.

    Raises:
        DecodeError: the block's row is none.
    """
    data = view.block(height)
    if data is None:
        return None
    block, encoded, statement = block_of(data, height)
    batches: list[tuple[bytes | None, bytes | None]] = []
    for item in block.payload:
        found = view.batch(item.digest)
        batches.append((None if found is None else found[1], view.private(item.digest)))
    return Recorded(
        height,
        encoded,
        statement,
        view.certificate(height),
        batches,
        view.decisions(height),
        view.changes(height),
    )


def executed(height: Height) -> Recorded:
    """Return what is recorded of a height in memory."""
    rows = zip(height.txids, height.authors, height.roots, height.decisions, strict=True)
    return Recorded(
        height.block.height,
        height.block.encoded,
        height.statement.encode(),
        None if height.certificate is None else height.certificate.encoded,
        [(batch.public, batch.private) for batch in height.batches],
        codec.encode([list(row) for row in rows]),
        height.changes,
    )
