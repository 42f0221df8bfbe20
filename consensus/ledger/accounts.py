"""Accounts within a block: changed by guarded amounts, hashed once.

An account has no version, so a busy budget never conflicts: whoever debits it is refused only when
its own debit would pass the floor. Accounts that a block changed get one new leaf at its end, with
a salt from the pool after the last transaction that wrote them.

What is reserved may not be spent by others. Reservations that end by themselves are in the leaf as
one amount for each moment at which some of them end, so what is reserved follows from the leaf and
the block's time alone: an account is read as of that time, and a leaf that is written names no
moment that has passed.

Not here: which domain may debit (``effects``), reservations one by one (``amounts``) and where
accounts lie (``layout``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from consensus.codec import INT64_MAX
from consensus.hashing import bulk
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import Balance, encode_int, encode_value
from consensus.state import salted
from consensus.state.record import encode_single
from consensus.state.salted import SALT_BYTES

NO_VERSION: Final = 1
"""The constant version of leaves that have no versions."""
EXPIRIES_MAX: Final = 128
"""Moments at which reservations of one account end; those that end together share one."""
_NONE: Final[Mapping[int, int]] = MappingProxyType({})

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
        "expiring",
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
        self.id, self.balance, self.reserved, self.held, *more = value
        self.expiring: Mapping[int, int] = _NONE
        if more:
            self.expiring = {row[0]: row[1] for row in more[0]}
        """Amounts within ``reserved`` by the moment at which they end; never changed in place."""
        self.vh = vh
        self.salt = self.salt_start = salt
        self.pool = b""

    def expire(self, now_ms: int) -> None:
        """Drop the reservations that have ended by themselves."""
        ended = [until_ms for until_ms in self.expiring if until_ms <= now_ms]
        if ended:
            self.reserved -= sum(self.expiring[until_ms] for until_ms in ended)
            self.expiring = {at: n for at, n in self.expiring.items() if at > now_ms}

    def encode(self) -> bytes:
        """Return canonical CBOR of the leaf's value, and keep it for the row."""
        numbers = encode_int(self.balance) + encode_int(self.reserved) + encode_int(self.held)
        self.value_cbor = b"\x84" + self.id_cbor + numbers
        if self.expiring:
            rows = [list(row) for row in sorted(self.expiring.items())]
            self.value_cbor = b"\x85" + self.value_cbor[1:] + encode_value(rows)
        return self.value_cbor

    def row(self) -> bytes:
        """Return the account's row; its leaf has been hashed in this block."""
        return encode_single(NO_VERSION, self.salt, self.value_cbor)


class Change:
    """What the current transaction makes of an account."""

    __slots__ = ("account", "balance", "expiring", "held", "opened", "reserved")

    def __init__(self, account: Account, *, opened: bool) -> None:
        self.account = account
        self.balance = account.balance
        self.reserved = account.reserved
        self.expiring = account.expiring
        self.held = account.held
        self.opened = opened

    def debit(self, amount: int, floor: int) -> None:
        """Take ``amount`` >= 0 unless less than ``floor`` and what is reserved would be left.

        Raises:
            Refused: INSUFFICIENT, without the balance.
        """
        balance = self.balance - amount
        if balance - self.reserved < floor:
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

    def reserve(self, amount: int, until_ms: int | None, floor: int) -> None:
        """Set ``amount`` >= 0 aside until ``until_ms``, as if it were debited.

        Raises:
            Refused: INSUFFICIENT: less than ``floor`` would be left, or the sum of what is reserved
                would not fit 64 bits; LIMIT: EXPIRIES_MAX other moments are in use.
        """
        reserved = self.reserved + amount
        if self.balance - reserved < floor:
            raise Refused(Code.INSUFFICIENT, [self.account.id, "floor"])
        if reserved > INT64_MAX:
            raise Refused(Code.INSUFFICIENT, [self.account.id, "overflow"])
        if until_ms is not None and amount:
            if until_ms not in self.expiring and len(self.expiring) >= EXPIRIES_MAX:
                raise Refused(Code.LIMIT, "expiries")
            self.expiring = {**self.expiring, until_ms: self.expiring.get(until_ms, 0) + amount}
        self.reserved = reserved

    def free(self, amount: int, until_ms: int | None, paid: int = 0) -> None:
        """Count ``amount`` no longer as reserved; ``paid`` of it leaves the account.

        It was guarded when it was reserved, so it is there.

        Args:
            until_ms: when the reservation would end by itself, a moment yet to come if any of it
                is given back.
        """
        if until_ms is not None and amount:
            left = self.expiring[until_ms] - amount
            others = {at: n for at, n in self.expiring.items() if at != until_ms}
            self.expiring = {**others, until_ms: left} if left else others
        self.reserved -= amount
        self.balance -= paid


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
