"""A backup of one node's data, while it runs or after: one height, whole and certified.

One LMDB read transaction shows one height, whatever the node writes meanwhile. First its state is
hashed again, and must lead to the certificate on that height: what is not certified makes no
backup. Then that transaction is copied, without the pages that are free, so that nothing comes
along which the node has dropped (private parts, replaced rows).

In a backup: the genesis file, the store, the log of reads, and, where the operator says so, the
sealed values, whose keys go to a file apart. Never in it: key files, the sealed key, the signer's
mark, and the log. A log and a mark that are put back are promises forgotten; what the log holds
above the store is at every other agency.

While it is made the store keeps the pages that it shows, so the node's file may grow by what is
written meanwhile. Not here: putting it back (``restoring``).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import lmdb
from blake3 import blake3

from consensus.genesis import Genesis, chain_id
from consensus.release import VERSION
from node import config as configs
from node.backup import heights, rows, verifying
from node.backup.errors import BackupError
from node.backup.heights import Stored
from node.backup.manifest import (
    GENESIS_NAME,
    MANIFEST_NAME,
    READS_NAME,
    SEALED_NAME,
    STORE_NAME,
    Manifest,
    Part,
)
from node.backup.sinks import Pace, Sink, sink_for
from node.config import Config
from node.identity import load_genesis
from node.keyfiles import create
from node.retention import DAY_MS
from node.storage import tables
from node.storage.readonly import DATA_NAME, beside
from node.storage.recovery import STORE_FOLDER

RATE_BYTES: Final = 64 * 2**20
"""Bytes a second, unless the operator says otherwise."""
PIPE_BYTES: Final = 2**20
SEALED_FOLDER: Final = "sealed"
SEALED_VALUES: Final = "values"
SEALED_KEYS: Final = "keys"
_SEALED_TABLES: Final = 4

Progress = Callable[[int, int], None]
"""``(done, of)`` in bytes."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a backup holds; ``destroy_by_ms``: when the node drops the last private part in it."""

    manifest: Manifest
    seconds: float
    destroy_by_ms: int | None = None


def make(
    config_file: Path,
    target: Path,
    progress: Progress,
    *,
    rate: int = RATE_BYTES,
    sealed_keys: Path | None = None,
) -> Made:
    """Write a backup of a node, which may be running.

    Args:
        config_file: of the node.
        target: made: a folder, or a tar file if it is called ``….tar``; must not exist.
        progress: told how far it is.
        rate: bytes a second that are read or written at most; 0: as fast as it goes.
        sealed_keys: have the sealed values in the backup, and their keys in this new file.

    Raises:
        BackupError: the target exists, nothing is certified yet, or there are no sealed values.
        StorageError: the store cannot be read, or does not lead to its certificate.
        ComityError, OSError: configuration, genesis file or disk; nothing is left behind.

    Cost: reads the store once for its hashes (3 µs a row) and once for the copy.
    """
    begin = time.monotonic()
    config = configs.load(config_file, os.environ)
    founded, genesis_bytes = load_genesis(config)
    data = config.path(config.node.data)
    if sealed_keys is not None:
        _check_sealed(data / SEALED_FOLDER, sealed_keys)
    pace = Pace(rate)
    with (
        beside(data / STORE_FOLDER) as environment,
        _reading(environment, founded, chain_id(genesis_bytes)) as stored,
    ):
        copied = _Copied(progress, _size_of(stored, data, with_sealed=sealed_keys is not None))
        sink = sink_for(target, pace)
        digest = None
        try:
            _check_state(stored, pace, copied)
            files = [_put(sink, GENESIS_NAME, genesis_bytes)]
            files.append(_copy(sink, STORE_NAME, environment, stored.txn, copied))
            files += _reads(sink, data, copied)
            if sealed_keys is not None:
                files.append(_sealed(sink, data / SEALED_FOLDER, copied))
                digest = _sealed_keys(data / SEALED_FOLDER / SEALED_KEYS, sealed_keys)
            manifest = _manifest(stored, config, files, digest)
            _put(sink, MANIFEST_NAME, manifest.encode())
            sink.finish()
        except BaseException:
            sink.discard()
            if digest is not None and sealed_keys is not None:
                sealed_keys.unlink(missing_ok=True)
            raise
    days = config.retention.private_days
    destroy_by_ms = manifest.time_ms + days * DAY_MS if days else None
    return Made(manifest, time.monotonic() - begin, destroy_by_ms)


class _Copied:
    """How far a backup is."""

    def __init__(self, progress: Progress, of: int) -> None:
        self._progress = progress
        self._of = of
        self._done = 0

    def more(self, count: int) -> None:
        """Tell of more bytes."""
        self._done += count
        self._progress(min(self._done, self._of), self._of)


# --- the store ----------------------------------------------------------------------------------


@contextmanager
def _reading(environment: lmdb.Environment, founded: Genesis, chain: bytes) -> Iterator[Stored]:
    opened = tables.open_tables(environment, create=False)
    with environment.begin() as txn:
        tables.check_stamp(
            txn.get(tables.META_FORMAT, db=opened.meta),
            txn.get(tables.META_CHAIN, db=opened.meta),
            chain,
        )
        if txn.get(tables.META_HEIGHT, db=opened.meta) in (None, tables.height_key(0)):
            raise BackupError(
                "this node has no certified height yet",
                hint="start it and wait until it has caught up",
            )
        yield heights.opened(txn, opened, founded, chain)


