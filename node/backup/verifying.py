"""A store checked from end to end: is this what the quorums signed, and is all of it there?

1. The genesis file leads through the ends of epochs to the committees, and the certificate on the
   newest height is of a quorum of its own.
2. Every row of the state is the one that its hash was made of, and all lead to the state root of
   that certificate (``rows``).
3. Every height from the first one kept, by itself (``heights``); each names the one before; and
   their statements make the history root of the next, up to the certified one. Thus the newest
   certificate vouches for every block, decision, change, batch and past row.

Nothing is executed again: that is an audit (``comity audit``). Nothing certifies what only this
node notes: counts of batches, what it set aside for reversals, whom it showed what.

Parts of the state and ranges of heights go to worker processes, each with a transaction of its own;
what joins them is done here, in order, so the first damage is the same however many they are. If
a page of the file cannot be read at all a worker may be killed by the system; that is said too.

Not here: a node that runs on the store (it must not), and the log (``node.inspecting``).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import lmdb

from consensus import codec, genesis
from consensus.hotstuff.types import CommitCert
from consensus.state.history import HistoryTree, frontier_places
from consensus.state.snapshot import row_bits
from consensus.state.subtree import root_of_row
from node.backup import heights, rows
from node.backup.heights import Linked, Stored, damage, require
from node.backup.rows import Part
from node.errors import DamagedStoreError
from node.flushing import META_NUMBERS
from node.retention import META_PRIVATE
from node.snapshots.checking import PROCESSES_MAX, processes_for
from node.storage import readonly, tables
from node.storage.refusals import refused
from node.storage.store import View
from node.storage.tables import BLANK

HEIGHTS_TOGETHER: Final = 64
"""Heights that a worker checks at a time."""
AHEAD_PER_WORKER: Final = 2

Progress = Callable[[int, int], None]
"""``(done, of)`` in rows and heights."""


def no_progress(done: int, of: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What a store holds, all of it checked.

    Args:
        first: the first height whose block is kept.
        certificates: heights with a certificate of their own.
        private_from: first height whose private parts are kept; ``horizon``: whose past rows are.
    """

    network: str
    chain: bytes
    certificate: CommitCert
    first: int
    key_count: int
    transactions: int
    certificates: int
    private_from: int
    horizon: int

    @property
    def height(self) -> int:
        """The newest height."""
        return self.certificate.statement.height


def verify(
    folder: Path, genesis_bytes: bytes, progress: Progress, *, processes: int | None = None
) -> Verified:
    """Check the store of a stopped node, or a copy of it.

    Args:
        folder: the store's own.
        genesis_bytes: of the network; its hash is what is trusted.
        progress: told how far it is.
        processes: workers; 0: none, all is done in this process; None: as many as are worth it.

    Raises:
        DamagedRowError: the first row that is wrong.
        StorageError: it cannot be opened, is of another network or a newer format, or a node runs.
        DamagedStoreError: a worker was killed while it read, or nothing is certified yet.

    Cost: about 8 µs a row and 0.3 ms a height, 50 µs a transaction; divided by the cores.
    """
    chain = genesis.chain_id(genesis_bytes)
    environment, view = readonly.open_store(folder, chain=chain)
    try:
        if view.height == BLANK:
            raise DamagedStoreError(f"the store in {folder} holds nothing yet")
        view.close()
        with environment.begin() as txn:
            opened = tables.open_tables(environment, create=False)
            stored = heights.opened(txn, opened, genesis.decode(genesis_bytes), chain)
            count = processes
            if count is None:
                count = processes_for(txn.stat(opened.state)["entries"])
            with _Workers(stored, folder, genesis_bytes, count) as workers:
                return _verify(stored, workers, progress)
    except lmdb.Error as error:
        raise refused(f"cannot read the store in {folder}", error) from error
    finally:
        environment.close()


def newest(stored: Stored) -> CommitCert:
    """Return the verified certificate on the newest height, whose statement the block leads to.

    Raises:
        DamagedRowError: block or certificate are not what they must be.
    """
    view = stored.view
    require(view.height > 0, "certs", view.height, "nothing is certified yet")
    heights.check(stored, view.height)
    return stored.chain.certificate(view.certificate(view.height) or b"")


def cut(stored: Stored) -> list[int]:
    """Return the nodes of the tree by which the state is gone through, ascending."""
    stat = stored.txn.stat(stored.opened.state)
    state_bytes = (stat["leaf_pages"] + stat["overflow_pages"]) * stat["psize"]
    bits = row_bits(state_bytes, stored.genesis.tree_depth)
    return [1 << bits | index for index in range(1 << bits)]


def state_root(stored: Stored, parts: list[Part]) -> bytes:
    """Return the root that the parts of ``cut`` lead to."""
    count = sum(each.entries for each in parts)
    row = b"".join([each.hash for each in parts])
    return root_of_row(stored.genesis.tree_depth, count, row)


def private_from(view: View) -> int:
    """Return the first height whose private parts are kept, as far as the node dropped them."""
    value = view.meta(META_PRIVATE)
    return 1 if value is None else int.from_bytes(value, "big")


