"""One node: recovery, the wiring of its parts, its tasks, and how it stops.

    clients ─> api ─> verifier ─> pool ─> batches ─> log, peers
    peers ─> network ─> ordering (replica) ─> outbox ─> log ─> peers
    ordered block ─> execution ─> commit vote ... certificate ─> receipts, flush

Nothing hides an exception: an own bug ends the node with its data kept. Signing stops on the first
disk failure or refusal; reads go on where they are safe.

Not here: what the parts do.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import trio
from structlog.typing import FilteringBoundLogger

from consensus import codec, genesis
from consensus.committee import Committee
from consensus.errors import ComityError, DecodeError
from consensus.genesis import Genesis
from consensus.hotstuff import wire
from consensus.hotstuff.certificates import Verifier as MessageVerifier
from consensus.hotstuff.events import (
    CertifiedTip,
    ExecutionResult,
    Halt,
    PayloadHeld,
    RecoveredState,
    ReplicaConfig,
    Started,
)
from consensus.hotstuff.execution import statement_of
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.types import (
    Block,
    CommitCert,
    SignKind,
    first_record,
    genesis_block,
    genesis_cert,
)
from consensus.keyfile import KeyKind
from consensus.ledger.executor import EXECUTOR
from consensus.ledger.genesis_state import genesis_state
from consensus.ledger.ledger import Ledger
from consensus.state.history import HistoryTree
from consensus.state.merkle import CHANGES, RESULTS
from consensus.state.state import State
from node import checked, keyfiles
from node.api.limits import ApiLimits
from node.api.server import ApiServer
from node.backend import Backend
from node.batches import BatchStore
from node.checked import CheckedBatch
from node.chronicle import Chronicle
from node.config import Config, split_address
from node.dissemination import Dissemination
from node.errors import PromisesLostError, StorageFailedError
from node.execution import Execution
from node.flushing import META_NUMBERS, Flusher
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
from node.storage.flush import BlockData, FlushBatch
from node.storage.recovery import Recovered, open_signer, recover
from node.storage.store import Store
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


class StoreNodes:
    """The history tree's nodes in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def node(self, level: int, index: int) -> bytes | None:
        """Return a node's hash, or None when it is not kept."""
        return self._store.view.history(level, index)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this node is in the committee."""

    genesis: Genesis
    chain: bytes
    index: int

    @property
    def committee(self) -> Committee:
        """Validators of the first epoch."""
        return self.genesis.committee


def load_identity(config: Config) -> Identity:
    """Return who the configured node is.

    Raises:
        ComityError: the genesis file cannot be read or used, or the agency is not a member.
    """
    path = config.path(config.node.genesis)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DecodeError(
            f"cannot read the genesis file {path}: {error.strerror}",
            hint="name the file that all agencies compared in [node] genesis",
        ) from error
    found = genesis.decode(data)
    names = [validator.agency for validator in found.committee.validators]
    if config.node.agency not in names:
        raise DecodeError(
            f"{config.node.agency!r} has no validator in {path}",
            hint=f"[node] agency is one of {', '.join(names)}",
        )
    return Identity(found, genesis.chain_id(data), names.index(config.node.agency))


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
        chain, committee = identity.chain, identity.committee
        own = committee.validators[identity.index]
        key = keyfiles.load(config.path(config.node.validator_key), KeyKind.VALIDATOR)
        self.node_key = keyfiles.NodeKey.load(config.path(config.node.node_key))
        if key.public != own.key or self.node_key.public != own.node_key:
            raise DecodeError(
                "the key files do not hold the keys that the genesis file names for this agency",
                hint="check [node] validator_key and node_key, and the genesis file",
            )
        folder = config.path(config.node.data)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.ledger = Ledger(chain, identity.genesis.limits)
        first = genesis_block(chain, committee.hash, identity.genesis.time_ms)
        self._recovered: Recovered = recover(folder, chain=chain)
        store = self._recovered.store
        if store.height < 0:
            self._found(first)
        self.signer = open_signer(self._recovered, key, folder / MARK_FILE, chain=chain)
        self._refuse_rollback()
        state = State(store.state, identity.genesis.tree_depth, store.height)
        history = HistoryTree(StoreNodes(store), store.height + 1)
        tip = self._stored_tip(first)
        self.chronicle = Chronicle(store, history, tip.block)
        self.writer = LogWriter(
            self._recovered.log,
            on_group=lambda seconds, _bytes, _requests: self.metrics.fsync_seconds.observe(seconds),
            on_failure=self._disk_failed,
        )
        self.outbox = Outbox(self.writer, self.signer, self._act)
        self.verifier = Verifier(
            chain, identity.genesis.limits, processes=config.tuning.verifier_processes
        )
        self._events_in, self._events_out = trio.open_memory_channel[NetworkEvent](
            NETWORK_EVENTS_MAX
        )
        self.network = PeerNetwork(self._network_config(), self._events_in)
        self._wire_up(state, history, tip, first)

    def _found(self, first: Block) -> None:
        """Write the state that the genesis file founds."""
        identity = self.identity
        store = self._recovered.store
        state = State(store.state, identity.genesis.tree_depth, -1)
        history = HistoryTree(StoreNodes(store))
        applied = state.apply(genesis_state(identity.genesis))
        statement = statement_of(
            identity.chain,
            first,
            ExecutionResult(
                EXECUTOR, applied.state_root, RESULTS.root([]), CHANGES.root([]), history.root()
            ),
        )
        history.append(statement.hash)
        block = codec.encode([wire.encode_block(first), statement.encode()])
        store.write(
            FlushBatch(
                height=0,
                rows=state.pending(0),
                blocks=[BlockData(0, block, codec.encode([]), b"", None, [], [])],
                history=[(level, index, node) for (level, index), node in history.pending(0)],
                meta=[(META_NUMBERS, codec.encode([0] * identity.committee.size))],
            )
        )

    def _refuse_rollback(self) -> None:
        """Refuse to vote with a log older than what this key has signed."""
        safety = self._recovered.found.safety
        current = (0, 0)
        if safety is not None:
            record = wire.decode_record(safety)
            current = record.epoch, record.entry_cert.round + 1
        lost = self.signer.recovered_bodies(dict.fromkeys(SignKind, current))
        if lost:
            raise PromisesLostError(
                f"the log ends in round {current[1]}, but this key signed in round {lost[0].round}"
            )

    def _stored_tip(self, first: Block) -> CertifiedTip:
        view = self._recovered.store.view
        if view.height == 0:
            return CertifiedTip(first, None)
        block = wire.decode_block(codec.parse(view.block(view.height) or b"")[0])
        certificate = view.certificate(view.height)
        return CertifiedTip(
            block, None if certificate is None else wire.decode_commit_cert(certificate)
        )

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

    def _replica(self, tip: CertifiedTip, first: Block) -> Replica:
        identity, tuning = self.identity, self.config.tuning
        limits = identity.genesis.limits
        found = self._recovered.found
        record = first_record(first) if found.safety is None else wire.decode_record(found.safety)
        blocks = tuple(wire.decode_block(each.value.data) for each in found.blocks)
        parameters = ReplicaConfig(
            identity.chain,
            timeout_base_ms=tuning.timeout_base_ms,
            timeout_max_ms=tuning.timeout_max_ms,
            heartbeat_ms=tuning.heartbeat_ms,
            payload_items_max=limits.payload_batches_max,
            payload_bytes_max=limits.payload_bytes_max,
        )
        return Replica(
            parameters,
            identity.committee,
            identity.index,
            RecoveredState(record, tip, blocks),
        )

    def _wire_up(self, state: State, history: HistoryTree, tip: CertifiedTip, first: Block) -> None:
        config, identity, metrics = self.config, self.identity, self.metrics
        store = self._recovered.store
        limits = identity.genesis.limits
        self.ordering = Ordering(
            self._replica(tip, first),
            identity.committee,
            identity.index,
            MessageVerifier(identity.chain, identity.committee, genesis_cert(first)),
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
        undelivered = self._logged_batches()
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

    def _logged_batches(self) -> list[CheckedBatch]:
        """Return the batches of the log that no flushed block contains."""
        found, log = self._recovered.found, self._recovered.log
        batches = []
        for digest, offset in found.batches.items():
            public, private = log.read(offset), log.read(found.private.get(digest, -1))
            if public is not None and private is not None:
                parts = [kinds.BatchPart.unpack(payload).data for _, payload in (public, private)]
                batches.append(checked.from_log(self.identity.chain, *parts))
        return batches

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
            async with trio.open_nursery() as nursery:
                await self._start(nursery)
                task_status.started()
                await self._stopping.wait()
                self.log.info("stopping", certified=self.chronicle.certified)
                self.api.close()
                nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await self._finish()
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
        nursery.start_soon(self.writer.run)
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
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.writer.run)
                await self.flusher.flush()
                nursery.cancel_scope.cancel()

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
