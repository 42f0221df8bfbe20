"""``comity submit``: one call, with what was read named as what is expected."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, with_client
from comity.cli.values import parse_inputs, parse_place
from comity.client import Client
from comity.drafting import Call, find_action
from comity.errors import DraftError
from comity.results import Entry
from consensus.protocol import StateKey


def submit(
    action: str,
    *inputs: str,
    expect: Annotated[
        tuple[str, ...],
        Parameter(
            negative="",
            help="kind/id=version that you decided on; may be repeated. Without it the records "
            "are read now and shown.",
        ),
    ] = (),
    under: Annotated[tuple[str, ...], Parameter(negative="", help="Id of a grant, hex.")] = (),
    reason: Annotated[str, Parameter(help="Why, in words.")] = "",
    dry: Annotated[bool, Parameter(negative="", help="Show what would be sent and stop.")] = False,
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Draft, sign and submit one call, and wait for its certified decision.

    Args:
        action: domain.action.
        inputs: name=value each, or @file.json.
    """
    domain, dot, name = action.partition(".")
    if not dot:
        raise DraftError(f"{action!r} is not domain.action", hint="e.g. payments.disburse")
    named = [_expectation(each) for each in expect]
    grants = [_grant(each) for each in under]

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
                console.print(show.entry_table(entry))
        unsigned = await client.draft(call, reads=reads, under=grants, reason=reason)
        if dry:
            expects = [[e.kind, e.id, e.version] for e in unsigned.transaction.context.expects]
            value = {
                "action": action,
                "inputs": dict(call.inputs),
                "expects": expects,
                "not_after_ms": unsigned.transaction.not_after_ms,
            }
            show.emit(output, value, show.pairs(value.items()))
            return 0
        decision = await client.submit(client.sign(unsigned))
        show.emit(output, show.decision_value(decision), show.decision_table(decision))
        return 1 if decision.state == "refused" else 0

    return with_client(reach, work)


def _expectation(word: str) -> tuple[StateKey, int]:
    place, equals, version = word.rpartition("=")
    if not equals or not version.isdecimal():
        raise DraftError(f"{word!r} is not kind/id=version", hint="e.g. --expect note/7=2")
    namespace, components = parse_place(place)
    return StateKey(namespace, tuple(components)), int(version)


def _grant(word: str) -> bytes:
    try:
        found = bytes.fromhex(word.removeprefix("0x"))
    except ValueError:
        found = b""
    if len(found) != 32:
        raise DraftError(f"{word!r} is no id of a grant", hint="it has 64 hex digits")
    return found
