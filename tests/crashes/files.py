"""Files of a machine that dies at a chosen call, and what its disk then holds, chosen too.

A fate says what is left of what no sync had covered:

    kill     only the process ends: all of it stays to be seen, none of it is on disk by that
    short    the same in the middle of a write, half of which was made
    lost     power fails: nothing of it
    kept     power fails: all of it, names too
    first    power fails: the first half of each write, and the first of the changed names
    second   power fails: the second half of each write, and all names
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.sim.files import Files, Names, Write, _put, _put_bytes

KILLS: Final = ("kill", "short")
POWER: Final = ("lost", "kept", "first", "second")


class DyingFiles(Files):
    """A disk whose machine dies at a call. ``tell`` is to be set; it raises when that is now."""

    tell: Callable[[str], None] = staticmethod(lambda what: None)
    half: bool = False
    """The write that comes next is half made when its machine dies."""

    def fall(self, fate: str, made: int | None) -> None:
        """The machine dies.

        Args:
            made: how many of the calls under way were made; None: half of them.
        """
        running, self._running = self._running, []
        made = len(running) // 2 if made is None else made
        for call in running[:made]:
            self._retire(call)
        rest = running[made:]
        if fate in KILLS:
            for call in reversed(rest):
                self._take_back(call)
            self._forget_process()
            return
        if rest and fate in ("first", "second"):  # one call was under way
            match rest[0]:
                case Write() as write:
                    write.file.pending.append(write)
                case Names(after=after):
                    self._pending_names.append(after)
                case _:
                    pass
        if self._pending_names and fate != "lost":
            self._durable_names = self._pending_names[0 if fate == "first" else -1]
        self._pending_names = []
        self._names = dict(self._durable_names)
        for file in self._names.values():
            pending, file.pending = file.pending, []
            for call in pending:
                if fate == "kept":
                    _put(file.durable, call)
                elif isinstance(call, Write) and fate != "lost":
                    middle = len(call.data) // 2
                    if fate == "first":
                        _put_bytes(file.durable, call.position, call.data[:middle])
                    else:
                        at = call.position + middle
                        _put_bytes(file.durable, at, call.data[middle:])
            file.view = bytearray(file.durable)
        self._forget_process()

    @property
    def under_way(self) -> int:
        """Calls that were made and are not through."""
        return len(self._running)

    def create(self, path: Path) -> int:
        """See Disk."""
        self._call("create", str(path))
        return super().create(path)

    def write(self, handle: int, data: bytes, position: int) -> None:
        """See Disk."""
        try:
            self._call("write", self._name(handle))
        except BaseException:
            if self.half:
                super().write(handle, data[: len(data) // 2], position)
            raise
        super().write(handle, data, position)

    def truncate(self, handle: int, size: int) -> None:
        """See Disk."""
        self._call("truncate", self._name(handle))
        super().truncate(handle, size)

    def sync(self, handle: int) -> None:
        """See Disk."""
        self._call("sync", self._name(handle))
        super().sync(handle)

    def sync_folder(self, path: Path) -> None:
        """See Disk."""
        self._call("sync", "folder")
        super().sync_folder(path)

    def rename(self, source: Path, target: Path) -> None:
        """See Disk."""
        self._call("rename", str(source))
        super().rename(source, target)

    def remove(self, path: Path) -> None:
        """See Disk."""
        self._call("remove", str(path))
        super().remove(path)

    def _call(self, what: str, path: str) -> None:
        owner = "mark" if "mark" in path else "folder" if path == "folder" else "log"
        self.tell(f"{what} {owner}")

    def _name(self, handle: int) -> str:
        file = self._handles[handle]
        return next((name for name, each in self._names.items() if each is file), "")
