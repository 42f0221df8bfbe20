"""What node and signer say to each other over the Unix socket. Pure: bytes in, values out.

Frames: length (4 bytes, big-endian) and canonical CBOR (docs/protocol/signer.cddl).

    node    [1, chain, key, log identity, log end, [body, ...]]        hello, once
    signer  [0, [body, ...]] or [1, code, message, hint]               welcome, or no
    node    [number, kind, epoch, round, subject, two-chain, [settled epoch, settled round],
             log synced]
    signer  [number, 0, signature] or [number, 1, code, message]

A ``body`` is ``[kind, epoch, round, bytes]``: the last that was signed of its kind, as the log
tells and as the signer's mark tells. ``subject`` is what is to be signed in whole: a proposal's
block, another kind's body; the signer decodes it and makes the signed bytes of it itself
(``subject_body``). Requests are answered in order; many may be under way.

Not here: sockets, and who may connect.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from consensus import codec
from consensus.errors import DecodeError
from consensus.hotstuff import wire
from consensus.hotstuff.types import SignKind, timeout_body, vote_body
from node.signer import LOG_IDENTITY_BYTES, SignedBody, Slot

VERSION: Final = 1
FRAME_BYTES_MAX: Final = 128 * 2**10
"""Longest frame: that of a block, with room."""
REQUESTS_MAX: Final = 64
"""Requests of one node that are under way; a replica has at most 16."""
TEXT_BYTES_MAX: Final = 1024
BODY_BYTES_MAX: Final = 8 * 2**10

_KIND: Final = codec.integer(min(SignKind), max(SignKind))
_BODY: Final = codec.array(_KIND, codec.count, codec.count, codec.octets(high=BODY_BYTES_MAX))
_BODIES: Final = codec.list_of(_BODY, 1024 + len(SignKind))
_HELLO: Final = codec.array(
    codec.count,
    codec.bytes32,
    codec.bytes32,
    codec.octets(LOG_IDENTITY_BYTES),
    codec.count,
    _BODIES,
)
_WELCOME: Final = codec.array(codec.integer(0, 0), codec.list_of(_BODY, len(SignKind)))
_TEXT: Final = codec.text(TEXT_BYTES_MAX)
_REFUSAL: Final = codec.array(codec.integer(1, 1), _TEXT, _TEXT, _TEXT)
_REQUEST: Final = codec.array(
    codec.count,
    _KIND,
    codec.count,
    codec.count,
    codec.octets(high=wire.BLOCK_BYTES_MAX),
    codec.boolean,
    codec.array(codec.integer(-1), codec.integer(-1)),
    codec.count,
)
_SIGNED: Final = codec.array(codec.count, codec.integer(0, 0), codec.octets(64))
_NOT_SIGNED: Final = codec.array(codec.count, codec.integer(1, 1), _TEXT, _TEXT)
_VOTE: Final = codec.array(codec.count, codec.count, codec.bytes32, codec.count)
_TIMEOUT: Final = codec.array(codec.count, codec.count, codec.count)


@dataclass(frozen=True, slots=True)
class Hello:
    """Who the node is, and where its log ends."""

    chain: bytes
    key: bytes
    log_identity: bytes
    log_end: int
    bodies: tuple[SignedBody, ...]


@dataclass(frozen=True, slots=True)
class Welcome:
    """The signer takes the node; what its mark tells of."""

    bodies: tuple[SignedBody, ...]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The signer does not take the node."""

    code: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Request:
    """Sign this. ``settled`` and ``log_synced`` are what ``Signer.settle`` and its mark need."""

    number: int
    kind: SignKind
    epoch: int
    round: int
    subject: bytes
    two_chain: bool
    settled: Slot
    log_synced: int


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature for the request of that number."""

    number: int
    signature: bytes


@dataclass(frozen=True, slots=True)
class NotSigned:
    """The signer's refusal of the request of that number."""

    number: int
    code: str
    message: str


