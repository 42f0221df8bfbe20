"""Versions of the client protocol: the lower minor one is spoken, another major one refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from comity import Call, Client, NotReachableError
from comity.errors import OtherVersionError
from comity.pool import dial_tls
from comity.session import Server
from consensus import answers, protocol, release
from consensus.answers import Answer
from consensus.codec import encode
from consensus.protocol import Event, FrameSplitter, Hello, Status
from node.api.limits import ApiLimits
from node.api.server import ApiServer
from node.network.tls import client_server_context, make_certificate
from tests.comity.twin import OFFICIAL, Twin, harness

SEED = bytes([11]) * 32
"""Of the first node key of the twin's committee."""


def speaks(version: int) -> Any:
    """A node that greets in another version, with more than this one knows of a greeting."""

    def lie(answer: Answer) -> list[Answer]:
        if answer.request_id == 0 and answer.result[0] == Event.GREETING:
            result = [answer.result[0], version, "whatever", 7]
            return [replace(answer, result=result)]
        return [answer]

    return lie


async def test_a_client_says_at_once_that_no_node_speaks_its_version() -> None:
    async with harness() as running:
        running.lies = {"north": speaks(2), "east": speaks(2)}
        options = {"servers": ["north", "east"], "patience_seconds": 1e6}
        async with running.client(**options) as client:
            for ask in (client.status, lambda: client.transact(write(), reads=[])):
                with pytest.raises(OtherVersionError) as refused:
                    await ask()
                assert refused.value.message == (
                    "the node of north speaks version 2 of the client protocol, "
                    f"this release ({release.VERSION}) 1"
                )
                assert "docs/upgrading.md" in refused.value.hint


def write() -> Call:
    return Call("notes", "write", {"number": 1, "text": "hello", "amount": 5})


async def test_a_client_uses_the_nodes_that_speak_its_version() -> None:
    async with harness() as running:
        running.lies = {"north": speaks(2)}
        async with running.client(servers=["north", "east"]) as client:
            assert await client.status()
            running.down.add("east")
            running.cut()
            with pytest.raises(NotReachableError, match="north speaks version 2"):
                await client.status()


async def test_a_node_refuses_a_client_of_another_version_in_words_and_counts_it() -> None:
    async with harness() as running:
        server = running.servers["north"]
        ours, theirs = trio.testing.memory_stream_pair()
        running.nursery.start_soon(server.serve, theirs, "memory")
        hello = encode([1, "hello", [2, "another shape", None, [1, 2]]])
        await ours.send_all(protocol.frames([hello]))
        splitter, found = FrameSplitter(protocol.ANSWER_BYTES_MAX), list[Answer]()
        while data := await ours.receive_some():
            found += [answers.decode_answer(each) for each in splitter.feed(bytes(data))]
        greeting, refused = found
        assert answers.read_greeting(greeting.result).version == 1
        assert refused.status == Status.UNSUPPORTED
        problem = answers.read_problem(refused.result)
        assert problem.message == (
            "the client speaks version 2 of the client protocol, this node 1 "
            f"(release {release.VERSION})"
        )
        assert "docs/upgrading.md" in problem.hint
        assert server.cut["version"] == 1
        assert not server.greeted


@pytest.mark.parametrize(
    ("ours", "theirs", "spoken"), [(1, 1, 1), (0, 1, 0), (1, 0, 0), (3, 1, 1), (1, 3, 1), (3, 2, 2)]
)
async def test_two_sides_speak_the_lower_minor_version(
    ours: int, theirs: int, spoken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    twin = Twin()
    certificate = make_certificate(SEED, "north")
    monkeypatch.setattr(protocol, "MINOR", theirs)
    context = client_server_context(certificate, SEED)
    key = twin.committee.validators[0].node_key
    server = ApiServer(twin, twin.chain, key, ApiLimits(), context, bytes)
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    monkeypatch.setattr(protocol, "MINOR", ours)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(twin.run)
        nursery.start_soon(server.run, [listener])
        near = Server("north", "127.0.0.1", port, key, certificate)
        async with Client.connect(
            twin.genesis.encode(), servers=[near], key=OFFICIAL, dial=dial_tls
        ) as client:
            assert await client.status()
            [place] = client._network._pool._places
            assert place.session is not None
            assert place.session.release == (release.VERSION if spoken else "")
        assert dict(server.greeted) == {spoken: 1}
        nursery.cancel_scope.cancel()


def test_a_hello_of_another_version_is_read_by_its_number_alone() -> None:
    payload = encode([5, "hello", [9, b"x", [True]]])
    assert protocol.decode_request(payload) == (5, Hello(9, b""))
    for params in ([], [True], ["1"], [1], [1, bytes(32), None, ""], [1, bytes(32), None, "1", 2]):
        with pytest.raises(protocol.BadParams):
            protocol.decode_request(encode([5, "hello", params]))


def test_what_is_offered_is_all_that_is_spoken_the_best_first() -> None:
    assert release.alpn("p", 2, 3) == ["p/2.3", "p/2.2", "p/2.1"]
    assert release.alpn("p", 2, 0) == []
    assert [release.minor_of(each) for each in (None, "p/2.1", "p/2.12")] == [0, 1, 12]
