"""The key file's bytes: fixed vectors, and refusal of everything else."""

from __future__ import annotations

import cbor2
import nacl.bindings
import nacl.exceptions
import nacl.pwhash
import nacl.secret
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from consensus import keyfile
from consensus.errors import KeyFileError, LocalProtocolError, PassphraseError
from consensus.keyfile import KeyKind, KeyPair

# RFC 8032, section 7.1, test 1.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
KEY = KeyPair(KeyKind.VALIDATOR, PUBLIC, SEED)
SALT = bytes(range(16))
NONCE = bytes(range(24))
PASSPHRASE = "correct horse"

PLAIN = bytes.fromhex(
    "a5"
    "646b696e64" "6976616c696461746f72"
    "6473656564" "5820" + SEED.hex() +
    "656d616769636a636f6d697479206b6579"
    "667075626c6963" "5820" + PUBLIC.hex() +
    "6776657273696f6e01"
)  # fmt: skip


def sealed(key: KeyPair = KEY, passphrase: str = PASSPHRASE) -> bytes:
    return keyfile.seal(key, passphrase, salt=SALT, nonce=NONCE, operations=1, memory_kib=8)


def altered(data: bytes, **changes: object) -> bytes:
    value = cbor2.loads(data)
    value.update(changes)
    return cbor2.dumps({k: v for k, v in value.items() if v is not ...}, canonical=True)


def test_the_key_of_a_seed_is_that_of_rfc_8032() -> None:
    assert keyfile.from_seed(KeyKind.VALIDATOR, SEED) == KEY


def test_a_plain_file_has_exactly_these_bytes() -> None:
    assert keyfile.pack(KEY) == PLAIN
    assert keyfile.read(PLAIN) == KEY
    assert keyfile.read(PLAIN, "not needed") == KEY


def test_a_sealed_file_has_exactly_these_parts() -> None:
    """The same steps by PyNaCl's high-level classes and plain BLAKE3."""
    stretched = nacl.pwhash.argon2id.kdf(
        32, PASSPHRASE.encode(), SALT, opslimit=1, memlimit=8 * 1024
    )
    box_key = blake3(b"validator\0" + PUBLIC, key=stretched).digest()
    box = nacl.secret.SecretBox(box_key).encrypt(SEED, NONCE).ciphertext
    assert cbor2.loads(sealed()) == {
        "magic": "comity key",
        "version": 1,
        "kind": "validator",
        "public": PUBLIC,
        "sealed": {"salt": SALT, "nonce": NONCE, "operations": 1, "memory_kib": 8, "box": box},
    }


def test_a_sealed_file_opens_with_its_passphrase_in_any_normal_form() -> None:
    assert keyfile.read(sealed(), PASSPHRASE) == KEY
    assert keyfile.read(sealed(passphrase="Ångström"), "A\u030angstro\u0308m") == KEY


@pytest.mark.parametrize("passphrase", ["Correct horse", "correct horse ", "x"])
def test_a_wrong_passphrase_is_refused(passphrase: str) -> None:
    with pytest.raises(PassphraseError, match="does not open"):
        keyfile.read(sealed(), passphrase)


def test_a_missing_passphrase_is_refused() -> None:
    with pytest.raises(PassphraseError, match="no passphrase"):
        keyfile.read(sealed())


@pytest.mark.parametrize("passphrase", ["", "x" * 1025])
def test_a_passphrase_has_1_to_1024_bytes(passphrase: str) -> None:
    with pytest.raises(PassphraseError, match="1024"):
        sealed(passphrase=passphrase)


def test_neither_kind_nor_public_key_of_a_sealed_file_can_be_changed() -> None:
    other = keyfile.from_seed(KeyKind.NODE, bytes(32))
    for change in ({"kind": "node"}, {"public": other.public}):
        with pytest.raises(PassphraseError):
            keyfile.read(altered(sealed(), **change), PASSPHRASE)


def test_every_flip_in_a_sealed_file_is_noticed() -> None:
    data = sealed()
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1
        with pytest.raises(KeyFileError):
            keyfile.read(bytes(damaged), PASSPHRASE)