def encode(message: Hello | Welcome | Refusal | Request | Signature | NotSigned) -> bytes:
    """Return the payload of a message."""
    match message:
        case Hello(chain, key, identity, end, bodies):
            return codec.encode([VERSION, chain, key, identity, end, _rows(bodies)])
        case Welcome(bodies):
            return codec.encode([0, _rows(bodies)])
        case Refusal(code, what, hint):
            return codec.encode([1, _cut(code), _cut(what), _cut(hint)])
        case Request():
            return codec.encode(
                [
                    message.number,
                    int(message.kind),
                    message.epoch,
                    message.round,
                    message.subject,
                    message.two_chain,
                    list(message.settled),
                    message.log_synced,
                ]
            )
        case Signature(number, signature):
            return codec.encode([number, 0, signature])
        case NotSigned(number, code, what):
            return codec.encode([number, 1, _cut(code), _cut(what)])


def decode_hello(data: bytes) -> Hello:
    """Return the hello of a node; raises DecodeError, also for another version's."""
    found = codec.parse(data, "hello")
    if type(found) is list and found and type(found[0]) is int and found[0] != VERSION:
        raise DecodeError(f"version {found[0]}, this software speaks {VERSION}", path="hello")
    _version, chain, key, identity, end, bodies = _decode(data, _HELLO, "hello")
    return Hello(chain, key, identity, end, _bodies(bodies))


def decode_welcome(data: bytes) -> Welcome | Refusal:
    """Return the signer's answer to a hello; raises DecodeError."""
    found = codec.parse(data, "welcome")
    if type(found) is list and found[:1] == [1]:
        return Refusal(*_decode(data, _REFUSAL, "welcome")[1:])
    return Welcome(_bodies(_decode(data, _WELCOME, "welcome")[1]))


def decode_request(data: bytes) -> Request:
    """Return a request; raises DecodeError."""
    number, kind, *rest, settled, synced = _decode(data, _REQUEST, "request")
    epoch, round_, subject, two_chain = rest
    return Request(
        number, SignKind(kind), epoch, round_, subject, two_chain, (settled[0], settled[1]), synced
    )


def decode_answer(data: bytes) -> Signature | NotSigned:
    """Return the signer's answer to a request; raises DecodeError."""
    found = codec.parse(data, "answer")
    if type(found) is list and found[1:2] == [1]:
        number, _status, code, what = _decode(data, _NOT_SIGNED, "answer")
        return NotSigned(number, code, what)
    number, _status, signature = _decode(data, _SIGNED, "answer")
    return Signature(number, signature)


def subject_body(request: Request, chain: bytes) -> bytes:
    """Return the bytes that a request's signature is over, after looking at what they say.

    Raises:
        DecodeError: the subject is not of the request's kind, epoch and round, or of another chain.
    """
    subject = request.subject
    match request.kind:
        case SignKind.PROPOSAL:
            block = wire.decode_block(subject)
            said, body = (block.epoch, block.round), block.id
        case SignKind.VOTE:
            epoch, round_, block_id, height = _decode(subject, _VOTE, "vote")
            said, body = (epoch, round_), vote_body(epoch, round_, block_id, height)
        case SignKind.TIMEOUT:
            epoch, round_, high = _decode(subject, _TIMEOUT, "timeout")
            if high >= round_:
                raise DecodeError("a certificate of the round or a later one", path="timeout")
            said, body = (epoch, round_), timeout_body(epoch, round_, high)
        case SignKind.COMMIT_VOTE:
            row = codec.decode(subject, wire.STATEMENT, bytes_max=BODY_BYTES_MAX, what="statement")
            statement = wire.statement_from(row)
            if statement.chain != chain:
                raise DecodeError("of another network", path="statement")
            said, body = (statement.epoch, statement.round), statement.encoded
    if said != (request.epoch, request.round):
        raise DecodeError(
            f"of epoch {said[0]} round {said[1]}, asked for {request.epoch}, {request.round}",
            path=request.kind.name.lower(),
        )
    return body


def _decode(data: bytes, shape: codec.Shape, what: str) -> Any:
    return codec.decode(data, shape, bytes_max=FRAME_BYTES_MAX, what=what)


def _rows(bodies: Iterable[SignedBody]) -> codec.Value:
    return [[int(each.kind), each.epoch, each.round, each.body] for each in bodies]


def _bodies(rows: Any) -> tuple[SignedBody, ...]:
    return tuple(SignedBody(SignKind(kind), *rest) for kind, *rest in rows)


def _cut(text: str) -> str:
    """Return a text that fits."""
    return text.encode()[:TEXT_BYTES_MAX].decode(errors="ignore")
