"""A copy in PostgreSQL: heights whole or not at all, and how far it is in the same transaction.

One row of the table ``feed`` says which height is written last. It is locked and compared before
anything is written, so whoever was killed at whatever moment goes on right after it, and no height
is written twice. A lock of the database keeps a second feed out of the schema.

Not here: which tables there are (``postgres_schema``), and what is in a row (``project``).
"""

from __future__ import annotations

import json
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from psycopg import errors, sql

from comity.changes import ChangedHeight
from comity.feeding import postgres_schema as schemas
from comity.feeding.catalogue import Catalogue
from comity.feeding.errors import CopyDamagedError, FeedSetupError, StoreDownError
from comity.feeding.project import HeightRows, Known, Projector, Version
from comity.feeding.tables import ERASED, FIXED, SEALED, Table
from comity.files import advice
from comity.results import Entry
from consensus.hashing import context
from consensus.ledger.layout import Paths

CONNECT_SECONDS_MAX: Final = 10
LOCK_SECONDS_MAX: Final = 10.0
"""How long the server may take to notice that the feed before has ended."""
LOCK_POLL_SECONDS: Final = 0.2
DSN_BYTES_MAX: Final = 65_536
DATE_MIN: Final = -719_162
"""Days from 1970-01-01 to the first date that Python has, 0001-01-01."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_lock = context("feed lock")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a copy is: how to connect, and the schema."""

    dsn: str
    schema: str = "comity"


def target(dsn_file: Path | None, service: str, schema: str) -> Target:
    """Return where a copy is to be.

    Args:
        dsn_file: holds a connection string of libpq; nobody else may read it.
        service: of libpq's service file, instead.

    Raises:
        FeedSetupError: neither or both, or the file will not do.
    """
    if (dsn_file is None) is not bool(service):
        raise FeedSetupError(
            "say where the database is, in one way", hint="give --dsn-file or --service"
        )
    if not schema or len(schema.encode()) > 63 or schema.startswith("pg_"):
        raise FeedSetupError(
            f"{schema!r} cannot be a schema",
            hint="name it with 1 to 63 bytes; names in pg_ are the database's own",
        )
    if dsn_file is None:
        return Target(f"service={service}", schema)
    try:
        mode = dsn_file.stat().st_mode
        if not stat.S_ISREG(mode):
            raise FeedSetupError(
                f"{dsn_file} is not a file", hint="name the one that holds the connection string"
            )
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise FeedSetupError(
                f"others than its owner may use {dsn_file}", hint=f"run `chmod 600 {dsn_file}`"
            )
        with dsn_file.open(encoding="utf-8") as stream:
            dsn = stream.read(DSN_BYTES_MAX).strip()
    except (OSError, UnicodeDecodeError) as error:
        said = getattr(error, "strerror", None) or "it is no text"
        hint = advice(error) if isinstance(error, OSError) else "save it as UTF-8"
        raise FeedSetupError(f"cannot read {dsn_file}: {said}", hint=hint) from error
    try:
        psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise FeedSetupError(
            f"{dsn_file} holds no connection string",
            hint="write one such as `host=db.example dbname=reports user=comity_feed password=…`",
        ) from error
    return Target(dsn, schema)


def connect(where: Target) -> schemas.Connection:
    """Return a connection.

    Raises:
        FeedSetupError: the database or the user is refused there.
        StoreDownError: nobody answers there.
    """
    try:
        return psycopg.connect(
            where.dsn,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS_MAX,
            fallback_application_name="comity feed",
            options="-c timezone=UTC -c client_encoding=UTF8",
        )
    except psycopg.OperationalError as error:
        raise _refused(error) from error
    except psycopg.ProgrammingError as error:
        raise FeedSetupError(f"the database cannot be used: {_line(error)}") from error


_FATAL: Final = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "no password supplied",
    "permission denied",
    "definition of service",
    "could not translate host name",
    "certificate",
)


def _refused(error: psycopg.Error) -> FeedSetupError | StoreDownError:
    said = _line(error)
    if any(word in said for word in _FATAL):
        hint = "mend the connection string or the database's rights, as docs/reporting.md shows"
        return FeedSetupError(f"the database refuses: {said}", hint=hint)
    return StoreDownError(f"the database cannot be reached: {said}")


