"""The deterministic executor: transactions of a block in, decisions and state writes out.

    BlockRun(ledger, source, context, transactions)
        step(n) ... step(n)        execute; slices cannot change results
        finish()                   the block's writes, hashed once per leaf, and its decisions

Protective transactions come first, otherwise the payload's order stays. The checks of a transaction
precede those of its calls; the first failure is the outcome. A refusal changes only the window of
the author's key, and not even that where the key is unknown or the number cannot be spent. Expected
failures are outcomes, not exceptions; nothing here reads a clock or anything outside ``source``.

Not here: what a block knows of keys, powers and actions (``bench``), calls (``calls``), and the
state tree that takes the writes (``state``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from consensus import codec
from consensus.committee import Committee
from consensus.errors import UnknownExecutorError, invariant, present
from consensus.ledger import decision as decisions
from consensus.ledger import membership, sealing, terms
from consensus.ledger.authority import Standing
from consensus.ledger.bench import Bench
from consensus.ledger.calls import Calls
from consensus.ledger.codes import Code, Refused
from consensus.ledger.decision import Decision
from consensus.ledger.evidence import HISTORY_HEIGHTS_MAX
from consensus.ledger.expects import Expectations
from consensus.ledger.governing import Governing
from consensus.ledger.judged import Judged
from consensus.ledger.layout import encode_array, encode_bytes, encode_value
from consensus.ledger.ledger import Ledger
from consensus.ledger.proposals import Proposal, changes
from consensus.ledger.proposing import Proposing
from consensus.ledger.quiet import outcome
from consensus.ledger.transaction import EXECUTE, PROTECTIVE, Transaction
from consensus.ledger.versions import FIRST
from consensus.ledger.view import Source, View, Write, single_write
from consensus.state import salted
from consensus.state.record import Leaf, decode_single

EXECUTOR: Final = FIRST
"""The behaviour that a network begins with; statements and decisions name the one in force."""
TRANSACTIONS_MAX: Final = 1 << 20
"""Transactions of one block; far above what limits of payloads allow."""

_UNSPENT: Final = (
    Code.UNKNOWN_KEY,
    Code.SEQUENCE_SPENT,
    Code.SEQUENCE_OLD,
    Code.SEQUENCE_AHEAD,
)
_APPLIED_CBOR: Final = codec.encode([int(Code.APPLIED), None, None])
_PROPOSED_CBOR: Final = codec.encode([int(Code.PROPOSED), None, None])


@dataclass(frozen=True, slots=True)
class BlockContext:
    """Where and when a block stands.

    ``time_ms`` is the only clock that execution knows. The state says which ``executor`` is in
    force, and who names one must name that one; of the leaves of a decision, its header does.
    """

    epoch: int
    height: int
    time_ms: int
    executor: int | None = None
    history: Callable[[int], bytes] | None = None
    """The root over the first so many statements, up to ``height`` of them; None: not known."""

    def history_root(self, size: int) -> bytes | None:
        """Return the root over the first ``size`` statements, None where not all nodes know it."""
        known = max(0, self.height - HISTORY_HEIGHTS_MAX) <= size <= self.height
        return self.history(size) if known and self.history is not None else None


class Aside(NamedTuple):
    """What a transaction that may be taken back overwrote; it is needed for so many days."""

    txid: bytes
    days: int
    leaves: tuple[Leaf, ...]


@dataclass(frozen=True, slots=True)
class BlockResult:
    """What a block came to.

    ``decisions`` are in order of execution, and ``transactions`` are what each is about: those of
    the block, and again or for the first time proposals that ended in it, whose decisions are at
    the positions ``effects``. ``writes`` ascend by key path, one a leaf, and become the next state.
    ``proposals`` are those that changed, each as it was (None: new) and as it is.
    """

    transactions: tuple[Transaction, ...]
    decisions: tuple[Decision, ...]
    writes: list[Write]
    results_root: bytes
    effects: tuple[int, ...] = ()
    proposals: tuple[tuple[Proposal | None, Proposal], ...] = ()
    aside: tuple[Aside, ...] = ()
    executor: int = FIRST
    """The behaviour that was in force."""
    sealing: sealing.Notes = field(default_factory=sealing.Notes)
    """What it did about sealed values."""
    next_committee: Committee | None = None
    """Who votes from the next block on, if the block ended its epoch."""


class BlockRun:
    """The execution of one block, in slices.

    Args:
        ledger: what is common to all blocks of the network.
        source: the state before the block.
        context: the block's place and time.
        transactions: of the block, in the payload's order, with private parts; their form and
            signatures have been checked.

    Raises:
        UnknownExecutorError: this release does not have the executor in force.
    """

    __slots__ = (
        "_aside",
        "_bench",
        "_context",
        "_decisions",
        "_desk",
        "_due",
        "_effects",
        "_finished",
        "_ledger",
        "_maker",
        "_next",
        "_not_after_ms_max",
        "_notes",
        "_pool",
        "_pool_salt",
        "_proposing",
        "_queue",
        "_source",
        "_view",
        "executor",
    )

    def __init__(
        self,
        ledger: Ledger,
        source: Source,
        context: BlockContext,
        transactions: Sequence[Transaction],
    ) -> None:
        invariant(len(transactions) <= TRANSACTIONS_MAX, "too many transactions in a block")
        self._ledger = ledger
        self._context = context
        self._queue = tuple(sorted(transactions, key=_is_ordinary))
        self._source = source
        self._view = self._open(source)
        rules = ledger.rules(source, context.time_ms)
        self.executor = rules.executor or context.executor or FIRST
        """The number of the behaviour in force, which the block's statement names."""
        if self.executor not in ledger.executors:
            raise UnknownExecutorError(self.executor, ledger.executors)
        asked = context.executor
        invariant(asked in (None, self.executor), f"executor {asked} is not the one in force")
        self._view.book = rules.book
        self._view.in_force = rules.in_force
        governing = Governing(
            ledger.committee,
            ledger.limits.notice_ms,
            ledger.chain,
            ledger.compiled,
            self.executor,
            ledger.nodes,
            membership.seats_from(ledger.committee, context.epoch),
        )
        self._view.governing, self._notes = governing, governing.notes
        self._view.now_ms = context.time_ms
        self._view.history_root = context.history_root
        row = present(source.get(ledger.paths.pool), "the state has no salt pool")
        _, self._pool_salt, pool = decode_single(row.value)
        self._pool: bytes = codec.parse(pool, "pool")
        self._maker = decisions.Maker(context.height, context.time_ms, self.executor)
        self._decisions: list[Decision] = []
        self._aside: list[Aside] = []
        self._not_after_ms_max = ledger.limits.not_after_ms_max
        self._next = 0
        self._due: deque[bytes] = deque()
        self._effects: dict[int, Transaction] = {}
        self._bench = Bench(self._view, ledger, rules, context.time_ms)
        self._proposing = Proposing(self._bench)
        self._desk = self._proposing.desk
        self._finished = False

    def _open(self, source: Source) -> View:
        """Return the view of the block; runs that judge a decision again have their own."""
        return View(source, self._ledger.paths, self._ledger.records)

    @property
    def proposing(self) -> Proposing:
        """The judgement of proposals on the state as the block has it, for those who ask."""
        return self._proposing

    def step(self, count: int) -> bool:
        """Execute up to ``count`` further transactions and proposals; return whether any are left.

        A proposal that was approved is judged right after the transaction that did so.
        """
        invariant(count > 0, "a slice has at least one transaction")
        queue = self._queue
        while count and (self._due or self._next < len(queue)):
            count -= 1
            if self._due:
                self._settle(self._due.popleft())
            else:
                self._next += 1
                self._execute(queue[self._next - 1])
        return bool(self._due) or self._next < len(queue)

    @property
    def first(self) -> Decision:
        """The first decision, once a step has made it."""
        return self._decisions[0]

    def finish(self) -> BlockResult:
        """Execute what is left and return the block's result. Only once."""
        invariant(not self._finished, "a block is finished once")
        self._finished = True
        while self.step(TRANSACTIONS_MAX):
            pass
        first, context = self._ledger.committee, self._context
        pool, next_committee = membership.end_block(
            self._view, first, context.epoch, context.time_ms, self._pool
        )
        writes = self._view.finish()
        if self._queue or pool != self._pool:
            kh = self._ledger.paths.pool
            writes.append(single_write(kh, encode_bytes(pool), self._pool_salt, pool))
            writes.sort()
        root = decisions.results_root(self._decisions)
        return BlockResult(
            self._in_order() if self._effects else self._queue,
            tuple(self._decisions),
            writes,
            root,
            tuple(self._effects),
            changes(self._view, self._source, self._desk) if self._desk.touched else (),
            tuple(self._aside),
            self.executor,
            self._notes,
            next_committee,
        )

    def _in_order(self) -> tuple[Transaction, ...]:
        """Return what each decision is about."""
        effects, rest = self._effects, iter(self._queue)
        positions = range(len(self._decisions))
        return tuple([effects[at] if at in effects else next(rest) for at in positions])

    # --- one transaction ----------------------------------------------------------------------

    def _execute(self, transaction: Transaction) -> None:
        view = self._view
        self._pool = salted.next_pool(self._pool, transaction.seed)
        view.begin()
        standing = self._bench.standing(transaction.author)
        judged = Judged()
        code_cbor = _APPLIED_CBOR
        entries: dict[str, list[bytes]] = {}
        moves: dict[str, list[bytes]] = {}
        state = decisions.APPLIED
        try:
            moves = self._judge(transaction, standing, judged)
            if judged.terms:
                judged.overwritten = view.overwritten()
            entries = view.commit(self._pool)
            if transaction.mode != EXECUTE:
                state, code_cbor = decisions.PROPOSED, _PROPOSED_CBOR
        except Refused as refused:
            state = decisions.REFUSED
            view.rollback()
            self._desk.clear()
            code_cbor = self._refusal(transaction, judged, refused)
            if refused.code not in _UNSPENT:
                view.spend(transaction.author, transaction.sequence, self._pool)
        else:
            view.spend(transaction.author, transaction.sequence, self._pool)
        leaves = {"code": code_cbor}
        if standing.known:
            leaves["authority"] = judged.authority(standing)
        leaves["reads"] = view.reads_cbor()
        for kind, by_domain in (("writes:", entries), ("moves:", moves)):
            for domain in sorted(by_domain) if len(by_domain) > 1 else by_domain:
                leaves[kind + domain] = encode_array(by_domain[domain])
        links: Sequence[bytes] = ()
        if state == decisions.APPLIED:
            links = judged.links
        if self._desk.used:
            self._due += self._desk.approved
            if self._desk.named:
                links = [
                    *[terms.encode_link("proposal", each) for each in self._desk.named],
                    *links,
                ]
            self._desk.clear()
        if links:
            leaves["links"] = encode_array(links)
        if judged.terms and state == decisions.APPLIED:
            self._note_terms(transaction.txid, judged, leaves)
        self._decisions.append(
            self._maker.make(
                transaction.txid, len(self._decisions), state, judged.actions, leaves, self._pool
            )
        )
        if view.authority_moved:
            self._bench.forget()

    def _refusal(self, transaction: Transaction, judged: Judged, refused: Refused) -> bytes:
        """Return the code leaf of a refusal, encoded."""
        call = judged.call
        active = None if call is None else self._bench.action(transaction.calls[call])
        return encode_value(outcome(refused, call, active))

    def _settle(self, txid: bytes) -> None:
        """Judge a proposal that was approved; a decision follows once it lacks no approval.

        The proposal's seed is mixed into the pool a second time, so that nothing it writes has a
        salt that was used before.
        """
        view = self._view
        view.begin()
        settled = self._proposing.settle(txid)
        if settled is not None:
            transaction, judged, refused = settled.transaction, settled.judged, settled.refused
            self._pool = salted.next_pool(self._pool, transaction.seed)
            if judged.terms:
                judged.overwritten = view.overwritten()
            entries = view.commit(self._pool)
            state, code_cbor = decisions.APPLIED, _APPLIED_CBOR
            if refused is not None:
                state = decisions.REFUSED
                code_cbor = self._refusal(transaction, judged, refused)
            leaves = {"code": code_cbor, "authority": judged.authority(settled.standing)}
            leaves["reads"] = view.reads_cbor()
            for kind, by_domain in (("writes:", entries), ("moves:", settled.moves)):
                for domain in sorted(by_domain):
                    leaves[kind + domain] = encode_array(by_domain[domain])
            leaves["links"] = encode_array(
                [terms.encode_link("approval", settled.approval), *judged.links]
            )
            if judged.terms:
                self._note_terms(txid, judged, leaves)
            index = len(self._decisions)
            self._effects[index] = transaction
            if transaction.acks:
                self._notes.delivered.append((index, transaction))
            self._decisions.append(
                self._maker.make(txid, index, state, judged.actions, leaves, self._pool)
            )
        self._desk.clear()
        if view.authority_moved:
            self._bench.forget()

    def _note_terms(self, txid: bytes, judged: Judged, leaves: dict[str, bytes]) -> None:
        """Say on which terms a transaction may be taken back, and keep what it overwrote."""
        leaves[terms.LEAF] = encode_array(judged.terms)
        days = terms.kept_days(leaves[terms.LEAF])
        self._aside.append(Aside(txid, days, tuple(judged.overwritten)))

    def _judge(
        self, transaction: Transaction, standing: Standing, judged: Judged
    ) -> dict[str, list[bytes]]:
        """Judge and carry out a transaction; return the moves for its decision."""
        view, bench, now_ms = self._view, self._bench, self._context.time_ms
        if not standing.known and standing.fault is not None:
            raise standing.fault.again()
        view.window(transaction.author).check(transaction.sequence)
        not_after_ms, executes = transaction.not_after_ms, transaction.mode == EXECUTE
        if now_ms > not_after_ms:
            raise Refused(Code.EXPIRED, [not_after_ms, now_ms])
        latest_ms = now_ms + self._not_after_ms_max if executes else self._proposing.latest_ms()
        if not_after_ms > latest_ms:
            raise Refused(Code.NOT_AFTER_TOO_FAR, [not_after_ms, latest_ms])
        if standing.fault is not None:
            raise standing.fault.again()
        approvers: Sequence[Standing] = ()
        if transaction.cosigners:
            approvers = [bench.cosigner(key, judged) for key in transaction.cosigners]
        if transaction.openings[len(transaction.calls) + 2 :]:
            sealing.refuse_unasked(transaction, bench.action)
            self._notes.delivered.append((len(self._decisions), transaction))
        if not executes:
            self._proposing.store(transaction, standing, approvers, judged)
            return {}
        expects = Expectations(view, transaction)
        calls = Calls(
            view, transaction, standing, now_ms, expects, approvers, bench.power, self._proposing
        )
        judged.filled = calls.filled
        bench.run(transaction, standing, judged, expects, calls)
        return calls.moves


def _is_ordinary(transaction: Transaction) -> bool:
    return transaction.lane != PROTECTIVE
