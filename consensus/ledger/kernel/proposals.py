"""Approving, objecting to and withdrawing stored proposals.

Whoever may fill a part of what a proposal needs may approve it, and may object to it unless the
action says who else may (``objections``): one objection ends it. Its author takes it back, or an
office of the author's agency (a principal of kind system). Objecting and withdrawing only stop, so
they are protective acts and come before an approval of the same block. ``approve`` takes ordinary
proposals and ``approve_protective`` those stored as protective: the lane of an act must not depend
on the state.

**Renewed.** Time alone may complete what a proposal needs: a notice ends, a condition of its policy
is met. Nothing runs by itself then, and everybody may have approved already. So who approved, or
proposed, may approve once more as soon as no approval is missing: that adds no vote, it has the
proposal judged. Before, it is ``TWICE``.

Not here: what approvals a call needs (``policies``), and what the last one brings about
(``proposing``).
"""

from __future__ import annotations

from typing import Final

from consensus.codec import Value
from consensus.genesis import SYSTEM
from consensus.ledger import proposals
from consensus.ledger.codes import Code, Refused
from consensus.ledger.kernel.plan import Acting, Plan, bad, found, successor_of
from consensus.ledger.layout import COMPROMISED, Agency, Key, Principal
from consensus.ledger.persons import one_person
from consensus.ledger.proposals import APPROVALS_MAX, OBJECTED, OPEN, WITHDRAWN, Proposal
from consensus.ledger.share import listed_most

REASON_BYTES_MAX: Final = 1024


def approve(acting: Acting) -> Plan:
    """Approve an ordinary proposal."""
    return _approve(acting, protective=False)


def approve_protective(acting: Acting) -> Plan:
    """Approve a protective proposal."""
    return _approve(acting, protective=True)


def _approve(acting: Acting, *, protective: bool) -> Plan:
    proposal = _proposal_of(acting)
    if proposal.protective is not protective:
        word = "approve_protective" if proposal.protective else "approve"
        raise bad("proposal", f"it takes {word}")
    view, standing, proposing = acting.view, acting.standing, acting.proposing
    principal = standing.principal
    given: list[Value] | None = None
    kept = []
    for approval in proposal.approvals:
        if approval[1] != principal.id:
            kept.append(approval)
            continue
        key: Key = found(acting, "key", [approval[0]], "proposal")
        if key.status != COMPROMISED:  # else it no longer counts, and this one takes its place
            given = approval
    failed = _over(acting, proposal)
    lacking: list[Value] = []
    own = proposal.principal == principal.id
    if failed is None:
        _share(acting, proposal)
        earlier = own if given is None else given[4] != acting.txid
        if not (earlier and proposing.is_complete(proposal)):
            if given is not None:
                failed = "TWICE", "this person has approved it already"
            else:
                lacking = proposing.lacking_of(proposal, standing, False)
        if len(kept) >= APPROVALS_MAX:
            raise Refused(Code.LIMIT, "approvals")
    row: list[Value] = [standing.key, principal.id, standing.agency.name, acting.now_ms]
    approved = proposal._replace(approvals=[*kept, [*row, acting.txid]])

    def write() -> None:
        if not own:  # an author's word is not an approval
            proposals.put(view, proposing.desk, approved)
        proposing.desk.approve(proposal.txid)
        proposing.desk.name(proposal.txid)

    return Plan(write, failed=failed, lacking=lacking)


def object_(acting: Acting) -> Plan:
    """End a proposal to which one may object, and say why."""
    proposal = _proposal_of(acting)
    reason = acting.inputs["reason"]
    if not 0 < len(reason.encode()) <= REASON_BYTES_MAX:
        raise bad("reason", f"1 to {REASON_BYTES_MAX} bytes")
    failed = _over(acting, proposal)
    lacking: list[Value] = []
    if failed is None:
        _share(acting, proposal)
        lacking = acting.proposing.lacking_of(proposal, acting.standing, True)
    return _ending(acting, proposal, OBJECTED, reason, failed, lacking)


def withdraw(acting: Acting) -> Plan:
    """Take back a proposal of one's own, or of somebody of the agency whose office one is."""
    proposal = _proposal_of(acting)
    author: Principal = found(acting, "principal", [proposal.principal], "proposal")
    mine = one_person(author, acting.standing.principal)
    if not mine and acting.standing.principal.kind == SYSTEM:
        agency: Agency = found(acting, "agency", [author.agency], "proposal")
        mine = successor_of(acting, agency).name == acting.standing.agency.name
    lacking: list[Value] = [] if mine else [["not the author"]]
    return _ending(acting, proposal, WITHDRAWN, None, _over(acting, proposal), lacking)


def _ending(
    acting: Acting,
    proposal: Proposal,
    state: int,
    why: Value,
    failed: tuple[str, str] | None,
    lacking: list[Value],
) -> Plan:
    standing, desk = acting.standing, acting.proposing.desk
    by: list[Value] = [standing.key, standing.principal.id, standing.agency.name]
    ended = proposal._replace(state=state, end=[acting.now_ms, by, acting.txid, why])

    def write() -> None:
        proposals.put(acting.view, desk, ended)
        desk.name(proposal.txid)

    return Plan(write, failed=failed, lacking=lacking)


def _proposal_of(acting: Acting) -> Proposal:
    txid = acting.inputs["proposal"]
    proposal = proposals.find(acting.view, txid)
    if proposal is None:
        raise Refused(Code.NOT_FOUND, ["proposal", [proposals.SPACE, [txid]]])
    return proposal


def _share(acting: Acting, proposal: Proposal) -> None:
    """Take a proposal from what the transaction may look at.

    Raises:
        Refused: LIMIT.
    """
    view, sink = acting.view, acting.sink
    draft_bytes = len(proposals.draft_bytes_of(view, proposal.txid))
    lists = listed_most(view.book, proposal.calls)
    acting.proposing.desk.share.take(len(proposal.calls), draft_bytes, lists, sink.listed)
    sink.listed += lists


def _over(acting: Acting, proposal: Proposal) -> tuple[str, str] | None:
    """Return the requirement that acts on a proposal fail once it has ended."""
    word = proposal.word(acting.now_ms)
    if word == proposals.STATES[OPEN]:
        return None
    return word.upper(), _ENDS[word]


_ENDS: Final = {
    "executed": "the proposal has taken effect",
    "stale": "the proposal failed when its approvals were complete; it can be drafted again",
    "withdrawn": "the proposal was withdrawn",
    "objected": "somebody objected to the proposal",
    "expired": "the time of the proposal is over; it can be drafted again",
}
