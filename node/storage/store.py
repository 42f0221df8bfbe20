"""Certified data in LMDB: one writer (the flush), and the main thread's reads beside it.

- ``flush`` is the only write transaction. It runs in a worker thread, is synced (LMDB's default
  modes, never no-sync), and holds the height it brings the store to.
- ``view`` is one read transaction, used by the main thread and renewed after each flush; between
  the return of ``flush`` and the caller's next checkpoint nothing else runs, so the caller can
  drop its overlay of flushed rows in the same breath.
- The map grows by doubling when it is full. LMDB must have no transaction open then, so the view
  is renewed.
- The system maps the neighbourhood of every page that is read, so in time the whole file counts as
  this process's memory. When too much does, the file is mapped anew, after a flush.

A failed flush other than a full map is final for the process (``StorageFailedError``); reads go on.

Not here: what is flushed when (the runtime), and the rows' meaning. Tables: ``tables``.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb
import trio

from consensus.errors import invariant
from consensus.state.state import Row
from node.errors import (
    InUseError,
    StorageFailedError,
)
from node.holders import holder_words
from node.storage import bulk, flush, tables
from node.storage.disk import FOLDER_MODE, SYSTEM_DISK
from node.storage.flush import FlushBatch
from node.storage.pinned import Pinned
from node.storage.refusals import refused
from node.storage.tables import BLANK, Tables, height_key, height_of
from node.storage.versions import PastView

MAP_BYTES: Final = 16 * 2**30
"""First size of the map: address space, not disk or memory."""
MAP_BYTES_MAX: Final = 2**46
RESIDENT_BYTES_MAX: Final = 128 * 2**20
"""Pages of files that count as this process's memory; with more the store is mapped anew."""
LOCK_NAME: Final = "lock"
READINGS_MAX: Final = 4
"""Threads besides the main one that read at once."""
_READERS_MAX: Final = 8
_MEMORY_FILE: Final = Path("/proc/self/statm")


