"""Key files on disk: mode 0600, made atomically, never overwritten. The format is pure bytes in
``consensus.keyfile``.

``NodeKey`` is the key of a node's links and sessions; the validator's key is ``node.signer``'s
alone.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from typing import Final

import nacl.bindings

from consensus import keyfile, signing
from consensus.errors import KeyFileError, invariant
from consensus.keyfile import KeyKind, KeyPair
from node.errors import KeyAccessError

NODE_TAGS: Final = frozenset(
    {signing.TAG_SESSION, signing.TAG_LINK, signing.TAG_DELIVERY, signing.TAG_BUNDLE}
)
"""What a node key may sign."""


def load(path: Path, kind: KeyKind, passphrase: str | None = None) -> KeyPair:
    """Return the key in the file at ``path``.

    Raises:
        KeyAccessError: absent, unreadable, not a regular file, or others have access to it.
        KeyFileError: not a key file, or of another kind.
        PassphraseError: sealed, and the passphrase is missing or wrong.
    """
    try:
        key = keyfile.read(read_bytes(path), passphrase)
    except KeyFileError as error:
        raise type(error)(f"{path}: {error.message}", hint=error.hint) from error
    return of_kind(path, key, kind)


def of_kind(path: Path, key: KeyPair, kind: KeyKind) -> KeyPair:
    """Return the key of the file at ``path`` if it is of this kind. Raises KeyFileError if not."""
    if key.kind is not kind:
        raise KeyFileError(
            keyfile.other_kind(path, key.kind, kind),
            hint="name the right file in the configuration",
        )
    return key


def read_bytes(path: Path, what: str = "key file") -> bytes:
    """Return a secret file's bytes after checking who may read or replace it.

    A symbolic link is followed: what counts is the file it leads to and the folder it lies in.

    Args:
        path: of the file.
        what: it is, for the error.

    Raises:
        KeyAccessError: absent, unreadable, not a regular file, or others have access to it.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise not_opened(what, path, error) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise KeyAccessError(f"{path} is not a regular file")
        if status.st_uid not in (os.geteuid(), 0):
            raise KeyAccessError(
                f"the {what} {path} belongs to user {status.st_uid}, who can change it",
                hint=f"chown it to the node's user, and chmod 600 {path}",
            )
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise KeyAccessError(
                f"the {what} {path} has mode {mode:04o}: others than its owner have access",
                hint=f"chmod 600 {path}, and replace what is in it if others may have read it",
            )
        _check_folder(path, what)
        return os.read(handle, keyfile.FILE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyAccessError(f"cannot read the {what} {path}: {error.strerror}") from error
    finally:
        os.close(handle)


def not_opened(what: str, path: Path, error: OSError) -> KeyAccessError:
    """Return the error of a secret file that cannot be opened."""
    missing = isinstance(error, FileNotFoundError)
    hint = "put it there, or name another place in the configuration" if missing else ""
    return KeyAccessError(f"cannot open the {what} {path}: {error.strerror}", hint=hint)


def _check_folder(path: Path, what: str) -> None:
    """Refuse a folder in which anybody may put another file under the key's name.

    A sticky folder, as /tmp, lets nobody replace what is another's.
    """
    mode = path.parent.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise KeyAccessError(
            f"anybody may put another file in the place of the {what} {path}",
            hint=f"chmod 700 {path.parent}, and check that the key is still yours",
        )


def create(path: Path, data: bytes) -> None:
    """Write a new key file, mode 0600, durable and whole or not at all.

    Raises:
        KeyAccessError: there is a file at ``path`` already, or it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}.draft")
    try:
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            os.link(draft, path)
        finally:
            draft.unlink()
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except FileExistsError as error:
        raise KeyAccessError(
            f"{path} exists; a key file is never overwritten",
            hint="choose another name, or move the old key away yourself",
        ) from error
    except OSError as error:
        raise KeyAccessError(f"cannot write the key file {path}: {error.strerror}") from error


class NodeKey:
    """A node's own Ed25519 key: certificate of its links, sessions, deliveries. No votes."""

    def __init__(self, key: KeyPair) -> None:
        invariant(key.kind is KeyKind.NODE, "a node key is needed")
        self._key = key
        _public, self._secret = nacl.bindings.crypto_sign_seed_keypair(key.seed)

    @classmethod
    def load(cls, path: Path, passphrase: str | None = None) -> NodeKey:
        """Return the node key in the file at ``path``. Raises as ``load``."""
        return cls(load(path, KeyKind.NODE, passphrase))

    @property
    def public(self) -> bytes:
        """The 32-byte public key."""
        return self._key.public

    @property
    def seed(self) -> bytes:
        """The 32-byte secret, for making the TLS certificate."""
        return self._key.seed

    def sign(self, tag: bytes, chain: bytes, body: bytes) -> bytes:
        """Return the signature over ``tag ‖ chain ‖ body``; only tags in ``NODE_TAGS``."""
        invariant(tag in NODE_TAGS, "a node key signs sessions, links, deliveries and bundles")
        signed = signing.message(tag, chain, body)
        return nacl.bindings.crypto_sign(signed, self._secret)[: signing.SIGNATURE_BYTES]
