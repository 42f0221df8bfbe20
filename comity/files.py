"""What commands write: whole or not at all, and what to do where the system refuses.

    filling    a new or empty folder is filled, or left as it was
    undoing    files that are made, or none of them
    as_owner   root acts as the user whom a place belongs to
    saying     what was being done, where the system does not
    advice     what a person can do about an error of the system

After a crash of the machine a half-made folder may be left; whoever begins again is told that it is
not empty. Not here: files that are synced (``keys``), and a node's data (``node.storage``).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from comity.errors import DraftError, FileError

TEXT_CHARACTERS_MAX: Final = 64 * 2**20
"""Of a plan of a hundred thousand people."""
_ADVICE: Final = {
    errno.ENOSPC: "free space there, or name another place; then run it again",
    errno.EDQUOT: "free space within your quota, or name another place; then run it again",
    errno.EFBIG: "raise the limit on the size of files (`ulimit -f`); then run it again",
    errno.EROFS: "name a place that is not mounted read-only",
    errno.EACCES: "run it as the user whom the place belongs to, or have its owner let you in",
    errno.EPERM: "run it as the user whom the place belongs to, or have its owner let you in",
    errno.ENOENT: "check the path; it, or a folder on the way to it, is not there",
    errno.ENOTDIR: "name a folder; there is a file in its place",
    errno.EEXIST: "name another place; something is there already",
    errno.EISDIR: "name a file; this is a folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "check the symbolic links on the way; they lead in a circle",
    errno.EIO: "check the disk; it fails",
    errno.EMFILE: "raise the limit on open files (`ulimit -n`); then run it again",
}


def advice(error: OSError) -> str:
    """Return what a person can do about an error of the system."""
    return _ADVICE.get(error.errno or 0, FileError.advice)


def refused(doing: str, error: OSError) -> FileError:
    """Return the error of a command: ``doing``, as *cannot write x*, and why."""
    return FileError(f"{doing}: {error.strerror or error}", hint=advice(error))


def bounded_text(path: Path, what: str) -> str:
    """Return the text of a file in TOML or JSON, as ``what`` says; it may be a device without end.

    Raises:
        DraftError: it is longer than any.
        UnicodeDecodeError: it is not text in UTF-8.
    """
    with path.open(encoding="utf-8") as file:
        text = file.read(TEXT_CHARACTERS_MAX + 1)
    if len(text) > TEXT_CHARACTERS_MAX:
        raise DraftError(
            f"{path} is longer than {TEXT_CHARACTERS_MAX} characters",
            hint=f"name a file in {what}",
        )
    return text


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is not there yet: all of it, or none is left.

    Raises:
        FileError: there is one, or it cannot be written.
    """
    try:
        file = path.open("xb")
        with undoing([path]), file:
            file.write(data)
            file.flush()
    except OSError as error:
        raise refused(f"cannot write {path}", error) from error


def text_of(path: Path) -> str:
    """Return the text of a file in TOML.

    Raises:
        DraftError: it is not text, or longer than any.
    """
    try:
        return bounded_text(path, "TOML")
    except UnicodeDecodeError as error:
        raise DraftError(
            f"{path} is not text in UTF-8", hint="name a file in TOML, saved as UTF-8"
        ) from error


@contextmanager
def as_owner(path: Path) -> Iterator[None]:
    """Have root read and write as the user whom ``path`` belongs to; anybody else as before.

    What root would make in a node's folder, the node's user could not open.
    """
    if os.geteuid() != 0 or not path.exists():
        yield
        return
    owner, group = path.stat(), os.getegid()
    os.setegid(owner.st_gid)
    os.seteuid(owner.st_uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)


@contextmanager
def saying(doing: str) -> Iterator[None]:
    """Say what was being done where the system refuses without naming a file: a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        raise refused(doing, error) from error


@contextmanager
def filling(folder: Path) -> Iterator[None]:
    """Let a new or empty folder be filled; where that fails it is left as it was.

    Raises:
        DraftError: it is not empty, or no folder, or the system refuses.
    """
    try:
        taken = folder.exists() and any(folder.iterdir())
    except OSError as error:
        raise refused(f"cannot use {folder} as a folder", error) from error
    if taken:
        raise DraftError(f"{folder} is not empty", hint="name a new folder with --output")
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        with suppress(OSError):  # what was in the way is what is told
            _empty(folder)
            for each in made:
                if each.is_dir():
                    each.rmdir()
        if isinstance(error, OSError):
            raise refused(f"cannot write to {folder}", error) from error
        raise


def _empty(folder: Path) -> None:
    if not folder.is_dir():
        return
    for each in folder.iterdir():
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()


@contextmanager
def undoing(paths: Sequence[Path]) -> Iterator[None]:
    """Let files be made, none of which is there yet; where that fails none is left."""
    try:
        yield
    except BaseException:
        for each in paths:
            each.unlink(missing_ok=True)
        raise
