"""A rule set's definition: structure checked, meaning not yet.

Both forms, the TOML that people write and the canonical CBOR that lies on the chain, give the same
``Definition``; it is what ``compile`` checks and resolves. Tables are ``((name, value), …)``.

Not here: how the forms are read (``structure``, ``forms``), and what is allowed (``compile``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from consensus.ledger.rules.lines import TomlPath

NUMBER_MAX: Final = 2**31 - 1
KINDS_MAX: Final = 64
FIELDS_MAX: Final = 64
DEFINITIONS_MAX: Final = 64
"""Definitions of one kind over time."""
STATUSES_MAX: Final = 32
FAMILIES_MAX: Final = 64
PARAMS_MAX: Final = 64
PARAM_VALUES_MAX: Final = 256
PARAM_VALUES_TOTAL_MAX: Final = 512
"""Dated values of all parameters of a rule set: the size of every action's schedule."""
ACTIONS_MAX: Final = 128
INPUTS_MAX: Final = 32
LOADS_MAX: Final = 16
LETS_MAX: Final = 32
REQUIREMENTS_MAX: Final = 32
EFFECTS_MAX: Final = 32
UNIQUE_MAX: Final = 8
INDEXES_MAX: Final = 8
PATHS_MAX: Final = 64
POLICY_NODES_MAX: Final = 32
"""Leaves and branches of a policy."""
POLICY_DEPTH_MAX: Final = 4
"""Leaves and branches inside one another."""
DOMAINS_MAX: Final = 64
SEPARATE_MAX: Final = 64
SEPARATE_ROLES_MAX: Final = 16
READ_RULES_MAX: Final = 16
"""Ways in to the records of one kind, or the accounts of one family."""


@dataclass(frozen=True, slots=True)
class FieldDef:
    """A field of a kind; ``type`` has the form ``ref:person``, ``money:USD``."""

    type: str
    optional: bool
    open: bool
    sealed_for: tuple[str, ...]
    group: str
    since: int


@dataclass(frozen=True, slots=True)
class StatusDef:
    """Statuses of a kind and the steps between them."""

    start: str
    steps: tuple[tuple[str, tuple[str, ...]], ...]
    stops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class IndexDef:
    """An index of a kind; ``condition`` is ``while`` in TOML."""

    field: str
    condition: str = ""


@dataclass(frozen=True, slots=True)
class ReadDef:
    """One way to be a reader of a kind or family: by role, agency, as oneself, or anybody."""

    role: str
    agency: str
    own: str
    """A field: ``self`` in TOML."""
    anyone: bool
    where: str


@dataclass(frozen=True, slots=True)
class KindDef:
    """A kind of record."""

    fields: tuple[tuple[str, FieldDef], ...]
    status: StatusDef | None
    hold_by: tuple[str, ...]
    """Other domains that may place and release holds on its records."""
    index: tuple[IndexDef, ...] = ()
    read: tuple[ReadDef, ...] | None = None
    """Who reads its records; None: the network's default."""
    record_class: str = ""
    """``class`` in TOML."""
    log_reads: bool = False


@dataclass(frozen=True, slots=True)
class AccountDef:
    """A family of accounts."""

    currency: str
    floor: int
    debit_by: tuple[str, ...]
    """Other domains whose actions may debit."""
    hold_by: tuple[str, ...]
    """Other domains that may place and release holds on its accounts."""
    read: tuple[ReadDef, ...] | None = None
    record_class: str = ""
    log_reads: bool = False


@dataclass(frozen=True, slots=True)
class DatedDef:
    """A parameter's value from a month or date on."""

    start: str
    value: Any


@dataclass(frozen=True, slots=True)
class ParamDef:
    """A dated parameter."""

    type: str
    by: str
    values: tuple[DatedDef, ...]


@dataclass(frozen=True, slots=True)
class ActorDef:
    """Who may call an action."""

    role: str
    own: str
    """A path: ``self`` in TOML."""
    where: str
    excluded: tuple[str, ...]
    """Paths: ``not`` in TOML."""
    excluded_agencies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RequireDef:
    """A requirement."""

    code: str
    that: str
    say: str


@dataclass(frozen=True, slots=True)
class IgnoreDef:
    """A scope of holds that does not block, and why."""

    scope: str
    reason: str


@dataclass(frozen=True, slots=True)
class CreateDef:
    """Make a record."""

    kind: str
    id: str | tuple[str, ...]
    values: tuple[tuple[str, str], ...]
    basis: tuple[str, ...]
    when: str = ""


@dataclass(frozen=True, slots=True)
class SetDef:
    """Change a loaded record."""

    record: str
    status: str
    fields: tuple[tuple[str, str], ...]
    basis: tuple[str, ...] | None
    when: str = ""


@dataclass(frozen=True, slots=True)
class MoveDef:
    """Move an amount between accounts."""

    source: str
    target: str
    amount: str
    when: str = ""


