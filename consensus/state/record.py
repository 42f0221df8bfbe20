"""A record as the store holds it: header fields and one salted leaf per field, sorted by name.

The value hash of a record is the root of a salted list whose header is
``cbor[kind, definition, id, version, leaf_count]``. Leaf hashes are kept beside the leaves, so a
write hashes only what it changes. The row format is this program's own and read only from its own
store: it is checked for consistency, not for canonical form.

    row     format 1 byte, then big-endian: stem bytes 2, names bytes 2, decoys 2, version 8
            stem        cbor kind ‖ cbor definition ‖ cbor id
            names       cbor array of the leaves' names, ascending
            versions    8 bytes a leaf      value lengths  4 bytes a leaf
            salts       16 bytes a leaf     leaf hashes    32 bytes a leaf
            decoys      32 bytes each       values         concatenated
    single  version 8 bytes ‖ salt 16 bytes ‖ value

Not here: what fields mean, and their decoded values.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Final, NamedTuple

import msgspec

from consensus import codec
from consensus.errors import invariant
from consensus.hashing import DIGEST_BYTES, ZERO
from consensus.state import salted
from consensus.state.salted import RECORD, SALT_BYTES
from consensus.table import Table

HOLDS: Final = "~holds"
"""The leaf with the scopes of unreleased holds; replacing it steps no version."""

_FORMAT: Final = 1
_HEAD: Final = struct.Struct(">BHHHQ")
_TEXT_HEAD: Final = 0x60
_SINGLE: Final = struct.Struct(f">Q{SALT_BYTES}s")
SINGLE_VALUE_AT: Final = _SINGLE.size
"""Where the value begins in the row of a single leaf; in others that place is chance."""


class Leaf(NamedTuple):
    """One field of a record. ``version`` is the record version that last changed it."""

    name: str
    version: int
    salt: bytes
    value_cbor: bytes
    leaf_hash: bytes


class StoredRecord(msgspec.Struct, frozen=True, gc=False):
    """A record: parallel columns over its leaves, which ascend by name.

    ``stem`` is the CBOR of kind, definition and id; ``salts`` and ``hashes`` are concatenations;
    ``decoys`` are the concatenated decoys of a record with more than 16 leaves. A msgspec
    structure, because it is made for every record read or written.
    """

    stem: bytes
    version: int
    names: tuple[str, ...]
    versions: tuple[int, ...]
    salts: bytes
    hashes: bytes
    values: tuple[bytes, ...]
    decoys: bytes

    @property
    def header(self) -> bytes:
        """The open header, ``cbor[kind, definition, id, version, leaf_count]``."""
        return b"\x85" + self.stem + salted.uint(self.version) + salted.uint(len(self.names))

    @property
    def kind(self) -> codec.Value:
        """The kind of the record."""
        return self._stem()[0]

    @property
    def definition(self) -> int:
        """The number of the kind's definition that the leaves are laid by."""
        number: int = self._stem()[1]
        return number

    @property
    def id(self) -> list[codec.Value]:
        """The components of the record's id."""
        components: list[codec.Value] = self._stem()[2]
        return components

    def _stem(self) -> list[codec.Value]:
        parts: list[codec.Value] = codec.parse(b"\x83" + self.stem, "record stem")
        return parts

    def index(self, name: str) -> int | None:
        """Return the position of a field's leaf, or None when the record has no such leaf."""
        return self.names.index(name) if name in self.names else None

    def leaf(self, name: str) -> Leaf | None:
        """Return a field's leaf, or None when the record has none of that name."""
        index = self.index(name)
        return None if index is None else self.leaf_at(index)

    def leaf_at(self, index: int) -> Leaf:
        """Return the leaf at a position of ``names``."""
        return Leaf(
            self.names[index],
            self.versions[index],
            self.salts[index * SALT_BYTES : (index + 1) * SALT_BYTES],
            self.values[index],
            self.hashes[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES],
        )

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """All leaves, ascending by name."""
        return tuple(self.leaf_at(index) for index in range(len(self.names)))

    def root(self) -> bytes:
        """Return the record's value hash ``vh``. Cost: about 2 µs up to 8 leaves, 5 µs up to 16."""
        return salted.joined_root(RECORD, self.header, self.hashes, self.decoys)

    def hashes_for(self, shown: Sequence[int]) -> list[bytes]:
        """Return what a third party needs beside the leaves at the indices ``shown``."""
        return salted.hashes_for(
            salted.split(self.hashes, DIGEST_BYTES), salted.split(self.decoys, DIGEST_BYTES), shown
        )


def salts_needed(record: StoredRecord | None, names: Collection[str]) -> int:
    """Return how many salts a write of the fields ``names`` takes, decoys included.

    One for each name. A record that grows beyond 16 leaves, or grows there, draws all its decoys
    anew; they take the salts after the fields' own.
    """
    if record is None:
        return len(names) + salted.decoy_count(len(names))
    had = record.names
    new = len([name for name in names if name not in had])
    return len(names) + (salted.decoy_count(len(had) + new) if new else 0)


