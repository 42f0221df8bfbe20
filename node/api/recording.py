"""What the rules want recorded of a reading, and who may look it up.

Where kinds and families say so, everything that shows one of their records or accounts is recorded
before it is answered; if it cannot be, it is not answered:

    get, holds, index,  rows, what holds and reservations are about, records that an index lists;
    history             of every version that is shown
    list                the records of a page
    decision, effect,   records and accounts that open leaves of decisions name; not of acts that
    decisions,          the reader signed
    subscribe           likewise; of changes, what the rows that come with them tell of
    reversal            what the act wrote and moved
    disclosed           the records of which fields are opened
    bundle              the leaves that the act was judged on
    proposal            what its draft names and what was looked at to judge it, where it is shown
    simulate            what the draft names and rests on
    blocks              as decisions, and what each transaction expects

The rest shows none: ``rules``, ``status``, ``committee``, ``statements``, ``past``, ``moment``;
``proposals``, whose pages are ids of proposals; ``reads``, which shows who has read. Receipts of
``submit`` are not recorded: to whoever did not sign the act they show nothing of it
(``showing.receipt``).

Whoever may read a record may look up who has; the person concerned learns agency and purpose alone.

Not here: the log (``node.readlog``), and what tells of what (``places``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consensus import codec, protocol
from consensus.codec import Value
from consensus.errors import ComityError
from consensus.protocol import GetReads, Request, StateKey, Status
from node.api import access, places
from node.api.backend import ProvedRows
from node.api.reading import CannotAnswer

if TYPE_CHECKING:
    from node.api.connection import Connection

PLACES_MAX: Final = 256
PLACES_BYTES_MAX: Final = 256 * 1024
"""Places of one entry; more make several."""
PLACE_BYTES_MAX: Final = 16 * 1024
"""Longest place that is recorded: ids and values that are listed are shorter by far."""


Shown = tuple[int, Iterable[StateKey]]
"""A height and what is shown of its state; of a decision, the height at which it was made."""


async def record(
    connection: Connection, request: Request, height: int, keys: Iterable[StateKey]
) -> None:
    """Return once it is on disk that somebody is shown those of ``keys`` that want it.

    Raises:
        CannotAnswer: it could not be recorded.
    """
    await record_all(connection, request, [(height, keys)])


async def record_named(
    connection: Connection,
    request: Request,
    height: int,
    named: Iterable[tuple[str, Sequence[Value]]],
) -> None:
    """Return once it is on disk what of spaces and components is shown. Raises as ``record``."""
    keys = (StateKey(space, tuple(components)) for space, components in named)
    await record(connection, request, height, keys)


async def record_rows(connection: Connection, request: Request, proved: ProvedRows) -> None:
    """Return once it is on disk that somebody is shown rows. Raises as ``record``."""
    if access.logs_any(connection.identity):
        rows = zip(proved.keys, proved.rows, strict=True)
        keys = [place for key, row in rows for place in places.of_row(key, row)]
        await record(connection, request, proved.height, keys)


async def record_decisions(
    connection: Connection, request: Request, shown: Iterable[tuple[int, Sequence[bytes]]]
) -> None:
    """Return once it is on disk that somebody is shown decisions of some heights.

    Decisions on acts that they signed themselves are no reading: the chain names them with it.

    Args:
        shown: heights with encoded decisions, as they are shown.

    Raises:
        CannotAnswer: it could not be recorded.
    """
    identity = connection.identity
    if identity is not None and access.logs_any(identity):
        found = [
            (
                height,
                [
                    place
                    for each in decisions
                    if not places.signed_by(each, connection.key)
                    for place in places.of_decision(identity, each)
                ],
            )
            for height, decisions in shown
        ]
        await record_all(connection, request, found)


async def record_all(connection: Connection, request: Request, shown: Iterable[Shown]) -> None:
    """Return once it is on disk that somebody is shown what wants it, of several heights.

    Raises:
        CannotAnswer: it could not be recorded.
    """
    identity = connection.identity
    if identity is None or not access.logs_any(identity):
        return
    entries = [
        (height, part)
        for height, keys in shown
        for part in parts_of(key for key in keys if access.is_logged(identity, key))
    ]
    if entries:
        await _record(connection, request, entries)


async def record_always(
    connection: Connection, request: Request, height: int, shown: Sequence[StateKey]
) -> None:
    """Return once it is on disk that somebody is shown places, whatever the rules say of them.

    Raises:
        CannotAnswer: it could not be recorded.
    """
    await _record(connection, request, [(height, part) for part in parts_of(shown)])


async def _record(
    connection: Connection, request: Request, entries: Sequence[tuple[int, Sequence[StateKey]]]
) -> None:
    identity = connection.identity
    if identity is None:
        return
    method = protocol.method_of(request)
    try:
        await connection.hub.backend.record_reads(
            identity, connection.key, method, connection.purpose, entries
        )
    except ComityError as error:
        said = "this may be shown only if that is recorded, which this node cannot now"
        raise CannotAnswer(Status.UNAVAILABLE, said, "ask another node") from error


async def reads(connection: Connection, request: GetReads) -> Value:
    """Return whom this node has shown a place to.

    Raises:
        CannotAnswer: the caller may not read the place.
    """
    identity, target = connection.identity, request.target
    raw = None if identity is None or identity.raw is None else identity.raw(target)
    if identity is None or not access.may_read(identity, connection.key, target, raw):
        raise CannotAnswer(Status.DENIED, "this key may not read that")
    found = await connection.hub.backend.reads_of(target, request.skip, request.limit)
    if not access.may_weigh(identity, target, raw):
        found = [replace(each, principal=None) for each in found]
    return [each.to_value() for each in found]


def parts_of(keys: Iterable[StateKey]) -> list[list[StateKey]]:
    """Return places, each once, cut so that each part makes an entry of bounded size.

    Raises:
        CannotAnswer: a place is longer than that of any record or account.
    """
    parts: list[list[StateKey]] = []
    seen: set[bytes] = set()
    room = 0
    for key in keys:
        encoded = codec.encode([key.namespace, [*key.components]])
        if len(encoded) > PLACE_BYTES_MAX:
            raise CannotAnswer(Status.NOT_FOUND, "nothing has an id of that length")
        if encoded in seen:
            continue
        seen.add(encoded)
        if not parts or len(parts[-1]) == PLACES_MAX or len(encoded) > room:
            parts.append([])
            room = PLACES_BYTES_MAX
        room -= len(encoded)
        parts[-1].append(key)
    return parts
