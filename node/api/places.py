"""Which records and accounts something that is shown tells of: rows, decisions, why it was refused.

A hold and a list of holds tell of their targets, a reservation of its account, a disclosure of its
record, a list of an index of itself and of the record at a position, a proposal that became stale
of what had changed. Leaves of decisions that are closed tell of nothing.

Not here: which of them rules want recorded (``recording``), and who may see them (``access``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.ledger import layout
from consensus.ledger.codes import Code
from consensus.ledger.disclosures import BY_RECORD, is_index
from consensus.ledger.proposals import SPACE, Proposal
from consensus.protocol import StateKey
from consensus.state import record
from node.api import access, disclosures
from node.api.backend import Identity

_ENTRY: Final = 3
"""Components of an entry of an index: its name, the value, and a position or an id."""

_ROWS_TELL: Final = ("hold", "reservation", "disclosure")
"""Spaces whose rows say what they are about; of others the place does."""


def of_row(key: StateKey, row: bytes | None) -> Iterator[StateKey]:
    """Yield what a row, or the fact that it is absent, tells of."""
    components = key.components
    match key.namespace:
        case "record" | "account":
            yield key
        case "holds" if access.is_place(components):
            yield access.target_in(components)
        case "hold" if row is not None:
            yield from access.targets_of_hold(row)
        case "reservation" if row is not None:
            yield access.account_of_reservation(row)
        case "disclosure" if row is not None:
            yield disclosures.place_of(disclosures.disclosure_in(row))
        case "index" if components and is_index(components[0]):
            if components[0] == BY_RECORD and type(components[1]) is list:
                yield StateKey("record", tuple(components[1]))
        case "index":
            yield key
            yield from _listed(components, row)
        case "proposal" if row is not None and len(components) == 1:
            found = Proposal(*codec.parse(record.decode_single(row)[2], SPACE))
            why = None if found.end is None else found.end[3]
            if type(why) is list:
                yield from of_detail(why[0], why[2])


def of_decision(identity: Identity, decision: bytes) -> Iterator[StateKey]:
    """Yield what the open leaves of an encoded decision tell of."""
    for row in codec.parse(decision, "decision")[1]:
        if type(row) is list:
            yield from of_leaf(identity, row[0], row[2])


def written(decisions: Iterable[bytes]) -> Iterator[StateKey]:
    """Yield the places that encoded decisions, whole ones, say were written, and moved accounts."""
    for each in decisions:
        for row in codec.parse(each, "decision")[1]:
            match row[0].partition(":")[0]:
                case "writes":
                    for (space, components), *_ in codec.parse(row[2], row[0]):
                        yield StateKey(space, tuple(components))
                case "moves":
                    for entry in codec.parse(row[2], row[0]):
                        yield StateKey("account", tuple(entry[1]))


def of_leaf(identity: Identity, name: str, value: bytes) -> Iterator[StateKey]:
    """Yield what a leaf of a decision tells of, by its name and encoded value."""
    match name.partition(":")[0]:
        case "code":
            code, _, detail, *_ = codec.parse(value, name)
            yield from of_detail(code, detail)
        case "moves":
            for row in codec.parse(value, name):
                yield StateKey("account", tuple(row[1]))
        case "writes":
            for (space, components), *_ in codec.parse(value, name):
                key, raw = StateKey(space, tuple(components)), identity.raw
                row = None if raw is None or space not in _ROWS_TELL else raw(key)
                yield from of_row(key, row)


def of_detail(code: int, detail: Value) -> Iterator[StateKey]:
    """Yield what the detail of a refusal names (``consensus.ledger.codes``)."""
    if type(detail) is not list or not detail:
        return
    match code:
        case Code.STALE | Code.BASIS_MOVED:
            yield _place(*detail[0])
        case Code.NOT_FOUND if detail[1] is not None:
            yield _place(*detail[1])
        case Code.INSUFFICIENT:
            yield StateKey("account", tuple(detail[0]))


def signed_by(decision: bytes, key: bytes) -> bool:
    """Return whether a key is the author's or a cosigner's of an encoded decision.

    False where the leaf that says so is closed or has no actor.
    """
    for row in codec.parse(decision, "decision")[1]:
        if type(row) is list and row[0] == "authority":
            actor, _, cosigners, *_ = codec.parse(row[2], "authority")
            return any(each is not None and each[2] == key for each in (actor, *cosigners))
    return False


def _listed(components: Sequence[Value], row: bytes | None) -> Iterator[StateKey]:
    """Yield the record that an entry of an index names."""
    if len(components) != _ENTRY or type(components[0]) is not str:
        return
    id_ = components[2]
    if type(id_) is int:
        id_ = None if row is None else codec.parse(record.decode_single(row)[2], "position")[0]
    if type(id_) is list:
        yield _place(components[0].partition(".")[0], id_)


def _place(kind: str, id_: list[Value]) -> StateKey:
    if kind == "account":
        return StateKey(kind, tuple(id_))
    space, components = layout.place(kind, id_)
    return StateKey(space, tuple(components))
