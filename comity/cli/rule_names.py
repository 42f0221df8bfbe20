"""What the rules in force call things, for tables, and decisions shown with it."""

from __future__ import annotations

from comity.cli import show
from comity.cli.options import Output
from comity.client import Client
from comity.errors import RequestError
from comity.results import Decision
from consensus.ledger.model import Rulebook


async def rulebook(client: Client) -> Rulebook | None:
    """Return the rules in force; None where they may not be read."""
    try:
        return (await client.rules()).book
    except RequestError:
        return None


async def action_names(client: Client) -> dict[bytes, str]:
    """Return the names of the actions in force by their id; empty where rules may not be read."""
    book = await rulebook(client)
    return {} if book is None else show.names_in(book)


async def emit_decision(client: Client, output: Output, decision: Decision) -> None:
    """Print a decision; people see its actions by name."""
    names = {} if output.json else await action_names(client)
    show.emit(output, show.decision_value(decision), show.decision_table(decision, names))
