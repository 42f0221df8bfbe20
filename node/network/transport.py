"""The bytes of one TCP connection, and TLS over them.

``trio.SocketStream`` and ``trio.SSLStream`` would do, and cost twice the processor time: a send
gives way to other tasks twice, a receive three times, and each tries to read before it waits. Here
a receive waits once, then takes all that has come; a send waits only for a full kernel. One task at
a time may receive, and one send.

Not here: who is trusted (``tls.py``), frames (``framing.py``).
"""

from __future__ import annotations

import errno
import socket
import ssl
from contextlib import suppress
from typing import Final

import trio

RECEIVE_BYTES_MAX: Final = 64 * 1024
"""Largest single receive, unless the caller says otherwise."""
ANSWERS_BYTES_MAX: Final = 16 * 1024
"""Answers of TLS itself, to requests for new keys, that wait for the next send."""


class Transport(trio.abc.Stream):
    """A connected socket. Every receive is a checkpoint; a send is one only when it has to wait.

    Args:
        stream: gives up its socket; only the new stream is of use from now on.
    """

    def __init__(self, stream: trio.SocketStream) -> None:
        self._socket = socket.socket(fileno=stream.socket.detach())
        self._socket.setblocking(False)
        self._sending = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, at most ``max_bytes``; nothing at the end."""
        while self._socket.fileno() != -1:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(max_bytes or RECEIVE_BYTES_MAX)
            except BlockingIOError:  # woken for nothing
                continue
            except OSError as error:
                raise _broken(error) from error
        raise trio.ClosedResourceError("this stream was closed")

    def send_now(self, data: bytes | bytearray | memoryview) -> int:
        """Return how many bytes of ``data`` the kernel has taken; more may wait until it can."""
        try:
            return self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise _broken(error) from error

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Return once the kernel has all of ``data``."""
        if self._sending:
            raise trio.BusyResourceError("another task is sending")
        self._sending = True
        try:
            while (sent := self.send_now(data)) < len(data):
                data = memoryview(data)[sent:]
                await trio.lowlevel.wait_writable(self._socket)
        finally:
            self._sending = False

    async def wait_send_all_might_not_block(self) -> None:
        """Return once the kernel takes more."""
        await trio.lowlevel.wait_writable(self._socket)

    async def aclose(self) -> None:
        """Close the socket; tasks that wait on it get ``trio.ClosedResourceError``."""
        if self._socket.fileno() != -1:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()


class TlsStream(trio.abc.Stream):
    """TLS over a connected socket. ``do_handshake`` comes first.

    A connection that ends without a word of TLS has ended all the same: frames show what is cut.

    Args:
        stream: gives up its socket; only the new stream is of use from now on.
        context: whom it trusts and who it is (``tls.py``).
        server_side: the other side has connected to us.
    """

    def __init__(
        self,
        stream: trio.SocketStream,
        context: ssl.SSLContext,
        *,
        server_side: bool = False,
    ) -> None:
        self._transport = Transport(stream)
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._whole = True
        """Everything that was to be sent has been. What a send left over can never follow."""
        self._closed = False

    def protocol(self) -> str | None:
        """Return what both sides offered by ALPN, once the handshake is done; None: nothing."""
        return self._tls.selected_alpn_protocol()

    async def do_handshake(self) -> None:
        """Return once this side has accepted the other.

        Raises:
            trio.BrokenResourceError: one of them refuses, or the connection has ended.
        """
        accepted = False
        while not accepted:
            try:
                self._tls.do_handshake()
                accepted = True
            except ssl.SSLWantReadError:
                await self._flush()
                await self._fill()
            except ssl.SSLError as error:
                await self._flush()  # tells the other side why
                raise _failed(error) from error
        await self._flush()

    def certificate(self) -> bytes | None:
        """Return the certificate (DER) that the other side has presented, if it did."""
        return self._tls.getpeercert(binary_form=True)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what has come, at most ``max_bytes``; nothing at the end."""
        self._check_open()
        if self._incoming.pending or self._tls.pending():
            await trio.lowlevel.checkpoint()
        else:
            await self._fill()
        while True:
            try:
                data = self._tls.read(max_bytes or RECEIVE_BYTES_MAX)
            except ssl.SSLWantReadError:  # part of a record, or nothing for us
                await self._fill()
            except ssl.SSLError as error:
                raise _failed(error) from error
            else:
                if self._outgoing.pending > ANSWERS_BYTES_MAX:
                    raise trio.BrokenResourceError("the other side keeps asking for new keys")
                return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Return once the kernel has all of ``data``."""
        self._check_open()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError as error:
            raise _failed(error) from error
        await self._flush()

    async def wait_send_all_might_not_block(self) -> None:
        """Return once the kernel takes more."""
        self._check_open()
        await self._transport.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close, having said so in TLS if there is room for it; no answer is waited for."""
        if not self._closed:
            self._closed = True
            with suppress(ssl.SSLError):  # no session to end, or no answer yet
                self._tls.unwrap()
            if self._whole and self._outgoing.pending:
                with suppress(trio.BrokenResourceError):
                    self._transport.send_now(self._outgoing.read())
        await self._transport.aclose()

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")

    async def _fill(self) -> None:
        """Wait for encrypted bytes, or the end."""
        data = await self._transport.receive_some()
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    async def _flush(self) -> None:
        """Send the encrypted bytes that have been made."""
        if self._outgoing.pending:
            self._whole = False
            await self._transport.send_all(self._outgoing.read())
            self._whole = True


def _broken(error: OSError) -> Exception:
    if error.errno == errno.EBADF:
        return trio.ClosedResourceError("this stream was closed")
    return trio.BrokenResourceError(f"socket connection broken: {error}")


def _failed(error: ssl.SSLError) -> trio.BrokenResourceError:
    return trio.BrokenResourceError(f"TLS failed: {error}")
