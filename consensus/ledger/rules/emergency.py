"""The emergency form of an action: an action of its own, with less approval and a review after it.

    emergency = { approvals = "none", where = "who.scope.region == lic.region",
                  review = { role = "licensing.manager", within_days = 3 } }

``suspend`` with such a form gives ``suspend!emergency`` beside it: the same but for its approvals,
an actor's ``where`` that is narrower if ``emergency.where`` says so, and the review.

Not here: using it (``consensus.ledger.emergency``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from consensus.ledger.calendar import DAY_MS
from consensus.ledger.expr import SOURCE_CHARACTERS_MAX
from consensus.ledger.model import Action, Actor, Env, Expression, Policy, ReviewDue
from consensus.ledger.rules.definition import ActionDef, EmergencyDef, ReviewDef
from consensus.ledger.rules.policies import PolicyNode
from consensus.ledger.rules.schema import Attr, Integer, Place, Struct, Text
from consensus.ledger.rules.scope import ActionScope
from consensus.ledger.rules.values import check_role
from consensus.ledger.types import Type

FORM: Final = "!emergency"
"""What the name of an emergency form ends with."""
DAYS_MAX: Final = 366
NONE: Final = "none"


def _explicit(table: dict[str, Any], place: Place) -> dict[str, Any]:
    """Take ``approvals = "none"`` for a form without approvals; it must be said."""
    if "approvals" not in table:
        place.fault("an emergency form says who must approve", 'approvals = "none" for nobody')
    elif table["approvals"] == NONE:
        return {key: value for key, value in table.items() if key != "approvals"}
    return table


EMERGENCY: Final[Struct] = Struct(
    EmergencyDef,
    (
        Attr(
            "review",
            Struct(ReviewDef, (Attr("role", Text(200)), Attr("within_days", Integer(1, DAYS_MAX)))),
        ),
    ),
    more=(
        Attr("approvals", PolicyNode(), None),
        Attr("where", Text(4 * SOURCE_CHARACTERS_MAX), ""),
    ),
    prepare=_explicit,
)


def check_emergency(definition: ActionDef, emergency: EmergencyDef, place: Place) -> None:
    """Check the emergency form of an action; raise Skip after reporting a fault."""
    if definition.approvals is None:
        raise place.refuse(
            "an emergency form spares approvals, and the action asks for none",
            "leave out emergency, or say who approves in ordinary times",
        )
    if not definition.actor.role:
        raise place.refuse(
            "the power of an emergency form must be one that ends",
            "it needs an actor with a role; nobody loses what one may do as oneself",
        )
    check_role(emergency.review.role, place.of("review", "role"))


def narrowed(scope: ActionScope, actor: Actor, where: str, place: Place) -> Actor:
    """Return the actor of the emergency form: the same, where ``where`` holds too."""
    if not where:
        return actor
    more = scope.expression(where, place, Type("bool"))
    return replace(actor, where=more if actor.where is None else _both(actor.where, more))


def _both(one: Expression, other: Expression) -> Expression:
    def evaluate(env: Env) -> bool:
        return one.evaluate(env) is True and other.evaluate(env) is True

    return Expression(
        f"({one.source}) && ({other.source})",
        one.type,
        False,
        tuple(dict.fromkeys((*one.reads, *other.reads))),
        evaluate,
    )


def emergency_form(
    action: Action, emergency: EmergencyDef, actor: Actor, approvals: Policy | None, id_: bytes
) -> Action:
    """Return the emergency form of a compiled action.

    Args:
        actor: who may call it.
        approvals: what it asks for.
        id_: its identity.
    """
    review = ReviewDue(emergency.review.role, emergency.review.within_days * DAY_MS)
    return replace(
        action,
        name=action.name + FORM,
        action_id=id_,
        actor=actor,
        approvals=approvals,
        review=review,
    )
