"""The certified chain executed a second time, from genesis, by a fresh executor, in other slices.

Every height must come to the statement that the nodes certified, every decision to what the second
reading of the rules (``load.Books``) says, and all money must still be there.
"""

from __future__ import annotations

import random
from functools import cache

from consensus import codec
from consensus.hotstuff.types import Block, Statement
from consensus.ledger import batch as formats
from consensus.ledger.batch import Batch
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.ledger import Ledger, of_genesis
from consensus.ledger.transaction import Transaction
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.record import decode_single
from consensus.state.state import MemoryBackend, Row, State
from tests.sim.elections import Electorate
from tests.sim.errors import require
from tests.sim.founding import OPENING, PURSES, Founded, genesis_of
from tests.sim.load import Books, Intent
from tests.sim.marks import SOMETIMES, Marks

FLUSH_EVERY = 50


@cache
def _ledger(size: int, notice_ms: int) -> Ledger:
    return of_genesis(genesis_of(size, notice_ms))


class Replay:
    """A node that never fails, fed with what others certified.

    Args:
        first: the hash of the statement of height 0.
    """

    def __init__(self, founded: Founded, seed: int, marks: Marks, first: bytes) -> None:
        self._founded = founded
        size, notice_ms = founded.committee.size, founded.genesis.limits.notice_ms
        self._ledger = _ledger(size, notice_ms)
        self._rng = random.Random(f"replay {seed}")
        self._marks = marks
        rows = [(kh, Row(vh, 0, row)) for kh, vh, row in founded.state]
        self._backend = MemoryBackend(rows)
        self._state = State(self._backend, founded.genesis.tree_depth, 0)
        self._nodes = MemoryNodes()
        self._history = HistoryTree(self._nodes)
        self._history.append(first)
        self._applied: dict[bytes, int] = {}
        self.decided: dict[bytes, int] = {}
        """First height at which a transaction was decided."""
        self.height = 0
        self.books = Books(Electorate(size, notice_ms))

    def execute(
        self, block: Block, batches: list[Batch], said: Statement, intents: dict[bytes, Intent]
    ) -> None:
        """Execute the next height and compare it with what a node said of it."""
        where = f"height {block.height}"
        require(block.height == self.height + 1, "in order and once", where)
        self.height = block.height
        digests = [item.digest for item in block.payload]
        require(digests == [formats.digest(each.public) for each in batches], "payload", where)
        transactions = [each for batch in batches for each in batch.transactions]
        context = BlockContext(block.epoch, block.height, block.time_ms)
        run = BlockRun(self._ledger, self._state, context, transactions)
        for _ in transactions:
            run.step(self._rng.randint(1, 4))
        outcome = run.finish()
        applied = self._state.apply(outcome.writes)
        statement = Statement(
            self._founded.chain,
            block.epoch,
            block.round,
            block.height,
            block.id,
            block.time_ms,
            1,
            applied.state_root,
            outcome.results_root,
            applied.changes_root,
            self._history.root(),
            said.next_committee_hash,
        )
        require(statement == said, "the same when executed again", where)
        self._history.append(statement.hash)
        ordered = _protective_first(transactions)
        txids = [decision.header.txid for decision in outcome.decisions]
        require(txids == [each.txid for each in ordered], "protection first", where)
        codes: list[str] = []
        for txid, decision in zip(txids, outcome.decisions, strict=True):
            code = decision.code.name
            expected = self.books.judge(intents[txid], block.time_ms)
            told = f"{where}: {code} {decision.detail}, {expected} for {intents[txid]}"
            require(code == expected, "the second reading agrees", told)
            codes.append(code)
            self.decided.setdefault(txid, block.height)
            if code == "APPLIED":
                require(txid not in self._applied, "applied once", where)
                self._applied[txid] = block.height
            elif code in SOMETIMES:
                self._marks.reach(code)
        self._elect(block, said)
        frozen = any(each.lane for each in transactions)
        if frozen and "HELD" in codes:
            self._marks.reach("hold beats payment in one block")
        if self.height % FLUSH_EVERY == 0:
            self._backend.write(self._state.pending(self.height))
            self._nodes.write(self._history.pending(self.height))
            self._state.flushed(self.height)
            self._history.flushed(self.height)

    def _elect(self, block: Block, said: Statement) -> None:
        """Compare who is said to vote next with what the second reading says."""
        was = self.books.electorate.coming
        if was is None and said.next_committee_hash is None:
            return
        elected = self.books.electorate.end_block(block.time_ms)
        expected = None if elected is None else elected.hash
        where = f"height {block.height}, change {was}"
        require(said.next_committee_hash == expected, "all elect whom they agreed on", where)

    def finish(self) -> None:
        """Check that all money is where the second reading has it."""
        for _ in range(self.books.electorate.objected):
            self._marks.reach("a change ended by objections")
        total = 0
        for name in PURSES:
            row = self._state.get(self._ledger.paths("account", ["purse", name]))
            require(row is not None, "money stays", name)
            if row is not None:
                balance = codec.parse(decode_single(row.value)[2])[1]
                require(balance == self.books.balances[name], "money stays", name)
                total += balance
        require(total == OPENING * len(PURSES), "money stays", f"{total} in all")


def _protective_first(transactions: list[Transaction]) -> list[Transaction]:
    return [each for each in transactions if each.lane] + [
        each for each in transactions if not each.lane
    ]
