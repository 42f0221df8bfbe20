"""Members with keys and certificates, nodes on loopback, and waiting without sleeping."""

from __future__ import annotations

import random
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.network.link import LinkLimits
from node.network.peers import HelloState, NetworkConfig, PeerAddress, PeerNetwork
from node.network.tls import make_certificate, peer_contexts
from node.network.wire import Class, Hello

CHAIN = bytes(range(32))
PATIENCE_SECONDS = 20.0
"""Real time after which a test that waits for the kernel gives up; reached only by a failure."""


@dataclass(frozen=True)
class Member:
    index: int
    seed: bytes
    name: str
    certificate: bytes
    key: bytes


def member(index: int, *, network: int = 0) -> Member:
    seed = bytes([network, index]) * 16
    name = f"agency-{index}"
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    return Member(index, seed, name, make_certificate(seed, name), key)


COMMITTEE = [member(index) for index in range(4)]
FOREIGNERS = [member(index, network=9) for index in range(4)]


def contexts(own: Member, committee: list[Member] = COMMITTEE) -> Any:
    return peer_contexts(own.certificate, own.seed, [m.certificate for m in committee])


async def until(condition: Callable[[], object]) -> None:
    """Let the other tasks and the kernel work until ``condition`` holds."""
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < give_up, "it never became true"
        await trio.lowlevel.checkpoint()


async def sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    """Return both ends of a new connection over loopback."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return near, await listener.accept()


@dataclass(frozen=True)
class Connected:
    peer: int
    hello: Hello


@dataclass(frozen=True)
class Inbound:
    peer: int
    cls: Class
    payload: bytes


@dataclass(frozen=True)
class Disconnected:
    peer: int
    reason: str


Event = Connected | Inbound | Disconnected


class Heard:
    """A runtime that keeps what it hears."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def connected(self, peer: int, hello: Hello) -> None:
        self.events.append(Connected(peer, hello))

    def received(self, peer: int, cls: Class, payload: bytes) -> None:
        self.events.append(Inbound(peer, cls, payload))

    def disconnected(self, peer: int, reason: str) -> None:
        self.events.append(Disconnected(peer, reason))


class Node:
    """A running PeerNetwork, what it told its runtime, and where it listens."""

    def __init__(self, config: NetworkConfig) -> None:
        self.config = config
        self.heard = Heard()
        self.network = PeerNetwork(config, self.heard)
        self.port = config.listen_port
        self.scope = trio.CancelScope()

    async def start(self, nursery: trio.Nursery) -> None:
        async def run(task_status: trio.TaskStatus[int]) -> None:
            with self.scope:
                await self.network.run(task_status=task_status)

        self.port = await nursery.start(run)

    async def event(self) -> Event:
        await until(lambda: self.heard.events)
        return self.heard.events.pop(0)

    async def connected(self) -> Connected:
        event = await self.event()
        assert isinstance(event, Connected), event
        return event

    async def disconnected(self) -> Disconnected:
        event = await self.event()
        assert isinstance(event, Disconnected), event
        return event

    async def inbound(self) -> Inbound:
        event = await self.event()
        assert isinstance(event, Inbound), event
        return event

    def quiet(self) -> bool:
        return not self.heard.events


def address(of: Member, port: int) -> PeerAddress:
    return PeerAddress(of.index, of.name, "127.0.0.1", port, of.key)


def node(
    own: int,
    peers: list[PeerAddress],
    *,
    identity: Member | None = None,
    committee: list[Member] = COMMITTEE,
    port: int = 0,
    chain: bytes = CHAIN,
    limits: LinkLimits | None = None,
    **settings: Any,
) -> Node:
    identity = identity or committee[own]
    config = NetworkConfig(
        own_index=own,
        peers=tuple(peers),
        contexts=contexts(identity, committee),
        chain=chain,
        listen_host="127.0.0.1",
        listen_port=port,
        hello=lambda: HelloState(epoch=1, height=100 + own, extras=b"from %d" % own),
        jitter=random.Random(own),
        limits=limits or LinkLimits(),
    )
    return Node(replace(config, **settings))


@asynccontextmanager
async def running(*nodes: Node) -> AsyncIterator[trio.Nursery]:
    """Run nodes for the length of the block, then stop them."""
    async with trio.open_nursery() as nursery:
        for each in nodes:
            await each.start(nursery)
        yield nursery
        nursery.cancel_scope.cancel()


async def dial(port: int, context: ssl.SSLContext) -> trio.SSLStream[Any]:
    """Connect to a node by hand."""
    stream: trio.SSLStream[Any] = trio.SSLStream(
        await trio.open_tcp_stream("127.0.0.1", port), context
    )
    await stream.do_handshake()
    return stream
