"""Client signatures and hostile bytes are checked in worker processes, fed whole batches.

One message carries batches of together BATCHES_BYTES_MAX, or one that is larger, or up to ITEMS_MAX
single items: whatever arrived while the worker was busy.
A worker that dies, hangs or answers nonsense is replaced, and what it had in hand is given to the
next one once more, single items one by one. What fails twice is refused with ``WorkerFailed``:
no failure ever turns into an acceptance.

The queue is bounded in requests and bytes; when it is full, ``VerifierBusy`` says so and the caller
decides: a client is told to come back, a link is not read for a while. Batches go before items.

Not here: what a worker checks (``verifier_worker``), and which batches are worth checking.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import trio

from consensus.errors import (
    ComityError,
    CopyError,
    DecodeError,
    LocalProtocolError,
    SignatureError,
    VerificationError,
)
from consensus.genesis import Limits
from consensus.ledger import batch as batches
from consensus.ledger.batch import Item
from node import verifier_worker as worker
from node.checked import CheckedBatch, from_batch
from node.errors import NodeError
from node.verifier_worker import LENGTH, Answer, Job, Judge, Setup, Verdict

ITEMS_MAX: Final = 128
"""Single items in one message: about 10 ms of a worker's time, so that no batch waits long."""
BATCHES_BYTES_MAX: Final = 32 * 1024
"""Several batches in one message, which take a worker about as long as ITEMS_MAX items. A node that
has much else to do comes round seldom: with one batch each time it would not keep up with many
small ones."""
REQUESTS_MAX: Final = 8192
QUEUE_BYTES_MAX: Final = 64 * 1024 * 1024
IN_FLIGHT_MAX: Final = 2
"""Messages that one worker has in hand: one to work on, one so that it never waits."""
INLINE_BYTES_MAX: Final = 1536
INLINE_REQUESTS_MAX: Final = 3
"""Up to so much is checked at once in this process, while nothing waits for a worker: three
signatures take 0.2 ms, a message to a worker and back as much, and a millisecond to wait."""
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
ANSWER_SECONDS_MAX: Final = 60.0
"""A worker that answers nothing for so long, with work in hand, is replaced."""
RESTART_SECONDS: Final = 0.2
PIPE_BYTES: Final = 1 << 20
"""Room on the way to a worker, for a whole batch, so that one turn of either process is enough."""
ATTEMPTS_MAX: Final = 2

WORKER_MODULE: Final = "node.verifier_worker"
_ROOT: Final = str(Path(__file__).resolve().parent.parent)


class VerifierBusy(NodeError):
    """As much waits to be checked as may wait."""

    code = "BUSY"
    advice = "send again a little later, or to another node"


class WorkerFailed(NodeError):
    """Two workers died or hung over the same bytes, or the verifier stops."""

    code = "UNAVAILABLE"
    advice = "send it again; if it happens again, report the worker's last log lines"


@dataclass(slots=True, eq=False)
class _Request:
    """Bytes to be judged, and later the verdict. ``public`` is empty for a single item."""

    public: bytes
    data: bytes
    signatures: bool = True
    attempts: int = 0
    verdict: Verdict | None = None
    done: trio.Event = field(default_factory=trio.Event)

    @property
    def size_bytes(self) -> int:
        return len(self.public) + len(self.data)

    def finish(self, verdict: Verdict | None) -> None:
        self.verdict = verdict
        self.done.set()


