"""Following the network from plain scripts: subscriptions that are read in a loop.

Not here: how they reach the client's own thread (``blocking``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, TypeVar

from comity.changes import ChangedHeight
from comity.results import Cursor, Decision, Height

if TYPE_CHECKING:
    from comity.client import Client

T = TypeVar("T")


class BlockingFeeds:
    """How a blocking client follows the network; a part of ``BlockingClient``."""

    if TYPE_CHECKING:

        def _follow(
            self, subscribe: Callable[[Client], AbstractAsyncContextManager[AsyncIterator[T]]]
        ) -> Generator[T, None, None]: ...

    def subscribe(
        self, from_height: int, *, decisions: bool = False
    ) -> Generator[Height, None, None]:
        """Yield certified heights from ``from_height`` on, each once, in order, for ever.

        Reconnects and resumes by itself. With ``decisions`` each has all its decisions. It ends
        when the client is closed, when the loop over it is left, and by Ctrl-C: then subscribe
        again from the height after the last one.

        Raises:
            RequestError: this key may not follow that.
            NotReachableError: no node could be reached for as long as the patience lasts.
        """
        return self._follow(
            lambda client: aclosing(client.subscribe(from_height, decisions=decisions))
        )

    def follow(self, after: Cursor | None = None) -> Generator[Decision, None, None]:
        """Yield every decision after a place, each once, in order, for ever.

        Keep ``decision.cursor`` of the last one you have handled: another run, with another client
        and another node, goes on right after it. Nothing is left out and nothing comes twice. It
        ends when the client is closed, when the loop over it is left, and by Ctrl-C.

        Args:
            after: the place; ``Cursor(height)`` is before all decisions of a height; None: after
                the newest certified height.

        Raises:
            RequestError: this key may not follow that, or no node keeps the height any more.
            NotReachableError: no node could be reached for as long as the patience lasts.
        """
        return self._follow(lambda client: aclosing(client.follow(after)))

    def changes(self, from_height: int) -> Generator[ChangedHeight, None, None]:
        """Yield certified heights from ``from_height`` on with all that they changed.

        Each once, in order, for ever; none of its changes is missing, and of those that this key
        may read the rows come too. Height 0 is what the network was founded with. It ends when the
        client is closed, when the loop over it is left, and by Ctrl-C.

        Raises:
            RequestError: this key may not follow that; PRUNED: no node keeps the height any more.
            NotReachableError: no node could be reached for as long as the patience lasts.
        """
        return self._follow(lambda client: aclosing(client.changes(from_height)))
