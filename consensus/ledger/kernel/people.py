"""Agencies, principals, keys and roles: made, suspended, given back, replaced, revoked.

Nothing is deleted: a revoked key keeps its leaf, so it can neither be added again nor be mistaken
for one that never was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from consensus.codec import Value
from consensus.errors import SignatureError
from consensus.genesis import CITIZEN, OFFICIAL, SYSTEM
from consensus.ledger import emergency
from consensus.ledger.codes import Code, Refused
from consensus.ledger.kernel.plan import (
    Acting,
    Plan,
    agency_of,
    bad,
    charter_ms,
    found,
    principal_of,
)
from consensus.ledger.layout import (
    ACTIVE,
    COMPROMISED,
    PRINCIPALS_MAX,
    REVOKED,
    SUSPENDED,
    Agency,
    Key,
    Principal,
    Role,
)
from consensus.ledger.persons import conflicts, listed_under, rules_behind
from consensus.ledger.view import CHARTER, View
from consensus.signing import check_key

Handler = Callable[[Acting], Plan]
"""Returns what an act is about to do."""

KINDS = {"official": OFFICIAL, "system": SYSTEM, "citizen": CITIZEN}
NAME_BYTES_MAX = 64
TITLE_BYTES_MAX = 256
SCOPE_PAIRS_MAX = 16
OVERLAP_HOURS = "key_overlap_hours"
"""The charter's parameter: how long a replaced key may go on."""
OVERLAP_HOURS_DEFAULT = 24 * 30
SCOPE_VALUE_BYTES_MAX = 256


def add_agency(acting: Acting) -> Plan:
    """Admit an agency. It has no validator by that: the committee changes by an act of its own."""
    name, title = acting.inputs["agency"], acting.inputs["title"]
    _check_name("agency", name)
    if not 0 < len(title.encode()) <= TITLE_BYTES_MAX:
        raise bad("title", f"1 to {TITLE_BYTES_MAX} bytes")
    taken = ["agency", [name]] if acting.view.single("agency", [name]) is not None else None
    return Plan(
        lambda: acting.view.put("agency", [name], Agency(name, title, ACTIVE, 0), CHARTER),
        (("agency", [name]),),
        taken=taken,
    )


def suspend_agency(acting: Acting) -> Plan:
    """Take power from everybody of an agency, until it is reinstated."""
    return _agency_to(acting, SUSPENDED)


def reinstate_agency(acting: Acting) -> Plan:
    """Give power back to an agency."""
    return _agency_to(acting, ACTIVE)


def _agency_to(acting: Acting, status: int) -> Plan:
    agency = agency_of(acting)
    return Plan(
        lambda: acting.view.put("agency", [agency.name], agency._replace(status=status), CHARTER),
        (("agency", [agency.name]),),
        failed=_unchanged(agency.status == status),
    )


def add_principal(acting: Acting) -> Plan:
    """Register a principal of an agency. It can act once it has a key and a role."""
    inputs, view = acting.inputs, acting.view
    agency = agency_of(acting)
    id_, kind = inputs["principal"], KINDS.get(inputs["kind"])
    if kind is None:
        raise bad("kind", f"one of {', '.join(KINDS)}")
    if (inputs["person"] is None) != (kind != CITIZEN):
        raise bad("person", "a citizen's own record, null for others")
    if kind == OFFICIAL and inputs["subject"] is None:
        raise bad("subject", "the registrar's token of the official")
    principal = Principal(id_, agency.name, kind, inputs["subject"], inputs["person"], ACTIVE)
    taken = ["principal", [id_]] if view.single("principal", [id_]) is not None else None
    lists = [(place, _listed(view, place)) for place in listed_under(principal)]

    def write() -> None:
        if any(len(ids) >= PRINCIPALS_MAX for _, ids in lists):
            raise Refused(Code.LIMIT, "principals")
        view.put("principal", [id_], principal, CHARTER)
        for place, ids in lists:
            view.put("subject", place, (*ids, id_), CHARTER, steps=False)

    return Plan(write, (("principal", [id_]),), taken=taken)


def _listed(view: View, place: list[Value]) -> tuple[bytes, ...]:
    """Return the principals of the person that a leaf of ``subject`` is about."""
    found = view.single("subject", place)
    return () if found is None else found.value


def suspend_principal(acting: Acting) -> Plan:
    """Take power from a principal, until it is reinstated."""
    return _principal_to(acting, SUSPENDED)


def reinstate_principal(acting: Acting) -> Plan:
    """Give power back to a principal."""
    return _principal_to(acting, ACTIVE)


def _principal_to(acting: Acting, status: int) -> Plan:
    principal = principal_of(acting)
    id_ = [principal.id]
    return Plan(
        lambda: acting.view.put("principal", id_, principal._replace(status=status), CHARTER),
        (("principal", id_),),
        failed=_unchanged(principal.status == status),
    )


def add_key(acting: Acting) -> Plan:
    """Let a principal sign with one more key."""
    view = acting.view
    key, taken = _new_key(acting, "key", principal_of(acting))
    id_: list[Value] = [key.key]
    return Plan(lambda: view.put("key", id_, key, CHARTER), (("key", id_),), taken=taken)


def rotate_key(acting: Acting) -> Plan:
    """Replace the key with which the author signs: one stolen key ends no other one."""
    own = acting.inputs["key"] == acting.standing.key
    return replace(replace_key(acting), forbidden=None if own else ["key"])


