"""Quiet refusals: what an action of that kind says of itself when it is refused after authority.

Whoever is refused then learns from a usual decision what stood in the way, a hold of an inquiry
among it. The outcome of a ``quiet`` action is marked in the decision, so whoever shows it knows
without the rules of that day: a node opens such leaves only to those who may read what the
judgement rests on. The chain holds and certifies the reason all the same.

Not here: to whom it is shown (``node.api.showing``).
"""

from __future__ import annotations

from consensus.codec import Value
from consensus.ledger.codes import Code, Refused
from consensus.ledger.effects import Active


def is_quiet(refused: Refused, active: Active | None) -> bool:
    """Return whether a refusal of a call is to look like any other."""
    return active is not None and active.action.quiet and refused.code > Code.NOT_AUTHORIZED


def outcome(refused: Refused, call: int | None, active: Active | None) -> list[Value]:
    """Return the value of the code leaf of a refusal: ``[code, call, detail]``, and true if quiet.

    Args:
        call: that was refused; None for the transaction as a whole.
        active: its action, None where there is none.
    """
    found: list[Value] = [int(refused.code), call, refused.detail]
    return [*found, True] if is_quiet(refused, active) else found
