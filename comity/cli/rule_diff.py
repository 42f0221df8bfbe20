"""``comity rules diff``: what changes between two rule sets, and on a network whom it touches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity.cli.options import (
    OUTPUT,
    REACH,
    Output,
    Reach,
    UsageError,
    examples,
    files_in,
    with_client,
)
from comity.cli.rules import app
from comity.cli.show import emit, table, titled
from comity.cli.values import natural
from comity.client import Client
from comity.errors import AbsentError, RequestError
from comity.files import text_of
from comity.words import word
from consensus.codec import Value
from consensus.ledger import proposals
from consensus.ledger.layout import ACTIVE, Grant
from consensus.ledger.proposals import Proposal
from consensus.ledger.rules import Definition, load_toml
from consensus.ledger.rules.difference import Difference, difference
from consensus.protocol import KEYS_MAX, PAGE_MAX, StateKey

LISTED_MAX: Final = 10_000
"""Most grants, and most proposals, of a network that are looked at."""


@app.command(
    help_epilogue=examples(
        "comity rules diff old.toml new.toml --with configs/rules",
        "comity rules diff payments payments.toml",
        "comity rules diff payments#1 payments#2",
    )
)
def diff(
    old: str,
    new: str,
    /,
    *,
    beside: Annotated[
        Path | None, Parameter(name="--with", help="Folder of the other domains' rule sets.")
    ] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Say in words what changes from one rule set to another, and whom that touches.

    Each is a file in TOML, or a rule set on the chain: DOMAIN, the one in force, or DOMAIN#NUMBER.
    With one on the chain, grants and open proposals that it touches are named too.

    Args:
        old: the rule set before.
        new: the rule set after.
    """
    others = [_file(path) for path in files_in(beside)]
    if _is_file(old) and _is_file(new):
        found = _compared(_file(Path(old)), _file(Path(new)), others)
        emit(output, _value(found, [], []), _shown(found))
        return

    async def work(client: Client) -> None:
        known = [row.definition for row in (await client.rules()).sets]
        one, two = await _named(client, old, known), await _named(client, new, known)
        found = _compared(one, two, others or known)
        lines, gaps = await _touched(client, found)
        emit(output, _value(found, lines, gaps), _shown(found, lines, gaps))

    with_client(reach, work)


def _is_file(name: str) -> bool:
    return name.endswith(".toml") or Path(name).is_file()


def _file(path: Path) -> Definition:
    return load_toml(text_of(path), str(path))


async def _named(client: Client, name: str, known: list[Definition]) -> Definition:
    if _is_file(name):
        return _file(Path(name))
    domain, hash_, number = name.partition("#")
    if not hash_:
        found = next((each for each in known if each.domain == domain), None)
    elif (numeral := natural(number)) is not None:
        numbered = await client.rule_set(domain, numeral)
        found = None if numbered is None else numbered.definition
    else:
        raise UsageError(f"{name!r} names no rule set", hint="name FILE.toml, DOMAIN or DOMAIN#2")
    if found is None:
        raise AbsentError(
            f"{name!r} is neither a file nor a rule set here",
            hint="`comity rules show` lists domains, `comity rules history DOMAIN` their numbers",
        )
    return found


def _compared(old: Definition, new: Definition, others: list[Definition]) -> Difference:
    if old.domain != new.domain:
        raise UsageError(f"{old.domain} and {new.domain} are two domains", hint="compare one")
    return difference(old, new, others)


async def _touched(client: Client, found: Difference) -> tuple[list[str], list[str]]:
    """Return grants and open proposals that name an action that moves, and what was not seen."""
    names = {f"{found.domain}.{name}" for name, how in found.moved.items() if how != "added"}
    lines: list[str] = []
    gaps: list[str] = []
    time_ms = await client.now_ms()
    for value in await _leaves(client, "grant", gaps) if names else []:
        grant = Grant(*value)
        hit = sorted(names.intersection(grant.actions))
        if hit and grant.status == ACTIVE:
            whose = f"grant {word(grant.id, short=True)} of {grant.agency}"
            lines.append(f"{whose}: {', '.join(hit)}" + (", with a condition" * bool(grant.when)))
    for value in await _leaves(client, "proposal", gaps) if names else []:
        proposal = Proposal(*value)
        hit = sorted({f"{call[0]}.{call[1]}" for call in proposal.calls} & names)
        if hit and proposal.word(time_ms) == proposals.STATES[proposals.OPEN]:
            said = f"proposal {word(proposal.txid, short=True)} of {proposal.agency}"
            lines.append(f"{said}: {', '.join(hit)} becomes stale")
    return lines, gaps


async def _leaves(client: Client, kind: str, gaps: list[str]) -> list[list[Value]]:
    """Return the leaves of all grants or proposals that a node lists."""
    ids: list[tuple[Value, ...]] = []
    after: tuple[Value, ...] | None = None
    try:
        while len(ids) < LISTED_MAX:
            page = await client.list_records(kind, after=after, limit=PAGE_MAX)
            ids += [id_ for id_ in page.ids if len(id_) == 1]
            after = page.next
            if after is None:
                break
    except RequestError as error:
        gaps.append(f"{kind}s were not looked at: {error.message}")
        return []
    gaps.append(f"{kind}s are those that one node lists")
    found: list[list[Value]] = []
    for first in range(0, len(ids), KEYS_MAX):
        keys = [StateKey(kind, id_) for id_ in ids[first : first + KEYS_MAX]]
        found += [entry.value for entry in await client.get_many(keys) if entry.present]
    return found


def _value(found: Difference, touched: list[str], gaps: list[str]) -> dict[str, Any]:
    return {
        "domain": found.domain,
        "old": found.old,
        "new": found.new,
        "changes": [[each.part, [*each.lines]] for each in found.changes],
        "moved": dict(found.moved),
        "powers": [*found.powers],
        "faults": [*found.faults],
        "touched": touched,
        "gaps": gaps,
    }


_COLOURS: Final = {"+": "green", "-": "red"}


def _shown(found: Difference, touched: list[str] | None = None, gaps: Any = ()) -> Group:
    parts: list[Any] = []
    shown = table("part", "what changes")
    for each in found.changes:
        text = Text("\n").join(Text(line, style=_COLOURS.get(line[0], "")) for line in each.lines)
        shown.add_row(each.part, text)
    title = f"{found.domain}: {found.old} to {found.new}"
    parts.append(titled(title, shown) if found.changes else Text(f"{title}: nothing changes"))
    for heading, lines in (
        ("callers get RULES_MOVED", [f"{name}: {how}" for name, how in found.moved.items()]),
        ("whose powers", found.powers),
        ("on the network", touched or ()),
        ("not looked at or not proved", gaps),
        ("it may not follow", found.faults),
    ):
        if lines:
            parts.append(Text(f"\n{heading}", style="bold"))
            parts += [Text(f"  {line}") for line in lines]
    return Group(*parts)
