"""Compiles effects that change amounts, and holds them to the borders of domains and currencies.

An account is debited, and amounts of it are reserved, only where its owner permits it; everybody
may credit, and everybody may give back what it reserved itself. Every such effect names the account
it takes from, so amounts of two currencies never meet, whatever an earlier rule set reserved.

Not here: carrying them out (``amounts``, ``effects`` of the ledger).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

from consensus.ledger.environment import EACH
from consensus.ledger.model import (
    AccountFamily,
    Expression,
    Move,
    Path,
    Post,
    Reference,
    Reserve,
    Void,
    Waterfall,
)
from consensus.ledger.rules.definition import (
    AmountDef,
    MoveDef,
    PostDef,
    ReserveDef,
    VoidDef,
    WaterfallDef,
)
from consensus.ledger.rules.indexes import Listed
from consensus.ledger.rules.schema import Place, suggest
from consensus.ledger.rules.scope import ActionScope
from consensus.ledger.types import Type


def compile_amount(
    scope: ActionScope, definition: AmountDef, here: Place, families: list[AccountFamily]
) -> Move | Reserve | Post | Void | Waterfall:
    """Return one effect on amounts; add the families that it names to ``families``.

    Raises:
        Skip: after reporting a fault.
    """
    return _Compiler(scope, here, families).compile(definition)


@dataclass(frozen=True, slots=True)
class _Compiler:
    scope: ActionScope
    here: Place
    families: list[AccountFamily]

    def compile(self, definition: AmountDef) -> Move | Reserve | Post | Void | Waterfall:
        source, family = self._account(definition.source, "from")
        match definition:
            case MoveDef():
                self._check_debit(family)
                target, target_family = self._target(definition.target, family)
                amount = self._amount(definition.amount, family)
                return Move(source, family, target, target_family, amount)
            case ReserveDef():
                self._check_debit(family)
                id_ = self._id(definition.id)
                amount = self._amount(definition.amount, family)
                return Reserve(id_, source, family, amount, self._expires(definition.expires))
            case PostDef():
                self._check_debit(family)
                id_ = self._id(definition.id)
                target, target_family = self._target(definition.target, family)
                part = self._amount(definition.amount, family) if definition.amount else None
                if definition.keep and part is None:
                    raise self.here.of("keep").refuse(
                        "the whole is posted, so nothing is left to keep", "give an amount"
                    )
                return Post(id_, source, family, target, target_family, part, definition.keep)
            case VoidDef():
                return Void(self._id(definition.id), source, family)
            case WaterfallDef():
                self._check_debit(family)
                return self._waterfall(definition, source, family)
            case _:
                assert_never(definition)

    def _waterfall(
        self, definition: WaterfallDef, source: Reference, family: AccountFamily
    ) -> Waterfall:
        amount = self._amount(definition.amount, family)
        inner = self._of_each(definition.each)
        up_to = self._amount(definition.up_to, family, "up_to", inner)
        target, target_family = self._target(definition.target, family, "to", inner)
        rest, rest_family = None, None
        if definition.rest:
            rest, rest_family = self._target(definition.rest, family, "rest")
        for path in inner.reads:
            self.scope.reads[_through(path, definition.each)] = None
        return Waterfall(
            source,
            family,
            amount,
            definition.each,
            replace(up_to, reads=tuple(_through(path, definition.each) for path in up_to.reads)),
            replace(target, reads=tuple(_through(path, definition.each) for path in target.reads)),
            target_family,
            rest,
            rest_family,
        )

    def _of_each(self, load: str) -> ActionScope:
        """Return the scope in which ``each`` is a record of the list that was loaded."""
        place = self.here.of("each")
        listed = {name: x for name, x in self.scope.loads.items() if isinstance(x, Listed)}
        if load not in listed:
            hint = suggest(load, list(listed)) if listed else 'load = [ ["debts", "index …"] ]'
            raise place.refuse(f"{load!r} is not a loaded list", hint)
        if EACH in self.scope.loads or EACH in self.scope.lets:
            raise place.refuse(
                f"{EACH} has a meaning of its own in a waterfall", "give the load another name"
            )
        loads = {**self.scope.loads, EACH: listed[load].kind}
        return replace(self.scope, loads=loads, reads={})

    def _account(
        self, template: str, key: str, scope: ActionScope | None = None
    ) -> tuple[Reference, AccountFamily]:
        reference, family = (scope or self.scope).account(template, self.here.of(key))
        self.families.append(family)
        return reference, family

    def _check_debit(self, family: AccountFamily) -> None:
        domain = self.scope.domain.name
        if domain not in family.debit_by:
            raise self.here.of("from").refuse(
                f"domain {family.domain} does not let domain {domain} debit {family.name}",
                f"domain {family.domain} must list it in debit_by",
            )

    def _target(
        self,
        template: str,
        source: AccountFamily,
        key: str = "to",
        scope: ActionScope | None = None,
    ) -> tuple[Reference, AccountFamily]:
        target, family = self._account(template, key, scope)
        if family.currency != source.currency:
            raise self.here.refuse(
                f"{source.name} is in {source.currency}, {family.name} in {family.currency}",
                "amounts of two currencies never meet",
            )
        return target, family

    def _amount(
        self,
        source: str,
        family: AccountFamily,
        key: str = "amount",
        scope: ActionScope | None = None,
    ) -> Expression:
        wanted = Type("money", family.currency)
        return (scope or self.scope).expression(source, self.here.of(key), wanted)

    def _id(self, template: str | tuple[str, ...]) -> Reference:
        """Return what names a reservation: the domain, then the components of the template."""
        segments = template.split("/") if isinstance(template, str) else template
        place = self.here.of("id")
        if not segments:
            raise place.refuse("an id has at least one component")
        return self.scope.reservation(segments, place)

    def _expires(self, source: str) -> Expression | None:
        if not source:
            return None
        place = self.here.of("expires")
        found = self.scope.expression(source, place, optional=True)
        if found.type.base not in ("time", "date"):
            raise place.refuse(
                f"expected time or date, the expression is {found.type.text}",
                "write days_add(now, 30), or a date: its first moment in UTC",
            )
        return found


def _through(path: Path, load: str) -> Path:
    """Name the list in the stead of a record of it."""
    return (load, *path[1:]) if path[0] == EACH else path