def create(
    kh: bytes, stem: bytes, values: Mapping[str, bytes], salts: Sequence[bytes]
) -> tuple[StoredRecord, bytes]:
    """Return a new record at version 1, and its value hash.

    Args:
        kh: the record's key path.
        stem: canonical CBOR of its kind, definition and id, one after the other.
        values: canonical CBOR of each field by name, in any order.
        salts: ``salts_needed(None, names)`` of them; leaves take them ascending by name.

    Cost: about 3 µs and 1.5 µs a leaf.
    """
    ordered = dict(sorted(values.items()))
    count = len(ordered)
    _check_salts(salts, count + salted.decoy_count(count))
    hashes = b"".join(salted.leaf_hashes(kh, 1, ordered, salts))
    created = StoredRecord(
        stem,
        1,
        tuple(ordered),
        (1,) * count,
        b"".join(salts[:count]),
        hashes,
        tuple(ordered.values()),
        b"".join(salted.decoys(salts[count:])) if len(salts) > count else b"",
    )
    return created, salted.joined_root(RECORD, created.header, hashes, created.decoys)


def update(
    record: StoredRecord,
    kh: bytes,
    changed: Mapping[str, bytes],
    salts: Sequence[bytes],
    new_version: int,
    *,
    definition: int | None = None,
) -> tuple[StoredRecord, bytes]:
    """Return the record after a write, and its value hash. Unchanged leaves are not rehashed.

    Args:
        record: before the write.
        kh: its key path.
        changed: canonical CBOR of written fields; names it lacks are added.
        salts: ``salts_needed(record, names)``; leaves take them ascending by name.
        new_version: the record's version after the write, which the written leaves carry.
        definition: the number of a newer definition by which the write lays the record.

    Cost: about 8 µs and 1.7 µs a written field.
    """
    invariant(new_version > record.version, "a write steps the record's version")
    stem = record.stem
    if definition is not None and definition != record.definition:
        stem = codec.encode([record.kind, definition, record.id])[1:]
    return _write(record, kh, changed, salts, new_version, new_version, stem)


def rehold(
    record: StoredRecord, kh: bytes, value_cbor: bytes, salts: Sequence[bytes]
) -> tuple[StoredRecord, bytes]:
    """Return the record with another ``~holds`` leaf, and its value hash.

    Neither the record's version nor the leaf's steps; a leaf that is added has version 0.

    Args:
        value_cbor: canonical CBOR of the scopes.
        salts: ``salts_needed(record, [HOLDS])``.
    """
    index = record.index(HOLDS)
    version = 0 if index is None else record.versions[index]
    return _write(record, kh, {HOLDS: value_cbor}, salts, version, record.version, record.stem)


