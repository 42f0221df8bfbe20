"""Where a backup is written: a folder, or a tar file of the same files.

Everything lies under another name (``.partial``) until all of it is on disk; then it is renamed,
in one step. What an interrupted backup left behind is no backup, and the next one removes it; a
lock tells it from one that is still being made.

Writing is paced: no more than so many bytes a second, and a sync now and then, so that a node that
works on the same disk never waits behind a gigabyte that the system had put off.

Not here: what is written (``making``).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from blake3 import blake3

from node.backup.errors import BackupError
from node.backup.manifest import Part
from node.storage.disk import FILE_MODE, FOLDER_MODE, SYSTEM_DISK

PARTIAL_SUFFIX: Final = ".partial"
TAR_SUFFIX: Final = ".tar"
SYNC_BYTES: Final = 16 * 2**20
"""Written and not yet on disk, at most."""
_BLOCK: Final = tarfile.BLOCKSIZE


class Pace:
    """Keeps work below a number of bytes a second.

    Args:
        rate: bytes a second; 0: as fast as it goes.
        now, sleep: of a clock, in seconds.
    """

    def __init__(
        self,
        rate: int,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._now = now
        self._sleep = sleep
        self._due = now()

    def spent(self, count: int) -> None:
        """Return when the next bytes may be, after ``count`` more were."""
        if not self._rate:
            return
        now = self._now()
        self._due = max(self._due, now) + count / self._rate
        if self._due > now:
            self._sleep(self._due - now)


class Writer:
    """One file of a backup while it is written."""

    def __init__(self, handle: int, pace: Pace) -> None:
        self._handle = handle
        self._pace = pace
        self._hasher = blake3()
        self._unsynced = 0
        self.size = 0

    def write(self, data: bytes) -> None:
        """Append, at the pace.

        Raises:
            OSError: the disk is full, or fails.
        """
        view = memoryview(data)
        while view:
            view = view[os.write(self._handle, view) :]
        self._hasher.update(data)
        self.size += len(data)
        self._unsynced += len(data)
        if self._unsynced >= SYNC_BYTES:
            self.sync()
        self._pace.spent(len(data))

    def sync(self) -> None:
        """Have all of it on disk, and out of the memory that the node's own files need."""
        os.fdatasync(self._handle)
        self._unsynced = 0
        with suppress(OSError):
            os.posix_fadvise(self._handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def part(self, name: str) -> Part:
        """Return what the manifest says of it."""
        return Part(name, self.size, self._hasher.digest())


def sink_for(target: Path, pace: Pace) -> Sink:
    """Return where a backup called ``target`` is written: a tar file if it ends with ``.tar``.

    Raises:
        BackupError: it exists, its folder does not, or it is being made.
        OSError: it cannot be written.
    """
    if target.exists() or target.is_symlink():
        raise BackupError(f"{target} exists", hint="name a new folder or file")
    if not target.parent.is_dir():
        raise BackupError(
            f"there is no folder {target.parent}", hint="make it, or name another place"
        )
    partial = target.with_name(target.name + PARTIAL_SUFFIX)
    if target.suffix == TAR_SUFFIX:
        return TarSink(target, partial, pace)
    return FolderSink(target, partial, pace)


def _locked(handle: int, target: Path) -> int:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise BackupError(
            f"{target} is being made by another process", hint="wait for it, or name another place"
        ) from error
    return handle


class FolderSink:
    """A backup as a folder."""

    def __init__(self, target: Path, partial: Path, pace: Pace) -> None:
        self._target = target
        self._partial = partial
        self._pace = pace
        if partial.exists():
            os.close(_locked(os.open(partial, os.O_RDONLY | os.O_CLOEXEC), target))
            shutil.rmtree(partial)
        partial.mkdir(mode=FOLDER_MODE)
        self._lock = _locked(os.open(partial, os.O_RDONLY | os.O_CLOEXEC), target)

    @contextmanager
    def file(self, name: str) -> Iterator[Writer]:
        """Open a file of the backup for writing; on disk when the context ends."""
        path = self._partial / name
        SYSTEM_DISK.make_folder(path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        handle = os.open(path, flags, FILE_MODE)
        try:
            writer = Writer(handle, self._pace)
            yield writer
            writer.sync()
        finally:
            os.close(handle)
        SYSTEM_DISK.sync_folder(path.parent)

    def finish(self) -> None:
        """Give the backup its name; all of it is on disk."""
        self._partial.rename(self._target)
        SYSTEM_DISK.sync_folder(self._target.parent)
        os.close(self._lock)

    def discard(self) -> None:
        """Remove what was written."""
        shutil.rmtree(self._partial, ignore_errors=True)
        os.close(self._lock)


class TarSink:
    """A backup as a tar file, which ``tar xf`` unpacks into the folder that it would have been."""

    def __init__(self, target: Path, partial: Path, pace: Pace) -> None:
        self._target = target
        self._partial = partial
        self._pace = pace
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._handle = _locked(os.open(partial, flags, FILE_MODE), target)
        os.ftruncate(self._handle, 0)

    @contextmanager
    def file(self, name: str) -> Iterator[Writer]:
        """Open a file of the backup for writing; on disk when the context ends."""
        handle = self._handle
        begin = os.lseek(handle, 0, os.SEEK_CUR)
        os.write(handle, bytes(_BLOCK))  # the size is known afterwards
        writer = Writer(handle, self._pace)
        yield writer
        os.write(handle, bytes(-writer.size % _BLOCK))
        info = tarfile.TarInfo(name)
        info.size, info.mode = writer.size, FILE_MODE
        os.pwrite(handle, info.tobuf(tarfile.GNU_FORMAT), begin)
        writer.sync()

    def finish(self) -> None:
        """Give the backup its name; all of it is on disk."""
        os.write(self._handle, bytes(2 * _BLOCK))
        os.fsync(self._handle)
        self._partial.rename(self._target)
        SYSTEM_DISK.sync_folder(self._target.parent)
        os.close(self._handle)

    def discard(self) -> None:
        """Remove what was written."""
        self._partial.unlink(missing_ok=True)
        os.close(self._handle)


Sink = FolderSink | TarSink
"""A backup while it is made."""
