"""What certified heights mean for coordination, by domain: refusals, holds, proposals.

A domain becomes a label as the rule sets name it, for the first DOMAINS_MAX of them; what came to
no rule set, as a transaction of an unknown key, is of domain NO_DOMAIN, and the rest OTHER. Neither
can be the name of a domain.

Holds and proposals are counted where the node begins, from its store, and from then on by what each
height changes. Those that were laid down before are counted in a worker thread, piece by piece, on
one pinned height; what heights above it change meanwhile waits, and is then added.

Not here: what a refusal or hold is about; no value of a record ever becomes a label.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import trio

from consensus import codec
from consensus.hashing import ZERO
from consensus.ledger.codes import Code
from consensus.ledger.decision import Decision
from consensus.ledger.layout import RELEASED, Hold, Paths, encode_text
from consensus.ledger.proposals import EXPIRED, OPEN, STATES, Proposal
from consensus.state.record import SINGLE_VALUE_AT, decode_single, is_single_row
from node.storage.versions import row_of

if TYPE_CHECKING:
    import lmdb

    from consensus.ledger.model import Rulebook
    from consensus.state.state import Row
    from node.chronicle import Height
    from node.register import Change, Register
    from node.storage.store import Store
    from node.storage.tables import Tables
    from node.telemetry.metrics import Metrics

DOMAINS_MAX: Final = 64
"""Domains that become labels of their own: as many as there can be at one time."""
NO_DOMAIN: Final = "(none)"
OTHER: Final = "(other)"
PROPOSALS_MAX: Final = 65_536
"""Waiting proposals that are told apart; further ones are not counted."""
PIECE: Final = 256
"""Holds of the store that are read between two turns of the event loop."""

_HOLD_HEAD: Final = bytes([0x80 + len(Hold._fields)])
"""First byte of a hold's value, in the row of a single leaf."""
_NEW: Final = (1).to_bytes(8, "big")
_MINUTE_MS: Final = 60_000
_HOLDS: Final = encode_text("hold")

Lasting = tuple[str, float]
"""Domain of a hold, and the minute of chain time in which it lapses by itself."""


