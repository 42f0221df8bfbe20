"""Batches held by this node, from arrival to delivery. Pure: time is passed in.

    own:      add_own ─► log ─► held ─► send to all
    a peer's: offer ─► Verify ─► (worker) ─► checked ─► log ─► held
                    └► Dropped           └► failed
    a block's: require ─► fetches ─► offer(solicited) ... held ─► the block is complete

A batch is *held* when it is whole, checked and logged; it is proposable when all earlier ones of
its origin are held too, or have not come for GAP_MS (``origins``). It stays so until a block with
it is delivered, whatever becomes of blocks in between, or until nothing in it can be applied.

Bounds against a hostile origin: ORIGIN_BYTES_MAX and ORIGIN_BATCHES_MAX of what it pushed, numbers
at most NUMBERS_AHEAD_MAX ahead, one batch a number. What a block names is fetched beyond these
bounds, because the block may be ordered; older batches of that origin that no block needs make room
for it. They are forgotten, not lost: a block that names them has them fetched again. What a peer
announces is fetched within them, and within those of ``consensus.hotstuff.announcing``. Headers are
not signed: a leader can name batches in another's name, so a block may not skip many numbers.

Not here: sockets, the log, and the checks themselves (``verifier``).
Source: docs/protocol/transaction.cddl.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from consensus.errors import DecodeError, SignatureError, invariant
from consensus.hotstuff.announcing import Announcer
from consensus.hotstuff.types import LANE_PROTECTIVE, PayloadItem, epoch_of_number, number_before
from consensus.ledger import batch as formats
from consensus.ledger.batch import Item
from node.batch_verdicts import Drop, Payload, Verify
from node.batch_wire import DIGESTS_MAX
from node.checked import CheckedBatch, from_batch
from node.origins import NUMBERS_AHEAD_MAX, Origin

ORIGIN_BYTES_MAX: Final = 32 * 1024 * 1024
ORIGIN_BATCHES_MAX: Final = 4096
CHECKING_MAX: Final = 64
"""Batches of one sender that may be in the workers' hands at once."""
DELIVERED_BYTES_MAX: Final = 32 * 1024 * 1024
DELIVERED_BATCHES_MAX: Final = 4096
"""Delivered batches kept for peers that are a little behind; older ones are in the store. A small
one takes a KiB more than its bytes."""
REFUSED_MAX: Final = 4096
REQUIRED_MAX: Final = 1024
"""Blocks whose batches are needed; the oldest is forgotten first."""
FETCH_RETRY_MS: Final = 250
FETCH_RETRY_MS_MAX: Final = 1000
ABSENT_RETRY_MS: Final = 20
FETCH_PEERS: Final = 2
FETCH_ATTEMPTS_MAX: Final = 8
"""How often a batch is asked for that no block needs any more."""
RESEND_MS: Final = 1000
RESEND_BYTES_MAX: Final = 1024 * 1024


@dataclass(slots=True)
class _Entry:
    batch: CheckedBatch
    item: PayloadItem
    since_ms: int
    fetched: bool = False
    """It came from another than its origin, and f + 1 are not known to hold it."""
    held: bool = False


@dataclass(slots=True)
class _Want:
    item: PayloadItem
    next_ms: int
    leader: int | None
    attempts: int = 0
    height: int | None = None
    """Of the lowest ordered block that names it: then f + 1 honest nodes have checked it."""


