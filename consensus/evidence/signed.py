"""A transaction as evidence shows it: its signatures, and its private part in part or whole.

Not here: what it did (``judgement``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus import codec, signing
from consensus.errors import DecodeError, ProofError
from consensus.evidence.bundle import GroupPart, PrivatePart
from consensus.ledger import group, sealing
from consensus.ledger.private import check_openings, leaf_names, private_header, slot
from consensus.ledger.transaction import Transaction
from consensus.state import salted
from consensus.state.merkle import GROUP


def check_signatures(chain: bytes, transaction: Transaction, part: GroupPart | None) -> None:
    """Check that everybody who must sign has, alone or with the group that ``part`` is of.

    Raises:
        DecodeError, ProofError: signatures are missing, doubled, foreign or out of order.
        SignatureError: one does not verify.
    """
    by_group: dict[bytes, bytes] = {} if part is None else dict(part.signatures)
    messages = list(group.single_messages(chain, transaction))
    if part is not None:
        root = GROUP.multi_root(part.total, {part.index: transaction.txid}, part.path)
        message = group.group_message(chain, part.total, root)
        keys = [key for key, _ in part.signatures]
        if keys != sorted(set(keys)):
            raise DecodeError("signers ascend", path="bundle.transaction.group")
        messages += [(key, message, signature) for key, signature in part.signatures]
    for key, signature in zip(transaction.signers, transaction.signatures, strict=True):
        if bool(signature) is (key in by_group):
            raise ProofError("a signer has signed twice, or not at all")
    if any(key not in transaction.signers for key in by_group):
        raise ProofError("a signature of somebody who is no signer")
    for key, message, signature in messages:
        signing.verify(key, message, signature)


def opened(chain: bytes, transaction: Transaction, part: PrivatePart) -> Transaction:
    """Return the transaction with what is shown of its private part, checked.

    What the nodes of an audience have acknowledged is among it, and so are their signatures.

    Raises:
        DecodeError: a leaf has another form, or acknowledges an input that is not shown.
        ProofError: it is not the private part that the body commits to.
        SignatureError: an acknowledgement does not verify.
    """
    calls, count = len(transaction.calls), len(part.leaves)
    if not calls < count <= calls + 3:
        raise ProofError("a private part has other leaves than its calls ask for")
    kh = slot(chain, transaction.author, transaction.sequence)
    hashes: list[bytes] = []
    openings: list[bytes] = []
    for name, leaf in zip(leaf_names(calls, count), part.leaves, strict=True):
        if isinstance(leaf, bytes):
            hashes.append(leaf)
            openings.append(b"")
        else:
            hashes.append(salted.leaf_hash(kh, name, 0, *leaf))
            openings.append(leaf[1])
    if len(part.decoys) != salted.decoy_count(count):
        raise ProofError("a private part has another number of decoys")
    header = private_header(part.seed_hash, count)
    root = salted.list_root(salted.PRIVATE, header, hashes, part.decoys)
    if root != transaction.private_root:
        raise ProofError("the private part is not the one that was signed")
    _check_shown(calls, openings)
    shown = transaction.opened(openings, b"")
    if openings[calls + 2 :] != [b""]:
        for key, message, signature in sealing.messages(chain, shown):
            signing.verify(key, message, signature)
    return shown


def _check_shown(calls: int, openings: Sequence[bytes]) -> None:
    """Check the form of the openings that are shown; hidden ones are empty.

    Raises:
        DecodeError: one of them has another shape.
    """
    for at, opening in enumerate(openings):
        if opening:
            filled = [b"\x82\x80\x58\x20" + bytes(32)] * calls + [b"\x82\x80\x80"]
            filled += [b"\x61\x78", _ACKS][: len(openings) - calls - 1]
            filled[at] = opening
            check_openings(calls, filled)


_ACKS: Final = codec.encode([[0, 0, "a", bytes(32), bytes(64)]])
