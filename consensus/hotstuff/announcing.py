"""Which batches a node tells others of, and which it asks for because others told of them.

A batch that stays in no proposed block for ANNOUNCE_MS is announced to the peers whose held counts
lack it. A peer that lacks an announced batch asks for it, and answers with its held counts: these
acknowledge the batch. So a batch shown to one node only soon is everybody's.

Announcements are not signed and may be lies. A digest is asked for only of those that announced it,
once of each, and takes up one of the announcer's PLACES_MAX until it comes or PLACE_MS are over.

Times are milliseconds of a clock that is never set back. Not here: the batches (``node.batches``),
and how they travel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Final

ANNOUNCE_MS: Final = 50
"""A batch that stays unproposed for so long is announced; also the least time between frames."""
AGAIN_MS: Final = 1000
"""A batch still unproposed is announced again to those whose counts still lack it."""
ANNOUNCED_MAX: Final = 64
"""Most digests in one announcement; the others follow in the next."""
PLACES_MAX: Final = 64
"""Digests that one peer's announcements may have us look for at once; others are ignored."""
PLACE_MS: Final = 4000
ASK_MS: Final = 250
"""After so long without an answer the next announcer is asked."""


@dataclass(slots=True)
class _Lead:
    """A digest that is looked for."""

    announcers: list[int]
    next_ms: int
    until_ms: int
    asked: int = 0


class Announcer:
    """Announcements of one node, both ways.

    Args:
        size: number of validators.
    """

    def __init__(self, size: int) -> None:
        self._faulty_max = (size - 1) // 3
        self._counts: list[Sequence[int]] = [()] * size
        self._due: list[tuple[int, int, bytes, int, int]] = []
        self._pushes = 0
        self._answers: dict[int, None] = {}
        self._told_ms: int | None = None
        self._leads: dict[bytes, _Lead] = {}
        self._places = [0] * size

    # --- held counts ---

    def take_counts(self, peer: int, counts: Sequence[int]) -> bool:
        """Take how many batches of each origin a peer says it holds; return whether that is new."""
        if peer >= len(self._counts):  # it has no vote
            return False
        changed = self._counts[peer] != counts
        self._counts[peer] = counts
        return changed

    def acknowledged(self, origin: int, number: int) -> bool:
        """Whether f + 1 validators hold a batch, with this node, which does."""
        others = sum(self._holds(peer, origin, number) for peer in range(len(self._counts)))
        return others >= self._faulty_max

    def _holds(self, peer: int, origin: int, number: int) -> bool:
        counts = self._counts[peer]
        return origin < len(counts) and counts[origin] >= number

    # --- telling ---

    def held(self, digest: bytes, origin: int, number: int, since_ms: int) -> None:
        """A batch is held since ``since_ms``. If it was looked for, all are told of it."""
        self._pushes += 1
        heappush(self._due, (since_ms + ANNOUNCE_MS, self._pushes, digest, origin, number))
        if self._release(digest):
            self._answers.update(dict.fromkeys(range(len(self._counts))))

    def announcements(
        self, now_ms: int, peers: Sequence[int], waiting: Callable[[bytes], bool | None]
    ) -> list[tuple[int, tuple[bytes, ...]]]:
        """Return what to send now, (peer, digests), each with our held counts.

        An answer may have no digests. At most one in ANNOUNCE_MS is for the same peer.

        Args:
            peers: connected ones.
            waiting: whether a batch is in no proposed block; None when it is held no longer.
        """
        due_ms = self.next_ms()
        if due_ms is None or due_ms > now_ms:
            return []
        self._told_ms = now_ms
        frames: dict[int, list[bytes]] = {peer: [] for peer in self._answers if peer in peers}
        self._answers.clear()
        announced = 0
        while self._due and self._due[0][0] <= now_ms and announced < ANNOUNCED_MAX:
            _, _, digest, origin, number = heappop(self._due)
            state = waiting(digest)
            if state is None:
                continue
            if state:
                for peer in peers:
                    if peer != origin and not self._holds(peer, origin, number):
                        frames.setdefault(peer, []).append(digest)
                announced += 1
            self._pushes += 1
            heappush(self._due, (now_ms + AGAIN_MS, self._pushes, digest, origin, number))
        return [(peer, tuple(frames[peer])) for peer in sorted(frames)]

    def next_ms(self) -> int | None:
        """Return when ``announcements`` is to be called next; None while there is nothing."""
        if not self._answers and not self._due:
            return None
        due_ms = 0 if self._answers else self._due[0][0]
        return due_ms if self._told_ms is None else max(due_ms, self._told_ms + ANNOUNCE_MS)

    # --- looking for what others told ---

    def hear(
        self, peer: int, digests: Sequence[bytes], now_ms: int, known: Callable[[bytes], bool]
    ) -> int:
        """Take an announcement; return how many of its digests are ignored.

        Args:
            known: whether a batch is held, was delivered or was refused; it gets an answer.
        """
        if peer >= len(self._counts):
            return len(digests)
        self._expire(now_ms)
        ignored = 0
        for digest in digests:
            if known(digest):
                self._answers[peer] = None
                continue
            lead = self._leads.get(digest)
            if self._places[peer] >= PLACES_MAX or (lead is not None and peer in lead.announcers):
                ignored += 1
                continue
            self._places[peer] += 1
            if lead is None:
                self._leads[digest] = _Lead([peer], now_ms, now_ms + PLACE_MS)
            else:
                lead.announcers.append(peer)
        return ignored

    def looks_for(self, digest: bytes) -> bool:
        """Whether a batch is looked for because somebody announced it."""
        return digest in self._leads

    def asks(
        self, now_ms: int, peers: Sequence[int], busy: Callable[[bytes], bool]
    ) -> list[tuple[int, bytes]]:
        """Return what to ask for now: (peer, digest).

        Args:
            peers: connected ones; the others are passed over.
            busy: whether a batch is here and being checked.
        """
        self._expire(now_ms)
        found: list[tuple[int, bytes]] = []
        for digest, lead in self._leads.items():
            if lead.next_ms <= now_ms and busy(digest):
                lead.next_ms = now_ms + ASK_MS
            while lead.next_ms <= now_ms and lead.asked < len(lead.announcers):
                peer = lead.announcers[lead.asked]
                lead.asked += 1
                if peer in peers:
                    lead.next_ms = now_ms + ASK_MS
                    found.append((peer, digest))
        return found

    def absent(self, digest: bytes, now_ms: int) -> None:
        """Who was asked does not have it: ask the next one at once."""
        lead = self._leads.get(digest)
        if lead is not None:
            lead.next_ms = min(lead.next_ms, now_ms)

    def next_ask_ms(self) -> int | None:
        """Return when ``asks`` is to be called next; None while nothing is looked for."""
        due = [
            lead.next_ms if lead.asked < len(lead.announcers) else lead.until_ms
            for lead in self._leads.values()
        ]
        return min(due, default=None)

    def _expire(self, now_ms: int) -> None:
        for digest in [d for d, lead in self._leads.items() if lead.until_ms <= now_ms]:
            self._release(digest)

    def _release(self, digest: bytes) -> bool:
        lead = self._leads.pop(digest, None)
        if lead is None:
            return False
        for peer in lead.announcers:
            self._places[peer] -= 1
        return True
