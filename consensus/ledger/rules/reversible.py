"""Compiles ``reversible``: on which terms an act may be taken back.

A reversal moves amounts back, so the domain must be one that may debit whoever was paid, and the
account that takes what a payee no longer has. Holds are released by acts of their own. Who must
approve is fixed when the act takes place, so of approvers it asks what can be said then: role, and
agency and scope held against something of the act.

Not here: taking an act back (``kernel.reversal``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus.ledger.expr.syntax import Binary, Dotted, Literal, Node, parse
from consensus.ledger.fixed_policies import Pins, Unfixed
from consensus.ledger.leaves import leaves_of
from consensus.ledger.model import (
    AccountFamily,
    Effect,
    Expression,
    Move,
    OpenAccount,
    PlaceHold,
    Post,
    Reference,
    ReleaseHold,
    Reserve,
    Void,
    Waterfall,
)
from consensus.ledger.rules.definition import BranchDef, PolicyDef, ReversibleDef
from consensus.ledger.rules.effects import Effects
from consensus.ledger.rules.policies import Excluded, compile_policy, nodes_of
from consensus.ledger.rules.schema import Place, suggest
from consensus.ledger.rules.scope import ActionScope
from consensus.ledger.rules.unreachable import conjuncts
from consensus.ledger.rules.values import check_role
from consensus.ledger.terms import DEPTH_MAX, NAMED_MAX, NODES_MAX, Reversible
from consensus.ledger.types import Type

KEEP: Final = "keep"
FREE: Final = "free"


def compile_reversible(
    effects: Effects,
    compiled: Sequence[Effect],
    definition: ReversibleDef,
    place: Place,
    excluded: Excluded,
) -> Reversible:
    """Return the terms of an action with the effects ``compiled``.

    Args:
        excluded: compiles a path that names people of a policy.

    Raises:
        Skip: after reporting what is wrong with them.
    """
    check_role(definition.by, place.of("by"))
    if definition.unique not in (KEEP, FREE):
        raise place.of("unique").refuse(
            f"unique slots cannot be {definition.unique!r}",
            suggest(definition.unique, (KEEP, FREE)),
        )
    if any(isinstance(each, Reserve | Void) for each in compiled):
        raise place.refuse(
            "an action that reserves or voids is not reversible",
            "a reservation is voided by an act of its own; what is posted may be taken back",
        )
    if any(isinstance(each, PlaceHold | ReleaseHold) for each in compiled):
        raise place.refuse(
            "an action that places or releases holds is not reversible",
            "a hold is released, or placed again, by an act of its own",
        )
    if all(isinstance(each, OpenAccount) for each in compiled):
        raise place.refuse(
            "the action does nothing that could be taken back",
            "only what creates, sets or moves is reversible",
        )
    payees = _payees(compiled)
    for family in payees:
        _may_debit(effects, family, place, "whoever was paid")
    shortfall = None
    if definition.shortfall:
        shortfall = _shortfall(effects, payees, definition.shortfall, place.of("shortfall"))
    free, approvals = definition.unique == FREE, None
    if definition.approvals is not None:
        approvals = _approvals(effects.scope, definition.approvals, place.of("approvals"), excluded)
    return Reversible(definition.by, definition.within_days, shortfall, free, approvals)


def _approvals(
    scope: ActionScope, definition: PolicyDef, place: Place, excluded: Excluded
) -> Unfixed:
    """Return who must approve taking an act back, as can be fixed when it takes place."""
    nodes = [*nodes_of(definition)]
    if len(nodes) > NODES_MAX:
        raise place.refuse(f"{len(nodes)} leaves and branches, at most {NODES_MAX} for a reversal")
    if _depth(definition) > DEPTH_MAX:
        raise place.refuse(f"a policy for a reversal is nested at most {DEPTH_MAX} deep")
    policy = compile_policy(scope, definition, place, excluded)
    pins: dict[int, Pins] = {}
    named = 0
    for leaf in leaves_of(policy):
        if leaf.where is not None:
            pins[leaf.index] = _pins(scope, leaf.where, place)
        named += len(leaf.not_paths) + len(leaf.not_agencies) + len(pins.get(leaf.index, ()))
        named += leaf.self_path is not None
    if named > NAMED_MAX:
        raise place.refuse(
            f"where, self, not and not_agency name {named} things, at most {NAMED_MAX}",
            "what they name is written into every decision: name less",
        )
    return Unfixed(policy, pins)


def _depth(definition: PolicyDef) -> int:
    if isinstance(definition, BranchDef):
        return 1 + max((_depth(each) for each in definition.among), default=0)
    return 1


def _pins(scope: ActionScope, where: Expression, place: Place) -> Pins:
    """Return what a condition asks of ``who``, each part against something of the act."""
    found: list[tuple[str, Expression]] = []
    for each in conjuncts(parse(where.source)):
        pin = None
        if isinstance(each, Binary) and each.operator == "==":
            pin = _pin(scope, each.left, each.right, place) or _pin(
                scope, each.right, each.left, place
            )
        if pin is None:
            raise place.refuse(
                f"where of a reversal's approvals cannot be {where.source!r}",
                "compare parts of who with something of the act, joined by &&: "
                "who.scope.region == person.region",
            )
        found.append(pin)
    return found


def _pin(scope: ActionScope, one: Node, other: Node, place: Place) -> tuple[str, Expression] | None:
    if not isinstance(one, Dotted) or one.parts[0] != "who":
        return None
    part = ".".join(one.parts[1:])
    if isinstance(other, Literal):
        value = other.value
        written = f"b'{value.hex()}'" if isinstance(value, bytes) else str(value)
        return part, Expression(written or "''", Type("text"), False, (), lambda _: value)
    if not isinstance(other, Dotted) or other.parts[0] in ("who", "now"):
        return None
    return part, scope.expression(".".join(other.parts), place, optional=True)


def _shortfall(
    effects: Effects, payees: Sequence[AccountFamily], template: str, place: Place
) -> Reference:
    if not payees:
        raise place.refuse("nothing is moved, so nothing can fall short", "leave out shortfall")
    reference, family = effects.scope.account(template, place)
    effects.families.append(family)
    for payee in payees:
        if payee.currency != family.currency:
            raise place.refuse(
                f"{family.name} is in {family.currency}, {payee.name} in {payee.currency}",
                "amounts of two currencies never meet",
            )
    _may_debit(effects, family, place, "the account of debts")
    if family.floor >= 0:
        raise place.refuse(
            f"{family.name} has the floor {family.floor}, so it can take no debt",
            f"a debt is a balance below zero: give {family.name} a negative floor",
        )
    return reference


def _payees(compiled: Sequence[Effect]) -> list[AccountFamily]:
    """Return the families that are credited."""
    found: list[AccountFamily] = []
    for effect in compiled:
        if isinstance(effect, Move | Post | Waterfall):
            found.append(effect.target_family)
        if isinstance(effect, Waterfall) and effect.rest_family is not None:
            found.append(effect.rest_family)
    return found


def _may_debit(effects: Effects, family: AccountFamily, place: Place, what: str) -> None:
    domain = effects.scope.domain.name
    if domain not in family.debit_by:
        raise place.refuse(
            f"a reversal debits {what}, and domain {family.domain} does not let domain {domain} "
            f"debit {family.name}",
            f"domain {family.domain} must list it in debit_by",
        )
