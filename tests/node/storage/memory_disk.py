"""A disk in memory that remembers what was synced, and fails, tears and forgets on command."""

from __future__ import annotations

import errno
from collections import Counter
from pathlib import Path


class Inode:
    """A file: what the system shows, what is on disk, and the writes in between."""

    def __init__(self) -> None:
        self.shown = bytearray()
        self.durable = bytearray()
        self.unsynced: list[tuple[int, bytes]] = []
        self.lies = False
        """A sync takes only what was written since; what is shown besides counts as clean."""

    def write(self, data: bytes, position: int) -> None:
        _patch(self.shown, data, position)
        self.unsynced.append((position, data))

    def sync(self) -> None:
        if self.lies:
            for place, data in self.unsynced:
                _patch(self.durable, data, place)
        else:
            self.durable = bytearray(self.shown)
        self.unsynced.clear()


def _patch(content: bytearray, data: bytes, position: int) -> None:
    if len(content) < position:
        content.extend(bytes(position - len(content)))
    content[position : position + len(data)] = data


class MemoryDisk:
    """Implements ``node.storage.disk.Disk``.

    ``calls`` counts operations by name. ``fail`` maps an operation to how many more calls of it
    succeed; the one after raises EIO (once per entry).
    """

    def __init__(self) -> None:
        self.files: dict[Path, Inode] = {}
        self.durable_names: dict[Path, Inode] = {}
        self.folders: set[Path] = set()
        self.handles: dict[int, Inode] = {}
        self.locks: dict[int, Path] = {}
        self.calls: Counter[str] = Counter()
        self.fail: dict[str, int] = {}
        self._next = 3
        self._seed = 0

    def _enter(self, name: str) -> None:
        self.calls[name] += 1
        if name in self.fail:
            if self.fail[name] == 0:
                del self.fail[name]
                raise OSError(errno.EIO, f"injected failure of {name}")
            self.fail[name] -= 1

    def _handle(self, inode: Inode) -> int:
        self._next += 1
        self.handles[self._next] = inode
        return self._next

    # --- Disk -----------------------------------------------------------------------------------

    def make_folder(self, path: Path) -> None:
        self._enter("make_folder")
        self.folders.add(path)

    def names(self, path: Path) -> list[str]:
        self._enter("names")
        return sorted(item.name for item in self.files if item.parent == path)

    def exists(self, path: Path) -> bool:
        return path in self.files

    def open(self, path: Path) -> int:
        self._enter("open")
        if path not in self.files:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return self._handle(self.files[path])

    def create(self, path: Path) -> int:
        self._enter("create")
        if path in self.files:
            raise FileExistsError(errno.EEXIST, "file exists", str(path))
        self.files[path] = Inode()
        return self._handle(self.files[path])

    def close(self, handle: int) -> None:
        if handle in self.locks:
            del self.locks[handle]
        else:
            del self.handles[handle]

    def size(self, handle: int) -> int:
        return len(self.handles[handle].shown)

    def read(self, handle: int, count: int, position: int) -> bytes:
        self._enter("read")
        return bytes(self.handles[handle].shown[position : position + count])

    def write(self, handle: int, data: bytes, position: int) -> None:
        self._enter("write")
        self.handles[handle].write(data, position)

    def truncate(self, handle: int, size: int) -> None:
        self._enter("truncate")
        inode = self.handles[handle]
        del inode.shown[size:]

    def sync(self, handle: int) -> None:
        self._enter("sync")
        self.handles[handle].sync()

    def sync_folder(self, path: Path) -> None:
        self._enter("sync_folder")
        self.durable_names = {
            **{name: item for name, item in self.durable_names.items() if name.parent != path},
            **{name: item for name, item in self.files.items() if name.parent == path},
        }

    def rename(self, source: Path, target: Path) -> None:
        self._enter("rename")
        self.files[target] = self.files.pop(source)

    def remove(self, path: Path) -> None:
        self._enter("remove")
        del self.files[path]

    def lock(self, path: Path) -> int | None:
        self._enter("lock")
        if path in self.locks.values():
            return None
        self._next += 1
        self.locks[self._next] = path
        return self._next

    def random(self, count: int) -> bytes:
        self._seed += 1
        return bytes([self._seed]) * count

    # --- faults ---------------------------------------------------------------------------------

    def crash(self, *, keep: str = "none") -> MemoryDisk:
        """Return the disk after a power cut.

        ``keep`` says which unsynced writes reached it anyway: "none", "all", "last" (only the
        newest one, leaving a hole of zeros before it) or "half" (half of the first one).
        """
        after = MemoryDisk()
        after.folders = set(self.folders)
        after._seed = self._seed
        names = self.files if keep == "all" else self.durable_names
        for path, inode in names.items():
            copy = Inode()
            copy.durable = bytearray(inode.durable)
            writes = inode.unsynced
            match keep:
                case "none":
                    writes = []
                case "last":
                    writes = writes[-1:]
                case "half":
                    writes = [(place, data[: len(data) // 2]) for place, data in writes[:1]]
            for place, data in writes:
                _patch(copy.durable, data, place)
            copy.shown = bytearray(copy.durable)
            after.files[path] = after.durable_names[path] = copy
        return after

    def copy(self) -> MemoryDisk:
        """Return an independent disk with the same content, all of it synced."""
        for inode in self.files.values():
            inode.sync()
        return self.crash(keep="all")
