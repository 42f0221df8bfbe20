"""A client that speaks frames and trusts nothing to a library, and a port for it to speak to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import trio
import trio.testing

from comity.keys import Key
from consensus import answers, protocol
from consensus.answers import Answer
from consensus.ledger.transaction import Draft, assemble, build
from consensus.protocol import Hello, Item, Request, Status
from node.api.limits import ApiLimits
from node.api.server import ApiServer
from tests.comity.twin import NODES, OFFICIAL, Twin

LIMITS = ApiLimits()


class Wire:
    """One connection of such a client."""

    def __init__(self, stream: trio.abc.Stream, twin: Twin) -> None:
        self.stream = stream
        self.twin = twin
        self.splitter = protocol.FrameSplitter(protocol.ANSWER_BYTES_MAX)
        self.backlog: list[bytes] = []
        self.events: list[Any] = []
        self.greeting: answers.Greeting | None = None

    async def send(self, *requests: tuple[int, Request]) -> None:
        await self.raw(protocol.frames([protocol.encode_request(i, r) for i, r in requests]))

    async def raw(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def next(self) -> Answer | None:
        """The next message; None when the server has closed."""
        while not self.backlog:
            data = await self.stream.receive_some()
            if not data:
                return None
            self.backlog += self.splitter.feed(bytes(data))
        return answers.decode_answer(self.backlog.pop(0))

    async def answer(self) -> Answer | None:
        """The next message that is no event of the connection."""
        while True:
            found = await self.next()
            if found is None or found.request_id != 0 or found.status != Status.EVENT:
                return found
            self.events.append(found.result)

    async def hello(self, prove: Key | None, **changes: Any) -> Answer | None:
        first = await self.next()
        assert first is not None
        self.greeting = answers.read_greeting(first.result)
        request = Hello(protocol.VERSION, self.twin.chain)
        if prove is not None:
            signed = protocol.session_message(
                self.twin.chain, NODES[0].public, self.greeting.nonce, prove.public
            )
            request = replace(request, key=prove.public, signature=prove.sign(signed))
        await self.send((1, replace(request, **changes)))
        return await self.answer()


@asynccontextmanager
async def port(
    twin: Twin | None = None,
    limits: ApiLimits = LIMITS,
    pair: Callable[[], tuple[Any, Any]] = trio.testing.memory_stream_pair,
) -> AsyncIterator[tuple[Twin, ApiServer, Any]]:
    """A twin, its server, and a function that connects over streams of a kind."""
    twin = twin or Twin()
    server = twin.server(0, limits)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(twin.run)

        async def connect(key: Key | None = OFFICIAL, *, greet: bool = True) -> Wire:
            ours, theirs = pair()
            nursery.start_soon(server.serve, theirs, "here")
            wire = Wire(ours, twin)
            if greet:
                found = await wire.hello(key)
                assert found is not None
                assert found.status == Status.OK, found
            return wire

        yield twin, server, connect
        nursery.cancel_scope.cancel()


def payment(twin: Twin, sequence: int, key: Key = OFFICIAL) -> tuple[bytes, bytes]:
    """A signed payment; return txid and envelope."""
    book = twin.ledger.rules(twin.state, twin.now_ms).book
    action = book.action("notes", "pay")
    assert action is not None
    params = action.schedule.at(twin.now_ms).digest
    call = Draft("notes", "pay", action.action_id, ["a", "b", 1], params)
    unsigned = build(twin.chain, key.public, sequence, twin.now_ms + 60_000, [call], seed=bytes(32))
    return unsigned.transaction.txid, assemble(unsigned, [key.sign(unsigned.message)])


def envelopes(twin: Twin, first: int, count: int) -> tuple[tuple[Item, bytes], ...]:
    return tuple((Item.ENVELOPE, payment(twin, first + i)[1]) for i in range(count))
