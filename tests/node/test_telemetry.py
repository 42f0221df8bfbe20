"""The telemetry door, as a scraper and an orchestrator see it."""

from __future__ import annotations

import errno
import json
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import h11
import pytest
import structlog
import trio
import trio.testing

from consensus.protocol import Item, Status
from node import config
from node.api.backend import Rejected, Submission
from node.runtime import Node
from node.storage.disk import SystemDisk
from node.telemetry.health import (
    CONNECTION_SECONDS_MAX,
    CONNECTIONS_MAX,
    PAGES_BURST_MAX,
    Readiness,
    application,
    serve_telemetry,
)
from node.telemetry.metrics import Metrics
from scripts import localnet
from tests.consensus.ledger.authors import Author, signed

RULES = Path(__file__).resolve().parents[2] / "configs" / "rules"


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


async def test_more_pages_than_a_node_gives_in_a_second_are_refused_and_counted_but_life_is_not(
    mock_clock: trio.testing.MockClock,
) -> None:
    metrics = Metrics()
    pages = ["/readyz"] * (PAGES_BURST_MAX + 2)
    answers = await with_server(metrics, lambda: Readiness(True, {}), [*pages, "/livez"])
    assert [status for status, _ in answers[:PAGES_BURST_MAX]] == [200] * PAGES_BURST_MAX
    assert [status for status, _ in answers[PAGES_BURST_MAX:]] == [429, 429, 200]
    assert cut(metrics, "busy") == 2


async def test_silent_connections_make_room_for_new_ones_and_end_in_time(
    autojump_clock: trio.testing.MockClock,
) -> None:
    reasons: list[str] = []
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        app = application(Metrics(), lambda: Readiness(True, {}), lambda: None)
        bound = await nursery.start(serve_telemetry, app, "127.0.0.1", 0, stop.wait, reasons.append)
        port = int(bound[0].rpartition(":")[2])
        opened = []
        for _ in range(CONNECTIONS_MAX + 3):
            opened.append(await trio.open_tcp_stream("127.0.0.1", port))
            await opened[-1].send_all(b"GET /metrics HTTP/1.1\r\nX: ")
        with trio.fail_after(CONNECTION_SECONDS_MAX + 1):
            for stream in opened:
                while await stream.receive_some():
                    pass
                await stream.aclose()
        assert reasons.count("evicted") == 3
        assert (await fetch(port, "/livez"))[0] == 200
        stop.set()


def cut(metrics: Metrics, reason: str) -> float:
    value = metrics.registry.get_sample_value("comity_telemetry_cut_total", {"reason": reason})
    return value or 0.0


def test_names_have_the_prefix_and_a_base_unit() -> None:
    for family in Metrics().registry.collect():
        assert re.fullmatch(r"comity(_[a-z]+)+", family.name), family.name
        assert not re.search(r"_(ms|milliseconds|kib|mib|percent)$", family.name)
        assert family.documentation


# --- the catalogue --------------------------------------------------------------------------------

CATALOGUE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"


def test_the_manual_lists_exactly_what_is_exported() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*)\|", CATALOGUE.read_text(), re.MULTILINE)
    manual = {
        (name, kind, tuple(filter(None, labels.replace(" ", "").split(","))))
        for name, kind, labels in rows
    }
    assert len(manual) == len(rows)
    assert manual == {(entry.name, entry.kind, entry.labels) for entry in Metrics().catalogue}
    assert {entry.name.removesuffix("_total") for entry in Metrics().catalogue} == {
        family.name for family in Metrics().registry.collect()
    }


# --- a network of nodes ---------------------------------------------------------------------------

QUIET = {
    "comity_consensus_timeouts_total",
    "comity_consensus_equivocations_total",
    "comity_mempool_busy_total",
    "comity_batches_rejected_total",
    "comity_batches_dropped_total",
    "comity_peer_faults_total",
    "comity_peer_requests_refused_total",
    "comity_ledger_transactions_total",
    "comity_ledger_holds_total",
    "comity_ledger_proposal_seconds",
    "comity_client_seconds",
}
"""What a healthy node without clients does not show: it has labels or events that never came."""


