"""``comity submit``: one call, with what was read named as what is expected."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

from cyclopts import Parameter

from comity.cli import show
from comity.cli.circulars import pass_on
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
from comity.cli.sealing import shown_inputs
from comity.cli.values import (
    natural,
    parse_action,
    parse_digest,
    parse_inputs,
    parse_place,
    time_word,
)
from comity.client import Client
from comity.drafting import Call, find_action
from comity.results import Entry
from comity.words import id_word
from consensus.ledger.transaction import Transaction
from consensus.protocol import StateKey

EXAMPLES: Final = examples(
    "comity submit payments.disburse entitlement=0x51c0... period=2026-07",
    "comity submit notes.amend note=7 text='as agreed' --expect note/7=2",
    "comity submit notes.write @note.json --dry",
    "comity submit notes.publish note=7 --cosigner 0x2fe0... --circulate publish.cbor",
)


def submit(
    action: str,
    /,
    *inputs: str,
    expect: Annotated[
        tuple[str, ...],
        Parameter(
            help="kind/id=version that you decided on; may be repeated. Without it the records "
            "are read now and shown.",
        ),
    ] = (),
    under: Annotated[tuple[str, ...], Parameter(help="Id of a grant, hex.")] = (),
    reason: Annotated[str, Parameter(help="Why, in words.")] = "",
    cosigner: Annotated[
        tuple[str, ...],
        Parameter(help="Public key of somebody who signs too, hex; may be repeated."),
    ] = (),
    circulate: Annotated[
        Path | None,
        Parameter(help="Write it to this file, for the cosigners to sign, instead of sending it."),
    ] = None,
    dry: Annotated[bool, Parameter(help="Show what would be sent and stop.")] = False,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Draft, sign and submit one call, and wait for its certified decision.

    Args:
        action: domain.action.
        inputs: name=value each, or @file.json.
    """
    domain, name = parse_action(action)
    if circulate is not None:
        refuse_existing(circulate)
    named = [expectation(each) for each in expect]
    grants = [grant(each) for each in under]
    cosigners = [_key(each) for each in cosigner]
    if cosigners and circulate is None and not dry:
        raise UsageError(
            "cosigners sign before it is sent", hint="write it to a file with --circulate FILE"
        )

    async def work(client: Client) -> int:
        book = (await client.rules()).book
        found = find_action(book, domain, name)
        call = Call(domain, name, parse_inputs(found, inputs))
        reads = await client.read_for(call)
        if named:
            reads = tuple(Entry(key, 0, 0, version, present=version > 0) for key, version in named)
        elif not output.json:
            console = show.err()
            for entry in reads:
                console.print(show.entry_table(entry, book))
        unsigned = await client.draft(
            call,
            reads=reads,
            under=grants,
            reason=reason,
            cosigners=cosigners,
            later=circulate is not None,
            not_after_ms=await _latest_ms(client) if circulate is not None else None,
            deliver=not dry,
        )
        if dry:
            _show_draft(output, action, call, unsigned.transaction)
            return 0
        if circulate is not None:
            pass_on(client.circulate(unsigned), book, circulate, output)
            return 0
        decision = await client.submit(client.sign(unsigned))
        names = {found.action_id: name}
        show.emit(output, show.decision_value(decision), show.decision_table(decision, names))
        if decision.code == "NEEDS_APPROVAL" and not output.json:
            show.err().print(f"hint:  `comity propose {action} …` has it wait for its approvals.")
        return 1 if decision.state == "refused" else 0

    return with_client(reach, work)


def _show_draft(output: Output, action: str, call: Call, drafted: Transaction) -> None:
    expects = [(f"{e.kind}/{id_word(e.id)}", e.version) for e in drafted.context.expects]
    value = {
        "action": action,
        "inputs": shown_inputs(call.inputs),
        "expects": [[place, version] for place, version in expects],
        "not_after_ms": drafted.not_after_ms,
    }
    rows: list[tuple[str, Any]] = [("action", action)]
    rows += [(f"  {name}", each) for name, each in shown_inputs(call.inputs).items()]
    rows += [("expects", f"{place} at version {version}") for place, version in expects]
    rows.append(("valid until", time_word(drafted.not_after_ms)))
    show.emit(output, value, show.titled("not sent", show.pairs(rows)))


def expectation(word: str) -> tuple[StateKey, int]:
    """Return place and version of ``kind/id=version``; raises UsageError."""
    place, equals, version = word.rpartition("=")
    number = natural(version)
    if not equals or number is None:
        raise UsageError(f"{word!r} is not kind/id=version", hint="e.g. --expect note/7=2")
    namespace, components = parse_place(place)
    return StateKey(namespace, tuple(components)), number


async def _latest_ms(client: Client) -> int:
    """Return the latest time until which the network lets a transaction be valid."""
    return await client.now_ms() + client.genesis.limits.not_after_ms_max


def grant(word: str) -> bytes:
    """Return the id of a grant; raises UsageError."""
    return parse_digest(word, "id of a grant")


def _key(word: str) -> bytes:
    return parse_digest(word, "public key")


COMMANDS: Final = ((submit, EXAMPLES),)
"""What the command line offers of this module, with the end of each help text."""
