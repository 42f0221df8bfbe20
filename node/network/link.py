"""One introduced connection between two members, carrying traffic until it ends.

Four tasks: one takes frames in and hands each to the runtime before it reads on, one empties the
queues, one has the deadlines, one measures the round trip. The first that finds a reason to stop
closes the link; the reason is kept, and nothing more is handed on. An error that is not the peer's
or the network's goes up and stops the node.

Not here: how the connection was introduced (``introduction.py``); who dials whom, and when again
(``peers.py``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import trio

from consensus.errors import ComityError, LocalProtocolError, RemoteProtocolError
from node.network import wire
from node.network.errors import (
    ConnectionLost,
    FrameTooLarge,
    FrameTruncated,
    LinkRefused,
    SlowSender,
    UnexpectedFrame,
)
from node.network.framing import FrameReader, FrameWriter, watch
from node.network.outbound import Outbound, QueueLimits
from node.network.pace import Pace
from node.network.stats import LinkStats
from node.network.wire import Class, Hello

CLOSE_SECONDS_MAX: Final = 0.5
"""How long the end of a TLS stream may take to be said."""
FRAMES_AT_ONCE_MAX: Final = 64
"""Handed on before other tasks have their turn."""

CONSENSUS_QUEUE_FRAMES_MAX: Final = 8192
CONSENSUS_QUEUE_BYTES_MAX: Final = 16 * 2**20
BATCH_QUEUE_FRAMES_MAX: Final = 1024
BATCH_QUEUE_BYTES_MAX: Final = 32 * 2**20
SYNC_QUEUE_FRAMES_MAX: Final = 64
SYNC_QUEUE_BYTES_MAX: Final = 16 * 2**20
"""What waits to be sent to one peer, by class."""

Handler = Callable[[int, Class, bytes], None]
"""Takes the peer's index, the class and the payload of a data frame: untrusted bytes without the
link's framing."""


def _frames() -> dict[Class, int]:
    return {Class.CONSENSUS: 1 << 20, Class.BATCH: 2 << 20, Class.SYNC: 4 << 20}


