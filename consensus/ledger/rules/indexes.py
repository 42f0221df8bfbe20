"""Compiles what a kind declares as ``index``, and the loads that take a list from one.

    index = ["caregiver", { field = "holder", while = "status == 'filed'" }]
    load  = [["siblings", "index child.caregiver {input.caregiver} max 16 by order"]]

Not here: how indexes are kept (``ledger.indexes``), and which borders a load meets (``scope``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from consensus.ledger.expr import Fault, Name
from consensus.ledger.model import Field, Index, Kind, Listing, Path
from consensus.ledger.rules.definition import IndexDef
from consensus.ledger.rules.schema import Place, suggest
from consensus.ledger.rules.values import COMPONENT_BASES
from consensus.ledger.rules.written import compile_written
from consensus.ledger.types import LIST_ITEMS_MAX, Type

STATUS: Final = "status"
ORDER_BASES: Final = ("int", "money", "month", "date", "time", "text", "bytes")
"""Types of fields by which a list may ascend."""

_BOOL: Final = Type("bool")
_TEXT: Final = Type("text")
_LOAD: Final = re.compile(
    r"index +(?P<index>[^ ]+) +(?P<value>[^ ]+) +max +(?P<most>[0-9]+)(?: +by +(?P<by>[^ ]+))?"
)
_FORM: Final = "write index kind.field {input.value} max 16, and perhaps by field"


# --- what a kind declares ---------------------------------------------------------------------


def compile_indexes(
    kind: str,
    fields: Mapping[str, Field],
    statuses: bool,
    definitions: Sequence[IndexDef],
    place: Place,
) -> tuple[Index, ...]:
    """Return the indexes of a kind, in declared order.

    Args:
        kind: its name.
        fields: its fields.
        statuses: whether its records have a status.
        definitions: what it declares.
        place: of ``index``.
    """
    known = [*fields, *([STATUS] if statuses else [])]
    found: dict[str, Index] = {}
    for number, each in enumerate(definitions):
        here = place.of(number)
        name = each.field
        if name not in known:
            raise here.refuse(f"{kind} has no field {name}", suggest(name, known))
        if name in found:
            raise here.refuse(f"{name} has an index already", "a field has one index at most")
        if name != STATUS and fields[name].stored.base not in COMPONENT_BASES:
            raise here.refuse(
                f"{name} is {fields[name].stored.text}, which may not be looked for",
                f"types of an index: {', '.join(COMPONENT_BASES)}",
            )
        condition = None
        if each.condition:
            scope = _OwnFields(fields, statuses)
            condition = compile_written(each.condition, scope, here.of("while"), _BOOL)
        found[name] = Index(f"{kind}.{name}", name, condition)
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class _OwnFields:
    """What ``while`` may name: the record's own fields, without more, and its status."""

    fields: Mapping[str, Field]
    statuses: bool

    @property
    def roots(self) -> tuple[str, ...]:
        """The names."""
        return (*self.fields, *([STATUS] if self.statuses else []))

    def resolve(self, parts: Path, position: int) -> Name:
        """Return what a path stands for, or raise Fault (see ``expr.Scope``)."""
        name = parts[0]
        if len(parts) > 1 or name not in self.roots:
            raise Fault(
                f"while sees no {'.'.join(parts)}",
                position,
                hint=f"it sees the record's own fields: {', '.join(self.roots)}",
            )
        if name == STATUS:
            return Name(_TEXT)
        return Name(self.fields[name].stored, self.fields[name].optional)


# --- what an action loads ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Listed:
    """What a load of an index gives: the records of ``kind`` under one value."""

    kind: Kind
    listing: Listing


@dataclass(frozen=True, slots=True)
class IndexTemplate:
    """The parts of ``index kind.field {value} max n by field``, as they are written."""

    kind: str
    field: str
    value: str
    most: int
    by: str


def parse_load(template: str, place: Place) -> IndexTemplate:
    """Return the parts of the load of an index."""
    match = _LOAD.fullmatch(template)
    kind, dot, field = match["index"].partition(".") if match else ("", "", "")
    if match is None or not (kind and dot and field):
        raise place.refuse(f"{template!r} is no load of an index", _FORM)
    most = int(match["most"][:9])
    if not 1 <= most <= LIST_ITEMS_MAX:
        raise place.refuse(f"max {match['most']} is outside 1 to {LIST_ITEMS_MAX}")
    return IndexTemplate(kind, field, match["value"], most, match["by"] or "")


def find_index(kind: Kind, field: str, place: Place) -> Index:
    """Return the index of a kind by a field."""
    for index in kind.indexes:
        if index.field == field:
            return index
    known = [each.field for each in kind.indexes]
    near = f'domain {kind.domain} must write index = ["{field}"] in kind {kind.name}'
    raise place.refuse(
        f"kind {kind.name} has no index by {field}", suggest(field, known) if known else near
    )


def check_order(kind: Kind, by: str, place: Place) -> None:
    """Report a field by which no list ascends."""
    if by not in kind.fields:
        raise place.refuse(f"{kind.name} has no field {by}", suggest(by, [*kind.fields]))
    stored = kind.fields[by].stored
    if stored.base not in ORDER_BASES:
        raise place.refuse(f"{by} is {stored.text}, which has no order")
