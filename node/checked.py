"""A batch that this node has checked: its bytes, and what was learned while checking them.

Not here: the checks (``verifier``), and which batches are kept (``batches``).
"""

from __future__ import annotations

import msgspec

from consensus.hashing import DIGEST_BYTES
from consensus.hotstuff.types import PayloadItem
from consensus.ledger import batch as formats
from consensus.ledger.batch import Batch


class CheckedBatch(msgspec.Struct, frozen=True, gc=False):
    """A batch whose every part was accepted.

    ``txids``: 32 bytes a transaction, in order. ``not_after_ms``: the last chain time at which any
    of them can be applied.
    """

    digest: bytes
    origin: int
    number: int
    lane: int
    public: bytes
    private: bytes
    txids: bytes
    not_after_ms: int

    @property
    def count(self) -> int:
        """Number of transactions."""
        return len(self.txids) // DIGEST_BYTES

    @property
    def size_bytes(self) -> int:
        """Bytes of both parts."""
        return len(self.public) + len(self.private)

    @property
    def item(self) -> PayloadItem:
        """How a block names it."""
        return PayloadItem(
            self.digest, self.origin, self.number, self.lane, self.count, self.size_bytes
        )

    def decode(self, chain: bytes) -> Batch:
        """Return the transactions for execution. Cost: about 4 µs a transaction."""
        return formats.decode_trusted(self.public, self.private, self.txids, chain=chain)


def from_batch(batch: Batch) -> CheckedBatch:
    """Return a decoded batch that this node has checked, or made of what it had checked."""
    return CheckedBatch(
        batch.digest,
        batch.origin,
        batch.number,
        batch.lane,
        batch.public,
        batch.private,
        b"".join([each.txid for each in batch.transactions]),
        max([each.not_after_ms for each in batch.transactions]),
    )


def from_log(chain: bytes, public: bytes, private: bytes) -> CheckedBatch:
    """Return a batch of this node's own log, which was checked before it was written."""
    return from_batch(formats.decode_trusted(public, private, chain=chain))
