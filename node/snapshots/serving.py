"""Giving the state to peers that begin or are far behind, without being held up by any of them.

At most one snapshot is open: one LMDB read transaction, HOLD_SECONDS_MAX at most, since the store
keeps what it shows. Whoever asks gets an offer of it; a new one is opened once the last is old and
nobody takes pieces of it. Under load nodes open theirs at the same heights (multiples of
BOUNDARY_HEIGHTS), so that pieces of several peers fit together.

Nothing of it happens on the way of consensus: the row of hashes is the tree's own; pieces are read
in a worker thread, one at a time over all peers in turn, and between two of them this rests for
longer than the last one took. What a peer asks beyond WANTS_MAX is dropped; it asks again.

Not here: what is right (the asker finds out), files (``export``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

import trio

from consensus import codec, genesis
from consensus.errors import ProofError
from consensus.snapshot import verify_manifest
from consensus.state.snapshot import NODE_BITS_MAX, row_bits
from consensus.state.state import State
from consensus.state.subtree import bits_of
from node.errors import DamagedStoreError
from node.identity import Identity
from node.network.wire import Class
from node.snapshots import wire
from node.snapshots.export import stored_manifest
from node.snapshots.source import Source
from node.snapshots.wire import Ask, Gone, Offer, SnapshotMessage, Want
from node.storage.pinned import Pinned
from node.storage.store import Store, View
from node.storage.tables import Tables
from node.telemetry.metrics import Metrics

if TYPE_CHECKING:
    import lmdb

HOLD_SECONDS_MAX: Final = 1800.0
"""A snapshot is closed after so long, whoever still takes pieces of it."""
FRESH_SECONDS: Final = 20.0
"""Whoever asks sooner than this after a snapshot was opened gets that one."""
IDLE_SECONDS: Final = 15.0
"""Without a want for so long, a snapshot is closed."""
BOUNDARY_HEIGHTS: Final = 16
BOUNDARY_SECONDS_MAX: Final = 2.0
"""How long an asker waits for the store to stand at such a height."""
ASK_SECONDS_MIN: Final = 1.0
"""Between two asks of one peer that are answered."""
WANTS_MAX: Final = 16
"""Wants of one peer that may wait."""
REST_FACTOR: Final = 1.5
"""Rest after a piece, in times that it took to read."""
PIECES_KEPT_MAX: Final = 4
"""Pieces of several parts that are kept for their other parts."""
PROOF_CERTIFICATES_MAX: Final = 4096
"""Newest certificates that are searched for one with the asker's signature."""


class Links(Protocol):
    """What is needed of ``node.network.peers.PeerNetwork``."""

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        """Queue a payload for one peer; False when there is no room."""
        ...


@dataclass(slots=True)
class _Open:
    """The snapshot that is open."""

    height: int
    manifest: bytes
    bits: int
    pinned: Pinned
    since: float
    used: float
    kept: dict[int, bytes] = field(default_factory=dict)
    proofs: dict[int, bytes | None] = field(default_factory=dict)