class Verifier:
    """A pool of worker processes. ``run`` must be running; the checks may be called by any task.

    What is so little that it is checked in this process is checked without a checkpoint.

    Args:
        chain: hash of the genesis file.
        limits: of the genesis file.
        processes: workers; one serves a small machine.
        inline_bytes_max: what is no longer, and few, is checked without asking a worker.
    """

    def __init__(
        self,
        chain: bytes,
        limits: Limits,
        *,
        processes: int = 1,
        inline_bytes_max: int = INLINE_BYTES_MAX,
    ) -> None:
        setup = Setup(chain, limits.batch_bytes_max, limits.batch_transactions_max)
        self.setup = msgspec.msgpack.encode(setup)
        """The first frame of every worker."""
        self._processes = processes
        self._judge = Judge(chain, limits)
        self._inline_bytes_max = inline_bytes_max
        self._batches: deque[_Request] = deque()
        self._items: deque[_Request] = deque()
        self._retries: deque[_Request] = deque()
        self._waiting_bytes = 0
        self._work = trio.Condition()
        self._stopped = False
        self._worker_signatures = 0
        self.restarts = 0
        """Workers replaced so far."""
        self.pids: list[int] = []
        """Process ids of the living workers."""

    @property
    def signatures(self) -> int:
        """Signatures checked so far, by the workers and here."""
        return self._worker_signatures + self._judge.signatures

    @property
    def depth(self) -> int:
        """Requests that wait for a worker."""
        return len(self._batches) + len(self._items) + len(self._retries)

    async def run(self) -> None:
        """Keep the workers alive until cancelled; then whoever still waits gets WorkerFailed."""
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(self._processes):
                    nursery.start_soon(_Worker(self).run)
        finally:
            self._stopped = True
            for queue in (self._batches, self._items, self._retries):
                while queue:
                    queue.popleft().finish(None)

    async def check_item(self, data: bytes) -> Item:
        """Return the transaction or group in untrusted bytes, fully checked.

        Raises:
            DecodeError, CopyError, SignatureError: what is wrong with it.
            VerifierBusy: too much is waiting.
            WorkerFailed: no worker could say.
        """
        [found] = await self.check_items([data])
        if isinstance(found, ComityError):
            raise found
        return found

    async def check_items(self, data: Sequence[bytes]) -> list[Item | ComityError]:
        """Return, for each of several untrusted items, what ``check_item`` returns or raises.

        Raises:
            VerifierBusy: too much is waiting; none was looked at.
        """
        self._require_running()
        if len(data) <= INLINE_REQUESTS_MAX and self._is_small(sum(map(len, data))):
            return [self._item_here(each) for each in data]
        requests = [_Request(b"", each) for each in data]
        await self._check(requests)
        found: list[Item | ComityError] = []
        for request in requests:
            try:
                found.append(batches.decode_item_trusted(request.data, _accepted(request).txids))
            except ComityError as error:
                found.append(error.with_traceback(None))  # which holds the list that it is in
        return found

    async def check_batch(
        self, public: bytes, private: bytes, *, signatures: bool = True
    ) -> CheckedBatch:
        """Return a batch from a peer, fully checked.

        Args:
            signatures: False where validators vouch for those of the clients.

        Raises:
            DecodeError, SignatureError: its origin is to blame.
            CopyError: the private part is not its own; the sender is to blame.
            VerifierBusy: too much is waiting.
            WorkerFailed: no worker could say.
        """
        self._require_running()
        if self._is_small(len(public) + len(private)):
            try:
                return from_batch(self._judge.check_batch(public, private, signatures))
            except (DecodeError, CopyError, VerificationError) as error:
                raise _error(worker.refusal(error)) from error
        request = _Request(public, private, signatures)
        await self._check([request])
        found = _accepted(request)
        return CheckedBatch(
            found.digest,
            found.origin,
            found.number,
            found.lane,
            public,
            private,
            found.txids,
            found.not_after_ms,
        )

    def _require_running(self) -> None:
        if self._stopped:
            raise WorkerFailed("the verifier has stopped")

    async def _check(self, requests: list[_Request]) -> None:
        """Have the workers judge."""
        size = sum(request.size_bytes for request in requests)
        if (
            self.depth + len(requests) > REQUESTS_MAX
            or self._waiting_bytes + size > QUEUE_BYTES_MAX
        ):
            raise VerifierBusy(f"{self.depth} requests wait to be checked")
        async with self._work:
            for request in requests:
                (self._batches if request.public else self._items).append(request)
            self._waiting_bytes += size
            self._work.notify_all()
        for request in requests:
            if request.verdict is None:
                await request.done.wait()

    def _is_small(self, size_bytes: int) -> bool:
        """Whether the work is so little, and no worker so busy, that asking one would cost more."""
        return size_bytes <= self._inline_bytes_max and not self.depth

    def _item_here(self, data: bytes) -> Item | ComityError:
        try:
            return self._judge.check_item(data)
        except (DecodeError, CopyError, VerificationError) as error:
            return _error(worker.refusal(error))

    def count(self, signatures: int) -> None:
        """Add signatures that a worker has checked."""
        self._worker_signatures += signatures

    async def take(self) -> list[_Request]:
        """Return the next message's requests, waiting for some: a retry, batches, or items."""
        async with self._work:
            while not self.depth:
                await self._work.wait()
            if self._retries:
                return [self._retries.popleft()]
            if self._batches:
                taken = [self._batches.popleft()]
                size = taken[0].size_bytes
                while self._batches and (size := size + self._batches[0].size_bytes) <= (
                    BATCHES_BYTES_MAX
                ):
                    taken.append(self._batches.popleft())
            else:
                count = min(len(self._items), ITEMS_MAX)
                taken = [self._items.popleft() for _ in range(count)]
            self._waiting_bytes -= sum(request.size_bytes for request in taken)
            return taken

    async def give_back(self, requests: Sequence[_Request]) -> None:
        """Queue requests of a failed worker once more, each by itself, or refuse them for good."""
        async with self._work:
            for request in requests:
                if request.attempts >= ATTEMPTS_MAX:
                    request.finish(None)
                else:
                    self._retries.append(request)
            self._work.notify_all()


