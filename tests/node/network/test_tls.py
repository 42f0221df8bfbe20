"""Who is let in by TLS alone."""

from __future__ import annotations

import datetime
import ssl
import tempfile
from pathlib import Path
from typing import Any

import pytest
import trio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID

import comity.tls
from consensus.errors import VerificationError
from node.network import tls
from node.network.errors import CertificateUnusable, WrongPeer
from node.network.transport import TlsStream
from tests.node.network.harness import COMMITTEE, FOREIGNERS, contexts, sockets

A, B, C, _ = COMMITTEE
STRANGER = b"\xff" * 32
"""A seed that no member has."""


async def exchange(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, object]:
    """Shake hands and send a byte each way; return each side's stream, or the error it had."""
    left, right = await sockets()
    sides = {
        "client": TlsStream(left, client),
        "server": TlsStream(right, server, server_side=True),
    }
    result: dict[str, object] = {}

    async def talk(name: str) -> None:
        stream = sides[name]
        try:
            await stream.do_handshake()
            await stream.send_all(b"x")
            assert await stream.receive_some(1) == b"x"
            result[name] = stream
        except trio.BrokenResourceError as error:
            result[name] = error.__cause__
            await stream.aclose()  # so that the other side need not wait for a byte

    async with trio.open_nursery() as nursery:
        for name in sides:
            nursery.start_soon(talk, name)
    for stream in sides.values():
        await stream.aclose()
    return result


def refused_by_both(result: dict[str, object]) -> bool:
    return all(not isinstance(side, TlsStream) for side in result.values())


async def test_two_members_authenticate_each_other_with_tls_1_3() -> None:
    result = await exchange(contexts(A).dial, contexts(B).accept)
    client, server = result["client"], result["server"]
    assert isinstance(client, TlsStream)
    assert isinstance(server, TlsStream)
    assert client._tls.version() == server._tls.version() == "TLSv1.3"
    tls.check_peer_key(client, B.key)
    tls.check_peer_key(server, A.key)
    assert tls.presented_certificate(server) == A.certificate


async def test_a_member_at_another_members_place_is_not_taken_for_it() -> None:
    result = await exchange(contexts(A).dial, contexts(C).accept)
    client = result["client"]
    assert isinstance(client, TlsStream)
    with pytest.raises(WrongPeer, match=B.key.hex()):
        tls.check_peer_key(client, B.key)


async def test_a_certificate_of_another_network_is_refused_by_the_acceptor() -> None:
    # The stranger trusts us, so only our side can object.
    stranger = tls.peer_contexts(FOREIGNERS[0].certificate, FOREIGNERS[0].seed, [B.certificate])
    assert refused_by_both(await exchange(stranger.dial, contexts(B).accept))


async def test_a_certificate_of_another_network_is_refused_by_the_dialer() -> None:
    stranger = tls.peer_contexts(FOREIGNERS[1].certificate, FOREIGNERS[1].seed, [A.certificate])
    result = await exchange(contexts(A).dial, stranger.accept)
    assert isinstance(result["client"], ssl.SSLCertVerificationError)
    assert refused_by_both(result)


async def test_a_certificate_with_a_members_name_and_another_key_is_refused() -> None:
    forged = tls.make_certificate(STRANGER, A.name)
    stranger = tls.peer_contexts(forged, STRANGER, [B.certificate])
    assert refused_by_both(await exchange(stranger.dial, contexts(B).accept))


async def test_a_member_cannot_vouch_for_another_key() -> None:
    issuer = x509.load_der_x509_certificate(A.certificate)
    key = Ed25519PrivateKey.from_private_bytes(STRANGER)
    issued = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "guest")]))
        .issuer_name(issuer.subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC))
        .sign(Ed25519PrivateKey.from_private_bytes(A.seed), None)
        .public_bytes(serialization.Encoding.DER)
    )
    guest = tls.peer_contexts(issued, STRANGER, [B.certificate])
    assert refused_by_both(await exchange(guest.dial, contexts(B).accept))


async def test_a_dialer_without_a_certificate_is_refused() -> None:
    anonymous = comity.tls.client_context([B.certificate])
    assert refused_by_both(await exchange(anonymous, contexts(B).accept))


