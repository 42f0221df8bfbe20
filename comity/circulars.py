"""Circulars: transactions that go round for the signatures of their cosigners.

A circular is an envelope in which the signatures that are still missing are empty, as a file or as
bytes. It holds the private part, so whoever signs sees what they sign: inputs, versions, grants,
reason. Whoever changes anything makes another transaction, which no signature fits. Treat it like
the records it speaks of.

Not here: what approvals an action asks for (``consensus.ledger.policies``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from comity.errors import DraftError
from comity.keys import Key
from comity.words import word
from consensus import codec, signing
from consensus.codec import Value
from consensus.errors import CopyError, DecodeError
from consensus.ledger.model import Rulebook
from consensus.ledger.transaction import (
    ENVELOPE_BYTES_MAX,
    Call,
    Transaction,
    Unsigned,
    decode_signed,
    signed_message,
    to_value,
    with_private,
)
from consensus.signing import SIGNATURE_BYTES

_SHAPE = codec.array(
    codec.octets(low=1),
    codec.list_of(codec.octets(high=SIGNATURE_BYTES), 64, low=1),
    codec.array(codec.list_of(codec.octets(low=1), 128), codec.octets()),
)


@dataclass(frozen=True, slots=True)
class Circular:
    """A transaction with those signatures that it has so far, all of them verified.

    Args:
        chain: of the network.
        transaction: its ``signatures`` are in the order of its ``signers``, empty where missing.
    """

    chain: bytes
    transaction: Transaction

    @property
    def missing(self) -> tuple[bytes, ...]:
        """Keys whose signature is missing, in their order."""
        found = self.transaction
        pairs = zip(found.signers, found.signatures, strict=True)
        return tuple(key for key, signature in pairs if not signature)

    @property
    def envelope(self) -> bytes:
        """The complete envelope, to be submitted.

        Raises:
            DraftError: a signature is missing.
        """
        if self.missing:
            count = len(self.missing)
            raise DraftError(
                f"{count} signature{'s are' if count > 1 else ' is'} missing",
                hint=f"the key {word(self.missing[0])} signs next, with `comity cosign`",
            )
        return self.encode()

    def encode(self) -> bytes:
        """Return the circular as bytes, to be passed on."""
        return codec.encode(to_value(self.transaction))

    def sign(self, key: Key) -> Circular:
        """Return the circular with the signature of a key; the same one if it has signed.

        Raises:
            DraftError: the key is neither the author nor a cosigner.
        """
        found = self.transaction
        if key.public not in found.signers:
            raise DraftError(
                f"nobody asks for a signature of the key {word(key.public)}",
                hint="the author names cosigners when drafting",
            )
        signature = key.sign(signed_message(self.chain, found.txid))
        pairs = zip(found.signers, found.signatures, strict=True)
        signatures = [signature if public == key.public else each for public, each in pairs]
        return Circular(self.chain, found.signed(signatures))

    def calls(self, book: Rulebook) -> list[SignedCall]:
        """Return what is signed for, with inputs by name, as far as the rules in force know it."""
        return [
            _call(book, call, self.transaction.inputs(index)[0])
            for index, call in enumerate(self.transaction.calls)
        ]


@dataclass(frozen=True, slots=True)
class SignedCall:
    """One call of a circular.

    Args:
        call: the action as its author knew it.
        inputs: values by name; by position where the action is not known.
        in_force: whether the action is still the one in force; if not, the act will be refused
            (a protective one need not be).
    """

    call: Call
    inputs: tuple[tuple[str, Value], ...]
    in_force: bool


def _call(book: Rulebook, call: Call, values: Sequence[Value]) -> SignedCall:
    action = book.action(call.domain, call.action)
    known = action is not None and action.action_id == call.action_id
    names = [each.name for each in action.inputs] if action is not None and known else []
    if len(names) != len(values):
        names = [str(number) for number in range(len(values))]
    return SignedCall(call, tuple(zip(names, values, strict=True)), known)


def circulate(chain: bytes, unsigned: Unsigned) -> Circular:
    """Return the circular of a draft that nobody has signed."""
    found = unsigned.transaction
    return Circular(chain, found.signed([b""] * len(found.signers)))


def read(chain: bytes, data: bytes) -> Circular:
    """Return the circular in untrusted bytes; a complete envelope is one that lacks nothing.

    Raises:
        DecodeError: it is none, or not of this network.
        SignatureError: a signature that is there is wrong.
    """
    value = codec.decode(data, _SHAPE, bytes_max=ENVELOPE_BYTES_MAX, what="circular")
    body, signatures, (openings, seed) = value
    try:
        found = with_private(chain, decode_signed(chain, body, signatures), openings, seed)
    except CopyError as error:
        hint = "ask whoever sent it to send it again"
        raise DecodeError(error.message, path="circular", hint=hint) from error
    message = signed_message(chain, found.txid)
    for key, signature in zip(found.signers, found.signatures, strict=True):
        if signature:
            signing.verify(key, message, signature)
    return Circular(chain, found)
