"""One process at a time signs with a validator key: two locks that go with it, however it ends.

    file     flock(2) on the key file itself: whoever opens the same file, by a hard link, a
             symbolic link or a mount, finds it taken. It is opened for reading, so a file that
             cannot be written, or lies on a read-only file system, will do
    place    an abstract Unix socket named after the public key (unix(7)): a copy of the file on
             this machine is found out, as long as both processes see one network namespace

Looking at a key (``comity node check``, ``keys check``), following, backing up and inspecting need
neither: what is held is the right to sign.

What no lock can see: a copy on another machine, or in another network namespace. Against those
stand the signer's mark and its binding to one log (``node.signer``), the record of restored folders
(``node.backup.restored``), what peers show (``node.promises``), and evidence of two signatures.

Not here: reading the file (``node.keyring``).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Final

from node.errors import InUseError, KeyAccessError
from node.holders import holder_words, process_words
from node.keyfiles import not_opened

HINT: Final = "stop the other node or signer; one key must never sign in two places"
_PLACE: Final = "\0comity validator key "
_CREDENTIALS: Final = struct.Struct("3i")


class KeyLock:
    """Holds a key file for this process, until it ends or ``close``.

    Raises:
        InUseError: another process has it.
        KeyAccessError: the file cannot be opened, or its file system has no locks.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._handle: int | None = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise not_opened("key file", path, error) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise InUseError(
                f"another process{holder_words(path)} signs with the key file {path}", hint=HINT
            ) from error
        except OSError as error:
            self.close()
            raise KeyAccessError(
                f"cannot lock the key file {path}: {error.strerror}",
                hint="keep it on a local disk; a network file system may have no locks",
            ) from error

    def close(self) -> None:
        """Let go of the file; a second call does nothing."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class KeyPlace:
    """Holds a public key's place on this machine, until the process ends or ``close``.

    Attributes:
        taken_by: words about a process of another user that has the place; "" if this one has it.
            Any user may take any such name, so a stranger who has it does not keep the key from
            signing: it is told.

    Raises:
        InUseError: another process of this user, or of root, has it.
    """

    def __init__(self, public: bytes) -> None:
        self.taken_by = ""
        self._socket: socket.socket | None = None
        if sys.platform != "linux":
            return
        name = _PLACE + public.hex()
        found = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            found.bind(name)
            found.listen(1)
        except OSError as error:
            found.close()
            if error.errno != errno.EADDRINUSE:
                raise KeyAccessError(f"cannot hold the key's place: {error.strerror}") from error
            self.taken_by = _holder(name, public)
            return
        self._socket = found

    def close(self) -> None:
        """Let go of the place; a second call does nothing."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def _holder(name: str, public: bytes) -> str:
    """Return words about the stranger who has a place.

    Raises:
        InUseError: it is no stranger, or cannot be asked.
    """
    pid, uid = 0, os.geteuid()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(name)
            data = probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, uid, _ = _CREDENTIALS.unpack(data)
        except OSError:  # it has just gone, or is crowded: taken for one of ours
            pass
    if uid in (os.geteuid(), 0):
        raise InUseError(
            f"another process{process_words(pid)} on this machine signs with the validator key "
            f"0x{public.hex()}, from another copy of its file",
            hint=HINT,
        )
    return f"user {uid}{process_words(pid)}"
