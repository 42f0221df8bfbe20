"""Burdens within the rules, at each port: who brings them is limited and counted, others go on.

Nothing here is timed but by the product's own limits; what rate others keep is measured by
``scripts/bench hostile``, with the same attacks (``harness.siege``).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import trio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from comity import Call, tls
from consensus import genesis
from consensus.keyfile import KeyKind
from scripts.localnet import LocalNetwork
from tests.network.guest import guest
from tests.network.harness.certificates import ending_certificate
from tests.network.harness.siege import Siege
from tests.network.town import WALLETS, client, eventually, memory_bytes, metric, pair
from tests.network.wire import LOST

pytestmark = pytest.mark.process

VICTIM = "treasury"
CUT = {
    "clients": "comity_client_cut_total",
    "peers": "comity_peer_strangers_total",
    "telemetry": "comity_telemetry_cut_total",
}
GROWTH_BYTES_MAX = 96 << 20
"""Of the victim, in each test; the limits that docs/operating.md adds up allow for more."""
ROUNDS = 5
"""Payments that are decided under each attack."""
STRANGERS = 200
"""More than the peer port holds (128) before they are known."""
SCRAPERS = 100
"""More than the telemetry port holds (64)."""


async def cut(town: LocalNetwork, port: str, reason: str) -> float:
    """How many connections a port has cut for a reason."""
    return await metric(town, VICTIM, CUT[port], reason=reason)


@asynccontextmanager
async def besieged(
    town: LocalNetwork, attack: Callable[[], Awaitable[None]]
) -> AsyncIterator[None]:
    """Attack for the length of the block; the victim grows by a bounded amount."""
    before = memory_bytes(town, VICTIM)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(attack)
        yield
        nursery.cancel_scope.cancel()
    assert memory_bytes(town, VICTIM) - before < GROWTH_BYTES_MAX


async def paid(town: LocalNetwork, *agencies: str) -> None:
    """Honest payments are decided, at other nodes and at the victim."""
    call = Call("desk", "pay", {"source": WALLETS + 8, "target": WALLETS + 9, "amount": 1})
    for agency in agencies or ("registry", VICTIM):
        async with client(town, agency, key=town.key("treasury", "clerk1")) as honest:
            for _ in range(ROUNDS):
                assert (await honest.transact(call)).applied


async def more(town: LocalNetwork, port: str, reason: str, before: float, by: int = 1) -> None:
    """Wait until so many more are counted."""

    async def counted() -> bool:
        return await cut(town, port, reason) >= before + by

    await eventually(counted, f"{port}: {reason} is counted {by} times more")


async def test_whoever_is_thrown_out_in_the_midst_of_several_tasks_comes_again(
    town: LocalNetwork,
) -> None:
    siege, times = Siege(town, VICTIM, []), 0
    with trio.fail_after(5), trio.CancelScope() as scope:

        async def one() -> None:
            nonlocal times
            times += 1
            if times == 3:
                scope.cancel()
            async with trio.open_nursery():
                raise trio.BrokenResourceError("thrown out")

        await siege.crowd(1, one)
    assert times == 3


async def test_more_connections_than_an_address_may_have_are_counted_and_cut(
    town: LocalNetwork,
) -> None:
    before = [await cut(town, "clients", reason) for reason in ("crowded", "handshake")]
    siege = Siege(town, VICTIM, [])
    async with besieged(town, siege.silent):
        await more(town, "clients", "crowded", before[0], 10)
        await more(town, "clients", "handshake", before[1], 10)  # those who got in said nothing
        await paid(town)


async def test_senders_of_half_a_frame_are_cut_and_counted(town: LocalNetwork) -> None:
    before = await cut(town, "clients", "slow")
    async with guest(town, VICTIM) as g:
        await g.greet()
        await g.send((1000).to_bytes(4))

        async def drip() -> None:
            while True:
                await g.send(b"\x80")
                await trio.sleep(0.5)

        async with besieged(town, drip):
            await paid(town)
            while (await g.answer()) is not None:
                pass
    await more(town, "clients", "slow", before)


async def test_strangers_at_the_peer_port_displace_each_other_and_are_counted(
    town: LocalNetwork,
) -> None:
    before = {why: await cut(town, "peers", why) for why in ("evicted", "failed")}
    siege = Siege(town, VICTIM, [])

    async def half_open() -> None:
        async with await siege.tcp(town.member(VICTIM).peer_port) as stream:
            await stream.receive_some()

    async with besieged(town, lambda: siege.crowd(STRANGERS, half_open)):
        await more(town, "peers", "evicted", before["evicted"], 10)
        town.kill("registry")  # whose link must be made anew, past all these
        town.start("registry")
        await trio.to_thread.run_sync(town.wait_ready, "registry")

        async def linked() -> bool:
            return await metric(town, VICTIM, "comity_peers_connected") == 3

        await eventually(linked, "the member gets its link among the strangers")
    async with besieged(town, siege.strangers):
        await more(town, "peers", "failed", before["failed"], 10)
        await paid(town)


async def test_the_metrics_port_holds_few_and_goes_on_telling(town: LocalNetwork) -> None:
    port = town.member(VICTIM).telemetry_port
    before = await cut(town, "telemetry", "evicted")
    siege = Siege(town, VICTIM, [])

    async def begin() -> None:
        async with await siege.tcp(port) as stream:
            await stream.send_all(b"GET /metrics HTTP/1.1\r\nX: ")
            await stream.receive_some()

    async with besieged(town, lambda: siege.crowd(SCRAPERS, begin)):
        await more(town, "telemetry", "evicted", before, 10)
        await paid(town)
    async with await siege.tcp(port) as stream:
        await stream.send_all(b"GET /livez HTTP/1.0\r\nHost: x\r\n\r\n")
        assert b" 200 " in bytes(await stream.receive_some())


async def test_neither_older_tls_nor_tickets_nor_early_data_nor_a_second_hello(
    town: LocalNetwork,
) -> None:
    member = town.member(VICTIM)
    committee = genesis.decode(town.genesis).committee
    certificate = committee.validators[town.agencies.index(VICTIM)].certificate
    before = await cut(town, "clients", "handshake")
    refused = 0
    for port in (member.client_port, member.peer_port):
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        async with await trio.open_tcp_stream("127.0.0.1", port) as tcp:
            with pytest.raises(trio.BrokenResourceError):
                await trio.SSLStream(tcp, old).do_handshake()
        refused += port == member.client_port
        hello = first_flight()
        early = b"\x17\x03\x03\x00\x20" + bytes(32)  # application data before any key is agreed
        for data in (hello + early, hello + hello):
            async with await trio.open_tcp_stream("127.0.0.1", port) as tcp:
                await tcp.send_all(data)
                with trio.fail_after(20), suppress(*LOST):
                    while await tcp.receive_some():
                        pass
            refused += port == member.client_port
    await more(town, "clients", "handshake", before, refused)
    context = tls.client_context([certificate])
    tcp = await trio.open_tcp_stream("127.0.0.1", member.client_port)
    stream = trio.SSLStream(tcp, context, https_compatible=True)
    await stream.do_handshake()
    await stream.receive_some()  # the greeting, and before it whatever tickets there were
    session = stream.session
    assert stream.version() == "TLSv1.3"
    assert session is None or not session.has_ticket
    await tcp.send_all(first_flight())  # in the clear, amid what is encrypted
    with trio.fail_after(20), suppress(*LOST):
        while await stream.receive_some():
            pass
    await trio.aclose_forcefully(stream)
    await paid(town)


def first_flight() -> bytes:
    """A client's hello as it would be sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    sent = ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), sent).do_handshake()
    return sent.read()


