"""Sealed values: what the chain has of them, and how their delivery is shown.

A sealed input is a commitment; value and salt go to the audience's nodes alone, outside the chain:

    c   = H_sealed(salt32 ‖ cbor [slot, call, input, value])        slot: ``private.slot``
    ack = [call, input, agency, node key, signature]
    signature over tag ‖ chain ‖ slot ‖ c ‖ call (1 byte) ‖ input (1 byte)

``call`` counts the transaction's calls and ``input`` the inputs of the action, in declared order,
both from 0. So an acknowledgement is good for one input of one transaction of one author of one
network, and a commitment that was copied from elsewhere has none.

Not here: who verifies the signatures (they are checked with those of the transaction, before a
block: ``messages``), and where nodes keep values (``node.sealed``).
Source: docs/formats/ledger.md, Sealed values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, VerificationError
from consensus.hashing import context
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import Agency, in_force
from consensus.ledger.private import slot
from consensus.signing import TAG_DELIVERY, message

if TYPE_CHECKING:
    from consensus.ledger.effects import Active
    from consensus.ledger.model import Input
    from consensus.ledger.transaction import Call, Transaction
    from consensus.ledger.view import View

SALT_BYTES: Final = 32
VALUE_BYTES_MAX: Final = 16 * 1024
"""Longest encoding of a sealed value."""

_H_SEALED: Final = context("sealed value")


@dataclass(frozen=True, slots=True)
class Opening:
    """A sealed value with everything that its commitment hides.

    Args:
        salt: 32 random bytes of its own.
        slot: of the transaction that brought it (``private.slot``).
        call, input: which input of that transaction.
        value: plain.
    """

    salt: bytes
    slot: bytes
    call: int
    input: int
    value: Value

    @property
    def commitment(self) -> bytes:
        """What the chain has of it."""
        return _H_SEALED(self.salt + codec.encode([self.slot, self.call, self.input, self.value]))

    def check(self, commitment: bytes) -> None:
        """Raise VerificationError unless this is what ``commitment`` hides."""
        if self.commitment != commitment:
            raise VerificationError(
                "a sealed value is not the one that the record commits to",
                hint="ask another node of its audience",
            )

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.salt, self.slot, self.call, self.input, self.value]


OPENING: Final = codec.array(
    codec.octets(SALT_BYTES),
    codec.bytes32,
    codec.integer(0, 63),
    codec.integer(0, 63),
    codec.plain,
)
"""The form of ``Opening.to_value``."""
OPENING_BYTES_MAX: Final = VALUE_BYTES_MAX + 128


def read_opening(value: Value, what: str = "opening") -> Opening:
    """Return the opening in an untrusted value of the form OPENING.

    Raises:
        DecodeError: its value is too long.
    """
    found = Opening(*value)
    check_value(found.value, what)
    return found


def check_value(value: Value, what: str) -> None:
    """Raise DecodeError unless a value may be sealed: something plain, and not too long."""
    if value is None:
        raise DecodeError("nothing is not sealed", path=what, hint="leave the input out")
    size = codec.plain(value, what)
    if size > VALUE_BYTES_MAX:
        raise DecodeError(
            f"a sealed value of {size} bytes, at most {VALUE_BYTES_MAX}",
            path=what,
            hint="keep the document elsewhere and seal its digest",
        )


ERASURE: Final = "erasure"
"""The space of leaves that say which values were destroyed."""


@dataclass(slots=True)
class Notes:
    """What a block did about sealed values, for the nodes that keep them.

    Args:
        delivered: position of the decision, and the transaction, of whatever had acknowledgements.
        erased: components of the erasure leaves that were to be written: kind, id and field.
            Where the transaction was refused in the end, there is no such leaf.
    """

    delivered: list[tuple[int, Transaction]] = field(default_factory=list)
    erased: list[tuple[Value, ...]] = field(default_factory=list)


# --- acknowledgements -------------------------------------------------------------------------


def delivery_message(chain: bytes, slot_: bytes, commitment: bytes, call: int, at: int) -> bytes:
    """Return what a node signs that holds a sealed value.

    Args:
        call, at: which input of the transaction, below 64 each.
    """
    return message(TAG_DELIVERY, chain, slot_ + commitment + bytes([call, at]))


def messages(chain: bytes, transaction: Transaction) -> list[tuple[bytes, bytes, bytes]]:
    """Return every ``(node key, message, signature)`` of the acknowledgements that must verify.

    Raises:
        DecodeError: one is of an input that is no commitment.

    Cost: 10 µs and the inputs of the calls that have any; nothing for a transaction without.
    """
    found: list[tuple[bytes, bytes, bytes]] = []
    slot_ = slot(chain, transaction.author, transaction.sequence)
    values: list[Value] = []
    current = -1
    for ack in transaction.acks:
        if ack.call != current:
            current = ack.call
            values, _ = transaction.inputs(current)
        commitment = values[ack.input] if ack.input < len(values) else None
        if type(commitment) is not bytes or len(commitment) != 32:
            raise DecodeError(
                f"acknowledges input {ack.input} of call {ack.call}, which is no commitment",
                path="acks",
            )
        signed = delivery_message(chain, slot_, commitment, ack.call, ack.input)
        found.append((ack.node_key, signed, ack.signature))
    return found


def check(
    view: View,
    transaction: Transaction,
    call: int,
    sealed: Sequence[tuple[int, Input]],
    inputs: Mapping[str, Value],
) -> None:
    """Check that the whole audience of a call's sealed values has acknowledged them.

    The node of an agency that left is that of its successor. Signatures have been checked.

    Args:
        sealed: position and declaration of each sealed input of the action.
        inputs: the values of the call.

    Raises:
        Refused: NOT_DELIVERED: one is missing, or of another node than the agency's. BAD_INPUT: an
            acknowledgement of what nobody sealed for that agency.
    """
    nodes = None if view.governing is None else view.governing.nodes(view)
    if nodes is None:
        return
    given = {(ack.input, ack.agency): ack.node_key for ack in transaction.acks if ack.call == call}
    missing: list[Value] = []
    for at, each in sealed:
        if inputs[each.name] is None:
            continue
        for agency in each.type.audience:
            key = given.pop((at, agency), None)
            if key is None or key != nodes.get(_standing_for(view, agency)):
                missing.append([call, each.name, agency])
    if missing:
        raise Refused(Code.NOT_DELIVERED, missing)
    for at, agency in given:
        raise _unasked(at, agency)


def refuse_unasked(transaction: Transaction, find: Callable[[Call], Active | None]) -> None:
    """Refuse acknowledgements of calls that have nothing sealed.

    Args:
        find: returns the action in force that a call names.

    Raises:
        Refused: BAD_INPUT.
    """
    for ack in transaction.acks:
        active = find(transaction.calls[ack.call])
        if active is not None and not active.sealed:
            raise _unasked(ack.input, ack.agency)


def _unasked(at: int, agency: str) -> Refused:
    return Refused(Code.BAD_INPUT, ["acks", f"input {at} is not sealed for {agency}"])


def _standing_for(view: View, name: str) -> str:
    """Return the agency whose node receives what is sealed for ``name``."""

    def read(agency: str) -> Agency:
        found = view.single("agency", [agency])
        return Agency(agency, "", 0, 0) if found is None else found.value

    return in_force(read(name), read).name
