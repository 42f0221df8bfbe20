"""What is read when somebody scrapes: heights, queues, sizes, and totals that the parts count.

Not here: what is counted where it happens (``metrics``' other attributes).
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from prometheus_client import Counter

from consensus.protocol import MINOR
from consensus.release import VERSION as RELEASE
from node.telemetry import process
from node.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from node.api.server import ApiServer
    from node.engine import Engine
    from node.network.peers import PeerNetwork
    from node.verifier import Verifier

LOOP_CHECK_SECONDS: Final = 0.1
"""How often the delay of the main loop is measured."""


class Gauges:
    """Reads the parts of one node into its metrics.

    Args:
        folder: the node's data, on the disk whose free space is shown.
    """

    def __init__(
        self,
        metrics: Metrics,
        engine: Engine,
        network: PeerNetwork,
        api: ApiServer,
        verifier: Verifier,
        folder: Path,
    ) -> None:
        self._metrics = metrics
        self._engine = engine
        self._network = network
        self._api = api
        self._verifier = verifier
        self._folder = folder
        self._names = [each.agency for each in engine.identity.committee.validators]
        self._told: dict[tuple[str, ...], float] = {}
        self._memory_max = process.memory_max_bytes()
        self._started = process.started_seconds()
        self._worst_seconds = 0.0

    async def run(self) -> None:
        """Measure how late the main loop wakes a task, until cancelled."""
        while True:
            due = trio.current_time() + LOOP_CHECK_SECONDS
            await trio.sleep_until(due)
            self._worst_seconds = max(self._worst_seconds, trio.current_time() - due)

    def refresh(self) -> None:
        """Bring every gauge and every total up to date. Cost: about 0.2 ms."""
        self._ordering()
        self._queues()
        self._links()
        self._clients()
        self._disk()
        self._process()

    def _ordering(self) -> None:
        metrics, engine = self._metrics, self._engine
        committee = engine.identity.committee
        metrics.epoch.set(committee.epoch)
        metrics.validators.set(committee.size)
        metrics.quorum.set(committee.quorum)
        metrics.behind.set(engine.behind)
        time_ms = engine.chronicle.time_ms()
        metrics.executor.set(engine.horizon.status(time_ms)["in_force"])
        metrics.executor_lacking.set((engine.horizon.lacks_from_ms(time_ms) or 0) / 1000)
        for name in self._names:
            metrics.timeouts.labels(leader=name)  # shown before the first, so that it is a rise
        engine.coordination.refresh(engine.chronicle.time_ms())
        metrics.round.set(engine.ordering.replica.round)
        metrics.height_ordered.set(engine.ordering.replica.ordered_height)
        metrics.height_executed.set(engine.chronicle.executed)
        metrics.height_certified.set(engine.chronicle.certified)
        metrics.leaves.set(engine.execution.state.key_count)
        metrics.loop_delay.set(self._worst_seconds)
        self._worst_seconds = 0.0
        signs = engine.stopped is None and engine.votes and not engine.signer_away
        metrics.signing.set(1 if signs else 0)

    def _queues(self) -> None:
        metrics, dissemination = self._metrics, self._engine.dissemination
        metrics.pool_bytes.set(dissemination.pool.size_bytes)
        metrics.pool_transactions.set(dissemination.pool.waiting)
        metrics.batch_bytes.set(dissemination.batches.size_bytes)
        for queue, depth in (
            ("outbox", self._engine.outbox.depth),
            ("log", self._engine.writer.waiting),
            ("verifier", self._verifier.depth),
            ("batches", dissemination.depth),
        ):
            metrics.queue_depth.labels(queue=queue).set(depth)
        self._catch_up(metrics.signatures, self._verifier.signatures, "signatures")
        self._catch_up(metrics.verifier_restarts, self._verifier.restarts, "restarts")

    def _links(self) -> None:
        metrics = self._metrics
        metrics.peers_connected.set(len(self._network.connected))
        self._observers()
        for index, stats in self._network.stats.peers.items():
            if index >= len(self._names):
                continue
            peer = self._names[index]
            for first in (metrics.batches_rejected, metrics.peer_refused):
                first.labels(peer=peer)  # shown before the first, so that the first is a rise
            if stats.round_trip_seconds is not None:
                metrics.peer_seconds.labels(peer=peer).set(stats.round_trip_seconds)
            other = stats.release not in ("", RELEASE)
            metrics.peer_other_release.labels(peer=peer).set(1 if other else 0)
            self._catch_up(
                metrics.peer_other_version.labels(peer=peer), stats.other_version, "version", peer
            )
            self._catch_up(
                metrics.peer_disconnects.labels(peer=peer), stats.disconnects, "gone", peer
            )
            for reason, count in (
                ("slow", stats.slow),
                ("oversize", stats.oversize),
                ("unread", stats.consensus_overflows),
            ):
                cut = metrics.peer_cut.labels(peer=peer, reason=reason)
                self._catch_up(cut, count, "cut", peer, reason)
            for code, count in stats.faults.items():
                faults = metrics.peer_faults.labels(peer=peer, code=code)
                self._catch_up(faults, count, "faults", peer, code)
            queued = 0
            for cls, counts in stats.by_class.items():
                queued += counts.queued_bytes
                kind = cls.name.lower()
                dropped = metrics.peer_dropped.labels(peer=peer, kind=kind)
                self._catch_up(dropped, counts.frames_dropped, "dropped", peer, kind)
            metrics.peer_queued.labels(peer=peer).set(queued)
        listener = self._network.stats.listener
        for reason, count in (
            ("evicted", listener.evicted),
            ("expired", listener.expired),
            ("failed", listener.failed),
        ):
            strangers = metrics.peer_strangers.labels(reason=reason)
            self._catch_up(strangers, count, "strangers", reason)

    def _observers(self) -> None:
        metrics, stats = self._metrics, self._network.stats
        metrics.observers_connected.set(len(self._network.guests))
        guests = [each for number, each in stats.peers.items() if number >= len(self._names)]
        sent = sum(by.bytes_sent for each in guests for by in each.by_class.values())
        self._catch_up(metrics.observer_bytes, sent, "observer bytes")
        for reason, count in (
            ("slow", sum(each.slow for each in guests)),
            ("unread", sum(each.consensus_overflows for each in guests)),
            ("fault", sum(each.faults.total() for each in guests)),
            ("declined", sum(each.refused for each in guests)),
            ("stranger", stats.observers.failed),
            ("evicted", stats.observers.evicted),
            ("expired", stats.observers.expired),
        ):
            cut = metrics.observer_cut.labels(reason=reason)
            self._catch_up(cut, count, "observer cut", reason)

    def _clients(self) -> None:
        metrics, api = self._metrics, self._api
        metrics.sessions.set(api.sessions)
        metrics.waiting.set(api.waiting)
        for (method, status), count in api.requests.items():
            requests = metrics.requests.labels(method=method, status=status.name)
            self._catch_up(requests, count, "requests", method, status.name)
        for reason in ("crowded", "handshake", "slow", "silent", "unread", "version"):
            cut = metrics.client_cut.labels(reason=reason)
            self._catch_up(cut, api.cut[reason], "client cut", reason)
        for minor in range(MINOR + 1):
            hellos = metrics.client_hellos.labels(minor=str(minor))
            self._catch_up(hellos, api.greeted[minor], "hellos", str(minor))

    def _disk(self) -> None:
        metrics, engine = self._metrics, self._engine
        metrics.height_flushed.set(engine.store.height)
        metrics.private_from.set(engine.retention.first)
        if engine.keeper is not None:
            metrics.sealed_waiting.set(len(engine.keeper.vault.waiting))
        metrics.store_bytes.set(engine.store.used_bytes)
        metrics.log_bytes.set(engine.log_bytes)
        with contextlib.suppress(OSError):  # a disk that is gone is told elsewhere
            usage = shutil.disk_usage(self._folder)
            metrics.disk_bytes.set(usage.total)
            metrics.disk_free.set(usage.free)
        metrics.storage_failed.set(
            1 if engine.stopped is not None and engine.stopped.storage else 0
        )

    def _process(self) -> None:
        metrics = self._metrics
        parts = {"node": [os.getpid()], "workers": self._verifier.pids}
        for name, pids in parts.items():
            used = process.used(pids)
            metrics.memory.labels(process=name).set(used.memory_bytes)
            self._catch_up(metrics.cpu.labels(process=name), used.cpu_seconds, "cpu", name)
        metrics.memory_max.set(self._memory_max)
        metrics.process_start.set(self._started)

    def _catch_up(self, counter: Counter, total: float, *name: str) -> None:
        """Raise a counter to what a part has counted itself."""
        counter.inc(max(0, total - self._told.get(name, 0)))
        self._told[name] = total
