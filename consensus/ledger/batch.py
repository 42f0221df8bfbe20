"""A batch: what one node sends its peers in one piece, and blocks name by digest.

    public  = [[1, origin, number, lane], [item, ...]]
    item    = [body, [signature, ...]]                 one transaction
            | [[[signer, signature], ...], total, first, path, [[body, [signature, ...]], ...]]
    private = [[[opening, ...], seed], ...]            one a transaction, in the public part's order
    digest  = H_batch(public)

The digest covers header, bodies, signatures and group frames and no private part, so private parts
can be dropped later. ``size_bytes`` counts both; the public part commits to both.

All calls of a batch share its lane. One malformed transaction rejects the batch and counts against
its origin; a private part that does not match its root is a bad *copy* and counts against the link
it came by (``CopyError``): the batch may still be good.

Not here: signatures (``messages`` says which must verify), and which batches a node keeps.
Source: docs/protocol/transaction.cddl.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import msgspec

from consensus import codec
from consensus.codec import Value
from consensus.committee import VALIDATORS_MAX
from consensus.errors import CopyError, DecodeError, invariant
from consensus.genesis import Limits
from consensus.hashing import DIGEST_BYTES, H_BATCH
from consensus.ledger import group as groups
from consensus.ledger import transaction as single
from consensus.ledger.group import Group
from consensus.ledger.transaction import ORDINARY, PROTECTIVE, Transaction

VERSION: Final = 1
ITEM_BYTES_MAX: Final = 1024 * 1024
"""Longest envelope or group that a client may submit in one piece."""
FRAMING_BYTES_MAX: Final = 64
"""Most bytes that the arrays around the items of a batch take in both parts together."""

Item = Transaction | Group

_ONLY_BYTES: Final = frozenset({bytes})
_HEADER: Final = codec.array(
    codec.integer(VERSION, VERSION),
    codec.integer(0, VALIDATORS_MAX - 1),
    codec.integer(1),
    codec.integer(ORDINARY, PROTECTIVE),
)


class Batch(msgspec.Struct, frozen=True):
    """A decoded batch. ``origin`` is a validator's index, ``number`` counts its batches from 1."""

    digest: bytes
    origin: int
    number: int
    lane: int
    public: bytes
    private: bytes
    """Empty where the private parts have been dropped."""
    items: tuple[Item, ...]
    """As they travel; empty in a batch of ``decode_trusted``."""
    transactions: tuple[Transaction, ...]
    """All of them, in execution order."""

    @property
    def count(self) -> int:
        """Number of transactions."""
        return len(self.transactions)

    @property
    def size_bytes(self) -> int:
        """Bytes of both parts: what it weighs in a payload and in memory."""
        return len(self.public) + len(self.private)


# --- single items (what clients submit) ---------------------------------------------------------


def decode_item(chain: bytes, data: bytes) -> Item:
    """Return the transaction or group in untrusted bytes; signatures are not verified.

    Raises:
        DecodeError: malformed.
        CopyError: a private part does not match its body.
    """
    if len(data) > ITEM_BYTES_MAX:
        raise DecodeError(f"{len(data)} bytes, at most {ITEM_BYTES_MAX} allowed", path="item")
    value = codec.parse(data, "item")
    if type(value) is not list or len(value) not in (3, 5):
        raise DecodeError("expected an envelope of 3 items or a group of 5", path="item")
    if len(value) == 3:
        return single.from_envelope(chain, value, len(data))
    if codec.plain(value, "group") != len(data):
        raise DecodeError("not the canonical encoding", path="group")
    rows = value[4]
    if type(rows) is not list or any(type(row) is not list or len(row) != 3 for row in rows):
        raise DecodeError("expected an array of envelopes", path="group.envelopes")
    privates = [row[2] for row in rows]
    item = _group(chain, [*value[:4], [row[:2] for row in rows]])
    return _with_private(chain, [item], privates)[0]


def decode_item_trusted(data: bytes, txids: bytes) -> Item:
    """Return the transaction or group in bytes that a worker has accepted: nothing is verified.

    Args:
        txids: 32 bytes a transaction, as the worker returned them.

    Cost: about 4 µs a transaction.
    """
    value = codec.parse(data, "item")
    rows = [value] if len(value) == 3 else value[4]
    flat: list[Transaction] = []
    for at, (body, signatures, (openings, seed)) in enumerate(rows):
        txid = txids[DIGEST_BYTES * at : DIGEST_BYTES * (at + 1)]
        flat.append(single.decode_trusted(body, signatures, openings, seed, txid))
    return flat[0] if len(value) == 3 else groups.from_value(value[:4], flat)


