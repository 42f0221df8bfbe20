"""Who may read what: read rules of kinds and account families, judged for one reader.

A kind or family may say who reads its records or accounts. A *reader* is somebody as of one
certified state: a principal in force with an agency, roles and scopes. Each rule is one way to be
let in: by role, by agency, as the person concerned (``self``), or as anybody the network knows
(``anyone``); it may have a condition on reader, time and record. One rule that lets in suffices.
Without rules the default of this network counts: officials and systems of member agencies read,
citizens only what names them.

What of this does not depend on the record is judged once a kind, so most rows cost a lookup; a row
costs at most one condition a rule and role, whose number compiling bounds. A condition without a
value lets nobody in.

The same functions explain a verdict (``explain``), so what is said is what was judged.

Not here: which requests go through this (``node.api.access``), and rule text (``rules.readers``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from consensus import codec, genesis
from consensus.codec import Value, same
from consensus.ledger.layout import Agency, Principal, Role
from consensus.ledger.model import AccountFamily, EvaluationError, Expression, Kind, Rulebook
from consensus.ledger.records import decode_field
from consensus.ledger.types import InputError
from consensus.state.record import StoredRecord, decode_row, decode_single

ROLES_MAX: Final = 64
"""Roles that one rule stands for."""
RECORD: Final = "record"
ACCOUNT: Final = "account"
"""What conditions of kinds and of families call what is read."""

NEVER: Final = 0
BY_ROW: Final = 1
ALWAYS: Final = 2
"""Whether a reader is let in to all rows of a kind, to some by what is in them, or to none."""

ReadLeaf = Callable[[str, Sequence[Value]], Any]
"""Returns the object of a single leaf (``layout``), None where it is absent."""


@dataclass(frozen=True, slots=True)
class ReadRule:
    """One way to be let in. Exactly one of roles, agency, own and anyone is there.

    ``roles`` are those that the author's text stands for; ``agency`` is ``*`` for every member;
    ``own`` gives who is concerned; ``by_id`` says that nothing but the id is read of the record.
    """

    source: str
    """The rule as people read it: ``role benefits.* where …``."""
    roles: tuple[str, ...]
    agency: str
    own: Expression | None
    anyone: bool
    where: Expression | None
    by_id: bool


@dataclass(frozen=True, slots=True)
class Readers:
    """Who reads a kind or family. ``restricted``: not even that something is absent is shown to
    those who could not read it; ``logged``: nodes record who read it."""

    rules: tuple[ReadRule, ...]
    restricted: bool
    logged: bool


class Row(Mapping[str, Value]):
    """The fields of a stored record or account, each decoded when it is asked for."""

    __slots__ = ("_fields", "_id", "_kind", "_stored")

    def __init__(self, id_: list[Value], kind: Kind | None, stored: StoredRecord | None) -> None:
        self._id = id_
        self._kind = kind
        self._stored = stored
        self._fields: dict[str, Value] = {"id": id_}

    def __getitem__(self, field: str) -> Value:
        """Return a field's value, None where it has none."""
        if field not in self._fields:
            self._fields[field] = self._decode(field)
        return self._fields[field]

    def _decode(self, field: str) -> Value:
        kind, stored = self._kind, self._stored
        if kind is None or stored is None:
            return None
        places = kind.places[min(max(stored.definition, 1), len(kind.places)) - 1]
        place = places.get(field)
        if place is None:
            return None
        value = decode_field(stored.values[place[0]])
        return value if place[1] < 0 or value is None else value[place[1]]

    def __iter__(self) -> Any:
        """Iterate over what was asked for so far."""
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def set(self, fields: Mapping[str, Value]) -> Row:
        """Return this with fields that are known otherwise: of an account, or as read."""
        self._fields.update(fields)
        return self


def record_row(kind: Kind, components: Sequence[Value], raw: bytes | None) -> Row:
    """Return what rules see of a record; of one that is absent, its id alone.

    Args:
        components: of its place, ``[kind, *id]``.
        raw: its row in the store.
    """
    return Row([*components[1:]], kind, None if raw is None else decode_row(raw))


def account_row(components: Sequence[Value], raw: bytes | None) -> Row:
    """Return what rules see of an account; its ``id`` is what follows the family."""
    id_ = [*components[1:]]
    row = Row(id_, None, None)
    if raw is None:
        return row
    return row.set({"balance": codec.parse(decode_single(raw)[2], "account")[1]})


