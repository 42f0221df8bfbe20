"""Who an operator's folder of certificates admits: a file that cannot be used admits nobody, and no
file keeps others out or stops the node.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import structlog
import trio

from consensus.errors import ComityError
from node.network.errors import CertificateUnusable
from node.network.tls import certificate_key, certificate_name, make_certificate, peer_contexts
from node.observers import CERTIFICATE_BYTES_MAX, LOOK_SECONDS, Admissions

GOOD = make_certificate(b"g" * 32, "watcher")
OWN = make_certificate(b"o" * 32, "registry")
ED25519 = bytes.fromhex("300506032b6570")
NAME = b"\x0c\x07watcher"


def in_key(wrong: str) -> bytes:
    """The certificate with another algorithm in its key alone."""
    head, before, after, tail = GOOD.split(ED25519)
    return head + ED25519 + before + bytes.fromhex(wrong) + after + ED25519 + tail


UNREADABLE = {
    "rubbish": b"-----BEGIN nothing",
    "empty": b"",
    "cut short": GOOD[:-1],
    "longer": GOOD + b"\0",
    "version 2": GOOD.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020101")),
    "unknown algorithm": in_key("300506032b6579"),
    "another curve's key": in_key("300506032b6571"),
    "a name that is bits": GOOD.replace(NAME, b"\x03" + NAME[1:]),
    "a name of no kind": GOOD.replace(NAME, b"\0" + NAME[1:]),
    "a name that is no text": GOOD.replace(NAME, b"\x0c\x07watch\xff\xff"),
}


@pytest.mark.parametrize("data", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_certificate_of_a_node_is_refused_in_words(data: bytes) -> None:
    assert data != GOOD
    with pytest.raises(ComityError):
        _ = certificate_name(data), certificate_key(data)


def test_a_file_that_cannot_be_used_admits_nobody_and_keeps_nobody_out(tmp_path: Path) -> None:
    def accept(certificates: list[bytes]) -> ssl.SSLContext:
        return peer_contexts(OWN, b"o" * 32, certificates).accept

    for number, data in enumerate([*UNREADABLE.values(), bytes(CERTIFICATE_BYTES_MAX + 1)]):
        (tmp_path / f"{number}.crt").write_bytes(data)

    async def look() -> None:
        admissions = Admissions(tmp_path, accept)
        with structlog.testing.capture_logs() as told:
            assert admissions() is None
            (tmp_path / "good.crt").write_bytes(GOOD)
            (tmp_path / "text.crt").write_text(ssl.DER_cert_to_PEM_cert(GOOD))
            admissions._looked -= LOOK_SECONDS
            admitted = admissions()
        assert admitted is not None
        assert [each.name for each in admitted.guests.values()] == ["watcher"]
        refused = {row["file"] for row in told if row["event"] == "no certificate of an observer"}
        assert refused == {f"{number}.crt" for number in range(len(UNREADABLE) + 1)}

    trio.run(look)


def test_a_certificate_that_tls_cannot_load_is_refused_before_anybody_connects() -> None:
    with pytest.raises((CertificateUnusable, ssl.SSLError)):
        peer_contexts(OWN, b"o" * 32, [UNREADABLE["unknown algorithm"]])