def _accepted(request: _Request) -> Verdict:
    verdict = request.verdict
    if verdict is None:
        raise WorkerFailed("no worker could check this")
    if verdict.code != worker.ACCEPTED:
        raise _error(verdict)
    return verdict


def _error(verdict: Verdict) -> ComityError:
    match verdict.code:
        case worker.BAD_COPY:
            return CopyError(verdict.message)
        case worker.BAD_SIGNATURE:
            return SignatureError(verdict.message)
        case _:
            return DecodeError(verdict.message)


class _Worker:
    """One place in the pool: a process, and the next one when that fails."""

    def __init__(self, pool: Verifier) -> None:
        self._pool = pool
        self._in_hand: deque[list[_Request]] = deque()
        self._room = trio.Semaphore(IN_FLIGHT_MAX)
        self._watch = trio.CancelScope()
        self._decoder = msgspec.msgpack.Decoder(Answer)

    async def run(self) -> None:
        while True:
            await self._live()
            self._pool.restarts += 1
            await trio.sleep(RESTART_SECONDS)

    async def _live(self) -> None:
        """Start a process and feed it until it fails."""
        process, stdin, stdout = await _start()
        self._room = trio.Semaphore(IN_FLIGHT_MAX)
        self._watch = trio.CancelScope()
        self._pool.pids.append(process.pid)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._feed, stdin)
                await self._collect(stdout)
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                self._pool.pids.remove(process.pid)
                await _end(process)
                await self._return_unanswered()

    async def _feed(self, stdin: trio.abc.SendStream) -> None:
        try:
            await stdin.send_all(_frame(self._pool.setup))
            while True:
                await self._room.acquire()
                requests = await self._pool.take()
                self._in_hand.append(requests)
                if len(self._in_hand) == 1:
                    self._watch.deadline = trio.current_time() + ANSWER_SECONDS_MAX
                await stdin.send_all(_frame(_encode(requests)))
        except trio.BrokenResourceError:
            return  # It has died; what it still answered is read first, then the end of its output.

    async def _collect(self, stdout: trio.abc.ReceiveStream) -> None:
        """Hand out answers until the process ends, hangs, or answers what it was not asked."""
        buffer = bytearray()
        with self._watch:
            async for chunk in stdout:
                buffer += chunk
                while len(buffer) >= LENGTH.size:
                    (length,) = LENGTH.unpack_from(buffer)
                    end = LENGTH.size + length
                    if length > ANSWER_BYTES_MAX:
                        return
                    if len(buffer) < end:
                        break
                    if not self._answered(bytes(buffer[LENGTH.size : end])):
                        return
                    del buffer[:end]

    def _answered(self, frame: bytes) -> bool:
        try:
            answer = self._decoder.decode(frame)
        except msgspec.DecodeError:
            return False
        if not self._in_hand or len(answer.verdicts) != len(self._in_hand[0]):
            return False
        requests = self._in_hand.popleft()
        self._pool.count(answer.signatures)
        for request, verdict in zip(requests, answer.verdicts, strict=True):
            request.finish(verdict)
        self._room.release()
        left = trio.current_time() + ANSWER_SECONDS_MAX
        self._watch.deadline = left if self._in_hand else float("inf")
        return True

    async def _return_unanswered(self) -> None:
        # It worked in order, so only the first message can have been its end.
        for request in self._in_hand[0] if self._in_hand else ():
            request.attempts += 1
        requests = [request for message in self._in_hand for request in message]
        self._in_hand.clear()
        await self._pool.give_back(requests)


def _encode(requests: Sequence[_Request]) -> bytes:
    if not requests[0].public:
        return msgspec.msgpack.encode(Job([request.data for request in requests]))
    asked = [(each.public, each.data, each.signatures) for each in requests]
    return msgspec.msgpack.encode(Job(batches=asked))


def _frame(payload: bytes) -> bytes:
    return LENGTH.pack(len(payload)) + payload


async def _start() -> tuple[trio.Process, trio.abc.SendStream, trio.abc.ReceiveStream]:
    """Return a new worker with its input and output; it sees the same modules as this process."""
    paths = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", WORKER_MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    stdin, stdout = process.stdin, process.stdout
    if not isinstance(stdin, trio.lowlevel.FdStream) or stdout is None:
        raise LocalProtocolError("a worker was started without pipes")
    with suppress(OSError):  # where the system allows less, a batch takes several turns
        fcntl.fcntl(stdin.fileno(), fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return process, stdin, stdout


async def _end(process: trio.Process) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            await stream.aclose()
    process.kill()
    await process.wait()
