"""Bad input costs its sender: a documented code or a closed connection, in bounded memory."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from comity.keys import Key
from consensus import codec, protocol
from consensus.protocol import (
    Get,
    GetDecisions,
    GetStatements,
    GetStatus,
    Hello,
    Item,
    StateKey,
    Status,
    Stream,
    Submit,
    Subscribe,
)
from node.api.server import ApiServer
from tests.comity.twin import STRANGER
from tests.node.api.wire import LIMITS, Wire, envelopes, port

POT = StateKey("account", ("pot", "a"))
HEAD = b"\x83\x02fstatus"
"""The beginning of a request with id 2 for status; params follow."""
LONG = ((Item.ENVELOPE, b"e" * 100_000),)
MEMORY_BYTES_MAX = 6 * 2**20
"""More than anything below may make the node take at once."""


async def alive(wire: Wire) -> None:
    """The node still serves this client."""
    await wire.send((1000, GetStatus()))
    found = await wire.answer()
    assert found is not None
    assert (found.request_id, found.status) == (1000, Status.OK)


HOSTILE: dict[str, bytes] = {
    "an array said to have 2^62 items": HEAD + b"\x9b" + (2**62).to_bytes(8, "big"),
    "an array said to have 2^31 items": HEAD + b"\x9a\x80\x00\x00\x00",
    "bytes said to be 2^62 long": HEAD + b"\x5b" + (2**62).to_bytes(8, "big"),
    "bytes said to be 1 GiB long": HEAD + b"\x5a\x40\x00\x00\x00",
    "text said to be 1 GiB long": HEAD + b"\x7a\x40\x00\x00\x00",
    "a map said to have 2^31 pairs": HEAD + b"\xba\x80\x00\x00\x00",
    "a request cut short": HEAD,
    "bytes after the end": HEAD + b"\x80\x00",
    "nested 25 deep": HEAD + b"\x81" * 25 + b"\x80",
    "nested 60,000 deep": HEAD + b"\x81" * 60_000 + b"\x80",
    "nested maps": HEAD + b"\xa1\x00" * 30_000 + b"\x00",
    "indefinite nesting": HEAD + b"\x9f" * 10_000,
    "a tag": HEAD + b"\xc0\x60",
    "a date": HEAD + b"\xc1\x1b" + (2**60).to_bytes(8, "big"),
    "a big number": HEAD + b"\xc2\x58\xff" + b"\xff" * 255,
    "a big float": HEAD + b"\xc5\x82\x1b" + (2**60).to_bytes(8, "big") + b"\x01",
    "shared references": HEAD + b"\xd8\x1c\x81\xd8\x1d\x00",
    "not a number": HEAD + b"\x81\xf9\x7e\x00",
    "undefined": HEAD + b"\x81\xf7",
    "a map with one key twice": HEAD + b"\x81\xa2\x00\x00\x00\x00",
    "text that is not UTF-8": b"\x83\x02\x62\xff\xfe\x80",
    "half a surrogate": b"\x83\x02\x63\xed\xa0\x80\x80",
    "an integer beyond 64 bits": b"\x83\x1b" + b"\xff" * 8 + b"fstatus\x80",
    "60,000 empty arrays": HEAD + b"\x99\xea\x60" + b"\x80" * 60_000,
}


@pytest.mark.parametrize("payload", HOSTILE.values(), ids=HOSTILE)
async def test_hostile_frame_is_refused_in_bounded_memory_and_the_node_goes_on(
    payload: bytes,
) -> None:
    async with port() as (_, _, connect):
        wire, other = await connect(None), await connect()
        tracemalloc.start()
        try:
            await wire.raw(protocol.frames([payload]))
            found = await wire.answer()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert found is not None
        assert found.request_id in (0, 2)
        assert found.status == Status.MALFORMED
        assert await wire.next() is None
        assert peak < MEMORY_BYTES_MAX
        await alive(other)


@pytest.mark.parametrize("length", [2**32 - 1, 2**31, protocol.REQUEST_BYTES_MAX + 1])
async def test_declared_length_costs_nothing(length: int) -> None:
    async with port() as (_, _, connect):
        wire, other = await connect(), await connect()
        tracemalloc.start()
        try:
            await wire.raw(length.to_bytes(4, "big") + b"x" * 1000)
            found = await wire.answer()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert found is not None
        assert found.status == Status.MALFORMED
        assert peak < MEMORY_BYTES_MAX
        await alive(other)


@pytest.mark.parametrize("key", [None, STRANGER])
async def test_only_who_has_proved_a_known_key_may_send_long_frames(key: Key | None) -> None:
    frame = protocol.frames([protocol.encode_request(2, Submit(True, LONG))])
    assert len(frame) > LIMITS.unproved_frame_bytes_max
    async with port() as (_, _, connect):
        known, unknown = await connect(), await connect(key)
        for wire in (unknown, await connect(greet=False)):
            await wire.raw(frame[:4])
            found = await wire.answer()
            assert found is not None
            assert (found.request_id, found.status) == (0, Status.MALFORMED)
            assert await wire.next() is None
        await known.raw(frame)
        found = await known.answer()
        assert found is not None
        assert (found.request_id, found.status) == (2, Status.MALFORMED)


@pytest.mark.parametrize("sent", [1, 3, 4, 5, 40])
async def test_frame_that_ends_with_the_connection_is_forgotten(sent: int) -> None:
    async with port() as (_, server, connect):
        wire, other = await connect(), await connect()
        frame = protocol.frames([protocol.encode_request(2, Get(0, (POT,) * 1)) + b"x" * 40])
        await wire.raw(frame[:sent])
        await wire.stream.aclose()
        await trio.sleep(0.1)
        assert server.sessions == 1
        await alive(other)


VALID = [
    protocol.encode_request(2, GetStatus()),
    protocol.encode_request(2, Get(0, (POT, StateKey("record", ("note", 1))))),
    protocol.encode_request(2, Submit(True, ((Item.ENVELOPE, b"e" * 20), (Item.GROUP, b"g")))),
    protocol.encode_request(2, GetDecisions(-3, 2)),
    protocol.encode_request(2, Subscribe(Stream.DECISIONS, 0)),
    protocol.encode_request(2, Hello(1, b"c" * 32, b"k" * 32, b"s" * 64)),
]


@pytest.mark.parametrize("payload", VALID, ids=["status", "get", "submit", "heights", "feed", "hi"])
async def test_near_valid_requests_get_an_answer_or_an_end(payload: bytes) -> None:
    draw = random.Random(payload)
    async with port() as (_, server, connect):
        other = await connect()
        for _ in range(40):
            changed = bytearray(payload)
            for _ in range(draw.randint(1, 3)):
                match draw.randrange(3):
                    case 0:
                        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
                    case 1:
                        del changed[draw.randrange(len(changed)) :]
                    case _:
                        at = draw.randrange(len(changed) + 1)
                        changed[at:at] = draw.randbytes(draw.randint(1, 9))
                if not changed:
                    changed += b"\x80"
            wire = await connect()
            await wire.raw(protocol.frames([bytes(changed)]))
            with trio.move_on_after(30):
                await wire.answer()
            await wire.stream.aclose()
        await trio.sleep(1)
        assert server.sessions == 1
        await alive(other)


@pytest.mark.parametrize(
    ("items", "status"),
    [
        ([(Item.ENVELOPE, b"garbage")], Status.MALFORMED),
        ([(Item.GROUP, b"garbage")], Status.MALFORMED),
        ([(Item.ENVELOPE, codec.encode([b"", [], [[], b""]]))], Status.MALFORMED),
        ([(Item.GROUP, codec.encode([[], 1, 0, [], []]))], Status.MALFORMED),
    ],
)
async def test_submitted_garbage_is_answered_by_item(items: list[Any], status: Status) -> None:
    async with port() as (_, _, connect):
        wire = await connect()
        await wire.send((2, Submit(True, tuple(items))))
        found = await wire.answer()
        assert found is not None
        assert (found.request_id, found.status) == (2, status)
        await alive(wire)


# --- those who do not read ------------------------------------------------------------------------


def waiting_bytes(server: ApiServer) -> int:
    return sum(connection.outbox._bytes for connection in server._connections)


async def test_subscription_that_is_never_read_is_bounded_and_cut() -> None:
    limits = replace(LIMITS, outbound_bytes_max=10_000)
    pair = trio.testing.lockstep_stream_pair
    async with port(limits=limits, pair=pair) as (twin, server, connect):
        for _ in range(60):
            twin.make_block()
        wire = await connect()
        await wire.send((2, Subscribe(Stream.STATEMENTS, 0)))
        begin = trio.current_time()
        most = 0
        while server.sessions and trio.current_time() - begin < 60:
            await trio.sleep(0.5)
            twin.make_block()
            most = max(most, waiting_bytes(server))
        assert server.sessions == 0
        assert trio.current_time() - begin == pytest.approx(LIMITS.send_seconds_max, abs=1)
        assert 5_000 < most < 12_000


async def test_subscriptions_of_one_connection_are_bounded() -> None:
    async with port(limits=replace(LIMITS, subscriptions_max=2)) as (_, _, connect):
        wire = await connect()
        for number in (2, 3, 4):
            await wire.send((number, Subscribe(Stream.STATEMENTS, 0)))
        with trio.fail_after(10):
            while (said := await wire.answer()).request_id != 4:
                assert said.status in (Status.OK, Status.EVENT)
        assert said.status == Status.BUSY


async def test_client_that_asks_and_never_reads_is_no_longer_heard() -> None:
    limits = replace(LIMITS, outbound_bytes_max=10_000)
    pair = trio.testing.lockstep_stream_pair
    async with port(limits=limits, pair=pair) as (_, server, connect):
        wire, other = await connect(), await connect()
        sent = 0
        with trio.move_on_after(10):
            while True:
                await wire.send((2 + sent, GetStatements(-1, 1)))
                sent += 1
        assert 10 < sent < 2000
        assert waiting_bytes(server) < 30_000
        await alive(other)
        await trio.sleep(LIMITS.send_seconds_max)
        assert server.sessions == 1


async def test_receipts_for_one_who_never_reads_are_bounded_by_what_is_in_flight() -> None:
    limits = replace(LIMITS, requests_in_flight_max=20)
    pair = trio.testing.lockstep_stream_pair
    async with port(limits=limits, pair=pair) as (_, server, connect):
        wire = await connect()
        await wire.send((2, Submit(True, envelopes(wire.twin, 1, 20))))
        await wire.send((3, Submit(True, envelopes(wire.twin, 100, 20))))
        await trio.sleep(5)
        decisions = sum(len(each) for b in wire.twin.blocks.values() for each in b.decisions)
        assert len(wire.twin.places) == 20
        assert waiting_bytes(server) < decisions + 10_000
        await trio.sleep(LIMITS.send_seconds_max)
        assert (server.sessions, server.waiting) == (0, 0)


async def test_client_that_breaks_the_protocol_and_reads_nothing_is_gone_in_time() -> None:
    pair = trio.testing.lockstep_stream_pair
    async with port(pair=pair) as (twin, server, connect):
        wire = await connect()
        await wire.send((2, Subscribe(Stream.STATEMENTS, 0)))
        await wire.raw(protocol.frames([b"\xff"]))
        for _ in range(100):
            twin.make_block()
            await trio.sleep(0.2)
        assert server.sessions == 0
