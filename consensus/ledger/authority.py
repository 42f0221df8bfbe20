"""Who acts, and whether they may: judged at the moment of effect.

A ``Standing`` says whether a key, its principal and its agency are in force; a ``Power`` whether a
principal holds the role that an action asks for, or a grant from an office that does. Both follow
from the leaves they rest on (and the time), so ``Authority`` keeps them from block to block while
these leaves have the same value hashes; their reads are recorded anew for every transaction.
``where``, ``when``, ``self`` and ``not`` depend on the call and are evaluated every time.

Not here: which checks come before and after (``executor``, ``calls``), chains of grants
(``delegation``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from consensus.codec import Value, same
from consensus.ledger.codes import Code, Refused
from consensus.ledger.delegation import Chain, Conditions
from consensus.ledger.layout import (
    ACTIVE,
    NULL,
    Agency,
    Grant,
    Key,
    Principal,
    Role,
    encode_array,
    encode_bytes,
    encode_text,
    encode_value,
    in_force,
)
from consensus.ledger.model import Action, Env, EvaluationError
from consensus.ledger.persons import conflicts, is_person, one_person, rules_behind
from consensus.ledger.resting import read_resting
from consensus.ledger.view import View

STANDINGS_MAX: Final = 4096
"""Standings kept."""
POWERS_MAX: Final = 64
"""Powers kept of one standing."""


class Standing:
    """A key with the principal and agency it speaks for; of an agency that left, its successor.

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
        self.powers: dict[str | bytes, Power] = {}
        """What ``Authority`` keeps of its roles, and of grants by their ids."""
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
        if agency.successor is not None:
            agency = in_force(agency, lambda name: self._read(view, "agency", [name]))
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
        return read_resting(view, self.reads, space, components)

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
    """What a principal has from one role: ``who`` for conditions, or the reason for a refusal.

    ``missing`` is the detail of that refusal, empty if there is none. ``held`` and ``agencies`` are
    of those whose power this is beside the author's own agency, ``whens`` of grants it came by.
    """

    __slots__ = (
        "_apart", "_given", "_role", "agencies", "cbor", "held", "missing", "reads", "whens", "who",
    )  # fmt: skip

    def __init__(self, view: View, standing: Standing, role: str, now_ms: int) -> None:
        principal = standing.principal
        scope: dict[str, str] = {}
        self.reads: dict[bytes, bytes] = {}
        self._role = role
        self.agencies: tuple[Agency, ...] = ()
        self.held = 0
        self.whens: tuple[tuple[bytes, Callable[[Action, Env], bool]], ...] = ()
        self._given: Role | None = None
        if role:
            kh = view.paths("role", [principal.id, role])
            found = view.single("role", [principal.id, role], kh)
            self.reads[kh] = view.reads[kh]
            if found is not None:
                self._given = found.value
                scope = {pair[0]: pair[1] for pair in found.value.scope}
        self._apart = self._kept_apart(view, principal)
        self.missing: list[Value] = self._faults(now_ms)
        self.who: Mapping[str, Any] = {
            "principal": principal.id,
            "agency": standing.agency.name,
            "role": role,
            "scope": scope,
        }
        pairs = [[name, value] for name, value in scope.items()]
        self.cbor = b"\x82" + (encode_text(role) if role else NULL) + encode_value(pairs)
        """``[role | null, scope]`` for the decision's authority leaf."""

    @property
    def source(self) -> tuple[str, list[Value]]:
        """Space and components of the leaf that gives the power."""
        return "role", [self.who["principal"], self._role]

    def _faults(self, now_ms: int) -> list[Value]:
        found: list[Value] = []
        if self._role:
            fault = "missing" if self._given is None else self._given.fault(now_ms)
            if fault:
                found.append(["role", self._role, fault])
        return found + self._apart_faults(now_ms) if self._apart else found

    def _kept_apart(self, view: View, principal: Principal) -> list[Role]:
        """Return what the person was given and nobody with the role may have."""
        if self._role not in view.book.separate:
            return []
        for domain in rules_behind(view, self._role):
            self.reads.update(view.rules_of(domain)[1])

        read = partial(read_resting, view, self.reads)
        return conflicts(view, read, principal, self._role)

    def _apart_faults(self, now_ms: int) -> list[Value]:
        return [["apart", self._role, each.role] for each in self._apart if not each.fault(now_ms)]

    def lasts(self, view: View, now_ms: int) -> bool:
        """Return whether it would be the same if it were judged now."""
        return self._faults(now_ms) == self.missing and view.unchanged(self.reads)


