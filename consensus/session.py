"""How a client's connection begins: versions, hello, and the proof of a key.

The node's greeting comes first (``answers.Greeting``). Version 1 with minor 0 is what everybody
speaks who says nothing of it in the handshake of TLS; see ``release``.

Not here: the other requests (``protocol``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from consensus import codec
from consensus.codec import Value
from consensus.release import release
from consensus.signing import TAG_SESSION, message

VERSION: Final = 1
MINOR: Final = 1
"""From minor 1 on greeting and hello name the sender's release (``consensus.release``)."""
PROTOCOL: Final = "comity-client"

_KEY_PROOF: Final = codec.array(codec.bytes32, codec.bytes64)
_ITEMS: Final = (codec.integer(0), codec.bytes32, codec.optional(_KEY_PROOF))
_WITHOUT: Final = codec.array(*_ITEMS)
_WITH_RELEASE: Final = codec.array(*_ITEMS, release)


@dataclass(frozen=True, slots=True)
class Hello:
    """First request of a connection. ``signature`` is of ``key`` over ``session_message``.

    Of another ``version`` nothing else is known. ``release`` is empty where minor 0 is spoken.
    """

    version: int
    chain: bytes
    key: bytes | None = None
    signature: bytes | None = None
    release: str = ""

    def to_value(self) -> Value:
        """Return the params."""
        proof = None if self.key is None else [self.key, self.signature]
        items = [self.version, self.chain, proof]
        return [*items, self.release] if self.release else items


def hello_params(value: Value, path: str) -> int:
    """The shape of hello's params; those of another version are refused by that, not by shape."""
    if _other_version(value):
        return codec.plain(value, path)
    named = type(value) is list and len(value) > len(_ITEMS)
    return (_WITH_RELEASE if named else _WITHOUT)(value, path)


def read_hello(params: Value) -> Hello:
    """Return the hello of params that have its shape."""
    if _other_version(params):
        return Hello(params[0], b"")
    version, chain, proof, *named = params
    key, signature = proof or (None, None)
    return Hello(version, chain, key, signature, *named)


def _other_version(params: Value) -> bool:
    if type(params) is not list or not params or type(params[0]) is not int:
        return False
    return params[0] != VERSION


def session_message(chain: bytes, node_key: bytes, nonce: bytes, key: bytes) -> bytes:
    """Return what a client signs to prove ``key`` on a connection to the node of ``node_key``.

    The nonce is the server's, fresh for the connection; the node key keeps a server from passing
    the proof on to another.
    """
    return message(TAG_SESSION, chain, node_key + nonce + key)
