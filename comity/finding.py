"""Finds the committee of now for a client that reaches nobody under the keys that it knows.

A node's key may have been exchanged, or its address, since the client's genesis file was made. The
chain of committees proves itself: each was elected by a quorum of the one before. So it may be
taken from anybody, and nodes are asked for it whatever certificate they show. Nothing else is
asked or said there: no key is proved, no answer but committees is believed. With what was learned
the servers are dialled anew, under the keys that the newest committee names.

A stranger who answers can hold back what is new, and nothing more; so all known members are asked.

Not here: dialling servers under their keys, and when this is done (``pool``).
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from comity.errors import ForkError, NotReachableError
from comity.session import Server, Session
from comity.verify import Trust
from consensus.errors import ComityError

ASK_SECONDS_MAX: Final = 5.0
"""How long all of it may take."""
PAUSE_SECONDS: Final = 30.0
"""Between two times."""

DialUnknown = Callable[[Server], Awaitable[tuple[trio.abc.Stream, Server]]]
"""Opens a stream to whoever listens at a server's address; returns who that says it is."""
Follow = Callable[[Session], Awaitable[None]]
"""Has a session's trust learn the committees that its node knows."""


async def dial_unknown(server: Server) -> tuple[trio.abc.Stream, Server]:
    """Return a TLS stream to whoever listens at an address, with the node key that it shows.

    Raises:
        NotReachableError: nobody, or nobody with such a key.
    """
    where = f"{server.agency} at {server.host}:{server.port}"
    try:
        plain = await trio.open_tcp_stream(server.host, server.port)
    except OSError as error:
        raise NotReachableError(f"{where}: {error.strerror or error}") from error
    stream = trio.SSLStream(plain, _anybody(), server_hostname=None, https_compatible=True)
    try:
        await stream.do_handshake()
        key = _shown_key(stream)
    except (trio.BrokenResourceError, OSError, ValueError) as error:
        await trio.aclose_forcefully(stream)
        raise NotReachableError(f"no TLS session with {where}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream, replace(server, node_key=key)


def _shown_key(stream: trio.SSLStream[trio.SocketStream]) -> bytes:
    """Return the node key in the certificate that was shown. Raises ValueError: there is none."""
    key = x509.load_der_x509_certificate(stream.getpeercert(binary_form=True) or b"").public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not a node key")  # noqa: TRY004 (what is shown, not how it is called)
    return key.public_bytes_raw()


def _anybody() -> ssl.SSLContext:
    """Return a TLS 1.3 context that takes whatever certificate is shown."""
    result = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    result.minimum_version = ssl.TLSVersion.TLSv1_3
    result.check_hostname = False
    result.verify_mode = ssl.CERT_NONE
    return result


async def learn(servers: Sequence[Server], trust: Trust, dial: DialUnknown, follow: Follow) -> bool:
    """Have ``trust`` follow the committees as far as any of these servers knows; all are asked.

    Returns whether there is a newer one. What a node answers that does not verify is passed over.

    Raises:
        ForkError: the network contradicts itself.
    """
    before = trust.committee.epoch
    forks: list[ForkError] = []

    async def ask(server: Server) -> None:
        try:
            stream, shown = await dial(server)
        except ComityError:
            return
        session = Session(shown, stream, trust)
        try:
            await session.greet(None)
            async with trio.open_nursery() as running:
                running.start_soon(session.run)
                try:
                    await follow(session)
                except ForkError as error:
                    forks.append(error)
                except ComityError:
                    pass  # it lies, is silent, or is gone: the others are asked too
                session.close()
        except ComityError:
            return
        finally:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(stream)

    with trio.move_on_after(ASK_SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            for server in servers:
                nursery.start_soon(ask, server)
    if forks:
        raise forks[0]
    return trust.committee.epoch > before
