"""Who acts, and whether they may: judged at the moment of effect.

A ``Standing`` says whether a key, its principal and its agency are in force; a ``Power`` whether a
principal holds the role that an action asks for. Both follow from the leaves they rest on (and the
time), so ``Authority`` keeps them from block to block while these leaves have the same value
hashes; their reads are recorded anew for every transaction. ``where``, ``self`` and ``not`` depend
on the call and are evaluated every time.

Not here: which checks come before and after (``executor``, ``calls``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from consensus.codec import Value, same
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import (
    ACTIVE,
    NULL,
    Agency,
    Key,
    Principal,
    Role,
    encode_bytes,
    encode_text,
    encode_value,
)
from consensus.ledger.model import Action, Env, EvaluationError
from consensus.ledger.view import View

STANDINGS_MAX: Final = 4096
"""Standings kept."""
POWERS_MAX: Final = 64
"""Powers kept of one standing."""


class Standing:
    """A key with the principal and agency it speaks for.

    ``fault`` is the refusal that anything it signs gets, None if all three are in force; ``known``
    says that there is such a key. ``reads`` are the leaves this rests on.
    """

    __slots__ = (
        "_given",
        "_why",
        "agency",
        "cbor",
        "fault",
        "key",
        "known",
        "powers",
        "principal",
        "reads",
    )

    def __init__(self, view: View, key: bytes, now_ms: int) -> None:
        self.key = key
        self.reads: dict[bytes, bytes] = {}
        self.fault: Refused | None = None
        self.known = False
        self.powers: dict[str, Power] = {}
        """What ``Authority`` keeps of its roles."""
        self.cbor = NULL
        """``[principal id, agency, key]`` for the decision's authority leaf."""
        found: Key | None = self._read(view, "key", [key])
        if found is None:
            self.fault = Refused(Code.UNKNOWN_KEY, key)
            return
        self.known = True
        self._given = found
        self._why = found.fault(now_ms)
        principal: Principal = self._read(view, "principal", [found.principal])
        agency: Agency = self._read(view, "agency", [principal.agency])
        self.principal, self.agency = principal, agency
        self.cbor = b"".join(
            (b"\x83", encode_bytes(principal.id), encode_text(agency.name), encode_bytes(key))
        )
        if self._why:
            self.fault = Refused(Code.KEY_INACTIVE, [key, self._why])
        elif principal.status != ACTIVE:
            self.fault = Refused(Code.SUSPENDED, ["principal", [principal.id]])
        elif agency.status != ACTIVE:
            self.fault = Refused(Code.SUSPENDED, ["agency", [agency.name]])

    def _read(self, view: View, space: str, components: list[Value]) -> Any:
        kh = view.paths(space, components)
        found = view.single(space, components, kh)
        self.reads[kh] = view.reads[kh]
        return None if found is None else found.value

    def lasts(self, view: View, now_ms: int) -> bool:
        """Return whether a known key's standing would be the same if it were judged now."""
        given = self._given
        if given.until_ms is not None and given.fault(now_ms) != self._why:
            return False
        return view.unchanged(self.reads)

    def is_same(self, value: Value) -> bool:
        """Return whether ``value`` names the author: principal, its id, person or their token."""
        principal = self.principal
        if value == principal.id or value == [principal.id]:
            return True
        if principal.subject is not None and value == principal.subject:
            return True
        return principal.person is not None and same(value, principal.person)


