"""``comity disclose``, ``disclosed``, ``disclosures``: opening fields to somebody; who saw what."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.text import Text

from comity.cli import show
from comity.cli.disclosure_words import audience_word, disclosure_rows, disclosure_value
from comity.cli.options import (
    OUTPUT,
    REACH,
    Output,
    Reach,
    UsageError,
    examples,
    refuse_existing,
    with_client,
)
from comity.cli.rule_names import emit_decision
from comity.cli.values import parse_id, parse_moment, parse_value, time_word
from comity.client import Client
from comity.disclosing import Disclosures, Opened, Wanted
from comity.errors import FileError
from comity.files import write_new
from comity.words import place_word, word
from consensus.codec import Value
from consensus.evidence.disclosure import Disclosed
from consensus.ledger.disclosures import AGENCY, AUDIENCES, PARTY, PRINCIPAL
from consensus.ledger.types import Type

DISCLOSE_EXAMPLES: Final = examples(
    "comity disclose person 0xaa01... --field status --to 'party:District Court' \\",
    "    --purpose 'case 12' --legal 'Courts Act s 4' --until 2026-12-31 -o anna.disclosure",
    "comity disclose entitlement 0xaa01... --field monthly --to agency:treasury --version 2 \\",
    "    --purpose audit --legal 'Audit Act' --until 2026-12-31T12:00Z -o monthly.disclosure",
)
DISCLOSED_EXAMPLES: Final = examples("comity disclosed 0x51c0... -o anna.disclosure")
DISCLOSURES_EXAMPLES: Final = examples(
    "comity disclosures",
    "comity disclosures --record person/0xaa01...",
    "comity disclosures --subject 0xaa01...",
)


def disclose(
    kind: str,
    id_: str,
    /,
    *,
    field: Annotated[tuple[str, ...], Parameter(help="Field to open; may be repeated.")],
    to: Annotated[str, Parameter(help="agency:NAME, principal:0x..., or party:NAME outside.")],
    legal: Annotated[str, Parameter(help="What it rests on; goes on record.")],
    until: Annotated[str, Parameter(help="When it ends: a date, or a time with its offset.")],
    file: Annotated[Path, Parameter(name=("--output", "-o"), help="File to write.")],
    version: Annotated[int, Parameter(help="Version that is shown; else the present one.")] = 0,
    reason: Annotated[str, Parameter(help="Why, in words, of the transaction.")] = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Open fields of a record to somebody: first on record, then in a file for them.

    --purpose says what for, in words that go on record.

    Args:
        kind: of the record.
        id_: of the record, its parts joined by /.
    """
    wanted = Wanted(kind, parse_id(id_), field, version)
    audience, until_ms = parse_audience(to), parse_moment(until, "--until")
    if not reach.purpose:
        raise UsageError("nothing says what it is opened for", hint="say it with --purpose")
    refuse_existing(file)

    async def work(client: Client) -> int:
        made = await client.disclose(
            wanted,
            to=audience,
            purpose=reach.purpose,
            legal=legal,
            until_ms=until_ms,
            reason=reason,
        )
        if made.opened is None:
            await emit_decision(client, output, made.decision)
            return 1
        _written(client, output, made.opened, file)
        return 0

    return with_client(reach, work)


