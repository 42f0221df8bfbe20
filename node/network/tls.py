"""TLS 1.3 between nodes and towards clients, from the self-signed certificates of the committee.

Trust is a list, not a hierarchy: a context accepts exactly the certificates it is given, and the
caller then compares the Ed25519 key of the one presented with the key it expects at that place.
There is no certificate authority, no host name, no resumption (no tickets, hence no early data)
and no older version of TLS.

With TLS 1.3 a dialer's handshake may return before the acceptor has refused it (RFC 8446, §4.4.2):
only an answer on the connection shows that it was accepted. ``link.py`` asks for one.

Not here: the client's side of the client port (``comity.tls``); which peer is expected where.
"""

from __future__ import annotations

import datetime
import secrets
import ssl
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from consensus import protocol
from consensus.hashing import context
from consensus.release import alpn
from node.network import wire
from node.network.errors import CertificateUnusable, WrongPeer
from node.network.transport import TlsStream

NAME_BYTES_MAX: Final = 64
"""Longest common name of a certificate, in UTF-8. RFC 5280, appendix A.1, allows 64 characters."""

_NOT_BEFORE: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_NOT_AFTER: Final = datetime.datetime(9999, 12, 31, 23, 59, 59, tzinfo=datetime.UTC)
"""RFC 5280 §4.1.2.5: no well-defined end. A member's key ends by a committee change instead."""

_serial_hash: Final = context("certificate serial")
_UNREADABLE: Final = (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm)
"""What cryptography raises for bytes that are no certificate, or none that it knows; parts of one
are read only when they are asked for."""


@dataclass(frozen=True, slots=True)
class PeerContexts:
    """The two sides of links between members: ``dial`` out with one, ``accept`` with the other."""

    dial: ssl.SSLContext
    accept: ssl.SSLContext


def make_certificate(seed: bytes, name: str) -> bytes:
    """Return the self-signed certificate (DER) of a node key; the same inputs, the same bytes.

    Args:
        seed: the 32-byte Ed25519 seed of the node key.
        name: the agency's name, 1 to 64 bytes of UTF-8; becomes the common name.

    Raises:
        CertificateUnusable: the seed or the name has a wrong length.
    """
    key = _private_key(seed)
    if not 1 <= len(name.encode()) <= NAME_BYTES_MAX:
        raise CertificateUnusable(f"a name has 1 to {NAME_BYTES_MAX} bytes: {name!r}")
    public = key.public_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    serial = int.from_bytes(_serial_hash(public.public_bytes_raw())[:16]) >> 1 | 1
    key_id = x509.SubjectKeyIdentifier.from_public_key(public)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purposes = x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(_NOT_BEFORE)
        .not_valid_after(_NOT_AFTER)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .add_extension(key_id, critical=False)
        .sign(key, None)
    )
    return certificate.public_bytes(serialization.Encoding.DER)


def certificate_key(der: bytes) -> bytes:
    """Return the 32-byte Ed25519 public key that a certificate carries.

    Raises:
        CertificateUnusable: not a DER certificate, or its key is of another kind.
    """
    certificate = _parse(der)
    try:
        key = certificate.public_key()
    except _UNREADABLE as error:
        raise CertificateUnusable("the certificate's key cannot be read") from error
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateUnusable("the certificate's key is not Ed25519")
    return key.public_bytes_raw()


def certificate_name(der: bytes) -> str:
    """Return the common name of a certificate.

    Raises:
        CertificateUnusable: not a DER certificate, or it has not exactly one common name.
    """
    certificate = _parse(der)
    try:
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except _UNREADABLE as error:
        raise CertificateUnusable("the certificate's name cannot be read") from error
    if len(names) != 1:
        raise CertificateUnusable("a node's certificate has exactly one common name")
    return str(names[0].value)


def certificate_end_ms(der: bytes) -> int:
    """Return the moment after which a certificate is refused, milliseconds since 1970.

    Raises:
        CertificateUnusable: not a DER certificate.
    """
    return int(_parse(der).not_valid_after_utc.timestamp()) * 1000


