"""What the service manager is told: started, alive, stopping, and one line of status.

The protocol of ``sd_notify(3)``: datagrams of ``NAME=value`` lines to the Unix socket that
``NOTIFY_SOCKET`` names; without one nothing is sent. ``WATCHDOG=1`` goes out while the event loop
turns and depends on nothing else: neither peers nor disk, so that a node that waits for others is
never taken for a dead one.

A node opens its data in one piece, which takes minutes with many millions of records, and opens it
again in the same process when a new epoch begins or a snapshot was taken. For as long as that takes
the watchdog is asked to wait longer (``WATCHDOG_USEC=``).
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import trio

STATUS_SECONDS: Final = 10.0
"""How often the line of status is renewed where no watchdog asks for more."""
OPENING_SECONDS_MAX: Final = 900
"""What opening the data may take; the unit gives as much to a start (``TimeoutStartSec=``)."""
BEATS: Final = 3
"""Signs of life within the time after which a watchdog would act."""


class Notifier:
    """Tells the service manager, if there is one. Sending never fails and never waits.

    Args:
        environment: of the process: ``NOTIFY_SOCKET`` and ``WATCHDOG_USEC`` are read.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):  # of Linux's abstract namespace
            self._address = "\0" + self._address[1:]
        text = environment.get("WATCHDOG_USEC", "")
        microseconds = int(text) if text.isascii() and text.isdigit() else 0
        self.status: Callable[[], str] = lambda: "starting"
        """Returns the line of status."""
        self.beat_seconds = STATUS_SECONDS
        self._watchdog_us = microseconds
        if microseconds:
            self.beat_seconds = min(STATUS_SECONDS, microseconds / 1e6 / BEATS)

    def started(self, status: Callable[[], str]) -> None:
        """Say that the node serves; whether it takes part is in the status and ``/readyz``."""
        self.status = status
        self._send(f"READY=1\nSTATUS={status()}")

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Have the watchdog wait for what holds the event loop in one piece: opening the data."""
        if not self._watchdog_us:
            yield
            return
        longer = max(self._watchdog_us, OPENING_SECONDS_MAX * 1_000_000)
        self._send(f"WATCHDOG_USEC={longer}\nWATCHDOG=1")
        try:
            yield
        finally:
            self._send(f"WATCHDOG_USEC={self._watchdog_us}\nWATCHDOG=1")

    def stopping(self) -> None:
        """Say that the node ends on purpose."""
        self._send("STOPPING=1")

    async def beat(self) -> None:
        """Say for ever that the event loop turns, with a line of status."""
        if not self._address:
            return
        while True:
            self._send(f"WATCHDOG=1\nSTATUS={self.status()}")
            await trio.sleep(self.beat_seconds)

    def _send(self, text: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as out:
                out.sendto(text.encode(), self._address)
        except OSError:
            return  # the manager is gone or its queue is full: neither is the node's business
