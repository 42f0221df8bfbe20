"""One validator between its links and its clients: recovery, ordering, execution, disk.

    frames of peers ─> ordering (replica) ─> outbox ─> log ─> links
    pool ─> batches ─> log ─> links
    ordered block ─> execution ─> commit vote ... certificate ─> announced, flushed

On the first disk failure, when the signer refuses and when the replica halts, nothing more is
signed, sent or delivered. What was executed and is not final is taken back, so that reads go on
from what is certified; a new start is the only way out. An own bug is not caught: it ends the node
with its data kept.

Not here: sockets, clients and telemetry (``runtime``), what the parts do, and what the node begins
with (``opening``).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio
from structlog.typing import FilteringBoundLogger

from consensus import codec
from consensus.errors import ComityError
from consensus.hotstuff.certificates import Verifier as MessageVerifier
from consensus.hotstuff.events import FOLLOWER, Halt, PayloadHeld, Started
from consensus.hotstuff.types import Block, CommitCert
from consensus.keyfile import KeyPair
from consensus.ledger.codes import Code
from consensus.ledger.ledger import of_genesis
from consensus.state.history import HistoryTree
from consensus.state.state import State
from node import batch_wire, epochs, opening
from node.activation import Horizon
from node.backup import restored
from node.batches import BatchStore
from node.checked import CheckedBatch
from node.chronicle import Chronicle, Height
from node.config import HistorySection, LimitsSection, TuningSection
from node.dissemination import Dissemination
from node.dissemination import Links as MemberLinks
from node.errors import StorageFailedError
from node.execution import Execution
from node.flushing import Flusher
from node.guests import Guests
from node.guests import Links as GuestLinks
from node.handing import Handed
from node.identity import Identity, chosen
from node.mempool import Mempool, PoolLimits
from node.network.guests import GUESTS_FROM
from node.network.wire import Class
from node.ordering import Ordering
from node.outbox import Outbox, Outgoing
from node.past import Past
from node.remote_signer import RemoteKey, RemoteSigner
from node.retention import META_PRIVATE, Retention
from node.sealed import wire as sealed_wire
from node.sealed.keeper import Keeper
from node.sealed.vault import Change
from node.silent import SilentSigner
from node.snapshots import begin
from node.snapshots import wire as snapshot_wire
from node.snapshots.serving import SnapshotServer
from node.steady import SteadyClock
from node.storage import kinds
from node.storage.disk import SYSTEM_DISK, Disk
from node.storage.flush import BatchData
from node.storage.recovery import Recovered, recover, recover_log
from node.storage.writer import LogWriter
from node.telemetry.coordination import Coordination
from node.telemetry.metrics import Metrics
from node.verifier import Verifier

LOG_BYTES_READ_AGAIN: Final = 2**20
"""A log longer than this is begun anew where an epoch ends: a second reads some 40 MiB."""


class Links(MemberLinks, GuestLinks, Protocol):
    """What is needed of ``node.network.peers.PeerNetwork``."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Why nothing more is signed. ``storage``: the disk has failed."""

    code: str
    reason: str
    storage: bool


