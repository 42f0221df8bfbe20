"""A node's data from a backup, into an empty folder, on whatever machine.

1. The record that the node was restored is written first (``restored``): from then on no start in
   this folder signs anything with a key that may have signed before.
2. Every file is copied beside it and checked against the manifest's digest as it is read.
3. The copy is verified from end to end (``verifying``): the genesis file that the configuration
   names leads to the certificate, and the certificate to the state and every height below.
4. The files are renamed into their places, the store last.

What is interrupted leaves a folder in which no node starts, and which the next restore clears. What
fails leaves the folder as it was: empty.

Not here: how the restored node comes to vote again: its agency is given a new validator key, by a
charter act, and this folder that key.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from blake3 import blake3

from consensus.committee import Committee
from consensus.errors import KeyFileError
from consensus.genesis import chain_id
from consensus.keyfile import KeyKind, describe
from node import config as configs
from node import hardening
from node.backup import sources, verifying
from node.backup.errors import BackupError, DamagedBackupError
from node.backup.manifest import (
    GENESIS_NAME,
    READS_NAME,
    SEALED_NAME,
    Manifest,
    Part,
)
from node.backup.restored import FILE_NAME, META_RESTORED, STAGING_FOLDER, Restored
from node.backup.sources import Source
from node.backup.verifying import Verified
from node.config import Config
from node.epochs import kept
from node.errors import ForeignDataError
from node.identity import load_genesis
from node.storage.disk import FILE_MODE, SYSTEM_DISK
from node.storage.flush import FlushBatch
from node.storage.recovery import STORE_FOLDER
from node.storage.store import Store

READ_BYTES: Final = 2**20
SEALED_FOLDER: Final = "sealed"
SEALED_KEYS_NAME: Final = "sealed/keys"
SYNC_BYTES: Final = 32 * 2**20

Progress = Callable[[str, int, int], None]
"""``(what, done, of)``: bytes copied, then rows and heights checked."""


@dataclass(frozen=True, slots=True)
class Put:
    """What was restored.

    Args:
        folder: the node's data.
        barred: whether none of the keys in the node's key files signs here.
        sealed: whether sealed values were restored.
    """

    folder: Path
    manifest: Manifest
    verified: Verified
    restored: Restored
    barred: bool
    sealed: bool


def restore(
    backup: Path,
    config_file: Path,
    progress: Progress,
    *,
    sealed_keys: Path | None = None,
    new_key: bool = False,
    processes: int | None = None,
) -> Put:
    """Put a backup into the empty data folder of a configuration.

    Args:
        backup: its folder or tar file.
        config_file: of the node; its genesis file is what is trusted. Keys need not be there yet.
        progress: told how far it is.
        sealed_keys: the file with the keys of the sealed values in it; None: they are left out.
        new_key: the operator vouches that a validator key in the key files which no committee in
            the backup names has never signed anything; else it does not sign here either.
        processes: workers that verify, as ``verifying.verify``.

    Raises:
        BackupError: the folder is not empty, or the backup is another agency's.
        DamagedBackupError, DamagedStoreError: it is not what was written, or not what is certified.
        ForeignDataError, NewerFormatError: of another network, or a newer release.
        ComityError, OSError: configuration or disk; the folder is left empty.
    """
    config = configs.load(config_file, os.environ)
    founded, genesis_bytes = load_genesis(config)
    folder = config.path(config.node.data)
    with sources.opened(backup) as source:
        manifest = source.manifest
        _check_origin(manifest, config, chain_id(genesis_bytes))
        _check_sealed_keys(manifest, sealed_keys)
        hardening.check_folder(folder)
        with _room(folder):
            own = frozenset() if new_key else _own_keys(config)
            record = _record(manifest, own)
            try:
                _write(folder / FILE_NAME, record.encode())
                staging = folder / STAGING_FOLDER
                names = _copy_all(source, staging, sealed_keys, progress)
                verified = verifying.verify(
                    staging / STORE_FOLDER,
                    genesis_bytes,
                    lambda done, of: progress("checked", done, of),
                    processes=processes,
                )
                _compare(manifest, verified)
                record = _note(staging / STORE_FOLDER, founded.committee, manifest, own)
                _write(folder / FILE_NAME, record.encode())
                _place(folder, staging, names)
            except BaseException:
                _clear(folder)
                raise
    return Put(
        folder,
        manifest,
        verified,
        record,
        _own_keys(config) <= frozenset(record.keys),
        any(name == SEALED_NAME for name in names),
    )


# --- before anything is written -----------------------------------------------------------------


def _check_origin(manifest: Manifest, config: Config, chain: bytes) -> None:
    if manifest.chain != chain:
        raise ForeignDataError(
            f"the backup is of the network {manifest.network} (0x{manifest.chain.hex()[:12]}…), "
            f"the configuration names that of 0x{chain.hex()[:12]}…",
            hint="name the genesis file of the backup's network, or its own backup",
        )
    if manifest.agency != config.node.agency:
        raise BackupError(
            f"the backup is of a node of {manifest.agency}, the configuration of one of "
            f"{config.node.agency}",
            hint="another agency begins with `comity snapshot import`, or by itself from its peers",
        )


def _check_sealed_keys(manifest: Manifest, path: Path | None) -> None:
    if path is None:
        return
    if manifest.sealed_keys is None:
        raise BackupError(
            "there are no sealed values in this backup", hint="leave --sealed-keys out"
        )
    if blake3(path.read_bytes()).digest() != manifest.sealed_keys:
        raise BackupError(
            f"{path} is not the file with the keys of this backup's sealed values",
            hint="name the one that was written beside it, or leave --sealed-keys out",
        )


@contextmanager
def _room(folder: Path) -> Iterator[None]:
    """Hold the empty data folder, cleared of what an interrupted restore left."""
    SYSTEM_DISK.make_folder(folder)
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BackupError(
                f"another process restores into {folder}", hint="wait for it to end"
            ) from error
        if (folder / STAGING_FOLDER).exists():
            _clear(folder)
        if any(folder.iterdir()):
            raise BackupError(
                f"the data folder {folder} is not empty",
                hint="move what is in it away, or name another folder under [node] data",
            )
        SYSTEM_DISK.make_folder(folder / STAGING_FOLDER)
        yield
    finally:
        os.close(handle)


def _clear(folder: Path) -> None:
    """Empty the folder; last goes what keeps a node from starting in it."""
    for each in sorted(folder.iterdir(), key=lambda each: each.name == STAGING_FOLDER):
        shutil.rmtree(each) if each.is_dir() else each.unlink()


def _record(manifest: Manifest, keys: frozenset[bytes]) -> Restored:
    """Return what keeps the agency's keys from signing here."""
    return Restored(
        manifest.chain,
        manifest.agency,
        manifest.height,
        manifest.digest,
        time.time_ns() // 1_000_000,
        tuple(sorted(keys)),
    )


