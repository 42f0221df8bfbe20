"""How two members that TLS has shown to each other agree to be connected.

D dials, A accepts:

    D → A   hello(nonce d)
    A → D   hello(nonce a), echo(d)
    D → A   echo(a)

D counts A as connected when it has ``echo(d)``, A counts D when it has ``echo(a)``: each has then
had an answer from the other on this very connection. That is needed with TLS 1.3, where the
dialer's handshake may return before the acceptor has refused its certificate. A side that declines
sends ``refused`` instead of its next frame, and closes.

Not here: deadlines and the TLS handshake itself (``peers.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Final

import trio

from consensus.errors import DecodeError
from node.network import wire
from node.network.errors import ConnectionLost, FrameError, LinkRefused, UnexpectedFrame
from node.network.framing import FrameReader, FrameWriter, pack
from node.network.link import Link, LinkLimits
from node.network.stats import LinkStats
from node.network.wire import Hello, Refusal

LINGER_SECONDS_MAX: Final = 1.0
"""How long a side that declines waits for the other to close; otherwise a TCP reset may overtake
the reason."""


async def introduce(
    stream: trio.abc.Stream,
    peer: int,
    ours: Hello,
    limits: LinkLimits,
    stats: LinkStats,
    *,
    dialled: bool,
    minor: int = 0,
    welcome: Callable[[Hello], None] = lambda hello: None,
) -> Link:
    """Return the link of a stream at whose other end TLS has shown member ``peer``.

    Args:
        stream: nothing but the TLS handshake has happened on it.
        peer: its number: the committee index; NO_INDEX and above have none.
        ours: with a nonce of its own for this connection.
        limits: for the link.
        stats: of all links with this peer.
        dialled: we are D, else A.
        minor: version of the protocol that both speak, as TLS has it.
        welcome: raises LinkRefused where the hello of the other side is a reason to decline.

    Raises:
        LinkRefused: one side declined; if it was ours, the other side has been told.
        RemoteProtocolError: the other side broke the protocol.
        ConnectionLost: the stream ended.
    """
    longest = 1 + max(*limits.frame_bytes_max.values(), wire.HELLO_BYTES_MAX)
    if not minor:
        ours = replace(ours, release="")
    reader = FrameReader(
        stream, longest, limits.frame_seconds_max, idle_seconds_max=limits.idle_seconds_max
    )
    writer = FrameWriter(stream, limits.send_seconds_max)
    try:
        if dialled:
            await writer.send(pack(wire.encode_hello(ours)))
        hello = wire.decode_hello(await _expect(reader, wire.HELLO))
        _check_hello(hello, ours, peer)
        welcome(hello)
        echo = pack(bytes([wire.ECHO]) + hello.nonce)
        if not dialled:
            await writer.send(pack(wire.encode_hello(ours)) + echo)
        _check_echo(await _expect(reader, wire.ECHO), ours)
        if dialled:
            await writer.send(echo)
    except LinkRefused as error:
        if not error.by_peer:
            await refuse(stream, error)
        raise
    except (DecodeError, FrameError, UnexpectedFrame) as error:
        await refuse(stream, LinkRefused(error.message, reason=Refusal.MALFORMED))
        raise
    return Link(peer, hello, stream, reader, writer, limits, stats)


async def refuse(stream: trio.abc.Stream, refusal: LinkRefused) -> None:
    """Tell the other side of an authenticated stream that there will be no link, and why.

    Best effort: the other side may be gone. Takes at most LINGER_SECONDS_MAX.
    """
    frame = pack(wire.encode_refused(refusal.reason, refusal.message))
    with trio.move_on_after(LINGER_SECONDS_MAX), suppress(trio.BrokenResourceError):
        await stream.send_all(frame)
        while await stream.receive_some():
            pass


async def _expect(reader: FrameReader, kind: int) -> bytes:
    frames = await reader.read()
    if not frames:
        raise ConnectionLost("the peer closed the connection during the introduction")
    frame = frames[0]
    reader.unread(frames[1:])
    if frame[0] == wire.REFUSED:
        raise wire.decode_refused(frame)
    if frame[0] != kind:
        raise UnexpectedFrame(f"a frame of kind {frame[0]}, expected {kind}")
    return frame


def _check_hello(hello: Hello, ours: Hello, peer: int) -> None:
    if hello.chain != ours.chain:
        raise LinkRefused(
            f"the peer is of chain {hello.chain.hex()[:16]}, this node of {ours.chain.hex()[:16]}",
            reason=Refusal.OTHER_CHAIN,
        )
    index = min(peer, wire.NO_INDEX)
    if hello.index != index and hello.epoch == ours.epoch:  # places change with the committee
        raise LinkRefused(
            f"the peer says it is number {hello.index}, its key is that of number {index}",
            reason=Refusal.NOT_A_MEMBER,
        )


def _check_echo(echo: bytes, ours: Hello) -> None:
    if echo[1:] != ours.nonce:
        raise UnexpectedFrame("the peer echoed another nonce than ours")
