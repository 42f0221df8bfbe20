"""Disclosing: fields of a record are opened to somebody, for a purpose, until a time.

The charter says who may disclose at all; whoever does must be able to read the record, by the read
rules of its kind and as of now. What leaves a node for the audience leaves it after this act is
certified, and rests on it. One act opens one record, so that whoever the record concerns may be
shown the whole disclosure.

The version that is shown may be an earlier one: the state knows that there was one, not what it
held. A record that the same transaction writes is refused, because no state ever shows it so.
Holds on a record do not keep it from being disclosed, as they do not keep it from being read.

Not here: what the leaf says and where it is listed (``consensus.ledger.disclosures``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from consensus.codec import Value, same
from consensus.ledger.codes import Code, Refused
from consensus.ledger.disclosures import (
    AGENCY,
    AUDIENCES,
    PARTY,
    PERSON,
    PRINCIPAL,
    Disclosure,
    disclosure_id,
    enter,
    subjects_of,
)
from consensus.ledger.kernel.plan import Acting, Plan, bad, charter_ms, found, refuse_left
from consensus.ledger.model import Kind
from consensus.ledger.readers import Reader, Row
from consensus.ledger.records import Draft, Record
from consensus.state.record import HOLDS

HOURS_MAX: Final = "disclosure_hours_max"
HOURS_MAX_DEFAULT: Final = 24 * 365
WORDS_BYTES_MAX: Final = 1000
"""Longest purpose, and longest legal basis."""


def disclose(acting: Acting) -> Plan:
    """Open fields of a record; refuses before all else whoever may not read it."""
    inputs, view = acting.inputs, acting.view
    kind = view.book.kinds.get(inputs["kind"])
    if kind is None:
        raise bad("kind", "there is no such kind of record")
    view.rules_of(kind.domain)
    present = view.record(kind, inputs["id"])
    record = present.base if isinstance(present, Draft) else present
    if record is None:
        raise _missing(acting, kind)
    if not _reads(_reader(acting), kind, record):
        raise _forbidden(kind)
    version = _version(record, inputs["version"])
    leaves = _leaves(kind, record, version, inputs["fields"])
    audience = _audience(acting)
    for name in ("purpose", "legal"):
        if not 0 < len(inputs[name].encode()) <= WORDS_BYTES_MAX:
            raise bad(name, f"1 to {WORDS_BYTES_MAX} bytes")
    disclosure = Disclosure(
        disclosure_id(acting.txid, acting.call),
        kind.name,
        inputs["id"],
        version,
        leaves,
        audience,
        inputs["purpose"],
        inputs["legal"],
        acting.now_ms,
        _until(acting),
        acting.standing.principal.id,
        acting.standing.agency.name,
    )
    subjects = subjects_of(kind, record)
    written = ("WRITTEN", "the same transaction writes the record")
    return Plan(
        lambda: enter(view, disclosure, subjects),
        failed=written if isinstance(present, Draft) else None,
    )


def _reader(acting: Acting) -> Reader:
    view, standing = acting.view, acting.standing

    def leaf(space: str, components: Sequence[Value]) -> Any:
        single = view.single(space, components)
        return None if single is None else single.value

    return Reader(view.book, standing.principal, standing.agency, acting.now_ms, leaf)


def _forbidden(kind: Kind) -> Refused:
    return Refused(Code.NOT_AUTHORIZED, [["read", kind.name]])


def _missing(acting: Acting, kind: Kind) -> Refused:
    """Return the refusal of a record that is not there; not all may know that it is not."""
    reader, id_ = _reader(acting), acting.inputs["id"]
    if kind.readers is None:
        shown = reader.is_member
    else:
        shown = reader.may_see_absence(kind, Row(id_, kind, None))
    return Refused(Code.NOT_FOUND, ["id", [kind.name, id_]]) if shown else _forbidden(kind)


def _reads(reader: Reader, kind: Kind, record: Record) -> bool:
    """Return whether somebody may read a record, by its kind's rules or the network's default."""
    id_: list[Value] = record["id"]
    if kind.readers is not None:
        return reader.may_read(kind, Row(id_, kind, record.stored))
    if reader.is_member:
        return True
    person = reader.principal.person
    if person is None:
        return False
    return (kind.name == PERSON and same(id_, person)) or any(
        same(each, person) for each in subjects_of(kind, record)
    )


def _version(record: Record, wanted: int) -> int:
    """Return the version to be shown: the present one for 0."""
    if not 0 <= wanted <= record.version:
        raise bad("version", f"the record is at version {record.version}")
    return wanted or record.version


def _leaves(kind: Kind, record: Record, version: int, fields: list[str]) -> list[str]:
    """Return the leaves to be opened, which are there."""
    if not fields or fields != sorted(dict.fromkeys(fields)):
        raise bad("fields", "one or more, ascending, each once")
    for name in fields:
        if name == HOLDS:
            raise bad("fields", "holds are not disclosed")
        if name not in kind.leaves:
            group = kind.leaf_of.get(name)
            if group is None:
                raise bad("fields", f"{kind.name} has no field {name}")
            raise bad("fields", f"{name} is shown with all of its group {group}: name that")
        if version == record.version and record.stored.index(name) is None:
            raise bad("fields", f"version {version} has no field {name}")
    return fields


def _audience(acting: Acting) -> list[Value]:
    """Return the audience of the input, known to the network unless it is outside of it."""
    audience: list[Value] = acting.inputs["audience"]
    match audience:
        case ["principal", bytes()]:
            found(acting, PRINCIPAL, audience[1:], "audience")
        case ["agency", str()]:
            refuse_left(acting, found(acting, AGENCY, audience[1:], "audience"), "audience")
        case ["party", str() as name] if name.strip():
            return [PARTY, name]
        case _:
            raise bad("audience", f"[one of {', '.join(AUDIENCES)}, who]")
    return audience


def _until(acting: Acting) -> int:
    until_ms: int = acting.inputs["until"]
    longest_ms = charter_ms(acting, HOURS_MAX, HOURS_MAX_DEFAULT)
    if until_ms <= acting.now_ms:
        raise bad("until", "not in the past")
    if until_ms > acting.now_ms + longest_ms:
        raise bad("until", f"at most {longest_ms // 3_600_000} hours ahead")
    return until_ms
