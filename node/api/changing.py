"""A height with all that it changed, for subscriptions to changes.

The change records are hashes and go to every member. Rows go with them where the reader may read
the leaf as it is now and could read that version if it were the present one, as with ``history``.
Shown are records, accounts and what the kernel keeps of them (``SPACES``); indexes, slots and
windows stay hashes.

Where a change record names no place, its row does (a record's header, an account's id), and else
the decisions of the height, which name whatever was written.

Not here: where the rows are found (the backend), and who may read (``access``).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from consensus import protocol
from consensus.answers import StatementEvidence
from consensus.changed import Part, Shown
from consensus.protocol import StateKey, Status, Subscribe
from node.api import access, places, reading, recalling, recording
from node.api.backend import Changed, PrunedError
from node.api.reading import CannotAnswer

if TYPE_CHECKING:
    from node.api.connection import Connection

SPACES: Final = ("record", "account", "reservation", "hold", "erasure", "corrections", "proposal")
"""Spaces whose rows are shown, as far as they may be read."""
PART_BYTES: Final = 4 * 1024 * 1024
"""About how much one part has of rows; a row comes whole."""
ROW_BYTES_SPARE: Final = 512
"""What a row takes beside twice its bytes in the store: its place, its frame."""


async def parts(
    connection: Connection, request: Subscribe, height: int
) -> AsyncGenerator[tuple[Part, StatementEvidence]]:
    """Yield the parts of a height, as the reader may see them, each with the height's evidence.

    Raises:
        CannotAnswer: it is not kept here, or cannot be recorded, or does not fit.
    """
    backend = connection.hub.backend
    decisions: tuple[bytes, ...] = ()
    named: list[StateKey] = []
    if height:
        decisions, block = reading.decisions_at(backend, height, connection.shown)
        named = [*places.written(block.decisions)]
    evidence = reading.evidence_of(backend, height)
    try:
        changed = await backend.changed(height, [key for key in named if key.namespace in SPACES])
    except PrunedError as error:
        raise recalling.too_old(error) from error
    room = protocol.ANSWER_BYTES_MAX - reading.ANSWER_BYTES_SPARE - len(changed.changes)
    room -= sum(map(len, decisions)) + 16 * len(decisions)
    if room < 0:
        raise CannotAnswer(Status.UNAVAILABLE, f"height {height} does not fit into one answer")
    shown = [each for each in changed.rows if _may_see(connection, each)]
    if decisions:
        await recording.record_decisions(connection, request, [(height, decisions)])
    told = [place for each in shown for place in places.of_row(each.place, each.raw)]
    await recording.record(connection, request, height, told)
    pages = [*_pages(connection, shown, min(room, PART_BYTES))]
    for index, rows in enumerate(pages):
        more = index + 1 < len(pages)
        if index == 0:
            yield Part(height, decisions, changed.changes, tuple(rows), more), evidence
        else:
            yield Part(height, None, None, tuple(rows), more), evidence


def _may_see(connection: Connection, each: Changed) -> bool:
    """Return whether a row may be shown that a height made: as it was then, and as it is now."""
    who, key = connection.identity, each.place
    if who is None or who.raw is None:
        return False
    now = who.raw(key)
    if not access.may_read(who, connection.key, key, now):
        return False
    raw = each.raw
    return raw == now or access.may_read(who, connection.key, key, raw)


def _pages(connection: Connection, shown: Sequence[Changed], room: int) -> Iterator[list[Shown]]:
    """Yield rows cut into parts of about PART_BYTES, the first of ``room`` bytes; one at least."""
    closes = partial(access.closes_holds, connection.identity)
    page: list[Shown] = []
    first = True
    for each in shown:
        cost = 2 * len(each.raw or b"") + ROW_BYTES_SPARE
        if cost > room and (page or first):
            yield page
            page, room, first = [], PART_BYTES, False
        page.append(Shown(each.index, each.place, reading.row_shown(each.place, each.raw, closes)))
        room -= cost
    yield page
