"""The metric catalogue: every name, its unit, its labels and what it tells.

Names are ``comity_<area>_<what>_<unit>`` in base units (seconds, bytes); few labels. One registry
per node object, so tests run several nodes in one process.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_LATENCY_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_DISK_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)
STAGES: Final = ("ingress", "batch", "vote", "execute", "commit")


class Metrics:
    """All metrics of one node. Attributes are the catalogue, grouped by area."""

    def __init__(self) -> None:
        registry = CollectorRegistry(auto_describe=True)
        self.registry = registry

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=registry)

        def seconds(
            name: str, text: str, labels: tuple[str, ...] = (), disk: bool = False
        ) -> Histogram:
            buckets = _DISK_SECONDS if disk else _LATENCY_SECONDS
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        # Ordering
        self.round = gauge("comity_consensus_round", "Current round")
        self.epoch = gauge("comity_consensus_epoch", "Current epoch")
        self.height_ordered = gauge("comity_consensus_ordered_height", "Highest ordered block")
        self.height_executed = gauge("comity_consensus_executed_height", "Highest executed block")
        self.height_certified = gauge(
            "comity_consensus_certified_height", "Highest certified block"
        )
        self.votes_missing = counter(
            "comity_consensus_votes_missing",
            "Delivered certificates without this validator's signature",
            ("validator",),
        )
        self.timeouts = counter(
            "comity_consensus_timeouts", "Rounds this node gave up, by leader", ("leader",)
        )
        self.equivocations = counter(
            "comity_consensus_equivocations", "Pairs of conflicting signed messages seen"
        )
        self.commit_seconds = seconds(
            "comity_consensus_commit_seconds", "From a block's receipt to its certificate"
        )
        self.stage_seconds = seconds(
            "comity_stage_seconds", "Time of one stage, per batch or block", ("stage",)
        )
        self.clock_skew = gauge(
            "comity_consensus_clock_skew_seconds",
            "A leader's block time minus this node's clock at receipt",
            ("validator",),
        )

        # Ledger
        self.transactions = counter(
            "comity_ledger_transactions", "Certified decisions by outcome code", ("code",)
        )
        self.keys = gauge("comity_state_leaves", "Leaves of the state tree")

        # Pool and batches
        self.pool_bytes = gauge("comity_mempool_bytes", "Accepted bytes not yet certified")
        self.pool_transactions = gauge(
            "comity_mempool_transactions", "Transactions not yet batched"
        )
        self.busy = counter("comity_mempool_busy", "Requests answered BUSY")
        self.batches_rejected = counter(
            "comity_batches_rejected", "Batches refused, by origin", ("origin",)
        )
        self.signatures = counter(
            "comity_verifier_signatures", "Client signatures checked by the workers"
        )
        self.verifier_restarts = counter(
            "comity_verifier_restarts", "Worker processes started again after a failure"
        )

        # Links
        self.peers_connected = gauge("comity_peers_connected", "Authenticated links to validators")
        self.peer_seconds = gauge(
            "comity_peer_round_trip_seconds", "Last measured round trip", ("peer",)
        )
        self.link_drops = counter(
            "comity_peer_links_closed", "Links closed, by peer and reason", ("peer", "reason")
        )
        self.queue_depth = gauge("comity_queue_depth_items", "Items waiting in a queue", ("queue",))

        # Clients
        self.sessions = gauge("comity_client_sessions", "Open client connections")
        self.requests = counter(
            "comity_client_requests", "Client requests by method and status", ("method", "status")
        )

        # Storage
        self.fsync_seconds = seconds("comity_log_fsync_seconds", "fdatasync of the log", disk=True)
        self.flush_seconds = seconds("comity_store_flush_seconds", "One LMDB commit", disk=True)
        self.height_flushed = gauge("comity_store_flushed_height", "Newest height in the store")
        self.disk_free = gauge("comity_disk_free_bytes", "Free space of the data folder")
        self.log_bytes = gauge("comity_log_bytes", "Size of the append log")

        # Process
        self.loop_delay = gauge(
            "comity_loop_delay_seconds", "Worst delay of the main loop since the last scrape"
        )
        self.ready = gauge("comity_node_ready", "1 while the node takes part and serves")
