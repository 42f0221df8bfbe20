"""What a node says last is heard, over real sockets too."""

from __future__ import annotations

import trio

from consensus.protocol import Status
from tests.comity.twin import Twin
from tests.node.api.wire import Wire

TRIES = 20
LONG = 2_000_000


async def _hear_why() -> list[Status]:
    """Send long frames without having proved a key; return what is answered each time."""
    twin = Twin()
    server = twin.server(0)
    heard: list[Status] = []
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    place = listeners[0].socket.getsockname()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.run, listeners)
        for _ in range(TRIES):
            stream = await trio.open_tcp_stream(*place)
            wire = Wire(stream, twin)
            await wire.raw(LONG.to_bytes(4, "big") + bytes(LONG))
            await stream.send_eof()
            found = await wire.answer()
            if found is not None:
                heard.append(found.status)
            await stream.aclose()
        nursery.cancel_scope.cancel()
    return heard


def test_refusal_of_a_long_frame_reaches_its_sender() -> None:
    assert trio.run(_hear_why) == [Status.MALFORMED] * TRIES
