"""The system calls under log and mark, as a protocol, so that tests can fail and tear them.

Every method raises OSError as the system does; callers decide what a failure means. Writes are
complete or raise: a short write is continued.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

FILE_MODE: Final = 0o600
FOLDER_MODE: Final = 0o700


class Disk(Protocol):
    """Files by descriptor, positions in bytes."""

    def make_folder(self, path: Path) -> None:
        """Create a folder (and its parents) unless it exists; the new entry is synced."""

    def names(self, path: Path) -> list[str]:
        """Return the names in a folder, sorted."""

    def exists(self, path: Path) -> bool:
        """Return whether there is a file at ``path``."""

    def open(self, path: Path) -> int:
        """Open an existing file for reading and writing."""

    def create(self, path: Path) -> int:
        """Create a file with mode 0600; FileExistsError if there is one."""

    def close(self, handle: int) -> None:
        """Close a descriptor."""

    def size(self, handle: int) -> int:
        """Return the size in bytes."""

    def read(self, handle: int, count: int, position: int) -> bytes:
        """Return up to ``count`` bytes; fewer only at the end of the file."""

    def write(self, handle: int, data: bytes, position: int) -> None:
        """Write all of ``data``."""

    def truncate(self, handle: int, size: int) -> None:
        """Cut the file to ``size`` bytes."""

    def sync(self, handle: int) -> None:
        """Return once the file's content and size are on disk (fdatasync)."""

    def sync_folder(self, path: Path) -> None:
        """Return once the folder's entries are on disk."""

    def rename(self, source: Path, target: Path) -> None:
        """Rename atomically, replacing ``target``."""

    def remove(self, path: Path) -> None:
        """Remove a file."""

    def lock(self, path: Path) -> int | None:
        """Take the exclusive lock of a file, made if absent; None if another holder has it."""

    def random(self, count: int) -> bytes:
        """Return ``count`` unpredictable bytes."""


class SystemDisk:
    """The real thing."""

    def make_folder(self, path: Path) -> None:
        """See Disk."""
        missing = [path, *path.parents]
        missing = [folder for folder in missing if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=FOLDER_MODE)
            self.sync_folder(folder.parent)

    def names(self, path: Path) -> list[str]:
        """See Disk."""
        return sorted(os.listdir(path))

    def exists(self, path: Path) -> bool:
        """See Disk."""
        return path.exists()

    def open(self, path: Path) -> int:
        """See Disk."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def create(self, path: Path) -> int:
        """See Disk."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)

    def close(self, handle: int) -> None:
        """See Disk."""
        os.close(handle)

    def size(self, handle: int) -> int:
        """See Disk."""
        return os.fstat(handle).st_size

    def read(self, handle: int, count: int, position: int) -> bytes:
        """See Disk."""
        data = os.pread(handle, count, position)
        while len(data) < count:
            more = os.pread(handle, count - len(data), position + len(data))
            if not more:
                break
            data += more
        return data

    def write(self, handle: int, data: bytes, position: int) -> None:
        """See Disk."""
        written = os.pwrite(handle, data, position)
        view = memoryview(data)
        while written < len(data):
            step = os.pwrite(handle, view[written:], position + written)
            if step <= 0:
                raise OSError(errno.EIO, "the disk takes no more bytes")
            written += step

    def truncate(self, handle: int, size: int) -> None:
        """See Disk."""
        os.ftruncate(handle, size)

    def sync(self, handle: int) -> None:
        """See Disk."""
        os.fdatasync(handle)

    def sync_folder(self, path: Path) -> None:
        """See Disk."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """See Disk."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """See Disk."""
        path.unlink()

    def lock(self, path: Path) -> int | None:
        """See Disk. The lock goes with the process, however it ends."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                return None
            raise
        return handle

    def random(self, count: int) -> bytes:
        """See Disk."""
        return os.urandom(count)


SYSTEM_DISK: Final = SystemDisk()
