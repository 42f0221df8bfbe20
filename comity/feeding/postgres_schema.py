"""The tables of a copy in PostgreSQL: made from the rule sets, grown with them, looked after.

Columns are added when rule sets bring fields, never taken away. What is there is compared with what
this feed makes before anything is written: a table, column or type that somebody else changed is
named and refused. Further indexes, views, grants and comments are nobody's business but the
database's owner's.

Not here: rows (``postgres``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import psycopg
from psycopg import sql

from comity.feeding.errors import CopyDamagedError
from comity.feeding.tables import Table

FORMAT: Final = 1
TYPES: Final = {
    "bool": "boolean",
    "int": "bigint",
    "text": "text",
    "bytes": "bytea",
    "date": "date",
    "time": "timestamp with time zone",
    "json": "jsonb",
}
_INDEXES: Final = {
    "decisions": (("txid",), ("time",)),
    "writes": (("kh",), ("txid",)),
    "moves": (("kh",), ("txid",)),
    "links": (("other",),),
}

Connection = psycopg.Connection[tuple[Any, ...]]


def type_of(column_type: str) -> str:
    """Return the type that PostgreSQL has for a column's."""
    base, _, array = column_type.partition("[")
    return TYPES[base] + ("[]" if array else "")


def make(connection: Connection, schema: str, found: Iterable[Table]) -> None:
    """Make the tables and columns that are missing."""
    there = present(connection, schema)
    for table in found:
        columns = there.get(table.name)
        if columns is None:
            _create(connection, schema, table)
            continue
        for column in table.columns:
            if column.name not in columns:
                connection.execute(
                    sql.SQL("ALTER TABLE {} ADD COLUMN {} {}").format(
                        sql.Identifier(schema, table.name),
                        sql.Identifier(column.name),
                        sql.SQL(type_of(column.type)),
                    )
                )
                _comment(connection, schema, table, column.name, column.note)
        if any(column.name not in columns for column in table.columns):
            _view(connection, schema, table)


def make_progress(connection: Connection, schema: str) -> None:
    """Make the schema, unless it is there, the table that says how far the copy is, and places."""
    names = {"schema": sql.Identifier(schema), "feed": sql.Identifier(schema, "feed")}
    names["places"] = sql.Identifier(schema, "places")
    for statement in (
        "CREATE SCHEMA IF NOT EXISTS {schema}",
        "CREATE TABLE {feed} (one boolean PRIMARY KEY DEFAULT true CHECK (one), "
        "format bigint NOT NULL, chain bytea NOT NULL, first_height bigint NOT NULL, "
        "height bigint NOT NULL, time timestamp with time zone, statement_hash bytea, "
        "tables jsonb NOT NULL DEFAULT '{{}}', "
        "written timestamp with time zone NOT NULL DEFAULT now())",
        "CREATE TABLE {places} (kh bytea PRIMARY KEY, name text NOT NULL, id text NOT NULL)",
    ):
        connection.execute(sql.SQL(statement).format(**names))


def _create(connection: Connection, schema: str, table: Table) -> None:
    columns = [
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(type_of(column.type)))
        for column in table.columns
    ]
    key = sql.SQL(", ").join(map(sql.Identifier, table.key))
    name = sql.Identifier(schema, table.name)
    connection.execute(
        sql.SQL("CREATE TABLE {} ({}, PRIMARY KEY ({}))").format(
            name, sql.SQL(", ").join(columns), key
        )
    )
    if table.versioned:
        connection.execute(
            sql.SQL("CREATE UNIQUE INDEX {} ON {} (_kh) WHERE _until IS NULL").format(
                sql.Identifier(f"{table.name}_newest"), name
            )
        )
        connection.execute(sql.SQL("CREATE INDEX ON {} (_id)").format(name))
    for names in _INDEXES.get(table.name, ()):
        listed = sql.SQL(", ").join(map(sql.Identifier, names))
        connection.execute(sql.SQL("CREATE INDEX ON {} ({})").format(name, listed))
    for column in table.columns:
        _comment(connection, schema, table, column.name, column.note)
    _view(connection, schema, table)


def _view(connection: Connection, schema: str, table: Table) -> None:
    """Make the view of what is now: of a kind without its prefix."""
    if not table.versioned:
        return
    connection.execute(
        sql.SQL("CREATE OR REPLACE VIEW {} AS SELECT {} FROM {} WHERE _until IS NULL").format(
            sql.Identifier(schema, view_of(table)),
            sql.SQL(", ").join(map(sql.Identifier, columns_of(connection, schema, table))),
            sql.Identifier(schema, table.name),
        )
    )


def view_of(table: Table) -> str:
    """Return the name of the view of a table's newest versions."""
    return f"now_{table.name.removeprefix('kind_')}"


def columns_of(connection: Connection, schema: str, table: Table) -> Sequence[str]:
    """Return the columns that a table has, in their order there."""
    return [*present(connection, schema)[table.name]]


def _comment(connection: Connection, schema: str, table: Table, column: str, note: str) -> None:
    if note:
        connection.execute(
            sql.SQL("COMMENT ON COLUMN {} IS {}").format(
                sql.Identifier(schema, table.name, column), sql.Literal(note)
            )
        )


def present(connection: Connection, schema: str) -> dict[str, dict[str, str]]:
    """Return the tables of a schema, each with its columns and their types, in order."""
    found: dict[str, dict[str, str]] = {}
    rows = connection.execute(
        "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) "
        "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "JOIN pg_attribute a ON a.attrelid = c.oid "
        "WHERE n.nspname = %s AND c.relkind IN ('r', 'p') AND a.attnum > 0 AND NOT a.attisdropped "
        "ORDER BY c.relname, a.attnum",
        (schema,),
    )
    for table, column, kind in rows:
        found.setdefault(table, {})[column] = kind
    return found


def check(
    connection: Connection,
    schema: str,
    found: Iterable[Table],
    made: Mapping[str, Sequence[str]],
) -> None:
    """Refuse tables that are not as this feed made them.

    Args:
        made: the columns of the tables that it has made so far.

    Raises:
        CopyDamagedError: one is named.
    """
    there = present(connection, schema)
    for name, listed in made.items():
        if name not in there:
            raise CopyDamagedError(f"table {schema}.{name} is gone")
        gone = [column for column in listed if column not in there[name]]
        if gone:
            raise CopyDamagedError(f"column {gone[0]} of {schema}.{name} is gone")
    for table in found:
        columns = there.get(table.name, {})
        known = {column.name: type_of(column.type) for column in table.columns}
        for name, kind in columns.items():
            if name not in known:
                raise CopyDamagedError(
                    f"table {schema}.{table.name} has a column {name} that no rule set has",
                    hint="drop it, or keep what is your own in a schema of its own",
                )
            if known[name] != kind:
                raise CopyDamagedError(
                    f"column {name} of {schema}.{table.name} is {kind} and should be {known[name]}"
                )
