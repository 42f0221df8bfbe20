"""A file of two slots, written in turn: after a crash the newest whole slot is there.

    file = slot 0 ‖ slot 1, each SLOT_BYTES
    slot = magic 8 ‖ version 4 ‖ length 4 ‖ sequence 8 ‖ check 32 ‖ content ‖ anything

``check`` is BLAKE3 over the fields before it and the content. Content with an even sequence is in
slot 0, odd in slot 1. Room is taken when the file is made, so a write changes no file size and
its sync costs one flush of the disk. On opening, what is found is written once more at its place,
so that it is on disk even if an earlier sync failed unseen.

Not here: what the content means (``node.signer``).
"""

from __future__ import annotations

import contextlib
import errno
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from consensus import hashing
from consensus.errors import invariant
from node.errors import DamagedMarkError, InUseError, NewerFormatError, StorageFailedError
from node.holders import holder_words
from node.storage.disk import SYSTEM_DISK, Disk

FORMAT_VERSION: Final = 1
MAGIC: Final = b"COMITYMK"
SLOT_BYTES: Final = 128 * 2**10
_FIELDS: Final = struct.Struct(">8sIIQ")
HEAD_BYTES: Final = _FIELDS.size + hashing.DIGEST_BYTES
CONTENT_BYTES_MAX: Final = SLOT_BYTES - HEAD_BYTES
NEW_SUFFIX: Final = ".new"
LOCK_SUFFIX: Final = ".lock"
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)

_H_SLOT: Final = hashing.context("signer mark slot")


class SlotFile:
    """An open two-slot file, locked against other processes.

    Attributes:
        content: what was written last, or found.
        failed: the failure after which nothing is written, or None; see ``full``.
    """

    def __init__(self, path: Path, disk: Disk, lock: int) -> None:
        self._path = path
        self._disk = disk
        self._lock: int | None = lock
        self._handle: int | None = None
        self._sequence = 0
        self._unwritten: bytes | None = None
        self.content = b""
        self.failed: StorageFailedError | None = None

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        disk: Disk = SYSTEM_DISK,
        fresh: bytes | None = None,
        waits: bool = False,
    ) -> SlotFile:
        """Open the file at ``path``, or make it with the content ``fresh`` if given.

        Args:
            path: of the file.
            disk: the system calls.
            fresh: its first content.
            waits: where there is no room to write what is found once more, return the file as it
                is after a write without room; ``retry`` goes on.

        Raises:
            FileNotFoundError: there is no file, and ``fresh`` is None.
            DamagedMarkError: neither slot checks.
            NewerFormatError, InUseError: not ours to open.
            StorageFailedError: the disk fails.
        """
        try:
            lock = disk.lock(path.with_name(path.name + LOCK_SUFFIX))
        except OSError as error:
            raise StorageFailedError(f"cannot lock {path}: {error.strerror or error}") from error
        if lock is None:
            who = holder_words(path.with_name(path.name + LOCK_SUFFIX))
            raise InUseError(f"another process{who} uses {path}")
        file = cls(path, disk, lock)
        try:
            if fresh is not None and not disk.exists(path):
                file._create(fresh)
            else:
                file._read()
        except StorageFailedError:
            if not (waits and file.full):
                file.close()
                raise
        except FileNotFoundError:
            file.close()
            raise
        except OSError as error:
            file.close()
            raise StorageFailedError(f"cannot open {path}: {error.strerror or error}") from error
        except BaseException:
            file.close()
            raise
        return file

    def write(self, content: bytes) -> None:
        """Replace the content; returns once it is on disk.

        Raises:
            StorageFailedError: now or before; the old or the new content may be found later.
        """
        if self.failed is not None:
            raise StorageFailedError(self.failed.message) from self.failed
        invariant(len(content) <= CONTENT_BYTES_MAX, "the mark is too long for its slot")
        handle = self._open_handle()
        sequence = self._sequence + 1
        try:
            self._disk.write(handle, _slot(sequence, content), sequence % 2 * SLOT_BYTES)
            self._disk.sync(handle)
        except OSError as error:
            self.failed = StorageFailedError(f"cannot write {self._path.name}: {error}")
            if error.errno in NO_ROOM:
                self._unwritten = content
            raise self.failed from error
        self._sequence = sequence
        self.content = content

    @property
    def full(self) -> bool:
        """Whether what failed was a write for lack of room; ``retry`` may then go on."""
        return self._unwritten is not None

    @property
    def kept(self) -> bytes:
        """The newest content, on disk or not written yet for lack of room."""
        return self.content if self._unwritten is None else self._unwritten

    def retry(self) -> None:
        """Write anew what there was no room for: whole, by a handle of its own, and synced.

        Nothing of the failed write is relied on: its slot is written over, and the other one has
        what was on disk before.

        Raises:
            StorageFailedError: there is no room yet (``full``), or the disk has failed for good.
        """
        content = self._unwritten
        invariant(content is not None, "a write failed for lack of room")
        self.failed, self._unwritten = None, None
        try:
            handle, self._handle = self._handle, None
            if handle is not None:
                self._disk.close(handle)
            self._handle = self._disk.open(self._path)
        except OSError as error:
            self.failed = StorageFailedError(f"cannot open {self._path.name}: {error}")
            raise self.failed from error
        self.write(content or b"")

    def close(self) -> None:
        """Release file and lock; a second call does nothing."""
        handles, self._handle, self._lock = (self._handle, self._lock), None, None
        for handle in handles:
            if handle is not None:
                with contextlib.suppress(OSError):
                    self._disk.close(handle)

    def _open_handle(self) -> int:
        if self._handle is None:
            raise StorageFailedError(f"{self._path.name} is closed")
        return self._handle

    def _create(self, content: bytes) -> None:
        draft = self._path.with_name(self._path.name + NEW_SUFFIX)
        if self._disk.exists(draft):
            self._disk.remove(draft)
        self._disk.make_folder(self._path.parent)
        self._handle = self._disk.create(draft)
        first = _slot(0, content)
        self._disk.write(self._handle, first + bytes(2 * SLOT_BYTES - len(first)), 0)
        self._disk.sync(self._handle)
        self._disk.rename(draft, self._path)
        self._disk.sync_folder(self._path.parent)
        self.content = content

    def _read(self) -> None:
        self._handle = self._disk.open(self._path)
        self._sequence, content = _newest(
            self._path,
            [self._disk.read(self._handle, SLOT_BYTES, slot * SLOT_BYTES) for slot in range(2)],
        )
        self._sequence -= 1
        self.write(content)


