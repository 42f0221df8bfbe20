"""Signatures of a simulated network: keyed hashes on most seeds, real Ed25519 on some.

A stand-in signature is BLAKE2b keyed with the signer's secret, which only ``Keys`` knows: nobody
else in a simulation can make one. It has the length of a real one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache, partial
from typing import Final

import nacl.bindings

from consensus import signing
from consensus.errors import SignatureError
from consensus.keyfile import KeyKind, KeyPair

Sign = Callable[[bytes], bytes]


def seed_of(name: str) -> bytes:
    """Return the secret of a name, 32 bytes."""
    return hashlib.sha256(name.encode()).digest()


KEYS_EACH: Final = 16
"""Keys that a machine may have one after the other; none comes back."""


def key_name(index: int, key: int = 0) -> str:
    """Return the name of one of a machine's keys."""
    return f"validator {index}" + (f" key {key}" if key else "")


def node_name(index: int, key: int = 0) -> str:
    """Return the name of the node key that goes with one of a machine's keys."""
    return f"node {index}" + (f" key {key}" if key else "")


def chief(index: int) -> str:
    """Return who acts for the agency of a machine."""
    return f"chief-{index}"


@cache
def validator_key(index: int, public: bytes = b"") -> KeyPair:
    """Return the key of a machine whose public half this is, or else its first."""
    names = [key_name(index, key) for key in range(KEYS_EACH)]
    name = next((each for each in names if pair(each)[0] == public), names[0])
    return KeyPair(KeyKind.VALIDATOR, pair(name)[0], seed_of(name))


@cache
def pair(name: str) -> tuple[bytes, bytes]:
    """Return ``(public, secret)`` of a name, an Ed25519 pair."""
    seed = seed_of(name)
    public, secret = nacl.bindings.crypto_sign_seed_keypair(seed)
    return public, secret


class Keys:
    """Signs for everybody in the simulation and verifies for everybody.

    Args:
        names: who has a key.
        real: Ed25519 rather than stand-ins.
    """

    def __init__(self, names: list[str], *, real: bool) -> None:
        self._real = real
        self._secrets = dict(map(pair, names))

    def sign(self, public: bytes, signed: bytes) -> bytes:
        """Return the signature by the holder of ``public``."""
        secret = self._secrets[public]
        if self._real:
            signature: bytes = nacl.bindings.crypto_sign(signed, secret)[:64]
            return signature
        return hashlib.blake2b(signed, key=secret).digest()

    def signer(self, public: bytes) -> Sign:
        """Return what signs with one key alone: all that somebody who lies is given."""
        return partial(self.sign, public)

    def verify(self, public: bytes, signed: bytes, signature: bytes) -> None:
        """Raise SignatureError unless the signature holds."""
        if self._real:
            signing.verify(public, signed, signature)
        elif hashlib.blake2b(signed, key=self._secrets[public]).digest() != signature:
            raise SignatureError("the signature does not verify")