def _write(
    record: StoredRecord,
    kh: bytes,
    changed: Mapping[str, bytes],
    salts: Sequence[bytes],
    leaf_version: int,
    record_version: int,
    stem: bytes,
) -> tuple[StoredRecord, bytes]:
    ordered = dict(sorted(changed.items()))
    _check_salts(salts, salts_needed(record, ordered))
    fresh = salted.leaf_hashes(kh, leaf_version, ordered, salts)
    names, decoys = record.names, record.decoys
    if any(name not in names for name in ordered):
        record = _widen(record, ordered)
        names = record.names
        decoys = b"".join(salted.decoys(salts[len(ordered) :]))
    versions, values = list(record.versions), list(record.values)
    salt_column, hashes = bytearray(record.salts), bytearray(record.hashes)
    for name, salt, hash_ in zip(ordered, salts, fresh, strict=False):
        index = names.index(name)
        versions[index] = leaf_version
        values[index] = ordered[name]
        salt_column[index * SALT_BYTES : (index + 1) * SALT_BYTES] = salt
        hashes[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = hash_
    written = StoredRecord(
        stem,
        record_version,
        names,
        tuple(versions),
        bytes(salt_column),
        bytes(hashes),
        tuple(values),
        decoys,
    )
    return written, salted.joined_root(RECORD, written.header, written.hashes, decoys)


def _check_salts(salts: Sequence[bytes], needed: int) -> None:
    invariant(len(salts) == needed, "another number of salts than the write takes")


def _widen(record: StoredRecord, added: Iterable[str]) -> StoredRecord:
    """Return the columns of a record with blank leaves at the places of names it lacks."""
    names = tuple(sorted({*record.names, *added}))
    blank = Leaf("", 0, bytes(SALT_BYTES), b"", ZERO)
    leaves = [record.leaf(name) or blank for name in names]
    return StoredRecord(
        record.stem,
        record.version,
        names,
        tuple(leaf.version for leaf in leaves),
        b"".join(leaf.salt for leaf in leaves),
        b"".join(leaf.leaf_hash for leaf in leaves),
        tuple(leaf.value_cbor for leaf in leaves),
        record.decoys,
    )


# --- rows -------------------------------------------------------------------------------------


def encode_row(record: StoredRecord) -> bytes:
    """Return the row that ``decode_row`` reads. Cost: about 2 µs."""
    names, stem, decoys, values = record.names, record.stem, record.decoys, record.values
    encoded = _ENCODED_NAMES[names]
    head = _HEAD.pack(_FORMAT, len(stem), len(encoded), len(decoys) // DIGEST_BYTES, record.version)
    columns = _COLUMNS[len(names)].pack(*record.versions, *map(len, values))
    return b"".join((head, stem, encoded, columns, record.salts, record.hashes, decoys, *values))


def is_record_row(row: bytes) -> bool:
    """Return whether a row of our own store is that of a record."""
    return row[0] == _FORMAT


def is_single_row(row: bytes) -> bool:
    """Return whether a row of our own store is that of a single leaf, with nothing beside it.

    Versions stay below 2^56, so it begins with a zero.
    """
    return row[0] == 0


def place_of_row(row: bytes) -> tuple[int, bytes]:
    """Return a record's version, and the CBOR of its kind and id one after the other.

    Nothing else of the row is decoded. Cost: 1 µs.
    """
    _, stem_bytes, _, _, version = _HEAD.unpack_from(row)
    kind_at = _HEAD.size
    head = row[kind_at] - _TEXT_HEAD  # a kind has less than 256 bytes
    definition_at = kind_at + (1 + head if head < 24 else 2 + row[kind_at + 1])
    first = row[definition_at]
    id_at = definition_at + (1 if first < 24 else 1 + (1 << first - 24))
    return version, row[kind_at:definition_at] + row[id_at : kind_at + stem_bytes]


def decode_row(row: bytes) -> StoredRecord:
    """Return the record of a row from our own store.

    Raises:
        LocalProtocolError: the row is not one that ``encode_row`` made.

    Cost: about 3 µs for six leaves.
    """
    size = len(row)
    invariant(size >= _HEAD.size and row[0] == _FORMAT, "not a record row, or cut short")
    _, stem_bytes, names_bytes, decoy_count, version = _HEAD.unpack_from(row)
    stem_end = _HEAD.size + stem_bytes
    names_end = stem_end + names_bytes
    names = _NAMES[row[stem_end:names_end]]
    count = len(names)
    columns = _COLUMNS[count]
    salts_at = names_end + columns.size
    hashes_at = salts_at + count * SALT_BYTES
    decoys_at = hashes_at + count * DIGEST_BYTES
    values_at = decoys_at + decoy_count * DIGEST_BYTES
    invariant(values_at <= size, "a record row is cut short")
    numbers = columns.unpack_from(row, names_end)
    bounds = list(accumulate(numbers[count:], initial=values_at))
    invariant(bounds[-1] == size, "the values of a record row do not fill it")
    return StoredRecord(
        row[_HEAD.size : stem_end],
        version,
        names,
        numbers[:count],
        row[salts_at:hashes_at],
        row[hashes_at:decoys_at],
        tuple([row[start:end] for start, end in pairwise(bounds)]),
        row[decoys_at:values_at],
    )


_COLUMNS: Final = tuple(struct.Struct(f">{n}Q{n}I") for n in range(salted.LEAVES_MAX + 1))
"""Layouts of the versions and value lengths of so many leaves."""


def encode_single(version: int, salt: bytes, value_cbor: bytes) -> bytes:
    """Return the row of an account or kernel object, which is one leaf."""
    return _SINGLE.pack(version, salt) + value_cbor


def decode_single(row: bytes) -> tuple[int, bytes, bytes]:
    """Return version, salt and CBOR value of a row that ``encode_single`` made.

    Raises:
        LocalProtocolError: the row is too short.
    """
    invariant(len(row) >= _SINGLE.size, "a single-leaf row is cut short")
    version, salt = _SINGLE.unpack_from(row)
    return version, salt, row[_SINGLE.size :]


def _encode_names(names: tuple[str, ...]) -> bytes:
    return codec.encode(list(names))


def _decode_names(data: bytes) -> tuple[str, ...]:
    names = codec.parse(data, "record names")
    texts = type(names) is list and all(type(name) is str for name in names)
    invariant(texts, "the names of a record row are no texts")
    invariant(len(names) <= salted.LEAVES_MAX, "a record row has too many leaves")
    return tuple(names)


LAYOUTS_MAX: Final = 1024
_ENCODED_NAMES: Final = Table(_encode_names, LAYOUTS_MAX)
_NAMES: Final = Table(_decode_names, LAYOUTS_MAX)
"""Names of rows. Records of one kind share one tuple."""
