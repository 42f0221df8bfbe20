"""Decisions of this node judged again, for evidence: on the rows as they were before their block.

The work is that of executing a block up to the decision, so it is done in a worker thread, for one
asker at a time. It has a ledger of its own: what it keeps is never used for blocks.

Not here: who may have a bundle (``node.api.bundling``), and what is in it (``consensus.evidence``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from consensus import codec
from consensus.errors import ComityError
from consensus.evidence.making import Decided, Prepared, prepare
from consensus.ledger import batch as formats
from consensus.ledger import decision as decisions
from consensus.ledger.executor import BlockContext
from consensus.ledger.group import Group
from consensus.ledger.ledger import Ledger
from consensus.ledger.proposals import is_bare
from consensus.ledger.transaction import Transaction, decode_trusted, transaction_id
from consensus.state.state import Row
from node.chronicle import Chronicle
from node.past import Moment, Past

TOGETHER_MAX: Final = 1
"""Decisions judged again at once; others wait."""
TRANSACTIONS_MAX: Final = 65_536
"""Transactions of a block that is executed again for one decision."""

Parts = Sequence[tuple[bytes, bytes | None]]
"""Public and private parts of a block's batches; None where a private part is gone."""


class NotKept(ComityError):
    """What a decision was judged on is not on this node any more."""

    code = "NOT_KEPT"
    advice = "ask another node: each keeps what its operator has configured"


class _Source:
    """Rows after a height, as the executor reads them."""

    __slots__ = ("_height", "_moment")

    def __init__(self, moment: Moment, height: int) -> None:
        self._moment = moment
        self._height = height

    def get(self, kh: bytes) -> Row | None:
        row = self._moment.row(self._height, kh)
        if row is not None and is_bare(row.value):
            raise NotKept("the private part of a proposal is not kept here any more")
        return row


class Retracing:
    """Judges decisions of the certified past again.

    Args:
        ledger: of the node; only its rules are shared.
        chronicle: decisions and payloads; read in the main thread.
        past: rows as they were; read in worker threads.
        history_root: the root over so many statements; called in the main thread.
    """

    def __init__(
        self,
        ledger: Ledger,
        chronicle: Chronicle,
        past: Past,
        history_root: Callable[[int], bytes],
    ) -> None:
        self._ledger = ledger
        self._chronicle = chronicle
        self._past = past
        self._history_root = history_root
        self._limiter = trio.CapacityLimiter(TOGETHER_MAX)

    async def prepare(self, height: int, index: int, opened: Sequence[str] = ()) -> Prepared:
        """Return everything that a bundle of a certified decision shows, but for what is newest.

        Raises:
            NotKept: batches or private parts of its block are not kept.
            Pruned: the rows before the block are not.
        """
        block, found = self._chronicle.block(height), self._chronicle.ordered(height)
        payload = self._chronicle.payload(height)
        if block is None or found is None or payload is None:
            raise NotKept(f"the block of height {height} is not kept here")
        decision = decisions.decode(block.decisions[index])
        origin = self._origin(decision.header.txid, height)
        ledger = self._ledger.apart()

        def history_root(size: int) -> bytes:
            return trio.from_thread.run_sync(self._history_root, size)

        context = BlockContext(found[0].epoch, height, found[0].time_ms, history=history_root)

        def work() -> Prepared:
            transactions = _transactions(self._ledger.chain, payload)
            transaction, group = _find(self._ledger.chain, origin, decision.header.txid)
            decided = Decided(decision, block.roots, transactions, transaction, group)
            with self._past.moment() as moment:
                moment.check(height - 1)
                return prepare(ledger, _Source(moment, height - 1), context, decided, opened)

        return await trio.to_thread.run_sync(work, limiter=self._limiter)

    def _origin(self, txid: bytes, height: int) -> Parts:
        """Return the payload in which a transaction came: a proposal came before its effect."""
        place = self._chronicle.find(txid)
        payload = self._chronicle.payload(height if place is None else place.height)
        if payload is None:
            raise NotKept("the block that the transaction came in is not kept here")
        return payload


def _transactions(chain: bytes, payload: Parts) -> list[Transaction]:
    out: list[Transaction] = []
    for public, private in payload:
        if private is None:
            raise NotKept("private parts of the block are not kept here any more")
        out += formats.decode_trusted(public, private, chain=chain).transactions
        if len(out) > TRANSACTIONS_MAX:
            raise NotKept(f"the block has more than {TRANSACTIONS_MAX} transactions")
    return out


def _find(chain: bytes, payload: Parts, txid: bytes) -> tuple[Transaction, Group | None]:
    """Return a transaction with its private part, and the group it was signed in."""
    for public, private in payload:
        if private is None:
            continue
        privates = iter(codec.parse(private, "private"))
        _, rows = codec.parse(public, "batch")
        for row in rows:
            envelopes = [row] if len(row) == 2 else row[4]
            ids = [transaction_id(chain, body) for body, _ in envelopes]
            opened = [next(privates) for _ in envelopes]
            if txid not in ids:
                continue
            made = tuple(
                decode_trusted(body, signatures, openings, seed, id_)
                for (body, signatures), (openings, seed), id_ in zip(
                    envelopes, opened, ids, strict=True
                )
            )
            found = made[ids.index(txid)]
            if len(row) == 2:
                return found, None
            signers = tuple((key, signature) for key, signature in row[0])
            return found, Group(signers, row[1], row[2], tuple(row[3]), made, b"")
    raise NotKept("private parts of the transaction are not kept here any more")
