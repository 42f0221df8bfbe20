"""``comity simulate`` and ``comity requirements``: what would become of an act if it were sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import Parameter
from rich.console import Group
from rich.text import Text

from comity.cli import show
from comity.cli.acts import expectation, grant
from comity.cli.options import OUTPUT, REACH, Output, Reach, examples, with_client
from comity.cli.refusals import sentence
from comity.cli.values import parse_action, parse_digest, parse_inputs, time_word
from comity.client import Client
from comity.drafting import Call, find_action
from comity.errors import RequestError
from comity.results import Entry, Holder, Simulation
from comity.words import word
from consensus.protocol import StateKey, Status


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Ask:
    """How a call that is only asked about would be made."""

    expect: Annotated[
        tuple[str, ...],
        Parameter(help="kind/id=version that you decided on; may be repeated."),
    ] = ()
    under: Annotated[tuple[str, ...], Parameter(help="Id of a grant, hex.")] = ()
    cosigner: Annotated[
        tuple[str, ...],
        Parameter(
            help="Public key, or id, of somebody who would sign too, hex; may be repeated. "
            "Nobody has to have signed."
        ),
    ] = ()
    propose: Annotated[
        bool, Parameter(negative="", help="As a proposal: what it would need for its effect.")
    ] = False


ASK: Final = Ask()


def simulate(
    action: str, /, *inputs: str, ask: Ask = ASK, reach: Reach = REACH, output: Output = OUTPUT
) -> int:
    """Show what would become of a call now; nothing is sent for good, and nothing proves it.

    Args:
        action: domain.action.
        inputs: name=value each, or @file.json.
    """
    return _ask(action, inputs, ask, reach, output, _outcome_table)


def requirements(
    action: str, /, *inputs: str, ask: Ask = ASK, reach: Reach = REACH, output: Output = OUTPUT
) -> int:
    """Show everything that a call lacks now, and who could give it; nothing proves it.

    Args:
        action: domain.action.
        inputs: name=value each, or @file.json.
    """
    return _ask(action, inputs, ask, reach, output, _requirements_table)


def _ask(
    action: str,
    inputs: Sequence[str],
    ask: Ask,
    reach: Reach,
    output: Output,
    table: Callable[[Simulation], Any],
) -> int:
    domain, name = parse_action(action)
    named = [expectation(each) for each in ask.expect]
    grants = [grant(each) for each in ask.under]
    signers = [parse_digest(each, "public key or id of a principal") for each in ask.cosigner]

    async def work(client: Client) -> int:
        book = (await client.rules()).book
        call = Call(domain, name, parse_inputs(find_action(book, domain, name), inputs))
        reads = tuple(Entry(key, 0, 0, version, present=version > 0) for key, version in named)
        if not named:
            reads = await client.read_for(call)
        found = await client.simulate(
            call,
            reads=reads,
            under=grants,
            cosigners=[await _key_of(client, each) for each in signers],
            propose=ask.propose,
        )
        show.emit(output, simulation_value(found), table(found))
        return 0 if found.state in ("applied", "proposed") else 1

    return with_client(reach, work)


async def _key_of(client: Client, word: bytes) -> bytes:
    """Return a public key that was named itself or by the id of its principal."""
    try:
        (who,) = await client.get_many([StateKey("principal", (word,))])
    except RequestError as error:
        if error.status != Status.DENIED:
            raise
        return word
    return await client.key_of(word) if who.present else word


def simulation_value(found: Simulation) -> dict[str, Any]:
    """Return what would become of a draft, for JSON."""
    return {
        "state": found.state,
        "code": found.code,
        "call": found.call,
        "detail": found.detail,
        "message": "" if found.code is None else sentence(found.code, found.detail),
        "findings": [
            {
                "code": each.code,
                "call": each.call,
                "detail": each.detail,
                "message": sentence(each.code, each.detail),
            }
            for each in found.findings
        ],
        "complete": found.complete,
        "hidden": found.hidden,
        "holders": {
            role: [
                {"principal": h.principal, "agency": h.agency, "scope": dict(h.scope)}
                for h in holders
            ]
            for role, holders in found.holders.items()
        },
        "height": found.height,
        "time_ms": found.time_ms,
    }


def _outcome_table(found: Simulation) -> Any:
    if found.state is None or found.code is None:
        outcome = Text("not told: it rests on what this key may not read", style="yellow")
        rows: list[tuple[str, Any]] = [("outcome", outcome)]
    else:
        outcome = Text(found.state, style=show.STYLES[found.state])
        outcome.append("" if found.code == "APPLIED" else f" {found.code}")
        rows = [("outcome", outcome)]
        why = sentence(found.code, found.detail)
        if why:
            rows.append(("because", why))
    return show.titled("what one node says, not proved", show.pairs([*rows, _as_of(found)]))


def _requirements_table(found: Simulation) -> Any:
    parts: list[Any] = []
    if found.state == "proposed":
        parts += [Text("it would be stored; for its effect, as things are now:"), Text()]
    table = show.table("lacks", "because")
    for each in found.findings:
        table.add_row(each.code, sentence(each.code, each.detail))
    parts.append(table if found.findings else Text("nothing is lacking", style="green"))
    if found.holders:
        parts += [Text(), show.titled("who could approve", _holders_table(found.holders))]
    if found.hidden:
        parts += [Text(), Text("more rests on what this key may not read", style="yellow")]
    elif not found.complete:
        parts += [Text(), Text("mended, more may turn out to be lacking", style="yellow")]
    parts += [Text(), show.pairs([_as_of(found)])]
    return show.titled("what one node says, not proved", Group(*parts))


def _holders_table(holders: Mapping[str, Sequence[Holder]]) -> Any:
    table = show.table("role", "principal", "agency", "scope")
    for role, found in holders.items():
        if not found:
            table.add_row(role, "nobody that the node lists", "", "")
        for each in found:
            scope = ", ".join(f"{name} {value}" for name, value in each.scope.items())
            table.add_row(role, word(each.principal), each.agency, scope)
    return table


def _as_of(found: Simulation) -> tuple[str, Any]:
    return "as of", f"height {found.height}, {time_word(found.time_ms)}"


COMMANDS: Final[tuple[tuple[Callable[..., Any], str], ...]] = (
    (
        simulate,
        examples(
            "comity simulate payments.disburse entitlement=0x51c0... period=2026-07",
            "comity simulate notes.publish note=7 --cosigner 0x2fe0...",
        ),
    ),
    (
        requirements,
        examples(
            "comity requirements payments.disburse entitlement=0x51c0... period=2026-07 --json",
            "comity requirements notes.publish note=7 --propose",
        ),
    ),
)
"""What the command line offers of this module, with the end of each help text."""
