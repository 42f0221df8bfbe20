"""Fixed bytes of history proofs, read by the product and by a reader written from the page alone.

The reader knows docs/formats/state.md, cbor2 and blake3; the leaf it leaves to the state proof,
whose own vectors are in state.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from blake3 import blake3

from consensus.errors import DecodeError, ProofError
from consensus.state import proof, statement
from consensus.state.changes import verify

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "history.json").read_text()
)
H = bytes.fromhex
NEWEST = H(VECTORS["statement"])
ZERO = bytes(32)

valid = pytest.mark.parametrize("row", VECTORS["valid"], ids=lambda row: row["name"])
invalid = pytest.mark.parametrize("row", VECTORS["invalid"], ids=lambda row: row["name"])


def question(row: dict[str, Any]) -> tuple[bytes, int, int]:
    return H(row["kh"]), row["first"], row["last"]


@valid
def test_a_valid_proof_shows_these_versions(row: dict[str, Any]) -> None:
    found = verify(H(row["proof"]), statement.read(NEWEST), *question(row))
    assert [[each.height, each.vh.hex()] for each in found] == row["versions"]


@invalid
def test_an_invalid_proof_is_refused_for_this_reason(row: dict[str, Any]) -> None:
    error = {"malformed": DecodeError, "unproved": ProofError}[row["error"]]
    with pytest.raises(error) as found:
        verify(H(row["proof"]), statement.read(NEWEST), *question(row))
    assert found.value.message == row["reason"]


# --- a reader of its own ----------------------------------------------------------------------


def hashed(name: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"comity 2026-11-21 {name} v1").digest()


def tree_root(count: int, index: int, leaf: bytes, path: list[bytes]) -> bytes:
    node, left, total, level = leaf, list(path), count, 0
    while count > 1 or level == 0:
        first = index - index % 4
        parts = [
            node if place == index else left.pop(0) for place in range(first, min(first + 4, count))
        ]
        data = b"".join(parts)
        node = hashed(
            "changes node" if level else "changes leaf", data.ljust(128 if level else 0, b"\0")
        )
        index, count, level = index // 4, -(-count // 4), level + 1
    assert left == []
    return hashed("changes root", total.to_bytes(8, "big") + node)


def history_root(size: int, index: int, leaf: bytes, path: list[bytes]) -> bytes:
    def top(start: int, end: int, left: list[bytes]) -> bytes:
        if end - start == 1:
            return hashed("history leaf", leaf)
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        sibling = left.pop()
        if index < middle:
            return hashed("history node", top(start, middle, left) + sibling)
        return hashed("history node", sibling + top(middle, end, left))

    left = list(path)
    found = top(0, size, left)
    assert left == []
    return hashed("history root", size.to_bytes(8, "big") + found)


@valid
def test_a_reader_made_from_the_page_reads_the_same(row: dict[str, Any]) -> None:
    kh, first, last = question(row)
    version, steps, leaf = cbor2.loads(H(row["proof"]))
    newest = cbor2.loads(NEWEST)
    found = []
    for said, history, count, index, path, vh, previous in steps:
        own = newest if said is None else cbor2.loads(said)
        if said is not None:
            leaf_hash = hashed("statement", said)
            assert history_root(newest[3], own[3], leaf_hash, history) == newest[10]
        record = hashed("change", kh + vh + previous.to_bytes(8, "big", signed=True))
        assert tree_root(count, index, record, path) == own[9]
        found.append((own[3], vh, previous))
    assert version == 1
    assert [each[0] for each in found[:-1]] == [each[2] for each in found[1:]]
    if found and found[0][0] > first:
        assert found[0][2] == -1
    if leaf is None:
        assert found.pop()[0] > last
    else:
        now = proof.verify(leaf, newest[7], [kh])[kh]
        if not found and now is not None:
            found = [(now[1], now[0], -1)]
            assert now[1] <= first
        assert now == ((found[-1][1], found[-1][0]) if found else None)
    assert [[height, vh.hex()] for height, vh, _ in found] == row["versions"]
