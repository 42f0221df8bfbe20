"""Batches on their way: own ones cut, logged and sent; peers' checked, held, fetched and served.

Frames of class BATCH push a batch (its sender is its origin) or announce some; frames of class SYNC
ask for batches by digest and answer. What is checked goes into the log before the next promise that
relies on it; held counts in announcements are none.

Not here: which batches exist and what they may cost (``batches``), and blocks (the runtime).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Final, Protocol

import trio

from consensus.errors import ComityError, RemoteProtocolError, SignatureError
from consensus.hotstuff.types import Block, PayloadItem, epoch_of_number
from consensus.ledger import batch as formats
from consensus.ledger.batch import Item
from node import batch_wire
from node.batch_verdicts import Drop, Payload, Verify
from node.batch_wire import Absent, Announce, BatchMessage, Push, Request, Response
from node.batches import BatchStore
from node.checked import CheckedBatch
from node.mempool import Mempool
from node.network.wire import Class
from node.outbox import Outbox
from node.storage import kinds
from node.storage.store import Store
from node.telemetry.metrics import Metrics
from node.verifier import Verifier

NEVER_MS: Final = 2**63
BACKLOG_MAX: Final = 256
"""Batches waiting for a worker's verdict; beyond it pushes are dropped and fetched later."""
CHECKS_MAX: Final = 32
CHECKS_BYTES_MAX: Final = 256 * 1024
"""Batches that are with the workers at once: few large ones, so that what is needed first need not
wait long, and many small ones, since a busy node comes round seldom to hand over the next."""


class Links(Protocol):
    """What is needed of ``node.network.peers.PeerNetwork``."""

    @property
    def connected(self) -> frozenset[int]:
        """Indices of connected peers."""
        ...

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        """Queue a payload for one peer."""
        ...

    def broadcast(self, cls: Class, payload: bytes) -> None:
        """Queue a payload for every connected peer."""
        ...

    def close_link(self, peer: int, reason: str) -> None:
        """Close a faulty peer's link."""
        ...


