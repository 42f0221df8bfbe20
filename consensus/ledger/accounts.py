"""Accounts within a block: changed by guarded amounts, hashed once.

An account has no version, so a busy budget never conflicts: whoever debits it is refused only when
its own debit would pass the floor. Accounts that a block changed get one new leaf at its end, with
a salt from the pool after the last transaction that wrote them.

Not here: which domain may debit (``effects``) and where accounts lie (``layout``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from consensus.codec import INT64_MAX
from consensus.hashing import bulk
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import Balance, encode_int
from consensus.state import salted
from consensus.state.record import encode_single
from consensus.state.salted import SALT_BYTES

NO_VERSION: Final = 1
"""The constant version of leaves that have no versions."""

_salts = bulk("single salt")
_values = bulk("value")
_fields = bulk("field")
_FIELD_HEAD: Final = b"\x83\x58\x20"
_FIELD_TAIL: Final = b"\x60\x01"
"""The empty name and NO_VERSION."""


class Account:
    """An account as the block has it; changed in place when a transaction commits.

    ``pool`` is that of its last writer in the block, empty if there is none; ``vh`` is empty while
    it is not hashed yet, 32 bytes otherwise.
    """

    __slots__ = (
        "balance",
        "domain",
        "held",
        "id",
        "id_cbor",
        "kh",
        "pool",
        "reserved",
        "salt",
        "salt_start",
        "value_cbor",
        "vh",
    )

    def __init__(
        self, kh: bytes, id_cbor: bytes, domain: str, value: Balance, vh: bytes, salt: bytes
    ) -> None:
        self.kh = kh
        self.id_cbor = id_cbor
        self.domain = domain
        self.id, self.balance, self.reserved, self.held = value
        self.vh = vh
        self.salt = self.salt_start = salt
        self.pool = b""

    def encode(self) -> bytes:
        """Return canonical CBOR of the leaf's value, and keep it for the row."""
        numbers = encode_int(self.balance) + encode_int(self.reserved) + encode_int(self.held)
        self.value_cbor = b"\x84" + self.id_cbor + numbers
        return self.value_cbor

    def row(self) -> bytes:
        """Return the account's row; its leaf has been hashed in this block."""
        return encode_single(NO_VERSION, self.salt, self.value_cbor)


class Change:
    """What the current transaction makes of an account."""

    __slots__ = ("account", "balance", "held", "opened")

    def __init__(self, account: Account, *, opened: bool) -> None:
        self.account = account
        self.balance = account.balance
        self.held = account.held
        self.opened = opened

    def debit(self, amount: int, floor: int) -> None:
        """Take ``amount`` >= 0 unless that would pass ``floor``.

        Raises:
            Refused: INSUFFICIENT, without the balance.
        """
        balance = self.balance - amount
        if balance < floor:
            raise Refused(Code.INSUFFICIENT, [self.account.id, "floor"])
        self.balance = balance

    def credit(self, amount: int) -> None:
        """Add ``amount`` >= 0.

        Raises:
            Refused: INSUFFICIENT: the balance would not fit 64 bits.
        """
        balance = self.balance + amount
        if balance > INT64_MAX:
            raise Refused(Code.INSUFFICIENT, [self.account.id, "overflow"])
        self.balance = balance


def hash_accounts(accounts: Iterable[Account]) -> None:
    """Give every account that lacks one its new salt and value hash.

    Equal to ``salted.next_single_salt`` and ``single_leaf`` on each. Cost: 3 µs an account.
    """
    stale = [account for account in accounts if not account.vh]
    salts = _salts([each.salt_start + each.pool + each.kh for each in stale])
    for account, salt in zip(stale, salts, strict=True):
        account.salt = salt[:SALT_BYTES]
    hidden = _values([each.salt + each.encode() for each in stale])
    leaves = _fields(
        [
            _FIELD_HEAD + each.kh + _FIELD_TAIL + value
            for each, value in zip(stale, hidden, strict=True)
        ]
    )
    for account, leaf in zip(stale, leaves, strict=True):
        account.vh = leaf


def fresh_account(kh: bytes, id_: list[object], id_cbor: bytes, domain: str) -> Account:
    """Return an account that does not exist yet, with balance 0."""
    return Account(kh, id_cbor, domain, Balance(id_, 0, 0, 0), b"", salted.NO_SALT)
