"""Keys of clients: read from a file or named by the environment, never from the command line.

``COMITY_KEY_FILE`` names a key file; ``COMITY_KEY_PASSPHRASE``, or the file that
``COMITY_KEY_PASSPHRASE_FILE`` names, opens a sealed one where nobody can be asked. A key file and a
passphrase's belong to their user alone (mode 0600); others are refused.

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
from comity.files import advice, undoing
from consensus import codec, keyfile
from consensus.errors import KeyFileError, PassphraseError
from consensus.keyfile import KeyKind, KeyPair

FILE_VARIABLE: Final = "COMITY_KEY_FILE"
PASSPHRASE_VARIABLE: Final = "COMITY_KEY_PASSPHRASE"  # noqa: S105 (a name, not a secret)
PASSPHRASE_FILE_VARIABLE: Final = "COMITY_KEY_PASSPHRASE_FILE"  # noqa: S105 (likewise)

_MAGIC: Final = codec.encode("magic") + codec.encode(keyfile.MAGIC)
"""What lies in every key file, of whatever version; a vault's may be text instead."""

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
    """Write a new key file of mode 0600, synced, or none; sealed when there is a passphrase.

    Raises:
        KeyUnusableError: the file exists or cannot be written.
    """
    try:
        _write(path, pack(pair, passphrase))
    except FileExistsError as error:
        raise KeyUnusableError(
            f"{path} exists already", hint="a key file is never overwritten; choose another name"
        ) from error
    except OSError as error:
        raise KeyUnusableError(
            f"cannot write {path}: {error.strerror}", hint=advice(error)
        ) from error


def pack(pair: KeyPair, passphrase: str | None = None) -> bytes:
    """Return the bytes of a key file; sealed when there is a passphrase (0.5 s, 256 MiB).

    Raises:
        PassphraseError: empty or too long.
    """
    if passphrase is None:
        return keyfile.pack(pair)
    return keyfile.seal(
        pair,
        passphrase,
        salt=secrets.token_bytes(keyfile.SALT_BYTES),
        nonce=secrets.token_bytes(keyfile.NONCE_BYTES),
    )


def replace(path: Path, pair: KeyPair, passphrase: str | None) -> None:
    """Put the same key under another passphrase, or under none, in the place of its file.

    The file is exchanged as a whole and synced: after a crash it is the old one or the new one. Its
    owner stays who it was. Copies and backups of the old file still open with the old passphrase.

    Raises:
        KeyUnusableError: the file cannot be written.
        PassphraseError: empty or too long.
    """
    data = pack(pair, passphrase)
    target = path.resolve()
    draft = target.with_name(f".{target.name}.{secrets.token_hex(8)}.draft")
    try:
        owner = target.stat()
        try:
            _write(draft, data)
            if (owner.st_uid, owner.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(draft, owner.st_uid, owner.st_gid)
            os.replace(draft, target)
            _sync_folder(target)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise KeyUnusableError(
            f"cannot write {path}: {error.strerror}", hint=advice(error)
        ) from error


def _write(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with undoing([path]):  # the file is this call's own: there was none
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_passphrase(path: Path) -> str:
    """Return the passphrase in a file that is its user's alone: one line.

    Raises:
        KeyUnusableError: the file cannot be used, or holds no passphrase.
    """
    try:
        return keyfile.passphrase_in(read_file(path, "passphrase"))
    except PassphraseError as error:
        hint = "write the passphrase into it, as one line of UTF-8"
        raise KeyUnusableError(f"{path}: {error.message}", hint=hint) from error


def read_file(path: Path, what: str = "key") -> bytes:
    """Return the bytes of a key file, or of a passphrase's, that is its user's alone.

    Raises:
        KeyUnusableError: missing, not a file, unreadable, no key file at all, another user's, or
            open to others.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            mode = status.st_mode
            if not stat.S_ISREG(mode):
                raise KeyUnusableError(f"{path} is not a file", hint=f"name the {what}'s file")
            data = file.read(keyfile.FILE_BYTES_MAX + 1)
            if what == "key" and _MAGIC not in data and not data.startswith(keyfile.VAULT_HEAD):
                raise KeyUnusableError(
                    f"{path} is no key file",
                    hint="`comity keys new` makes one; a key whose file is damaged comes back from "
                    "its backup alone",
                )
            if status.st_uid not in (os.geteuid(), 0):
                raise KeyUnusableError(
                    f"{path} belongs to another user, who can change it",
                    hint=f"use a {what} file of your own",
                )
            if mode & 0o077:
                raise KeyUnusableError(
                    f"{path} can be read by others", hint=f"run `chmod 600 {path}`"
                )
            return data
    except OSError as error:
        missing_key = what == "key" and isinstance(error, FileNotFoundError)
        raise KeyUnusableError(
            f"cannot read {path}: {error.strerror}", hint="" if missing_key else advice(error)
        ) from error


def load(path: Path, *, ask: AskPassphrase | None = None) -> Key:
    """Return the key in a file. Raises as ``open_pair``."""
    return Key(open_pair(path, ask=ask))


def open_pair(
    path: Path, *, ask: AskPassphrase | None = None, kind: KeyKind | None = None
) -> KeyPair:
    """Return the key pair in a file.

    Args:
        path: of the key file.
        ask: for the passphrase of a sealed file.
        kind: that is needed; None: any.

    Raises:
        KeyUnusableError: missing, unreadable, open to others, damaged, of another kind, or the
            passphrase is missing or wrong.
    """
    data = read_file(path)
    passphrase: str | None = None
    try:
        info = keyfile.describe(data)
        if kind is not None and info.kind is not kind:
            raise KeyUnusableError(keyfile.other_kind(path, info.kind, kind))
        passphrase = ask(path) if info.sealed and ask is not None else None
        return keyfile.read(data, passphrase)
    except PassphraseError as error:
        hint = f"set {PASSPHRASE_VARIABLE}, or run where it can be asked for"
        if passphrase is not None:
            hint = f"give the one it was sealed with; `comity keys check {path}` tries one"
        raise KeyUnusableError(f"{path}: {error.message}", hint=hint) from error
    except KeyFileError as error:
        raise KeyUnusableError(f"{path}: {error.message}", hint=error.hint) from error


def from_environment(
    environment: Mapping[str, str], path: Path | None = None, *, ask: AskPassphrase | None = None
) -> Key | None:
    """Return the client key of ``path``, else of the file of COMITY_KEY_FILE, else None.

    Raises:
        KeyUnusableError: as ``load``, or a key of another kind.
    """
    named = environment.get(FILE_VARIABLE, "")
    chosen = path or (Path(named) if named else None)
    if chosen is None:
        return None
    return Key(open_pair(chosen, ask=given_in(environment) or ask, kind=KeyKind.CLIENT))


def given_in(environment: Mapping[str, str]) -> AskPassphrase | None:
    """Return what answers with the environment's passphrase; None if it has none."""
    passphrase = environment.get(PASSPHRASE_VARIABLE)
    if passphrase is not None:
        return lambda _: passphrase
    named = environment.get(PASSPHRASE_FILE_VARIABLE, "")
    return (lambda _: read_passphrase(Path(named))) if named else None


def for_children(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment to start other processes with: without the passphrase."""
    secret = (PASSPHRASE_VARIABLE, PASSPHRASE_FILE_VARIABLE)
    return {name: value for name, value in environment.items() if name not in secret}
