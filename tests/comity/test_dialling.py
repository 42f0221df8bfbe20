"""Dialling a node: what is left when it does not come to a session."""

from __future__ import annotations

import trio

from comity.pool import dial_tls
from comity.session import Server
from node.network.tls import make_certificate


async def test_connection_is_closed_when_its_caller_gives_up_during_the_handshake() -> None:
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    port = listener.socket.getsockname()[1]
    server = Server("silent", "127.0.0.1", port, bytes(32), make_certificate(bytes(32), "silent"))
    scope = trio.CancelScope()

    async def dial() -> None:
        with scope:
            await dial_tls(server)

    async with trio.open_nursery() as nursery, listener:
        nursery.start_soon(dial)
        accepted = await listener.accept()
        async with accepted:
            assert await accepted.receive_some()  # the client's half of the handshake
            scope.cancel()
            with trio.fail_after(10):
                assert await accepted.receive_some() == b""
