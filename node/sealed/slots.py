"""The keys of sealed values, one slot each, in a file that is overwritten in place.

    slot   zeros: free, or nonce 24 ‖ secretbox (key 32 ‖ commitment 32) under the node's sealed key

Whoever has the encrypted values without this file, or this file without the sealed key, has
nothing. Erasing a value overwrites its slot: without its key the value is gone from every copy of
the encrypted values, those in backups and in freed pages of the database included. The file itself
is not to be backed up with them. A file system that copies on write, a snapshot of the disk or a
worn flash cell may keep an old slot; docs/operating.md says what to do about that.

Not here: the values (``vault``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import nacl.bindings
import nacl.exceptions

from node.storage.disk import Disk

KEY_BYTES: Final = 32
NONCE_BYTES: Final = nacl.bindings.crypto_secretbox_NONCEBYTES
SLOT_BYTES: Final = NONCE_BYTES + nacl.bindings.crypto_secretbox_MACBYTES + 2 * KEY_BYTES
_FREE: Final = bytes(SLOT_BYTES)
_SCAN_SLOTS: Final = 4096


class Slots:
    """The open file. Writes are on disk after ``sync``; one thread at a time writes.

    Args:
        path: of the file, made if absent.
        sealed_key: 32 bytes, of the node.

    Raises:
        OSError: the disk.
    """

    def __init__(self, path: Path, sealed_key: bytes, disk: Disk) -> None:
        self._sealed_key = sealed_key
        self._disk = disk
        if not disk.exists(path):
            disk.close(disk.create(path))
        disk.sync_folder(path.parent)  # of a file that is there, too: that may have failed then
        self._handle = disk.open(path)
        self._count = disk.size(self._handle) // SLOT_BYTES
        self._free = self._find_free()

    def _find_free(self) -> list[int]:
        """Return the free slots. A key whose value never got its row stays unused: it is rare."""
        free: list[int] = []
        for first in range(0, self._count, _SCAN_SLOTS):
            data = self._disk.read(self._handle, SLOT_BYTES * _SCAN_SLOTS, first * SLOT_BYTES)
            free += [
                first + at
                for at in range(len(data) // SLOT_BYTES)
                if data[at * SLOT_BYTES : (at + 1) * SLOT_BYTES] == _FREE
            ]
        return free

    def put(self, commitment: bytes, key: bytes) -> int:
        """Write the key of a value into a free slot and return its number; not yet on disk."""
        slot = self._free.pop() if self._free else self._count
        self._count = max(self._count, slot + 1)
        nonce = self._disk.random(NONCE_BYTES)
        box = nacl.bindings.crypto_secretbox(key + commitment, nonce, self._sealed_key)
        self._disk.write(self._handle, nonce + box, slot * SLOT_BYTES)
        return slot

    def key(self, slot: int, commitment: bytes) -> bytes | None:
        """Return the key in a slot; None if it was wiped, or is of another value by now."""
        data = self._disk.read(self._handle, SLOT_BYTES, slot * SLOT_BYTES)
        if len(data) < SLOT_BYTES or data == _FREE:
            return None
        nonce, box = data[:NONCE_BYTES], data[NONCE_BYTES:]
        try:
            found = nacl.bindings.crypto_secretbox_open(box, nonce, self._sealed_key)
        except nacl.exceptions.CryptoError:
            return None
        return found[:KEY_BYTES] if found[KEY_BYTES:] == commitment else None

    def wipe(self, slot: int, commitment: bytes) -> None:
        """Overwrite the key of a value; not yet on disk. Nothing if it is not there."""
        if self.key(slot, commitment) is not None:
            self._disk.write(self._handle, _FREE, slot * SLOT_BYTES)
            self._free.append(slot)

    def sync(self) -> None:
        """Return once everything written is on disk."""
        self._disk.sync(self._handle)

    def close(self) -> None:
        """Close the file."""
        self._disk.close(self._handle)