def _line(error: BaseException) -> str:
    """Return the last line of what a database says: no values of ours are in it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    fatal = [line for line in lines if "FATAL" in line]
    return (fatal or lines or [type(error).__name__])[-1 if fatal else 0]


class Postgres:
    """A copy in one schema of a database."""

    linger_seconds = 0.0

    def __init__(self, where: Target) -> None:
        self._where = where
        self._connection: schemas.Connection | None = None
        self._chain = b""
        self._projector: Projector | None = None
        self._tables: dict[str, Table] = {}

    # --- opening --------------------------------------------------------------------------------

    def open(self, chain: bytes) -> int | None:
        """Return the last height written, None for a new copy."""
        self.close()
        self._chain = chain
        self._connection = connection = connect(self._where)
        try:
            with _told():
                self._take(connection)
                return self._place(connection)
        except BaseException:
            self.close()
            raise

    def _take(self, connection: schemas.Connection) -> None:
        number = int.from_bytes(_lock(self._where.schema.encode())[:8], "big", signed=True)
        deadline = time.monotonic() + LOCK_SECONDS_MAX
        while True:
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (number,)).fetchone()
            if row is not None and row[0]:
                return
            if time.monotonic() > deadline:
                raise FeedSetupError(
                    f"another feed is writing into schema {self._where.schema}",
                    hint="end it, or name another schema with --schema",
                )
            time.sleep(LOCK_POLL_SECONDS)

    def _place(self, connection: schemas.Connection) -> int | None:
        schema = self._where.schema
        there = schemas.present(connection, schema)
        if "feed" not in there:
            if there:
                raise FeedSetupError(
                    f"schema {schema} holds tables of somebody else",
                    hint="name an empty one with --schema",
                )
            return None
        row = connection.execute(
            self._sql("SELECT format, chain, height, statement_hash, tables FROM {feed}")
        ).fetchone()
        if row is None:
            raise CopyDamagedError(f"table {schema}.feed is empty")
        found_format, chain, height, statement_hash, made = row
        if found_format != schemas.FORMAT:
            raise FeedSetupError(
                f"schema {schema} is of format {found_format}, this feed writes {schemas.FORMAT}",
                hint="use the release that wrote it, or have it written anew",
            )
        if chain != self._chain:
            raise CopyDamagedError(
                f"schema {schema} is a copy of another network",
                hint="name another schema, or the genesis file of that network",
            )
        schemas.check(connection, schema, FIXED, made)
        last = connection.execute(
            self._sql("SELECT height, statement_hash FROM {heights} ORDER BY height DESC LIMIT 1")
        ).fetchone()
        if statement_hash is not None and last != (height, statement_hash):
            raise CopyDamagedError(f"tables feed and heights of schema {schema} disagree")
        return int(height)

    def begin(self, catalogue: Catalogue, first: int, rows: Sequence[Entry]) -> None:
        """Begin a new copy with height ``first``."""
        connection = self._connected()
        with _told(), connection.transaction():
            schemas.make_progress(connection, self._where.schema)
            connection.execute(
                self._sql(
                    "INSERT INTO {feed} (format, chain, first_height, height) "
                    "VALUES (%s, %s, %s, %s)"
                ),
                (schemas.FORMAT, self._chain, first, first - 1),
            )
            self._grow(connection, catalogue)
            if rows:
                found = self._projecting(catalogue).standing(rows, first - 1)
                self._insert(connection, [found])

    # --- writing --------------------------------------------------------------------------------

    def write(self, heights: Sequence[ChangedHeight], catalogue: Catalogue) -> int:
        """Write heights that follow what is written, all of them or none."""
        connection = self._connected()
        projector = self._projecting(catalogue)
        found = [projector.rows(each) for each in heights]
        with _told(), connection.transaction():
            self._follow_on(connection, heights[0].height.height)
            self._grow(connection, catalogue)
            self._note_unseen(connection, projector, heights, found)
            rows = self._insert(connection, found)
            newest = heights[-1]
            connection.execute(
                self._sql(
                    "UPDATE {feed} SET height = %s, time = %s, statement_hash = %s, written = now()"
                ),
                (newest.height.height, moment(newest.height.time_ms), newest.statement.hash),
            )
        return rows

    def _follow_on(self, connection: schemas.Connection, first: int) -> None:
        row = connection.execute(self._sql("SELECT height FROM {feed} FOR UPDATE")).fetchone()
        if row is None or row[0] != first - 1:
            at = "nothing" if row is None else row[0]
            raise CopyDamagedError(
                f"schema {self._where.schema} says it ends with {at}, not with {first - 1}"
            )

    def _grow(self, connection: schemas.Connection, catalogue: Catalogue) -> None:
        found = {table.name: table for table in catalogue.tables()}
        if found == self._tables:
            return
        row = connection.execute(self._sql("SELECT tables FROM {feed}")).fetchone()
        schemas.check(connection, self._where.schema, found.values(), row[0] if row else {})
        schemas.make(connection, self._where.schema, found.values())
        made = {name: table.names for name, table in found.items()}
        connection.execute(self._sql("UPDATE {feed} SET tables = %s"), (json.dumps(made),))
        self._tables = found

    def _note_unseen(
        self,
        connection: schemas.Connection,
        projector: Projector,
        heights: Sequence[ChangedHeight],
        found: Sequence[HeightRows],
    ) -> None:
        """Add versions that are not readable, of places that the copy has."""
        wanted = [kh for rows in found for kh in rows.unseen]
        known = {
            kh: Known(name, id_)
            for kh, name, id_ in connection.execute(
                self._sql("SELECT kh, name, id FROM {places} WHERE kh = ANY(%s)"), (wanted,)
            )
        }
        for changed, rows in zip(heights, found, strict=True):
            here = {kh: known[kh] for kh in rows.unseen if kh in known}
            rows.versions += projector.unseen(changed, here)
            known.update(
                {each.values[0]: Known(each.table, each.values[1]) for each in rows.versions}
            )

    def _insert(self, connection: schemas.Connection, found: Sequence[HeightRows]) -> int:
        count = 0
        plain: dict[str, list[tuple[Any, ...]]] = {}
        versions: dict[str, dict[bytes, list[Version]]] = {}
        for rows in found:
            for name, each in rows.rows.items():
                plain.setdefault(name, []).extend(each)
            for version in rows.versions:
                of_place = versions.setdefault(version.table, {})
                of_place.setdefault(version.values[0], []).append(version)
        for name, lines in plain.items():
            self._copy(connection, self._tables[name], lines)
            count += len(lines)
        for name, places in versions.items():
            lines = [*_joined(places.values())]
            self._end(connection, name, places)
            self._copy(connection, self._tables[name], lines)
            count += len(lines)
        self._note_places(connection, versions)
        self._erase(connection, found, versions)
        return count

    def _end(
        self, connection: schemas.Connection, name: str, places: dict[bytes, list[Version]]
    ) -> None:
        """Note of the newest versions of places that others follow."""
        statement = self._sql(
            "UPDATE {table} t SET _until = u.height "
            "FROM unnest(%s::bytea[], %s::bigint[]) u (kh, height) "
            "WHERE t._kh = u.kh AND t._until IS NULL",
            table=name,
        )
        heights = [of_place[0].values[2] for of_place in places.values()]
        connection.execute(statement, ([*places], heights))

    def _copy(
        self, connection: schemas.Connection, table: Table, lines: Sequence[tuple[Any, ...]]
    ) -> None:
        if not lines:
            return
        adapt = [_ADAPTERS.get(column.type.partition("[")[0]) for column in table.columns]
        arrays = [column.type.endswith("]") for column in table.columns]
        turned = [at for at, each in enumerate(adapt) if each is not None]
        width = len(table.columns)
        statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
            sql.Identifier(self._where.schema, table.name),
            sql.SQL(", ").join(map(sql.Identifier, table.names)),
        )
        with connection.cursor() as cursor, cursor.copy(statement) as copy:
            for line in lines:
                row = [*line, *[None] * (width - len(line))]
                for at in turned:
                    value, turn = row[at], adapt[at]
                    if value is not None and turn is not None:
                        row[at] = [*map(turn, value)] if arrays[at] else turn(value)
                copy.write_row(row)

    def _note_places(
        self, connection: schemas.Connection, versions: dict[str, dict[bytes, list[Version]]]
    ) -> None:
        rows = [
            (kh, name, of_place[0].values[1])
            for name, places in versions.items()
            for kh, of_place in places.items()
        ]
        if rows:
            connection.execute(
                self._sql(
                    "INSERT INTO {places} SELECT * FROM unnest(%s::bytea[], %s::text[], "
                    "%s::text[]) ON CONFLICT DO NOTHING"
                ),
                tuple(map(list, zip(*rows, strict=True))),
            )

    def _erase(
        self,
        connection: schemas.Connection,
        found: Sequence[HeightRows],
        versions: dict[str, dict[bytes, list[Version]]],
    ) -> None:
        """Have sealed columns say that their values are destroyed, of old versions and new ones."""
        erased = [each for rows in found for each in rows.erased]
        khs = [kh for places in versions.values() for kh in places]
        khs += [each.kh for each in erased]
        if erased:
            self._erasing = None
        if self._erasing is None:
            self._erasing = {
                (kind, field)
                for kind, field in connection.execute(
                    self._sql("SELECT DISTINCT kind, field FROM {erasures}")
                )
            }
        for kind, field, column, leaf in self._projecting(None).sealed(self._erasing):
            connection.execute(
                self._sql(
                    "UPDATE {table} t SET {column} = {erased} FROM {erasures} e "
                    "WHERE t._kh = ANY(%s) AND e.kh = t._kh AND e.kind = %s AND e.field = %s "
                    "AND t.{column} = {sealed} AND (t._versions ->> %s)::bigint <= e.version",
                    table=f"kind_{kind}",
                    column=column,
                ),
                (khs, kind, field, leaf),
            )

    # --- ways -----------------------------------------------------------------------------------

    _erasing: set[tuple[str, str]] | None = None

    def _projecting(self, catalogue: Catalogue | None) -> Projector:
        if self._projector is None:
            self._projector = Projector(catalogue or Catalogue(), Paths(self._chain))
        return self._projector

    def _connected(self) -> schemas.Connection:
        if self._connection is None or self._connection.closed:
            raise StoreDownError("the connection to the database has ended")
        return self._connection

    def _sql(self, text: str, *, table: str = "", column: str = "") -> sql.Composed:
        schema = self._where.schema
        names = {name: sql.Identifier(schema, name) for name in ("feed", "heights", "places")}
        return sql.SQL(text).format(
            table=sql.Identifier(schema, table),
            column=sql.Identifier(column),
            erasures=sql.Identifier(schema, "erasures"),
            erased=sql.Literal(ERASED),
            sealed=sql.Literal(SEALED),
            **names,
        )

    def close(self) -> None:
        """Let go of the database."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._tables = {}
        self._erasing = None


