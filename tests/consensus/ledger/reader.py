"""Rows of the state as typed views, and the value hash that a row leads to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from consensus import codec
from consensus.codec import Value
from consensus.hashing import ZERO
from consensus.ledger.holds import HOLDS_MAX
from consensus.ledger.layout import Balance, Hold, HoldsIndex, Paths, leaf_value
from consensus.ledger.model import Kind
from consensus.ledger.records import definition_of
from consensus.ledger.rules import decode_definition, parts_root
from consensus.ledger.sequence import Window, from_value
from consensus.ledger.view import ATTACHED, Source, split_attached
from consensus.state import salted
from consensus.state.record import HOLDS, decode_row, decode_single
from consensus.state.state import MemoryBackend, Row

_RECORD: Final = 1
"""First byte of a record's row; that of a single leaf is 0."""


@dataclass(frozen=True, slots=True)
class RecordView:
    """A record with its decoded values.

    ``fields`` maps each declared field with ``status``, ``basis`` and ``by`` to its value (absent:
    None), ``versions`` to the record version that last changed it; ``held`` is the mask of scopes
    with unreleased holds.
    """

    kind: str
    definition: int
    id: list[Value]
    version: int
    fields: Mapping[str, Value]
    versions: Mapping[str, int]
    held: int


@dataclass(frozen=True, slots=True)
class SingleView:
    """A kernel leaf: its version and the object of ``layout`` that stands for it."""

    version: int
    value: Any


def read_record(row: bytes, kind: Kind) -> RecordView:
    """Return the record of a row; ``kind`` is its kind in the rules in force."""
    stored = decode_row(row)
    leaves = [codec.parse(value, "field") for value in stored.values]
    fields: dict[str, Value] = dict.fromkeys(kind.fields)
    versions = dict.fromkeys(fields, 0)
    for field, (index, at) in kind.places[definition_of(kind, stored) - 1].items():
        if field == HOLDS:
            continue
        value = leaves[index]
        fields[field] = value if at < 0 or value is None else value[at]
        versions[field] = stored.versions[index]
    held = leaves[stored.names.index(HOLDS)]
    return RecordView(
        kind.name, stored.definition, stored.id, stored.version, fields, versions, held
    )


def read_single(space: str, components: Sequence[Value], row: bytes) -> SingleView:
    """Return what the row of an agency, principal, key, role, hold, … holds."""
    version, _, data = decode_single(row)
    return SingleView(version, leaf_value(space, components, codec.parse(data, space)))


def read_account(row: bytes) -> Balance:
    """Return the account of a row."""
    _, _, data = decode_single(row)
    return Balance(*codec.parse(data, "account"))


def read_window(row: bytes) -> Window:
    """Return the sequence window of a row."""
    _, _, data = decode_single(row)
    return from_value(codec.parse(data, "sequence"))


def read_holds(
    source: Source, paths: Paths, space: str, components: Sequence[Value]
) -> tuple[Hold, ...]:
    """Return the unreleased holds of a target, lapsed ones included, at most HOLDS_MAX."""
    target = [space, list(components)]
    index: HoldsIndex | None = _object(source, paths, "holds", target)
    if index is None:
        return ()
    found = []
    for position in range(min(index.size, HOLDS_MAX)):
        entry = _object(source, paths, "holds", [*target, position])
        hold = None if entry is None else _object(source, paths, "hold", [entry[0]])
        assert hold is not None
        found.append(hold)
    return tuple(found)


def _object(source: Source, paths: Paths, space: str, components: list[Value]) -> Any:
    row = source.get(paths(space, components))
    if row is None or row.vh == ZERO:
        return None
    return read_single(space, components, row.value).value


def value_hash(kh: bytes, row: bytes) -> bytes:
    """Return the value hash that the state tree must hold for a row, computed from its values."""
    if row[:1] == bytes([_RECORD]):
        stored = decode_row(row)
        for leaf in stored.leaves:
            found = salted.leaf_hash(kh, leaf.name, leaf.version, leaf.salt, leaf.value_cbor)
            assert found == leaf.leaf_hash
        return stored.root()
    if row[:1] == bytes([ATTACHED]):
        root, text = split_attached(row)
        assert parts_root(decode_definition(text)) == root
        version, salt, data = decode_single(row[1 : len(row) - len(text)])
        return salted.single_leaf(kh, version, salt, data)
    version, salt, data = decode_single(row)
    return salted.single_leaf(kh, version, salt, data)


class Recorded:
    """A source that remembers what it was asked."""

    def __init__(self, inner: MemoryBackend) -> None:
        self.inner = inner
        self.asked: dict[bytes, Row | None] = {}

    def get(self, kh: bytes) -> Row | None:
        self.asked[kh] = self.inner.get(kh)
        return self.asked[kh]


class Witness:
    """A source with only the leaves that were read; asking for another is an error."""

    def __init__(self, rows: dict[bytes, Row | None]) -> None:
        self.rows = rows

    def get(self, kh: bytes) -> Row | None:
        return self.rows[kh]
