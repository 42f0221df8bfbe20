"""Compiles effects, and holds them to the borders of their domain and to the protective lane.

A rule set writes only its own kinds, opens only its own accounts, and
holds only what is its own or names it in ``hold_by``. A protective action only places holds and
moves records to statuses that their kind lists under ``stops``.

Not here: amounts (``amounts``), and carrying effects out (``executor``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NoReturn, assert_never

from consensus.ledger.model import (
    HOLD_SCOPES,
    AccountFamily,
    Assign,
    Create,
    Effect,
    Expression,
    Kind,
    OpenAccount,
    Path,
    PlaceHold,
    Reference,
    ReleaseHold,
)
from consensus.ledger.rules.amounts import compile_amount
from consensus.ledger.rules.definition import (
    CreateDef,
    EffectDef,
    MoveDef,
    OpenDef,
    PlaceHoldDef,
    PostDef,
    ReleaseHoldDef,
    ReserveDef,
    SetDef,
    VoidDef,
    WaterfallDef,
)
from consensus.ledger.rules.kinds import find_kind
from consensus.ledger.rules.schema import Place, Skip, suggest
from consensus.ledger.rules.scope import NEW_ID, ActionScope
from consensus.ledger.types import Type

_KEYS: Final[dict[type, str]] = {
    CreateDef: "create",
    SetDef: "set",
    MoveDef: "move",
    ReserveDef: "reserve",
    PostDef: "post",
    VoidDef: "void",
    WaterfallDef: "waterfall",
    OpenDef: "open",
    PlaceHoldDef: "place_hold",
    ReleaseHoldDef: "release_hold",
}


@dataclass(slots=True)
class Effects:
    """Compiles the effects of one action; ``kinds`` and ``families`` collect what they touch."""

    scope: ActionScope
    protective: bool
    legal: str
    """What holds rest on that do not say so themselves."""
    place: Place
    kinds: list[Kind] = field(default_factory=list)
    families: list[AccountFamily] = field(default_factory=list)

    def compile(self, definitions: Sequence[EffectDef]) -> tuple[Effect, ...]:
        """Return the effects in declared order; faulty ones are reported and left out."""
        found: list[Effect] = []
        counts: dict[str, int] = {}
        changed: dict[str, None] = {}
        for definition in definitions:
            key = _KEYS[type(definition)]
            number = counts.get(key, 0)
            counts[key] = number + 1
            here = self.place.of(key, number)
            try:
                if isinstance(definition, SetDef) and not definition.when:
                    if definition.record in changed:
                        raise here.refuse(
                            f"{definition.record} is set twice", "join the two into one"
                        )
                    changed[definition.record] = None
                found.append(self._conditional(definition, number, here))
            except Skip:
                continue
        return tuple(found)

    def _conditional(self, definition: EffectDef, number: int, here: Place) -> Effect:
        when = None
        if definition.when:
            when = self.scope.expression(definition.when, here.of("when"), Type("bool"))
        effect = self._effect(definition, number, here)
        return effect if when is None else replace(effect, when=when)

    def _effect(self, definition: EffectDef, number: int, here: Place) -> Effect:
        if self.protective and not isinstance(definition, SetDef | PlaceHoldDef):
            raise here.refuse(
                f"a protective action has no {_KEYS[type(definition)]}",
                "it places holds, or sets a status that its kind lists under stops",
            )
        match definition:
            case CreateDef():
                return self._create(definition, number, here)
            case SetDef():
                return self._set(definition, here)
            case MoveDef() | ReserveDef() | PostDef() | VoidDef() | WaterfallDef():
                return compile_amount(self.scope, definition, here, self.families)
            case OpenDef():
                return self._open(definition, here)
            case PlaceHoldDef():
                return self._place_hold(definition, number, here)
            case ReleaseHoldDef():
                target = self._hold_target(definition.target, here.of("target"))
                hold = self.scope.expression(definition.hold, here.of("hold"), Type("digest"))
                return ReleaseHold(target, hold)
            case _:
                assert_never(definition)

    # --- records

    def _own(self, kind: Kind, place: Place) -> None:
        if kind.domain != self.scope.domain.name:
            raise place.refuse(
                f"kind {kind.name} belongs to domain {kind.domain}",
                "a rule set writes only its own kinds; that domain needs an action for it",
            )
        self.kinds.append(kind)

    def _assignments(
        self, kind: Kind, pairs: Sequence[tuple[str, str]], place: Place
    ) -> tuple[tuple[str, Expression], ...]:
        found: dict[str, Expression] = {}
        for name, source in pairs:
            here = place.of(name)
            if name == "status":
                here.fault("status is not a field", 'write status = "…" beside fields')
            elif name not in kind.fields:
                here.fault(f"{kind.name} has no field {name}", suggest(name, [*kind.fields]))
            else:
                declared = kind.fields[name]
                try:
                    found[name] = self.scope.expression(
                        source, here, declared.stored, optional=declared.optional
                    )
                except Skip:
                    continue
        return tuple((name, found[name]) for name in kind.fields if name in found)

    def _basis(self, paths: Sequence[str], place: Place) -> tuple[Path, ...]:
        return tuple(
            dict.fromkeys(self.scope.path(text, place.of(n)) for n, text in enumerate(paths))
        )

    def _create(self, definition: CreateDef, number: int, here: Place) -> Create:
        kind = find_kind(self.scope.world, definition.kind, here.of("kind"))
        self._own(kind, here.of("kind"))
        id_: Reference | None = None
        if definition.id not in (NEW_ID, (NEW_ID,)):
            id_ = self.scope.record(definition.id, kind, here.of("id"))
        assignments = self._assignments(kind, definition.values, here.of("set"))
        given = [name for name, _ in definition.values]
        for each in kind.fields.values():
            if each.name not in given and not each.optional:
                here.fault(f"field {each.name} of {kind.name} is not set", "add it to set = { … }")
        basis = self._basis(definition.basis, here.of("basis"))
        return Create(kind, id_, assignments, basis, number)

    def _set(self, definition: SetDef, here: Place) -> Assign:
        kind = self.scope.loads.get(definition.record)
        if not isinstance(kind, Kind):
            records = [name for name, each in self.scope.loads.items() if isinstance(each, Kind)]
            raise here.of("record").refuse(
                f"{definition.record!r} is not a loaded record",
                suggest(definition.record, records),
            )
        self._own(kind, here.of("record"))
        if not definition.status and not definition.fields and definition.basis is None:
            raise here.refuse("nothing is set", "give status, fields or basis")
        if definition.status:
            self._check_status(kind, definition.status, here.of("status"))
        elif self.protective:
            raise here.refuse(
                "a protective action sets a record only to stop it",
                f"add status = one of {', '.join(kind.stops) or 'its kind’s stops (none yet)'}",
            )
        assignments = self._assignments(kind, definition.fields, here.of("fields"))
        basis = definition.basis
        return Assign(
            definition.record,
            kind,
            definition.status,
            assignments,
            None if basis is None else self._basis(basis, here.of("basis")),
        )

    def _check_status(self, kind: Kind, status: str, place: Place) -> None:
        reached = list(dict.fromkeys(name for steps in kind.steps.values() for name in steps))
        if status not in reached:
            raise place.refuse(
                f"no step of {kind.name} leads to {status!r}", suggest(status, reached)
            )
        if self.protective and status not in kind.stops:
            raise place.refuse(
                f"a protective action cannot move {kind.name} to {status}",
                f"list it under stops of kind {kind.name}, or leave out phase",
            )

    # --- accounts

    def _account(self, template: str, place: Place) -> tuple[Reference, AccountFamily]:
        reference, family = self.scope.account(template, place)
        self.families.append(family)
        return reference, family

    def _open(self, definition: OpenDef, here: Place) -> OpenAccount:
        account, family = self._account(definition.account, here.of("account"))
        if family.domain != self.scope.domain.name:
            raise here.of("account").refuse(
                f"account family {family.name} belongs to domain {family.domain}",
                "only its own domain opens accounts",
            )
        return OpenAccount(account, family)

    # --- holds

    def _hold_target(self, template: str, place: Place) -> Reference:
        head, _, rest = template.partition("/")
        domain = self.scope.domain.name
        if head == "account":
            reference, family = self._account(template, place)
            owner = self.scope.world.domains[family.domain].definition
            if domain not in (family.domain, *dict(owner.accounts)[family.name].hold_by):
                self._not_held_by(family.name, family.domain, place)
            return reference
        kind = find_kind(self.scope.world, head, place)
        owner = self.scope.world.domains[kind.domain].definition
        if domain not in (kind.domain, *dict(owner.kinds)[kind.name].hold_by):
            self._not_held_by(kind.name, kind.domain, place)
        self.kinds.append(kind)
        return self.scope.record(rest, kind, place)

    def _not_held_by(self, name: str, owner: str, place: Place) -> NoReturn:
        raise place.refuse(
            f"domain {owner} does not let domain {self.scope.domain.name} hold {name}",
            f"domain {owner} must list it in hold_by",
        )

    def _place_hold(self, definition: PlaceHoldDef, number: int, here: Place) -> PlaceHold:
        if not definition.targets:
            raise here.of("targets").refuse("a hold has a target", "name one or more")
        targets = [
            self._hold_target(text, here.of("targets", at))
            for at, text in enumerate(definition.targets)
        ]
        scopes = tuple(name for name in HOLD_SCOPES if name in definition.scopes)
        unknown = [name for name in definition.scopes if name not in HOLD_SCOPES]
        if unknown or not scopes or len(scopes) != len(definition.scopes):
            raise here.of("scopes").refuse(
                "a hold has one or more different scopes", f"known: {', '.join(HOLD_SCOPES)}"
            )
        until = None
        if definition.until:
            until = self.scope.expression(
                definition.until, here.of("until"), Type("time"), optional=True
            )
        if not definition.reason:
            raise here.of("reason").refuse("a hold gives its reason", 'add reason = "…"')
        legal = definition.legal or self.legal
        return PlaceHold(tuple(targets), scopes, until, legal, definition.reason, number)
