"""Vectors of evidence bundles: files that are valid, and files that fail, each where it must."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pycddl
import pytest

from consensus import codec
from consensus.errors import DecodeError
from consensus.evidence.bundle import Sealed, unseal
from consensus.evidence.stages import FailedError
from consensus.evidence.verify import verify

ROOT = Path(__file__).resolve().parents[3]
VECTORS = json.loads((ROOT / "tests/vectors/bundle.json").read_text(encoding="utf-8"))
CHAIN = bytes.fromhex(VECTORS["chain"])
VALID = {row["name"]: row for row in VECTORS["valid"]}


@cache
def grammar(rule: str) -> Any:
    text = (ROOT / "docs/protocol/bundle.cddl").read_text(encoding="utf-8")
    return pycddl.Schema(f"start = {rule}\n{text}")


@pytest.mark.parametrize("name", VALID)
def test_a_valid_bundle_proves_its_decision_and_fits_the_grammar(name: str) -> None:
    row = VALID[name]
    data = bytes.fromhex(row["file"])
    grammar("bundle-file").validate_cbor(data)
    grammar("bundle-content").validate_cbor(unseal(data).content)
    for leaf in codec.parse(unseal(data).content)[8]:
        if leaf[0]:
            grammar("record-leaf-list").validate_cbor(codec.encode(leaf[4]))
    found = verify(data, CHAIN)
    assert found.header.txid.hex() == row["txid"]
    assert found.header.height == row["height"]
    assert found.decision.code.name == row["code"]
    assert found.judged == row["judged"]


@pytest.mark.parametrize("row", VECTORS["invalid"], ids=lambda row: row["why"])
def test_an_invalid_bundle_fails_at_its_stage(row: dict[str, Any]) -> None:
    base = bytes.fromhex(VALID[row["base"]]["file"])
    if row["part"] == "content":
        base = unseal(base).content
    at, insert = row["at"], bytes.fromhex(row["insert"])
    forged = base[:at] + insert + base[at + row["remove"] :]
    if row["part"] == "content":
        forged = Sealed(forged).encode()
    with pytest.raises((DecodeError, FailedError)) as caught:
        verify(forged, CHAIN)
    found = caught.value.stage if isinstance(caught.value, FailedError) else "malformed"
    assert found == row["stage"]


def test_there_are_enough_of_them_and_every_part_is_forged() -> None:
    assert len(VECTORS["invalid"]) >= 200
    parts = {row["why"].partition(":")[0].partition("[")[0] for row in VECTORS["invalid"]}
    assert {
        "genesis", "certificate", "statements", "decision", "results", "transaction", "witness",
        "rules", "later",
    } <= parts  # fmt: skip
