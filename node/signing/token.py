"""A validator key in a PKCS#11 token, which never gives it away: a smart card, a USB key, an HSM.

Needs the extra ``comity[pkcs11]`` (python-pkcs11) and the maker's PKCS#11 module. In the token:

    a pair of Ed25519 keys     under the label ``key_label``; private, not extractable
    a data object              label ``comity mark`` ‖ space ‖ ``key_label``: 16 random bytes, which
                               also lie beside the mark, in ``<mark>.token``

The data object binds the key to the one mark that was begun with it: this software, set up once
more against the same token on this machine or another, finds that it has no such mark and signs
nothing. That keeps out a mistake, not an adversary: whoever has the PIN can read the bytes, copy
mark and file together, or sign with other software. A token counts no rounds; what was signed only
the mark knows.

Source: PKCS#11 3.0 (OASIS), §2.3.5 (``CKM_EDDSA``) and §2.3.10 (``CKM_EC_EDWARDS_KEY_PAIR_GEN``).
Not here: what may be signed (``node.signer``).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from consensus import signing
from consensus.errors import PassphraseError
from node.config import ConfigError
from node.errors import ForeignDataError, KeyAccessError, KeyStoreError
from node.keyring import credential, read_passphrase
from node.signing.config import SignerConfig, TokenSection

BOUND_SUFFIX: Final = ".token"
PIN_CREDENTIAL: Final = "pin"
PIN_HINT: Final = (
    "name a file in [token] pin_file, or give systemd the credential 'pin' "
    "(LoadCredentialEncrypted=pin:…)"
)
BOUND_BYTES: Final = 16
CURVE: Final = b"\x13\x0cedwards25519"
"""``CKA_EC_PARAMS``: the curve's name as a DER PrintableString (PKCS#11 3.0, §2.3.3)."""


class TokenStore:
    """A key in a token; make one with ``open`` or ``create``.

    Args:
        section: which token and key.
        pin: of its user.
        session: open, of that user.
    """

    def __init__(self, section: TokenSection, pin: str, session: Any) -> None:
        self._section = section
        self._pin = pin
        self._session = session
        self._private: Any = None
        self.public = b""

    @classmethod
    def open(cls, config: SignerConfig, environment: Mapping[str, str]) -> TokenStore:
        """Return the key that the configuration names.

        Args:
            environment: of the process, where systemd names its credentials.

        Raises:
            KeyStoreError: no module, no token, a wrong PIN, or no such key in it.
            KeyAccessError, PassphraseError: no PIN, or the file with it.
            ConfigError: the extra is not installed.
        """
        store = cls._logged_in(config, environment)
        try:
            store._find()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def create(cls, config: SignerConfig, environment: Mapping[str, str]) -> TokenStore:
        """Make the key in the token, and return it.

        Raises:
            KeyStoreError: as ``open``; there is a key of that label already, or the token cannot
                make Ed25519 keys.
        """
        store = cls._logged_in(config, environment, rw=True)
        try:
            store._generate()
            store._find()
        except BaseException:
            store.close()
            raise
        return store

    def seal(self, message: bytes) -> bytes:
        """Return the signature; a token that was taken out and is back is opened again once.

        Raises:
            KeyStoreError: it cannot be had now.

        Cost: the token's: 0.3 to 3 ms with SoftHSM, 5 to 100 ms with a smart card.
        """
        pkcs11 = _library()
        try:
            return self._sign(message)
        except pkcs11.exceptions.PKCS11Error:
            self.close()
        try:
            self._session = _session(self._section, self._pin, rw=False)
            self._find()
            return self._sign(message)
        except pkcs11.exceptions.PKCS11Error as error:
            raise _store_error("the token does not sign", error) from error

    def bind(self, mark: Path) -> None:
        """Have the token remember that this is its key's mark. Raises KeyStoreError.

        What lies beside the mark is written first: a crash in between leaves a token that
        remembers nothing, and ``comity signer init`` can be run again.
        """
        pkcs11 = _library()
        if self._bound() is not None:
            raise ForeignDataError(
                "the token's key was begun with another mark",
                hint="bring that mark back; a key has one mark for life",
            )
        number = secrets.token_bytes(BOUND_BYTES)
        _write(_beside(mark), number)
        attribute = pkcs11.Attribute
        try:
            session = _session(self._section, self._pin, rw=True, beside=self._session)
            session.create_object(
                {
                    attribute.CLASS: pkcs11.ObjectClass.DATA,
                    attribute.TOKEN: True,
                    attribute.PRIVATE: True,
                    attribute.LABEL: self._bound_label,
                    attribute.VALUE: number,
                }
            )
        except pkcs11.exceptions.PKCS11Error as error:
            raise _store_error("the token cannot remember the mark", error) from error

    def check(self, mark: Path) -> None:
        """Refuse another mark than the one that was begun with the token's key.

        Raises:
            ForeignDataError: it is another one, or none was begun.
        """
        try:
            beside = _beside(mark).read_bytes()
        except FileNotFoundError:
            beside = b""
        except OSError as error:
            raise KeyAccessError(f"cannot read {_beside(mark)}: {error.strerror}") from error
        if self._bound() != beside:
            raise ForeignDataError(
                f"the token's key was not begun with the mark at {mark}",
                hint="bring back mark and .token file of `comity signer init`; without them the "
                "key must not sign any more",
            )

    def close(self) -> None:
        """Log out."""
        pkcs11 = _library()
        with suppress(pkcs11.exceptions.PKCS11Error):
            self._session.close()

    # --- inside ---------------------------------------------------------------------------------

    @classmethod
    def _logged_in(
        cls, config: SignerConfig, environment: Mapping[str, str], *, rw: bool = False
    ) -> TokenStore:
        section = config.token
        pin = _pin(config, environment)
        return cls(section, pin, _session(section, pin, rw=rw))

    def _find(self) -> None:
        pkcs11 = _library()
        found = [
            list(
                self._session.get_objects(
                    {
                        pkcs11.Attribute.CLASS: kind,
                        pkcs11.Attribute.KEY_TYPE: pkcs11.KeyType.EC_EDWARDS,
                        pkcs11.Attribute.LABEL: self._section.key_label,
                    }
                )
            )
            for kind in (pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.ObjectClass.PUBLIC_KEY)
        ]
        label = f"{self._section.key_label!r} in the token {self._section.label!r}"
        if not all(found):
            raise KeyStoreError(
                f"there is no Ed25519 key {label}", hint="`comity signer init-token` makes one"
            )
        if len(found[0]) > 1 or len(found[1]) > 1:
            raise KeyStoreError(
                f"there are several Ed25519 keys {label}", hint="give them labels of their own"
            )
        self._private = found[0][0]
        public = found[1][0][pkcs11.Attribute.EC_POINT][-32:]
        if self.public not in (b"", public):
            raise KeyStoreError(f"the key {label} is another one than before")
        signing.check_key(public)
        self.public = public

    def _generate(self) -> None:
        pkcs11 = _library()
        label = self._section.key_label
        if list(self._session.get_objects({pkcs11.Attribute.LABEL: label})):
            raise KeyStoreError(
                f"there is a {label!r} in the token {self._section.label!r} already",
                hint="use it, or name another key_label",
            )
        try:
            parameters = self._session.create_domain_parameters(
                pkcs11.KeyType.EC_EDWARDS, {pkcs11.Attribute.EC_PARAMS: CURVE}, local=True
            )
            parameters.generate_keypair(
                mechanism=pkcs11.Mechanism.EC_EDWARDS_KEY_PAIR_GEN,
                store=True,
                label=label,
                private_template={
                    pkcs11.Attribute.EXTRACTABLE: False,
                    pkcs11.Attribute.SENSITIVE: True,
                },
            )
        except pkcs11.exceptions.PKCS11Error as error:
            raise _store_error("the token cannot make an Ed25519 key", error) from error

    def _sign(self, message: bytes) -> bytes:
        signature: bytes = self._private.sign(message, mechanism=_library().Mechanism.EDDSA)
        return signature

    @property
    def _bound_label(self) -> str:
        return f"comity mark {self._section.key_label}"

    def _bound(self) -> bytes | None:
        pkcs11 = _library()
        try:
            found = list(
                self._session.get_objects(
                    {
                        pkcs11.Attribute.CLASS: pkcs11.ObjectClass.DATA,
                        pkcs11.Attribute.LABEL: self._bound_label,
                    }
                )
            )
            return bytes(found[0][pkcs11.Attribute.VALUE]) if found else None
        except pkcs11.exceptions.PKCS11Error as error:
            raise _store_error("the token cannot be read", error) from error


