"""Commands for proposals: make them, find them, approve, object, withdraw, draft again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, UsageError, examples, with_client
from comity.cli.refusals import lacking_words, sentence
from comity.cli.values import parse_action, parse_digest, parse_inputs, parse_txid, time_word
from comity.client import Client
from comity.drafting import Call, find_action
from comity.errors import RequestError
from comity.proposals import Proposed, ProposedPage, Redraft
from comity.results import Decision
from comity.words import id_word, word
from consensus.ledger.model import Rulebook
from consensus.protocol import PROPOSALS_MAX, Status

STATE_STYLES: Final = {
    "open": "yellow",
    "executed": "green",
    "stale": "red",
    "expired": "red",
    "objected": "red",
    "withdrawn": "dim",
}


def propose(
    action: str,
    /,
    *inputs: str,
    under: Annotated[tuple[str, ...], Parameter(help="Id of a grant, hex.")] = (),
    reason: Annotated[str, Parameter(help="Why, in words.")] = "",
    hours: Annotated[int | None, Parameter(help="How long it may wait; else the longest.")] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Have one call stored until it has its approvals.

    Args:
        action: domain.action.
        inputs: name=value each, or @file.json.
    """
    domain, name = parse_action(action)
    if hours is not None and not 1 <= hours <= 24 * 365:
        raise UsageError(f"--hours {hours} is not between 1 and 8760")
    grants = [parse_digest(each, "id of a grant") for each in under]

    async def work(client: Client) -> int:
        book = (await client.rules()).book
        call = Call(domain, name, parse_inputs(find_action(book, domain, name), inputs))
        reads = await client.read_for(call)
        if not output.json:
            console = show.err()
            for entry in reads:
                console.print(show.entry_table(entry, book))
        not_after_ms = None if hours is None else await client.now_ms() + hours * 3_600_000
        decision = await client.propose(
            call, reads=reads, under=grants, reason=reason, not_after_ms=not_after_ms
        )
        return show_act(decision, book, output)

    return with_client(reach, work)


def proposal(txid: str, /, *, reach: Reach = REACH, output: Output = OUTPUT) -> None:
    """Show a proposal: what it would do, who approved, what is missing, how it ended.

    Args:
        txid: 64 hex digits.
    """
    wanted = parse_txid(txid)

    async def work(client: Client) -> None:
        found = await client.proposal(wanted)
        book = None if output.json else (await client.rules()).book
        show.emit(output, value_of(found), _table(found, book))

    with_client(reach, work)


