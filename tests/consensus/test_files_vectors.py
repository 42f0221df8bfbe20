"""Files and the first state: against the grammar, made a second time, and as recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import nacl.bindings
import pycddl
import pytest
from blake3 import blake3

from consensus import genesis, keyfile
from consensus.errors import DecodeError, KeyFileError
from consensus.hotstuff.types import genesis_block
from consensus.ledger.genesis_state import genesis_state
from consensus.state.state import MemoryBackend, State
from tests.consensus.ledger import programme
from tests.consensus.ledger.world import DEFAULT, TEXTS, make_genesis

ROOT = Path(__file__).parents[2]
CDDL = (ROOT / "docs/protocol/files.cddl").read_text()
VECTORS = json.loads((ROOT / "tests/vectors/files.json").read_text())
GENESIS = pycddl.Schema(f"start = genesis\n{CDDL}")
KEY_FILE = pycddl.Schema(f"start = key-file\n{CDDL}")


def plain(value: Any) -> Any:
    """Return what a vector's JSON stands for: ``h:…`` is hex of bytes."""
    if isinstance(value, str) and value.startswith("h:"):
        return bytes.fromhex(value[2:])
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return value


def hashed(purpose: str, data: bytes) -> str:
    return blake3(data, derive_key_context=f"comity 2026-11-21 {purpose} v1").hexdigest()


@pytest.mark.parametrize("row", VECTORS["genesis"], ids=lambda row: row["name"])
def test_a_genesis_vector_is_the_plain_encoding_of_its_map(row: dict[str, Any]) -> None:
    value = plain(row["value"])
    data = cbor2.dumps(value, canonical=True)
    assert data.hex() == row["cbor"]
    names = ["magic", "version", "network", "time_ms", "executor", "tree_depth", "limits"]
    head = {name: value.pop(name) for name in [*names, "committee"]}
    contents = hashed("genesis contents", cbor2.dumps(value, canonical=True))
    whole = cbor2.dumps(head, canonical=True) + bytes.fromhex(contents)
    assert hashed("genesis", whole) == row["chain"]
    committee = cbor2.dumps(head["committee"], canonical=True)
    assert hashed("committee", committee) == row["committee_hash"]


@pytest.mark.parametrize("row", VECTORS["genesis"], ids=lambda row: row["name"])
def test_a_genesis_vector_is_read_and_written_again(row: dict[str, Any]) -> None:
    data = bytes.fromhex(row["cbor"])
    GENESIS.validate_cbor(data)
    found = genesis.decode(data)
    assert found.encode() == data
    assert genesis.chain_id(data).hex() == row["chain"]
    assert found.committee.hash.hex() == row["committee_hash"]
    block = genesis_block(genesis.chain_id(data), found.committee.hash, found.time_ms)
    assert block.id.hex() == row["block_id"]


@pytest.mark.parametrize("row", VECTORS["key_files"], ids=lambda row: row["name"])
def test_a_key_file_vector_opens(row: dict[str, Any]) -> None:
    data = bytes.fromhex(row["cbor"])
    KEY_FILE.validate_cbor(data)
    assert data == cbor2.dumps(plain(row["value"]), canonical=True)
    key = keyfile.read(data, row["passphrase"])
    assert key.seed.hex() == row["seed"]
    public, _ = nacl.bindings.crypto_sign_seed_keypair(key.seed)
    assert key.public == public


def test_the_state_of_a_genesis_is_as_recorded() -> None:
    for texts, expected in (
        (TEXTS, VECTORS["states"]["world"]),
        (TEXTS[:1], VECTORS["states"]["charter"]),
    ):
        changes: dict[str, Any] = {} if texts is TEXTS else {"accounts": ()}
        founded = make_genesis(texts, **changes)
        state = State(MemoryBackend(), founded.tree_depth, -1)
        state.apply([tuple(write) for write in genesis_state(founded)])
        assert state.root.hex() == expected


def test_executor_1_does_with_the_programme_what_was_recorded() -> None:
    assert programme.digest() == VECTORS["executor_1_programme"]


@pytest.mark.parametrize(
    "change",
    [
        {"magic": "comity"},
        {"version": 2},
        {"tree_depth": 5},
        {"network": ""},
        {"rules": []},
        {"executor": 2},
        {"time_ms": -1},
        {"more": 1},
        {"agencies": [["a"]]},
        {"keys": [[b"k", bytes(32)]]},
        {"limits": {}},
    ],
    ids=str,
)
def test_what_the_grammar_refuses_the_decoder_refuses(change: dict[str, Any]) -> None:
    data = cbor2.dumps({**cbor2.loads(DEFAULT.encode()), **change}, canonical=True)
    with pytest.raises(pycddl.ValidationError):
        GENESIS.validate_cbor(data)
    with pytest.raises(DecodeError):
        genesis.decode(data)


def test_a_key_file_beyond_the_grammar_is_refused() -> None:
    value = plain(VECTORS["key_files"][1]["value"])
    for sealed in ({**value["sealed"], "operations": 17}, {**value["sealed"], "box": bytes(47)}):
        data = cbor2.dumps({**value, "sealed": sealed}, canonical=True)
        with pytest.raises(pycddl.ValidationError):
            KEY_FILE.validate_cbor(data)
        with pytest.raises(KeyFileError):
            keyfile.read(data, "passphrase")
