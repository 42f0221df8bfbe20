"""The files of a simulated machine, byte for byte, under the product's own log and signer's mark.

What is written is seen at once by whoever reads, and is on disk only after a sync of that file (a
new, changed or removed name: of the folder). Calls take virtual time: a thread's work is called in
one go, and ``settle`` says that it is through. Until then a power cut may have come at any of its
calls:

    power   calls after the cut were never made. Of what was not synced before it, each write is on
            disk or is not, or up to any byte of it, or in some of its sectors; names that were not
            synced are as they were up to some moment
    kill    the process ends at one of its calls; what it had written before stays to be seen, and
            is not on disk by that

A disk may fail: ``full`` takes some bytes of a write that needs room and then no more,
``read-only`` takes none, and with ``sync`` every sync fails; what it was to sync is then called
clean by the system, so that no later sync writes it, yet it can be read until power fails.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

SECTOR_BYTES: Final = 512
FAILURES: Final = ("full", "read-only", "sync")


@dataclass(eq=False)
class File:
    """One file. ``pending``: writes that are through, and are in no sync yet."""

    view: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Write | Cut] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class Write:
    """Bytes at a position; ``before``: what was to be seen there, with the size of the file."""

    file: File
    position: int
    data: bytes
    before: bytes
    size_before: int


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """A file made shorter; ``gone`` was there."""

    file: File
    size: int
    gone: bytes


@dataclass(frozen=True, slots=True, eq=False)
class Names:
    """Names before and after one was made, changed or removed."""

    before: dict[str, File]
    after: dict[str, File]


@dataclass(frozen=True, slots=True, eq=False)
class Synced:
    """A sync of a file, or of the folder. ``lost``: it failed, and dropped what it should have."""

    file: File | None
    lost: bool = False


Call = Write | Cut | Names | Synced


class Files:
    """A disk as ``node.storage.disk.Disk`` has it.

    Args:
        rng: decides what a power cut leaves.
        reach: is told the name of what happened, for the marks.
    """

    def __init__(
        self, rng: random.Random, reach: Callable[[str], None] = lambda mark: None
    ) -> None:
        self._rng = rng
        self._reach = reach
        self._names: dict[str, File] = {}
        self._durable_names: dict[str, File] = {}
        self._pending_names: list[dict[str, File]] = []
        self._running: list[Call] = []
        self._handles: dict[int, File] = {}
        self._locked: dict[str, int] = {}
        self._last_handle = 0
        self.failing = ""
        """One of FAILURES, or nothing."""

    # --- what happens to the machine ---

    @property
    def busy(self) -> bool:
        """Whether calls are under way."""
        return bool(self._running)

    def settle(self) -> None:
        """All calls made so far are through."""
        running, self._running = self._running, []
        for call in running:
            self._retire(call)

    def power(self) -> None:
        """Power fails."""
        cut = self._rng.randint(0, len(self._running))
        running, self._running = self._running, []
        for call in running[:cut]:
            self._retire(call)
        if cut < len(running):
            call = running[cut]
            if isinstance(call, Write | Cut):
                call.file.pending.append(call)
            elif isinstance(call, Names):
                self._pending_names.append(call.after)
        for at in range(len(self._pending_names)):
            if self._rng.random() < 0.5:
                self._durable_names = self._pending_names[at]
        self._pending_names = []
        self._names = dict(self._durable_names)
        for file in self._names.values():
            self._tear(file)
            file.view = bytearray(file.durable)
        self._forget_process()

    def kill(self) -> None:
        """The process ends; what it wrote stays to be seen."""
        cut = self._rng.randint(0, len(self._running))
        running, self._running = self._running, []
        for call in reversed(running[cut:]):
            self._take_back(call)
        for call in running[:cut]:
            self._retire(call)
        self._forget_process()

    def _forget_process(self) -> None:
        self._handles.clear()
        self._locked.clear()

    def _retire(self, call: Call) -> None:
        match call:
            case Write(file) | Cut(file):
                file.pending.append(call)
            case Names():
                self._pending_names.append(call.after)
            case Synced(None):
                if self._pending_names:
                    self._durable_names = self._pending_names[-1]
                    self._pending_names = []
            case Synced(file, lost) if file is not None:
                if not lost:
                    for pending in file.pending:
                        _put(file.durable, pending)
                file.pending = []

    def _take_back(self, call: Call) -> None:
        match call:
            case Write(file, position, _data, before, size_before):
                file.view[position : position + len(before)] = before
                del file.view[size_before:]
            case Cut(file, _size, gone):
                file.view += gone
            case Names(before):
                self._names = before
            case Synced():
                pass

    def _tear(self, file: File) -> None:
        rng = self._rng
        for call in file.pending:
            fate = rng.random()
            if fate < 0.35:
                _put(file.durable, call)
            elif fate < 0.6 and isinstance(call, Write):
                self._reach("a write torn by a power cut")
                if rng.random() < 0.5:
                    count = rng.randint(0, len(call.data))
                    _put_bytes(file.durable, call.position, call.data[:count])
                else:
                    self._put_sectors(file.durable, call)
        file.pending = []

    def _put_sectors(self, durable: bytearray, call: Write) -> None:
        end = call.position + len(call.data)
        start = call.position
        while start < end:
            stop = min((start // SECTOR_BYTES + 1) * SECTOR_BYTES, end)
            if self._rng.random() < 0.5:
                at = start - call.position
                _put_bytes(durable, start, call.data[at : at + stop - start])
            start = stop

    # --- the system calls ---

    def make_folder(self, path: Path) -> None:
        """See Disk. There is one folder."""

    def names(self, path: Path) -> list[str]:
        """See Disk."""
        prefix = f"{path}/"
        return sorted(name.removeprefix(prefix) for name in self._names if name.startswith(prefix))

    def exists(self, path: Path) -> bool:
        """See Disk."""
        return str(path) in self._names

    def open(self, path: Path) -> int:
        """See Disk."""
        file = self._names.get(str(path))
        if file is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self._handle(file)

    def create(self, path: Path) -> int:
        """See Disk."""
        if str(path) in self._names:
            raise FileExistsError(errno.EEXIST, "there is one", str(path))
        self._refuse_read_only()
        file = File()
        self._rename({**self._names, str(path): file})
        return self._handle(file)

    def close(self, handle: int) -> None:
        """See Disk."""
        self._handles.pop(handle, None)
        self._locked = {name: held for name, held in self._locked.items() if held != handle}

    def size(self, handle: int) -> int:
        """See Disk."""
        return len(self._handles[handle].view)

    def read(self, handle: int, count: int, position: int) -> bytes:
        """See Disk."""
        return bytes(self._handles[handle].view[position : position + count])

    def write(self, handle: int, data: bytes, position: int) -> None:
        """See Disk."""
        self._refuse_read_only()
        file = self._handles[handle]
        size = len(file.view)
        grows = position + len(data) > size
        if self.failing == "full" and grows:
            data = data[: self._rng.randint(0, len(data))]
        self._running.append(
            Write(file, position, data, bytes(file.view[position : position + len(data)]), size)
        )
        _put_bytes(file.view, position, data)
        if self.failing == "full" and grows:
            raise OSError(errno.ENOSPC, "no space left on device")

    def truncate(self, handle: int, size: int) -> None:
        """See Disk."""
        self._refuse_read_only()
        file = self._handles[handle]
        self._running.append(Cut(file, size, bytes(file.view[size:])))
        del file.view[size:]

    def sync(self, handle: int) -> None:
        """See Disk."""
        self._sync(self._handles[handle])

    def sync_folder(self, path: Path) -> None:
        """See Disk."""
        self._sync(None)

    def rename(self, source: Path, target: Path) -> None:
        """See Disk."""
        self._refuse_read_only()
        names = dict(self._names)
        names[str(target)] = names.pop(str(source))
        self._rename(names)

    def remove(self, path: Path) -> None:
        """See Disk."""
        self._refuse_read_only()
        names = dict(self._names)
        del names[str(path)]
        self._rename(names)

    def lock(self, path: Path) -> int | None:
        """See Disk. A lock goes with the process."""
        if str(path) in self._locked:
            return None
        handle = self._handle(File())
        self._locked[str(path)] = handle
        return handle

    def random(self, count: int) -> bytes:
        """See Disk."""
        return self._rng.randbytes(count)

    # --- inside ---

    def _handle(self, file: File) -> int:
        self._last_handle += 1
        self._handles[self._last_handle] = file
        return self._last_handle

    def _rename(self, names: dict[str, File]) -> None:
        self._running.append(Names(self._names, names))
        self._names = names

    def _sync(self, file: File | None) -> None:
        if self.failing in ("sync", "read-only"):
            if self.failing == "sync":
                self._running.append(Synced(file, lost=file is not None))
            raise OSError(errno.EIO, "input/output error")
        self._running.append(Synced(file))

    def _refuse_read_only(self) -> None:
        if self.failing == "read-only":
            raise OSError(errno.EROFS, "read-only file system")


def _put(durable: bytearray, call: Write | Cut) -> None:
    if isinstance(call, Write):
        _put_bytes(durable, call.position, call.data)
    else:
        del durable[call.size :]


def _put_bytes(content: bytearray, position: int, data: bytes) -> None:
    if position > len(content):
        content += bytes(position - len(content))
    content[position : position + len(data)] = data
