"""People who sign, and transactions of theirs, for tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nacl.bindings
from blake3 import blake3

from consensus.ledger import batch as batches
from consensus.ledger import group as groups
from consensus.ledger.batch import Batch, Item
from consensus.ledger.group import Group
from consensus.ledger.transaction import (
    Draft,
    Expect,
    Transaction,
    Unsigned,
    assemble,
    build,
)

CHAIN = b"C" * 32
NOT_AFTER_MS = 1_796_083_200_000


@dataclass(frozen=True)
class Author:
    """A key pair made from one byte."""

    number: int

    @property
    def key(self) -> bytes:
        return nacl.bindings.crypto_sign_seed_keypair(bytes([self.number]) * 32)[0]

    def sign(self, message: bytes) -> bytes:
        secret = nacl.bindings.crypto_sign_seed_keypair(bytes([self.number]) * 32)[1]
        return nacl.bindings.crypto_sign(message, secret)[:64]


ANNA, BORIS, CLARA, DORA = (Author(number) for number in (1, 2, 3, 4))


def pay(amount: int = 100, *, protective: bool = False) -> Draft:
    return Draft(
        "payments", "transfer", b"A" * 32, [["payee"], amount], b"P" * 32, protective=protective
    )


def seed_of(author: Author, sequence: int) -> bytes:
    return blake3(f"{author.number} {sequence}".encode()).digest()


def draft(
    author: Author = ANNA,
    sequence: int = 1,
    *,
    calls: Sequence[Draft] | None = None,
    protective: bool = False,
    cosigners: Sequence[Author] = (),
    chain: bytes = CHAIN,
    **options: Any,
) -> Unsigned:
    return build(
        chain,
        author.key,
        sequence,
        options.pop("not_after_ms", NOT_AFTER_MS),
        calls or [pay(protective=protective)],
        seed=options.pop("seed", seed_of(author, sequence)),
        expects=options.pop("expects", [Expect("record", ["E-17"], 4)]),
        cosigners=[each.key for each in cosigners],
        **options,
    )


def signatures(unsigned: Unsigned, author: Author, cosigners: Sequence[Author]) -> list[bytes]:
    by_key = {each.key: each for each in (author, *cosigners)}
    return [by_key[key].sign(unsigned.message) for key in unsigned.transaction.signers]


def envelope(author: Author = ANNA, sequence: int = 1, **options: Any) -> bytes:
    unsigned = draft(author, sequence, **options)
    return assemble(unsigned, signatures(unsigned, author, options.get("cosigners", ())))


def signed(author: Author = ANNA, sequence: int = 1, **options: Any) -> Transaction:
    unsigned = draft(author, sequence, **options)
    slots = signatures(unsigned, author, options.get("cosigners", ()))
    return unsigned.transaction.signed(slots)


def group_of(unsigned: Sequence[Unsigned], signers: Sequence[Author], **options: Any) -> Group:
    message = groups.group_message(CHAIN, len(unsigned), groups.group_root(unsigned))
    rows = [(each.key, each.sign(message)) for each in signers]
    return groups.build(unsigned, rows, **options)


def payments(count: int, author: Author = ANNA, first: int = 1) -> list[Unsigned]:
    return [draft(author, first + index) for index in range(count)]


def batch_of(*items: Item, origin: int = 0, number: int = 1) -> Batch:
    lane = batches.transactions_of(items)[0].lane
    return batches.build(origin, number, lane, items)
