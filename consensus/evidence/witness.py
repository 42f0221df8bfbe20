"""The leaves that a decision was judged on, each shown as far as the judgement read it.

    single   [0, space, components, version, salt, value]           value: canonical CBOR
    record   [1, components, definition, version, [leaf, ...], [decoy, ...]]
             leaf   hash                        not read: nothing of it is shown
                    [version, value hash]       only the version was compared
                    [version, salt, value]      read

A leaf's name follows from its place among the leaves of its kind's definition, which the rule sets
give: so nobody can pass one leaf off as another, nor leave one out. What is not shown cannot be
read: the attempt raises ``NotShownError``, it never looks like an absent value.

Not here: that these leaves are the ones that the decision names (``verify``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError, ProofError, VerificationError
from consensus.hashing import DIGEST_BYTES, ZERO
from consensus.ledger.model import Kind
from consensus.state import salted
from consensus.state.record import StoredRecord, encode_single
from consensus.state.salted import NO_SALT, RECORD, SALT_BYTES, Opening

T = TypeVar("T")

LEAVES_MAX: Final = 16_384
"""Leaves of one witness; what a decision read, at most 64 calls."""
VALUE_BYTES_MAX: Final = 1024 * 1024

_SINGLE: Final = 0
_RECORD: Final = 1
_NAME: Final = codec.text(64, low=1)
_COMPONENTS: Final = codec.list_of(codec.plain, 32)
_SALT: Final = codec.octets(SALT_BYTES)
_VALUE: Final = codec.octets(low=1, high=VALUE_BYTES_MAX)
_LEAF: Final = codec.one_of(
    (
        codec.bytes32,
        codec.array(codec.count, codec.bytes32),
        codec.array(codec.count, _SALT, _VALUE),
    )
)
SHAPE: Final = codec.list_of(
    codec.one_of(
        (
            codec.array(
                codec.integer(_SINGLE, _SINGLE), _NAME, _COMPONENTS, codec.count, _SALT, _VALUE
            ),
            codec.array(
                codec.integer(_RECORD, _RECORD),
                _COMPONENTS,
                codec.integer(1),
                codec.integer(1),
                codec.list_of(_LEAF, salted.LEAVES_MAX, low=1),
                codec.list_of(codec.bytes32, salted.LEAVES_MAX),
            ),
        )
    ),
    LEAVES_MAX,
)
"""The shape of a witness in a bundle."""


class NotShownError(VerificationError):
    """The judgement asked for something that the evidence does not show."""

    code = "NOT_SHOWN"
    advice = "ask for a bundle that opens it"


class Shown(Sequence[T], Generic[T]):
    """A column of a record of which some items are hidden; reading one of those raises.

    Args:
        items: None where hidden.
        filler: what iterating yields for a hidden item: it is copied, never looked at.
        note: is told the index of every item that is read.
    """

    __slots__ = ("_filler", "_items", "_note", "_what")

    def __init__(
        self,
        items: Sequence[T | None],
        filler: T,
        what: str,
        note: Callable[[int], None] | None = None,
    ) -> None:
        self._items = items
        self._filler = filler
        self._what = what
        self._note = note

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: Any) -> Any:
        item = self._items[index]
        if item is None:
            raise NotShownError(f"{self._what} is needed and not shown")
        if self._note is not None:
            self._note(index % len(self._items))
        return item

    def __iter__(self) -> Iterator[T]:
        filler = self._filler
        return iter([filler if item is None else item for item in self._items])


@dataclass(frozen=True, slots=True)
class SingleLeaf:
    """An account or kernel object; ``value`` is canonical CBOR."""

    space: str
    components: list[Value]
    version: int
    salt: bytes
    value: bytes

    def vh(self, kh: bytes) -> bytes:
        """Return its value hash at key path ``kh``."""
        return salted.single_leaf(kh, self.version, self.salt, self.value)

    def row(self) -> bytes:
        """Return the row that ``decode_single`` reads."""
        return encode_single(self.version, self.salt, self.value)

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [_SINGLE, self.space, self.components, self.version, self.salt, self.value]


RecordItem = bytes | tuple[int, bytes] | tuple[int, bytes, bytes]
"""A leaf's hash; its version and value hash; or its version, salt and value."""


