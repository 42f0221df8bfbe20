"""Which nodes a client uses: members of the committee by name, observers by their certificates.

    treasury                        where the committee says that it listens
    treasury=10.1.0.4:7401          at another address, as through a tunnel
    court.crt=10.20.0.9:7401        an observer: the file of its node's certificate, and its address

No committee names an observer, so the client is told its certificate. It needs no more trust than
a member's: whatever it answers is proved against the committee.

Not here: which of them is asked next (``pool``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from comity import tls
from comity.errors import DraftError
from comity.session import Server
from consensus.committee import Committee, parse_address
from consensus.errors import VerificationError

CERTIFICATE_SUFFIX: Final = ".crt"
CERTIFICATE_BYTES_MAX: Final = 8192


def servers_of(committee: Committee) -> tuple[Server, ...]:
    """Return where the nodes of a committee listen for clients."""
    return tuple(
        Server(v.agency, v.client_host, v.client_port, v.node_key, v.certificate)
        for v in committee.validators
    )


def observer(certificate: bytes, host: str, port: int) -> Server:
    """Return the server of an observer, to be named among the ``servers`` of a client.

    Args:
        certificate: of its node, DER or PEM.
        host, port: where it listens for clients.

    Raises:
        DraftError: it is no certificate of a node.
    """
    try:
        der, name, node_key = tls.read_certificate(certificate)
    except VerificationError as error:
        raise DraftError(
            f"this is no certificate of a node: {error.message}",
            hint="ask the observer's operator for its .crt file",
        ) from error
    return Server(f"{name}@{host}:{port}", host, port, node_key, der, votes=False)


def joined_later(committee: Committee, wanted: Sequence[str | Server] | None) -> tuple[str, ...]:
    """Return names in ``wanted`` that are no member of the first committee, and no observer."""
    first = {each.agency for each in committee.validators}
    names = [each.partition("=")[0] for each in wanted or () if isinstance(each, str)]
    return tuple(
        each for each in names if each not in first and not each.endswith(CERTIFICATE_SUFFIX)
    )


def choose_servers(
    committees: Sequence[Committee], wanted: Sequence[str | Server] | None
) -> tuple[Server, ...]:
    """Return servers in the order of ``wanted``, each once; None: all of the last committee.

    Args:
        committees: whose members may be named; of a member of several the last one counts.

    Raises:
        DraftError: an agency without a node in a committee, a malformed address, or a file that
            is no certificate.
    """
    known = {server.agency: server for each in committees for server in servers_of(each)}
    if wanted is None:
        return servers_of(committees[-1])
    chosen: dict[str, Server] = {}
    for each in wanted:
        server = each if isinstance(each, Server) else _chosen(known, each)
        chosen.setdefault(server.agency, server)
    return tuple(chosen.values())


def _chosen(known: dict[str, Server], word: str) -> Server:
    name, _, address = word.partition("=")
    if name.endswith(CERTIFICATE_SUFFIX):
        return _observer(known, name, address)
    server = known.get(name)
    if server is None:
        raise DraftError(
            f"no agency {name!r} has a node in the committee",
            hint=f"the members are {', '.join(known)}; an observer is named by its certificate, "
            "as court.crt=host:port",
        )
    if not address:
        return server
    host, port = _split(address, "name")
    return replace(server, host=host, port=port)


def _observer(known: dict[str, Server], name: str, address: str) -> Server:
    if not address:
        raise DraftError(
            f"{name} says nothing of where that observer listens", hint=f"write {name}=host:port"
        )
    host, port = _split(address, name)
    try:
        with Path(name).open("rb") as file:
            data = file.read(CERTIFICATE_BYTES_MAX + 1)
    except OSError as error:
        raise DraftError(
            f"cannot read the certificate {name}: {error.strerror}",
            hint="name the file, and its folder if it is elsewhere",
        ) from error
    if len(data) > CERTIFICATE_BYTES_MAX:
        raise DraftError(
            f"{name} is too long for a certificate",
            hint="ask the observer's operator for its .crt file",
        )
    found = observer(data, host, port)
    for member in known.values():
        if member.certificate == found.certificate:
            return replace(member, host=host, port=port)
    return found


def _split(address: str, name: str) -> tuple[str, int]:
    found = parse_address(address)
    if found is None:
        raise DraftError(f"{address!r} is not an address", hint=f"write {name}=host:port")
    return found
