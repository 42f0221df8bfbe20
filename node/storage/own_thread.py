"""One thread for work that waits for a disk, one piece after the other.

``trio.to_thread`` would do, and costs twice the calls: a limiter, a context and a name for the
thread each time. Here a piece of work costs a wake-up there and one back.

Not here: what is written (``writer``).
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar

import trio

Result = TypeVar("Result")


class _Job:
    """A piece of work, who waits for it, and what became of it."""

    __slots__ = ("error", "result", "task", "tell", "work")

    def __init__(self, work: Callable[[], Any], tell: Callable[[_Job], None]) -> None:
        self.work = work
        self.tell = tell
        self.task = trio.lowlevel.current_task()
        self.result: Any = None
        self.error: BaseException | None = None


class OwnThread:
    """A thread that begins with the first piece of work and ends with this object.

    For one event loop. Who waits is told in the order of the pieces, each before the next begins.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[tuple[_Job, trio.lowlevel.TrioToken] | None] = SimpleQueue()
        self._waiting: deque[_Job] = deque()
        self._under_way: _Job | None = None
        self._begun = False

    @property
    def waiting(self) -> int:
        """Pieces of work whose turn has not come."""
        return len(self._waiting)

    async def run(self, work: Callable[[], Result]) -> Result:
        """Return what ``work`` returns, or raise what it raises, after all that came before it.

        What is cancelled before its turn is not done; what has begun is waited for.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        job = _Job(work, self._done)

        def leave(_raise_cancel: object) -> trio.lowlevel.Abort:
            if job is self._under_way:
                return trio.lowlevel.Abort.FAILED
            self._waiting.remove(job)
            return trio.lowlevel.Abort.SUCCEEDED

        if self._under_way is None:
            self._hand_over(job)
        else:
            self._waiting.append(job)
        await trio.lowlevel.wait_task_rescheduled(leave)
        if job.error is not None:
            raise job.error
        result: Result = job.result
        return result

    def _hand_over(self, job: _Job) -> None:
        if not self._begun:
            self._begun = True
            threading.Thread(
                target=_perform_all, args=(self._jobs,), name=self._name, daemon=True
            ).start()
            weakref.finalize(self, self._jobs.put, None)
        self._under_way = job
        self._jobs.put((job, trio.lowlevel.current_trio_token()))

    def _done(self, job: _Job) -> None:
        trio.lowlevel.reschedule(job.task)
        self._under_way = None
        if self._waiting:
            self._hand_over(self._waiting.popleft())


def _perform_all(jobs: SimpleQueue[tuple[_Job, trio.lowlevel.TrioToken] | None]) -> None:
    while (found := jobs.get()) is not None:
        job, token = found
        try:
            job.result = job.work()
        except BaseException as error:
            job.error = error
        with contextlib.suppress(trio.RunFinishedError):  # then nobody waits any more
            token.run_sync_soon(job.tell, job)
        del found, job  # what they hold is not to wait for the next
