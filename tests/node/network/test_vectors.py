"""Fixed bytes of the frames between nodes, against the written format, the CDDL and the product.

The vectors were written with cbor2 and struct alone. Changing one needs an ADR.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest
import trio
import trio.testing

from consensus.errors import DecodeError
from consensus.hotstuff import wire as consensus_wire
from node import batch_wire
from node.batch_wire import Absent, Announce, Push, Request, Response
from node.network import errors, wire
from node.network.framing import FrameReader, pack
from node.network.introduction import introduce
from node.network.link import Link, LinkLimits
from node.network.outbound import Outbound
from node.network.stats import LinkStats
from node.network.wire import Class, Hello, Refusal

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (ROOT / "tests" / "vectors" / "links.json").read_text()
)
H = bytes.fromhex
FRAME_BYTES_MAX = 4 * 2**20 + 1
BATCH_BYTES_MAX = 2**20


def plain(value: Any) -> Any:
    """What a vector's JSON stands for: ``h:…`` is hex of bytes."""
    if isinstance(value, str) and value.startswith("h:"):
        return H(value[2:])
    return [plain(item) for item in value] if isinstance(value, list) else value


def rows(*kinds: int) -> pytest.MarkDecorator:
    chosen = [row for row in VECTORS["frames"] if not kinds or row["kind"] in kinds]
    return pytest.mark.parametrize("row", chosen, ids=lambda row: row["name"])


def frame_of(name: str) -> bytes:
    [row] = [row for row in VECTORS["frames"] if row["name"] == name]
    return H(row["frame"])


def payload_of(row: dict[str, Any]) -> bytes:
    return bytes([row["kind"]]) + H(row["body"])


def grammar(name: str) -> str:
    text = (ROOT / "docs" / "protocol" / name).read_text()
    if name.endswith(".md"):
        [text] = re.findall(r"```cddl\n(.*?)```", text, re.DOTALL)
    return text


# --- the bytes --------------------------------------------------------------------------------


@rows()
def test_a_frame_is_length_kind_and_body(row: dict[str, Any]) -> None:
    body = H(row["body"])
    expected = (1 + len(body)).to_bytes(4, "big") + bytes([row["kind"]]) + body
    assert H(row["frame"]) == expected
    assert pack(payload_of(row)) == expected


@rows()
def test_a_body_is_the_plain_encoding_of_its_value_and_fits_the_grammar(
    row: dict[str, Any],
) -> None:
    body = H(row["body"])
    if "value" in row:
        assert cbor2.dumps(plain(row["value"]), canonical=True) == body
    if "rule" in row:
        schema = pycddl.Schema(f"root = {row['rule']}\n{grammar(row['grammar'])}")
        schema.validate_cbor(body)
    else:
        assert len(body) == {2: 16, 4: 8, 5: 8}[row["kind"]]


def test_every_kind_has_a_vector() -> None:
    found = {row["kind"] for row in VECTORS["frames"]}
    assert found == {1, 2, 3, 4, 5, 16, 17, 18}
    reasons = [row["value"][0] for row in VECTORS["frames"] if row["kind"] == 3]
    assert reasons == [int(reason) for reason in Refusal]
    batches = {row["value"][0] for row in VECTORS["frames"] if row["name"].startswith("batch")}
    assert batches == {64, 65, 66, 67, 68}


# --- the product ------------------------------------------------------------------------------


@rows(wire.HELLO)
def test_hello_is_written_and_read(row: dict[str, Any]) -> None:
    hello = Hello(*plain(row["value"])[1:])
    assert wire.encode_hello(hello) == payload_of(row)
    assert wire.decode_hello(payload_of(row)) == hello


@rows(wire.REFUSED)
def test_a_refusal_is_written_and_read(row: dict[str, Any]) -> None:
    reason, text = row["value"]
    assert wire.encode_refused(reason, text) == payload_of(row)
    found = wire.decode_refused(payload_of(row))
    assert (found.reason, found.by_peer) == (reason, True)
    assert repr(text) in found.message
    assert row["name"] == f"refused, {Refusal(reason).name}"


BATCH_MESSAGES: dict[int, Callable[..., batch_wire.BatchMessage]] = {
    64: lambda public, private: Push(public, private),
    65: lambda digests: Request(tuple(digests)),
    66: lambda public, private: Response(public, private),
    67: lambda digests: Absent(tuple(digests)),
    68: lambda counts, digests: Announce(tuple(counts), tuple(digests)),
}


