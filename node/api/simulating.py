"""Drafts tried out for whoever asks, under their read rights.

A caller asks about acts of the own key alone. Where all that a draft rests on may be read, every
finding is told; where not, those alone that no record had a part in, and no outcome: a dry run
costs nothing and leaves no trace, so it must not tell what a reading would not. Refusals of
``quiet`` actions are told by the same measure.

Not here: the judgement (``consensus.ledger.dry``).
"""

from __future__ import annotations

from typing import Final

from consensus.asking import FINDINGS_MAX, HOLDERS_MAX, ROLES_MAX, Simulated
from consensus.codec import Value
from consensus.ledger import layout
from consensus.ledger.codes import Code
from consensus.ledger.dry import Finding
from consensus.protocol import StateKey
from node.api import access
from node.api.backend import ApiBackend, Holder, Identity, Tried

_OPEN: Final = (
    Code.UNKNOWN_KEY,
    Code.SEQUENCE_SPENT,
    Code.SEQUENCE_OLD,
    Code.SEQUENCE_AHEAD,
    Code.EXPIRED,
    Code.NOT_AFTER_TOO_FAR,
    Code.KEY_INACTIVE,
    Code.SUSPENDED,
    Code.UNSUPPORTED,
    Code.RULES_MOVED,
    Code.UNKNOWN_ACTION,
    Code.BAD_INPUT,
)
"""Findings that no record has a part in."""


def answer(backend: ApiBackend, identity: Identity, own_key: bytes, tried: Tried) -> Simulated:
    """Return what the caller is told of a draft that was tried out."""
    run = tried.run
    readable = all(
        _may_read(identity, own_key, StateKey(space, tuple(components)), own=not run.quiet)
        for space, components in run.places
    )
    shown = [each for each in run.findings if _shown(identity, own_key, each, readable)]
    hidden = not readable or len(shown) < len(run.findings)
    outcome: list[Value] | None = None
    if not hidden:
        code = run.outcome
        outcome = [code.header.state, int(code.code), code.call, code.detail]
    roles = [role for each in shown if each.code == Code.NEEDS_APPROVAL for role in _roles(each)]
    return Simulated(
        tried.height,
        tried.time_ms,
        outcome,
        tuple([int(each.code), each.call, each.detail] for each in shown[:FINDINGS_MAX]),
        run.complete and not hidden,
        hidden,
        tuple(_holders(backend, identity, role) for role in dict.fromkeys(roles[:ROLES_MAX])),
    )


def _may_read(identity: Identity, own_key: bytes, key: StateKey, *, own: bool = True) -> bool:
    row = None if identity.raw is None else identity.raw(key)
    if not own:
        return access.may_weigh(identity, key, row)
    return access.may_read(identity, own_key, key, row)


def _shown(identity: Identity, own_key: bytes, finding: Finding, readable: bool) -> bool:
    """Return whether a finding is told."""
    if finding.code in _OPEN:
        return True
    if not readable:
        return False
    detail = finding.detail
    if finding.code == Code.BASIS_MOVED and type(detail) is list:
        space, components = layout.place(*detail[0])
        return _may_read(identity, own_key, StateKey(space, tuple(components)))
    if finding.code == Code.HELD:
        return all(access.may_name(identity, StateKey("hold", (id_,))) for id_ in detail)
    return True


def _roles(finding: Finding) -> list[str]:
    """Return the roles that a refusal for missing approvals names."""
    found: list[str] = []
    pending: list[Value] = [*finding.detail]
    while pending:
        missing = pending.pop(0)
        if missing[0] == "role":
            found.append(missing[1])
        elif missing[0] == "of":
            pending += missing[2]
    return found


def _holders(backend: ApiBackend, identity: Identity, role: str) -> list[Value]:
    """Return a role and who has it now, for those who may see who has which role."""
    found: list[Holder] = []
    if access.may_read(identity, b"", StateKey("role", (bytes(32), role)), None):
        found = [*backend.holders(role, HOLDERS_MAX)]
    return [role, [[each.principal, each.agency, [*map(list, each.scope)]] for each in found]]
