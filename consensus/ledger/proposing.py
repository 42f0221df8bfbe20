"""How a proposal is judged: when it is stored, and when its approvals are complete.

**Stored.** Everything is checked that could never be right later: the transaction's own checks,
actions and parameters, inputs, loads, the author's power, expected versions, facts that records
rest on, slots, receipts. Left to the moment of effect is what may change by itself: holds,
requirements, amounts, full indexes, and approvals. Nothing of its calls is carried out.

**Effect.** After each approval the proposal is judged whole, like a transaction sent at that
moment, with the approvals of those who could give them now. While approvals are missing nothing
happens. Else a second decision under its txid follows at the next position: applied, or refused,
and then it is stale for good. Its author's key counts if it was not compromised: one that was
replaced or lost since stands for what it signed.

Cosigners of a proposal are its first approvals. One that lacks none takes effect at once. Nothing
is judged again by itself: what time completes waits for an approval, new or renewed.

Not here: who may approve (``kernel.proposals``), what approvals are needed (``policies``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from consensus.codec import Value
from consensus.ledger import proposals, share
from consensus.ledger.authority import Standing
from consensus.ledger.bench import Bench
from consensus.ledger.calls import Calls
from consensus.ledger.codes import Code, Refused
from consensus.ledger.expects import Expectations
from consensus.ledger.judged import Judged
from consensus.ledger.kernel.plan import duration_ms
from consensus.ledger.layout import ACTIVE
from consensus.ledger.leaves import leaves_of
from consensus.ledger.model import Action, Expression, Leaf, Policy
from consensus.ledger.persons import one_person
from consensus.ledger.proposals import EXECUTED, OPEN, OWN_ACTS, STALE, Desk, Proposal
from consensus.ledger.quiet import is_quiet, outcome
from consensus.ledger.transaction import PROTECTIVE, Call, Transaction
from consensus.ledger.versions import unknown_action
from consensus.ledger.view import CHARTER

PROPOSAL_HOURS: Final = "proposal_hours_max"
"""The charter's parameter: how long a proposal may wait."""
PROPOSAL_HOURS_DEFAULT: Final = 336

MAY_CHANGE: Final = frozenset(
    {Code.HELD, Code.REQUIREMENT, Code.NEEDS_APPROVAL, Code.INSUFFICIENT, Code.LIMIT}
)
"""Refusals that keep nobody from proposing: the reason may be gone at the moment of effect."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What a proposal came to, not yet committed; ``refused`` is why it is stale."""

    transaction: Transaction
    standing: Standing
    judged: Judged
    moves: dict[str, list[bytes]]
    refused: Refused | None
    approval: bytes
    """Txid of the act that completed its approvals."""


