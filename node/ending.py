"""Watches what ends by itself of what this node needs: certificates, its own and others'.

Keys have no end, and neither have the certificates that this software makes; those that an agency
makes by other means may. A certificate that has ended is refused by TLS at both ends of a link:
its node is cut off from peers and clients, and a quorum of such nodes stops the network.

What is seen becomes a gauge, and a line of the log at the start and once a day from ``warn_days``
before the end. Labels are members' names and two words that can be none.

Not here: exchanging one (docs/keys.md), and what ends of people's power (``comity.endings``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Final, TypeVar

import trio
from structlog.typing import FilteringBoundLogger

from consensus.ledger.calendar import DAY_MS
from node.identity import Identity
from node.keyfiles import NodeKey
from node.links import own_certificate
from node.network.errors import CertificateUnusable
from node.network.tls import certificate_end_ms
from node.telemetry.metrics import Metrics

T = TypeVar("T")

DAY_SECONDS: Final = 86_400.0
OWN: Final = "(own)"
"""Label of the own certificate where no committee names it: of an observer, or one that joins."""
NO_END_MS: Final = 253_402_300_799_000
"""9999-12-31 23:59:59: without an end (RFC 5280, §4.1.2.5)."""
ADVICE: Final = "have a new node key and certificate admitted (docs/members.md)"
OBSERVERS: Final = "(observers)"
"""Label of the certificate that ends first of those admitted at the door for observers."""


def certificates(identity: Identity, node_key: NodeKey) -> dict[str, bytes]:
    """Return the certificates (DER) that a node lives by, by label."""
    found = {each.agency: each.certificate for each in identity.committee.validators}
    return (
        found if identity.row is not None else {**found, OWN: own_certificate(identity, node_key)}
    )


def words(identity: Identity, node_key: NodeKey, now_ms: int) -> str:
    """Return in words how long the own certificate is good, for the operator."""
    end_ms = certificate_end_ms(own_certificate(identity, node_key))
    if end_ms >= NO_END_MS:
        return "certificate: without an end"
    if end_ms <= now_ms:
        return f"certificate: HAS ENDED, nobody connects to this node; {ADVICE}"
    return f"certificate: ends in {(end_ms - now_ms) // DAY_MS} days; {ADVICE}"


class Endings:
    """The certificates that one node lives by.

    Args:
        named: certificates (DER) by label.
        observers: asked for those admitted now.
        warn_days: how many days ahead the log tells; 0: never.
        now_ms: this machine's clock.
    """

    def __init__(
        self,
        named: Mapping[str, bytes],
        observers: Callable[[], Iterable[bytes]],
        warn_days: int,
        metrics: Metrics,
        log: FilteringBoundLogger,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._named = _ends(named)
        self._observers = observers
        self._warn_ms = warn_days * DAY_MS
        self._metrics = metrics
        self._log = log
        self._now_ms = now_ms

    def refresh(self) -> None:
        """Bring the gauge up to date. Cost: 20 µs, and 0.1 ms an observer's certificate."""
        ends = self._all()
        gauge = self._metrics.certificate_end
        for label, end_ms in ends.items():
            gauge.labels(whose=label).set(end_ms / 1000)
        if OBSERVERS not in ends:
            gauge.remove_by_labels({"whose": OBSERVERS})

    async def run(self) -> None:
        """Tell of what ends soon, now and once a day, until cancelled."""
        while True:
            self.tell()
            await trio.sleep(DAY_SECONDS)

    def tell(self) -> None:
        """Write a line of the log for each certificate that ends soon or has ended."""
        now_ms = self._now_ms()
        for label, end_ms in self._all().items():
            left_ms = end_ms - now_ms
            if self._warn_ms and left_ms <= self._warn_ms:
                self._log.warning(
                    "certificate ends" if left_ms > 0 else "certificate has ended",
                    whose=label,
                    until_ms=end_ms,
                    days=left_ms // DAY_MS,
                )

    def _all(self) -> dict[str, int]:
        admitted = _ends(dict(enumerate(self._observers())))
        return {**self._named, **({OBSERVERS: min(admitted.values())} if admitted else {})}


def _ends(named: Mapping[T, bytes]) -> dict[T, int]:
    """Return when certificates end; one that nobody can read is left out, TLS has no use for it."""
    found: dict[T, int] = {}
    for label, each in named.items():
        with suppress(CertificateUnusable):
            found[label] = certificate_end_ms(each)
    return found
