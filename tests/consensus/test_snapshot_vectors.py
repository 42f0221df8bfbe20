"""Vectors of snapshots: read as recorded, against the grammar, and by a plain reader besides."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest

from consensus.errors import ComityError, DecodeError
from consensus.snapshot import Reader, check_all
from node.snapshots import wire
from tests.consensus.state import model

ROOT = Path(__file__).parents[2]
CDDL = (ROOT / "docs/protocol/snapshot.cddl").read_text()
SCHEMA = pycddl.Schema(f"start = snapshot-item\n{CDDL}")
VECTORS = json.loads((ROOT / "tests/vectors/snapshot.json").read_text())
FRAMES = {name: bytes.fromhex(data) for name, data in VECTORS["frames"].items()}


def items(row: dict[str, Any]) -> list[bytes]:
    """The frames of a vector's file, without what follows them."""
    found: list[bytes] = []
    for each in row["file"]:
        if each == "...":
            found += [FRAMES[name] for name in VECTORS["order"]]
        elif isinstance(each, str):
            found.append(FRAMES[each])
        elif "of" in each:
            data, at = bytearray(FRAMES[each["of"]]), each["at"]
            data[at : at + each["drop"]] = bytes.fromhex(each["hex"])
            found.append(bytes(data))
        else:
            found.append(bytes.fromhex(each["hex"]))
    return found


def file(row: dict[str, Any]) -> bytes:
    data = b"".join(cbor2.dumps(each) for each in items(row)) + bytes.fromhex(row.get("tail", ""))
    return data[: len(data) - row.get("cut", 0)]


@pytest.mark.parametrize("row", VECTORS["valid"], ids=lambda row: row["name"])
def test_a_valid_file_is_read(row: dict[str, Any]) -> None:
    reader = Reader(io.BytesIO(file(row)).read, bytes.fromhex(row["chain"]))
    assert check_all(reader) == (row["entries"], row["left_out"])
    assert reader.certified.height == row["height"]
    assert reader.certified.statement.state_root.hex() == row["state_root"]


@pytest.mark.parametrize("row", VECTORS["valid"], ids=lambda row: row["name"])
def test_a_valid_file_is_of_the_grammar(row: dict[str, Any]) -> None:
    for each in items(row):
        SCHEMA.validate_cbor(each)


@pytest.mark.parametrize("row", VECTORS["valid"][:2], ids=lambda row: row["name"])
def test_a_valid_file_leads_to_its_root_by_the_plain_model(row: dict[str, Any]) -> None:
    manifest, *pieces = [cbor2.loads(each) for each in items(row)]
    entries: model.Entries = {}
    for kind, _, data, *_ in pieces:
        if kind == 0:
            for at in range(0, len(data), 72):
                height = int.from_bytes(data[at + 64 : at + 72], "big")
                entries[data[at : at + 32]] = (data[at + 32 : at + 64], height)
    assert len(entries) == manifest["key_count"]
    depth = cbor2.loads(manifest["genesis"])["tree_depth"]
    assert model.state_root(depth, entries).hex() == row["state_root"]
    statement, _ = cbor2.loads(manifest["certificate"])
    assert statement[7].hex() == row["state_root"]
    assert model.digest("block id", manifest["block"]) == statement[4]
    chain = model.digest("genesis", manifest["genesis"] + manifest["contents"])
    assert chain.hex() == row["chain"]


@pytest.mark.parametrize("row", VECTORS["invalid"], ids=lambda row: row["name"])
def test_an_invalid_file_is_refused_where_it_is_wrong(row: dict[str, Any]) -> None:
    with pytest.raises(ComityError) as caught:
        check_all(Reader(io.BytesIO(file(row)).read, bytes.fromhex(row["chain"])))
    assert caught.value.code == row["code"], row["why"]
    assert row.get("where", "") in str(caught.value)


@pytest.mark.parametrize("row", VECTORS["messages"], ids=lambda row: row["name"])
def test_a_message_between_nodes_is_of_the_grammar_and_read(row: dict[str, Any]) -> None:
    data = bytes.fromhex(row["cbor"])
    SCHEMA.validate_cbor(data)
    assert cbor2.dumps(cbor2.loads(data)) == data
    assert wire.encode(wire.decode(data)) == data


@pytest.mark.parametrize("row", VECTORS["bad messages"], ids=lambda row: row["name"])
def test_a_malformed_message_is_refused(row: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        wire.decode(bytes.fromhex(row["cbor"]))


def test_every_vector_has_a_name_of_its_own_and_a_reason() -> None:
    rows = VECTORS["valid"] + VECTORS["invalid"]
    assert len({row["name"] for row in rows}) == len(rows)
    assert all(row["why"] for row in VECTORS["invalid"])
    assert len(VECTORS["invalid"]) >= 100
