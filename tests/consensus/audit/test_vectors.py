"""Vectors of audit files: framed a second time here, checked against the grammar, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest
from blake3 import blake3

from consensus.audit import stream
from consensus.audit.stream import Splitter
from consensus.errors import DecodeError
from tests.consensus.audit.ledger import frames

ROOT = Path(__file__).parents[3]
VECTORS = json.loads((ROOT / "tests/vectors/audit.json").read_text())
SCHEMA = pycddl.Schema((ROOT / "docs/protocol/audit.cddl").read_text())


def plain(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("h:"):
        return bytes.fromhex(value[2:])
    return [plain(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", ["frames", "failed"])
def test_frames_are_what_the_page_says(name: str) -> None:
    before = bytes(16)
    for row in VECTORS[name]:
        payload = cbor2.dumps(plain(row["value"]), canonical=True)
        SCHEMA.validate_cbor(payload)
        hasher = blake3(derive_key_context="comity 2026-11-21 audit frame v1")
        hasher.update(before + bytes([row["kind"]]) + payload)
        before = hasher.digest()[:16]
        frame = len(payload).to_bytes(4, "big") + bytes([row["kind"]]) + before + payload
        assert frame.hex() == row["frame"], row["name"]
    assert VECTORS["prefix"] == b"COMITYAU\0\0\0\1".hex()


def test_a_whole_file_is_read() -> None:
    splitter = Splitter()
    data = VECTORS["prefix"] + "".join(row["frame"] for row in VECTORS["frames"])
    header, first, second, rows, end = splitter.feed(bytes.fromhex(data))
    splitter.finish()
    assert stream.read_header(header).last == 2
    for frame in (first, second):
        found = stream.read_height(frame.payload, "height")
        assert stream.encode_height(found) == frame.payload
    assert [row.value for row in stream.read_rows(rows)] == [b"row 1", b"row 2"]
    assert stream.read_end(end) == stream.End(2, 2)


@pytest.mark.parametrize("row", VECTORS["refused"], ids=lambda row: row["name"])
def test_what_must_be_refused_is_refused_there(row: dict[str, Any]) -> None:
    with pytest.raises(DecodeError, match=row["reason"]) as caught:
        list(frames(bytes.fromhex(row["file"])))
    assert caught.value.path == f"offset {row['offset']}"