def _check_state(stored: Stored, pace: Pace, copied: _Copied) -> None:
    """Refuse a store whose state is not the one that its newest certificate is on."""
    certificate = verifying.newest(stored)
    names = verifying.cut(stored)
    parts = []
    for name in names:
        part, size = rows.entries_hash(stored, name)
        parts.append(part)
        pace.spent(size)
        copied.more(size)
    if verifying.state_root(stored, parts) != certificate.statement.state_root:
        raise rows.blame(stored, names)


def _size_of(stored: Stored, data: Path, *, with_sealed: bool) -> int:
    """Return about how many bytes are read: the state twice, everything else once."""
    found = _table_bytes(stored, stored.opened.state)
    found += sum(
        _table_bytes(stored, getattr(stored.opened, name))
        for name in stored.opened.__dataclass_fields__
    )
    for path in (data / READS_NAME, data / SEALED_NAME if with_sealed else None):
        if path is not None and path.exists():
            found += path.stat().st_size
    return found


def _table_bytes(stored: Stored, table: tables.Table) -> int:
    stat = stored.txn.stat(table)
    pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return int(pages * stat["psize"])


def _manifest(
    stored: Stored, config: Config, files: Sequence[Part], sealed_keys: bytes | None
) -> Manifest:
    certificate = verifying.newest(stored)
    statement = certificate.statement
    return Manifest(
        software=VERSION,
        store=tables.FORMAT_VERSION,
        network=stored.genesis.network,
        chain=stored.chain.chain,
        agency=config.node.agency,
        taken_ms=time.time_ns() // 1_000_000,
        epoch=statement.epoch,
        height=statement.height,
        first=stored.first,
        time_ms=statement.time_ms,
        block_id=statement.block_id,
        state_root=statement.state_root,
        key_count=stored.txn.stat(stored.opened.state)["entries"],
        certificate=certificate.encoded,
        private_from=verifying.private_from(stored.view),
        horizon=stored.view.horizon,
        sealed_keys=sealed_keys,
        files=tuple(files),
    )


# --- copies -------------------------------------------------------------------------------------


def _put(sink: Sink, name: str, data: bytes) -> Part:
    with sink.file(name) as writer:
        writer.write(data)
    return writer.part(name)


def _copy(
    sink: Sink,
    name: str,
    environment: lmdb.Environment,
    txn: lmdb.Transaction[bytes],
    copied: _Copied,
) -> Part:
    """Copy what a transaction shows, without free pages, at the pace of the sink."""
    inlet, outlet = os.pipe()
    failed: list[lmdb.Error] = []

    def feed() -> None:
        try:
            environment.copyfd(outlet, compact=True, txn=txn)
        except lmdb.Error as error:
            failed.append(error)
        finally:
            os.close(outlet)

    feeder = threading.Thread(target=feed, name="backup")
    feeder.start()
    try:
        with sink.file(name) as writer:
            while data := os.read(inlet, PIPE_BYTES):
                writer.write(data)
                copied.more(len(data))
    finally:
        os.close(inlet)  # where this failed, the other end notices
        feeder.join()
    if failed:
        raise failed[0]
    return writer.part(name)


def _reads(sink: Sink, data: Path, copied: _Copied) -> list[Part]:
    """Copy the log of reads as far as it goes now; what is torn at its end is cut when opened."""
    try:
        file = (data / READS_NAME).open("rb")
    except FileNotFoundError:
        return []
    with file, sink.file(READS_NAME) as writer:
        left = os.fstat(file.fileno()).st_size
        while left and (part := file.read(min(left, PIPE_BYTES))):
            writer.write(part)
            copied.more(len(part))
            left -= len(part)
    return [writer.part(READS_NAME)]


def _check_sealed(folder: Path, keys: Path) -> None:
    if keys.exists():
        raise BackupError(f"{keys} exists", hint="name a new file for the sealed values' keys")
    if not (folder / SEALED_VALUES / DATA_NAME).is_file():
        raise BackupError("this node has no sealed values", hint="leave --sealed-keys out")


def _sealed(sink: Sink, folder: Path, copied: _Copied) -> Part:
    """Copy the sealed values, each under a key that is not in the backup."""
    values = folder / SEALED_VALUES
    with (
        lmdb.open(
            str(values),
            readonly=True,
            create=False,
            lock=(values / "lock.mdb").exists(),
            max_dbs=_SEALED_TABLES,
        ) as environment,
        environment.begin() as txn,
    ):
        return _copy(sink, SEALED_NAME, environment, txn, copied)


def _sealed_keys(source: Path, target: Path) -> bytes:
    """Copy the keys of the sealed values apart, after the values; return the copy's digest.

    A key that was wiped since belongs to a value that was erased.
    """
    data = source.read_bytes()
    create(target, data)
    return blake3(data).digest()
