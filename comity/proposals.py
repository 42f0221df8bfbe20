"""Proposals as clients use them: to propose, to find, to approve, to wait, to draft again.

A proposal's leaf is proved like any other. Its draft needs no further proof: the txid is its hash.
What one node says would become of it (``Proposed.refusal``, ``lacking``) and the pages of a node's
own index are not proved; whatever a page names is.

Not here: how a proposal is judged (``consensus.ledger.proposing``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from comity.acting import Acts
from comity.drafting import Call, find_action
from comity.errors import AbsentError, DraftError
from comity.results import Decision, Entry
from comity.session import Statements, statement_of
from comity.verify import Trust
from comity.words import word
from consensus import answers, codec, reads
from consensus.codec import Value
from consensus.errors import ProofError
from consensus.hotstuff.types import Statement
from consensus.ledger import proposals
from consensus.ledger.codes import Code
from consensus.ledger.private import check_openings, salted_root, slot
from consensus.ledger.transaction import Expect, Transaction, Unsigned, decode_body
from consensus.protocol import GetEffect, GetProposal, GetProposals, StateKey

PAGE_MAX: Final = 64
"""Most proposals of one page."""
LOOK_SECONDS: Final = 0.1
LOOK_SECONDS_MAX: Final = 2.0
"""How often a proposal is looked at while its end is awaited: ever more slowly."""


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval that a proposal has; ``txid`` is that of the act, or the proposal's own."""

    key: bytes
    principal: bytes
    agency: str
    time_ms: int
    txid: bytes


@dataclass(frozen=True, slots=True)
class End:
    """How a proposal ended: who brought it about with which transaction, and why.

    ``why`` are words of an objection, or ``(code, call, detail)`` of what made it stale.
    """

    time_ms: int
    principal: bytes | None
    agency: str | None
    txid: bytes
    why: str | tuple[str, int | None, Value] | None


@dataclass(frozen=True, slots=True)
class Proposed:
    """A stored proposal as of a certified height.

    Args:
        txid: of the proposal.
        height, time_ms: of the certified state that shows it.
        state: ``open``, ``executed``, ``stale``, ``withdrawn``, ``objected`` or ``expired``.
        author: the key that signed; ``principal`` and ``agency`` whose it was then.
        expires_ms: chain time after which nothing can be done with it.
        calls: (domain, action, action id) of each.
        draft: what it would do; None where this key may not read it, and where the node does not
            keep it any more, some time after the proposal could last take effect.
        refusal: code and detail of what would refuse it now, as one node says; None: nothing.
        lacking: what the holder of this key lacks to approve it, as one node says; empty: nothing.
    """

    txid: bytes
    height: int
    time_ms: int
    state: str
    author: bytes
    principal: bytes
    agency: str
    protective: bool
    proposed_ms: int
    expires_ms: int
    calls: tuple[tuple[str, str, bytes], ...]
    approvals: tuple[Approval, ...]
    end: End | None
    draft: Transaction | None = field(default=None, repr=False)
    refusal: tuple[str, Value] | None = None
    lacking: tuple[Value, ...] | None = None


@dataclass(frozen=True, slots=True)
class ProposedPage:
    """Proposals that one node's index names, each proved; ``next`` asks for what follows."""

    proposals: tuple[Proposed, ...]
    next: bytes | None


@dataclass(frozen=True, slots=True)
class Moved:
    """A record that a proposal relied on, and the version that it has now."""

    kind: str
    id: tuple[Value, ...]
    before: int
    now: int


@dataclass(frozen=True, slots=True)
class Redraft:
    """A proposal drafted again on what is now, not yet signed, and which records have moved."""

    was: Proposed
    unsigned: Unsigned
    calls: tuple[Call, ...]
    reads: tuple[Entry, ...]
    moved: tuple[Moved, ...]


