"""What somebody may do now, and through which chain; and whether somebody may read something.

Judged here by the ledger's own code on leaves that were each proved: nothing is taken from a node's
word. The leaves are asked for as they are needed (``Needed``); they may be of neighbouring heights,
the result says of which.

What cannot be enumerated is said, not passed over: roles are looked for by the names that the rules
in force know, grants and keys by what the caller names or a node lists; a node can leave out of
its list, not add to it.

Not here: asking (``client``), and ``where`` conditions, which depend on each act.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, cast

from comity.drafting import fields_of
from comity.results import Entry
from consensus import codec, genesis
from consensus.codec import Value
from consensus.ledger import layout
from consensus.ledger.authority import Power, Standing, holder_fault
from consensus.ledger.delegation import Chain
from consensus.ledger.layout import ACTIVE, Agency, Paths, Principal, in_force
from consensus.ledger.model import AccountFamily, Action, Kind, Rulebook
from consensus.ledger.readers import Reader, Row, Verdict, account_row
from consensus.ledger.rules.rolenames import roles_in, roles_of
from consensus.ledger.view import RulesInForce, View
from consensus.protocol import StateKey
from consensus.state.record import encode_single

GRANTS_MAX: Final = 256
"""Grants looked at for one principal."""
KINDS: Final = ("official", "system", "citizen")
_PRESENT: Final = b"\1" * 32
_ABSENT: Final = bytes(32)


class Needed(Exception):
    """A leaf has to be read before the judgement can go on."""

    def __init__(self, key: StateKey) -> None:
        super().__init__(key)
        self.key = key


class _Row(NamedTuple):
    vh: bytes
    value: bytes


class _NamingPaths(Paths):
    """Key paths that remember what they stand for."""

    __slots__ = ("names",)

    def __init__(self, chain: bytes) -> None:
        self.names: dict[bytes, StateKey] = {}
        super().__init__(chain)

    def __call__(self, space: str, components: Sequence[Value]) -> bytes:
        kh = super().__call__(space, components)
        self.names[kh] = StateKey(space, tuple(components))
        return kh


class Leaves:
    """Leaves that were read and proved, as the ledger's code reads them.

    Args:
        chain: of the network.
        book: the rules in force.
        now_ms: the time that counts.
    """

    def __init__(self, chain: bytes, book: Rulebook, now_ms: int) -> None:
        self.book = book
        self.now_ms = now_ms
        self.entries: list[Entry] = []
        self._paths = _NamingPaths(chain)
        self._rows: dict[bytes, _Row] = {}

    def give(self, entry: Entry) -> None:
        """Take a leaf that was read, or its proved absence."""
        kh = self._paths(entry.key.namespace, entry.key.components)
        if entry.present:
            value = encode_single(entry.version, bytes(16), codec.encode(entry.value))
            self._rows[kh] = _Row(_PRESENT, value)
        else:
            self._rows[kh] = _Row(_ABSENT, b"")
        self.entries.append(entry)

    def get(self, kh: bytes) -> _Row:
        """Return a row as ``view.Source`` does; raises Needed."""
        found = self._rows.get(kh)
        if found is None:
            raise Needed(self._paths.names[kh])
        return found

    def view(self) -> View:
        """Return a view of these leaves."""
        view = View(self, self._paths)
        view.book = self.book
        view.in_force = {
            name: RulesInForce(each.number, self._paths("rules", [name, each.number]), _PRESENT)
            for name, each in self.book.rule_sets.items()
        }
        return view

    def read(self, space: str, components: Sequence[Value]) -> Any:
        """Return the object of a leaf, None where it is absent; raises Needed."""
        found = self.view().single(space, components)
        return None if found is None else found.value

    def agency(self, name: str) -> Agency:
        """Return an agency or who took its place; raises Needed."""

        def read(name: str) -> Agency:
            return cast(Agency, self.read("agency", [name]))

        return in_force(read(name), read)


# --- what somebody may do ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RoleHeld:
    """A role that was given. ``fault`` says why it gives no power now; empty if it does.

    ``actions`` and ``approves`` are what it is asked for: acts, and acts of others; ``also`` says
    in words what else: to object, to review, to take back. ``due_ms`` is when it ends by itself
    unless an emergency act is found justified before.
    """

    role: str
    scope: Mapping[str, str]
    from_ms: int
    until_ms: int | None
    due_ms: int | None
    fault: str
    actions: tuple[str, ...]
    approves: tuple[str, ...]
    also: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Link:
    """One link of a chain, the office first: ``what`` is ``office`` or ``grant``.

    ``due_ms`` is that of a role.
    """

    what: str
    id: bytes
    agency: str
    role: str
    when: str
    from_ms: int
    until_ms: int | None
    due_ms: int | None
    fault: str


@dataclass(frozen=True, slots=True)
class GrantHeld:
    """Power passed on to somebody. ``fault`` names the link that carries nothing; empty if all do.

    Args:
        chain: from the office to the grant that is held.
        role, scope: the office's, which count.
    """

    id: bytes
    chain: tuple[Link, ...]
    role: str
    scope: Mapping[str, str]
    actions: tuple[str, ...]
    fault: str


@dataclass(frozen=True, slots=True)
class KeyHeld:
    """A key of a principal. ``fault`` says why it may not sign; empty if it may."""

    key: bytes
    since_ms: int
    until_ms: int | None
    fault: str


@dataclass(frozen=True, slots=True)
class Authority:
    """What a principal may do, as of proved leaves.

    Args:
        kind: ``official``, ``system`` or ``citizen``.
        agency: the one that counts; ``agency_was`` the one its leaf names, if that left.
        fault: why the principal may do nothing at all; empty if it may.
        oneself: actions that everybody does as oneself, where the record names them.
        gaps: what could not be looked at, in words.
        heights: the lowest and highest height of what was read.
    """

    principal: bytes
    kind: str
    agency: str
    agency_was: str
    fault: str
    keys: tuple[KeyHeld, ...]
    roles: tuple[RoleHeld, ...]
    grants: tuple[GrantHeld, ...]
    oneself: tuple[str, ...]
    gaps: tuple[str, ...]
    heights: tuple[int, int]
    time_ms: int

    @property
    def actions(self) -> tuple[str, ...]:
        """Actions it may call now by a role or a grant, if their conditions hold."""
        if self.fault:
            return ()
        found = [name for each in self.roles if not each.fault for name in each.actions]
        found += [name for each in self.grants if not each.fault for name in each.actions]
        return tuple(sorted(dict.fromkeys(found)))


class _Holder(NamedTuple):
    """A principal without a key, as far as powers look at it."""

    principal: Principal
    agency: Agency
    key: bytes = b""


def roles_known(book: Rulebook) -> list[str]:
    """Return every role that the rules in force ask for or let read, ascending."""
    found: dict[str, None] = {}
    for rule_set in book.rule_sets.values():
        for action in rule_set.actions.values():
            found.update(dict.fromkeys(roles_of(action)))
    for owner in book.read_by_rules:
        for rule in () if owner.readers is None else owner.readers.rules:
            found.update(dict.fromkeys(rule.roles))
    return sorted(found)


def judge(
    leaves: Leaves,
    id_: bytes,
    keys: Iterable[bytes],
    grants: Iterable[bytes],
    gaps: Sequence[str],
) -> Authority | None:
    """Return what a principal may do by the leaves read so far; None if there is no such one.

    Raises:
        Needed: a leaf is still to be read.
    """
    principal: Principal | None = leaves.read("principal", [id_])
    if principal is None:
        return None
    agency = leaves.agency(principal.agency)
    fault = ""
    if principal.status != ACTIVE:
        fault = "the principal is suspended"
    elif agency.status != ACTIVE:
        fault = f"agency {agency.name} is suspended"
    holder = cast(Standing, _Holder(principal, agency))
    actions = [each for rules in leaves.book.rule_sets.values() for each in rules.actions.values()]
    roles = [_role(leaves, holder, name, actions) for name in roles_known(leaves.book)]
    held = [_grant(leaves, holder, each) for each in grants]
    heights = [each.height for each in leaves.entries]
    return Authority(
        principal=id_,
        kind=KINDS[principal.kind],
        agency=agency.name,
        agency_was=principal.agency if principal.agency != agency.name else "",
        fault=fault,
        keys=tuple(each for each in (_key(leaves, id_, key) for key in keys) if each is not None),
        roles=tuple(each for each in roles if each is not None),
        grants=tuple(each for each in held if each is not None),
        oneself=tuple(_name(each) for each in actions if each.actor.self_path is not None),
        gaps=tuple(gaps),
        heights=(min(heights), max(heights)),
        time_ms=leaves.now_ms,
    )


def _name(action: Action) -> str:
    return f"{action.domain}.{action.name}"


def _key(leaves: Leaves, principal: bytes, key: bytes) -> KeyHeld | None:
    found: layout.Key | None = leaves.read("key", [key])
    if found is None or found.principal != principal:
        return None
    return KeyHeld(key, found.since_ms, found.until_ms, found.fault(leaves.now_ms))


def _role(
    leaves: Leaves, holder: Standing, name: str, actions: Sequence[Action]
) -> RoleHeld | None:
    given: layout.Role | None = leaves.read("role", [holder.principal.id, name])
    if given is None:
        return None
    power = Power(leaves.view(), holder, name, leaves.now_ms)
    return RoleHeld(
        name,
        {pair[0]: pair[1] for pair in given.scope},
        given.from_ms,
        given.until_ms,
        given.suspends_at_ms,
        "; ".join(_fault_word(each) for each in power.missing),
        tuple(_name(each) for each in actions if each.actor.role == name),
        tuple(_name(each) for each in actions if name in roles_in(each.approvals)),
        tuple(said for each in actions for said in _also(each, name)),
    )


def _also(action: Action, role: str) -> list[str]:
    """Return what a role is asked for beside acting and approving, in words."""
    said = ["objects to"] if role in roles_in(action.objections) else []
    if action.review is not None and action.review.role == role:
        said.append("reviews")
    terms = action.reversible
    if terms is not None and terms.role == role:
        said.append("takes back")
    consent = None if terms is None else terms.approvals
    if consent is not None and role in roles_in(consent.policy):
        said.append("consents to taking back")
    return [f"{verb} {_name(action)}" for verb in said]


def _grant(leaves: Leaves, holder: Standing, id_: bytes) -> GrantHeld | None:
    chain = Chain(leaves.view(), id_, leaves.now_ms)
    if not chain.grants:
        return None
    grant = chain.grants[0]
    fault = chain.fault
    missing = holder_fault(chain, holder, grant)
    if missing is not None and missing[0] == "grant":
        return None  # somebody else's
    links = []
    if chain.office is not None:
        office: layout.Role | None = leaves.read("role", [chain.office, chain.role])
        why = "missing" if office is None else office.fault(leaves.now_ms)
        start = 0 if office is None else office.from_ms
        end = None if office is None else office.until_ms
        due = None if office is None else office.suspends_at_ms
        last = chain.grants[-1]
        links.append(
            Link("office", chain.office, last.agency, chain.role, "", start, end, due, why)
        )
    for each in reversed(chain.grants):
        agency = leaves.agency(each.agency)
        why = each.fault(leaves.now_ms) or ("" if agency.status == ACTIVE else "agency suspended")
        times = each.from_ms, each.until_ms, each.suspends_at_ms
        links.append(Link("grant", each.id, agency.name, "", each.when, *times, why))
    return GrantHeld(
        id_,
        tuple(links),
        chain.role,
        {pair[0]: pair[1] for pair in chain.scope},
        tuple(grant.actions),
        _fault_word(fault if fault is not None else missing) if fault or missing else "",
    )


def _fault_word(fault: Value) -> str:
    """Return a link of a refusal's detail in words: ``role x: expired``."""
    what, *rest = fault
    if what == "apart":
        return f"kept apart from {rest[1]}"
    return f"{what} {' '.join(each for each in rest[:-1] if type(each) is str)}: {rest[-1]}"


