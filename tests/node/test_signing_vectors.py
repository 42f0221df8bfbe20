"""Messages between node and signer: against the grammar, read, and written again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pycddl
import pytest

from consensus.errors import DecodeError
from node.signing import wire

ROOT = Path(__file__).parents[2]
CDDL = (ROOT / "docs/protocol/signer.cddl").read_text()
VECTORS = json.loads((ROOT / "tests/vectors/signer.json").read_text())
READ: dict[str, Callable[[bytes], Any]] = {
    "hello": wire.decode_hello,
    "welcome": wire.decode_welcome,
    "refusal": wire.decode_welcome,
    "request": wire.decode_request,
    "signed": wire.decode_answer,
    "not-signed": wire.decode_answer,
}


def grammar(rule: str) -> pycddl.Schema:
    return pycddl.Schema(f"start = {rule}\n{CDDL}")


@pytest.mark.parametrize("row", VECTORS["messages"], ids=lambda row: row["name"])
def test_a_message_is_of_the_grammar_is_read_and_written_again(row: dict[str, str]) -> None:
    data = bytes.fromhex(row["cbor"])
    grammar(row["rule"]).validate_cbor(data)
    assert wire.encode(READ[row["rule"]](data)) == data


@pytest.mark.parametrize("row", VECTORS["malformed"], ids=lambda row: row["name"])
def test_what_is_not_of_the_grammar_is_not_read(row: dict[str, str]) -> None:
    data = bytes.fromhex(row["cbor"])
    with pytest.raises(pycddl.ValidationError):
        grammar(row["rule"]).validate_cbor(data)
    with pytest.raises(DecodeError):
        READ[row["rule"]](data)


@pytest.mark.parametrize("row", VECTORS["messages"], ids=lambda row: row["name"])
def test_every_cut_and_every_longer_message_is_refused(row: dict[str, str]) -> None:
    data = bytes.fromhex(row["cbor"])
    for wrong in [*(data[:n] for n in range(len(data))), data + b"\0"]:
        with pytest.raises(DecodeError):
            READ[row["rule"]](wrong)