@dataclass(frozen=True, slots=True)
class ReserveDef:
    """Set an amount of an account aside."""

    id: str | tuple[str, ...]
    source: str
    amount: str
    expires: str = ""
    when: str = ""


@dataclass(frozen=True, slots=True)
class PostDef:
    """Move what was set aside, or a part of it."""

    id: str | tuple[str, ...]
    source: str
    target: str
    amount: str = ""
    keep: bool = False
    when: str = ""


@dataclass(frozen=True, slots=True)
class VoidDef:
    """Give back what was set aside."""

    id: str | tuple[str, ...]
    source: str
    when: str = ""


@dataclass(frozen=True, slots=True)
class WaterfallDef:
    """Pay the records of a list in order, then the rest."""

    source: str
    amount: str
    each: str
    up_to: str
    target: str
    rest: str = ""
    when: str = ""


@dataclass(frozen=True, slots=True)
class OpenDef:
    """Make an account."""

    account: str
    when: str = ""


@dataclass(frozen=True, slots=True)
class PlaceHoldDef:
    """Place a hold."""

    targets: tuple[str, ...]
    scopes: tuple[str, ...]
    until: str
    reason: str
    when: str = ""
    legal: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseHoldDef:
    """Release a hold."""

    target: str
    hold: str
    when: str = ""


AmountDef = MoveDef | ReserveDef | PostDef | VoidDef | WaterfallDef
EffectDef = CreateDef | SetDef | AmountDef | OpenDef | PlaceHoldDef | ReleaseHoldDef


@dataclass(frozen=True, slots=True)
class LeafDef:
    """Approvals by holders of one role, or of one person."""

    role: str = ""
    where: str = ""
    count: int = 1
    distinct: str = ""
    excluded: tuple[str, ...] = ()
    """Paths: ``not`` in TOML."""
    excluded_agencies: tuple[str, ...] = ()
    author: bool = False
    when: str = ""
    own: str = ""
    """A path: ``self`` in TOML."""


@dataclass(frozen=True, slots=True)
class BranchDef:
    """Some or all of several policies. ``key`` is where they stand in TOML, for errors."""

    needed: int
    among: tuple[PolicyDef, ...]
    distinct: str = ""
    when: str = ""
    key: str = field(default="among", compare=False)


PolicyDef = LeafDef | BranchDef


@dataclass(frozen=True, slots=True)
class ReviewDef:
    """Who reviews the use of an emergency form, within how many days."""

    role: str
    within_days: int


@dataclass(frozen=True, slots=True)
class EmergencyDef:
    """The emergency form of an action: who approves it (None: nobody), and who reviews it."""

    review: ReviewDef
    approvals: PolicyDef | None = None
    where: str = ""


@dataclass(frozen=True, slots=True)
class ReversibleDef:
    """Who may take an act back, until when, and what becomes of what cannot be had back."""

    by: str
    within_days: int
    shortfall: str
    """Template of the account that takes what a payee no longer has; empty: none."""
    unique: str
    """``keep`` or ``free``."""
    approvals: PolicyDef | None = None
    """Who must approve that."""


@dataclass(frozen=True, slots=True)
class ActionDef:
    """One action."""

    kernel: bool
    phase: str
    summary: str
    legal: str
    actor: ActorDef
    inputs: tuple[tuple[str, str], ...]
    load: tuple[tuple[str, str], ...]
    fresh: tuple[str, ...]
    depends: tuple[str, ...]
    require: tuple[RequireDef, ...]
    unique: tuple[tuple[str, ...], ...]
    effects: tuple[EffectDef, ...]
    ignores_holds: tuple[IgnoreDef, ...]
    lets: tuple[tuple[str, str], ...] = ()
    """Intermediate values: name, expression."""
    period: str = ""
    """A path: which month or date selects the values of parameters that are dated by it."""
    emergency: EmergencyDef | None = None
    approvals: PolicyDef | None = None
    objections: PolicyDef | None = None
    """Who may object to a proposal; None: who could approve it."""
    reversible: ReversibleDef | None = None
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Definition:
    """A whole rule set. ``where`` and ``lines`` only serve errors."""

    domain: str
    number: int
    legal_basis: str
    uses: tuple[tuple[str, tuple[str, ...]], ...]
    exports: tuple[str, ...]
    params: tuple[tuple[str, ParamDef], ...]
    kinds: tuple[tuple[str, KindDef], ...]
    accounts: tuple[tuple[str, AccountDef], ...]
    actions: tuple[tuple[str, ActionDef], ...]
    separate: tuple[tuple[str, ...], ...] = ()
    """Groups of roles of which no person may have two."""
    where: str = field(default="", compare=False)
    lines: Mapping[TomlPath, int] = field(default_factory=dict, compare=False, repr=False)
