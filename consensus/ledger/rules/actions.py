"""Compiles one action: loads in order, then conditions and effects against what was loaded.

Every fault is reported with its line; an action with faults gives None. Effects are in ``effects``.

Not here: the identity of actions (``parts``), and execution (``executor``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

from consensus.codec import Value
from consensus.ledger.calendar import DAY_MS, month_start_ms
from consensus.ledger.expr import Name
from consensus.ledger.kernel.catalogue import CHARTER, KERNEL_ACTIONS
from consensus.ledger.model import (
    HOLD_SCOPES,
    AccountFamily,
    Action,
    Actor,
    Effect,
    Env,
    Expression,
    Input,
    Kind,
    Let,
    Load,
    Param,
    Path,
    Policy,
    Reference,
    Require,
    Unique,
)
from consensus.ledger.rules.definition import ActionDef, EmergencyDef
from consensus.ledger.rules.effects import Effects
from consensus.ledger.rules.emergency import FORM, check_emergency, emergency_form, narrowed
from consensus.ledger.rules.indexes import Listed, parse_load
from consensus.ledger.rules.kinds import Domain, World, check_ref, find_kind
from consensus.ledger.rules.parts import ForeignFields, action_id
from consensus.ledger.rules.policies import compile_policy
from consensus.ledger.rules.reserved import RESERVATION, Reserved, split
from consensus.ledger.rules.reversible import compile_reversible
from consensus.ledger.rules.schema import Place, Skip, suggest
from consensus.ledger.rules.scope import ActionScope
from consensus.ledger.rules.values import (
    INPUT_BASES,
    NOW,
    PERIOD,
    WORDS,
    check_code,
    check_name,
    check_role,
    parse_type,
    schedule,
)
from consensus.ledger.schedule import Periods
from consensus.ledger.terms import Reversible
from consensus.ledger.types import KERNEL_BASES, Type

T = TypeVar("T")

BOOL: Final = Type("bool")
_PERSONS: Final = ("ref", "token", "digest")
"""Types of a path that may name the author."""
_PHASES: Final = ("protective",)
_ORDINARY_KEYS: Final = (
    "phase", "inputs", "load", "fresh", "depends", "unique", "effects", "ignores_holds",
    "lets", "period", "emergency", "reversible", "quiet",
)  # fmt: skip
"""What the kernel decides for its own actions."""


def compile_action(
    world: World, domain: Domain, name: str, definition: ActionDef
) -> tuple[Action, ...]:
    """Return the compiled action with its emergency form; none after reporting what is wrong."""
    place = domain.place.of("actions", name)
    before = len(domain.report.problems)
    try:
        check_name(name, place, "an action", ())
        compiled = _Compiler(world, domain, name, definition, place).run()
    except Skip:
        return ()
    return compiled if len(domain.report.problems) == before else ()


@dataclass(slots=True)
class _Compiler:
    world: World
    domain: Domain
    name: str
    definition: ActionDef
    place: Place

    def run(self) -> tuple[Action, ...]:
        definition, place = self.definition, self.place
        kernel = KERNEL_ACTIONS.get(self.name) if definition.kernel else None
        self._check_kernel()
        inputs = self._inputs()
        scope = ActionScope(
            self.world, self.domain, {each.name: Name(each.type, each.optional) for each in inputs}
        )
        loads = self._loads(scope)
        protective = definition.phase == "protective"
        if kernel is not None:
            protective = kernel.protective
        elif definition.phase and definition.phase not in _PHASES:
            place.of("phase").fault(
                f"there is no phase {definition.phase!r}", suggest(definition.phase, _PHASES)
            )
        period = self._period(scope)
        self._lets(scope)
        actor = self._kept(lambda: self._actor(scope, place.of("actor")))
        require = self._require(scope)
        legal = definition.legal or self.domain.definition.legal_basis
        effects = Effects(scope, protective, legal, place)
        compiled = effects.compile(definition.effects)
        depends = self._depends(scope, protective)
        if period is not None and not protective and period.reads[0][0] in scope.loads:
            depends = tuple(dict.fromkeys((*depends, *period.reads)))
        unique = self._unique(scope)
        approvals = self._kept(lambda: self._approvals(scope))
        objections = self._kept(lambda: self._objections(scope))
        ignores = self._ignores()
        fresh = self._fresh(scope)
        reversible = self._reversible(effects, compiled)
        if actor is None:
            raise Skip
        emergency = self._emergency(scope, actor)
        reads = tuple(scope.reads)
        params = [self.domain.params[path[1]] for path in reads if path[0] == "params"]
        kinds = {each.name for each in scope.kinds.values()}
        kinds |= {kind.name for kind in effects.kinds}
        families = {load.family.name: load.family for load in loads if load.family is not None}
        families |= {each.name: each for each in effects.families}
        identity = partial(
            action_id,
            self.domain.definition,
            self.name,
            kinds=sorted(kinds & self.domain.kinds.keys()),
            foreign=_foreign(scope, self.domain.name),
            families=list(families.values()),
            params=params,
        )
        action = Action(
            domain=self.domain.name,
            name=self.name,
            action_id=identity(),
            protective=protective,
            kernel=definition.kernel,
            summary=definition.summary,
            legal=definition.legal,
            actor=actor,
            inputs=inputs,
            loads=loads,
            fresh=fresh,
            depends=depends,
            require=require,
            unique=unique,
            effects=compiled,
            ignores_holds=ignores,
            schedule=schedule([each for each in params if each.selector == NOW]),
            reads=reads,
            lets=tuple(scope.lets.values()),
            periods=_periods(period, params),
            approvals=approvals,
            objections=objections,
            reversible=reversible,
            quiet=definition.quiet,
        )
        if emergency is None:
            return (action,)
        return action, emergency_form(action, *emergency, identity(form=FORM))

    def _emergency(
        self, scope: ActionScope, actor: Actor
    ) -> tuple[EmergencyDef, Actor, Policy | None] | None:
        emergency = self.definition.emergency
        if emergency is None:
            return None
        place = self.place.of("emergency")
        check_emergency(self.definition, emergency, place)
        narrow = narrowed(scope, actor, emergency.where, place.of("where"))
        approvals = None
        if emergency.approvals is not None:
            approvals = compile_policy(
                scope, emergency.approvals, place.of("approvals"), self._excluded_path
            )
        return emergency, narrow, approvals

    def _kept(self, make: Callable[[], T]) -> T | None:
        """Go on after a fault, so that one run shows them all."""
        try:
            return make()
        except Skip:
            return None

    # --- kernel actions

    def _check_kernel(self) -> None:
        definition, place = self.definition, self.place
        if definition.kernel is not (self.domain.name == CHARTER):
            if definition.kernel:
                raise place.refuse(f"only domain {CHARTER} has kernel actions")
            raise place.refuse(
                f"the actions of domain {CHARTER} are the kernel's", "add kernel = true"
            )
        if not definition.kernel:
            return
        if self.name not in KERNEL_ACTIONS:
            raise place.refuse(
                f"there is no kernel action {self.name!r}", suggest(self.name, [*KERNEL_ACTIONS])
            )
        for key in _ORDINARY_KEYS:
            if getattr(definition, key):
                word = "let" if key == "lets" else key
                raise place.refuse(
                    f"the kernel decides {word} of {self.name}",
                    "a kernel action has actor, require, approvals, objections, summary and legal",
                )

    # --- inputs and loads

    def _inputs(self) -> tuple[Input, ...]:
        inputs: list[Input] = []
        kernel = self.definition.kernel
        source = KERNEL_ACTIONS[self.name].inputs if kernel else self.definition.inputs
        for name, text in source:
            here = self.place.of("inputs", name)
            try:
                check_name(name, here, "an input", WORDS)
                if kernel and text in KERNEL_BASES:
                    inputs.append(Input(name, Type(text), False))
                    continue
                kind = parse_type(text.removesuffix("?"), here, INPUT_BASES)
                item = kind.item if kind.base == "list" else kind
                if item == Type("ref") and not kernel:
                    raise here.refuse("a ref names its kind", "write ref:person")
                check_ref(self.world, item, here)
            except Skip:
                continue
            inputs.append(Input(name, kind, text.endswith("?")))
        if len(inputs) != len(source):
            raise Skip
        return tuple(inputs)

    def _loads(self, scope: ActionScope) -> tuple[Load, ...]:
        loads: list[Load] = []
        for number, (name, template) in enumerate(self.definition.load):
            here = self.place.of("load", number)
            if template.endswith("?"):
                raise here.refuse(
                    "the ? of a load that may be absent follows its name",
                    'write ["debt?", "debt/{input.debt}"]',
                )
            optional = name.endswith("?")
            name = name.removesuffix("?")
            check_name(name, here, "a load")
            if name in scope.loads:
                raise here.refuse(f"{name} is loaded twice")
            if template.startswith("index "):
                if optional:
                    raise here.refuse(
                        "a list is never absent", f"leave out the ?; it is empty: size({name}) == 0"
                    )
                loads.append(self._listed(scope, name, template, here))
                continue
            if (parts := split(template, here)) is not None:
                loads.append(self._reserved(scope, name, template, parts, here, optional=optional))
                if optional:
                    scope.optional[name] = None
                continue
            reference, loaded = self._load(scope, template, here)
            scope.loads[name] = loaded
            if optional:
                scope.optional[name] = None
            if isinstance(loaded, Kind):
                loads.append(Load(name, reference, loaded, None, optional))
            else:
                loads.append(Load(name, reference, None, loaded, optional))
        return tuple(loads)

    def _reserved(
        self,
        scope: ActionScope,
        name: str,
        template: str,
        parts: tuple[str, str],
        place: Place,
        *,
        optional: bool,
    ) -> Load:
        """Return the load of a reservation, and add it to the scope."""
        id_, account = parts
        on, family = scope.account(account, place)
        if self.domain.name not in family.debit_by:
            raise place.refuse(
                f"domain {self.domain.name} reserves nothing of {family.name}",
                f"domain {family.domain} must list it in debit_by",
            )
        reference = scope.reservation(id_.split("/"), place, template)
        scope.loads[name] = Reserved(family)
        return Load(name, reference, None, family, optional, account=on)

    def _load(
        self, scope: ActionScope, template: str, place: Place
    ) -> tuple[Reference, Kind | AccountFamily]:
        head, slash, rest = template.partition("/")
        if head == "account":
            reference, family = scope.account(template, place)
            if family.domain != self.domain.name:
                raise place.refuse(
                    f"account family {family.name} belongs to domain {family.domain}",
                    "a rule set reads only its own accounts",
                )
            return reference, family
        if head == RESERVATION and head not in self.world.kinds:
            raise place.refuse(
                f"{template!r} does not name the account", f"write {template} on account/family/…"
            )
        kind = self._kind(head, place)
        if not slash or not rest:
            raise place.refuse("which record?", f"write {head}/{{input.{head}}}")
        return scope.record(rest, kind, place), kind

    def _kind(self, name: str, place: Place) -> Kind:
        """Return a kind whose records may be loaded."""
        kind = find_kind(self.world, name, place)
        known = (*self.domain.uses, *self.domain.doubtful)
        if kind.domain != self.domain.name and kind.name not in known:
            raise place.refuse(
                f"kind {name} belongs to domain {kind.domain} and is not in `uses`",
                f'write uses = {{ {kind.domain} = ["{name}.<field>"] }}; it must export it',
            )
        return kind

    def _listed(self, scope: ActionScope, name: str, template: str, place: Place) -> Load:
        """Return the load of an index, and add it to the scope."""
        written = parse_load(template, place)
        kind = self._kind(written.kind, place)
        reference, listing = scope.index(name, written, template, kind, place)
        scope.loads[name] = Listed(kind, listing)
        return Load(name, reference, kind, None, listing=listing)

    def _fresh(self, scope: ActionScope) -> tuple[str, ...]:
        here = self.place.of("fresh")
        records = [name for name, each in scope.loads.items() if isinstance(each, Kind)]
        for name in self.definition.fresh:
            if isinstance(scope.loads.get(name), Listed):
                here.fault(f"{name} is a list", "load those records whose basis matters one by one")
            elif name not in records:
                here.fault(f"{name!r} is not a loaded record", suggest(name, records))
        return tuple(dict.fromkeys(self.definition.fresh))

    def _period(self, scope: ActionScope) -> Expression | None:
        """Return the path of the month or date that selects parameters."""
        text = self.definition.period
        if not text:
            return None
        place = self.place.of("period")
        found = scope.value(text, place, ("month", "date"))
        if found.optional:
            raise place.refuse(f"{text} may be absent", "a period is always there")
        if found.reads[0][0] not in ("input", *scope.loads):
            raise place.refuse(
                f"{text} is no input and no field of a load", 'write period = "input.period"'
            )
        scope.dated = True
        return found

    def _lets(self, scope: ActionScope) -> None:
        """Add the intermediate values to the scope, each to those after it."""
        for number, (name, source) in enumerate(self.definition.lets):
            here = self.place.of("let", number)
            check_name(name, here, "an intermediate value")
            if name in scope.lets:
                raise here.refuse(f"{name} is named twice", "give each value a name of its own")
            if name in scope.loads:
                raise here.refuse(f"{name} is a load", "give the value a name of its own")
            scope.lets[name] = Let(name, scope.expression(source, here.of(1)))

    # --- conditions

    def _actor(self, scope: ActionScope, place: Place) -> Actor:
        actor = self.definition.actor
        if bool(actor.role) == bool(actor.own):
            raise place.refuse(
                "an actor has either role or self", 'write actor = { role = "payments.officer" }'
            )
        if actor.role:
            check_role(actor.role, place.of("role"))
        where = own = None
        if actor.where:
            where = scope.expression(actor.where, place.of("where"), BOOL)
        if actor.own:
            own = scope.value(actor.own, place.of("self"), _PERSONS)
        return Actor(
            role=actor.role,
            where=where,
            self_path=own,
            not_paths=self._excluded(scope, actor.excluded, place.of("not"), author=True),
            not_agencies=self._excluded(
                scope, actor.excluded_agencies, place.of("not_agency"), author=False
            ),
        )

    def _excluded(
        self, scope: ActionScope, paths: Sequence[str], place: Place, *, author: bool
    ) -> tuple[Expression, ...]:
        return tuple(
            self._excluded_path(scope, text, place.of(number), author)
            for number, text in enumerate(paths)
        )

    def _excluded_path(
        self, scope: ActionScope, text: str, place: Place, author: bool
    ) -> Expression:
        load, _, step = text.partition(".by.")
        if step:
            return self._by(scope, text, load, step, place, author=author)
        return scope.value(text, place, _PERSONS if author else ("text",))

    def _approvals(self, scope: ActionScope) -> Policy | None:
        if self.definition.approvals is None:
            return None
        return compile_policy(
            scope, self.definition.approvals, self.place.of("approvals"), self._excluded_path
        )

    def _objections(self, scope: ActionScope) -> Policy | None:
        if self.definition.objections is None:
            return None
        place = self.place.of("objections")
        if self.definition.approvals is None:
            raise place.refuse(
                "nobody is asked to approve the action", "add approvals, or leave out objections"
            )
        return compile_policy(scope, self.definition.objections, place, self._excluded_path)

    def _by(
        self, scope: ActionScope, text: str, load: str, step: str, place: Place, *, author: bool
    ) -> Expression:
        """Who made a record, or who moved it to a status: principal, or agency."""
        kind = scope.loads.get(load)
        if not isinstance(kind, Kind):
            raise place.refuse(f"{load!r} is not a loaded record", suggest(load, [*scope.loads]))
        if kind.domain != self.domain.name:
            raise place.refuse(
                f"who wrote a {kind.name} is known to domain {kind.domain} alone",
                "name a field that it exports",
            )
        steps = ["created", *kind.steps]
        if step not in steps:
            raise place.refuse(f"{kind.name} has no status {step!r}", suggest(step, steps))
        column = 1 if author else 2

        def evaluate(env: Env) -> Value:
            by: Any = env[load]["by"] or ()
            return next((row[column] for row in by if row[0] == step), None)

        path = (load, "by", step)
        scope.reads[path] = None
        return Expression(text, Type("digest" if author else "text"), True, (path,), evaluate)

    def _require(self, scope: ActionScope) -> tuple[Require, ...]:
        found: list[Require] = []
        for number, each in enumerate(self.definition.require):
            here = self.place.of("require", number)
            try:
                check_code(each.code, here.of("code"))
                if not each.say:
                    raise here.of("say").refuse("a requirement says what is wrong")
                that = scope.expression(each.that, here.of("that"), BOOL)
            except Skip:
                continue
            found.append(Require(each.code, that, each.say))
        return tuple(found)

    def _depends(self, scope: ActionScope, protective: bool) -> tuple[Path, ...]:
        here = self.place.of("depends")
        if protective and self.definition.depends:
            here.fault("a protective action is judged on the present state", "leave out depends")
        found: list[Path] = []
        for number, text in enumerate(self.definition.depends):
            load = text.partition(".")[0]
            if isinstance(scope.loads.get(load), Listed):
                here.of(number).fault(
                    f"{load} is a list, and an index has no version",
                    f"let the author name what was seen: size({load}) == input.count in a "
                    "requirement",
                )
                continue
            try:
                found.append(scope.path(text, here.of(number)))
            except Skip:
                continue
        return tuple(dict.fromkeys(found))

    def _unique(self, scope: ActionScope) -> tuple[Unique, ...]:
        found: list[Unique] = []
        for number, (label, *segments) in enumerate(row or ("",) for row in self.definition.unique):
            here = self.place.of("unique", number)
            try:
                check_name(label, here, "a label", ())
                _, resolve, reads = scope.components(segments, here)
            except Skip:
                continue
            source = "/".join((label, *segments))
            found.append(Unique(label, source, reads, _slot(self.domain.name, label, resolve)))
        return tuple(found)

    def _reversible(self, effects: Effects, compiled: Sequence[Effect]) -> Reversible | None:
        definition, place = self.definition.reversible, self.place.of("reversible")
        if definition is None or len(compiled) != len(self.definition.effects):
            return None  # faults of the effects come first
        return self._kept(
            lambda: compile_reversible(effects, compiled, definition, place, self._excluded_path)
        )

    def _ignores(self) -> tuple[str, ...]:
        for number, each in enumerate(self.definition.ignores_holds):
            here = self.place.of("ignores_holds", number)
            if each.scope not in HOLD_SCOPES:
                here.fault(f"there is no scope {each.scope!r}", f"known: {', '.join(HOLD_SCOPES)}")
            if not each.reason:
                here.fault("an exception from holds gives its reason")
        return tuple(dict.fromkeys(each.scope for each in self.definition.ignores_holds))


def _slot(
    domain: str, label: str, resolve: Callable[[Env], list[Value]]
) -> Callable[[Env], list[Value]]:
    return lambda env: [domain, label, *resolve(env)]


def _periods(period: Expression | None, params: Sequence[Param]) -> Periods | None:
    dated = [each for each in params if each.selector == PERIOD]
    if period is None or not dated:
        return None
    return Periods(period.reads[0], _start_ms(period), schedule(dated))


def _start_ms(period: Expression) -> Callable[[Env], int]:
    """Return what gives the first millisecond of a period."""
    evaluate = period.evaluate
    if period.type.base == "date":
        return lambda env: evaluate(env) * DAY_MS
    return lambda env: month_start_ms(evaluate(env))


def _foreign(scope: ActionScope, domain: str) -> list[ForeignFields]:
    """Return what an action reads of kinds of other domains."""
    read: dict[str, dict[str, None]] = {}
    kinds = {name: kind for name, kind in scope.kinds.items() if kind.domain != domain}
    for name, kind in kinds.items():
        fields = read.setdefault(kind.name, {})
        for path in scope.reads:
            if path[0] == name and path[1:2] and path[1] in (*kind.fields, "status"):
                fields[path[1]] = None
    unique = {kind.name: kind for kind in kinds.values()}
    return [ForeignFields(unique[name], tuple(fields)) for name, fields in read.items()]
