"""The log of reads: who was shown what the rules want recorded, and what for.

Append-only, in a file of its own beside the node's data, on disk before the answer leaves. Whoever
may not be recorded is not answered. Each entry's checksum covers the one before, so an entry cannot
be changed, or taken out, without all after it.

    entry   length 4 (big-endian) ‖ checksum 32 ‖ cbor [[time_ms, height, principal, key, agency,
                                          method, purpose], [[namespace, components], ...]]
    checksum = H_read log(checksum of the entry before ‖ cbor), of the first: 32 zero bytes

A torn entry at the end is cut when the log is opened: its answer never left. Damage before that is
refused. This is one node's record; nothing certifies it, and it is not kept in step with others'.

Not here: what is recorded (``node.api``), and who may look (``node.api.recording``).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trio

from consensus import codec
from consensus.codec import Value
from consensus.errors import invariant
from consensus.hashing import DIGEST_BYTES, context
from consensus.protocol import StateKey
from node.errors import StorageError, StorageFailedError
from node.storage.disk import SYSTEM_DISK, Disk

FILE_NAME: Final = "reads.log"
ENTRY_BYTES_MAX: Final = 1024 * 1024

_HEAD: Final = struct.Struct(f">I{DIGEST_BYTES}s")
_sum = context("read log")


@dataclass(frozen=True, slots=True)
class Read:
    """One answer that was recorded.

    ``time_ms`` is this machine's clock, ``height`` that of the state shown.
    """

    time_ms: int
    height: int
    principal: bytes
    key: bytes
    agency: str
    method: str
    purpose: str
    places: tuple[StateKey, ...]

    def encode(self) -> bytes:
        """Return the canonical bytes of the entry."""
        head: list[Value] = [
            self.time_ms,
            self.height,
            self.principal,
            self.key,
            self.agency,
            self.method,
            self.purpose,
        ]
        places: list[Value] = [[each.namespace, [*each.components]] for each in self.places]
        return codec.encode([head, places])


class ReadLog:
    """The open log of one node.

    Args:
        folder: of the node's data.

    Raises:
        StorageError: the log is damaged before its end.
        StorageFailedError: the disk; whoever may not be recorded is not answered, so nobody is.
    """

    def __init__(self, folder: Path, disk: Disk = SYSTEM_DISK) -> None:
        self._disk = disk
        self._end, self._last = 0, bytes(DIGEST_BYTES)
        self._turn = trio.CapacityLimiter(1)
        self._failed = False
        path = folder / FILE_NAME
        try:
            if not disk.exists(path):
                disk.close(disk.create(path))
            disk.sync_folder(folder)  # of a file that is there, too: that may have failed then
            self._handle = disk.open(path)
            self._recover()
        except OSError as error:
            raise StorageFailedError(f"cannot open the log of reads {path}: {error}") from error

    def _recover(self) -> None:
        disk, handle = self._disk, self._handle
        size = disk.size(handle)
        while (found := self._entry(self._end, self._last)) is not None:
            _, self._last, self._end = found
        if self._end == size:
            return
        head = disk.read(handle, _HEAD.size, self._end)
        length = _HEAD.unpack(head)[0] if len(head) == _HEAD.size else 0
        if length and self._end + _HEAD.size + length < size:
            raise StorageError(
                f"the log of reads is damaged at byte {self._end}",
                hint=f"keep {FILE_NAME} as evidence under another name; the node begins a new one",
            )
        disk.truncate(handle, self._end)
        disk.sync(handle)

    def _entry(self, at: int, before: bytes) -> tuple[bytes, bytes, int] | None:
        """Return content, checksum and end of the entry at a place; None if it is not whole."""
        head = self._disk.read(self._handle, _HEAD.size, at)
        if len(head) < _HEAD.size:
            return None
        length, checksum = _HEAD.unpack(head)
        if not 0 < length <= ENTRY_BYTES_MAX:
            return None
        data = self._disk.read(self._handle, length, at + _HEAD.size)
        if len(data) < length or _sum(before + data) != checksum:
            return None
        return data, checksum, at + _HEAD.size + length

    async def record(self, *reads: Read) -> None:
        """Return once entries are on disk; several cost one sync.

        Raises:
            StorageFailedError: they are not, and nothing will be: nobody must be answered.
        """
        entries = [read.encode() for read in reads]
        for data in entries:
            invariant(len(data) <= ENTRY_BYTES_MAX, "an entry of the log of reads is too long")
        await trio.to_thread.run_sync(self._append, entries, limiter=self._turn)

    def _append(self, entries: Sequence[bytes]) -> None:
        if self._failed:
            raise StorageFailedError("the log of reads has failed before")
        parts: list[bytes] = []
        last = self._last
        for data in entries:
            last = _sum(last + data)
            parts += (_HEAD.pack(len(data), last), data)
        written = b"".join(parts)
        try:
            self._disk.write(self._handle, written, self._end)
            self._disk.sync(self._handle)
        except OSError as error:
            self._failed = True  # what is on disk is not known any more
            raise StorageFailedError(f"the log of reads: {error.strerror}") from error
        self._end += len(written)
        self._last = last

    async def of(self, place: StateKey, skip: int, limit: int) -> list[Read]:
        """Return up to ``limit`` entries that show a place, the oldest first, after ``skip``.

        Cost: goes through the whole log, in a worker thread.
        """
        end = self._end
        return await trio.to_thread.run_sync(self._find, place, skip, limit, end)

    def _find(self, place: StateKey, skip: int, limit: int, end: int) -> list[Read]:
        wanted = codec.encode([place.namespace, [*place.components]])
        found: list[Read] = []
        at = 0
        while at < end and len(found) < limit:
            length, _ = _HEAD.unpack(self._disk.read(self._handle, _HEAD.size, at))
            data = self._disk.read(self._handle, length, at + _HEAD.size)
            at += _HEAD.size + length
            if wanted not in data:
                continue
            head, places = codec.parse(data, "read")
            if any(codec.encode(each) == wanted for each in places):
                if skip:
                    skip -= 1
                    continue
                time_ms, height, principal, key, agency, method, purpose = head
                keys = tuple(StateKey(space, tuple(id_)) for space, id_ in places)
                found.append(Read(time_ms, height, principal, key, agency, method, purpose, keys))
        return found

    def close(self) -> None:
        """Close the file."""
        self._disk.close(self._handle)
