"""What the rules want recorded of a reading, and who may look it up.

Rows of kinds and families that say so, lists and indexes that name their records, holds on them,
and drafts tried out on them are recorded before they are answered; if they cannot be, they are
not answered. Whoever may read a record may look up who has; the person concerned learns agency
and purpose alone.

Not here: the log (``node.readlog``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consensus import protocol
from consensus.codec import Value
from consensus.errors import ComityError
from consensus.protocol import GetReads, Request, StateKey, Status
from node.api import access
from node.api.reading import CannotAnswer

if TYPE_CHECKING:
    from node.api.connection import Connection

PLACES_MAX: Final = 256
"""Places of one entry; more make several."""


async def record(
    connection: Connection, request: Request, height: int, keys: Iterable[StateKey]
) -> None:
    """Return once it is on disk that somebody is shown those of ``keys`` that want it.

    Raises:
        CannotAnswer: it could not be recorded.
    """
    identity = connection.identity
    if identity is None or identity.reader is None:
        return
    places = [_subject(key) for key in keys if access.is_logged(identity, _subject(key))]
    method = protocol.method_of(request)
    try:
        for first in range(0, len(places), PLACES_MAX):
            await connection.hub.backend.record_read(
                identity,
                connection.key,
                height,
                method,
                connection.purpose,
                places[first : first + PLACES_MAX],
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


def _subject(key: StateKey) -> StateKey:
    """Return the record or account that a row is about: of a list of holds its target."""
    if key.namespace == "holds" and access.is_place(key.components):
        return StateKey(str(key.components[0]), tuple(key.components[1]))
    return key
