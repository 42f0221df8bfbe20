"""The count-bound 4-ary tree, against a recursive model and against forgeries."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.errors import LocalProtocolError, ProofError
from consensus.state import merkle
from consensus.state.merkle import GROUP, RESULTS, CountTree

from . import model

COUNTS = [0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 20, 21, 63, 64, 65, 100, 256, 257, 1024]


def leaves(count: int, seed: int = 0) -> list[bytes]:
    return [model.digest("test leaf", bytes([seed]) + i.to_bytes(4, "big")) for i in range(count)]


@pytest.mark.parametrize("count", COUNTS)
def test_root_equals_the_recursive_definition(count: int) -> None:
    assert RESULTS.root(leaves(count)) == model.count_root("results", leaves(count))


@pytest.mark.parametrize("count", [n for n in COUNTS if 0 < n <= 257])
def test_every_path_equals_the_definition_and_verifies(count: int) -> None:
    items = leaves(count)
    root = RESULTS.root(items)
    for index in range(count):
        path = RESULTS.path(items, index)
        assert path == model.count_path("results", items, index, 1)
        RESULTS.verify_path(root, count, index, items[index], path)


@pytest.mark.parametrize("count", [1, 4, 5, 16, 17, 18, 21, 37, 64, 70])
def test_every_aligned_part_of_a_group_verifies(count: int) -> None:
    items = leaves(count)
    root = GROUP.root(items)
    for level in range(4):
        for first in range(0, count, 4**level):
            part = items[first : first + 4**level]
            path = GROUP.subtree_path(items, first, len(part))
            assert path == model.count_path("group", items, first, len(part))
            assert GROUP.subtree_root(count, first, part, path) == root


@pytest.mark.parametrize(
    ("total", "first", "length"),
    [(16, 1, 4), (16, 0, 3), (16, 0, 5), (17, 4, 8), (17, 16, 2), (8, 8, 1), (8, 0, 0), (8, -4, 4)],
)
def test_a_part_that_is_not_aligned_is_refused(total: int, first: int, length: int) -> None:
    assert merkle.subtree_level(total, first, length) is None
    with pytest.raises(ProofError, match="aligned"):
        GROUP.subtree_root(total, first, leaves(length), [])
    with pytest.raises(LocalProtocolError):
        GROUP.subtree_path(leaves(total), first, length)
    if length:
        known = dict(enumerate(leaves(length), first))
        with pytest.raises(ProofError, match="aligned"):
            GROUP.narrowed(total, known, [], first)


def test_an_odd_leaf_is_not_duplicated() -> None:
    """CVE-2012-2459: a list and the same list with its tail repeated had one root."""
    for count in range(1, 40):
        items = leaves(count)
        assert RESULTS.root(items) != RESULTS.root([*items, items[-1]])


def test_a_zero_leaf_is_not_a_missing_leaf() -> None:
    items = leaves(5)
    assert RESULTS.root(items) != RESULTS.root([*items, model.ZERO])
    assert RESULTS.root([]) != RESULTS.root([model.ZERO])


def test_root_binds_the_count() -> None:
    """An index beyond the real count cannot be reached with the siblings of another shape."""
    items = leaves(6)
    root = RESULTS.root(items)
    for count in [1, 2, 3, 4, 5, 7, 8, 16, 17, 2**40]:
        for index in range(min(count, 6)):
            for path in (RESULTS.path(items, index), []):
                with pytest.raises(ProofError):
                    RESULTS.verify_path(root, count, index, items[index], path)


def test_an_inner_node_is_not_a_leaf() -> None:
    """Second preimage: four inner nodes offered as four leaves lead to another root."""
    items = leaves(16)
    nodes = [model.digest("results leaf", b"".join(items[at : at + 4])) for at in range(0, 16, 4)]
    assert RESULTS.root(nodes) != RESULTS.root(items)
    with pytest.raises(ProofError):
        RESULTS.verify_path(RESULTS.root(items), 16, 0, nodes[0], nodes[1:])


def test_trees_of_two_purposes_differ_in_every_root() -> None:
    for count in range(20):
        assert CountTree("results").root(leaves(count)) != CountTree("group").root(leaves(count))


@pytest.mark.parametrize("count", [2, 5, 17, 64])
def test_a_path_too_long_too_short_swapped_or_cut_is_refused(count: int) -> None:
    items = leaves(count)
    root = RESULTS.root(items)
    for index in range(count):
        path = RESULTS.path(items, index)
        forged = [
            [*path, model.ZERO],
            [model.ZERO, *path],
            path[:-1],
            path[1:],
            [*path[:-1], path[-1][:31]],
            [*path[:-1], path[-1] + b"\0"],
        ]
        if len(path) > 1:
            forged.append([path[1], path[0], *path[2:]])
        for bad in forged:
            with pytest.raises(ProofError):
                RESULTS.verify_path(root, count, index, items[index], bad)


def test_index_out_of_range_is_refused() -> None:
    items = leaves(5)
    root = RESULTS.root(items)
    for count, index in [(5, -1), (5, 5), (0, 0), (-1, 0), (2**63, 0)]:
        with pytest.raises(ProofError):
            RESULTS.verify_path(root, count, index, items[0], RESULTS.path(items, 0))


def test_a_leaf_of_wrong_length_is_refused() -> None:
    with pytest.raises(ProofError, match="32 bytes"):
        RESULTS.verify_path(RESULTS.root(leaves(1)), 1, 0, leaves(1)[0] + b"\0", [])
    with pytest.raises(LocalProtocolError):
        RESULTS.root([b"short"])


def test_a_part_with_one_leaf_changed_or_moved_leads_to_another_root() -> None:
    items = leaves(37)
    root = GROUP.root(items)
    part, path = items[16:32], GROUP.subtree_path(items, 16, 16)
    assert GROUP.subtree_root(37, 16, part, path) == root
    assert GROUP.subtree_root(37, 0, part, path) != root
    for at in range(16):
        changed = [*part[:at], leaves(1, seed=9)[0], *part[at + 1 :]]
        assert GROUP.subtree_root(37, 16, changed, path) != root


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 90), st.data())
def test_many_leaves_verify_with_one_set_of_siblings(count: int, data: st.DataObject) -> None:
    items = leaves(count)
    shown = data.draw(st.sets(st.integers(0, count - 1), min_size=1, max_size=8))
    path = RESULTS.multi_path(items, shown)
    known = {index: items[index] for index in shown}
    assert RESULTS.multi_root(count, known, path) == model.count_root("results", items)
    with pytest.raises(ProofError):
        RESULTS.multi_root(count, known, [*path, model.ZERO])
    for index in shown:
        forged = {**known, index: leaves(1, seed=7)[0]}
        assert RESULTS.multi_root(count, forged, path) != model.count_root("results", items)


def test_paths_of_several_parts_equal_the_paths_one_by_one() -> None:
    items = leaves(23)
    parts = [[0], [5, 6], list(range(16, 23))]
    assert GROUP.multi_paths(items, parts) == [GROUP.multi_path(items, part) for part in parts]
