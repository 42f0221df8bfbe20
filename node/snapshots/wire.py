"""Snapshots on the links between nodes: canonical CBOR arrays that start with their kind.

| kind | name  | array                                  |                                         |
|------|-------|----------------------------------------|-----------------------------------------|
| 96   | ask   | [96]                                   | which snapshot do you have?             |
| 97   | offer | [97, manifest, proof or null]          | this; and what the asker once signed    |
| 98   | want  | [98, height, node, part]               | a part of one piece of it               |
| 99   | part  | [99, height, node, part, count, bytes] | of so many; joined they are the piece   |
| 100  | gone  | [100, height]                          | no snapshot of that height is here      |

All go in frames of class SYNC. Kinds of consensus messages are below 64, of batches 64 to 67.
Source: docs/protocol/peer-link.md. Not here: what a manifest or a piece must lead to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.errors import DecodeError
from consensus.snapshot import CERTIFICATE_BYTES_MAX
from consensus.state.snapshot import PIECE_BYTES_MAX

KIND_ASK: Final = 96
KIND_OFFER: Final = 97
KIND_WANT: Final = 98
KIND_PART: Final = 99
KIND_GONE: Final = 100

FRAME_BYTES_MAX: Final = 4 * 2**20
"""Of class SYNC; a manifest that does not fit is not offered."""
OFFER_BYTES_MAX: Final = FRAME_BYTES_MAX - CERTIFICATE_BYTES_MAX - 64
PART_BYTES: Final = 2**20
PARTS_MAX: Final = PIECE_BYTES_MAX // PART_BYTES

_NODE: Final = codec.integer(1)
_PART: Final = codec.integer(0, PARTS_MAX - 1)
_MESSAGE: Final = codec.tagged(
    {
        KIND_ASK: codec.array(codec.count),
        KIND_OFFER: codec.array(
            codec.count,
            codec.octets(low=1, high=OFFER_BYTES_MAX),
            codec.optional(codec.octets(low=1, high=CERTIFICATE_BYTES_MAX)),
        ),
        KIND_WANT: codec.array(codec.count, codec.count, _NODE, _PART),
        KIND_PART: codec.array(
            codec.count,
            codec.count,
            _NODE,
            _PART,
            codec.integer(1, PARTS_MAX),
            codec.octets(low=1, high=PART_BYTES),
        ),
        KIND_GONE: codec.array(codec.count, codec.count),
    }
)


@dataclass(frozen=True, slots=True)
class Ask:
    """Which snapshot do you have?"""


@dataclass(frozen=True, slots=True)
class Offer:
    """A snapshot that is here for a while.

    ``proof`` is a commit certificate that the asker's key has signed, if one is found: whoever
    begins anew learns from it that its key was used.
    """

    manifest: bytes
    proof: bytes | None


@dataclass(frozen=True, slots=True)
class Want:
    """Send me part ``part`` of the piece of ``node``."""

    height: int
    node: int
    part: int


@dataclass(frozen=True, slots=True)
class Part:
    """A part of a piece that has ``count`` of them."""

    height: int
    node: int
    part: int
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no snapshot of that height here, or no such node in it."""

    height: int


SnapshotMessage = Ask | Offer | Want | Part | Gone


def is_known(payload: bytes) -> bool:
    """Whether untrusted bytes begin like a message of these kinds."""
    return payload[1:2] == b"\x18" and payload[2:3] >= bytes([KIND_ASK])


def encode(message: SnapshotMessage) -> bytes:
    """Return the bytes of a message."""
    match message:
        case Ask():
            return codec.encode([KIND_ASK])
        case Offer(manifest, proof):
            return codec.encode([KIND_OFFER, manifest, proof])
        case Want(height, node, part):
            return codec.encode([KIND_WANT, height, node, part])
        case Part(height, node, part, count, data):
            return codec.encode([KIND_PART, height, node, part, count, data])
        case Gone(height):
            return codec.encode([KIND_GONE, height])


def decode(data: bytes) -> SnapshotMessage:
    """Return the message in untrusted bytes.

    Raises:
        DecodeError: too long, of another shape, or not canonical.
    """
    value = codec.decode(data, _MESSAGE, bytes_max=FRAME_BYTES_MAX, what="snapshot message")
    kind, *rest = value
    match kind:
        case 96:
            return Ask()
        case 97:
            return Offer(*rest)
        case 98:
            return Want(*rest)
        case 99:
            found = Part(*rest)
            if found.part >= found.count:
                raise DecodeError("a part beyond their number", path="snapshot message")
            return found
        case _:
            return Gone(*rest)


def parts_of(height: int, node: int, piece: bytes) -> list[Part]:
    """Return the parts in which a piece travels."""
    count = -(-len(piece) // PART_BYTES)
    return [
        Part(height, node, at, count, piece[at * PART_BYTES : (at + 1) * PART_BYTES])
        for at in range(count)
    ]
