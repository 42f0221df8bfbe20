"""Following the network: certified heights, and the decisions in them, each once and in order.

Not here: connections, and which node is followed (``network``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from comity.changes import ChangedHeight, verified
from comity.results import Cursor, Decision, Height
from comity.session import FeedItem
from consensus.errors import VerificationError
from consensus.protocol import Stream

if TYPE_CHECKING:
    from comity.network import Network
    from comity.verify import Trust
    from consensus.hotstuff.types import Statement


class Feeds:
    """How a client follows the network; a part of ``Client``."""

    if TYPE_CHECKING:
        trust: Trust
        _network: Network

        async def statements(self, first: int, count: int = 1) -> tuple[Height, ...]: ...
        def _height(self, statement: Statement, encoded: tuple[bytes, ...] | None) -> Height: ...

    async def subscribe(
        self, from_height: int, *, decisions: bool = False
    ) -> AsyncGenerator[Height, None]:
        """Yield certified heights from ``from_height`` on, each once, in order, for ever.

        Reconnects and resumes by itself. With ``decisions`` each has all its decisions. Use it with
        ``contextlib.aclosing`` when you leave the loop early.

        Raises:
            RequestError: this key may not follow that.
            NotReachableError: no node could be reached for as long as the patience lasts.
        """

        def read(item: FeedItem) -> Height:
            if (item.decisions is not None) is not decisions or item.changes is not None:
                raise VerificationError("a subscription brings something else than asked for")
            return self._height(item.statement, item.decisions)

        stream = Stream.DECISIONS if decisions else Stream.STATEMENTS
        async with aclosing(self._network.follow(stream, from_height, read)) as feed:
            async for height in feed:
                yield height

    async def changes(self, from_height: int) -> AsyncGenerator[ChangedHeight, None]:
        """Yield certified heights from ``from_height`` on with all that they changed.

        Each once, in order, for ever; none of its changes is missing, and of those that this key
        may read the rows come too. Height 0 is what the network was founded with. Reconnects and
        resumes by itself. Use it with ``contextlib.aclosing`` when you leave the loop early.

        Raises:
            RequestError: this key may not follow that; PRUNED: no node keeps the height any more.
            NotReachableError: no node could be reached for as long as the patience lasts.
        """

        def read(item: FeedItem) -> ChangedHeight:
            return verified(item, self._height(item.statement, item.decisions), self.trust)

        async with aclosing(self._network.follow(Stream.CHANGES, from_height, read)) as feed:
            async for height in feed:
                yield height

    async def follow(self, after: Cursor | None = None) -> AsyncGenerator[Decision, None]:
        """Yield every decision after a place, each once, in order, for ever.

        Keep ``decision.cursor`` of the last one you have handled: another run, with another client
        and another node, goes on right after it. Nothing is left out and nothing comes twice. Use
        it with ``contextlib.aclosing`` when you leave the loop early.

        Args:
            after: the place; ``Cursor(height)`` is before all decisions of a height; None: after
                the newest certified height.

        Raises:
            RequestError: this key may not follow that, or no node keeps the height any more.
            NotReachableError: no node could be reached for as long as the patience lasts.
        """
        if after is None:
            await self.statements(-1)
            after = Cursor(self.trust.height + 1)
        async with aclosing(self.subscribe(max(after.height, 1), decisions=True)) as feed:
            async for height in feed:
                for decision in height.decisions or ():
                    if decision.cursor > after:
                        yield decision