def peek(path: Path) -> bytes:
    """Return the content of the file at ``path``, whoever has it open, without changing a byte.

    Raises:
        NewerFormatError: it is of a newer format.
        DamagedMarkError: neither slot can be read.
        OSError: it cannot be read.
    """
    data = path.read_bytes()[: 2 * SLOT_BYTES]
    return _newest(path, [data[:SLOT_BYTES], data[SLOT_BYTES:]])[1]


def _newest(path: Path, parts: Sequence[bytes]) -> tuple[int, bytes]:
    """Return sequence and content of the newest slot that checks.

    Raises:
        NewerFormatError, DamagedMarkError: there is none that can be used.
    """
    found: list[tuple[int, bytes]] = []
    newer = 0
    for data in parts:
        parsed = _parse(data)
        if parsed is not None:
            version, sequence, content = parsed
            newer = max(newer, version)
            found.append((sequence, content))
    if newer > FORMAT_VERSION:
        raise NewerFormatError(
            f"{path.name} has format {newer}, this software knows {FORMAT_VERSION}"
        )
    if not found:
        raise DamagedMarkError(f"neither slot of {path} can be read")
    return max(found)


def _slot(sequence: int, content: bytes) -> bytes:
    fields = _FIELDS.pack(MAGIC, FORMAT_VERSION, len(content), sequence)
    return fields + _H_SLOT(fields + content) + content


def _parse(data: bytes) -> tuple[int, int, bytes] | None:
    """Return (version, sequence, content) of a slot's bytes, None if they do not check."""
    if len(data) < HEAD_BYTES:
        return None
    magic, version, length, sequence = _FIELDS.unpack_from(data)
    content = data[HEAD_BYTES : HEAD_BYTES + length]
    if magic != MAGIC or len(content) != length:
        return None
    if _H_SLOT(data[: _FIELDS.size] + content) != data[_FIELDS.size : HEAD_BYTES]:
        return None
    return version, sequence, content
