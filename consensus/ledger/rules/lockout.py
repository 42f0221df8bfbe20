"""Charters under which nobody could ever change a charter again.

The charter is changed by its own acts. One that has lost them, or lets nobody use them, is for
ever: so it does not come into force. What can be said from its text is said here.

Not here: whether those who activate it have the roles it asks for (``kernel.rulesets``).
"""

from __future__ import annotations

from typing import Final

from consensus.ledger.model import Action, EvaluationError, Expression, Leaf, Policy, RuleSet

NEEDED: Final = ("propose_rules", "activate_rules", "object_rules", "give_role")
"""Acts without which a charter cannot be changed, or nobody can be made able to."""


def locked_out(charter: RuleSet) -> str:
    """Return why nobody could change this charter again; empty if somebody could."""
    for name in NEEDED:
        action = charter.actions.get(name)
        if action is None:
            return f"it has no {name}"
        why = _nobody(action)
        if why:
            return f"nobody could {name}: {why}"
    return ""


def _nobody(action: Action) -> str:
    actor = action.actor
    if not actor.role:
        return "it asks for no role"
    if actor.where is not None and _never(actor.where):
        return "its where is never true"
    for each in action.require:
        if _never(each.that):
            return f"its requirement {each.code} is never met"
    if action.approvals is not None and not _possible(action.approvals):
        return "its approvals are never complete"
    return ""


def _possible(policy: Policy) -> bool:
    """Return whether people can be found for a policy, as far as its text says."""
    if isinstance(policy, Leaf):
        return policy.where is None or not _never(policy.where)
    asked = [each for each in policy.among if each.when is None or not _never(each.when)]
    able = sum(1 for each in asked if _possible(each))
    return able >= (policy.needed or len(asked))


def _never(condition: Expression) -> bool:
    """Return whether a condition that reads nothing is not true."""
    if condition.reads:
        return False
    try:
        return condition.evaluate({}) is not True
    except EvaluationError:
        return True
