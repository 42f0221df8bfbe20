"""Loading a reservation: ``reservation/{a}/{b} on account/family/{c}``, and what may be read of it.

A rule set loads what its own domain reserved. It names the account as ``post`` and ``void`` do, so
that the currency is known when the rules are checked, and a reader sees whose money it is.

    amount   what was reserved          left    what of it is set aside now: 0 once it is over
    posted   what of it was paid        state   reserved, posted, voided, expired
                                        ends    when it ends by itself; without a value: never

Not here: reservations in the state (``amounts``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from consensus.ledger.expr import Fault, Name
from consensus.ledger.model import AccountFamily
from consensus.ledger.rules.schema import Place
from consensus.ledger.types import Type

RESERVATION: Final = "reservation"
_ON: Final = " on "
_MONEY: Final = ("amount", "posted", "left")
_OTHERS: Final[Mapping[str, Name]] = {
    "state": Name(Type("text")),
    "ends": Name(Type("time"), True),
}


@dataclass(frozen=True, slots=True)
class Reserved:
    """What a load of a reservation gives; it lies on an account of ``family``."""

    family: AccountFamily

    def name(self, field: str, position: int) -> Name:
        """Return what a field stands for, or raise Fault."""
        if field in _MONEY:
            return Name(Type("money", self.family.currency))
        if field not in _OTHERS:
            hint = f"known: {', '.join((*_MONEY, *_OTHERS))}"
            raise Fault(f"a reservation has no {field}", position, hint=hint)
        return _OTHERS[field]


def split(template: str, place: Place) -> tuple[str, str] | None:
    """Return id and account of a load; None if the template is none of a reservation."""
    head, slash, rest = template.partition("/")
    if head != RESERVATION or not slash:
        return None
    id_, on, account = rest.partition(_ON)
    if not on:
        return None
    if not id_.strip() or not account.strip():
        said = f"{template!r} is no load of a reservation"
        raise place.refuse(said, "write reservation/{…} on account/family/…")
    return id_.strip(), account.strip()
