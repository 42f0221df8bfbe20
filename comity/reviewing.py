"""Reviews of emergency acts: which are open, and giving one.

Not here: what an emergency form is, and what a review does (``consensus.ledger.emergency``).
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING

from comity import listing
from comity.drafting import Call
from comity.network import Network
from comity.results import Decision, Entry, Listing
from comity.verify import Trust
from consensus.codec import Value
from consensus.ledger.emergency import BY_ROLE
from consensus.protocol import PAGE_MAX, StateKey

if TYPE_CHECKING:
    from collections.abc import Sequence


class Reviews:
    """How a client reviews emergency acts; a part of ``Client``."""

    if TYPE_CHECKING:
        trust: Trust
        _network: Network

        async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]: ...

        async def read_for(self, call: Call) -> tuple[Entry, ...]: ...

        async def transact(
            self, *calls: Call, reads: Sequence[Entry] = (), reason: str = ""
        ) -> Decision: ...

    async def reviews(self, role: str) -> tuple[Entry, ...]:
        """Return the uses of emergency forms that ``role`` has yet to review; none is left out.

        Raises:
            MovedError: the list changed whenever it was read.
        """
        kind, field = BY_ROLE.split(".")

        def turn(after: tuple[Value, ...] | None) -> Awaitable[Listing]:
            place = (kind, field, role)
            return listing.proved(self._network, self.trust, place, after, PAGE_MAX)

        found = await listing.everything(turn)
        if not found.ids:
            return ()
        return await self.get_many([StateKey("review", id_) for id_ in found.ids])

    async def review(self, review: bytes, *, justified: bool, reason: str = "") -> Decision:
        """Say whether the use of an emergency form was justified; its power ends if it was not.

        Args:
            review: its id.
            justified: what was found.
            reason: why, in words.

        Raises:
            DraftError, KeyUnusableError, RequestError, UndecidedError: as ``transact``.
        """
        call = Call("charter", "review", {"review": review, "justified": justified})
        return await self.transact(call, reads=await self.read_for(call), reason=reason)
