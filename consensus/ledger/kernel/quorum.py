"""The floor, applied: what takes a quorum of the agencies that hold validators.

Counted are the author and those whose approval still counts, once an agency, in roles that the act
asks for: of who acts, or of a leaf of its policy. Citizens speak for no agency. So the charter says
who speaks for an agency, and cannot lower how many agencies it takes.

Not here: what the floor is (``floor``), and approvals by policies (``policies``).
"""

from __future__ import annotations

from collections.abc import Sequence

from consensus.errors import present
from consensus.genesis import CITIZEN
from consensus.ledger.authority import Power, Standing
from consensus.ledger.codes import Code, Refused
from consensus.ledger.floor import Floor
from consensus.ledger.governing import Governing
from consensus.ledger.kernel.plan import Acting
from consensus.ledger.model import Action, Leaf
from consensus.ledger.policies import why_lost


def governing_of(acting: Acting) -> Governing:
    """Return what the network asks of acts under the floor."""
    return present(acting.view.governing, "a block of no network")


def floor_now(acting: Acting) -> Floor:
    """Return the floor, by the committee in force; records the read."""
    return governing_of(acting).floor(acting.view)


def check_quorum(acting: Acting, action: Action) -> None:
    """Refuse unless a quorum of agencies with a validator wants it, in roles ``action`` names.

    Raises:
        Refused: NEEDS_APPROVAL, with how many are missing.
    """
    floor, roles = floor_now(acting), roles_of(action)
    count = floor.count(
        each.agency
        for each in people_of(acting)
        if each.principal.kind != CITIZEN and has_role(acting, each, roles)
    )
    if count < floor.quorum:
        raise Refused(Code.NEEDS_APPROVAL, [["agencies", floor.quorum - count]])


def people_of(acting: Acting) -> list[Standing]:
    """Return the author, and the approvers whose approval still counts."""
    return [acting.standing, *(each for each in acting.approvers if why_lost(each) is None)]


def roles_of(action: Action) -> list[str]:
    """Return the roles whose holders have a say in an act: who acts, and who approves."""
    found = dict.fromkeys([action.actor.role] if action.actor.role else [])
    below = [] if action.approvals is None else [action.approvals]
    while below:
        policy = below.pop()
        if isinstance(policy, Leaf):
            if policy.role:
                found[policy.role] = None
        else:
            below += policy.among
    return sorted(found)


def power_of(acting: Acting, standing: Standing, role: str) -> Power:
    """Return what somebody has from a role now."""
    return Power(acting.view, standing, role, acting.now_ms)


def has_role(acting: Acting, standing: Standing, roles: Sequence[str]) -> bool:
    """Return whether somebody has one of the roles now."""
    return any(not power_of(acting, standing, role).missing for role in roles)