def _queues() -> dict[Class, QueueLimits]:
    return {
        Class.CONSENSUS: QueueLimits(CONSENSUS_QUEUE_FRAMES_MAX, CONSENSUS_QUEUE_BYTES_MAX),
        Class.BATCH: QueueLimits(BATCH_QUEUE_FRAMES_MAX, BATCH_QUEUE_BYTES_MAX),
        Class.SYNC: QueueLimits(SYNC_QUEUE_FRAMES_MAX, SYNC_QUEUE_BYTES_MAX),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkLimits:
    """What one link may hold and how long it may wait.

    Args:
        frame_bytes_max: longest payload of each class, sent or received.
        queues: bounds of what waits to be sent.
        handshake_seconds_max: from connecting to being introduced.
        frame_seconds_max: waiting from a frame's first byte to its last.
        idle_seconds_max: silence of the peer; several times ``ping_seconds``.
        send_seconds_max: the peer taking one send of at most 256 KiB.
        ping_seconds: between measurements of the round trip.
        pace: bounds the bytes sent, together with all other links of this pace; None: no bound.
    """

    frame_bytes_max: Mapping[Class, int] = field(default_factory=_frames)
    queues: Mapping[Class, QueueLimits] = field(default_factory=_queues)
    handshake_seconds_max: float = 5.0
    frame_seconds_max: float = 20.0
    idle_seconds_max: float = 10.0
    send_seconds_max: float = 10.0
    ping_seconds: float = 2.0
    pace: Pace | None = None


class Link:
    """An introduced connection with the node of number ``peer``; lives through one ``run``."""

    def __init__(
        self,
        peer: int,
        hello: Hello,
        stream: trio.abc.Stream,
        reader: FrameReader,
        writer: FrameWriter,
        limits: LinkLimits,
        stats: LinkStats,
    ) -> None:
        self.peer = peer
        self.hello = hello
        self.reason = ""
        self.fault = ""
        """Code of what the peer did wrong; empty when it did nothing."""
        self.gone = trio.Event()
        """Set by the owner once nobody will hear of this link any more."""
        self._stream = stream
        self._reader = reader
        self._writer = writer
        self._limits = limits
        self._stats = stats
        self._outbound = Outbound(limits.queues, stats.by_class)
        self._scope = trio.CancelScope()
        self._closed = False
        self._ping_body = b""  # of the ping under way, empty when none is
        self._ping_sent_at = 0.0

    def offer(self, cls: Class, payload: bytes) -> bool:
        """Queue a payload without blocking; return whether it was taken.

        A full consensus queue closes the link: messages are sent again after reconnecting.

        Raises:
            LocalProtocolError: the payload is empty or longer than its class allows.
        """
        if not 0 < len(payload) <= self._limits.frame_bytes_max[cls]:
            raise LocalProtocolError(
                f"a {cls.name} payload of {len(payload)} bytes is out of bounds"
            )
        if self._closed:
            return False
        if self._outbound.offer(cls, payload):
            return True
        if cls is Class.CONSENSUS:
            self._stats.consensus_overflows += 1
            self.close("the peer does not take consensus messages fast enough")
        return False

    def close(self, reason: str, *, fault: str = "") -> None:
        """End the link; the first reason stays. ``fault``: the code of what the peer did wrong."""
        if not self._closed:
            self._closed = True
            self.reason = reason
            self.fault = fault
            self._scope.cancel()

    async def run(self, handle: Handler) -> None:
        """Carry traffic until the link ends; ``reason`` then says why."""
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._guard, self._receive, handle)
                nursery.start_soon(self._guard, self._transmit)
                nursery.start_soon(self._guard, watch, self._reader, self._writer)
                nursery.start_soon(self._ping)

    def has_room(self, cls: Class) -> bool:
        """Whether the queue of a class is at most half full; for work that is lost otherwise."""
        return not self._closed and self._outbound.has_room(cls)

    async def aclose(self) -> None:
        """Close the stream in bounded time and forget what is queued."""
        self._closed = True
        self._outbound.clear()
        await close_stream(self._stream)

    async def _guard(self, task: Callable[..., Awaitable[None]], *arguments: object) -> None:
        try:
            await task(*arguments)
        except (RemoteProtocolError, ConnectionLost) as error:
            self._stats.oversize += isinstance(error, FrameTooLarge)
            self._stats.slow += isinstance(error, SlowSender)
            self.close(error.message, fault=error.code if is_fault(error) else "")

    async def _receive(self, handle: Handler) -> None:
        classes = wire.CLASS_OF_KIND
        limits = self._limits.frame_bytes_max
        by_class = self._stats.by_class
        while frames := await self._reader.read():
            for number, frame in enumerate(frames, 1):
                cls = classes.get(frame[0])
                if cls is None:
                    self._receive_control(frame)
                    continue
                size = len(frame) - 1
                if not 0 < size <= limits[cls]:
                    raise _misfit(cls, size, limits[cls])
                stats = by_class[cls]
                stats.frames_received += 1
                stats.bytes_received += size
                handle(self.peer, cls, frame[1:])
                if self._closed:  # by the handler, for what this frame held
                    return
                if number % FRAMES_AT_ONCE_MAX == 0:
                    await trio.lowlevel.checkpoint()
        self.close("the peer closed the link")

    def _receive_control(self, frame: bytes) -> None:
        kind, body = frame[0], frame[1:]
        if kind not in (wire.PING, wire.PONG) or len(body) != wire.PING_BYTES:
            raise UnexpectedFrame(f"a frame of kind {kind} and {len(frame)} bytes on a link in use")
        if kind == wire.PING:
            self._outbound.offer_control(wire.PONG, body)
        elif body == self._ping_body:
            self._ping_body = b""
            self._stats.round_trip_seconds = trio.current_time() - self._ping_sent_at

    async def _transmit(self) -> None:
        while True:
            await self._outbound.bell.heard()
            while data := self._outbound.take():
                await self._writer.send(data)
                if self._limits.pace is not None:
                    await self._limits.pace.spend(len(data))

    async def _ping(self) -> None:
        # An unanswered ping is repeated, not renumbered: the measurement counts from the first, and
        # a peer that is slow to answer hears from us all the same.
        number = 0
        while True:
            if not self._ping_body:
                number += 1
                self._ping_body = number.to_bytes(wire.PING_BYTES)
                self._ping_sent_at = trio.current_time()
            self._outbound.offer_control(wire.PING, self._ping_body)
            await trio.sleep(self._limits.ping_seconds)


def _misfit(cls: Class, size: int, size_max: int) -> RemoteProtocolError:
    if size == 0:
        return UnexpectedFrame(f"a {cls.name} frame without a body")
    return FrameTooLarge(f"a {cls.name} frame of {size} bytes, at most {size_max} allowed")


async def close_stream(stream: trio.abc.AsyncResource) -> None:
    """Close a stream in bounded time, telling the other side if that is possible."""
    with trio.move_on_after(CLOSE_SECONDS_MAX) as scope, suppress(trio.BrokenResourceError):
        scope.shield = True
        await stream.aclose()


def is_fault(error: ComityError) -> bool:
    """Return whether an error shows a peer that is to be left alone for a while."""
    return isinstance(error, RemoteProtocolError) and not isinstance(
        error, SlowSender | FrameTruncated | LinkRefused
    )
