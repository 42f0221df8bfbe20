"""The append log: everything a signature relies on is here before the signature leaves.

Entries have global offsets that grow through all segments. ``append`` fills a buffer, ``sync``
writes it as one group and returns when it is on disk. Each group's header records the offset
below which everything was on disk before it; so after a crash a torn tail (above every recorded
mark) is cut, and damage below a mark is refused with its offset. All but the last segment, and
what a segment held when it got its name, were synced whole.

What is found intact at opening is written again and synced, and so are the names, before they
count as on disk: after a failed sync the system may show bytes that never reached the disk and
call them clean.

The core is synchronous. One thread calls append, sync, rotate, drop_before; ``read`` may be
called from another. A failed write or sync is final (``StorageFailedError``).

Not here: the byte layout (``segment``), merging of concurrent requests (``writer``), what entries
mean (``kinds``). Sources: PostgreSQL's "fsyncgate" (2018); malachite #1434; Jepsen on Tendermint.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from consensus.errors import invariant
from node.errors import DamagedLogError, ForeignDataError, InUseError, StorageFailedError
from node.holders import holder_words
from node.storage import segment
from node.storage.disk import SYSTEM_DISK, Disk
from node.storage.segment import Check, Header, Window

RESERVE_BYTES: Final = 2**20
"""Room is taken in steps of this, as zeros: a sync that need not grow the file takes half."""
BUFFER_BYTES_MAX: Final = 128 * 2**20
LOCK_NAME: Final = "lock"
NEW_SUFFIX: Final = ".new"

OnEntry = Callable[[int, int, bytes], None]
"""``(offset, kind, payload)``, called in order while a log is opened."""


@dataclass(frozen=True, slots=True)
class _Segment:
    name: str
    handle: int
    base: int
    check: Check


class Log:
    """An open log; make one with ``Log.open``.

    Attributes:
        identity: 16 random bytes, the same in all segments, new for every new log.
        created: there was no log before this opening.
        cut_bytes: length of the torn tail that opening removed, zeros at its end not counted.
        start: first offset still kept.
        end: offset of the next entry.
        synced: everything below is on disk.
        failed: the failure after which nothing is written, or None.
    """

    def __init__(self, directory: Path, disk: Disk, chain: bytes, reserve_bytes: int) -> None:
        self._directory = directory
        self._disk = disk
        self._chain = chain
        self._reserve_bytes = reserve_bytes
        self._lock_handle: int | None = None
        self._segments: tuple[_Segment, ...] = ()
        self._guard = threading.Lock()
        self._buffer: list[bytes] = []
        self._buffer_bytes = 0
        self._room_end = 0
        self._marked = 0
        self._entries_end = 0
        self.identity = b""
        self.created = False
        self.cut_bytes = 0
        self.end = 0
        self.synced = 0
        self.failed: StorageFailedError | None = None

    @classmethod
    def open(
        cls,
        directory: Path,
        on_entry: OnEntry,
        *,
        chain: bytes,
        disk: Disk = SYSTEM_DISK,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> Log:
        """Open or create the log in ``directory``, replaying every entry through ``on_entry``.

        Args:
            directory: made if absent, mode 0700.
            on_entry: called in order of offsets; what it raises ends the opening.
            chain: 32 bytes; a log of another network is refused.
            disk: the system calls.
            reserve_bytes: step by which room is taken in advance, at least 1.

        Raises:
            DamagedLogError: bytes known to be synced have changed or gone.
            NewerFormatError, ForeignDataError, InUseError: not ours to open.
            StorageFailedError: the disk fails.
        """
        invariant(len(chain) == 32 and reserve_bytes >= 1, "chain has 32 bytes")
        log = cls(directory, disk, chain, reserve_bytes)
        try:
            log._open(on_entry)
        except OSError as error:
            log._release()
            raise StorageFailedError(f"cannot open the log in {directory}: {error}") from error
        except BaseException:
            log._release()
            raise
        return log

    @property
    def start(self) -> int:
        """First offset still kept."""
        return self._segments[0].base

    @property
    def segment_bytes(self) -> int:
        """Size of the segment that is being written, without room taken in advance."""
        return self.end - self._segments[-1].base

    # --- writing --------------------------------------------------------------------------------

    def append(self, kind: int, payload: bytes) -> int:
        """Put an entry into the next group and return its offset. Nothing is on disk yet.

        Raises:
            StorageFailedError: the log has failed before.
        """
        self._check_alive()
        invariant(1 <= kind <= 255, "kinds of entries are 1 to 255")
        invariant(len(payload) <= segment.ENTRY_BYTES_MAX, "the entry is too long")
        check = self._segments[-1].check
        if not self._buffer:
            self._put(segment.group_header(check, self.end, self.synced))
        offset = self.end
        self._put(segment.entry_head(check, offset, kind, payload))
        self._put(payload)
        invariant(self._buffer_bytes <= BUFFER_BYTES_MAX, "the log's buffer is full")
        return offset

    def sync(self) -> int:
        """Write what was appended, wait for the disk, and return the new ``synced``.

        Raises:
            StorageFailedError: now or before; what the disk holds is unknown.
        """
        self._check_alive()
        if self._buffer:
            current = self._segments[-1]
            data = b"".join(self._buffer)
            marked = self.synced
            try:
                self._write_group(current, data)
                self._disk.sync(current.handle)
            except OSError as error:
                self._fail("sync", error)
            self._buffer.clear()
            self._buffer_bytes = 0
            self.synced = self._entries_end = self.end
            self._marked = marked
        return self.synced

    def rotate(self, first_entries: Sequence[tuple[int, bytes]]) -> list[int]:
        """Begin a new segment with ``first_entries`` and return their offsets, all on disk.

        What was appended before is synced first. The new segment gets its name only when its
        content is on disk, so a crash leaves either the old state or the new one.

        Args:
            first_entries: what must outlive the segments before: the newest safety record,
                and the like.

        Raises:
            StorageFailedError: as ``sync``.
        """
        base = self.sync()
        old = self._segments[-1]
        parts, offsets = self._first_group(base, first_entries)
        header = Header(base, self.identity, self._chain, sum(map(len, parts)))
        try:
            self._disk.truncate(old.handle, base - old.base)
            self._disk.sync(old.handle)
            handle = self._publish(header, b"".join(parts))
        except OSError as error:
            self._fail("rotate", error)
        check = segment.checker(self.identity, base)
        with self._guard:
            self._segments += (_Segment(segment.name_of(base), handle, base, check),)
        self._room_end = self.end = self.synced = self._entries_end = base + header.first_bytes
        self._marked = self.synced
        return offsets

    def drop_before(self, offset: int) -> int:
        """Remove the segments that end at or below ``offset``; return how many.

        The newest segment always stays. Each removal is on disk before the next, so what is left
        after a crash has no gap.

        Raises:
            StorageFailedError: a file cannot be removed.
        """
        self._check_alive()
        count = 0
        while len(self._segments) > 1 and self._segments[1].base <= offset:
            with self._guard:
                gone, self._segments = self._segments[0], self._segments[1:]
                self._disk.close(gone.handle)
            try:
                self._disk.remove(self._directory / gone.name)
                self._disk.sync_folder(self._directory)
            except OSError as error:
                self._fail("drop", error)
            count += 1
        return count

    def close(self) -> None:
        """Sync what is left, record that it is synced, and release the folder.

        The record at the end makes damage to the last group detectable at the next opening.
        """
        try:
            if self.failed is None and self._segments:
                self.sync()
                if self._marked < self._entries_end:
                    self._put(segment.group_header(self._segments[-1].check, self.end, self.synced))
                    self.sync()
        finally:
            self._release()

    # --- reading --------------------------------------------------------------------------------

    def read(self, offset: int) -> tuple[int, bytes] | None:
        """Return (kind, payload) of the synced entry at ``offset``; None if it was dropped.

        Raises:
            DamagedLogError: the disk no longer returns what was written.
            StorageFailedError: the disk cannot be read.
        """
        invariant(offset < self.synced, "only synced entries can be read")
        with self._guard:
            if not self._segments or offset < self._segments[0].base:
                return None
            here = next(item for item in reversed(self._segments) if item.base <= offset)
            position = offset - here.base
            try:
                entry = segment.entry_read(self._disk, here.handle, here.base, position, here.check)
            except OSError as error:
                raise StorageFailedError(f"cannot read the log at {offset}: {error}") from error
        if entry is None:
            raise DamagedLogError(offset, here.name, "the entry does not check when read again")
        return entry

    # --- inside ---------------------------------------------------------------------------------

    def _put(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffer_bytes += len(data)
        self.end += len(data)

    def _write_group(self, current: _Segment, data: bytes) -> None:
        position = self.synced - current.base
        if self.end > self._room_end:
            room = -(-(self.end - current.base) // self._reserve_bytes) * self._reserve_bytes
            data += bytes(room - (self.end - current.base))
            self._room_end = current.base + room
        self._disk.write(current.handle, data, position)

    def _first_group(
        self, base: int, entries: Sequence[tuple[int, bytes]]
    ) -> tuple[list[bytes], list[int]]:
        """Return header room and the first group of a segment at ``base``, and the offsets."""
        check = segment.checker(self.identity, base)
        here = base + segment.HEADER_BYTES
        parts = [bytes(segment.HEADER_BYTES)]
        if entries:
            parts.append(segment.group_header(check, here, base))
            here += segment.GROUP_BYTES
        offsets = []
        for kind, payload in entries:
            invariant(1 <= kind <= 255, "kinds of entries are 1 to 255")
            invariant(len(payload) <= segment.ENTRY_BYTES_MAX, "the entry is too long")
            offsets.append(here)
            parts += [segment.entry_head(check, here, kind, payload), payload]
            here += segment.ENTRY_HEAD_BYTES + len(payload)
        return parts, offsets

    def _publish(self, header: Header, content: bytes) -> int:
        """Write a whole new segment, sync it, name it, sync the folder; return its handle."""
        name = segment.name_of(header.base)
        draft = self._directory / (name + NEW_SUFFIX)
        handle = self._disk.create(draft)
        try:
            self._disk.write(handle, header.pack() + content[segment.HEADER_BYTES :], 0)
            self._disk.sync(handle)
            self._disk.rename(draft, self._directory / name)
            self._disk.sync_folder(self._directory)
        except BaseException:
            self._disk.close(handle)
            raise
        return handle

    def _open(self, on_entry: OnEntry) -> None:
        self._disk.make_folder(self._directory)
        self._lock_handle = self._disk.lock(self._directory / LOCK_NAME)
        if self._lock_handle is None:
            who = holder_words(self._directory / LOCK_NAME)
            raise InUseError(f"another process{who} uses {self._directory}")
        names = self._disk.names(self._directory)
        for name in names:
            if name.endswith(NEW_SUFFIX):
                self._disk.remove(self._directory / name)
        names = [name for name in names if segment.is_segment(name)]
        if names:
            self._replay(names, on_entry)
            self._disk.sync_folder(self._directory)
        else:
            self._create()

    def _create(self) -> None:
        self.created = True
        self.identity = self._disk.random(segment.IDENTITY_BYTES)
        header = Header(0, self.identity, self._chain, segment.HEADER_BYTES)
        handle = self._publish(header, bytes(segment.HEADER_BYTES))
        check = segment.checker(self.identity, 0)
        self._segments = (_Segment(segment.name_of(0), handle, 0, check),)
        self._room_end = self.end = self.synced = header.first_bytes
        self._marked = self._entries_end = self.synced

    def _replay(self, names: Sequence[str], on_entry: OnEntry) -> None:
        for name in names:
            handle = self._disk.open(self._directory / name)
            try:
                header = self._header(name, handle)
            except BaseException:
                self._disk.close(handle)
                raise
            check = segment.checker(self.identity, header.base)
            self._segments += (_Segment(name, handle, header.base, check),)
        for here, following in zip(self._segments, self._segments[1:], strict=False):
            stop = self._scan(here, following.base - here.base, on_entry)
            if here.base + stop != following.base:
                raise DamagedLogError(here.base + stop, here.name, "an entry does not check")
        self._open_last(self._segments[-1], header, on_entry)

    def _header(self, name: str, handle: int) -> Header:
        header = segment.read_header(self._disk.read(handle, segment.HEADER_BYTES, 0), name)
        if header.chain != self._chain:
            raise ForeignDataError(f"{name} is the log of another network")
        self.identity = self.identity or header.identity
        if header.identity != self.identity:
            raise ForeignDataError(f"{name} belongs to another log than the segment before it")
        return header

    def _scan(self, here: _Segment, limit: int, on_entry: OnEntry) -> int:
        """Replay the entries that end by ``limit``; return where the first bad one begins."""
        window = Window(self._disk, here.handle, min(limit, self._disk.size(here.handle)))
        position = segment.HEADER_BYTES
        while position < window.size:
            entry = segment.entry_at(window, here.base, position, here.check, window.size)
            if entry is None:
                break
            kind, payload = entry
            offset = here.base + position
            position += segment.ENTRY_HEAD_BYTES + len(payload)
            if kind == segment.GROUP_KIND:
                synced = segment.synced_of(payload)
                invariant(synced is not None and synced <= offset, "a group header of this log")
                self._marked = max(self._marked, synced or 0)
            else:
                self._entries_end = here.base + position
                on_entry(offset, kind, payload)
        return position

    def _open_last(self, here: _Segment, header: Header, on_entry: OnEntry) -> None:
        """Scan the last segment, cut a torn tail, and put what stays on disk again."""
        size = self._disk.size(here.handle)
        stop = self._scan(here, size, on_entry)
        end = here.base + stop
        later = segment.later_synced(self._disk, here.handle, here.base, stop, here.check)
        if stop < header.first_bytes or later > end:
            raise DamagedLogError(end, here.name, "an entry known to be synced does not check")
        self.cut_bytes = self._content_end(here, stop, size) - stop
        self._marked = max(self._marked, here.base + header.first_bytes)
        if stop < size:
            self._disk.truncate(here.handle, stop)
        for position in range(self._marked - here.base, stop, segment.WINDOW_BYTES):
            count = min(segment.WINDOW_BYTES, stop - position)
            self._disk.write(here.handle, self._disk.read(here.handle, count, position), position)
        self._disk.sync(here.handle)
        self._room_end = self.end = self.synced = end

    def _content_end(self, here: _Segment, start: int, size: int) -> int:
        """Return the end of the last nonzero byte at or after ``start``, else ``start``."""
        end = start
        for position in range(start, size, segment.WINDOW_BYTES):
            chunk = self._disk.read(here.handle, segment.WINDOW_BYTES, position).rstrip(b"\0")
            if chunk:
                end = position + len(chunk)
        return end

    def _check_alive(self) -> None:
        if self.failed is not None:
            raise StorageFailedError(self.failed.message) from self.failed
        invariant(self._segments, "the log is open")

    def _fail(self, doing: str, error: OSError) -> NoReturn:
        self.failed = StorageFailedError(f"the log failed to {doing}: {error}")
        raise self.failed from error

    def _release(self) -> None:
        with self._guard:
            segments, self._segments = self._segments, ()
        handles = [item.handle for item in segments]
        if self._lock_handle is not None:
            handles.append(self._lock_handle)
            self._lock_handle = None
        for handle in handles:
            with contextlib.suppress(OSError):
                self._disk.close(handle)
