"""Worker processes that check heights by themselves, in any order; results come back in order.

Everything but executing: form, certificates, digests, signatures (``consensus.audit.heights``).
With no processes the same is done in place.

Not here: what depends on other heights (``consensus.audit.replay``).
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Final

from comity.errors import ClientError
from consensus import genesis as genesis_file
from consensus.answers import EpochStep
from consensus.audit.heights import Checked, HeightChecker
from consensus.errors import DecodeError

GC_ALLOCATIONS: Final = 400_000
"""Objects between two searches for reference cycles: there are few to find, and a block of 500
payments holds some 100,000 objects while it is executed, which each search would go through."""
PROCESSES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Task:
    """A height to check: the payload of its frame, where it is, and whether signatures count.

    ``step`` is how its epoch began, None in the first.
    """

    payload: bytes
    where: str
    signatures: bool
    step: EpochStep | None = None


@dataclass(frozen=True, slots=True)
class Malformed:
    """A height that cannot be read, as it travels between processes."""

    message: str
    hint: str

    def error(self) -> DecodeError:
        """Return what to raise."""
        return DecodeError(self.message, hint=self.hint)


Verdict = Checked | Malformed


class WorkerLostError(ClientError):
    """A process that checked heights has died."""

    code = "WORKER_LOST"
    advice = "run it again; if it happens again at the same height, report it"


class Checkers:
    """A pool of processes for one network.

    Args:
        genesis: the network's file.
        processes: how many; 0: everything happens here, when it is asked for.
    """

    def __init__(self, genesis: bytes, processes: int) -> None:
        self._genesis = genesis
        self.processes = processes
        self._pool: ProcessPoolExecutor | None = None
        if processes:
            self._pool = ProcessPoolExecutor(
                min(processes, PROCESSES_MAX),
                multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(genesis,),
            )
        else:
            _start_here(genesis)

    def submit(self, tasks: Sequence[Task]) -> Future[list[Verdict]]:
        """Begin to check heights; the future gives a verdict for each, up to the first malformed.

        Raises:
            WorkerLostError: a process has died.
        """
        if self._pool is None:
            done: Future[list[Verdict]] = Future()
            done.set_result(_check(tasks))
            return done
        try:
            return self._pool.submit(_check, tasks)
        except BrokenProcessPool as error:
            raise WorkerLostError("a process that checks signatures has died") from error

    def close(self) -> None:
        """End the processes; what is not done yet is given up."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def result_of(future: Future[list[Verdict]]) -> list[Verdict]:
    """Return the verdicts, waiting for them.

    Raises:
        WorkerLostError: the process that had them has died.
    """
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise WorkerLostError("a process that checks signatures has died") from error


def processes_default() -> int:
    """Return how many processes to use beside this one: one for each further processor."""
    return max(1, min(len(os.sched_getaffinity(0)) - 1, PROCESSES_MAX))


# --- in a worker --------------------------------------------------------------------------------

_own: list[HeightChecker] = []
"""The checker of this process."""


def _start(genesis: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    gc.set_threshold(GC_ALLOCATIONS)
    _start_here(genesis)


def _start_here(genesis: bytes) -> None:
    founded = genesis_file.decode(genesis)
    _own[:] = [HeightChecker(founded, genesis_file.chain_id(genesis))]


def _check(tasks: Sequence[Task]) -> list[Verdict]:
    verdicts: list[Verdict] = []
    for task in tasks:
        try:
            verdicts.append(
                _own[0].check(task.payload, task.where, signatures=task.signatures, step=task.step)
            )
        except DecodeError as error:
            verdicts.append(Malformed(error.message, error.hint))
            break
    return verdicts
