"""Nodes without a vote in the epoch that a node lets in all the same, and at which door.

| who                                | door      | what it gets                                  |
|------------------------------------|-----------|-----------------------------------------------|
| named by an earlier committee only | peers     | what ended epochs, and blocks of the epochs   |
|                                    |           | up to the last one in which it had a vote     |
| admitted by this node's operator   | observers | every block, snapshots, news of what is final |

A guest dials; nobody dials a guest. It is numbered from GUESTS_FROM on, and no broadcast goes to
it. Observers have a listener, limits and a pace of their own, so that none of them takes from
validators what they need.

Not here: reading who is admitted (``node.observers``), what a guest may ask (``node.ordering``).
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from node.network.link import LinkLimits
from node.network.wire import NO_INDEX

GUESTS_FROM: Final = NO_INDEX + 1
"""The number of the first guest; below are members of the epoch's committee."""


@dataclass(frozen=True, slots=True)
class Guest:
    """A node without a vote in the epoch.

    Args:
        name: the common name of its certificate.
        node_key: Ed25519 public key that its certificate must hold.
        upto: the last epoch in which it had a vote, which bounds what it gets; None: no bound.
    """

    name: str
    node_key: bytes
    upto: int | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """Who may connect at the observers' door now: the TLS side of it, guests by node key, and their
    certificates (DER)."""

    context: ssl.SSLContext
    guests: Mapping[bytes, Guest]
    certificates: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ObserverDoor:
    """Where observers connect, and what they may take.

    Args:
        listen_host, listen_port: where to accept; port 0 lets the system choose.
        admitted: asked at every connection; None: nobody is admitted.
        limits: of each link; their pace is that of all together.
        connections_max: observers connected at a time.
        pending_max: connections that may be on their way to being introduced.
    """

    listen_host: str
    listen_port: int
    admitted: Callable[[], Admitted | None]
    limits: LinkLimits
    connections_max: int
    pending_max: int = 32
