"""The blocks of one recorded case: acts one after the other, each judged in a block of its own.

A case's small network has no consensus and no store, but a history: each block leaves a statement,
so that an act can be taken back on the evidence that nodes would give.

Not here: what a file of cases says (``cases``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from comity import drafting
from comity.cli.values import parse_value
from comity.drafting import Call, Needs
from comity.results import Entry
from consensus import codec, genesis
from consensus.codec import Value
from consensus.hashing import ZERO, context
from consensus.hotstuff.types import Statement
from consensus.ledger.decision import Decision
from consensus.ledger.evidence import Evidence, Overwritten, opening_hashes
from consensus.ledger.executor import BlockContext, BlockResult, BlockRun
from consensus.ledger.ledger import Ledger
from consensus.ledger.model import Rulebook
from consensus.ledger.transaction import Transaction
from consensus.ledger.types import Type
from consensus.protocol import StateKey
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.merkle import RESULTS
from consensus.state.record import decode_row, decode_single
from consensus.state.state import MemoryBackend, Row

if TYPE_CHECKING:
    from comity.cli.cases import Act, Bench

_NOT_AFTER_MS: Final = 60_000

seed_of = context("case seed")


class CaseRun:
    """The blocks of one case.

    Args:
        bench: what the file gives.
        state: with what is given; every act makes another.
        time_ms: of the file; each act comes a second later, unless it names its time.
    """

    def __init__(self, bench: Bench, state: MemoryBackend, time_ms: int) -> None:
        self._bench = bench
        self.state = state
        self._height = 0
        self._time_ms = time_ms
        self._sequence = 0
        self._history = HistoryTree(MemoryNodes())
        self._statements: list[bytes] = []
        self._decisions: dict[str, Decision] = {}
        """Of the acts that have names."""
        self._old: dict[bytes, Overwritten] = {}
        """What was overwritten, by the hash of its leaf."""
        self._note(ZERO)

    def act(self, act: Act) -> tuple[Decision, bytes]:
        """Carry out one act in a block of its own; return its decision and txid.

        Raises:
            DraftError: it cannot be written as a transaction.
        """
        bench, ledger = self._bench, self._bench.ledger
        self._time_ms = time_of(act.at) if act.at else self._time_ms + 1000
        rules = ledger.rules(self.state, self._time_ms)
        transaction = self._draft(act, rules.book)
        self._height += 1
        place = BlockContext(genesis.EPOCH, self._height, self._time_ms, history=self._history.root)
        result = BlockRun(ledger, self.state, place, [transaction]).finish()
        self._apply(result)
        bench.book = rules.book
        decision = result.decisions[0]
        if act.name:
            self._decisions[act.name] = decision
        return decision, transaction.txid

    def _apply(self, result: BlockResult) -> None:
        rows = [(kh, Row(vh, self._height, row)) for kh, vh, row in result.writes]
        self.state = MemoryBackend([*self._all(), *rows])
        for aside in result.aside:
            for leaf in aside.leaves:
                self._old[leaf.leaf_hash] = Overwritten(leaf.version, leaf.salt, leaf.value_cbor)
        self._note(result.results_root)

    def _note(self, results_root: bytes) -> None:
        """Append the statement of the height, which says of the state what nobody here asks."""
        statement = Statement(
            self._bench.ledger.chain,
            genesis.EPOCH,
            self._height,
            self._height,
            ZERO,
            self._time_ms,
            1,
            ZERO,
            results_root,
            ZERO,
            self._history.root(),
            None,
        )
        self._statements.append(statement.encode())
        self._history.append(statement.hash)

    def _all(self) -> list[tuple[bytes, Row]]:
        found = []
        for kh, _, _ in self.state.entries():
            row = self.state.get(kh)
            if row is not None:
                found.append((kh, row))
        return found

    # --- transactions -------------------------------------------------------------------------

    def _draft(self, act: Act, book: Rulebook) -> Transaction:
        bench = self._bench
        call = self._reversal(act.reverse) if act.reverse else self._call(act, book)
        action = drafting.find_action(book, call.domain, call.action)
        needs = Needs(book, action, call.inputs, self._time_ms)
        while (key := needs.next_key()) is not None:
            needs.give(entry_of(self.state, bench.ledger, key, self._time_ms))
        self._sequence += 1
        unsigned = drafting.build(
            bench.ledger.chain,
            book,
            [call],
            author=bench.key(act.by),
            sequence=self._sequence,
            now_ms=self._time_ms,
            not_after_ms=self._time_ms + _NOT_AFTER_MS,
            seed=seed_of(f"transaction {self._sequence}".encode()),
            reads=needs.expected,
            cosigners=[bench.key(each) for each in act.cosigners],
        )
        return unsigned.transaction

    def _call(self, act: Act, book: Rulebook) -> Call:
        domain, _, name = act.call.partition(".")
        action = drafting.find_action(book, domain, name)
        types = {each.name: each.type for each in action.inputs}
        inputs: dict[str, Value] = {
            name: self._bench.value(raw, types.get(name)) for name, raw in act.inputs.items()
        }
        return Call(domain, name, inputs)

    def _reversal(self, name: str) -> Call:
        """Return the call that takes back what the act of a name did."""
        decision = self._decisions[name]
        header = decision.header
        evidence = Evidence(
            decision.encode(),
            1,
            RESULTS.path([decision.root], header.index),
            self._statements[header.height],
            self._history.size,
            self._history.path(header.height, self._history.size),
            [self._old[each] for each in opening_hashes(decision) if each in self._old],
        )
        inputs: dict[str, Value] = {"transaction": header.txid, "evidence": evidence.encode()}
        return Call("charter", "reverse", inputs)


def entry_of(state: MemoryBackend, ledger: Ledger, key: StateKey, time_ms: int) -> Entry:
    """Return a leaf of a state in memory as a client would see it."""
    row = state.get(ledger.paths(key.namespace, key.components))
    if row is None or row.vh == ZERO:
        return Entry(key, 0, time_ms)
    if key.namespace != "record":
        version, _, data = decode_single(row.value)
        value = codec.parse(data, "leaf")
        return Entry(key, 0, time_ms, version, row.changed_height, value, present=True)
    stored = decode_row(row.value)
    return Entry(
        key,
        0,
        time_ms,
        stored.version,
        row.changed_height,
        {leaf.name: codec.parse(leaf.value_cbor, "leaf") for leaf in stored.leaves},
        {leaf.name: leaf.version for leaf in stored.leaves},
        stored.definition,
        present=True,
    )


def time_of(text: str) -> int:
    """Return the time that a file names, in ms."""
    found = parse_value(text, Type("time"), "time")
    return found if isinstance(found, int) else 0
