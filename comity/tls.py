"""The client's side of TLS 1.3 towards nodes: trust exactly the certificates of the committee.

Certificates are self-signed and known from genesis, so there is no certificate authority and no
host name to check. After the handshake compare the node's key: ``check_peer_key``. The client shows
no certificate; it proves its key inside the protocol.

Not here: the server's side and links between nodes (``node.network.tls``).
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from consensus.errors import VerificationError


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
    try:
        result.load_verify_locations(cadata=b"".join(server_certificates))
    except (ssl.SSLError, ValueError) as error:
        raise VerificationError("the committee holds a malformed certificate") from error
    return result


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
