"""A compiled rule book: what the executor obeys, resolved and type-checked beforehand.

``rules`` makes these objects from definitions; nothing here parses or checks rule text. Every
callable is pure: the same environment gives the same value or the same ``EvaluationError``.

An **environment** maps names to what conditions may read::

    env["input"]    input name -> value (absent optional input: None)
    env["params"]   parameter name -> value in force (a name without a value yet is absent)
    env["now"]      the block's time, milliseconds since 1970-01-01T00:00Z
    env["who"]      {"principal": 32 bytes, "agency": name, "role": text, "scope": {name: text}}
    env[<load>]     for each load, field -> value: every declared field, "status", "id" and "by"
                    of a record (absent optional field: None), FUNDS of an account; a list of
                    such records for the load of an index
    env[LETS]       where the action has intermediate values: ``environment.Lets``

A load may be any object with ``__getitem__``, so records can decode a leaf when it is first read.
The ``by`` leaf of a record is ``[[step, principal id, agency name], …]``: ``created`` first, then
each status ever entered, with its latest author.

Not here: authority, versions, holds, balances (the executor) and rule text (``rules``, ``expr``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from consensus.codec import Value
from consensus.ledger.schedule import Periods, Schedule
from consensus.ledger.terms import Reversible
from consensus.ledger.types import CHECKS, InputError, Type

if TYPE_CHECKING:
    from consensus.ledger.readers import Readers

Env = Mapping[str, Any]
Path = tuple[str, ...]
"""What an expression reads: ``("ent", "status")``, ``("input", "iban")``, ``("now",)``."""

HOLD_SCOPES: Final = ("all", "pay", "edit")
HOLD_TARGETS_MAX: Final = 16
"""Targets of one hold."""

SLOTS_MAX: Final = 64
"""Approvals that one policy may ask for, over all its leaves."""


class EvaluationError(Exception):
    """An expression has no value: overflow, division by zero, an absent value, an index.

    Never leaves the executor: it is a failed requirement.
    """


# --- expressions and references ---------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled expression.

    ``evaluate(env)`` returns a value of ``type`` (or None where ``optional``), or raises
    EvaluationError. ``reads`` lists every path it may read, in order of first appearance.
    """

    source: str
    type: Type
    optional: bool
    reads: tuple[Path, ...]
    evaluate: Callable[[Env], Value]


@dataclass(frozen=True, slots=True)
class Reference:
    """A record or account, named by a template such as ``entitlement/{input.entitlement}``.

    ``resolve(env)`` returns the id. For a record a single placeholder of type ref *is* the id;
    otherwise the id is the array of component values with references nested. For an account the
    id is ``[family, component, …]``; for an index ``[value]``. It raises EvaluationError if a
    component is absent.
    """

    space: str
    """``record``, ``account``, ``index`` or ``reservation``."""
    name: str
    """The kind, the account family, the index, or the domain that reserves."""
    source: str
    reads: tuple[Path, ...]
    resolve: Callable[[Env], list[Value]]


# --- kinds and accounts -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """One declared field. ``sealed_for`` fields hold a commitment (``stored`` says so)."""

    name: str
    type: Type
    """As declared; the type of the hidden value when ``sealed_for`` is not empty."""
    stored: Type
    """What the leaf holds and what expressions see."""
    optional: bool
    open: bool
    sealed_for: tuple[str, ...]
    group: str
    """Leaf that this field shares, or empty for a leaf of its own."""
    since: int
    """Number of the kind's definition that introduced the field; earlier records read null."""


FieldMap = Mapping[str, tuple[int, int]]
"""Index of a field's leaf in its layout, and of the field in the leaf; WHOLE if it is the leaf."""
WHOLE: Final = -1

Layout = Mapping[str, tuple[str, ...]]
"""Leaf name -> the fields it holds, in ascending leaf order, with the kernel's leaves ``basis``,
``by``, ``status`` and ``~holds`` (which hold no declared field). A leaf named after its one field
holds the value itself; a group's leaf holds an array of its fields in declared order."""


