"""What the payload of a frame between nodes is: one byte of kind, then a body.

| kind | name      | body                                            | frame at most        |
|------|-----------|-------------------------------------------------|----------------------|
| 1    | hello     | canonical CBOR, see ``Hello``                   | HELLO_BYTES_MAX      |
| 2    | echo      | the nonce of the other side's hello, 16 bytes   | exact                |
| 3    | refused   | canonical CBOR ``[reason, text]``               | REFUSED_BYTES_MAX    |
| 4    | ping      | 8 bytes                                         | exact                |
| 5    | pong      | the 8 bytes of the ping                         | exact                |
| 16   | consensus | opaque, for the replica                         | configured           |
| 17   | batch     | opaque                                          | configured           |
| 18   | sync      | opaque                                          | configured           |

Specified in ``docs/protocol/peer-link.md``, with the CDDL of hello and refused.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, invariant
from consensus.release import ADVICE, release
from consensus.release import VERSION as RELEASE
from node.network.errors import LinkRefused

VERSION: Final = 1
"""Of this protocol. A node refuses a link of another version."""
MINOR: Final = 1
"""From minor 1 on a hello names the sender's release."""
PROTOCOL: Final = "comity-link"

HELLO_BYTES_MAX: Final = 256 * 1024
EXTRAS_BYTES_MAX: Final = HELLO_BYTES_MAX - 256
REFUSED_BYTES_MAX: Final = 512
REASON_BYTES_MAX: Final = 200
NONCE_BYTES: Final = 16
PING_BYTES: Final = 8
NO_INDEX: Final = 255
"""The index in the hello of a node without a vote in its epoch."""

HELLO: Final = 1
ECHO: Final = 2
REFUSED: Final = 3
PING: Final = 4
PONG: Final = 5


class Class(enum.IntEnum):
    """What a data frame is for; decides its queue and its limits. The value is its kind."""

    CONSENSUS = 16
    BATCH = 17
    SYNC = 18


CLASS_OF_KIND: Final = {int(cls): cls for cls in Class}


class Refusal(enum.IntEnum):
    """Why a link is declined."""

    OTHER_VERSION = 1
    OTHER_CHAIN = 2
    NOT_A_MEMBER = 3
    WRONG_DIRECTION = 4
    PAUSED = 5
    MALFORMED = 6
    CROWDED = 7
    NO_VOTE_ANY_MORE = 8


_REFUSAL_NAMES: Final = {int(refusal): refusal.name for refusal in Refusal}

_HELLO_ITEMS: Final = (
    codec.integer(VERSION, VERSION),
    codec.bytes32,  # chain
    codec.count,  # epoch
    codec.count,  # certified height
    codec.integer(0, 255),  # index
    codec.octets(NONCE_BYTES),
    codec.octets(high=EXTRAS_BYTES_MAX),
)
_HELLO: Final = codec.array(*_HELLO_ITEMS)
_HELLO_WITH_RELEASE: Final = codec.array(*_HELLO_ITEMS, release)
_REFUSED: Final = codec.array(codec.integer(0, 255), codec.text(REASON_BYTES_MAX))


@dataclass(frozen=True, slots=True)
class Hello:
    """How a node introduces itself on a new connection.

    Args:
        chain: hash of the genesis file.
        epoch, height: where the sender is; what it is not proved to be.
        index: of the sender in the committee of its epoch; NO_INDEX without a vote there.
        nonce: fresh for this connection; the other side echoes it.
        extras: opaque here (the replica's highest certificates), at most EXTRAS_BYTES_MAX.
        release: of the sender's software; empty where minor 0 is spoken.
    """

    chain: bytes
    epoch: int
    height: int
    index: int
    nonce: bytes
    extras: bytes = b""
    release: str = ""


def encode_hello(hello: Hello) -> bytes:
    """Return the payload of a hello; one without a release is of minor 0.

    Raises:
        LocalProtocolError: our extras are too long.
    """
    invariant(len(hello.extras) <= EXTRAS_BYTES_MAX, "the extras of hello are too long")
    body: list[Value] = [
        VERSION,
        hello.chain,
        hello.epoch,
        hello.height,
        hello.index,
        hello.nonce,
        hello.extras,
    ]
    if hello.release:
        body.append(hello.release)
    return bytes([HELLO]) + codec.encode(body)


def decode_hello(payload: bytes) -> Hello:
    """Return the hello in an untrusted payload of kind HELLO.

    Raises:
        LinkRefused: of another version of this protocol, whatever else it holds.
        DecodeError: not canonical, or of another shape.
    """
    if len(payload) > HELLO_BYTES_MAX:
        raise DecodeError(f"{len(payload)} bytes, at most {HELLO_BYTES_MAX}", path="hello")
    body = payload[1:]
    value = codec.parse(body, "hello")
    if type(value) is list and value and type(value[0]) is int and value[0] != VERSION:
        raise LinkRefused(
            f"the peer speaks version {value[0]} of the link protocol, this node {VERSION} "
            f"(release {RELEASE})",
            reason=Refusal.OTHER_VERSION,
            hint=ADVICE,
        )
    named = type(value) is list and len(value) > len(_HELLO_ITEMS)
    shape = _HELLO_WITH_RELEASE if named else _HELLO
    _, *items = codec.decode(body, shape, bytes_max=HELLO_BYTES_MAX - 1, what="hello")
    return Hello(*items)


def encode_refused(reason: int, text: str) -> bytes:
    """Return the payload that declines a link; ``text`` is cut to REASON_BYTES_MAX."""
    cut = text.encode("ascii", "replace")[:REASON_BYTES_MAX].decode("ascii")
    return bytes([REFUSED]) + codec.encode([int(reason), cut])


def decode_refused(payload: bytes) -> LinkRefused:
    """Return what an untrusted payload of kind REFUSED says, as the error to raise.

    Raises:
        DecodeError: not canonical, or of another shape.
    """
    reason, text = codec.decode(
        payload[1:], _REFUSED, bytes_max=REFUSED_BYTES_MAX - 1, what="refused"
    )
    name = _REFUSAL_NAMES.get(reason, str(reason))
    return LinkRefused(
        f"the peer declined the link, {name}: {text!r}",
        reason=reason,
        by_peer=True,
        hint=ADVICE if reason == Refusal.OTHER_VERSION else "",
    )
