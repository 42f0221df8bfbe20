"""How much of proposals one transaction may look at: about as much as a transaction holds itself.

Whoever approves or objects has the calls of the proposal judged, and an approval may have it take
effect. So the acts of one transaction share bounds: the calls and bytes of the proposals they name
come to no more than those of one transaction, and what they may load from indexes counts as what
the transaction lists itself, at the most that the actions' loads allow. One proposal alone always
fits. The worst transaction then costs a few times the worst that names no proposal, however many
it names.

Not here: what a judgement looks at (``proposing``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus.codec import Value
from consensus.ledger.codes import Code, Refused
from consensus.ledger.indexes import LISTED_MAX
from consensus.ledger.model import Rulebook
from consensus.ledger.private import CALLS_MAX
from consensus.ledger.transaction import ENVELOPE_BYTES_MAX

CALLS_SHARED_MAX: Final = CALLS_MAX
"""Calls of all proposals that one transaction approves or objects to."""
BYTES_SHARED_MAX: Final = ENVELOPE_BYTES_MAX
"""Bytes of their drafts."""
TOO_MUCH: Final = "proposals"
"""The detail of LIMIT."""


class Share:
    """What the acts of one transaction have taken."""

    __slots__ = ("_bytes", "_calls")

    def __init__(self) -> None:
        self._calls = 0
        self._bytes = 0

    def take(self, calls: int, draft_bytes: int, lists: int, listed: int) -> None:
        """Take what the judgement of one proposal may need.

        Args:
            calls: of the proposal.
            draft_bytes: of its draft.
            lists: what it may load from indexes at the most (``listed_most``).
            listed: what the transaction has taken from indexes, or may need to for others.

        Raises:
            Refused: LIMIT: together with the others it is too much for one transaction.
        """
        others = self._calls
        self._calls += calls
        self._bytes += draft_bytes
        over = self._calls > CALLS_SHARED_MAX or self._bytes > BYTES_SHARED_MAX
        if (others and over) or (lists and listed and listed + lists > LISTED_MAX):
            raise Refused(Code.LIMIT, TOO_MUCH)


def listed_most(book: Rulebook, calls: Sequence[Sequence[Value]]) -> int:
    """Return how many records the calls of a proposal can load from indexes.

    Args:
        book: rule sets in force.
        calls: each begins with domain and action.
    """
    most = 0
    for domain, name, *_ in calls:
        action = book.action(domain, name)
        for load in () if action is None else action.loads:
            if load.listing is not None:
                most += load.listing.most
    return most


def weight(book: Rulebook, calls: Sequence[Sequence[Value]]) -> int:
    """Return how much work a proposal is to judge: its calls, and what they may load as calls."""
    return len(calls) + listed_most(book, calls) * CALLS_MAX // LISTED_MAX
