"""One link with every other member of the committee, kept up for as long as the node runs.

The member with the lower index dials, the other accepts; so there is one connection a pair. A
dialer tries again after a jittered, exponentially growing pause. A peer that sent what it must not
is left alone for longer, by both sides: the acceptor refuses it until then. A newer introduced
connection of a peer replaces the older one, because only that peer holds its key and it would not
dial twice with the first one working.

The runtime hears of each link that it is ``connected``, what it ``received``, and that it is
``disconnected``, in this order; ``send`` never blocks. The link's own task calls the runtime, and
reads no further while that works: what comes too fast waits in the kernel and at the peer. Links
take turns, ``FRAMES_AT_ONCE_MAX`` frames each at most.

Not here: what payloads mean; observers; what is sent again after a reconnect.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

import trio

from consensus.errors import ComityError, RemoteProtocolError, invariant
from node.network.errors import LINK_ERRORS, ConnectionLost, LinkRefused, WrongPeer
from node.network.introduction import introduce, refuse
from node.network.link import Link, LinkLimits, close_stream, is_fault
from node.network.listener import Doorstep, Place
from node.network.stats import LinkStats, ListenerStats, NetworkStats
from node.network.tls import (
    PeerContexts,
    certificate_key,
    certificate_name,
    check_peer_key,
    presented_certificate,
)
from node.network.transport import TlsStream
from node.network.wire import NONCE_BYTES, Class, Hello, Refusal

__all__ = [
    "Class",
    "Hello",
    "HelloState",
    "LinkLimits",
    "NetworkConfig",
    "PeerAddress",
    "PeerNetwork",
    "Runtime",
]

BACKLOG_MAX: Final = 128
"""Connections the kernel may hold for us before they are accepted."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A member of the committee and where it listens (or a relay on the way to it).

    Args:
        index: in the committee.
        name: of the agency; the common name of its node's certificate.
        host, port: where to dial it.
        node_key: Ed25519 public key that its certificate must hold.
    """

    index: int
    name: str
    host: str
    port: int
    node_key: bytes


@dataclass(frozen=True, slots=True)
class HelloState:
    """What a hello says about this node now; ``extras`` are the replica's, opaque here."""

    epoch: int
    height: int
    extras: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkConfig:
    """Everything the links of one node depend on.

    Args:
        own_index: of this node in the committee.
        peers: the committee; an entry for the own index is ignored.
        contexts: from ``tls.peer_contexts`` over the same committee.
        chain: hash of the genesis file.
        listen_host, listen_port: where to accept; port 0 lets the system choose.
        hello: asked for every introduction.
        jitter: source of the random part of pauses; nothing secret depends on it.
        limits: of each link.
        pending_max: connections that may be on their way to being introduced.
        backoff_seconds_base, backoff_seconds_max: pause after the first failure, and the longest.
        fault_seconds_base, fault_seconds_max: the same after a fault of the peer.
        stable_seconds: a link that lasted so long ends the row of failures before it.
    """

    own_index: int
    peers: tuple[PeerAddress, ...]
    contexts: PeerContexts
    chain: bytes
    listen_host: str
    listen_port: int
    hello: Callable[[], HelloState]
    jitter: random.Random
    limits: LinkLimits = field(default_factory=LinkLimits)
    pending_max: int = 128
    backoff_seconds_base: float = 0.1
    backoff_seconds_max: float = 5.0
    fault_seconds_base: float = 1.0
    fault_seconds_max: float = 60.0
    stable_seconds: float = 10.0


class Runtime(Protocol):
    """Who hears of everything. Nothing here may block; what it raises stops the network."""

    def connected(self, peer: int, hello: Hello) -> None:
        """``peer`` has answered on an authenticated connection; frames to it are queued now."""

    def received(self, peer: int, cls: Class, payload: bytes) -> None:
        """``peer`` sent a data frame: untrusted bytes without the link's framing."""

    def disconnected(self, peer: int, reason: str) -> None:
        """The link with ``peer`` has ended; what was queued for it is gone."""


@dataclass(slots=True)
class _Standing:
    """What we remember of a peer between links."""

    failures: int = 0  # in a row
    dial_at: float = 0.0
    refused_until: float = 0.0


