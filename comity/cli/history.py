"""``comity history``: all versions of a record, account or kernel object, and what changed."""

from __future__ import annotations

from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, UsageError, examples, with_client
from comity.cli.reads import height_of
from comity.cli.rule_names import rulebook
from comity.cli.values import parse_place, time_word
from comity.client import Client
from comity.past import VERSIONS_SHOWN_MAX, History, Version
from comity.results import Entry
from comity.words import place_word, word
from consensus.ledger.model import Rulebook

WHY: Final = {
    "closed": "this key may not read it as it was then",
    "forgotten": "no longer kept by the node asked",
}


def history(
    place: str,
    /,
    *,
    first: Annotated[
        str | None, Parameter(name="--from", help="Height or time; the beginning.")
    ] = None,
    last: Annotated[str | None, Parameter(name="--to", help="Height or time; now.")] = None,
    limit: Annotated[
        int, Parameter(show_default=True, help=f"Most versions, up to {VERSIONS_SHOWN_MAX}.")
    ] = 100,
    acts: Annotated[
        bool, Parameter(help="Name the transactions that made each version as well.")
    ] = False,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Show all versions of a place, each proved, and prove that there are no others.

    Args:
        place: kind/id, account/…, or holds/kind/id for the holds on a target.
    """
    namespace, components = target_place(place)
    if not 1 <= limit <= VERSIONS_SHOWN_MAX:
        raise UsageError(f"--limit {limit} is not between 1 and {VERSIONS_SHOWN_MAX}")

    async def work(client: Client) -> int:
        begin = 0 if first is None else await height_of(client, first, "--from")
        end = None if last is None else await height_of(client, last, "--to")
        if end is not None and end < begin:
            raise UsageError(f"--to {last} comes before --from {first}")
        found = await client.history(
            namespace, *components, first=begin, last=end, limit=limit, transactions=acts
        )
        if output.json:
            show.emit(output, history_value(found), None)
        else:
            show.emit(output, None, history_table(found, await rulebook(client)))
        return 1 if found.never else 0

    return with_client(reach, work)


def target_place(place: str) -> tuple[str, list[Any]]:
    """Return namespace and components of a place; of ``holds/…`` those of the target's list."""
    namespace, components = parse_place(place)
    whole = len(components) == 2 and isinstance(components[1], list)
    if namespace == "holds" and components and not whole:
        target, rest = parse_place(place.partition("/")[2])
        return namespace, [target, rest]
    return namespace, components


# --- showing ----------------------------------------------------------------------------------


def history_value(found: History) -> dict[str, Any]:
    """Return a history for JSON."""
    return {
        "place": place_word(found.key.namespace, found.key.components),
        "first": found.first,
        "last": found.last,
        "complete": found.complete,
        "height": found.height,
        "time_ms": found.time_ms,
        "versions": [_version_value(each) for each in found.versions],
        "kept_from": found.horizon,
        "kept_from_ms": found.horizon_ms,
    }


def _version_value(version: Version) -> dict[str, Any]:
    made = version.transactions
    shown: dict[str, Any] = {
        "height": version.height,
        "time_ms": version.time_ms,
        "state": version.why or ("deleted" if version.deleted else "shown"),
        "changed": list(version.changed),
        "transactions": None if made is None else list(made),
    }
    if version.entry is not None and version.entry.present:
        shown["version"] = version.entry.version
        shown["value"] = version.entry.value
    return shown


def history_table(found: History, book: Rulebook | None) -> Group:
    """Return a history for people."""
    where = place_word(found.key.namespace, found.key.components)
    foot = "\n".join(_foot(found))
    if not found.versions:
        unknown = show.unknown_kind(found.key, book)
        said = f"kind  {unknown}\n{foot}" if unknown else foot
        return show.titled(f"{where}: never there", Text(said))
    acts = any(each.transactions is not None for each in found.versions)
    columns = ("height", "time", "version", "what it became", *(["transactions"] if acts else []))
    shown = show.table(*columns)
    for version in found.versions:
        entry = version.entry
        number = "" if entry is None or not entry.present else f"v{entry.version}"
        row = [str(version.height), time_word(version.time_ms), number]
        row.append("\n".join(_became(version, entry, book)))
        if acts:
            made = version.transactions
            row.append("not shown" if made is None else "\n".join(word(each) for each in made))
        shown.add_row(*row)
    return show.titled(where, shown, foot)


def _became(version: Version, entry: Entry | None, book: Rulebook | None) -> list[str]:
    if entry is None:
        return [WHY[version.why]]
    if not entry.present:
        return ["deleted"]
    lines = [f"{name} {said}" for name, said in show.entry_rows(entry, book, version.changed)]
    hidden = [name for name in version.changed if name not in entry.fields]
    return [*lines, *(f"{name} is not shown" for name in hidden)] or ["nothing that is shown"]


def _foot(found: History) -> list[str]:
    until = f"heights {found.first} to {found.last}"
    at = f"proved at height {found.height}, {time_word(found.time_ms)}"
    if found.complete:
        lines = [f"complete for {until}: no other version was there; {at}"]
    else:
        lines = [
            f"complete for {until} alone; {at}",
            f"go on with --from {found.last + 1}",
        ]
    if any(each.why == "forgotten" for each in found.versions):
        since = "" if found.horizon_ms is None else f", {time_word(found.horizon_ms)}"
        lines.append(f"the node keeps what was in versions from height {found.horizon}{since} on")
    return lines


EXAMPLES: Final = examples(
    "comity history entitlement/0x51c0...",
    "comity history account/programme --from 2026-07-01 --to 2026-07-31T12:00Z",
    "comity history holds/entitlement/0x51c0... --json    whether a hold was on it, and when",
    "comity history note/7 --acts --limit 20",
)

COMMANDS: Final = ((history, EXAMPLES),)
"""What the command line offers of this module, with the end of each help text."""