@dataclass(frozen=True, slots=True)
class RecordLeaves:
    """A record; ``components`` are ``[kind, *id]``."""

    components: list[Value]
    definition: int
    version: int
    leaves: tuple[RecordItem, ...]
    decoys: tuple[bytes, ...]

    space = "record"

    def to_value(self) -> Value:
        """Return the canonical array."""
        leaves = [each if isinstance(each, bytes) else list(each) for each in self.leaves]
        return [
            _RECORD,
            self.components,
            self.definition,
            self.version,
            leaves,
            list(self.decoys),
        ]

    def stored(self, kh: bytes, kind: Kind) -> StoredRecord:
        """Return the record with what is shown of it.

        Raises:
            ProofError: no record of ``kind`` has so many leaves or such a definition.
        """
        if self.definition > len(kind.layouts):
            raise ProofError(f"{kind.name} has no definition {self.definition}")
        names = tuple(kind.layouts[self.definition - 1])
        if len(self.leaves) != len(names) or len(self.decoys) != salted.decoy_count(len(names)):
            raise ProofError(f"a record of {kind.name} has other leaves")
        hashes: list[bytes] = []
        versions: list[int | None] = []
        values: list[bytes | None] = []
        salts: list[bytes] = []
        for name, leaf in zip(names, self.leaves, strict=True):
            salt, value = NO_SALT, None
            if isinstance(leaf, bytes):
                hashes.append(leaf)
                versions.append(None)
            elif len(leaf) == 2:
                hashes.append(salted.leaf_hash_of(kh, name, leaf[0], leaf[1]))
                versions.append(leaf[0])
            else:
                version, salt, value = leaf
                hashes.append(salted.opening_hash(kh, Opening(name, version, salt, value)))
                versions.append(version)
            salts.append(salt)
            values.append(value)
        what = f"a field of {kind.name}"
        return StoredRecord(
            codec.encode([self.components[0], self.definition, self.components[1:]])[1:],
            self.version,
            names,
            cast(tuple[int, ...], Shown(versions, 0, f"the version of {what}")),
            b"".join(salts),
            b"".join(hashes),
            cast(tuple[bytes, ...], Shown(values, b"", what)),
            b"".join(self.decoys),
        )


WitnessLeaf = SingleLeaf | RecordLeaves


def vh_of(stored: StoredRecord) -> bytes:
    """Return the value hash of a record, shown in part or whole."""
    return salted.joined_root(RECORD, stored.header, stored.hashes, stored.decoys)


def from_value(rows: Sequence[Any]) -> tuple[WitnessLeaf, ...]:
    """Return the leaves of a witness of the right ``SHAPE``.

    Raises:
        DecodeError: a record without kind.
    """
    found: list[WitnessLeaf] = []
    for index, row in enumerate(rows):
        if row[0] == _SINGLE:
            found.append(SingleLeaf(*row[1:]))
            continue
        _, components, definition, version, leaves, decoys = row
        if not components or type(components[0]) is not str:
            raise DecodeError("a record names its kind first", path=f"bundle.witness[{index}]")
        items = tuple(each if isinstance(each, bytes) else tuple(each) for each in leaves)
        found.append(RecordLeaves(components, definition, version, items, tuple(decoys)))
    return tuple(found)


def of_record(
    stored: StoredRecord, values: frozenset[int], versions: frozenset[int]
) -> RecordLeaves:
    """Return a record of which only what was read is shown.

    Args:
        values: indices of the leaves whose values were read.
        versions: of those whose versions were.
    """
    leaves: list[RecordItem] = []
    for index, leaf in enumerate(stored.leaves):
        if index in values:
            leaves.append((leaf.version, leaf.salt, leaf.value_cbor))
        elif index in versions:
            leaves.append((leaf.version, salted.value_hash(leaf.salt, leaf.value_cbor)))
        else:
            leaves.append(leaf.leaf_hash)
    decoys = tuple(salted.split(stored.decoys, DIGEST_BYTES))
    components = [stored.kind, *stored.id]
    return RecordLeaves(components, stored.definition, stored.version, tuple(leaves), decoys)


ABSENT: Final = ZERO
"""What the reads of a decision give as the hash of a leaf that was not there."""
