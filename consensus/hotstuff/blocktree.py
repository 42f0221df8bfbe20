"""The blocks above the last delivered one: which are ordered, executed, and on which branch.

The root is the last delivered block. A child's ``justify`` orders its parent, so every inner node
is ordered. One branch is executed at a time, from the root upwards.

Not here: payloads, results other than a node's statement, and any decision (``replica``).
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.errors import invariant, present
from consensus.hotstuff.safety import TwoChain
from consensus.hotstuff.types import Block, CommitCert, QuorumCert, Statement


@dataclass(slots=True, eq=False)
class Node:
    """A block and what is known of it.

    Args:
        parent: None for the root.
        round: of the block in the tree's epoch: 0 for a root that ended the epoch before.
        seen_ms: when it was received or made here.
        ordered: a certificate on it or a descendant is known.
        qc: its quorum certificate, once known.
        commit_cert: a commit certificate on this very block.
        held: its payload is held, valid and logged; ``required``: that was
            asked for (1), and since it is ordered (2).
        logged: an earlier ``Persist`` contains it.
        statement: its result, while executed.
        commit_asked: a commit vote on it was signed since start.
        acceptable: the verdict of the voting checks that never changes, once made.
    """

    block: Block
    parent: Node | None
    seen_ms: int
    round: int
    ordered: bool = False
    qc: QuorumCert | None = None
    commit_cert: CommitCert | None = None
    held: bool = False
    required: int = 0
    logged: bool = False
    statement: Statement | None = None
    commit_asked: bool = False
    acceptable: bool | None = None

    @property
    def ends_epoch(self) -> bool:
        """Whether it is executed and named a next committee: what extends it is only ordered."""
        return self.statement is not None and self.statement.next_committee_hash is not None


class BlockTree:
    """Undelivered blocks over the delivered root.

    Args:
        epoch: of all blocks but the root, which may have ended the epoch before.
        root: the last delivered block.
        qc: its quorum certificate, if known (the virtual one where the epoch starts).
        blocks_max: nodes kept at most.
    """

    def __init__(self, epoch: int, root: Block, qc: QuorumCert | None, blocks_max: int) -> None:
        round_ = root.round if root.epoch == epoch else 0
        self.root = Node(root, None, 0, round_, ordered=True, qc=qc, held=True, logged=True)
        self._nodes: dict[bytes, Node] = {root.id: self.root}
        self._blocks_max = blocks_max
        self.ordered_tip = self.root
        """The ordered block of the highest round."""
        self.executed = self.root
        """The tip of the executed branch."""

    def __len__(self) -> int:
        return len(self._nodes) - 1

    @property
    def full(self) -> bool:
        """Whether no further block is accepted."""
        return len(self) >= self._blocks_max

    def get(self, block_id: bytes) -> Node | None:
        """Return the node of a block, or None."""
        return self._nodes.get(block_id)

    def insert(self, block: Block, now_ms: int) -> Node | None:
        """Add a block whose parent is here; return its node, old or new, or None.

        None means that the parent is unknown, the links do not fit, or the tree is full. The
        caller notes that the block's justify orders the parent.
        """
        if (known := self._nodes.get(block.id)) is not None:
            return known
        parent = self._nodes.get(block.parent_id)
        if parent is None or self.full:
            return None
        if block.height != parent.block.height + 1 or block.justify.round != parent.round:
            return None
        node = Node(block, parent, now_ms, block.round)
        self._nodes[block.id] = node
        return node

    def order(self, node: Node, qc: QuorumCert | None) -> None:
        """Note that a block is ordered; ``qc`` is its certificate unless only a descendant's is."""
        if node.qc is None:
            node.qc = qc
        if node.ordered:
            return
        node.ordered = True
        if node.round > self.ordered_tip.round:
            self.ordered_tip = node

    def ancestor(self, node: Node, height: int) -> Node:
        """Return the ancestor (or self) of ``node`` at ``height``, not below the root."""
        while node.block.height > height and node.parent is not None:
            node = node.parent
        return node

    def extends(self, node: Node, base: Node) -> bool:
        """Whether ``node`` is ``base`` or a descendant of it."""
        return self.ancestor(node, base.block.height) is base

    def path(self, base: Node, node: Node) -> list[Node]:
        """Return the nodes after ``base`` up to ``node``, by height. ``node`` extends ``base``."""
        nodes: list[Node] = []
        while node is not base:
            nodes.append(node)
            node = present(node.parent, "a path that does not meet its base")
        nodes.reverse()
        return nodes

    def next_to_execute(self) -> tuple[Node | None, Node | None]:
        """Return ``(undo, execute)``: the executed tip to take back, or else the block to execute.

        Execution follows the branch of the ordered block of the highest round (rule 3), up to a
        block that ends the epoch.
        """
        target = self.ordered_tip
        if not self.extends(target, self.executed):
            return self.executed, None
        if target is self.executed or self.executed.ends_epoch:
            return None, None
        return None, self.ancestor(target, self.executed.block.height + 1)

    def two_chain(self, node: Node) -> TwoChain | None:
        """Return the proof that ``node`` is committed by consecutive rounds, if there is one.

        Cost: O(depth of the ordered branch above ``node``).
        """
        branch: list[Block] = []
        best: tuple[QuorumCert, int] | None = None
        child = self.ordered_tip
        if not self.extends(child, node):
            return None
        while child is not node and child.parent is not None:
            branch.append(child.block)
            if best is None and child.qc is not None and child.round == child.parent.round + 1:
                best = child.qc, len(branch) - 1
            child = child.parent
        if best is None:
            return None
        return TwoChain(best[0], (*branch[best[1] :], node.block))

    def deliver(self, node: Node) -> list[Node]:
        """Make ``node`` the root; return what it delivers, by height. It must be executed."""
        invariant(self.extends(self.executed, node), "delivery of what is not executed")
        invariant(
            self.extends(self.ordered_tip, node), "a certified block is not on the ordered branch"
        )
        delivered = self.path(self.root, node)
        self.root = node
        kept: dict[bytes, Node] = {node.block.id: node}
        for block_id, other in self._nodes.items():
            if other.parent is not None and other.parent.block.id in kept:
                kept[block_id] = other
        self._nodes = kept
        node.parent = None
        return delivered