def _own_keys(config: Config) -> frozenset[bytes]:
    """Return the public halves of the configured validator keys, as far as they are there."""
    found: set[bytes] = set()
    for name in (config.node.validator_key, config.node.validator_key_next):
        with suppress(OSError, KeyFileError):
            told = describe(config.path(name).read_bytes())
            if told.kind is KeyKind.VALIDATOR:
                found.add(told.public)
    return frozenset(found)


# --- files --------------------------------------------------------------------------------------


def _copy_all(
    source: Source, staging: Path, sealed_keys: Path | None, progress: Progress
) -> list[str]:
    """Copy what is to be restored, each file checked; return their names."""
    manifest = source.manifest
    wanted = [
        part
        for part in manifest.files
        if part.name != GENESIS_NAME and (part.name != SEALED_NAME or sealed_keys is not None)
    ]
    of = sum(part.size for part in wanted)
    done = 0
    for part in wanted:
        with source.file(part.name) as file:
            for count in _copy(file, staging / part.name, part):
                done += count
                progress("copied", done, of)
    if sealed_keys is not None:
        _write(staging / SEALED_KEYS_NAME, sealed_keys.read_bytes())
    return [part.name for part in wanted]


def _copy(file: BinaryIO, target: Path, part: Part) -> Iterator[int]:
    """Copy a file and yield how many bytes, again and again; it is as the manifest says.

    Raises:
        DamagedBackupError: it is not.
    """
    SYSTEM_DISK.make_folder(target.parent)
    hasher = blake3()
    size = unsynced = 0
    with _new(target) as copy:
        while data := file.read(READ_BYTES):
            size += len(data)
            if size > part.size:
                break
            hasher.update(data)
            copy.write(data)
            unsynced += len(data)
            if unsynced >= SYNC_BYTES:
                copy.flush()
                os.fdatasync(copy.fileno())
                unsynced = 0
            yield len(data)
        copy.flush()
        os.fsync(copy.fileno())
    if size != part.size:
        more = "more than" if size > part.size else f"{size} of"
        raise DamagedBackupError(f"{part.name} has {more} {part.size} bytes")
    if hasher.digest() != part.digest:
        raise DamagedBackupError(f"{part.name} is damaged: its BLAKE3 is not that of the manifest")


def _new(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, FILE_MODE), "wb")


def _write(path: Path, data: bytes) -> None:
    """Write a small file whole or not at all, on disk when this returns."""
    SYSTEM_DISK.make_folder(path.parent)
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with _new(draft) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)
    SYSTEM_DISK.sync_folder(path.parent)


def _compare(manifest: Manifest, verified: Verified) -> None:
    """Refuse a manifest that says something else than the files lead to."""
    statement = verified.certificate.statement
    said = (manifest.epoch, manifest.height, manifest.block_id, manifest.state_root)
    led = (statement.epoch, statement.height, statement.block_id, statement.state_root)
    if said != led:
        raise DamagedBackupError("the manifest speaks of another height than the store in it")


def _note(
    store_folder: Path, first: Committee, manifest: Manifest, own: frozenset[bytes]
) -> Restored:
    """Have the store say that it was restored; return the record with every key that it knows."""
    store = Store.open(store_folder, chain=manifest.chain)
    try:
        committees = [first, *[each.committee for each in kept(store.view)]]
        named = {
            validator.key
            for committee in committees
            for validator in committee.validators
            if validator.agency == manifest.agency
        }
        record = _record(manifest, own | named)
        store.write(FlushBatch(height=store.height, meta=[(META_RESTORED, record.encode())]))
    finally:
        store.close()
    return record


def _place(folder: Path, staging: Path, names: Sequence[str]) -> None:
    """Put the files in their places, the store last; from then on a node may start here."""
    if READS_NAME in names:
        (staging / READS_NAME).rename(folder / READS_NAME)
    if SEALED_NAME in names:
        (staging / SEALED_FOLDER).rename(folder / SEALED_FOLDER)
    (staging / STORE_FOLDER).rename(folder / STORE_FOLDER)
    SYSTEM_DISK.sync_folder(folder)
    staging.rmdir()
    SYSTEM_DISK.sync_folder(folder)