def test_every_cut_is_noticed() -> None:
    for data in (PLAIN, sealed()):
        for size in range(len(data)):
            with pytest.raises(KeyFileError):
                keyfile.read(data[:size], PASSPHRASE)


def test_a_public_key_that_is_not_the_seeds_is_refused() -> None:
    with pytest.raises(KeyFileError, match="does not belong"):
        keyfile.read(altered(PLAIN, public=bytes(32)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"magic": "comity kez"}, "not a key file"),
        ({"version": 0}, "not a key file"),
        ({"version": 2}, "version 2"),
        ({"version": 2, "new field": 1}, "version 2"),
        ({"kind": "root"}, "unknown kind"),
        ({"extra": 1}, "unknown field"),
        ({"seed": ...}, "either a seed or"),
        ({"public": ...}, "missing"),
        ({"seed": bytes(31)}, "31 bytes"),
        ({"kind": 1}, "expected text"),
    ],
)
def test_other_fields_are_refused_with_the_reason(changes: dict[str, object], words: str) -> None:
    with pytest.raises(KeyFileError, match=words):
        keyfile.read(altered(PLAIN, **changes))


def test_a_file_with_both_seed_and_sealed_seed_is_refused() -> None:
    with pytest.raises(KeyFileError, match="either a seed or"):
        keyfile.read(altered(sealed(), seed=SEED), PASSPHRASE)


@pytest.mark.parametrize(
    "change", [{"operations": 17}, {"operations": 0}, {"memory_kib": 2**20 + 1}, {"memory_kib": 7}]
)
def test_a_file_cannot_ask_for_more_work_than_the_limits(change: dict[str, int]) -> None:
    inner = {**cbor2.loads(sealed())["sealed"], **change}
    with pytest.raises(KeyFileError, match="outside"):
        keyfile.read(altered(sealed(), sealed=inner), PASSPHRASE)


@pytest.mark.parametrize("error", [MemoryError(), nacl.exceptions.RuntimeError("no memory")])
def test_work_that_this_machine_has_no_memory_for_is_told(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = sealed()

    def small(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(nacl.bindings, "crypto_pwhash_alg", small)
    with pytest.raises(KeyFileError, match="Argon2id needs") as caught:
        keyfile.read(data, PASSPHRASE)
    assert caught.value.hint == "free memory and try again"


def test_another_encoding_of_the_same_value_is_refused() -> None:
    value = cbor2.loads(PLAIN)
    unsorted = cbor2.dumps({name: value[name] for name in sorted(value, reverse=True)})
    for data in (unsorted, PLAIN + b"\0", PLAIN + b" "):
        with pytest.raises(KeyFileError):
            keyfile.read(data)


def test_a_long_file_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(KeyFileError, match="1025 bytes"):
        keyfile.read(bytes(1025))


@given(st.binary(max_size=200))
def test_rubbish_is_refused_with_the_documented_error(data: bytes) -> None:
    with pytest.raises(KeyFileError):
        keyfile.read(data, PASSPHRASE)


def test_describe_tells_kind_and_public_key_without_a_passphrase() -> None:
    plain, box = keyfile.describe(PLAIN), keyfile.describe(sealed())
    assert (plain.kind, plain.public, plain.sealed) == (KeyKind.VALIDATOR, PUBLIC, False)
    assert (box.kind, box.public, box.sealed) == (KeyKind.VALIDATOR, PUBLIC, True)


def test_the_secret_is_never_shown() -> None:
    assert SEED.hex() not in repr(KEY)
    assert repr(SEED) not in repr(KEY)


def test_wrong_lengths_of_our_own_arguments_are_our_own_bug() -> None:
    with pytest.raises(LocalProtocolError):
        keyfile.from_seed(KeyKind.CLIENT, bytes(31))
    with pytest.raises(LocalProtocolError):
        keyfile.seal(KEY, "x", salt=bytes(15), nonce=NONCE)
    with pytest.raises(LocalProtocolError):
        keyfile.seal(KEY, "x", salt=SALT, nonce=NONCE, operations=99)
    with pytest.raises(LocalProtocolError):
        keyfile.seal(KEY, "x", salt=SALT, nonce=NONCE, memory_kib=2**40)
