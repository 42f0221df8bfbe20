"""The bytes of rule sets: against the CDDL, against a second computation, and against vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pytest
from blake3 import blake3
from pycddl import Schema, ValidationError

from consensus.ledger.rules import (
    compile_rulebook,
    decode_definition,
    encode_definition,
    load_toml,
    parts_root,
)
from tests.consensus.ledger.rule_texts import TEXTS, rulebook

ROOT = Path(__file__).parents[3]
SCHEMA = Schema((ROOT / "docs/protocol/rules.cddl").read_text(encoding="utf-8"))
VECTORS = json.loads((ROOT / "tests/vectors/rules.json").read_text(encoding="utf-8"))


def hashed(purpose: str, data: bytes) -> bytes:
    return blake3(data, derive_key_context=f"comity 2026-11-21 {purpose} v1").digest()


def encoded(value: Any) -> bytes:
    return cbor2.dumps(value, canonical=True)


def test_every_rule_set_has_the_shape_of_the_grammar() -> None:
    for text in TEXTS.values():
        SCHEMA.validate_cbor(encode_definition(load_toml(text)))


def test_the_grammar_refuses_another_shape() -> None:
    value = cbor2.loads(encode_definition(load_toml(TEXTS["benefits"])))
    value[1][8][0][1].append(True)
    with pytest.raises(ValidationError):
        SCHEMA.validate_cbor(cbor2.dumps(value))


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vector_gives_the_recorded_bytes(vector: dict[str, Any]) -> None:
    definition = load_toml(vector["toml"])
    data = encode_definition(definition)
    assert data.hex() == vector["encoded"]
    assert decode_definition(data) == definition
    assert parts_root(definition).hex() == vector["parts_root"]
    rules = compile_rulebook([definition]).rule_sets[definition.domain]
    ids = {name: action.action_id.hex() for name, action in rules.actions.items()}
    assert ids == vector["action_ids"]
    SCHEMA.validate_cbor(data)


def test_root_of_parts_follows_the_documented_formula() -> None:
    _, (domain, number, legal, uses, exports, params, kinds, accounts, actions) = cbor2.loads(
        encode_definition(load_toml(TEXTS["benefits"]))
    )
    rows = [[0, "", [1, domain, number, legal, uses, exports]]]
    for part_class, table in enumerate((params, kinds, accounts, actions), start=1):
        rows += [[part_class, name, value] for name, value in table]
    level = [hashed("rule part content", encoded(row)) for row in rows]
    assert 4 < len(level) <= 16
    level = [hashed("rule part leaf", b"".join(level[i : i + 4])) for i in range(0, len(level), 4)]
    top = hashed("rule part node", b"".join(level).ljust(128, b"\0"))
    expected = hashed("rule part root", len(rows).to_bytes(8, "big") + top)
    assert parts_root(load_toml(TEXTS["benefits"])) == expected


def test_identity_of_an_action_follows_the_documented_formula() -> None:
    tables = cbor2.loads(encode_definition(load_toml(TEXTS["payments"])))[1]
    action = dict(tables[8])["disburse"]
    foreign = [
        "benefits",
        "entitlement",
        [["monthly", "money:USD", False], ["person", "ref:person", False]],
        [
            ["active", ["suspended", "ended"]],
            ["ended", []],
            ["granted", ["active", "ended"]],
            ["suspended", ["active"]],
        ],
    ]
    families = [["payee", "payments", "USD"], ["program", "payments", "USD"]]
    dependencies = [[], [foreign], families, []]
    expected = hashed("rule action id", encoded(["payments", "disburse", action, dependencies]))
    found = rulebook().action("payments", "disburse")
    assert found is not None
    assert found.action_id == expected


def test_identity_of_an_action_with_own_kinds_and_parameters() -> None:
    tables = cbor2.loads(encode_definition(load_toml(TEXTS["benefits"])))[1]
    kinds, action = dict(tables[6]), dict(tables[8])["approve"]
    dependencies = [
        [["entitlement", kinds["entitlement"]], ["revision", kinds["revision"]]],
        [],
        [],
        [["rates", "list:money:USD", "now"]],
    ]
    expected = hashed("rule action id", encoded(["benefits", "approve", action, dependencies]))
    found = rulebook().action("benefits", "approve")
    assert found is not None
    assert found.action_id == expected


def test_digest_of_parameters_follows_the_documented_formula() -> None:
    grant, disburse = rulebook().action("benefits", "grant"), rulebook().action("payments", "thaw")
    assert grant is not None
    assert disburse is not None
    at_2026 = grant.schedule.at(1_767_225_600_000)
    assert at_2026.digest == hashed("rule param values", encoded([["large", 100]]))
    assert disburse.schedule.at(0).digest == hashed("rule param values", b"\x80")
