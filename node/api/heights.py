"""Whole heights: a statement below a later certificate, and what auditors execute again.

``past`` is open to everybody, as all statements are. ``blocks`` shows everything that transactions
said, private parts too: it is for officials and systems of members from whom no read rule keeps
anything, and what its decisions tell of is recorded like decisions that are shown.

Not here: what an audit makes of it (``consensus.audit``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from consensus import codec, protocol
from consensus.answers import Past
from consensus.audit.pages import Page
from consensus.audit.stream import Recorded, encode_height
from consensus.codec import Value
from consensus.ledger import batch as batches
from consensus.ledger import layout
from consensus.protocol import GetBlocks, StateKey, Status
from node.api import access, recording
from node.api.backend import ApiBackend
from node.api.reading import ANSWER_BYTES_SPARE, CannotAnswer

if TYPE_CHECKING:
    from node.api.connection import Connection

PAGE_BYTES: Final = 4 * 1024 * 1024
"""About how much one page has; a height that is larger comes alone."""
AHEAD_MAX: Final = 64
"""Heights that may be asked for before they are certified: worth waiting for."""
RETRY_MS: Final = 200
_NOTHING: Final = codec.encode([])


def past(backend: ApiBackend, height: int) -> Value:
    """Return the statement of a height with its path to a later certificate.

    Raises:
        CannotAnswer: it is not certified yet, not kept, or no later height is certified.
    """
    found = backend.past(height) if height <= backend.height else None
    if found is None:
        if backend.height <= height <= backend.height + AHEAD_MAX:
            said = f"height {height} is not certified yet"
            raise CannotAnswer(Status.UNAVAILABLE, said, "ask again", RETRY_MS)
        hint = f"the newest is {backend.height}"
        if height < backend.height:
            hint = "this node does not keep it: ask another one"
        raise CannotAnswer(Status.NOT_FOUND, f"there is no height {height} here", hint)
    statement, size, path = found
    evidence = backend.evidence(size) if size <= backend.height else None
    if evidence is None or evidence.statement is not None:
        said = f"no certificate of a height above {height} is here yet"
        raise CannotAnswer(Status.UNAVAILABLE, said, "ask again after the next block", RETRY_MS)
    return Past(evidence.certificate, statement, tuple(path)).to_value()


async def blocks(connection: Connection, request: GetBlocks) -> Value:
    """Return heights from the first one on, as many as fit.

    Raises:
        CannotAnswer: the caller may not have them, or the first is not kept or does not fit.
    """
    identity = connection.identity
    if identity is None or not access.sees_everything(identity):
        hint = "ask with a key from which no read rule keeps anything"
        raise CannotAnswer(Status.DENIED, "whole heights show everything", hint)
    backend = connection.hub.backend
    newest = backend.height
    heights: list[bytes] = []
    shown: list[tuple[int, list[bytes]]] = []
    kept: list[tuple[int, Recorded]] = []
    room = PAGE_BYTES
    for height in range(request.first, min(request.first + request.count, newest + 1)):
        recorded = backend.recorded(height)
        if recorded is None:
            if heights:
                break
            raise CannotAnswer(Status.NOT_FOUND, f"height {height} is not kept here")
        data = _fitting(recorded)
        room -= len(data)
        if room < 0 and heights:
            break
        heights.append(data)
        rows = codec.parse(recorded.decisions or _NOTHING, "decisions")
        shown.append((height, [row[3] for row in rows]))
        kept.append((height, recorded))
    await recording.record_decisions(connection, request, shown)
    if access.logs_any(identity):
        named = ((height, _expected(connection, each)) for height, each in kept)
        await recording.record_all(connection, request, named)
    return Page(newest, tuple(heights)).to_value()


def _expected(connection: Connection, recorded: Recorded) -> list[StateKey]:
    """Return what the transactions of others say they rest on."""
    found: list[StateKey] = []
    for public, private in recorded.batches:
        if public is None or private is None:
            continue
        batch = batches.decode_trusted(public, private, chain=connection.hub.chain)
        for each in batch.transactions:
            if each.author != connection.key:
                places = (layout.place(row.kind, row.id) for row in each.context.expects)
                found += [StateKey(space, tuple(components)) for space, components in places]
    return found


def _fitting(recorded: Recorded) -> bytes:
    """Return a height encoded, without what executing it gives anyway if it is too long.

    Raises:
        CannotAnswer: it is too long all the same.
    """
    bytes_max = protocol.ANSWER_BYTES_MAX - ANSWER_BYTES_SPARE
    data = encode_height(recorded)
    if len(data) > bytes_max:
        data = encode_height(replace(recorded, decisions=None, changes=None))
    if len(data) > bytes_max:
        said = f"height {recorded.height} does not fit into one answer"
        raise CannotAnswer(Status.UNAVAILABLE, said, "audit a copy of the node's data")
    return data