# --- whether somebody may read ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Access:
    """Whether a principal may read something, and by which rule.

    ``allowed`` is None where it depends on what is in the record, which the caller may not read.
    ``rules`` has each read rule with its verdict; empty where the default of the network counts.
    """

    principal: bytes
    key: StateKey
    allowed: bool | None
    why: str
    rules: tuple[Verdict, ...]
    height: int
    time_ms: int


def judge_access(leaves: Leaves, id_: bytes, key: StateKey, entry: Entry | None) -> Access | None:
    """Return whether a principal may read a record or account; None if there is no such principal.

    Args:
        entry: as it was read; None if the caller may not read it.

    Raises:
        Needed: a leaf is still to be read.
    """
    principal: Principal | None = leaves.read("principal", [id_])
    if principal is None:
        return None
    agency = leaves.agency(principal.agency)
    height = max(each.height for each in leaves.entries)

    def verdict(allowed: bool | None, why: str, rules: Iterable[Verdict] = ()) -> Access:
        return Access(id_, key, allowed, why, tuple(rules), height, leaves.now_ms)

    if principal.status != ACTIVE or agency.status != ACTIVE:
        return verdict(False, "principal or agency is suspended")
    owner = _owner(leaves.book, key)
    if owner is None or owner.readers is None:
        return verdict(*_by_default(principal, key, entry))
    reader = Reader(leaves.book, principal, agency, leaves.now_ms, leaves.read)
    row = _row(owner, key, entry)
    rules = reader.explain(owner, row)
    if entry is None:
        level = reader.level(owner)
        words = ("no rule lets in", "it depends on what is in it, which you may not read", "")
        return verdict((False, None, True)[level], words[level] or "a rule lets in", rules)
    if not entry.present:
        allowed = reader.may_see_absence(owner, row)
        return verdict(allowed, "it is absent" + ("" if allowed else ", which is not shown"), rules)
    allowed = reader.may_read(owner, row)
    return verdict(allowed, "a rule lets in" if allowed else "no rule lets in", rules)


def _owner(book: Rulebook, key: StateKey) -> Kind | AccountFamily | None:
    name = str(key.components[0]) if key.components else ""
    if key.namespace == "record":
        return book.kinds.get(name)
    return book.families.get(name) if key.namespace == "account" else None


def _row(owner: Kind | AccountFamily, key: StateKey, entry: Entry | None) -> Row:
    if isinstance(owner, Kind):
        fields = fields_of(entry, owner) if entry is not None and entry.present else {}
        return Row([*key.components[1:]], None, None).set(fields)
    row = account_row(key.components, None)
    if entry is not None and entry.present:
        row.set({"balance": entry.value[1]})
    return row


def _by_default(
    principal: Principal, key: StateKey, entry: Entry | None
) -> tuple[bool | None, str]:
    if principal.kind != genesis.CITIZEN:
        return True, "officials and systems of members read what has no read rules"
    own = principal.person
    if key.namespace != "record" or own is None:
        return False, "citizens read records that name them"
    if [*key.components] == ["person", *own]:
        return True, "it is the own person record"
    if entry is None:
        return None, "it depends on what is in it, which you may not read"
    named = any(codec.encode(each) == codec.encode(own) for each in entry.fields.values())
    return named, "it names this person" if named else "it does not name this person"