@pytest.mark.parametrize("days", [-1, 365])
async def test_a_members_key_under_another_certificate_is_nobody_expired_or_not(
    town: LocalNetwork, tmp_path_factory: pytest.TempPathFactory, days: int
) -> None:
    stolen = pair(town, "registry", "node", KeyKind.NODE)
    key = Ed25519PrivateKey.from_private_bytes(stolen.seed)
    shown = ending_certificate(stolen.seed, "registry", days=days)
    text = ssl.DER_cert_to_PEM_cert(shown).encode()
    text += key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = tmp_path_factory.mktemp("identity") / "identity.pem"
    path.write_bytes(text)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(path)
    before = await cut(town, "peers", "failed")
    tcp = await trio.open_tcp_stream("127.0.0.1", town.member(VICTIM).peer_port)
    stream = trio.SSLStream(tcp, context)
    with trio.fail_after(20), suppress(*LOST):
        await stream.do_handshake()
        assert await stream.receive_some() == b"", "the peer port answered"
    await trio.aclose_forcefully(stream)
    await more(town, "peers", "failed", before)

    # The same certificate as a server's: a client turns away before it has said who it is.
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(path)
    heard: list[bytes] = []

    async def pretend(tcp: trio.SocketStream) -> None:
        with suppress(*LOST):
            stream = trio.SSLStream(tcp, server, server_side=True)
            heard.append(bytes(await stream.receive_some()))

    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, pretend, listeners)
        port = listeners[0].socket.getsockname()[1]
        committee = genesis.decode(town.genesis).committee
        trusted = tls.client_context([each.certificate for each in committee.validators])
        client_side = trio.SSLStream(await trio.open_tcp_stream("127.0.0.1", port), trusted)
        with pytest.raises(trio.BrokenResourceError):
            await client_side.do_handshake()
        await trio.aclose_forcefully(client_side)
        nursery.cancel_scope.cancel()
    assert not any(heard)