class Engine:
    """The engine of one node. Opening it recovers; ``start`` runs it; ``close`` releases the data.

    Args:
        identity, keys: who it is; of the keys the one that the epoch's committee names signs.
        folder: its data; made if absent.
        tuning, limits, history: of its configuration.
        links: to the other validators.
        verifier: of client signatures.
        announce: is told that heights became provable, in order, each once.
        now_ms: this machine's clock, milliseconds since 1970.
        disk: the system calls of log and signer's mark.
        retention_ms: for how long private parts of transactions are kept; 0: for good.
        votes: False: the node follows and signs nothing, although it may have a vote.
        rechecks: whether a node without a vote checks clients' signatures in what it executes.
        handed: of the engine of the epoch before, on the same folder.
        ended: is told that the epoch is over: this engine is to be finished and closed, and another
            one opened on the same folder.
        hold: is given the key before anything is signed, and raises if another process signs with
            it; what it returns is called when this is closed.

    Raises:
        StorageError, SignerError: one of their kinds; what is wrong with the data.
    """

    def __init__(
        self,
        identity: Identity,
        keys: Sequence[KeyPair | RemoteKey],
        folder: Path,
        tuning: TuningSection,
        limits: LimitsSection,
        links: Links,
        verifier: Verifier,
        announce: Callable[[range], None],
        now_ms: Callable[[], int],
        log: FilteringBoundLogger,
        metrics: Metrics,
        disk: Disk = SYSTEM_DISK,
        retention_ms: int = 0,
        history: HistorySection = HistorySection(),  # noqa: B008 (frozen)
        *,
        votes: bool = True,
        rechecks: bool = False,
        handed: Handed | None = None,
        ended: Callable[[], None] = lambda: None,
        hold: Callable[[KeyPair], Callable[[], None]] = lambda key: lambda: None,
    ) -> None:
        self._retention_ms = retention_ms
        self._rechecks = rechecks
        self.doubt = ""
        """What a node without a vote found wrong in a certified block; empty: nothing."""
        self.ledger = of_genesis(identity.genesis)
        self.stopped: Stopped | None = None
        self._let_go: Callable[[], None] = lambda: None
        self.epoch_over = False
        """Whether the epoch ended; another engine goes on."""
        self._ended = ended
        self.keeper: Keeper | None = None
        """What keeps sealed values; to be set before ``start``."""
        self._announce = announce
        self._now_ms = now_ms
        self._steady_ms = SteadyClock(now_ms)
        self._log = log
        self._metrics = metrics
        self._commit_seconds = metrics.stage_seconds.labels(stage="commit")
        self._handed, self._finished = handed, False
        self._recovered = self._recover(folder, identity.chain, disk)
        try:
            self.store = self._recovered.store
            if self.store.height < 0:
                opening.found(self.store, identity)
            self.identity = identity.at(epochs.kept(self.store.view))
            self.restored = restored.found(folder, self.store.view)
            self.votes = votes and self.identity.index != FOLLOWER and self._may_sign()
            self.signer = (
                opening.signer_of(self._recovered, keys, self.identity, folder, disk, self._remote)
                if self.votes
                else SilentSigner(None, identity.chain)
            )
        except BaseException:
            self._recovered.close()
            raise
        try:
            self._wire_up(tuning, limits, links, verifier, history.keep_days)
            key = chosen(keys, self.identity) if self.votes else None
            if isinstance(key, KeyPair):
                self._let_go = hold(key)
        except BaseException:
            self.close()
            raise

    def _recover(self, folder: Path, chain: bytes, disk: Disk) -> Recovered:
        """Open the data, or what the engine before has left open of it."""
        if self._handed is not None:
            store = self._handed.store
            try:
                return recover_log(store, folder, chain=chain, disk=disk)
            except BaseException:
                store.close()
                raise
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        restored.refuse_unfinished(folder)
        begin.mend(folder)
        return recover(folder, chain=chain, disk=disk)

    def _state(self) -> State:
        """Return the state at the store's height: read, unless it was handed over."""
        if self._handed is not None and self._handed.whole:
            return self._handed.state
        store = self.store
        return State(store.state, self.identity.genesis.tree_depth, store.height)

    def _may_sign(self) -> bool:
        """Whether the key of this epoch is none that a restored backup must not sign with."""
        row, record = self.identity.row, self.restored
        if row is None or record is None or row.key not in record.keys:
            return True
        self._log.warning("restored from a backup: follows", height=record.height)
        return False

    def _remote(self, key: RemoteKey) -> RemoteSigner:
        seconds = self._metrics.signer_seconds.observe
        return RemoteSigner(key, self.identity.chain, self._recovered.log, self._log, seconds)

    def _wire_up(
        self,
        tuning: TuningSection,
        limits: LimitsSection,
        links: Links,
        verifier: Verifier,
        keep_days: int,
    ) -> None:
        identity, metrics, recovered, store = (
            self.identity,
            self._metrics,
            self._recovered,
            self.store,
        )
        tip = opening.stored_tip(store, identity.first_block)
        opening.begin_epoch(recovered, tip, identity.ended)
        opening.refuse_rollback(recovered, self.signer)
        self.signer.adopt(opening.signed_bodies(recovered, identity.index))
        genesis = identity.genesis
        self._votes_missing = [
            metrics.votes_missing.labels(validator=each.agency)
            for each in identity.committee.validators
        ]
        state = self._state()
        history = HistoryTree(opening.StoreNodes(store), store.height + 1)
        self.horizon = Horizon(self.ledger, state)
        self.horizon.refuse_downgrade(store.height, tip.block.time_ms)
        self.chronicle = Chronicle(store, history, tip.block)
        self.past = Past(store, lambda: self.chronicle.recent)
        self.coordination = Coordination(metrics, store, self.ledger.paths)
        self.writer = LogWriter(
            recovered.log,
            on_sync=metrics.fsync_seconds.observe,
            on_failure=self._failed,
        )
        self.outbox = Outbox(
            self.writer,
            self.signer,
            self._act,
            recovered.found.safety,
            [each.value for each in recovered.found.blocks],
        )
        self.ordering = Ordering(
            opening.replica(recovered, identity, tuning, tip, votes=self.votes),
            identity.committee,
            identity.index,
            MessageVerifier(identity.chain, identity.committee, identity.start),
            self.signer,
            self.outbox,
            links,
            self.chronicle,
            self._delivered,
            self._halted,
            self._now_ms,
            self._log,
            metrics,
            evidence=recovered.found.evidence,
            ends={each.epoch: each.certificate for each in identity.ended},
            epoch_over=self._epoch_over,
            horizon=self.horizon,
        )
        metrics.pool_bytes_max.set(limits.pool_bytes_max)
        pool = Mempool(
            PoolLimits(
                limits.author_transactions_max, limits.author_bytes_max, limits.pool_bytes_max
            ),
            genesis.limits,
        )
        numbers = opening.delivered_numbers(store, identity.committee, tip)
        follows = identity.index == FOLLOWER
        own = None if follows else identity.index
        batches = BatchStore(identity.committee.size, own, identity.committee.epoch)
        undelivered = opening.logged_batches(recovered, identity.chain, numbers)
        current, earlier = opening.by_epoch(undelivered, identity)
        batches.restore(numbers, current, self._steady_ms())
        for batch in current:
            if batch.origin == own:
                pool.adopt(batch.decode(identity.chain).transactions)
        if not follows:  # else clients send it to somebody who has a vote
            known = self.chronicle.find
            opening.batch_again(
                earlier, pool, identity, lambda txid: known(txid) is not None, self._steady_ms()
            )
        self.dissemination = Dissemination(
            genesis.limits.batch_bytes_max,
            batches,
            pool,
            verifier,
            store,
            self.outbox,
            links,
            self.ordering.payload_changed,
            lambda block_id: self.ordering.post(PayloadHeld(block_id)),
            self._steady_ms,
            metrics,
            [each.agency for each in identity.committee.validators],
            trusts=follows and not self._rechecks,
            doubted=self._doubted,
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
            (identity.holder.node_keys[0] if identity.row is None else identity.row.node_key),
            lacks=lambda error: self._halted(self.horizon.halt(error.number)),
        )
        self.ordering.dissemination = self.dissemination
        self.ordering.execution = self.execution
        self.retention = Retention(
            self._retention_ms, store.view.meta(META_PRIVATE), self._certified_block
        )
        self.snapshots = SnapshotServer(
            identity, store, lambda: self.execution.state, links, self._log.info, metrics
        )
        self.guests = Guests(self.ordering, self.dissemination, self.snapshots, links, metrics)
        self.flusher = Flusher(
            store,
            recovered.log,
            self.writer,
            self.execution,
            self.chronicle,
            self.ledger.paths,
            numbers,
            tuning.flush_blocks,
            self.carried,
            self._flushed,
            self._failed,
            metrics,
            self._settle,
            self.retention,
            self.dissemination.batches.drop,
            keep_days,
            boundary=self.snapshots.boundary,
        )

    def _certified_block(self, height: int) -> Block | None:
        found = self.chronicle.ordered(height)
        return None if found is None else found[0]

    async def _settle(self, changes: Sequence[Change], time_ms: int) -> None:
        """Take over what certified heights mean for sealed values."""
        if self.keeper is not None:
            await self.keeper.settle(changes, time_ms)

    def _find_batch(self, digest: bytes) -> CheckedBatch:
        batch = self.dissemination.find(digest)
        if batch is None:
            raise ComityError("a held batch is gone")
        return batch

    # --- running ------------------------------------------------------------------------------

    def start(self, nursery: trio.Nursery) -> None:
        """Start all tasks and take up what was recovered; from now on frames may be taken."""
        for task in (
            self.outbox.run,
            self.execution.run,
            self.dissemination.run_cutting,
            self.dissemination.run_checking,
            self.dissemination.run_fetching,
            self.dissemination.run_announcing,
            self.ordering.run_timers,
            self.flusher.run,
            self.snapshots.run,
            self.coordination.count_holds,
            self.guests.run,
        ):
            nursery.start_soon(task)
        book = self.ledger.rules(self.execution.state, self.chronicle.time_ms()).book
        self.coordination.begin(self.chronicle.proposals, book, self.chronicle.time_ms())
        if isinstance(self.signer, RemoteSigner):
            self.ordering.signer_away()
            nursery.start_soon(self.signer.run, self.ordering)
        self.ordering.payload_changed()
        self.ordering.post(Started())

    def take(self, peer: int, cls: Class, payload: bytes) -> None:
        """Take a frame of a peer.

        Raises:
            RemoteProtocolError, VerificationError: malformed or forged.
        """
        if peer >= GUESTS_FROM:
            self.guests.receive(peer, cls, payload)
        elif self.keeper is not None and sealed_wire.is_known(payload):
            self.keeper.receive(peer, payload)
        elif cls is Class.SYNC and snapshot_wire.is_known(payload):
            self.snapshots.receive(peer, payload)
        elif cls is Class.BATCH or batch_wire.is_known(payload):
            self.dissemination.receive(peer, payload)
        else:
            self.ordering.receive(peer, payload)

    def sweep(self) -> list[bytes]:
        """Close old gaps between batches, and drop what can no longer be applied.

        Returns:
            The txids that clients must be told of.
        """
        self.dissemination.close_gaps()
        lapsed = self.dissemination.expire(self.chronicle.time_ms())
        self.ordering.payload_changed()  # no leader may propose what is gone
        return lapsed

    async def finish(self) -> None:
        """Bring the store up to what is certified; all tasks have ended.

        Raises:
            StorageFailedError: it cannot be written; the log still holds everything.
        """
        if self.stopped is None or not self.stopped.storage:
            await self.flusher.flush()
        if self.epoch_over and self.stopped is None:
            await self.flusher.turn_log(LOG_BYTES_READ_AGAIN)  # the next engine reads all of it
            self._finished = True

    def close(self) -> None:
        """Release log, store, mark and key."""
        self.signer.close()
        self._recovered.close()
        self._let_go()

    def hand_over(self) -> Handed | None:
        """Release log, mark and key; return what the next epoch's engine goes on with.

        None where that begins as after a stop: then everything is released.
        """
        handed = Handed(self.store, self.execution.state)
        if not self._finished or not handed.whole:
            self.close()
            return None
        self.signer.close()
        self._recovered.log.close()
        self._let_go()
        return handed

    # --- what the log must hold -----------------------------------------------------------------

    @property
    def log_bytes(self) -> int:
        """Size of the log, all segments."""
        return self._recovered.log.end - self._recovered.log.start

    def carried(self) -> list[kinds.Entry]:
        """Return what a new log segment begins with, so that all older segments may go.

        Every batch that is not flushed, delivered or not, held or about to be; every block above
        the store that an earlier segment may hold, whatever its branch; evidence; and last, since
        it relies on them, the newest safety record, unless nothing was ever promised.
        """
        entries: list[kinds.Entry] = []
        flushing = self.chronicle.unflushed_batches()
        batches: dict[bytes, BatchData | CheckedBatch] = {each.digest: each for each in flushing}
        batches.update((each.digest, each) for each in self.dissemination.batches.undelivered())
        for batch in batches.values():
            entries.append(kinds.batch(batch.digest, batch.public))
            if batch.private is not None:
                entries.append(kinds.private(batch.digest, batch.private))
        entries += self.outbox.blocks()
        entries += [kinds.evidence(pair) for pair in self.ordering.evidence]
        if self.outbox.newest_record is not None:
            entries.append(kinds.safety(self.outbox.newest_record))
        return entries

    @property
    def signer_away(self) -> str:
        """Why the signer in another process does not sign; "" if it does, or there is none."""
        return self.signer.why if isinstance(self.signer, RemoteSigner) else ""

    @property
    def behind(self) -> int:
        """Heights from the newest certificate that is known down to the newest certified here."""
        commit = self.ordering.replica.certificates().commit_cert
        newest = 0 if commit is None else commit.statement.height
        return max(0, newest - self.chronicle.certified)

    # --- what the parts tell ------------------------------------------------------------------

    def _flushed(self, height: int) -> None:
        self.outbox.flushed(height)
        self.snapshots.flushed(height)

    def _act(self, effect: Outgoing) -> None:
        self.ordering.act(effect)

    def _delivered(self, block: Block, certificate: CommitCert) -> None:
        height = self.chronicle.certify(block.id, certificate)
        metrics = self._metrics
        self._commit_seconds.observe(time.monotonic() - height.since)
        self.dissemination.delivered(block, height.txids)
        for leaf, count in height.codes.items():
            code = Code(codec.parse(leaf, "code")[0])
            metrics.transactions.labels(code=code.name).inc(count)
        self._count(height)
        if certificate.statement.height == block.height:
            metrics.certificates.inc()
            signers = {validator for validator, _ in certificate.signatures}
            for index, missing in enumerate(self._votes_missing):
                if index not in signers:
                    missing.inc()
            self._announce(self.chronicle.announced())
            self.guests.advanced()
        self.flusher.ring()

    def _count(self, height: Height) -> None:
        """Count what a height means for coordination. What only dashboards show stops no node."""
        try:
            self.coordination.certified(height)
        except Exception:
            at = height.block.height
            self._log.exception("coordination of a height is not counted", height=at)

    def _halted(self, halt: Halt) -> None:
        """The replica halted, or the signer refused: what was promised before still leaves."""
        if self._stop(Stopped(halt.code, halt.reason, storage=False)):
            self.outbox.after_sync(self.execution.rewind)

    def _failed(self, error: StorageFailedError) -> None:
        """The disk failed: nothing that waits for it will ever be durable."""
        self._stop(Stopped(error.code, error.message, storage=True))
        self.outbox.close()
        self.execution.rewind()

    def _doubted(self, reason: str) -> None:
        """A client's signature is wrong in what a quorum has certified: say so, and go no further.

        Its batch is refused, so the block is never executed here.
        """
        self._metrics.signatures_doubted.inc()
        if not self.doubt:
            self._log.error("a certified block holds a wrong signature", reason=reason)
        self.doubt = reason

    def _epoch_over(self) -> None:
        """The epoch ended: what was delivered is flushed by ``finish``, and a new start goes on."""
        self.epoch_over = True
        self.outbox.close()
        self.execution.rewind()
        self._ended()

    def _stop(self, why: Stopped) -> bool:
        """Stop signing; False if that had happened. A disk's failure is told in any case."""
        before = self.stopped
        if before is not None and (before.storage or not why.storage):
            return False
        self.stopped = why
        self._log.error("signing stopped", code=why.code, reason=why.reason)
        self.ordering.close()
        return before is None