def pending(
    *,
    after: Annotated[str | None, Parameter(help="Where to go on, as the last page said.")] = None,
    limit: Annotated[int, Parameter(show_default=True, help="Most proposals, up to 64.")] = 20,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Show the proposals that wait for you: those that you could approve and have not."""
    start = _cursor(after, limit)

    async def work(client: Client) -> None:
        page = await client.pending(after=start, limit=limit)
        _show_page("waiting for you", page, output)

    with_client(reach, work)


def proposals(
    agency: str,
    /,
    *,
    state: Annotated[
        str, Parameter(show_default=True, help="open, executed, stale, withdrawn or objected.")
    ] = "open",
    after: Annotated[str | None, Parameter(help="Where to go on, as the last page said.")] = None,
    limit: Annotated[int, Parameter(show_default=True, help="Most proposals, up to 64.")] = 20,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> None:
    """Show proposals of an agency's people, the oldest first.

    Args:
        agency: name of the agency.
    """
    start = _cursor(after, limit)

    async def work(client: Client) -> None:
        page = await client.proposals(agency, state, after=start, limit=limit)
        _show_page(f"of {agency}, {state}", page, output)

    with_client(reach, work)


def approve(
    txid: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why, in words.")] = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Approve a proposal; the last approval that it needs brings its effect.

    Args:
        txid: of the proposal, 64 hex digits.
    """
    wanted = parse_txid(txid)

    async def work(client: Client) -> int:
        book = (await client.rules()).book
        decision = await client.approve(wanted, reason=reason)
        status = show_act(decision, book, output)
        if not decision.applied or output.json:
            return status
        try:
            effect = await client.effect(wanted)
        except RequestError as error:
            if error.status != Status.NOT_FOUND:
                raise
            found = await client.proposal(wanted)
            missing = "" if found.refusal is None else sentence(*found.refusal)
            show.out().print(Text(f"\nthe proposal is {found.state}: {missing}"), soft_wrap=True)
            return status
        title = Text("\nwhat it brought about", style="bold")
        show.out().print(Group(title, show.decision_table(effect, _names(book))))
        return 0 if effect.applied else 1

    return with_client(reach, work)


def object_(
    txid: str,
    why: str,
    /,
    *,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """End a proposal that you could approve.

    Args:
        txid: of the proposal, 64 hex digits.
        why: in words; kept with the proposal.
    """
    wanted = parse_txid(txid)

    async def work(client: Client) -> int:
        book = (await client.rules()).book
        return show_act(await client.object_to(wanted, why), book, output)

    return with_client(reach, work)


def withdraw(
    txid: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why, in words.")] = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Take back a proposal of yours, or of the agency whose office you are.

    Args:
        txid: of the proposal, 64 hex digits.
    """
    wanted = parse_txid(txid)

    async def work(client: Client) -> int:
        book = (await client.rules()).book
        return show_act(await client.withdraw(wanted, reason=reason), book, output)

    return with_client(reach, work)


def redraft(
    txid: str,
    /,
    *,
    yes: Annotated[bool, Parameter(help="Propose it without asking.")] = False,
    reason: Annotated[str | None, Parameter(help="Instead of the earlier reason.")] = None,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Propose again what a proposal proposed, on what is now; no approval carries over.

    Shows which records have moved since, and asks.

    Args:
        txid: of the earlier proposal, 64 hex digits.
    """
    wanted = parse_txid(txid)

    async def work(client: Client) -> int:
        again = await client.redraft(wanted, reason=reason)
        book = (await client.rules()).book
        if not output.json:
            _show_redraft(again, book)
        if not yes and not _agreed():
            show.err().print("nothing was sent")
            return 1
        return show_act(await client.submit(client.sign(again.unsigned)), book, output)

    return with_client(reach, work)


# --- showing ----------------------------------------------------------------------------------


def value_of(found: Proposed) -> dict[str, Any]:
    """Return a proposal for JSON."""
    draft, end = found.draft, found.end
    return {
        "txid": found.txid,
        "state": found.state,
        "height": found.height,
        "author": found.author,
        "principal": found.principal,
        "agency": found.agency,
        "protective": found.protective,
        "proposed_ms": found.proposed_ms,
        "expires_ms": found.expires_ms,
        "calls": [
            {
                "domain": domain,
                "action": action,
                "action_id": action_id,
                "inputs": None if draft is None else draft.inputs(index)[0],
            }
            for index, (domain, action, action_id) in enumerate(found.calls)
        ],
        "reason": None if draft is None else draft.reason,
        "approvals": [
            {
                "principal": each.principal,
                "agency": each.agency,
                "key": each.key,
                "time_ms": each.time_ms,
                "txid": each.txid,
            }
            for each in found.approvals
        ],
        "end": None
        if end is None
        else {
            "time_ms": end.time_ms,
            "principal": end.principal,
            "agency": end.agency,
            "txid": end.txid,
            "why": list(end.why) if isinstance(end.why, tuple) else end.why,
        },
        "refusal": None if found.refusal is None else list(found.refusal),
        "lacking": None if found.lacking is None else list(found.lacking),
    }


def _table(found: Proposed, book: Rulebook | None) -> Any:
    rows: list[tuple[str, Any]] = [
        ("proposal", found.txid),
        ("state", Text(found.state, style=STATE_STYLES[found.state])),
        ("proposed by", f"{word(found.principal, short=True)} of {found.agency}"),
        ("proposed", time_word(found.proposed_ms)),
        ("expires", time_word(found.expires_ms)),
    ]
    for index, (domain, action, _) in enumerate(found.calls):
        rows.append(("call", f"{domain}.{action}"))
        rows += _inputs(found, index, book)
    if found.draft is not None and found.draft.reason:
        rows.append(("reason", found.draft.reason))
    for each in found.approvals:
        who = f"{word(each.principal, short=True)} of {each.agency}"
        rows.append(("approved by", f"{who}, {time_word(each.time_ms)}"))
    rows += _end(found)
    if found.state == "open":
        now = "it would take effect" if found.refusal is None else sentence(*found.refusal)
        rows.append(("now", now))
        if found.lacking is not None:
            mine = lacking_words(found.lacking) if found.lacking else "may approve it"
            rows.append(("you", mine))
    return show.pairs(rows)


def _inputs(found: Proposed, index: int, book: Rulebook | None) -> list[tuple[str, Any]]:
    if found.draft is None:
        return [("", "its inputs are not yours to read")]
    values = found.draft.inputs(index)[0]
    domain, name, _ = found.calls[index]
    action = None if book is None else book.action(domain, name)
    if action is None or len(action.inputs) != len(values):
        return [(f"  #{at}", show.input_word(value, None)) for at, value in enumerate(values, 1)]
    return [
        (f"  {each.name}", show.input_word(value, each.type))
        for each, value in zip(action.inputs, values, strict=True)
    ]


def _end(found: Proposed) -> list[tuple[str, Any]]:
    end = found.end
    if end is None:
        return []
    rows: list[tuple[str, Any]] = [("ended", time_word(end.time_ms))]
    if end.principal is not None:
        rows.append(("by", f"{word(end.principal, short=True)} of {end.agency}"))
    if isinstance(end.why, tuple):
        code, call, detail = end.why
        where = "" if call is None or len(found.calls) == 1 else f"call {call}: "
        rows.append(("because", f"{where}{sentence(code, detail)} ({code})"))
    elif end.why:
        rows.append(("because", end.why))
    rows.append(("transaction", end.txid))
    return rows


def _show_page(title: str, page: ProposedPage, output: Output) -> None:
    more = None if page.next is None else word(page.next)
    value = {"proposals": [value_of(each) for each in page.proposals], "next": more}
    shown = show.table("proposal", "state", "agency", "what", "approvals", "expires")
    for each in page.proposals:
        shown.add_row(
            word(each.txid),
            Text(each.state, style=STATE_STYLES[each.state]),
            each.agency,
            ", ".join(f"{domain}.{action}" for domain, action, _ in each.calls),
            str(len(each.approvals)),
            time_word(each.expires_ms),
        )
    count = len(page.proposals)
    head = f"{count} proposal{'' if count == 1 else 's'} {title}; from one node's index"
    foot = f"more: --after {more}" if more is not None else ""
    show.emit(output, value, show.titled(head, shown if count else Text(""), foot))


def show_act(decision: Decision, book: Rulebook, output: Output) -> int:
    """Show what became of an act; return the exit status."""
    table = show.decision_table(decision, _names(book))
    show.emit(output, show.decision_value(decision), table)
    return 1 if decision.state == "refused" else 0


def _show_redraft(again: Redraft, book: Rulebook) -> None:
    console = show.err()
    for call in again.calls:
        rows: list[tuple[str, Any]] = [("call", f"{call.domain}.{call.action}")]
        rows += [(f"  {name}", value) for name, value in call.inputs.items()]
        console.print(show.pairs(rows))
    for moved in again.moved:
        place = f"{moved.kind}/{id_word(moved.id)}"
        console.print(f"{place} was at version {moved.before}, is at {moved.now}", soft_wrap=True)
    if not again.moved:
        console.print("no record that it relied on has moved")
    for entry in again.reads:
        console.print(show.entry_table(entry, book))


def _agreed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nobody is there to be asked", hint="look at what moved, then add --yes")
    return input("Propose it again? [y/N] ").strip().lower() in ("y", "yes")


def _names(book: Rulebook) -> dict[bytes, str]:
    return {
        action.action_id: action.name
        for rule_set in book.rule_sets.values()
        for action in rule_set.actions.values()
    }


def _cursor(after: str | None, limit: int) -> bytes | None:
    if not 1 <= limit <= PROPOSALS_MAX:
        raise UsageError(f"--limit {limit} is not between 1 and {PROPOSALS_MAX}")
    if after is None:
        return None
    try:
        found = bytes.fromhex(after.removeprefix("0x"))
    except ValueError:
        found = b""
    if not found:
        raise UsageError(f"--after {after!r} is not what a page said")
    return found


COMMANDS: Final[tuple[tuple[Callable[..., Any], str], ...]] = (
    (
        propose,
        examples(
            "comity propose payments.disburse entitlement=0x51c0... period=2026-07",
            "comity propose notes.amend note=7 text=agreed --hours 48",
        ),
    ),
    (pending, examples("comity pending", "comity pending --json | jq '.proposals[].txid'")),
    (proposal, examples("comity proposal 0x9f3c...")),
    (
        proposals,
        examples("comity proposals treasury", "comity proposals treasury --state stale"),
    ),
    (
        approve,
        examples("comity approve 0x9f3c...", "comity approve 0x9f3c... --reason 'as agreed'"),
    ),
    (object_, examples("comity object 0x9f3c... 'paid already'")),
    (withdraw, examples("comity withdraw 0x9f3c...")),
    (redraft, examples("comity redraft 0x9f3c...", "comity redraft 0x9f3c... --yes")),
)
"""What the command line offers of this module, with the end of each help text."""
