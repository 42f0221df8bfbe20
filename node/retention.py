"""Private parts of old transactions go: their inputs, reasons and seeds, from store and log.

Everything else stays and goes on being proved: bodies, signatures, decisions, records, and the
leaves that commit to what went. Whoever lacks private parts cannot execute those blocks again:
below the horizon a node begins with a snapshot, an audit ends, and no new bundle can be made.

A step takes so many heights at most, in the flush that is under way anyway. The log is turned once
a day, so that no segment keeps what the store has dropped.

The draft of a proposal lies in the state, where it is needed until its time is over, however long
ago it was proposed. Its private part goes with those of the heights at which its time was over: by
what the draft itself says (``not_after``), so whoever gets such a row can tell that it is right.

Not here: what is in a private part (``consensus.ledger.private``), and the tables (``storage``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consensus.hotstuff.types import Block
from consensus.ledger.layout import Paths
from consensus.ledger.proposals import DRAFT, SPACE, bared, is_bare
from consensus.state.state import Row
from node import register

if TYPE_CHECKING:
    from node.storage.store import View

HEIGHTS_MAX: Final = 256
"""Heights of one step."""
DRAFTS_MAX: Final = 256
"""Drafts of one step."""
DRAFT_BYTES_MAX: Final = 4 * 2**20
"""After so many bytes of drafts a step ends."""
DAY_MS: Final = 86_400_000
META_PRIVATE: Final = b"private from"
"""The first height whose private parts are kept, 8 bytes."""


@dataclass(frozen=True, slots=True)
class Bared:
    """Drafts whose private parts go: their rows without, and what is no longer listed."""

    rows: Sequence[tuple[bytes, Row]] = ()
    unlisted: Sequence[tuple[bytes, bytes | None]] = ()


class Retention:
    """What a node still keeps of the private parts of transactions.

    Args:
        period_ms: for how long; 0: for good.
        first: the first height whose private parts are kept, of ``META_PRIVATE``; None: all are.
        block: returns a certified block that is kept.
    """

    def __init__(
        self, period_ms: int, first: bytes | None, block: Callable[[int], Block | None]
    ) -> None:
        self._period_ms = period_ms
        self._block = block
        self.first = 1 if first is None else int.from_bytes(first, "big")
        """The first height whose private parts are kept."""
        self._turned_ms = -DAY_MS
        self._over = (0, 0)
        """A first height, and chain time at the one before it."""

    def step(self, height: int, time_ms: int) -> tuple[int, list[bytes]]:
        """Return up to which height, exclusive, private parts go now, and of which batches.

        Args:
            height: of the store after the flush; what is above is not touched.
            time_ms: chain time.
        """
        first, digests = self.first, list[bytes]()
        if not self._period_ms:
            return first, digests
        while first <= height and first < self.first + HEIGHTS_MAX:
            block = self._block(first)
            if block is not None:  # below a snapshot there is none
                if block.time_ms + self._period_ms >= time_ms:
                    break
                digests += [item.digest for item in block.payload]
            first += 1
        return first, digests

    def drafts(self, view: View, paths: Paths, first: int) -> Bared:
        """Return which drafts lose their private parts, where those of heights below ``first`` go.

        Args:
            view: of the store before the flush.
        """
        before_ms = self._over_ms(first) if self._period_ms else 0
        rows: list[tuple[bytes, Row]] = []
        unlisted: list[tuple[bytes, bytes | None]] = []
        size = 0
        for key, txid in register.over(view, before_ms, DRAFTS_MAX) if before_ms else ():
            kh = paths(SPACE, [txid, DRAFT])
            row = view.get(kh)
            unlisted.append((key, None))
            if row is not None and not is_bare(row.value):
                rows.append((kh, row._replace(value=bared(row.value))))
                size += len(row.value)
                if size >= DRAFT_BYTES_MAX:
                    break
        return Bared(rows, unlisted)

    def _over_ms(self, first: int) -> int:
        if self._over[0] != first:
            block = self._block(first - 1)
            self._over = (first, 0 if block is None else block.time_ms)
        return self._over[1]

    def done(self, first: int) -> None:
        """Note that what ``step`` said has been written."""
        self.first = first

    def turns_log(self, time_ms: int) -> bool:
        """Return whether the log is to be turned, however short it is; then not for a day."""
        if not self._period_ms or time_ms - self._turned_ms < min(DAY_MS, self._period_ms):
            return False
        self._turned_ms = time_ms
        return True


def meta(first: int) -> Sequence[tuple[bytes, bytes]]:
    """Return what the store notes of the horizon."""
    return [(META_PRIVATE, first.to_bytes(8, "big"))]