def _verify(stored: Stored, workers: _Workers, progress: Progress) -> Verified:
    certificate = newest(stored)
    view = stored.view
    names = cut(stored)
    key_count = stored.txn.stat(stored.opened.state)["entries"]
    of = key_count + view.height - stored.first + 1
    parts: list[Part] = []
    done = 0
    for part in workers.each(_check_rows, names, "the rows of the state"):
        parts.append(part)
        done += part.entries
        progress(done, of)
    if state_root(stored, parts) != certificate.statement.state_root:
        raise rows.blame(stored, names)
    _check_meta(stored)
    joined = _Joined(stored)
    ranges = range(stored.first, view.height + 1, HEIGHTS_TOGETHER)
    for found in workers.each(_check_heights, list(ranges), "the heights"):
        joined.take(found)
        done += len(found)
        progress(done, of)
    return Verified(
        stored.genesis.network,
        stored.chain.chain,
        certificate,
        stored.first,
        key_count,
        joined.transactions,
        joined.certificates,
        private_from(view),
        view.horizon,
    )


def _check_meta(stored: Stored) -> None:
    value = stored.view.meta(META_NUMBERS)
    require(value is not None, "meta", None, "the batch numbers are missing", META_NUMBERS)
    with damage("meta", None, META_NUMBERS):
        numbers = codec.parse(value or b"", "batch numbers")
    fits = type(numbers) is list and all(type(each) is int and each >= 0 for each in numbers)
    require(fits and numbers, "meta", None, "these are no batch numbers", META_NUMBERS)


class _Nodes:
    """The history's nodes in a store."""

    def __init__(self, view: View) -> None:
        self._view = view

    def node(self, level: int, index: int) -> bytes | None:
        return self._view.history(level, index)


class _Joined:
    """Heights in order: parents, and the history over their statements."""

    def __init__(self, stored: Stored) -> None:
        self._view = stored.view
        first = stored.first
        for level, index in frontier_places(first):
            there = self._view.history(level, index) is not None
            require(there, "history", first, "a node is missing", tables.history_key(level, index))
        self._tree = HistoryTree(_Nodes(stored.view), first)
        self._before: Linked | None = None
        self.transactions = self.certificates = 0

    def take(self, found: list[Linked]) -> None:
        """Take the next heights."""
        for each in found:
            before, self._before = self._before, each
            if before is not None:
                names = each.parent_id == before.block_id
                require(names, "blocks", each.height, "it does not name the block before it")
            led = self._tree.root() == each.history_root
            require(led, "history", each.height, "the statements before do not lead to its root")
            self._tree.append(each.statement_hash)
            self.transactions += each.transactions
            self.certificates += each.certified
        last = found[-1].height
        for (level, index), hash_ in self._tree.pending(last):
            same = self._view.history(level, index) == hash_
            key = tables.history_key(level, index)
            require(same, "history", last, "a node is not what the statements lead to", key)
        self._tree.flushed(last)


# --- workers ------------------------------------------------------------------------------------


_worker: list[Stored] = []
"""Of this process, where it is a worker."""


def _begin(folder: str, genesis_bytes: bytes) -> None:
    gc.disable()  # nothing here forms cycles that matter
    environment = lmdb.open(
        folder, readonly=True, lock=False, max_dbs=tables.TABLES_MAX, create=False
    )
    opened = tables.open_tables(environment, create=False)
    chain = genesis.chain_id(genesis_bytes)
    _worker.append(
        heights.opened(environment.begin(), opened, genesis.decode(genesis_bytes), chain)
    )


def _check_rows(stored: Stored, name: int) -> Part:
    return rows.check(stored, name)


def _check_heights(stored: Stored, first: int) -> list[Linked]:
    last = min(first + HEIGHTS_TOGETHER - 1, stored.view.height)
    return [heights.check(stored, height) for height in range(first, last + 1)]


def _work(check: Callable[[Stored, int], Any], number: int) -> Any:
    return check(_worker[0], number)


class _Workers:
    """Checks in order of what is asked, in other processes or here."""

    def __init__(self, stored: Stored, folder: Path, genesis_bytes: bytes, count: int) -> None:
        self._stored = stored
        self._executor: ProcessPoolExecutor | None = None
        self._count = min(count, PROCESSES_MAX, 2 * (os.cpu_count() or 1))
        if self._count:
            context = multiprocessing.get_context("spawn")
            arguments = (str(folder), genesis_bytes)
            self._executor = ProcessPoolExecutor(self._count, context, _begin, arguments)

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def each(
        self, check: Callable[[Stored, int], Any], numbers: list[int], what: str
    ) -> Iterator[Any]:
        """Yield what ``check`` returns for each number, in order."""
        if self._executor is None:
            for number in numbers:
                yield check(self._stored, number)
            return
        with _killed(what):
            waiting: deque[Future[Any]] = deque()
            for number in numbers:
                waiting.append(self._executor.submit(_work, check, number))
                if len(waiting) > AHEAD_PER_WORKER * self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


@contextmanager
def _killed(what: str) -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise DamagedStoreError(
            f"a process that read {what} was killed by the system: pages of the store are damaged"
        ) from error
