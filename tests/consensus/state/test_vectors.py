"""Fixed vectors of the state's formats. Changing one breaks every ledger: it needs an ADR.

They were written with ``model``, the second reading of docs/formats/state.md, and are checked here
against the product; the model's own tests compare it with the product on random input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cbor2
import pycddl
import pytest

from consensus.errors import ProofError
from consensus.ledger.layout import Paths
from consensus.state import history, merkle, proof, record, salted
from consensus.state.state import MemoryBackend, State

from . import model

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "state.json").read_text()
)
H = bytes.fromhex


def leaves(count: int) -> list[bytes]:
    return [bytes([i]) * 32 for i in range(1, count + 1)]


@pytest.mark.parametrize("case", VECTORS["key_paths"])
def test_key_path(case: dict[str, str]) -> None:
    namespace, components = cbor2.loads(H(case["key"]))
    assert Paths(H(case["chain"]))(namespace, components).hex() == case["kh"]


@pytest.mark.parametrize("case", VECTORS["count_trees"])
def test_count_tree(case: dict[str, Any]) -> None:
    tree = {
        "results": merkle.RESULTS,
        "changes": merkle.CHANGES,
        "group": merkle.GROUP,
        "salted": merkle.SALTED,
    }[case["purpose"]]
    assert tree.root(leaves(case["count"])).hex() == case["root"]


@pytest.mark.parametrize("case", VECTORS["count_paths"])
def test_count_path(case: dict[str, Any]) -> None:
    items = leaves(case["count"])
    first, length, path = case["first"], case["length"], [H(item) for item in case["path"]]
    assert merkle.GROUP.subtree_path(items, first, length) == path
    part = items[first : first + length]
    assert merkle.GROUP.subtree_root(len(items), first, part, path) == merkle.GROUP.root(items)


@pytest.mark.parametrize("case", VECTORS["leaves"])
def test_salted_leaf(case: dict[str, Any]) -> None:
    kh, salt, value = H(case["kh"]), H(case["salt"]), H(case["value"])
    assert salted.value_hash(salt, value).hex() == case["value_hash"]
    assert salted.leaf_hash(kh, case["name"], case["version"], salt, value).hex() == case["leaf"]


def test_salts() -> None:
    case = VECTORS["salts"]
    pool, kh = H(case["pool"]), H(case["kh"])
    stream = salted.salts(pool, kh, 3)
    assert [salt.hex() for salt in stream] == case["salts"]
    assert salted.next_pool(pool, H(case["seed"])).hex() == case["next_pool"]
    new = salted.next_single_salt(salted.NO_SALT, pool, kh)
    assert new.hex() == case["single_salt_of_new"]
    assert salted.decoys(stream)[0].hex() == case["decoy_of_first"]


@pytest.mark.parametrize("case", VECTORS["lists"])
def test_salted_list(case: dict[str, Any]) -> None:
    decoys = salted.decoys([H(salt) for salt in case["decoy_salts"]])
    root = salted.list_root(case["kind"], H(case["header"]), leaves(case["leaves"]), decoys)
    assert root.hex() == case["root"]


@pytest.mark.parametrize("case", VECTORS["openings"], ids=lambda case: case["name"])
def test_opening(case: dict[str, Any]) -> None:
    shown: dict[int, salted.Opening | salted.HiddenOpening] = {
        at: salted.Opening(name, version, H(salt), H(value))
        for at, name, version, salt, value in case["shown"]
    }
    hashes = [H(each) for each in case["hashes"]]
    place = (salted.RECORD, H(case["kh"]), H(case["header"]), case["count"])
    if case["error"] in (None, "another root"):
        found = salted.opened_root(*place, shown, hashes)
        assert (found.hex() == case["root"]) == (case["error"] is None)
    else:
        with pytest.raises(ProofError) as refused:
            salted.opened_root(*place, shown, hashes)
        assert case["error"] in refused.value.message


def test_record() -> None:
    case = VECTORS["record"]
    kh = H(case["kh"])
    first, second, third = (H(pool) for pool in case["pools"])
    fields = {name: H(value) for name, value in case["fields"].items()}
    stem = b"".join(cbor2.dumps(case[part]) for part in ("kind", "definition", "id"))
    stored, vh = record.create(kh, stem, fields, salted.salts(first, kh, len(fields)))
    assert vh.hex() == case["created"]
    written = {"status": H(case["updated_status"])}
    stored, vh = record.update(stored, kh, written, salted.salts(second, kh, 1), 2)
    assert vh.hex() == case["updated"]
    _, vh = record.rehold(stored, kh, H(case["holds"]), salted.salts(third, kh, 1))
    assert vh.hex() == case["held"]


@pytest.mark.parametrize("case", VECTORS["states"])
def test_state(case: dict[str, Any]) -> None:
    state = State(MemoryBackend(), case["depth"], -1)
    assert state.root.hex() == case["empty_root"]
    entries: model.Entries = {}
    for height, block in enumerate(case["blocks"]):
        writes = [(H(kh), H(vh)) for kh, vh in block["writes"]]
        applied = state.apply([(kh, vh, b"") for kh, vh in writes])
        entries.update({kh: (vh, height) for kh, vh in writes})
        assert applied.state_root.hex() == block["state_root"]
        assert applied.changes_root.hex() == block["changes_root"]
        assert model.state_root(case["depth"], entries).hex() == block["state_root"]


@pytest.mark.parametrize("case", VECTORS["proofs"])
def test_proof(case: dict[str, Any]) -> None:
    asked = [H(kh) for kh in case["keys"]]
    expected = [found and (H(found[0]), found[1]) for found in case["found"]]
    shown = proof.verify(H(case["proof"]), H(case["state_root"]), asked, height=case["height"])
    assert [shown[kh] for kh in asked] == expected
    [blocks] = [item["blocks"] for item in VECTORS["states"] if item["depth"] == case["depth"]]
    state = State(MemoryBackend(), case["depth"], -1)
    for block in blocks:
        state.apply([(H(kh), H(vh), b"") for kh, vh in block["writes"]])
    assert state.prove(asked).encode().hex() == case["proof"]


def test_proofs_have_the_form_of_the_documented_grammar() -> None:
    page = (Path(__file__).parents[3] / "docs" / "formats" / "state.md").read_text()
    grammar = pycddl.Schema(page.split("```cddl\n")[1].split("```")[0])
    for case in VECTORS["proofs"]:
        grammar.validate_cbor(H(case["proof"]))
    for wrong in ([2, 9, 4, 80, [b""], b"", b""], [1, 9, 4, 80, [None], b"", b""]):
        with pytest.raises(pycddl.ValidationError):
            grammar.validate_cbor(cbor2.dumps(wrong))


@pytest.mark.parametrize("case", VECTORS["history"])
def test_history_root(case: dict[str, Any]) -> None:
    tree = history.HistoryTree(history.MemoryNodes())
    for leaf in leaves(case["size"]):
        tree.append(leaf)
    assert tree.root().hex() == case["root"]


@pytest.mark.parametrize("case", VECTORS["history_paths"])
def test_history_path(case: dict[str, Any]) -> None:
    size, index, path = case["size"], case["index"], [H(item) for item in case["path"]]
    tree = history.HistoryTree(history.MemoryNodes())
    for leaf in leaves(size):
        tree.append(leaf)
    assert tree.path(index) == path
    history.verify_inclusion(tree.root(), size, index, leaves(size)[index], path)