class Proposing:
    """The judgement of the proposals of one block.

    Args:
        bench: what the block's execution knows.
    """

    __slots__ = ("_bench", "_now_ms", "_view", "desk")

    def __init__(self, bench: Bench) -> None:
        self._view = bench.view
        self._now_ms = bench.now_ms
        self._bench = bench
        self.desk = Desk()

    # --- stored -------------------------------------------------------------------------------

    def latest_ms(self) -> int:
        """Return the latest time at which a proposal of now may end; records what it rests on."""
        view = self._view
        view.rules_of(CHARTER)
        hours_ms = duration_ms(view.book, self._now_ms, PROPOSAL_HOURS, PROPOSAL_HOURS_DEFAULT)
        return self._now_ms + hours_ms

    def store(
        self,
        transaction: Transaction,
        standing: Standing,
        cosigners: Sequence[Standing],
        judged: Judged,
    ) -> None:
        """Judge a transaction that is to wait as far as it can be judged now, and store it.

        Raises:
            Refused: it could never take effect.
        """
        view, desk, now_ms = self._view, self.desk, self._now_ms
        for call in transaction.calls:
            if call.domain == CHARTER and call.action in OWN_ACTS:
                raise Refused(Code.UNSUPPORTED, "proposal")
        waits = self._try(transaction, standing, judged)
        judged.call = None
        view.rollback()
        desk.clear()
        approvals: list[list[Value]] = []
        seen = [standing.principal.id]
        for each in cosigners:
            if each.principal.id not in seen:
                seen.append(each.principal.id)
                row: list[Value] = [each.key, each.principal.id, each.agency.name, now_ms]
                approvals.append([*row, transaction.txid])
        proposal = Proposal(
            transaction.txid,
            transaction.author,
            standing.principal.id,
            standing.agency.name,
            transaction.lane == PROTECTIVE,
            now_ms,
            transaction.not_after_ms,
            OPEN,
            [[call.domain, call.action, call.action_id] for call in transaction.calls],
            approvals,
        )
        proposals.put(view, desk, proposal)
        proposals.put_draft(view, transaction)
        if approvals or not waits:
            desk.approve(transaction.txid)

    def _try(self, transaction: Transaction, standing: Standing, judged: Judged) -> bool:
        """Judge the calls, apart from what may change; return whether any waits for approvals."""
        view, bench = self._view, self._bench
        expects = Expectations(view, transaction)
        calls = self._calls(transaction, standing, expects, None)
        try:
            bench.run(transaction, standing, judged, expects, calls)
        except Refused as refused:
            if refused.code not in MAY_CHANGE:
                raise
        waits = False
        for index, call in enumerate(transaction.calls):
            active = bench.action(call)
            if active is None:
                judged.call = index
                raise unknown_action(self._view, call.domain, call.action)
            waits = waits or _needs_somebody(active.action.approvals)
            if index >= len(judged.actions):
                judged.call = index
                calls.check_form(index, call, active)
                judged.actions.append(active.cbor)
            judged.call = index
            calls.check_delivery(index, active)
        return waits

    def _calls(
        self,
        transaction: Transaction,
        standing: Standing,
        expects: Expectations,
        approvers: Sequence[Standing] | None,
    ) -> Calls:
        return Calls(
            self._view,
            transaction,
            standing,
            self._now_ms,
            expects,
            approvers,
            self._bench.power,
            self,
            approvals_first=True,
        )

    # --- approved -----------------------------------------------------------------------------

    def lacking_of(self, proposal: Proposal, who: Standing, objects: bool) -> list[Value]:
        """Return what somebody lacks to approve some call of a proposal, or to object to it.

        As NOT_AUTHORIZED names it; empty if nothing is lacking. A proposal whose rules have moved
        can never take effect: any approval brings that out.
        """
        view, bench = self._view, self._bench
        transaction = proposals.draft_of(view, proposal.txid)
        author = bench.standing(transaction.author)
        if who.principal.id == author.principal.id:
            return [["author"]]  # where the author counts, it does so without approving
        expects = Expectations(view, transaction)
        others = [
            each
            for each in self._approvers(proposal)
            if not each.known or each.principal.id != who.principal.id
        ]
        calls = self._calls(transaction, author, expects, others)
        lacking: list[Value] = []
        for index, call in enumerate(transaction.calls):
            active = bench.action(call)
            links: list[Value] = [["not asked"]] if objects else []
            if active is not None:
                power = bench.power_for(author, active.action, expects.under)
                try:
                    links = calls.objection(index, call, active, power, who, objects=objects)
                except Refused as refused:
                    if objects or refused.code != Code.RULES_MOVED:
                        named = partial(calls.names, index, call, active, who)
                        links = self._lacking_role(active.action, author, who, objects, named)
            if not links:
                return []
            lacking += [link for link in links if link not in lacking]
        return lacking

    def is_complete(self, proposal: Proposal) -> bool:
        """Return whether no call lacks an approval now.

        Of a call that rests on what an earlier one makes that cannot be said.
        """
        transaction = proposals.draft_of(self._view, proposal.txid)
        author = self._bench.standing(transaction.author)
        expects = Expectations(self._view, transaction)
        calls = self._calls(transaction, author, expects, self._approvers(proposal))
        for index, call in enumerate(transaction.calls):
            active = self._bench.action(call)
            if active is None:
                return False
            power = self._bench.power_for(author, active.action, expects.under)
            try:
                calls.check_approvals(index, call, active, power)
            except Refused:
                return False
        return True

    def _lacking_role(
        self,
        action: Action,
        author: Standing,
        approver: Standing,
        objects: bool,
        named: Callable[[Expression], bool],
    ) -> list[Value]:
        """Judge by role, or by whom the inputs name, alone.

        What else the policy looks at is yet to be made by an earlier call.
        """
        policy = action.approvals
        if objects and action.objections is not None:
            policy = action.objections
        lacking: list[Value] = []
        for leaf in leaves_of(policy):
            if not leaf.author and one_person(author.principal, approver.principal):
                lacking.append(["author"])
                continue
            if leaf.self_path is not None and not named(leaf.self_path):
                lacking.append(["self"])
                continue
            power = self._bench.power(approver, leaf.role)
            if not power.missing:
                return []
            lacking += power.missing
        return lacking or [["not asked"]]

    def _approvers(self, proposal: Proposal) -> list[Standing]:
        return [self._bench.standing(key) for key, *_ in proposal.approvals]

    def settle(self, txid: bytes) -> Settled | None:
        """Judge a proposal that was approved and carry it out; None while approvals are missing.

        What it writes waits to be committed. The view has begun for it.
        """
        view = self._view
        proposal = proposals.find(view, txid)
        if proposal is None or proposal.state != OPEN:
            return None  # an earlier one of this block has ended it
        transaction = proposals.draft_of(view, txid)
        standing = self._bench.standing(transaction.author)
        approvers = self._approvers(proposal)
        expects = Expectations(view, transaction)
        calls = self._calls(transaction, standing, expects, approvers)
        judged = Judged()
        judged.cosigners = [each.cbor for each in approvers]
        judged.filled = calls.filled
        refused: Refused | None = None
        begun = False
        try:
            check_signed(standing)
            begun = True
            self._bench.run(transaction, standing, judged, expects, calls)
        except Refused as fault:
            view.rollback()
            self.desk.clear()
            if fault.code == Code.NEEDS_APPROVAL:
                return None
            after = 0 if not begun else len(judged.actions)
            if self._missing(transaction, standing, expects, calls, after) is not None:
                return None
            refused = fault.again()
        moves = {} if refused else calls.moves
        last = proposal.approvals[-1] if proposal.approvals else None
        approval = txid if last is None else last[4]
        why = None if refused is None else self._why(transaction, judged, refused)
        by = None if last is None else last[:3]
        ended = proposal._replace(
            state=STALE if refused else EXECUTED, end=[self._now_ms, by, approval, why]
        )
        proposals.put(view, self.desk, ended)
        return Settled(transaction, standing, judged, moves, refused, approval)

    def outlook(self, proposal: Proposal) -> Refused | None:
        """Return what would refuse a proposal now; None if it would take effect. Writes nothing.

        Approvals come first; NEEDS_APPROVAL has what is missing.
        """
        view = self._view
        view.begin()
        transaction = proposals.draft_of(view, proposal.txid)
        standing = self._bench.standing(transaction.author)
        expects = Expectations(view, transaction)
        calls = self._calls(transaction, standing, expects, self._approvers(proposal))
        try:
            missing = self._missing(transaction, standing, expects, calls, 0)
            if missing is not None:
                return missing
            check_signed(standing)
            self._bench.run(transaction, standing, Judged(), expects, calls)
        except Refused as refused:
            return refused.again()
        finally:
            view.rollback()
            self.desk.clear()
        return None

    def lacking(self, proposal: Proposal, approver: bytes) -> list[Value]:
        """Return what the holder of a key lacks to approve a proposal now; empty if nothing.

        A key out of force lacks itself, and so does a principal that has approved already, unless
        no approval is missing: then approving once more brings about the effect. Of a proposal that
        can take effect no more, because an action changed, nobody can approve anything, though an
        approval would bring that out.
        """
        self._view.begin()
        standing = self._bench.standing(approver)
        if standing.fault is not None:
            return [["key"]]
        mine = standing.principal.id
        given = any(row[1] == mine for row in proposal.approvals)
        renews = (given or mine == proposal.principal) and self.is_complete(proposal)
        if given and not renews:
            return [["twice"]]
        for domain, name, id_ in proposal.calls:
            action = self._view.book.action(domain, name)
            if action is None or (action.action_id != id_ and not action.protective):
                return [["moved", f"{domain}.{name}"]]
        return [] if renews else self.lacking_of(proposal, standing, False)

    def asked_of(self, approver: bytes) -> list[str]:
        """Return the actions, ``domain.action`` ascending, that ask for a role of theirs."""
        view, bench = self._view, self._bench
        view.begin()
        standing = bench.standing(approver)
        if standing.fault is not None:
            return []

        taken_back = [
            leaf.role
            for rule_set in view.book.rule_sets.values()
            for action in rule_set.actions.values()
            if action.reversible is not None and action.reversible.approvals is not None
            for leaf in leaves_of(action.reversible.approvals.policy)
        ]

        def asks(action: Action) -> bool:
            roles = [leaf.role for leaf in leaves_of(action.approvals)]
            if action.kernel and action.name == "reverse":  # whose policies lie in its evidence
                roles += dict.fromkeys(taken_back)
            return any(not bench.power(standing, role).missing for role in roles)

        return sorted(
            f"{action.domain}.{action.name}"
            for rule_set in view.book.rule_sets.values()
            for action in rule_set.actions.values()
            if asks(action)
        )

    def weight(self, proposal: Proposal) -> int:
        """Return how much work a proposal is to judge, in calls."""
        return share.weight(self._view.book, proposal.calls)

    def is_quiet(self, proposal: Proposal) -> bool:
        """Return whether an action in force that a proposal calls is quiet."""
        self._view.begin()
        protective = proposal.protective
        calls = [Call(domain, name, id_, protective) for domain, name, id_ in proposal.calls]
        found = [self._bench.action(call) for call in calls]
        return any(each is not None and each.action.quiet for each in found)

    def _why(
        self, transaction: Transaction, judged: Judged, refused: Refused
    ) -> list[Value] | None:
        """Return what the leaf of a proposal says of a refusal: nothing if it is quiet."""
        call = judged.call
        active = None if call is None else self._bench.action(transaction.calls[call])
        return None if is_quiet(refused, active) else outcome(refused, call, active)

    def _missing(
        self,
        transaction: Transaction,
        standing: Standing,
        expects: Expectations,
        calls: Calls,
        after: int,
    ) -> Refused | None:
        """Return what the first call from ``after`` on lacks of approvals, as far as can be said.

        None: nothing. On the present state, so that a call may rest on what an earlier one makes.
        """
        bench = self._bench
        for index in range(after, len(transaction.calls)):
            call = transaction.calls[index]
            active = bench.action(call)
            if active is None:
                continue
            power = bench.power_for(standing, active.action, expects.under)
            try:
                calls.check_approvals(index, call, active, power)
            except Refused as refused:
                if refused.code == Code.NEEDS_APPROVAL:
                    return refused.again()
        return None


def check_signed(standing: Standing) -> None:
    """Check that what a key signed before stands now.

    Raises:
        Refused: KEY_INACTIVE: others may have signed with it; SUSPENDED.
    """
    fault = standing.fault
    if fault is None:
        return
    if fault.code != Code.KEY_INACTIVE or fault.detail[1] == "compromised":
        raise fault.again()
    if standing.principal.status != ACTIVE:
        raise Refused(Code.SUSPENDED, ["principal", [standing.principal.id]])
    if standing.agency.status != ACTIVE:
        raise Refused(Code.SUSPENDED, ["agency", [standing.agency.name]])


def _needs_somebody(policy: Policy | None) -> bool:
    """Return whether a policy is never met by the author alone, whatever the conditions give."""
    if policy is None or policy.when is not None:
        return False
    if isinstance(policy, Leaf):
        return not policy.author
    able = sum(not _needs_somebody(each) for each in policy.among)
    return able < (policy.needed or len(policy.among))
