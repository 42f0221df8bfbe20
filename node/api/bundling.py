"""Evidence bundles from what a node keeps, for whoever may read all that they show.

Not here: judging a decision again (``node.retracing``), and the format (``consensus.evidence``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from consensus import answers
from consensus.answers import EpochStep
from consensus.errors import ComityError
from consensus.evidence.making import Prepared, Proved
from consensus.genesis import EPOCH
from consensus.hotstuff import wire
from consensus.protocol import ANSWER_BYTES_MAX, GetBundle, StateKey, Status
from node.api import access, recording
from node.api.backend import ApiBackend, BehindError, Place
from node.api.reading import CannotAnswer, evidence_of

if TYPE_CHECKING:
    from node.api.connection import Connection

_SPARE: Final = 64


async def bundle(connection: Connection, request: GetBundle) -> bytes:
    """Return the content of the bundle of a transaction's newest decision.

    Raises:
        CannotAnswer: it is unknown, not for the caller, or not kept here.
    """
    backend = connection.hub.backend
    place = backend.find_effect(request.txid) or backend.find(request.txid)
    own = place is not None and place.author == connection.key
    if place is None or (connection.access == answers.CITIZEN and not own):
        hint = "it may still be on its way: ask again"
        raise CannotAnswer(Status.NOT_FOUND, "no decision on this transaction is here", hint)
    _check_decision(connection, place)
    try:
        prepared = await backend.retrace(place.height, place.index, request.opened)
    except ComityError as error:
        raise CannotAnswer(Status.NOT_FOUND, error.message, error.hint) from error
    keys = _check_shown(connection, prepared)
    proved = await _proved(connection, prepared, request.heights)
    await recording.record(connection, request, place.height, keys)
    content = prepared.bundle(proved, heights=request.heights).content()
    if len(content) > ANSWER_BYTES_MAX - _SPARE:
        said = f"the bundle has {len(content)} bytes, at most {ANSWER_BYTES_MAX} fit an answer"
        raise CannotAnswer(Status.NOT_FOUND, said)
    return content


def _check_decision(connection: Connection, place: Place) -> None:
    block = connection.hub.backend.block(place.height)
    if block is None:
        raise CannotAnswer(Status.NOT_FOUND, f"height {place.height} is not kept here")
    encoded = block.decisions[place.index]
    if connection.shown(encoded) != encoded:
        hint = "somebody who may read all that it did can make the bundle"
        raise CannotAnswer(Status.DENIED, "this key may not read the whole decision", hint)


def _check_shown(connection: Connection, prepared: Prepared) -> Sequence[StateKey]:
    """Return the places of what a bundle shows, all of which the caller may read."""
    who = connection.identity
    keys = [
        StateKey(leaf.space, tuple(leaf.components))
        for leaf in prepared.traced.leaves
        if leaf.space not in _OPEN
    ]
    readable = who is not None and all(
        access.may_read(who, connection.key, key, None if who.raw is None else who.raw(key))
        for key in keys
    )
    if prepared.traced.drafts and not access.sees_everything(who):
        readable = False
    if not readable:
        hint = "somebody who may read them all can make the bundle"
        said = "this key may not read all records that the decision was judged on"
        raise CannotAnswer(Status.DENIED, said, hint)
    return keys


_OPEN: Final = frozenset({"rules", "agency"})
"""What everybody may see who sees a decision."""


def steps_to(backend: ApiBackend, epoch: int) -> tuple[EpochStep, ...]:
    """Return what leads from the first committee to that of an epoch."""
    found = backend.committees(EPOCH, epoch - EPOCH)
    if len(found) < epoch - EPOCH:
        raise CannotAnswer(Status.UNAVAILABLE, "this node does not know every earlier committee")
    return tuple(found)


async def _proved(connection: Connection, prepared: Prepared, heights: Sequence[int]) -> Proved:
    """Return what proves the bundle as of now."""
    backend = connection.hub.backend
    keys = [StateKey(space, components) for space, components in prepared.places]
    try:
        (rows,) = await backend.prove(backend.height, [lambda read: keys])
    except BehindError as error:
        raise CannotAnswer(Status.UNAVAILABLE, "this node is busy", "ask again", 200) from error
    certificate = evidence_of(backend, rows.height).certificate
    newest = wire.decode_commit_cert(certificate).statement
    at = newest.height
    for height in heights:
        if height > at:
            raise CannotAnswer(Status.NOT_FOUND, f"height {height} is not certified yet")

    def statement(height: int) -> tuple[bytes, tuple[bytes, ...]] | None:
        found = None if height == at else backend.statement_under(height, at)
        return None if found is None else (found[0], tuple(found[1]))

    return Proved(
        backend.genesis_head,
        steps_to(backend, newest.epoch),
        certificate,
        statement,
        rows.height,
        rows.proof,
        rows.rows,
    )
