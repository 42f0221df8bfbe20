"""``comity reverse``: shows what taking a transaction back will do, asks, and does it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any, Final

from cyclopts import Parameter

from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, UsageError, examples, with_client
from comity.cli.rule_names import action_names
from comity.cli.values import parse_txid, plain, time_word
from comity.client import Client
from comity.reversals import Payment, Restored, Reversal
from comity.words import place_word, word
from consensus.codec import Value

EXAMPLES: Final = examples(
    "comity reverse 0x51c0... --dry",
    "comity reverse 0x51c0... --reason 'paid twice'",
    "comity reverse 0x51c0... --yes",
    "comity reverse 0x51c0... --propose",
)


def reverse(
    txid: str,
    /,
    *,
    reason: Annotated[str, Parameter(help="Why, in words.")] = "",
    dry: Annotated[bool, Parameter(help="Show what it would do and stop.")] = False,
    yes: Annotated[bool, Parameter(help="Do not ask.")] = False,
    propose: Annotated[bool, Parameter(help="Have it stored until it has its approvals.")] = False,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Take an applied transaction back: amounts, fields, records and slots.

    Shows first what that will do and who must approve it, and asks. Stops where it would be
    refused.

    Args:
        txid: of the transaction, hex.
    """
    wanted = parse_txid(txid)
    if not (dry or yes) and (output.json or not sys.stdin.isatty()):
        raise UsageError("nobody is there to be asked", hint="--yes takes it back, --dry shows it")

    async def work(client: Client) -> int:
        found = await client.reversal(wanted)
        if dry or found.obstacle:
            show.emit(output, _value(found), _table(found))
            return 1 if found.obstacle else 0
        if not output.json:
            show.err().print(_table(found))
        if not yes and not _agreed():
            show.err().print("nothing was sent")
            return 1
        act = client.propose_reversal if propose else client.submit_reversal
        decision = await act(found, reason)
        table = show.decision_table(decision, await action_names(client))
        show.emit(output, show.decision_value(decision), table)
        return 1 if decision.state == "refused" else 0

    return with_client(reach, work)


def _agreed() -> bool:
    return input("Take it back? [y/N] ").strip().lower() in ("y", "yes")


def _account(id_: Sequence[Value]) -> str:
    return place_word("account", id_)


def _table(found: Reversal) -> Any:
    rows: list[tuple[str, Any]] = [
        ("transaction", f"{word(found.txid)} of {time_word(found.time_ms)}, height {found.height}"),
        ("by", " and ".join(found.roles) or "nobody"),
    ]
    rows += [("approved by", each) for each in found.approvals]
    if found.until_ms is not None:
        rows.append(("until", time_word(found.until_ms)))
    for payment in found.payments:
        rows += _payment_rows(payment)
    for record in found.records:
        rows += _record_rows(record)
    rows += [("freed", "/".join(word(part) for part in slot)) for slot in found.slots]
    foot = f"It would be refused: {found.obstacle}." if found.obstacle else ""
    return show.titled("taking it back would do this", show.pairs(rows), foot)


def _payment_rows(payment: Payment) -> list[tuple[str, Any]]:
    source, target = _account(payment.source), _account(payment.target)
    rows = [("back", f"{payment.amount} from {source} to {target}")]
    if payment.short and payment.shortfall is not None:
        debts = _account(payment.shortfall)
        rows.append(("  debt", f"{payment.short} of it is not there and is owed in {debts}"))
    elif payment.short:
        rows.append(("  lacking", f"{payment.short} of it is not there"))
    if payment.reserved is not None:
        rows.append(("  reserved", f"again as {_account(payment.reserved)}"))
    return rows


def _record_rows(record: Restored) -> list[tuple[str, Any]]:
    place = place_word("record", [record.kind, *record.id])
    if record.voided:
        rows: list[tuple[str, Any]] = [("voided", place)]
    else:
        shown = {name: each for name, each in record.fields.items() if name != "by"}
        rows = [("restored", place)]
        rows += [(f"  {name}", word(each)) for name, each in shown.items()]
    if record.moved:
        rows.append(("  changed since", ", ".join(record.moved)))
    return rows


def _value(found: Reversal) -> dict[str, Any]:
    return {
        "txid": word(found.txid),
        "height": found.height,
        "time_ms": found.time_ms,
        "roles": list(found.roles),
        "approvals": list(found.approvals),
        "until_ms": found.until_ms,
        "reversed_by": None if found.by is None else word(found.by),
        "payments": [
            {
                "from": _account(each.source),
                "to": _account(each.target),
                "amount": each.amount,
                "short": each.short,
                "shortfall": None if each.shortfall is None else _account(each.shortfall),
                "reserved": None if each.reserved is None else _account(each.reserved),
            }
            for each in found.payments
        ],
        "records": [
            {
                "record": place_word("record", [each.kind, *each.id]),
                "voided": each.voided,
                "fields": {name: plain(value) for name, value in each.fields.items()},
                "changed_since": list(each.moved),
            }
            for each in found.records
        ],
        "freed": [[plain(part) for part in slot] for slot in found.slots],
        "obstacle": found.obstacle,
    }


COMMANDS: Final = ((reverse, EXAMPLES),)
"""What the command line offers of this module, with the end of each help text."""
