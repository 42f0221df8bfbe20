"""Heights in order, executed again: what the network says it decided, and what it should have.

    replay = Replay(genesis)                       height 0: the state that the file founds
    replay.take(recorded, checked)                 the next height; raises DivergenceError
    replay.state, replay.history                   to be flushed by who runs it (``pending``)

At each height, in this order, and the first failure ends the audit:

1. ``chain``: it is the next height, and its block names the one before, with a later round and
   time.
2. What the height came to by itself (``heights``): certificates, batches, signatures.
3. ``decision``: its transactions are executed by the executor that the state names; every recorded
   decision is compared byte for byte, so a difference has a transaction and leaves.
4. ``statement``: results, changes, state and history root, and the executor's number.
5. ``changes``: the recorded change records.
6. ``money`` and ``versions``: sums and steps, without the executor's word.

A height without a certificate of its own counts as certified when a later one is: its statement is
a leaf under that one's history root, which is computed here from all statements.

Nothing is kept from height to height but the state, the history's frontier and counts: memory does
not grow with the chain. Starting above genesis needs an ``Origin``. Where nobody here executed what
led to that, its rows may be what no executor ever writes: what reading them comes to then is a
verdict (``state``), while below what was executed here it is an error of our own.

Not here: processes and files; how much is flushed when.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from consensus import codec
from consensus.audit import differences
from consensus.audit.accounting import Accounting
from consensus.audit.divergence import Difference, DivergenceError, NotAuditableError, Problem
from consensus.audit.heights import Checked
from consensus.audit.money import Money, founded
from consensus.audit.stream import Recorded, StateRow
from consensus.errors import MISREAD, UnknownExecutorError
from consensus.genesis import Genesis, chain_id
from consensus.hashing import ZERO
from consensus.hotstuff import wire
from consensus.hotstuff.events import ExecutionResult
from consensus.hotstuff.execution import statement_of
from consensus.hotstuff.types import Block, Statement, genesis_block, start_cert
from consensus.ledger import batch as batches
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.genesis_state import first_result, genesis_state
from consensus.ledger.layout import Paths
from consensus.ledger.ledger import Ledger, of_genesis
from consensus.ledger.proposals import bared, ended_ms, is_bare
from consensus.ledger.transaction import Transaction
from consensus.state.history import HistoryTree, MemoryNodes, NodeSource
from consensus.state.state import Backend, MemoryBackend, State

OWN, GRANTED, PERSON = "own role", "grant", "own person"
"""By which power a call was made."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The block below the first height that is taken."""

    height: int
    round: int
    block_id: bytes
    time_ms: int
    statement: Statement


@dataclass(slots=True)
class Counts:
    """What an audit has gone through. All but ``height`` grow only."""

    heights: int = 0
    transactions: int = 0
    signatures: int = 0
    votes: int = 0
    certificates: int = 0
    decisions: Counter[str] = field(default_factory=Counter)
    """By outcome: APPLIED, PROPOSED, or the code of a refusal."""
    powers: Counter[str] = field(default_factory=Counter)
    """Applied calls by the power they were made with: own role, grant, own person."""
    approvals: int = 0
    """Leaves of policies that somebody filled for an applied act."""
    cosigners: int = 0


@dataclass(frozen=True, slots=True)
class Origin:
    """From where heights are executed: a certified state, whole.

    What a snapshot gives: rows in ``backend``, the frontier of the first ``tip.height + 1``
    statements in ``nodes``, and what each currency adds up to (None: summed from the rows).
    ``executed`` says that all that led to it was executed by this auditor, from genesis on.
    """

    tip: Tip
    backend: Backend
    nodes: NodeSource
    totals: Mapping[str, int] | None = None
    certified: int | None = None
    """The newest height up to ``tip`` that a certificate vouched for; None: that of ``tip``."""
    executed: bool = True


