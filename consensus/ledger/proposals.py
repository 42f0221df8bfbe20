"""Stored proposals: transactions that wait for approvals, and everything that became of them.

    proposal  [txid]           [txid, author key, principal, agency, protective, proposed_ms,
                                expires_ms, state, [[domain, action, action_id], ...],
                                [[key, principal, agency, time_ms, txid], ...], end | null]
    proposal  [txid, "draft"]  txid; beside it [body, [opening, ...], seed], later perhaps [body]

    open ── approve (policy complete) ──> executed | stale
      ├──── withdraw ──> withdrawn        expired: open, and its time is over; derived when read
      └──── object ────> objected

``end`` is ``[time_ms, [key, principal, agency], txid, why]``: who brought the end about with which
transaction, and why: words, or for a stale one ``[code, call, detail]`` of its second decision.
Nothing is deleted. An approval names the transaction that gave it; a cosigner's is the proposal.
One that is renewed (``kernel.proposals``) takes the last place, and is no second one.

The draft is written once and never again, so approvals cost the same for a long one. Once its time
is over nobody judges it any more, and a node may drop its private part: nothing certified changes.

Not here: who may do what with a proposal (``kernel.proposals``), and its judgement (``proposing``).
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from consensus import codec
from consensus.codec import Value
from consensus.errors import invariant
from consensus.hashing import ZERO
from consensus.ledger.attached import ATTACHED, ATTACHMENT_AT, cut_attached, join_attached
from consensus.ledger.authority import Standing
from consensus.ledger.share import Share
from consensus.ledger.transaction import Transaction, decode_trusted
from consensus.ledger.view import CHARTER, Source, View
from consensus.state.record import decode_single

SPACE: Final = "proposal"
DRAFT: Final = "draft"
"""Second component of where the draft of a proposal lies."""
APPROVALS_MAX: Final = 64
"""Approvals of one proposal: as many as a decision can name."""

OPEN: Final = 0
EXECUTED: Final = 1
STALE: Final = 2
WITHDRAWN: Final = 3
OBJECTED: Final = 4
STATES: Final = ("open", "executed", "stale", "withdrawn", "objected")
"""Words for the states, by number."""
EXPIRED: Final = "expired"
"""The word for a proposal that is open and whose time is over."""

_BODY_ALONE: Final = b"\x81"
"""How an array of one item begins."""
_ATTACHED: Final = bytes([ATTACHED])

OWN_ACTS: Final = frozenset({"approve", "approve_protective", "object", "withdraw"})
"""Acts of the charter that nobody proposes: they are one's own word on a proposal."""


class Proposal(NamedTuple):
    """A stored proposal. ``agency`` is that of its author when it was proposed."""

    txid: bytes
    author: bytes
    principal: bytes
    agency: str
    protective: bool
    proposed_ms: int
    expires_ms: int
    """Chain time after which nothing can be done with it: its ``not_after``."""
    state: int
    calls: list[list[Value]]
    approvals: list[list[Value]]
    end: list[Value] | None = None

    def word(self, now_ms: int) -> str:
        """Return the word for its state at ``now_ms``."""
        if self.state == OPEN and now_ms > self.expires_ms:
            return EXPIRED
        return STATES[self.state]


class Desk:
    """What the transactions of a block did to proposals.

    ``used`` says that the transaction at hand acts on proposals: ``approved`` are those to be
    judged after it, ``named`` those that its decision links to, ``share`` bounds what its acts look
    at. ``touched`` are all that any transaction of the block wanted to write.
    """

    __slots__ = ("approved", "named", "share", "touched", "used")

    def __init__(self) -> None:
        self.share = Share()
        self.used = False
        self.approved: list[bytes] = []
        self.named: list[bytes] = []
        self.touched: dict[bytes, None] = {}

    def name(self, txid: bytes) -> None:
        """Have the decision at hand link to a proposal."""
        self.named.append(txid)
        self.used = True

    def approve(self, txid: bytes) -> None:
        """Have a proposal judged after the transaction at hand."""
        self.approved.append(txid)
        self.used = True

    def clear(self) -> None:
        """Forget what the transaction at hand did."""
        self.used = False
        self.approved = []
        self.named = []
        self.share = Share()


class Judgement(Protocol):
    """How the proposals of a block are judged, as acts on them need it (``proposing``)."""

    @property
    def desk(self) -> Desk:
        """Where the acts leave word."""
        ...

    def lacking_of(self, proposal: Proposal, who: Standing, objects: bool) -> list[Value]:
        """Return what somebody lacks to approve some call of a proposal, or to object to it.

        As NOT_AUTHORIZED names it; empty if nothing is lacking.
        """
        ...

    def is_complete(self, proposal: Proposal) -> bool:
        """Return whether a proposal lacks no approval now, so that it may be judged."""
        ...


def find(view: View, txid: bytes) -> Proposal | None:
    """Return a proposal as the transaction sees it, or None; records the read."""
    found = view.single(SPACE, [txid])
    return None if found is None else Proposal(*found.value)


def put(view: View, desk: Desk, proposal: Proposal) -> None:
    """Write a proposal."""
    view.put(SPACE, [proposal.txid], proposal, CHARTER)
    desk.touched[proposal.txid] = None


def put_draft(view: View, transaction: Transaction) -> None:
    """Write the draft of a proposal."""
    value = [transaction.body, list(transaction.openings), transaction.seed]
    place = [transaction.txid, DRAFT]
    view.put(SPACE, place, transaction.txid, CHARTER, attachment=codec.encode(value))


def draft_of(view: View, txid: bytes) -> Transaction:
    """Return the transaction that a proposal stores; records the read."""
    return decode_draft(txid, draft_bytes_of(view, txid))


def draft_bytes_of(view: View, txid: bytes) -> bytes:
    """Return what lies beside the draft of a proposal; records the read."""
    return view.attachment(SPACE, [txid, DRAFT])


def changes(view: View, source: Source, desk: Desk) -> tuple[tuple[Proposal | None, Proposal], ...]:
    """Return the proposals that a block changed, each as it was (None: new) and as it is."""
    found = []
    for txid in desk.touched:
        after = find(view, txid)
        row = source.get(view.paths(SPACE, [txid]))
        before = None
        if row is not None and row.vh != ZERO:
            before = Proposal(*codec.parse(decode_single(row.value)[2], SPACE))
        if after is not None and after != before:
            found.append((before, after))
    return tuple(found)


def decode_draft(txid: bytes, attachment: bytes) -> Transaction:
    """Return the transaction in what this node stored beside a draft."""
    invariant(has_private(attachment), "the private part of a draft is gone")
    body, openings, seed = codec.parse(attachment, "draft")
    return decode_trusted(body, (), openings, seed, txid)


def has_private(attachment: bytes) -> bool:
    """Return whether what lies beside a draft still has its openings and seed."""
    return attachment[:1] != _BODY_ALONE


def is_bare(row: bytes) -> bool:
    """Return whether a row is that of a draft without its private part."""
    return row[:1] == _ATTACHED and not has_private(row[ATTACHMENT_AT:])


def ended_ms(row: bytes) -> int:
    """Return the chain time after which nobody judges the draft in a row of our own."""
    body = codec.parse(cut_attached(row)[1], "draft")[0]
    return int(codec.parse(body, "body")[3])


def bared(row: bytes) -> bytes:
    """Return the row of a draft without its private part; the leaf stays what it is."""
    single, attachment = cut_attached(row)
    return join_attached(single, codec.encode(codec.parse(attachment, "draft")[:1]))
