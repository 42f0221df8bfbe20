"""Client transactions between acceptance and their certified decision. Pure: time is passed in.

A transaction is *waiting* until a batch takes it, then *in flight* until its decision is certified
or it can no longer have one; until then it counts against its author's quota, and sending it again
changes nothing. What cannot be taken is refused with ``Busy`` and when to come back. Nothing that
was accepted leaves without being named: ``settle`` by a decision, ``expire`` by returning it.

Batches are cut at once while nothing is in flight, else LIGHT_DELAY_MS after the one before or with
LIGHT_BYTES, and under load later and larger, because big batches are cheaper. The protective lane
has its own queue, never waits longer than LIGHT_DELAY_MS, and a tenth of the room is its own.
Authors take turns.

Not here: checking (``verifier``), numbering and keeping batches (``batches``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from consensus.errors import DecodeError, invariant
from consensus.genesis import Limits
from consensus.ledger import batch as batches
from consensus.ledger import group as groups
from consensus.ledger.batch import FRAMING_BYTES_MAX, Item
from consensus.ledger.group import Group
from consensus.ledger.transaction import ORDINARY, PROTECTIVE, Transaction
from node.errors import NodeError

LIGHT_DELAY_MS: Final = 5
LOAD_DELAY_MS: Final = 50
LIGHT_BYTES: Final = 256 * 1024
"""A batch of this size is sent at once, unless the node is under load."""
LOAD_BYTES: Final = 512 * 1024
"""In flight from here on means load."""
IN_FLIGHT_BYTES_MAX: Final = 16 * 1024 * 1024
"""No further batch is cut beyond this: half of what peers hold for one origin (``batches``)."""
RETRY_AUTHOR_MS: Final = 200
RETRY_POOL_MS: Final = 500
POOL_TRANSACTIONS_MAX: Final = 262_144

LANES: Final = (PROTECTIVE, ORDINARY)


class Busy(NodeError):
    """There is no room now. ``retry_after_ms``: when it may be worth trying again."""

    code = "BUSY"
    advice = "send it again after the time given, or to another node"

    def __init__(self, message: str, retry_after_ms: int) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class TooLarge(NodeError):
    """An item does not fit into a batch of this network."""

    code = "TOO_LARGE"
    advice = "send a smaller part of the group, or fewer calls in one transaction"


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What the pool accepts; counts and bytes of transactions without a certified decision."""

    author_transactions_max: int = 8192
    author_bytes_max: int = 16 * 1024 * 1024
    pool_bytes_max: int = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Room:
    """What one lane may fill: a tenth of everything is kept for the protective one."""

    author_transactions: int
    author_bytes: int
    pool_transactions: int
    pool_bytes: int
    in_flight_bytes: int


@dataclass(slots=True)
class _Waiting:
    """An item in a queue: it travels in one batch."""

    item: Item
    count: int
    size_bytes: int
    not_after_ms: int
    since_ms: int


@dataclass(slots=True)
class _Known:
    """A transaction without a certified decision."""

    author: bytes
    size_bytes: int
    in_flight: bool = False


@dataclass(slots=True)
class _Charge:
    """What one author has in the pool."""

    transactions: int = 0
    size_bytes: int = 0

    def add(self, entry: _Known) -> None:
        self.transactions += 1
        self.size_bytes += entry.size_bytes


_NOTHING: Final = _Charge()


class _Queue:
    """Waiting items of one lane, by author; authors take turns, each in its own order."""

    def __init__(self) -> None:
        self._turns: dict[bytes, deque[_Waiting]] = {}
        self.transactions = 0
        self.size_bytes = 0
        self.since_ms = 0
        """Arrival of the oldest; meaningless while the queue is empty."""
        self.cut_ms = 0
        """When a batch was last taken from it."""

    def push(self, author: bytes, waiting: _Waiting) -> None:
        if not self._turns:
            self.since_ms = waiting.since_ms
        self._turns.setdefault(author, deque()).append(waiting)
        self.transactions += waiting.count
        self.size_bytes += waiting.size_bytes

    def pop_turn(self, count_max: int, bytes_max: int) -> _Waiting | None:
        """Take the next author's oldest item, if it fits; its turn comes again after all others."""
        author = next(iter(self._turns), None)
        if author is None:
            return None
        line = self._turns[author]
        if line[0].count > count_max or line[0].size_bytes > bytes_max:
            return None
        waiting = line.popleft()
        del self._turns[author]
        if line:
            self._turns[author] = line
        self._left(waiting)
        return waiting

    def remove_expired(self, chain_time_ms: int) -> list[_Waiting]:
        """Take out every item that no block can apply any more."""
        gone: list[_Waiting] = []
        for author, line in list(self._turns.items()):
            if all(each.not_after_ms >= chain_time_ms for each in line):
                continue
            gone += [each for each in line if each.not_after_ms < chain_time_ms]
            kept = deque(each for each in line if each.not_after_ms >= chain_time_ms)
            if kept:
                self._turns[author] = kept
            else:
                del self._turns[author]
        for each in gone:
            self._left(each)
        self.settle_since()
        return gone

    def settle_since(self) -> None:
        """Find the oldest again after items were taken. Cost: O(authors waiting)."""
        self.since_ms = min((line[0].since_ms for line in self._turns.values()), default=0)

    def _left(self, waiting: _Waiting) -> None:
        self.transactions -= waiting.count
        self.size_bytes -= waiting.size_bytes


