"""The client protocol, beyond single requests and answers: streams of frames as a side cuts them,
and every reader of a result in a client.
"""

from __future__ import annotations

from comity import decisions, simulating
from consensus import answers, asking, codec, past, reads, sealed
from consensus.audit import pages
from consensus.codec import Value
from consensus.errors import DecodeError, ProofError, RemoteProtocolError
from consensus.frames import FrameSplitter
from tests.consensus.test_hostile_bytes import READERS, request
from tests.fuzz.target import Target, of, vectors

CLIENT = vectors("client")
FRAME_BYTES_MAX = 2**20
CUT = 7
ALL_READERS = (
    *READERS,
    answers.read_past,
    answers.read_reversal,
    answers.read_bundle,
    simulating.read,
    asking.read_simulated,
    asking.read_readings,
    pages.read_page,
    past.read_history,
    past.read_moment,
    reads.read_proposal,
    reads.read_proposals,
    sealed.read_kept,
    sealed.read_found,
)


def client_frames(data: bytes) -> None:
    """What a server reads: frames, whole or in pieces, the same; then a request in each."""
    whole = _cut(data, len(data) or 1)
    assert _cut(data, CUT) == whole, "pieces of a stream are read otherwise than the whole"
    for payload in whole:
        assert request(payload) in (payload, None), "not the canonical bytes"


def _cut(data: bytes, size: int) -> list[bytes]:
    splitter = FrameSplitter(FRAME_BYTES_MAX)
    return [
        payload
        for at in range(0, len(data), size)
        for payload in splitter.feed(data[at : at + size])
    ]


def results(data: bytes) -> None:
    """A result that each reader of a client is asked to take."""
    value: Value = codec.parse(data, "result")
    failed = None
    taken = 0
    for read in ALL_READERS:
        try:
            read(value)
            taken += 1
        except RemoteProtocolError as error:
            failed = error
    if not taken and failed is not None:
        raise failed


def decision(data: bytes) -> None:
    """A decision as a client reads it, whose leaves may be closed."""
    found = decisions.read(data)
    assert len(found.root) == 32


def every_answer() -> list[bytes]:
    found = [answers.decode_answer(data).result for data in of(CLIENT["answers"])]
    return [codec.encode(each) for each in found]


def request_frames() -> list[bytes]:
    requests = of(CLIENT["requests"])
    framed = [len(each).to_bytes(4, "big") + each for each in requests]
    return [*framed, b"".join(framed[:5])]


TARGETS = [
    Target("client-frames", client_frames, request_frames(), (RemoteProtocolError,)),
    Target("results", results, every_answer(), (RemoteProtocolError,)),
    Target("read-decision", decision, of(vectors("decision")["decisions"], "encoded"),
           (DecodeError, ProofError)),
]  # fmt: skip