class View:
    """Reads of one LMDB snapshot. Not to be used by two threads at once.

    Attributes:
        height: of the store at this snapshot, BLANK (-1) when it is empty.
    """

    __slots__ = ("_cursor", "_opened", "_txn", "height")

    def __init__(self, txn: lmdb.Transaction[bytes], opened: Tables) -> None:
        self._txn = txn
        self._opened = opened
        self._cursor = txn.cursor(opened.state)
        value = txn.get(tables.META_HEIGHT, db=opened.meta)
        self.height = BLANK if value is None else height_of(value)

    @property
    def horizon(self) -> int:
        """The lowest height whose rows can all be told."""
        value = self._txn.get(tables.META_HORIZON, db=self._opened.meta)
        return max(self.height, 0) if value is None else height_of(value)

    def get(self, kh: bytes) -> Row | None:
        """Return the state row of a key. Cost: 3 µs."""
        value = self._txn.get(kh, db=self._opened.state)
        if value is None:
            return None
        return Row(value[8:40], int.from_bytes(value[:8], "big"), value[40:])

    def page(self, low: bytes, high: bytes | None) -> bytes:
        """Return the tree's entries, joined and ascending, ``low <= kh < high``. Cost: 5 µs."""
        cursor = self._cursor
        out: list[bytes] = []
        if cursor.set_range(low) if low else cursor.first():
            for kh, value in cursor:
                if high is not None and kh >= high:
                    break
                out.append(kh + value[8:40] + value[:8])
        return b"".join(out)

    def entries(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield ``(kh, vh, changed height)`` of all rows, ascending."""
        with self._txn.cursor(self._opened.state) as cursor:
            for kh, value in cursor:
                yield kh, value[8:40], int.from_bytes(value[:8], "big")

    def block(self, height: int) -> bytes | None:
        """Return the block of a height with its statement."""
        return self._txn.get(height_key(height), db=self._opened.blocks)

    def decisions(self, height: int) -> bytes | None:
        """Return the decisions of a height."""
        return self._txn.get(height_key(height), db=self._opened.decisions)

    def changes(self, height: int) -> bytes | None:
        """Return the change records of a height, None below the horizon."""
        return self._txn.get(height_key(height), db=self._opened.changes)

    def certificate(self, height: int) -> bytes | None:
        """Return the commit certificate on this very height, if one is kept."""
        return self._txn.get(height_key(height), db=self._opened.certs)

    def certificate_from(self, height: int) -> tuple[int, bytes] | None:
        """Return ``(height, certificate)`` of the lowest certified height >= ``height``."""
        with self._txn.cursor(self._opened.certs) as cursor:
            if not cursor.set_range(height_key(height)):
                return None
            return height_of(cursor.key()), cursor.value()

    def newest_certificate(self) -> tuple[int, bytes] | None:
        """Return ``(height, certificate)`` of the highest certificate kept."""
        with self._txn.cursor(self._opened.certs) as cursor:
            return (height_of(cursor.key()), cursor.value()) if cursor.last() else None

    def positions(self, txid: bytes) -> tuple[tuple[int, int], ...]:
        """Return the ``(height, index)`` of a transaction's decisions, ascending."""
        return tables.positions_of(self._txn.get(txid, db=self._opened.txs) or b"")

    def batch(self, digest: bytes) -> tuple[int, bytes] | None:
        """Return ``(height, public part)`` of a batch."""
        value = self._txn.get(digest, db=self._opened.batches)
        return None if value is None else (height_of(value), value[tables.HEIGHT_BYTES :])

    def has_batch(self, digest: bytes) -> bool:
        """Return whether a batch is kept."""
        return self._txn.get(digest, db=self._opened.batches) is not None

    def private(self, digest: bytes) -> bytes | None:
        """Return a batch's private parts, None if never held."""
        return self._txn.get(digest, db=self._opened.private)

    def history(self, level: int, index: int) -> bytes | None:
        """Return a node of the history tree."""
        return self._txn.get(tables.history_key(level, index), db=self._opened.history)

    def records(
        self, prefix: bytes, *, after: bytes = b"", count_max: int
    ) -> list[tuple[bytes, bytes]]:
        """Return up to ``count_max`` ``(key, kh)`` of the record index, ascending.

        Args:
            prefix: what the keys begin with.
            after: a key of an earlier page; only later ones are returned.
            count_max: size of the page.
        """
        out: list[tuple[bytes, bytes]] = []
        start = max(prefix, after)
        with self._txn.cursor(self._opened.index) as cursor:
            found = cursor.set_range(start) if start else cursor.first()
            while found and len(out) < count_max and cursor.key().startswith(prefix):
                if cursor.key() != after or not after:
                    out.append(cursor.item())
                found = cursor.next()
        return out

    def aside(self, key: bytes) -> bytes | None:
        """Return a node-local value."""
        return self._txn.get(key, db=self._opened.aside)

    def aside_keys(self, low: bytes, high: bytes, count_max: int) -> list[bytes]:
        """Return up to ``count_max`` node-local keys, ``low <= key < high``, ascending."""
        out: list[bytes] = []
        with self._txn.cursor(self._opened.aside) as cursor:
            found = cursor.set_range(low)
            while found and len(out) < count_max and cursor.key() < high:
                out.append(cursor.key())
                found = cursor.next()
        return out

    def meta(self, name: bytes) -> bytes | None:
        """Return a further meta value."""
        return self._txn.get(name, db=self._opened.meta)

    def close(self) -> None:
        """End the snapshot."""
        self._txn.abort()


class StateBackend:
    """The state rows as ``consensus.state.state.Backend``; follows the store's renewed view."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, kh: bytes) -> Row | None:
        """Return a key's row, or None."""
        return self._store.view.get(kh)

    def page(self, low: bytes, high: bytes | None) -> bytes:
        """Return the tree's entries, joined and ascending, ``low <= kh < high`` (None: the end)."""
        return self._store.view.page(low, high)

    def entries(self) -> Iterator[tuple[bytes, bytes, int]]:
        """Yield ``(kh, vh, changed height)`` of all rows, ascending; ends with the next flush."""
        yield from self._store.view.entries()
        self._store.renew()  # by now the whole file is resident


class Store:
    """An open store; make one with ``Store.open``.

    Attributes:
        view: the main thread's snapshot; take it anew after every flush.
        state: the rows for ``consensus.state.state.State``.
        failed: the failure after which nothing is flushed, or None.

    Other threads read by ``reading`` alone. While one does, the file is not mapped anew.
    """

    def __init__(self, environment: lmdb.Environment, opened: Tables, lock: int) -> None:
        self._environment = environment
        self._opened = opened
        self._lock: int | None = lock
        self._flushing = trio.Lock()
        self._gate = threading.Condition()
        self._readings = 0
        self._mapping = False
        self._pinned: set[Pinned] = set()
        self.view = View(environment.begin(), opened)
        self.state = StateBackend(self)
        self.failed: StorageFailedError | None = None

    @classmethod
    def open(cls, directory: Path, *, chain: bytes, map_bytes: int = MAP_BYTES) -> Store:
        """Open or create the store in ``directory``.

        Args:
            directory: made if absent, mode 0700.
            chain: 32 bytes; the store of another network is refused.
            map_bytes: first size of the map.

        Raises:
            DamagedStoreError: LMDB refuses the files, or the store's own entries are missing.
            NewerFormatError, ForeignDataError, InUseError: not ours to open.
            StorageFailedError: the disk fails.
        """
        invariant(len(chain) == 32, "chain has 32 bytes")
        try:
            SYSTEM_DISK.make_folder(directory)
            lock = SYSTEM_DISK.lock(directory / LOCK_NAME)
        except OSError as error:
            raise StorageFailedError(f"cannot open the store in {directory}: {error}") from error
        if lock is None:
            who = holder_words(directory / LOCK_NAME)
            raise InUseError(f"another process{who} uses {directory}")
        try:
            return cls(*_open_environment(directory, chain, map_bytes), lock)
        except OSError as error:
            SYSTEM_DISK.close(lock)
            raise StorageFailedError(f"cannot open the store in {directory}: {error}") from error
        except lmdb.Error as error:
            SYSTEM_DISK.close(lock)
            raise refused(f"cannot open the store in {directory}", error) from error
        except BaseException:
            SYSTEM_DISK.close(lock)
            raise

    @property
    def height(self) -> int:
        """Height of the main view, BLANK (-1) when the store is empty."""
        return self.view.height

    async def flush(self, batch: FlushBatch) -> None:
        """Write ``batch`` in a worker thread; on return it is on disk and ``view`` shows it.

        Calls are served one after the other. If the caller is cancelled, the batch is written
        none the less.

        Raises:
            StorageFailedError: now or before; the store is as it was.

        Cost: about 12 ms and 7 µs a row.
        """
        with trio.CancelScope(shield=True):
            async with self._flushing:
                flush.check(batch, self._alive_height())
                while not await trio.to_thread.run_sync(self._commit, batch):
                    await trio.to_thread.run_sync(self._await_readings)
                    self._grow()
                self.renew()

    def write(self, batch: FlushBatch) -> None:
        """Do what ``flush`` does, in this thread; for start and tools."""
        flush.check(batch, self._alive_height())
        while not self._commit(batch):
            self._await_readings()
            self._grow()
        self.renew()

    def write_bulk(self, part: bulk.Rows | bulk.Index | bulk.Beginning) -> None:
        """Write a part of a snapshot into a blank store, in this thread.

        Raises:
            StorageFailedError: now or before.
        """
        invariant(self._alive_height() == BLANK, "a snapshot goes into a blank store")
        while not self._commit(part):
            self._await_readings()
            self._grow()
        self.renew()

    def pin(self) -> Pinned:
        """Return a read transaction of its own at the view's height, until it is closed.

        The store keeps what it shows. It ends when the map grows; whoever reads finds it closed.
        """
        return Pinned(self._environment, self._opened, self._pinned)

    def renew(self) -> None:
        """Begin the view anew, and map the file anew when too much of it is resident."""
        if not self._pinned and _resident_bytes() > RESIDENT_BYTES_MAX:
            with self._gate:
                if not self._readings:
                    self._map(self._environment.info()["map_size"])
                    return
        self.view.close()
        self.view = View(self._environment.begin(), self._opened)

    @contextmanager
    def reading(self) -> Iterator[PastView]:
        """Read in another thread, on a snapshot of its own. Waits while READINGS_MAX others do.

        Not for the main thread, and not for long: what a flush frees is kept meanwhile, and a
        store that must grow waits.
        """
        with self._gate:
            self._gate.wait_for(lambda: self._readings < READINGS_MAX and not self._mapping)
            self._readings += 1
            try:
                view = PastView(self._environment.begin(buffers=True), self._opened)
            except BaseException:
                self._readings -= 1
                raise
        try:
            yield view
        finally:
            view.close()
            with self._gate:
                self._readings -= 1
                self._gate.notify_all()

    @property
    def used_bytes(self) -> int:
        """Size of the data file's used part; a gauge."""
        info = self._environment.info()
        return (info["last_pgno"] + 1) * self._environment.stat()["psize"]

    def close(self) -> None:
        """Release the store. No flush may be under way."""
        lock, self._lock = self._lock, None
        if lock is not None:
            for pinned in list(self._pinned):
                pinned.close()
            self.view.close()
            self._environment.close()
            SYSTEM_DISK.close(lock)

    # --- inside ---------------------------------------------------------------------------------

    def _alive_height(self) -> int:
        if self.failed is not None:
            raise StorageFailedError(self.failed.message) from self.failed
        return self.view.height

    def _commit(self, batch: FlushBatch | bulk.Rows | bulk.Index | bulk.Beginning) -> bool:
        """Write and commit; False if the map is full, and then nothing is written.

        Pages that a killed backup or export was reading are given free first.
        """
        try:
            self._environment.reader_check()
            with self._environment.begin(write=True) as txn:
                if isinstance(batch, FlushBatch):
                    flush.write(txn, self._opened, batch)
                else:
                    batch.write(txn, self._opened)
        except lmdb.MapFullError:
            return False
        except lmdb.Error as error:
            self.failed = StorageFailedError(f"the store failed to flush: {error}")
            raise self.failed from error
        return True

    def _await_readings(self) -> None:
        """Return when no other thread reads; none begins until the file is mapped anew."""
        with self._gate:
            self._mapping = True
            self._gate.wait_for(lambda: not self._readings)

    def _grow(self) -> None:
        try:
            self._enlarge()
        finally:
            with self._gate:
                self._mapping = False
                self._gate.notify_all()

    def _enlarge(self) -> None:
        size = self._environment.info()["map_size"] * 2
        if size > MAP_BYTES_MAX:
            self.failed = StorageFailedError(f"the store has reached {MAP_BYTES_MAX} bytes")
            raise self.failed
        self._map(size)

    def _map(self, size: int) -> None:
        """Map the file anew, with room for ``size`` bytes."""
        for pinned in list(self._pinned):
            pinned.close()
        self.view.close()
        try:
            try:
                self._environment.set_mapsize(size)
            finally:
                self.view = View(self._environment.begin(), self._opened)
        except lmdb.Error as error:
            self.failed = StorageFailedError(f"the store cannot be mapped to {size}: {error}")
            raise self.failed from error


def _resident_bytes() -> int:
    """Return how many bytes of files count as this process's memory; 0 where nobody says."""
    try:
        return int(_MEMORY_FILE.read_bytes().split()[2]) * mmap.PAGESIZE
    except OSError:
        return 0


def _open_environment(
    directory: Path, chain: bytes, map_bytes: int
) -> tuple[lmdb.Environment, Tables]:
    environment = lmdb.open(
        str(directory),
        map_size=map_bytes,
        max_dbs=tables.TABLES_MAX,
        max_readers=_READERS_MAX,
        mode=FOLDER_MODE,
    )
    try:
        opened = tables.open_tables(environment)
        _stamp(environment, opened, chain)
        SYSTEM_DISK.sync_folder(directory)
    except BaseException:
        environment.close()
        raise
    return environment, opened


def _stamp(environment: lmdb.Environment, opened: Tables, chain: bytes) -> None:
    """Check the store's description of itself, or write it into an empty store."""
    with environment.begin() as txn:
        version = txn.get(tables.META_FORMAT, db=opened.meta)
        found = txn.get(tables.META_CHAIN, db=opened.meta)
        empty = txn.stat(opened.meta)["entries"] == 0 and txn.stat(opened.state)["entries"] == 0
    if empty:
        with environment.begin(write=True) as txn:
            stamp = tables.FORMAT_VERSION.to_bytes(4, "big")
            txn.put(tables.META_FORMAT, stamp, db=opened.meta)
            txn.put(tables.META_CHAIN, chain, db=opened.meta)
        return
    tables.check_stamp(version, found, chain)
