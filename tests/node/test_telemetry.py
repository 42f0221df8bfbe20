"""The telemetry door, as a scraper and an orchestrator see it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable

import h11
import pytest
import trio

from node.telemetry.health import Readiness, application, serve_telemetry
from node.telemetry.metrics import Metrics


async def fetch(port: int, path: str) -> tuple[int, bytes]:
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        connection = h11.Connection(h11.CLIENT)
        request = h11.Request(
            method="GET", target=path, headers=[("Host", "x"), ("Connection", "close")]
        )
        await stream.send_all(connection.send(request) + connection.send(h11.EndOfMessage()))
        status, body = 0, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Response):
                status = event.status_code
            elif isinstance(event, h11.Data):
                body += event.data
            else:
                return status, body


async def with_server(
    metrics: Metrics, readiness: Callable[[], Readiness], paths: list[str]
) -> list[tuple[int, bytes]]:
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        app = application(metrics, readiness, lambda: None)
        bound = await nursery.start(serve_telemetry, app, "127.0.0.1", 0, stop.wait)
        port = int(bound[0].rpartition(":")[2])
        answers = [await fetch(port, path) for path in paths]
        stop.set()
    return answers


async def test_live_is_always_ok_and_ready_says_what_is_missing() -> None:
    live, ready = await with_server(
        Metrics(), lambda: Readiness(False, {"peers": 1}), ["/livez", "/readyz"]
    )
    assert live[0] == 200
    assert ready[0] == 503
    assert json.loads(ready[1]) == {"ready": False, "peers": 1}
    answers = await with_server(Metrics(), lambda: Readiness(True, {}), ["/readyz", "/metrics"])
    assert answers[0][0] == 200
    assert b"comity_node_ready 1.0" in answers[1][1]


def test_names_have_the_prefix_and_a_base_unit() -> None:
    for family in Metrics().registry.collect():
        assert re.fullmatch(r"comity(_[a-z]+)+", family.name), family.name
        assert not re.search(r"_(ms|milliseconds|kib|mib|percent)$", family.name)
        assert family.documentation


async def test_the_exposition_satisfies_promtool() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is absent; Debian's package prometheus has it")
    metrics = Metrics()
    metrics.transactions.labels(code="APPLIED").inc()
    metrics.stage_seconds.labels(stage="vote").observe(0.01)
    ((status, text),) = await with_server(metrics, lambda: Readiness(True, {}), ["/metrics"])
    assert status == 200
    command = [promtool, "check", "metrics"]
    done = await trio.run_process(command, stdin=text, capture_stderr=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
