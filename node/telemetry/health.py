"""The telemetry door: ``/metrics``, ``/livez`` and ``/readyz`` on a port of its own.

``/livez`` answers while the event loop turns; it never depends on peers, so a watchdog cannot kill
a healthy node that waits for others. ``/readyz`` says in JSON what is missing for taking part.

The port has no password. What it may cost is bounded: so many connections at once, of which the
oldest of the busiest address goes when there are more (``node.network.listener``), each for a
bounded time; and so many pages a second, beyond which the answer is 429.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import trio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from node.api.limits import ByteBudget
from node.network.listener import Doorstep
from node.network.stats import ListenerStats
from node.telemetry.metrics import Metrics

CONNECTIONS_MAX: Final = 64
CONNECTION_SECONDS_MAX: Final = 30.0
PAGES_PER_SECOND_MAX: Final = 100
PAGES_BURST_MAX: Final = 300
"""Pages in a row, after a rest, at any rate."""
GRACE_SECONDS_MAX: Final = 1.0
"""How long answers under way may take once the node stops."""


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the node takes part and serves; ``detail`` explains, ready or not."""

    ready: bool
    detail: dict[str, Any]


def application(
    metrics: Metrics, readiness: Callable[[], Readiness], refresh: Callable[[], None]
) -> Starlette:
    """Return the HTTP application.

    Args:
        metrics: what ``/metrics`` shows.
        readiness: asked at every ``/readyz`` and scrape.
        refresh: brings ``metrics`` up to date before a scrape.
    """

    for reason in ("busy", "evicted", "expired"):
        metrics.telemetry_cut.labels(reason=reason)  # shown from the beginning
    budget = ByteBudget(PAGES_PER_SECOND_MAX, PAGES_BURST_MAX)

    async def limited(page: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
        if not budget.take(None, trio.current_time()):
            metrics.telemetry_cut.labels(reason="busy").inc()
            return PlainTextResponse("too many pages a second\n", 429, {"Retry-After": "1"})
        return await page(request)

    async def scrape(_request: Request) -> Response:
        refresh()
        metrics.ready.set(1 if readiness().ready else 0)
        body = generate_latest(metrics.registry)
        return Response(body, media_type=CONTENT_TYPE_LATEST)

    async def live(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_request: Request) -> Response:
        state = readiness()
        body = {"ready": state.ready, **state.detail}
        return JSONResponse(body, status_code=200 if state.ready else 503)

    return Starlette(
        routes=[
            Route("/metrics", partial(limited, scrape)),
            Route("/livez", live),  # a watchdog must never be told that others ask too much
            Route("/readyz", partial(limited, ready)),
        ]
    )


async def serve_telemetry(
    app: Starlette,
    host: str,
    port: int,
    shutdown: Callable[[], Awaitable[None]],
    cut: Callable[[str], None] = lambda reason: None,
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until ``shutdown`` returns; reports the bound addresses when started.

    Args:
        cut: is told why a connection was ended from here: evicted or expired.
    """
    config = HypercornConfig()
    config.accesslog = None
    config.errorlog = None
    config.h11_max_incomplete_size = 16 * 1024
    config.keep_alive_timeout = 5.0
    config.include_server_header = False
    context = WorkerContext(None)
    wrapped = ASGIWrapper(app)  # type: ignore[arg-type]  # Starlette is an ASGI application; hypercorn's alias is narrower
    door = Doorstep(CONNECTIONS_MAX, CONNECTION_SECONDS_MAX, ListenerStats())

    async def serve(stream: trio.SocketStream) -> None:
        try:
            place = door.take(stream.socket.getpeername()[0])
        except OSError:  # it is gone already
            await trio.aclose_forcefully(stream)
            return
        try:
            with place.scope:
                await TCPServer(wrapped, config, context, ConnectionState({}), stream)  # type: ignore[arg-type]  # plain TCP, which it takes as well
        finally:
            door.leave(place)
            if place.scope.cancelled_caught:
                cut("evicted" if place.evicted else "expired")
            await trio.aclose_forcefully(stream)

    listeners = await trio.open_tcp_listeners(port, host=host)
    async with trio.open_nursery() as serving:
        async with trio.open_nursery() as listening:
            accept = partial(trio.serve_listeners, handler_nursery=serving)
            listening.start_soon(accept, serve, listeners)
            names = [each.socket.getsockname()[:2] for each in listeners]
            task_status.started([f"http://{name}:{number}" for name, number in names])
            await shutdown()
            listening.cancel_scope.cancel()
        await context.terminated.set()
        serving.cancel_scope.deadline = trio.current_time() + GRACE_SECONDS_MAX
