"""The version of this software: in ``comity --version``, in a node's status and metrics, in files
that say who made them. Never in anything that all must agree on.

Protocols have versions of their own, ``version.minor``. Whoever speaks a version speaks all its
minor ones, and two sides use the lower of theirs: they agree on it in the handshake of TLS, by ALPN
(RFC 7301), before either has said a word of the protocol. A side without ALPN speaks minor 0.
Another version is refused in words (``docs/protocol/versions.md``).
"""

from __future__ import annotations

from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.errors import DecodeError

VERSION: Final = "0.1.0"
RELEASE_BYTES_MAX: Final = 32
"""Longest version of a release that the other side may name."""
ADVICE: Final = "upgrade the older side: docs/upgrading.md says which releases go together"
_RELEASE: Final = codec.text(RELEASE_BYTES_MAX, low=1)


def alpn(protocol: str, version: int, minor: int) -> list[str]:
    """Return what is offered in the handshake, the best first; minor 0 is what needs no offer."""
    return [f"{protocol}/{version}.{each}" for each in range(minor, 0, -1)]


def minor_of(selected: str | None) -> int:
    """Return the minor version that two sides agreed on, by what ALPN selected."""
    return 0 if selected is None else int(selected.rpartition(".")[2])


def release(value: Value, path: str) -> int:
    """The shape of a release that the other side names: printable ASCII."""
    size = _RELEASE(value, path)
    if not (value.isascii() and value.isprintable()):
        raise DecodeError("a release is named in printable ASCII", path=path)
    return size
