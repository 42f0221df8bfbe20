"""Versions of links: two nodes speak the lower minor version; another major one is refused."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from consensus import codec
from consensus.release import VERSION as RELEASE
from node.network import wire
from node.network.framing import pack
from node.network.wire import Refusal
from tests.node.network.harness import (
    CHAIN,
    COMMITTEE,
    address,
    contexts,
    dial,
    node,
    running,
    until,
)


@pytest.mark.parametrize(
    ("dialler", "acceptor", "spoken"), [(1, 1, 1), (0, 1, 0), (1, 0, 0), (3, 1, 1), (1, 3, 1)]
)
async def test_two_nodes_speak_the_lower_minor_version(
    dialler: int, acceptor: int, spoken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire, "MINOR", acceptor)
    late = node(1, [address(COMMITTEE[0], 1)])
    async with running(late) as nursery:
        monkeypatch.setattr(wire, "MINOR", dialler)
        early = node(0, [address(COMMITTEE[1], late.port)])
        await early.start(nursery)
        named = RELEASE if spoken else ""
        assert (await early.connected()).hello.release == named
        assert (await late.connected()).hello.release == named
        assert early.network.stats.peers[1].release == named
        assert late.network.stats.peers[0].release == named
        assert late.network.stats.peers[0].other_version == 0


def hello_of(version: int) -> bytes:
    """A hello of a version of which only the place of its number is known."""
    return bytes([wire.HELLO]) + codec.encode([version, "a thing of that version", []])


async def test_a_node_that_dials_with_another_version_is_told_both_and_counted() -> None:
    here = node(1, [address(COMMITTEE[0], 1)])
    async with running(here):
        stream = await dial(here.port, contexts(COMMITTEE[0]).dial)
        await stream.send_all(pack(hello_of(2)))
        said = b""
        with trio.fail_after(20):
            while data := await stream.receive_some():
                said += data
        await trio.aclose_forcefully(stream)
        refused = wire.decode_refused(said[4:])
        assert refused.reason == Refusal.OTHER_VERSION
        words = f"the peer speaks version 2 of the link protocol, this node 1 (release {RELEASE})"
        assert words in refused.message
        assert "docs/upgrading.md" in refused.hint
        stats = here.network.stats.peers[0]
        await until(lambda: stats.other_version == 1)
        assert stats.last_error == words
        assert not stats.faults  # it is upgraded some time, and not left alone until then


async def test_a_node_that_is_refused_for_its_version_knows_what_to_do() -> None:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    here = node(0, [address(COMMITTEE[1], listener.socket.getsockname()[1])])

    async def newer(tcp: trio.SocketStream) -> None:
        stream = trio.SSLStream(tcp, contexts(COMMITTEE[1]).accept, server_side=True)
        await stream.do_handshake()
        await stream.receive_some()
        text = "the peer speaks version 1 of the link protocol, this node 2 (release 9.0.0)"
        await stream.send_all(pack(wire.encode_refused(Refusal.OTHER_VERSION, text)))
        await stream.aclose()

    async with running(here) as nursery:
        nursery.start_soon(trio.serve_listeners, newer, [listener])
        stats = here.network.stats.peers[1]
        await until(lambda: stats.other_version >= 1)
        assert "OTHER_VERSION: 'the peer speaks version 1" in stats.last_error
        assert "this node 2 (release 9.0.0)" in stats.last_error
        assert not stats.faults


def test_a_hello_names_its_release_only_where_minor_1_is_spoken() -> None:
    hello = wire.Hello(CHAIN, 1, 2, 3, bytes(16), b"x")
    plain = wire.encode_hello(hello)
    assert codec.parse(plain[1:], "hello")[0] == 1
    assert len(codec.parse(plain[1:], "hello")) == 7
    named = wire.Hello(CHAIN, 1, 2, 3, bytes(16), b"x", "0.9.9")
    assert wire.decode_hello(wire.encode_hello(named)) == named
    assert wire.decode_hello(plain) == hello
