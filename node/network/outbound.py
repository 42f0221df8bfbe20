"""The bounded queues of one link: consensus before batches before sync.

Payloads are kept by reference, so a broadcast costs its bytes once. One ``take`` returns everything
that fits one send, joined; a frame larger than that travels alone.

Not here: what a full queue means for the link (``link.py``).
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from node.bell import Bell
from node.network.framing import SEND_BYTES_MAX
from node.network.stats import ClassStats
from node.network.wire import Class

_PREFIX: Final = struct.Struct(">IB")
"""Length of the frame's payload, and the kind that is its first byte."""


@dataclass(frozen=True, slots=True)
class QueueLimits:
    """Bounds of one class's queue; a payload that would pass either is not taken."""

    frames_max: int
    bytes_max: int


class Outbound:
    """What waits to be sent on one link."""

    def __init__(
        self, limits: Mapping[Class, QueueLimits], stats: Mapping[Class, ClassStats]
    ) -> None:
        self._queues: dict[Class, deque[bytes]] = {cls: deque() for cls in Class}
        self._limits = limits
        self._stats = stats
        self._control: dict[int, bytes] = {}
        self.bell = Bell()
        """Rung when something waits to be taken."""

    def offer(self, cls: Class, payload: bytes) -> bool:
        """Queue a payload; False, counted as dropped, if the queue of its class is full."""
        stats = self._stats[cls]
        limits = self._limits[cls]
        size = len(payload)
        if stats.queued_frames >= limits.frames_max or stats.queued_bytes + size > limits.bytes_max:
            stats.frames_dropped += 1
            return False
        self._queues[cls].append(payload)
        stats.queued_frames += 1
        stats.queued_bytes += size
        self.bell.ring()
        return True

    def has_room(self, cls: Class) -> bool:
        """Whether a queue is at most half full, in frames and in bytes."""
        stats, limits = self._stats[cls], self._limits[cls]
        frames, size = 2 * stats.queued_frames, 2 * stats.queued_bytes
        return frames <= limits.frames_max and size <= limits.bytes_max

    def offer_control(self, kind: int, body: bytes) -> None:
        """Queue a control frame ahead of everything; it replaces a waiting one of its kind."""
        self._control[kind] = body
        self.bell.ring()

    def take(self) -> bytes:
        """Return whole frames, at most SEND_BYTES_MAX together unless the first one is larger.

        Empty when nothing waits.
        """
        parts: list[bytes] = []
        room = SEND_BYTES_MAX
        if self._control:
            for kind, body in self._control.items():
                parts += (_PREFIX.pack(len(body) + 1, kind), body)
                room -= len(body) + _PREFIX.size
            self._control.clear()
        for cls, queue in self._queues.items():
            if not queue:
                continue
            stats = self._stats[cls]
            frames = taken = 0
            while queue:
                size = len(queue[0])
                if parts and size + _PREFIX.size > room:
                    room = 0  # keep the order of classes: nothing of a later one goes first
                    break
                parts += (_PREFIX.pack(size + 1, cls), queue.popleft())
                room -= size + _PREFIX.size
                frames += 1
                taken += size
            stats.queued_frames -= frames
            stats.queued_bytes -= taken
            stats.frames_sent += frames
            stats.bytes_sent += taken
            if room <= 0:
                break
        return b"".join(parts)

    def clear(self) -> None:
        """Forget everything that waits."""
        self._control.clear()
        for cls, queue in self._queues.items():
            queue.clear()
            self._stats[cls].queued_frames = 0
            self._stats[cls].queued_bytes = 0
