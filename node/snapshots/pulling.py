"""Which piece of a snapshot is asked of whom, and what becomes of it. No sockets and no clock.

    due ─► wanted ─► asked of a peer ─► whole ─► checked ─► stored, in ascending order
              ▲            │ late, gone            │ not right: its sender is used no more
              └────────────┴───────────────────────┘

At most WINDOW pieces are between the first that is not stored and the last that is asked for, so
what waits in memory is bounded whatever peers send. A piece is asked of any peer whose own snapshot
has the same hash at that node, even if it is of another height.

Not here: the checks, and storing (``joining``).
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from consensus.snapshot import Certified
from consensus.state.snapshot import Due
from consensus.state.subtree import bits_of
from node.snapshots.filling import Listed
from node.snapshots.wire import Part, Want

WINDOW: Final = 24
ASKED_OF_ONE_MAX: Final = 6
"""Pieces that one peer is asked for at the same time."""
LATE_SECONDS: Final = 10.0
"""A piece of a peer from which nothing came for so long is asked of somebody else."""
LATE_MAX: Final = 5
"""A peer that was late so often is not asked any more."""


class Stage(enum.Enum):
    """Where a piece is on its way."""

    WANTED = 1
    ASKED = 2
    WHOLE = 3
    CHECKED = 4


@dataclass(slots=True, eq=False)
class Slot:
    """One piece on its way."""

    due: Due
    chunk_name: int
    """Of the row's node that it lies below, or is."""
    stage: Stage = Stage.WANTED
    peer: int = -1
    since: float = 0.0
    parts: list[bytes] = field(default_factory=list)
    data: bytes = b""
    index: Listed = field(default_factory=list)


class Pulling:
    """The pieces of one snapshot.

    Args:
        target: the snapshot to be taken.
        offers: what each peer has.
    """

    def __init__(self, target: Certified, offers: Mapping[int, Certified]) -> None:
        self._target = target
        self._offers = dict(offers)
        self._late = dict.fromkeys(offers, 0)
        self._heard = dict.fromkeys(offers, 0.0)
        self._due = deque(target.chunks())
        self._slots: deque[Slot] = deque()
        self.bad: dict[int, None] = {}
        """Peers that sent what is not right."""

    @property
    def done(self) -> bool:
        """Whether everything is stored."""
        return not self._due and not self._slots

    def stuck(self) -> bool:
        """Whether some piece that is wanted is to be had from nobody."""
        return any(
            slot.stage is Stage.WANTED and not any(self._has(peer, slot) for peer in self._offers)
            for slot in self._slots
        )

    def wants(self, now: float) -> list[tuple[int, Want]]:
        """Return what to ask now, and of whom."""
        while len(self._slots) < WINDOW and self._due:
            due = self._due.popleft()
            self._slots.append(Slot(due, due.name))
        busy = dict.fromkeys(self._offers, 0)
        for slot in self._slots:
            if slot.stage is Stage.ASKED:
                if now - max(slot.since, self._heard[slot.peer]) > LATE_SECONDS:
                    self._was_late(slot)
                elif slot.peer in busy:
                    busy[slot.peer] += 1
        found: list[tuple[int, Want]] = []
        for slot in self._slots:
            if slot.stage is not Stage.WANTED:
                continue
            able = [p for p in busy if busy[p] < ASKED_OF_ONE_MAX and self._has(p, slot)]
            if able:
                peer = min(able, key=lambda each: (busy[each], self._late[each]))
                busy[peer] += 1
                slot.stage, slot.peer, slot.since = Stage.ASKED, peer, now
                slot.parts = []
                found.append((peer, Want(self._offers[peer].height, slot.due.name, 0)))
        return found

    def take(self, peer: int, part: Part, now: float) -> Slot | Want | None:
        """Take a part: return the piece that is whole now, or what to ask of the peer next."""
        slot = self._asked(peer, part.node)
        if slot is None or part.part != len(slot.parts):
            return None
        slot.parts.append(part.data)
        slot.since = self._heard[peer] = now
        if len(slot.parts) < part.count:
            return Want(part.height, part.node, len(slot.parts))
        slot.data, slot.parts, slot.stage = b"".join(slot.parts), [], Stage.WHOLE
        return slot

    def split(self, slot: Slot, below: Iterable[Due]) -> None:
        """The piece was a split: these come in its place."""
        at = self._slots.index(slot)
        del self._slots[at]
        for offset, due in enumerate(below):
            self._slots.insert(at + offset, Slot(due, slot.chunk_name))

    def checked(self, slot: Slot, index: Listed) -> None:
        """The piece is right."""
        slot.stage, slot.index = Stage.CHECKED, index

    def ready(self) -> Slot | None:
        """Return the next piece to be stored, if it is checked, and forget it."""
        if self._slots and self._slots[0].stage is Stage.CHECKED:
            return self._slots.popleft()
        return None

    def refused(self, slot: Slot) -> int:
        """The piece is not right: its sender is used no more. Return it."""
        peer = slot.peer
        self.bad[peer] = None
        self._again(slot)
        self.lost(peer)
        return peer

    def lost(self, peer: int) -> None:
        """A peer has no snapshot any more, or is gone: others are asked."""
        self._offers.pop(peer, None)
        for slot in self._slots:
            if slot.stage is Stage.ASKED and slot.peer == peer:
                self._again(slot)

    def _was_late(self, slot: Slot) -> None:
        peer = slot.peer
        self._again(slot)
        if peer in self._late:
            self._late[peer] += 1
            if self._late[peer] > LATE_MAX:
                self.lost(peer)

    def _again(self, slot: Slot) -> None:
        slot.stage, slot.data, slot.parts = Stage.WANTED, b"", []

    def _asked(self, peer: int, node: int) -> Slot | None:
        for slot in self._slots:
            if slot.due.name == node and slot.stage is Stage.ASKED and slot.peer == peer:
                return slot
        return None

    def _has(self, peer: int, slot: Slot) -> bool:
        """Whether a peer's own snapshot has the same hash at the row's node."""
        offer, target = self._offers.get(peer), self._target
        if offer is None or offer.manifest.depth != target.manifest.depth:
            return False
        index = slot.chunk_name - (1 << bits_of(slot.chunk_name))
        return offer.due(index) == target.due(index)
