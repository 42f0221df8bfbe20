"""Key paths, salted leaves, lists, trees, salts and openings."""

from __future__ import annotations

import cbor2
import pytest

from consensus.errors import LocalProtocolError, ProofError
from consensus.ledger.layout import Paths
from consensus.state import salted
from consensus.state.salted import DECISION, PRIVATE, RECORD, HiddenOpening, Opening

from . import model

CHAIN = bytes(range(32))
KH = model.digest("test", b"kh")
POOL = model.digest("test", b"pool")


@pytest.mark.parametrize(
    ("namespace", "components"),
    [
        ("record", ["person", "P-1"]),
        ("sequence", [bytes(32)]),
        ("pool", []),
        ("rules", ["a", 70000]),
    ],
)
def test_key_path_is_the_keyed_hash_of_namespace_and_components(
    namespace: str, components: list[object]
) -> None:
    expected = model.key_path(CHAIN, namespace, components)
    assert Paths(CHAIN)(namespace, components) == expected


def test_key_paths_of_two_networks_and_of_regrouped_components_differ() -> None:
    here, there = Paths(CHAIN), Paths(bytes(32))
    assert here("a", ["b"]) != there("a", ["b"])
    assert (
        len({here("a", ["b", "c"]), here("a", ["bc"]), here("ab", ["c"]), here("a", [["b", "c"]])})
        == 4
    )


@pytest.mark.parametrize("version", [0, 1, 23, 24, 255, 256, 1023, 1024, 65536, 2**32, 2**63 - 1])
@pytest.mark.parametrize("name", ["", "status", "~holds", "größe", "x" * 255])
def test_leaf_hash_built_by_hand_equals_the_encoded_form(name: str, version: int) -> None:
    value = [1, "x", None, b"y"]
    salt = bytes(range(16))
    found = salted.leaf_hash(KH, name, version, salt, cbor2.dumps(value))
    assert found == model.leaf(KH, name, version, salt, value)
    hidden = salted.value_hash(salt, cbor2.dumps(value))
    assert salted.leaf_hash_of(KH, name, version, hidden) == found


def test_bulk_leaf_hashes_equal_single_ones() -> None:
    values = {f"f{i}": cbor2.dumps(i) for i in range(7)}
    salts = salted.salts(POOL, KH, 7)
    for count in (0, 1, 2, 7):
        part = dict(list(values.items())[:count])
        assert salted.leaf_hashes(KH, 5, part, salts) == [
            model.leaf(KH, f"f{i}", 5, salts[i], i) for i in range(count)
        ]
    with pytest.raises(LocalProtocolError):
        salted.leaf_hashes(KH, 5, values, salts[:6])


def test_every_part_of_a_leaf_changes_its_hash() -> None:
    salt = bytes(16)
    base = salted.leaf_hash(KH, "a", 1, salt, b"\x01")
    others = [
        salted.leaf_hash(bytes(32), "a", 1, salt, b"\x01"),
        salted.leaf_hash(KH, "b", 1, salt, b"\x01"),
        salted.leaf_hash(KH, "a", 2, salt, b"\x01"),
        salted.leaf_hash(KH, "a", 1, bytes(15) + b"\1", b"\x01"),
        salted.leaf_hash(KH, "a", 1, salt, b"\x02"),
    ]
    assert len({base, *others}) == 6


@pytest.mark.parametrize("kind", [RECORD, PRIVATE, DECISION])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 12, 13, 15, 16, 17, 63, 64, 65, 200, 256])
def test_list_root_is_flat_up_to_8_leaves_a_tree_above_and_padded_above_16(
    kind: str, count: int
) -> None:
    header = cbor2.dumps(["header", count])
    stream = model.salts(POOL, KH, 512)
    hashes = [model.leaf(KH, f"{i}", 1, stream[i], i) for i in range(count)]
    padding = {17: 47, 63: 1, 64: 0, 65: 191, 200: 56, 256: 0}.get(count, 0)
    assert salted.decoy_count(count) == padding
    decoy_salts = stream[count : count + padding]
    root = salted.list_root(kind, header, hashes, salted.decoys(decoy_salts))
    assert root == model.salted_root(kind, header, hashes, decoy_salts)


def test_more_leaves_than_the_largest_tree_are_refused() -> None:
    with pytest.raises(LocalProtocolError):
        salted.decoy_count(257)
    with pytest.raises(LocalProtocolError):
        salted.list_root(RECORD, b"\x80", [bytes(32)] * 17)
    with pytest.raises(LocalProtocolError):
        salted.list_root(RECORD, b"\x80", [bytes(32)] * 16, [bytes(32)] * 48)


def test_roots_of_different_kinds_headers_and_counts_differ() -> None:
    leaf = [bytes(32)]
    roots = {salted.list_root(kind, b"\x80", leaf) for kind in (RECORD, PRIVATE, DECISION)}
    roots |= {
        salted.list_root(RECORD, b"\x81\x01", leaf),
        salted.list_root(RECORD, b"\x80", leaf * 2),
    }
    assert len(roots) == 5


