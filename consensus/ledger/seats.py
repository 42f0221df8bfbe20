"""What the state says of the committee: leaves of the space ``committee``.

    committee  []                  [epoch, [[agency, node key], ...], latest,
                                    [number, from_ms] | null]
    committee  ["members"]         [epoch, [validator, ...]]    as in the genesis file's committee
    committee  [number]            [number, state, from_ms, epoch | null, why | null,
                                    [[kind, agency, validator | null], ...],
                                    [[step, txid, principal, agency, time_ms], ...]]
    member_key [key]               [agency, epoch]              keys of validators, for ever

The first says who has a seat now, the highest number of a change, and the change that is to come,
if there is one. It is absent while nothing was ever agreed on, the second in the first epoch: the
genesis file has the committee then. The keys of that committee have no leaf.

Not here: how changes come about (``kernel.committee``) and take effect (``membership``).
"""

from __future__ import annotations

from typing import Final, NamedTuple

from consensus.codec import Value

SPACE: Final = "committee"
MEMBERS: Final = "members"
KEYS: Final = "member_key"

ADMIT: Final = "admit"
LEAVE: Final = "leave"
REPLACE: Final = "replace"

COMING: Final = 0
"""State of a change that is agreed and whose time is still to come."""
BEGUN: Final = 1
"""It took effect: an epoch began with it."""
OBJECTED: Final = 2
"""Agencies ended it before its time."""
DROPPED: Final = 3
"""When its time came it was not possible any more; ``why`` says what had changed."""


class Seats(NamedTuple):
    """Who has a seat, and what is to come. ``seats`` are in the committee's order."""

    epoch: int
    seats: list[list[Value]]
    latest: int
    coming: list[int] | None

    @property
    def agencies(self) -> list[str]:
        """Who has a seat."""
        return [agency for agency, _ in self.pairs]

    @property
    def pairs(self) -> list[tuple[str, bytes]]:
        """Agency and node key of each."""
        return [(agency, key) for agency, key in self.seats]


class Change(NamedTuple):
    """A change of the committee and what became of it.

    It took effect with ``epoch``. ``changes`` are ``[kind, agency, validator]``, the last as a row
    of the committee, None for one who leaves. Of ``why`` see ``DROPPED``.
    """

    number: int
    state: int
    from_ms: int
    epoch: int | None
    why: list[str] | None
    changes: list[list[Value]]
    steps: list[list[Value]]
