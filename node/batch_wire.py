"""Batches on the links between nodes: canonical CBOR arrays that start with their kind.

| kind | name     | array                     |                                              |
|------|----------|---------------------------|----------------------------------------------|
| 64   | push     | [64, public, private]     | its origin sends it to every peer, once      |
| 65   | request  | [65, [digest, ...]]       | for batches that a block names               |
| 66   | response | [66, public, private]     | one batch that was asked for                 |
| 67   | absent   | [67, [digest, ...]]       | asked for and not there                      |
| 68   | announce | [68, [count, ...], [...]] | held counts, one an origin; unproposed ones  |

The kinds of consensus messages are below 64, so one link can carry both.
Source: docs/protocol/transaction.cddl. Not here: what is in a batch (``consensus.ledger.batch``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.committee import VALIDATORS_MAX
from consensus.errors import DecodeError

KIND_PUSH: Final = 64
KIND_REQUEST: Final = 65
KIND_RESPONSE: Final = 66
KIND_ABSENT: Final = 67
KIND_ANNOUNCE: Final = 68

DIGESTS_MAX: Final = 64
"""Most digests in one request or in its answer."""
LISTS_BYTES_MAX: Final = 16 + 34 * DIGESTS_MAX + 9 * VALIDATORS_MAX
OVERHEAD_BYTES_MAX: Final = 16
"""Bytes around the two parts of a batch."""

_DIGESTS: Final = codec.list_of(codec.bytes32, DIGESTS_MAX, low=1)
_PART: Final = codec.octets(low=1)
_MESSAGE: Final = codec.tagged(
    {
        KIND_PUSH: codec.array(codec.count, _PART, _PART),
        KIND_REQUEST: codec.array(codec.count, _DIGESTS),
        KIND_RESPONSE: codec.array(codec.count, _PART, _PART),
        KIND_ABSENT: codec.array(codec.count, _DIGESTS),
        KIND_ANNOUNCE: codec.array(
            codec.count,
            codec.list_of(codec.count, VALIDATORS_MAX, low=1),
            codec.list_of(codec.bytes32, DIGESTS_MAX),
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Push:
    """A batch from its origin."""

    public: bytes
    private: bytes


@dataclass(frozen=True, slots=True)
class Request:
    """Send me these batches."""

    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Response:
    """A batch that was asked for."""

    public: bytes
    private: bytes


@dataclass(frozen=True, slots=True)
class Absent:
    """Batches that were asked for and are not here."""

    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Announce:
    """How many batches of each origin the sender holds, and some that are in no proposed block.

    Without digests it answers an announcement.
    """

    counts: tuple[int, ...]
    digests: tuple[bytes, ...]


BatchMessage = Push | Request | Response | Absent | Announce


def frame_bytes_max(batch_bytes_max: int) -> int:
    """Return the longest message in a network whose batches have at most ``batch_bytes_max``."""
    return max(LISTS_BYTES_MAX, batch_bytes_max + OVERHEAD_BYTES_MAX)


def is_known(payload: bytes) -> bool:
    """Whether untrusted bytes begin like a message of these kinds, and not of consensus.

    After the array's head a kind below 24 takes one byte; from 24 on ``18`` and the kind follow.
    """
    return payload[1:2] == b"\x18" and payload[2:3] >= bytes([KIND_PUSH])


def encode(message: BatchMessage) -> bytes:
    """Return the bytes of a message."""
    match message:
        case Push(public, private):
            return codec.encode([KIND_PUSH, public, private])
        case Request(digests):
            return codec.encode([KIND_REQUEST, list(digests)])
        case Response(public, private):
            return codec.encode([KIND_RESPONSE, public, private])
        case Absent(digests):
            return codec.encode([KIND_ABSENT, list(digests)])
        case Announce(counts, digests):
            return codec.encode([KIND_ANNOUNCE, list(counts), list(digests)])


def decode(data: bytes, batch_bytes_max: int) -> BatchMessage:
    """Return the message in untrusted bytes; the parts of a batch are not looked into.

    Args:
        batch_bytes_max: genesis limit; both parts together are no longer.

    Raises:
        DecodeError: not canonical, of another shape, or too long.
    """
    bytes_max = frame_bytes_max(batch_bytes_max)
    if data[:1] not in (b"\x82", b"\x83") or len(data) > bytes_max:
        raise DecodeError(f"no batch message of at most {bytes_max} bytes", path="batch message")
    value = codec.parse(data, "batch message")
    _MESSAGE(value, "batch message")
    if codec.plain(value, "batch message") != len(data):
        raise DecodeError("not the canonical encoding", path="batch message")
    match value:
        case [kind, bytes() as public, bytes() as private]:
            if len(public) + len(private) > batch_bytes_max:
                raise DecodeError(f"a batch has at most {batch_bytes_max} bytes", path="batch")
            return Push(public, private) if kind == KIND_PUSH else Response(public, private)
        case _:
            kind, *counts, digests = value
            if len(set(digests)) != len(digests):
                raise DecodeError("a digest is named twice", path="batch message")
            found = tuple(digests)
            if kind == KIND_ANNOUNCE:
                return Announce(tuple(counts[0]), found)
            return Request(found) if kind == KIND_REQUEST else Absent(found)