class Coordination:
    """Counts for one node; see the module.

    Args:
        store: at the height from which ``certified`` goes on.
        paths: of the network.
    """

    def __init__(self, metrics: Metrics, store: Store, paths: Paths) -> None:
        self._metrics = metrics
        self._store = store
        self._paths = paths
        self._domains: set[str] = set()
        self._holds: Counter[Lasting] = Counter()
        self._later: list[tuple[int, Lasting, int]] | None = []
        """What heights changed while the store is counted; None once it is."""
        self._waiting: dict[bytes, tuple[str, int, int]] = {}
        """Open proposals: domain, when proposed, until when; milliseconds of chain time."""

    # --- the beginning ------------------------------------------------------------------------

    def begin(self, register: Register, book: Rulebook, now_ms: int) -> None:
        """Name the domains of the rules in force, and take the proposals that wait in the store.

        Cost: about 10 µs an action in force, 30 µs a proposal.
        """
        for rules in book.rule_sets.values():
            self._name(rules.domain)
            for action in rules.actions:
                for _, txid in register.open_for(f"{rules.domain}.{action}", now_ms, b""):
                    if len(self._waiting) >= PROPOSALS_MAX:
                        return
                    self._take(txid)

    def _take(self, txid: bytes) -> None:
        row = self._store.view.get(self._paths("proposal", [txid]))
        if row is not None and row.vh != ZERO:
            self._propose(Proposal(*codec.parse(decode_single(row.value)[2], "proposal")))

    async def count_holds(self) -> None:
        """Count the holds in the store, without holding up the event loop."""
        while self._later is not None:
            # Pinned and noted without a checkpoint between: nothing is flushed meanwhile.
            pinned, height = self._store.pin(), self._store.height
            try:
                found = await self._count(pinned.read)
            finally:
                pinned.close()
            if found is not None:  # else the store grew and closed it: once more
                self._holds = found
                for number, lasting, change in self._later:
                    if number > height:
                        self._holds[lasting] += change
                self._later = None

    async def _count(self, read: Callable[[_Piece], list[Hold] | None]) -> Counter[Lasting] | None:
        total: Counter[Lasting] = Counter()
        piece: _Piece | None = _Piece(_HOLDS)
        while piece is not None:
            holds = await trio.to_thread.run_sync(read, piece)
            if holds is None:
                return None
            total.update(each for each in map(_lasting, holds) if each is not None)
            piece = piece.next() if len(holds) == PIECE else None
        return total

    # --- heights ------------------------------------------------------------------------------

    def certified(self, height: Height) -> None:
        """Take what a certified height decided and wrote.

        Cost: about 0.05 µs a row that it wrote, 2 µs a hold or proposal among them.
        """
        for (domain, code), count in height.refusals.items():
            name = self._name(domain)
            self._metrics.refusals.labels(domain=name, code=Code(code).name).inc(count)
        for before, after in self._changed_holds(height):
            self._hold(height.block.height, before, after)
        for change in height.proposals:
            self._proposal(change, height.block.time_ms)

    def _changed_holds(self, height: Height) -> Iterator[tuple[Hold | None, Hold]]:
        for (kh, row), before in zip(height.rows.items(), height.before, strict=True):
            value = row.value
            if not value.startswith(_HOLD_HEAD, SINGLE_VALUE_AT) or not is_single_row(value):
                continue
            after = self._hold_of(kh, row)
            if after is None:
                continue
            if value.startswith(_NEW):
                yield None, after
                continue
            # What is not in memory has not changed since the last flush.
            replaced = self._store.view.get(kh) if before is None else before
            yield None if replaced is None else self._hold_of(kh, replaced), after

    def _hold_of(self, kh: bytes, row: Row) -> Hold | None:
        parts = codec.parse(decode_single(row.value)[2], "leaf")
        is_hold = type(parts[0]) is bytes and self._paths("hold", parts[:1]) == kh
        return Hold(*parts) if is_hold else None

    def _hold(self, height: int, before: Hold | None, after: Hold) -> None:
        name = self._name(after.domain)
        if before is None:
            self._metrics.holds_changed.labels(domain=name, event="placed").inc()
        if after.state == RELEASED and (before is None or before.state != RELEASED):
            self._metrics.holds_changed.labels(domain=name, event="released").inc()
        for hold, change in ((before, -1), (after, 1)):
            lasting = None if hold is None else _lasting(hold)
            if lasting is None:
                continue
            if self._later is None:
                self._holds[lasting] += change
            else:
                self._later.append((height, lasting, change))

    def _proposal(self, change: Change, now_ms: int) -> None:
        before, after = change
        if after.state == OPEN:
            self._propose(after)
        elif before is None or before.state == OPEN:
            self._waiting.pop(after.txid, None)
            self._ended(_domain_of(after), STATES[after.state], now_ms - after.proposed_ms)

    def _propose(self, proposal: Proposal) -> None:
        if proposal.txid in self._waiting or len(self._waiting) < PROPOSALS_MAX:
            times = proposal.proposed_ms, proposal.expires_ms
            self._waiting[proposal.txid] = (_domain_of(proposal), *times)

    def _ended(self, domain: str, end: str, after_ms: int) -> None:
        seconds = self._metrics.proposal_seconds.labels(domain=self._name(domain), end=end)
        seconds.observe(after_ms / 1000)

    # --- what is shown ------------------------------------------------------------------------

    def refresh(self, now_ms: int) -> None:
        """Bring the gauges up to date, for a chain time. Cost: 0.2 µs a waiting proposal."""
        self._lapse(now_ms)
        counts: Counter[str] = Counter()
        oldest: dict[str, int] = {}
        for domain, proposed_ms, _ in self._waiting.values():
            name = self._name(domain)
            counts[name] += 1
            oldest[name] = min(proposed_ms, oldest.get(name, proposed_ms))
        holds: Counter[str] = Counter()
        for (domain, minute), count in self._holds.items():
            if minute * _MINUTE_MS > now_ms:
                holds[self._name(domain)] += count
        metrics = self._metrics
        for name in self._shown():
            metrics.proposals_waiting.labels(domain=name).set(counts[name])
            age_ms = now_ms - oldest.get(name, now_ms)
            metrics.proposal_oldest.labels(domain=name).set(max(0, age_ms) / 1000)
            if self._later is None:
                metrics.holds_in_force.labels(domain=name).set(holds[name])

    def _lapse(self, now_ms: int) -> None:
        """End the proposals and holds whose time is over."""
        over = [txid for txid, (_, _, until) in self._waiting.items() if until < now_ms]
        for txid in over:
            domain, proposed_ms, until_ms = self._waiting.pop(txid)
            self._ended(domain, EXPIRED, until_ms - proposed_ms)
        if self._later is None:
            self._holds = Counter(
                {
                    lasting: count
                    for lasting, count in self._holds.items()
                    if count and lasting[1] * _MINUTE_MS > now_ms
                }
            )

    def _shown(self) -> Sequence[str]:
        return [*self._domains, OTHER] if len(self._domains) == DOMAINS_MAX else [*self._domains]

    def _name(self, domain: str) -> str:
        """Return the label for a domain."""
        if domain in self._domains or domain == NO_DOMAIN:
            return domain
        if len(self._domains) == DOMAINS_MAX:
            return OTHER
        self._domains.add(domain)
        return domain


def refusals(decisions: Sequence[Decision], codes: Mapping[bytes, int]) -> Counter[tuple[str, int]]:
    """Return how many decisions were refused, by the domain of the call that failed, and code.

    Args:
        codes: encoded leaves ``code`` of them all.

    Cost: nothing while none is refused, else about 3 µs a refusal.
    """
    found: Counter[tuple[str, int]] = Counter()
    refused = {leaf for leaf in codes if leaf[1] > Code.PROPOSED}
    if refused:
        for decision in decisions:
            if decision.leaves["code"] in refused:
                code, call, *_ = codec.parse(decision.leaves["code"], "code")
                actions = decision.header.actions
                at = len(actions) - 1 if call is None else call
                domain = actions[at].domain if 0 <= at < len(actions) else NO_DOMAIN
                found[domain, code] += 1
    return found


class _Piece:
    """Reads so many holds of a pinned store, after those of an earlier piece."""

    def __init__(self, after: bytes) -> None:
        self._after = after
        self._last = after

    def __call__(self, txn: lmdb.Transaction[bytes], opened: Tables) -> list[Hold]:
        found: list[Hold] = []
        with txn.cursor(opened.index) as cursor:
            more = cursor.set_range(self._after)
            while more and len(found) < PIECE and cursor.key().startswith(_HOLDS):
                self._last, kh = cursor.item()
                value = txn.get(kh, db=opened.state)
                if self._last != self._after and value is not None:
                    row = row_of(value)
                    found.append(Hold(*codec.parse(decode_single(row.value)[2], "hold")))
                more = cursor.next()
        return found

    def next(self) -> _Piece:
        """Return the piece after this one, which was read."""
        return _Piece(self._last)


def _lasting(hold: Hold) -> Lasting | None:
    if hold.state == RELEASED:
        return None
    return hold.domain, math.inf if hold.until_ms is None else hold.until_ms / _MINUTE_MS


def _domain_of(proposal: Proposal) -> str:
    return str(proposal.calls[0][0]) if proposal.calls else NO_DOMAIN