class Verdict(NamedTuple):
    """What one rule came to: whether it lets in, and why or why not, in words."""

    source: str
    lets_in: bool
    why: str


class _Way(NamedTuple):
    """A rule that may let the reader in: what its conditions see of the reader."""

    rule: ReadRule
    who: Mapping[str, Value]


class Reader:
    """Somebody who reads, as of one state.

    Args:
        book: rule sets in force.
        principal, agency: who; both in force, the agency being the one that stands for theirs.
        now_ms: chain time of the state.
        leaf: reads that state.
    """

    __slots__ = (
        "_leaf",
        "_logs_any",
        "_roles",
        "_sees_all",
        "_ways",
        "agency",
        "book",
        "now_ms",
        "principal",
    )

    def __init__(
        self, book: Rulebook, principal: Principal, agency: Agency, now_ms: int, leaf: ReadLeaf
    ) -> None:
        self.book = book
        self.principal = principal
        self.agency = agency
        self.now_ms = now_ms
        self._leaf = leaf
        self._roles: dict[str, tuple[Role | None, str]] = {}
        self._ways: dict[tuple[str, str], tuple[int, tuple[_Way, ...]]] = {}
        self._sees_all: bool | None = None
        self._logs_any: bool | None = None

    @property
    def is_member(self) -> bool:
        """Whether this is an official or system of a member agency."""
        return self.principal.kind != genesis.CITIZEN

    @property
    def sees_all(self) -> bool:
        """Whether no read rule in force keeps anything from this reader."""
        if self._sees_all is None:
            self._sees_all = all(self.level(owner) == ALWAYS for owner in self.book.read_by_rules)
        return self._sees_all

    @property
    def logs_any(self) -> bool:
        """Whether rules in force want any reading recorded."""
        if self._logs_any is None:
            owners = self.book.read_by_rules
            self._logs_any = any(
                each.readers is not None and each.readers.logged for each in owners
            )
        return self._logs_any

    # --- verdicts

    def level(self, owner: Kind | AccountFamily) -> int:
        """Return NEVER, BY_ROW or ALWAYS for a kind or family that has rules."""
        return self._known(owner)[0]

    def may_read(
        self, owner: Kind | AccountFamily, row: Mapping[str, Value], *, own: bool = True
    ) -> bool:
        """Return whether a row of a kind or family with rules may be shown.

        Args:
            own: whether being the person concerned counts.
        """
        level, ways = self._known(owner)
        if level == ALWAYS:
            return True
        return any(self._passes(way, row) == "" for way in ways if own or way.rule.own is None)

    def may_list(self, owner: Kind, field: str, value: Value) -> bool:
        """Return whether it may be shown which records of a kind have ``value`` in ``field``.

        Whoever could read every one of them, by a rule that looks at nothing else of a record.
        """
        level, ways = self._known(owner)
        if level == ALWAYS:
            return True
        row = Row([], None, None).set({field: value})
        return any(_rests_on(way.rule, field) and not self._passes(way, row) for way in ways)

    def may_see_absence(self, owner: Kind | AccountFamily, row: Row) -> bool:
        """Return whether it may be shown that a row is absent; ``row`` has its id alone.

        Whoever could read it under that id wherever it existed, and of what is not restricted
        every member.
        """
        level, ways = self._known(owner)
        readers = owner.readers
        if level == ALWAYS or readers is None or (not readers.restricted and self.is_member):
            return True
        return any(self._passes(way, row) == "" for way in ways if way.rule.by_id)

    def explain(self, owner: Kind | AccountFamily, row: Row) -> list[Verdict]:
        """Return what each rule comes to for a row, in their order."""
        readers = owner.readers
        out: list[Verdict] = []
        for rule in () if readers is None else readers.rules:
            ways, why = self._ways_of(rule)
            faults = [self._passes(way, row) for way in ways]
            passed = [way for way, fault in zip(ways, faults, strict=True) if not fault]
            if passed:
                out.append(Verdict(rule.source, True, _reason(rule, passed[0])))
            else:
                out.append(Verdict(rule.source, False, faults[0] if faults else why))
        return out

    def has_role(self, name: str) -> bool:
        """Return whether the reader has a role in force, whatever its scope."""
        return self._role(name)[0] is not None

    def names_me(self, value: Value) -> bool:
        """Return whether a value names this reader: principal, person, subject token; or a list
        one of whose items does."""
        who = self.principal
        if value is None:
            return False
        if value == who.id or value == [who.id] or (who.subject and value == who.subject):
            return True
        if who.person is not None and same(value, who.person):
            return True
        return type(value) is list and any(
            each == who.id
            or (who.subject is not None and each == who.subject)
            or (who.person is not None and same(each, who.person))
            for each in value
        )

    # --- ways in

    def _known(self, owner: Kind | AccountFamily) -> tuple[int, tuple[_Way, ...]]:
        key = (type(owner).__name__, owner.name)
        found = self._ways.get(key)
        if found is None:
            readers = owner.readers
            rules = () if readers is None else readers.rules
            ways: list[_Way] = []
            level = NEVER
            for way in [way for rule in rules for way in self._ways_of(rule)[0]]:
                where = way.rule.where
                if where is not None and _free(where) and not self._holds(where, way.who, None):
                    continue
                ways.append(way)
                by_row = way.rule.own is not None or not (where is None or _free(where))
                level = max(level, BY_ROW if by_row else ALWAYS)
            found = self._ways[key] = (level, tuple(ways))
        return found

    def _ways_of(self, rule: ReadRule) -> tuple[list[_Way], str]:
        """Return the ways in by a rule that do not fail whatever the record is, or why not."""
        who: dict[str, Value] = {
            "principal": self.principal.id,
            "agency": self.agency.name,
            "role": "",
            "scope": {},
        }
        if rule.roles or not (rule.agency or rule.anyone or rule.own):
            ways: list[_Way] = []
            fault = "no such role is known here"
            for name in rule.roles:
                role, fault_here = self._role(name)
                if role is None:
                    fault = f"no role {name}: {fault_here}" if len(rule.roles) == 1 else "no role"
                    continue
                scope = {pair[0]: pair[1] for pair in role.scope}
                ways.append(_Way(rule, {**who, "role": name, "scope": scope}))
            return ways, fault
        if rule.agency and not self.is_member:
            return [], "a citizen is of no agency"
        if rule.agency not in ("", "*") and not self.agency.stands_for(rule.agency):
            return [], f"the agency is {self.agency.name}, not {rule.agency}"
        return [_Way(rule, who)], ""

    def _role(self, name: str) -> tuple[Role | None, str]:
        """Return a role in force, or None and why not."""
        found = self._roles.get(name)
        if found is None:
            role: Role | None = self._leaf("role", [self.principal.id, name])
            why = "missing" if role is None else role.fault(self.now_ms)
            found = self._roles[name] = (None if why else role, why)
        return found

    def _passes(self, way: _Way, row: Mapping[str, Value]) -> str:
        """Return why a way in does not let in to a row; empty if it does."""
        rule = way.rule
        if rule.own is not None and not self._concerns(rule.own, row):
            return f"{rule.own.source} is somebody else"
        if rule.where is not None and not self._holds(rule.where, way.who, row):
            return f"it does not hold that {rule.where.source}"
        return ""

    def _concerns(self, own: Expression, row: Mapping[str, Value]) -> bool:
        return self.names_me(own.evaluate({RECORD: row, ACCOUNT: row}))

    def _holds(
        self, where: Expression, who: Mapping[str, Value], row: Mapping[str, Value] | None
    ) -> bool:
        env = {"who": who, "now": self.now_ms, RECORD: row, ACCOUNT: row}
        try:
            return where.evaluate(env) is True
        except (EvaluationError, InputError):
            return False


def _free(where: Expression) -> bool:
    """Return whether a condition reads nothing of what is read."""
    return all(path[0] not in (RECORD, ACCOUNT) for path in where.reads)


def _rests_on(rule: ReadRule, field: str) -> bool:
    """Return whether a rule reads nothing of a record but one field."""
    return all(
        path[0] != RECORD or path[1:] == (field,)
        for each in (rule.own, rule.where)
        if each is not None
        for path in each.reads
    )


def _reason(rule: ReadRule, way: _Way) -> str:
    if rule.roles:
        scope = ", ".join(f"{name} {value}" for name, value in dict(way.who["scope"]).items())
        return f"has {way.who['role']}" + (f" for {scope}" if scope else "")
    if rule.own is not None:
        return f"{rule.own.source} is this person"
    return "is known here" if rule.anyone else f"is of agency {way.who['agency']}"
