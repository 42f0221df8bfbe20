"""A read transaction that outlives flushes, for whoever reads one height for a while.

LMDB keeps every page that it shows, so the file grows while others flush: whoever pins bounds the
time. It may be read in a worker thread and closed in the main one; a lock keeps these apart.

Not here: what is read.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from node.storage.tables import Tables

if TYPE_CHECKING:
    import lmdb

T = TypeVar("T")


class Pinned:
    """One pinned transaction; ``Store.pin`` makes it.

    Args:
        environment, opened: of the store.
        members: the store's set of them, which this joins until it is closed.
    """

    def __init__(self, environment: lmdb.Environment, opened: Tables, members: set[Pinned]) -> None:
        self._txn: lmdb.Transaction[bytes] | None = environment.begin()
        self._opened = opened
        self._members = members
        self._lock = threading.Lock()
        members.add(self)

    @property
    def closed(self) -> bool:
        """Whether nothing can be read any more."""
        return self._txn is None

    def read(self, work: Callable[[lmdb.Transaction[bytes], Tables], T]) -> T | None:
        """Return what ``work`` reads; None once this is closed. Any thread may call it."""
        with self._lock:
            return None if self._txn is None else work(self._txn, self._opened)

    def close(self) -> None:
        """End the transaction, after what is being read; again does nothing."""
        with self._lock:
            txn, self._txn = self._txn, None
            if txn is not None:
                self._members.discard(self)
                txn.abort()
