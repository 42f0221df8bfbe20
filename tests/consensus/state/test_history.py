"""The history tree against RFC 9162's definitions, with undo and flushing."""

from __future__ import annotations

import random

import pytest

from consensus.errors import LocalProtocolError, ProofError
from consensus.state.history import HistoryTree, MemoryNodes, verify_inclusion

from . import model

LEAVES = [model.digest("test statement", i.to_bytes(4, "big")) for i in range(70)]


def grown(size: int) -> HistoryTree:
    tree = HistoryTree(MemoryNodes())
    for leaf in LEAVES[:size]:
        tree.append(leaf)
    return tree


def test_root_of_every_size_equals_the_definition() -> None:
    tree = grown(70)
    for size in range(71):
        assert tree.root(size) == model.history_root(LEAVES[:size])
    assert tree.root() == tree.root(70)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 6, 7, 8, 13, 31, 32, 33, 70])
def test_every_path_equals_the_definition_and_verifies(size: int) -> None:
    tree = grown(70)
    for index in range(size):
        path = tree.path(index, size)
        assert path == model.history_path(index, LEAVES[:size])
        verify_inclusion(tree.root(size), size, index, LEAVES[index], path)


def test_size_and_index_are_bound() -> None:
    """RFC 9162 alone lets a path verify for several sizes; the root here names one."""
    tree = grown(16)
    for size in range(1, 17):
        for index in range(size):
            path = tree.path(index, size)
            for other in range(1, 18):
                for position in range(other):
                    if (other, position) != (size, index):
                        with pytest.raises(ProofError):
                            verify_inclusion(tree.root(size), other, position, LEAVES[index], path)


def test_forged_paths_are_refused() -> None:
    tree = grown(21)
    root, path = tree.root(), tree.path(9)
    forged = [
        path[:-1],
        path[1:],
        [*path, bytes(32)],
        path[::-1],
        [*path[:-1], bytes(32)],
        [*path[:-1], path[-1][:31]],
        [],
    ]
    for bad in forged:
        with pytest.raises(ProofError):
            verify_inclusion(root, 21, 9, LEAVES[9], bad)
    with pytest.raises(ProofError, match="too long"):
        verify_inclusion(root, 21, 9, LEAVES[9], [*path, bytes(32)])
    for size, index in [(21, 21), (21, -1), (0, 0), (-1, 0), (2**63, 9)]:
        with pytest.raises(ProofError):
            verify_inclusion(root, size, index, LEAVES[9], path)
    for leaf in (LEAVES[8], LEAVES[9][:31], b""):
        with pytest.raises(ProofError):
            verify_inclusion(root, 21, 9, leaf, path)


def test_an_inner_node_is_not_a_leaf() -> None:
    """Second preimage: the node over two leaves offered as the one leaf of a smaller tree."""
    tree = grown(4)
    inner = LEAVES[0:2]
    with pytest.raises(ProofError):
        verify_inclusion(tree.root(), 2, 0, model.history_top(inner), tree.path(0)[1:])
    twins = HistoryTree(MemoryNodes())
    twins.append(model.history_top(LEAVES[:2]))
    twins.append(model.history_top(LEAVES[2:4]))
    assert twins.root() != tree.root()


def test_an_odd_last_leaf_is_not_duplicated() -> None:
    tree = grown(3)
    root = tree.root()
    tree.append(LEAVES[2])
    assert tree.root() != root
    assert tree.root() != grown(3).root()


def test_undo_restores_every_earlier_root() -> None:
    tree = grown(70)
    for size in (69, 64, 63, 33, 32, 5, 0):
        tree.truncate(size)
        assert tree.size == size
        assert tree.root() == model.history_root(LEAVES[:size])
    other = list(reversed(LEAVES))
    for leaf in other:
        tree.append(leaf)
    assert tree.root() == model.history_root(other)


def test_flushed_tree_reads_its_store_and_cannot_go_below_it() -> None:
    store = MemoryNodes()
    tree = HistoryTree(store)
    rng = random.Random(3)
    leaves: list[bytes] = []
    for step in range(300):
        leaf = model.digest("test statement", step.to_bytes(4, "big"))
        tree.append(leaf)
        leaves.append(leaf)
        if rng.random() < 0.2 and tree.size > tree._flushed + 1:
            tree.truncate(tree.size - 1)
            leaves.pop()
        if rng.random() < 0.2:
            height = rng.randint(tree._flushed - 1, tree.size - 1)
            store.write(tree.pending(height))
            tree.flushed(height)
        assert tree.root() == model.history_root(leaves)
    index = rng.randrange(len(leaves))
    assert tree.path(index) == model.history_path(index, leaves)
    again = HistoryTree(store, tree._flushed)
    assert again.root() == model.history_root(leaves[: again.size])
    with pytest.raises(LocalProtocolError):
        tree.truncate(tree._flushed - 1)
    store.write(tree.pending(tree.size - 1))
    tree.flushed(tree.size - 1)
    assert not tree._overlay


def test_pending_stores_each_node_once() -> None:
    tree = grown(20)
    nodes = tree.pending(12)
    assert len(nodes) == len(dict(nodes)) == 13 + 6 + 3 + 1
    assert tree.pending(-1) == []


@pytest.mark.parametrize("size", [0, 1, 5, 8, 37])
def test_a_tree_can_go_on_from_the_frontier_of_a_snapshot(size: int) -> None:
    store = MemoryNodes()
    store.write(grown(50).frontier(size))
    tree = HistoryTree(store, size)
    assert tree.root() == model.history_root(LEAVES[:size])
    for leaf in LEAVES[size:60]:
        tree.append(leaf)
    assert tree.root() == model.history_root(LEAVES[:60])
    assert tree.path(59) == model.history_path(59, LEAVES[:60])
    if size == 37:
        with pytest.raises(LookupError):
            tree.path(3)


def test_our_own_misuse_stops() -> None:
    tree = grown(5)
    with pytest.raises(LocalProtocolError):
        tree.append(b"short")
    for call in (
        lambda: tree.path(5),
        lambda: tree.path(-1),
        lambda: tree.root(6),
        lambda: tree.truncate(6),
        lambda: tree.flushed(5),
        lambda: tree.frontier(-1),
    ):
        with pytest.raises(LocalProtocolError):
            call()


def test_unflushed_statements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consensus.state.history.UNFLUSHED_MAX", 3)
    tree = grown(3)
    with pytest.raises(LocalProtocolError, match="flushed"):
        tree.append(LEAVES[3])
