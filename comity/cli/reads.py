"""Commands that read: every answer is proved unless it says otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity import listing
from comity.cli import sealing, show
from comity.cli.options import OUTPUT, REACH, Output, Reach, UsageError, examples, with_client
from comity.cli.rule_names import action_names, emit_decision, rulebook
from comity.cli.values import (
    natural,
    parse_id,
    parse_place,
    parse_txid,
    parse_value,
    time_of,
    time_word,
)
from comity.client import Client
from comity.drafting import fields_of
from comity.errors import RequestError
from comity.results import Cursor, Height, Listing
from comity.words import suggest, word
from consensus.codec import INT64_MAX, Value
from consensus.protocol import HEIGHTS_MAX, Status

HEIGHTS_SHOWN: Final = 10
HEIGHT_DIGITS_MAX: Final = 18
STATUS_FIRST: Final = (
    "network", "chain", "agency", "epoch", "certified", "executed", "ordered", "round", "peers",
)  # fmt: skip
"""What people look at first; the rest follows by name."""


def get(
    *places: str,
    at: Annotated[
        str | None, Parameter(help="As it was then: a height, or a time such as 2026-07-03T09:00Z.")
    ] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Show records, accounts or kernel objects with their proof checked.

    Args:
        places: kind/id each, e.g. note/7, account/pot/a, key/0x... .
    """
    if not places:
        raise UsageError("no place is named", hint="comity get kind/id, e.g. comity get note/7")
    wanted = [parse_place(place) for place in places]

    async def work(client: Client) -> int:
        height = None if at is None else await height_of(client, at, "--at")
        entries = [await client.get(namespace, *rest, height=height) for namespace, rest in wanted]
        book = await rulebook(client)
        opened = [await sealing.unsealed(client, each) if book else {} for each in entries]
        if output.json:
            values = [show.entry_value(each, book) for each in entries]
            for value, found in zip(values, opened, strict=True):
                if found:
                    value["sealed"] = sealing.value_of(found)
            shown: Any = values[0] if len(values) == 1 else values
            show.emit(output, shown, None)
        else:
            for number, (each, found) in enumerate(zip(entries, opened, strict=True)):
                table = show.entry_table(each, book, sealing.words(each, book, found))
                show.emit(output, None, Group(*[Text()] * bool(number), table))
        return 0 if all(each.present for each in entries) else 1

    return with_client(reach, work)


