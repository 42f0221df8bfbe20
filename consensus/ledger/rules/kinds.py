"""Kinds, account families, exports and uses: what a domain declares and what it opens to others.

Not here: actions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from consensus.ledger.model import WHOLE, AccountFamily, Field, FieldMap, Kind, Layout, Param
from consensus.ledger.rules.definition import (
    PARAM_VALUES_TOTAL_MAX,
    AccountDef,
    Definition,
    FieldDef,
    KindDef,
    StatusDef,
)
from consensus.ledger.rules.indexes import compile_indexes
from consensus.ledger.rules.schema import Place, Report, Skip, suggest
from consensus.ledger.rules.values import (
    FIELD_BASES,
    RESERVED,
    check_agencies,
    check_currency,
    check_name,
    compile_param,
    parse_type,
)
from consensus.ledger.types import Type

KERNEL_KINDS: Final = (
    "agency", "principal", "key", "role", "grant", "hold", "review", "rules", "proposal",
    "reservation", "disclosure", "committee",
)  # fmt: skip
"""What the kernel names as ``[kind, id]`` in expects, bases and details; no kind of record is
called so."""
KERNEL_LEAVES: Final = ("basis", "by", "status", "~holds")
_FIELD_RESERVED: Final = (*RESERVED, "status", "basis", "by", "id", "version", "kind", "holds")
_STATUS_RESERVED: Final = ("created", "voided")


@dataclass(slots=True)
class Domain:
    """A rule set while it is being compiled."""

    definition: Definition
    report: Report
    kinds: dict[str, Kind] = field(default_factory=dict)
    families: dict[str, AccountFamily] = field(default_factory=dict)
    params: dict[str, Param] = field(default_factory=dict)
    uses: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Foreign kind -> its fields that this rule set lists."""
    doubtful: dict[str, None] = field(default_factory=dict)
    """Foreign kinds with a faulty entry in ``uses``."""

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.definition.domain

    @property
    def place(self) -> Place:
        """The top of its text."""
        return Place(self.report)


@dataclass(slots=True)
class World:
    """All domains while they are being compiled."""

    domains: dict[str, Domain] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)
    families: dict[str, AccountFamily] = field(default_factory=dict)
    faulty: dict[str, None] = field(default_factory=dict)
    """Kinds and families with a reported fault; what names them is not reported again."""


def declare(world: World) -> None:
    """Compile what every domain declares, then what the domains use of each other."""
    for domain in world.domains.values():
        _declare_one(world, domain)
    for domain in world.domains.values():
        _check_references(world, domain)
        _compile_uses(world, domain)


def _declare_one(world: World, domain: Domain) -> None:
    definition, place = domain.definition, domain.place
    exports = _compile_exports(domain)
    for name, kind in definition.kinds:
        here = place.of("kinds", name)
        try:
            check_name(name, here, "a kind", (*RESERVED, *KERNEL_KINDS))
            if name in world.kinds:
                raise here.refuse(
                    f"kind {name} belongs to domain {world.kinds[name].domain}",
                    "names of kinds are unique among all domains",
                )
            compiled = _compile_kind(definition.domain, name, kind, exports.get(name, ()), here)
        except Skip:
            world.faulty[name] = None
            continue
        domain.kinds[name] = world.kinds[name] = compiled
    for name, account in definition.accounts:
        here = place.of("accounts", name)
        try:
            check_name(name, here, "an account family")
            if name in world.families:
                raise here.refuse(
                    f"account family {name} belongs to domain {world.families[name].domain}",
                    "names of families are unique among all domains",
                )
            family = _compile_family(definition.domain, name, account, here)
        except Skip:
            world.faulty[name] = None
            continue
        domain.families[name] = world.families[name] = family
    for name, param in definition.params:
        try:
            domain.params[name] = compile_param(name, param, place.of("params", name))
        except Skip:
            continue
    total = sum(len(param.values) for _, param in definition.params)
    if total > PARAM_VALUES_TOTAL_MAX:
        place.of("params").fault(f"{total} dated values, at most {PARAM_VALUES_TOTAL_MAX} in all")


# --- kinds ------------------------------------------------------------------------------------


