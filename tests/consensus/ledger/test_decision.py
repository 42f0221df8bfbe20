"""Decisions as salted lists: bytes, roots, openings, and their place in a block."""

from __future__ import annotations

import json
import re
from pathlib import Path

import cbor2
import pycddl
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, ProofError
from consensus.hashing import context
from consensus.ledger import decision as decisions
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision, Header
from consensus.ledger.effects import hold_id, record_id
from consensus.state import salted
from consensus.state.merkle import RESULTS
from consensus.state.record import decode_row, decode_single
from tests.consensus.ledger.programme import mixed_blocks
from tests.consensus.ledger.reader import read_holds
from tests.consensus.ledger.world import World, person, populated, public_key, token

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "decision.json").read_text())


@pytest.fixture(name="payment", scope="module")
def _payment() -> Decision:
    world = populated()
    decision = world.one(world.disburse("ann"))
    assert decision.code == Code.APPLIED
    return decision


@pytest.fixture(name="block", scope="module")
def _block() -> tuple[Decision, ...]:
    world = World()
    calls = [("payments.transfer", "a", "b", amount) for amount in (1, 2, 5000, 3, 4, 5)]
    return world.run(*[world.draft("clerk", call) for call in calls]).decisions


def test_encoding_round_trips(block: tuple[Decision, ...], payment: Decision) -> None:
    for made in (*block, payment):
        read = decisions.decode(made.encode())
        assert read.root == made.root
        assert read.header == made.header
        assert (read.leaves, read.names) == (made.leaves, made.names)
        assert (read.code, read.call, read.detail) == (made.code, made.call, made.detail)
        assert read.encode() == made.encode()


def test_leaves_have_the_shapes_of_the_format(payment: Decision) -> None:
    assert payment.names == (
        "code",
        "authority",
        "reads",
        "writes:payments",
        "moves:payments",
    )
    for name in payment.names:
        decisions.SHAPES[name.partition(":")[0]](payment.value(name), name)
    assert payment.value("links") is None


def test_salts_come_from_pool_and_place(payment: Decision) -> None:
    header = payment.header
    slot = context("decision slot")(
        header.txid + header.height.to_bytes(8, "big") + header.index.to_bytes(8, "big")
    )
    assert payment.kh == slot
    assert len({*payment.salts}) == len(payment.names)


def test_root_is_that_of_the_salted_list(payment: Decision) -> None:
    leaves = [
        salted.leaf_hash(payment.kh, name, 0, salt, value)
        for (name, value), salt in zip(payment.leaves.items(), payment.salts, strict=True)
    ]
    assert payment.root == salted.list_root(salted.DECISION, payment.header_cbor, leaves)


@pytest.mark.parametrize("names", [(), ("code",), ("code", "moves:payments"), ("reads",)])
def test_chosen_leaves_lead_to_the_root(payment: Decision, names: tuple[str, ...]) -> None:
    shown, hashes = payment.openings(names)
    assert len(hashes) == len(payment.names) - len(names)
    count = len(payment.names)
    assert decisions.opened_root(payment.header_cbor, count, shown, hashes) == payment.root


def test_changed_opening_leads_elsewhere(payment: Decision) -> None:
    shown, hashes = payment.openings(("code",))
    [(index, opening)] = shown.items()
    forged = {index: salted.Opening("code", 0, opening.salt, codec.encode([1, None, None]))}
    count = len(payment.names)
    assert decisions.opened_root(payment.header_cbor, count, forged, hashes) != payment.root
    moved = cbor2.dumps([*cbor2.loads(payment.header_cbor)[:2], 1, *payment_tail(payment)])
    assert decisions.opened_root(moved, count, shown, hashes) != payment.root
    with pytest.raises(ProofError):
        decisions.opened_root(payment.header_cbor, count, shown, hashes[:-1])
    with pytest.raises(DecodeError):
        decisions.opened_root(b"\x80", count, shown, hashes)


def payment_tail(payment: Decision) -> list[object]:
    tail: list[object] = cbor2.loads(payment.header_cbor)[3:]
    return tail


def test_every_decision_has_its_path_in_the_block(block: tuple[Decision, ...]) -> None:
    root = decisions.results_root(block)
    for index, made in enumerate(block):
        path = RESULTS.path([each.root for each in block], index)
        RESULTS.verify_path(root, len(block), index, made.root, path)
        other = (index + 1) % len(block)
        with pytest.raises(ProofError):
            RESULTS.verify_path(root, len(block), other, made.root, path)
    with pytest.raises(ProofError):
        RESULTS.verify_path(root, len(block), 0, b"short", path)


