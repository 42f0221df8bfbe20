"""Power that is passed on: chains of grants from an office, and what their conditions may name.

    office [principal of kind system, role]  <-  grant  <-  grant  <-  grant  <-  whoever acts

An agency holds a role through its office: a principal of kind system, a post that no person is. So
what the office passes on outlives whoever signed for it. The first grant of a chain names the
office and its role, every further one the grant it was made from. A chain carries power at a time
if the office has its role then and every grant is live; the fault of the link nearest to the office
is named. ``when`` depends on the call and is judged with it, in the environment of its action.

Not here: who may use a chain (``authority``), and how grants are made (``kernel.grants``).
"""

from __future__ import annotations

from typing import Any, Final

from consensus.codec import INT64_MAX, INT64_MIN, Value
from consensus.errors import RulesError
from consensus.hashing import context
from consensus.ledger.environment import FUNDS
from consensus.ledger.expr import Fault, Name, compile_expression
from consensus.ledger.layout import ACTIVE, GRANT_DEPTH_MAX, Agency, Grant, Role, in_force
from consensus.ledger.model import Action, Env, EvaluationError, Expression, Path
from consensus.ledger.resting import read_resting
from consensus.ledger.types import Type
from consensus.ledger.view import View

CONDITIONS_MAX: Final = 1024
"""Compiled conditions kept."""
CONDITION_BYTES_MAX: Final = 1000
"""Longest ``when`` of a grant."""

_H_GRANT: Final = context("grant id")
_BOOL: Final = Type("bool")
_WHO: Final = {"principal": Type("digest"), "agency": Type("text"), "role": Type("text")}


class Chain:
    """The grants above and including one, as they are at ``now_ms``.

    ``grants`` begins with the one named and ends with the office's own; empty if there is no such
    grant. ``fault`` is the link that carries nothing, for the detail of a refusal, None if all do.
    ``reads`` are the leaves this rests on; it stays so in ``from_ms <= t < until_ms`` while they
    are the same.
    """

    __slots__ = (
        "_now_ms", "_view", "agencies", "fault", "from_ms", "grants", "office", "reads", "role",
        "scope", "until_ms",
    )  # fmt: skip

    def __init__(self, view: View, grant: bytes, now_ms: int) -> None:
        self._view = view
        self._now_ms = now_ms
        self.reads: dict[bytes, bytes] = {}
        self.from_ms, self.until_ms = INT64_MIN, INT64_MAX
        self.grants: list[Grant] = []
        self.agencies: list[Any] = []
        """Whose power this is: the office's agency first, then those that passed it on."""
        self.office: bytes | None = None
        self.role = ""
        self.scope: list[list[str]] = []
        self.fault: Value = self._walk(grant)
        if self.fault is None:
            self.fault = self._judge()

    def read(self, space: str, components: list[Value]) -> Any:
        """Return the object of a leaf, or None; the chain rests on it from now on."""
        return read_resting(self._view, self.reads, space, components)

    def _agency(self, name: str) -> Agency:
        agency: Agency = self.read("agency", [name])
        return agency

    def role_fault(self, principal: bytes, role: str) -> str:
        """Return why a principal has nothing from a role now; empty if it has."""
        given: Role | None = self.read("role", [principal, role])
        return "missing" if given is None else self._fault(given)

    def _walk(self, id_: bytes) -> Value:
        """Find the grants up to the office's own, and its role."""
        while True:
            grant: Grant | None = self.read("grant", [id_])
            if grant is None:
                return ["grant", id_, "missing"]
            if any(each.id == id_ for each in self.grants):
                return ["grant", id_, "cyclic"]
            if len(self.grants) == GRANT_DEPTH_MAX:
                return ["grant", id_, "too deep"]
            self.grants.append(grant)
            if len(grant.source) == 2:
                self.office, self.role = grant.source
                return None
            (id_,) = grant.source

    def _judge(self) -> Value:
        why = self._office_fault()
        fault: Value = ["office", self.role, why] if why else None
        for grant in reversed(self.grants):
            agency = in_force(self._agency(grant.agency), self._agency)
            self.agencies.append(agency)
            why = self._fault(grant) or ("" if agency.status == ACTIVE else "suspended")
            if why and fault is None:
                fault = ["grant", grant.id, why]
        return fault

    def _office_fault(self) -> str:
        office = self.read("principal", [self.office])
        given: Role | None = self.read("role", [self.office, self.role])
        if given is None:
            return "missing"
        self.scope = given.scope
        why = self._fault(given)
        return why or ("" if office.status == ACTIVE else "suspended")

    def _fault(self, given: Role | Grant) -> str:
        for at_ms in (given.from_ms, given.until_ms, given.suspends_at_ms):
            if at_ms is None:
                continue
            if at_ms <= self._now_ms:
                self.from_ms = max(self.from_ms, at_ms)
            else:
                self.until_ms = min(self.until_ms, at_ms)
        return given.fault(self._now_ms)