class ProposalActs(Acts):
    """What a client does with proposals; a part of ``Client``."""

    if TYPE_CHECKING:
        trust: Trust

        async def get_many(self, keys: Sequence[StateKey]) -> tuple[Entry, ...]: ...

    async def propose(
        self,
        *calls: Call,
        reads: Sequence[Entry] = (),
        under: Sequence[bytes] = (),
        reason: str = "",
        not_after_ms: int | None = None,
    ) -> Decision:
        """Draft, sign and submit a proposal; return its decision: ``proposed``, or refused.

        Args:
            not_after_ms: chain time until which it waits; None: as long as the charter allows.

        Raises:
            DraftError, KeyUnusableError: as ``draft``.
            RequestError, UndecidedError: as ``submit``.
        """
        unsigned = await self.draft(
            *calls,
            reads=reads,
            under=under,
            reason=reason,
            not_after_ms=not_after_ms,
            propose=True,
        )
        return await self.submit(self.sign(unsigned))

    async def approve(self, txid: bytes, *, reason: str = "") -> Decision:
        """Approve a proposal; return the decision on the approval.

        What it brought about, if it was the last one missing, is ``effect``.

        Raises:
            AbsentError: there is no such proposal.
        """
        found = await self.proposal(txid)
        name = "approve_protective" if found.protective else "approve"
        return await self._act(name, {"proposal": txid}, reason)

    async def object_to(self, txid: bytes, why: str) -> Decision:
        """End a proposal that one could approve; ``why`` is kept with it."""
        return await self._act("object", {"proposal": txid, "reason": why}, "")

    async def withdraw(self, txid: bytes, *, reason: str = "") -> Decision:
        """Take back a proposal of one's own, or of the agency whose office one is."""
        return await self._act("withdraw", {"proposal": txid}, reason)

    async def _act(self, name: str, inputs: dict[str, Value], reason: str) -> Decision:
        return await self.transact(Call("charter", name, inputs), reason=reason)

    async def proposal(self, txid: bytes) -> Proposed:
        """Return a proposal with its proof checked, its draft, and what one node says of it.

        Raises:
            AbsentError: there is no such proposal.
        """
        height_min = self.trust.height

        def read(result: Value, statements: Statements) -> Proposed | None:
            found = reads.read_proposal(result)
            self.trust.fresh(found.rows.height, height_min)
            statement = statement_of(statements, found.rows.height)
            return verified(self.trust, found, statement, txid)

        proposed = await self._network.ask(GetProposal(height_min, txid), read)
        if proposed is None:
            raise _unknown(txid)
        return proposed

    async def pending(self, *, after: bytes | None = None, limit: int = PAGE_MAX) -> ProposedPage:
        """Return open proposals that the holder of this key could approve and has not.

        From one node's index: each is proved, but not that none is left out. By action; of each
        those first that expire first. A page may be short and have a ``next``.
        """
        return await self._page(GetProposals(None, 0, after, limit))

    async def proposals(
        self,
        agency: str,
        state: str = "open",
        *,
        after: bytes | None = None,
        limit: int = PAGE_MAX,
    ) -> ProposedPage:
        """Return proposals of an agency's people in a state, the oldest first, like ``pending``.

        Args:
            state: a word of ``Proposed.state``; ``expired`` ones are among the open.

        Raises:
            DraftError: there is no such state.
            AbsentError: there is no such agency.
        """
        if state not in proposals.STATES:
            raise DraftError(f"{state!r} is no state", hint=f"one of {', '.join(proposals.STATES)}")
        asked = GetProposals(agency, proposals.STATES.index(state), after, limit)
        page = await self._page(asked)
        if not page.proposals:
            (entry,) = await self.get_many([StateKey("agency", (agency,))])
            if not entry.present:
                seated = ", ".join(each.agency for each in self.trust.committee.validators)
                raise AbsentError(
                    f"the network has no agency {agency!r}",
                    hint=f"agencies with a validator are {seated}; `comity get agency/NAME` "
                    "looks for others",
                )
        return page

    async def _page(self, request: GetProposals) -> ProposedPage:
        page = await self._network.ask(request, lambda result, _: reads.read_proposals(result))
        if not page.txids:
            return ProposedPage((), page.next)
        keys = [StateKey(proposals.SPACE, (txid,)) for txid in page.txids]
        entries = await self.get_many(keys)
        return ProposedPage(tuple(_proposed(each) for each in entries if each.present), page.next)

    async def effect(self, txid: bytes) -> Decision:
        """Return the second decision of a proposal: what came of it.

        Raises:
            RequestError: NOT_FOUND: it has none: it waits yet, or ended otherwise.
        """

        def read(result: Value, statements: Statements) -> Decision:
            found = answers.read_decision(result)
            statement = statement_of(statements, found.height)
            decision = self.trust.decision(found, statement, txid)
            if decision.state == "proposed":
                raise ProofError("the first decision of a proposal is shown as its second")
            return decision

        return await self._network.ask(GetEffect(txid), read)

    async def settled(self, txid: bytes) -> Proposed:
        """Wait until a proposal has ended and return it. Bound it with ``trio.move_on_after``.

        Raises:
            AbsentError: there is no such proposal.
        """
        pause = LOOK_SECONDS
        while True:
            (entry,) = await self.get_many([StateKey(proposals.SPACE, (txid,))])
            if not entry.present:
                raise _unknown(txid)
            if _proposed(entry).state != "open":
                return await self.proposal(txid)
            await trio.sleep(pause)
            pause = min(pause * 1.5, LOOK_SECONDS_MAX)

    async def redraft(self, txid: bytes, *, reason: str | None = None) -> Redraft:
        """Draft a proposal again: the same calls and inputs, on what is now. Nothing is sent.

        Look at what has moved, then submit ``sign(found.unsigned)``. It is a new proposal: no
        approval carries over.

        Args:
            reason: instead of the earlier one.

        Raises:
            AbsentError: there is no such proposal.
            DraftError: it may not be read, or the rules do not know its calls now.
        """
        was = await self.proposal(txid)
        if was.draft is None:
            raise DraftError(
                "what the proposal would do is not shown",
                hint="its author and who could approve it may read it, while nodes keep it",
            )
        book = (await self.rules(refresh=True)).book
        calls: list[Call] = []
        found: list[Entry] = []
        for index, call in enumerate(was.draft.calls):
            action = find_action(book, call.domain, call.action)
            values, _ = was.draft.inputs(index)
            names = [each.name for each in action.inputs]
            if len(names) != len(values):
                raise DraftError(f"{call.domain}.{call.action} has other inputs now")
            calls.append(Call(call.domain, call.action, dict(zip(names, values, strict=True))))
            for entry in await self.read_for(calls[-1]):
                if all(entry.key != each.key for each in found):
                    found.append(entry)
        context = was.draft.context
        unsigned = await self.draft(
            *calls,
            reads=found,
            under=context.under,
            reason=was.draft.reason if reason is None else reason,
            propose=True,
        )
        return Redraft(was, unsigned, tuple(calls), tuple(found), _moved(context.expects, found))


