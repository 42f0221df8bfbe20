"""Grants: given from an office, passed on narrower, revoked.

A grant carries a part of what its source carries: actions among its actions, an interval within
its interval, one level less of depth, and its own condition beside those above. So a chain never
reaches further than the office. Revoking a grant ends all that were made from it.

What is not the office's to pass on: actions of the charter (power to make power would outgrow any
chain) and those that one does as oneself.
"""

from __future__ import annotations

from collections.abc import Callable

from consensus.codec import Value
from consensus.errors import RulesError
from consensus.genesis import SYSTEM
from consensus.ledger.authority import holder_fault
from consensus.ledger.codes import Code, Refused
from consensus.ledger.delegation import (
    CONDITION_BYTES_MAX,
    Chain,
    compile_condition,
)
from consensus.ledger.governing import reason_of
from consensus.ledger.kernel.people import NAME_BYTES_MAX
from consensus.ledger.kernel.plan import (
    Acting,
    Plan,
    agency_of,
    bad,
    found,
    refuse_left,
    successor_of,
)
from consensus.ledger.layout import ACTIVE, GRANT_DEPTH_MAX, REVOKED, Agency, Grant, Principal, Role
from consensus.ledger.view import CHARTER


def give_grant(acting: Acting) -> Plan:
    """Pass on power of an office of an agency."""
    inputs = acting.inputs
    agency = agency_of(acting)
    office: Principal = found(acting, "principal", [inputs["office"]], "office")
    if _now(acting, office.agency, "office").name != agency.name:
        raise Refused(Code.NOT_FOUND, ["office", ["principal", [office.id]]])
    if office.kind != SYSTEM:
        raise bad("office", "an office is a principal of kind system")
    role = inputs["role"]
    grant = _grant(acting, [office.id, role], agency.name, role)
    failed = None
    if grant.holder == [office.id]:
        failed = _cycle()
    why = _office_fault(acting, agency, office, role)
    return Plan(
        _writer(acting, grant), failed=failed, forbidden=["office", role, why] if why else None
    )


def pass_grant(acting: Acting) -> Plan:
    """Pass on a part of what a grant gives the author."""
    id_ = acting.inputs["grant"]
    chain = Chain(acting.view, id_, acting.now_ms)
    if not chain.grants:
        raise Refused(Code.NOT_FOUND, ["grant", ["grant", [id_]]])
    source, standing = chain.grants[0], acting.standing
    grant = _grant(acting, [id_], standing.agency.name, chain.role)
    return Plan(
        _writer(acting, grant),
        failed=_wider(source, grant) or _cyclic(acting, chain, grant),
        forbidden=chain.fault or holder_fault(chain, standing, source),
    )


def revoke_grant(acting: Acting) -> Plan:
    """End a grant that an agency gave, or that was made from one of its own."""
    view, id_, agency = acting.view, acting.inputs["grant"], acting.inputs["agency"]
    chain = Chain(view, id_, acting.now_ms)
    if not chain.grants:
        raise Refused(Code.NOT_FOUND, ["grant", ["grant", [id_]]])
    grant = chain.grants[0]
    above = any(_now(acting, each.agency, "grant").name == agency for each in chain.grants)
    return Plan(
        lambda: view.put("grant", [id_], grant._replace(status=REVOKED), CHARTER),
        (("grant", [id_]),),
        failed=("UNCHANGED", "it is so already") if grant.status == REVOKED else None,
        forbidden=None if above else ["agency", agency],
    )


def _now(acting: Acting, agency: str, name: str) -> Agency:
    """Return who stands for an agency now."""
    return successor_of(acting, found(acting, "agency", [agency], name))


def _writer(acting: Acting, grant: Grant) -> Callable[[], None]:
    return lambda: acting.view.put("grant", [grant.id], grant, CHARTER)


def _office_fault(acting: Acting, agency: Agency, office: Principal, role: str) -> str:
    given = acting.view.single("role", [office.id, role])
    if given is None:
        return "missing"
    held: Role = given.value
    in_force = agency.status == office.status == ACTIVE
    return held.fault(acting.now_ms) or ("" if in_force else "suspended")


