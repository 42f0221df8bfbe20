"""A signed group: one signature over many transactions, each of which is still judged alone.

    group = [[[signer, signature], ...], total, first, path, [envelope, ...]]
    root  = count-bound 4-ary tree over the txids of all ``total`` transactions, in order

Each signature is over ``tag ‖ chain ‖ total ‖ root``. The envelopes are an aligned subtree of the
whole from index ``first`` (4^j transactions, or fewer at the end), and ``path`` leads from it to
the root; so a part, down to one transaction, can be sent again under the same signatures. In the
envelopes a signature slot is empty exactly if that key signed the group. Signers ascend, and each
has at least one slot among the envelopes at hand: nobody can append signatures that prove nothing.

Not here: verification of the signatures (``messages`` says what each is over).
Source: docs/protocol/transaction.cddl.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, ProofError, invariant
from consensus.ledger import sealing
from consensus.ledger.transaction import Transaction, Unsigned, to_value
from consensus.signing import SIGNATURE_BYTES, TAG_GROUP, TAG_TRANSACTION, message
from consensus.state.merkle import GROUP, subtree_level

TRANSACTIONS_MAX: Final = 1024
SIGNERS_MAX: Final = 16
PATH_MAX: Final = 15
"""Three siblings on each of the five levels of 1,024 places."""

FRAME: Final = (
    codec.list_of(codec.array(codec.bytes32, codec.bytes64), SIGNERS_MAX, low=1),
    codec.integer(1, TRANSACTIONS_MAX),
    codec.integer(0, TRANSACTIONS_MAX - 1),
    codec.list_of(codec.bytes32, PATH_MAX),
)
"""Shapes of a group's first four items."""


@dataclass(frozen=True, slots=True)
class Group:
    """A group or a part of one: ``transactions`` are those from index ``first`` of ``total``."""

    signatures: tuple[tuple[bytes, bytes], ...]
    """(signer key, signature), ascending."""
    total: int
    first: int
    path: tuple[bytes, ...]
    transactions: tuple[Transaction, ...]
    root: bytes

    def frame(self) -> list[Value]:
        """Return the first four items of the array: all but the envelopes."""
        return [
            [list(row) for row in self.signatures],
            self.total,
            self.first,
            list(self.path),
        ]

    def to_value(self) -> Value:
        """Return the array of the whole group."""
        return [*self.frame(), [to_value(each) for each in self.transactions]]


def group_message(chain: bytes, total: int, root: bytes) -> bytes:
    """Return the bytes that every signer of a group signs."""
    return message(TAG_GROUP, chain, total.to_bytes(8, "big") + root)


def from_value(frame: Sequence[Value], transactions: Sequence[Transaction]) -> Group:
    """Return the group of an untrusted frame and its decoded transactions; nothing is verified.

    Args:
        frame: four items, each already of its ``FRAME`` shape.
        transactions: as ``transaction.decode_signed`` returns them.

    Raises:
        DecodeError: signers that do not ascend or have no slot, a slot that is empty without its
            signer or filled beside it, a part that is not aligned, or a path of wrong length.

    Cost: about 1 µs a transaction.
    """
    rows, total, first, path = frame
    signatures = tuple((key, signature) for key, signature in rows)
    _check_slots([key for key, _ in signatures], transactions)
    try:
        root = GROUP.subtree_root(total, first, [each.txid for each in transactions], path)
    except ProofError as error:
        raise DecodeError(error.message, path="group") from error
    return Group(signatures, total, first, tuple(path), tuple(transactions), root)


def _check_slots(signers: list[bytes], transactions: Sequence[Transaction]) -> None:
    if any(left >= right for left, right in itertools.pairwise(signers)):
        raise DecodeError("signers are distinct and ascend", path="group.signatures")
    unused = set(signers)
    for index, each in enumerate(transactions):
        for key, signature in zip(each.signers, each.signatures, strict=True):
            if (key in signers) is bool(signature):
                raise DecodeError(
                    "a slot is empty exactly if its key signed the group",
                    path=f"group.envelopes[{index}]",
                )
            unused.discard(key)
    if unused:
        raise DecodeError("a signer signs no transaction of the group", path="group.signatures")


