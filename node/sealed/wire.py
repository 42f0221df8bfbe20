"""Sealed values on the links between nodes of their audience: CBOR arrays that start with a kind.

| kind | name   | array                   |                                                        |
|------|--------|-------------------------|--------------------------------------------------------|
| 80   | wanted | [80, [commitment, ...]] | values that the sender is in the audience of           |
| 81   | given  | [81, [opening, ...]]    | those of them that are here and that it may have       |

Source: docs/protocol/peer-link.md. Not here: who may have what (``keeper``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.errors import DecodeError
from consensus.ledger.sealing import OPENING, OPENING_BYTES_MAX, Opening, read_opening

KIND_WANTED: Final = 80
KIND_GIVEN: Final = 81
WANTED_MAX: Final = 16
"""Most values in one frame."""
FRAME_BYTES_MAX: Final = 64 + WANTED_MAX * OPENING_BYTES_MAX

_MESSAGE: Final = codec.tagged(
    {
        KIND_WANTED: codec.array(codec.count, codec.list_of(codec.bytes32, WANTED_MAX, low=1)),
        KIND_GIVEN: codec.array(codec.count, codec.list_of(OPENING, WANTED_MAX, low=1)),
    }
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Send me these."""

    commitments: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Given:
    """Values that were asked for."""

    openings: tuple[Opening, ...]


def is_known(payload: bytes) -> bool:
    """Whether untrusted bytes begin like a message of these kinds."""
    return payload[1:3] in (b"\x18\x50", b"\x18\x51")


def encode(message: Wanted | Given) -> bytes:
    """Return the bytes of a message."""
    match message:
        case Wanted(commitments):
            return codec.encode([KIND_WANTED, list(commitments)])
        case Given(openings):
            return codec.encode([KIND_GIVEN, [each.to_value() for each in openings]])


def decode(data: bytes) -> Wanted | Given:
    """Return the message in untrusted bytes.

    Raises:
        DecodeError: not canonical, of another shape, or too long.
    """
    value = codec.decode(data, _MESSAGE, bytes_max=FRAME_BYTES_MAX, what="sealed message")
    kind, items = value
    if kind == KIND_GIVEN:
        return Given(tuple(read_opening(each, "sealed message") for each in items))
    if len(set(items)) != len(items):
        raise DecodeError("a value is asked for twice", path="sealed message")
    return Wanted(tuple(items))
