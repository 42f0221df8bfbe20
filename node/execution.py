"""Executing ordered blocks in slices, so that the consensus loop is never held for long.

One block at a time, on the tip. ``finish`` alone touches the tree and the history, so an
interrupted block leaves no trace. The result is what the replica signs. When the node stops
signing, ``rewind`` leaves what is certified.

Not here: the executor itself (``consensus.ledger``), and when blocks are flushed (``flushing``).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import trio

from consensus.errors import UnknownExecutorError, invariant
from consensus.hotstuff.events import Executed, ExecutionResult
from consensus.hotstuff.execution import statement_of
from consensus.hotstuff.types import Block
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.ledger import Ledger
from consensus.ledger.transaction import Transaction
from consensus.state.history import HistoryTree
from consensus.state.state import State
from node import aside
from node.checked import CheckedBatch
from node.chronicle import Chronicle, Height
from node.sealed import seen
from node.sealed.vault import Change
from node.storage.flush import BatchData
from node.telemetry.coordination import refusals
from node.telemetry.metrics import Metrics

SLICE_TRANSACTIONS: Final = 64
"""Transactions between two turns of the event loop: 2 to 6 ms."""

FindBatch = Callable[[bytes], CheckedBatch]


class Execution:
    """The executed tip of one node.

    Args:
        chain: hash of the genesis file.
        ledger: the executor with its rule sets.
        state, history: at the flushed height.
        chronicle: takes executed heights.
        find_batch: returns a batch that is held.
        done: is told each result.
        node_key: of this node, for the sealed values that were delivered to it.
        lacks: is told that a block is of an executor that this release lacks; it is left alone.
    """

    def __init__(
        self,
        chain: bytes,
        ledger: Ledger,
        state: State,
        history: HistoryTree,
        chronicle: Chronicle,
        find_batch: FindBatch,
        done: Callable[[Executed], None],
        metrics: Metrics,
        node_key: bytes = b"",
        lacks: Callable[[UnknownExecutorError], None] | None = None,
    ) -> None:
        self._chain = chain
        self._ledger = ledger
        self.state = state
        self.history = history
        self._chronicle = chronicle
        self._find_batch = find_batch
        self._done = done
        self._node_key = node_key
        self._lacks = lacks
        self._seconds = metrics.stage_seconds.labels(stage="execute")
        self._next: Block | None = None
        self._bell = trio.Event()
        self._scope = trio.CancelScope()

    def start(self, block: Block) -> None:
        """Execute ``block`` on the tip; ``done`` is told."""
        invariant(self._next is None, "blocks are executed one at a time")
        self._next = block
        self._bell.set()

    def undo(self, block_id: bytes) -> None:
        """Take back the tip, which is this block."""
        invariant(self._next is None, "a block is undone while another is executed")
        self._chronicle.undo(block_id)
        self.state.undo()
        self.history.truncate(self.history.size - 1)

    def rewind(self) -> None:
        """Execute nothing more, and take back every height that is not certified."""
        self._scope.cancel()
        self._next = None
        while (tip := self._chronicle.uncertified_tip()) is not None:
            self.undo(tip.id)

    async def run(self) -> None:
        """Execute what ``start`` gives, until cancelled or ``rewind``."""
        with self._scope:
            while True:
                await self._bell.wait()
                self._bell = trio.Event()
                block = self._next
                if block is not None:
                    try:
                        result = await self._execute(block)
                    except UnknownExecutorError as error:
                        if self._lacks is None:
                            raise
                        self._lacks(error)
                        continue
                    self._next = None
                    self._done(Executed(block.id, result))

    async def _execute(self, block: Block) -> ExecutionResult:
        begin = time.perf_counter()
        batches = [self._find_batch(item.digest) for item in block.payload]
        transactions: list[Transaction] = []
        turn = SLICE_TRANSACTIONS
        for batch in batches:
            transactions += batch.decode(self._chain).transactions
            if len(transactions) >= turn:
                turn = len(transactions) + SLICE_TRANSACTIONS
                await trio.lowlevel.checkpoint()
        context = BlockContext(block.epoch, block.height, block.time_ms, history=self.history.root)
        run = BlockRun(self._ledger, self.state, context, transactions)
        while run.step(SLICE_TRANSACTIONS):
            await trio.lowlevel.checkpoint()
        result = self._apply(block, run.finish(), batches)
        self._seconds.observe(time.perf_counter() - begin)
        return result

    def _apply(
        self, block: Block, outcome: BlockResult, batches: list[CheckedBatch]
    ) -> ExecutionResult:
        elected = outcome.next_committee
        applied = self.state.apply(outcome.writes)
        result = ExecutionResult(
            executor=outcome.executor,
            state_root=applied.state_root,
            results_root=outcome.results_root,
            changes_root=applied.changes_root,
            history_root=self.history.root(),
            next_committee_hash=None if elected is None else elected.hash,
        )
        statement = statement_of(self._chain, block, result)
        self.history.append(statement.hash)
        transactions, decisions = outcome.transactions, outcome.decisions
        codes = Counter([decision.leaves["code"] for decision in decisions])
        self._chronicle.add(
            Height(
                block=block,
                statement=statement,
                txids=[each.txid for each in transactions],
                authors=[each.author for each in transactions],
                effects=outcome.effects,
                proposals=outcome.proposals,
                roots=[decision.root for decision in decisions],
                decisions=[decision.encode() for decision in decisions],
                codes=codes,
                refusals=refusals(decisions, codes),
                changes=b"".join(applied.changes),
                aside=aside.entries(outcome.aside, block.time_ms),
                sealed=self._sealed(block, outcome),
                batches=[BatchData(each.digest, each.public, each.private) for each in batches],
                since=time.monotonic(),
                rows=applied.rows,
                before=applied.before,
                elected=elected,
            )
        )
        return result

    def _sealed(self, block: Block, outcome: BlockResult) -> Sequence[Change]:
        """Return what a block means for the sealed values of this node."""
        if not outcome.sealing.delivered and not outcome.sealing.erased:
            return ()
        book = self._ledger.rules(self.state, block.time_ms).book
        return seen.changes(outcome, self._node_key, book, self._ledger.paths)