@dataclass(frozen=True, slots=True)
class Index:
    """What the kernel keeps of a kind: which records have which value in ``field``."""

    name: str
    """``kind.field``; the field may be ``status``."""
    field: str
    condition: Expression | None
    """A record is listed while this is true. It reads the record's fields by their bare names."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of record. ``layouts[d - 1]`` is the layout of definition ``d``."""

    domain: str
    name: str
    definition: int
    """The newest definition: what the next write lays a record out as."""
    fields: Mapping[str, Field]
    layouts: tuple[Layout, ...]
    places: tuple[FieldMap, ...]
    """``places[d - 1]``: where the fields, ``status``, ``basis`` and ``by`` lie in ``d``."""
    leaf_of: Mapping[str, str]
    """Field (or ``status``) -> its leaf in the newest layout."""
    start: str
    """The status of a new record; empty if the kind has no status (the leaf is null)."""
    steps: Mapping[str, tuple[str, ...]]
    """Every status -> the statuses it may move to."""
    stops: tuple[str, ...]
    """Statuses that a protective action may move to."""
    exported: tuple[str, ...]
    """Fields (with ``status``) that rule sets of other domains may read."""
    indexes: tuple[Index, ...] = ()
    readers: Readers | None = None
    """Who reads its records over the client protocol; None: the network's default."""

    @property
    def leaves(self) -> Layout:
        """The newest layout."""
        return self.layouts[-1]


@dataclass(frozen=True, slots=True)
class AccountFamily:
    """Accounts ``[name, component, …]`` of one currency."""

    domain: str
    name: str
    currency: str
    floor: int
    """Lowest balance a debit may leave, in minor units."""
    debit_by: tuple[str, ...]
    """Domains whose actions may debit: the owner first, then those it permits."""
    readers: Readers | None = None
    """Who reads its accounts over the client protocol; None: the network's default."""


# --- actions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Input:
    """One declared input."""

    name: str
    type: Type
    optional: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """That a load takes all records listed under one value of an index, not one record."""

    index: Index
    most: int
    """More of them are ``LIMIT``."""
    by: str
    """The field by which they ascend, absent values last; empty: by their ids alone."""


@dataclass(frozen=True, slots=True)
class Load:
    """A record or account to read under ``name``: kind or family is set. ``optional``: if absent,
    none of its fields has a value (None). With ``listing`` it is a list of records of ``kind``,
    with ``account`` a reservation on it."""

    name: str
    reference: Reference
    kind: Kind | None
    family: AccountFamily | None
    optional: bool = False
    listing: Listing | None = None
    account: Reference | None = None


@dataclass(frozen=True, slots=True)
class Require:
    """A condition with the code and the sentence that a refusal shows."""

    code: str
    that: Expression
    say: str


@dataclass(frozen=True, slots=True)
class Let:
    """A named intermediate value."""

    name: str
    value: Expression


@dataclass(frozen=True, slots=True)
class Actor:
    """Who may call: holders of ``role``, or the person whose record it is (``self_path``).

    ``self_path`` gives a ``ref`` (a person's record), a ``token`` (a person's subject) or a
    ``digest`` (a principal). ``not_paths`` give the same, and must not name the author;
    ``not_agencies`` give names of agencies that must not be the author's. None forbids nobody.
    """

    role: str
    where: Expression | None
    self_path: Expression | None
    not_paths: tuple[Expression, ...]
    not_agencies: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """``count`` approvals by holders of ``role``, one principal each; or that of one person.

    ``not_paths`` and ``not_agencies`` are as those of an actor, of the one who approves. The author
    counts only with ``author``, under whichever key or principal.
    """

    index: int
    """Position among the leaves of its policy, in the order they are written."""
    role: str
    where: Expression | None
    """``who`` is the approver; intermediate values are the call's."""
    count: int
    distinct: str
    """``person``, ``agency`` or empty."""
    scopes: tuple[tuple[int, str], ...]
    """Where the approver must differ from others: number of the leaf or branch, what is
    compared."""
    author: bool
    not_paths: tuple[Expression, ...]
    not_agencies: tuple[Expression, ...]
    not_author_agency: bool
    when: Expression | None
    self_path: Expression | None = None
    """Who approves, instead of a role: the person whom it names."""


@dataclass(frozen=True, slots=True)
class Branch:
    """``needed`` of the policies ``among`` whose ``when`` is true; 0: all of these."""

    needed: int
    among: tuple[Policy, ...]
    distinct: str
    when: Expression | None


