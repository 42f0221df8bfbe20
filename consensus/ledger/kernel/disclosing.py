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

from typing import Final

from consensus.codec import Value
from consensus.ledger.codes import Code, Refused
from consensus.ledger.disclosures import (
    AGENCY,
    AUDIENCES,
    PARTY,
    PRINCIPAL,
    Disclosure,
    disclosure_id,
    enter,
    subjects_of,
)
from consensus.ledger.kernel.plan import Acting, Plan, bad, charter_ms, found, refuse_left
from consensus.ledger.model import Kind
from consensus.ledger.readable import Readable
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
    place = [kind.name, inputs["id"]]
    if not Readable(view, acting.standing).may_read(kind.name, inputs["id"]):
        raise Refused(Code.NOT_AUTHORIZED, [["read", place]])
    present = view.record(kind, inputs["id"])
    record = present.base if isinstance(present, Draft) else present
    if record is None:
        raise Refused(Code.NOT_FOUND, ["id", place])
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
