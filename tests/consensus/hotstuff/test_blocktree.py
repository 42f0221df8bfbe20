"""Branches: what is ordered, what is executed next, what commits what."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.errors import LocalProtocolError
from consensus.hotstuff.blocktree import BlockTree, Node
from consensus.hotstuff.safety import check_two_chain
from consensus.hotstuff.types import Block

from . import builders as make


def tree(blocks_max: int = 100) -> BlockTree:
    return BlockTree(1, make.GENESIS, make.GENESIS_QC, blocks_max)


def grow(base: BlockTree, blocks: list[Block], *, ordered: bool = True) -> list[Node]:
    nodes = []
    for block in blocks:
        node = base.insert(block, 0)
        assert node is not None
        if ordered:
            base.order(node, make.quorum_cert(block))
        nodes.append(node)
    return nodes


def execute_all(base: BlockTree) -> list[tuple[str, int]]:
    """Follow ``next_to_execute`` to its end; return what was done, by round."""
    done = []
    while True:
        undo, node = base.next_to_execute()
        if undo is not None:
            done.append(("undo", undo.block.round))
            undo.statement, base.executed = None, undo.parent or undo
        elif node is not None:
            done.append(("execute", node.block.round))
            node.statement, base.executed = make.statement(node.block), node
        else:
            return done


def test_block_without_its_parent_is_not_kept() -> None:
    blocks = make.chain(1, 2)
    assert tree().insert(blocks[1], 0) is None


def test_same_block_twice_is_one_node() -> None:
    base = tree()
    (node,) = grow(base, make.chain(1))
    assert base.insert(node.block, 99) is node
    assert (len(base), node.seen_ms) == (1, 0)


def test_ordered_tip_is_the_ordered_block_of_the_highest_round() -> None:
    base = tree()
    first, second = grow(base, make.chain(1, 2), ordered=False)
    base.order(second, None)
    base.order(first, None)
    assert base.ordered_tip is second


def test_tree_is_bounded() -> None:
    base = tree(blocks_max=2)
    grow(base, make.chain(1, 2))
    assert base.full
    assert base.insert(make.chain(1, 2, 3)[2], 0) is None


def test_block_that_names_another_round_or_height_of_its_parent_is_not_kept() -> None:
    base = tree()
    (first,) = grow(base, make.chain(1))
    qc = make.quorum_cert(first.block)
    good = make.block(qc)
    for fake in (replace(good, height=5), replace(good, justify=replace(qc, round=0))):
        assert base.insert(fake, 0) is None


def test_ordered_tip_is_the_highest_round_not_the_greatest_height() -> None:
    base = tree()
    grow(base, make.chain(1, 2, 3))
    (rival,) = grow(base, [make.chain(5)[0]])
    assert base.ordered_tip is rival


def test_execution_follows_the_ordered_branch_by_height() -> None:
    base = tree()
    grow(base, make.chain(1, 2, 4))
    assert execute_all(base) == [("execute", 1), ("execute", 2), ("execute", 4)]


def test_unordered_block_is_not_executed() -> None:
    base = tree()
    grow(base, make.chain(1), ordered=False)
    assert execute_all(base) == []


def test_branch_change_undoes_to_the_common_ancestor_first() -> None:
    base = tree()
    grow(base, make.chain(1, 2, 3))
    execute_all(base)
    grow(base, make.chain(1, 5)[1:])
    assert execute_all(base) == [("undo", 3), ("undo", 2), ("execute", 5)]


def test_two_chain_is_found_for_every_block_below_consecutive_rounds() -> None:
    base = tree()
    nodes = grow(base, make.chain(1, 3, 4, 6))
    for node in nodes[:2]:  # rounds 3 and 4 commit 3 and 1
        proof = base.two_chain(node)
        assert proof is not None
        check_two_chain(proof, node.block.id)
    for node in nodes[2:]:
        assert base.two_chain(node) is None


def test_lesson_5_skipped_rounds_make_no_two_chain() -> None:
    base = tree()
    nodes = grow(base, make.chain(1, 3, 5, 7))
    assert [base.two_chain(node) for node in nodes] == [None] * 4


def test_two_chain_needs_the_child_ordered() -> None:
    base = tree()
    first, _ = grow(base, make.chain(1, 2), ordered=False)
    base.order(first, make.quorum_cert(first.block))
    assert base.two_chain(first) is None


def test_two_chain_of_another_branch_commits_nothing_here() -> None:
    base = tree()
    (orphan,) = grow(base, make.chain(1))
    grow(base, make.chain(3, 4))
    assert base.two_chain(orphan) is None


def test_delivery_is_by_height_and_drops_other_branches() -> None:
    base = tree()
    nodes = grow(base, make.chain(1, 2, 3))
    grow(base, make.chain(1, 2)[:1])
    orphan = base.insert(
        make.block(make.GENESIS_QC, 9, entry=make.timeout_cert(8, make.GENESIS_QC)), 0
    )
    assert orphan is not None
    execute_all(base)
    assert [node.block.height for node in base.deliver(nodes[1])] == [1, 2]
    assert base.root is nodes[1]
    assert base.get(orphan.block.id) is None
    assert base.get(nodes[2].block.id) is nodes[2]
    assert len(base) == 1


def test_delivery_of_what_is_not_executed_is_our_own_bug() -> None:
    base = tree()
    (node,) = grow(base, make.chain(1))
    with pytest.raises(LocalProtocolError, match="not executed"):
        base.deliver(node)


def test_certified_block_off_the_ordered_branch_stops_the_node() -> None:
    """That would be a fork: more than f validators are Byzantine."""
    base = tree()
    (node,) = grow(base, make.chain(1))
    execute_all(base)
    grow(base, make.chain(5))
    with pytest.raises(LocalProtocolError, match="ordered branch"):
        base.deliver(node)
