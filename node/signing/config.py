"""The signer's configuration: one TOML file, read as strictly as a node's.

Relative paths are relative to the file. ``COMITY_SIGNER_<KEY>`` in the environment overrides a
value of ``[signer]``; likewise for ``[token]`` and ``[log]``.

Not here: the reading itself (``node.config``).
"""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from node import config as files
from node.config import ConfigError, LogSection


class SignerSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[signer]``: where the node reaches it, for which network, and which user the node is.

    Without ``key`` the key is in a token.
    """

    genesis: str
    socket: str
    client_user: str
    mark: str = "signer.mark"
    key: str = ""
    passphrase_file: str = ""


class TokenSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[token]``: the PKCS#11 token that holds the key, and the label of the key in it.

    Without ``pin_file`` the PIN is systemd's credential ``pin``.
    """

    module: str = ""
    label: str = ""
    key_label: str = "comity validator"
    pin_file: str = ""


class SignerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    signer: SignerSection
    token: TokenSection = TokenSection()
    log: LogSection = LogSection()
    folder: str = "."
    """Set by ``load``: the folder of the file."""

    def path(self, relative: str) -> Path:
        """Return ``relative`` as seen from the configuration file."""
        return Path(self.folder, relative)

    @property
    def client_uid(self) -> int:
        """The number of the user that may ask for signatures."""
        return user_number(self.signer.client_user)


SECTIONS: Final[Mapping[str, type[msgspec.Struct]]] = {
    "signer": SignerSection,
    "token": TokenSection,
    "log": LogSection,
}


def load(path: Path, environment: Mapping[str, str]) -> SignerConfig:
    """Return the configuration in ``path`` with overrides from ``environment``.

    Raises:
        ConfigError: unreadable, not TOML, an unknown key, a wrong type, or no key at all or two.
    """
    config = files.read(path, environment, SignerConfig, SECTIONS)
    if bool(config.signer.key) == bool(config.token.module):
        raise ConfigError(
            f"{path}: a signer has either [signer] key or a [token]",
            hint="name the key file, or the token's PKCS#11 module",
        )
    if config.token.module and not config.token.label:
        raise ConfigError(f"{path}: [token] needs a label: that of the token")
    user_number(config.signer.client_user)
    return config


def user_number(user: str) -> int:
    """Return the number of a user given by name or number. Raises ConfigError."""
    if user.isascii() and user.isdigit():
        return int(user)
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as error:
        raise ConfigError(
            f"client_user = {user!r} is no user of this machine",
            hint="name the user whose process the node is, as `id` shows it",
        ) from error
