"""Incoming connections whose other side is not known yet: how many, and for how long.

Anybody can connect; only a member gets past TLS. Until then a connection costs a socket and a
little memory, so their number is bounded. When all places are taken, the newcomer gets one and the
oldest connection of the address that holds most places loses it: a flood from one address displaces
itself, and a member's handshake, which takes a few round trips, survives a flood from many.

Not here: what happens on a connection (``peers.py``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import trio

from node.network.stats import ListenerStats


@dataclass(slots=True, eq=False)
class Place:
    """One pending connection. Its scope ends at the deadline, or when the place is taken away."""

    host: str
    scope: trio.CancelScope
    evicted: bool = field(default=False)


class Doorstep:
    """The places for connections that are not introduced yet."""

    def __init__(self, places_max: int, seconds_max: float, stats: ListenerStats) -> None:
        self._places_max = places_max
        self._seconds_max = seconds_max
        self.stats = stats
        self._places: dict[Place, None] = {}  # oldest first

    def take(self, host: str) -> Place:
        """Return a place for a new connection from ``host``, displacing another if all are taken.

        Cost: O(places) when all are taken.
        """
        if len(self._places) >= self._places_max:
            self._evict()
        deadline = trio.current_time() + self._seconds_max
        place = Place(host, trio.CancelScope(deadline=deadline))
        self._places[place] = None
        self.stats.accepted += 1
        self.stats.pending = len(self._places)
        return place

    def leave(self, place: Place) -> None:
        """Give a place back; it may have been taken away already."""
        self._places.pop(place, None)
        self.stats.pending = len(self._places)

    def _evict(self) -> None:
        counts: dict[str, int] = {}
        for place in self._places:
            counts[place.host] = counts.get(place.host, 0) + 1
        busiest = max(counts, key=lambda host: counts[host])
        oldest = next(place for place in self._places if place.host == busiest)
        oldest.evicted = True
        oldest.scope.cancel()
        self.stats.evicted += 1
        self.leave(oldest)