def messages(chain: bytes, items: Sequence[Item]) -> list[tuple[bytes, bytes, bytes]]:
    """Return every ``(key, message, signature)`` of the items that must verify, in order."""
    found: list[tuple[bytes, bytes, bytes]] = []
    for item in items:
        if isinstance(item, Group):
            found += groups.messages(chain, item)
        else:
            found += groups.single_messages(chain, item)
    return found


def transactions_of(items: Sequence[Item]) -> list[Transaction]:
    """Return the transactions of items, flat, in order."""
    flat: list[Transaction] = []
    for item in items:
        flat += item.transactions
    return flat


def item_bytes(item: Item) -> int:
    """Return how many bytes ``item`` takes in both parts of a batch: as many as when submitted."""
    value = item.to_value() if isinstance(item, Group) else single.to_value(item)
    return codec.plain(value, "item")


# --- encoding ----------------------------------------------------------------------------------


def build(origin: int, number: int, lane: int, items: Sequence[Item]) -> Batch:
    """Return the batch of verified items, which are of its lane and have their private parts."""
    flat = transactions_of(items)
    invariant(flat and all(each.lane == lane for each in flat), "items of another lane in a batch")
    invariant(all(each.openings for each in flat), "an own batch lacks a private part")
    public = encode_public(origin, number, lane, items)
    private = encode_private(flat)
    return Batch(H_BATCH(public), origin, number, lane, public, private, tuple(items), tuple(flat))


def encode_public(origin: int, number: int, lane: int, items: Sequence[Item]) -> bytes:
    """Return the public part."""
    return codec.encode([[VERSION, origin, number, lane], [_public_value(item) for item in items]])


def encode_private(transactions: Sequence[Transaction]) -> bytes:
    """Return the private part of a batch of these transactions."""
    return codec.encode([_private_value(each) for each in transactions])


def digest(public: bytes) -> bytes:
    """Return the digest of a batch's public part."""
    return H_BATCH(public)


def _public_value(item: Item) -> Value:
    if isinstance(item, Group):
        rows = [[each.body, list(each.signatures)] for each in item.transactions]
        return [*item.frame(), rows]
    return [item.body, list(item.signatures)]


def _private_value(transaction: Transaction) -> Value:
    return [list(transaction.openings), transaction.seed]


# --- decoding ----------------------------------------------------------------------------------


def decode(chain: bytes, public: bytes, private: bytes, limits: Limits) -> Batch:
    """Return the batch in untrusted bytes; signatures are not verified.

    Raises:
        DecodeError: the batch is malformed, too large or of mixed lanes; its origin is to blame.
        CopyError: the public part is sound and the private part is not its own; the sender is to
            blame.

    Cost: about 20 µs a transaction.
    """
    header, items = _decode_public(chain, public, limits)
    if len(public) + len(private) > limits.batch_bytes_max:
        raise CopyError(f"a batch of more than {limits.batch_bytes_max} bytes")
    try:
        value = codec.parse(private, "private")
        size = codec.plain(value, "private")
    except DecodeError as error:
        raise CopyError(error.message) from error
    if size != len(private) or type(value) is not list:
        raise CopyError("the private part of a batch is a canonical array")
    return _batch(header, public, private, _with_private(chain, items, value))


def decode_public(chain: bytes, public: bytes, limits: Limits) -> Batch:
    """Return the batch of an untrusted public part alone, whose private parts were dropped.

    Raises:
        DecodeError: malformed, too large or of mixed lanes.
    """
    header, items = _decode_public(chain, public, limits)
    return _batch(header, public, b"", items)


def _decode_public(chain: bytes, public: bytes, limits: Limits) -> tuple[Value, list[Item]]:
    """Return the header and the items of an untrusted public part."""
    if len(public) > limits.batch_bytes_max:
        raise DecodeError(
            f"{len(public)} bytes, at most {limits.batch_bytes_max} allowed", path="batch"
        )
    value = codec.parse(public, "batch")
    if type(value) is not list or len(value) != 2 or type(value[1]) is not list:
        raise DecodeError("expected [header, items]", path="batch")
    header, rows = value
    if 1 + _HEADER(header, "batch.header") + codec.plain(rows, "batch[1]") != len(public):
        raise DecodeError("not the canonical encoding", path="batch")
    if not rows:
        raise DecodeError("no items", path="batch")
    protective = header[3] == PROTECTIVE
    items: list[Item] = []
    count = 0
    for index, row in enumerate(rows):
        item = _item(chain, row, f"batch[{index}]")
        items.append(item)
        count += len(item.transactions)
        if count > limits.batch_transactions_max:
            raise DecodeError(
                f"more than {limits.batch_transactions_max} transactions", path="batch"
            )
    for each in transactions_of(items):
        if each.calls[0].protective is not protective:
            raise DecodeError("a transaction of the other lane", path="batch")
    return header, items