def values_of(text: str) -> dict[str, float]:
    """Return the sum of each series name in an exposition."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name = series.partition("{")[0]
            values[name] = values.get(name, 0) + float(value)
    return values


@asynccontextmanager
async def nodes_running(folder: Path) -> AsyncIterator[tuple[list[Node], list[int]]]:
    """Four whole nodes in this process, on loopback; with the ports of their telemetry."""
    network = localnet.found(folder, [RULES / "charter.toml"])
    places = [folder / agency / "node.toml" for agency in network.agencies]
    nodes = [Node(config.load(place, {}), structlog.get_logger()) for place in places]
    ports = [network.member(agency).telemetry_port for agency in network.agencies]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        yield nodes, ports
        for node in nodes:
            node.stop()


async def answers(port: int, path: str, claim: Callable[[int, str], bool]) -> str:
    """Ask until an answer fits ``claim``; return it."""
    with trio.fail_after(30):
        while True:
            with suppress(OSError):
                status, body = await fetch(port, path)
                if claim(status, body.decode()):
                    return body.decode()
            await trio.sleep(0.05)


async def test_a_running_node_feeds_every_metric_and_tells_of_a_failed_disk(
    tmp_path: Path,
) -> None:
    async with nodes_running(tmp_path / "network") as (nodes, ports):
        node, port = nodes[0], ports[0]
        await answers(port, "/readyz", lambda status, _: status == 200)
        for sequence in range(1, 4):
            for each in nodes:
                one = signed(Author(1 + nodes.index(each)), sequence, chain=node.identity.chain)
                each.engine.dissemination.add(one)
        text = await answers(
            port,
            "/metrics",
            lambda _, text: (
                values_of(text).get("comity_ledger_transactions_total", 0) >= 12
                and values_of(text)["comity_store_flushed_height"] > 0
                and values_of(text).get("comity_peer_round_trip_seconds", 0) > 0
            ),
        )
        values = values_of(text)
        for entry in node.metrics.catalogue:
            names = [entry.name] if entry.kind != "histogram" else [f"{entry.name}_count"]
            shown = any(name in values for name in names)
            assert shown or entry.name in QUIET | {"comity_client_requests_total"}, entry.name
        assert values["comity_ledger_transactions_total"] == 12
        for name in (
            "comity_node_ready",
            "comity_node_signing",
            "comity_consensus_round",
            "comity_consensus_certified_height",
            "comity_consensus_votes_missing_total",
            "comity_consensus_commit_seconds_count",
            "comity_verifier_signatures_total",
            "comity_state_leaves",
            "comity_disk_free_bytes",
            "comity_log_bytes",
            "comity_store_bytes",
            "comity_log_fsync_seconds_count",
            "comity_store_flush_seconds_count",
        ):
            assert values[name] > 0, name
        for stage in ("batch", "vote", "execute", "commit"):
            series = re.search(rf'comity_stage_seconds_count{{stage="{stage}"}} (\S+)', text)
            assert series is not None, stage
            assert float(series[1]) > 0, stage
        assert values["comity_peers_connected"] == 3
        assert values["comity_storage_failed"] == 0

        log = node.engine._recovered.log
        log._disk = FailingDisk()
        nodes[1].engine.dissemination.add(signed(Author(2), 10, chain=node.identity.chain))
        body = json.loads(await answers(port, "/readyz", lambda status, _: status == 503))
        assert "disk has failed" in body["problem"]
        assert "Input/output error" in body["halted"]
        assert (await fetch(port, "/livez"))[0] == 200
        values = values_of((await fetch(port, "/metrics"))[1].decode())
        assert values["comity_storage_failed"] == 1
        assert values["comity_node_signing"] == 0
        assert values["comity_node_ready"] == 0
        (refused,) = await node.backend.submit([Submission(Item.ENVELOPE, b"", b"")])
        assert isinstance(refused, Rejected)
        assert refused.status is Status.UNAVAILABLE
        assert "disk has failed" in refused.message
        await answers(
            ports[1],
            "/metrics",
            lambda _, text: values_of(text)["comity_ledger_transactions_total"] == 13,
        )


class FailingDisk(SystemDisk):
    """Syncs fail."""

    def sync(self, handle: int) -> None:
        raise OSError(errno.EIO, "Input/output error")


async def test_the_exposition_of_a_running_node_satisfies_promtool(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is absent; Debian's package prometheus has it")
    async with nodes_running(tmp_path / "network") as (nodes, ports):
        one = signed(Author(1), 1, chain=nodes[0].identity.chain)
        nodes[0].engine.dissemination.add(one)
        text = await answers(
            ports[0], "/metrics", lambda _, text: "comity_ledger_transactions_total{" in text
        )
    command = [promtool, "check", "metrics"]
    done = await trio.run_process(command, stdin=text.encode(), capture_stderr=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
