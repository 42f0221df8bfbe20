"""A client without manners: TLS to a node's client port, and whatever bytes one likes after it.

Not here: what is sent (``test_hostile_clients``, ``harness.siege``).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from comity import tls
from comity.keys import Key
from consensus import answers, genesis, protocol
from consensus.answers import Answer
from consensus.protocol import Hello, Request, Status
from node.network.framing import FrameReader, pack
from scripts.localnet import LocalNetwork
from tests.network.town import PATIENCE_SECONDS
from tests.network.wire import LOST

ELSEWHERE = "127.0.0.2"
"""Where the hostile come from: limits are by address, and honest clients are at another."""


@dataclass
class Guest:
    """A client without manners."""

    stream: trio.abc.Stream
    reader: FrameReader
    chain: bytes
    node_key: bytes
    nonce: bytes = b""
    answers: list[Answer] = field(default_factory=list)

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(*LOST):
            await self.stream.send_all(data)

    async def request(self, request: Request, request_id: int = 1) -> None:
        await self.send(pack(protocol.encode_request(request_id, request)))

    async def answer(self) -> Answer | None:
        """The next answer; None when the node has hung up."""
        with trio.fail_after(PATIENCE_SECONDS):
            while not self.answers:
                try:
                    frames = await self.reader.read()
                except LOST:
                    return None
                if not frames:
                    return None
                self.answers += [answers.decode_answer(each) for each in frames]
        return self.answers.pop(0)

    async def greet(self, key: Key | None = None) -> None:
        await self.request(self.hello(key))
        answer = await self.answer()
        assert answer is not None
        assert answer.status == Status.OK, answer

    def hello(self, key: Key | None, nonce: bytes | None = None) -> Hello:
        if key is None:
            return Hello(protocol.VERSION, self.chain)
        signed = protocol.session_message(
            self.chain, self.node_key, nonce or self.nonce, key.public
        )
        return Hello(protocol.VERSION, self.chain, key.public, key.sign(signed))


@asynccontextmanager
async def guest(town: LocalNetwork, victim: str, address: str = ELSEWHERE) -> AsyncIterator[Guest]:
    """A TLS connection that has heard the node's greeting."""
    committee = genesis.decode(town.genesis).committee
    server = committee.validators[town.agencies.index(victim)]
    port = town.member(victim).client_port
    tcp = await trio.open_tcp_stream("127.0.0.1", port, local_address=address)
    stream = trio.SSLStream(tcp, tls.client_context([server.certificate]), https_compatible=True)
    try:
        reader = FrameReader(stream, protocol.ANSWER_BYTES_MAX, PATIENCE_SECONDS)
        found = Guest(stream, reader, genesis.chain_id(town.genesis), server.node_key)
        first = await found.answer()
        assert first is not None
        found.nonce = answers.read_greeting(first.result).nonce
        yield found
    finally:
        await trio.aclose_forcefully(stream)