def _batch(header: Value, public: bytes, private: bytes, items: Sequence[Item]) -> Batch:
    _, origin, number, lane = header
    flat = tuple(transactions_of(items))
    return Batch(H_BATCH(public), origin, number, lane, public, private, tuple(items), flat)


def decode_trusted(public: bytes, private: bytes, txids: bytes = b"", *, chain: bytes) -> Batch:
    """Return a batch that was checked before, by this node: nothing is verified.

    For the main process, after a worker has accepted the bytes, and for replay of the own log.

    Args:
        private: may be empty, if the private parts were dropped.
        txids: 32 bytes a transaction, as the worker returned them; computed when empty.

    Cost: about 4 µs a transaction, 1 more without ``txids``.
    """
    (_, origin, number, lane), rows = codec.parse(public, "batch")
    envelopes: list[Value] = []
    for row in rows:
        if len(row) == 2:
            envelopes.append(row)
        else:
            envelopes += row[4]
    count = len(envelopes)
    if not txids:
        txids = b"".join([single.transaction_id(chain, body) for body, _ in envelopes])
    privates = codec.parse(private, "private") if private else [((), b"")] * count
    invariant(len(privates) == count, "a stored batch lacks private parts")
    invariant(len(txids) == count * DIGEST_BYTES, "a stored batch lacks transaction ids")
    flat: list[Transaction] = []
    at = 0
    for (body, signatures), (openings, seed) in zip(envelopes, privates, strict=True):
        txid = txids[at : at + DIGEST_BYTES]
        flat.append(single.decode_trusted(body, signatures, openings, seed, txid))
        at += DIGEST_BYTES
    return Batch(H_BATCH(public), origin, number, lane, public, private, (), tuple(flat))


def read_header(public: bytes) -> tuple[int, int, int]:
    """Return ``(origin, number, lane)`` of an untrusted public part without decoding the rest.

    The header is at most 13 bytes at the start. Nothing else of the batch is vouched for.

    Raises:
        DecodeError: no header stands there.
    """
    if public[:1] != b"\x82":
        raise DecodeError("expected [header, items]", path="batch")
    header = codec.parse(public[1:16], "batch.header")
    _HEADER(header, "batch.header")
    _, origin, number, lane = header
    return origin, number, lane


def _item(chain: bytes, row: Value, path: str) -> Item:
    if type(row) is not list or len(row) not in (2, 5):
        raise DecodeError("expected an envelope or a group", path=path)
    if len(row) == 5:
        return _group(chain, row)
    transaction = _signed(chain, row, path)
    if not all(transaction.signatures):
        raise DecodeError("a signature is missing", path=path)
    return transaction


def _group(chain: bytes, row: Value) -> Group:
    for shape, value in zip(groups.FRAME, row[:4], strict=True):
        shape(value, "group")
    envelopes = row[4]
    if type(envelopes) is not list or not 1 <= len(envelopes) <= groups.TRANSACTIONS_MAX:
        raise DecodeError(
            f"expected 1 to {groups.TRANSACTIONS_MAX} envelopes", path="group.envelopes"
        )
    decoded = [_signed(chain, each, f"group.envelopes[{i}]") for i, each in enumerate(envelopes)]
    return groups.from_value(row[:4], decoded)


def _signed(chain: bytes, row: Value, path: str) -> Transaction:
    if type(row) is not list or len(row) != 2 or type(row[0]) is not bytes:
        raise DecodeError("expected [body, [signature, ...]]", path=path)
    body, signatures = row
    if not _are_bytes(signatures):
        raise DecodeError("expected an array of signatures", path=path)
    return single.decode_signed(chain, body, signatures)


def _are_bytes(values: Value) -> bool:
    return type(values) is list and {*map(type, values)} <= _ONLY_BYTES


def _with_private(chain: bytes, items: Sequence[Item], privates: Sequence[Value]) -> list[Item]:
    """Return the items with their private parts, of which nothing is known yet."""
    rest = iter(privates)
    done: list[Item] = []
    if len(privates) != len(transactions_of(items)):
        raise CopyError("there is not one private part for each transaction")
    for item in items:
        if isinstance(item, Group):
            opened = tuple([_open(chain, each, next(rest)) for each in item.transactions])
            done.append(replace(item, transactions=opened))
        else:
            done.append(_open(chain, item, next(rest)))
    return done


def _open(chain: bytes, transaction: Transaction, private: Value) -> Transaction:
    if type(private) is not list or len(private) != 2:
        raise CopyError("a private part is an array of openings and seed")
    openings, seed = private
    if not _are_bytes(openings):
        raise CopyError("openings are byte strings")
    if type(seed) is not bytes:
        raise CopyError("a seed is a byte string")
    return single.with_private(chain, transaction, openings, seed)