class Replay:
    """Executes the heights of one network again.

    Args:
        genesis: of the network, whose chain is what the reader trusts.
        origin: the state to begin with; None: what genesis founds.
        backend, nodes: where the caller flushes to, empty, when there is no origin.
        trusted: hash of a statement that the reader knows, by height.

    Raises:
        DivergenceError: the origin's rows are not those that its statement names.
    """

    def __init__(
        self,
        genesis: Genesis,
        *,
        origin: Origin | None = None,
        backend: Backend | None = None,
        nodes: NodeSource | None = None,
        trusted: Mapping[int, bytes] | None = None,
    ) -> None:
        self.chain = chain_id(genesis.encode())
        self.ledger: Ledger = of_genesis(genesis)
        self.counts = Counts()
        self.trusted = dict(trusted or {})
        self._paths = Paths(self.chain)
        self._accounting = Accounting(self._paths)
        self._depth = genesis.tree_depth
        self._executed = origin is None or origin.executed
        if origin is None:
            self._found(genesis, backend or MemoryBackend(), nodes or MemoryNodes())
        else:
            self._begin(origin)

    def _found(self, genesis: Genesis, backend: Backend, nodes: NodeSource) -> None:
        self.state = State(backend, self._depth, -1)
        self.history = HistoryTree(nodes)
        applied = self.state.apply(genesis_state(genesis))
        first = genesis_block(self.chain, genesis.committee.hash, genesis.time_ms)
        result = first_result(applied, self.history.root())
        statement = statement_of(self.chain, first, result)
        self.history.append(statement.hash)
        self.tip = Tip(0, 0, first.id, first.time_ms, statement)
        self.certified = 0
        book = self.ledger.rules(self.state, genesis.time_ms).book
        totals = founded(book, [(each.family, each.balance) for each in genesis.accounts])
        self.money = Money(self._paths, totals)
        self._trust(statement)

    def _begin(self, origin: Origin) -> None:
        tip = origin.tip
        self.state = State(origin.backend, self._depth, tip.height)
        self.history = HistoryTree(origin.nodes, tip.height + 1)
        self.tip = tip
        self.certified = tip.height if origin.certified is None else origin.certified
        if self.state.root != tip.statement.state_root:
            said = "the state to begin with is not the one that its statement names"
            place = Difference("state root", self.state.root.hex(), tip.statement.state_root.hex())
            raise DivergenceError(tip.height, Problem("state", said, None, None, (place,)))
        self._trust(tip.statement)
        self.money = Money(self._paths, dict(origin.totals or {}))
        if origin.totals is None:
            with self._reading(tip.height):
                book = self.ledger.rules(self.state, tip.time_ms).book
                self.money.totals = self.money.sums(book, _values(origin.backend))

    @contextmanager
    def _reading(self, height: int) -> Iterator[None]:
        """Take what fails on rows that were not executed here for what is wrong with them."""
        try:
            yield
        except (DivergenceError, NotAuditableError):
            raise
        except UnknownExecutorError as error:
            raise NotAuditableError(
                f"height {height} cannot be executed: {error.message}", hint=error.hint
            ) from error
        except MISREAD as error:
            if self._executed:
                raise
            said = "no rules lead to the certified state that the audit began with: it cannot be"
            said += f" read ({type(error).__name__}: {error})"
            raise DivergenceError(height, Problem("state", said)) from error

    # --- one height ---------------------------------------------------------------------------

    @property
    def height(self) -> int:
        """The newest height that holds."""
        return self.tip.height

    @property
    def writes(self) -> int:
        """Entries of decisions that were joined with the leaves they name."""
        return self._accounting.writes

    def confirm(self, recorded: Recorded, checked: Checked) -> None:
        """Check that a record of the height that is executed is of the same past.

        Raises:
            DivergenceError: it is of another.
        """
        if checked.problem is not None:
            raise DivergenceError(self.height, checked.problem)
        stated = _stated(recorded)
        if stated is not None:
            self._refuse(self.height, differences.of_statements(stated, self.tip.statement))
        if wire.block_from(codec.parse(recorded.block, "block")).id != self.tip.block_id:
            said = "another block is recorded than the one that was executed here before"
            raise DivergenceError(self.height, Problem("chain", said))

    def take(self, recorded: Recorded, checked: Checked, *, judged: bool = True) -> Statement:
        """Check the next height; return its statement.

        Args:
            recorded: whose shape was checked (``stream.parse_height``).
            checked: what it came to by itself.
            judged: False: only executed, to get at the state; what it says is not compared.

        Raises:
            DivergenceError: something is not as it must be.
            NotAuditableError: private parts of its batches, or the executor, are missing.

        Cost: about 50 µs a transfer, 100 a decision of a programme.
        """
        height = self.tip.height + 1
        if recorded.height != height:
            said = f"the height is missing: what follows height {height - 1} is {recorded.height}"
            raise DivergenceError(height, Problem("chain", said))
        if checked.problem is not None and checked.problem.check in ("chain", "batch"):
            raise DivergenceError(height, checked.problem)
        block = wire.block_from(codec.parse(recorded.block, "block"))
        self._chained(block)
        if checked.problem is not None:
            raise DivergenceError(height, checked.problem)
        with self._reading(height):
            outcome, statement = self._execute(recorded, block, checked)
        if judged:
            self._count(checked, outcome.decisions)
        self._trust(statement)
        if recorded.certificate is not None:
            self.certified = height
            self.counts.certificates += judged
        self.tip = Tip(height, block.round, block.id, block.time_ms, statement)
        return statement

    def _chained(self, block: Block) -> None:
        tip = self.tip
        if block.parent_id != tip.block_id:
            said = "its block does not name the block of the height before as its parent"
            place = Difference("parent", block.parent_id.hex(), tip.block_id.hex())
            raise DivergenceError(block.height, Problem("chain", said, None, None, (place,)))
        ended = tip.statement.next_committee_hash
        if ended is not None:
            self._begins(block, ended)
        elif block.epoch != tip.statement.epoch:
            said = f"a block of epoch {block.epoch} follows in epoch {tip.statement.epoch}, which"
            raise DivergenceError(block.height, Problem("chain", f"{said} had not ended"))
        elif block.round <= tip.round or block.justify.round != tip.round:
            said = f"round {block.round} on a certificate of round {block.justify.round}"
            said += f" does not follow round {tip.round}"
            raise DivergenceError(block.height, Problem("chain", said))
        if block.time_ms <= tip.time_ms:
            raise DivergenceError(block.height, Problem("chain", "its time is not after the last"))

    def _begins(self, block: Block, elected: bytes) -> None:
        """Check the first block of an epoch against the statement that ended the one before."""
        ending = self.tip.statement
        if block.epoch != ending.epoch + 1 or block.justify != start_cert(ending):
            said = (
                f"it does not begin epoch {ending.epoch + 1}, to which height {ending.height} led"
            )

            raise DivergenceError(block.height, Problem("chain", said))
        if block.committee_hash != elected:
            said = "it is of another committee than the one that was elected"
            place = Difference("committee", block.committee_hash.hex(), elected.hex())
            raise DivergenceError(block.height, Problem("chain", said, None, None, (place,)))

    def _execute(
        self, recorded: Recorded, block: Block, checked: Checked
    ) -> tuple[BlockResult, Statement]:
        transactions = self._transactions(recorded, checked)
        context = BlockContext(block.epoch, block.height, block.time_ms, history=self.history.root)
        outcome = BlockRun(self.ledger, self.state, context, transactions).finish()
        if recorded.decisions is not None:
            rows = codec.parse(recorded.decisions, "decisions")
            found = differences.of_decisions(rows, outcome.transactions, outcome.decisions)
            self._refuse(block.height, found)
        self._refuse(block.height, self._unbalanced(outcome, block.time_ms))
        applied = self.state.apply(outcome.writes)
        elected = outcome.next_committee
        result = ExecutionResult(
            outcome.executor,
            applied.state_root,
            outcome.results_root,
            applied.changes_root,
            self.history.root(),
            None if elected is None else elected.hash,
        )
        statement = statement_of(self.chain, block, result)
        stated = _stated(recorded)
        if stated is not None:
            self._refuse(block.height, differences.of_statements(stated, statement))
        if recorded.changes is not None:
            self._refuse(block.height, differences.of_changes(recorded.changes, applied.changes))
        self.history.append(statement.hash)
        return outcome, statement

    def _transactions(self, recorded: Recorded, checked: Checked) -> list[Transaction]:
        transactions: list[Transaction] = []
        for (public, private), txids in zip(recorded.batches, checked.txids, strict=True):
            if private is None or public is None:
                raise NotAuditableError(
                    f"height {recorded.height} cannot be executed: the private parts of its"
                    " transactions were dropped here",
                    hint="audit a copy that still has them, or begin with a snapshot above it",
                )
            batch = batches.decode_trusted(public, private, txids, chain=self.chain)
            transactions += batch.transactions
        return transactions

    def _unbalanced(self, outcome: BlockResult, time_ms: int) -> Problem | None:
        """Return the first problem of sums and versions."""
        book = self.ledger.rules(self.state, time_ms).book
        transactions, decisions = outcome.transactions, outcome.decisions
        accounts = self.money.accounts_of(outcome.writes)
        problem = self.money.take(book, transactions, decisions, accounts, self._row)
        return problem or self._accounting.take(
            transactions, decisions, outcome.writes, frozenset(accounts), self._row, time_ms
        )

    def _row(self, kh: bytes) -> bytes | None:
        row = self.state.get(kh)
        return None if row is None or row.vh == ZERO else row.value

    def _trust(self, statement: Statement) -> None:
        """Compare a statement with the one that the reader knew."""
        known = self.trusted.get(statement.height)
        if known is not None and known != statement.hash:
            said = "this is not the statement that the reader trusts"
            place = Difference("statement hash", statement.hash.hex(), known.hex())
            raise DivergenceError(statement.height, Problem("trust", said, None, None, (place,)))

    def _refuse(self, height: int, problem: Problem | None) -> None:
        if problem is not None:
            raise DivergenceError(height, problem)

    # --- what was seen ------------------------------------------------------------------------

    def _count(self, checked: Checked, decisions: Sequence[Decision]) -> None:
        counts = self.counts
        counts.heights += 1
        counts.transactions += sum(map(len, checked.txids)) // 32
        counts.signatures += checked.signatures
        counts.votes += checked.votes
        for decision in decisions:
            outcome = _outcome(decision.leaves["code"])
            counts.decisions[outcome] += 1
            if outcome == _APPLIED and "authority" in decision.leaves:
                powers, approvals, cosigners = _authority(decision.leaves["authority"])
                for power in powers:
                    counts.powers[power] += 1
                counts.approvals += approvals
                counts.cosigners += cosigners

    # --- at the end ---------------------------------------------------------------------------

    def comparison(self, backend: Backend) -> RowComparison:
        """Return what compares the rows that a store keeps of this height with those executed.

        Args:
            backend: everything that was executed, flushed.
        """
        return RowComparison(self.height, rows_of(backend), self.tip.time_ms)

    def sum_up(self, backend: Backend) -> None:
        """Compare the sum of all accounts with what was founded, issued and retired.

        Args:
            backend: everything that was executed, flushed.

        Raises:
            DivergenceError: they differ.
        """
        with self._reading(self.height):
            book = self.ledger.rules(self.state, self.tip.time_ms).book
            self._refuse(self.height, self.money.sum_up(book, _values(backend)))


