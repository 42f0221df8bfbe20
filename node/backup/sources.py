"""Where a backup is read from: a folder, or a tar file of the same files.

Names that a backup does not have are refused, and so are links and whatever else is no plain file:
nothing of a backup is ever written to a place that it names itself.

Not here: what it must hold (``manifest``, ``restoring``).
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from node.backup import manifest
from node.backup.errors import BackupError, DamagedBackupError
from node.backup.manifest import MANIFEST_BYTES_MAX, MANIFEST_NAME, NAMES
from node.backup.sinks import PARTIAL_SUFFIX

MEMBERS_MAX: Final = 64
"""Members of a tar file that are looked at, folders among them."""


class Source:
    """An open backup; make one with ``opened``."""

    def __init__(self, path: Path, tar: tarfile.TarFile | None) -> None:
        self._path = path
        self._tar = tar
        self._members = {} if tar is None else _members(tar, path)
        self.manifest = manifest.decode(self._small(MANIFEST_NAME, MANIFEST_BYTES_MAX))

    @contextmanager
    def file(self, name: str) -> Iterator[BinaryIO]:
        """Open one of the files for reading.

        Raises:
            DamagedBackupError: it is missing, or no plain file.
            OSError: it cannot be read.
        """
        if self._tar is not None:
            member = self._members.get(name)
            found = None if member is None else self._tar.extractfile(member)
            if found is None:
                raise DamagedBackupError(f"{self._path} lacks {name}")
            with found:
                yield found  # type: ignore[misc]  # a reader of bytes
            return
        try:
            handle = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise DamagedBackupError(f"{self._path} lacks {name}") from error
        with os.fdopen(handle, "rb") as file:
            yield file

    def _small(self, name: str, bytes_max: int) -> bytes:
        try:
            with self.file(name) as file:
                return file.read(bytes_max + 1)
        except DamagedBackupError as error:
            hint = "an interrupted backup has no manifest; name a whole one"
            raise DamagedBackupError(
                f"{self._path} is no backup: {name} is missing", hint=hint
            ) from error


@contextmanager
def opened(path: Path) -> Iterator[Source]:
    """Open the backup at ``path``.

    Raises:
        BackupError: there is none.
        DamagedBackupError: it is not whole, or not one.
        NewerFormatError: a newer release made it.
        OSError: it cannot be read.
    """
    if path.name.endswith(PARTIAL_SUFFIX):
        raise BackupError(
            f"{path} is what an interrupted backup left",
            hint="name a whole one; this may be removed",
        )
    if path.is_dir():
        yield Source(path, None)
        return
    if not path.exists():
        raise BackupError(f"there is no backup at {path}", hint="name its folder or its tar file")
    try:
        with tarfile.open(path, "r:") as tar:
            yield Source(path, tar)
    except tarfile.TarError as error:
        raise DamagedBackupError(f"{path} cannot be read as a tar file: {error}") from error


def _members(tar: tarfile.TarFile, path: Path) -> dict[str, tarfile.TarInfo]:
    found: dict[str, tarfile.TarInfo] = {}
    for count, member in enumerate(tar):
        name = member.name.removeprefix("./")
        if count >= MEMBERS_MAX:
            raise DamagedBackupError(f"{path} has more than {MEMBERS_MAX} members")
        if member.isdir():
            continue
        known = name in (*NAMES, MANIFEST_NAME)
        if not known or not member.isreg() or name in found:
            raise DamagedBackupError(f"{path} has {member.name!r}, which no backup has")
        found[name] = member
    return found
