"""Makes a certified chain without a network: for benchmarks and for tests of those who check one.

Blocks, batches, votes and certificates are as nodes would make them, signed with the keys of all
validators, which are at hand here. ``recorded`` is what a node would keep of each height;
``stream`` puts it into an audit file, ``store`` into a data folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from consensus import codec, genesis, signing
from consensus.answers import EpochStep
from consensus.audit.stream import Header, Recorded, Steps, Writer, encode_height
from consensus.committee import Committee
from consensus.hotstuff.events import ExecutionResult
from consensus.hotstuff.execution import statement_of
from consensus.hotstuff.types import (
    SIGN_TAGS,
    Block,
    CommitCert,
    PayloadItem,
    QuorumCert,
    Signatures,
    SignKind,
    Statement,
    TimeoutCert,
    genesis_block,
    genesis_cert,
    number_before,
    start_cert,
    timeout_body,
    vote_body,
)
from consensus.ledger import batch as batches
from consensus.ledger.batch import Batch, Item
from consensus.ledger.decision import Decision
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.genesis_state import first_result, genesis_state
from consensus.ledger.layout import Paths
from consensus.ledger.ledger import Ledger, of_genesis
from consensus.ledger.transaction import ORDINARY
from consensus.state.history import HistoryTree, MemoryNodes
from consensus.state.snapshot import Chunk
from consensus.state.state import Applied, MemoryBackend, State
from node.epochs import ended_of
from node.flushing import META_NUMBERS
from node.snapshots.filling import listed
from node.storage.flush import BatchData, BlockData, FlushBatch
from node.storage.recovery import STORE_FOLDER
from node.storage.store import Store
from node.storage.tables import height_key

FLUSH_HEIGHTS: Final = 64


class Signer(Protocol):
    """A validator's key."""

    def sign(self, message: bytes) -> bytes:
        """Return the signature."""
        ...


