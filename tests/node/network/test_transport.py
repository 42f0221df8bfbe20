"""A connected socket, and TLS over it, on loopback."""

from __future__ import annotations

import socket
import struct
from functools import partial

import pytest
import trio
import trio.testing

from node.network.transport import ANSWERS_BYTES_MAX, TlsStream, Transport
from tests.node.network.harness import COMMITTEE, contexts, sockets


async def pair() -> tuple[Transport, Transport]:
    near, far = await sockets()
    return Transport(near), Transport(far)


class Polite(TlsStream):
    """What else trio asks for and nobody here needs: a checkpoint in every send, sizes checked."""

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        if max_bytes is not None and range(max_bytes).stop < 1:
            raise ValueError
        return await super().receive_some(max_bytes)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        await super().send_all(data)


async def secured(cls: type[TlsStream] = TlsStream) -> tuple[TlsStream, TlsStream]:
    near, far = await sockets()
    zero, one = contexts(COMMITTEE[0]), contexts(COMMITTEE[1])
    dialler, acceptor = cls(near, zero.dial), cls(far, one.accept, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(dialler.do_handshake)
        nursery.start_soon(acceptor.do_handshake)
    return dialler, acceptor


async def test_tls_is_all_that_trio_asks_of_a_stream_less_two_formalities() -> None:
    await trio.testing.check_two_way_stream(partial(secured, Polite), None)


async def test_tls_carries_more_than_the_kernel_holds_both_ways_at_once() -> None:
    near, far = await secured()
    data = bytes(range(256)) * 32_768  # 8 MiB

    async def receive(stream: TlsStream) -> None:
        received = bytearray()
        while len(received) < len(data):
            part = await stream.receive_some(50_000)
            assert 0 < len(part) <= 50_000
            received += part
        assert received == data

    async with near, far, trio.open_nursery() as nursery:
        for stream in (near, far):
            nursery.start_soon(stream.send_all, data)
        await trio.testing.wait_all_tasks_blocked()  # the kernel takes no more
        for stream in (near, far):
            nursery.start_soon(receive, stream)


async def test_a_tls_end_that_was_said_is_an_end_every_time() -> None:
    near, far = await secured()
    await near.send_all(b"last words")
    await near.aclose()
    async with far:
        assert await far.receive_some() == b"last words"
        assert await far.receive_some() == b""
        assert await far.receive_some() == b""


async def test_a_connection_that_ends_without_a_word_of_tls_has_ended() -> None:
    near, far = await secured()
    await near.send_all(b"x")
    await near._transport.aclose()
    async with far:
        assert await far.receive_some() == b"x"
        assert await far.receive_some() == b""


async def test_bytes_that_are_no_tls_break_it() -> None:
    near, far = await secured()
    async with near, far:
        await near._transport.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(trio.BrokenResourceError, match="TLS failed"):
            await far.receive_some()


async def test_a_send_that_was_cut_off_is_followed_by_nothing() -> None:
    near, far = await secured()
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(near.send_all, bytes(1 << 24))
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
    encrypted = bytearray()
    async with far:
        while len(encrypted) < 100_000:  # the kernel has room again
            encrypted += await far._transport.receive_some()
        await near.aclose()
        while part := await far._transport.receive_some():
            encrypted += part
    place = 0
    while place + 5 <= len(encrypted):  # RFC 8446, §5.2: type, version, length
        assert encrypted[place : place + 3] == b"\x17\x03\x03"
        place += 5 + int.from_bytes(encrypted[place + 3 : place + 5])
    assert place > len(encrypted)  # the last record is cut, and nothing comes behind it


async def test_answers_to_tls_itself_do_not_pile_up() -> None:
    near, far = await secured()
    far._outgoing.write(bytes(ANSWERS_BYTES_MAX + 1))
    async with near, far:
        await near.send_all(b"x")
        with pytest.raises(trio.BrokenResourceError, match="new keys"):
            await far.receive_some()


async def test_a_closed_tls_stream_neither_receives_nor_sends() -> None:
    near, far = await secured()
    await far.send_all(b"x")
    await near.aclose()
    await near.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await near.receive_some()
    with pytest.raises(trio.ClosedResourceError):
        await near.send_all(b"x")
    await far.aclose()


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