def grant_id(txid: bytes, call: int) -> bytes:
    """Return the id of the grant that a call makes."""
    return _H_GRANT(txid + call.to_bytes(4, "big"))


# --- conditions -------------------------------------------------------------------------------


class Conditions:
    """Compiled conditions of grants, by the action they are judged with and their text.

    All that a condition may name belongs to the identity of the action, so that says it all.
    """

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[tuple[bytes, str], Expression | None] = {}

    def holds(self, source: str, action: Action, env: Env) -> bool:
        """Return whether a condition is true; one without a value or a meaning is not."""
        key = (action.action_id, source)
        if key in self._kept:
            condition = self._kept[key]
        else:
            try:
                condition = compile_condition(action, source)
            except RulesError:  # the action is another one since the grant was made
                condition = None
            if len(self._kept) >= CONDITIONS_MAX:
                self._kept.clear()
            self._kept[key] = condition
        if condition is None:
            return False
        try:
            return condition.evaluate(env) is True
        except EvaluationError:
            return False


def compile_condition(action: Action, source: str) -> Expression:
    """Return the condition ``source`` of a grant of ``action``.

    It may name ``now``, ``who``, the action's inputs, every field of records and accounts of the
    own domain that the action loads, and of other domains' records the fields that it reads itself.

    Raises:
        RulesError: syntax, types or names are wrong.

    Cost: about 0.1 ms, 1 ms for the longest.
    """
    return compile_expression(source, _Names(action), want=_BOOL)


class _Names:
    """What the condition of a grant may name."""

    def __init__(self, action: Action) -> None:
        self._action = action
        self._inputs = {each.name: each for each in action.inputs}
        self._loads = {each.name: each for each in action.loads}
        self._read = frozenset(action.reads)
        self.roots = ("now", "who", "input", *self._loads)

    def resolve(self, parts: Path, position: int) -> Name:
        """Return what a path stands for, or raise Fault (see ``expr.Scope``)."""
        found = self._resolve(parts)
        if found is None:
            raise Fault(f"{'.'.join(parts)} is nothing that a grant may name", position)
        return found

    def _resolve(self, parts: Path) -> Name | None:
        match parts:
            case ("now",):
                return Name(Type("time"))
            case ("who", "scope", _):
                return Name(Type("text"), fallible=True)
            case ("who", name) if name in _WHO:
                return Name(_WHO[name])
            case ("input", name) if name in self._inputs:
                found = self._inputs[name]
                return Name(found.type, found.optional)
            case (load, name) if load in self._loads:
                return self._field(parts, name)
        return None

    def _field(self, parts: Path, name: str) -> Name | None:
        """Return a field; what is loaded may be absent, and a condition on it then is not true."""
        load = self._loads[parts[0]]
        if load.listing is not None:
            return None
        if load.kind is None:
            if load.family is None or load.account is not None or name not in FUNDS:
                return None
            return Name(Type("money", load.family.currency), optional=True)
        kind = load.kind
        if kind.domain != self._action.domain and parts not in self._read:
            return None
        if name == "status" and kind.start:
            return Name(Type("text"), optional=True)
        field = kind.fields.get(name)
        return None if field is None else Name(field.stored, optional=True)
