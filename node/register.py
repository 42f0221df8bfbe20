"""The node's own register of proposals: which are open for which action, and whose they are.

    01 ‖ domain.action ‖ 00 ‖ expires 8 ‖ txid      an open proposal, under each of its actions
    02 ‖ agency ‖ 00 ‖ state 1 ‖ proposed 8 ‖ txid  every proposal, under its author's agency
    03 ‖ txid                                       height 8 ‖ index 4 of its second decision
    04 ‖ expires 8 ‖ txid                           every proposal whose draft has its private part

These are keys of the store's index; no key of a record begins like them. What heights change that
are certified and not yet flushed lies in memory above it, so a page is as of the newest certified
height. Those that expired are passed over by where a page begins, not gone through.

Not here: what a proposal lacks (the ledger), and who is told of it (``node.api``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from consensus.ledger.proposals import OPEN, Proposal
from node.storage.tables import INDEX_BYTES, height_key, height_of

if TYPE_CHECKING:
    from node.storage.store import Store, View

Change = tuple[Proposal | None, Proposal]
"""A proposal as it was before a block (None: new), and after it."""

_BY_ACTION: Final = b"\x01"
_BY_AGENCY: Final = b"\x02"
_EFFECT: Final = b"\x03"
_BY_END: Final = b"\x04"
_PRESENT: Final = b"\x01"
_TXID_BYTES: Final = 32
_SCAN: Final = 256
"""Rows of the store read at once."""


class Register:
    """What the store's index and the heights above it say of proposals."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._heights: dict[int, Sequence[Change]] = {}
        self._above: dict[bytes, bool] = {}
        """Keys that heights above the store added (True) or removed."""

    def certified(self, height: int, changes: Sequence[Change]) -> None:
        """Take what a certified height changed."""
        if changes:
            self._heights[height] = changes
            self._above.update(_keys(changes))

    def entries(self, upto: int) -> list[tuple[bytes, bytes | None]]:
        """Return what the heights up to ``upto`` change in the store's index."""
        keys: dict[bytes, bool] = {}
        for height in sorted(self._heights):
            if height <= upto:
                keys.update(_keys(self._heights[height]))
        return [(key, _PRESENT if there else None) for key, there in keys.items()]

    def flushed(self, upto: int) -> None:
        """Forget what the store now has."""
        if self._heights:
            self._heights = {h: each for h, each in self._heights.items() if h > upto}
            self._above = {}
            for height in sorted(self._heights):
                self._above.update(_keys(self._heights[height]))

    def effect(self, txid: bytes) -> tuple[int, int] | None:
        """Return height and index of a second decision that the store has."""
        key = _EFFECT + txid
        for found, value in self._store.view.records(key, count_max=1):
            if found == key:
                return height_of(value), int.from_bytes(value[8:], "big")
        return None

    def open_for(self, action: str, now_ms: int, after: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``(cursor, txid)`` of open proposals of an action; those that end first come first.

        Args:
            action: ``domain.action``.
            now_ms: chain time; what has expired is left out.
            after: the cursor of an earlier page to go on after; empty: from the beginning.
        """
        prefix = self.cursor_of(action)
        start = prefix + height_key(now_ms)
        yield from self._page(prefix, max(start, after if after.startswith(prefix) else b""), after)

    def cursor_of(self, action: str) -> bytes:
        """Return what the cursors of an action begin with."""
        return _BY_ACTION + action.encode() + b"\x00"

    def of_agency(self, agency: str, state: int, after: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield ``(cursor, txid)`` of an agency's proposals in a state, the oldest first."""
        prefix = _BY_AGENCY + agency.encode() + b"\x00" + bytes([state])
        yield from self._page(prefix, max(prefix, after), after)

    def _page(self, prefix: bytes, start: bytes, after: bytes) -> Iterator[tuple[bytes, bytes]]:
        above = sorted(
            key
            for key, there in self._above.items()
            if there and key.startswith(prefix) and key >= start and key != after
        )
        at = 0
        for key in self._stored(prefix, start, after):
            while at < len(above) and above[at] < key:
                yield above[at], above[at][-_TXID_BYTES:]
                at += 1
            if self._above.get(key, True) and not (at < len(above) and above[at] == key):
                yield key, key[-_TXID_BYTES:]
        for key in above[at:]:
            yield key, key[-_TXID_BYTES:]

    def _stored(self, prefix: bytes, start: bytes, after: bytes) -> Iterator[bytes]:
        while True:
            rows = self._store.view.records(prefix, after=start, count_max=_SCAN)
            yield from (key for key, _ in rows if key != after)
            if len(rows) < _SCAN:
                return
            start = rows[-1][0]


def over(view: View, before_ms: int, count_max: int) -> list[tuple[bytes, bytes]]:
    """Return ``(key, txid)`` of proposals that are still listed by their end, the oldest first.

    Args:
        before_ms: their time was over before then.
        count_max: how many at most.
    """
    high = _BY_END + height_key(before_ms)
    rows = view.records(_BY_END, count_max=count_max)
    return [(key, key[-_TXID_BYTES:]) for key, _ in rows if key < high]


def effect_entry(txid: bytes, height: int, index: int) -> tuple[bytes, bytes]:
    """Return the entry of the store's index that says where a second decision is."""
    return _EFFECT + txid, height_key(height) + index.to_bytes(INDEX_BYTES, "big")


def entries_of(proposal: Proposal) -> list[tuple[bytes, bytes]]:
    """Return the entries of the store's index under which a proposal stands as it is."""
    return [(key, _PRESENT) for key in _keys_of(proposal)]


def _keys(changes: Sequence[Change]) -> dict[bytes, bool]:
    """Return the keys that changes add (True) and remove."""
    keys: dict[bytes, bool] = {}
    for before, after in changes:
        if before is not None:
            keys.update(dict.fromkeys(_keys_of(before), False))
        keys.update(dict.fromkeys(_keys_of(after), True))
    return keys


def _keys_of(proposal: Proposal) -> list[bytes]:
    agency = _BY_AGENCY + proposal.agency.encode() + b"\x00" + bytes([proposal.state])
    expires = height_key(proposal.expires_ms) + proposal.txid
    keys = [agency + height_key(proposal.proposed_ms) + proposal.txid, _BY_END + expires]
    if proposal.state == OPEN:
        end = b"\x00" + expires
        names = dict.fromkeys(f"{domain}.{action}" for domain, action, _ in proposal.calls)
        keys += [_BY_ACTION + name.encode() + end for name in names]
    return keys
