"""What the log's entries are, and how their payloads begin.

A payload is a short fixed head, by which recovery sorts it without decoding, and the bytes that
the rest of the node defines. Numbers are never reused.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from consensus.errors import invariant
from consensus.hashing import DIGEST_BYTES

HEIGHT_BYTES: Final = 8


class Kind(IntEnum):
    """Kinds of entries. 0 is the log's own group header."""

    GROUP = 0
    BATCH = 1
    """A batch's public part: header, bodies, signatures."""
    PRIVATE = 2
    """The private parts of a batch, apart so that they can be dropped."""
    BLOCK = 3
    SAFETY = 4
    """A whole safety record; the newest counts."""
    COMMIT_CERT = 5
    EVIDENCE = 6
    """Two signed messages of one slot. 7 was set aside for sealed values, which are not logged."""


Entry = tuple[Kind, bytes]
"""What is appended: kind and payload."""


@dataclass(frozen=True, slots=True)
class BatchPart:
    """Payload of BATCH and PRIVATE: ``digest ‖ data``."""

    digest: bytes
    data: bytes

    def pack(self) -> bytes:
        """Return the payload."""
        invariant(len(self.digest) == DIGEST_BYTES, "a batch digest has 32 bytes")
        return self.digest + self.data

    @classmethod
    def unpack(cls, payload: bytes) -> BatchPart:
        """Return the parts of a checksummed payload."""
        invariant(len(payload) >= DIGEST_BYTES, "a batch entry has at least its digest")
        return cls(payload[:DIGEST_BYTES], payload[DIGEST_BYTES:])


@dataclass(frozen=True, slots=True)
class AtHeight:
    """Payload of BLOCK and COMMIT_CERT: ``height (8 bytes) ‖ block id ‖ data``."""

    height: int
    block_id: bytes
    data: bytes

    def pack(self) -> bytes:
        """Return the payload."""
        invariant(len(self.block_id) == DIGEST_BYTES, "a block id has 32 bytes")
        return self.height.to_bytes(HEIGHT_BYTES, "big") + self.block_id + self.data

    @classmethod
    def unpack(cls, payload: bytes) -> AtHeight:
        """Return the parts of a checksummed payload."""
        head = HEIGHT_BYTES + DIGEST_BYTES
        invariant(len(payload) >= head, "a block entry has at least height and id")
        height = int.from_bytes(payload[:HEIGHT_BYTES], "big")
        return cls(height, payload[HEIGHT_BYTES:head], payload[head:])


def batch(digest: bytes, data: bytes) -> Entry:
    """Return the entry of a batch's public part."""
    return Kind.BATCH, BatchPart(digest, data).pack()


def private(digest: bytes, data: bytes) -> Entry:
    """Return the entry of a batch's private parts."""
    return Kind.PRIVATE, BatchPart(digest, data).pack()


def block(height: int, block_id: bytes, data: bytes) -> Entry:
    """Return the entry of a block."""
    return Kind.BLOCK, AtHeight(height, block_id, data).pack()


def commit_cert(height: int, block_id: bytes, data: bytes) -> Entry:
    """Return the entry of a commit certificate."""
    return Kind.COMMIT_CERT, AtHeight(height, block_id, data).pack()


def safety(record: bytes) -> Entry:
    """Return the entry of a safety record."""
    return Kind.SAFETY, record


def evidence(pair: bytes) -> Entry:
    """Return the entry of two signed messages of one slot."""
    return Kind.EVIDENCE, pair
