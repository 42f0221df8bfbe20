"""The recorded evidence of a reversal, checked by CBOR and BLAKE3 alone, and by the code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
from blake3 import blake3

from consensus.ledger.evidence import check, decode
from consensus.ledger.layout import Paths

VECTOR = json.loads(
    (Path(__file__).parents[2] / "vectors/reversal.json").read_text(encoding="utf-8")
)
CHAIN, TXID, DATA = (bytes.fromhex(VECTOR[key]) for key in ("chain", "txid", "evidence"))


def hashed(purpose: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"comity 2026-11-21 {purpose} v1").digest()


def encoded(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def key_path(place: Any) -> bytes:
    return blake3(encoded(place), key=hashed("key path", CHAIN)).digest()


def overwritten(decision: bytes) -> list[tuple[bytes, str, bytes]]:
    """Return key path, name and hash of the leaves that a decision says were overwritten."""
    _, rows = cbor2.loads(decision)
    return [
        (key_path(place), name, hash_)
        for leaf, _, value in rows
        if leaf.startswith("writes:")
        for place, _, _, _, pairs in cbor2.loads(value)
        for name, hash_ in pairs
        if name != "~holds" and hash_ != bytes(32)
    ]


def history_root(statement: bytes, index: int, size: int, path: list[bytes]) -> bytes:
    """Return the root that a statement's hash and its path lead to (RFC 9162, section 2.1.3.2)."""
    found, last = hashed("history leaf", hashed("statement", statement)), size - 1
    for sibling in path:
        if index & 1 or index == last:
            found = hashed("history node", sibling + found)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            found = hashed("history node", found + sibling)
        index, last = index >> 1, last >> 1
    assert last == 0
    return hashed("history root", size.to_bytes(8, "big") + found)


def test_every_byte_is_what_the_pages_on_formats_say() -> None:
    decision, total, path, statement, size, history, openings = cbor2.loads(DATA)
    header = cbor2.loads(cbor2.loads(decision)[0])
    assert (header[0], size, total, path) == (TXID, VECTOR["size"], 1, [])
    wanted = overwritten(decision)
    found = []
    for (kh, name, hash_), (version, salt, value) in zip(wanted, openings, strict=True):
        hidden = hashed("value", salt + value)
        assert hashed("field", encoded([kh, name, version]) + hidden) == hash_
        found.append([name, version, value.hex()])
    assert found == VECTOR["overwritten"]
    root = history_root(statement, header[1], size, history)
    assert root.hex() == VECTOR["history_root"]
    rows = {name: value for name, _, value in cbor2.loads(decision)[1]}
    assert cbor2.loads(rows["reversible"]) == VECTOR["terms"]


def test_the_code_reads_it_and_writes_it_again() -> None:
    def root(size: int) -> bytes | None:
        return bytes.fromhex(VECTOR["history_root"]) if size == VECTOR["size"] else None

    original = check(DATA, TXID, root, Paths(CHAIN))
    assert [list(each[:9]) for each in original.terms] == VECTOR["terms"]
    assert [each.approvals for each in original.terms] == [None] * len(original.terms)
    assert decode(DATA).encode() == DATA


def test_the_reversal_says_what_it_took_back_and_on_which_terms_it_can_be_itself() -> None:
    back = {key: cbor2.loads(bytes.fromhex(value)) for key, value in VECTOR["reversal"].items()}
    assert back["links"] == [["reverses", TXID]]
    assert back["terms"] == [["loans", "settle", "loans.chief", 90, None, True, 0, [], TXID]]
