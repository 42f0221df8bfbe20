"""Plain counters of the links. Telemetry reads them; nothing here knows how they are shown."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from node.network.wire import Class


@dataclass(slots=True)
class ClassStats:
    """Data frames of one class on the links with one peer. Bytes are of payloads."""

    frames_sent: int = 0
    bytes_sent: int = 0
    frames_received: int = 0
    bytes_received: int = 0
    frames_dropped: int = 0
    """Not queued because the queue was full."""
    queued_frames: int = 0
    queued_bytes: int = 0
    """In the queue now."""


def _by_class() -> dict[Class, ClassStats]:
    return {cls: ClassStats() for cls in Class}


@dataclass(slots=True)
class LinkStats:
    """All links with one peer since the start of the process."""

    connects: int = 0
    disconnects: int = 0
    attempts_failed: int = 0
    """Connections, dialled or accepted, that never became a link."""
    refused: int = 0
    """Of those, the ones that one of the two sides declined."""
    other_version: int = 0
    """Of those, the ones declined because the two speak different versions of the protocol."""
    release: str = ""
    """That the peer named last; empty: it has named none."""
    replaced: int = 0
    """Links that gave way to a newer connection of the same peer."""
    faults: Counter[str] = field(default_factory=Counter)
    """By code: malformed or oversized input, or closed by the runtime for what the peer sent."""
    oversize: int = 0
    """Of those, frames beyond the limit of their kind."""
    slow: int = 0
    """Links cut because the peer was silent or sent or read too slowly."""
    consensus_overflows: int = 0
    """Links closed because the peer did not take consensus frames in time."""
    round_trip_seconds: float | None = None
    """Newest ping on this link; None before the first."""
    connected_since_seconds: float | None = None
    """Of the runtime's clock; None while not connected."""
    last_error: str = ""
    """Why the newest link or attempt ended; for the operator."""
    by_class: dict[Class, ClassStats] = field(default_factory=_by_class)


@dataclass(slots=True)
class ListenerStats:
    """Incoming connections before their other side is known."""

    accepted: int = 0
    pending: int = 0
    """Not yet introduced, now."""
    evicted: int = 0
    """Closed to make room for newer ones."""
    expired: int = 0
    """Closed because the introduction took too long."""
    failed: int = 0
    """Ended by an error before the other side was known: no TLS, or no member's certificate."""


@dataclass(slots=True)
class NetworkStats:
    """Everything about the links of this node."""

    listener: ListenerStats
    peers: dict[int, LinkStats]
    """By number: committee index, or that of a guest."""
    observers: ListenerStats = field(default_factory=ListenerStats)
    """At the observers' door."""
