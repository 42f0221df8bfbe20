"""A copy in Parquet files: what the manifest lists counts, and it changes in one rename.

    manifest.json                              how far the copy is, and which files it is made of
    data/TABLE/chain_date=2026-11-22/FILE.parquet       rows of heights of that day
    places.sqlite                              which places the copy has, for the feed itself

Files are written and synced under names that begin with an underscore, which readers of folders
pass over. The manifest that lists them is synced and renamed into place: that is when they count.
Then they get their names. Whoever is killed in between finishes that when the copy is opened again,
and removes what no manifest lists. A partition of many small files is made one file the same way.

Not here: what is in a row (``project``).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from comity.changes import ChangedHeight
from comity.feeding.catalogue import Catalogue
from comity.feeding.errors import CopyDamagedError, FeedSetupError, StoreDownError
from comity.feeding.project import HeightRows, Known, Projector
from comity.feeding.tables import ERASED, SEALED, Table
from comity.files import advice
from comity.results import Entry
from consensus.hashing import context
from consensus.ledger.layout import Paths

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
PARTITION: Final = "chain_date"
FILES_MAX: Final = 16
"""Files of one partition; one more, and they are made one."""
LINGER_SECONDS: Final = 60.0
"""How long heights are gathered before files are made of them, in a run that goes on."""
STANDING: Final = "0001-01-01"
"""The partition of rows that were there before a copy began."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_digest = context("feed file")
_TYPES: Final = {
    "bool": pa.bool_(),
    "int": pa.int64(),
    "text": pa.string(),
    "bytes": pa.binary(),
    "date": pa.date32(),
    "time": pa.timestamp("ms", tz="UTC"),
    "json": pa.string(),
}


@dataclass(frozen=True, slots=True)
class File:
    """A file of a copy: rows of heights ``first`` to ``last`` of one date."""

    table: str
    date: str
    name: str
    first: int
    last: int
    rows: int
    bytes: int
    digest: str

    @property
    def path(self) -> str:
        """Where it lies in the folder."""
        return f"data/{self.table}/{PARTITION}={self.date}/{self.name}"

    @property
    def pending(self) -> str:
        """Where it lies until it counts."""
        return f"data/{self.table}/{PARTITION}={self.date}/_{self.name}"


@dataclass(slots=True)
class Manifest:
    """How far a copy is, and its files. ``columns``: of each table, with their types."""

    format: int
    chain: str
    first: int
    height: int
    statement_hash: str
    number: int
    columns: dict[str, list[list[str]]]
    files: list[File]


