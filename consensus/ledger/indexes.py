"""Indexes: which records of a kind have which value in a field, complete and kept by the kernel.

    index  [kind.field, value]             [size]       records listed under the value
    index  [kind.field, value, position]   [id]         positions 0 to size - 1; null where vacated
    index  [kind.field, value, id]         [position]   where a record stands; null where it left

A record is listed under the value of its field while the field has one, the index's condition is
true (one without a value is not) and the record is not voided. This depends on nothing but the
record, so whether it is listed follows from what it was before, and a write that changes none of
this neither reads nor writes the index. The last record of a value takes the place of one that
leaves: both cost the same however long the index is. Positions therefore depend on the order of
acts; which records are listed does not, and a list is handed out in an order of its own.

What a transaction has made of records is entered when it commits, and before it loads an index.

Not here: which kinds have indexes (``rules.indexes``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from consensus.codec import Value, same
from consensus.errors import invariant, present
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import encode_id
from consensus.ledger.model import EvaluationError, Index, Kind, Listing
from consensus.ledger.records import VOIDED, Draft, Record
from consensus.ledger.types import InputError, Type, check_id

if TYPE_CHECKING:
    from consensus.ledger.view import View

R = TypeVar("R", bound=Mapping[str, Any])

SPACE: Final = "index"
LISTED_MAX: Final = 2048
"""Records that one transaction takes from indexes, over all its calls."""
_UNBOUNDED: Final = ("text", "bytes")


class Entered:
    """A record of an indexed kind that the transaction writes, and where it is listed so far."""

    __slots__ = ("draft", "values")

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        base = draft.base
        self.values = [
            None if base is None else listed_under(each, base) for each in draft.kind.indexes
        ]
        """One for each index of the kind; None: not listed."""


def listed_under(index: Index, record: Record) -> Value:
    """Return the value under which an index lists a record; None if it does not."""
    value = record[index.field]
    if value is None or record["status"] == VOIDED:
        return None
    condition = index.condition
    if condition is not None:
        try:
            if not condition.evaluate({path[0]: record[path[0]] for path in condition.reads}):
                return None
        except EvaluationError:
            return None
    return value


def settle(view: View) -> None:
    """Enter in the indexes what the transaction has made of records so far.

    Raises:
        Refused: REQUIREMENT: a value is too long to be listed under.
    """
    for entered in view.indexed.values():
        draft = entered.draft
        kind, id_ = draft.kind, draft["id"]
        for at, index in enumerate(kind.indexes):
            before, now = entered.values[at], listed_under(index, draft)
            if same(before, now):
                continue
            if now is not None:
                _check(kind, index, now)
            if before is not None:
                leave(view, kind.domain, [index.name, before], id_)
            if now is not None:
                enter(view, kind.domain, [index.name, now], id_)
            entered.values[at] = now


def load(
    view: View, kind: Kind, listing: Listing, value: Value, room: int = LISTED_MAX
) -> list[Record]:
    """Return every record listed under ``value``, in the order that ``listing`` asks for.

    Args:
        room: how many the transaction may still take.

    Raises:
        Refused: LIMIT: there are more than the listing takes, or than there is room for.
    """
    if view.indexed:
        settle(view)
    place = [listing.index.name, value]
    size = size_of(view, place)
    if size > listing.most:
        raise Refused(Code.LIMIT, [SPACE, listing.index.name, size, listing.most])
    if size > room:
        raise Refused(Code.LIMIT, "lists")
    found: list[Record] = []
    for position in range(size):
        entry = view.single(SPACE, [*place, position])
        record = None if entry is None else view.record(kind, entry.value[0])
        found.append(present(record, "an index lists a record that does not exist"))
    return in_order(found, listing)


def in_order(records: Iterable[R], listing: Listing) -> list[R]:
    """Return records as ``listing`` asks for them: by a field, absent values last, then by id."""
    found = sorted(records, key=lambda record: encode_id(record["id"]))
    if listing.by:
        by = listing.by
        found.sort(key=lambda record: _rank(record[by]))
    return found


def size_of(view: View, place: list[Value]) -> int:
    """Return how many records are listed at a place, ``[kind.field, value]``."""
    found = view.single(SPACE, place)
    return 0 if found is None else int(found.value[0])


def _rank(value: Value) -> tuple[bool, Value]:
    return (True, 0) if value is None else (False, value)


def _check(kind: Kind, index: Index, value: Value) -> None:
    """Refuse text that is too long for a component of an id."""
    field = kind.fields.get(index.field)
    stored = Type("text") if field is None else field.stored
    if stored.base not in _UNBOUNDED:
        return
    try:
        check_id([value])
    except InputError as error:
        sentence = f"{index.field}: {error.reason}"
        raise Refused(Code.REQUIREMENT, ["OUT_OF_RANGE", sentence]) from None


def enter(view: View, domain: str, place: list[Value], id_: Value) -> None:
    """List what is not listed at a place, ``[kind.field, value]``."""
    size = size_of(view, place)
    _put(view, domain, place, size + 1)
    _put(view, domain, [*place, size], id_)
    _put(view, domain, [*place, id_], size)


def leave(view: View, domain: str, place: list[Value], id_: Value) -> None:
    """Take out what is listed; the last one of its place takes its position."""
    stands = view.single(SPACE, [*place, id_])
    position = None if stands is None else stands.value[0]
    invariant(position is not None, "a listed record is missing from its index")
    last = size_of(view, place) - 1
    _put(view, domain, place, last)
    if position != last:
        moved = view.single(SPACE, [*place, last])
        moved_id = None if moved is None else moved.value[0]
        _put(view, domain, [*place, position], moved_id)
        _put(view, domain, [*place, moved_id], position)
    _put(view, domain, [*place, last], None)
    _put(view, domain, [*place, id_], None)


def _put(view: View, domain: str, components: list[Value], value: Value) -> None:
    view.put(SPACE, components, (value,), domain, steps=False)
