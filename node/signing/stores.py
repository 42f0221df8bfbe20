"""Where a signer's key lies: a key file, or a token (``token``). One process at a time has it.

A key file is locked for as long as the signer lives (``node.keylock``), so that nobody else of this
machine signs with it. A token keeps the number of the mark that was begun with its key, and a mark
is locked by whoever has it open.

Not here: the format of key files (``consensus.keyfile``), and what may be signed (``node.signer``).
"""

from __future__ import annotations

from pathlib import Path

from consensus.keyfile import KeyKind
from node.keylock import KeyLock
from node.keyring import Keyring
from node.signer import MemoryKey


class FileStore(MemoryKey):
    """A validator key from a file that is locked while this is open, or looked at only."""

    def __init__(self, path: Path, keyring: Keyring, *, locks: bool = True) -> None:
        self._lock = KeyLock(path) if locks else None
        try:
            super().__init__(keyring.load(path, KeyKind.VALIDATOR))
        except BaseException:
            self.close()
            raise

    def bind(self, mark: Path) -> None:
        """Nothing: a file remembers nothing."""

    def check(self, mark: Path) -> None:
        """Nothing: any mark of this key will do, and ``node.signer`` looks whose it is."""

    def close(self) -> None:
        """Let go of the key file."""
        if self._lock is not None:
            self._lock.close()
