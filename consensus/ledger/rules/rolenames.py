"""Names of roles that look misspelt: nothing declares a role, so a slip would name one of its own.

Not here: who has a role (the charter's acts), or whether an approval can be had (``unreachable``).
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Final

from consensus.ledger.model import Action, Leaf, Policy, RuleSet

ALIKE_PERCENT: Final = 92
"""How much of two names is the same where one is likely a slip for the other."""


def roles_of(action: Action) -> Iterator[str]:
    """Yield the role of each place that asks for one: acting, approving, objecting, reviewing,
    taking back and consenting to that."""
    if action.actor.role:
        yield action.actor.role
    for policy in (action.approvals, action.objections):
        yield from roles_in(policy)
    if action.review is not None:
        yield action.review.role
    if action.reversible is not None:
        yield action.reversible.role
        if action.reversible.approvals is not None:
            yield from roles_in(action.reversible.approvals.policy)


def roles_in(policy: Policy | None) -> Iterator[str]:
    """Yield the roles that the leaves of a policy ask for."""
    if isinstance(policy, Leaf):
        yield from (policy.role,) if policy.role else ()
    elif policy is not None:
        for each in policy.among:
            yield from roles_in(each)


def doubtful(rules: RuleSet) -> list[tuple[str, str, str]]:
    """Return (action, role, role that it is like) of each role that one action alone asks for.

    The other one is asked for more often, or first where both are asked for once.
    """
    where: dict[str, list[str]] = {}
    for action in rules.actions.values():
        for role in dict.fromkeys(roles_of(action)):
            where.setdefault(role, []).append(action.name)
    names = list(where)
    found = []
    for at, role in enumerate(names):
        if len(where[role]) > 1:
            continue
        for before, other in enumerate(names):
            likely = len(where[other]) > 1 or before < at
            if other != role and likely and _alike(role, other):
                found.append((where[role][0], role, other))
                break
    return found


def _alike(one: str, other: str) -> bool:
    matched = sum(block.size for block in SequenceMatcher(None, one, other).get_matching_blocks())
    return 200 * matched >= ALIKE_PERCENT * (len(one) + len(other))
