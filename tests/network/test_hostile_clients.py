"""Clients that break the protocol, ask for what is not theirs, or only want to be a burden.

Each breach is answered and ends its connection; each burden has a bound; and an honest client at
another address is served all the while.
"""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Sequence

import pytest
import trio

from comity import Call, Client
from comity.keys import Key
from consensus import answers, codec
from consensus.codec import Value
from consensus.protocol import GetDecisions, GetStatus, Hello, Item, Status, Submit
from node.network.framing import pack
from scripts.localnet import LocalNetwork
from tests.network.guest import ELSEWHERE, guest
from tests.network.town import (
    PATIENCE_SECONDS,
    WALLETS,
    agreed,
    client,
    eventually,
    memory_bytes,
    metric,
)
from tests.network.wire import LOST

pytestmark = pytest.mark.process

VICTIM = "treasury"
CONNECTIONS = 1000
PER_ADDRESS = 256
FILES = 300
"""Open files that a starved node may have: fewer than its limits of connections would take."""
GROWTH_BYTES_MAX = 64 << 20


def of(value: Value) -> bytes:
    """A frame of any value."""
    return pack(codec.encode(value))


BEFORE_HELLO: dict[str, tuple[bytes, Status]] = {
    "garbage": (pack(b"\xff\xfe\xfd" * 100), Status.MALFORMED),
    "an empty frame": (bytes(4), Status.MALFORMED),
    "a length beyond the limit": (b"\x7f\xff\xff\xff" + bytes(100), Status.MALFORMED),
    "deep nesting": (pack(b"\x81" * 4000), Status.MALFORMED),
    "a request before hello": (of([1, "status", []]), Status.DENIED),
    "another network": (of([1, "hello", [1, bytes(32), None]]), Status.WRONG_CHAIN),
    "a key of nought": (of([1, "hello", [1, bytes(32), [bytes(32), b""]]]), Status.MALFORMED),
}
AFTER_HELLO: dict[str, tuple[bytes, Status, bool]] = {
    "garbage": (pack(b"\x83\x01"), Status.MALFORMED, True),
    "hello again": (of([2, "hello", [1, bytes(32), None]]), Status.MALFORMED, True),
    "a long head": (pack(b"\x98\x03\x02\x66status\x80"), Status.MALFORMED, True),
    "a map for params": (pack(b"\x83\x02\x66status\xa0"), Status.MALFORMED, True),
    "id nought": (of([0, "status", []]), Status.MALFORMED, True),
    "too many params": (of([2, "status", [1]]), Status.MALFORMED, True),
    "more items than allowed": (
        of([2, "submit", [True, [[0, b"x"]] * 1025]]),
        Status.MALFORMED,
        True,
    ),
    "a length beyond the limit": ((1 << 20 | 1).to_bytes(4) + bytes(9), Status.MALFORMED, True),
    "an unknown method": (of([2, "reboot", []]), Status.UNSUPPORTED, False),
    "a submission of an anonymous": (of([2, "submit", [True, [[0, b"x"]]]]), Status.DENIED, False),
    "a read of an anonymous": (of([2, "get", [0, [["pool", []]]]]), Status.DENIED, False),
    "a list of an anonymous": (of([2, "list", ["note", None, 10]]), Status.DENIED, False),
}
"""What is sent, how it is answered, and whether the connection ends."""


async def test_breaches_before_hello_are_answered_and_end_the_connection(
    town: LocalNetwork,
) -> None:
    key = town.key("treasury", "clerk1")
    for name, (data, status) in BEFORE_HELLO.items():
        async with guest(town, VICTIM) as g:
            await g.send(data)
            said = await g.answer()
            assert said is not None, name
            assert said.status == status, (name, said)
            assert await g.answer() is None, name
    for status in (Status.BAD_SIGNATURE, Status.UNSUPPORTED):
        async with guest(town, VICTIM) as g:
            if status is Status.BAD_SIGNATURE:
                await g.request(g.hello(key, nonce=bytes(32)))  # proves another connection
            else:
                await g.request(Hello(99, g.chain))
            said = await g.answer()
            assert said is not None
            assert said.status == status
            assert await g.answer() is None
    port = town.member(VICTIM).client_port
    async with await trio.open_tcp_stream("127.0.0.1", port, local_address=ELSEWHERE) as plain:
        await plain.send_all(b"GET / HTTP/1.1\r\n\r\n")
        with trio.fail_after(10), contextlib.suppress(*LOST):
            while await plain.receive_some():
                pass