class Dissemination:
    """The batches of one node.

    Args:
        batch_bytes_max: genesis limit.
        changed: is told when other batches may be proposed, or held counts grew.
        complete: is told of each block whose batches are now all held.
        now_ms: this node's clock.
        names: of the validators, for metrics.
        trusts: whether the signatures in batches that were asked for are taken as checked: those
            of blocks that validators have certified, on a node without a vote.
        doubted: is told of a batch of a block in which a signature is wrong.
    """

    def __init__(
        self,
        batch_bytes_max: int,
        batches: BatchStore,
        pool: Mempool,
        verifier: Verifier,
        store: Store,
        outbox: Outbox,
        links: Links,
        changed: Callable[[], None],
        complete: Callable[[bytes], None],
        now_ms: Callable[[], int],
        metrics: Metrics,
        names: Sequence[str],
        *,
        trusts: bool = False,
        doubted: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self._batch_bytes_max = batch_bytes_max
        self.batches = batches
        self.pool = pool
        self._verifier = verifier
        self._store = store
        self._outbox = outbox
        self._links = links
        self._changed = changed
        self._complete = complete
        self._now_ms = now_ms
        self._metrics = metrics
        self._check_seconds = metrics.stage_seconds.labels(stage="batch")
        self._names = names
        self._trusts = trusts
        self._doubted = doubted
        self._bell = trio.Event()
        self._fetch_bell = trio.Event()
        self._announce_bell = trio.Event()
        self._announces_at_ms = 0
        """When ``run_announcing`` looks again by itself; only what is due earlier need wake it."""
        self._checks: deque[Verify] = deque()
        self._to_check = trio.Semaphore(0)
        self._in_check_bytes = 0
        self._check_room = trio.lowlevel.ParkingLot()

    @property
    def depth(self) -> int:
        """Batches of peers that wait to be checked."""
        return len(self._checks)

    # --- own batches --------------------------------------------------------------------------

    def add(self, item: Item) -> tuple[bytes, ...]:
        """Pool a verified item; see ``Mempool.add``."""
        fresh = self.pool.add(item, self._now_ms())
        self._bell.set()
        return fresh

    def cut(self) -> None:
        """Make every batch that is due, log it, and send it once it is logged."""
        while (due := self.pool.cut(self._now_ms())) is not None:
            lane, items = due
            batch = self.batches.add_own(lane, items, self._now_ms())
            self._log(batch)
            self._outbox.after_sync(partial(self._push, batch))

    def _push(self, batch: CheckedBatch) -> None:
        self._links.broadcast(Class.BATCH, batch_wire.encode(Push(batch.public, batch.private)))
        self._held(batch.digest)

    async def run_cutting(self) -> None:
        """Cut batches when they are due, until cancelled."""
        while True:
            self.cut()
            due = self.pool.due_ms()
            if due is None:
                await self._bell.wait()
            else:
                with trio.move_on_after(max(due - self._now_ms(), 0) / 1000):
                    await self._bell.wait()
            self._bell = trio.Event()

    # --- peers' batches -------------------------------------------------------------------------

    def receive(self, peer: int, payload: bytes) -> None:
        """Take a frame of class BATCH or SYNC that ``batch_wire`` knows.

        Raises:
            RemoteProtocolError: malformed, or the peer did what an honest one never does.
        """
        match self.decode(payload):
            case Push(public, private):
                if self.batches.own is not None:  # else all that is wanted is asked for
                    self._offer(peer, public, private, solicited=False)
            case Request(digests):
                self.serve(peer, digests)
            case Response(public, private):
                self._offer(peer, public, private, solicited=True)
            case Absent(digests):
                self.batches.absent(digests, self._now_ms())
                self._fetch_bell.set()
            case Announce(counts, digests):
                if self.batches.own is not None:
                    self._hear(peer, counts, digests)

    def decode(self, payload: bytes) -> BatchMessage:
        """Return the message in a frame. Raises DecodeError."""
        return batch_wire.decode(payload, self._batch_bytes_max)

    def _offer(self, peer: int, public: bytes, private: bytes, *, solicited: bool) -> None:
        wanted = self.batches.offer(peer, public, private, solicited=solicited)
        if isinstance(wanted, Drop):
            self._metrics.batches_dropped.labels(reason=wanted.name.lower()).inc()
            asked = self.batches.own is None and wanted is Drop.REFUSED  # of two peers at once
            if wanted.fault and not asked:
                self._metrics.batches_rejected.labels(peer=self._names[peer]).inc()
                raise RemoteProtocolError(f"a batch: {wanted.sentence}")
            return
        if len(self._checks) >= BACKLOG_MAX:
            self._metrics.batches_dropped.labels(reason="backlog").inc()
            busy = ComityError("too many batches wait to be checked")
            self.batches.failed(wanted, busy, self._now_ms())
        else:
            self._checks.append(wanted)
            self._to_check.release()

    async def run_checking(self) -> None:
        """Have batches checked by the workers, several at a time, until cancelled."""
        async with trio.open_nursery() as nursery:
            for _ in range(CHECKS_MAX):
                nursery.start_soon(self._check_each)

    async def _check_each(self) -> None:
        while True:
            await self._to_check.acquire()
            while self._in_check_bytes >= CHECKS_BYTES_MAX:
                await self._check_room.park()
            request, proved = self._next_check()
            size = len(request.public) + len(request.private)
            self._in_check_bytes += size
            try:
                await self._check(request, proved)
            finally:
                self._in_check_bytes -= size
                self._check_room.unpark_all()

    async def _check(self, request: Verify, proved: bool) -> None:
        # A node without a vote that does not trust its validators checks everything.
        vouched = self._trusts or (proved and self.batches.own is not None)
        begin = time.monotonic()
        try:
            batch = await self._verifier.check_batch(
                request.public, request.private, signatures=not vouched
            )
        except ComityError as error:
            self.batches.failed(request, error, self._now_ms())
            if self.batches.own is None and isinstance(error, SignatureError):
                self._doubted(f"{error.message} in batch {request.digest.hex()}")
            elif isinstance(error, RemoteProtocolError | SignatureError):
                name = self._names[request.sender]
                self._metrics.batches_rejected.labels(peer=name).inc()
                self._links.close_link(request.sender, f"a batch was refused: {error}")
            self._fetch_bell.set()
            return
        self._check_seconds.observe(time.monotonic() - begin)
        self.batches.checked(request, batch, self._now_ms())
        self._log(batch)
        self._held(batch.digest)

    def _next_check(self) -> tuple[Verify, bool]:
        """Take the batch to be checked next, and whether an ordered block names it.

        Those go first, in the order of execution, and their signatures were checked by f + 1 honest
        nodes, so that whoever is behind has less to do than those that it follows.
        """
        heights = [self.batches.proved_at(request.digest) for request in self._checks]
        proved = [(height, at) for at, height in enumerate(heights) if height is not None]
        _, at = min(proved, default=(0, 0))
        request = self._checks[at]
        del self._checks[at]
        return request, bool(proved)

    def _log(self, batch: CheckedBatch) -> None:
        self._outbox.log(kinds.batch(batch.digest, batch.public))
        self._outbox.log(kinds.private(batch.digest, batch.private))

    def _held(self, digest: bytes) -> None:
        for block_id in self.batches.held(digest):
            self._complete(block_id)
        self._changed()
        self._ring_announcing()

    def peer_holds(self, peer: int, counts: tuple[int, ...]) -> None:
        """A peer told how many batches it holds: push again what it lacks of ours."""
        own = self.batches.own
        if self.batches.take_counts(peer, counts):
            self._changed()
        # The counts of a vote are not signed and may have any length.
        if own is not None and own < len(counts):
            for batch in self.batches.peer_held(peer, counts[own], self._now_ms()):
                self._links.send(
                    peer, Class.BATCH, batch_wire.encode(Push(batch.public, batch.private))
                )

    # --- announcements --------------------------------------------------------------------------

    def _hear(self, peer: int, counts: tuple[int, ...], digests: tuple[bytes, ...]) -> None:
        if self.batches.own is not None:
            self.peer_holds(peer, counts)
        ignored = self.batches.hear(peer, digests, self._now_ms())
        if ignored:
            self._metrics.batches_dropped.labels(reason="announced").inc(ignored)
        self._fetch_bell.set()
        self._ring_announcing()

    def _ring_announcing(self) -> None:
        due_ms = self.batches.announcer.next_ms()
        if due_ms is not None and due_ms < self._announces_at_ms:
            self._announce_bell.set()

    async def run_announcing(self) -> None:
        """Tell peers of batches that stay unproposed, and of what was fetched, until cancelled."""
        while self.batches.own is not None:
            now_ms, counts = self._now_ms(), self.batches.held_counts()
            for peer, digests in self.batches.announcements(now_ms, sorted(self._links.connected)):
                message = batch_wire.encode(Announce(counts, digests))
                self._links.send(peer, Class.BATCH, message)
            due = self.batches.announcer.next_ms()
            self._announces_at_ms = NEVER_MS if due is None else due
            if due is None:
                await self._announce_bell.wait()
            else:
                with trio.move_on_after(max(due - self._now_ms(), 1) / 1000):
                    await self._announce_bell.wait()
            self._announce_bell = trio.Event()

    # --- blocks' batches ------------------------------------------------------------------------

    def require(self, block: Block, leader: int, *, ordered: bool = False) -> None:
        """Hold the batches of a block of that leader; ``complete`` is told once they are."""
        batches, now_ms = self.batches, self._now_ms()
        match batches.require(
            block.id, block.payload, block.height, now_ms, leader=leader, ordered=ordered
        ):
            case Payload.COMPLETE:
                self._complete(block.id)
            case Payload.MISSING:
                self._fetch_bell.set()
            case Payload.INVALID:
                pass

    def find(self, digest: bytes) -> CheckedBatch | None:
        """Return a held batch, for execution."""
        return self.batches.get(digest)

    async def run_fetching(self) -> None:
        """Ask peers for missing batches until cancelled."""
        while True:
            for peer, digests in self.batches.fetches(
                self._now_ms(), sorted(self._links.connected)
            ):
                self._links.send(peer, Class.SYNC, batch_wire.encode(Request(digests)))
            due = self.batches.next_fetch_ms()
            if due is None:
                await self._fetch_bell.wait()
            else:
                with trio.move_on_after(max(due - self._now_ms(), 5) / 1000):
                    await self._fetch_bell.wait()
            self._fetch_bell = trio.Event()

    def serve(self, peer: int, digests: Iterable[bytes], upto: int | None = None) -> None:
        """Give batches to a peer, as long as they find room.

        Args:
            upto: the last epoch whose batches it may have; None: any.
        """
        absent: list[bytes] = []
        for digest in digests:
            parts = self._parts(digest)
            if parts is not None and upto is not None and _epoch(parts[0]) > upto:
                parts = None
            if parts is None:
                absent.append(digest)
            elif not self._links.send(peer, Class.SYNC, batch_wire.encode(Response(*parts))):
                return
        if absent:
            self._links.send(peer, Class.SYNC, batch_wire.encode(Absent(tuple(absent))))

    def _parts(self, digest: bytes) -> tuple[bytes, bytes] | None:
        batch = self.batches.get(digest)
        if batch is not None:
            return batch.public, batch.private
        stored = self._store.view.batch(digest)
        private = self._store.view.private(digest)
        return None if stored is None or private is None else (stored[1], private)

    # --- leaving --------------------------------------------------------------------------------

    def delivered(self, block: Block, txids: Iterable[bytes]) -> None:
        """A block is final: its batches and transactions are no longer waited for."""
        self.batches.delivered(block.payload, self._now_ms())
        self.batches.settle(block.height)
        self.pool.settle(txids)
        if self.pool.waiting:  # they may be due sooner now that less is in flight
            self._bell.set()

    def close_gaps(self) -> None:
        """Wait no longer for batches that nobody may have; see ``BatchStore.close_gaps``."""
        self.batches.close_gaps(self._now_ms())

    def expire(self, chain_time_ms: int) -> list[bytes]:
        """Drop what can no longer be applied; return txids that clients must be told of."""
        lapsed = self.pool.expire(chain_time_ms)
        for batch in self.batches.expire(chain_time_ms):
            txids = [batch.txids[at : at + 32] for at in range(0, len(batch.txids), 32)]
            lapsed += [txid for txid in txids if txid in self.pool]
            self.pool.settle(txids)
        return lapsed

    def unproposed(self) -> tuple[PayloadItem, ...]:
        """Return every batch that could be proposed, in proposing order."""
        return self.batches.proposable()


def _epoch(public: bytes) -> int:
    _, number, _ = formats.read_header(public)
    return epoch_of_number(number)
