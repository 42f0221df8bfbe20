"""Ed25519 over domain-tagged, chain-bound messages. Verification only; keys live elsewhere.

Every signature is over ``tag ‖ chain ‖ body``. A tag is ASCII and ends in a zero byte, so no tag
is a prefix of another and a signature of one kind never verifies as another kind.
Source: RFC 8032 with libsodium's strict checks (canonical S, no small-order key or R).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import nacl.bindings
import nacl.exceptions

from consensus.errors import SignatureError

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEYS_KEPT: Final = 1024
"""Public keys of which is kept whether they are valid."""

TAG_PROPOSAL: Final = b"comity proposal\0"
TAG_VOTE: Final = b"comity vote\0"
TAG_TIMEOUT: Final = b"comity timeout\0"
TAG_COMMIT_VOTE: Final = b"comity commit vote\0"
TAG_TRANSACTION: Final = b"comity transaction\0"
TAG_GROUP: Final = b"comity group\0"
TAG_SESSION: Final = b"comity session\0"
TAG_LINK: Final = b"comity link\0"
TAG_DELIVERY: Final = b"comity delivery\0"
TAG_BUNDLE: Final = b"comity bundle\0"
TAG_MEMBER: Final = b"comity member\0"

_open = nacl.bindings.crypto_sign_open
_valid_point = nacl.bindings.crypto_core_ed25519_is_valid_point


def message(tag: bytes, chain: bytes, body: bytes) -> bytes:
    """Return the exact bytes that are signed."""
    return tag + chain + body


def verify(key: bytes, signed: bytes, signature: bytes) -> None:
    """Check ``signature`` of ``key`` over ``signed`` (from ``message``).

    Raises:
        SignatureError: wrong length, weak key, or the signature does not verify.

    Cost: about 60 µs.
    """
    if len(key) != KEY_BYTES or len(signature) != SIGNATURE_BYTES:
        raise SignatureError("a key has 32 bytes and a signature 64")
    try:
        _open(signature + signed, key)
    except nacl.exceptions.BadSignatureError as error:
        raise SignatureError("the signature does not verify") from error


def check_key(key: bytes) -> None:
    """Refuse a public key that is no canonical point of the prime-order group.

    Raises:
        SignatureError: the key may not be registered.
    """
    if len(key) != KEY_BYTES or not _may_sign(key):
        raise SignatureError("not a valid Ed25519 public key")


@lru_cache(maxsize=KEYS_KEPT)
def _may_sign(key: bytes) -> bool:
    """The same keys come with every genesis file, committee and receipt that is read."""
    return bool(_valid_point(key))