def rows_of(decision: Decision) -> list[list[object]]:
    rows: list[list[object]] = cbor2.loads(decision.encode())[1]
    return rows


def rebuilt(decision: Decision, rows: list[list[object]], header: bytes = b"") -> bytes:
    return cbor2.dumps([header or decision.header_cbor, rows])


def test_malformed_decisions_are_refused(payment: Decision) -> None:
    rows = rows_of(payment)
    bad = [
        rebuilt(payment, rows[1:]),
        rebuilt(payment, [rows[0], rows[2], rows[1], *rows[3:]]),
        rebuilt(payment, [*rows, rows[-1]]),
        rebuilt(payment, [*rows, ["other", bytes(16), b"\x80"]]),
        rebuilt(payment, [*rows[:-1], ["moves", bytes(16), rows[-1][2]]]),
        rebuilt(payment, [["code:x", *rows[0][1:]], *rows[1:]]),
        rebuilt(payment, [["code", bytes(16), b"\x83\x00\xf6\x18\x01"], *rows[1:]]),
        rebuilt(payment, [["code", bytes(16), b"\x80"], *rows[1:]]),
        rebuilt(payment, [["code", bytes(15), rows[0][2]], *rows[1:]]),
        rebuilt(payment, [*rows, ["~", bytes(16), b"\xf6"]]),
        rebuilt(payment, rows, b"\x80"),
        payment.encode()[:-1],
        payment.encode() + b"\x00",
    ]
    for data in bad:
        with pytest.raises(DecodeError):
            decisions.decode(data)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_changed_byte_is_refused_or_changes_the_root(payment: Decision, at: int, byte: int) -> None:
    data = bytearray(payment.encode())
    at %= len(data)
    data[at] = byte
    try:
        read = decisions.decode(bytes(data))
    except DecodeError:
        return
    assert (read.root == payment.root) == (bytes(data) == payment.encode())


def many_leaves() -> Decision:
    leaves = {"code": codec.encode([0, None, None]), "reads": b"\x82\x40\x40"}
    leaves |= {
        f"writes:d{n:02}": codec.encode([[["record", [n]], 0, 1, bytes(32), []]]) for n in range(20)
    }
    return decisions.Maker(3, 5).make(bytes(32), 4, 1, [], leaves, bytes(32))


def test_more_than_sixteen_leaves_make_a_tree_with_decoys() -> None:
    made = many_leaves()
    assert len(made.salts) == 64
    read = decisions.decode(made.encode())
    assert read.root == made.root
    shown, hashes = made.openings(("code", "writes:d07"))
    assert decisions.opened_root(made.header_cbor, len(made.names), shown, hashes) == made.root
    rows = rows_of(made)
    with pytest.raises(DecodeError, match="end"):
        decisions.decode(rebuilt(made, [rows[0], rows[-1], *rows[1:-1]]))
    with pytest.raises(DecodeError, match="decoys"):
        decisions.decode(rebuilt(made, rows[:-1]))


# --- a second reading: the same root from nothing but the format --------------------------------


def hashed(purpose: str, *parts: bytes) -> bytes:
    key = f"comity 2026-11-21 {purpose} v1"
    return blake3(b"".join(parts), derive_key_context=key).digest()


def root_by_the_format(data: bytes) -> bytes:
    header, rows = cbor2.loads(data)
    txid, height, index = cbor2.loads(header)[:3]
    slot = hashed("decision slot", txid, height.to_bytes(8, "big"), index.to_bytes(8, "big"))
    leaves = [
        hashed("field", cbor2.dumps([slot, name, 0]), hashed("value", salt, value))
        for name, salt, value in rows
    ]
    return hashed("decision root", header, *leaves)


def test_root_follows_from_the_written_format(
    block: tuple[Decision, ...], payment: Decision
) -> None:
    for made in (*block, payment):
        assert root_by_the_format(made.encode()) == made.root


# --- vectors ----------------------------------------------------------------------------------