def peer_contexts(
    own_certificate: bytes, own_seed: bytes, member_certificates: Iterable[bytes]
) -> PeerContexts:
    """Return the contexts of links between members; each side must present a member certificate.

    Args:
        own_certificate: DER, of the key that ``own_seed`` makes.
        own_seed: the 32-byte seed of the node key.
        member_certificates: DER; exactly these are trusted. At least one.

    Raises:
        CertificateUnusable: a certificate is malformed or not Ed25519, or the own one does not fit
            the seed.

    Cost: about 20 ms.
    """
    members = list(member_certificates)
    for member in members:
        certificate_key(member)
    dial = _identified(ssl.PROTOCOL_TLS_CLIENT, own_certificate, own_seed)
    accept = _identified(ssl.PROTOCOL_TLS_SERVER, own_certificate, own_seed)
    for side in (dial, accept):
        side.check_hostname = False
        side.verify_mode = ssl.CERT_REQUIRED
        side.load_verify_locations(cadata=b"".join(members))
        side.set_alpn_protocols(alpn(wire.PROTOCOL, wire.VERSION, wire.MINOR))
    return PeerContexts(dial, accept)


def client_server_context(own_certificate: bytes, own_seed: bytes) -> ssl.SSLContext:
    """Return the context of the client port: only the server shows a certificate.

    A client proves its key inside the protocol, where the proof binds the server's key too.

    Raises:
        CertificateUnusable: the certificate is malformed or does not fit the seed.
    """
    result = _identified(ssl.PROTOCOL_TLS_SERVER, own_certificate, own_seed)
    result.set_alpn_protocols(alpn(protocol.PROTOCOL, protocol.VERSION, protocol.MINOR))
    return result


def presented_certificate(stream: TlsStream) -> bytes:
    """Return the certificate (DER) the other side presented in a finished handshake.

    Raises:
        WrongPeer: it presented none.
    """
    certificate = stream.certificate()
    if certificate is None:
        raise WrongPeer("the other side presented no certificate")
    return certificate


def check_peer_key(stream: TlsStream, expected_key: bytes) -> None:
    """Refuse the other side of a finished handshake unless its certificate holds this node key.

    Raises:
        WrongPeer: another key, or no certificate.
    """
    key = certificate_key(presented_certificate(stream))
    if key != expected_key:
        raise WrongPeer(f"the other side has node key {key.hex()}, expected {expected_key.hex()}")


def _identified(method: ssl._SSLMethod, own_certificate: bytes, own_seed: bytes) -> ssl.SSLContext:
    result = ssl.SSLContext(method)
    result.minimum_version = ssl.TLSVersion.TLSv1_3
    result.maximum_version = ssl.TLSVersion.TLSv1_3
    result.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if method == ssl.PROTOCOL_TLS_SERVER:
        result.num_tickets = 0
    key = _private_key(own_seed)
    if certificate_key(own_certificate) != key.public_key().public_bytes_raw():
        raise CertificateUnusable("the node's certificate is of another key than the node key file")
    _load_identity(result, own_certificate, key)
    return result


def _load_identity(target: ssl.SSLContext, certificate: bytes, key: Ed25519PrivateKey) -> None:
    # ssl reads a key from files only. The file is private to this call and encrypted under a
    # passphrase that is never stored, so nothing readable reaches the disk even in a crash.
    passphrase = secrets.token_hex(32)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )
    with tempfile.TemporaryDirectory(prefix="comity-tls-") as folder:
        path = Path(folder, "identity.pem")
        path.touch(mode=0o600)
        path.write_bytes(ssl.DER_cert_to_PEM_cert(certificate).encode() + encrypted)
        target.load_cert_chain(path, password=passphrase)


def _private_key(seed: bytes) -> Ed25519PrivateKey:
    if len(seed) != 32:
        raise CertificateUnusable(f"the seed of a node key has 32 bytes, not {len(seed)}")
    return Ed25519PrivateKey.from_private_bytes(seed)


def _parse(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except _UNREADABLE as error:
        raise CertificateUnusable("not a certificate in DER") from error
