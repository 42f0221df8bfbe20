"""Subscriptions of one connection: certified heights, each once and in order, from any height on.

A slow client is never sent more than it takes: the next height is fetched when the outbox has room,
so a subscription is a cursor, not a queue. To resume, subscribe from the height after the last.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.answers import HeightEvent, StatementEvidence
from consensus.protocol import Status, Stream, Subscribe
from node.api import access, changing, reading, recording
from node.api.reading import CannotAnswer
from node.bell import Bell

if TYPE_CHECKING:
    from node.api.connection import Connection


@dataclass(slots=True)
class Following:
    """One subscription and the next height it gets."""

    stream: Stream
    next_height: int


class Subscriptions:
    """Those of a connection, by the id of the request that began them."""

    def __init__(self) -> None:
        self._bell = Bell()
        self._following: dict[int, Following] = {}

    def __len__(self) -> int:
        return len(self._following)

    def __contains__(self, subscription_id: int) -> bool:
        return subscription_id in self._following

    def __getitem__(self, subscription_id: int) -> Following:
        return self._following[subscription_id]

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

    def get(self, subscription_id: int) -> Following | None:
        """Return a subscription, None if it has ended."""
        return self._following.get(subscription_id)

    async def changed(self) -> list[int]:
        """Return all, once there may be something to send."""
        await self._bell.heard()
        return list(self._following)


class Follower:
    """Sends a connection the heights it follows."""

    def __init__(self, connection: Connection, subscriptions: Subscriptions) -> None:
        self._connection = connection
        self._following = subscriptions

    async def run(self) -> None:
        """Send heights as they are certified."""
        outbox = self._connection.outbox
        limits = self._connection.hub.limits
        while True:
            for subscription_id in await self._following.changed():
                while self._due(subscription_id):
                    await outbox.below(limits.outbound_bytes_max)
                    if self._due(subscription_id):
                        await self._send(subscription_id)

    def _due(self, subscription_id: int) -> bool:
        follower = self._following.get(subscription_id)
        return follower is not None and (
            follower.next_height <= self._connection.hub.backend.height
        )

    async def _send(self, subscription_id: int) -> None:
        follower, outbox = self._following[subscription_id], self._connection.outbox
        if follower.stream is Stream.CHANGES:
            await self._send_changes(subscription_id, follower)
            return
        try:
            event, evidence = await self._event(follower)
        except CannotAnswer as error:
            self._end(subscription_id, follower, error)
            return
        if self._following.get(subscription_id) is not follower:
            return  # ended while this height was recorded
        outbox.statement(event.height, evidence)
        follower.next_height += 1
        outbox.put(subscription_id, Status.EVENT, event.to_value())

    async def _send_changes(self, subscription_id: int, follower: Following) -> None:
        """Send a height of a stream of changes, part by part as there is room."""
        outbox, limits = self._connection.outbox, self._connection.hub.limits
        height = follower.next_height
        request = Subscribe(follower.stream, height)
        try:
            self._allow(request)
            async with aclosing(changing.parts(self._connection, request, height)) as parts:
                async for part, evidence in parts:
                    await outbox.below(limits.outbound_bytes_max)
                    if self._following.get(subscription_id) is not follower:
                        return
                    outbox.statement(height, evidence)
                    outbox.put(subscription_id, Status.EVENT, part.to_value())
        except CannotAnswer as error:
            self._end(subscription_id, follower, error)
        else:
            follower.next_height += 1

    def _end(self, subscription_id: int, follower: Following, error: CannotAnswer) -> None:
        if self._following.get(subscription_id) is follower:
            self._following.remove(subscription_id)
            self._connection.refuse(subscription_id, error.status, error.problem)

    def _allow(self, request: Subscribe) -> None:
        if not access.allows(self._connection.access, request):
            raise CannotAnswer(Status.DENIED, "this key may no longer read decisions")

    async def _event(self, follower: Following) -> tuple[HeightEvent, StatementEvidence]:
        connection, height = self._connection, follower.next_height
        backend, request = connection.hub.backend, Subscribe(follower.stream, height)
        self._allow(request)
        if follower.stream is not Stream.DECISIONS:
            return HeightEvent(height, None), reading.evidence_of(backend, height)
        decisions, block = reading.decisions_at(backend, height, connection.shown)
        await recording.record_decisions(connection, request, [(height, decisions)])
        return HeightEvent(height, decisions), block.evidence
