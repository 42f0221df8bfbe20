"""What a copy in PostgreSQL holds, as a check reads it.

Not here: what it is compared with (``checking``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from psycopg import sql

from comity.feeding.checking import Row
from comity.feeding.errors import CopyDamagedError, FeedSetupError, StoreDownError
from comity.feeding.postgres import Target, connect

_TURNED: Final = {
    "timestamp with time zone": "(extract(epoch from {column}) * 1000)::bigint",
    "date": "({column} - date '1970-01-01')",
    "date[]": "CASE WHEN {column} IS NOT NULL THEN array(SELECT d - date '1970-01-01' "
    "FROM unnest({column}) WITH ORDINALITY u(d, n) ORDER BY n) END",
    "timestamp with time zone[]": "CASE WHEN {column} IS NOT NULL THEN "
    "array(SELECT (extract(epoch from t) * 1000)::bigint "
    "FROM unnest({column}) WITH ORDINALITY u(t, n) ORDER BY n) END",
    "jsonb": "{column}::text",
}


class PostgresCopy:
    """A copy in a schema, read in one transaction that sees one moment of it."""

    ends = True

    def __init__(self, where: Target) -> None:
        self._schema = where.schema
        self._connection = connect(where)
        with _told():
            self._connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            self._columns: dict[str, dict[str, str]] = {}
            for table, column, kind in self._connection.execute(
                "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c "
                "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 "
                "AND NOT a.attisdropped WHERE c.relnamespace = (SELECT oid FROM pg_namespace "
                "WHERE nspname = %s) AND c.relkind IN ('r', 'p')",
                (self._schema,),
            ):
                self._columns.setdefault(table, {})[column] = kind
            if "feed" not in self._columns:
                raise FeedSetupError(
                    f"schema {self._schema} holds no copy",
                    hint="name the schema that `comity feed postgres` writes",
                )
            feed = sql.Identifier(self._schema, "feed")
            row = self._connection.execute(
                sql.SQL("SELECT chain, first_height, height FROM {}").format(feed)
            ).fetchone()
        if row is None:
            raise CopyDamagedError(f"table {self._schema}.feed is empty")
        self.chain, self.first, self.last = row

    def rows(self, table: str, first: int, last: int) -> Sequence[Row]:
        """Return the rows of heights, in any order."""
        columns = self._columns.get(table)
        if columns is None:
            return []
        turned = [
            sql.SQL(_TURNED.get(kind, "{column}")).format(column=sql.Identifier(name))
            for name, kind in columns.items()
        ]
        key = "_height" if "_height" in columns else "height"
        query = sql.SQL("SELECT {} FROM {} WHERE {} BETWEEN %s AND %s").format(
            sql.SQL(", ").join(turned),
            sql.Identifier(self._schema, table),
            sql.Identifier(key),
        )
        parsed = [at for at, kind in enumerate(columns.values()) if kind == "jsonb"]
        found: list[Row] = []
        with _told():
            for values in self._connection.execute(query, (first, last)):
                row: list[Any] = [*values]
                for at in parsed:
                    row[at] = None if row[at] is None else json.loads(row[at])
                found.append(dict(zip(columns, row, strict=True)))
        return found

    def versioned(self) -> Sequence[str]:
        """Return the names of the tables of versions."""
        return sorted(name for name, columns in self._columns.items() if "_until" in columns)

    def close(self) -> None:
        """Let go of the database."""
        self._connection.close()


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except psycopg.OperationalError as error:
        raise StoreDownError(f"the database ended the check: {error}") from error
    except psycopg.Error as error:
        raise CopyDamagedError(f"the copy cannot be read: {error}") from error
