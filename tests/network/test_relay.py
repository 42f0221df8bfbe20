"""The relays do what the tests of faults rely on: cut, keep, slow, break, mend."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import pytest
import trio

from scripts.ports import free_ports
from tests.network.harness.relay import Relays
from tests.network.harness.soak import joint_slope
from tests.network.wire import LOST

SECONDS_MAX = 20.0
Ends = tuple[socket.socket, Relays, int]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A listening acceptor behind a relay, on which it can be dialled."""
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as acceptor:
        target = acceptor.getsockname()[1]
        with Relays({("near", "far"): (port, target)}) as relays:
            yield acceptor, relays, port


@asynccontextmanager
async def joined(ends: Ends) -> AsyncIterator[tuple[trio.SocketStream, trio.SocketStream]]:
    """Both ends of one connection through the relay."""
    acceptor, _, port = ends
    near = await trio.open_tcp_stream("127.0.0.1", port)
    taken, _ = await trio.to_thread.run_sync(acceptor.accept)
    far = trio.SocketStream(trio.socket.from_stdlib_socket(taken))
    async with near, far:
        with trio.fail_after(SECONDS_MAX):
            yield near, far


async def exactly(stream: trio.SocketStream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = await stream.receive_some(count - len(data))
        assert part, "it ended"
        data += bytes(part)
    return data


async def silent(stream: trio.SocketStream) -> bool:
    """Whether nothing comes, for as long as a loopback would take many times over."""
    with trio.move_on_after(0.05):
        await stream.receive_some(1)
        return False
    return True


async def test_bytes_of_a_way_that_is_cut_wait_and_the_other_way_goes_on(ends: Ends) -> None:
    relays = ends[1]
    async with joined(ends) as (near, far):
        await near.send_all(b"one")
        assert await exactly(far, 3) == b"one"
        relays.cut("near", "far")
        await near.send_all(b"two")
        await far.send_all(b"back")
        assert await exactly(near, 4) == b"back"
        assert await silent(far)
        relays.heal()
        assert await exactly(far, 3) == b"two"
    assert relays.carried_bytes("far", "near") == 4


async def test_nobody_behind_a_cut_hears_that_the_other_has_gone(ends: Ends) -> None:
    relays = ends[1]
    async with joined(ends) as (near, far):
        relays.isolate("near")
        await near.aclose()
        assert await silent(far)
        relays.heal()
        assert await far.receive_some(1) == b""


async def test_a_connection_behind_a_cut_is_taken_and_comes_about_once_it_is_mended(
    ends: Ends,
) -> None:
    acceptor, relays, port = ends
    relays.separate(["near"], ["far"])
    near = await trio.open_tcp_stream("127.0.0.1", port)
    await near.send_all(b"hello")
    acceptor.settimeout(0.05)
    with pytest.raises(TimeoutError):
        acceptor.accept()
    relays.heal()
    acceptor.settimeout(SECONDS_MAX)
    taken, _ = await trio.to_thread.run_sync(acceptor.accept)
    with taken:
        assert await trio.to_thread.run_sync(taken.recv, 5) == b"hello"
    await near.aclose()


async def test_a_slow_way_takes_its_time_and_keeps_order(ends: Ends) -> None:
    relays = ends[1]
    async with joined(ends) as (near, far):
        relays.slow("near", "far", 0.1, 1_000_000)
        begin = trio.current_time()
        for number in range(50):
            await near.send_all(number.to_bytes(2) * 1000)
        whole = b"".join(number.to_bytes(2) * 1000 for number in range(50))
        assert await exactly(far, len(whole)) == whole
        assert trio.current_time() - begin >= 0.1 + 0.9 * len(whole) / 1_000_000 - 0.07


async def test_a_reset_breaks_what_is_open_and_refuses_nothing_new(ends: Ends) -> None:
    async with joined(ends) as (near, far):
        ends[1].reset("near", "far")
        for stream in (near, far):
            with suppress(LOST):
                assert await stream.receive_some(1) == b""
    async with joined(ends) as (near, far):
        await near.send_all(b"again")
        assert await exactly(far, 5) == b"again"


def test_lives_of_one_node_share_a_slope_and_keep_their_levels() -> None:
    first = [(float(x), 50 + 0.5 * x) for x in range(10)]
    second = [(float(x), 90 + 0.5 * x) for x in range(4)]
    slope, covered = joint_slope([first, second])
    assert slope is not None
    assert abs(slope - 0.5) < 1e-9
    assert covered == 12
    assert joint_slope([[(0.0, 1.0), (1.0, 1.0)]]) == (0.0, 1.0)
    assert joint_slope([]) == (None, 0)
