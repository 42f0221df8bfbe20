"""Erasure of sealed values: recorded here, carried out by the nodes of the audience.

The act names a record and its sealed fields. It covers every value that these fields have had up
to now: each node of the audience destroys value and salt of all of them. The commitments stay, so
everything that was proved stays proved.

    erasure [kind, *id, field]   [commitment | null, version, txid, agency, principal, time_ms,
                                  legal]

``version`` is the field's version at that time; what is set later is not erased. Holds on the
record stop the act: what a court may want to see is not destroyed.

Not here: how nodes destroy (``node.sealed``).
"""

from __future__ import annotations

from typing import Final

from consensus.codec import Value
from consensus.ledger.holds import Target
from consensus.ledger.kernel.measures import LEGAL_BYTES_MAX
from consensus.ledger.kernel.plan import Acting, Plan, agency_of, bad
from consensus.ledger.kernel.quorum import governing_of
from consensus.ledger.layout import ALL, EDIT, Agency, Erasure
from consensus.ledger.model import Field
from consensus.ledger.records import Record
from consensus.ledger.sealing import ERASURE
from consensus.ledger.view import CHARTER

FIELDS_MAX: Final = 64


def erase(acting: Acting) -> Plan:
    """Have the audience destroy all values that sealed fields of a record have had."""
    inputs, view = acting.inputs, acting.view
    agency = agency_of(acting)
    kind = view.book.kinds.get(inputs["kind"])
    if kind is None:
        raise bad("kind", "no domain has such a kind")
    names = inputs["fields"]
    if not names or names != sorted(set(names)) or len(names) > FIELDS_MAX:
        raise bad("fields", f"1 to {FIELDS_MAX} names, ascending")
    sealed = [_sealed_field(kind.fields.get(name), name) for name in names]
    if not 0 < len(inputs["legal"].encode()) <= LEGAL_BYTES_MAX:
        raise bad("legal", f"1 to {LEGAL_BYTES_MAX} bytes")
    record = view.record(kind, inputs["id"])
    if record is None:
        absent: list[Value] = ["id", [kind.name, inputs["id"]]]
        return Plan(lambda: None, forbidden=_outside(agency, sealed), absent=absent)
    components: list[Value] = [kind.name, *record["id"]]
    rows = {each.name: _row(acting, record, each.name) for each in sealed}
    done = [_is_done(acting, components, name, row) for name, row in rows.items()]

    def write() -> None:
        for name, row in rows.items():
            view.put(ERASURE, [*components, name], row, CHARTER)
            governing_of(acting).notes.erased.append((*components, name))

    return Plan(
        write,
        ((kind.name, list(record["id"])),),
        failed=("ERASED", "every value of these fields is erased") if all(done) else None,
        forbidden=_outside(agency, sealed),
        minds=((Target("record", components), ALL | EDIT),),
    )


def _sealed_field(field: Field | None, name: str) -> Field:
    if field is None:
        raise bad("fields", f"there is no field {name}")
    if not field.sealed_for:
        raise bad("fields", f"{name} is not sealed: its values are part of the state")
    return field


def _row(acting: Acting, record: Record, name: str) -> Erasure:
    return Erasure(
        record[name],
        record.field_version(name),
        acting.txid,
        acting.standing.agency.name,
        acting.standing.principal.id,
        acting.now_ms,
        acting.inputs["legal"],
    )


def _is_done(acting: Acting, components: list[Value], name: str, row: Erasure) -> bool:
    before = acting.view.single(ERASURE, [*components, name])
    return before is not None and before.value[1] >= row.version


def _outside(agency: Agency, fields: list[Field]) -> Value:
    """Return the link that keeps an agency from erasing what is not sealed for it, or None."""
    for field in fields:
        if not any(agency.stands_for(name) for name in field.sealed_for):
            return ["agency", agency.name]
    return None
