"""What the ledger promises of power, holds, approvals and proposals, written down a second time.

Plain dictionaries and loops, from the documentation: of ``consensus`` only the codes are used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from consensus.ledger.codes import Code

FLOOR = -50
NEEDED = 2
"""Approvals of payments.officer that a large transfer needs, of different people."""
AGENCY = {
    "clerk": "treasury",
    "admin": "treasury",
    "officer": "treasury",
    "auditor": "audit",
    "registrar": "registry",
}
ROLE = {
    "clerk": "payments.clerk", "admin": "payments.clerk", "officer": "payments.officer",
    "auditor": "payments.officer", "registrar": "payments.officer",
}  # fmt: skip


@dataclass
class Held:
    """A hold on a purse against payments."""

    purse: str
    released: bool = False


@dataclass
class Proposed:
    """A large transfer that waits for approvals."""

    author: str
    source: str
    target: str
    amount: int
    approvals: list[str] = field(default_factory=list)
    state: str = "open"


@dataclass
class Model:
    """The ledger as its documentation has it."""

    balances: dict[str, int]
    suspended: set[str] = field(default_factory=set)
    """Principals."""
    suspended_agencies: set[str] = field(default_factory=set)
    without_role: set[str] = field(default_factory=set)
    compromised: set[str] = field(default_factory=set)
    holds: list[Held] = field(default_factory=list)
    proposals: list[Proposed] = field(default_factory=list)

    # --- power

    def fault(self, who: str) -> Code | None:
        """Why nothing that somebody signs counts."""
        if who in self.compromised:
            return Code.KEY_INACTIVE
        if who in self.suspended or AGENCY[who] in self.suspended_agencies:
            return Code.SUSPENDED
        return None

    def approves(self, who: str, author: str) -> bool:
        """Whether somebody's approval counts now."""
        if who == author or self.fault(who) is not None or who in self.without_role:
            return False
        return ROLE[who] == "payments.officer"

    # --- acts; each returns the code of its outcome

    def transfer(
        self, author: str, source: str, target: str, amount: int, approvers: Sequence[str] | None
    ) -> Code:
        """A transfer; ``approvers`` of a large one, None for one that needs none."""
        for who in (author, *(approvers or ())):
            fault = self.fault(who)
            if fault is not None:
                return fault
        judged = self._judge(author, source, target, amount, approvers)
        if judged == Code.APPLIED:
            self.balances[source] -= amount
            self.balances[target] += amount
        return judged

    def _judge(
        self, author: str, source: str, target: str, amount: int, approvers: Sequence[str] | None
    ) -> Code:
        if author in self.without_role or ROLE[author] != "payments.clerk":
            return Code.NOT_AUTHORIZED
        if any(hold.purse in (source, target) and not hold.released for hold in self.holds):
            return Code.HELD
        if amount < 0:
            return Code.REQUIREMENT
        if approvers is not None:
            able = [who for who in dict.fromkeys(approvers) if self.approves(who, author)]
            if len(able) < NEEDED:
                return Code.NEEDS_APPROVAL
        if self.balances[source] - amount < FLOOR:
            return Code.INSUFFICIENT
        return Code.APPLIED

    def propose(self, author: str, source: str, target: str, amount: int) -> Code:
        """Store a large transfer."""
        fault = self.fault(author)
        if fault is not None:
            return fault
        if author in self.without_role or ROLE[author] != "payments.clerk":
            return Code.NOT_AUTHORIZED
        self.proposals.append(Proposed(author, source, target, amount))
        return Code.PROPOSED

    def approve(self, who: str, number: int) -> tuple[Code, Code | None]:
        """Approve; the second code is that of the proposal's own decision, if there is one."""
        fault = self.fault(who)
        if fault is not None:
            return fault, None
        proposal = self.proposals[number]
        if proposal.state != "open" or who in proposal.approvals:
            return Code.REQUIREMENT, None
        if not self.approves(who, proposal.author):
            return Code.NOT_AUTHORIZED, None
        proposal.approvals.append(who)
        able = [each for each in proposal.approvals if self.approves(each, proposal.author)]
        if len(able) < NEEDED:
            return Code.APPLIED, None
        fault = self.fault(proposal.author)
        effect = fault or self._judge(
            proposal.author, proposal.source, proposal.target, proposal.amount, able
        )
        proposal.state = "executed" if effect == Code.APPLIED else "stale"
        if effect == Code.APPLIED:
            self.balances[proposal.source] -= proposal.amount
            self.balances[proposal.target] += proposal.amount
        return Code.APPLIED, effect

    def end(self, who: str, number: int, state: str) -> Code:
        """Object to a proposal, or withdraw it."""
        fault = self.fault(who)
        if fault is not None:
            return fault
        proposal = self.proposals[number]
        if state == "withdrawn":
            office = who == "clerk" and AGENCY[proposal.author] == AGENCY[who]  # the one system
            if who != proposal.author and not office:
                return Code.NOT_AUTHORIZED
        if proposal.state != "open":
            return Code.REQUIREMENT
        if state == "objected" and not self.approves(who, proposal.author):
            return Code.NOT_AUTHORIZED
        proposal.state = state
        return Code.APPLIED

    def freeze(self, who: str, purse: str) -> Code:
        """Hold a purse against payments."""
        fault = self.fault(who)
        if fault is not None:
            return fault
        if who in self.without_role or ROLE[who] != "payments.officer":
            return Code.NOT_AUTHORIZED
        self.holds.append(Held(purse))
        return Code.APPLIED

    def thaw(self, who: str, number: int) -> Code:
        """Release a hold."""
        fault = self.fault(who)
        if fault is not None:
            return fault
        if who in self.without_role or ROLE[who] != "payments.officer":
            return Code.NOT_AUTHORIZED
        hold = self.holds[number]
        if hold.released:
            return Code.REQUIREMENT
        hold.released = True
        return Code.APPLIED

    def change(self, members: set[str], who: str, *, to: bool) -> Code:
        """Suspend, revoke or compromise (True), or undo it (False)."""
        if (who in members) == to:
            return Code.REQUIREMENT
        (members.add if to else members.discard)(who)
        return Code.APPLIED