@pytest.mark.parametrize("old_side", ["dial", "accept"])
async def test_tls_1_2_is_refused(old_side: str) -> None:
    sides = {"dial": contexts(A).dial, "accept": contexts(B).accept}
    sides[old_side].minimum_version = ssl.TLSVersion.TLSv1_2
    sides[old_side].maximum_version = ssl.TLSVersion.TLSv1_2
    assert refused_by_both(await exchange(sides["dial"], sides["accept"]))


async def test_no_session_can_be_resumed() -> None:
    result = await exchange(contexts(A).dial, contexts(B).accept)
    client = result["client"]
    assert isinstance(client, TlsStream)
    session = client._tls.session
    assert session is not None
    assert not session.has_ticket
    assert contexts(B).accept.num_tickets == 0


def test_a_certificate_is_the_same_each_time_and_says_name_and_key() -> None:
    again = tls.make_certificate(A.seed, A.name)
    assert again == A.certificate
    assert tls.certificate_key(again) == A.key
    assert tls.certificate_name(again) == "agency-0"
    parsed = x509.load_der_x509_certificate(again)
    assert parsed.not_valid_after_utc.year == 9999
    parsed.verify_directly_issued_by(parsed)


def test_names_that_no_certificate_can_hold_are_refused() -> None:
    longest = "Ä" * 32
    assert tls.certificate_name(tls.make_certificate(A.seed, longest)) == longest
    for name in ("", "x" * 65, longest + "x"):
        with pytest.raises(CertificateUnusable):
            tls.make_certificate(A.seed, name)


def test_certificate_and_key_must_belong_together() -> None:
    with pytest.raises(CertificateUnusable, match="another key"):
        tls.peer_contexts(A.certificate, B.seed, [B.certificate])
    with pytest.raises(CertificateUnusable, match="32 bytes"):
        tls.peer_contexts(A.certificate, A.seed[:31], [B.certificate])


def test_members_with_unusable_certificates_are_refused() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "curve")])
    other = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime.datetime(2021, 1, 1, tzinfo=datetime.UTC))
        .not_valid_after(datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    with pytest.raises(CertificateUnusable, match="not Ed25519"):
        tls.peer_contexts(A.certificate, A.seed, [other])
    for broken in (b"", b"\x30", A.certificate[:-1], A.certificate + b"\0"):
        with pytest.raises(CertificateUnusable, match="DER"):
            tls.peer_contexts(A.certificate, A.seed, [broken])


def test_the_node_key_never_lies_readable_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, bytes]] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, path: Path, **kwargs: object) -> None:
        seen.append(
            (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777, path.read_bytes())
        )
        load(self, path, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    tls.client_server_context(A.certificate, A.seed)
    [(file_mode, folder_mode, content)] = seen
    assert (file_mode, folder_mode) == (0o600, 0o700)
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in content
    assert A.seed not in content
    assert list(tmp_path.iterdir()) == []


async def test_a_client_recognises_the_node_it_meant() -> None:
    server = tls.client_server_context(B.certificate, B.seed)
    client = comity.tls.client_context([m.certificate for m in COMMITTEE])
    result = await exchange(client, server)
    stream = result["client"]
    assert isinstance(stream, TlsStream)
    presented: Any = stream._tls
    comity.tls.check_peer_key(presented, B.key)
    with pytest.raises(VerificationError, match="not the node"):
        comity.tls.check_peer_key(presented, A.key)


async def test_a_client_refuses_a_server_outside_the_committee() -> None:
    server = tls.client_server_context(FOREIGNERS[1].certificate, FOREIGNERS[1].seed)
    client = comity.tls.client_context([m.certificate for m in COMMITTEE])
    result = await exchange(client, server)
    assert isinstance(result["client"], ssl.SSLCertVerificationError)


@pytest.mark.parametrize("certificates", [[], [b""], [b"no certificate"]])
def test_a_client_needs_readable_certificates(certificates: list[bytes]) -> None:
    with pytest.raises(VerificationError):
        comity.tls.client_context(certificates)
