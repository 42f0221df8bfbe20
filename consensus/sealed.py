"""Sealed values over the client protocol: what is delivered, and what is answered about them.

Not here: what the chain has of them (``ledger.sealing``), and who may (``node.api.sealing``).
Specified in ``docs/protocol/client.cddl``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, RemoteProtocolError
from consensus.ledger.sealing import OPENING, SALT_BYTES, Opening, read_opening

SEALED_MAX: Final = 32
"""Most values in one delivery, or asked for at once."""

OPEN: Final = 0
"""State of a value that is shown."""
ERASED: Final = 1
ABSENT: Final = 2
"""The node that answers does not have it, and got it from no other."""
CLOSED: Final = 3
"""It is not for whoever asks, or not of this record."""

_NAME: Final = codec.text(64, low=1)
DELIVERY: Final = codec.array(
    codec.integer(1),
    codec.count,
    codec.list_of(
        codec.array(
            codec.integer(0, 63),
            _NAME,
            _NAME,
            codec.integer(0, 63),
            codec.octets(SALT_BYTES),
            codec.plain,
        ),
        SEALED_MAX,
        low=1,
    ),
)
"""The form of ``Deliver.to_value``."""
_KEPT: Final = codec.list_of(codec.array(codec.bytes32, codec.bytes64), SEALED_MAX, low=1)
_FOUND: Final = codec.list_of(
    codec.tagged(
        {
            OPEN: codec.array(codec.integer(), OPENING),
            ERASED: codec.array(codec.integer(), codec.bytes32),
            ABSENT: codec.array(codec.integer()),
            CLOSED: codec.array(codec.integer()),
        }
    ),
    SEALED_MAX,
    low=1,
)


@dataclass(frozen=True, slots=True)
class Item:
    """The value of input ``input`` of call ``call``, which is of this action, with its salt."""

    call: int
    domain: str
    action: str
    input: int
    salt: bytes
    value: Value


@dataclass(frozen=True, slots=True)
class Deliver:
    """Keep sealed values of a transaction that this connection's key will sign as author."""

    sequence: int
    not_after_ms: int
    items: tuple[Item, ...]

    def to_value(self) -> Value:
        """Return the canonical array."""
        rows = [[i.call, i.domain, i.action, i.input, i.salt, i.value] for i in self.items]
        return [self.sequence, self.not_after_ms, rows]


def read_delivery(value: Value) -> Deliver:
    """Return the delivery in a value of the form DELIVERY.

    Raises:
        DecodeError: it seals an input twice.
    """
    items = tuple(Item(*row) for row in value[2])
    if len({(each.call, each.input) for each in items}) != len(items):
        raise DecodeError("an input is sealed twice", path="deliver")
    return Deliver(value[0], value[1], items)


@dataclass(frozen=True, slots=True)
class Kept:
    """A value is kept: its commitment, and the node's signature for the transaction."""

    commitment: bytes
    signature: bytes

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.commitment, self.signature]


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a value. ``opening`` where it is OPEN, ``txid`` of the act if ERASED."""

    state: int
    opening: Opening | None = None
    txid: bytes | None = None

    def to_value(self) -> Value:
        """Return the canonical array."""
        if self.opening is not None:
            return [OPEN, self.opening.to_value()]
        return [self.state] if self.txid is None else [self.state, self.txid]


def read_kept(result: Value) -> tuple[Kept, ...]:
    """Return what a node says it keeps.

    Raises:
        RemoteProtocolError: malformed.
    """
    return tuple(Kept(*row) for row in _shaped(_KEPT, result))


def read_found(result: Value) -> tuple[Found, ...]:
    """Return what a node says of values; nothing is checked against a commitment.

    Raises:
        RemoteProtocolError: malformed.
    """
    found: list[Found] = []
    for row in _shaped(_FOUND, result):
        if row[0] == OPEN:
            try:
                found.append(Found(OPEN, read_opening(row[1])))
            except DecodeError as error:
                raise RemoteProtocolError(error.message) from error
        else:
            found.append(Found(row[0], None, row[1] if row[0] == ERASED else None))
    return tuple(found)


def _shaped(shape: codec.Shape, result: Value) -> Sequence[Value]:
    try:
        shape(result, "answer")
    except DecodeError as error:
        raise RemoteProtocolError(error.message) from error
    rows: Sequence[Value] = result
    return rows