class RowComparison:
    """Compares rows that somebody keeps with rows that were executed, as they come.

    A draft whose time was over at ``time_ms`` may be kept without its private part.
    """

    def __init__(self, height: int, ours: Iterator[StateRow], time_ms: int = 0) -> None:
        self._height = height
        self._ours = ours
        self._time_ms = time_ms
        self.count = 0

    def take(self, rows: Sequence[StateRow]) -> None:
        """Compare the next rows, ascending.

        Raises:
            DivergenceError: a row differs, is missing or is too much.
        """
        for kept in rows:
            own = next(self._ours, None)
            if own != kept and not self._bared(own, kept):
                raise DivergenceError(self._height, _row_problem(kept, own))
            self.count += 1

    def _bared(self, own: StateRow | None, kept: StateRow) -> bool:
        """Return whether two rows differ only in the private part of a draft that is over."""
        if own is None or not is_bare(kept.value) or is_bare(own.value):
            return False
        if own.value[:1] != kept.value[:1] or ended_ms(own.value) >= self._time_ms:
            return False
        return StateRow(own.kh, own.changed_height, own.vh, bared(own.value)) == kept

    def finish(self) -> None:
        """Take note that there are no more; raises DivergenceError if one is missing."""
        own = next(self._ours, None)
        if own is not None:
            raise DivergenceError(self._height, _row_problem(None, own))


