"""What programmes of amounts must come to, in plain Python, apart from the code that judges them.

Amounts are kept one reservation at a time; what is reserved is added up whenever it is asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

from consensus.ledger.codes import Code

FLOORS = {"usd": -50, "eur": 0}
LARGEST = 2**63 - 1
CLAIMS = (("c1", 100), ("c2", 0), ("c3", 40))
"""Who is paid first, second and third by a waterfall, and up to how much."""
Account = tuple[str, str]


class Fails(Exception):
    """A call is refused."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass
class Kept:
    """A reservation; ``left`` is what is neither posted nor given back."""

    account: Account
    left: int
    until_ms: int | None
    over: bool = False

    def counts(self, now_ms: int) -> bool:
        return not self.over and (self.until_ms is None or now_ms < self.until_ms)


@dataclass
class Move:
    """Move an amount."""

    currency: str
    source: str
    target: str
    amount: int


@dataclass
class Reserve:
    """Set an amount aside, for so many milliseconds from ``now`` or for good."""

    currency: str
    id: int
    source: str
    amount: int
    until_ms: int | None


@dataclass
class Post:
    """Move a reservation; ``amount`` None: all of it."""

    currency: str
    id: int
    source: str
    target: str
    amount: int | None
    keep: bool


@dataclass
class Void:
    """Give a reservation back."""

    currency: str
    id: int
    source: str


@dataclass
class Fall:
    """Pay the claims in order, and the rest to somebody or nobody."""

    currency: str
    source: str
    amount: int
    rest: str | None


@dataclass
class Swap:
    """Void one reservation and make another, in one call."""

    currency: str
    old: int
    new: int
    source: str
    amount: int


Call = Move | Reserve | Post | Void | Fall | Swap


@dataclass
class Model:
    """Balances and reservations."""

    balances: dict[Account, int]
    kept: dict[int, Kept] = field(default_factory=dict)

    def reserved(self, account: Account, now_ms: int) -> int:
        """Return the sum of what counts."""
        return sum(
            each.left
            for each in self.kept.values()
            if each.account == account and each.counts(now_ms)
        )

    def run(self, calls: Sequence[Call], now_ms: int) -> Code:
        """Carry out all calls of a transaction, or none."""
        before = copy.deepcopy((self.balances, self.kept))
        try:
            for call in calls:
                self._call(call, now_ms)
        except Fails as failure:
            self.balances, self.kept = before
            return failure.code
        return Code.APPLIED

    def _call(self, call: Call, now_ms: int) -> None:
        match call:
            case Move():
                source, target = self._there(call.currency, call.source, call.target)
                self._amount(call.amount)
                self._debit(source, call.amount, now_ms)
                self._credit(target, call.amount)
            case Reserve():
                (source,) = self._there(call.currency, call.source)
                self._amount(call.amount)
                if call.until_ms is not None and call.until_ms <= now_ms:
                    raise Fails(Code.REQUIREMENT)
                self._reserve(call.id, source, call.amount, call.until_ms, now_ms)
            case Post():
                source, target = self._there(call.currency, call.source, call.target)
                found = self._open(call.id, source)
                if not found.counts(now_ms):
                    raise Fails(Code.REQUIREMENT)
                amount = found.left if call.amount is None else self._amount(call.amount)
                if amount > found.left:
                    raise Fails(Code.REQUIREMENT)
                found.left -= amount
                found.over = not call.keep or not found.left
                self.balances[source] -= amount
                self._credit(target, amount)
            case Void():
                (source,) = self._there(call.currency, call.source)
                self._open(call.id, source).over = True
            case Swap():
                (source,) = self._there(call.currency, call.source)
                found = self._open(call.old, source)
                self._amount(call.amount)
                found.over = True
                self._reserve(call.new, source, call.amount, None, now_ms)
            case Fall():
                names = [name for name, _ in CLAIMS] + [call.rest] * (call.rest is not None)
                source, *_ = self._there(call.currency, call.source, *[n for n in names if n])
                left = self._amount(call.amount)
                for name, most in CLAIMS:
                    share = min(most, left)
                    left -= share
                    self._pay(source, (call.currency, name), share, now_ms)
                if call.rest is not None:
                    self._pay(source, (call.currency, call.rest), left, now_ms)

    def _there(self, currency: str, *names: str) -> list[Account]:
        accounts = [(currency, name) for name in names]
        if any(each not in self.balances for each in accounts):
            raise Fails(Code.NOT_FOUND)
        return accounts

    def _amount(self, amount: int) -> int:
        if amount < 0:
            raise Fails(Code.REQUIREMENT)
        return amount

    def _open(self, id_: int, account: Account) -> Kept:
        found = self.kept.get(id_)
        if found is None:
            raise Fails(Code.NOT_FOUND)
        if found.over or found.account != account:
            raise Fails(Code.REQUIREMENT)
        return found

    def _pay(self, source: Account, target: Account, amount: int, now_ms: int) -> None:
        if amount:
            self._debit(source, amount, now_ms)
            self._credit(target, amount)

    def _debit(self, account: Account, amount: int, now_ms: int) -> None:
        if self.balances[account] - amount - self.reserved(account, now_ms) < FLOORS[account[0]]:
            raise Fails(Code.INSUFFICIENT)
        self.balances[account] -= amount

    def _credit(self, account: Account, amount: int) -> None:
        if self.balances[account] + amount > LARGEST:
            raise Fails(Code.INSUFFICIENT)
        self.balances[account] += amount

    def _reserve(
        self, id_: int, account: Account, amount: int, until_ms: int | None, now_ms: int
    ) -> None:
        if id_ in self.kept:
            raise Fails(Code.NOT_UNIQUE)
        reserved = self.reserved(account, now_ms) + amount
        if self.balances[account] - reserved < FLOORS[account[0]] or reserved > LARGEST:
            raise Fails(Code.INSUFFICIENT)
        self.kept[id_] = Kept(account, amount, until_ms)
