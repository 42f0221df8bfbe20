"""Commands about people: what somebody may do, and whether somebody may read something."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity.authority import Access, Authority, GrantHeld, Link, RoleHeld
from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, UsageError, examples, with_client
from comity.cli.values import parse_digest, parse_place, time_word
from comity.client import Client
from comity.words import place_word, word
from consensus.protocol import READS_MAX

PRINCIPAL_BYTES: Final = 32


def authority(
    principal: str | None = None,
    /,
    *,
    grant: Annotated[
        list[str] | None, Parameter(help="Id of a grant to look at too; may be repeated.")
    ] = None,
    keys: Annotated[
        list[str] | None,
        Parameter(name="--public-key", help="Public key to look at too; may be repeated."),
    ] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Show what somebody may do now and through which chain.

    Args:
        principal: id, 64 hex digits; your own when left out.
    """
    id_ = None if principal is None else parse_digest(principal, "principal")
    grants = [parse_digest(each, "grant") for each in grant or ()]
    public = [parse_digest(each, "key") for each in keys or ()]

    async def work(client: Client) -> int:
        found = await client.authority(id_, grants=grants, keys=public)
        show.emit(output, authority_value(found), authority_table(found))
        return 1 if found.fault else 0

    return with_client(reach, work)


def access(principal: str, place: str, /, *, reach: Reach = REACH, output: Output = OUTPUT) -> int:
    """Show whether somebody may read a record or account, and by which rule.

    Args:
        principal: id, 64 hex digits.
        place: kind/id or account/… .
    """
    id_ = parse_digest(principal, "principal")
    namespace, components = parse_place(place)

    async def work(client: Client) -> int:
        found = await client.access(id_, namespace, *components)
        show.emit(output, access_value(found), _access_table(found))
        return 0 if found.allowed else 1

    return with_client(reach, work)


