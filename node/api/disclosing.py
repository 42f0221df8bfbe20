"""What a disclosure opens, for whom it is: only once the act is certified, and with its proof.

Its audience is shown that until it ends, its author for as long as the record may be read. A
version that is not the present one comes from what the node keeps of the past.

Not here: who may see that there is a disclosure (``disclosures``), the act
(``consensus.ledger.kernel.disclosing``), and the file that is made of the answer
(``consensus.evidence.disclosure``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from consensus.answers import ANONYMOUS
from consensus.codec import Value
from consensus.errors import ComityError
from consensus.evidence.disclosure_file import Body, Change, Item, make_item
from consensus.hotstuff import wire
from consensus.ledger.disclosures import SPACE, Disclosure
from consensus.protocol import GetDisclosed, StateKey, Status
from consensus.state import record
from node.api import access, reading, recording
from node.api.backend import ApiBackend, BehindError, Identity, ProvedRows, RowReader
from node.api.bundling import steps_to
from node.api.disclosures import disclosure_in, is_audience, place_of
from node.api.reading import CannotAnswer

if TYPE_CHECKING:
    from node.api.connection import Connection

HEIGHTS_AHEAD_MAX: Final = 64
"""An answer waits for a height at most this far above the newest certified one."""
BEHIND_RETRY_MS: Final = 200


class _Asked(NamedTuple):
    """A disclosure that was asked for, with the record that it names."""

    disclosure: Disclosure
    salt: bytes
    key: StateKey
    row: bytes


async def answer(connection: Connection, request: GetDisclosed) -> Value:
    """Return what disclosures open, proved.

    Raises:
        CannotAnswer: one is unknown, over, or not for this key; or the version is not kept here.
    """
    backend = connection.hub.backend
    proved = await _proved(backend, request)
    level, identity = connection.access, connection.identity
    if level == ANONYMOUS or identity is None:
        raise CannotAnswer(Status.DENIED, "this key may not read that")
    asked = sorted(_asked(request, proved), key=lambda each: each.disclosure.id)
    for each in asked:
        _allow(connection, identity, each)
    await recording.record(connection, request, proved.height, (each.key for each in asked))
    items = [await _item(backend, each, proved.height) for each in asked]
    return _body(backend, proved, items).to_value()


async def _proved(backend: ApiBackend, request: GetDisclosed) -> ProvedRows:
    said = f"this node has not reached height {request.height_min} yet"
    behind = CannotAnswer(Status.UNAVAILABLE, said, "ask another node", BEHIND_RETRY_MS)
    if request.height_min > backend.height + HEIGHTS_AHEAD_MAX:
        raise behind
    try:
        (proved,) = await backend.prove(request.height_min, [lambda read: _keys(request, read)])
    except BehindError:
        raise behind from None
    return proved


def _keys(request: GetDisclosed, read: RowReader) -> Sequence[StateKey]:
    """Return the keys of disclosures and of their records, each once."""
    keys: list[StateKey] = []
    for id_ in request.ids:
        key = StateKey(SPACE, (id_,))
        row = read(key)
        keys.append(key)
        if row is not None and (place := place_of(disclosure_in(row))) not in keys:
            keys.append(place)
    return keys


def _asked(request: GetDisclosed, proved: ProvedRows) -> Iterator[_Asked]:
    rows = list(zip(proved.keys, proved.rows, strict=True))
    for id_ in request.ids:
        row = next(row for key, row in rows if key == StateKey(SPACE, (id_,)))
        if row is None:
            hint = "it may still be on its way: ask again"
            raise CannotAnswer(Status.NOT_FOUND, f"there is no disclosure 0x{id_.hex()}", hint)
        disclosure = disclosure_in(row)
        place = place_of(disclosure)
        found = next(row for key, row in rows if key == place)
        if found is None:
            raise CannotAnswer(Status.NOT_FOUND, "the record is not kept any more")
        yield _Asked(disclosure, record.decode_single(row)[1], place, found)


def _allow(connection: Connection, identity: Identity, asked: _Asked) -> None:
    disclosure, reader = asked.disclosure, identity.reader
    if is_audience(identity, disclosure):
        if reader is not None and disclosure.lasts(reader.now_ms):
            return
        said = f"disclosure 0x{disclosure.id.hex()} is over"
        raise CannotAnswer(Status.DENIED, said, "whoever made it may make another")
    own = disclosure.principal == identity.principal
    if not own or not access.may_read(identity, connection.key, asked.key, asked.row):
        raise CannotAnswer(Status.DENIED, "this key may not read that")


async def _item(backend: ApiBackend, asked: _Asked, height: int) -> Item:
    disclosure = asked.disclosure
    found, change = record.decode_row(asked.row), None
    if found.version != disclosure.version:
        try:
            past = await backend.earlier(asked.key, disclosure.version, height)
        except ComityError as error:
            raise CannotAnswer(Status.UNAVAILABLE, error.message, error.hint) from error
        if past is None:
            said = (
                f"no state that this node looks at had version {disclosure.version} of the record: "
                "it was written twice in one block, or lies too far back"
            )
            raise CannotAnswer(Status.NOT_FOUND, said, "disclose the version that followed")
        found = record.decode_row(past.row)
        change = Change(past.height, past.count, past.index, past.previous, past.path)
    item = make_item(disclosure, asked.salt, found, change)
    if item is None:
        said = f"version {disclosure.version} has not all of {', '.join(disclosure.leaves)}"
        raise CannotAnswer(Status.NOT_FOUND, said, "disclose the fields that it has")
    return item


def _body(backend: ApiBackend, proved: ProvedRows, items: list[Item]) -> Body:
    certificate = reading.evidence_of(backend, proved.height).certificate
    head = wire.decode_commit_cert(certificate).statement
    newest = head.height
    heights = {proved.height, *(item.change.height for item in items if item.change is not None)}
    statements = []
    for height in sorted(heights - {newest}):
        found = backend.statement_under(height, newest)
        if found is None:
            raise CannotAnswer(
                Status.UNAVAILABLE, f"the statement of height {height} is not kept here"
            )
        statements.append(found)
    steps = steps_to(backend, head.epoch)
    return Body(steps, certificate, statements, proved.proof, items)
