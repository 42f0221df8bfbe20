"""The metric catalogue: every name, its unit, its labels and what it tells.

Names are ``comity_<area>_<what>_<unit>`` in base units (seconds, bytes); few labels, and none whose
values a stranger chooses. One registry per node object, so tests run several nodes in one process.
What the node knows anyway is read when it is asked for (``gauges``). docs/metrics.md is the same
catalogue for operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)

from consensus.release import VERSION

_LATENCY_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
_PROPOSAL_SECONDS: Final = (
    60, 300, 900, 3_600, 14_400, 43_200, 86_400, 172_800, 345_600, 604_800, 1_209_600, 2_592_000,
)  # fmt: skip
_DISK_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0)

disable_created_metrics()  # type: ignore[no-untyped-call]  # one more series each, told by none


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the catalogue. ``kind``: counter, gauge or histogram."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


class Metrics:
    """All metrics of one node. Attributes are the metrics, grouped by area."""

    def __init__(self) -> None:
        registry = CollectorRegistry(auto_describe=True)
        self.registry = registry
        self.catalogue: list[Entry] = []
        """Every metric, by the name under which it is scraped."""

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            self.catalogue.append(Entry(f"{name}_total", "counter", labels, text))
            return Counter(name, text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            self.catalogue.append(Entry(name, "gauge", labels, text))
            return Gauge(name, text, labels, registry=registry)

        def seconds(
            name: str,
            text: str,
            labels: tuple[str, ...] = (),
            buckets: tuple[float, ...] = _LATENCY_SECONDS,
        ) -> Histogram:
            self.catalogue.append(Entry(name, "histogram", labels, text))
            return Histogram(name, text, labels, registry=registry, buckets=buckets)

        self.build = gauge(
            "comity_build_info", "1; the version of the software is its label", ("version",)
        )
        self.build.labels(version=VERSION).set(1)

        self.executor = gauge("comity_executor_in_force", "Number of the executor in force")
        self.executor_lacking = gauge(
            "comity_executor_lacking_from_seconds",
            "When an executor comes into force that this release lacks, since 1970; 0: none",
        )

        # Ordering
        self.round = gauge("comity_consensus_round", "Current round")
        self.epoch = gauge("comity_consensus_epoch", "Current epoch")
        self.validators = gauge("comity_consensus_validators", "Validators of the epoch")
        self.quorum = gauge("comity_consensus_quorum", "How many of them must agree")
        self.height_ordered = gauge("comity_consensus_ordered_height", "Highest ordered block")
        self.height_executed = gauge("comity_consensus_executed_height", "Highest executed block")
        self.height_certified = gauge(
            "comity_consensus_certified_height", "Highest certified block"
        )
        self.behind = gauge(
            "comity_consensus_behind_heights",
            "Certified heights that this node lacks, as far as known",
        )
        self.certificates = counter(
            "comity_consensus_certificates", "Certificates on a block by which heights became final"
        )
        self.votes_missing = counter(
            "comity_consensus_votes_missing",
            "Certificates on a block that lack this validator's signature",
            ("validator",),
        )
        self.timeouts = counter(
            "comity_consensus_timeouts", "Rounds this node gave up, by leader", ("leader",)
        )
        self.equivocations = counter(
            "comity_consensus_equivocations", "Pairs of contradicting signed messages seen"
        )
        self.commit_seconds = seconds(
            "comity_consensus_commit_seconds",
            "From the receipt of a peer's block with payload to its certificate",
        )
        self.stage_seconds = seconds(
            "comity_stage_seconds", "Time of one stage, per request, batch or block", ("stage",)
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
        self.refusals = counter(
            "comity_ledger_refusals",
            "Certified refusals, by domain of the call that failed",
            ("domain", "code"),
        )
        self.holds_changed = counter(
            "comity_ledger_holds", "Holds placed and released", ("domain", "event")
        )
        self.holds_in_force = gauge(
            "comity_ledger_holds_in_force",
            "Holds in force, by domain that placed them",
            ("domain",),
        )
        self.proposals_waiting = gauge(
            "comity_ledger_proposals_waiting", "Proposals that wait for approvals", ("domain",)
        )
        self.proposal_oldest = gauge(
            "comity_ledger_proposal_oldest_seconds",
            "Age of the oldest proposal that waits, in chain time",
            ("domain",),
        )
        self.proposal_seconds = seconds(
            "comity_ledger_proposal_seconds",
            "Chain time from a proposal to its end",
            ("domain", "end"),
            _PROPOSAL_SECONDS,
        )
        self.leaves = gauge("comity_state_leaves", "Leaves of the state tree")

        # Pool and batches
        self.pool_bytes = gauge("comity_mempool_bytes", "Accepted bytes not yet certified")
        self.pool_bytes_max = gauge("comity_mempool_max_bytes", "Most that the pool takes")
        self.pool_transactions = gauge(
            "comity_mempool_transactions", "Transactions not yet batched"
        )
        self.busy = counter("comity_mempool_busy", "Transactions answered BUSY")
        self.batch_bytes = gauge("comity_batches_bytes", "Bytes of all batches in memory")
        self.batches_rejected = counter(
            "comity_batches_rejected", "Batches refused, by the peer that sent them", ("peer",)
        )
        self.batches_dropped = counter(
            "comity_batches_dropped", "Batches of peers not looked into, by reason", ("reason",)
        )
        self.signatures = counter(
            "comity_verifier_signatures", "Client signatures checked, in workers or in place"
        )
        self.verifier_restarts = counter(
            "comity_verifier_restarts", "Worker processes started again after a failure"
        )

        # Links
        self.peers_connected = gauge("comity_peers_connected", "Authenticated links to validators")
        self.peer_seconds = gauge(
            "comity_peer_round_trip_seconds", "Last measured round trip", ("peer",)
        )
        self.peer_faults = counter(
            "comity_peer_faults", "Links closed for what the peer sent", ("peer", "code")
        )
        self.peer_disconnects = counter(
            "comity_peer_disconnects", "Links that ended, for whatever reason", ("peer",)
        )
        self.peer_dropped = counter(
            "comity_peer_frames_dropped",
            "Frames not queued because the peer reads too slowly",
            ("peer", "kind"),
        )
        self.peer_cut = counter(
            "comity_peer_cut", "Links cut at a limit, by peer and reason", ("peer", "reason")
        )
        self.peer_refused = counter(
            "comity_peer_requests_refused",
            "Requests for blocks beyond what one peer gets",
            ("peer",),
        )
        self.peer_other_version = counter(
            "comity_peer_other_version",
            "Links declined because the two nodes speak different versions of the protocol",
            ("peer",),
        )
        self.peer_other_release = gauge(
            "comity_peer_other_release",
            "1 while a peer runs another release than this node, as far as it has said",
            ("peer",),
        )
        self.peer_strangers = counter(
            "comity_peer_strangers",
            "Connections ended before the other side was known, by reason",
            ("reason",),
        )
        self.peer_queued = gauge(
            "comity_peer_queued_bytes", "Bytes waiting to be sent to a peer", ("peer",)
        )
        self.observers_connected = gauge(
            "comity_observers_connected", "Links to nodes without a vote, at either door"
        )
        self.observer_bytes = counter(
            "comity_observers_bytes", "Bytes of frames sent to nodes without a vote"
        )
        self.observer_refused = counter(
            "comity_observers_requests_refused",
            "Questions of nodes without a vote beyond what they get together",
        )
        self.observer_cut = counter(
            "comity_observers_cut",
            "Connections of nodes without a vote that were ended or declined, by reason",
            ("reason",),
        )
        self.signatures_doubted = counter(
            "comity_observer_bad_signatures",
            "Batches of certified blocks with a client's signature that is wrong",
        )
        self.certificate_end = gauge(
            "comity_certificate_end_seconds",
            "When a node's certificate ends, seconds since 1970: each member's, the own one, and "
            "the first of the observers admitted here",
            ("whose",),
        )
        self.queue_depth = gauge("comity_queue_depth_items", "Items waiting in a queue", ("queue",))

        self.telemetry_cut = counter(
            "comity_telemetry_cut",
            "Connections to this port that were ended, and pages refused, by reason",
            ("reason",),
        )

        # Clients
        self.sessions = gauge("comity_client_sessions", "Open client connections")
        self.waiting = gauge(
            "comity_client_waiting_transactions", "Transactions that clients wait for"
        )
        self.requests = counter(
            "comity_client_requests", "Answers by method and status", ("method", "status")
        )
        self.client_seconds = seconds(
            "comity_client_seconds",
            "From a request's receipt to its last answer, by what it waits for",
            ("work",),
        )
        self.client_hellos = counter(
            "comity_client_hellos",
            "Connections by the minor version of the client protocol that both sides speak",
            ("minor",),
        )
        self.client_cut = counter(
            "comity_client_cut", "Clients' connections cut at a limit, by reason", ("reason",)
        )

        self.sealed_waiting = gauge(
            "comity_sealed_waiting_values", "Sealed values delivered here and not yet in a record"
        )
        self.private_from = gauge(
            "comity_store_private_height", "First height whose private parts are kept"
        )

        # Storage
        self.fsync_seconds = seconds(
            "comity_log_fsync_seconds",
            "One group of the log: write, sync, mark",
            buckets=_DISK_SECONDS,
        )
        self.flush_seconds = seconds(
            "comity_store_flush_seconds", "One LMDB commit", buckets=_DISK_SECONDS
        )
        self.height_flushed = gauge("comity_store_flushed_height", "Newest height in the store")
        self.store_bytes = gauge("comity_store_bytes", "Used part of the store's file")
        self.disk_free = gauge("comity_disk_free_bytes", "Free space where the data folder is")
        self.disk_bytes = gauge("comity_disk_bytes", "Size of the disk where the data folder is")
        self.log_bytes = gauge("comity_log_bytes", "Size of the append log")
        self.storage_failed = gauge(
            "comity_storage_failed", "1 once the disk has failed; nothing is written any more"
        )

        # Snapshots
        self.snapshots_offered = counter(
            "comity_snapshot_offers", "Offers of a snapshot to peers that begin or are far behind"
        )
        self.snapshot_parts = counter(
            "comity_snapshot_parts", "Parts of snapshots sent to such peers"
        )
        self.snapshot_wants_dropped = counter(
            "comity_snapshot_wants_dropped", "Parts wanted beyond what one peer may have waiting"
        )
        self.snapshot_joining = gauge(
            "comity_snapshot_joining", "1 while this node takes its state from a snapshot"
        )
        self.snapshot_joined = gauge(
            "comity_snapshot_joined_entries", "Entries of that snapshot that are checked and stored"
        )

        # Process
        self.memory = gauge(
            "comity_process_memory_bytes",
            "Memory that is this node's alone: of the node itself, of its workers",
            ("process",),
        )
        self.memory_max = gauge(
            "comity_process_memory_max_bytes", "What it may take: the unit's limit, or the machine"
        )
        self.cpu = counter("comity_process_cpu_seconds", "Processor time taken", ("process",))
        self.process_start = gauge(
            "comity_process_start_seconds", "When the process began, seconds since 1970"
        )
        self.loop_delay = gauge(
            "comity_loop_delay_seconds", "Worst delay of the main loop since the last scrape"
        )
        self.signing = gauge(
            "comity_node_signing",
            "1 while the node may vote, 0 after a failed disk or a halt, or without its signer",
        )
        self.signer_seconds = seconds(
            "comity_signer_seconds",
            "From a request to another process's signature",
            buckets=_DISK_SECONDS,
        )
        self.ready = gauge("comity_node_ready", "1 while the node takes part and serves")
