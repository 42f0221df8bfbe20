"""Sealed values over the client protocol: delivered by authors, opened for the audience.

| who                                         | may                                            |
|---------------------------------------------|------------------------------------------------|
| holder of any active key                    | deliver values of transactions of its own key  |
| official or system of an agency in the      | get the values of a record that it may read    |
| audience                                    |                                                |

Every opening is recorded in this node's log of reads before it is answered, whatever the rules
say; if it cannot be, nothing is opened.

Not here: keeping values (``node.sealed``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from consensus.codec import Value
from consensus.errors import ComityError
from consensus.protocol import GetSealed, Status
from consensus.sealed import Deliver
from node.api import access, recording
from node.api.reading import CannotAnswer
from node.errors import StorageFailedError
from node.sealed.keeper import Keeper, KeeperBusyError, NotInAudienceError

if TYPE_CHECKING:
    from node.api.connection import Connection

BUSY_RETRY_MS: Final = 1000


async def deliver(connection: Connection, request: Deliver) -> Value:
    """Return commitment and signature of each value, which are on disk.

    Raises:
        CannotAnswer: nothing was kept.
    """
    keeper = _keeper(connection)
    try:
        kept = await keeper.deliver(connection.key, request)
    except NotInAudienceError as error:
        raise CannotAnswer(Status.DENIED, error.message, error.hint) from error
    except KeeperBusyError as error:
        raise CannotAnswer(Status.BUSY, error.message, error.hint, BUSY_RETRY_MS) from error
    except StorageFailedError as error:
        said = "this node cannot keep sealed values now"
        raise CannotAnswer(Status.UNAVAILABLE, said, "try again later") from error
    except ComityError as error:
        raise CannotAnswer(Status.NOT_ADMITTED, error.message, error.hint) from error
    return [each.to_value() for each in kept]


async def opened(connection: Connection, request: GetSealed) -> Value:
    """Return what became of each value, in the order of the commitments.

    Raises:
        CannotAnswer: the caller may not read the record, or what it reads cannot be recorded.
    """
    keeper = _keeper(connection)
    identity, target = connection.identity, request.target
    row = None if identity is None or identity.raw is None else identity.raw(target)
    allowed = identity is not None and access.is_member(identity)
    readable = allowed and target.namespace == "record" and target.components
    if (
        identity is None
        or not readable
        or not access.may_read(identity, connection.key, target, row)
    ):
        raise CannotAnswer(Status.DENIED, "this key may not read that")
    if row is None:
        raise CannotAnswer(Status.NOT_FOUND, "there is no such record")
    height = connection.hub.backend.height
    agency = identity.agency
    try:
        found = await keeper.open(
            lambda name: keeper.standing_for(name) == agency,
            str(target.components[0]),
            row,
            request.commitments,
        )
    except StorageFailedError as error:
        said = "this node cannot read its sealed values now"
        raise CannotAnswer(Status.UNAVAILABLE, said, "ask another node") from error
    if any(each.opening is not None for each in found):
        await recording.record_always(connection, request, height, [target])
    return [each.to_value() for each in found]


def _keeper(connection: Connection) -> Keeper:
    keeper = connection.hub.backend.keeper
    if keeper is None:
        said = "this node keeps no sealed values"
        raise CannotAnswer(Status.UNAVAILABLE, said, "ask another node of the audience")
    return keeper