def _compile_kind(
    domain: str, name: str, definition: KindDef, exported: tuple[str, ...], place: Place
) -> Kind:
    _check_domains(definition.hold_by, place.of("hold_by"))
    fields: dict[str, Field] = {}
    complete = True
    for field_name, each in definition.fields:
        here = place.of("fields", field_name)
        try:
            check_name(field_name, here, "a field", _FIELD_RESERVED)
            fields[field_name] = _compile_field(field_name, each, here)
        except Skip:
            complete = False
    start, steps, stops = "", {}, ()  # type: str, dict[str, tuple[str, ...]], tuple[str, ...]
    if definition.status is not None:
        try:
            start, steps, stops = _compile_status(definition.status, place.of("status"))
        except Skip:
            complete = False
    if not complete:
        raise Skip
    layouts = _layouts(fields, place)
    indexes = compile_indexes(name, fields, bool(start), definition.index, place.of("index"))
    leaf_of = {each.name: each.group or each.name for each in fields.values()}
    return Kind(
        domain=domain,
        name=name,
        definition=len(layouts),
        fields=fields,
        layouts=layouts,
        places=tuple(_places(layout) for layout in layouts),
        leaf_of={**leaf_of, "status": "status"},
        start=start,
        steps=steps,
        stops=stops,
        exported=exported,
        indexes=indexes,
    )


def _compile_field(name: str, definition: FieldDef, place: Place) -> Field:
    declared = parse_type(definition.type, place.of("type"), FIELD_BASES)
    if declared.text in ("ref", "list:ref"):
        raise place.of("type").refuse("a ref names its kind", "write ref:person")
    audience = tuple(sorted(definition.sealed_for))
    stored = declared
    if audience:
        check_agencies(audience, place.of("sealed_for"))
        if definition.open:
            raise place.of("open").refuse("a field is open or sealed, not both")
        if declared.base == "commitment":
            raise place.of("sealed_for").refuse("a commitment hides its value already")
        stored = Type("sealed", ",".join(audience))
    elif declared.text in ("text", "list:text") and not definition.open:
        raise place.refuse(
            "free text says who may see it",
            'add open = true (every validator\'s operator sees it) or sealed_for = ["agency"]',
        )
    if definition.since > 1 and not definition.optional:
        raise place.of("since").refuse("earlier records lack this field", "add optional = true")
    if definition.group:
        check_name(definition.group, place.of("group"), "a group", _FIELD_RESERVED)
        if definition.since > 1:
            raise place.of("group").refuse("a field added later has a leaf of its own")
    return Field(
        name=name,
        type=declared,
        stored=stored,
        optional=definition.optional,
        open=definition.open,
        sealed_for=audience,
        group=definition.group,
        since=definition.since,
    )


def _layouts(fields: Mapping[str, Field], place: Place) -> tuple[Layout, ...]:
    newest = max((each.since for each in fields.values()), default=1)
    if frozenset(each.since for each in fields.values()) | {1} != frozenset(range(1, newest + 1)):
        raise place.refuse("a number of `since` is left out", "number definitions 1, 2, 3, …")
    for each in fields.values():
        if each.group in fields:
            raise place.of("fields", each.name, "group").refuse(
                f"{each.group} is a field already", "give the group another name"
            )
    layouts: list[Layout] = []
    for number in range(1, newest + 1):
        leaves: dict[str, tuple[str, ...]] = dict.fromkeys(KERNEL_LEAVES, ())
        for each in fields.values():
            if each.since <= number:
                leaf = each.group or each.name
                leaves[leaf] = (*leaves.get(leaf, ()), each.name)
        layouts.append({leaf: leaves[leaf] for leaf in sorted(leaves)})
    return tuple(layouts)


def _places(layout: Layout) -> FieldMap:
    places: dict[str, tuple[int, int]] = {}
    for index, (leaf, fields) in enumerate(layout.items()):
        if not fields or fields == (leaf,):
            places[leaf] = (index, WHOLE)
        else:
            places.update({field: (index, at) for at, field in enumerate(fields)})
    return places


def _compile_status(
    definition: StatusDef, place: Place
) -> tuple[str, dict[str, tuple[str, ...]], tuple[str, ...]]:
    steps: dict[str, tuple[str, ...]] = {definition.start: (), **dict(definition.steps)}
    reached = dict.fromkeys(target for _, targets in definition.steps for target in targets)
    for target in reached:
        steps.setdefault(target, ())
    for name in steps:
        check_name(name, place, "a status", (*RESERVED, *_STATUS_RESERVED))
    for source, targets in definition.steps:
        here = place.of("steps", source)
        if len(frozenset(targets)) != len(targets):
            raise here.refuse("a step is named twice")
        if source in targets:
            raise here.refuse(f"{source} steps to itself")
        if source not in reached and source != definition.start:
            known = [*reached, definition.start]
            raise here.refuse(f"no step leads to {source}", suggest(source, known))
    for stop in definition.stops:
        if stop not in reached:
            raise place.of("stops").refuse(f"no step leads to {stop}", suggest(stop, list(reached)))
    return definition.start, {name: steps[name] for name in sorted(steps)}, definition.stops


