"""Opens a node's key files, asking for their passphrase where one is sealed under one.

A node must start again by itself, so its passphrase comes from the first of these that is there:

    1. the file that the configuration names: ``[node] passphrase_file``
    2. ``passphrase`` in the folder ``$CREDENTIALS_DIRECTORY``, where systemd lays credentials
       (``LoadCredentialEncrypted=``; systemd.exec(5))
    3. the variable ``COMITY_NODE_PASSPHRASE``, which is dropped from the environment once read
    4. whoever sits at the terminal that the process was started on

never from an argument, which everybody on the machine can read. One passphrase opens all key files
of a node. What was opened is kept, since a process may need its keys several times.

Not here: the file format (``consensus.keyfile``), and who may read a file (``keyfiles``).
"""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from consensus import keyfile
from consensus.errors import KeyFileError, PassphraseError
from consensus.keyfile import PASSPHRASE_BYTES_MAX, KeyKind, KeyPair
from node import keyfiles
from node.errors import KeyAccessError
from node.keylock import KeyLock, KeyPlace

if TYPE_CHECKING:
    from node.config import Config

VARIABLE: Final = "COMITY_NODE_PASSPHRASE"
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
CREDENTIAL_NAME: Final = "passphrase"
MISSING_HINT: Final = (
    "name a file in passphrase_file, give systemd the credential "
    f"{CREDENTIAL_NAME!r}, set {VARIABLE}, or run `comity keys passphrase FILE --remove`"
)
WRONG_HINT: Final = "`comity keys check FILE` tries a passphrase"

Ask = Callable[[Path], str]
"""Asks a person for the passphrase of a file."""


def asking() -> Ask | None:
    """Return a way to ask the person at the terminal, None where nobody is."""
    if not sys.stdin.isatty():
        return None
    return lambda path: getpass.getpass(f"Passphrase of {path}: ")


class Keyring:
    """The key files of one process.

    Args:
        passphrase_file: that the configuration names, if it does.
        environment: of the process; loses the passphrase.
        ask: a person, if one is there.
    """

    def __init__(
        self,
        passphrase_file: Path | None,
        environment: MutableMapping[str, str],
        *,
        ask: Ask | None = None,
    ) -> None:
        self._file = passphrase_file
        folder = environment.get(CREDENTIALS_VARIABLE, "")
        self._credential = Path(folder, CREDENTIAL_NAME) if folder else None
        self._given = environment.pop(VARIABLE, None)
        self._ask = ask
        self._keys: dict[tuple[Path, bytes], KeyPair] = {}
        self._held: dict[bytes, list[KeyLock | KeyPlace]] = {}
        self.opened: list[Path] = []
        """Files that a passphrase has opened."""

    @classmethod
    def of(
        cls, config: Config, environment: MutableMapping[str, str], *, ask: Ask | None = None
    ) -> Keyring:
        """Return the keyring of a configured node."""
        named = config.node.passphrase_file
        return cls(config.path(named) if named else None, environment, ask=ask)

    def load(self, path: Path, kind: KeyKind) -> KeyPair:
        """Return the key in the file at ``path``.

        Raises:
            KeyAccessError: absent, unreadable, not a regular file, or others have access to it.
            KeyFileError: not a key file, or of another kind.
            PassphraseError: sealed, and the passphrase is missing or wrong.

        Cost: 0.5 s and 256 MiB the first time, if the file is sealed (Argon2id).
        """
        data = keyfiles.read_bytes(path)
        key = self._keys.get((path, data))
        if key is None:
            key = self._open(path, data)
            self._keys[path, data] = key
        return keyfiles.of_kind(path, key, kind)

    def hold(self, key: KeyPair) -> str:
        """Take it that this process alone signs with a key that was loaded, until ``release``.

        Once more does nothing more. Returns words about a process of another user that has taken
        the key's place on this machine, which this user cannot change; "" for none.

        Raises:
            InUseError: another process signs with it.
            KeyAccessError: its file is gone, or cannot be locked.
        """
        if key.public in self._held:
            return ""
        held: list[KeyLock | KeyPlace] = []
        try:
            for path, known in {each: pair for (each, _), pair in self._keys.items()}.items():
                if known.public == key.public:
                    held.append(KeyLock(path))
            place = KeyPlace(key.public)
            held.append(place)
        except BaseException:
            _close(held)
            raise
        self._held[key.public] = held
        return place.taken_by

    def release(self) -> None:
        """Let go of all keys that are held."""
        while self._held:
            _close(self._held.popitem()[1])

    def _open(self, path: Path, data: bytes) -> KeyPair:
        try:
            if not keyfile.describe(data).sealed:
                return keyfile.read(data)
            passphrase, source = self._passphrase(path)
            try:
                key = keyfile.read(data, passphrase)
            except PassphraseError as error:
                raise PassphraseError(
                    f"{error.message}; it came from {source}", hint=WRONG_HINT
                ) from error
        except KeyFileError as error:
            raise type(error)(f"{path}: {error.message}", hint=error.hint) from error
        self.opened.append(path)
        return key

    def _passphrase(self, path: Path) -> tuple[str, str]:
        """Return the passphrase and where it came from."""
        if self._file is not None:
            return read_passphrase(self._file), str(self._file)
        if self._credential is not None and self._credential.exists():
            return keyfile.passphrase_in(_credential(self._credential)), str(self._credential)
        if self._given is not None:
            return self._given, VARIABLE
        if self._ask is not None:
            self._given = self._ask(path)
            return self._given, "the terminal"
        raise PassphraseError(
            "the key file is sealed and no passphrase was given", hint=MISSING_HINT
        )


def _close(held: list[KeyLock | KeyPlace]) -> None:
    for each in held:
        each.close()


def read_passphrase(path: Path, what: str = "passphrase file") -> str:
    """Return the passphrase in a file that is its user's alone, as a key file has to be.

    ``what`` it is, for the error.

    Raises:
        KeyAccessError: absent, unreadable, or others have access to it.
        PassphraseError: it holds none.
    """
    try:
        return keyfile.passphrase_in(keyfiles.read_bytes(path, what))
    except PassphraseError as error:
        raise PassphraseError(f"{path}: {error.message}") from error


def credential(environment: Mapping[str, str], name: str) -> str | None:
    """Return the secret that systemd laid down under a name for this process; None: none.

    Raises:
        KeyAccessError: it cannot be read.
        PassphraseError: it holds none.
    """
    folder = environment.get(CREDENTIALS_VARIABLE, "")
    path = Path(folder, name)
    if not folder or not path.exists():
        return None
    return keyfile.passphrase_in(_credential(path))


def _credential(path: Path) -> bytes:
    """Return a credential's bytes. Who may read it is systemd's business: its modes are not ours
    (an access control list may show as the group's)."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return os.read(handle, PASSPHRASE_BYTES_MAX + 2)
        finally:
            os.close(handle)
    except OSError as error:
        raise KeyAccessError(f"cannot read the credential {path}: {error.strerror}") from error
