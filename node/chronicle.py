"""Executed heights and what proves them: in memory until flushed, then from the store.

A height is *executed*, then *certified* (delivered), then *flushed*. Those not yet certified may be
undone, from the newest down. Readers see certified heights only.

Not here: executing (``execution``), and the rows of the state.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from consensus import codec
from consensus.answers import StatementEvidence
from consensus.audit.stream import Recorded
from consensus.committee import Committee
from consensus.errors import invariant
from consensus.hotstuff import wire
from consensus.hotstuff.types import Block, CommitCert, Statement
from consensus.state.history import HistoryTree
from consensus.state.state import Row
from node import recorded
from node.api.backend import CertifiedBlock, Place
from node.epochs import Ended
from node.register import Change, Register, effect_entry
from node.sealed import vault
from node.storage.flush import BatchData, BlockData
from node.storage.store import Store

HEIGHTS_MAX: Final = 4096
"""Heights in memory; flushing must have stopped for there to be more, and the node stops then."""


@dataclass(slots=True)
class Height:
    """One executed block.

    Args:
        block: as ordered.
        statement: what commit votes sign.
        txids, authors: of its decisions, in execution order.
        roots, decisions: of each decision, encoded.
        codes: how many decisions had each outcome, by its encoded leaf; for metrics.
        refusals: how many were refused, by domain and code; for metrics.
        changes: ``kh ‖ vh ‖ previous height`` of each changed key.
        batches: of its payload, as they are stored.
        since: when it was executed, of the monotonic clock, seconds.
        certificate: on this very height, once delivered by it.
        effects: positions of proposals' second decisions.
        aside: what it adds to the store's table of that name.
        proposals: those that changed, as they were (None: new) and as they are.
        rows: of the state, that it wrote; ascending, of the same keys as ``changes``.
        before: the rows that they replaced, as far as known; parallel.
        sealed: what it means for the sealed values of this node.
        elected: the committee of the next epoch, if the block ended its own.
    """

    block: Block
    statement: Statement
    txids: list[bytes]
    authors: list[bytes]
    roots: list[bytes]
    decisions: list[bytes]
    codes: Mapping[bytes, int]
    changes: bytes
    batches: Sequence[BatchData]
    since: float
    refusals: Mapping[tuple[str, int], int] = field(default_factory=dict)
    certificate: CommitCert | None = None
    effects: Sequence[int] = ()
    aside: Sequence[tuple[bytes, bytes | None]] = ()
    proposals: Sequence[Change] = ()
    rows: Mapping[bytes, Row] = field(default_factory=dict)
    before: Sequence[Row | None] = ()
    sealed: Sequence[vault.Change] = ()
    elected: Committee | None = None


@dataclass(slots=True)
class _Certificates:
    """Certified heights that have a certificate of their own, ascending; not yet flushed."""

    heights: list[int] = field(default_factory=list)
    by_height: dict[int, CommitCert] = field(default_factory=dict)


class Chronicle:
    """Heights above the store, and those in it.

    Args:
        store: certified heights; its view follows flushes.
        history: of the statements.
        tip: the block of the store's height, certified.
    """

    def __init__(self, store: Store, history: HistoryTree, tip: Block) -> None:
        self._store = store
        self._history = history
        self._tip = tip
        self._executed: dict[int, Height] = {}
        self.recent: tuple[Height, ...] = ()
        """Certified heights that the store may lack, ascending; replaced whole, for any thread."""
        self._places: dict[bytes, Place] = {}
        self._effects: dict[bytes, Place] = {}
        self.proposals = Register(store)
        self._certificates = _Certificates()
        self.certified = tip.height
        self.executed = tip.height
        self._announced = tip.height
        self.newest: CommitCert | None = None
        found = store.view.newest_certificate()
        if found is not None:
            self.newest = wire.decode_commit_cert(found[1])

    # --- growing ------------------------------------------------------------------------------

    def add(self, height: Height) -> None:
        """Take the next executed height."""
        number = height.block.height
        invariant(number == self.executed + 1, "heights are executed in order")
        invariant(len(self._executed) < HEIGHTS_MAX, "too many heights wait to be flushed")
        self._executed[number] = height
        self.executed = number

    def undo(self, block_id: bytes) -> Height:
        """Forget the newest executed height, which is this block and not certified."""
        number = self.executed
        invariant(number > self.certified, "what is certified is never undone")
        height = self._executed.pop(number)
        invariant(height.block.id == block_id, "only the tip can be undone")
        self.executed = number - 1
        return height

    def uncertified_tip(self) -> Block | None:
        """Return the newest executed block, unless it is certified."""
        if self.executed == self.certified:
            return None
        return self._executed[self.executed].block

    def certify(self, block_id: bytes, certificate: CommitCert) -> Height:
        """Mark the next height as certified and return it."""
        number = self.certified + 1
        height = self._executed[number]
        invariant(height.block.id == block_id, "heights are certified in order")
        self.certified = number
        self.recent = (*self.recent, height)
        self._tip = height.block
        if certificate.statement.height == number:
            height.certificate = certificate
            self._certificates.heights.append(number)
            self._certificates.by_height[number] = certificate
            self.newest = certificate
        for index, (txid, author) in enumerate(zip(height.txids, height.authors, strict=True)):
            self._places.setdefault(txid, Place(number, index, author))
        for index in height.effects:
            place = Place(number, index, height.authors[index])
            self._effects[height.txids[index]] = place
        self.proposals.certified(number, height.proposals)
        return height

    # --- reading certified heights --------------------------------------------------------------

    def provable(self) -> int:
        """Return the newest height that a certificate vouches for by itself."""
        return 0 if self.newest is None else self.newest.statement.height

    def provable_upto(self, height: int) -> int:
        """Return the newest height, at most ``height``, with a certificate; 0 if none is new."""
        heights = self._certificates.heights
        position = bisect_left(heights, height + 1)
        return heights[position - 1] if position else 0

    def first_provable(self) -> int:
        """Return the lowest height with a certificate that is not flushed; 0 if none is new."""
        heights = self._certificates.heights
        return heights[0] if heights else 0

    def announced(self) -> range:
        """Return the heights that the newest certificate made provable, each once."""
        first, self._announced = self._announced + 1, self.provable()
        return range(first, self._announced + 1)

    def blocks(self, first: int, last: int) -> list[Block]:
        """Return the executed blocks of heights in memory."""
        return [self._executed[number].block for number in range(first, last + 1)]

    def unflushed_batches(self) -> list[BatchData]:
        """Return the batches of all heights in memory."""
        return [batch for height in self._executed.values() for batch in height.batches]

    def find(self, txid: bytes) -> Place | None:
        """Return where the first decision of a transaction is."""
        positions = self._store.view.positions(txid)  # older than anything in memory
        if not positions:
            return self._places.get(txid)
        height, index = positions[0]
        return Place(height, index, self._stored_decisions(height)[index][1])

    def find_effect(self, txid: bytes) -> Place | None:
        """Return where the second decision of a proposal is."""
        found = self._effects.get(txid)
        if found is not None:
            return found
        position = self.proposals.effect(txid)
        if position is None:
            return None
        height, index = position
        return Place(height, index, self._stored_decisions(height)[index][1])

    def decisions_of(self, txid: bytes) -> list[tuple[int, int]]:
        """Return height and index of every certified decision of a transaction, ascending.

        Cost: a look at each transaction of the heights in memory.
        """
        heights = [height for height, _ in self._store.view.positions(txid)]
        effect = self.find_effect(txid)
        if effect is not None and effect.height <= self._store.height:
            heights.append(effect.height)
        found = [
            (height, index)
            for height in sorted(dict.fromkeys(heights))
            for index, row in enumerate(self._stored_decisions(height))
            if row[0] == txid
        ]
        for number in range(self._store.height + 1, self.certified + 1):
            txids = self._executed[number].txids
            found += [(number, index) for index, each in enumerate(txids) if each == txid]
        return found

    def aside(self, key: bytes) -> bytes | None:
        """Return a node-local value of a certified height."""
        for number in range(self._store.height + 1, self.certified + 1):
            for each, value in self._executed[number].aside:
                if each == key:
                    return value
        return self._store.view.aside(key)

    def past(self, height: int) -> tuple[bytes, int, list[bytes]] | None:
        """Return what shows a certified height to nodes without an archive.

        Its statement, a number of heights under whose history root it is, and the path there: the
        newest height that proves itself, or, if that is this one, all up to this one.
        """
        statement = self._statement(height)
        if statement is None:
            return None
        size = max(self.provable(), height + 1)
        return statement, size, self._history.path(height, size)

    def statement_under(self, height: int, size: int) -> tuple[bytes, list[bytes]] | None:
        """Return a height's statement, and its path to the root over the first ``size`` heights."""
        statement = self._statement(height) if height < size else None
        return None if statement is None else (statement, self._history.path(height, size))

    def statement(self, height: int) -> bytes | None:
        """Return the encoded statement of an executed height; None where it is not kept."""
        return self._statement(height)

    def to_set_aside(self, upto: int) -> list[tuple[bytes, bytes | None]]:
        """Return what the heights up to ``upto`` that the store lacks add to its table."""
        numbers = range(self._store.height + 1, upto + 1)
        return [each for number in numbers for each in self._executed[number].aside]

    def sealed_upto(self, upto: int) -> tuple[list[vault.Change], int]:
        """Return what the heights up to ``upto`` that the store lacks mean for sealed values.

        And the chain time of the last.
        """
        numbers = range(self._store.height + 1, upto + 1)
        found = [each for number in numbers for each in self._executed[number].sealed]
        return found, self._executed[upto].block.time_ms

    def payload(self, height: int) -> list[tuple[bytes, bytes | None]] | None:
        """Return public and private parts of a certified block's batches, in order.

        None where the block or one of its batches is not kept.
        """
        found = self._executed.get(height)
        if found is not None:
            return [(each.public, each.private) for each in found.batches]
        ordered = self.ordered(height)
        if ordered is None:
            return None
        view = self._store.view
        parts: list[tuple[bytes, bytes | None]] = []
        for item in ordered[0].payload:
            batch = view.batch(item.digest)
            if batch is None:
                return None
            parts.append((batch[1], view.private(item.digest)))
        return parts

    def time_ms(self) -> int:
        """Return chain time at the certified tip."""
        return self._tip.time_ms

    def executed_time_ms(self) -> int:
        """Return chain time at the executed tip, certified or not."""
        found = self._executed.get(self.executed)
        return self._tip.time_ms if found is None else found.block.time_ms

    def state_root(self, height: int) -> bytes:
        """Return the state root of a certified height."""
        data = self._statement(height)
        invariant(data is not None, "a certified height has a statement")
        return bytes(codec.parse(data or b"")[7])

    def block(self, height: int) -> CertifiedBlock | None:
        """Return the decisions of a certified height with its evidence.

        None where they are not kept: of heights up to the snapshot that the store began from.
        """
        evidence = self.evidence(height)
        if evidence is None:
            return None
        found = self._executed.get(height)
        if found is None and self._store.view.decisions(height) is None:
            return None
        if found is not None:
            return CertifiedBlock(height, evidence, found.txids, found.roots, found.decisions)
        rows = self._stored_decisions(height)
        return CertifiedBlock(
            height,
            evidence,
            [row[0] for row in rows],
            [row[2] for row in rows],
            [row[3] for row in rows],
        )

    def evidence(self, height: int) -> StatementEvidence | None:
        """Return what proves the statement of a certified height; None if unknown."""
        if not 0 <= height <= self.certified:
            return None
        found = self._certificate_from(height)
        if found is None:
            return None
        at, certificate = found
        if at == height:
            return StatementEvidence(certificate)
        statement = self._statement(height)
        if statement is None:
            return None
        return StatementEvidence(certificate, statement, tuple(self._history.path(height, at)))

    def recorded(self, height: int) -> Recorded | None:
        """Return all that is kept of a certified height."""
        if height > self.certified:
            return None
        found = self._executed.get(height)
        if found is not None:
            return recorded.executed(found)
        return recorded.stored(self._store.view, height)

    def ordered(self, height: int) -> tuple[Block, CommitCert | None] | None:
        """Return a certified block and the certificate on it, for nodes that catch up."""
        if height > self.certified:
            return None
        found = self._executed.get(height)
        if found is not None:
            return found.block, found.certificate
        data = self._store.view.block(height)
        if data is None:
            return None
        block = wire.decode_block(codec.parse(data)[0])
        certificate = self._store.view.certificate(height)
        return block, None if certificate is None else wire.decode_commit_cert(certificate)

    def _certificate_from(self, height: int) -> tuple[int, bytes] | None:
        if height <= self._store.height:
            found = self._store.view.certificate_from(height)
            if found is not None:
                return found
        heights = self._certificates.heights
        position = bisect_left(heights, height)
        if position == len(heights):
            return None
        at = heights[position]
        return at, wire.encode_commit_cert(self._certificates.by_height[at])

    def _statement(self, height: int) -> bytes | None:
        found = self._executed.get(height)
        if found is not None:
            return found.statement.encode()
        data = self._store.view.block(height)
        return None if data is None else bytes(codec.parse(data)[1])

    def _stored_decisions(self, height: int) -> list[list[bytes]]:
        data = self._store.view.decisions(height)
        rows: list[list[bytes]] = [] if data is None else codec.parse(data)
        return rows

    # --- flushing -----------------------------------------------------------------------------

    def to_flush(self, upto: int) -> list[BlockData]:
        """Return the certified heights up to ``upto`` that the store lacks, encoded."""
        return [self._data(self._executed[n]) for n in range(self._store.height + 1, upto + 1)]

    def ended(self, upto: int) -> list[Ended]:
        """Return the ends of epochs among the certified heights up to ``upto``."""
        found = []
        for number in range(self._store.height + 1, upto + 1):
            height = self._executed[number]
            if height.elected is not None and height.certificate is not None:
                found.append(Ended(height.certificate, height.elected))
        return found

    def index_entries(self, upto: int) -> list[tuple[bytes, bytes | None]]:
        """Return what the heights up to ``upto`` change in the store's index of proposals."""
        entries = self.proposals.entries(upto)
        for number in range(self._store.height + 1, upto + 1):
            height = self._executed[number]
            entries += [
                effect_entry(height.txids[index], number, index) for index in height.effects
            ]
        return entries

    def flushed(self, upto: int) -> None:
        """Forget heights that the store now has."""
        self.recent = tuple([each for each in self.recent if each.block.height > upto])
        for number in [n for n in self._executed if n <= upto]:
            for txid in self._executed.pop(number).txids:
                place = self._places.get(txid)
                if place is not None and place.height == number:
                    del self._places[txid]
        self.proposals.flushed(upto)
        for txid in [txid for txid, place in self._effects.items() if place.height <= upto]:
            del self._effects[txid]
        certificates = self._certificates
        keep = bisect_left(certificates.heights, upto + 1)
        for number in certificates.heights[:keep]:
            del certificates.by_height[number]
        del certificates.heights[:keep]

    def _data(self, height: Height) -> BlockData:
        rows = zip(height.txids, height.authors, height.roots, height.decisions, strict=True)
        certificate = height.certificate
        return BlockData(
            height=height.block.height,
            block=codec.encode([wire.encode_block(height.block), height.statement.encode()]),
            decisions=codec.encode([list(row) for row in rows]),
            changes=height.changes,
            certificate=None if certificate is None else wire.encode_commit_cert(certificate),
            transactions=_first_positions(height.txids),
            batches=height.batches,
            rows=height.rows,
            before=height.before,
        )


def _first_positions(txids: Sequence[bytes]) -> list[tuple[bytes, int]]:
    """Return ``(txid, index)`` of each transaction's first decision in a block."""
    places: dict[bytes, int] = {}
    for index, txid in enumerate(txids):
        places.setdefault(txid, index)
    return list(places.items())