def _unknown(txid: bytes) -> AbsentError:
    return AbsentError(
        f"there is no proposal {word(txid)}",
        hint="`comity decision TXID` says whether it was refused when it was proposed",
    )


def _moved(before: Sequence[Expect], now: Sequence[Entry]) -> tuple[Moved, ...]:
    """Return the records whose version is another than the one a proposal named."""
    rows = [(each.expect, each) for each in now]
    out = []
    for was in before:
        for expect, entry in rows:
            same = expect.kind == was.kind and codec.encode(expect.id) == codec.encode(was.id)
            if same and entry.version != was.version:
                out.append(Moved(was.kind, tuple(was.id), was.version, entry.version))
    return tuple(out)


def verified(
    trust: Trust, found: reads.Proposal, statement: Statement, txid: bytes
) -> Proposed | None:
    """Return the proposal that an answer proves; None where its absence is proved.

    Raises:
        DecodeError: malformed.
        ProofError: not what the state holds, or a draft of something else.
    """
    (entry,) = trust.rows(found.rows, statement, [StateKey(proposals.SPACE, (txid,))])
    if not entry.present:
        return None
    draft = None if found.draft is None else _draft(trust.chain, found.draft, txid)
    outlook = found.outlook
    refusal = None
    if outlook is not None and outlook.refusal is not None:
        number, detail = outlook.refusal
        refusal = (_code(number), detail)
    return _proposed(entry, draft, refusal, None if outlook is None else outlook.lacking)


def _draft(chain: bytes, text: reads.DraftText, txid: bytes) -> Transaction:
    draft = decode_body(chain, text.body)
    if draft.txid != txid:
        raise ProofError("the draft is of another proposal")
    calls = len(draft.calls)
    kh = slot(chain, draft.author, draft.sequence)
    root = salted_root(kh, calls, text.openings, text.seed_hash, text.salts)
    if root != draft.private_root:
        raise ProofError("what the proposal would do is not what its author signed")
    check_openings(calls, text.openings)
    return draft.opened(text.openings, b"")


def _proposed(
    entry: Entry,
    draft: Transaction | None = None,
    refusal: tuple[str, Value] | None = None,
    lacking: tuple[Value, ...] | None = None,
) -> Proposed:
    found = proposals.Proposal(*entry.value)
    end = None
    if found.end is not None:
        time_ms, by, txid, why = found.end
        if isinstance(why, list):
            why = (_code(why[0]), why[1], why[2])
        _, principal, agency = by or (None, None, None)
        end = End(time_ms, principal, agency, txid, why)
    return Proposed(
        found.txid,
        entry.height,
        entry.time_ms,
        found.word(entry.time_ms),
        found.author,
        found.principal,
        found.agency,
        found.protective,
        found.proposed_ms,
        found.expires_ms,
        tuple((domain, action, action_id) for domain, action, action_id in found.calls),
        tuple(Approval(*row) for row in found.approvals),
        end,
        draft,
        refusal,
        lacking,
    )


def _code(number: int) -> str:
    return Code(number).name if number in {int(code) for code in Code} else f"CODE_{number}"
