"""What metrics cost a node under full load, as a share of its processor time.

    python -m scripts.metrics_benchmark [--seconds 15]

Four nodes take transfers as fast as they go, as in ``scripts/bench throughput``; one of them is
scraped every SCRAPE_SECONDS and has everything that counts, observes and shows wrapped in a
stopwatch of its thread's processor time. The stopwatch runs within what it measures, so the share
is an upper bound.

Not here: what the metrics tell (``node.telemetry``).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import prometheus_client
import trio

from node import execution
from node.main import run
from node.telemetry import gauges, health
from node.telemetry.coordination import Coordination

SCRAPE_SECONDS = 10.0
"""As deploy/prometheus/prometheus.yml has it."""
FIRST_SCRAPE_SECONDS = 1.0


class Stopwatch:
    """Adds up the processor time of what it is wrapped around, each moment once."""

    def __init__(self) -> None:
        self.ns: dict[str, int] = {}
        self.count: dict[str, int] = {}
        self._within = threading.local()

    def around(self, place: Any, name: str, what: str) -> None:
        """Wrap a function or method where it is looked up."""
        inner: Callable[..., Any] = getattr(place, name)
        self.ns.setdefault(what, 0)
        self.count.setdefault(what, 0)

        @wraps(inner)
        def timed(*arguments: Any, **options: Any) -> Any:
            if getattr(self._within, "any", False):
                return inner(*arguments, **options)
            self._within.any = True
            begin = time.thread_time_ns()
            try:
                return inner(*arguments, **options)
            finally:
                self.ns[what] += time.thread_time_ns() - begin
                self.count[what] += 1
                self._within.any = False

        setattr(place, name, timed)


def accounted(output: Path, config: Path) -> None:
    """Run a node and write down what its metrics cost once it is told to stop."""
    watch = Stopwatch()
    watch.around(Coordination, "certified", "a certified height")
    watch.around(execution, "refusals", "a certified height")
    for kind, name in (
        (prometheus_client.Counter, "inc"),
        (prometheus_client.Gauge, "set"),
        (prometheus_client.Histogram, "observe"),
    ):
        watch.around(kind, name, "counting")
        watch.around(kind, "labels", "counting")
    watch.around(gauges.Gauges, "refresh", "a scrape")
    watch.around(health, "generate_latest", "a scrape")
    try:
        run(config)
    finally:
        told = {"ns": watch.ns, "count": watch.count, "cpu_ns": time.process_time_ns()}
        output.write_text(json.dumps(told), "utf-8")


def measure(seconds: float) -> dict[str, Any]:
    """Return what the metrics of one node cost under full load."""
    from scripts.benchmark import CHUNKS_IN_FLIGHT, _loaded, _singles, _wallets

    with tempfile.TemporaryDirectory(prefix="comity-bench-", dir="/var/tmp") as temporary:
        output = Path(temporary) / "cost.json"
        network, keys = _wallets(Path(temporary) / "network")
        first = network.agencies[0]
        network.programs[first] = ("scripts.metrics_benchmark", "--node", str(output))
        pages: list[int] = []
        stop = threading.Event()

        def scrape() -> None:
            wait = FIRST_SCRAPE_SECONDS
            while not stop.wait(wait):
                pages.append(len(network.http(first, "/metrics")))
                wait = SCRAPE_SECONDS

        with network:
            network.start_all()
            thread = threading.Thread(target=scrape)
            thread.start()
            try:
                loaded = trio.run(_loaded, network, keys, seconds, _singles, CHUNKS_IN_FLIGHT)
            finally:
                stop.set()
                thread.join()
        told = json.loads(output.read_text("utf-8"))
    cost_ns = sum(told["ns"].values())
    return {
        "tx_per_s": loaded["tx_per_s"],
        "heights": loaded["stages"]["heights"],
        "scrapes": len(pages),
        "page_bytes": max(pages, default=0),
        "node_cpu_seconds": round(told["cpu_ns"] / 1e9, 2),
        "metrics_cpu_seconds": round(cost_ns / 1e9, 4),
        "share": round(cost_ns / told["cpu_ns"], 5),
        "us_each": {
            what: round(ns / 1000 / max(1, told["count"][what]), 2)
            for what, ns in told["ns"].items()
        },
        "count": told["count"],
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument("--node", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("config", type=Path, nargs="?", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node is not None:
        accounted(options.node, options.config)
        return
    sys.stdout.write(json.dumps(measure(options.seconds), indent=2) + "\n")


if __name__ == "__main__":
    main()
