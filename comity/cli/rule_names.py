"""What the rules in force call things, for tables."""

from __future__ import annotations

from comity.client import Client
from comity.errors import RequestError
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
    return {
        action.action_id: action.name
        for rule_set in (book.rule_sets.values() if book is not None else ())
        for action in rule_set.actions.values()
    }
