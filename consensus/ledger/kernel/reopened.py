"""Reservations behind what a reversal gives back: open again, or posted again.

Taking back a post gives the amount back to the account and sets it aside again, under the same id
and until the same moment: the reservation is as if that had not been posted. What the post had
given back of it, because it paid less, stays free. If its time is over, or it was voided since,
nothing is set aside; in the first case it is open nevertheless, so that it can be voided.

Taking such a reversal back posts the amount again, if the reservation still has it; else it is
debited like any other.

Not here: the amounts themselves (``reversal``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from consensus.codec import INT64_MIN, Value, same
from consensus.ledger.accounts import Change
from consensus.ledger.amounts import SPACE
from consensus.ledger.evidence import Moved
from consensus.ledger.layout import POSTED, RESERVED, Reservation, encode_id
from consensus.ledger.view import View


class Reopened(NamedTuple):
    """What becomes of a reservation, and how much more of it is set aside (negative: less)."""

    after: Reservation
    reserved: int

    def write(self, view: View, change: Change, delta: int, floor: int) -> None:
        """Carry it out on its account, with the amount ``delta`` that the account gets or pays.

        Raises:
            Refused: INSUFFICIENT; LIMIT: the account has no room for the moment at which the
                reservation ends.
        """
        after, reserved = self
        if reserved < 0:
            change.free(-reserved, after.until_ms, -delta)
        elif delta < 0:
            change.debit(-delta, floor)
        else:
            change.credit(delta)
            change.reserve(reserved, after.until_ms, INT64_MIN)  # it is there: it has just come
        view.put(SPACE, after.id, after, str(after.id[0]))


class Reservations:
    """The reservations that a reversal touches, as they become one move after the other.

    Args:
        read: gives a reservation as it is now, None where there is none.
        now_ms: the time that counts.
    """

    __slots__ = ("_now_ms", "_present", "_read")

    def __init__(self, read: Callable[[Sequence[Value]], Reservation | None], now_ms: int) -> None:
        self._read = read
        self._now_ms = now_ms
        self._present: dict[bytes, Reservation | None] = {}

    def back(self, side: Moved, *, again: bool) -> Reopened | None:
        """Return what becomes of the reservation of a move's side; None: nothing, or it has none.

        Args:
            again: the move is a reversal's: what was opened again is posted again.
        """
        if not side.reservation:
            return None
        key = encode_id(side.reservation)
        before = self._before(key, side.reservation)
        if before is None or not same(before.account, side.account):
            return None
        found = _posted(before, side.delta) if again else _opened(before, side.delta)
        if found is None:
            return None
        self._present[key] = found
        amount = -side.delta if found.lasts(self._now_ms) else 0
        return Reopened(found, amount)

    def _before(self, key: bytes, id_: Sequence[Value]) -> Reservation | None:
        if key not in self._present:
            self._present[key] = self._read(id_)
        return self._present[key]


def _opened(before: Reservation, delta: int) -> Reservation | None:
    """Return a reservation as it was before ``-delta`` was posted, without what was given back."""
    if before.state not in (RESERVED, POSTED):
        return None
    amount = before.posted if before.state == POSTED else before.amount
    return before._replace(amount=amount, posted=before.posted + delta, state=RESERVED)


def _posted(before: Reservation, amount: int) -> Reservation | None:
    """Return a reservation of which an amount is posted again, if it still has it."""
    if before.state != RESERVED or before.amount - before.posted < amount:
        return None
    posted = before.posted + amount
    return before._replace(posted=posted, state=POSTED if posted == before.amount else RESERVED)