def rows_of(backend: Backend) -> Iterator[StateRow]:
    """Yield all rows of a store, ascending by key path."""
    for kh, vh, changed_height in backend.entries():
        row = backend.get(kh)
        yield StateRow(kh, changed_height, vh, b"" if row is None else row.value)


def _values(backend: Backend) -> Iterator[tuple[bytes, bytes]]:
    return ((row.kh, row.value) for row in rows_of(backend))


def _row_problem(kept: StateRow | None, own: StateRow | None) -> Problem:
    """Return the problem of a row that is not as it was executed."""
    if kept is None or (own is not None and own.kh < kept.kh):
        kh = b"" if own is None else own.kh
        return Problem("state", f"the row at key path {kh.hex()} is missing from the state kept")
    if own is None or kept.kh < own.kh:
        said = f"the state kept has a row at key path {kept.kh.hex()} that no decision made"
        return Problem("state", said)
    said = f"the row at key path {kept.kh.hex()} is not the one that the decisions lead to"
    pairs = (
        ("value hash", kept.vh, own.vh),
        ("changed at height", kept.changed_height, own.changed_height),
        ("row", kept.value, own.value),
    )
    found = tuple(
        Difference(name, differences.word(left), differences.word(right))
        for name, left, right in pairs
        if left != right
    )
    return Problem("state", said, None, None, found)


_APPLIED: Final = Code.APPLIED.name
_CACHED_MAX: Final = 8192


def _stated(recorded: Recorded) -> Statement | None:
    """Return what the network stated, as recorded or as certified; forms were checked."""
    if recorded.statement is not None:
        return Statement(*codec.parse(recorded.statement, "statement"))
    if recorded.certificate is not None:
        return wire.decode_commit_cert(recorded.certificate).statement
    return None


@lru_cache(maxsize=_CACHED_MAX)
def _outcome(code_leaf: bytes) -> str:
    return Code(codec.parse(code_leaf, "code")[0]).name


@lru_cache(maxsize=_CACHED_MAX)
def _authority(leaf: bytes) -> tuple[tuple[str, ...], int, int]:
    """Return by which powers the calls were made, and how many approvals and cosigners."""
    _, powers, cosigners, *filled = codec.parse(leaf, "authority")
    words = [GRANTED if len(power) > 2 else OWN if power[0] else PERSON for power in powers]
    return tuple(words), len(filled[0]) if filled else 0, len(cosigners)
