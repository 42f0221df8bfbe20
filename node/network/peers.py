"""One link with every other member of the committee, kept up for as long as the node runs.

The member with the lower index dials, the other accepts; so there is one connection a pair. A
dialer tries again after a jittered, exponentially growing pause. A peer that sent what it must not
is left alone for longer, by both sides: the acceptor refuses it until then. A newer introduced
connection of a peer replaces the older one, because only that peer holds its key and it would not
dial twice with the first one working.

Two nodes in different epochs number each other by different committees, and both or neither may
think it their turn to dial. So whoever stays without a link for KNOCK_SECONDS dials whatever the
numbers, and is let in where the epochs differ. If both did so at once, the link that the node with
the lower key has dialled stays.

The runtime hears of each link that it is ``connected``, what it ``received``, and that it is
``disconnected``, in this order; ``send`` never blocks. The link's own task calls the runtime, and
reads no further while that works: what comes too fast waits in the kernel and at the peer. Links
take turns, ``FRAMES_AT_ONCE_MAX`` frames each at most.

Not here: what payloads mean; who else is let in (``guests``); what is sent again after a
reconnect.
"""

from __future__ import annotations

import random
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, Protocol

import trio

from consensus.errors import ComityError, RemoteProtocolError, invariant
from consensus.release import VERSION as RELEASE
from consensus.release import minor_of
from node.network.errors import LINK_ERRORS, ConnectionLost, LinkRefused, WrongPeer
from node.network.guests import GUESTS_FROM, Guest, ObserverDoor
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
from node.network.wire import NO_INDEX, NONCE_BYTES, Class, Hello, Refusal

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
KNOCK_SECONDS: Final = 3.0
"""Without a link for so long, a node dials a member whose turn it is to dial."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """A member of the committee and where it listens (or a relay on the way to it).

    Args:
        index: in the committee.
        name: of the agency; the common name of its node's certificate.
        host, port: where to dial it.
        node_key: Ed25519 public key that its certificate must hold.
        others: further addresses, tried in turn after the first.
    """

    index: int
    name: str
    host: str
    port: int
    node_key: bytes
    others: tuple[tuple[str, int], ...] = ()


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
        own_index: of this node in the committee; below 0 without a vote there.
        peers: the committee; an entry for the own index is ignored.
        contexts: from ``tls.peer_contexts`` over the same committee.
        chain: hash of the genesis file.
        listen_host, listen_port: where to accept; port 0 lets the system choose, below 0 nobody
            is accepted.
        hello: asked for every introduction.
        jitter: source of the random part of pauses; nothing secret depends on it.
        limits: of each link.
        pending_max: connections that may be on their way to being introduced.
        backoff_seconds_base, backoff_seconds_max: pause after the first failure, and the longest.
        fault_seconds_base, fault_seconds_max: the same after a fault of the peer.
        stable_seconds: a link that lasted so long ends the row of failures before it.
        own_key: the public node key of this node.
        former: nodes that only earlier committees name; ``contexts`` trust them as well.
        observers: a door for those whom the operator admits; None: there is none.
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
    own_key: bytes = b""
    former: tuple[Guest, ...] = ()
    observers: ObserverDoor | None = None


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
        self._guest_links: dict[int, Link] = {}
        self._guests: dict[int, Guest] = {}
        self._numbers: dict[tuple[bytes, bool], int] = {}
        self._former = {guest.node_key: guest for guest in config.former}
        self._dialled: dict[int, float] = {}
        """When the present link with a peer was made, if from here."""
        self._standing = {index: _Standing() for index in self._peers}
        self.stats = NetworkStats(ListenerStats(), {index: LinkStats() for index in self._peers})
        self._doorstep = Doorstep(
            config.pending_max, config.limits.handshake_seconds_max, self.stats.listener
        )
        self._observers_doorstep = Doorstep(
            1 if config.observers is None else config.observers.pending_max,
            config.limits.handshake_seconds_max,
            self.stats.observers,
        )
        self.observers_port = 0
        """Where observers connect, once this runs; 0: nowhere."""

    @property
    def connected(self) -> frozenset[int]:
        """Committee indices of the peers that are connected now."""
        return frozenset(self._links)

    @property
    def guests(self) -> tuple[int, ...]:
        """Numbers of the guests that are connected now."""
        return tuple(self._guest_links)

    def guest(self, number: int) -> Guest | None:
        """Return who has a number; None for members."""
        return self._guests.get(number)

    def has_room(self, peer: int, cls: Class) -> bool:
        """Whether an answer to a peer, which costs work, would find room in its queue."""
        link = self._link(peer)
        return link is not None and link.has_room(cls)

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        """Queue a payload for one peer, never blocking; return whether it was taken.

        It is not taken when the peer is not connected or the queue of its class is full. A full
        consensus queue also closes the link.

        Raises:
            LocalProtocolError: the payload is empty or longer than its class allows.

        Cost: about 1 µs.
        """
        link = self._link(peer)
        return link is not None and link.offer(cls, payload)

    def broadcast(self, cls: Class, payload: bytes) -> None:
        """Queue a payload for every connected member, as ``send`` does; guests get none."""
        for link in self._links.values():
            link.offer(cls, payload)

    def close_link(self, peer: int, reason: str, code: str = RemoteProtocolError.code) -> None:
        """Close the link with a peer for what it sent, and leave it alone for a while."""
        link = self._link(peer)
        if link is not None:
            link.close(reason, fault=code)

    def observers_certificates(self) -> tuple[bytes, ...]:
        """Return the certificates (DER) of those admitted at the door for observers now."""
        door = self._config.observers
        admitted = None if door is None else door.admitted()
        return () if admitted is None else admitted.certificates

    def recheck(self) -> None:
        """Close the links of observers that are not admitted any more."""
        door = self._config.observers
        if door is None or not self._guest_links:
            return
        admitted = door.admitted()
        keys = {} if admitted is None else admitted.guests
        for number, link in self._guest_links.items():
            guest = self._guests[number]
            if guest.upto is None and guest.node_key not in keys:
                link.close("this observer is not admitted any more")

    def _link(self, peer: int) -> Link | None:
        links = self._links if peer < GUESTS_FROM else self._guest_links
        return links.get(peer)

    async def run(self, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, dial and carry traffic until cancelled. Reports the port it listens on.

        Raises:
            OSError: the address cannot be bound.
        """
        config, door = self._config, self._config.observers
        listeners: list[trio.SocketListener] = []
        if config.listen_port >= 0:
            listeners = await trio.open_tcp_listeners(
                config.listen_port, host=config.listen_host, backlog=BACKLOG_MAX
            )
        doors: list[trio.SocketListener] = []
        if door is not None:
            doors = await trio.open_tcp_listeners(
                door.listen_port, host=door.listen_host, backlog=BACKLOG_MAX
            )
            self.observers_port = doors[0].socket.getsockname()[1]
        task_status.started(listeners[0].socket.getsockname()[1] if listeners else 0)
        async with trio.open_nursery() as nursery:
            for peer in self._peers.values():
                nursery.start_soon(self._keep_dialling, peer)
            if door is not None:
                nursery.start_soon(
                    trio.serve_listeners, partial(self._answer_observer, door), doors
                )
            if listeners:
                await trio.serve_listeners(self._answer_member, listeners)
            await trio.sleep_forever()

    # --- dialling -----------------------------------------------------------------------------

    async def _keep_dialling(self, peer: PeerAddress) -> None:
        standing = self._standing[peer.index]
        addresses = ((peer.host, peer.port), *peer.others)
        turn = 0
        while True:
            await trio.sleep_until(standing.dial_at)
            if peer.index < self._config.own_index:
                await trio.sleep(KNOCK_SECONDS)
            if (other := self._links.get(peer.index)) is not None:
                await other.gone.wait()
                continue
            host, port = addresses[turn % len(addresses)]
            link = await self._dial(replace(peer, host=host, port=port))
            if link is None:
                turn += 1
            elif await self._prevails(link, peer):
                self._links[peer.index] = link
                self._dialled[peer.index] = trio.current_time()
                await self._attend(link)

    async def _prevails(self, link: Link, peer: PeerAddress) -> bool:
        """Whether a link that was dialled is to be used, although the peer may have dialled too."""
        if peer.index in self._links and peer.node_key < self._config.own_key:
            await link.aclose()
            return False
        await self._make_way(peer)
        return True

    async def _make_way(self, peer: PeerAddress) -> None:
        links = self._table(peer.index)
        while (older := links.get(peer.index)) is not None:
            older.close("replaced by a newer connection of the peer")
            self.stats.peers[peer.index].replaced += 1
            await older.gone.wait()

    def _table(self, peer: int) -> dict[int, Link]:
        return self._links if peer < GUESTS_FROM else self._guest_links

    async def _dial(self, peer: PeerAddress) -> Link | None:
        stream: TlsStream | None = None
        link: Link | None = None
        try:
            with trio.fail_after(self._config.limits.handshake_seconds_max):
                stream = TlsStream(await _connect(peer), self._config.contexts.dial)
                await _handshake(stream)
                check_peer_key(stream, peer.node_key)
                link = await self._introduce(stream, peer, self._config.limits)
        except LINK_ERRORS as error:
            self._note_failure(peer, error)
        except trio.TooSlowError:
            self._note_failure(peer, ConnectionLost("the peer did not introduce itself in time"))
        finally:
            if link is None and stream is not None:
                await close_stream(stream)
        return link

    # --- accepting ----------------------------------------------------------------------------

    async def _answer_member(self, tcp: trio.SocketStream) -> None:
        """Answer at the peers' door."""
        tls = (tcp, self._config.contexts.accept)
        await self._answer(*tls, self._doorstep, self._known, self._config.limits)

    async def _answer_observer(self, door: ObserverDoor, tcp: trio.SocketStream) -> None:
        """Answer at the observers' door."""
        admitted = door.admitted()
        if admitted is None:
            self.stats.observers.failed += 1
            await trio.aclose_forcefully(tcp)
            return

        def known(key: bytes) -> PeerAddress | None:
            guest = admitted.guests.get(key)
            return None if guest is None else self._numbered(guest)

        tls = (tcp, admitted.context)
        await self._answer(*tls, self._observers_doorstep, known, door.limits)

    def _known(self, key: bytes) -> PeerAddress | None:
        """Return the member, or the member of earlier epochs, that has a node key."""
        guest = self._former.get(key)
        return self._by_key.get(key) if guest is None else self._numbered(guest)

    def _numbered(self, guest: Guest) -> PeerAddress:
        who = guest.node_key, guest.upto is None  # one may come to either door
        number = self._numbers.setdefault(who, GUESTS_FROM + len(self._numbers))
        self._guests[number] = guest
        self._standing.setdefault(number, _Standing())
        self.stats.peers.setdefault(number, LinkStats())
        return PeerAddress(number, guest.name, "", 0, guest.node_key)

    async def _answer(
        self,
        tcp: trio.SocketStream,
        context: ssl.SSLContext,
        doorstep: Doorstep,
        known: Callable[[bytes], PeerAddress | None],
        limits: LinkLimits,
    ) -> None:
        link: Link | None = None
        try:
            host = tcp.socket.getpeername()[0]
        except OSError:  # it is gone already
            host = ""
        tls = TlsStream(tcp, context, server_side=True)
        place = doorstep.take(host)
        try:
            with place.scope:
                link = await self._admit(tls, doorstep, known, limits)
                if link is not None:
                    self._table(link.peer)[link.peer] = link
                    self._dialled.pop(link.peer, None)
        finally:
            doorstep.leave(place)
            if link is None:
                await self._turn_away(tls, place, doorstep)
        if link is not None:
            await self._attend(link)

    async def _admit(
        self,
        tls: TlsStream,
        doorstep: Doorstep,
        known: Callable[[bytes], PeerAddress | None],
        limits: LinkLimits,
    ) -> Link | None:
        """Return the link of an incoming connection, its predecessor gone; None if it is none."""
        peer: PeerAddress | None = None
        try:
            await _handshake(tls)
            peer = known(certificate_key(presented_certificate(tls)))
            if peer is None:
                raise WrongPeer("the certificate's key is of nobody who is let in here")
            await self._check_pause(tls, peer)
            link = await self._introduce(tls, peer, limits, partial(self._welcome, peer))
        except LINK_ERRORS as error:
            if peer is None:
                doorstep.stats.failed += 1
            else:
                self._note_failure(peer, error)
            return None
        await self._make_way(peer)
        if (refusal := self._crowded(peer)) is not None:  # others were as quick
            self._note_failure(peer, refusal)
            await link.aclose()
            return None
        return link

    async def _check_pause(self, tls: TlsStream, peer: PeerAddress) -> None:
        paused_seconds = self._standing[peer.index].refused_until - trio.current_time()
        if paused_seconds > 0:
            text = f"for {paused_seconds:.1f} s more, after a fault"
            refusal = LinkRefused(text, reason=Refusal.PAUSED)
            await refuse(tls, refusal)
            raise refusal

    def _welcome(self, peer: PeerAddress, hello: Hello) -> None:
        """Refuse whoever connects and has no reason to, by what it says of itself."""
        config, guest = self._config, self._guests.get(peer.index)
        if guest is None:
            same = hello.epoch == config.hello().epoch
            if same and 0 <= config.own_index < peer.index:
                text = "the member with the lower index dials"
                raise LinkRefused(text, reason=Refusal.WRONG_DIRECTION)
            made = self._dialled.get(peer.index, -KNOCK_SECONDS)
            fresh = peer.index in self._links and trio.current_time() - made < KNOCK_SECONDS
            if fresh and config.own_key < peer.node_key:
                raise LinkRefused("a link stands already", reason=Refusal.WRONG_DIRECTION)
        elif guest.upto is not None and hello.epoch > guest.upto:
            text = f"no vote since epoch {guest.upto}; be admitted as an observer to follow on"
            raise LinkRefused(text, reason=Refusal.NO_VOTE_ANY_MORE)
        elif (refusal := self._crowded(peer)) is not None:
            raise refusal

    def _crowded(self, peer: PeerAddress) -> LinkRefused | None:
        """Return why a guest is declined if as many observers are connected as may be."""
        door, guest = self._config.observers, self._guests.get(peer.index)
        if guest is None or guest.upto is not None or door is None:
            return None
        others = {n for n in self._guest_links if self._guests[n].upto is None} - {peer.index}
        if len(others) < door.connections_max:
            return None
        text = f"{len(others)} observers are connected, as many as may be"
        return LinkRefused(text, reason=Refusal.CROWDED)

    async def _turn_away(self, tls: TlsStream, place: Place, doorstep: Doorstep) -> None:
        if place.scope.cancelled_caught:
            if not place.evicted:
                doorstep.stats.expired += 1
            await trio.aclose_forcefully(tls)
        else:
            await close_stream(tls)

    # --- both ---------------------------------------------------------------------------------

    async def _introduce(
        self,
        tls: TlsStream,
        peer: PeerAddress,
        limits: LinkLimits,
        welcome: Callable[[Hello], None] | None = None,
    ) -> Link:
        """Return the link of a stream that TLS has made; with ``welcome`` we accept, else dial."""
        name = certificate_name(presented_certificate(tls))
        if name != peer.name:
            raise WrongPeer(f"the certificate is for {name!r}, the key is of {peer.name!r}")
        return await introduce(
            tls,
            peer.index,
            self._own_hello(),
            limits,
            self.stats.peers[peer.index],
            dialled=welcome is None,
            minor=minor_of(tls.protocol()),
            welcome=welcome or (lambda hello: None),
        )

    def _own_hello(self) -> Hello:
        state = self._config.hello()
        return Hello(
            chain=self._config.chain,
            epoch=state.epoch,
            height=state.height,
            index=self._config.own_index if self._config.own_index >= 0 else NO_INDEX,
            nonce=secrets.token_bytes(NONCE_BYTES),
            extras=state.extras,
            release=RELEASE,
        )

    async def _attend(self, link: Link) -> None:
        """Carry a link from the news of it to the news of its end."""
        stats = self.stats.peers[link.peer]
        stats.connects += 1
        stats.connected_since_seconds = started = trio.current_time()
        try:
            stats.release = link.hello.release
            self._runtime.connected(link.peer, link.hello)
            await link.run(self._runtime.received)
        finally:
            del self._table(link.peer)[link.peer]
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
        if isinstance(error, LinkRefused):
            stats.refused += 1
            stats.other_version += error.reason == Refusal.OTHER_VERSION
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
