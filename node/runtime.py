"""One node: the wiring of its parts, its tasks, and how it stops.

    clients ─> api ─> verifier ─> pool ─> batches ─> log, peers
    peers ─> network ─> ordering (replica) ─> outbox ─> log ─> peers
    ordered block ─> execution ─> commit vote ... certificate ─> receipts, flush

Nothing hides an exception: an own bug ends the node with its data kept. Signing stops on the first
disk failure or refusal; reads go on where they are safe.

Not here: what the parts do, and what it begins with (``opening``).
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import trio
from structlog.typing import FilteringBoundLogger

from consensus import codec
from consensus.errors import ComityError
from consensus.hotstuff import wire
from consensus.hotstuff.certificates import Verifier as MessageVerifier
from consensus.hotstuff.events import (
    CertifiedTip,
    Halt,
    PayloadHeld,
    Started,
)
from consensus.hotstuff.types import (
    Block,
    CommitCert,
    genesis_cert,
)
from consensus.ledger.ledger import Ledger
from consensus.state.history import HistoryTree
from consensus.state.state import State
from node import opening
from node.api.limits import ApiLimits
from node.api.server import ApiServer
from node.backend import Backend
from node.batches import BatchStore
from node.checked import CheckedBatch
from node.chronicle import Chronicle
from node.config import Config, split_address
from node.dissemination import Dissemination
from node.errors import StorageFailedError
from node.execution import Execution
from node.flushing import META_NUMBERS, Flusher
from node.identity import load_identity, load_keys
from node.mempool import Mempool, PoolLimits
from node.network.peers import (
    Connected,
    Disconnected,
    HelloState,
    NetworkConfig,
    NetworkEvent,
    PeerAddress,
    PeerNetwork,
)
from node.network.tls import client_server_context, peer_contexts
from node.network.wire import Class
from node.ordering import FAULTS, Ordering
from node.outbox import Outbox
from node.storage import kinds
from node.storage.recovery import Recovered, open_signer, recover
from node.storage.writer import LogWriter
from node.telemetry.health import Readiness, application, serve_telemetry
from node.telemetry.metrics import Metrics
from node.verifier import Verifier

NETWORK_EVENTS_MAX: Final = 1024
"""Frames and link events that wait for the node; beyond it links are not read."""
EVENTS_AT_ONCE_MAX: Final = 64
SWEEP_SECONDS: Final = 1.0
BEHIND_HEIGHTS_MAX: Final = 64
"""Ordered heights that a ready node may not have executed yet."""
MARK_FILE: Final = "signer.mark"


def wall_ms() -> int:
    """Return this machine's clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class Node:
    """One validator. ``run`` starts everything and returns after ``stop``.

    Args:
        config: of this node.
        log: its logger.
    """

    def __init__(self, config: Config, log: FilteringBoundLogger) -> None:
        self.config = config
        self.log = log
        self.metrics = Metrics()
        self.identity = load_identity(config)
        self._stopping = trio.Event()
        self._halt: Halt | None = None
        self._storage_failure: str | None = None
        self._started_at = time.monotonic()
        self._open()

    # --- construction -------------------------------------------------------------------------

    def _open(self) -> None:
        config, identity = self.config, self.identity
        key, self.node_key = load_keys(config, identity)
        folder = config.path(config.node.data)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ledger = Ledger(identity.chain, identity.genesis.limits)
        self._recovered: Recovered = recover(folder, chain=identity.chain)
        store = self._recovered.store
        if store.height < 0:
            opening.found(store, identity)
        self.signer = open_signer(self._recovered, key, folder / MARK_FILE, chain=identity.chain)
        opening.refuse_rollback(self._recovered, self.signer)
        state = State(store.state, identity.genesis.tree_depth, store.height)
        history = HistoryTree(opening.StoreNodes(store), store.height + 1)
        tip = opening.stored_tip(store, identity.first_block)
        self.chronicle = Chronicle(store, history, tip.block)
        self.writer = LogWriter(
            self._recovered.log,
            on_group=lambda seconds, _bytes, _requests: self.metrics.fsync_seconds.observe(seconds),
            on_failure=self._disk_failed,
        )
        self.outbox = Outbox(self.writer, self.signer, self._act)
        self.verifier = Verifier(
            identity.chain, identity.genesis.limits, processes=config.tuning.verifier_processes
        )
        self._events_in, self._events_out = trio.open_memory_channel[NetworkEvent](
            NETWORK_EVENTS_MAX
        )
        self.network = PeerNetwork(self._network_config(), self._events_in)
        self._wire_up(state, history, tip)

    def _network_config(self) -> NetworkConfig:
        config, committee = self.config, self.identity.committee
        own = committee.validators[self.identity.index]
        peers = []
        for index, validator in enumerate(committee.validators):
            host, port = validator.peer_host, validator.peer_port
            if validator.agency in config.peers:
                host, port = split_address(config.peers[validator.agency], "peers")
            peers.append(PeerAddress(index, validator.agency, host, port, validator.node_key))
        listen = own.peer_host, own.peer_port
        if config.listen.peers:
            listen = split_address(config.listen.peers, "listen.peers")
        certificates = [validator.certificate for validator in committee.validators]
        return NetworkConfig(
            own_index=self.identity.index,
            peers=tuple(peers),
            contexts=peer_contexts(own.certificate, self.node_key.seed, certificates),
            chain=self.identity.chain,
            listen_host=listen[0],
            listen_port=listen[1],
            hello=self._hello,
            jitter=random.Random(secrets.randbits(64)),  # noqa: S311 - spreads retries, no secret
        )

    def _wire_up(self, state: State, history: HistoryTree, tip: CertifiedTip) -> None:
        config, identity, metrics = self.config, self.identity, self.metrics
        store = self._recovered.store
        limits = identity.genesis.limits
        self.ordering = Ordering(
            opening.replica(self._recovered, identity, config.tuning, tip),
            identity.committee,
            identity.index,
            MessageVerifier(identity.chain, identity.committee, genesis_cert(identity.first_block)),
            self.signer,
            self.outbox,
            self.network,
            self.chronicle,
            self._delivered,
            self._halted,
            wall_ms,
            self.log,
            metrics,
        )
        pool = Mempool(
            PoolLimits(
                config.limits.author_transactions_max,
                config.limits.author_bytes_max,
                config.limits.pool_bytes_max,
            ),
            limits,
        )
        numbers = codec.parse(store.view.meta(META_NUMBERS) or b"")
        batches = BatchStore(identity.committee.size, identity.index)
        undelivered = opening.logged_batches(self._recovered, identity.chain)
        batches.restore(numbers, undelivered, wall_ms())
        for batch in undelivered:
            if batch.origin == identity.index:
                pool.adopt(batch.decode(identity.chain).transactions)
        self.dissemination = Dissemination(
            limits.batch_bytes_max,
            batches,
            pool,
            self.verifier,
            store,
            self.outbox,
            self.network,
            self.ordering.payload_changed,
            lambda block_id: self.ordering.post(PayloadHeld(block_id)),
            wall_ms,
            metrics,
        )
        self.execution = Execution(
            identity.chain,
            self.ledger,
            state,
            history,
            self.chronicle,
            self._find_batch,
            self.ordering.post,
            metrics,
        )
        self.ordering.dissemination = self.dissemination
        self.ordering.execution = self.execution
        self.flusher = Flusher(
            store,
            self._recovered.log,
            self.writer,
            self.execution,
            self.chronicle,
            numbers,
            config.tuning.flush_blocks,
            self._carried,
            metrics,
        )
        self.backend = Backend(
            self.ledger,
            identity.committee,
            self.execution,
            self.chronicle,
            self.dissemination,
            self.verifier,
            store,
            self.status,
            self._not_serving,
            metrics,
        )
        own = identity.committee.validators[identity.index]
        self.api = ApiServer(
            self.backend,
            identity.chain,
            self.node_key.public,
            ApiLimits(
                connections_per_address_max=config.limits.connections_per_address_max,
                requests_in_flight_max=config.limits.requests_in_flight_max,
            ),
            client_server_context(own.certificate, self.node_key.seed),
            secrets.token_bytes,
        )

    def _find_batch(self, digest: bytes) -> CheckedBatch:
        batch = self.dissemination.find(digest)
        if batch is None:
            raise ComityError("a held batch is gone")
        return batch

    def _carried(self) -> list[kinds.Entry]:
        """Return what a new log segment begins with: every promise, every unflushed block."""
        entries: list[kinds.Entry] = self.dissemination.undelivered()
        for height in range(self._recovered.store.height + 1, self.chronicle.executed + 1):
            block = self.chronicle.blocks(height, height)[0]
            for item in block.payload:
                batch = self.dissemination.find(item.digest)
                if batch is not None:
                    entries.append(kinds.batch(batch.digest, batch.public))
                    entries.append(kinds.private(batch.digest, batch.private))
            entries.append(kinds.block(block.height, block.id, wire.encode_block(block)))
        entries.append(kinds.safety(self.outbox.newest_record))
        return entries

    # --- running ------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until ``stop``; flush and close in order.

        Raises:
            OSError: an address cannot be bound.
            LocalProtocolError: an own bug; the data is kept.
        """
        try:
            async with trio.open_nursery() as outer:
                outer.start_soon(self.writer.run)  # to the end: flushing may need it
                async with trio.open_nursery() as nursery:
                    await self._start(nursery)
                    task_status.started()
                    await self._stopping.wait()
                    self.log.info("stopping", certified=self.chronicle.certified)
                    self.api.close()
                    nursery.cancel_scope.cancel()
                with trio.CancelScope(shield=True):
                    await self._finish()
                self.writer.close()
        finally:
            self.signer.close()
            self._recovered.close()

    async def _start(self, nursery: trio.Nursery) -> None:
        config = self.config
        own = self.identity.committee.validators[self.identity.index]
        clients = own.client_host, own.client_port
        if config.listen.clients:
            clients = split_address(config.listen.clients, "listen.clients")
        listeners = await trio.open_tcp_listeners(clients[1], host=clients[0])
        nursery.start_soon(self.verifier.run)
        nursery.start_soon(self.outbox.run)
        nursery.start_soon(self.execution.run)
        nursery.start_soon(self.dissemination.run_cutting)
        nursery.start_soon(self.dissemination.run_checking)
        nursery.start_soon(self.dissemination.run_fetching)
        nursery.start_soon(self.ordering.run_timers)
        nursery.start_soon(self.flusher.run)
        nursery.start_soon(self._sweep)
        self.ordering.payload_changed()
        self.ordering.post(Started())
        nursery.start_soon(self._hear)
        await nursery.start(self.network.run)
        nursery.start_soon(self.api.run, listeners)
        host, port = split_address(config.listen.telemetry, "listen.telemetry")
        app = application(self.metrics, self.readiness)
        await nursery.start(serve_telemetry, app, host, port, self._stopping.wait)
        self.log.info(
            "started",
            validator=self.identity.index,
            height=self.chronicle.certified,
            round=self.ordering.replica.round,
            clients=f"{clients[0]}:{clients[1]}",
        )

    def stop(self) -> None:
        """Ask the node to stop."""
        self._stopping.set()

    async def _finish(self) -> None:
        """Bring the store up to what is certified."""
        if self._storage_failure is None:
            await self.flusher.flush()

    async def _hear(self) -> None:
        """Take what the links bring."""
        async for event in self._events_out:
            self._take(event)
            with contextlib.suppress(trio.WouldBlock):  # what came meanwhile, without a task switch
                for _ in range(EVENTS_AT_ONCE_MAX):
                    self._take(self._events_out.receive_nowait())

    def _take(self, event: NetworkEvent) -> None:
        match event:
            case Connected(peer, hello):
                self._from_peer(peer, self.ordering.connected, hello.extras)
            case Disconnected(peer, reason):
                self.log.info("link closed", peer=self._name(peer), reason=reason)
            case _:
                self._from_peer(event.peer, self._sorted(event.cls, event.payload), event.payload)

    def _sorted(self, cls: Class, payload: bytes) -> Callable[[int, bytes], None]:
        second = payload[1:3]
        is_batch = second[:1] == b"\x18" and second[1:2] >= b"\x40"
        if cls is Class.BATCH or is_batch:
            return self.dissemination.receive
        return self.ordering.receive

    def _from_peer(self, peer: int, take: Callable[[int, bytes], None], payload: bytes) -> None:
        try:
            take(peer, payload)
        except FAULTS as error:
            self.log.warning("peer fault", peer=self._name(peer), reason=str(error))
            self.metrics.link_drops.labels(peer=self._name(peer), reason=error.code).inc()
            self.network.close_link(peer, str(error))

    async def _sweep(self) -> None:
        """Drop what has expired, and refresh gauges."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            lapsed = self.dissemination.expire(self.chronicle.time_ms())
            if lapsed:
                self.api.lapsed(lapsed)
            self.ordering.payload_changed()  # no leader may propose what is gone
            self._refresh()

    def _refresh(self) -> None:
        metrics, pool = self.metrics, self.dissemination.pool
        metrics.pool_bytes.set(pool.size_bytes)
        metrics.pool_transactions.set(pool.waiting)
        metrics.peers_connected.set(len(self.network.connected))
        metrics.sessions.set(self.api.sessions)
        metrics.keys.set(self.execution.state.key_count)
        metrics.epoch.set(self.identity.committee.epoch)
        metrics.round.set(self.ordering.replica.round)
        metrics.height_ordered.set(self.ordering.replica.ordered_height)
        metrics.height_executed.set(self.chronicle.executed)
        metrics.queue_depth.labels(queue="outbox").set(self.outbox.depth)
        metrics.queue_depth.labels(queue="log").set(self.writer.waiting)
        metrics.queue_depth.labels(queue="verifier").set(self.verifier.depth)
        for peer, stats in self.network.stats.peers.items():
            if stats.round_trip_seconds is not None:
                metrics.peer_seconds.labels(peer=self._name(peer)).set(stats.round_trip_seconds)

    # --- what the parts tell ------------------------------------------------------------------

    def _act(self, effect: Any) -> None:
        self.ordering.act(effect)

    def _delivered(self, block: Block, certificate: CommitCert) -> None:
        height = self.chronicle.certify(block.id, certificate)
        self.dissemination.delivered(block, height.txids)
        self.metrics.height_certified.set(block.height)
        for code, count in Counter(height.codes).items():
            self.metrics.transactions.labels(code=code).inc(count)
        if certificate.statement.height == block.height:
            signers = {validator for validator, _ in certificate.signatures}
            for index in range(self.identity.committee.size):
                if index not in signers:
                    self.metrics.votes_missing.labels(validator=self._name(index)).inc()
            for number in self.chronicle.announced():
                found = self.chronicle.block(number)
                if found is not None:
                    self.api.certified(found)
            self.backend.advanced()
        self.flusher.ring()

    def _halted(self, halt: Halt) -> None:
        self._halt = halt
        self.log.error("halted", code=halt.code, reason=halt.reason)

    def _disk_failed(self, error: StorageFailedError) -> None:
        self._storage_failure = error.message
        self.log.error("storage failed", reason=error.message)

    def _hello(self) -> HelloState:
        return HelloState(
            self.identity.committee.epoch, self.chronicle.certified, self.ordering.extras()
        )

    def _name(self, index: int) -> str:
        return self.identity.committee.validators[index].agency

    # --- what it says of itself -----------------------------------------------------------------

    def _not_serving(self) -> str | None:
        if self._halt is not None:
            return f"this node has halted: {self._halt.reason}"
        if self._storage_failure is not None:
            return f"this node's disk has failed: {self._storage_failure}"
        return None

    def readiness(self) -> Readiness:
        """Return whether the node takes part and serves."""
        connected = len(self.network.connected) + 1
        behind = self.ordering.replica.ordered_height - self.chronicle.executed
        problem = self._not_serving()
        if problem is None and connected < self.identity.committee.quorum:
            problem = f"{connected} of {self.identity.committee.quorum} validators are connected"
        if problem is None and behind > BEHIND_HEIGHTS_MAX:
            problem = f"{behind} heights behind"
        return Readiness(problem is None, {"problem": problem, **self.status()})

    def status(self) -> dict[str, Any]:
        """Return what the node says of itself: plain values."""
        committee = self.identity.committee
        return {
            "network": self.identity.genesis.network,
            "chain": self.identity.chain.hex(),
            "agency": self.config.node.agency,
            "validator": self.identity.index,
            "epoch": committee.epoch,
            "round": self.ordering.replica.round,
            "ordered": self.ordering.replica.ordered_height,
            "executed": self.chronicle.executed,
            "certified": self.chronicle.certified,
            "flushed": self._recovered.store.height,
            "state_root": self.chronicle.state_root(self.chronicle.certified).hex(),
            "leaves": self.execution.state.key_count,
            "peers": [self._name(peer) for peer in sorted(self.network.connected)],
            "validators": [validator.agency for validator in committee.validators],
            "pool": self.dissemination.pool.waiting,
            "uptime_ms": int((time.monotonic() - self._started_at) * 1000),
            "halted": None if self._halt is None else self._halt.reason,
        }
