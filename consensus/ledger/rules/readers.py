"""Compiles who reads a kind or family: ``read``, ``class`` and ``log_reads``.

Conditions see ``who``, ``now`` and what is read: ``record.field`` of a kind, ``account.balance`` of
a family. They see neither inputs nor parameters: reading has none.

Not here: judging (``consensus.ledger.readers``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from consensus.ledger.expr import Fault, Name
from consensus.ledger.model import AccountFamily, Expression, Kind, Path
from consensus.ledger.readers import ACCOUNT, RECORD, ROLES_MAX, Readers, ReadRule
from consensus.ledger.rules.definition import (
    AccountDef,
    BranchDef,
    Definition,
    KindDef,
    LeafDef,
    PolicyDef,
    ReadDef,
)
from consensus.ledger.rules.kinds import Domain, World
from consensus.ledger.rules.schema import Place, Skip, suggest
from consensus.ledger.rules.scope import ActionScope
from consensus.ledger.rules.values import check_agencies, check_role
from consensus.ledger.types import Type

RESTRICTED: Final = "restricted"
_CLASSES: Final = (RESTRICTED,)
_BOOL: Final = Type("bool")
_PERSONS: Final = ("ref", "token", "digest", "list")
_FORM: Final = 'write { role = "…" }, { agency = "…" }, { self = "…" } or { anyone = true }'


def declare_readers(world: World) -> None:
    """Compile the read rules of all kinds and families, once these are declared."""
    for domain in world.domains.values():
        for name, kind in domain.definition.kinds:
            if name in domain.kinds and _says_anything(kind):
                readers = _compile(
                    world, domain, domain.kinds[name], kind, domain.place.of("kinds", name)
                )
                domain.kinds[name] = world.kinds[name] = replace(
                    domain.kinds[name], readers=readers
                )
        for name, account in domain.definition.accounts:
            if name in domain.families and _says_anything(account):
                family = domain.families[name]
                place = domain.place.of("accounts", name)
                readers = _compile(world, domain, family, account, place)
                domain.families[name] = world.families[name] = replace(family, readers=readers)


def _says_anything(definition: KindDef | AccountDef) -> bool:
    return (
        definition.read is not None or bool(definition.record_class) or bool(definition.log_reads)
    )


def _compile(
    world: World,
    domain: Domain,
    owner: Kind | AccountFamily,
    definition: KindDef | AccountDef,
    place: Place,
) -> Readers:
    if definition.record_class not in ("", *_CLASSES):
        place.of("class").fault(
            f"there is no class {definition.record_class!r}",
            suggest(definition.record_class, _CLASSES),
        )
    if definition.read is None:
        place.fault(f"{owner.name} does not say who reads it", "add read = [ … ]; " + _FORM)
    rules: list[ReadRule] = []
    for number, each in enumerate(definition.read or ()):
        try:
            rules.append(_rule(world, domain, owner, each, place.of("read", number)))
        except Skip:
            continue
    return Readers(tuple(rules), definition.record_class == RESTRICTED, definition.log_reads)


def _rule(
    world: World, domain: Domain, owner: Kind | AccountFamily, definition: ReadDef, place: Place
) -> ReadRule:
    ways = (definition.role, definition.agency, definition.own, definition.anyone)
    if sum(map(bool, ways)) != 1:
        raise place.refuse("a read rule has one of role, agency, self and anyone", _FORM)
    scope = ReaderScope(world, domain, {})
    scope.loads[RECORD if isinstance(owner, Kind) else ACCOUNT] = owner
    roles: tuple[str, ...] = ()
    source = "anyone"
    if definition.role:
        roles = _roles(world, definition.role, place.of("role"))
        source = f"role {definition.role}"
    if definition.agency:
        if definition.agency != "*":
            check_agencies((definition.agency,), place.of("agency"))
        source = f"agency {definition.agency}"
    own = None
    if definition.own:
        own = _own(scope, owner, definition.own, place.of("self"))
        source = f"self {definition.own}"
    where = None
    if definition.where:
        where = scope.expression(definition.where, place.of("where"), _BOOL)
        source += f" where {definition.where}"
    paths: tuple[Path, ...] = tuple(
        path for each in (own, where) if each is not None for path in each.reads
    )
    by_id = all(path[0] not in (RECORD, ACCOUNT) or path[1] == "id" for path in paths)
    return ReadRule(source, roles, definition.agency, own, definition.anyone, where, by_id)


def _roles(world: World, text: str, place: Place) -> tuple[str, ...]:
    """Return the roles that a text stands for; ``benefits.*`` all of them that any rule names."""
    if not text.endswith(".*"):
        check_role(text, place)
        return (text,)
    check_role(text.removesuffix("*") + "x", place)
    prefix = text.removesuffix("*")
    found = [name for name in _known_roles(world) if name.startswith(prefix)]
    if not found:
        place.fault(
            f"no actor, approval or read rule names a role {text}",
            suggest(text, _known_roles(world)),
        )
    if len(found) > ROLES_MAX:
        place.fault(f"{text} stands for {len(found)} roles, at most {ROLES_MAX}", "name them")
    return tuple(found)


def written_out(definitions: Sequence[Definition]) -> list[Definition]:
    """Return rule sets whose read rules name one by one the roles that ``care.*`` stands for.

    They mean the same, also if their actions are left out then. A rule that stands for no role of
    these rule sets is left out, as whoever it lets in has a role that others name.
    """
    known = _roles_named(definitions)

    def rules(read: tuple[ReadDef, ...] | None) -> tuple[ReadDef, ...] | None:
        if read is None:
            return None
        found: list[ReadDef] = []
        for each in read:
            if not each.role.endswith("*"):
                found.append(each)
                continue
            prefix = each.role.removesuffix("*")
            found += [replace(each, role=name) for name in known if name.startswith(prefix)]
        return tuple(found)

    return [
        replace(
            each,
            kinds=tuple((name, replace(kind, read=rules(kind.read))) for name, kind in each.kinds),
            accounts=tuple(
                (name, replace(family, read=rules(family.read))) for name, family in each.accounts
            ),
        )
        for each in definitions
    ]


def _known_roles(world: World) -> list[str]:
    return _roles_named([domain.definition for domain in world.domains.values()])


def _roles_named(definitions: Iterable[Definition]) -> list[str]:
    """Return every role that an actor, approval, review or read rule names, ascending."""
    found: dict[str, None] = {}
    for definition in definitions:
        for _, action in definition.actions:
            found[action.actor.role] = None
            found.update(dict.fromkeys(_approver_roles(action.approvals)))
            if action.emergency is not None:
                found.update(dict.fromkeys(_approver_roles(action.emergency.approvals)))
                found[action.emergency.review.role] = None
            if action.reversible is not None:
                found.update(dict.fromkeys(_approver_roles(action.reversible.approvals)))
        owners: list[KindDef | AccountDef] = [kind for _, kind in definition.kinds]
        owners += [account for _, account in definition.accounts]
        for owner in owners:
            found.update(dict.fromkeys(each.role for each in owner.read or ()))
    return sorted(name for name in found if name and not name.endswith("*"))


def _approver_roles(policy: PolicyDef | None) -> list[str]:
    match policy:
        case LeafDef():
            return [policy.role]
        case BranchDef():
            return [role for each in policy.among for role in _approver_roles(each)]
    return []


def _own(scope: ReaderScope, owner: Kind | AccountFamily, text: str, place: Place) -> Expression:
    """Return the path of who is concerned: a field of the record, or its id."""
    root = RECORD if isinstance(owner, Kind) else ACCOUNT
    if "." in text:
        raise place.refuse(f"{text!r} is not a field of {owner.name}", "write its name alone")
    found = scope.value(f"{root}.{text}", place, _PERSONS)
    if found.type.base == "list" and found.type.item.base not in _PERSONS[:3]:
        raise place.refuse(f"{text} is {found.type.text}, which names nobody")
    return replace(found, source=text)


@dataclass(slots=True)
class ReaderScope(ActionScope):
    """What a read rule may name: ``who``, ``now``, and what is read."""

    inputs: Mapping[str, Name] = field(default_factory=dict)

    def resolve(self, parts: Path, position: int) -> Name:
        """Return what a path stands for, or raise Fault."""
        if parts[0] in ("input", "params"):
            known = ", ".join(("who", "now", *self.loads))
            raise Fault(f"reading has no {parts[0]}", position, hint=f"known here: {known}")
        return ActionScope.resolve(self, parts, position)

    def field(self, load: str, name: str, position: int) -> Name:
        """Return a field of what is read; an account's ``id`` is what follows the family."""
        if isinstance(self.loads[load], AccountFamily):
            if name == "id":
                return Name(Type("ref"))
            if name != "balance":
                raise Fault(f"reading sees no {load}.{name}", position, hint="known: id, balance")
        return ActionScope.field(self, load, name, position)