@rows(Class.BATCH, Class.SYNC, Class.CONSENSUS)
def test_a_message_is_written_and_read(row: dict[str, Any]) -> None:
    body = H(row["body"])
    if row["name"].startswith("batch"):
        kind, *rest = plain(row["value"])
        message = BATCH_MESSAGES[kind](*rest)
        assert batch_wire.encode(message) == body
        assert batch_wire.decode(body, BATCH_BYTES_MAX) == message
    else:
        assert consensus_wire.encode_message(consensus_wire.decode_message(body)) == body


@rows(Class.BATCH, Class.SYNC, Class.CONSENSUS)
def test_a_link_sends_a_message_as_its_frame(row: dict[str, Any]) -> None:
    outbound = Outbound(LinkLimits().queues, LinkStats().by_class)
    assert outbound.offer(Class(row["kind"]), H(row["body"]))
    assert outbound.take() == H(row["frame"])


def test_a_node_sends_pings_before_all_else_and_consensus_before_batches_before_sync() -> None:
    names = ("batch absent", "batch push", "a vote")
    outbound = Outbound(LinkLimits().queues, LinkStats().by_class)
    for name in names:
        frame = frame_of(name)
        assert outbound.offer(Class(frame[4]), frame[5:])
    outbound.offer_control(wire.PING, frame_of("ping")[5:])
    expected = b"".join(frame_of(name) for name in ("ping", *reversed(names)))
    assert outbound.take() == expected


async def test_a_link_delivers_every_message_and_answers_the_ping() -> None:
    near, far = trio.testing.memory_stream_pair()
    dialled = VECTORS["introduction"]
    link: list[Link] = []

    async def accept() -> None:
        link.append(await introduce(near, 0, HELLOS[1], LinkLimits(), LinkStats(), dialled=False))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(accept)
        await far.send_all(H(dialled[0]["bytes"]) + H(dialled[2]["bytes"]))
    data = [row for row in VECTORS["frames"] if row["kind"] >= 16]
    await far.send_all(b"".join(H(row["frame"]) for row in data) + frame_of("ping"))
    received: list[tuple[int, Class, bytes]] = []

    sent = bytearray()
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(link[0].run, lambda *frame: received.append(frame))
            while frame_of("pong") not in sent:
                sent += await far.receive_some()
            nursery.cancel_scope.cancel()
    assert received == [(0, Class(row["kind"]), H(row["body"])) for row in data]
    assert sent.startswith(H(dialled[1]["bytes"]))
    rest = bytes(sent[len(H(dialled[1]["bytes"])) :])
    assert rest.replace(frame_of("ping"), b"").replace(frame_of("pong"), b"") == b""


def hello_in(data: bytes) -> Hello:
    """The hello at the start of a stream, taken apart by hand."""
    size = int.from_bytes(data[:4], "big")
    _version, chain, epoch, height, index, nonce, extras = cbor2.loads(data[5 : 4 + size])
    return Hello(chain, epoch, height, index, nonce, extras)


HELLOS = [hello_in(H(VECTORS["introduction"][number]["bytes"])) for number in (0, 1)]


@pytest.mark.parametrize("dialled", [True, False], ids=["dialer", "acceptor"])
async def test_an_introduction_is_these_bytes(dialled: bool) -> None:
    ours, theirs = (("dialer", "acceptor"), ("acceptor", "dialer"))[not dialled]
    near, far = trio.testing.memory_stream_pair()
    steps = VECTORS["introduction"]
    expected = b"".join(H(step["bytes"]) for step in steps if step["from"] == ours)
    await far.send_all(b"".join(H(step["bytes"]) for step in steps if step["from"] == theirs))
    own, peer = (0, 1) if dialled else (1, 0)
    link = await introduce(near, peer, HELLOS[own], LinkLimits(), LinkStats(), dialled=dialled)
    assert link.hello == HELLOS[peer]
    await near.aclose()
    sent = b""
    while data := await far.receive_some():
        sent += data
    assert sent == expected


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize("row", VECTORS["malformed"], ids=lambda row: row["name"])
async def test_a_malformed_stream_is_refused(row: dict[str, Any]) -> None:
    near, far = trio.testing.memory_stream_pair()
    await far.send_all(H(row["bytes"]))
    await far.send_eof()
    reader = FrameReader(near, FRAME_BYTES_MAX, frame_seconds_max=20)
    with pytest.raises(getattr(errors, row["why"])):
        await reader.read()


@pytest.mark.parametrize("row", VECTORS["not_hello"], ids=lambda row: row["name"])
def test_what_is_near_a_hello_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        wire.decode_hello(b"\x01" + H(row["body"]))
