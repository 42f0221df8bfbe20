"""Which handler carries out which action of the catalogue, and what the floor asks of it.

The floor is judged with the approvals, so while it is not met a proposal waits: nothing else can
have made it stale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from consensus.ledger.kernel import (
    committee,
    disclosing,
    entering,
    erasing,
    executors,
    grants,
    measures,
    money,
    people,
    proposals,
    reversal,
    reviews,
    rulesets,
    succession,
)
from consensus.ledger.kernel.plan import Acting, Plan
from consensus.ledger.kernel.quorum import check_quorum
from consensus.ledger.model import Action, Policy

HANDLERS: Final[dict[str, Callable[[Acting], Plan]]] = {
    "add_agency": people.add_agency,
    "admit_agency": entering.admit_agency,
    "suspend_agency": people.suspend_agency,
    "reinstate_agency": people.reinstate_agency,
    "name_successor": succession.name_successor,
    "accept_succession": succession.accept_succession,
    "add_principal": people.add_principal,
    "suspend_principal": people.suspend_principal,
    "reinstate_principal": people.reinstate_principal,
    "add_key": people.add_key,
    "rotate_key": people.rotate_key,
    "replace_key": people.replace_key,
    "revoke_key": people.revoke_key,
    "give_role": people.give_role,
    "revoke_role": people.revoke_role,
    "give_grant": grants.give_grant,
    "pass_grant": grants.pass_grant,
    "revoke_grant": grants.revoke_grant,
    "propose_rules": rulesets.propose_rules,
    "activate_rules": rulesets.activate_rules,
    "activate_executor": executors.activate_executor,
    "change_committee": committee.change_committee,
    "object_committee": committee.object_committee,
    "object_rules": rulesets.object_rules,
    "withdraw_rules": rulesets.withdraw_rules,
    "approve": proposals.approve,
    "approve_protective": proposals.approve_protective,
    "object": proposals.object_,
    "withdraw": proposals.withdraw,
    "review": reviews.review,
    "open_account": measures.open_account,
    "issue_money": money.issue_money,
    "retire_money": money.retire_money,
    "place_hold": measures.place_hold,
    "confirm_hold": measures.confirm_hold,
    "withdraw_hold": measures.withdraw_hold,
    "release_hold": measures.release_hold,
    "reverse": reversal.reverse,
    "disclose": disclosing.disclose,
    "erase": erasing.erase,
}

FLOORS: Final[dict[str, Callable[[Acting, Action], None]]] = {
    "activate_rules": rulesets.check_floor,
    "activate_executor": check_quorum,
    "admit_agency": check_quorum,
    "change_committee": committee.check_floor,
    "issue_money": money.check_floor,
    "retire_money": money.check_floor,
}
"""What raises NEEDS_APPROVAL beyond an action's policy."""

POLICIES: Final[dict[str, Callable[[Acting], Sequence[Policy]]]] = {"reverse": reversal.policies}
"""What gives the policies of that upon which an action acts, judged after the action's own."""
