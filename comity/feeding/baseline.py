"""What there was after a height, for a copy that begins later than the founding.

Ids come from one node's own index, so each row is proved and that there are no others is not; what
is left out comes when it changes. Accounts are listed nowhere: those of the founding are taken,
others come when they change.

Not here: what changes from then on (``following``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from comity.client import Client
from comity.errors import RequestError
from comity.feeding.catalogue import Catalogue
from comity.results import Entry, Listing
from consensus.codec import Value
from consensus.protocol import KEYS_MAX, PAGE_MAX, StateKey, Status

ROWS_MAX: Final = 5_000_000
"""Rows taken; a copy of more begins at the founding, or is restored from another one."""


async def standing(client: Client, catalogue: Catalogue, height: int) -> list[Entry]:
    """Return the records, holds and accounts that this key may read, as after ``height``.

    Raises:
        RequestError: PRUNED: the node asked does not keep so old rows.
    """
    found: list[Entry] = []
    for kind in ("hold", *catalogue.kinds):
        after = None
        while len(found) < ROWS_MAX:
            page = await _page(client, kind, after)
            if page is None:
                break
            space = "hold" if kind == "hold" else "record"
            keys = [StateKey(space, id_ if kind == "hold" else (kind, *id_)) for id_ in page.ids]
            for first in range(0, len(keys), KEYS_MAX):
                found += await _as_of(client, keys[first : first + KEYS_MAX], height)
            after = page.next
            if after is None:
                break
    for account in client.genesis.accounts:
        place = StateKey("account", (account.family, *account.id))
        found += await _as_of(client, [place], height)
    return found


async def _page(client: Client, kind: str, after: tuple[Value, ...] | None) -> Listing | None:
    """Return a page of ids; None of a kind that no rule set in force has any more."""
    try:
        return await client.list_records(kind, after=after, limit=PAGE_MAX)
    except RequestError as error:
        if error.status != Status.NOT_FOUND:
            raise
        return None


async def _as_of(client: Client, keys: Sequence[StateKey], height: int) -> list[Entry]:
    """Return those of some leaves that were there, one by one where they have changed since."""
    try:
        entries = await client.get_many(keys)
    except RequestError as error:
        if error.status != Status.DENIED:
            raise
        if len(keys) == 1:
            return []
        return [entry for key in keys for entry in await _as_of(client, [key], height)]
    found: list[Entry] = []
    for entry in entries:
        if entry.present and entry.changed > height:
            try:
                found.append(await client.get_at(entry.key, height))
            except RequestError as error:
                if error.status != Status.DENIED:
                    raise
        else:
            found.append(entry)
    return [entry for entry in found if entry.present]