@dataclass
class Chain:
    """A chain that grows by ``block``.

    Args:
        genesis: bytes of the file.
        keys: of the validators, in their order; the first quorum of a committee signs.
        newcomers: keys of validators of later committees, by public key.
    """

    genesis: bytes
    keys: Sequence[Signer]
    recorded: list[Recorded] = field(default_factory=list)
    newcomers: Mapping[bytes, Signer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        founded = genesis.decode(self.genesis)
        self.founded = founded
        self.chain = genesis.chain_id(self.genesis)
        self.ledger: Ledger = of_genesis(founded)
        self.backend, self.nodes = MemoryBackend(), MemoryNodes()
        self.state = State(self.backend, founded.tree_depth, -1)
        self.history = HistoryTree(self.nodes)
        self.history_nodes: list[tuple[int, int, bytes]] = []
        self.round = 0
        self.committee = self._voted = founded.committee
        self.steps: list[EpochStep] = []
        """What ended each epoch, with the committee of the next."""
        rows = zip(founded.committee.keys, self.keys, strict=True)
        self._signers = {**dict(rows), **self.newcomers}
        self.decisions: list[Decision] = []
        self.applied: list[Applied] = []
        """What each height wrote."""
        first = genesis_block(self.chain, founded.committee.hash, founded.time_ms)
        applied = self.state.apply(genesis_state(founded))
        self.applied.append(applied)
        result = first_result(applied, self.history.root())
        statement = statement_of(self.chain, first, result)
        self._take(Recorded(0, first.encoded, statement.encoded, None, [], codec.encode([]), b""))
        self.history.append(statement.hash)
        self.statement, self.tip = statement, first
        self.qc = genesis_cert(first)
        self._number = 0

    @property
    def now_ms(self) -> int:
        """Chain time of the newest block."""
        return self.tip.time_ms

    def block(
        self,
        items: Sequence[Item] = (),
        *,
        certified: bool = True,
        after_ms: int = 1,
        lanes: Sequence[tuple[int, Sequence[Item]]] | None = None,
        failed: int = 0,
    ) -> Recorded:
        """Execute and certify the next block; return what a node keeps of it.

        Args:
            items: of one ordinary batch; none: an empty block.
            certified: whether the height gets a certificate of its own.
            after_ms: chain time since the block before.
            lanes: batches, each with its lane, instead of ``items``.
            failed: rounds before it that everybody gave up.
        """
        given = lanes if lanes is not None else [(ORDINARY, items)] if items else []
        made = [self._batch(lane, each) for lane, each in given]
        payload = tuple(
            PayloadItem(b.digest, b.origin, b.number, b.lane, b.count, b.size_bytes) for b in made
        )
        before, self.round = self.tip, self.round + 1 + failed
        self._voted = self.committee
        block = Block(
            self.committee.epoch,
            self.round,
            before.height + 1,
            before.id,
            self.qc,
            self._given_up(self.round - 1) if failed else None,
            before.time_ms + after_ms,
            payload,
            self.committee.hash,
        )
        context = BlockContext(block.epoch, block.height, block.time_ms, history=self.history.root)
        transactions = [each for batch in made for each in batch.transactions]
        outcome = BlockRun(self.ledger, self.state, context, transactions).finish()
        applied = self.state.apply(outcome.writes)
        self.applied.append(applied)
        elected = outcome.next_committee
        statement = statement_of(
            self.chain,
            block,
            ExecutionResult(
                outcome.executor,
                applied.state_root,
                outcome.results_root,
                applied.changes_root,
                self.history.root(),
                None if elected is None else elected.hash,
            ),
        )
        self.history.append(statement.hash)
        self.decisions = list(outcome.decisions)
        rows = [
            [each.txid, each.author, decision.root, decision.encode()]
            for each, decision in zip(outcome.transactions, outcome.decisions, strict=True)
        ]
        recorded = Recorded(
            block.height,
            block.encoded,
            statement.encoded,
            self.certify(statement).encoded if certified else None,
            [(batch.public, batch.private) for batch in made],
            codec.encode(rows),
            b"".join(applied.changes),
        )
        self.statement, self.tip = statement, block
        self.qc = self.ordered(block)
        if elected is not None:
            self._begin_epoch(statement, elected)
        self._take(recorded)
        if block.height % FLUSH_HEIGHTS == 0:
            self.flush()
        return recorded

    def _begin_epoch(self, statement: Statement, elected: Committee) -> None:
        self.steps.append(EpochStep(self.certify(statement).encoded, elected.to_value()))
        self.committee, self.qc, self.round = elected, start_cert(statement), 0
        self._number = number_before(elected.epoch)

    def _take(self, recorded: Recorded) -> None:
        self.recorded.append(recorded)

    def _batch(self, lane: int, items: Sequence[Item]) -> Batch:
        self._number += 1
        return batches.build(0, self._number, lane, items)

    def certify(self, statement: Statement, signers: Sequence[int] | None = None) -> CommitCert:
        """Return the commit certificate on a statement by these validators."""
        body = statement.encoded
        return CommitCert(statement, self._signed(SignKind.COMMIT_VOTE, body, signers))

    def ordered(self, block: Block, signers: Sequence[int] | None = None) -> QuorumCert:
        """Return the quorum certificate on a block by these validators."""
        place = (block.epoch, block.round, block.id, block.height)
        return QuorumCert(*place, self._signed(SignKind.VOTE, vote_body(*place), signers))

    def _given_up(self, round_: int) -> TimeoutCert:
        """Return the certificate by which the round after ``round_`` is entered."""
        epoch, high = self.committee.epoch, self.qc
        body = timeout_body(epoch, round_, high.round)
        signed = self._signed(SignKind.TIMEOUT, body, None)
        return TimeoutCert(epoch, round_, tuple((v, high.round, s) for v, s in signed), high)

    def _signed(self, kind: SignKind, body: bytes, signers: Sequence[int] | None) -> Signatures:
        message = signing.message(SIGN_TAGS[kind], self.chain, body)
        chosen = range(self.committee.quorum) if signers is None else signers
        keys = self.committee.keys
        return tuple((index, self._signers[keys[index]].sign(message)) for index in chosen)

    def flush(self) -> None:
        """Put what was executed into the store in memory."""
        height = self.state.height
        nodes = self.history.pending(height)
        self.backend.write(self.state.pending(height))
        self.nodes.write(nodes)
        self.history_nodes += [(*place, node) for place, node in nodes]
        self.state.flushed(height)
        self.history.flushed(height)

    # --- what others read

    def stream(self, recorded: Iterable[Recorded] | None = None, first: int = 0) -> bytes:
        """Return an audit file of these heights; None: of all."""
        writer = Writer()
        heights = list(self.recorded if recorded is None else recorded)
        last = heights[-1].height if heights else 0
        parts = [writer.begin(Header(self.genesis, first, max(first, last)))]
        steps = Steps(self.steps)
        for each in heights:
            parts += [writer.epoch(step) for step in steps.before(each.height)]
            parts.append(writer.height(encode_height(each)))
        return b"".join([*parts, writer.end()])

    def store(self, folder: Path, recorded: Iterable[Recorded] | None = None) -> None:
        """Write a node's store of these heights, whose state is that of the newest block."""
        self.flush()
        heights = list(self.recorded if recorded is None else recorded)
        size = self._voted.size
        store = Store.open(folder / STORE_FOLDER, chain=self.chain)
        try:
            rows = [
                (kh, row)
                for kh, _, _ in self.backend.entries()
                if (row := self.backend.get(kh)) is not None
            ]
            entries = b"".join([kh + row.vh + height_key(row.changed_height) for kh, row in rows])
            chunk = Chunk(1, entries, [row.value for _, row in rows])
            store.write(
                FlushBatch(
                    height=heights[-1].height,
                    rows=rows,
                    blocks=[block_data(each, self.applied[each.height]) for each in heights],
                    index=listed(Paths(self.chain), chunk),
                    history=self.history_nodes,
                    meta=[
                        (META_NUMBERS, codec.encode([self._number, *[0] * (size - 1)])),
                        *[ended_of(each).meta() for each in self.steps],
                    ],
                )
            )
        finally:
            store.close()


def block_data(recorded: Recorded, applied: Applied) -> BlockData:
    """Return what a node's store keeps of a height."""
    changes = b"".join(applied.changes)
    told = recorded.changes or b""
    known = told == changes or recorded.height == 0
    transactions = [
        (row[0], index) for index, row in enumerate(codec.parse(recorded.decisions or b"\x80"))
    ]
    return BlockData(
        recorded.height,
        codec.encode([recorded.block, recorded.statement]),
        recorded.decisions or b"",
        changes if known else told,
        recorded.certificate,
        list(dict(transactions).items()),
        [
            BatchData(batches.digest(public), public, private)
            for public, private in recorded.batches
            if public is not None
        ],
        applied.rows if known else {},
        applied.before if known else (),
    )
