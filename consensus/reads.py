"""What a client reads of the state: rows with their proof, pages of ids, rule sets in force.

These are the results of ``get``, ``holds``, ``list`` and ``rules``; the other answers, and what
holds for all of them, are in ``consensus.answers``. Shapes are checked here and nothing is
believed: ``comity.verify`` computes every hash again. Specified in ``docs/protocol/client.cddl``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec, protocol
from consensus.answers import DECISION_BYTES_MAX
from consensus.codec import Value

ROWS_MAX: Final = 1024
"""Most rows of one answer."""

_NAME: Final = codec.text(64, low=1)
_COMPONENTS: Final = codec.list_of(codec.plain, 16)

SINGLE: Final = 0
RECORD: Final = 1

_LEAF: Final = codec.array(
    codec.text(255), codec.count, codec.bytes16, codec.octets(high=DECISION_BYTES_MAX)
)
_HIDDEN_LEAF: Final = codec.array(codec.text(255), codec.count, codec.bytes32)
_ROW: Final = codec.tagged(
    {
        SINGLE: codec.array(
            codec.integer(),
            codec.count,
            codec.bytes16,
            codec.octets(low=1, high=DECISION_BYTES_MAX),
        ),
        RECORD: codec.array(
            codec.integer(),
            codec.octets(low=1, high=4096),
            codec.list_of(codec.one_of((_LEAF, _HIDDEN_LEAF)), 256),
            codec.list_of(codec.bytes32, 256),
        ),
    }
)
_ROWS: Final = codec.array(
    codec.count,
    codec.list_of(codec.optional(_ROW), ROWS_MAX),
    codec.octets(low=1, high=protocol.ANSWER_BYTES_MAX),
)


@dataclass(frozen=True, slots=True)
class SingleRow:
    """An account or kernel object: one salted leaf."""

    version: int
    salt: bytes
    value: bytes

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [SINGLE, self.version, self.salt, self.value]


@dataclass(frozen=True, slots=True)
class ShownLeaf:
    """A leaf of a record: with salt and value, or with ``hidden``, the hash of both."""

    name: str
    version: int
    salt: bytes | None = None
    value: bytes | None = None
    hidden: bytes | None = None

    def to_value(self) -> Value:
        """Return the canonical array."""
        if self.hidden is not None:
            return [self.name, self.version, self.hidden]
        return [self.name, self.version, self.salt, self.value]


@dataclass(frozen=True, slots=True)
class RecordRow:
    """A record: encoded header, all its leaves in order, and its decoys."""

    header: bytes
    leaves: tuple[ShownLeaf, ...]
    decoys: tuple[bytes, ...] = ()

    def to_value(self) -> Value:
        """Return the canonical array."""
        leaves = [leaf.to_value() for leaf in self.leaves]
        return [RECORD, self.header, leaves, [*self.decoys]]


Row = SingleRow | RecordRow


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in the order of their keys (None: proved absent) under the state of ``height``.

    ``proof`` is one encoded state proof for all keys.
    """

    height: int
    rows: tuple[Row | None, ...]
    proof: bytes

    def to_value(self) -> Value:
        """Return the canonical array."""
        rows = [None if row is None else row.to_value() for row in self.rows]
        return [self.height, rows, self.proof]


def read_rows(result: Value) -> Rows:
    """Return the answer to ``get`` and ``holds``. Raises DecodeError."""
    _ROWS(result, "rows")
    return Rows(result[0], tuple(_row(row) for row in result[1]), result[2])


def _row(value: Value) -> Row | None:
    if value is None:
        return None
    if value[0] == SINGLE:
        return SingleRow(*value[1:])
    leaves = tuple(
        ShownLeaf(leaf[0], leaf[1], hidden=leaf[2]) if len(leaf) == 3 else ShownLeaf(*leaf)
        for leaf in value[2]
    )
    return RecordRow(value[1], leaves, tuple(value[3]))


# --- lists, rules ---------------------------------------------------------

_PAGE: Final = codec.array(
    codec.count,
    codec.list_of(_COMPONENTS, protocol.PAGE_MAX),
    codec.optional(_COMPONENTS),
)
_RULE_SET: Final = codec.array(_NAME, codec.integer(1), codec.octets(low=1, high=2**20))
_RULES: Final = codec.array(_ROWS, codec.list_of(_RULE_SET, 256))


@dataclass(frozen=True, slots=True)
class Page:
    """Ids of one kind from a node's own index: not proved. ``next`` asks for the page after."""

    height: int
    ids: tuple[tuple[Value, ...], ...]
    next: tuple[Value, ...] | None

    def to_value(self) -> Value:
        """Return the canonical array."""
        ids = [[*id_] for id_ in self.ids]
        return [self.height, ids, None if self.next is None else [*self.next]]


def read_page(result: Value) -> Page:
    """Return the answer to ``list``. Raises DecodeError."""
    _PAGE(result, "page")
    after = None if result[2] is None else tuple(result[2])
    return Page(result[0], tuple(tuple(id_) for id_ in result[1]), after)


@dataclass(frozen=True, slots=True)
class RuleText:
    """One numbered rule set in its canonical form, as it lies on the chain."""

    domain: str
    number: int
    encoded: bytes


@dataclass(frozen=True, slots=True)
class Rules:
    """Rule sets with the rows that prove them to be in force."""

    rows: Rows
    sets: tuple[RuleText, ...]

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.rows.to_value(), [[s.domain, s.number, s.encoded] for s in self.sets]]


def read_rules(result: Value) -> Rules:
    """Return the answer to ``rules``. Raises DecodeError."""
    _RULES(result, "rules")
    return Rules(read_rows(result[0]), tuple(RuleText(*row) for row in result[1]))
