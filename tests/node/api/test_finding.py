"""A client whose server has exchanged its node key learns the committee of now, or says why not.

Real TLS on loopback; the node behind it is the twin, its committees are elected there.
"""

from __future__ import annotations

import datetime
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from comity import Client
from comity.errors import NotReachableError, UnknownNodeError
from consensus.keyfile import KeyKind
from node.network.tls import client_server_context, make_certificate
from tests.comity.test_endings import made
from tests.comity.twin import AGENCIES, OFFICIAL, Twin, key_of, make_genesis

SEEDS = [bytes([11 + each]) * 32 for each in range(4)]
NEW_SEED = bytes([77]) * 32
NEW = make_certificate(NEW_SEED, "north")
STRANGER_SEED = bytes([78]) * 32
STRANGER = make_certificate(STRANGER_SEED, "north")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def founded(first: bytes | None = None) -> Twin:
    """A network whose nodes have real certificates, on ports that nothing listens on yet."""
    certificates = [make_certificate(SEEDS[each], AGENCIES[each]) for each in range(4)]
    shown = [first or certificates[0], *certificates[1:]]
    return Twin(make_genesis(shown, [free_port() for _ in AGENCIES]))


def exchanged(twin: Twin, **more: Any) -> None:
    """North votes on under another node key, from the next epoch on."""
    first, *others = twin.committee.validators
    key = key_of(77, KeyKind.NODE).public
    twin.elect(replace(first, node_key=key, certificate=NEW, **more), *others)
    twin.make_block()


@asynccontextmanager
async def served(
    twin: Twin, index: int, seed: bytes, certificate: bytes, port: int | None = None
) -> AsyncIterator[list[str]]:
    """The node of an agency behind TLS; the methods it was asked for go to the list."""
    server = twin.server(index)
    server.node_key = key_of(seed[0], KeyKind.NODE).public
    context = client_server_context(certificate, seed)

    async def serve(stream: trio.SocketStream) -> None:
        await server.serve(trio.SSLStream(stream, context, server_side=True), "loopback")

    asked: list[str] = []
    async with trio.open_nursery() as nursery:
        at = port or twin.committee.validators[index].client_port
        await nursery.start(trio.serve_tcp, serve, at)
        yield asked
        asked += sorted(method for method, _ in server.requests)
        nursery.cancel_scope.cancel()


def client(twin: Twin, *servers: str, patience: float = 5.0) -> Any:
    data = twin.genesis.encode()
    return Client.connect(data, servers=servers, key=OFFICIAL, patience_seconds=patience)


async def test_a_node_under_a_new_key_is_found_through_itself() -> None:
    """Its chain of committees proves itself, so it may be taken from whoever listens there."""
    twin = founded()
    exchanged(twin)
    async with served(twin, 0, NEW_SEED, NEW), client(twin, "north") as reader:
        assert (await reader.status())["agency"] == "north"
        assert reader.trust.committee == twin.committee
        assert (await reader.get("account", "pot", "a")).present


async def test_a_node_at_a_new_address_is_found_through_another_member() -> None:
    twin = founded()
    exchanged(twin, client_port=free_port())
    async with (
        served(twin, 0, NEW_SEED, NEW),
        served(twin, 2, SEEDS[2], make_certificate(SEEDS[2], "south")) as asked,
        client(twin, "north") as reader,
    ):
        assert (await reader.status())["agency"] == "north"
    assert "committee" in asked
    assert set(asked) <= {"hello", "committee"}, "the other one was asked for committees alone"


async def test_no_key_is_proved_and_nothing_is_believed_of_a_stranger() -> None:
    """Somebody listens at the address, and tells of no newer committee."""
    twin = founded()
    async with served(twin, 0, STRANGER_SEED, STRANGER) as asked:
        async with client(twin, "north", patience=1.0) as reader:
            with pytest.raises(UnknownNodeError) as caught:
                await reader.status()
        assert "shows another certificate than the one that the committee names" in str(
            caught.value
        )
        assert "name another member beside it" in caught.value.hint
        assert caught.value.code == "NOT_REACHABLE"
    assert set(asked) <= {"hello", "committee"}


async def test_a_stranger_where_the_committee_has_moved_on_is_still_a_stranger() -> None:
    twin = founded()
    exchanged(twin)
    async with (
        served(twin, 0, STRANGER_SEED, STRANGER),
        client(twin, "north", patience=1.0) as reader,
    ):
        with pytest.raises(UnknownNodeError):
            await reader.status()
        assert reader.trust.committee.epoch == 2, "what it told is proved"


async def test_a_certificate_that_has_ended_is_said_to_have() -> None:
    now = datetime.datetime.now(datetime.UTC)
    ended = made(SEEDS[0], now - datetime.timedelta(days=1))
    twin = founded(ended)
    async with served(twin, 0, SEEDS[0], ended), client(twin, "north", patience=1.0) as reader:
        with pytest.raises(UnknownNodeError, match="has ended") as caught:
            await reader.status()
        assert "have a new one admitted" in caught.value.hint


async def test_a_certificate_that_has_not_begun_is_laid_to_the_clock() -> None:
    now = datetime.datetime.now(datetime.UTC)
    coming = made(SEEDS[0], now + datetime.timedelta(days=9), now + datetime.timedelta(days=1))
    twin = founded(coming)
    async with served(twin, 0, SEEDS[0], coming), client(twin, "north", patience=1.0) as reader:
        with pytest.raises(
            UnknownNodeError, match="has not begun by this machine's clock"
        ) as caught:
            await reader.status()
        assert "set the clock" in caught.value.hint


async def test_nobody_at_all_is_said_as_before() -> None:
    async with client(founded(), "north", patience=1.0) as reader:
        with pytest.raises(NotReachableError, match="nothing listens there") as caught:
            await reader.status()
        assert not isinstance(caught.value, UnknownNodeError)


async def test_who_is_no_node_is_passed_over() -> None:
    """Another service listens there: without TLS, and with noise for an answer."""
    twin = founded()

    async def noise(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 50)

    async with trio.open_nursery() as nursery:
        port = twin.committee.validators[0].client_port
        await nursery.start(trio.serve_tcp, noise, port)
        async with client(twin, "north", patience=1.0) as reader:
            with pytest.raises(NotReachableError, match="speaks no TLS; is that its port"):
                await reader.status()
        nursery.cancel_scope.cancel()
