"""What the expressions and templates of one action may name, and where borders stop them.

Not here: the expression language (``expr``), and effects (``actions``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from typing import Final

from consensus.codec import Value
from consensus.hashing import DIGEST_BYTES
from consensus.ledger.environment import FUNDS, LETS
from consensus.ledger.expr import Fault, Name, assignable
from consensus.ledger.model import (
    AccountFamily,
    Env,
    EvaluationError,
    Expression,
    Kind,
    Let,
    Listing,
    Path,
    Reference,
)
from consensus.ledger.rules.definition import CreateDef
from consensus.ledger.rules.indexes import IndexTemplate, Listed, check_order, find_index
from consensus.ledger.rules.kinds import Domain, World
from consensus.ledger.rules.reserved import RESERVATION, Reserved
from consensus.ledger.rules.schema import Place, Skip, suggest
from consensus.ledger.rules.values import COMPONENT_BASES, PERIOD, ROOTS
from consensus.ledger.rules.written import compile_written
from consensus.ledger.types import ID_COMPONENTS_MAX, InputError, Type, check_id

WHO: Final[Mapping[str, Type]] = {
    "principal": Type("digest"),
    "agency": Type("text"),
    "role": Type("text"),
}
NEW_ID: Final = "{tx}"
"""The template of an id made from the transaction."""
_UNBOUNDED: Final = ("text", "bytes", "ref")
_LITERAL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(slots=True)
class ActionScope:
    """Names known at one point of an action; loads are added in their order."""

    world: World
    domain: Domain
    inputs: Mapping[str, Name]
    loads: dict[str, Kind | AccountFamily | Listed | Reserved] = field(default_factory=dict)
    dated: bool = False
    """Whether the period of the act is known."""
    optional: dict[str, None] = field(default_factory=dict)
    """Loads that may be absent: then none of their fields has a value."""
    lets: dict[str, Let] = field(default_factory=dict)
    """Intermediate values, in their order; their ``reads`` name no others of them."""
    reads: dict[Path, None] = field(default_factory=dict)
    """Every path that was resolved, in order of first appearance."""

    @property
    def roots(self) -> tuple[str, ...]:
        """First parts of all paths."""
        return (*ROOTS, *self.loads, *self.lets)

    def resolve(self, parts: Path, position: int) -> Name:
        """Return what a path stands for, or raise Fault (see ``expr.Scope``)."""
        if parts[0] in self.lets:
            return self._let(parts, position)
        name = self._resolve(parts, position)
        self.reads[parts] = None
        return name

    def _let(self, parts: Path, position: int) -> Name:
        name = parts[0]
        if len(parts) > 1:
            raise Fault(f"{name} has no fields", position, hint="it is an intermediate value")
        return Name(self.lets[name].value.type, run=_letter([*self.lets].index(name)))

    def _resolve(self, parts: Path, position: int) -> Name:
        root, rest = parts[0], parts[1:]
        if root == "now":
            if rest:
                raise Fault("now has no fields", position, hint="now is the block's time")
            return Name(Type("time"))
        if root not in self.roots:
            raise Fault(f"nothing is called {root}", position, hint=suggest(root, self.roots))
        if root == "who":
            return self._who(rest, position)
        if not rest and isinstance(listed := self.loads.get(root), Listed):
            return Name(Type("records", listed.kind.name), fields=partial(self._listed, root))
        if len(rest) != 1:
            text = ".".join(parts)
            hint = "load the record it refers to, then name its field" if len(rest) > 1 else ""
            raise Fault(f"{text} is not a value", position, hint=hint or f"name a field of {root}")
        (name,) = rest
        if root == "input":
            if name not in self.inputs:
                raise Fault(
                    f"there is no input {name}", position, hint=suggest(name, list(self.inputs))
                )
            return self.inputs[name]
        if root == "params":
            if name not in self.domain.params:
                known = list(self.domain.params)
                raise Fault(f"there is no parameter {name}", position, hint=suggest(name, known))
            param = self.domain.params[name]
            if param.selector == PERIOD and not self.dated:
                raise Fault(
                    f"params.{name} is selected by a period, which is not known here",
                    position,
                    hint='write period = "input.…" in the action; loads come before it',
                )
            return Name(param.type, fallible=True)
        found = self.field(root, name, position)
        return replace(found, optional=True) if root in self.optional else found

    def _who(self, rest: Path, position: int) -> Name:
        if len(rest) == 2 and rest[0] == "scope":
            return Name(Type("text"), fallible=True)
        if len(rest) != 1 or rest[0] not in WHO:
            raise Fault(
                f"{'.'.join(('who', *rest))} is not a value",
                position,
                hint="known: who.principal, who.agency, who.role, who.scope.<name>",
            )
        return Name(WHO[rest[0]])

    @property
    def kinds(self) -> dict[str, Kind]:
        """The kinds of the loads that are records or lists of them."""
        found = {
            name: each.kind if isinstance(each, Listed) else each
            for name, each in self.loads.items()
        }
        return {name: each for name, each in found.items() if isinstance(each, Kind)}

    def _listed(self, load: str, name: str, position: int) -> Name:
        """Return a field of each record of a list."""
        found = self._field_of(self.kinds[load], load, name, position)
        self.reads[load, name] = None
        return found

    def field(self, load: str, name: str, position: int) -> Name:
        """Return a field of a load, if the border lets it through."""
        loaded = self.loads[load]
        if isinstance(loaded, Listed):
            raise Fault(
                f"{load} is a list of {loaded.kind.name} records",
                position,
                hint=f"ask {load}.exists(x, x.{name} == …) or {load}.all(x, x.{name} == …)",
            )
        if isinstance(loaded, Reserved):
            return loaded.name(name, position)
        if isinstance(loaded, AccountFamily):
            if name not in FUNDS:
                hint = f"known: {', '.join(FUNDS)}"
                raise Fault(f"an account has no {name}", position, hint=hint)
            return Name(Type("money", loaded.currency))
        return self._field_of(loaded, load, name, position)

    def _field_of(self, loaded: Kind, load: str, name: str, position: int) -> Name:
        if name == "id":
            return Name(Type("ref", loaded.name))
        if name == "by":
            raise Fault(
                f"{load}.by stands only in `not` and `not_agency`", position,
                hint=f"write {load}.by.created there",
            )  # fmt: skip
        known = [*loaded.fields, *(["status"] if loaded.start else [])]
        if name not in known:
            raise Fault(f"{loaded.name} has no field {name}", position, hint=suggest(name, known))
        if loaded.domain != self.domain.name and loaded.name not in self.domain.doubtful:
            self._check_border(loaded, name, position)
        if name == "status":
            return Name(Type("text"))
        return Name(loaded.fields[name].stored, loaded.fields[name].optional)

    def _check_border(self, kind: Kind, name: str, position: int) -> None:
        if name not in kind.exported:
            raise Fault(
                f"domain {kind.domain} does not export {kind.name}.{name}",
                position,
                hint=f"domain {kind.domain} must list it in `exports`",
            )
        if name not in self.domain.uses.get(kind.name, ()):
            raise Fault(
                f"{kind.name}.{name} belongs to domain {kind.domain} and is not in `uses`",
                position,
                hint=f'write uses = {{ {kind.domain} = ["{kind.name}.{name}"] }}',
            )

    # --- what authors write

    def expression(
        self, source: str, place: Place, want: Type | None = None, *, optional: bool = False
    ) -> Expression:
        """Return a compiled expression; raises Skip after reporting."""
        found = compile_written(source, self, place, want, optional=optional)
        return self._read_through(found) if self.lets else found

    def _read_through(self, found: Expression) -> Expression:
        """Name what intermediate values read in their stead."""
        reads: dict[Path, None] = {}
        for path in found.reads:
            let = self.lets.get(path[0])
            reads.update(dict.fromkeys((path,) if let is None else let.value.reads))
        return replace(found, reads=tuple(reads))

    def path(self, text: str, place: Place) -> Path:
        """Return ``(load, field)`` for a path to a leaf of a loaded record."""
        parts = tuple(text.split("."))
        kind = self.loads.get(parts[0])
        if len(parts) != 2 or not isinstance(kind, Kind):
            records = [name for name, each in self.loads.items() if isinstance(each, Kind)]
            raise place.refuse(
                f"{text!r} is not a field of a loaded record", suggest(parts[0], records)
            )
        self._name(parts, place)
        if parts[1] == "id":
            raise place.refuse("an id never changes", "name a field")
        return parts

    def _name(self, parts: Path, place: Place) -> Name:
        try:
            return self.resolve(parts, 0)
        except Fault as fault:
            raise place.refuse(fault.message, fault.hint) from fault

    def value(self, text: str, place: Place, bases: Sequence[str]) -> Expression:
        """Return a path of one of the types ``bases``; its absent value is None."""
        found = self.expression(text, place, optional=True)
        if found.reads != (tuple(text.split(".")),):
            raise place.refuse(f"expected a path such as lic.holder, found {text!r}")
        if found.type.base not in bases:
            raise place.refuse(f"{text} is {found.type.text}, expected {' or '.join(bases)}")
        return found

    # --- templates

    def components(
        self, segments: Sequence[str], place: Place
    ) -> tuple[list[Type], Callable[[Env], list[Value]], tuple[Path, ...]]:
        """Return types, values and paths of the segments ``{path}`` or literal text."""
        if len(segments) > ID_COMPONENTS_MAX:
            raise place.refuse(f"{len(segments)} components, at most {ID_COMPONENTS_MAX} in an id")
        types: list[Type] = []
        parts: list[Value | Callable[[Env], Value]] = []
        reads: dict[Path, None] = {}
        for segment in segments:
            if segment.startswith("{") and segment.endswith("}"):
                found = self.expression(segment[1:-1], place)
                name = segment[1:-1]
                if name not in self.lets and found.reads != (tuple(name.split(".")),):
                    raise place.refuse(f"{segment} holds more than a path", "use `{ent.person}`")
                if found.type.base not in COMPONENT_BASES:
                    raise place.refuse(
                        f"{segment} is {found.type.text}, which may not stand in an id"
                    )
                types.append(found.type)
                parts.append(found.evaluate)
                reads.update(dict.fromkeys(found.reads))
            elif _LITERAL.fullmatch(segment):
                types.append(Type("text"))
                parts.append(segment)
            else:
                raise place.refuse(
                    f"{segment!r} is neither {{path}} nor plain text",
                    "separate components with /; text is never joined",
                )
        collect = _collector(parts)
        if not reads or _always_fits(types, parts):
            return types, collect, tuple(reads)

        def resolve(env: Env) -> list[Value]:
            found = collect(env)
            try:
                check_id(found)
            except InputError as error:
                raise EvaluationError(error.reason) from None
            return found

        return types, resolve, tuple(reads)

    def record(self, template: str | Sequence[str], kind: Kind, place: Place) -> Reference:
        """Return the reference to a record of ``kind`` whose id ``template`` gives."""
        segments = template.split("/") if isinstance(template, str) else list(template)
        if not segments:
            raise place.refuse("an id has at least one component")
        source = "/".join((kind.name, *segments))
        if len(segments) == 1 and segments[0].startswith("{"):
            found = self.expression(segments[0].removeprefix("{").removesuffix("}"), place)
            if found.type.base == "ref":
                self._check_same(found.type, kind, place)
                return Reference("record", kind.name, source, found.reads, found.evaluate)
        _, resolve, reads = self.components(segments, place)
        return Reference("record", kind.name, source, reads, resolve)

    def index(
        self, load: str, written: IndexTemplate, template: str, kind: Kind, place: Place
    ) -> tuple[Reference, Listing]:
        """Return where ``load`` finds its list, and what it takes of it."""
        index = find_index(kind, written.field, place)
        named = [written.field, *([written.by] if written.by else [])]
        if written.by:
            check_order(kind, written.by, place)
        if kind.domain != self.domain.name and kind.name not in self.domain.doubtful:
            for name in named:
                try:
                    self._check_border(kind, name, 0)
                except Fault as fault:
                    raise place.refuse(fault.message, fault.hint) from fault
        field_ = kind.fields.get(written.field)
        wanted = Type("text") if field_ is None else field_.stored
        found, resolve, reads = self._looked_for(written.value, place)
        if not assignable(found, wanted):
            raise place.refuse(
                f"index {index.name} lists by {wanted.text}, {written.value} is {found.text}"
            )
        self.reads.update(dict.fromkeys((load, name) for name in named))
        listing = Listing(index, written.most, written.by)
        return Reference("index", index.name, template, reads, resolve), listing

    def _looked_for(
        self, segment: str, place: Place
    ) -> tuple[Type, Callable[[Env], list[Value]], tuple[Path, ...]]:
        """Return type, value and paths of ``{path}`` or literal text, of any length."""
        if not (segment.startswith("{") and segment.endswith("}")):
            (kind,), resolve, reads = self.components([segment], place)
            return kind, resolve, reads
        found = self.expression(segment[1:-1], place)
        if found.reads != (tuple(segment[1:-1].split(".")),):
            raise place.refuse(f"{segment} holds more than a path", "use `{ent.person}`")
        run = found.evaluate
        return found.type, lambda env: [run(env)], found.reads

    def _check_same(self, have: Type, kind: Kind, place: Place) -> None:
        """A reference to another kind serves only where some action makes records under it."""
        if have.argument in ("", kind.name):
            return
        ids = [
            (effect.id,) if isinstance(effect.id, str) else effect.id
            for _, action in self.world.domains[kind.domain].definition.actions
            for effect in action.effects
            if isinstance(effect, CreateDef) and effect.kind == kind.name
        ]
        if ids and all(len(each) > 1 or each == (NEW_ID,) for each in ids):
            raise place.refuse(f"expected a reference to {kind.name}, found one to {have.argument}")

    def account(self, template: str, place: Place) -> tuple[Reference, AccountFamily]:
        """Return the account that ``account/family/…`` names."""
        head, *segments = template.split("/")
        if head != "account" or not segments:
            raise place.refuse(f"{template!r} is not an account", "write account/family/…")
        family = self.world.families.get(segments[0])
        if segments[0] in self.world.faulty:
            raise Skip
        if family is None:
            raise place.refuse(
                f"there is no account family {segments[0]!r}",
                suggest(segments[0], list(self.world.families)),
            )
        _, resolve, reads = self.components(segments, place)
        return Reference("account", family.name, template, reads, resolve), family

    def reservation(self, segments: Sequence[str], place: Place, source: str = "") -> Reference:
        """Return what names a reservation: the domain, then the components."""
        _, resolve, reads = self.components(segments, place)
        domain = self.domain.name
        source = source or "/".join((RESERVATION, domain, *segments))
        return Reference(RESERVATION, domain, source, reads, lambda env: [domain, *resolve(env)])


def _letter(index: int) -> Callable[[Env], Value]:
    """Return what evaluates the ``index``-th intermediate value of a call."""
    return lambda env: env[LETS].value(index)


def _collector(parts: Sequence[Value | Callable[[Env], Value]]) -> Callable[[Env], list[Value]]:
    """Return what makes the components of an id from literal texts and closures."""
    texts = list(takewhile(lambda part: not callable(part), parts))
    runs = [part if callable(part) else _constant(part) for part in parts[len(texts) :]]
    if len(runs) == 1:
        (run,) = runs
        return lambda env: [*texts, run(env)]
    return lambda env: [*texts, *[run(env) for run in runs]]


def _always_fits(types: Sequence[Type], parts: Sequence[object]) -> bool:
    """Return whether no component can break the bounds of an id: short texts, and fixed types."""
    if any(
        callable(part) and kind.base in _UNBOUNDED for part, kind in zip(parts, types, strict=True)
    ):
        return False
    sample: list[Value] = [bytes(DIGEST_BYTES) if callable(part) else part for part in parts]
    try:
        check_id(sample)
    except InputError:
        return False
    return True


def _constant(value: Value) -> Callable[[Env], Value]:
    return lambda env: value
