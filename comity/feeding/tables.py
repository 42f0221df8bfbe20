"""Which tables a copy has: names, columns and types, whatever it is kept in.

Fixed tables are about what every network has. Each kind of records has a table ``kind_<name>`` with
a row for every version. Columns that are not fields begin with an underscore there, so no field of
any rule set can collide with them.

Types: ``bool``, ``int`` (64 bits), ``text``, ``bytes``, ``date`` (days since 1970), ``time``
(milliseconds since 1970), ``json``; with ``[]`` a list of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus.ledger.model import Field, Kind

READABLE: Final = "readable"
NOT_READABLE: Final = "not readable"
"""Of a version that was not sent: that it is there is known, what is in it is not."""
SEALED: Final = "sealed"
ERASED: Final = "erased"
"""What a sealed field's column says; nothing where the field is absent."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``note`` says what is in it, for people."""

    name: str
    type: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table. ``key``: columns that tell its rows apart; ``versioned``: by ``VERSION_COLUMNS``."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    versioned: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the columns."""
        return tuple(column.name for column in self.columns)


VERSION_COLUMNS: Final = (
    Column("_kh", "bytes", "path of the leaf in the state; tells records and accounts apart"),
    Column("_id", "text", "id, as the command line writes it"),
    Column("_height", "int", "height that made this version"),
    Column("_until", "int", "height that replaced it; empty while it is the newest"),
    Column("_time", "time", "chain time of _height"),
    Column("_txid", "bytes", "transaction that wrote it last in that height, as far as shown"),
    Column("_index", "int", "its position in that height"),
    Column("_version", "int", "version of the record"),
    Column("_state", "text", "readable, or not readable: then the columns after it are empty"),
)
_RECORD_COLUMNS: Final = (
    Column("_definition", "int", "definition of the kind that it is laid out by"),
    Column("_created_by", "bytes", "principal who created it"),
    Column("_created_agency", "text", "agency of that principal, then"),
    Column("_by", "json", "who took each step last: [step, principal, agency]"),
    Column("_basis", "json", "facts that it rests on: [record, field, version]"),
    Column("_held", "text[]", "scopes of unreleased holds on it; empty where not readable"),
    Column("_versions", "json", "version that last changed each leaf"),
)