def test_salts_are_slices_of_one_stream_and_a_prefix_of_a_longer_one() -> None:
    assert salted.salts(POOL, KH, 0) == []
    assert salted.salts(POOL, KH, 5) == model.salts(POOL, KH, 9)[:5]
    assert salted.salts(KH, POOL, 1) != salted.salts(POOL, KH, 1)


def test_pool_and_single_salt_follow_their_definition() -> None:
    seed = bytes(range(32))
    assert salted.next_pool(POOL, seed) == model.digest("pool", POOL + seed)
    assert salted.next_single_salt(salted.NO_SALT, POOL, KH) == model.digest(
        "single salt", bytes(16) + POOL + KH, 16
    )
    assert salted.single_leaf(KH, 3, bytes(16), b"\x07") == model.leaf(KH, "", 3, bytes(16), 7)


# --- openings -----------------------------------------------------------------------------------


def opened(count: int) -> tuple[bytes, list[Opening], list[bytes], list[bytes], bytes]:
    """A list's header, openings, leaf hashes, decoys and root."""
    header = cbor2.dumps(["kind", count])
    stream = model.salts(POOL, KH, 300)
    openings = [Opening(f"n{i:03}", i, stream[i], cbor2.dumps(i)) for i in range(count)]
    hashes = [model.leaf(KH, f"n{i:03}", i, stream[i], i) for i in range(count)]
    decoys = salted.decoys(stream[count : count + salted.decoy_count(count)])
    root = model.salted_root(
        RECORD, header, hashes, stream[count : count + salted.decoy_count(count)]
    )
    return header, openings, hashes, decoys, root


@pytest.mark.parametrize("count", [1, 8, 9, 12, 15, 16, 17, 40, 64, 70])
@pytest.mark.parametrize("shown", [[], [0], [0, -1], list(range(1, 1000, 3))])
def test_opened_leaves_and_the_hashes_of_the_others_give_the_root(
    count: int, shown: list[int]
) -> None:
    header, openings, hashes, decoys, root = opened(count)
    indices = sorted({i % count for i in shown if i < count})
    others = salted.hashes_for(hashes, decoys, indices)
    full: dict[int, Opening | HiddenOpening] = {i: openings[i] for i in indices}
    assert salted.opened_root(RECORD, KH, header, count, full, others) == root
    hidden: dict[int, Opening | HiddenOpening] = {
        i: HiddenOpening(o.name, o.version, salted.value_hash(o.salt, o.value_cbor))
        for i, o in ((i, openings[i]) for i in indices)
    }
    assert salted.opened_root(RECORD, KH, header, count, hidden, others) == root


@pytest.mark.parametrize("count", [5, 12, 20])
def test_a_forged_opening_leads_to_another_root(count: int) -> None:
    header, openings, hashes, decoys, root = opened(count)
    others = salted.hashes_for(hashes, decoys, [2])
    o = openings[2]
    forged = [
        Opening("other", o.version, o.salt, o.value_cbor),
        Opening(o.name, o.version + 1, o.salt, o.value_cbor),
        Opening(o.name, o.version, bytes(16), o.value_cbor),
        Opening(o.name, o.version, o.salt, cbor2.dumps("forged")),
    ]
    for opening in forged:
        assert salted.opened_root(RECORD, KH, header, count, {2: opening}, others) != root
    good: dict[int, Opening | HiddenOpening] = {2: o}
    assert salted.opened_root(RECORD, POOL, header, count, good, others) != root
    assert salted.opened_root(DECISION, KH, header, count, good, others) != root
    assert salted.opened_root(RECORD, KH, cbor2.dumps(["kind", 9]), count, good, others) != root
    assert salted.opened_root(RECORD, KH, header, count, {3: o}, others) != root


@pytest.mark.parametrize("count", [5, 12, 20])
def test_an_opening_of_impossible_lengths_is_refused(count: int) -> None:
    header, openings, hashes, decoys, _ = opened(count)
    others = salted.hashes_for(hashes, decoys, [2])
    o = openings[2]
    bad: list[Opening | HiddenOpening] = [
        Opening("x" * 256, o.version, o.salt, o.value_cbor),
        Opening(o.name, -1, o.salt, o.value_cbor),
        Opening(o.name, 2**63, o.salt, o.value_cbor),
        Opening(o.name, o.version, o.salt + b"\0", o.value_cbor),
        Opening(o.name, o.version, o.salt[:15], o.salt[15:] + o.value_cbor),
        HiddenOpening(o.name, o.version, bytes(31)),
    ]
    for opening in bad:
        with pytest.raises(ProofError):
            salted.opened_root(RECORD, KH, header, count, {2: opening}, others)
    with pytest.raises(ProofError):
        salted.opened_root(RECORD, KH[:31], header, count, {2: o}, others)
    for shown, hashes_ in [
        ({2: o}, others[:-1]),
        ({2: o}, [*others, bytes(32)]),
        ({2: o}, [*others[:-1], bytes(33)]),
        ({count: o}, others),
        ({-1: o}, others),
        ({}, others[:-2]),
    ]:
        with pytest.raises(ProofError):
            salted.opened_root(RECORD, KH, header, count, shown, hashes_)
    for wrong in (-1, 257, 10**12):
        with pytest.raises(ProofError):
            salted.opened_root(RECORD, KH, header, wrong, {}, [])