class Mempool:
    """The pool of one node.

    Args:
        limits: of this node.
        network: of the genesis file; every item must fit into a batch.
    """

    def __init__(self, limits: PoolLimits, network: Limits) -> None:
        self._rooms = {lane: _room(limits, lane) for lane in LANES}
        self._network = network
        self._queues: dict[int, _Queue] = {lane: _Queue() for lane in LANES}
        self._known: dict[bytes, _Known] = {}
        self._charges: dict[bytes, _Charge] = {}
        self._bytes = 0
        self._in_flight_bytes = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of all transactions without a certified decision."""
        return self._bytes

    @property
    def in_flight_bytes(self) -> int:
        """Those of them that are in batches."""
        return self._in_flight_bytes

    @property
    def waiting(self) -> int:
        """Transactions that no batch has taken yet."""
        return sum(queue.transactions for queue in self._queues.values())

    def __contains__(self, txid: bytes) -> bool:
        """Whether a transaction is waiting or in flight."""
        return txid in self._known

    def add(self, item: Item, now_ms: int) -> tuple[bytes, ...]:
        """Accept a verified item; return the txids that were not in the pool before.

        Sending again what is in the pool is no error, and returns nothing.

        Args:
            now_ms: this node's clock.

        Raises:
            Busy: an author's quota or the pool is full; nothing of the item was accepted.
            TooLarge: it fits into no batch.
            DecodeError: a group with transactions of both lanes.
        """
        flat = item.transactions
        fresh = {each.txid: _known(each) for each in flat if each.txid not in self._known}
        if not fresh:
            return ()
        lane = flat[0].lane
        for each in flat:
            if each.lane != lane:
                raise DecodeError(
                    "a group with transactions of both lanes",
                    path="group",
                    hint="make one group of the protective transactions and one of the others",
                )
        pieces = self._fitting(item, now_ms)
        self._check_room(fresh.values(), self._rooms[lane])
        for txid, entry in fresh.items():
            self._enter(txid, entry)
        for piece in pieces:
            self._queues[lane].push(flat[0].author, piece)
        return tuple(fresh)

    def adopt(self, transactions: Iterable[Transaction]) -> None:
        """Count transactions of own batches, found in the log at start, as in flight."""
        for each in transactions:
            if each.txid not in self._known:
                entry = _known(each)
                self._enter(each.txid, entry)
                self._depart(entry)

    # --- cutting batches ---

    def due_ms(self) -> int | None:
        """Return when the next batch is to be cut; None while nothing waits or may go."""
        return min((self._due_lane(lane) for lane in LANES if self._may_go(lane)), default=None)

    def cut(self, now_ms: int) -> tuple[int, list[Item]] | None:
        """Return lane and items of a batch that is due, else None. Protective ones come first.

        The items are in flight from now on. The caller cuts again until None.
        """
        for lane in LANES:
            if self._may_go(lane) and self._due_lane(lane) <= now_ms:
                items = self._take(self._queues[lane])
                if items:
                    self._queues[lane].cut_ms = now_ms
                    return lane, items
        return None

    def _take(self, queue: _Queue) -> list[Item]:
        """Return items of one batch, less those decided while they waited."""
        items: list[Item] = []
        room_count = self._network.batch_transactions_max
        room_bytes = self._network.batch_bytes_max - FRAMING_BYTES_MAX
        while (waiting := queue.pop_turn(room_count, room_bytes)) is not None:
            entries = [
                entry
                for each in waiting.item.transactions
                if (entry := self._known.get(each.txid)) is not None and not entry.in_flight
            ]
            if not entries:
                continue
            for entry in entries:
                self._depart(entry)
            items.append(waiting.item)
            room_count -= waiting.count
            room_bytes -= waiting.size_bytes
        queue.settle_since()
        return items

    def _may_go(self, lane: int) -> bool:
        room = self._in_flight_bytes < self._rooms[lane].in_flight_bytes
        return room and self._queues[lane].transactions > 0

    def _due_lane(self, lane: int) -> int:
        queue = self._queues[lane]
        full = queue.transactions >= self._network.batch_transactions_max
        if self._in_flight_bytes == 0 or full or queue.size_bytes >= self._network.batch_bytes_max:
            return queue.since_ms
        if lane == PROTECTIVE or self._in_flight_bytes < LOAD_BYTES:
            if queue.size_bytes >= LIGHT_BYTES:
                return queue.since_ms
            earliest_ms = max(queue.since_ms, queue.cut_ms + LIGHT_DELAY_MS)
            return min(earliest_ms, queue.since_ms + LIGHT_DELAY_MS)  # clocks may be set back
        return queue.since_ms + LOAD_DELAY_MS

    # --- leaving ---

    def settle(self, txids: Iterable[bytes]) -> None:
        """Forget transactions with a certified decision, here or in others' batches."""
        for txid in txids:
            self._forget(txid)

    def expire(self, chain_time_ms: int) -> list[bytes]:
        """Drop what no batch has taken and no block can apply; return the txids, to be reported."""
        lapsed: list[bytes] = []
        for queue in self._queues.values():
            for each in queue.remove_expired(chain_time_ms):
                for transaction in each.item.transactions:
                    entry = self._known.get(transaction.txid)
                    if entry is not None and not entry.in_flight:
                        lapsed.append(transaction.txid)
                        self._forget(transaction.txid)
        return lapsed

    # --- accounts ---

    def _fitting(self, item: Item, now_ms: int) -> list[_Waiting]:
        """Return ``item``, or the parts of a whole group, each small enough for a batch."""
        whole = _waiting(item, now_ms)
        if self._fits(whole):
            return [whole]
        if isinstance(item, Group) and len(item.transactions) == item.total:
            size = item.total
            while size > 1:
                size = (size + 3) // 4
                parts = [_waiting(part, now_ms) for part in groups.split(item, size)]
                if all(self._fits(part) for part in parts):
                    return parts
        raise TooLarge(
            f"it takes {whole.size_bytes} bytes; a batch has room for "
            f"{self._network.batch_bytes_max - FRAMING_BYTES_MAX}"
        )

    def _fits(self, waiting: _Waiting) -> bool:
        return (
            waiting.count <= self._network.batch_transactions_max
            and waiting.size_bytes <= self._network.batch_bytes_max - FRAMING_BYTES_MAX
        )

    def _check_room(self, fresh: Collection[_Known], room: _Room) -> None:
        wanted: dict[bytes, _Charge] = {}
        for entry in fresh:
            wanted.setdefault(entry.author, _Charge()).add(entry)
        size = sum([charge.size_bytes for charge in wanted.values()])
        count = len(self._known) + len(fresh)
        if self._bytes + size > room.pool_bytes or count > room.pool_transactions:
            raise Busy("the pool of this node is full", RETRY_POOL_MS)
        for author, more in wanted.items():
            has = self._charges.get(author, _NOTHING)
            if (
                has.transactions + more.transactions > room.author_transactions
                or has.size_bytes + more.size_bytes > room.author_bytes
            ):
                raise Busy(
                    f"{has.transactions} transactions of this key wait for a decision",
                    RETRY_AUTHOR_MS,
                )

    def _enter(self, txid: bytes, entry: _Known) -> None:
        self._known[txid] = entry
        self._charges.setdefault(entry.author, _Charge()).add(entry)
        self._bytes += entry.size_bytes

    def _depart(self, entry: _Known) -> None:
        entry.in_flight = True
        self._in_flight_bytes += entry.size_bytes

    def _forget(self, txid: bytes) -> None:
        entry = self._known.pop(txid, None)
        if entry is None:
            return
        charge = self._charges[entry.author]
        charge.transactions -= 1
        charge.size_bytes -= entry.size_bytes
        if charge.transactions == 0:
            del self._charges[entry.author]
        self._bytes -= entry.size_bytes
        self._in_flight_bytes -= entry.size_bytes if entry.in_flight else 0
        invariant(self._bytes >= 0 <= self._in_flight_bytes, "the pool's accounts are wrong")


def _room(limits: PoolLimits, lane: int) -> _Room:
    whole = (
        limits.author_transactions_max,
        limits.author_bytes_max,
        POOL_TRANSACTIONS_MAX,
        limits.pool_bytes_max,
        IN_FLIGHT_BYTES_MAX,
    )
    return _Room(*[each if lane == PROTECTIVE else each - each // 10 for each in whole])


def _known(transaction: Transaction) -> _Known:
    return _Known(transaction.author, transaction.size_bytes)


def _waiting(item: Item, now_ms: int) -> _Waiting:
    flat = item.transactions
    last = max([each.not_after_ms for each in flat])
    return _Waiting(item, len(flat), batches.item_bytes(item), last, now_ms)
