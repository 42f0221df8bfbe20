"""One node: its engine, its links, its clients' port, telemetry, and how it stops.

    clients ─> api ─> verifier ─> pool of the engine
    peers <─> network <─> engine ─> receipts ─> api

Nothing hides an exception: an own bug ends the node with its data kept. When the engine has stopped
signing, the node refuses transactions and says why; reads go on.

Not here: recovery, ordering, execution and disk (``engine``).
"""

from __future__ import annotations

import math
import secrets
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import trio
from structlog.typing import FilteringBoundLogger

from consensus import genesis
from consensus.answers import NO_VOTE
from consensus.hotstuff.events import FOLLOWER
from consensus.keyfile import KeyPair
from consensus.ledger.model import Rulebook
from consensus.protocol import Status
from consensus.release import ADVICE, VERSION
from node import openfiles
from node.api.backend import Rejected
from node.api.limits import ApiLimits
from node.api.server import ApiServer
from node.backend import Backend
from node.config import Config, split_address
from node.ending import Endings, certificates
from node.engine import Engine
from node.epochs import kept, stored
from node.handing import Handed
from node.identity import Identity, check_role, chosen_node, load_identity, load_keys, place_words
from node.keyring import Keyring
from node.links import network_config, own_certificate
from node.network.guests import GUESTS_FROM
from node.network.peers import Class, Hello, HelloState, PeerNetwork
from node.network.tls import client_server_context
from node.ordering import FAULTS
from node.readlog import ReadLog
from node.retention import DAY_MS
from node.sealed.heir import Heir
from node.sealed.keeper import Keeper
from node.sealed.vault import Vault, load_key
from node.telemetry.gauges import Gauges
from node.telemetry.health import Readiness, application, serve_telemetry
from node.telemetry.metrics import Metrics
from node.verifier import Verifier

SWEEP_SECONDS: Final = 1.0
SEALED_FOLDER: Final = "sealed"
"""Where sealed values lie, in the folder of the node's data."""
STILL_SECONDS: Final = 60.0
"""A node that knows of newer heights and gets none for so long asks for a snapshot."""
BEHIND_HEIGHTS_MAX: Final = 64
"""Ordered heights that a ready node may not have executed yet."""


