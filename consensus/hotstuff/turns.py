"""How leaders' turns ended, and for whom the short timer is therefore set.

A turn is what the ordered chain shows of a round: its leader's block got a quorum certificate, or
a later block names a parent of before that round, so that the turn failed. A leader whose turn
failed is *marked* until 2^j of its turns have ended well, j = its failures among its last 100
turns, 6 at most. So one mishap is soon forgiven, and who alternates stays marked.

Failures in a run of more than f say nothing about their leaders, since at most f are faulty: the
network was slow or cut. Nobody is marked for them.

Every node computes this from the blocks that it sees ordered. Nothing depends on two nodes having
the same marks, and nothing of it is kept over a restart: a node that starts has marked nobody.
"""

from __future__ import annotations

from typing import Final

from consensus.committee import Committee
from consensus.hotstuff.types import Block

TURNS_KEPT_MAX: Final = 100
"""Turns of one leader that are remembered."""

DOUBLINGS_MAX: Final = 6
"""A mark is cleared after at most two to this power turns."""

_WINDOW: Final = (1 << TURNS_KEPT_MAX) - 1


class Turns:
    """The turns of all leaders of one committee.

    Args:
        round_: turns up to this round are not looked at.
    """

    def __init__(self, committee: Committee, round_: int) -> None:
        self._committee = committee
        self._round = round_
        self._failed = [0] * committee.size
        """One bit a turn, 1 for a failed one; the newest is the lowest."""
        self._due = [0] * committee.size
        """Turns that have to end well until the mark is cleared."""

    def ordered(self, block: Block) -> None:
        """Take note of a block that has a quorum certificate.

        Cost: O(f), and O(1) for rounds that were counted before.
        """
        if block.round <= self._round:
            return
        parent = block.justify.round
        if block.round - parent - 1 <= self._committee.faulty_max:
            for round_ in range(max(parent, self._round) + 1, block.round):
                self._note_failure(self._committee.leader(round_))
        self._round = block.round
        leader = self._committee.leader(block.round)
        self._failed[leader] = self._failed[leader] << 1 & _WINDOW
        self._due[leader] = max(0, self._due[leader] - 1)

    def _note_failure(self, leader: int) -> None:
        failed = self._failed[leader] = (self._failed[leader] << 1 | 1) & _WINDOW
        self._due[leader] = 1 << min(failed.bit_count(), DOUBLINGS_MAX)

    def marked(self, leader: int) -> bool:
        """Whether the leader's turns are to be given up sooner."""
        return self._due[leader] > 0
