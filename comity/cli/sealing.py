"""``comity erase``, and sealed fields in what other commands show.

Not here: how values are sealed, unsealed and erased (``comity.sealing``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from cyclopts import Parameter

from comity.cli import show
from comity.cli.options import OUTPUT, REACH, Output, Reach, UsageError, examples, with_client
from comity.cli.rule_names import emit_decision
from comity.cli.values import parse_place
from comity.client import Client
from comity.drafting import Sealed
from comity.errors import NotReachableError, RequestError
from comity.results import Entry
from comity.sealing import ABSENT, CLOSED, ERASED, Unsealed
from comity.words import word
from consensus.codec import Value
from consensus.ledger.model import Kind, Rulebook

EXAMPLES: Final = examples(
    "comity erase file/7 iban findings --agency treasury --legal 'request 12, s 17'",
    "comity erase file/7 iban --agency treasury --legal 's 17' --propose",
)


def erase(
    place: str,
    /,
    *fields: str,
    agency: Annotated[str, Parameter(help="Of this key, for which the fields are sealed.")],
    legal: Annotated[str, Parameter(help="What it rests on.")],
    propose: Annotated[
        bool, Parameter(help="Store it, to wait for the approvals that the charter asks for.")
    ] = False,
    reason: Annotated[str, Parameter(help="Why, in words.")] = "",
    reach: Reach = REACH,
    output: Output = OUTPUT,
) -> int:
    """Have the audience destroy all values that sealed fields of a record have had; no way back.

    Args:
        place: kind/id.
        fields: names of sealed fields.
    """
    namespace, components = parse_place(place)
    if namespace != "record" or not fields:
        raise UsageError("name a record and its fields", hint="comity erase file/7 iban …")
    kind, *id_ = components

    async def work(client: Client) -> int:
        decision = await client.erase(
            agency, str(kind), id_, fields, legal, reason=reason, propose=propose
        )
        await emit_decision(client, output, decision)
        if decision.code == "NEEDS_APPROVAL" and not output.json:
            show.err().print("hint:  with --propose it waits for its approvals.")
        return 1 if decision.state == "refused" else 0

    return with_client(reach, work)


async def unsealed(client: Client, entry: Entry) -> Mapping[str, Unsealed]:
    """Return the sealed fields of an entry, as far as they may be seen; empty where none is."""
    try:
        return await client.unseal(entry)
    except (RequestError, NotReachableError):
        return {}  # its rules may not be read, or nobody of the audience is there


def value_of(found: Mapping[str, Unsealed]) -> dict[str, Any]:
    """Return sealed fields for JSON."""
    return {
        name: {
            "state": each.state,
            "value": each.value,
            "txid": each.txid,
            "typed": each.typed,
        }
        for name, each in found.items()
    }


def words(entry: Entry, book: Rulebook | None, found: Mapping[str, Unsealed]) -> dict[str, str]:
    """Return what people are shown of the sealed fields of an entry that have a value, by leaf."""
    if book is None or entry.key.namespace != "record" or not entry.present:
        return {}
    kind = book.kinds.get(str(entry.key.components[0]))
    if kind is None:
        return {}
    return {
        name: field_word(found.get(name), kind, name)
        for name, field in kind.fields.items()
        if field.sealed_for and entry.fields.get(name) is not None
    }


def field_word(found: Unsealed | None, kind: Kind, name: str) -> str:
    """Return a sealed field's value for people, or why it is not shown."""
    if found is None or found.state == CLOSED:
        return f"sealed for {', '.join(kind.fields[name].sealed_for)}"
    if found.state == ERASED:
        return f"erased by {'' if found.txid is None else word(found.txid)}"
    if found.state == ABSENT:
        return "sealed; no node of its audience that was reached has it"
    said = show.typed_word(found.value, kind.fields[name].type)
    return said if found.typed else f"{said} (not of type {kind.fields[name].type.text})"


def shown_inputs(inputs: Mapping[str, Value]) -> dict[str, Value]:
    """Return inputs as they may be printed: what is sealed stays so."""
    return {name: "sealed" if isinstance(each, Sealed) else each for name, each in inputs.items()}


COMMANDS: Final = ((erase, EXAMPLES),)
"""What the command line offers of this module, with the end of each help text."""