def _pin(config: SignerConfig, environment: Mapping[str, str]) -> str:
    """Return the PIN, from its file or from systemd's credential; never from a variable, which
    children inherit and other processes of the user may read.

    Raises:
        KeyAccessError, PassphraseError: there is none, or it cannot be read.
    """
    if config.token.pin_file:
        return read_passphrase(config.path(config.token.pin_file), "PIN file")
    found = credential(environment, PIN_CREDENTIAL)
    if found is None:
        raise PassphraseError("the token's PIN was not given", hint=PIN_HINT)
    return found


def _library() -> Any:
    try:
        import pkcs11
        import pkcs11.exceptions
    except ImportError as error:
        raise ConfigError(
            "a [token] needs the package python-pkcs11, which is not installed",
            hint="install comity[pkcs11]",
        ) from error
    return pkcs11


def _session(section: TokenSection, pin: str, *, rw: bool, beside: Any = None) -> Any:
    """Return a session of the token's user; in place of ``beside``, which ends."""
    pkcs11 = _library()
    if not Path(section.module).is_file():
        raise KeyStoreError(
            f"there is no PKCS#11 module at {section.module}",
            hint="[token] module is the shared library of the token's maker",
        )
    try:
        library = pkcs11.lib(section.module)
        token = library.get_token(token_label=section.label)
    except pkcs11.exceptions.NoSuchToken as error:
        raise KeyStoreError(f"there is no token {section.label!r}") from error
    except pkcs11.exceptions.MultipleTokensReturned as error:
        raise KeyStoreError(f"there are several tokens {section.label!r}") from error
    except (pkcs11.exceptions.PKCS11Error, RuntimeError) as error:
        raise _store_error(f"the module {section.module} cannot be used", error) from error
    try:
        return token.open(rw=rw) if beside is not None else token.open(user_pin=pin, rw=rw)
    except pkcs11.exceptions.UserAlreadyLoggedIn:
        return token.open(rw=rw)
    except (pkcs11.exceptions.PinIncorrect, pkcs11.exceptions.PinLenRange) as error:
        raise KeyStoreError(
            f"the PIN does not open the token {section.label!r}",
            hint="put the right one into pin_file; a token locks itself after a few wrong ones",
        ) from error
    except pkcs11.exceptions.PKCS11Error as error:
        raise _store_error(f"the token {section.label!r} cannot be opened", error) from error


def _store_error(what: str, error: Exception) -> KeyStoreError:
    return KeyStoreError(f"{what}: {type(error).__name__} {error}".rstrip())


def _beside(mark: Path) -> Path:
    return mark.with_name(mark.name + BOUND_SUFFIX)


def _write(path: Path, data: bytes) -> None:
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise KeyAccessError(f"cannot write {path}: {error.strerror}") from error
