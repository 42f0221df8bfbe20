"""From a verified height to the rows of a copy. Pure.

A version's row names the last transaction of the height that wrote its place, as far as decisions
show it. A place that was sent before and changes without being sent again gets a version that is
``not readable``, so the one before is not taken for the newest. Text cannot hold U+0000 in a
database; U+2400 stands for it.

Not here: where rows go (``postgres``, ``parquet``).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from comity.changes import ChangedHeight
from comity.feeding import tables
from comity.feeding.catalogue import Catalogue
from comity.feeding.errors import CopyDamagedError
from comity.results import Decision, Entry
from comity.words import id_word, place_word
from consensus.codec import Value
from consensus.ledger import layout
from consensus.ledger.layout import Paths
from consensus.ledger.model import Field, Kind
from consensus.ledger.sealing import ERASURE

SPACES: Final = {"account": "accounts", "hold": "holds"}
"""Tables of places that are no records."""
_SCOPES: Final = tuple(layout.SCOPE_MASKS.items())
_HOLD_STATES: Final = ("unconfirmed", "confirmed", "released")
_MONTHS: Final = 12


class Known(NamedTuple):
    """Where the versions of a place are kept, and what its id is."""

    table: str
    id: str


class Version(NamedTuple):
    """A row of a versioned table; ``kh`` is its first value."""

    table: str
    values: tuple[Any, ...]


class Erased(NamedTuple):
    """What says that a field of a record, up to a version of it, has no value any more."""

    table: str
    kh: bytes
    column: str
    leaf: str
    version: int


@dataclass(slots=True)
class HeightRows:
    """The rows of one height."""

    height: int
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)
    versions: list[Version] = field(default_factory=list)
    erased: list[Erased] = field(default_factory=list)
    unseen: list[bytes] = field(default_factory=list)
    """Places that changed and were not sent."""


Writer = tuple[bytes, int]
"""Transaction and position of what wrote a place last."""


class Projector:
    """Makes rows. ``paths`` are those of the network."""

    def __init__(self, catalogue: Catalogue, paths: Paths) -> None:
        self._catalogue = catalogue
        self._paths = paths

    def rows(self, changed: ChangedHeight) -> HeightRows:
        """Return the rows of a height.

        Raises:
            CopyDamagedError: it speaks of a kind or family that no rule set has.
        """
        height = changed.height
        out = HeightRows(height.height)
        writers: dict[bytes, Writer] = {}
        decisions = height.decisions or ()
        out.rows["decisions"] = [self._decision(each) for each in decisions]
        for each in decisions:
            self._effects(each, out.rows, writers)
        evidence, statement = changed.evidence, changed.statement
        out.rows["heights"] = [
            (
                height.height,
                height.time_ms,
                height.epoch,
                statement.hash,
                statement.encode(),
                evidence.certificate,
                [*evidence.path],
                len(decisions),
                len(changed.changes),
                len(changed.entries),
            )
        ]
        self._changes(changed, out, writers)
        return out

    def unseen(self, changed: ChangedHeight, known: Mapping[bytes, Known]) -> list[Version]:
        """Return versions that are not readable, of places that changed and were not sent.

        Args:
            known: of the places that the copy has.
        """
        head = (changed.height.height, None, changed.height.time_ms, None, None, None)
        return [
            Version(
                at.table,
                (kh, at.id, *head, tables.NOT_READABLE),
            )
            for kh, at in known.items()
        ]

    def standing(self, entries: Sequence[Entry], height: int) -> HeightRows:
        """Return the rows of what there was after a height, each as of when it was made."""
        out = HeightRows(height)
        for entry in entries:
            if entry.present and entry.key.namespace in ("record", *SPACES):
                kh = self._paths(entry.key.namespace, entry.key.components)
                self._entry(entry, kh, (None, None), out)
        out.versions = [
            Version(each.table, (*each.values[:2], entry_height, None, None, *each.values[5:]))
            for each, entry_height in zip(
                out.versions,
                [each.changed for each in entries if each.present],
                strict=True,
            )
        ]
        return out

    def sealed(self, fields: Collection[tuple[str, str]]) -> Iterator[tuple[str, str, str, str]]:
        """Yield kind, field, column and leaf of those of some fields that are known."""
        for name, each in sorted(fields):
            kind = self._catalogue.kinds.get(name)
            if kind is not None and each in kind.fields:
                column = tables.column_name(kind, kind.fields[each])
                yield name, each, column, kind.leaf_of[each]

    # --- decisions ----------------------------------------------------------------------------

    def _decision(self, each: Decision) -> tuple[Any, ...]:
        leaves = each.record
        authority = leaves.value("authority") if "authority" in leaves.names else None
        actor = (authority[0] if authority else None) or (None, None, None)
        names = self._catalogue.actions
        return (
            each.height,
            each.index,
            each.txid,
            each.time_ms,
            each.state,
            each.code,
            each.call,
            None if each.detail is None else as_json(each.detail),
            [f"{domain}.{names.get((domain, id_), '?')}" for domain, _, id_ in each.rules],
            [f"{domain}#{number}" for domain, number, _ in each.rules],
            *actor,
            each.closed,
            each.root,
        )

    def _effects(
        self, each: Decision, rows: dict[str, list[tuple[Any, ...]]], writers: dict[bytes, Writer]
    ) -> None:
        writes, moves = rows.setdefault("writes", []), rows.setdefault("moves", [])
        links = rows.setdefault("links", [])
        act = (each.height, each.index, each.txid)
        position = number = 0
        for name in each.record.names:
            part, _, domain = name.partition(":")
            value: Any = each.record.value(name)
            if part == "writes":
                for (space, components), old, new, vh, _ in value:
                    kh = self._paths(space, components)
                    writers[kh] = (each.txid, each.index)
                    place = text(place_word(space, components))
                    writes.append((*act, position, domain, place, kh, old, new, vh))
                    position += 1
            elif part == "moves":
                for entry in value:
                    account = entry[1]
                    kh = self._paths("account", account)
                    writers[kh] = (each.txid, each.index)
                    moves.append((*act, number, domain, *self._move(entry, kh)))
                    number += 1
            elif part == "links":
                for at, (what, other) in enumerate(value):
                    links.append((*act, at, what, other))

    def _move(self, entry: list[Any], kh: bytes) -> tuple[Any, ...]:
        position, account, delta, *reserved = entry
        family = self._catalogue.families.get(account[0])
        return (
            position,
            account[0],
            text(id_word(account[1:])),
            kh,
            None if family is None else family.currency,
            delta,
            reserved[0] if reserved else 0,
            text(id_word(reserved[1])) if reserved else None,
        )

    # --- the state ----------------------------------------------------------------------------

    def _changes(
        self, changed: ChangedHeight, out: HeightRows, writers: Mapping[bytes, Writer]
    ) -> None:
        height = changed.height.height
        rows = out.rows["changes"] = []
        for index, change in enumerate(changed.changes):
            entry = changed.entries.get(index)
            place = None
            if entry is None:
                out.unseen.append(change.kh)
            else:
                place = text(place_word(entry.key.namespace, entry.key.components))
                writer = writers.get(change.kh, (None, None))
                self._entry(entry, change.kh, writer, out)
            rows.append((height, change.kh, change.vh, change.previous, entry is not None, place))

    def _entry(self, entry: Entry, kh: bytes, writer: Any, out: HeightRows) -> None:
        if not entry.present:
            out.unseen.append(kh)
            return
        components = entry.key.components
        txid, index = writer
        made = (out.height, None, entry.time_ms, txid, index)
        shown = tables.READABLE
        match entry.key.namespace:
            case "record":
                kind, id_ = self._kind(entry), text(id_word(components[1:]))
                fields = self._record(kind, entry)
                row = (kh, id_, *made, entry.version, shown, *fields)
                out.versions.append(Version(f"kind_{kind.name}", row))
            case "account":
                id_ = text(id_word(components[1:]))
                row = (kh, id_, *made, None, shown, *self._account(entry))
                out.versions.append(Version("accounts", row))
            case "hold":
                id_ = text(id_word(components))
                row = (kh, id_, *made, entry.version, shown, *self._hold(entry))
                out.versions.append(Version("holds", row))
            case _ if entry.key.namespace == ERASURE:
                self._erasure(entry, out)

    def _kind(self, entry: Entry) -> Kind:
        name = entry.key.components[0]
        kind = self._catalogue.kinds.get(name)
        if kind is None or entry.definition > len(kind.places):
            raise CopyDamagedError(
                f"there is a record of kind {name!r}, which no rule set has so",
                hint="report this: the node's answers were verified",
            )
        return kind

    def _record(self, kind: Kind, entry: Entry) -> tuple[Any, ...]:
        leaves = entry.fields
        by = leaves.get("by") or []
        created = next((row for row in by if row[0] == "created"), [None, None, None])
        held = leaves.get("~holds")
        found: list[Any] = [
            entry.definition,
            created[1],
            created[2],
            as_json(by),
            as_json(leaves.get("basis")),
            None if held is None else scopes_of(held),
            as_json(dict(entry.versions)),
        ]
        if kind.start:
            found.append(leaves.get("status"))
        names = [*kind.layouts[entry.definition - 1]]
        places = kind.places[entry.definition - 1]
        for each in kind.fields.values():
            at = places.get(each.name)
            value = None if at is None else leaves.get(names[at[0]])
            if at is not None and at[1] >= 0 and value is not None:
                value = value[at[1]]
            found.append(column_value(each, value))
        return tuple(found)

    def _account(self, entry: Entry) -> tuple[Any, ...]:
        balance = layout.Balance(*entry.value)
        name = entry.key.components[0]
        family = self._catalogue.families.get(name)
        return (
            name,
            None if family is None else family.currency,
            balance.balance,
            balance.reserved,
            scopes_of(balance.held),
        )

    def _hold(self, entry: Entry) -> tuple[Any, ...]:
        hold = layout.Hold(*entry.value)
        return (
            [text(place_word(space, components)) for space, components in hold.targets],
            scopes_of(hold.scopes),
            hold.placed_ms,
            hold.until_ms,
            hold.principal,
            hold.agency,
            hold.domain,
            _HOLD_STATES[hold.state],
            text(hold.legal),
            text(hold.reason),
        )

    def _erasure(self, entry: Entry, out: HeightRows) -> None:
        kind_name, *id_, name = entry.key.components
        _, version, txid, agency, principal, time_ms, legal = entry.value
        kh = self._paths("record", [kind_name, *id_])
        row = (out.height, txid, kind_name, text(id_word(id_)), kh, name, version)
        rows = out.rows.setdefault("erasures", [])
        rows.append((*row, agency, principal, text(legal), time_ms))
        kind = self._catalogue.kinds.get(kind_name)
        if kind is not None and name in kind.fields:
            column = tables.column_name(kind, kind.fields[name])
            out.erased.append(Erased(f"kind_{kind_name}", kh, column, kind.leaf_of[name], version))


# --- values -----------------------------------------------------------------------------------


def text(value: str) -> str:
    """Return text that a database takes."""
    return value.replace("\0", "\u2400") if "\0" in value else value


def scopes_of(mask: int) -> list[str]:
    """Return the names of scopes."""
    return [name for name, bit in _SCOPES if mask & bit]


def as_json(value: Value) -> str:
    """Return a value as JSON: bytes in hex after ``0x``."""
    return text(json.dumps(_plain(value), ensure_ascii=False, separators=(",", ":")))


def _plain(value: Any) -> Any:
    if type(value) is bytes:
        return f"0x{value.hex()}"
    if type(value) is str:
        return text(value)
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {text(name): _plain(each) for name, each in value.items()}
    return value


def column_value(each: Field, value: Value) -> Any:
    """Return what a field's column holds of its value."""
    if value is None:
        return None
    if tables.is_sealed(each):
        return tables.SEALED
    if each.type.base == "list":
        return [scalar(each.type.item.base, item) for item in value]
    return scalar(each.type.base, value)


def scalar(base: str, value: Any) -> Any:
    """Return a value of a type as a copy has it: of a month its first day."""
    match base:
        case "text":
            return text(value)
        case "ref":
            return text(id_word(value))
        case "month":
            return first_day(value)
        case "commitment" | "sealed":
            return tables.SEALED
        case _:
            return value


def first_day(month: int) -> int:
    """Return the days from 1970-01-01 to the first of a month, counted from the year 0."""
    year, at = divmod(month, _MONTHS)
    years = year - 1 if at < 2 else year  # a year that begins in March
    era, of_era = divmod(years, 400)
    days = (153 * ((at + 10) % 12) + 2) // 5
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + days - 719_468
