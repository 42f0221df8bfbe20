"""Which batches a leader proposes, and which payloads get no vote.

Not here: holding, checking and fetching batches (``node``); this sees digests and sizes only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from consensus.hotstuff.blocktree import Node
from consensus.hotstuff.events import ReplicaConfig
from consensus.hotstuff.types import LANE_ORDINARY, LANE_PROTECTIVE, Block, PayloadItem

DELIVERED_MAX: Final = 8192
"""Digests of delivered batches remembered, against news of them that is on its way."""


class PayloadPool:
    """Batches that could be proposed, less those in the chain that would be extended."""

    def __init__(self, config: ReplicaConfig) -> None:
        self._config = config
        self._items: tuple[PayloadItem, ...] = ()
        self._delivered: dict[bytes, None] = {}
        self._fresh: tuple[PayloadItem, ...] = ()
        self._chain: Node | None = None
        self._stale = False
        self.since_ms: int | None = None
        """Since when there is something fresh; None while there is nothing."""

    def replace(self, items: tuple[PayloadItem, ...]) -> None:
        """Take the node's newest list of available batches, in proposing order."""
        self._items = items
        self._stale = True

    def delivered(self, block: Block) -> None:
        """Forget the batches of a delivered block."""
        for item in block.payload:
            self._delivered[item.digest] = None
        while len(self._delivered) > DELIVERED_MAX:
            del self._delivered[next(iter(self._delivered))]
        self._stale = True

    def refresh(self, tip: Node, now_ms: int) -> None:
        """Take ``tip`` as the ordered block that the next proposal extends."""
        if not self._stale and tip is self._chain:
            return
        self._stale, self._chain = False, tip
        if self._items:
            taken = set(chain_digests(tip))
            self._fresh = tuple(
                [
                    item
                    for item in self._items
                    if item.digest not in taken and item.digest not in self._delivered
                ]
            )
        else:
            self._fresh = ()
        if not self._fresh:
            self.since_ms = None
        elif self.since_ms is None:
            self.since_ms = now_ms

    def select(self, failures: int) -> tuple[PayloadItem, ...]:
        """Return the payload of a proposal: protective first, within limits.

        The limits halve with each consecutive failed round, down to one batch. The first item
        that no longer fits is left for later with those behind it; one that never could is passed
        over.
        """
        config = self._config
        shift = min(failures, 32)
        items_max = max(1, config.payload_items_max >> shift)
        room_bytes = config.payload_bytes_max >> shift
        room_count = config.payload_transactions_max >> shift
        ordinary_bytes = ordinary_room_bytes(config) >> shift
        chosen: list[PayloadItem] = []
        for lane in (LANE_PROTECTIVE, LANE_ORDINARY):
            for item in self._fresh:
                if item.lane != lane or not self._fits_alone(item):
                    continue
                room_bytes -= item.size_bytes
                room_count -= item.count
                ordinary_bytes -= item.size_bytes if lane == LANE_ORDINARY else 0
                full = room_bytes < 0 or room_count < 0 or ordinary_bytes < 0
                if len(chosen) >= items_max or (chosen and full):
                    return tuple(chosen)
                chosen.append(item)
        return tuple(chosen)

    def _fits_alone(self, item: PayloadItem) -> bool:
        room = ordinary_room_bytes(self._config)
        if item.lane == LANE_PROTECTIVE:
            room = self._config.payload_bytes_max
        return item.size_bytes <= room and item.count <= self._config.payload_transactions_max


def ordinary_room_bytes(config: ReplicaConfig) -> int:
    """Return the bytes that ordinary batches may fill; a tenth is the protective lane's."""
    return config.payload_bytes_max - config.payload_bytes_max // 10


def chain_digests(tip: Node) -> Iterable[bytes]:
    """Yield the batches of a node and its undelivered ancestors."""
    node: Node | None = tip
    while node is not None and node.parent is not None:
        for item in node.block.payload:
            yield item.digest
        node = node.parent


def within_limits(block: Block, config: ReplicaConfig) -> bool:
    """Whether a payload keeps the limits that every leader must keep (rule 2)."""
    payload = block.payload
    ordinary = sum(item.size_bytes for item in payload if item.lane != LANE_PROTECTIVE)
    return (
        len(payload) <= config.payload_items_max
        and block.payload_bytes <= config.payload_bytes_max
        and ordinary <= ordinary_room_bytes(config)
        and sum(item.count for item in payload) <= config.payload_transactions_max
    )


def repeats_batch(node: Node) -> bool:
    """Whether a block names a batch that an undelivered ancestor names already."""
    if not node.block.payload or node.parent is None:
        return False
    taken = set(chain_digests(node.parent))
    return any(item.digest in taken for item in node.block.payload)