def _compile_family(domain: str, name: str, definition: AccountDef, place: Place) -> AccountFamily:
    check_currency(definition.currency, place.of("currency"))
    _check_domains(definition.debit_by, place.of("debit_by"))
    _check_domains(definition.hold_by, place.of("hold_by"))
    others = tuple(sorted(frozenset(definition.debit_by) - {domain}))
    return AccountFamily(domain, name, definition.currency, definition.floor, (domain, *others))


def _check_domains(names: Sequence[str], place: Place) -> None:
    for name in names:
        check_name(name, place, "a domain", ())


# --- borders ----------------------------------------------------------------------------------


def _expand(
    entry: str, kinds: Mapping[str, Sequence[str]], place: Place, owner: str, verb: str
) -> tuple[str, tuple[str, ...]]:
    """Return kind and fields of ``kind.field``, ``kind.*`` or ``kind`` (its existence)."""
    kind, dot, name = entry.partition(".")
    if kind not in kinds:
        raise place.refuse(f"{owner} {verb} no kind {kind!r}", suggest(kind, list(kinds)))
    if not dot:
        return kind, ()
    if name == "*":
        return kind, tuple(kinds[kind])
    if name not in kinds[kind]:
        raise place.refuse(f"{owner} {verb} no {entry!r}", suggest(name, [*kinds[kind]]))
    return kind, (name,)


def _compile_exports(domain: Domain) -> dict[str, tuple[str, ...]]:
    kinds = {
        name: (*dict(kind.fields), *(("status",) if kind.status else ()))
        for name, kind in domain.definition.kinds
    }
    exports: dict[str, tuple[str, ...]] = {}
    for number, entry in enumerate(domain.definition.exports):
        try:
            place = domain.place.of("exports", number)
            kind, names = _expand(entry, kinds, place, f"domain {domain.name}", "has")
        except Skip:
            continue
        exports[kind] = tuple(sorted(frozenset((*exports.get(kind, ()), *names))))
    return exports


def _compile_uses(world: World, domain: Domain) -> None:
    for owner, entries in domain.definition.uses:
        place = domain.place.of("uses", owner)
        other = world.domains.get(owner)
        if other is None or other is domain:
            hint = suggest(owner, [name for name in world.domains if name != domain.name])
            place.fault(f"there is no other domain {owner!r}", hint)
            continue
        names = [entry.partition(".")[0] for entry in other.definition.exports]
        opened = {name: other.kinds[name].exported for name in names if name in other.kinds}
        whose = f"domain {owner}"
        for number, entry in enumerate(entries):
            named = entry.partition(".")[0]
            if named in world.faulty:
                domain.doubtful[named] = None
                continue
            try:
                kind, fields = _expand(entry, opened, place.of(number), whose, "exports")
            except Skip:
                domain.doubtful[named] = None
                continue
            known = domain.uses.get(kind, ())
            domain.uses[kind] = tuple(sorted(frozenset((*known, *fields))))


def find_kind(world: World, name: str, place: Place) -> Kind:
    """Return a kind by name, or raise Skip, after reporting unless its fault is known."""
    kind = world.kinds.get(name)
    if name in world.faulty:
        raise Skip
    if kind is None:
        raise place.refuse(f"there is no kind {name!r}", suggest(name, [*world.kinds]))
    return kind


def _check_references(world: World, domain: Domain) -> None:
    for kind in domain.kinds.values():
        for each in kind.fields.values():
            item = each.type.item if each.type.base == "list" else each.type
            check_ref(world, item, domain.place.of("kinds", kind.name, "fields", each.name))


def check_ref(world: World, kind: Type, place: Place) -> None:
    """Report a reference to a kind that no domain declares."""
    declared = any(
        kind.argument == name
        for other in world.domains.values()
        for name, _ in other.definition.kinds
    )
    if kind.base == "ref" and kind.argument and not declared:
        place.fault(f"there is no kind {kind.argument!r}", suggest(kind.argument, [*world.kinds]))
