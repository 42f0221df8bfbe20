"""Audit files: what a damaged, cut, hostile or foreign one is answered with, and where."""

from __future__ import annotations

import random
import time
from itertools import pairwise

import pytest

from comity.auditing.running import Wanted, audit
from consensus import codec
from consensus.audit import stream
from consensus.audit.stream import FRAME_HEAD_BYTES, PREFIX, Frame, Header, Kind, Splitter, Writer
from consensus.errors import DecodeError
from tests.consensus.audit.ledger import flipped, frames, honest

DATA = honest().stream()
WANTED = Wanted(honest().chain)


def refused(data: bytes) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        audit(frames(data), WANTED)
    return caught.value


def offsets() -> list[int]:
    """Where the parts of DATA begin."""
    return [frame.offset for frame in frames(DATA)]


def test_a_stream_comes_back_as_it_went_in_however_it_is_cut() -> None:
    whole = [(frame.offset, frame.kind, frame.payload) for frame in frames(DATA)]
    for size in (1, 7, 4096):
        splitter = Splitter()
        parts = []
        for at in range(0, len(DATA), size):
            parts += list(splitter.feed(DATA[at : at + size]))
        splitter.finish()
        assert [(each.offset, each.kind, each.payload) for each in parts] == whole
    assert whole[0][0] == len(PREFIX)


def test_a_cut_file_is_refused_at_its_end() -> None:
    draw = random.Random(1)
    for end in [0, 3, len(PREFIX), *offsets()[1:], *draw.sample(range(len(DATA)), 20)]:
        error = refused(DATA[:end])
        assert f"offset {end or 0}" in error.path, error.message


def test_a_changed_byte_is_refused_at_its_part() -> None:
    draw = random.Random(2)
    starts = offsets()
    for at in draw.sample(range(len(PREFIX), len(DATA)), 60):
        error = refused(flipped(DATA, at))
        begin = max(each for each in starts if each <= at)
        places = [f"offset {begin}", f"offset {len(DATA)}"]
        if at - begin < 4:  # a length that is too small: damage shows there, or in the next part
            assert error.path.startswith("offset")
        else:
            assert error.path in places, (at, error.message)


def test_parts_out_of_order_missing_or_twice_are_refused() -> None:
    starts = [*offsets(), len(DATA)]
    parts = [DATA[a:b] for a, b in pairwise(starts)]
    swapped = [parts[0], parts[2], parts[1], *parts[3:]]
    for found in (swapped, [*parts[:2], *parts[3:]], [*parts[:3], *parts[2:]], parts[1:]):
        error = refused(PREFIX + b"".join(found))
        assert "missing" in error.message or "first part" in error.message


def test_what_is_no_audit_file_says_so() -> None:
    for data in (b"", b"x", b"PK\x03\x04" * 100, bytes(4096), b"\xff" * 100):
        error = refused(data)
        assert "not an audit file" in error.message or "ends before" in error.message
        assert error.path == "offset 0"


def test_a_newer_version_is_refused() -> None:
    error = refused(b"COMITYAU" + (2).to_bytes(4, "big") + DATA[12:])
    assert "version 2" in error.message
    assert "release" in error.hint


def test_something_after_the_end_is_refused() -> None:
    error = refused(DATA + b"\0")
    assert error.path == f"offset {len(DATA)}"


BOMBS = {
    "a part of 4 GiB": (2**32 - 1).to_bytes(4, "big") + bytes([Kind.HEIGHT]) + bytes(16),
    "a header of 1 GiB": (2**30).to_bytes(4, "big") + bytes([Kind.HEADER]) + bytes(16),
    "a kind that is none": (9).to_bytes(4, "big") + bytes([77]) + bytes(16),
}


@pytest.mark.parametrize("name", BOMBS)
def test_claims_of_size_are_refused_before_anything_is_read(name: str) -> None:
    data = PREFIX + BOMBS[name] if name != "a part of 4 GiB" else None
    start = offsets()[1]
    data = data or DATA[:start] + BOMBS[name]
    error = refused(data + bytes(100))
    assert error.path == f"offset {start if name == 'a part of 4 GiB' else len(PREFIX)}"


COUNTS = {
    "an array of 2^40 batches": b"\x87\x01\x41x\xf6\xf6\x9b" + (2**40).to_bytes(8, "big"),
    "bytes of 2^40": b"\x87\x01\x5b" + (2**40).to_bytes(8, "big"),
    "nested arrays": b"\x87\x01" + b"\x81" * 200,
    "a height beyond 64 bits": b"\x87\xc2\x49" + bytes(9),
    "nothing": b"",
    "another value": b"\x01",
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_that_no_bytes_stand_for_are_refused_at_once(name: str) -> None:
    writer = Writer()
    data = writer.begin(Header(honest().genesis, 0, None))
    start = len(data)
    data += writer.height(COUNTS[name]) + writer.end()
    began = time.perf_counter()
    error = refused(data)
    assert time.perf_counter() - began < 1
    assert f"offset {start}" in error.message


def test_an_end_that_counts_otherwise_is_refused() -> None:
    *before, end = frames(DATA)
    for counts in ([len(before), 0], [len(before) - 1, 1]):
        false = stream.Frame(end.offset, Kind.END, codec.encode(counts))
        with pytest.raises(DecodeError) as caught:
            audit(iter([*before, false]), WANTED)
        assert caught.value.path == f"offset {end.offset}: end"


def test_a_height_reads_as_it_was_written() -> None:
    for each in honest().recorded:
        payload = stream.encode_height(each)
        found = stream.read_height(payload, "height")
        assert stream.encode_height(found) == payload
        assert stream.height_in(payload) == each.height
    assert FRAME_HEAD_BYTES == 21


def test_a_stream_that_failed_says_why() -> None:
    writer = Writer()
    data = writer.begin(Header(honest().genesis, 0, None))
    data += writer.failed(stream.Failed("NO_DATA", "nothing there", "look elsewhere"))
    *_, last = frames(data)
    assert stream.read_failed(last).message == "nothing there"


def test_rows_of_the_state_ascend() -> None:
    row = [bytes(32), 1, b"v" * 32, b"row"]
    later = [b"\x01" * 32, *row[1:]]
    found = stream.read_rows(Frame(0, Kind.ROWS, codec.encode([row, later])))
    assert [(each.kh, each.value) for each in found] == [(bytes(32), b"row"), (later[0], b"row")]
    for rows in ([later, row], [row, row]):
        with pytest.raises(DecodeError, match="rows do not ascend"):
            stream.read_rows(Frame(0, Kind.ROWS, codec.encode(rows)))


def test_a_file_does_not_end_before_it_begins() -> None:
    header = codec.encode([b"genesis", 3, 2])
    with pytest.raises(DecodeError, match="heights 3 to 2"):
        stream.read_header(Frame(0, Kind.HEADER, header))


def test_decisions_of_another_shape_are_malformed() -> None:
    for rows in ([[b"x"]], b"x", [[bytes(32), bytes(32), bytes(32), b""]]):
        with pytest.raises(DecodeError, match="decisions"):
            stream.check_decisions(codec.encode(rows), "decisions")
