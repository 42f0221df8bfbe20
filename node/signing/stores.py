"""Where a signer's key lies: a key file, or a token (``token``). One process at a time has it.

A key file is locked for as long as the signer lives (``flock(2)``), so that two signers of one
machine never sign with one file. A token keeps the number of the
mark that was begun with its key, and a mark is locked by whoever has it open.

Not here: the format of key files (``consensus.keyfile``), and what may be signed (``node.signer``).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from consensus.keyfile import KeyKind
from node.errors import InUseError, KeyAccessError
from node.keyring import Keyring
from node.signer import MemoryKey


class KeyLock:
    """Holds a key file for this process, until it ends or ``close``.

    Raises:
        InUseError: another process has it.
        KeyAccessError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._handle: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise KeyAccessError(f"cannot open the key file {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise InUseError(
                f"another process signs with the key file {path}",
                hint="stop the other node or signer; one key must never sign in two places",
            ) from error
        except OSError as error:
            self.close()
            raise KeyAccessError(f"cannot lock the key file {path}: {error.strerror}") from error

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class FileStore(MemoryKey):
    """A validator key from a file that is locked while this is open."""

    def __init__(self, path: Path, keyring: Keyring) -> None:
        self._lock = KeyLock(path)
        try:
            super().__init__(keyring.load(path, KeyKind.VALIDATOR))
        except BaseException:
            self._lock.close()
            raise

    def bind(self, mark: Path) -> None:
        """Nothing: a file remembers nothing."""

    def check(self, mark: Path) -> None:
        """Nothing: any mark of this key will do, and ``node.signer`` looks whose it is."""

    def close(self) -> None:
        """Let go of the key file."""
        self._lock.close()
