"""Disclosures: which fields of a record were opened to whom, what for, and until when.

    disclosure [id]                [id, kind, record id, version, [leaf, ...], audience, purpose,
                                    legal, made_ms, until_ms, principal, agency]
    index      [disclosure.record, [kind, *id]]          disclosures of a record
    index      [disclosure.subject, person]              of records that concern somebody
    index      [disclosure.audience, audience]           made to somebody
    index      [disclosure.author, [principal]]          made by somebody

The leaf says nothing that the audience may not see: whom a record concerns is in the index alone.
A disclosure is never changed; it ends by itself at ``until_ms``, derived when read. The indexes are
those of ``indexes``: that a list is complete is proved by its size.

Not here: who may disclose what (``kernel.disclosing``), and what leaves the node
(``consensus.evidence.disclosure``).
Source: docs/protocol/ledger.cddl.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from consensus.codec import Value
from consensus.hashing import context
from consensus.ledger import indexes
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import encode_id
from consensus.ledger.model import Kind, Rulebook
from consensus.ledger.readable import PERSON
from consensus.ledger.readers import RECORD
from consensus.ledger.view import CHARTER, View

SPACE: Final = "disclosure"
BY_RECORD: Final = "disclosure.record"
BY_SUBJECT: Final = "disclosure.subject"
BY_AUDIENCE: Final = "disclosure.audience"
BY_AUTHOR: Final = "disclosure.author"

PRINCIPAL: Final = "principal"
AGENCY: Final = "agency"
PARTY: Final = "party"
AUDIENCES: Final = (PRINCIPAL, AGENCY, PARTY)
"""What an audience may be: one who can sign, everybody of an agency, or somebody outside."""

SUBJECTS_MAX: Final = 16
"""People whom one record may concern."""
AUDITORS: Final = "disclosures_read_by"
"""The charter's parameter that names the role which may see all disclosures."""
AUDITORS_DEFAULT: Final = "charter.auditor"

_H_DISCLOSURE: Final = context("disclosure id")


class Disclosure(NamedTuple):
    """Fields of one version of one record, opened to an audience until ``until_ms`` (exclusive).

    ``leaves`` ascend: names of fields, or of groups of fields that are shown together.
    ``audience`` is ``[principal, id]``, ``[agency, name]`` or ``[party, name]``.
    """

    id: bytes
    kind: str
    record: list[Value]
    version: int
    leaves: list[str]
    audience: list[Value]
    purpose: str
    legal: str
    made_ms: int
    until_ms: int
    principal: bytes
    agency: str

    def lasts(self, now_ms: int) -> bool:
        """Return whether the audience may still be shown the fields at ``now_ms``."""
        return now_ms < self.until_ms


def disclosure_id(txid: bytes, call: int) -> bytes:
    """Return the id of the disclosure that a call makes."""
    return _H_DISCLOSURE(txid + call.to_bytes(4, "big"))


def subjects_of(kind: Kind, record: Mapping[str, Value]) -> list[Value]:
    """Return whom a record concerns, each once: what the read rules of its kind call ``self``.

    Where a kind has no read rules, these are the person that it is and those that its fields name.
    """
    found = {encode_id([each]): each for each in _named(kind, record) if each is not None}
    return list(found.values())


def _named(kind: Kind, record: Mapping[str, Value]) -> list[Value]:
    named: list[Value] = []
    if kind.readers is None:
        if kind.name == PERSON:
            named.append(record["id"])
        for name, field in kind.fields.items():
            many = field.stored.base == "list"
            item = field.stored.item if many else field.stored
            if item.base == "ref" and item.argument == PERSON:
                named += (record[name] or []) if many else [record[name]]
        return named
    for rule in kind.readers.rules:
        if rule.own is not None:
            value = rule.own.evaluate({RECORD: record})
            named += (value or []) if rule.own.type.base == "list" else [value]
    return named


def auditors(book: Rulebook, now_ms: int) -> str:
    """Return the role that may see all disclosures at ``now_ms``."""
    rules = book.rule_sets.get(CHARTER)
    param = None if rules is None else rules.params.get(AUDITORS)
    role = AUDITORS_DEFAULT
    if param is not None and param.type.base == "text":
        for from_ms, value in param.values:
            if from_ms <= now_ms:
                role = str(value)
    return role


def is_index(name: Value) -> bool:
    """Return whether a component of an index's place names one of those of disclosures."""
    return type(name) is str and name.startswith(f"{SPACE}.")


def enter(view: View, disclosure: Disclosure, subjects: list[Value]) -> None:
    """Write a disclosure and list it everywhere it will be looked for.

    Raises:
        Refused: LIMIT: the record concerns too many people.
    """
    if len(subjects) > SUBJECTS_MAX:
        raise Refused(Code.LIMIT, "subjects")
    view.put(SPACE, [disclosure.id], disclosure, CHARTER)
    places: list[list[Value]] = [
        [BY_RECORD, [disclosure.kind, *disclosure.record]],
        [BY_AUDIENCE, disclosure.audience],
        [BY_AUTHOR, [disclosure.principal]],
        *([BY_SUBJECT, each] for each in subjects),
    ]
    for place in places:
        indexes.enter(view, CHARTER, place, [disclosure.id])