def _joined(places: Any) -> Iterator[tuple[Any, ...]]:
    """Yield the versions of places, each ending with the next one's height."""
    for of_place in places:
        for at, each in enumerate(of_place):
            until = of_place[at + 1].values[2] if at + 1 < len(of_place) else None
            yield (*each.values[:3], until, *each.values[4:])


def moment(time_ms: int) -> datetime:
    """Return a chain time as a database takes it."""
    return _EPOCH + timedelta(milliseconds=time_ms)


def day(days: int) -> str:
    """Return a date as a database takes it; the year 0 is 1 BC."""
    if days >= DATE_MIN:
        return (_EPOCH + timedelta(days=days)).date().isoformat()
    found = (_EPOCH + timedelta(days=days + 1461)).date()  # four years later, a leap year as well
    return f"0001-{found.month:02}-{found.day:02} BC"


_ADAPTERS: Final = {"time": moment, "date": day}


@contextmanager
def _told() -> Iterator[None]:
    """Turn what a database says into words of ours."""
    try:
        yield
    except (errors.InsufficientPrivilege, errors.ReadOnlySqlTransaction) as error:
        hint = "grant what docs/reporting.md lists"
        raise FeedSetupError(f"the database refuses: {_line(error)}", hint=hint) from error
    except (errors.DiskFull, errors.OutOfMemory, errors.TooManyConnections) as error:
        raise StoreDownError(f"the database cannot now: {_line(error)}") from error
    except (errors.UndefinedTable, errors.UndefinedColumn, errors.DatatypeMismatch) as error:
        raise CopyDamagedError(f"a table was changed by hand: {_line(error)}") from error
    except errors.IntegrityError as error:
        raise CopyDamagedError(f"rows were changed by hand: {_line(error)}") from error
    except psycopg.OperationalError as error:
        raise _refused(error) from error
    except psycopg.Error as error:
        raise CopyDamagedError(f"the database refuses what should fit: {_line(error)}") from error