def disclosed(
    *ids: str,
    file: Annotated[Path, Parameter(name=("--output", "-o"), help="File to write.")],
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Get what was opened to you, or by you, as a file.

    Args:
        ids: of the disclosures, as `comity disclosures` lists them.
    """
    if not ids:
        raise UsageError("no disclosure is named", hint="`comity disclosures` lists yours")
    wanted = [parse_value(each, Type("digest"), "a disclosure") for each in ids]
    if any(len(each) != 32 for each in wanted):
        raise UsageError("the id of a disclosure has 64 hex digits")
    refuse_existing(file)

    async def work(client: Client) -> int:
        _written(client, output, await client.disclosed(*wanted), file)
        return 0

    return with_client(reach, work)


def disclosures(
    *,
    record: Annotated[str | None, Parameter(help="Of one record, as kind/id.")] = None,
    subject: Annotated[
        str | None, Parameter(help="Of records that concern somebody: token or id, 0x....")
    ] = None,
    mine: Annotated[
        bool, Parameter(help="By you, to you and about you; so without other options too.")
    ] = False,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """List who was shown what, and why; none can be left out.

    For whoever a record concerns, and for auditors; without options, what concerns you.
    """
    if sum((record is not None, subject is not None, mine)) > 1:
        raise UsageError("--record, --subject and --mine exclude each other")
    place = None if record is None else _place(record)
    person = None if subject is None else parse_id(subject)

    async def work(client: Client) -> None:
        if place is not None:
            found = await client.disclosures_of(str(place[0]), *place[1:])
        elif person is not None:
            names = [person, *(person if len(person) == 1 else [])]
            found = await client.disclosures_about(*names)
        else:
            found = await client.my_disclosures()
        show.emit(output, _list_value(found), _list(found))

    with_client(reach, work)


# --- words to values --------------------------------------------------------------------------


def parse_audience(text: str) -> list[Value]:
    """Return the audience that ``agency:NAME``, ``principal:0x…`` or ``party:NAME`` names.

    Raises:
        UsageError: it names none.
    """
    what, colon, name = text.partition(":")
    if not colon or what not in AUDIENCES or not name.strip():
        raise UsageError(
            f"{text!r} names no audience",
            hint=f"write {AGENCY}:NAME, {PRINCIPAL}:0x… or {PARTY}:NAME for somebody outside",
        )
    if what == PRINCIPAL:
        return [what, parse_value(name, Type("digest"), PRINCIPAL)]
    return [what, name.strip()]


def _place(text: str) -> list[Value]:
    kind, *id_ = parse_id(text)
    if not isinstance(kind, str) or not id_:
        raise UsageError(f"{text!r} is no record", hint="write kind/id, e.g. person/0xaa01...")
    return [kind, *id_]


# --- values to words --------------------------------------------------------------------------


def _written(client: Client, output: Output, opened: Opened, file: Path) -> None:
    try:
        write_new(file, opened.file)
    except FileError as error:
        ids = " ".join(word(each.disclosure.id) for each in opened.disclosed.items)
        raise FileError(
            error.message,
            hint=f"it is on record: `comity disclosed {ids} -o FILE` gets its file",
        ) from error
    value = {
        "file": str(file),
        "bytes": len(opened.file),
        "genesis": word(client.chain),
        **disclosed_value(opened.disclosed),
    }
    rows: list[tuple[str, Any]] = []
    for item in opened.disclosed.items:
        rows += disclosure_rows(item)
    rows.append(("file", f"{file}, {len(opened.file):,} bytes"))
    rows.append(("check it", f"comity verify {file} --genesis {word(client.chain)}"))
    show.emit(output, value, show.titled("opened, and on record", show.pairs(rows)))


def disclosed_value(found: Disclosed) -> dict[str, Any]:
    """Return what a file shows, for JSON."""
    return {
        "height": found.height,
        "time_ms": found.time_ms,
        "disclosures": [disclosure_value(each) for each in found.items],
    }


def _list(found: Disclosures) -> Any:
    if not found.disclosures:
        return Text("nothing was disclosed, as of " + time_word(found.time_ms))
    rows = show.table("made", "record", "fields", "to", "for", "on", "by", "until", "disclosure")
    for each in found.disclosures:
        over = "" if each.lasts(found.time_ms) else " (over)"
        rows.add_row(
            time_word(each.made_ms),
            f"{place_word('record', [each.kind, *each.record], short=True)} v{each.version}",
            ", ".join(each.leaves),
            audience_word(each.audience, short=True),
            each.purpose,
            each.legal,
            each.agency,
            time_word(each.until_ms) + over,
            word(each.id),
        )
    foot = f"proved complete at height {found.height}, {time_word(found.time_ms)}"
    return show.titled(f"{len(found.disclosures)} disclosures", rows, foot)


def _list_value(found: Disclosures) -> dict[str, Any]:
    return {
        "height": found.height,
        "time_ms": found.time_ms,
        "disclosures": [
            {**act_value(each), "made_height": found.heights.get(each.id)}
            for each in found.disclosures
        ],
    }


def act_value(each: Any) -> dict[str, Any]:
    """Return an act of disclosing, for JSON."""
    return dict(zip(each._fields, each, strict=True))


COMMANDS: Final[Sequence[tuple[Any, str]]] = (
    (disclose, DISCLOSE_EXAMPLES),
    (disclosed, DISCLOSED_EXAMPLES),
    (disclosures, DISCLOSURES_EXAMPLES),
)
