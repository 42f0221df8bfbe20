"""Requests for the past: versions of a leaf, and the height of a moment.

Whoever may read a leaf as it is now may see what it was, version by version: one that they could
not read if it were the present one stays closed. Read rules are those in force now. So somebody who
took a case over sees it from when it became theirs, and nobody keeps seeing what went elsewhere.

Not here: where the past is found (the backend), and what proves it (``consensus.state.changes``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

from consensus.codec import Value
from consensus.past import CLOSED, FORGOTTEN, History, Told
from consensus.protocol import GetHistory, GetMoment, StateKey, Status
from consensus.state.changes import HistoryProof
from node.api import access, places, reading, recording
from node.api.backend import BehindError, Lineage, PrunedError
from node.api.reading import CannotAnswer

if TYPE_CHECKING:
    from node.api.connection import Connection

HEIGHTS_AHEAD_MAX: Final = 64
"""A history waits for a height at most this far above the newest certified one."""
BEHIND_RETRY_MS: Final = 200
ROWS_BYTES_MAX: Final = 4 * 1024 * 1024
"""Rows of one answer; a history of longer ones comes in more pages."""


async def history(connection: Connection, request: GetHistory) -> Value:
    """Return the versions of a leaf, as the caller may see them.

    Raises:
        CannotAnswer: the caller may not read the leaf, or it lies beyond what this node keeps.
    """
    backend, key = connection.hub.backend, request.key
    height_min = max(request.height_min, request.first)
    if height_min > backend.height + HEIGHTS_AHEAD_MAX:
        raise _behind(height_min)
    try:
        (proved,) = await backend.prove(height_min, [lambda read: [key]])
    except BehindError as error:
        raise _behind(height_min) from error
    _allow(connection, key, proved.rows[0])
    last = proved.height if request.last is None else min(request.last, proved.height)
    limit = request.limit
    while True:
        try:
            found = await backend.lineage(key, proved.height, request.first, last, limit)
        except PrunedError as error:
            raise too_old(error) from error
        size = sum(len(raw) for raw in found.rows if isinstance(raw, bytes))
        if size <= ROWS_BYTES_MAX or limit == 1:
            break
        limit = max(limit // 4, 1)
    _allow(connection, key, proved.rows[0])  # who may read may have changed meanwhile
    shown = [_may_see(connection, key, raw) for raw in found.rows]
    who = connection.identity
    if access.logs_any(who):
        raws = [raw for raw, told in zip(found.rows, shown, strict=True) if told]
        told = [place for raw in [*raws, proved.rows[0]] for place in _tells(key, raw)]
        await recording.record(connection, request, proved.height, told)
    proof = HistoryProof(found.steps, proved.proof if found.ended else None).encode()
    rows = tuple(_told(connection, key, found, index, shown[index]) for index in range(len(shown)))
    connection.outbox.statement(proved.height, reading.evidence_of(backend, proved.height))
    horizon_ms = backend.time_of(found.horizon)
    return History(proved.height, found.last, proof, rows, found.horizon, horizon_ms).to_value()


def moment(connection: Connection, request: GetMoment) -> Value:
    """Return the height of a moment; its statement and the next one's go before.

    Raises:
        CannotAnswer: it lies beyond what this node keeps.
    """
    backend = connection.hub.backend
    try:
        found = backend.moment(request.time_ms)
    except PrunedError as error:
        raise too_old(error) from error
    for height in (0,) if found is None else (found, found + 1):
        evidence = backend.evidence(height)
        if evidence is not None:
            connection.outbox.statement(height, evidence)
    return found


def _allow(connection: Connection, key: StateKey, raw: bytes | None) -> None:
    if connection.access == 0 or not access.may_read(connection.identity, connection.key, key, raw):
        raise CannotAnswer(Status.DENIED, "this key may not read that")


def _may_see(connection: Connection, key: StateKey, raw: bytes | int | None) -> bool:
    """Return whether a version's row may be shown, as if it were the present one."""
    if raw is None or isinstance(raw, int):
        return True
    return access.may_read(connection.identity, connection.key, key, raw)


def _tells(key: StateKey, raw: bytes | int | None) -> list[StateKey]:
    return [] if isinstance(raw, int) else [*places.of_row(key, raw)]


def _told(connection: Connection, key: StateKey, found: Lineage, index: int, shown: bool) -> Told:
    raw = found.rows[index]
    if not shown:
        return CLOSED
    if isinstance(raw, int):
        return FORGOTTEN
    return reading.row_shown(key, raw, partial(access.closes_holds, connection.identity))


def _behind(height: int) -> CannotAnswer:
    said = f"this node has not reached height {height} yet"
    return CannotAnswer(Status.UNAVAILABLE, said, "ask another node", BEHIND_RETRY_MS)


def too_old(error: PrunedError) -> CannotAnswer:
    """Return what is answered about heights that this node does not keep."""
    since = "" if error.time_ms is None else f" ({_time(error.time_ms)})"
    return CannotAnswer(
        Status.PRUNED,
        f"this node keeps the past from height {error.height}{since} on",
        "ask for a later height, or a node that keeps more",
    )


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%SZ}"