def messages(chain: bytes, group: Group) -> list[tuple[bytes, bytes, bytes]]:
    """Return every ``(key, message, signature)`` of a group that must verify."""
    own = group_message(chain, group.total, group.root)
    found = [(key, own, signature) for key, signature in group.signatures]
    for each in group.transactions:
        found += single_messages(chain, each)
    return found


def single_messages(chain: bytes, transaction: Transaction) -> list[tuple[bytes, bytes, bytes]]:
    """Return ``(key, message, signature)`` of the slots of one transaction that are not empty.

    And of its acknowledgements of sealed values, where it has its private part.

    Raises:
        DecodeError: an acknowledgement is of no commitment.
    """
    signed = message(TAG_TRANSACTION, chain, transaction.txid)
    found = [
        (key, signed, signature)
        for key, signature in zip(transaction.signers, transaction.signatures, strict=True)
        if signature
    ]
    if transaction.openings[len(transaction.calls) + 2 :]:
        found += sealing.messages(chain, transaction)
    return found


# --- making one (clients) ---------------------------------------------------------------------


def group_root(unsigned: Sequence[Unsigned]) -> bytes:
    """Return the root over transactions in order: what a signer of ``group_message`` signs."""
    invariant(0 < len(unsigned) <= TRANSACTIONS_MAX, "a group has 1 to 1,024 transactions")
    return GROUP.root([each.transaction.txid for each in unsigned])


def build(
    unsigned: Sequence[Unsigned],
    signatures: Sequence[tuple[bytes, bytes]],
    singles: Sequence[Sequence[bytes]] = (),
) -> Group:
    """Return the whole group.

    Args:
        unsigned: 1 to 1,024 transactions.
        signatures: ``(signer, signature)`` over ``group_message``, in any order.
        singles: for each transaction the signatures of its signers that did not sign the group,
            in the order of its signers; may be left out when there are none.

    Raises:
        DecodeError: too few or too many signatures, or what ``from_value`` refuses.
    """
    group_keys = frozenset(key for key, _ in signatures)
    filled: list[Transaction] = []
    for index, each in enumerate(unsigned):
        own = list(singles[index]) if singles else []
        missing = [key for key in each.transaction.signers if key not in group_keys]
        if len(missing) != len(own) or any(len(one) != SIGNATURE_BYTES for one in own):
            raise DecodeError(
                f"{len(own)} single signatures, expected {len(missing)} of 64 bytes",
                path=f"group.envelopes[{index}]",
            )
        rest = iter(own)
        slots = [b"" if key in group_keys else next(rest) for key in each.transaction.signers]
        filled.append(each.transaction.signed(slots))
    rows = [list(row) for row in sorted(signatures)]
    for shape, value in zip(FRAME, (rows, len(filled), 0, []), strict=True):
        shape(value, "group")
    return from_value((rows, len(filled), 0, []), filled)


def part(group: Group, first: int, count: int) -> Group:
    """Return an aligned part of a *whole* group: ``count`` transactions from ``first``.

    ``count`` is a power of four that divides ``first``, or what is left up to the end.
    """
    invariant(len(group.transactions) == group.total, "parts are made of a whole group")
    invariant(subtree_level(group.total, first, count) is not None, "the part is not aligned")
    chosen = group.transactions[first : first + count]
    path = GROUP.subtree_path([each.txid for each in group.transactions], first, count)
    keys = {key for each in chosen for key in each.signers}
    signatures = tuple(row for row in group.signatures if row[0] in keys)
    return Group(signatures, group.total, first, tuple(path), chosen, group.root)


def split(group: Group, count_max: int) -> list[Group]:
    """Return the parts of a whole group, in order, each with at most ``count_max`` transactions."""
    invariant(count_max > 0, "a part has at least one transaction")
    if group.total <= count_max:
        return [group]
    size = 1
    while size * 4 <= count_max:
        size *= 4
    return [
        part(group, first, min(size, group.total - first)) for first in range(0, group.total, size)
    ]
