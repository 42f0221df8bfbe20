"""The bytes of one TCP connection, for TLS to run over.

``trio.SocketStream`` would do. But every receive and send of a node goes through TLS, and
``trio.SSLStream`` gives way to other tasks before each, and lets one task at a time receive and one
send: so this stream need not do either again. That is a third of the task switches of a send.

Not here: TLS (``tls.py``), frames (``framing.py``).
"""

from __future__ import annotations

import errno
import socket
from typing import Final

import trio

RECEIVE_BYTES_MAX: Final = 64 * 1024
"""Largest single receive, unless the caller says otherwise."""


class Transport(trio.abc.Stream):
    """A connected socket. Its operations are checkpoints only when they have to wait.

    Args:
        stream: gives up its socket; only the new stream is of use from now on.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._socket.setblocking(False)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, at most ``max_bytes``; nothing at the end."""
        while True:
            try:
                return self._socket.recv(max_bytes or RECEIVE_BYTES_MAX)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as error:
                raise _broken(error) from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Return once the kernel has all of ``data``."""
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._socket.send(rest) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
            except OSError as error:
                raise _broken(error) from error

    async def wait_send_all_might_not_block(self) -> None:
        """Return once the kernel takes more."""
        await trio.lowlevel.wait_writable(self._socket)

    async def aclose(self) -> None:
        """Close the socket; tasks that wait on it get ``trio.ClosedResourceError``."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()


def _broken(error: OSError) -> Exception:
    if error.errno == errno.EBADF:
        return trio.ClosedResourceError("this stream was closed")
    return trio.BrokenResourceError(f"socket connection broken: {error}")