class Power:
    """What a principal has from one role: ``who`` for conditions, or the reason for a refusal."""

    __slots__ = ("_given", "cbor", "fault", "reads", "who")

    def __init__(self, view: View, standing: Standing, role: str, now_ms: int) -> None:
        principal = standing.principal
        scope: dict[str, str] = {}
        self.reads: dict[bytes, bytes] = {}
        self.fault = ""
        self._given: Role | None = None
        if role:
            kh = view.paths("role", [principal.id, role])
            found = view.single("role", [principal.id, role], kh)
            self.reads[kh] = view.reads[kh]
            if found is None:
                self.fault = "missing"
            else:
                given: Role = found.value
                self._given = given
                self.fault = given.fault(now_ms)
                scope = {pair[0]: pair[1] for pair in given.scope}
        self.who: Mapping[str, Any] = {
            "principal": principal.id,
            "agency": principal.agency,
            "role": role,
            "scope": scope,
        }
        pairs = [[name, value] for name, value in scope.items()]
        self.cbor = b"\x82" + (encode_text(role) if role else NULL) + encode_value(pairs)
        """``[role | null, scope]`` for the decision's authority leaf."""

    def lasts(self, view: View, now_ms: int) -> bool:
        """Return whether it would be the same if it were judged now."""
        if self._given is not None and self._given.fault(now_ms) != self.fault:
            return False
        return view.unchanged(self.reads)


class Authority:
    """Standings and powers from block to block; each is judged anew once a leaf it rests on moves.

    The value hash of a leaf commits to all of it, so what rests on the same hashes is the same.
    """

    __slots__ = ("_standings",)

    def __init__(self) -> None:
        self._standings: dict[bytes, Standing] = {}

    def standing(self, view: View, key: bytes, now_ms: int) -> Standing:
        """Return the standing of a key as the block sees it."""
        found = self._standings.get(key)
        if found is None or not found.lasts(view, now_ms):
            found = Standing(view, key, now_ms)
            if found.known:  # anybody can make up keys
                if len(self._standings) >= STANDINGS_MAX:
                    self._standings.clear()
                self._standings[key] = found
        return found

    def power(self, view: View, standing: Standing, role: str, now_ms: int) -> Power:
        """Return what a known key has from a role as the block sees it."""
        found = standing.powers.get(role)
        if found is None or not found.lasts(view, now_ms):
            found = Power(view, standing, role, now_ms)
            if len(standing.powers) >= POWERS_MAX:
                standing.powers.clear()
            standing.powers[role] = found
        return found


def authorize(view: View, standing: Standing, power: Power, action: Action, env: Env) -> None:
    """Check that the author may call ``action`` in ``env``, which has ``who`` and every load.

    Raises:
        Refused: NOT_AUTHORIZED, naming the link that is missing.
    """
    actor = action.actor
    if power.fault:
        raise Refused(Code.NOT_AUTHORIZED, [["role", actor.role, power.fault]])
    if actor.where is not None and _value(actor.where.evaluate, env) is not True:
        raise Refused(Code.NOT_AUTHORIZED, [["where"]])
    if actor.self_path is not None:
        owner = _value(actor.self_path.evaluate, env)
        if owner is None or not standing.is_same(owner):
            raise Refused(Code.NOT_AUTHORIZED, [["self"]])
    for path in actor.not_paths:
        other = _value(path.evaluate, env)
        if other is not None and _same_person(view, standing, other):
            raise Refused(Code.NOT_AUTHORIZED, [["not", path.source]])
    for path in actor.not_agencies:
        other = _value(path.evaluate, env)
        if other is not None and other in (standing.agency.name, [standing.agency.name]):
            raise Refused(Code.NOT_AUTHORIZED, [["not_agency", path.source]])


def _value(evaluate: Any, env: Env) -> Value:
    """Return what an expression gives, None where it has no value."""
    try:
        return evaluate(env)
    except EvaluationError:
        return None


def _same_person(view: View, standing: Standing, other: Value) -> bool:
    """Return whether ``other`` names the author or another principal of the same person.

    Separation of duty goes by the registrar's subject token, across agencies, keys and roles.
    """
    if standing.is_same(other):
        return True
    id_ = other[0] if type(other) is list and len(other) == 1 else other
    if type(id_) is not bytes:
        return False
    found = view.single("principal", [id_])
    if found is None:
        return False
    return one_person(found.value, standing.principal)


def one_person(one: Principal, other: Principal) -> bool:
    """Return whether two principals are one, or stand for the same person."""
    if one.id == other.id or (one.subject is not None and one.subject == other.subject):
        return True
    return one.person is not None and same(one.person, other.person)