def _grant(acting: Acting, source: list[Value], agency: str, role: str) -> Grant:
    """Return the grant that the inputs describe."""
    inputs = acting.inputs
    from_ms, until_ms, depth = inputs["from"], inputs["until"], inputs["depth"]
    if until_ms is not None and until_ms <= max(from_ms, acting.now_ms):
        raise bad("until", "after from, and not in the past")
    if not 1 <= depth <= GRANT_DEPTH_MAX:
        raise bad("depth", f"1 to {GRANT_DEPTH_MAX}")
    _check_actions(acting, role)
    return Grant(
        acting.grant_id,
        source,
        agency,
        acting.standing.principal.id,
        _holder(acting),
        inputs["actions"],
        inputs["when"] or "",
        from_ms,
        until_ms,
        None,
        depth,
        ACTIVE,
    )


def _holder(acting: Acting) -> list[Value]:
    inputs = acting.inputs
    principal, agency, role = inputs["to_principal"], inputs["to_agency"], inputs["to_role"]
    if (agency is None) != (role is None) or (principal is None) == (role is None):
        raise bad("to_principal", "a principal, or else an agency and a role")
    if principal is not None:
        found(acting, "principal", [principal], "to_principal")
        return [principal]
    refuse_left(acting, found(acting, "agency", [agency], "to_agency"), "to_agency")
    if not 0 < len(role.encode()) <= NAME_BYTES_MAX:
        raise bad("to_role", f"1 to {NAME_BYTES_MAX} bytes")
    return [agency, role]


def _check_actions(acting: Acting, role: str) -> None:
    """Check that each action is one of the role, and that the condition has a meaning with it."""
    names, when, view = acting.inputs["actions"], acting.inputs["when"], acting.view
    if not names or names != sorted(dict.fromkeys(names)):
        raise bad("actions", "one or more, ascending, each once")
    if when is not None and not 0 < len(when.encode()) <= CONDITION_BYTES_MAX:
        raise bad("when", f"1 to {CONDITION_BYTES_MAX} bytes")
    for name in names:
        domain, _, short = name.partition(".")
        action = view.book.action(domain, short)
        if action is None:
            raise bad("actions", f"no action {name} is in force")
        view.single("rules", [domain])
        if action.kernel:
            raise bad("actions", f"{name} is the charter's; give a role instead")
        if not action.actor.role:
            raise bad("actions", f"{name} is done as oneself, which nobody passes on")
        if action.actor.role != role:
            raise bad("actions", f"{name} is not an action of the role {role}")
        if when is not None:
            try:
                compile_condition(action, when)
            except RulesError as error:
                raise bad("when", f"{name}: {reason_of(error)}") from error


def _wider(source: Grant, grant: Grant) -> tuple[str, str] | None:
    """Return the requirement that a grant fails if it is not within its source."""
    if source.depth == 1:
        return ("TOO_DEEP", "the grant may not be passed on")
    if grant.depth >= source.depth:
        return ("TOO_DEEP", f"a depth of at most {source.depth - 1} is left")
    if not set(grant.actions) <= set(source.actions):
        return ("WIDER", "the source does not name all of these actions")
    until_ms = grant.until_ms
    early = grant.from_ms < source.from_ms
    if early or (source.until_ms is not None and (until_ms is None or until_ms > source.until_ms)):
        return ("WIDER", "the interval is not within that of the source")
    return None


def _cyclic(acting: Acting, chain: Chain, grant: Grant) -> tuple[str, str] | None:
    """Return the requirement that a grant fails if it leads back to where its power came from."""
    before: list[Value] = [[chain.office], [acting.standing.principal.id]]
    before += [each.holder for each in chain.grants]
    return _cycle() if grant.holder in before else None


def _cycle() -> tuple[str, str]:
    return ("CYCLE", "the power has come from there")
