"""Subscriptions of one connection: certified heights, each once and in order, from any height on.

A slow client is never sent more than it takes: the next height is fetched when the outbox has room,
so a subscription is a cursor, not a queue. To resume, subscribe from the height after the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus import protocol
from consensus.answers import HeightEvent
from consensus.protocol import Status, Stream, Subscribe
from node.api import access, reading
from node.api.reading import CannotAnswer
from node.bell import Bell

if TYPE_CHECKING:
    from node.api.connection import Connection


@dataclass(slots=True)
class Following:
    """One subscription and the next height it gets."""

    stream: Stream
    next_height: int


class Followers:
    """The subscriptions of a connection, by the id of the request that began them."""

    def __init__(self, connection: Connection) -> None:
        self._bell = Bell()
        self._connection = connection
        self._following: dict[int, Following] = {}

    def __len__(self) -> int:
        return len(self._following)

    def __contains__(self, subscription_id: int) -> bool:
        return subscription_id in self._following

    def add(self, subscription_id: int, stream: Stream, from_height: int) -> None:
        """Begin a subscription; the caller bounds their number."""
        self._following[subscription_id] = Following(stream, from_height)
        self._bell.ring()

    def advanced(self) -> None:
        """A height was certified."""
        if self._following:
            self._bell.ring()

    def remove(self, subscription_id: int) -> None:
        """End a subscription; unknown ids are ignored, it may just have ended."""
        self._following.pop(subscription_id, None)

    async def run(self) -> None:
        """Send heights as they are certified."""
        outbox = self._connection.outbox
        limits = self._connection.hub.limits
        while True:
            await self._bell.heard()
            for subscription_id in list(self._following):
                while self._due(subscription_id):
                    await outbox.below(limits.outbound_bytes_max)
                    if self._due(subscription_id):
                        self._send(subscription_id)

    def _due(self, subscription_id: int) -> bool:
        follower = self._following.get(subscription_id)
        return follower is not None and (
            follower.next_height <= self._connection.hub.backend.height
        )

    def _send(self, subscription_id: int) -> None:
        follower = self._following[subscription_id]
        try:
            event = self._event(follower)
        except CannotAnswer as error:
            self.remove(subscription_id)
            self._connection.refuse(subscription_id, error.status, error.problem)
            return
        follower.next_height += 1
        self._connection.outbox.put(subscription_id, Status.EVENT, event.to_value())

    def _event(self, follower: Following) -> HeightEvent:
        connection, height = self._connection, follower.next_height
        backend, outbox = connection.hub.backend, connection.outbox
        if not access.allows(connection.access, Subscribe(follower.stream, height)):
            raise CannotAnswer(Status.DENIED, "this key may no longer read decisions")
        if follower.stream is Stream.DECISIONS:
            found = reading.decisions_answer(
                backend,
                range(height, height + 1),
                protocol.ANSWER_BYTES_MAX,
                lambda block: outbox.statement(block.height, block.evidence),
                connection.shown,
            )
            return HeightEvent(height, found[0].decisions)
        outbox.statement(height, reading.evidence_of(backend, height))
        return HeightEvent(height, None)
