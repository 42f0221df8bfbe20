"""Batches on the links between nodes: canonical CBOR arrays that start with their kind.

| kind | name     | array                                            |                               |
|------|----------|--------------------------------------------------|-------------------------------|
| 64   | push     | [64, public, private]                            | its origin sends it to all    |
| 65   | request  | [65, [digest, ...]]                              | for what a block names        |
| 66   | response | [66, [[public, private], ...], [digest, ...]]    | found, and what is not here   |

The kinds of consensus messages are below 64, so one link can carry both. A response that would
grow too long leaves digests out; they are asked for again.

Source: docs/protocol/transaction.cddl. Not here: what is in a batch (``consensus.ledger.batch``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.errors import DecodeError

KIND_PUSH: Final = 64
KIND_REQUEST: Final = 65
KIND_RESPONSE: Final = 66

DIGESTS_MAX: Final = 64
"""Most digests in one request or in its answer."""
RESPONSE_BYTES_MAX: Final = 3 * 1024 * 1024
"""Most bytes of batches in one response."""
MESSAGE_BYTES_MAX: Final = RESPONSE_BYTES_MAX + 64 * 1024
"""Longest message: batches, their framing and DIGESTS_MAX digests."""

_DIGESTS: Final = codec.list_of(codec.bytes32, DIGESTS_MAX)
_PART: Final = codec.octets(low=1, high=RESPONSE_BYTES_MAX)
_MESSAGE: Final = codec.tagged(
    {
        KIND_PUSH: codec.array(codec.count, _PART, _PART),
        KIND_REQUEST: codec.array(codec.count, codec.list_of(codec.bytes32, DIGESTS_MAX, low=1)),
        KIND_RESPONSE: codec.array(
            codec.count, codec.list_of(codec.array(_PART, _PART), DIGESTS_MAX), _DIGESTS
        ),
    }
)


@dataclass(frozen=True, slots=True)
class BatchPush:
    """A batch from its origin."""

    public: bytes
    private: bytes


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """Send me these batches."""

    digests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class BatchResponse:
    """Batches that were asked for, as (public, private), and those that are not here."""

    found: tuple[tuple[bytes, bytes], ...]
    absent: tuple[bytes, ...]


BatchMessage = BatchPush | BatchRequest | BatchResponse


def encode(message: BatchMessage) -> bytes:
    """Return the bytes of a message."""
    match message:
        case BatchPush(public, private):
            return codec.encode([KIND_PUSH, public, private])
        case BatchRequest(digests):
            return codec.encode([KIND_REQUEST, list(digests)])
        case BatchResponse(found, absent):
            return codec.encode([KIND_RESPONSE, [list(pair) for pair in found], list(absent)])


def decode(data: bytes) -> BatchMessage:
    """Return the message in untrusted bytes; the parts of a batch are not looked into.

    Raises:
        DecodeError: not canonical, of another shape, too long, or a digest named twice.
    """
    if len(data) > MESSAGE_BYTES_MAX:
        raise DecodeError(f"{len(data)} bytes, at most {MESSAGE_BYTES_MAX}", path="batch message")
    value = codec.parse(data, "batch message")
    _MESSAGE(value, "batch message")
    if codec.measure(value, "batch message") != len(data):
        raise DecodeError("not the canonical encoding", path="batch message")
    if value[0] == KIND_PUSH:
        return BatchPush(value[1], value[2])
    digests = tuple(value[-1])
    if len(set(digests)) != len(digests):
        raise DecodeError("a digest is named twice", path="batch message")
    if value[0] == KIND_REQUEST:
        return BatchRequest(digests)
    return BatchResponse(tuple((public, private) for public, private in value[1]), digests)