def reads(
    place: str,
    /,
    *,
    skip: Annotated[int, Parameter(show_default=True, help="How many to pass over.")] = 0,
    limit: Annotated[int, Parameter(show_default=True, help="Most entries, up to 100.")] = 100,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Show whom one node has shown a record or account to: not proved.

    Args:
        place: kind/id or account/… .
    """
    if not (1 <= limit <= READS_MAX and skip >= 0):
        raise UsageError(f"--limit is 1 to {READS_MAX}, --skip at least 0")
    namespace, components = parse_place(place)

    async def work(client: Client) -> None:
        found = await client.reads_of(namespace, *components, skip=skip, limit=limit)
        value = [
            {
                "time_ms": each.time_ms,
                "height": each.height,
                "agency": each.agency,
                "principal": each.principal,
                "method": each.method,
                "purpose": each.purpose,
            }
            for each in found
        ]
        table = show.table("time", "agency", "principal", "by", "purpose")
        for each in found:
            who = "not told" if each.principal is None else word(each.principal)
            table.add_row(time_word(each.time_ms), each.agency, who, each.method, each.purpose)
        title = f"{place}: {len(found)} reads that one node recorded, not proved"
        show.emit(output, value, show.titled(title, table) if found else Text(title))

    with_client(reach, work)


def authority_value(found: Authority) -> dict[str, Any]:
    """Return what somebody may do, for JSON."""
    return {
        "principal": found.principal,
        "kind": found.kind,
        "agency": found.agency,
        "agency_was": found.agency_was or None,
        "fault": found.fault or None,
        "actions": list(found.actions),
        "oneself": list(found.oneself),
        "keys": [
            {"key": k.key, "since_ms": k.since_ms, "until_ms": k.until_ms, "fault": k.fault or None}
            for k in found.keys
        ],
        "roles": [_role_value(each) for each in found.roles],
        "grants": [_grant_value(each) for each in found.grants],
        "gaps": list(found.gaps),
        "heights": list(found.heights),
        "time_ms": found.time_ms,
    }


def _role_value(role: RoleHeld) -> dict[str, Any]:
    return {
        "role": role.role,
        "scope": dict(role.scope),
        "from_ms": role.from_ms,
        "until_ms": role.until_ms,
        "due_ms": role.due_ms,
        "fault": role.fault or None,
        "actions": list(role.actions),
        "approves": list(role.approves),
        "also": list(role.also),
    }


def _grant_value(grant: GrantHeld) -> dict[str, Any]:
    return {
        "grant": grant.id,
        "role": grant.role,
        "scope": dict(grant.scope),
        "actions": list(grant.actions),
        "fault": grant.fault or None,
        "chain": [
            {
                "what": link.what,
                "id": link.id,
                "agency": link.agency,
                "role": link.role or None,
                "when": link.when or None,
                "from_ms": link.from_ms,
                "until_ms": link.until_ms,
                "due_ms": link.due_ms,
                "fault": link.fault or None,
            }
            for link in grant.chain
        ],
    }


def access_value(found: Access) -> dict[str, Any]:
    """Return whether somebody may read, for JSON."""
    return {
        "principal": found.principal,
        "place": place_word(found.key.namespace, found.key.components),
        "allowed": found.allowed,
        "why": found.why,
        "rules": [{"rule": r.source, "lets_in": r.lets_in, "why": r.why} for r in found.rules],
        "height": found.height,
        "time_ms": found.time_ms,
    }


def authority_table(found: Authority) -> Group:
    """Return what somebody may do, for people."""
    agency = found.agency + (f" (took the place of {found.agency_was})" if found.agency_was else "")
    rows: list[tuple[str, Any]] = [
        ("principal", found.principal),
        ("kind", found.kind),
        ("agency", agency),
        ("may act", _state(found.fault, "yes")),
        ("as of", f"{time_word(found.time_ms)}, heights {found.heights[0]} to {found.heights[1]}"),
    ]
    parts: list[Any] = [show.pairs(rows)]
    keys = show.table("key", "until", "state")
    for key in found.keys:
        keys.add_row(word(key.key), _until(key.until_ms), _state(key.fault, "in force"))
    roles = show.table("role", "scope", "until", "state", "actions", "approves")
    for role in found.roles:
        roles.add_row(
            role.role, _scope(role.scope), _until(role.until_ms),
            _state(role.fault, f"in force{_due(role.due_ms)}"),
            _lines(role.actions), _lines((*role.approves, *role.also)),
        )  # fmt: skip
    grants = show.table("grant", "power", "actions", "chain", "state")
    for grant in found.grants:
        power = f"{grant.role} {_scope(grant.scope)}".strip()
        chain = "\n".join(_link(link) for link in grant.chain)
        state = _state(grant.fault, "carries power")
        grants.add_row(word(grant.id, short=True), power, _lines(grant.actions), chain, state)
    for title, body in (("keys", keys), ("roles", roles), ("grants", grants)):
        shown = body if body.row_count else Text("none")
        parts += [Text(), show.titled(title, shown)]
    if found.oneself:
        parts += [Text(), show.titled("as oneself", Text(_lines(found.oneself)))]
    parts += [Text(), *(Text(f"not seen: {gap}") for gap in found.gaps)]
    return Group(*parts)


def _access_table(found: Access) -> Group:
    word_ = {True: "yes", False: "no", None: "it depends"}[found.allowed]
    head = show.pairs(
        [
            ("place", place_word(found.key.namespace, found.key.components)),
            ("may read", Text(word_, style="green" if found.allowed else "red")),
            ("because", found.why),
        ]
    )
    if not found.rules:
        return Group(head)
    rules = show.table("rule", "lets in", "why")
    for rule in found.rules:
        rules.add_row(rule.source, "yes" if rule.lets_in else "no", rule.why)
    return Group(head, Text(), rules)


def _link(link: Link) -> str:
    name = f"{link.what} {word(link.id, short=True)} of {link.agency}"
    name += f" when {link.when}" if link.when else ""
    return f"{name}: {link.fault}" if link.fault else name + _due(link.due_ms)


def _due(time_ms: int | None) -> str:
    return "" if time_ms is None else f", until {time_word(time_ms)} unless reviewed"


def _state(fault: str, good: str) -> Text:
    return Text(fault, style="red") if fault else Text(good, style="green")


def _until(time_ms: int | None) -> str:
    return "-" if time_ms is None else time_word(time_ms)


def _scope(scope: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in scope.items())


def _lines(names: Sequence[str]) -> str:
    return "\n".join(names)


COMMANDS: Final[tuple[tuple[Callable[..., Any], str], ...]] = (
    (
        authority,
        examples(
            "comity authority",
            "comity authority 0x51c0...",
            "comity authority 0x51c0... --grant 0x9f3c... --json | jq .grants[].chain",
        ),
    ),
    (access, examples("comity access 0x51c0... entitlement/0x9b2e...")),
    (reads, examples("comity reads entitlement/0x9b2e...")),
)
"""What the command line offers of this module, with the end of each help text."""