def wall_ms() -> int:
    """Return this machine's clock, milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def new_verifier(config: Config, identity: Identity) -> Verifier:
    """Return the workers that check client signatures, not running yet."""
    limits = identity.genesis.limits
    return Verifier(identity.chain, limits, processes=config.tuning.verifier_processes)


def clients_address(config: Config, identity: Identity) -> tuple[str, int]:
    """Return where this node listens for clients; without a place and a setting on loopback."""
    if config.listen.clients:
        return split_address(config.listen.clients, "listen.clients")
    row = identity.row or identity.last_row
    return ("127.0.0.1", 0) if row is None else (row.client_host, row.client_port)


class Node:
    """One validator. ``run`` starts everything and returns after ``stop``.

    Args:
        config: of this node.
        log: its logger.
        verifier: runs already, and outlives this node; None: it has one of its own.
        may_join_at: from this moment of the monotonic clock on it ends, ``far_behind``, when a
            snapshot would bring it up sooner.
        keyring: opens its key files.
        handed: of the node's life in the epoch before.
        hands_over: whether another life follows where the epoch ends.

    Attributes:
        handed: what that life goes on with, once ``run`` has returned.

    Raises:
        ComityError: a file, a key or the data cannot be used.
    """

    def __init__(
        self,
        config: Config,
        log: FilteringBoundLogger,
        *,
        verifier: Verifier | None = None,
        may_join_at: float = math.inf,
        keyring: Keyring | None = None,
        handed: Handed | None = None,
        hands_over: bool = False,
    ) -> None:
        self.config = config
        self.handed: Handed | None = None
        self._hands_over = hands_over
        self._owns_keyring = keyring is None
        self._keyring = keyring = keyring or Keyring.of(config, {})
        self.far_behind = False
        self._may_join_at = may_join_at
        self._other_versions: Counter[str] = Counter()
        self._moved = (0, time.monotonic())
        self.log = log
        self.metrics = Metrics()
        keys = load_keys(config, keyring)
        identity = load_identity(config, keys)
        folder = config.path(config.node.data)
        ended = stored(folder, identity.chain) if handed is None else kept(handed.store.view)
        self.identity = identity.at(ended)
        check_role(config, self.identity)
        self._stopping = trio.Event()
        self._started_at = time.monotonic()
        self.node_keys = keys.nodes
        self.node_key = chosen_node(keys.nodes, self.identity)
        self._owns_verifier = verifier is None
        self.verifier = verifier or new_verifier(config, self.identity)
        self._broken = False
        self.network = PeerNetwork(
            network_config(config, self.identity, self.node_key, self._hello), self
        )
        self.engine = Engine(
            self.identity,
            keys.validators,
            config.path(config.node.data),
            config.tuning,
            config.limits,
            self.network,
            self.verifier,
            self._announce,
            wall_ms,
            log,
            self.metrics,
            retention_ms=config.retention.private_days * DAY_MS,
            history=config.history,
            votes=config.node.votes,
            rechecks=config.node.recheck_signatures,
            handed=handed,
            ended=self.stop,
            hold=self._hold,
        )
        self._serve_clients()
        try:
            self.keeper = self._keep_sealed()
        except BaseException:
            self.engine.close()
            raise
        self.engine.keeper = self.backend.keeper = self.keeper
        self.heir = Heir(self.keeper, self._book, self.backend.list_records, log.info)
        self._gauges = Gauges(
            self.metrics,
            self.engine,
            self.network,
            self.api,
            self.verifier,
            config.path(config.node.data),
        )
        self._endings = Endings(
            certificates(self.identity, self.node_key),
            self.network.observers_certificates,
            config.node.warn_days,
            self.metrics,
            log,
            wall_ms,
        )

    # --- construction -------------------------------------------------------------------------

    def _serve_clients(self) -> None:
        config, engine = self.config, self.engine
        self.backend = Backend(
            engine.ledger,
            self.identity.committee,
            engine.execution,
            engine.chronicle,
            engine.dissemination,
            self.verifier,
            engine.store,
            self.status,
            self._refusing,
            self.metrics,
            engine.past,
            ReadLog(config.path(config.node.data)),
            genesis.split(self.identity.genesis.encode()),
            self.identity.ended,
        )
        self.api = ApiServer(
            self.backend,
            self.identity.chain,
            self.node_key.public,
            ApiLimits(
                connections_max=openfiles.connections_max(),
                connections_per_address_max=config.limits.connections_per_address_max,
                requests_in_flight_max=config.limits.requests_in_flight_max,
            ),
            client_server_context(
                own_certificate(self.identity, self.node_key), self.node_key.seed
            ),
            secrets.token_bytes,
            self._finished,
        )

    def _keep_sealed(self) -> Keeper:
        config, engine, identity = self.config, self.engine, self.identity
        folder = config.path(config.node.data) / SEALED_FOLDER
        key = load_key(config.path(config.node.sealed_key), self._keyring)
        execution, chronicle = engine.execution, engine.chronicle
        return Keeper(
            identity.chain,
            self.node_key,
            config.node.agency,
            identity.committee,
            identity.genesis.limits,
            Vault(folder, key, identity.chain),
            self.network,
            engine.ledger.paths,
            execution.state.get,
            self._book,
            chronicle.time_ms,
            self._agency_of,
            lambda: chronicle.certified,
            lambda height: chronicle.ordered(height + 1) is not None,
        )

    def _hold(self, key: KeyPair) -> Callable[[], None]:
        """Have nobody else sign with the validator key; return what lets go of it.

        A process keeps it from one epoch to the next: whoever owns the keyring lets go.
        """
        stranger = self._keyring.hold(key)
        if stranger:
            self.log.warning("the key's place on this machine is taken", by=stranger)
        return self._keyring.release if self._owns_keyring else lambda: None

    def _book(self) -> Rulebook:
        engine = self.engine
        return engine.ledger.rules(engine.execution.state, engine.chronicle.time_ms()).book

    def _agency_of(self, key: bytes) -> str:
        who = self.backend.identity(key)
        return "" if who is None else who.agency

    # --- running ------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until ``stop``; flush and close in order.

        Raises:
            OSError: an address cannot be bound.
            LocalProtocolError: an own bug; the data is kept.
            StorageFailedError: what is certified could not be flushed at the end.
        """
        try:
            async with trio.open_nursery() as nursery:
                await self._start(nursery)
                task_status.started()
                await self._stopping.wait()
                self.log.info("stopping", certified=self.engine.chronicle.certified)
                self.api.close()
                nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await self.engine.finish()
        finally:
            self.keeper.close()
            if self._hands_over:
                self.handed = self.engine.hand_over()
            else:
                self.engine.close()

    async def _start(self, nursery: trio.Nursery) -> None:
        config = self.config
        clients = clients_address(config, self.identity)
        listeners = await trio.open_tcp_listeners(clients[1], host=clients[0])
        if self._owns_verifier:
            nursery.start_soon(self.verifier.run)
        self.engine.start(nursery)
        nursery.start_soon(self._sweep)
        nursery.start_soon(self.keeper.reconcile)
        nursery.start_soon(self.heir.run)
        nursery.start_soon(self._gauges.run)
        nursery.start_soon(self._endings.run)
        await nursery.start(self.network.run)
        nursery.start_soon(self.api.run, listeners)
        host, port = split_address(config.listen.telemetry, "listen.telemetry")
        app = application(self.metrics, self.readiness, self._refresh)
        cut = self.metrics.telemetry_cut.labels
        await nursery.start(
            serve_telemetry, app, host, port, self._stopping.wait, lambda why: cut(why).inc()
        )
        if not self.votes:
            self.log.warning("this node follows without a vote", reason=self._no_vote())
        self.log.info(
            "started",
            validator=self.identity.index if self.votes else None,
            epoch=self.identity.committee.epoch,
            height=self.engine.chronicle.certified,
            round=self.engine.ordering.replica.round,
            clients=f"{clients[0]}:{listeners[0].socket.getsockname()[1]}",
            observers=self.network.observers_port or None,
        )

    def _refresh(self) -> None:
        """Bring what is scraped up to date."""
        self._gauges.refresh()
        self._endings.refresh()

    def stop(self) -> None:
        """Ask the node to stop."""
        self._stopping.set()

    async def _sweep(self) -> None:
        """Drop what has expired; stop to take a snapshot when far behind."""
        while True:
            await trio.sleep(SWEEP_SECONDS)
            lapsed = self.engine.sweep()
            if lapsed:
                self.api.lapsed(lapsed)
            self.network.recheck()
            self._look_behind()
            self._tell_other_versions()
            news = self.engine.horizon.news(self.engine.chronicle.time_ms())
            if news is not None:
                self.log.warning("an executor to come is lacking", reason=news)

    def _tell_other_versions(self) -> None:
        """Log who was declined since the last look because it speaks another version."""
        stats = self.network.stats.peers
        told = {self._name(number): each.other_version for number, each in stats.items()}
        told["clients"] = self.api.cut["version"]
        for name, count in told.items():
            if count > self._other_versions[name]:
                self._other_versions[name] = count
                reason = next(
                    (each.last_error for at, each in stats.items() if self._name(at) == name),
                    "their hello names another version of the client protocol",
                )
                self.log.warning("another version", peer=name, reason=reason, hint=ADVICE)

    def _look_behind(self) -> None:
        """Stop, to take a snapshot, when far behind."""
        may = self.engine.stopped is None and time.monotonic() >= self._may_join_at
        if may and not self.far_behind and self._is_far_behind():
            self.far_behind = True
            self.log.info("far behind", heights=self.engine.behind)
            self.stop()

    def _is_far_behind(self) -> bool:
        """Whether a snapshot is sooner than the blocks, or the blocks are to be had from nobody."""
        engine, now = self.engine, time.monotonic()
        behind, certified = engine.behind, engine.chronicle.certified
        if certified != self._moved[0] or not behind:
            self._moved = certified, now
        stands_still = now - self._moved[1] > STILL_SECONDS
        return behind > self.config.tuning.snapshot_heights or (behind > 0 and stands_still)

    # --- what the links bring -------------------------------------------------------------------

    def connected(self, peer: int, hello: Hello) -> None:
        """Take up with a peer."""
        if peer >= GUESTS_FROM:
            self.log.info("guest connected", peer=self._name(peer), epoch=hello.epoch)
            self._from_peer(peer, self.engine.guests.connected, peer, hello.epoch)
            return
        self._from_peer(peer, self.engine.ordering.connected, peer, hello.extras)
        self._look_behind()

    def received(self, peer: int, cls: Class, payload: bytes) -> None:
        """Take a frame of a peer."""
        self._from_peer(peer, self.engine.take, peer, cls, payload)

    def disconnected(self, peer: int, reason: str) -> None:
        """Note the end of a link."""
        self.log.info("link closed", peer=self._name(peer), reason=reason)

    def _from_peer(self, peer: int, take: Callable[..., None], *arguments: object) -> None:
        if self._broken:  # by an own bug, which is on its way to end the node
            return
        try:
            take(*arguments)
        except FAULTS as error:
            self.log.warning("peer fault", peer=self._name(peer), reason=str(error))
            self.network.close_link(peer, str(error), error.code)
        except BaseException:
            self._broken = True
            raise

    # --- what the parts tell ------------------------------------------------------------------

    def _announce(self, heights: range) -> None:
        for number in heights:
            found = self.engine.chronicle.block(number)
            if found is not None:
                self.api.certified(found)
        self.backend.advanced()

    def _finished(self, decides: bool, seconds: float) -> None:
        work = "decision" if decides else "answer"
        self.metrics.client_seconds.labels(work=work).observe(seconds)

    def _hello(self) -> HelloState:
        engine = self.engine
        return HelloState(
            self.identity.committee.epoch, engine.chronicle.certified, engine.ordering.extras()
        )

    def _name(self, number: int) -> str:
        guest = self.network.guest(number)
        return self.identity.committee.validators[number].agency if guest is None else guest.name

    @property
    def votes(self) -> bool:
        """Whether this node signs in this epoch, while nothing stops it."""
        return self.engine.votes

    # --- what it says of itself -----------------------------------------------------------------

    def _refusing(self) -> Rejected | None:
        """Return why no transaction is taken, or None."""
        problem = self._not_serving()
        if problem is not None:
            return Rejected(Status.UNAVAILABLE, "UNAVAILABLE", problem, "ask another node", 1000)
        if self.votes:
            return None
        where = ", ".join(
            f"{each.agency} ({each.client_host}:{each.client_port})"
            for each in self.identity.committee.validators
            if each.agency != self.identity.agency or self.config.node.role == "observer"
        )
        said = f"this node follows without a vote and takes no transactions ({self._no_vote()})"
        return Rejected(Status.UNAVAILABLE, NO_VOTE, said, f"submit to {where}", 1000)

    def _no_vote(self) -> str:
        if self.identity.index != FOLLOWER:
            return "restored from a backup" if self.config.node.votes else "votes = false"
        if self.config.node.role == "observer":
            return "an observer"
        return place_words(self.identity)

    def _not_serving(self) -> str | None:
        stopped = self.engine.stopped
        if stopped is None:
            return None
        if stopped.storage:
            return f"this node's disk has failed: {stopped.reason}"
        return f"this node has halted: {stopped.reason}"

    def readiness(self) -> Readiness:
        """Return whether the node takes part and serves."""
        behind = self.engine.ordering.replica.ordered_height - self.engine.chronicle.executed
        problem = self._not_serving() or self._not_linked()
        if problem is None and self.engine.signer_away:
            problem = f"nothing is signed: {self.engine.signer_away}"
        if problem is None and self.engine.doubt:
            problem = f"a certified block holds a wrong signature: {self.engine.doubt}"
        if problem is None and behind > BEHIND_HEIGHTS_MAX:
            problem = f"{behind} heights behind"
        told = {"problem": problem, **self.status()}
        return Readiness(problem is None, told)

    def _not_linked(self) -> str | None:
        """Return what links are missing: a quorum of them, or one for a node without a vote."""
        connected = len(self.network.connected)
        if self.identity.index != FOLLOWER:
            quorum = self.identity.committee.quorum
            if connected + 1 >= quorum:
                return None
            return f"{connected + 1} of {quorum} validators are connected"
        if connected:
            return None
        errors = [each.last_error for each in self.network.stats.peers.values() if each.last_error]
        why = f": {errors[0]}" if errors else ""
        return f"no member of the committee is connected{why}"

    def summary(self) -> str:
        """Return the node's state in one line, for whoever runs it."""
        readiness = self.readiness()
        known = readiness.detail["problem"] or "ready"
        return f"{known}; certified {self.engine.chronicle.certified}"

    def _role(self) -> str:
        return self.config.node.role if self.identity.index == FOLLOWER else "validator"

    def status(self) -> dict[str, Any]:
        """Return what the node says of itself: plain values."""
        committee, engine = self.identity.committee, self.engine
        chronicle = engine.chronicle
        return {
            "version": VERSION,
            "network": self.identity.genesis.network,
            "chain": self.identity.chain.hex(),
            "agency": self.config.node.agency,
            "validator": None if self.identity.index == FOLLOWER else self.identity.index,
            "role": self._role(),
            "epoch": committee.epoch,
            "round": engine.ordering.replica.round,
            "ordered": engine.ordering.replica.ordered_height,
            "executed": chronicle.executed,
            "certified": chronicle.certified,
            "flushed": engine.store.height,
            "private_from": engine.retention.first,
            "past_from": engine.store.view.horizon,
            "votes": engine.votes,
            "executor": engine.horizon.status(chronicle.time_ms()),
            "restored_at": None if engine.restored is None else engine.restored.height,
            "state_root": chronicle.state_root(chronicle.certified).hex(),
            "leaves": engine.execution.state.key_count,
            "peers": [self._name(peer) for peer in sorted(self.network.connected)],
            "releases": {
                self._name(peer): self.network.stats.peers[peer].release
                for peer in sorted(self.network.connected)
            },
            "observers": sorted(self._name(each) for each in self.network.guests),
            "validators": [validator.agency for validator in committee.validators],
            "pool": engine.dissemination.pool.waiting,
            "uptime_ms": int((time.monotonic() - self._started_at) * 1000),
            "halted": None if engine.stopped is None else engine.stopped.reason,
        }