class BatchStore:
    """The batches of one epoch's committee.

    Args:
        size: number of validators.
        own: this node's index; None for a node that makes no batches.
        epoch: whose batches these are, by their numbers.
    """

    def __init__(self, size: int, own: int | None, epoch: int = 1) -> None:
        self.own = own
        self.announcer = Announcer(size)
        self._lacks_acknowledgements = False
        self._epoch = epoch
        self._own_next = number_before(epoch) + 1
        self._origins = [Origin() for _ in range(size)]
        self._entries: dict[bytes, _Entry] = {}
        self._delivered: dict[bytes, _Entry] = {}
        self._delivered_bytes = 0
        self._checking: dict[bytes, int] = {}
        self._refused: dict[bytes, None] = {}
        self._required: dict[bytes, tuple[PayloadItem, ...]] = {}
        self._heights: dict[bytes, int] = {}
        self._missing: dict[bytes, set[bytes]] = {}
        self._wanted: dict[bytes, _Want] = {}
        self._pushed_ms: dict[int, int] = {}
        self._peer_counts = [0] * size

    @property
    def size_bytes(self) -> int:
        """Bytes of all batches in memory."""
        return self._delivered_bytes + sum(origin.size_bytes for origin in self._origins)

    def held_counts(self) -> tuple[int, ...]:
        """Return, per origin, how many batches from number 1 on are held without a gap."""
        return tuple([origin.contiguous for origin in self._origins])

    def restore(self, counts: Sequence[int], batches: Iterable[CheckedBatch], now_ms: int) -> None:
        """Begin with what the node's own log and store say.

        Args:
            counts: per origin, the highest number delivered.
            batches: those in the log that are not delivered.
        """
        for origin, count in zip(self._origins, counts, strict=True):
            origin.contiguous = count
        for batch in batches:
            if batch.digest not in self._entries:
                self._insert(batch, now_ms)
                self.held(batch.digest)
        if self.own is not None:  # what our own log lacks of our numbers has lapsed
            ours = [e.batch.number for e in self._entries.values() if e.batch.origin == self.own]
            self._origins[self.own].close(max(ours, default=0))
            self._own_next = self._origins[self.own].contiguous + 1

    # --- own batches ---

    def add_own(self, lane: int, items: Sequence[Item], now_ms: int) -> CheckedBatch:
        """Return the next own batch, of verified items. Log it, call ``held``, send it to all."""
        invariant(self.own is not None, "an observer makes no batches")
        batch = from_batch(formats.build(self.own or 0, self._own_next, lane, items))
        self._own_next += 1
        self._insert(batch, now_ms)
        return batch

    def peer_held(self, peer: int, count: int, now_ms: int) -> list[CheckedBatch]:
        """A peer told how many of our batches it holds: return those to push to it again.

        At most RESEND_BYTES_MAX each RESEND_MS, and none younger than that. When f + 1 peers hold
        more than we ever made, our log lost its end: their numbers are not used a second time.
        """
        if self.own is None or not self._of_epoch([count]):
            return []
        self._peer_counts[peer] = count
        faulty_max = (len(self._origins) - 1) // 3
        self._own_next = max(self._own_next, sorted(self._peer_counts)[-faulty_max - 1] + 1)
        recent = now_ms - self._pushed_ms.get(peer, now_ms - RESEND_MS) < RESEND_MS
        if recent or count >= self._origins[self.own].contiguous:
            return []
        lacking = [
            entry.batch
            for entry in self._entries.values()
            if entry.held
            and entry.batch.origin == self.own
            and entry.batch.number > count
            and now_ms - entry.since_ms >= RESEND_MS
        ]
        chosen: list[CheckedBatch] = []
        room = RESEND_BYTES_MAX
        for batch in sorted(lacking, key=lambda each: each.number):
            if chosen and batch.size_bytes > room:
                break
            chosen.append(batch)
            room -= batch.size_bytes
        if chosen:
            self._pushed_ms[peer] = now_ms
        return chosen

    # --- arrival ---

    def offer(
        self, sender: int, public: bytes, private: bytes, *, solicited: bool = False
    ) -> Verify | Drop:
        """Decide whether a batch from a peer is worth a worker's time.

        Args:
            sender: the peer whose link brought it.
            solicited: it answers a request; otherwise the sender claims to be its origin.
        """
        try:
            origin_index, number, _ = formats.read_header(public)
        except DecodeError:
            return Drop.MALFORMED
        if epoch_of_number(number) != self._epoch:
            return Drop.ELSEWHERE
        if origin_index >= len(self._origins):
            return Drop.MALFORMED
        digest = formats.digest(public)
        if digest in self._entries or digest in self._delivered:
            return Drop.KNOWN
        if digest in self._checking:
            return Drop.IN_CHECK
        if digest in self._refused:
            return Drop.REFUSED
        if digest not in self._wanted:
            announced = self.announcer.looks_for(digest) and origin_index != self.own
            if solicited and not announced:
                return Drop.UNASKED
            by = origin_index if solicited else sender
            drop = self._unwelcome(by, origin_index, number, digest, len(public) + len(private))
            if drop is not None:
                return drop
        if list(self._checking.values()).count(sender) >= CHECKING_MAX:
            return Drop.NO_ROOM
        self._checking[digest] = sender
        return Verify(sender, digest, public, private)

    def _unwelcome(
        self, sender: int, index: int, number: int, digest: bytes, size_bytes: int
    ) -> Drop | None:
        origin = self._origins[index]
        if index != sender or index == self.own:
            return Drop.FOREIGN
        if origin.digests.get(number, digest) != digest:
            return Drop.SECOND
        if number <= origin.contiguous or number in origin.held:
            return Drop.KNOWN
        if number > origin.contiguous + NUMBERS_AHEAD_MAX:
            return Drop.TOO_FAR
        full = origin.size_bytes + size_bytes > ORIGIN_BYTES_MAX
        return Drop.NO_ROOM if full or origin.batches >= ORIGIN_BATCHES_MAX else None

    def checked(self, request: Verify, batch: CheckedBatch, now_ms: int) -> None:
        """Keep a batch that a worker accepted. Log both parts, then call ``held``."""
        invariant(batch.digest == request.digest, "a worker answered about another batch")
        self._checking.pop(request.digest, None)
        if batch.digest not in self._entries:
            self._make_room(batch)
            self._insert(batch, now_ms)
            self._entries[batch.digest].fetched = request.sender != batch.origin

    def failed(self, request: Verify, error: Exception, now_ms: int) -> None:
        """Take note of a batch that was not accepted.

        A bad copy, or a failure of our own, leaves the batch to be fetched elsewhere. Otherwise
        its bytes, whoever sends them, will never be accepted.
        """
        self._checking.pop(request.digest, None)
        if isinstance(error, DecodeError | SignatureError):
            self._refuse(request.digest)
        want = self._wanted.get(request.digest)
        if want is not None:
            want.next_ms = now_ms

    def held(self, digest: bytes) -> list[bytes]:
        """A batch is logged: count it, and return the blocks that lack nothing any more.

        Their payload may be claimed held. A block that describes the batch wrongly is not among
        them, now or later.
        """
        entry = self._entries.get(digest)
        if entry is None or entry.held:
            return []
        entry.held = True
        self._wanted.pop(digest, None)
        origin, number = entry.batch.origin, entry.batch.number
        self._origins[origin].mark(number, entry.since_ms)
        self.announcer.held(digest, origin, number, entry.since_ms)
        complete: list[bytes] = []
        for block_id, missing in list(self._missing.items()):
            if digest not in missing:
                continue
            missing.discard(digest)
            if entry.item not in self._required[block_id]:
                self.release(block_id)
            elif not missing:
                del self._missing[block_id]
                complete.append(block_id)
        return complete

    # --- blocks ---

    def require(
        self,
        block_id: bytes,
        payload: Sequence[PayloadItem],
        height: int,
        now_ms: int,
        *,
        leader: int | None = None,
        ordered: bool = False,
    ) -> Payload:
        """Say whether a block's batches are held, and have the missing ones fetched.

        When it was MISSING, ``held`` names the block once it is complete. ``settle`` ends it. What
        an ``ordered`` block lacks counts as proved from now on.

        Args:
            leader: who proposed the block, and so has its batches.
        """
        missing: set[bytes] = set()
        for item in payload:
            entry = self._find(item.digest)
            if item.origin >= len(self._origins):
                return Payload.INVALID
            if item.digest in self._refused or (entry is not None and entry.item != item):
                return Payload.INVALID
            if not ordered and self._origins[item.origin].is_skipping(item.number):
                return Payload.INVALID
            if entry is None or not entry.held:
                missing.add(item.digest)
                if entry is None:
                    want = self._wanted.setdefault(item.digest, _Want(item, now_ms, leader))
                    if ordered and (want.height is None or height < want.height):
                        want.height = height
        self._required[block_id] = tuple(payload)
        self._heights[block_id] = height
        while len(self._required) > REQUIRED_MAX:
            self.release(next(iter(self._required)))
        if not missing:
            return Payload.COMPLETE
        self._missing[block_id] = missing
        return Payload.MISSING

    def proved_at(self, digest: bytes) -> int | None:
        """Return the height of the lowest ordered block that lacks a batch, or None.

        The signatures in such a batch need no check of ours.
        """
        want = self._wanted.get(digest)
        return None if want is None else want.height

    def settle(self, height: int) -> None:
        """A block of this height is final: those up to it are delivered or abandoned.

        What an abandoned one lacks is still asked for, FETCH_ATTEMPTS_MAX times in all: its leader
        may be the only one that has it, and names it again.
        """
        for block_id in [each for each, at in self._heights.items() if at <= height]:
            del self._heights[block_id]
            self._required.pop(block_id, None)
            self._missing.pop(block_id, None)

    def release(self, block_id: bytes) -> None:
        """Nobody will execute a block: its batches are no longer needed for it."""
        payload = self._required.pop(block_id, ())
        self._heights.pop(block_id, None)
        self._missing.pop(block_id, None)
        if not any(item.digest in self._wanted for item in payload):
            return
        needed = self._needed()
        for item in payload:
            if item.digest not in needed:
                self._wanted.pop(item.digest, None)

    def fetches(self, now_ms: int, peers: Sequence[int]) -> list[tuple[int, tuple[bytes, ...]]]:
        """Return the requests to send now: (peer, digests).

        A batch that a vote waits for is asked of two peers at once. One that an ordered block lacks
        is asked of one first: whoever is behind has no time for everything twice. Each retry asks
        the next two, and waits twice as long for them, up to FETCH_RETRY_MS_MAX. The first retry
        asks the block's leader, who may be the only one that has it.

        Args:
            peers: connected ones.
        """
        self._give_up()
        by_peer: dict[int, list[bytes]] = {}
        for digest, want in self._wanted.items():
            if want.next_ms > now_ms or digest in self._checking:
                continue
            first = want.height is not None and not want.attempts
            begin, count = digest[0] + want.attempts * FETCH_PEERS, 1 if first else FETCH_PEERS
            asked = [peers[at % len(peers)] for at in range(begin, begin + min(count, len(peers)))]
            leader = want.leader if want.attempts == 1 and want.leader in peers else None
            if leader is not None and leader not in asked:
                asked[-1] = leader
            for peer in asked:
                by_peer.setdefault(peer, []).append(digest)
            want.next_ms = now_ms + min(FETCH_RETRY_MS << want.attempts, FETCH_RETRY_MS_MAX)
            want.attempts += 1 if peers else 0
        for peer, digest in self.announcer.asks(now_ms, peers, self._checking.__contains__):
            if digest not in by_peer.setdefault(peer, []):
                by_peer[peer].append(digest)
        return [
            (peer, tuple(digests[at : at + DIGESTS_MAX]))
            for peer, digests in by_peer.items()
            for at in range(0, len(digests), DIGESTS_MAX)
        ]

    def _give_up(self) -> None:
        """Forget what no block needs any more and nobody had when asked."""
        tired = [d for d, want in self._wanted.items() if want.attempts >= FETCH_ATTEMPTS_MAX]
        needed = self._needed() if tired else ()
        for digest in tired:
            if digest not in needed:
                del self._wanted[digest]

    def next_fetch_ms(self) -> int | None:
        """Return when ``fetches`` is to be called next; None while there is nothing to ask for."""
        due = [w.next_ms for digest, w in self._wanted.items() if digest not in self._checking]
        if (ask_ms := self.announcer.next_ask_ms()) is not None:
            due.append(ask_ms)
        return min(due, default=None)

    def absent(self, digests: Sequence[bytes], now_ms: int) -> None:
        """A peer does not have them: ask others soon."""
        for digest in digests:
            self.announcer.absent(digest, now_ms)
            want = self._wanted.get(digest)
            if want is not None:
                want.next_ms = min(want.next_ms, now_ms + ABSENT_RETRY_MS)

    def get(self, digest: bytes) -> CheckedBatch | None:
        """Return a batch in memory, for execution or for a peer that asks."""
        entry = self._find(digest)
        return None if entry is None else entry.batch

    def _find(self, digest: bytes) -> _Entry | None:
        return self._entries.get(digest) or self._delivered.get(digest)

    def proposable(self) -> tuple[PayloadItem, ...]:
        """Return every batch that could be proposed, in proposing order.

        Protective ones first; in a lane the oldest of each origin, then the second oldest of each,
        so that no origin delays the others. A fetched one waits until f + 1 are known to hold it.
        """
        self._lacks_acknowledgements = False
        turns: dict[tuple[int, int], int] = {}
        rows: list[tuple[int, int, int, int, PayloadItem]] = []
        for entry in self._entries.values():
            batch = entry.batch
            if not entry.held or batch.number > self._origins[batch.origin].contiguous:
                continue
            if entry.fetched:
                entry.fetched = not self.announcer.acknowledged(batch.origin, batch.number)
                if entry.fetched:
                    self._lacks_acknowledgements = True
                    continue
            turn = turns.get((batch.lane, batch.origin), 0)
            turns[batch.lane, batch.origin] = turn + 1
            lane = 0 if batch.lane == LANE_PROTECTIVE else 1
            rows.append((lane, turn, entry.since_ms, batch.origin, entry.item))
        rows.sort()  # no two have the same lane, turn and origin
        return tuple([row[4] for row in rows])

    def _of_epoch(self, counts: Sequence[int]) -> bool:
        """Whether held counts speak of this epoch: who announces may be in another one."""
        low, high = number_before(self._epoch), number_before(self._epoch + 1)
        return all(low <= count < high for count in counts)

    def undelivered(self) -> list[CheckedBatch]:
        """Return every batch that is not delivered, held or about to be, whatever its number."""
        return [entry.batch for entry in self._entries.values()]

    # --- announcements ---

    def take_counts(self, peer: int, counts: Sequence[int]) -> bool:
        """Take a peer's held counts; return whether more may be proposable for them."""
        return (
            self._of_epoch(counts)
            and self.announcer.take_counts(peer, counts)
            and self._lacks_acknowledgements
        )

    def hear(self, peer: int, digests: Sequence[bytes], now_ms: int) -> int:
        """Take an announcement of a peer; return how many of its digests are ignored."""

        def known(digest: bytes) -> bool:
            entry = self._find(digest)
            return digest in self._refused or (entry is not None and entry.held)

        return self.announcer.hear(peer, digests, now_ms, known)

    def announcements(
        self, now_ms: int, peers: Sequence[int]
    ) -> list[tuple[int, tuple[bytes, ...]]]:
        """Return the announcements to send now: (peer, digests)."""
        needed: Collection[bytes] | None = None

        def waiting(digest: bytes) -> bool | None:
            nonlocal needed
            entry = self._entries.get(digest)
            if entry is None:
                return None
            needed = self._needed() if needed is None else needed
            contiguous = self._origins[entry.batch.origin].contiguous
            return digest not in needed and entry.batch.number <= contiguous

        return self.announcer.announcements(now_ms, peers, waiting)

    # --- leaving ---

    def delivered(self, payload: Sequence[PayloadItem], now_ms: int) -> list[CheckedBatch]:
        """A block with these batches is final; return those that were in memory."""
        gone: list[CheckedBatch] = []
        for item in payload:
            origin = self._origins[item.origin]
            origin.delivered(item.number, now_ms)
            origin.name(item.number, item.digest)
            if item.origin == self.own:  # our log may have lost its end
                self._own_next = max(self._own_next, item.number + 1)
            self._wanted.pop(item.digest, None)
            if item.digest in self._entries:
                entry = self._delivered[item.digest] = self._remove(item.digest)
                entry.held = True
                self._delivered_bytes += entry.item.size_bytes
                gone.append(entry.batch)
        while (
            self._delivered_bytes > DELIVERED_BYTES_MAX
            or len(self._delivered) > DELIVERED_BATCHES_MAX
        ):
            old = self._delivered.pop(next(iter(self._delivered)))
            self._delivered_bytes -= old.item.size_bytes
        return gone

    def drop(self, digests: Iterable[bytes]) -> None:
        """Forget delivered batches: their private parts are not to be given to anybody any more."""
        for digest in digests:
            entry = self._delivered.pop(digest, None)
            if entry is not None:
                self._delivered_bytes -= entry.item.size_bytes

    def expire(self, chain_time_ms: int) -> list[CheckedBatch]:
        """Drop and return batches that no block needs and none of whose transactions can apply."""
        needed = self._needed()
        expired = [
            digest
            for digest, entry in self._entries.items()
            if entry.batch.not_after_ms < chain_time_ms and digest not in needed
        ]
        return [self._remove(digest).batch for digest in expired]

    def close_gaps(self, now_ms: int) -> None:
        """Wait no longer for numbers that later ones of their origin have waited GAP_MS for.

        They may have expired before they came here, or before this node's log began anew: then
        nobody has them. One that somebody has all the same is proposed by others, and fetched.
        """
        for origin in self._origins:
            origin.close_gaps(now_ms)

    # --- bookkeeping ---

    def _insert(self, batch: CheckedBatch, now_ms: int) -> None:
        origin = self._origins[batch.origin]
        item = batch.item
        self._entries[batch.digest] = _Entry(batch, item, now_ms)
        origin.name(batch.number, batch.digest)
        origin.batches += 1
        origin.size_bytes += item.size_bytes

    def _remove(self, digest: bytes) -> _Entry:
        entry = self._entries.pop(digest)
        origin = self._origins[entry.item.origin]
        origin.batches -= 1
        origin.size_bytes -= entry.item.size_bytes
        return entry

    def _make_room(self, batch: CheckedBatch) -> None:
        origin = self._origins[batch.origin]
        if batch.origin == self.own or origin.size_bytes + batch.size_bytes <= ORIGIN_BYTES_MAX:
            return
        needed = self._needed()
        for digest, entry in list(self._entries.items()):
            if entry.batch.origin == batch.origin and digest not in needed:
                self._remove(digest)
                if origin.size_bytes + batch.size_bytes <= ORIGIN_BYTES_MAX:
                    return

    def _needed(self) -> Collection[bytes]:
        return {item.digest for payload in self._required.values() for item in payload}

    def _refuse(self, digest: bytes) -> None:
        self._refused[digest] = None
        _trim(self._refused, REFUSED_MAX)
        for block_id, payload in list(self._required.items()):
            if any(item.digest == digest for item in payload):
                self.release(block_id)


def _trim(table: dict[bytes, Any], count_max: int) -> None:
    while len(table) > count_max:
        del table[next(iter(table))]