HEIGHTS: Final = Table(
    "heights",
    (
        Column("height", "int"),
        Column("time", "time", "chain time"),
        Column("epoch", "int"),
        Column("statement_hash", "bytes", "what certificates vouch for"),
        Column("statement", "bytes", "what was signed"),
        Column("certificate", "bytes", "of this height, or of a later one"),
        Column("path", "bytes[]", "from the statement to that certificate's history root"),
        Column("decisions", "int", "how many there are"),
        Column("changes", "int", "keys of the state that it changed"),
        Column("shown", "int", "of these, rows that this copy was sent"),
    ),
    ("height",),
)
CHANGES: Final = Table(
    "changes",
    (
        Column("height", "int"),
        Column("kh", "bytes", "path of the leaf in the state"),
        Column("vh", "bytes", "hash of what it holds now; zeros: it is gone"),
        Column("previous", "int", "height of its change before; -1: it is new"),
        Column("shown", "bool", "whether the row was sent"),
        Column("place", "text", "where it lies, if shown"),
    ),
    ("height", "kh"),
)
DECISIONS: Final = Table(
    "decisions",
    (
        Column("height", "int"),
        Column("index", "int", "position in the height"),
        Column("txid", "bytes"),
        Column("time", "time", "chain time"),
        Column("state", "text", "applied, refused or proposed"),
        Column("code", "text", "APPLIED, or why not"),
        Column("call", "int", "which call was refused; empty: the transaction itself"),
        Column("detail", "json", "of a refusal, by code"),
        Column("actions", "text[]", "domain.action of each call"),
        Column("rules", "text[]", "domain#number of the rule set of each call"),
        Column("principal", "bytes", "author; empty where not shown"),
        Column("agency", "text", "of the author"),
        Column("key", "bytes", "that signed"),
        Column("closed", "int", "leaves that were not shown"),
        Column("root", "bytes", "hash of the decision"),
    ),
    ("height", "index"),
)
_ACT: Final = (Column("height", "int"), Column("index", "int"), Column("txid", "bytes"))
WRITES: Final = Table(
    "writes",
    (
        *_ACT,
        Column("position", "int", "among the writes of the decision"),
        Column("domain", "text"),
        Column("place", "text", "what was written, as the command line writes it"),
        Column("kh", "bytes"),
        Column("old_version", "int", "0: it did not exist"),
        Column("new_version", "int"),
        Column("vh", "bytes", "hash of what it was after the transaction"),
    ),
    ("height", "index", "position"),
)
MOVES: Final = Table(
    "moves",
    (
        *_ACT,
        Column("number", "int", "among the moves of the decision"),
        Column("domain", "text"),
        Column("position", "int", "joins the two sides of a move"),
        Column("family", "text", "of the account"),
        Column("account", "text", "its id"),
        Column("kh", "bytes"),
        Column("currency", "text"),
        Column("delta", "int", "minor units"),
        Column("delta_reserved", "int", "minor units"),
        Column("reservation", "text", "that was made, posted or voided"),
    ),
    ("height", "index", "number"),
)
LINKS: Final = Table(
    "links",
    (
        *_ACT,
        Column("position", "int"),
        Column("what", "text", "reverses, proposal or approval"),
        Column("other", "bytes", "the other transaction"),
    ),
    ("height", "index", "position"),
)
ERASURES: Final = Table(
    "erasures",
    (
        Column("height", "int"),
        Column("txid", "bytes"),
        Column("kind", "text"),
        Column("record", "text", "id"),
        Column("kh", "bytes", "of the record"),
        Column("field", "text", "whose values were destroyed"),
        Column("version", "int", "up to this version of the field"),
        Column("agency", "text"),
        Column("principal", "bytes"),
        Column("legal", "text"),
        Column("time", "time"),
    ),
    ("height", "kh", "field"),
)
ACCOUNTS: Final = Table(
    "accounts",
    (
        *VERSION_COLUMNS,
        Column("family", "text"),
        Column("currency", "text"),
        Column("balance", "int", "minor units"),
        Column("reserved", "int", "minor units, with what has ended since"),
        Column("held", "text[]", "scopes of unreleased holds on it"),
    ),
    ("_kh", "_height"),
    versioned=True,
)
HOLDS: Final = Table(
    "holds",
    (
        *VERSION_COLUMNS,
        Column("targets", "text[]"),
        Column("scopes", "text[]"),
        Column("placed", "time"),
        Column("ends", "time", "empty: until released"),
        Column("principal", "bytes"),
        Column("agency", "text"),
        Column("domain", "text"),
        Column("state", "text", "unconfirmed, confirmed or released"),
        Column("legal", "text"),
        Column("reason", "text"),
    ),
    ("_kh", "_height"),
    versioned=True,
)
FIXED: Final = (
    HEIGHTS, CHANGES, DECISIONS, WRITES, MOVES, LINKS, ERASURES, ACCOUNTS, HOLDS,
)  # fmt: skip

_BASES: Final = {
    "bool": "bool",
    "int": "int",
    "text": "text",
    "bytes": "bytes",
    "money": "int",
    "month": "date",
    "date": "date",
    "time": "time",
    "ref": "text",
    "digest": "bytes",
    "token": "bytes",
    "commitment": "text",
    "sealed": "text",
}
_SYSTEM: Final = ("ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "chain_date")
"""Columns that every table of PostgreSQL has, and that folders of files have."""


def table_of(kind: Kind) -> Table:
    """Return the table of a kind, with a column for every field it ever had."""
    columns = [*VERSION_COLUMNS, *_RECORD_COLUMNS]
    if kind.start:
        columns.append(Column("status", "text"))
    columns += [
        Column(column_name(kind, field), column_type(field), column_note(field))
        for field in kind.fields.values()
    ]
    return Table(f"kind_{kind.name}", tuple(columns), ("_kh", "_height"), versioned=True)


def column_name(kind: Kind, field: Field) -> str:
    """Return the column of a field: its name, but for those that a copy keeps for itself."""
    name = field.name
    while name in _SYSTEM or (name != field.name and name in kind.fields):
        name += "_"
    return name


def column_type(field: Field) -> str:
    """Return the type of a field's column; of a sealed one the state is all there is."""
    if is_sealed(field):
        return "text"
    if field.type.base == "list":
        return f"{_BASES[field.type.item.base]}[]"
    return _BASES[field.type.base]


def is_sealed(field: Field) -> bool:
    """Return whether a field holds commitments and no values."""
    return bool(field.sealed_for) or field.type.base in ("sealed", "commitment")


def column_note(field: Field) -> str:
    """Return what people are told of a field's column."""
    kind = field.type
    if is_sealed(field):
        return "sealed or erased; empty: absent"
    base = kind.item if kind.base == "list" else kind
    match base.base:
        case "money":
            return f"{base.argument}, minor units"
        case "month":
            return "first day of the month"
        case "ref":
            return f"_id of {base.argument}"
        case _:
            return ""