class Granted(Power):
    """What a principal has from a grant: power of an office, as far as the chain lets it through.

    ``role`` is the office's, ``actions`` are those that the grant names; ``known`` says that there
    is such a grant.
    """

    __slots__ = (
        "_apart_before", "_from_ms", "_grant", "_until_ms", "actions", "known", "role",
    )  # fmt: skip

    def __init__(
        self, view: View, standing: Standing, grant: bytes, now_ms: int, conditions: Conditions
    ) -> None:
        chain = Chain(view, grant, now_ms)
        self._grant = grant
        self.known = bool(chain.grants)
        self.role = chain.role
        self.actions = chain.grants[0].actions if self.known else []
        self._role = chain.role
        fault = chain.fault or holder_fault(chain, standing, chain.grants[0])
        self.missing = [] if fault is None else [fault]
        self.reads = chain.reads
        self._from_ms, self._until_ms = chain.from_ms, chain.until_ms
        self._apart = self._kept_apart(view, standing.principal)
        self._apart_before = self._apart_faults(now_ms)
        self.missing += self._apart_before
        self.agencies = tuple(chain.agencies)
        self.held = 0
        for agency in self.agencies:
            self.held |= agency.held
        self.whens = tuple(
            (each.id, partial(conditions.holds, each.when)) for each in chain.grants if each.when
        )
        self.who = {
            "principal": standing.principal.id,
            "agency": self.agencies[0].name if self.agencies else standing.agency.name,
            "role": chain.role,
            "scope": {pair[0]: pair[1] for pair in chain.scope},
        }
        parts = [encode_text(chain.role) if chain.role else NULL, encode_value(chain.scope)]
        if chain.office is not None:
            parts.append(encode_bytes(chain.office))
            parts += [encode_bytes(each.id) for each in reversed(chain.grants)]
        self.cbor = encode_array(parts)
        """``[role, scope, office, grant, ...]`` for the authority leaf, the office's own grant
        first; ``[null, []]`` where the chain leads to no office."""

    @property
    def source(self) -> tuple[str, list[Value]]:
        """Space and components of the leaf that gives the power."""
        return "grant", [self._grant]

    def lasts(self, view: View, now_ms: int) -> bool:
        """Return whether it would be the same if it were judged now."""
        if self._apart and self._apart_faults(now_ms) != self._apart_before:
            return False
        return self._from_ms <= now_ms < self._until_ms and view.unchanged(self.reads)


class Powerless(Power):
    """No power from a role, for reasons beyond it."""

    __slots__ = ()

    def __init__(self, power: Power, missing: list[Value]) -> None:
        self.reads = power.reads
        self.agencies, self.held, self.whens = (), 0, ()
        self.who, self.cbor = power.who, power.cbor
        self.missing = missing


def holder_fault(chain: Chain, standing: Standing, grant: Grant) -> Value:
    """Return the link that is missing for somebody to use a grant; None if it is theirs."""
    if len(grant.holder) == 1:
        mine = grant.holder[0] == standing.principal.id
        return None if mine else ["grant", grant.id, "holder"]
    agency, role = grant.holder
    if not standing.agency.stands_for(agency):
        return ["grant", grant.id, "holder"]
    why = chain.role_fault(standing.principal.id, role)
    return ["role", role, why] if why else None


class Authority:
    """Standings and powers from block to block; each is judged anew once a leaf it rests on moves.

    The value hash of a leaf commits to all of it, so what rests on the same hashes is the same.
    """

    __slots__ = ("_conditions", "_standings")

    def __init__(self) -> None:
        self._conditions = Conditions()
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

    def power(self, view: View, standing: Standing, source: str | bytes, now_ms: int) -> Power:
        """Return what a known key has from a role or a grant as the block sees it."""
        found = standing.powers.get(source)
        if found is None or not found.lasts(view, now_ms):
            found = self.judge(view, standing, source, now_ms)
            if len(standing.powers) >= POWERS_MAX:
                standing.powers.clear()
            standing.powers[source] = found
        return found

    def judge(self, view: View, standing: Standing, source: str | bytes, now_ms: int) -> Power:
        """Return what a known key has from a role or a grant as the transaction sees it."""
        if isinstance(source, bytes):
            return Granted(view, standing, source, now_ms, self._conditions)
        return Power(view, standing, source, now_ms)


def authorize(view: View, standing: Standing, power: Power, action: Action, env: Env) -> None:
    """Check that the author may call ``action`` in ``env``, which has ``who`` and every load.

    Raises:
        Refused: NOT_AUTHORIZED, naming the link that is missing.
    """
    actor = action.actor
    if power.missing:
        raise Refused(Code.NOT_AUTHORIZED, power.missing)
    if actor.where is not None and _value(actor.where.evaluate, env) is not True:
        raise Refused(Code.NOT_AUTHORIZED, [["where"]])
    for grant, holds in power.whens:
        if not holds(action, env):
            raise Refused(Code.NOT_AUTHORIZED, [["grant", grant, "when"]])
    if actor.self_path is not None:
        owner = _value(actor.self_path.evaluate, env)
        if owner is None or not standing.is_same(owner):
            raise Refused(Code.NOT_AUTHORIZED, [["self"]])
    for path in actor.not_paths:
        other = _value(path.evaluate, env)
        if other is not None and same_person(view, standing, other):
            raise Refused(Code.NOT_AUTHORIZED, [["not", path.source]])
    for path in actor.not_agencies:
        other = _value(path.evaluate, env)
        name = other[0] if type(other) is list and len(other) == 1 else other
        for agency in (standing.agency, *power.agencies):
            if name is not None and agency.stands_for(name):
                raise Refused(Code.NOT_AUTHORIZED, [["not_agency", path.source]])


def _value(evaluate: Any, env: Env) -> Value:
    """Return what an expression gives, None where it has no value."""
    try:
        return evaluate(env)
    except EvaluationError:
        return None


def same_person(view: View, standing: Standing, other: Value) -> bool:
    """Return whether ``other`` names the author, the author's person or another principal of it.

    Separation of duty goes by the registrar's subject token, across agencies, keys and roles. An
    official is also the person whose record has that token for its id.
    """
    if standing.is_same(other) or is_person(standing.principal, other):
        return True
    id_ = other[0] if type(other) is list and len(other) == 1 else other
    if type(id_) is not bytes:
        return False
    found = view.single("principal", [id_])
    if found is None:
        return False
    return one_person(found.value, standing.principal)