Policy = Leaf | Branch
"""Who must approve. A leaf or branch whose ``when`` is false is as if it were not written."""


@dataclass(frozen=True, slots=True)
class Create:
    """Make a record with status ``kind.start``. ``id`` is None for ``{tx}``."""

    kind: Kind
    id: Reference | None
    assignments: tuple[tuple[str, Expression], ...]
    """In the kind's declared order; fields left out are optional and null."""
    basis: tuple[Path, ...]
    index: int
    """Position among the action's creates: the effect index of a ``{tx}`` id."""
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class Assign:
    """The effect ``set`` on a loaded record. ``status`` is empty when it stays."""

    load: str
    kind: Kind
    status: str
    assignments: tuple[tuple[str, Expression], ...]
    basis: tuple[Path, ...] | None
    """Their versions replace the record's basis; None keeps it."""
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """Move an amount >= 0 of one currency between existing accounts."""

    source: Reference
    source_family: AccountFamily
    target: Reference
    target_family: AccountFamily
    amount: Expression
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class Reserve:
    """Set an amount >= 0 of an account aside under an id that was never used before.

    ``id`` gives ``[domain, component, …]``. ``expires`` (time, or date: its first moment in UTC) is
    when it counts no longer; None or an absent value: it does not end by itself.
    """

    id: Reference
    source: Reference
    source_family: AccountFamily
    amount: Expression
    expires: Expression | None
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class Post:
    """Move a reservation of ``source`` to ``target``: all, or ``amount`` of it.

    What is not moved is given back, or with ``keep`` stays reserved.
    """

    id: Reference
    source: Reference
    source_family: AccountFamily
    target: Reference
    target_family: AccountFamily
    amount: Expression | None
    keep: bool
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class Void:
    """Give a reservation of ``source`` back."""

    id: Reference
    source: Reference
    source_family: AccountFamily
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class Waterfall:
    """Pay ``amount`` >= 0 in order: to each record of a list up to a bound, then the rest.

    ``up_to`` (>= 0) and ``target`` are evaluated once for each record of the load ``each``, which
    they read under the name ``each``. Without ``rest`` what is left over stays where it is.
    """

    source: Reference
    source_family: AccountFamily
    amount: Expression
    each: str
    up_to: Expression
    target: Reference
    target_family: AccountFamily
    rest: Reference | None
    rest_family: AccountFamily | None
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class OpenAccount:
    """Make an account with balance 0."""

    account: Reference
    family: AccountFamily
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class PlaceHold:
    """Place a hold of ``scopes`` on records and accounts."""

    targets: tuple[Reference, ...]
    scopes: tuple[str, ...]
    until: Expression | None
    """When the hold lapses (time), or None: until released."""
    legal: str
    reason: str
    index: int
    """Position among the action's placings: the effect index of the hold's id."""
    when: Expression | None = None


@dataclass(frozen=True, slots=True)
class ReleaseHold:
    """Release one hold (``hold`` gives its id, a digest) of ``target``."""

    target: Reference
    hold: Expression
    when: Expression | None = None


# An effect takes place if ``when`` is None or true; otherwise it does nothing and needs nothing.
Effect = (
    Create
    | Assign
    | Move
    | Reserve
    | Post
    | Void
    | Waterfall
    | OpenAccount
    | PlaceHold
    | ReleaseHold
)


@dataclass(frozen=True, slots=True)
class Unique:
    """A slot ``[domain, label, component, …]`` that only one transaction may take."""

    label: str
    source: str
    reads: tuple[Path, ...]
    resolve: Callable[[Env], list[Value]]


@dataclass(frozen=True, slots=True)
class Param:
    """A dated parameter. ``values`` are ``(from_ms, value)`` in ascending order of time."""

    name: str
    type: Type
    selector: str
    """Which date selects the value: ``now`` or ``period``."""
    values: tuple[tuple[int, Value], ...]


@dataclass(frozen=True, slots=True)
class ReviewDue:
    """Who reviews the use of an emergency form, and until when its power lasts without."""

    role: str
    within_ms: int