def read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a folder; None if it has none.

    Raises:
        CopyDamagedError: it is none of this feed.
    """
    try:
        value = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = [File(**each) for each in value.pop("files")]
        return Manifest(files=files, **value)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CopyDamagedError(f"{folder / MANIFEST} cannot be read") from error


def arrow_schema(columns: Iterable[Sequence[str]]) -> Any:
    """Return the schema of columns, given as names and types."""
    fields = []
    for name, kind in columns:
        base, _, array = kind.partition("[")
        fields.append(pa.field(name, pa.list_(_TYPES[base]) if array else _TYPES[base]))
    return pa.schema(fields)


def columns_of(table: Table) -> list[list[str]]:
    """Return the columns of a table that files have: where a version ends, the next one says."""
    return [[each.name, each.type] for each in table.columns if each.name != "_until"]


class Parquet:
    """A copy in one folder."""

    linger_seconds = LINGER_SECONDS

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: int | None = None
        self._places: sqlite3.Connection | None = None
        self._manifest: Manifest | None = None
        self._chain = b""
        self._projector: Projector | None = None

    # --- opening --------------------------------------------------------------------------------

    def open(self, chain: bytes) -> int | None:
        """Return the last height written, None for a new copy."""
        self.close()
        self._chain = chain
        try:
            return self._begun(chain)
        except BaseException:
            self.close()
            raise

    def _begun(self, chain: bytes) -> int | None:
        with _told():
            self._folder.mkdir(parents=True, exist_ok=True)
            others = any(each.name not in _OWN for each in self._folder.iterdir())
            if others and not (self._folder / MANIFEST).exists():
                raise FeedSetupError(
                    f"{self._folder} holds files of somebody else", hint="name an empty folder"
                )
            self._take()
            found = read_manifest(self._folder)
            if found is not None and found.format != FORMAT:
                raise FeedSetupError(
                    f"{self._folder} is of format {found.format}, this feed writes {FORMAT}"
                )
            if found is not None and found.chain != chain.hex():
                raise CopyDamagedError(f"{self._folder} is a copy of another network")
            self._manifest = found
            self._places = self._opened_places()
            if found is not None:
                self._finish(found)
        return None if found is None else found.height

    def _take(self) -> None:
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FeedSetupError(
                f"another feed is writing into {self._folder}",
                hint="end it, or name another folder",
            ) from error

    def _opened_places(self) -> sqlite3.Connection:
        try:
            found = sqlite3.connect(self._folder / "places.sqlite", check_same_thread=False)
            found.execute(
                "CREATE TABLE IF NOT EXISTS places (kh BLOB PRIMARY KEY, name TEXT, id TEXT, "
                "height INTEGER) WITHOUT ROWID"
            )
            found.execute(
                "CREATE TABLE IF NOT EXISTS erased (kh BLOB, name TEXT, leaf TEXT, "
                "version INTEGER, PRIMARY KEY (kh, name)) WITHOUT ROWID"
            )
            found.commit()
        except sqlite3.OperationalError:
            raise  # the disk is full, or fails: that says nothing of the copy
        except sqlite3.DatabaseError as error:
            raise CopyDamagedError(f"{self._folder}/places.sqlite cannot be read") from error
        return found

    def _finish(self, manifest: Manifest) -> None:
        """Do what is left of the last change: files that count get their names, others go."""
        wanted = {each.path for each in manifest.files}
        for path in [*self._folder.glob("data/*/*/*")]:
            where = path.relative_to(self._folder)
            named = where.with_name(where.name.removeprefix("_"))
            if where.name.startswith("_") and str(named) in wanted:
                path.rename(self._folder / named)
            elif str(where) not in wanted:
                path.unlink()
        for each in manifest.files:
            if not (self._folder / each.path).is_file():
                raise CopyDamagedError(f"{self._folder / each.path} is gone")

    def begin(self, catalogue: Catalogue, first: int, rows: Sequence[Entry]) -> None:
        """Begin a new copy with height ``first``."""
        with _told():
            self._manifest = Manifest(FORMAT, self._chain.hex(), first, first - 1, "", 0, {}, [])
            self._grow(catalogue)
            found = self._projecting(catalogue).standing(rows, first - 1)
            self._put([(STANDING, found)], first - 1, "")

    # --- writing --------------------------------------------------------------------------------

    def write(self, heights: Sequence[ChangedHeight], catalogue: Catalogue) -> int:
        """Write heights that follow what is written, all of them or none."""
        manifest = self._opened()
        first = heights[0].height.height
        if manifest.height != first - 1:
            raise CopyDamagedError(f"the copy ends with {manifest.height}, not with {first - 1}")
        projector = self._projecting(catalogue)
        dated = []
        with _told():
            self._grow(catalogue)
            for changed in heights:
                rows = projector.rows(changed)
                known = self._known(rows)
                rows.versions += projector.unseen(changed, known)
                self._note(rows)
                day = _EPOCH + timedelta(milliseconds=changed.height.time_ms)
                dated.append((f"{day:%Y-%m-%d}", rows))
            newest = heights[-1]
            return self._put(dated, newest.height.height, newest.statement.hash.hex())

    def _known(self, rows: HeightRows) -> dict[bytes, Known]:
        found: dict[bytes, Known] = {}
        for kh in rows.unseen:
            row = (
                self._database()
                .execute(
                    "SELECT name, id FROM places WHERE kh = ? AND height < ?", (kh, rows.height)
                )
                .fetchone()
            )
            if row is not None:
                found[kh] = Known(*row)
        return found

    def _note(self, rows: HeightRows) -> None:
        """Keep which places there are, and what is erased; have new versions say so."""
        places = self._database()
        places.executemany(
            "INSERT INTO erased VALUES (?, ?, ?, ?) ON CONFLICT (kh, name) DO UPDATE SET "
            "version = max(version, excluded.version)",
            [(each.kh, each.column, each.leaf, each.version) for each in rows.erased],
        )
        places.executemany(
            "INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)",
            [(each.values[0], each.table, each.values[1], rows.height) for each in rows.versions],
        )
        manifest = self._opened()
        for at, each in enumerate(rows.versions):
            erased = places.execute(
                "SELECT name, leaf, version FROM erased WHERE kh = ?", (each.values[0],)
            ).fetchall()
            names = [name for name, _ in manifest.columns[each.table]]
            names.insert(3, "_until")
            for name, leaf, version in erased:
                place = names.index(name)
                if len(each.values) > place and each.values[place] == SEALED:
                    steps = json.loads(each.values[names.index("_versions")])
                    if steps[leaf] <= version:
                        values = (*each.values[:place], ERASED, *each.values[place + 1 :])
                        rows.versions[at] = each._replace(values=values)
                        each = rows.versions[at]

    def _put(
        self, dated: Sequence[tuple[str, HeightRows]], height: int, statement_hash: str
    ) -> int:
        manifest = self._opened()
        self._database().commit()
        grouped: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
        count = 0
        for date, rows in dated:
            for name, lines in rows.rows.items():
                grouped.setdefault((name, date), []).extend(lines)
            for version in rows.versions:
                line = (*version.values[:3], *version.values[4:])
                grouped.setdefault((version.table, date), []).append(line)
        first = dated[0][1].height
        manifest.number += 1
        new: list[File] = []
        for (name, date), lines in grouped.items():
            if lines:
                new.append(self._written(name, date, first, height, lines))
                count += len(lines)
        manifest.files += new
        manifest.height, manifest.statement_hash = height, statement_hash
        self._commit(new, ())
        self._compact({(each.table, each.date) for each in new})
        return count

    def _written(
        self, name: str, date: str, first: int, last: int, lines: Sequence[tuple[Any, ...]]
    ) -> File:
        schema = arrow_schema(self._opened().columns[name])
        columns = []
        for at, field in enumerate(schema):
            values = [line[at] if at < len(line) else None for line in lines]
            columns.append(_array(values, field.type))
        return self._file(name, date, first, last, pa.Table.from_arrays(columns, schema=schema))

    def _file(self, name: str, date: str, first: int, last: int, table: Any) -> File:
        number = self._opened().number
        file = File(name, date, f"{first:012}-{last:012}-{number}.parquet", first, last, 0, 0, "")
        path = self._folder / file.pending
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path, compression="zstd")
        data = path.read_bytes()
        _sync(path)
        return File(
            name, date, file.name, first, last, table.num_rows, len(data), _digest(data).hex()
        )

    def _commit(self, new: Sequence[File], old: Sequence[File]) -> None:
        """Have the manifest count: files that it lists get their names, others go before."""
        for folder in {(self._folder / each.pending).parent for each in new}:
            _sync(folder)
        path = self._folder / f"_{MANIFEST}"
        value = asdict(self._opened())
        with path.open("w", encoding="utf-8") as stream:
            json.dump(value, stream, separators=(",", ":"))
            stream.flush()
            os.fsync(stream.fileno())
        path.rename(self._folder / MANIFEST)
        _sync(self._folder)
        for each in old:
            (self._folder / each.path).unlink()
        for each in new:
            (self._folder / each.pending).rename(self._folder / each.path)

    def _compact(self, partitions: Iterable[tuple[str, str]]) -> None:
        manifest = self._opened()
        for name, date in sorted(partitions):
            own = [each for each in manifest.files if (each.table, each.date) == (name, date)]
            if len(own) <= FILES_MAX:
                continue
            schema = arrow_schema(manifest.columns[name])
            parts = [_as(pq.ParquetFile(self._folder / each.path).read(), schema) for each in own]
            manifest.number += 1
            whole = self._file(
                name, date, own[0].first, own[-1].last, pa.concat_tables(parts).combine_chunks()
            )
            manifest.files = [each for each in manifest.files if each not in own] + [whole]
            self._commit([whole], own)

    def _grow(self, catalogue: Catalogue) -> None:
        self._opened().columns.update(
            {table.name: columns_of(table) for table in catalogue.tables()}
        )

    # --- ways -----------------------------------------------------------------------------------

    def _projecting(self, catalogue: Catalogue) -> Projector:
        if self._projector is None:
            self._projector = Projector(catalogue, Paths(self._chain))
        return self._projector

    def _opened(self) -> Manifest:
        if self._manifest is None:
            raise StoreDownError("the copy is not open")
        return self._manifest

    def _database(self) -> sqlite3.Connection:
        if self._places is None:
            raise StoreDownError("the copy is not open")
        return self._places

    def close(self) -> None:
        """Let go of the folder."""
        if self._places is not None:
            self._places.close()
            self._places = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
        self._manifest = None


_FOR_GOOD: Final = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
)
"""What does not pass by waiting; a full disk may."""
_OWN: Final = ("lock", "data", "places.sqlite", f"_{MANIFEST}", "places.sqlite-journal")


def _array(values: list[Any], kind: Any) -> Any:
    """Return values as an array: dates are days, times milliseconds."""
    if pa.types.is_date32(kind):
        return pa.array(values, pa.int32()).cast(kind)
    if pa.types.is_timestamp(kind):
        return pa.array(values, pa.int64()).cast(kind)
    if pa.types.is_list(kind) and pa.types.is_date32(kind.value_type):
        return pa.array(values, pa.list_(pa.int32())).cast(kind)
    if pa.types.is_list(kind) and pa.types.is_timestamp(kind.value_type):
        return pa.array(values, pa.list_(pa.int64())).cast(kind)
    return pa.array(values, kind)


def _as(table: Any, schema: Any) -> Any:
    """Return a table with the columns of a schema: those that it lacks are empty."""
    columns = [
        table.column(field.name)
        if field.name in table.column_names
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        said = f"{error.filename or 'the folder'} cannot be written: {error.strerror or error}"
        kind = FeedSetupError if error.errno in _FOR_GOOD else StoreDownError
        raise kind(said, hint=advice(error)) from error
    except sqlite3.OperationalError as error:
        raise StoreDownError(
            f"places.sqlite cannot be written now: {error}",
            hint="look at the disk that the folder is on: is it full, or read-only?",
        ) from error
    except sqlite3.DatabaseError as error:
        raise CopyDamagedError(f"places.sqlite cannot be read: {error}") from error
