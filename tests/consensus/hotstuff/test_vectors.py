"""Fixed bytes of consensus messages, against a plain CBOR encoder, the CDDL and the product.

The vectors were written as arrays with cbor2 and blake3 alone. Changing one needs an ADR.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest
from blake3 import blake3

from consensus import codec
from consensus.errors import DecodeError
from consensus.hotstuff import wire
from consensus.hotstuff.types import Vote, timeout_body, vote_body

ROOT = Path(__file__).parents[3]
VECTORS: dict[str, list[dict[str, Any]]] = json.loads(
    (ROOT / "tests" / "vectors" / "consensus.json").read_text()
)
CDDL = (ROOT / "docs" / "protocol" / "consensus.cddl").read_text()


def plain(value: Any) -> Any:
    """The array that a vector writes down; byte strings are written ``h:<hex>``."""
    if isinstance(value, str):
        return bytes.fromhex(value.removeprefix("h:"))
    return [plain(item) for item in value] if isinstance(value, list) else value


def cases(*kinds: str) -> list[Any]:
    return [
        pytest.param(kind, case, id=f"{kind}-{number}")
        for kind in kinds or VECTORS
        for number, case in enumerate(VECTORS[kind])
    ]


def through(data: bytes, shape: codec.Shape, build: Callable[[Any], Any]) -> bytes:
    return codec.encode(build(codec.decode(data, shape, bytes_max=len(data))).to_value())


AGAIN: dict[str, Callable[[bytes], bytes]] = {
    "message": lambda data: wire.encode_message(wire.decode_message(data)),
    "safety-record": lambda data: wire.encode_record(wire.decode_record(data)),
    "block": lambda data: wire.encode_block(wire.decode_block(data)),
    "commit-cert": lambda data: wire.encode_commit_cert(wire.decode_commit_cert(data)),
    "statement": lambda data: through(data, wire.STATEMENT, wire.statement_from),
    "quorum-cert": lambda data: through(data, wire.QUORUM_CERT, wire.quorum_cert_from),
    "timeout-cert": lambda data: through(data, wire.TIMEOUT_CERT, wire.timeout_cert_from),
    "vote-body": lambda data: vote_body(*cbor2.loads(data)),
    "timeout-body": lambda data: timeout_body(*cbor2.loads(data)),
}


@pytest.mark.parametrize(("kind", "case"), cases())
def test_vector_is_the_plain_encoding_of_its_array(kind: str, case: dict[str, Any]) -> None:
    assert cbor2.dumps(plain(case["value"]), canonical=True).hex() == case["cbor"]


@pytest.mark.parametrize(("kind", "case"), cases())
def test_vector_fits_the_cddl(kind: str, case: dict[str, Any]) -> None:
    pycddl.Schema(f"root = {kind}\n{CDDL}").validate_cbor(bytes.fromhex(case["cbor"]))


@pytest.mark.parametrize(("kind", "case"), cases())
def test_vector_survives_decoding_and_encoding(kind: str, case: dict[str, Any]) -> None:
    assert AGAIN[kind](bytes.fromhex(case["cbor"])).hex() == case["cbor"]


@pytest.mark.parametrize(("kind", "case"), cases("block"))
def test_block_id_is_the_hash_of_the_whole_encoding(kind: str, case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["cbor"])
    context = "comity 2026-11-21 block id v1"
    assert blake3(data, derive_key_context=context).hexdigest() == case["id"]
    assert wire.decode_block(data).id.hex() == case["id"]


@pytest.mark.parametrize(("kind", "case"), cases("statement"))
def test_statement_hash_is_of_the_encoding(kind: str, case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["cbor"])
    context = "comity 2026-11-21 statement v1"
    assert blake3(data, derive_key_context=context).hexdigest() == case["hash"]
    statement = wire.statement_from(cbor2.loads(data))
    assert statement.hash.hex() == case["hash"]
    assert statement.encode() == data


def test_signed_body_of_a_vote_leaves_out_signer_and_held_counts() -> None:
    data = bytes.fromhex(VECTORS["message"][2]["cbor"])
    vote = wire.decode_message(data)
    assert isinstance(vote, Vote)
    assert vote.body.hex() == VECTORS["vote-body"][0]["cbor"]


@pytest.mark.parametrize(("kind", "case"), cases("message", "safety-record"))
def test_what_the_cddl_refuses_the_decoder_refuses(kind: str, case: dict[str, Any]) -> None:
    """Replace each item of the top array by things that fit few places.

    The validator lets byte strings pass as integers, so only its refusals count; and it is wrong
    about some nulls and empty arrays, so those are left to the vectors.
    """
    schema = pycddl.Schema(f"root = {kind}\n{CDDL}")
    decode = wire.decode_message if kind == "message" else wire.decode_record
    value = plain(case["value"])
    refused = 0
    for place in range(1 if kind == "message" else 0, len(value)):
        for wrong in (-1, 2**63, "text", True):
            data = cbor2.dumps([*value[:place], wrong, *value[place + 1 :]], canonical=True)
            try:
                schema.validate_cbor(data)
            except pycddl.ValidationError:
                refused += 1
                with pytest.raises(DecodeError):
                    decode(data)
    assert refused > 0
