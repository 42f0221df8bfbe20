"""The telemetry door: ``/metrics``, ``/livez`` and ``/readyz`` on a port of its own.

``/livez`` answers while the event loop turns; it never depends on peers, so a watchdog cannot kill
a healthy node that waits for others. ``/readyz`` says in JSON what is missing for taking part.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio
from hypercorn.config import Config as HypercornConfig
from hypercorn.trio import serve
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from node.telemetry.metrics import Metrics


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
        routes=[Route("/metrics", scrape), Route("/livez", live), Route("/readyz", ready)]
    )


async def serve_telemetry(
    app: Starlette,
    host: str,
    port: int,
    shutdown: Callable[[], Awaitable[None]],
    *,
    task_status: trio.TaskStatus[list[str]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve ``app`` until ``shutdown`` returns; reports the bound addresses when started."""
    config = HypercornConfig()
    config.bind = [f"{host}:{port}"]
    config.accesslog = None
    config.errorlog = None
    config.graceful_timeout = 1.0
    config.h11_max_incomplete_size = 16 * 1024
    config.keep_alive_timeout = 5.0
    config.include_server_header = False
    await serve(app, config, shutdown_trigger=shutdown, task_status=task_status)  # type: ignore[arg-type]  # Starlette is an ASGI application; hypercorn's alias is narrower
