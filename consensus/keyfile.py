"""The key file: one Ed25519 key of one use, plain or sealed under a passphrase. Pure functions.

A canonical CBOR map (RFC 8949 §4.2.1):

    {"magic": "comity key", "version": 1, "kind": "validator"|"node"|"client"|"vault",
     "public": 32 bytes, "seed": 32 bytes}                    plain
    {…, "sealed": {"salt": 16, "nonce": 24, "operations": int, "memory_kib": int, "box": 48}}

Sealing: Argon2id 1.3 over the passphrase's NFC UTF-8 gives 32 bytes; BLAKE3 keyed with them over
``kind ‖ 0 ‖ public`` gives the key of a libsodium secretbox over the seed. So neither kind nor
public key of a sealed file can be changed unnoticed. Source: RFC 9106; libsodium ``crypto_pwhash``.

A vault's seed is not an Ed25519 secret but the key that a node's sealed values are encrypted under;
``public``, made of it in the same way, only tells one from another. Plain, it may also be text: the
line ``comity sealed key 1`` and one of 64 hexadecimal digits, which is what a node makes.

Not here: files, permissions, asking for passphrases, and randomness (an argument).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import nacl.bindings as sodium
import nacl.exceptions

from consensus import codec, hashing
from consensus.errors import DecodeError, KeyFileError, PassphraseError, invariant

MAGIC: Final = "comity key"
VERSION: Final = 1
VAULT_HEAD: Final = b"comity sealed key 1\n"
FILE_BYTES_MAX: Final = 1024
SEED_BYTES: Final = 32
SALT_BYTES: Final = 16
NONCE_BYTES: Final = 24
BOX_BYTES: Final = SEED_BYTES + 16
PASSPHRASE_BYTES_MAX: Final = 1024
OPERATIONS: Final = 3
"""Argon2id passes for new files (libsodium's "moderate")."""
MEMORY_KIB: Final = 256 * 2**10
OPERATIONS_MAX: Final = 16
MEMORY_KIB_MIN: Final = 8
MEMORY_KIB_MAX: Final = 2**20
"""A file that asks for more is refused, so that a planted one cannot exhaust the machine."""


class KeyKind(StrEnum):
    """What a key is for; a key of one kind is refused where another is needed."""

    VALIDATOR = "validator"
    NODE = "node"
    CLIENT = "client"
    VAULT = "vault"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key. ``seed`` is the secret (RFC 8032) and is never shown by repr."""

    kind: KeyKind
    public: bytes
    seed: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """What a key file says without a passphrase."""

    kind: KeyKind
    public: bytes
    sealed: bool


_HEAD: Final[dict[str, codec.Shape]] = {
    "magic": codec.text(64),
    "version": codec.count,
    "kind": codec.text(32),
    "public": codec.bytes32,
}
_SEALED: Final = codec.mapping(
    {
        "salt": codec.octets(SALT_BYTES),
        "nonce": codec.octets(NONCE_BYTES),
        "operations": codec.integer(1, OPERATIONS_MAX),
        "memory_kib": codec.integer(MEMORY_KIB_MIN, MEMORY_KIB_MAX),
        "box": codec.octets(BOX_BYTES),
    }
)
_FILE: Final = codec.mapping(
    {**_HEAD, "seed": codec.bytes32, "sealed": _SEALED}, absent_ok=frozenset({"seed", "sealed"})
)


def other_kind(where: object, found: KeyKind, needed: KeyKind) -> str:
    """Return what is wrong with a key file that holds a key of another kind."""
    return f"{where} holds a {found} key, a {needed} key is needed"


def from_seed(kind: KeyKind, seed: bytes) -> KeyPair:
    """Return the key of a 32-byte ``seed``, which must come from the system's generator."""
    invariant(len(seed) == SEED_BYTES, "a seed has 32 bytes")
    public, _secret = sodium.crypto_sign_seed_keypair(seed)
    return KeyPair(kind, public, seed)


def pack(key: KeyPair) -> bytes:
    """Return the bytes of a plain key file."""
    return codec.encode({**_head(key), "seed": key.seed})


def seal(
    key: KeyPair,
    passphrase: str,
    *,
    salt: bytes,
    nonce: bytes,
    operations: int = OPERATIONS,
    memory_kib: int = MEMORY_KIB,
) -> bytes:
    """Return the bytes of a sealed key file.

    Args:
        key: what to seal.
        passphrase: not empty, at most 1,024 bytes of UTF-8.
        salt: 16 random bytes, never used before.
        nonce: 24 random bytes, never used before.
        operations: Argon2id passes, 1 to 16.
        memory_kib: Argon2id memory in KiB, 8 to 2^20.

    Raises:
        PassphraseError: empty or too long.
        KeyFileError: the machine cannot give that much memory.

    Cost: about 0.5 s and 256 MiB with the defaults.
    """
    invariant(len(salt) == SALT_BYTES and len(nonce) == NONCE_BYTES, "salt 16, nonce 24 bytes")
    invariant(1 <= operations <= OPERATIONS_MAX, "Argon2id operations out of range")
    invariant(MEMORY_KIB_MIN <= memory_kib <= MEMORY_KIB_MAX, "memory out of range")
    box_key = _box_key(key.kind, key.public, passphrase, salt, operations, memory_kib)
    sealed = {
        "salt": salt,
        "nonce": nonce,
        "operations": operations,
        "memory_kib": memory_kib,
        "box": sodium.crypto_secretbox_easy(key.seed, nonce, box_key),
    }
    return codec.encode({**_head(key), "sealed": sealed})


def describe(data: bytes) -> KeyInfo:
    """Return what a key file says openly. Raises KeyFileError if it is not one."""
    value = _decode(data)
    return KeyInfo(KeyKind(value["kind"]), value["public"], "sealed" in value)


def read(data: bytes, passphrase: str | None = None) -> KeyPair:
    """Return the key in a key file.

    Args:
        data: the file's bytes.
        passphrase: needed if the file is sealed, ignored otherwise.

    Raises:
        PassphraseError: the file is sealed, and the passphrase is missing or wrong (or the box
            was damaged: the two cannot be told apart).
        KeyFileError: not a key file, of a newer version, or its public key is not its seed's.
    """
    value = _decode(data)
    kind, public = KeyKind(value["kind"]), value["public"]
    seed = value.get("seed")
    if seed is None:
        if passphrase is None:
            raise PassphraseError("the key file is sealed and no passphrase was given")
        sealed = value["sealed"]
        box_key = _box_key(
            kind, public, passphrase, sealed["salt"], sealed["operations"], sealed["memory_kib"]
        )
        try:
            seed = sodium.crypto_secretbox_open_easy(sealed["box"], sealed["nonce"], box_key)
        except nacl.exceptions.CryptoError as error:
            raise PassphraseError("the passphrase does not open the key file") from error
    key = from_seed(kind, seed)
    if key.public != public:
        raise KeyFileError("the public key in the file does not belong to its secret")
    return key


def passphrase_in(data: bytes) -> str:
    """Return the passphrase in a file's bytes: its one line of UTF-8, without the line's end.

    Raises:
        PassphraseError: nothing, too much, several lines, or not UTF-8.
    """
    line = data.removesuffix(b"\n").removesuffix(b"\r")
    if not 1 <= len(line) <= PASSPHRASE_BYTES_MAX or b"\n" in line:
        raise PassphraseError(f"a passphrase is one line of 1 to {PASSPHRASE_BYTES_MAX} bytes")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        raise PassphraseError("the passphrase is not UTF-8") from error


def _head(key: KeyPair) -> dict[str, codec.Value]:
    return {"magic": MAGIC, "version": VERSION, "kind": key.kind.value, "public": key.public}


def _vault(data: bytes) -> dict[str, codec.Value]:
    """Return the text form of a vault's key as the map that it stands for."""
    digits = data.removeprefix(VAULT_HEAD).removesuffix(b"\n")
    if not re.fullmatch(b"[0-9a-f]{64}", digits):
        raise KeyFileError("not the one line of 64 hexadecimal digits that a sealed key is")
    key = from_seed(KeyKind.VAULT, bytes.fromhex(digits.decode("ascii")))
    return {**_head(key), "seed": key.seed}


def _decode(data: bytes) -> dict[str, codec.Value]:
    if data.startswith(VAULT_HEAD):
        return _vault(data)
    try:
        version = _version(data)
        if version > VERSION:
            raise KeyFileError(
                f"key file version {version}, this software knows {VERSION}",
                hint="use the version of the software that wrote it, or a newer one",
            )
        value: dict[str, codec.Value] = codec.decode(
            data, _FILE, bytes_max=FILE_BYTES_MAX, what="key file"
        )
    except DecodeError as error:
        raise KeyFileError(error.message) from error
    if value["magic"] != MAGIC or value["version"] != VERSION:
        raise KeyFileError("not a key file")
    if value["kind"] not in {kind.value for kind in KeyKind}:
        raise KeyFileError(f"unknown kind of key {value['kind']!r}")
    if ("seed" in value) == ("sealed" in value):
        raise KeyFileError("a key file holds either a seed or a sealed seed")
    return value


def _version(data: bytes) -> int:
    """Return the version of anything that looks like a key file, else 0."""
    if len(data) > FILE_BYTES_MAX:
        raise DecodeError(f"{len(data)} bytes, at most {FILE_BYTES_MAX} allowed", path="key file")
    value = codec.parse(data, "key file")
    if type(value) is not dict or value.get("magic") != MAGIC:
        return 0
    version = value.get("version")
    return version if type(version) is int else 0


def _box_key(
    kind: KeyKind, public: bytes, passphrase: str, salt: bytes, operations: int, memory_kib: int
) -> bytes:
    secret = unicodedata.normalize("NFC", passphrase).encode()
    if not 1 <= len(secret) <= PASSPHRASE_BYTES_MAX:
        raise PassphraseError(f"a passphrase has 1 to {PASSPHRASE_BYTES_MAX} bytes")
    try:
        stretched = sodium.crypto_pwhash_alg(
            32, secret, salt, operations, memory_kib * 1024, sodium.crypto_pwhash_ALG_ARGON2ID13
        )
    except (nacl.exceptions.CryptoError, MemoryError) as error:
        raise KeyFileError(
            f"Argon2id needs {memory_kib} KiB of memory: {error}",
            hint="free memory and try again",
        ) from error
    return hashing.keyed(stretched)(kind.value.encode() + b"\0" + public)