def list_(
    kind: str,
    /,
    *,
    by: Annotated[str | None, Parameter(help="Of an index: field=value; proved.")] = None,
    after: Annotated[str | None, Parameter(help="Where to go on: what the last page says.")] = None,
    limit: Annotated[int, Parameter(show_default=True, help="Most ids, up to 1000.")] = 100,
    all_: Annotated[bool, Parameter(name="--all", help="All pages, as one.")] = False,
    fields: Annotated[str | None, Parameter(help="Fields to show as well: a,b,c.")] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """List ids of a kind from one node's index, or, proved complete, from one of the ledger's.

    Args:
        kind: of records.
    """
    if not 1 <= limit <= 1000:
        raise UsageError(f"--limit {limit} is not between 1 and 1000")
    if all_ and after is not None:
        raise UsageError("--all begins with the first page", hint="leave out --after")
    field, equals, text = (by or "").partition("=")
    if by is not None and not (field and equals):
        raise UsageError(f"{by!r} is not field=value", hint="comity list child --by caregiver=7")
    start = None if after is None else _cursor(after, proved=by is not None)

    async def work(client: Client) -> None:
        index, value = None, None
        if by is not None:
            _, declared = listing.find_index((await client.rules()).book, kind, field)
            index, value = field, parse_value(text, declared, field)
        try:
            if all_:
                page = await client.list_all(kind, index=index, value=value)
            else:
                page = await client.list_records(
                    kind, index=index, value=value, after=start, limit=limit
                )
        except RequestError as error:
            if error.status != Status.NOT_FOUND:
                raise
            book = await rulebook(client)
            raise listing.unknown_kind(kind, () if book is None else book.kinds) from error
        rows: list[dict[str, Value]] | None = None
        if fields is not None:
            rows = await _fields(client, page, fields.split(","))
        kind_of = None if rows is None else (await client.rules()).book.kinds[kind]
        table = show.listing_table(page, text, rows, kind_of)
        show.emit(output, show.listing_value(page, rows), table)

    with_client(reach, work)


async def _fields(client: Client, page: Listing, names: Sequence[str]) -> list[dict[str, Value]]:
    """Return the named fields of each record of a list."""
    book = (await client.rules()).book
    found = book.kinds.get(page.kind)
    if found is None:
        raise listing.unknown_kind(page.kind, book.kinds)
    known = [*found.fields, *(["status"] if found.start else [])]
    for name in names:
        if name not in known:
            raise UsageError(f"{page.kind} has no field {name!r}", hint=suggest(name, known))
    entries = await client.get_listed(page)
    shown = [fields_of(entry, found) if entry.present else {} for entry in entries]
    return [{name: each.get(name) for name in names} for each in shown]


def _cursor(word: str, *, proved: bool) -> tuple[Value, ...]:
    """Return the place in a list that a page named: an id, or position and height of an index."""
    if not proved:
        return tuple(parse_id(word))
    position, at, height = word.partition("@")
    found = [each for each in map(natural, (position, height)) if each is not None]
    if not at or len(found) != 2:
        raise UsageError(f"{word!r} is no place in an index", hint="copy it from the page before")
    return tuple(found)


def holds(place: str, /, *, reach: Reach = REACH, output: Output = OUTPUT) -> None:
    """Show every hold on a target; none can be left out.

    Args:
        place: kind/id, account/…, agency/…, domain/… or action/domain/name.
    """
    first, _, rest = place.partition("/")
    if first in ("domain", "action") and rest:
        namespace: str = first
        components: list[Value] = parse_id(rest)
    else:
        namespace, components = parse_place(place)

    async def work(client: Client) -> None:
        found = await client.holds(namespace, *components)
        show.emit(output, show.holds_value(found), show.holds_table(found))

    with_client(reach, work)


def _span(last: int | None, first: int | None, count: int | None) -> tuple[int, int]:
    """Return the first height, negative when counted from the newest, and how many."""
    if first is None and count is not None:
        raise UsageError("--count goes with --from", hint="use --last for the newest heights")
    if first is not None and last is not None:
        raise UsageError("--last and --from exclude each other", hint="use --from with --count")
    name, many = ("--last", last) if first is None else ("--count", count)
    many = HEIGHTS_SHOWN if many is None else many
    if not 1 <= many <= HEIGHTS_MAX:
        raise UsageError(f"{name} {many} is not between 1 and {HEIGHTS_MAX}")
    if first is not None and not 0 <= first <= INT64_MAX:
        raise UsageError(f"--from {first} is no height", hint="heights count from 0")
    return (-many if first is None else first), many


def decision(txid: str, /, *, reach: Reach = REACH, output: Output = OUTPUT) -> int:
    """Show the certified decision on a transaction.

    Args:
        txid: 64 hex digits.
    """
    wanted = parse_txid(txid)

    async def work(client: Client) -> int:
        found = await client.decision(wanted)
        await emit_decision(client, output, found)
        return 1 if found.state == "refused" else 0

    return with_client(reach, work)


def decisions(
    *,
    last: Annotated[int | None, Parameter(help="How many of the newest heights; 10.")] = None,
    first: Annotated[int | None, Parameter(name="--from", help="First height instead.")] = None,
    count: Annotated[int | None, Parameter(help="How many heights from there; 10.")] = None,
    refused: Annotated[bool, Parameter(help="Refusals only.")] = False,
    follow: Annotated[bool, Parameter(help="Go on with new heights.")] = False,
    after: Annotated[
        str | None, Parameter(help="With --follow: go on after this one, height.index.")
    ] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Show all decisions of certified heights; within a height none can be left out."""
    if after is not None:
        if not follow or (last, first, count) != (None, None, None):
            raise UsageError("--after goes with --follow, and alone")
        _follow_decisions(Cursor.read(after), refused, reach, output)
        return
    start, many = _span(last, first, count)

    async def work(client: Client) -> None:
        names = {} if output.json else await action_names(client)
        heights = await client.decisions(start, many)
        _show_decisions(heights, refused, output, names, follow)
        if follow:
            after = heights[-1].height + 1 if heights else client.trust.height + 1
            async for height in client.subscribe(after, decisions=True):
                _show_decisions((height,), refused, output, names, follow)

    with_client(reach, work)


def _follow_decisions(after: Cursor, refused: bool, reach: Reach, output: Output) -> None:
    async def work(client: Client) -> None:
        names = {} if output.json else await action_names(client)
        async for each in client.follow(after):
            if refused and each.state != "refused":
                continue
            if output.json:
                show.line(show.decision_value(each))
            else:
                show.emit(output, None, show.decisions_table([each], names))

    with_client(reach, work)


def _show_decisions(
    heights: Sequence[Height], refused: bool, output: Output, names: show.Actions, follow: bool
) -> None:
    rows = [
        each
        for height in heights
        for each in height.decisions or ()
        if not refused or each.state == "refused"
    ]
    if output.json and follow:
        for each in rows:
            show.line(show.decision_value(each))
    elif rows or output.json:
        value = [show.decision_value(each) for each in rows]
        show.emit(output, value, show.decisions_table(rows, names))
    elif not follow:
        what = "refusal" if refused else "decision"
        where = f"from {heights[0].height} to {heights[-1].height}" if heights else "asked for"
        show.emit(output, None, Text(f"no {what} at the heights {where}"))


async def height_of(client: Client, text: str, name: str) -> int:
    """Return the height that a word names: by number, or as the newest one at a time.

    Raises:
        UsageError: it is neither.
        DraftError: there is no such height.
    """
    if text.isascii() and text.isdigit() and len(text) <= HEIGHT_DIGITS_MAX:
        return int(text)
    return (await client.moment(time_of(text, name))).height


def statements(
    *,
    last: Annotated[int | None, Parameter(help="How many of the newest heights; 10.")] = None,
    first: Annotated[int | None, Parameter(name="--from", help="First height instead.")] = None,
    count: Annotated[int | None, Parameter(help="How many heights from there; 10.")] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Show certified heights with their roots."""
    start, many = _span(last, first, count)

    async def work(client: Client) -> None:
        heights = await client.statements(start, many)
        value = [
            {
                "height": each.height,
                "epoch": each.epoch,
                "time_ms": each.time_ms,
                "state_root": each.state_root,
                "results_root": each.results_root,
            }
            for each in heights
        ]
        shown = show.table("height", "time", "state root")
        for each in heights:
            shown.add_row(str(each.height), time_word(each.time_ms), word(each.state_root))
        show.emit(output, value, shown)

    with_client(reach, work)


def status(*, reach: Reach = REACH, output: Output = OUTPUT) -> None:
    """Show what a node says of itself: not proved. Warns if your key or a role of yours ends."""

    async def work(client: Client) -> None:
        found = await client.status()
        first = [name for name in STATUS_FIRST if name in found]
        names = [*first, *sorted(name for name in found if name not in first)]
        rows = show.pairs((name, _flat(found[name])) for name in names)
        show.emit(output, found, show.titled("what the node says of itself, not proved", rows))

    with_client(reach, work, warns=True)


def _flat(value: Value) -> Value:
    if isinstance(value, dict):
        return ", ".join(f"{name} {word(each)}" for name, each in value.items())
    return value


def committee(*, reach: Reach = REACH, output: Output = OUTPUT) -> None:
    """Show the committee, followed from the genesis file by certificates."""

    async def work(client: Client) -> None:
        found = await client.committee()
        value = {
            "epoch": found.epoch,
            "quorum": found.quorum,
            "validators": [
                {
                    "agency": v.agency,
                    "key": v.key,
                    "node_key": v.node_key,
                    "clients": f"{v.client_host}:{v.client_port}",
                }
                for v in found.validators
            ],
        }
        title = f"epoch {found.epoch}: {found.quorum} of {found.size} signatures certify"
        shown = show.table("agency", "clients", "validator key")
        for v in found.validators:
            shown.add_row(v.agency, f"{v.client_host}:{v.client_port}", word(v.key))
        show.emit(output, value, show.titled(title, shown))

    with_client(reach, work)


COMMANDS: Final[tuple[tuple[Callable[..., Any], str], ...]] = (
    (
        get,
        examples(
            "comity get entitlement/0x51c0...                a record",
            "comity get account/programme account/payee/[7]  two accounts",
            "comity get note/7 --json | jq .fields",
            "comity get note/7 --at 2026-07-03                as it was when that day began (UTC)",
        ),
    ),
    (
        list_,
        examples(
            "comity list person",
            "comity list payment --limit 20 --after '[7]/24318'",
            "comity list child --by caregiver=0x51c0... --all",
            "comity list licence --by status=active --fields holder,region",
        ),
    ),
    (
        holds,
        examples(
            "comity holds entitlement/0x51c0...",
            "comity holds account/programme",
            "comity holds action/payments/disburse",
        ),
    ),
    (decision, examples("comity decision 0x9f3c... --json")),
    (
        decisions,
        examples(
            "comity decisions                       of the ten newest heights",
            "comity decisions --from 812 --count 5",
            "comity decisions --last 1 --follow --refused",
            "comity decisions --follow --after 812.3 --json",
        ),
    ),
    (statements, examples("comity statements --last 3")),
    (status, examples("comity status", "comity status --server treasury --json")),
    (committee, examples("comity committee")),
)
"""What the command line offers of this module, with the end of each help text."""