class PeerNetwork:
    """The links of this node.

    Args:
        config: who and how.
        runtime: hears of everything, once ``run`` is called.

    Raises:
        LocalProtocolError: two peers share an index or key.
    """

    def __init__(self, config: NetworkConfig, runtime: Runtime) -> None:
        peers = [peer for peer in config.peers if peer.index != config.own_index]
        self._config = config
        self._runtime = runtime
        self._peers = {peer.index: peer for peer in peers}
        self._by_key = {peer.node_key: peer for peer in peers}
        invariant(len(self._peers) == len(self._by_key) == len(peers), "two peers are one")
        self._links: dict[int, Link] = {}
        self._standing = {index: _Standing() for index in self._peers}
        self.stats = NetworkStats(ListenerStats(), {index: LinkStats() for index in self._peers})
        self._doorstep = Doorstep(
            config.pending_max, config.limits.handshake_seconds_max, self.stats.listener
        )

    @property
    def connected(self) -> frozenset[int]:
        """Committee indices of the peers that are connected now."""
        return frozenset(self._links)

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        """Queue a payload for one peer, never blocking; return whether it was taken.

        It is not taken when the peer is not connected or the queue of its class is full. A full
        consensus queue also closes the link.

        Raises:
            LocalProtocolError: the payload is empty or longer than its class allows.

        Cost: about 1 µs.
        """
        link = self._links.get(peer)
        return link is not None and link.offer(cls, payload)

    def broadcast(self, cls: Class, payload: bytes) -> None:
        """Queue a payload for every connected peer, as ``send`` does."""
        for link in self._links.values():
            link.offer(cls, payload)

    def close_link(self, peer: int, reason: str, code: str = RemoteProtocolError.code) -> None:
        """Close the link with a peer for what it sent, and leave it alone for a while."""
        link = self._links.get(peer)
        if link is not None:
            link.close(reason, fault=code)

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, dial and carry traffic until cancelled. Reports the port it listens on.

        Raises:
            OSError: the address cannot be bound.
        """
        config = self._config
        listeners = await trio.open_tcp_listeners(
            config.listen_port, host=config.listen_host, backlog=BACKLOG_MAX
        )
        task_status.started(listeners[0].socket.getsockname()[1])
        async with trio.open_nursery() as nursery:
            for peer in self._peers.values():
                if peer.index > config.own_index:
                    nursery.start_soon(self._keep_dialling, peer)
            await trio.serve_listeners(self._answer, listeners)

    # --- dialling -----------------------------------------------------------------------------

    async def _keep_dialling(self, peer: PeerAddress) -> None:
        standing = self._standing[peer.index]
        while True:
            await trio.sleep_until(standing.dial_at)
            link = await self._dial(peer)
            if link is not None:
                self._links[peer.index] = link
                await self._attend(link)

    async def _dial(self, peer: PeerAddress) -> Link | None:
        stream: TlsStream | None = None
        link: Link | None = None
        try:
            with trio.fail_after(self._config.limits.handshake_seconds_max):
                stream = TlsStream(await _connect(peer), self._config.contexts.dial)
                await _handshake(stream)
                check_peer_key(stream, peer.node_key)
                link = await self._introduce(stream, peer, dialled=True)
        except LINK_ERRORS as error:
            self._note_failure(peer, error)
        except trio.TooSlowError:
            self._note_failure(peer, ConnectionLost("the peer did not introduce itself in time"))
        finally:
            if link is None and stream is not None:
                await close_stream(stream)
        return link

    # --- accepting ----------------------------------------------------------------------------

    async def _answer(self, tcp: trio.SocketStream) -> None:
        link: Link | None = None
        try:
            host = tcp.socket.getpeername()[0]
        except OSError:  # it is gone already
            host = ""
        tls = TlsStream(tcp, self._config.contexts.accept, server_side=True)
        place = self._doorstep.take(host)
        try:
            with place.scope:
                link = await self._admit(tls)
                if link is not None:
                    self._links[link.peer] = link
        finally:
            self._doorstep.leave(place)
            if link is None:
                await self._turn_away(tls, place)
        if link is not None:
            await self._attend(link)

    async def _admit(self, tls: TlsStream) -> Link | None:
        """Return the link of an incoming connection, its predecessor gone; None if it is none."""
        peer: PeerAddress | None = None
        try:
            await _handshake(tls)
            peer = self._member(tls)
            await self._check_welcome(tls, peer)
            link = await self._introduce(tls, peer, dialled=False)
        except LINK_ERRORS as error:
            if peer is None:
                self.stats.listener.failed += 1
            else:
                self._note_failure(peer, error)
            return None
        while (older := self._links.get(peer.index)) is not None:
            older.close("replaced by a newer connection of the peer")
            self.stats.peers[peer.index].replaced += 1
            await older.gone.wait()
        return link

    async def _check_welcome(self, tls: TlsStream, peer: PeerAddress) -> None:
        paused_seconds = self._standing[peer.index].refused_until - trio.current_time()
        if peer.index > self._config.own_index:
            text, reason = "the member with the lower index dials", Refusal.WRONG_DIRECTION
        elif paused_seconds > 0:
            text, reason = f"for {paused_seconds:.1f} s more, after a fault", Refusal.PAUSED
        else:
            return
        refusal = LinkRefused(text, reason=reason)
        await refuse(tls, refusal)
        raise refusal

    async def _turn_away(self, tls: TlsStream, place: Place) -> None:
        if place.scope.cancelled_caught:
            if not place.evicted:
                self.stats.listener.expired += 1
            await trio.aclose_forcefully(tls)
        else:
            await close_stream(tls)

    # --- both ---------------------------------------------------------------------------------

    def _member(self, tls: TlsStream) -> PeerAddress:
        """Return the member that the certificate of an incoming connection belongs to."""
        peer = self._by_key.get(certificate_key(presented_certificate(tls)))
        if peer is None:
            raise WrongPeer("the certificate's key is of no other member")
        return peer

    async def _introduce(self, tls: TlsStream, peer: PeerAddress, *, dialled: bool) -> Link:
        name = certificate_name(presented_certificate(tls))
        if name != peer.name:
            raise WrongPeer(f"the certificate is for {name!r}, the key is of {peer.name!r}")
        return await introduce(
            tls,
            peer.index,
            self._own_hello(),
            self._config.limits,
            self.stats.peers[peer.index],
            dialled=dialled,
        )

    def _own_hello(self) -> Hello:
        state = self._config.hello()
        return Hello(
            chain=self._config.chain,
            epoch=state.epoch,
            height=state.height,
            index=self._config.own_index,
            nonce=secrets.token_bytes(NONCE_BYTES),
            extras=state.extras,
        )

    async def _attend(self, link: Link) -> None:
        """Carry a link from the news of it to the news of its end."""
        stats = self.stats.peers[link.peer]
        stats.connects += 1
        stats.connected_since_seconds = started = trio.current_time()
        try:
            self._runtime.connected(link.peer, link.hello)
            await link.run(self._runtime.received)
        finally:
            del self._links[link.peer]
            await link.aclose()
            stats.connected_since_seconds = None
            stats.round_trip_seconds = None
        stats.disconnects += 1
        self._note_end(link, trio.current_time() - started)
        self._runtime.disconnected(link.peer, link.reason)
        link.gone.set()

    def _note_end(self, link: Link, lasted_seconds: float) -> None:
        standing = self._standing[link.peer]
        if lasted_seconds >= self._config.stable_seconds:
            standing.failures = 0
        self.stats.peers[link.peer].last_error = link.reason
        self._pause(link.peer, link.fault)

    def _note_failure(self, peer: PeerAddress, error: ComityError) -> None:
        stats = self.stats.peers[peer.index]
        stats.attempts_failed += 1
        stats.refused += isinstance(error, LinkRefused)
        stats.last_error = error.message
        fault = error.code if is_fault(error) else ""
        if fault or peer.index > self._config.own_index:
            self._pause(peer.index, fault)

    def _pause(self, peer: int, fault: str) -> None:
        """Set when to deal with a peer again: 0.5 to 1 times base · 2^failures, capped."""
        config = self._config
        standing = self._standing[peer]
        base, most = config.backoff_seconds_base, config.backoff_seconds_max
        if fault:
            self.stats.peers[peer].faults[fault] += 1
            base, most = config.fault_seconds_base, config.fault_seconds_max
        seconds = min(most, base * 2.0 ** min(standing.failures, 32))
        seconds *= 0.5 + config.jitter.random() / 2
        standing.failures += 1
        standing.dial_at = trio.current_time() + seconds
        if fault:
            standing.refused_until = standing.dial_at


async def _connect(peer: PeerAddress) -> trio.SocketStream:
    try:
        return await trio.open_tcp_stream(peer.host, peer.port)
    except OSError as error:
        raise ConnectionLost(f"cannot connect to {peer.host}:{peer.port}: {error}") from error


async def _handshake(tls: TlsStream) -> None:
    try:
        await tls.do_handshake()
    except trio.BrokenResourceError as error:
        raise ConnectionLost(f"no TLS session: {error.__cause__ or error}") from error
