"""What comes over the links between nodes: the frames, introductions, batches, snapshots and sealed
values. Messages of consensus are ``message``, blocks on request ``block``.
"""

from __future__ import annotations

from consensus import codec
from consensus.errors import DecodeError
from node import batch_wire
from node.network import wire
from node.network.errors import FrameError, LinkRefused
from node.network.framing import FrameReader
from node.sealed import wire as sealed_wire
from node.snapshots import wire as snapshot_wire
from tests.fuzz.target import Target, of, vectors

LINKS, SNAPSHOT, TRANSACTION = vectors("links"), vectors("snapshot"), vectors("transaction")
FRAMES = of(LINKS["frames"], "frame")
HELLO = [data[4:] for data in FRAMES if data[4] in (wire.HELLO, wire.REFUSED)]
BATCH_BYTES_MAX = 4096
CUT = 5


def link_frames(data: bytes) -> None:
    """A stream of frames, in one receive and in pieces: the same payloads."""
    whole = _cut(data, len(data) or 1)
    assert _cut(data, CUT) == whole, "pieces of a stream are read otherwise than the whole"


def _cut(data: bytes, size: int) -> list[bytes]:
    reader = FrameReader(None, 2**20, 1.0)  # type: ignore[arg-type]  # nothing is received here
    return [
        payload
        for at in range(0, len(data), size)
        for payload in reader._feed(data[at : at + size])
    ]


def introduction(data: bytes) -> None:
    if data[:1] == bytes([wire.REFUSED]):
        found = wire.decode_refused(data)
        assert len(found.message) < 4 * wire.REFUSED_BYTES_MAX, "a peer's words are too long"
        return
    hello = wire.decode_hello(data)
    assert wire.encode_hello(hello)[1:] == data[1:], "accepted, but not the canonical bytes"


def batch_message(data: bytes) -> None:
    found = batch_wire.decode(data, BATCH_BYTES_MAX)
    assert batch_wire.encode(found) == data, "accepted, but not the canonical bytes"


def snapshot_message(data: bytes) -> None:
    found = snapshot_wire.decode(data)
    assert snapshot_wire.encode(found) == data, "accepted, but not the canonical bytes"


def sealed_message(data: bytes) -> None:
    found = sealed_wire.decode(data)
    assert sealed_wire.encode(found) == data, "accepted, but not the canonical bytes"


def sealed_messages() -> list[bytes]:
    row = TRANSACTION["sealed"][0]
    opening = codec.parse(bytes.fromhex(row["opening"]), "opening")
    return [
        codec.encode([sealed_wire.KIND_WANTED, [bytes.fromhex(row["commitment"])]]),
        codec.encode([sealed_wire.KIND_GIVEN, [opening]]),
    ]


TARGETS = [
    Target("link-frames", link_frames, FRAMES, (FrameError,)),
    Target("introduction", introduction, HELLO, (DecodeError, LinkRefused)),
    Target("batch-message", batch_message, of(TRANSACTION["messages"])),
    Target("snapshot-message", snapshot_message, of(SNAPSHOT["messages"])),
    Target("sealed-message", sealed_message, sealed_messages()),
]
