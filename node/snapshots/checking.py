"""Chunks checked in worker processes, so that a node that begins here uses all its cores.

A worker gets a chunk's bytes with the hash that is due, and answers with what the chunk adds to the
node's own index, or with the error. It ends with the process that asked.

Not here: the checks (``consensus.snapshot``).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.process import parent_process
from types import TracebackType
from typing import Final

from consensus.errors import MISREAD, ProofError
from consensus.snapshot import Checker, Cut, Piece
from node.snapshots.filling import Listed, listed

PROCESSES_MAX: Final = 8

_worker: list[Checker] = []
"""Of this process, where it is a worker."""


def _begin(cut: Cut) -> None:
    gc.disable()  # nothing here forms cycles
    _worker.append(Checker(cut))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _check(piece: Piece) -> Listed:
    return _listed(_worker[0], piece)


def _listed(checker: Checker, piece: Piece) -> Listed:
    chunk = checker.chunk(piece)
    try:
        return listed(checker.paths, chunk)
    except MISREAD as error:
        raise ProofError(
            f"{checker.place(piece)}: a row is certified that no executor writes"
            f" ({type(error).__name__}: {error})"
        ) from error


class Pool:
    """Checks the chunks of one snapshot; a context manager.

    Args:
        cut: what checking takes.
        processes: workers; 0: chunks are checked in this process, for small snapshots.
    """

    def __init__(self, cut: Cut, processes: int) -> None:
        self._checker = Checker(cut)
        self.size = min(processes, PROCESSES_MAX)
        self._executor: ProcessPoolExecutor | None = None
        if self.size:
            self._executor = ProcessPoolExecutor(
                self.size,
                multiprocessing.get_context("spawn"),
                _begin,
                (cut,),
            )

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the workers, once they have done what they have in hand."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)

    def check(self, piece: Piece) -> Listed:
        """Check a chunk, and wait for it; see ``submit``."""
        return self.submit(piece).result()

    def submit(self, piece: Piece) -> Future[Listed]:
        """Have a chunk checked; the result is what it adds to the node's own index.

        Its errors are those of ``Checker.chunk``.
        """
        if self._executor is not None:
            return self._executor.submit(_check, piece)
        done: Future[Listed] = Future()
        try:
            done.set_result(_listed(self._checker, piece))
        except Exception as error:
            done.set_exception(error)
        return done


def processes_for(key_count: int) -> int:
    """Return how many workers are worth their start for so many entries."""
    return 0 if key_count < INLINE_ENTRIES_MAX else min(os.cpu_count() or 1, PROCESSES_MAX)


INLINE_ENTRIES_MAX: Final = 20_000
"""Up to so many entries, starting workers takes longer than checking."""
