"""Certificates are read without a library, and what is taken, a TLS library loads."""

from __future__ import annotations

import contextlib
import datetime
import random
import ssl
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from consensus import certificate
from consensus.errors import DecodeError, SignatureError
from node.network.tls import make_certificate

SEED = bytes(range(32))
KEY = Ed25519PrivateKey.from_private_bytes(SEED)
PUBLIC = KEY.public_key().public_bytes_raw()
DER = make_certificate(SEED, "Behörde für Straßen")
BEGIN = datetime.datetime(2026, 2, 28, 23, 59, 58, tzinfo=datetime.UTC)


def made(
    begin: datetime.datetime = BEGIN,
    end: datetime.datetime | None = None,
    issuer: str | None = None,
    signer: Any = KEY,
    algorithm: Any = None,
    public: Any = None,
    name: str = "audit",
) -> bytes:
    """Return a certificate that the library makes."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer or name)])
    end = end or begin + datetime.timedelta(days=400)
    built = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(by)
        .public_key(public or KEY.public_key()).serial_number(77)
        .not_valid_before(begin).not_valid_after(end).sign(signer, algorithm)
    )  # fmt: skip
    return built.public_bytes(Encoding.DER)


def loads(data: bytes) -> None:
    """Load a certificate as nodes and clients do; raises where they would."""
    found = x509.load_der_x509_certificate(data)
    assert found.public_key().public_bytes_raw() == PUBLIC  # type: ignore[union-attr]
    ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=data)


def test_a_node_certificate_says_its_key_and_has_no_end() -> None:
    found = certificate.decode(DER)
    theirs = x509.load_der_x509_certificate(DER)
    assert found.key == PUBLIC
    assert found.from_ms == theirs.not_valid_before_utc.timestamp() * 1000
    assert found.until_ms == 253_402_300_799_000


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (BEGIN, datetime.datetime(2028, 2, 29, tzinfo=datetime.UTC)),
        (datetime.datetime(1999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC), None),
        (BEGIN, datetime.datetime(2049, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)),
        (BEGIN, datetime.datetime(2050, 1, 1, tzinfo=datetime.UTC)),
        (BEGIN, datetime.datetime(2400, 2, 29, tzinfo=datetime.UTC)),
    ],
)
def test_times_are_those_that_the_library_wrote(
    begin: datetime.datetime, end: datetime.datetime | None
) -> None:
    data = made(begin, end)
    found, theirs = certificate.decode(data), x509.load_der_x509_certificate(data)
    assert found.from_ms == theirs.not_valid_before_utc.timestamp() * 1000
    assert found.until_ms == theirs.not_valid_after_utc.timestamp() * 1000


def test_other_keys_other_signers_and_other_issuers_are_refused() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(SignatureError):
        certificate.decode(made(signer=other))
    with pytest.raises(DecodeError, match="self-signed"):
        certificate.decode(made(issuer="somebody"))
    curve = ec.generate_private_key(ec.SECP256R1())
    with pytest.raises(DecodeError):
        certificate.decode(made(signer=curve, algorithm=hashes.SHA256()))
    with pytest.raises(DecodeError):
        certificate.decode(made(public=curve.public_key()))


def test_what_is_cut_short_or_longer_is_refused() -> None:
    for data in (b"", DER[:-1], DER + b"\0", b"\x30\x80" + DER[4:], DER * 10, bytes(5000)):
        with pytest.raises(DecodeError):
            certificate.decode(data)
    for at in range(0, len(DER), 7):
        with pytest.raises(DecodeError):
            certificate.decode(DER[:at])


def resigned(tbs: bytes) -> bytes:
    """Return a certificate over any bytes, signed by the key itself."""
    body = tbs + bytes.fromhex("300506032b6570") + b"\x03\x41\x00" + KEY.sign(tbs)
    return b"\x30\x82" + len(body).to_bytes(2, "big") + body


def test_names_are_texts_of_their_kind() -> None:
    name = b"Office a-b of the register and of records"
    plain = x509.load_der_x509_certificate(made(name=name.decode())).tbs_certificate_bytes
    utf8, printable = (bytes([tag, len(name)]) + name for tag in (0x0C, 0x13))
    assert plain.count(utf8) == 2
    assert certificate.decode(resigned(plain.replace(utf8, printable))).key == PUBLIC
    for text, written, said in (
        (b"a_b", printable, "a name is not text"),
        (b"a\x07b", printable, "a name is not text"),
        (b"a\x07b", utf8, "control characters"),
    ):
        data = plain.replace(utf8, written.replace(b"a-b", text))
        with pytest.raises(DecodeError, match=said):
            certificate.decode(resigned(data))


def test_extensions_that_are_there_are_not_empty() -> None:
    plain = x509.load_der_x509_certificate(made(name="a" * 40)).tbs_certificate_bytes
    assert plain[:2] == b"\x30\x81"
    one = b"\xa3\x0b\x30\x09\x30\x07\x06\x03\x55\x1d\x0e\x04\x00"
    for extensions, said in ((b"\xa3\x02\x30\x00", "extensions are empty"), (one, "")):
        body = plain[3:] + extensions
        data = resigned(b"\x30\x81" + bytes([len(body)]) + body)
        if said:
            with pytest.raises(DecodeError, match=said):
                certificate.decode(data)
        else:
            assert certificate.decode(data).key == PUBLIC


def test_what_is_taken_a_tls_library_loads_whatever_its_maker_wrote() -> None:
    """One that nodes could not load would keep them from beginning an epoch."""
    dice = random.Random(7)
    plain = x509.load_der_x509_certificate(DER).tbs_certificate_bytes
    certificate.decode(resigned(plain))
    with contextlib.suppress(ssl.SSLError):  # what others have left in OpenSSL's queue of errors
        loads(DER)
    taken = 0
    for _ in range(1500):
        tbs = bytearray(plain)
        for _ in range(dice.randint(1, 3)):
            at = dice.randrange(4, len(tbs))
            kind = dice.randrange(3)
            if kind == 0:
                tbs[at] = dice.randrange(256)
            elif kind == 1:
                tbs[at] ^= 1 << dice.randrange(8)
            else:
                tbs[at] = dice.choice((0, 0x80, 0xFF, 0x0C, 0x13, 0x30))
        data = resigned(bytes(tbs))
        try:
            found = certificate.decode(data)
        except (DecodeError, SignatureError):
            continue
        taken += 1
        assert found.key == PUBLIC
        loads(data)
    assert taken > 50