@dataclass(frozen=True, slots=True)
class Action:
    """One action, ready to execute: loads, actor, requirements, then effects in order."""

    domain: str
    name: str
    action_id: bytes
    protective: bool
    kernel: bool
    """True in the charter: the kernel performs it; ``effects`` is empty."""
    summary: str
    legal: str
    actor: Actor
    inputs: tuple[Input, ...]
    loads: tuple[Load, ...]
    fresh: tuple[str, ...]
    """Loads whose basis must not have moved."""
    depends: tuple[Path, ...]
    """``(load, field)`` pairs that must not have changed since the author read them."""
    require: tuple[Require, ...]
    unique: tuple[Unique, ...]
    effects: tuple[Effect, ...]
    """In the order the rule set declares them."""
    ignores_holds: tuple[str, ...]
    """Scopes of holds that do not block this action."""
    schedule: Schedule
    """Values of the parameters that the block's time selects; ``periods`` has the others."""
    reads: tuple[Path, ...]
    """Every path that any part of the action reads, in order of first appearance."""
    lets: tuple[Let, ...] = ()
    """Intermediate values; each may use those before it."""
    periods: Periods | None = None
    approvals: Policy | None = None
    """Who must approve beside the author; None: nobody."""
    objections: Policy | None = None
    """Whoever could fill a leaf of it may object to a proposal; None: of ``approvals``."""
    review: ReviewDue | None = None
    """What an emergency form asks for afterwards; None: it is none."""
    reversible: Reversible | None = None
    quiet: bool = False
    """Every refusal after NOT_AUTHORIZED looks alike to people without read rights."""

    def bind(self, values: Sequence[Value]) -> dict[str, Value]:
        """Return ``env["input"]`` for the values of a call, in declared order.

        Raises:
            InputError: too few or many values, or one is not of its type; ``name`` says which.
        """
        if len(values) != len(self.inputs):
            raise InputError(f"{len(values)} inputs, expected {len(self.inputs)}")
        bound: dict[str, Value] = {}
        for each, value in zip(self.inputs, values, strict=True):
            if value is not None or not each.optional:
                try:
                    CHECKS[each.type.base](each.type, value)
                except InputError as error:
                    raise InputError(error.reason, each.name) from None
            bound[each.name] = value
        return bound


# --- rule sets --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One numbered, immutable version of a domain's rules."""

    domain: str
    number: int
    encoded: bytes
    """The canonical definition, as it lies on the chain."""
    legal_basis: str
    kinds: Mapping[str, Kind]
    families: Mapping[str, AccountFamily]
    params: Mapping[str, Param]
    actions: Mapping[str, Action]
    uses: tuple[tuple[str, tuple[str, ...]], ...]
    """Other domain -> what this rule set reads there (``kind.field``, ``kind.*``, ``kind``)."""
    exports: tuple[str, ...]
    separate: Mapping[str, tuple[str, ...]]
    """Role -> roles that nobody who has it may have; what this rule set says of it."""


@dataclass(frozen=True)
class Rulebook:
    """The active rule sets of all domains. Kinds and account families have global names."""

    rule_sets: Mapping[str, RuleSet]

    @cached_property
    def kinds(self) -> Mapping[str, Kind]:
        """Every kind by its name."""
        return {name: k for rules in self.rule_sets.values() for name, k in rules.kinds.items()}

    @cached_property
    def families(self) -> Mapping[str, AccountFamily]:
        """Every account family by its name."""
        return {name: f for rules in self.rule_sets.values() for name, f in rules.families.items()}

    @cached_property
    def separate(self) -> Mapping[str, Mapping[str, str]]:
        """Role -> role that nobody who has it may have -> domain of a rule set that says so."""
        found: dict[str, dict[str, str]] = {}
        for rules in self.rule_sets.values():
            for role, others in rules.separate.items():
                for other in others:
                    found.setdefault(role, {}).setdefault(other, rules.domain)
        return found

    @cached_property
    def read_by_rules(self) -> tuple[Kind | AccountFamily, ...]:
        """The kinds and account families that say who reads them."""
        owners: list[Kind | AccountFamily] = [*self.kinds.values(), *self.families.values()]
        return tuple(owner for owner in owners if owner.readers is not None)

    def action(self, domain: str, name: str) -> Action | None:
        """Return the active action, or None if the domain or the action does not exist."""
        rules = self.rule_sets.get(domain)
        return None if rules is None else rules.actions.get(name)
