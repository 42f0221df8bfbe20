"""Commands that read: every answer is proved unless it says otherwise."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, with_client
from comity.cli.values import parse_id, parse_place, place_word, time_word, word
from comity.client import Client
from comity.errors import DraftError
from consensus.codec import Value


def get(*places: str, reach: Reach = REACH, output: Output = OUTPUT) -> int:
    """Show records, accounts or kernel objects with their proof checked.

    Args:
        places: kind/id each, e.g. note/7, account/pot/a, key/0x... .
    """
    if not places:
        raise DraftError("no place is named", hint="comity get kind/id, e.g. comity get note/7")
    wanted = [parse_place(place) for place in places]

    async def work(client: Client) -> int:
        entries = [await client.get(namespace, *rest) for namespace, rest in wanted]
        values = [show.entry_value(each) for each in entries]
        value: Any = values[0] if len(values) == 1 else values
        if output.json:
            show.emit(output, value, None)
        else:
            for each in entries:
                show.emit(output, None, show.entry_table(each))
        return 0 if all(each.present for each in entries) else 1

    return with_client(reach, work)


def list_(
    kind: str,
    *,
    after: str | None = None,
    limit: int = 100,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """List ids of a kind from one node's index: not proved.

    Args:
        kind: of records.
        after: id to go on after.
        limit: most ids, up to 1000.
    """
    if not 1 <= limit <= 1000:
        raise DraftError(f"--limit {limit} is not between 1 and 1000")
    start = None if after is None else tuple(parse_id(after))

    async def work(client: Client) -> None:
        page = await client.list_records(kind, after=start, limit=limit)
        more = None if page.next is None else place_word("record", page.next)
        value = {"kind": kind, "height": page.height, "ids": page.ids, "next": more}
        shown = show.table(f"{kind} (not proved)")
        for id_ in page.ids:
            shown.add_row(place_word("record", (kind, *id_)))
        if more is not None:
            shown.caption = f"more: --after {more}"
        show.emit(output, value, shown)

    with_client(reach, work)


def holds(place: str, *, reach: Reach = REACH, output: Output = OUTPUT) -> None:
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


def decision(txid: str, *, reach: Reach = REACH, output: Output = OUTPUT) -> int:
    """Show the certified decision on a transaction.

    Args:
        txid: 64 hex digits.
    """
    try:
        wanted = bytes.fromhex(txid.removeprefix("0x"))
    except ValueError:
        wanted = b""
    if len(wanted) != 32:
        raise DraftError(f"{txid!r} is no transaction id", hint="it has 64 hex digits")

    async def work(client: Client) -> int:
        found = await client.decision(wanted)
        show.emit(output, show.decision_value(found), show.decision_table(found))
        return 1 if found.state == "refused" else 0

    return with_client(reach, work)


def decisions(
    *,
    last: Annotated[int, Parameter(help="How many of the newest heights.")] = 10,
    first: Annotated[int | None, Parameter(name="--from", help="First height.")] = None,
    count: Annotated[int, Parameter(help="Heights from there.")] = 10,
    refused: Annotated[bool, Parameter(negative="", help="Refusals only.")] = False,
    follow: Annotated[bool, Parameter(negative="", help="Go on with new heights.")] = False,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Show all decisions of certified heights; within a height none can be left out."""
    for name, number in (("--last", last), ("--count", count)):
        if not 1 <= number <= 64:
            raise DraftError(f"{name} {number} is not between 1 and 64")

    async def work(client: Client) -> None:
        start, many = (-last, last) if first is None else (first, count)
        heights = await client.decisions(start, many)
        _show_decisions(heights, refused, output)
        if follow:
            after = heights[-1].height + 1 if heights else client.trust.height + 1
            async for height in client.subscribe(after, decisions=True):
                _show_decisions((height,), refused, output)

    with_client(reach, work)


def _show_decisions(heights: Any, refused: bool, output: Output) -> None:
    rows = [
        each
        for height in heights
        for each in height.decisions or ()
        if not refused or each.state == "refused"
    ]
    if output.json or rows or len(heights) != 1:
        value = [show.decision_value(each) for each in rows]
        show.emit(output, value, show.decisions_table(rows))


def statements(
    *,
    last: Annotated[int, Parameter(help="How many of the newest heights.")] = 10,
    first: Annotated[int | None, Parameter(name="--from", help="First height.")] = None,
    count: Annotated[int, Parameter(help="Heights from there.")] = 10,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Show certified heights with their roots."""
    for name, number in (("--last", last), ("--count", count)):
        if not 1 <= number <= 64:
            raise DraftError(f"{name} {number} is not between 1 and 64")

    async def work(client: Client) -> None:
        start, many = (-last, last) if first is None else (first, count)
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
            shown.add_row(str(each.height), time_word(each.time_ms), each.state_root.hex())
        show.emit(output, value, shown)

    with_client(reach, work)


def status(*, reach: Reach = REACH, output: Output = OUTPUT) -> None:
    """Show what a node says of itself: not proved."""

    async def work(client: Client) -> None:
        found = await client.status()
        show.emit(output, found, show.pairs((name, _flat(each)) for name, each in found.items()))

    with_client(reach, work)


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
        shown = show.table("agency", "clients", "validator key", title=title)
        for v in found.validators:
            shown.add_row(v.agency, f"{v.client_host}:{v.client_port}", v.key.hex())
        show.emit(output, value, shown)

    with_client(reach, work)
