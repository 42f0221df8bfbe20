"""Keys of clients: read from a file or named by the environment, never from the command line.

``COMITY_KEY_FILE`` names a key file; ``COMITY_KEY_PASSPHRASE`` opens a sealed one where nobody can
be asked. A key file belongs to its user alone (mode 0600); others are refused.

Not here: the file's format (``consensus.keyfile``).
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import nacl.bindings

from comity.errors import KeyUnusableError
from consensus import keyfile
from consensus.errors import KeyFileError, PassphraseError
from consensus.keyfile import KeyKind, KeyPair

FILE_VARIABLE: Final = "COMITY_KEY_FILE"
PASSPHRASE_VARIABLE: Final = "COMITY_KEY_PASSPHRASE"  # noqa: S105 (a name, not a secret)

AskPassphrase = Callable[[Path], str | None]
"""Asks the person for the passphrase of a file; None when nobody can be asked."""


class Key:
    """A key that can sign. Never shows its secret.

    Args:
        pair: from a key file.
    """

    __slots__ = ("_secret", "kind", "public")

    def __init__(self, pair: KeyPair) -> None:
        self.public = pair.public
        self.kind = pair.kind
        self._secret = pair.seed + pair.public

    def __repr__(self) -> str:
        return f"<Key {self.public.hex()}>"

    def sign(self, message: bytes) -> bytes:
        """Return the signature over bytes from ``signing.message``. Cost: about 25 µs."""
        signed: bytes = nacl.bindings.crypto_sign(message, self._secret)
        return signed[:64]


def generate(kind: KeyKind = KeyKind.CLIENT) -> Key:
    """Return a new key from the system's randomness, kept nowhere."""
    return Key(new_pair(kind))


def new_pair(kind: KeyKind) -> KeyPair:
    """Return a new key pair from the system's randomness."""
    return keyfile.from_seed(kind, secrets.token_bytes(keyfile.SEED_BYTES))


def create(path: Path, pair: KeyPair, passphrase: str | None = None) -> None:
    """Write a new key file of mode 0600, synced; sealed when there is a passphrase.

    Raises:
        KeyUnusableError: the file exists or cannot be written.
    """
    if passphrase is None:
        data = keyfile.pack(pair)
    else:
        data = keyfile.seal(
            pair,
            passphrase,
            salt=secrets.token_bytes(keyfile.SALT_BYTES),
            nonce=secrets.token_bytes(keyfile.NONCE_BYTES),
        )
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise KeyUnusableError(
            f"{path} exists already", hint="a key file is never overwritten; choose another name"
        ) from error
    except OSError as error:
        raise KeyUnusableError(f"cannot write {path}: {error.strerror}") from error


def read_file(path: Path) -> bytes:
    """Return the bytes of a key file that is its user's alone.

    Raises:
        KeyUnusableError: missing, not a file, unreadable, another user's, or open to others.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            mode = status.st_mode
            if not stat.S_ISREG(mode):
                raise KeyUnusableError(f"{path} is not a file")
            if status.st_uid not in (os.geteuid(), 0):
                raise KeyUnusableError(
                    f"{path} belongs to another user, who can change it",
                    hint="use a key file of your own",
                )
            if mode & 0o077:
                raise KeyUnusableError(
                    f"{path} can be read by others", hint=f"run `chmod 600 {path}`"
                )
            return file.read(keyfile.FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyUnusableError(f"cannot read {path}: {error.strerror}") from error


def load(path: Path, *, ask: AskPassphrase | None = None) -> Key:
    """Return the key in a file.

    Args:
        path: of the key file.
        ask: for the passphrase of a sealed file.

    Raises:
        KeyUnusableError: missing, unreadable, open to others, damaged, or the passphrase is
            missing or wrong.
    """
    data = read_file(path)
    try:
        info = keyfile.describe(data)
        passphrase = ask(path) if info.sealed and ask is not None else None
        return Key(keyfile.read(data, passphrase))
    except PassphraseError as error:
        hint = f"set {PASSPHRASE_VARIABLE}, or run where it can be asked for"
        raise KeyUnusableError(f"{path}: {error.message}", hint=hint) from error
    except KeyFileError as error:
        raise KeyUnusableError(f"{path}: {error.message}", hint=error.hint) from error


def from_environment(
    environment: Mapping[str, str], path: Path | None = None, *, ask: AskPassphrase | None = None
) -> Key | None:
    """Return the key of ``path``, else of the file that COMITY_KEY_FILE names, else None.

    Raises:
        KeyUnusableError: as ``load``.
    """
    named = environment.get(FILE_VARIABLE, "")
    chosen = path or (Path(named) if named else None)
    if chosen is None:
        return None
    passphrase = environment.get(PASSPHRASE_VARIABLE)
    if passphrase is not None:
        return load(chosen, ask=lambda _: passphrase)
    return load(chosen, ask=ask)


def for_children(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment to start other processes with: without the passphrase."""
    return {name: value for name, value in environment.items() if name != PASSPHRASE_VARIABLE}
