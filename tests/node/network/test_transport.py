"""The stream below TLS, on loopback sockets."""

from __future__ import annotations

import socket
import struct

import pytest
import trio
import trio.testing

from node.network.tls import SSLStream
from node.network.transport import Transport
from tests.node.network.harness import COMMITTEE, contexts


async def sockets() -> tuple[trio.SocketStream, trio.SocketStream]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with listener:
        near = await trio.open_tcp_stream("127.0.0.1", listener.socket.getsockname()[1])
        return near, await listener.accept()


async def pair() -> tuple[Transport, Transport]:
    near, far = await sockets()
    return Transport(near), Transport(far)


async def secured() -> tuple[SSLStream, SSLStream]:
    near, far = await pair()
    zero, one = contexts(COMMITTEE[0]), contexts(COMMITTEE[1])
    return trio.SSLStream(near, zero.dial), trio.SSLStream(far, one.accept, server_side=True)


async def test_tls_over_it_is_all_that_trio_asks_of_a_stream() -> None:
    await trio.testing.check_two_way_stream(secured, None)


async def test_more_than_the_kernel_holds_arrives_whole() -> None:
    near, far = await pair()
    data = bytes(range(256)) * 65_536  # 16 MiB
    received = bytearray()
    async with near, far, trio.open_nursery() as nursery:
        nursery.start_soon(near.send_all, data)
        await trio.testing.wait_all_tasks_blocked()  # the kernel takes no more
        while len(received) < len(data):
            part = await far.receive_some(100_000)
            assert 0 < len(part) <= 100_000
            received += part
    assert received == data


async def test_an_ended_stream_gives_nothing_every_time() -> None:
    near, far = await pair()
    async with far:
        await near.aclose()
        assert await far.receive_some() == b""
        assert await far.receive_some() == b""


async def test_a_reset_breaks_it_both_ways() -> None:
    near, far = await sockets()
    stream = Transport(far)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    near.socket.close()
    async with stream:
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


async def test_closing_wakes_who_waits_and_refuses_who_comes() -> None:
    near, far = await pair()
    woken: list[str] = []

    async def receive() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await near.receive_some()
        woken.append("receiver")

    async def send() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await near.send_all(bytes(1 << 24))
        woken.append("sender")

    async with far, trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        nursery.start_soon(send)
        await trio.testing.wait_all_tasks_blocked()
        await near.aclose()
    assert sorted(woken) == ["receiver", "sender"]
    await near.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await near.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")


async def test_frames_are_sent_at_once_as_the_stream_it_took_over_would() -> None:
    near, far = await sockets()
    async with Transport(near), Transport(far) as stream:
        delay = stream._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert delay == 1
