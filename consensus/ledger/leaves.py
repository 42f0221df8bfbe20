"""The leaves of a policy, for whoever looks at a policy without judging it."""

from __future__ import annotations

from consensus.ledger.model import Leaf, Policy


def leaves_of(policy: Policy | None) -> list[Leaf]:
    """Return the leaves of a policy in the order they are written."""
    if policy is None:
        return []
    if isinstance(policy, Leaf):
        return [policy]
    return [leaf for each in policy.among for leaf in leaves_of(each)]