async def test_breaches_after_hello_are_answered_and_only_the_malformed_end_the_connection(
    town: LocalNetwork,
) -> None:
    for name, (data, status, ends) in AFTER_HELLO.items():
        async with guest(town, VICTIM) as g:
            await g.greet()
            await g.send(data)
            said = await g.answer()
            assert said is not None, name
            assert said.status == status, (name, said)
            if ends:
                assert await g.answer() is None, name
            else:
                await g.request(GetStatus(), 3)
                again = await g.answer()
                assert again is not None, name
                assert (again.request_id, again.status) == (3, Status.OK)


async def test_rubbish_submitted_by_a_clerk_is_refused_item_by_item(town: LocalNetwork) -> None:
    rubbish = [b"x", bytes(1000), b"\x81" * 5000, b"\x83\x40\x80\x80", b"\xff" * 100]
    async with guest(town, VICTIM) as g:
        await g.greet(town.key("treasury", "clerk1"))
        await g.request(Submit(True, tuple((Item.ENVELOPE, each) for each in rubbish)), 2)
        items = set()
        for _ in rubbish:
            said = await g.answer()
            assert said is not None
            assert (said.request_id, said.status) == (2, Status.MALFORMED)
            items.add(answers.read_problem(said.result).item)
        assert items == set(range(len(rubbish)))


async def test_burdens_are_bounded_while_an_honest_client_is_served(town: LocalNetwork) -> None:
    before = memory_bytes(town, VICTIM)
    clerk = town.key("treasury", "clerk1")
    async with client(town, VICTIM, key=clerk) as honest, trio.open_nursery() as nursery:
        await pay(honest)
        begun = trio.current_time()
        nursery.start_soon(slow_writer, town)
        nursery.start_soon(never_reading, town, clerk)
        await crowd(town, [ELSEWHERE], CONNECTIONS, honest)
        for _ in range(5):
            await pay(honest)
        assert memory_bytes(town, VICTIM) - before < GROWTH_BYTES_MAX
        await quiet(town)
        await pay(honest)
        assert trio.current_time() - begun < PATIENCE_SECONDS
    assert memory_bytes(town, VICTIM) - before < GROWTH_BYTES_MAX


async def test_a_node_without_free_files_goes_on_and_serves_again(town: LocalNetwork) -> None:
    pid = town.processes[VICTIM].pid
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    async with client(town, VICTIM, key=town.key("treasury", "clerk1")) as honest:
        await pay(honest)
        height, _ = await agreed(town)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (FILES, limits[1]))
        try:
            await crowd(town, ["127.0.0.3", "127.0.0.4"], 500, honest)
        finally:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        await agreed(town, height=height + 1)
        await quiet(town)
        await pay(honest)


async def pay(honest: Client) -> None:
    call = Call("desk", "pay", {"source": WALLETS + 4, "target": WALLETS + 5, "amount": 1})
    assert (await honest.transact(call)).applied


async def crowd(town: LocalNetwork, addresses: Sequence[str], count: int, honest: Client) -> None:
    """Open connections that say nothing, and have the honest one served meanwhile."""
    port = town.member(VICTIM).client_port
    opened: list[trio.SocketStream] = []
    try:
        for number in range(count):
            address = addresses[number % len(addresses)]
            with contextlib.suppress(OSError):
                with trio.move_on_after(1):
                    opened.append(
                        await trio.open_tcp_stream("127.0.0.1", port, local_address=address)
                    )
            if number % 250 == 249:
                await pay(honest)
        sessions = await metric(town, VICTIM, "comity_client_sessions")
        assert sessions <= PER_ADDRESS * len(addresses) + 8
    finally:
        for each in opened:
            await trio.aclose_forcefully(each)


async def quiet(town: LocalNetwork) -> None:
    """Wait until only honest clients are left."""

    async def few() -> bool:
        return await metric(town, VICTIM, "comity_client_sessions") <= 4

    await eventually(few, "the hostile connections are gone")


async def slow_writer(town: LocalNetwork) -> None:
    """Half a frame, and then nothing, until the node has had enough."""
    async with guest(town, VICTIM) as g:
        await g.greet()
        await g.send((1000).to_bytes(4) + bytes(10))
        while await g.answer() is not None:
            pass


async def never_reading(town: LocalNetwork, key: Key) -> None:
    """Everything is asked for, again and again, and no answer is read."""
    async with guest(town, VICTIM, "127.0.0.5") as g:
        await g.greet(key)
        with trio.move_on_after(5):
            for number in range(2, 100_000):
                await g.request(GetDecisions(1, 64), number)
