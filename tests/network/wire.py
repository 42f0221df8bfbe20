"""The hostile side of a socket: a member's stolen node key, strangers' keys, and raw bytes.

A ``Thief`` speaks for a member whose node is stopped. It introduces itself properly and then sends
what it likes. What the other side sends is read and forgotten, so that only its own acts decide.
"""

from __future__ import annotations

import contextlib
import secrets
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from comity.keys import Key
from consensus import genesis, signing
from consensus.committee import Committee
from consensus.hotstuff import wire as messages
from consensus.hotstuff.types import SIGN_TAGS, Certificates, SignKind, Vote, vote_body
from consensus.keyfile import KeyKind, KeyPair
from node.network import wire
from node.network.errors import LINK_ERRORS
from node.network.framing import FrameReader, pack
from node.network.tls import make_certificate, peer_contexts
from node.network.wire import Class, Hello
from scripts.localnet import LocalNetwork
from tests.network.town import PATIENCE_SECONDS, pair

FRAME_BYTES_MAX = 8 << 20
LOST = (trio.BrokenResourceError, trio.ClosedResourceError, OSError, *LINK_ERRORS)


class Declined(Exception):
    """The other side refused to be introduced, and said why."""


def dial_context(town: LocalNetwork, seed: bytes, name: str) -> ssl.SSLContext:
    """TLS towards members, with a certificate of this seed and name."""
    committee = genesis.decode(town.genesis).committee
    members = [each.certificate for each in committee.validators]
    return peer_contexts(make_certificate(seed, name), seed, members).dial


@dataclass
class Raw:
    """A connection whose other side is read until it ends."""

    stream: trio.abc.Stream
    reader: FrameReader
    ended: trio.Event = field(default_factory=trio.Event)

    async def send(self, data: bytes) -> None:
        """Send bytes as they are; it is no matter whether they arrive."""
        with contextlib.suppress(*LOST):
            await self.stream.send_all(data)

    async def drain(self) -> None:
        """Read and forget until the other side ends."""
        with contextlib.suppress(*LOST):
            while await self.reader.read():
                pass
        self.ended.set()

    async def dropped(self) -> None:
        """Wait until the other side has ended the connection."""
        with trio.fail_after(PATIENCE_SECONDS):
            await self.ended.wait()


@dataclass
class Link(Raw):
    """An introduced link in a member's name. ``certificates`` are what the victim showed."""

    certificates: Certificates = field(kw_only=True)

    async def data(self, payload: bytes, cls: Class = Class.CONSENSUS) -> None:
        """Send one frame of a class."""
        await self.send(pack(bytes([cls]) + payload))


class Thief:
    """Somebody with all keys of a member whose node does not run."""

    def __init__(self, town: LocalNetwork, agency: str) -> None:
        self.town = town
        self.agency = agency
        self.committee: Committee = genesis.decode(town.genesis).committee
        self.chain = genesis.chain_id(town.genesis)
        self.index = town.agencies.index(agency)
        self.node: KeyPair = pair(town, agency, "node", KeyKind.NODE)
        self._validator = Key(pair(town, agency, "validator", KeyKind.VALIDATOR))

    def hello(self, **other: object) -> Hello:
        """An introduction that is true but for ``other``."""
        fields: dict[str, object] = {
            "chain": self.chain,
            "epoch": 1,
            "height": 0,
            "index": self.index,
            "nonce": secrets.token_bytes(wire.NONCE_BYTES),
        }
        return Hello(**(fields | other))  # type: ignore[arg-type]

    def vote(self, round_: int, block_id: bytes, height: int) -> bytes:
        """A vote with the member's true signature."""
        body = vote_body(1, round_, block_id, height)
        signed = self._validator.sign(signing.message(SIGN_TAGS[SignKind.VOTE], self.chain, body))
        return messages.encode_message(Vote(1, round_, block_id, height, self.index, signed, ()))

    async def introduce(self, victim: str, hello: Hello | None = None) -> Link:
        """Connect and introduce oneself, once.

        Raises:
            Declined: with the victim's words.
        """
        ours = hello or self.hello()
        context = dial_context(self.town, self.node.seed, self.agency)
        tcp = await trio.open_tcp_stream("127.0.0.1", self.town.member(victim).peer_port)
        stream = trio.SSLStream(tcp, context)
        reader = FrameReader(stream, FRAME_BYTES_MAX, PATIENCE_SECONDS)
        try:
            await stream.send_all(pack(wire.encode_hello(ours)))
            frames: list[bytes] = []
            while len(frames) < 2 and not _declined(frames):
                frames += await reader.read() or [b"it hung up", b""]
            theirs, echo = wire.decode_hello(frames[0]), frames[1]
            assert echo == bytes([wire.ECHO]) + ours.nonce
            await stream.send_all(pack(bytes([wire.ECHO]) + theirs.nonce))
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        shown = messages.decode_message(theirs.extras)
        assert isinstance(shown, Certificates)
        return Link(stream, reader, certificates=shown)

    @asynccontextmanager
    async def link(self, victim: str) -> AsyncIterator[Link]:
        """A link with a victim, as soon as it admits one again after a fault."""
        link: Link | None = None
        with trio.fail_after(PATIENCE_SECONDS):
            while link is None:
                try:
                    link = await self.introduce(victim)
                except Declined as declined:
                    if "after a fault" not in str(declined):
                        raise
                    await trio.sleep(0.1)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(link.drain)
                yield link
                nursery.cancel_scope.cancel()
        finally:
            await trio.aclose_forcefully(link.stream)


def _declined(frames: list[bytes]) -> bool:
    """Raise Declined if the first frame says so."""
    if frames and frames[0][0] == wire.REFUSED:
        raise Declined(wire.decode_refused(frames[0]).message)
    return False
