"""A node's data, or a copy of it, read without changing a byte.

``open_store`` opens LMDB read-only and without its lock file, so a copy on read-only media will do;
a folder in which a node runs is refused, because what is read without the lock may be overwritten
meanwhile. A file that is shorter than its own description is refused before it is mapped: reading
beyond its end would kill the process.

``beside`` opens it with that file, beside the node that may be writing to it: a transaction shows
one height.

``entries`` gives what the log holds, in order. A torn end is passed over, as a start would cut it;
damage before that is refused.

Not here: what entries and rows mean. Whoever reads damaged pages of LMDB may be killed by the
system, so this runs in a process of its own (``node.auditing``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from node.errors import (
    DamagedLogError,
    DamagedStoreError,
    ForeignDataError,
    InUseError,
    StorageError,
)
from node.holders import is_held
from node.storage import segment, tables
from node.storage.disk import SYSTEM_DISK, Disk
from node.storage.refusals import refused
from node.storage.store import LOCK_NAME, View

DATA_NAME: Final = "data.mdb"


class NoDataError(StorageError):
    """There is no node's data at a path."""

    code = "NO_DATA"
    advice = "name the node's data folder, its configuration or a copy of the folder"


def open_store(directory: Path, *, chain: bytes | None) -> tuple[lmdb.Environment, View]:
    """Open the store of a stopped node for reading; close the environment afterwards.

    Args:
        chain: of the network it has to be of; None: of any.

    Raises:
        NoDataError, InUseError: there is none, or a node runs on it.
        DamagedStoreError, NewerFormatError, ForeignDataError: it cannot be used.
    """
    data = directory / DATA_NAME
    if not data.is_file():
        raise NoDataError(f"there is no store in {directory}")
    if is_in_use(directory):
        raise InUseError(
            f"a node runs on {directory}",
            hint="ask the node itself under its address (name=host:port), stop it, or take a copy",
        )
    try:
        environment = lmdb.open(
            str(directory), readonly=True, lock=False, max_dbs=tables.TABLES_MAX, create=False
        )
    except lmdb.Error as error:
        raise refused(f"cannot open the store in {directory}", error) from error
    try:
        check_size(environment, data)
        return environment, view_of(environment, directory, chain)
    except lmdb.Error as error:
        environment.close()
        raise refused(f"cannot read the store in {directory}", error) from error
    except BaseException:
        environment.close()
        raise


def is_in_use(directory: Path) -> bool:
    """Return whether a node has the store in ``directory`` open."""
    return is_held(directory / LOCK_NAME)


@contextmanager
def beside(directory: Path) -> Iterator[lmdb.Environment]:
    """Open a store beside the node that may be writing to it.

    Raises:
        NoDataError: there is none.
        DamagedStoreError, StorageFailedError: it cannot be used.
    """
    data = directory / DATA_NAME
    if not data.is_file():
        raise NoDataError(f"there is no store in {directory}")
    try:
        environment = lmdb.open(
            str(directory),
            readonly=True,
            create=False,
            lock=(directory / "lock.mdb").exists(),
            max_dbs=tables.TABLES_MAX,
        )
    except lmdb.Error as error:
        raise refused(f"cannot open the store in {directory}", error) from error
    try:
        check_size(environment, data)
        yield environment
    except lmdb.Error as error:
        raise refused(f"cannot read the store in {directory}", error) from error
    finally:
        environment.close()


def check_size(environment: lmdb.Environment, data: Path) -> None:
    """Raise DamagedStoreError unless a file is as long as it says: reading beyond is fatal."""
    used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = data.stat().st_size
    if size < used:
        raise DamagedStoreError(
            f"{data} is cut off: it has {size} bytes of {used}", hint="copy it again"
        )


def view_of(environment: lmdb.Environment, directory: Path, chain: bytes | None) -> View:
    """Return what an open store shows now; close it before the environment.

    Raises:
        DamagedStoreError, NewerFormatError, ForeignDataError: it cannot be used.
    """
    names = tables.Tables.__dataclass_fields__
    try:
        opened = tables.Tables(
            **{name: environment.open_db(name.encode(), create=False) for name in names}
        )
    except lmdb.NotFoundError as error:
        raise DamagedStoreError(f"the store in {directory} lacks a table") from error
    view = View(environment.begin(), opened)
    tables.check_stamp(view.meta(tables.META_FORMAT), view.meta(tables.META_CHAIN), chain)
    return view


def entries(
    directory: Path, *, chain: bytes, disk: Disk = SYSTEM_DISK
) -> Iterator[tuple[int, int, bytes]]:
    """Yield ``(offset, kind, payload)`` of a log's entries, in order.

    Raises:
        DamagedLogError: bytes before the last segment's end have changed.
        NewerFormatError, ForeignDataError: not of this network or software.
    """
    if not directory.is_dir():
        return
    names = [name for name in disk.names(directory) if segment.is_segment(name)]
    identity = b""
    for at, name in enumerate(names):
        handle = os.open(directory / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            header = segment.read_header(disk.read(handle, segment.HEADER_BYTES, 0), name)
            if header.chain != chain or header.identity != (identity or header.identity):
                raise ForeignDataError(f"{name} is of another network or log")
            identity = header.identity
            following = segment.base_of(names[at + 1]) if at + 1 < len(names) else None
            yield from _segment(disk, handle, header, name, following)
        finally:
            os.close(handle)


def _segment(
    disk: Disk, handle: int, header: segment.Header, name: str, following: int | None
) -> Iterator[tuple[int, int, bytes]]:
    check = segment.checker(header.identity, header.base)
    size = disk.size(handle)
    limit = size if following is None else min(size, following - header.base)
    window = segment.Window(disk, handle, limit)
    position = segment.HEADER_BYTES
    while position < limit:
        entry = segment.entry_at(window, header.base, position, check, limit)
        if entry is None:
            break
        kind, payload = entry
        if kind != segment.GROUP_KIND:
            yield header.base + position, kind, payload
        position += segment.ENTRY_HEAD_BYTES + len(payload)
    end = header.base + position
    if following is not None and end != following:
        raise DamagedLogError(end, name, "an entry does not check")
    if following is None:
        later = segment.later_synced(disk, handle, header.base, position, check)
        if position < header.first_bytes or later > end:
            raise DamagedLogError(end, name, "an entry known to be synced does not check")