def test_vectors_of_made_ids() -> None:
    for row in VECTORS["made_ids"]:
        txid = bytes.fromhex(row["txid"])
        assert record_id(txid, row["call"], row["effect"]).hex() == row["record"]
        assert hold_id(txid, row["call"], row["effect"]).hex() == row["hold"]


def test_vectors_of_decisions() -> None:
    for row in VECTORS["decisions"]:
        made = decisions.decode(bytes.fromhex(row["encoded"]))
        assert made.header_cbor.hex() == row["header"]
        assert made.kh.hex() == row["slot"]
        assert made.root.hex() == row["root"]
        assert root_by_the_format(bytes.fromhex(row["encoded"])).hex() == row["root"]
        assert made.code.name == row["code"]


def test_vector_of_a_block() -> None:
    vector = VECTORS["block"]
    world = populated()
    block = [
        world.disburse("ann"),
        world.draft("clerk", ("payments.transfer", "a", "b", 7)),
        world.draft("clerk", ("payments.transfer", "a", "b", 7000)),
        world.draft("auditor", ("payments.freeze", person("bob"), None)),
    ]
    result = world.run(*block)
    assert [d.root.hex() for d in result.decisions] == vector["decision_roots"]
    assert result.results_root.hex() == vector["results_root"]
    assert [[w.kh.hex(), w.vh.hex()] for w in result.writes] == vector["writes"]


def test_header_is_what_the_block_says(block: tuple[Decision, ...]) -> None:
    assert isinstance(block[2].header, Header)
    assert [made.header.state for made in block] == [1, 1, 0, 1, 1, 1]
    assert [made.header.index for made in block] == list(range(6))


# --- the CDDL ---------------------------------------------------------------------------------

CDDL = (Path(__file__).parents[3] / "docs" / "protocol" / "ledger.cddl").read_text()


def validate(rule: str, data: bytes) -> None:
    """Check ``data`` against one rule of the CDDL."""
    pycddl.Schema(f"start = {rule}\n{CDDL}").validate_cbor(data)


def test_decisions_match_the_cddl() -> None:
    world = populated()
    seen = set[Code]()
    for block in mixed_blocks(world):
        for made in world.run(*block).decisions:
            seen.add(made.code)
            validate("encoded-decision", made.encode())
            validate("decision-header", made.header_cbor)
            for name, value in made.leaves.items():
                validate(f"{name.partition(':')[0]}-leaf", value)
    assert len(seen) == 5


@pytest.mark.parametrize(
    ("rule", "space", "components"),
    [
        ("agency-leaf", "agency", ["services"]),
        ("principal-leaf", "principal", [token("ann's")]),
        ("key-leaf", "key", [public_key("spare")]),
        ("role-leaf", "role", [token("clerk"), "payments.clerk"]),
        ("domains-leaf", "rules", []),
        ("rules-head-leaf", "rules", ["payments"]),
        ("account-leaf", "account", ["purse", "a"]),
        ("holds-leaf", "holds", ["agency", ["services"]]),
        ("sequence-leaf", "sequence", [public_key("clerk")]),
    ],
)
def test_leaves_match_the_cddl(rule: str, space: str, components: list[Value]) -> None:
    world = populated()
    for block in mixed_blocks(world)[:2]:
        world.run(*block)
    row = world.state.get(world.ledger.paths(space, components))
    assert row is not None
    validate(rule, decode_single(row.value)[2])


def test_hold_and_record_leaves_match_the_cddl() -> None:
    world = populated()
    world.run(*mixed_blocks(world)[0])
    [hold] = read_holds(world.state, world.ledger.paths, "record", ["person", token("bob")])
    validate("hold-leaf", codec.encode(list(hold)))
    row = world.state.get(world.ledger.paths("record", ["entitlement", token("ann")]))
    assert row is not None
    stored = decode_row(row.value)
    validate("record-header", stored.header)
    for name, rule in (("by", "record-by"), ("basis", "record-basis"), ("~holds", "scope-mask")):
        leaf = stored.leaf(name)
        assert leaf is not None
        validate(rule, leaf.value_cbor)


def test_registry_of_codes_is_that_of_the_cddl() -> None:
    pairs = re.findall(r"(?m)^;\s+(\d+) ([A-Z_]+)  ", CDDL)
    pairs += re.findall(r"(3\d) ([A-Z_]+)", CDDL.partition("at its door:")[2])
    assert {name: int(number) for number, name in pairs} == {each.name: each for each in Code}
