"""What a node says of proposals to those who ask: what waits for whom, and what would become of it.

Judged on the newest executed state as the ledger would judge it now, and taken back: a dry run.
None of it is proved. A page takes a bounded amount of work, however many proposals are open.

Not here: who may ask (``node.api``), and where proposals are found (``register``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.genesis import EPOCH
from consensus.hashing import ZERO
from consensus.ledger.attached import cut_attached
from consensus.ledger.dry import DryRun
from consensus.ledger.executor import BlockContext, BlockRun
from consensus.ledger.ledger import Ledger
from consensus.ledger.proposals import DRAFT, OPEN, SPACE, Proposal, decode_draft, is_bare
from consensus.ledger.proposing import Proposing
from consensus.ledger.transaction import Transaction
from consensus.ledger.view import Source
from consensus.reads import Outlook, ProposalPage
from consensus.state.record import decode_single
from node.register import Register

EXAMINED_MAX: Final = 64
"""Work for one page, in calls judged (``share.weight``): about as much as one transaction. One
proposal is always judged."""


class Asking:
    """Answers about proposals.

    Args:
        ledger: of its own, so that nothing judged here is kept for blocks.
        source: the newest executed state.
        register: where proposals are found.
        height: gives the newest certified height.
        now_ms: gives its time.
        epoch: of the blocks.
    """

    def __init__(
        self,
        ledger: Ledger,
        source: Callable[[], Source],
        register: Register,
        height: Callable[[], int],
        now_ms: Callable[[], int],
        history_root: Callable[[int], bytes] | None = None,
        epoch: int = EPOCH,
    ) -> None:
        self._epoch = epoch
        self._ledger = ledger
        self._source = source
        self._register = register
        self._height = height
        self._now_ms = now_ms
        self._history_root = history_root

    def proposal(self, txid: bytes) -> Proposal | None:
        """Return a proposal as the newest state has it."""
        row = self._source().get(self._ledger.paths(SPACE, [txid]))
        if row is None or row.vh == ZERO:
            return None
        return Proposal(*codec.parse(decode_single(row.value)[2], SPACE))

    def draft(self, proposal: Proposal) -> Transaction | None:
        """Return what a proposal would do; None where its private part is not kept any more."""
        row = self._source().get(self._ledger.paths(SPACE, [proposal.txid, DRAFT]))
        if row is None or is_bare(row.value):
            return None
        return decode_draft(proposal.txid, cut_attached(row.value)[1])

    def outlook(self, proposal: Proposal, key: bytes) -> Outlook | None:
        """Return what would become of a proposal now; None once it has ended.

        Args:
            key: of whoever asks what they lack to approve it.
        """
        if proposal.state != OPEN or self._now_ms() > proposal.expires_ms:
            return None
        run = self._dry_run()
        refused = run.outlook(proposal)
        refusal = None if refused is None else (int(refused.code), refused.detail)
        return Outlook(refusal, tuple(run.lacking(proposal, key)))

    def is_quiet(self, proposal: Proposal) -> bool:
        """Return whether an action of a proposal is quiet when it is refused."""
        return self._dry_run().is_quiet(proposal)

    def places(self, txid: bytes) -> list[tuple[str, list[Value]]]:
        """Return space and components of what a proposal's draft names and rests on now."""
        found = self.proposal(txid)
        draft = None if found is None else self.draft(found)
        if draft is None:
            return []
        return DryRun(self._ledger, self._source(), self._context(), draft).places

    def pending(self, key: bytes, after: bytes | None, limit: int) -> ProposalPage:
        """Return open proposals that the holder of a key could approve and has not.

        By action, and of each those first that expire first.
        """
        run, now_ms = self._dry_run(), self._now_ms()
        cursor = after or b""
        actions = run.asked_of(key)

        def found() -> Iterator[tuple[bytes, bytes]]:
            for action in actions:
                if self._register.cursor_of(action) + b"\xff" > cursor:
                    yield from self._register.open_for(action, now_ms, cursor)

        txids: dict[bytes, None] = {}
        examined = 0
        for place, txid in found():
            if len(txids) == limit or examined >= EXAMINED_MAX:
                return ProposalPage(self._height(), tuple(txids), cursor)
            proposal = self.proposal(txid)
            work = 1 if proposal is None else run.weight(proposal)
            if examined and examined + work > EXAMINED_MAX:
                return ProposalPage(self._height(), tuple(txids), cursor)
            examined += work
            cursor = place
            if proposal is None or proposal.state != OPEN:
                continue  # the newest state is ahead of what is certified
            if not run.lacking(proposal, key):
                txids[txid] = None
        return ProposalPage(self._height(), tuple(txids), None)

    def wait_for(self, txids: Sequence[Value], key: bytes) -> bool:
        """Return whether the holder of a key could approve all of these proposals now.

        Not if they are too much work for one page, unless it is one.
        """
        run = self._dry_run()
        examined = 0
        for txid in txids:
            proposal = self.proposal(txid) if type(txid) is bytes else None
            if proposal is None or proposal.state != OPEN or self._now_ms() > proposal.expires_ms:
                return False
            work = run.weight(proposal)
            if examined and examined + work > EXAMINED_MAX:
                return False
            examined += work
            if run.lacking(proposal, key):
                return False
        return True

    def of_agency(self, agency: str, state: int, after: bytes | None, limit: int) -> ProposalPage:
        """Return proposals of an agency's people in a state, the oldest first."""
        txids: list[bytes] = []
        cursor = after or b""
        for place, txid in self._register.of_agency(agency, state, cursor):
            if len(txids) == limit:
                return ProposalPage(self._height(), tuple(txids), cursor)
            cursor = place
            txids.append(txid)
        return ProposalPage(self._height(), tuple(txids), None)

    def _dry_run(self) -> Proposing:
        return BlockRun(self._ledger, self._source(), self._context(), ()).proposing

    def _context(self) -> BlockContext:
        height, now_ms = self._height() + 1, self._now_ms()
        return BlockContext(self._epoch, height, now_ms, history=self._history_root)