class SnapshotServer:
    """The snapshots that one node gives its peers.

    Args:
        state: returns the state at the tip, whose flushed height is the store's.
        log: is told what an operator should know.
    """

    def __init__(
        self,
        identity: Identity,
        store: Store,
        state: Callable[[], State],
        links: Links,
        log: Callable[..., object],
        metrics: Metrics,
    ) -> None:
        self._identity = identity
        self._split: tuple[bytes, bytes] | None = None
        self._store = store
        self._state = state
        self._links = links
        self._log = log
        self._metrics = metrics
        self._open: _Open | None = None
        self._asking: dict[int, None] = {}
        self._asked_at: dict[int, float] = {}
        self._wants: dict[int, deque[Want]] = {}
        self._bell = trio.Event()
        self._reached = trio.Event()
        self._waits = False

    # --- what the links and the flusher bring ---------------------------------------------------

    def receive(self, peer: int, payload: bytes) -> SnapshotMessage | None:
        """Take a message; return it if it is one for whoever joins.

        Raises:
            DecodeError: malformed.
        """
        message = wire.decode(payload)
        match message:
            case Ask():
                now = trio.current_time()
                if now - self._asked_at.get(peer, -math.inf) >= ASK_SECONDS_MIN:
                    self._asked_at[peer] = now
                    self._asking[peer] = None
                    self._bell.set()
            case Want():
                waiting = self._wants.setdefault(peer, deque())
                if len(waiting) < WANTS_MAX:
                    waiting.append(message)
                    self._bell.set()
                else:
                    self._metrics.snapshot_wants_dropped.inc()
            case _:
                return message
        return None

    def boundary(self) -> int:
        """Return at multiples of which height a flush is to end; 0 while it does not matter."""
        return BOUNDARY_HEIGHTS if self._waits else 0

    def flushed(self, height: int) -> None:
        """The store, and with it the state's flushed height, has come to ``height``."""
        if self._waits and height % BOUNDARY_HEIGHTS == 0:
            self._begin()
            self._reached.set()

    # --- running --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Answer until cancelled."""
        try:
            while True:
                with trio.move_on_after(IDLE_SECONDS / 4 if self._open else math.inf):
                    await self._bell.wait()
                self._bell = trio.Event()
                self._expire()
                if self._asking:
                    await self._offer()
                await self._serve()
        finally:
            self._close()

    async def _offer(self) -> None:
        """Offer everybody who asked the open snapshot, or a new one."""
        await self._ready()
        asking, self._asking = list(self._asking), {}
        for peer in asking:
            found = self._open
            if found is None:
                self._send(peer, Gone(0))
                continue
            if peer not in found.proofs:
                signed = _Signed(self._places(peer))
                found.proofs[peer] = await trio.to_thread.run_sync(found.pinned.read, signed)
            self._send(peer, Offer(found.manifest, found.proofs[peer]))
            self._metrics.snapshots_offered.inc()

    def _places(self, peer: int) -> dict[int, int]:
        """Return the places of a peer's validator key, by epoch."""
        identity = self._identity
        if peer >= identity.committee.size:
            return {}  # whatever its key signed, it has no vote in this epoch
        key = identity.committee.keys[peer]
        return {
            each.epoch: each.keys.index(key) for each in identity.committees if key in each.keys
        }

    async def _ready(self) -> None:
        now = trio.current_time()
        found = self._open
        if found is not None:
            busy = now - found.used < IDLE_SECONDS and found.used > found.since
            if now - found.since < FRESH_SECONDS or busy:
                return
        self._waits, self._reached = True, trio.Event()
        with trio.move_on_after(BOUNDARY_SECONDS_MAX):
            await self._reached.wait()
        self._waits = False
        if not self._reached.is_set():
            self._begin()

    async def _serve(self) -> None:
        """Send a part to each peer that wants one, in turn, until nobody does."""
        while self._wants:
            for peer in list(self._wants):
                waiting = self._wants[peer]
                want = waiting.popleft()
                if not waiting:
                    del self._wants[peer]
                await self._give(peer, want)
            if self._asking:
                return

    async def _give(self, peer: int, want: Want) -> None:
        self._expire()
        found = self._open
        if found is None or found.height != want.height or not _fits(want.node, found.bits):
            self._send(peer, Gone(want.height))
            await trio.lowlevel.checkpoint()
            return
        begin = found.used = trio.current_time()
        piece = found.kept.get(want.node)
        if piece is None:
            reading = _Reading(self._identity.genesis.tree_depth, want.node)
            piece = await trio.to_thread.run_sync(found.pinned.read, reading)
        if piece is None:
            self._send(peer, Gone(want.height))
            return
        if len(piece) > wire.PART_BYTES:
            found.kept[want.node] = piece
            while len(found.kept) > PIECES_KEPT_MAX:
                del found.kept[next(iter(found.kept))]
        parts = wire.parts_of(want.height, want.node, piece)
        if want.part < len(parts) and self._send(peer, parts[want.part]):
            self._metrics.snapshot_parts.inc()
        await trio.sleep((trio.current_time() - begin) * REST_FACTOR)

    def _send(self, peer: int, message: SnapshotMessage) -> bool:
        return self._links.send(peer, Class.SYNC, wire.encode(message))

    # --- opening and closing ----------------------------------------------------------------------

    def _begin(self) -> None:
        """Open a snapshot of the store's height, unless there is nothing certified in it."""
        self._close()
        height = self._store.height
        if height <= 0:
            return
        pinned = self._store.pin()
        found = None
        try:
            found = pinned.read(self._make)
        except (ProofError, DamagedStoreError) as error:
            self._log("no snapshot", height=height, reason=str(error))
        if found is None:
            pinned.close()
            return
        manifest, bits = found
        now = trio.current_time()
        self._open = _Open(height, manifest, bits, pinned, now, now)
        self._log("snapshot opened", height=height)

    def _make(self, txn: lmdb.Transaction[bytes], opened: Tables) -> tuple[bytes, int] | None:
        """Return the manifest and the depth of its row; None if another height is shown."""
        view = View(txn, opened)
        state = self._state()
        if view.height != state.flushed_height:
            return None  # committed a moment ago; the flush is not over
        stat = txn.stat(opened.state)
        bits = row_bits((stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"], state.depth)
        if self._split is None:
            self._split = genesis.split(self._identity.genesis.encode())
        manifest = stored_manifest(view, self._split, *state.stored_row(bits))
        verify_manifest(manifest, self._identity.chain)
        encoded = manifest.encode()
        return None if len(encoded) > wire.OFFER_BYTES_MAX else (encoded, bits)

    def _expire(self) -> None:
        found = self._open
        if found is None:
            return
        now = trio.current_time()
        old = now - found.since > HOLD_SECONDS_MAX
        idle = now - found.used > max(IDLE_SECONDS, FRESH_SECONDS)
        if found.pinned.closed or old or idle:
            self._close()

    def _close(self) -> None:
        if self._open is not None:
            self._open.pinned.close()
            self._open = None


def _fits(node: int, bits: int) -> bool:
    return bits <= bits_of(node) <= NODE_BITS_MAX and (bits_of(node) - bits) % 2 == 0


@dataclass(frozen=True, slots=True)
class _Reading:
    """Reads one piece; None where the node has no entries."""

    depth: int
    node: int

    def __call__(self, txn: lmdb.Transaction[bytes], opened: Tables) -> bytes | None:
        return next(Source(txn, opened.state, self.depth).pieces(self.node), None)


@dataclass(frozen=True, slots=True)
class _Signed:
    """Finds the newest certificate that a validator has signed, among the newest kept.

    ``places``: of its key, by epoch.
    """

    places: Mapping[int, int]

    def __call__(self, txn: lmdb.Transaction[bytes], opened: Tables) -> bytes | None:
        with txn.cursor(opened.certs) as cursor:
            found = cursor.last()
            for _ in range(PROOF_CERTIFICATES_MAX):
                if not found:
                    return None
                data: bytes = cursor.value()
                statement, rows = codec.parse(data, "certificate")
                if self.places.get(statement[1], -1) in (row[0] for row in rows):
                    return data
                found = cursor.prev()
        return None
