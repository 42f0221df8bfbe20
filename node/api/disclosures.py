"""Who may see that there is a disclosure, and what it says of record, audience, purpose and end.

Its author; its audience; whoever the record concerns, as far as the record concerned them when it
was made, or concerns them now; and the role that the charter names for it
(``consensus.ledger.disclosures``). Nobody else, whoever may read the record.

Not here: what a disclosure opens (``disclosing``).
"""

from __future__ import annotations

from collections.abc import Sequence

from consensus import codec
from consensus.codec import Value
from consensus.ledger import disclosures as ledger
from consensus.ledger.disclosures import AGENCY, PRINCIPAL, SPACE, Disclosure
from consensus.ledger.readers import record_row
from consensus.protocol import StateKey
from consensus.state import record
from node.api.backend import Identity


def may_see(identity: Identity, row: bytes) -> bool:
    """Return whether somebody may see what a disclosure says, from the row of its leaf."""
    disclosure = disclosure_in(row)
    return (
        disclosure.principal == identity.principal
        or is_audience(identity, disclosure)
        or is_auditor(identity)
        or _is_subject(identity, disclosure)
    )


def may_list(identity: Identity, components: Sequence[Value]) -> bool:
    """Return whether somebody may see which disclosures an index lists, from a leaf's place."""
    if len(components) < 2:
        return False
    name, value = components[:2]
    if is_auditor(identity):
        return True
    match name:
        case ledger.BY_RECORD:
            return _concerns(identity, value)
        case ledger.BY_SUBJECT:
            return _is_me(identity, value)
        case ledger.BY_AUDIENCE:
            return type(value) is list and _addresses(identity, value)
        case ledger.BY_AUTHOR:
            return bool(value == [identity.principal])
    return False


def _is_me(identity: Identity, value: Value) -> bool:
    """Return whether a value names somebody: also a token that is all of the own record's id."""
    reader = identity.reader
    return reader is not None and (reader.names_me(value) or reader.names_me([value]))


def is_auditor(identity: Identity) -> bool:
    """Return whether somebody has the role that may see all disclosures."""
    reader = identity.reader
    return reader is not None and reader.has_role(ledger.auditors(reader.book, reader.now_ms))


def is_audience(identity: Identity, disclosure: Disclosure) -> bool:
    """Return whether a disclosure is made to somebody, whether or not it is over."""
    return _addresses(identity, disclosure.audience)


def _addresses(identity: Identity, audience: Sequence[Value]) -> bool:
    """Return whether somebody is an audience: the principal, or somebody of the agency."""
    reader = identity.reader
    match audience:
        case [kind, principal] if kind == PRINCIPAL:
            return bool(principal == identity.principal)
        case [kind, agency] if kind == AGENCY and reader is not None:
            return reader.is_member and reader.agency.stands_for(agency)
    return False


def _is_subject(identity: Identity, disclosure: Disclosure) -> bool:
    """Return whether the record of a disclosure concerned somebody when it was made."""
    reader, raw = identity.reader, identity.raw
    if reader is None or raw is None:
        return False
    who = reader.principal
    names: list[Value] = [who.id, [who.id], who.subject, who.person]
    return any(
        raw(StateKey("index", (ledger.BY_SUBJECT, each, [disclosure.id]))) is not None
        for each in names
        if each is not None
    )


def _concerns(identity: Identity, place: Value) -> bool:
    """Return whether a record, ``[kind, *id]``, concerns somebody as it is now."""
    reader, raw = identity.reader, identity.raw
    if reader is None or raw is None or type(place) is not list or len(place) < 2:
        return False
    kind = reader.book.kinds.get(place[0]) if type(place[0]) is str else None
    row = None if kind is None else raw(StateKey("record", tuple(place)))
    if kind is None or row is None:
        return False
    return any(map(reader.names_me, ledger.subjects_of(kind, record_row(kind, place, row))))


def disclosure_in(row: bytes) -> Disclosure:
    """Return what the row of a disclosure's leaf says."""
    return Disclosure(*codec.parse(record.decode_single(row)[2], SPACE))


def place_of(disclosure: Disclosure) -> StateKey:
    """Return where the record of a disclosure lies."""
    return StateKey("record", (disclosure.kind, *disclosure.record))
