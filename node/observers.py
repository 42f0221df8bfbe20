"""Who may connect at a member's door for observers: the certificates in one folder.

The folder is looked at again when somebody connects and while observers are connected, so adding a
file admits a node, and removing it ends its link, without a restart. A file that is no certificate
admits nobody, and is told of in the log once.

Not here: what observers may take (``node.network.guests``), and making certificates.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog
import trio

from consensus.errors import ComityError
from node.config import OBSERVERS_MAX, Config, split_address
from node.network.guests import Admitted, Guest, ObserverDoor
from node.network.link import LinkLimits
from node.network.outbound import QueueLimits
from node.network.pace import Pace
from node.network.tls import certificate_key, certificate_name, peer_contexts
from node.network.wire import Class

PATTERN: Final = "*.crt"
CERTIFICATE_BYTES_MAX: Final = 8192
LOOK_SECONDS: Final = 0.5
"""The folder is looked at no more often than this."""
CONSENSUS_QUEUE_FRAMES_MAX: Final = 256
CONSENSUS_QUEUE_BYTES_MAX: Final = 4 * 2**20
SYNC_QUEUE_FRAMES_MAX: Final = 32
SYNC_QUEUE_BYTES_MAX: Final = 12 * 2**20
QUEUES: Final = {
    Class.CONSENSUS: QueueLimits(CONSENSUS_QUEUE_FRAMES_MAX, CONSENSUS_QUEUE_BYTES_MAX),
    Class.BATCH: QueueLimits(frames_max=1, bytes_max=1),
    Class.SYNC: QueueLimits(SYNC_QUEUE_FRAMES_MAX, SYNC_QUEUE_BYTES_MAX),
}
"""What may wait for one observer. No batch is ever pushed to one."""

Known = tuple[tuple[str, int, int], ...]


class Admissions:
    """The certificates in a folder.

    Args:
        folder: need not exist.
        accept: returns the context that trusts some certificates (DER).
    """

    def __init__(self, folder: Path, accept: Callable[[list[bytes]], ssl.SSLContext]) -> None:
        self._folder = folder
        self._accept = accept
        self._log = structlog.get_logger()
        self._seen: Known | None = None
        self._looked = float("-inf")
        self._admitted: Admitted | None = None

    def __call__(self) -> Admitted | None:
        """Return who is admitted now; None: nobody. Cost: 20 ms after a change."""
        now = trio.current_time()
        if now - self._looked >= LOOK_SECONDS:
            self._looked = now
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._admitted = self._read(seen)
        return self._admitted

    def _look(self) -> Known:
        found = []
        for path in sorted(self._folder.glob(PATTERN))[:OBSERVERS_MAX]:
            try:
                stat = path.stat()
            except OSError:  # it has just gone
                continue
            found.append((path.name, stat.st_mtime_ns, stat.st_size))
        return tuple(found)

    def _read(self, seen: Known) -> Admitted | None:
        guests: dict[bytes, Guest] = {}
        certificates: list[bytes] = []
        for name, _, size in seen:
            try:
                guest, certificate = read_certificate(self._folder / name, size)
            except (ComityError, OSError) as error:
                self._log.warning("no certificate of an observer", file=name, reason=str(error))
                continue
            guests[guest.node_key] = guest
            certificates.append(certificate)
        self._log.info("observers admitted", names=sorted(each.name for each in guests.values()))
        if not guests:
            return None
        return Admitted(self._accept(certificates), guests, tuple(certificates))


def read_certificate(path: Path, size: int) -> tuple[Guest, bytes]:
    """Return whom a certificate file admits, and the certificate (DER). PEM and DER are read.

    Raises:
        ComityError: it is no certificate of an Ed25519 key with one name.
        OSError: it cannot be read, or TLS cannot load it.
    """
    if size > CERTIFICATE_BYTES_MAX:
        raise ComityError(f"{size} bytes are no certificate")
    data = path.read_bytes()
    if data.lstrip().startswith(b"-----BEGIN"):
        try:
            data = ssl.PEM_cert_to_DER_cert(data.decode("ascii"))
        except ValueError as error:
            raise ComityError(f"not a certificate in PEM: {error}") from error
    guest = Guest(certificate_name(data), certificate_key(data))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=data)
    return guest, data


def observer_door(config: Config, certificate: bytes, seed: bytes) -> ObserverDoor | None:
    """Return a member's door for observers as configured; None: it has none.

    Args:
        certificate, seed: of this node.
    """
    section = config.observers
    if not section.listen:
        return None
    host, port = split_address(section.listen, "observers.listen")
    limits = LinkLimits(queues=QUEUES, pace=Pace(section.bytes_per_second_max))
    return ObserverDoor(
        listen_host=host,
        listen_port=port,
        admitted=Admissions(
            config.path(section.folder),
            lambda certificates: peer_contexts(certificate, seed, certificates).accept,
        ),
        limits=limits,
        connections_max=section.connections_max,
    )
