"""Stored records: rows, writes, holds, and their roots against the definition."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.errors import LocalProtocolError
from consensus.state import record, salted
from consensus.state.record import HOLDS, StoredRecord

from . import model

KH = model.digest("test", b"record")
POOL = model.digest("test", b"pool")
STEM = cbor2.dumps("entitlement") + cbor2.dumps(3) + cbor2.dumps(["E-17"])
FIELDS: dict[str, object] = {
    "status": "active",
    "monthly": 21000,
    "person": ["P-1"],
    "basis": [],
    "by": [["created", b"k"]],
    HOLDS: [],
}


def encoded(values: dict[str, object]) -> dict[str, bytes]:
    return {name: cbor2.dumps(value) for name, value in values.items()}


def salts(write: int, count: int) -> list[bytes]:
    return salted.salts(POOL, bytes([write]) * 32, count)


def made(values: dict[str, object]) -> tuple[StoredRecord, bytes]:
    count = record.salts_needed(None, list(values))
    return record.create(KH, STEM, encoded(values), salts(0, count))


def test_new_record_has_the_root_of_its_definition() -> None:
    stored, vh = made(FIELDS)
    names = sorted(FIELDS)
    leaves = {name: (1, salts(0, 6)[at], FIELDS[name]) for at, name in enumerate(names)}
    assert vh == model.record_root(KH, ["entitlement", 3, ["E-17"], 1, 6], leaves)
    assert vh == stored.root()
    assert stored.names == ("basis", "by", "monthly", "person", "status", "~holds")
    assert (stored.kind, stored.definition, stored.id, stored.version) == (
        "entitlement",
        3,
        ["E-17"],
        1,
    )
    assert cbor2.loads(stored.header) == ["entitlement", 3, ["E-17"], 1, 6]


def test_order_of_the_given_fields_does_not_matter() -> None:
    assert made(FIELDS) == made(dict(reversed(FIELDS.items())))


def test_write_replaces_only_the_written_leaves() -> None:
    stored, _ = made(FIELDS)
    changed, vh = record.update(
        stored, KH, encoded({"status": "ended", "basis": [1]}), salts(1, 2), 2
    )
    first, second = salts(0, 6), salts(1, 2)
    expected = {
        "basis": (2, second[0], [1]),
        "by": (1, first[1], FIELDS["by"]),
        "monthly": (1, first[2], 21000),
        "person": (1, first[3], ["P-1"]),
        "status": (2, second[1], "ended"),
        HOLDS: (1, first[5], []),
    }
    assert vh == model.record_root(KH, ["entitlement", 3, ["E-17"], 2, 6], expected)
    assert [leaf[:4] for leaf in changed.leaves] == [
        (name, version, salt, cbor2.dumps(value))
        for name, (version, salt, value) in expected.items()
    ]
    assert stored == made(FIELDS)[0], "the record before the write is unchanged"


def test_rehold_steps_no_version() -> None:
    stored, vh = made(FIELDS)
    held, held_vh = record.rehold(stored, KH, cbor2.dumps(["pay"]), salts(1, 1))
    assert held.version == stored.version
    assert held_vh != vh
    before, after = stored.leaf(HOLDS), held.leaf(HOLDS)
    assert before is not None
    assert after is not None
    assert (after.version, after.value_cbor) == (before.version, cbor2.dumps(["pay"]))
    leaves = {
        leaf.name: (leaf.version, leaf.salt, cbor2.loads(leaf.value_cbor)) for leaf in held.leaves
    }
    assert held_vh == model.record_root(KH, ["entitlement", 3, ["E-17"], 1, 6], leaves)


def test_rehold_of_a_record_without_the_leaf_adds_it_at_version_0() -> None:
    stored, _ = made({"status": "active"})
    held, vh = record.rehold(stored, KH, cbor2.dumps(["all"]), salts(1, 1))
    expected = {"status": (1, salts(0, 1)[0], "active"), HOLDS: (0, salts(1, 1)[0], ["all"])}
    assert vh == model.record_root(KH, ["entitlement", 3, ["E-17"], 1, 2], expected)
    assert held.version == 1


def test_write_under_a_newer_definition_lays_the_record_anew() -> None:
    stored, _ = made(FIELDS)
    widened, vh = record.update(stored, KH, encoded({"colour": None}), salts(1, 1), 2, definition=4)
    assert cbor2.loads(widened.header) == ["entitlement", 4, ["E-17"], 2, 7]
    leaves = {
        leaf.name: (leaf.version, leaf.salt, cbor2.loads(leaf.value_cbor))
        for leaf in widened.leaves
    }
    assert leaves["colour"] == (2, salts(1, 1)[0], None)
    assert vh == model.record_root(KH, ["entitlement", 4, ["E-17"], 2, 7], leaves)


def test_large_record_is_a_tree_whose_decoys_last_until_it_grows() -> None:
    values: dict[str, object] = {f"f{i:02}": i for i in range(20)}
    assert record.salts_needed(None, list(values)) == 64
    stored, vh = made(values)
    first = salts(0, 64)
    leaves = {f"f{i:02}": (1, first[i], i) for i in range(20)}
    assert vh == model.record_root(KH, ["entitlement", 3, ["E-17"], 1, 20], leaves, first[20:])

    assert record.salts_needed(stored, ["f03"]) == 1
    changed, vh = record.update(stored, KH, encoded({"f03": -3}), salts(1, 1), 2)
    leaves["f03"] = (2, salts(1, 1)[0], -3)
    assert vh == model.record_root(KH, ["entitlement", 3, ["E-17"], 2, 20], leaves, first[20:])

    assert record.salts_needed(changed, ["f20", "f03"]) == 2 + 43
    third = salts(2, 45)
    grown, vh = record.update(changed, KH, encoded({"f20": 20, "f03": 3}), third, 3)
    leaves["f03"], leaves["f20"] = (3, third[0], 3), (3, third[1], 20)
    assert vh == model.record_root(KH, ["entitlement", 3, ["E-17"], 3, 21], leaves, third[2:])
    assert record.decode_row(record.encode_row(grown)) == grown


def test_record_that_grows_beyond_16_leaves_becomes_a_tree() -> None:
    stored, _ = made({f"f{i:02}": i for i in range(16)})
    assert record.salts_needed(stored, ["g"]) == 1 + 47
    fresh = salts(1, 48)
    _, vh = record.update(stored, KH, encoded({"g": 1}), fresh, 2)
    leaves: dict[str, tuple[int, bytes, object]] = {
        f"f{i:02}": (1, salts(0, 16)[i], i) for i in range(16)
    }
    leaves["g"] = (2, fresh[0], 1)
    assert vh == model.record_root(KH, ["entitlement", 3, ["E-17"], 2, 17], leaves, fresh[1:])


def test_wrong_number_of_salts_or_a_version_that_does_not_step_is_our_bug() -> None:
    stored, _ = made(FIELDS)
    for given_salts, version in [(salts(1, 2), 2), ([], 2), (salts(1, 1), 1), (salts(1, 1), 0)]:
        with pytest.raises(LocalProtocolError):
            record.update(stored, KH, encoded({"status": "x"}), given_salts, version)
    with pytest.raises(LocalProtocolError):
        record.create(KH, STEM, encoded(FIELDS), salts(0, 5))


def test_a_field_is_found_by_name_or_not_at_all() -> None:
    stored, _ = made(FIELDS)
    leaf = stored.leaf("monthly")
    assert leaf is not None
    assert leaf.leaf_hash == model.leaf(KH, "monthly", 1, leaf.salt, 21000)
    assert stored.index("monthly") == 2
    assert stored.leaf("absent") is None
    assert stored.index("absent") is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8).filter(str.isprintable),
        st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.binary(max_size=300)),
        max_size=40,
    ),
    st.integers(1, 2**63 - 1),
)
def test_row_gives_the_record_back(values: dict[str, object], version: int) -> None:
    stored, vh = made(values)
    if values and version > 1:
        stored, vh = record.update(
            stored, KH, encoded(dict(list(values.items())[:1])), salts(1, 1), version
        )
    again = record.decode_row(record.encode_row(stored))
    assert again == stored
    assert again.root() == vh


@pytest.mark.parametrize("kind", ["a", "k" * 23, "k" * 24, "k" * 64])
@pytest.mark.parametrize("definition", [1, 23, 24, 255, 256, 65_536, 2**40])
def test_place_of_a_row_is_read_without_the_rest(kind: str, definition: int) -> None:
    id_ = cbor2.dumps([["E-17"], b"x" * 40, 7])
    stem = cbor2.dumps(kind) + cbor2.dumps(definition) + id_
    stored, _ = record.create(KH, stem, encoded(FIELDS), salts(0, 6))
    stored, _ = record.update(stored, KH, {"monthly": b"\1"}, salts(1, 1), 5)
    row = record.encode_row(stored)
    assert record.place_of_row(row) == (5, cbor2.dumps(kind) + id_)


def test_tables_of_names_are_bounded_and_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    tables = (record._NAMES, record._ENCODED_NAMES, salted.TEXTS)
    for table in tables:
        monkeypatch.setattr(table, "entries_max", 2)
        table.clear()
    for _ in range(2):
        for number in range(5):
            stored, vh = made({f"a{number}": 1, f"b{number}": 2})
            assert record.decode_row(record.encode_row(stored)).root() == vh
            assert all(len(table) <= 2 for table in tables)
    long = "x" * (salted.TEXT_BYTES_MAX + 1)
    assert salted.TEXTS[long] == cbor2.dumps(long)
    assert long not in salted.TEXTS


def test_damaged_row_stops_the_node() -> None:
    row = record.encode_row(made(FIELDS)[0])
    for bad in [b"", row[:10], row[:-1], row + b"\0", b"\2" + row[1:], row[:100]]:
        with pytest.raises(LocalProtocolError):
            record.decode_row(bad)


def test_single_leaf_row_gives_its_parts_back() -> None:
    row = record.encode_single(7, bytes(range(16)), b"\x83\1\2\3")
    assert record.decode_single(row) == (7, bytes(range(16)), b"\x83\1\2\3")
    with pytest.raises(LocalProtocolError):
        record.decode_single(row[:23])


@pytest.mark.parametrize("count", [6, 20])
def test_third_party_checks_an_opened_field_of_a_stored_record(count: int) -> None:
    stored, vh = made({f"f{i:02}": i for i in range(count)})
    leaf = stored.leaf_at(3)
    opening = salted.Opening(leaf.name, leaf.version, leaf.salt, leaf.value_cbor)
    root = salted.opened_root(
        salted.RECORD, KH, stored.header, count, {3: opening}, stored.hashes_for([3])
    )
    assert root == vh