def replace_key(acting: Acting) -> Plan:
    """Replace a key of a principal by a new one; the old one ends by itself at ``until``."""
    inputs, view, now_ms = acting.inputs, acting.view, acting.now_ms
    principal = principal_of(acting)
    old = _key_of(acting, principal)
    new, taken = _new_key(acting, "new", principal)
    until_ms = now_ms if inputs["until"] is None else inputs["until"]
    if until_ms < now_ms:
        raise bad("until", "not in the past")
    overlap_ms = charter_ms(acting, OVERLAP_HOURS, OVERLAP_HOURS_DEFAULT)
    if until_ms - now_ms > overlap_ms:
        raise bad("until", f"at most {overlap_ms // 3_600_000} hours ahead")
    failed = None
    if old.status != ACTIVE:
        failed = ("REVOKED", "the key is revoked; add another")
    elif old.next is not None:
        failed = ("ROTATED", "the key was replaced already")
    ending = old._replace(until_ms=until_ms, next=new.key)

    def write() -> None:
        view.put("key", [old.key], ending, CHARTER)
        view.put("key", [new.key], new, CHARTER)

    return Plan(write, (("key", [old.key]), ("key", [new.key])), failed=failed, taken=taken)


def _key_of(acting: Acting, principal: Principal) -> Key:
    """Return the key of the input ``key``, which is the principal's."""
    key: Key = found(acting, "key", [acting.inputs["key"]], "key")
    if key.principal != principal.id:
        raise bad("key", "a key of another principal")
    return key


def _new_key(acting: Acting, name: str, principal: Principal) -> tuple[Key, Value]:
    """Return the key of an input as a new one, and what takes its place if it is none."""
    key = acting.inputs[name]
    check_new_key(key, name)
    taken = ["key", [key]] if acting.view.single("key", [key]) is not None else None
    return Key(key, principal.id, ACTIVE, acting.now_ms), taken


def check_new_key(key: bytes, name: str) -> None:
    """Refuse what is no key that may sign.

    Raises:
        Refused: BAD_INPUT, for the input ``name``.
    """
    try:
        check_key(key)
    except SignatureError as error:
        raise bad(name, error.message) from error


def revoke_key(acting: Acting) -> Plan:
    """End a key at once, and say whether others may hold it."""
    key = _key_of(acting, principal_of(acting))
    id_: list[Value] = [key.key]
    status = COMPROMISED if acting.inputs["compromised"] else REVOKED
    return Plan(
        lambda: acting.view.put("key", id_, key._replace(status=status), CHARTER),
        (("key", id_),),
        failed=_unchanged(key.status in (status, COMPROMISED)),
    )


def give_role(acting: Acting) -> Plan:
    """Give a role, or change scope and interval of one already given."""
    inputs, view = acting.inputs, acting.view
    principal = principal_of(acting)
    _check_name("role", inputs["role"])
    scope = check_scope(inputs["scope"])
    if inputs["until"] is not None and inputs["until"] <= inputs["from"]:
        raise bad("until", "after from")
    id_ = [principal.id, inputs["role"]]
    # Whoever has not answered for an emergency act is not rid of it by a role given anew.
    ends_ms = emergency.earliest(emergency.due_at(view, id_))
    interval = (inputs["from"], inputs["until"])
    role = Role(principal.id, inputs["role"], scope, *interval, ends_ms, ACTIVE)
    return Plan(
        lambda: view.put("role", id_, role, CHARTER),
        (("role", id_),),
        failed=_kept_apart(acting, principal, role),
    )


def _kept_apart(acting: Acting, principal: Principal, role: Role) -> tuple[str, str] | None:
    """Return the requirement that no person has two roles that some rule set keeps apart."""
    view = acting.view

    def read(space: str, components: list[Value]) -> Any:
        found = view.single(space, components)
        return None if found is None else found.value

    for domain in rules_behind(view, role.role):
        view.rules_of(domain)
    for other in conflicts(view, read, principal, role.role):
        if other.status == ACTIVE and _overlap(role, other):
            return "SEPARATE", f"the person has {other.role}, which excludes {role.role}"
    return None


def _overlap(one: Role, other: Role) -> bool:
    return (other.until_ms is None or one.from_ms < other.until_ms) and (
        one.until_ms is None or other.from_ms < one.until_ms
    )


def revoke_role(acting: Acting) -> Plan:
    """Take a role back."""
    principal = principal_of(acting)
    id_ = [principal.id, acting.inputs["role"]]
    role: Role = found(acting, "role", id_, "role")
    return Plan(
        lambda: acting.view.put("role", id_, role._replace(status=REVOKED), CHARTER),
        (("role", id_),),
        failed=_unchanged(role.status == REVOKED),
    )


def _check_name(which: str, name: str) -> None:
    if not 0 < len(name.encode()) <= NAME_BYTES_MAX:
        raise bad(which, f"1 to {NAME_BYTES_MAX} bytes")


def check_scope(flat: list[str]) -> list[list[str]]:
    """Return the pairs of a role's scope.

    Raises:
        Refused: BAD_INPUT: it is none.
    """
    names = flat[::2]
    if len(flat) % 2 or len(names) > SCOPE_PAIRS_MAX:
        raise bad("scope", f"up to {SCOPE_PAIRS_MAX} pairs of name and value")
    if names != sorted(dict.fromkeys(names)):
        raise bad("scope", "names ascend, each once")
    for name in names:
        _check_name("scope", name)
    pairs = [[name, value] for name, value in zip(names, flat[1::2], strict=True)]
    if any(len(value.encode()) > SCOPE_VALUE_BYTES_MAX for _, value in pairs):
        raise bad("scope", f"a value has at most {SCOPE_VALUE_BYTES_MAX} bytes")
    return pairs


def _unchanged(is_so: bool) -> tuple[str, str] | None:
    return ("UNCHANGED", "it is so already") if is_so else None
