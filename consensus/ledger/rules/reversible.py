"""Compiles ``reversible``: on which terms an act may be taken back.

A reversal moves amounts back, so the domain must be one that may debit whoever was paid, and the
account that takes what a payee no longer has. Holds are released by acts of their own.

Not here: taking an act back (``kernel.reversal``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from consensus.ledger.model import (
    AccountFamily,
    Effect,
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
from consensus.ledger.rules.definition import ReversibleDef
from consensus.ledger.rules.effects import Effects
from consensus.ledger.rules.schema import Place, suggest
from consensus.ledger.rules.values import check_role
from consensus.ledger.terms import Reversible

KEEP: Final = "keep"
FREE: Final = "free"


def compile_reversible(
    effects: Effects, compiled: Sequence[Effect], definition: ReversibleDef, place: Place
) -> Reversible:
    """Return the terms of an action with the effects ``compiled``.

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
    return Reversible(definition.by, definition.within_days, shortfall, definition.unique == FREE)


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
