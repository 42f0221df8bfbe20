"""What a client reads of the state: rows with their proof, pages of ids, rule sets in force.

These are the results of ``get``, ``holds``, ``list`` and ``rules``; the other answers, and what
holds for all of them, are in ``consensus.answers``. Shapes are checked here and nothing is
believed: ``comity.verify`` computes every hash again. Specified in ``docs/protocol/client.cddl``.
"""

from __future__ import annotations

from collections.abc import Sequence
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
_RECORD: Final = codec.array(
    codec.integer(RECORD, RECORD),
    codec.octets(low=1, high=4096),
    codec.list_of(codec.one_of((_LEAF, _HIDDEN_LEAF)), 256),
    codec.list_of(codec.bytes32, 256),
)
RECORDS: Final = codec.list_of(_RECORD, protocol.KEYS_MAX)
"""Shape of records in a file."""
ROW: Final = codec.tagged(
    {
        SINGLE: codec.array(
            codec.integer(),
            codec.count,
            codec.bytes16,
            codec.octets(low=1, high=DECISION_BYTES_MAX),
        ),
        RECORD: _RECORD,
    }
)
_ROWS: Final = codec.array(
    codec.count,
    codec.list_of(codec.optional(ROW), ROWS_MAX),
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
    return Rows(result[0], tuple(row_from(row) for row in result[1]), result[2])


def read_records(rows: Sequence[Value]) -> tuple[RecordRow, ...]:
    """Return records of the shape ``RECORDS``."""
    return tuple(_record(row) for row in rows)


def row_from(value: Value) -> Row | None:
    """Return the row of a value that has the shape ROW, or is null."""
    if value is None:
        return None
    return SingleRow(*value[1:]) if value[0] == SINGLE else _record(value)


def _record(value: Value) -> RecordRow:
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


# --- proposals ------------------------------------------------------------

_DRAFT: Final = codec.array(
    codec.octets(low=1, high=protocol.ANSWER_BYTES_MAX),
    codec.bytes32,
    codec.list_of(codec.bytes16, 255, low=2),
    codec.list_of(codec.octets(low=1, high=protocol.ANSWER_BYTES_MAX), 128, low=2),
)
_LINKS: Final = codec.list_of(codec.plain, 256)
_OUTLOOK: Final = codec.array(
    codec.optional(codec.array(codec.integer(0, 255), codec.plain)), codec.optional(_LINKS)
)
_PROPOSAL: Final = codec.array(_ROWS, codec.optional(_DRAFT), codec.optional(_OUTLOOK))
_PROPOSALS: Final = codec.array(
    codec.count,
    codec.list_of(codec.bytes32, protocol.PROPOSALS_MAX),
    codec.optional(codec.octets(low=1, high=protocol.CURSOR_BYTES_MAX)),
)


@dataclass(frozen=True, slots=True)
class DraftText:
    """What a proposal would do: body and openings, with the salts that bind them, not the seed."""

    body: bytes
    seed_hash: bytes
    salts: tuple[bytes, ...]
    openings: tuple[bytes, ...]

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.body, self.seed_hash, [*self.salts], [*self.openings]]


@dataclass(frozen=True, slots=True)
class Outlook:
    """What one node says would become of a proposal now: not proved.

    ``refusal`` is code and detail, None if it would take effect; ``lacking`` what the holder of the
    connection's key lacks to approve it, empty if nothing, None if that was not asked.
    """

    refusal: tuple[int, Value] | None
    lacking: tuple[Value, ...] | None

    def to_value(self) -> Value:
        """Return the canonical array."""
        refusal = None if self.refusal is None else [*self.refusal]
        return [refusal, None if self.lacking is None else [*self.lacking]]


@dataclass(frozen=True, slots=True)
class Proposal:
    """The row of a proposal; its draft where it may be read; its outlook while it is open."""

    rows: Rows
    draft: DraftText | None
    outlook: Outlook | None

    def to_value(self) -> Value:
        """Return the canonical array."""
        draft = None if self.draft is None else self.draft.to_value()
        outlook = None if self.outlook is None else self.outlook.to_value()
        return [self.rows.to_value(), draft, outlook]


def read_proposal(result: Value) -> Proposal:
    """Return the answer to ``proposal``. Raises DecodeError."""
    _PROPOSAL(result, "proposal")
    rows, draft, outlook = result
    if draft is not None:
        draft = DraftText(draft[0], draft[1], tuple(draft[2]), tuple(draft[3]))
    if outlook is not None:
        refusal = None if outlook[0] is None else (outlook[0][0], outlook[0][1])
        outlook = Outlook(refusal, None if outlook[1] is None else tuple(outlook[1]))
    return Proposal(read_rows(rows), draft, outlook)


@dataclass(frozen=True, slots=True)
class ProposalPage:
    """Txids of proposals from a node's own index: not proved. ``next`` asks for what follows.

    A page may be short, and even empty, and yet have a ``next``.
    """

    height: int
    txids: tuple[bytes, ...]
    next: bytes | None

    def to_value(self) -> Value:
        """Return the canonical array."""
        return [self.height, [*self.txids], self.next]


def read_proposals(result: Value) -> ProposalPage:
    """Return the answer to ``proposals``. Raises DecodeError."""
    _PROPOSALS(result, "proposals")
    return ProposalPage(result[0], tuple(result[1]), result[2])


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
