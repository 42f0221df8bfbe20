"""What an author relied on, against what is: expected versions, and facts that rest on facts.

``expects`` names a version of every record that is written or named in ``depends``, judged on the
state before the transaction. Conflicts are per field: only fields that the call writes or depends
on must not have changed since. An entry that no call needed is checked as a whole, and only if the
author may read what it names: else outcomes would tell what a reading would not. Kernel objects
have one version for the whole leaf. A record that the transaction itself made needs no entry.

A basis is what a record was derived from: ``[[[kind, id], field, field version], ...]``, version 0
if it was that a record does not exist. An action
that relies on the record compares it now, through basis records, to a bounded depth.

Not here: which fields a call writes (``effects``).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.ledger.authority import Standing
from consensus.ledger.codes import Code, Refused
from consensus.ledger.layout import name_of, record_components
from consensus.ledger.readable import Readable
from consensus.ledger.records import Draft, Record
from consensus.ledger.transaction import Transaction
from consensus.ledger.view import View

BASIS_DEPTH_MAX: Final = 4
BASIS_READS_MAX: Final = 32

_NOTHING: Final = codec.encode([[], []])


class Expectations:
    """The expected versions of one transaction."""

    __slots__ = ("_used", "_view", "entries", "under")

    def __init__(self, view: View, transaction: Transaction) -> None:
        self._view = view
        self.entries: dict[bytes, tuple[str, list[Value], int]] = {}
        """Kind, id and version by encoded components."""
        self._used: dict[bytes, None] = {}
        self.under: Sequence[bytes] = ()
        """Ids of the grants it acts under."""
        opening = transaction.openings[len(transaction.calls)]
        if opening == _NOTHING:
            return
        expects, self.under = codec.parse(opening, "context")  # decoded before; not built again
        for (kind, id_), version in expects:
            self.entries[view.record_path(kind, id_)[0]] = (kind, id_, version)

    def check_record(self, record: Record, fields: Iterable[str]) -> None:
        """Refuse unless the record is named, and ``fields`` are as of the version named.

        Raises:
            Refused: STALE.
        """
        if isinstance(record, Draft) and record.base is None:
            return
        now = record.version
        expected = self._expected(record.id_cbor)
        if expected is None or not 0 < expected <= now:
            raise _stale(record, [])
        if expected == now:
            return
        moved = [
            field
            for field in dict.fromkeys(fields)
            if record.field_version_before(field) > expected
        ]
        if moved:
            raise _stale(record, moved)

    def check_object(self, kind: str, id_: list[Value]) -> None:
        """Refuse unless the record or kernel object is named at its version, 0 if it is absent.

        Raises:
            Refused: STALE.
        """
        now = self._view.version_named(kind, id_)
        self.check(kind, id_, record_components(kind, id_), now)

    def check(self, kind: str, id_: list[Value], id_cbor: bytes, now: int) -> None:
        """Refuse unless what ``[kind, id]`` names is named at version ``now``, its present one.

        Args:
            id_cbor: canonical CBOR of ``[kind, *id]``.

        Raises:
            Refused: STALE.
        """
        if self._expected(id_cbor) != now:
            raise Refused(Code.STALE, [[kind, id_], now, []])

    def check_rest(self, author: Standing) -> None:
        """Refuse if an entry that no call needed names another version than the present one.

        Raises:
            Refused: NOT_AUTHORIZED: the author may not read what it names; STALE.
        """
        readable: Readable | None = None
        for key, (kind, id_, version) in self.entries.items():
            if key not in self._used:
                readable = readable or Readable(self._view, author)
                if not readable.may_read(kind, id_):
                    raise Refused(Code.NOT_AUTHORIZED, [["read", [kind, id_]]])
                now = self._view.version_named(kind, id_)
                if version != now:
                    raise Refused(Code.STALE, [[kind, id_], now, []])

    def _expected(self, key: bytes) -> int | None:
        entry = self.entries.get(key)
        if entry is None:
            return None
        self._used[key] = None
        return entry[2]


def _stale(record: Record, fields: list[str]) -> Refused:
    return Refused(Code.STALE, [named(record), record.version, fields])


def named(record: Record) -> list[Value]:
    """Return ``[kind, id]`` of a record."""
    return name_of("record", [record.kind.name, *record["id"]])


def check_fresh(view: View, record: Record) -> None:
    """Refuse if a fact that ``record`` was derived from has changed since, at any depth.

    Raises:
        Refused: BASIS_MOVED with the source, or ``limit`` beyond BASIS_DEPTH_MAX or
            BASIS_READS_MAX.
    """
    seen: dict[bytes, None] = {}
    level = [record]
    for _ in range(BASIS_DEPTH_MAX):
        below: list[Record] = []
        for each in level:
            below += _compare_basis(view, each, seen)
        if not below:
            return
        level = below
    raise Refused(Code.BASIS_MOVED, "limit")


def _compare_basis(view: View, record: Record, seen: dict[bytes, None]) -> list[Record]:
    """Compare one record's basis; return the new sources that have a basis of their own."""
    sources = []
    for (kind_name, id_), field, version in record["basis"] or ():
        kind = view.book.kinds.get(kind_name)
        source = None if kind is None else view.record(kind, id_)
        now = 0 if source is None else source.field_version(field)
        if now != version or (source is not None and source.voided):
            raise Refused(Code.BASIS_MOVED, [[kind_name, id_], field])
        if source is None:
            continue
        if source.kh not in seen:
            if len(seen) >= BASIS_READS_MAX:
                raise Refused(Code.BASIS_MOVED, "limit")
            seen[source.kh] = None
            if source["basis"]:
                sources.append(source)
    return sources
