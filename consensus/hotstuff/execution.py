"""From ordered to final: execute, commit-vote, deliver (rules 3, 4, 5 and the halt of rule 9).

One block is executed at a time, on the branch of the highest ordered block; when the branch moves,
what was executed beyond the common ancestor is undone first. A block is delivered when a commit
certificate covers it and our own result of the certified block equals the certified one.

A result that names a next committee ends the epoch: what extends its block is never executed, so
it is neither commit-voted nor delivered, and only a certificate on that very block delivers it.

Not here: what execution means.
"""

from __future__ import annotations

from typing import Final

from consensus.errors import invariant, present
from consensus.hotstuff.blocktree import BlockTree, Node
from consensus.hotstuff.events import (
    CertifiedTip,
    Deliver,
    Execute,
    Executed,
    ExecutionResult,
    RequirePayload,
    Undo,
)
from consensus.hotstuff.outbox import Outbox
from consensus.hotstuff.payload import PayloadPool
from consensus.hotstuff.safety import Refused, Safety
from consensus.hotstuff.types import Block, CommitCert, Statement

REQUIRED_AHEAD_MAX: Final = 8
"""Ordered blocks whose payload is asked for before their turn to be executed."""

HALT_DIVERGENCE: Final = "RESULT_DIVERGENCE"


class Execution:
    """The executed branch of the tree and what its results allow."""

    def __init__(
        self, chain: bytes, safety: Safety, tree: BlockTree, pool: PayloadPool, outbox: Outbox
    ) -> None:
        self._chain = chain
        self._safety = safety
        self._tree = tree
        self._pool = pool
        self._outbox = outbox
        self._executing: Node | None = None
        self._looked: tuple[Node, Node] | None = None
        self.ended: CertifiedTip | None = None
        """The delivered block that ended the epoch, with the certificate on it."""

    def require(self, node: Node) -> None:
        """Ask for the payload of a block, once, and once more when it is ordered."""
        stage = 2 if node.ordered else 1
        if not node.held and node.required < stage:
            node.required = stage
            self._outbox.emit(RequirePayload(node.block, node.ordered))

    def advance(self) -> None:
        """Undo and execute towards the highest ordered block, as far as possible now."""
        if self._executing is not None or self._outbox.halted:
            return
        undo, node = self._tree.next_to_execute()
        while undo is not None:
            parent = present(undo.parent, "the delivered root cannot be undone")
            self._outbox.emit(Undo(undo.block.id))
            undo.statement = None
            self._tree.executed = parent
            undo, node = self._tree.next_to_execute()
        if node is None:
            return
        self._look_ahead()
        if node.held:
            self._executing = node
            self._outbox.emit(Execute(node.block))

    def _look_ahead(self) -> None:
        """Require the payloads of the blocks that come next."""
        tip, executed = self._tree.ordered_tip, self._tree.executed
        if self._looked is not None and self._looked == (tip, executed):
            return
        self._looked = (tip, executed)
        last = self._tree.ancestor(tip, executed.block.height + REQUIRED_AHEAD_MAX)
        for node in self._tree.path(executed, last):
            self.require(node)

    def executed(self, event: Executed) -> None:
        """Take the result of the block being executed.

        Raises:
            LocalProtocolError: another block was executed than was asked for.
        """
        node = present(self._executing, "a result nobody asked for")
        invariant(node.block.id == event.block_id, "a result nobody asked for")
        self._executing = None
        extended = node.parent is not None and node.parent.ends_epoch
        invariant(not extended, "what extends the end of an epoch is not executed")
        node.statement = statement_of(self._chain, node.block, event.result)
        self._tree.executed = node
        self.commit_vote(node)
        self.deliver(node)

    def commit_vote(self, node: Node) -> None:
        """Sign the result of an ordered, executed block if a promise does not forbid it."""
        if node.statement is None or node.commit_asked:
            return
        request = self._safety.commit_vote(node.statement, None)
        if isinstance(request, Refused) and (proof := self._tree.two_chain(node)) is not None:
            request = self._safety.commit_vote(node.statement, proof)
        node.commit_asked = self._outbox.sign(request, node)

    def vote_again(self) -> None:
        """Sign what was executed while nothing could be signed, from the oldest on."""
        for node in self._tree.path(self._tree.root, self._tree.executed):
            self.commit_vote(node)

    def ordered(self, node: Node) -> None:
        """Take note of a block's quorum certificate."""
        if node.required:
            self.require(node)
        if node.parent is not None and node.parent is not self._tree.root:
            self.child_ordered(node.parent)

    def child_ordered(self, node: Node) -> None:
        """Commit-vote for a block if what was refused so far is allowed by its ordered child.

        The block that ends the epoch has no descendant that is ever executed, and so none whose
        certificate would cover it: any two-chain above it counts, however far above.
        """
        self.commit_vote(node)
        tip = self._tree.executed
        if tip.ends_epoch and tip is not node and tip is not self._tree.root:
            self.commit_vote(tip)

    def certify(self, node: Node, certificate: CommitCert) -> None:
        """Take note of a commit certificate on this very block."""
        if node.commit_cert is None:
            node.commit_cert = certificate
            self.deliver(node)

    def deliver(self, node: Node) -> None:
        """Deliver a block that is certified and executed, after its undelivered ancestors."""
        certificate = node.commit_cert
        if certificate is None or node.statement is None or node is self._tree.root:
            return
        if node.statement != certificate.statement:
            self._outbox.halt(
                HALT_DIVERGENCE,
                f"own result at height {node.block.height} differs from the certified one",
            )
            return
        for delivered in self._tree.deliver(node):
            self._pool.delivered(delivered.block)
            self._outbox.post(Deliver(delivered.block, certificate))
        if node.ends_epoch:
            self.ended = CertifiedTip(node.block, certificate)


def statement_of(chain: bytes, block: Block, result: ExecutionResult) -> Statement:
    """Return what a block's height means, given the result of executing it."""
    return Statement(
        chain,
        block.epoch,
        block.round,
        block.height,
        block.id,
        block.time_ms,
        result.executor,
        result.state_root,
        result.results_root,
        result.changes_root,
        result.history_root,
        result.next_committee_hash,
    )
