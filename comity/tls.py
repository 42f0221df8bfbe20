"""The client's side of TLS 1.3 towards nodes: trust exactly the certificates of the committee.

Certificates are self-signed and known from genesis, so there is no certificate authority and no
host name to check. After the handshake compare the node's key: ``check_peer_key``. The client shows
no certificate; it proves its key inside the protocol.

Not here: the server's side and links between nodes (``node.network.tls``).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, Final

import trio
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from consensus import protocol
from consensus.errors import VerificationError
from consensus.release import alpn, minor_of

_UNREADABLE: Final = (ValueError, TypeError, x509.InvalidVersion, UnsupportedAlgorithm)
"""What cryptography raises for bytes that are no certificate, or none that it knows."""


def client_context(server_certificates: Iterable[bytes]) -> ssl.SSLContext:
    """Return a TLS 1.3 context that accepts servers with one of these certificates, no others.

    Args:
        server_certificates: DER, from the committee that the caller trusts; at least one.

    Raises:
        VerificationError: one of them is not a certificate.
    """
    result = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    result.minimum_version = ssl.TLSVersion.TLSv1_3
    result.maximum_version = ssl.TLSVersion.TLSv1_3
    result.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    result.check_hostname = False
    result.verify_mode = ssl.CERT_REQUIRED
    result.set_alpn_protocols(alpn(protocol.PROTOCOL, protocol.VERSION, protocol.MINOR))
    try:
        result.load_verify_locations(cadata=b"".join(server_certificates))
    except (ssl.SSLError, ValueError) as error:
        raise VerificationError("the committee holds a malformed certificate") from error
    return result


def minor(stream: trio.abc.Stream) -> int:
    """Return the minor version of the client protocol that both sides of a stream speak."""
    if isinstance(stream, trio.SSLStream):
        return minor_of(stream.selected_alpn_protocol())
    return 0


def read_certificate(data: bytes) -> tuple[bytes, str, bytes]:
    """Return a node's certificate (DER or PEM) as DER, the name in it, and its node key.

    Raises:
        VerificationError: no certificate, of another kind of key, or without exactly one name.
    """
    load = x509.load_der_x509_certificate
    if data.lstrip().startswith(b"-----BEGIN"):
        load = x509.load_pem_x509_certificate
    try:
        found = load(data)
        key, names = found.public_key(), found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except _UNREADABLE as error:
        raise VerificationError("it is neither DER nor PEM of a certificate") from error
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationError("its key is not Ed25519")
    if len(names) != 1:
        raise VerificationError("it has not exactly one common name")
    return found.public_bytes(Encoding.DER), str(names[0].value), key.public_bytes_raw()


def check_peer_key(stream: trio.SSLStream[Any], expected_key: bytes) -> None:
    """Refuse the server of a finished handshake unless its certificate holds this node key.

    Raises:
        VerificationError: the server is another node than the one expected.
    """
    certificate = x509.load_der_x509_certificate(stream.getpeercert(binary_form=True))
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey) or key.public_bytes_raw() != expected_key:
        raise VerificationError(
            "the server is not the node that was expected at this address",
            hint="compare the address with the one in the committee that you trust",
        )
