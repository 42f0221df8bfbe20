"""The node's side of a signer in another process: ask, wait without holding anybody up, come back.

    replica ─ Sign ─> RemoteSigner ─ socket ─> signer: its mark on disk ─> Signed ─> replica

While a request is under way the replica takes up nothing else; clients, links and disk go on. A
timeout is asked for only when the log holds the replica's record: if both processes die in
between, its certificates are there to ask word for word again. When the signer is gone, or takes
longer than ``ANSWER_SECONDS_MAX``, the replica goes on without a vote (``absence``), and asks again
when it is back; nothing is restarted.

The signer's mark is durable before its answer comes, so there is none here. What the log says was
signed (``adopt``) is told to the signer, and what the signer says to the replica.

Not here: what may be signed (``node.signer``, in the other process), and messages
(``node.signing.wire``).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import trio
from structlog.typing import FilteringBoundLogger

from consensus.errors import ComityError, RemoteProtocolError
from consensus.frames import FrameSplitter, frames
from consensus.hotstuff.events import Sign
from consensus.hotstuff.types import SignKind
from node.errors import PromisesLostError, SigningRefusedError
from node.signer import Mark, SignedBody, Signer, Slot
from node.signing import wire
from node.storage.log import Log

ANSWER_SECONDS_MAX: Final = 2.0
"""A signer that lets a request wait for longer is taken for gone."""
RETRY_SECONDS: Final = 0.25
RETRY_SECONDS_MAX: Final = 2.0
READ_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class RemoteKey:
    """A validator key that another process holds: its public half, and where to ask."""

    public: bytes
    socket: Path


class Asker(Protocol):
    """Who asks for signatures (``node.ordering.Ordering``)."""

    def signed(self, request: Sign, signature: bytes) -> None:
        """Take the signature for the oldest request."""
        ...

    def signer_away(self) -> None:
        """Ask for nothing any more; what is under way is not answered."""
        ...

    def signer_back(self, bodies: tuple[SignedBody, ...]) -> None:
        """Ask again. ``bodies``: the last of each kind that the key has signed."""
        ...

    def refused(self, error: ComityError) -> None:
        """The signer will not sign: stop."""
        ...


@dataclass(slots=True)
class _Waiting:
    """A request that was not sent yet."""

    request: Sign
    ready: bool


class RemoteSigner(Signer):
    """Asks the signer at a socket. ``run`` is a task of the node.

    Args:
        key: whose signatures, and where.
        chain: 32 bytes.
        log: of the node's data, open.
        logger: of the node.
        on_answer: metric hook, told the seconds of each answer.
    """

    def __init__(
        self,
        key: RemoteKey,
        chain: bytes,
        log: Log,
        logger: FilteringBoundLogger,
        on_answer: Callable[[float], None],
    ) -> None:
        self.public = key.public
        self.why = "the signer was not reached yet"
        """Why nothing is signed, "" while the signer is there."""
        self._chain = chain
        self._socket = key.socket
        self._log_identity = log.identity
        self._log = log
        self._logger = logger
        self._on_answer = on_answer
        self._slots: dict[SignKind, Slot] = {}
        self._adopted: tuple[SignedBody, ...] = ()
        self._settled_upto: Slot = (-1, -1)
        self._asker: Asker | None = None
        self._asked: deque[tuple[Sign, int, float]] = deque()
        self._held: deque[_Waiting] = deque()
        self._number = 0
        self._wake = trio.Event()

    # --- what the node asks ---------------------------------------------------------------------

    @property
    def failed(self) -> None:
        """A failed disk is the signer's own matter; it is gone then."""
        return

    @property
    def awaited(self) -> int:
        """Requests that are not answered yet."""
        return len(self._asked) + len(self._held)

    def ask(self, request: Sign, *, ready: bool = True) -> Callable[[], None]:
        """Ask for a signature, in order. Without ``ready`` not before what is returned is called.

        The answer comes to the ``Asker``.
        """
        waiting = _Waiting(request, ready)
        self._held.append(waiting)

        def release() -> None:
            waiting.ready = True
            self._wake.set()

        if ready:
            self._wake.set()
        return release

    def adopt(self, bodies: Iterable[SignedBody]) -> None:
        """Take note of what the log's record says was signed; the signer is told at its hello."""
        self._adopted = tuple(bodies)
        for body in self._adopted:
            self._slots[body.kind] = max(self.slot_of(body.kind), body.slot)

    def slot_of(self, kind: SignKind) -> Slot:
        """Return the highest (epoch, round) in which something of this kind was signed."""
        return self._slots.get(kind, (-1, -1))

    def settle(self, epoch: int, round_: int) -> None:
        """Have the signer forget commit votes up to a certificate, with the next request."""
        self._settled_upto = max(self._settled_upto, (epoch, round_))

    def recovered_bodies(
        self, after: Mapping[SignKind, Slot] | None = None
    ) -> tuple[SignedBody, ...]:
        """Return none: the signer compares its mark with the log at the hello."""
        return ()

    def snapshot(self) -> Mark:
        """Return an empty mark; the signer's is on disk before it answers."""
        return _NO_MARK

    def write_mark(self, log_synced: int, mark: Mark | None = None) -> None:
        """There is no mark here."""

    def close(self) -> None:
        """``run`` closes the connection when it is cancelled."""

    # --- the connection -------------------------------------------------------------------------

    async def run(self, asker: Asker) -> None:
        """Keep a connection to the signer until cancelled."""
        self._asker = asker
        pause = RETRY_SECONDS
        while True:
            try:
                async with await trio.open_unix_socket(str(self._socket)) as stream:
                    bodies = await self._greet(stream)
                    pause = RETRY_SECONDS
                    self._logger.info("signer connected", socket=str(self._socket))
                    self.why = ""
                    asker.signer_back(bodies)
                    await self._converse(stream, asker)
            except _Gone as error:
                self._went(asker, str(error))
            except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
                reason = getattr(error, "strerror", None) or "the connection broke"
                self._went(asker, f"{self._socket}: {reason}")
            except RemoteProtocolError as error:
                self._went(asker, f"the signer speaks otherwise: {error.message}")
            await trio.sleep(pause)
            pause = min(2 * pause, RETRY_SECONDS_MAX)

    def _went(self, asker: Asker, reason: str) -> None:
        was_there = not self.why
        if self.why != reason:
            self._logger.warning("signer away", reason=reason)
        self.why = reason
        self._asked.clear()
        self._held.clear()
        if was_there:
            asker.signer_away()

    async def _greet(self, stream: trio.SocketStream) -> tuple[SignedBody, ...]:
        """Introduce the node; return the last bodies that the key has signed."""
        hello = wire.Hello(
            self._chain, self.public, self._log_identity, self._log.synced, self._adopted
        )
        splitter = FrameSplitter(wire.FRAME_BYTES_MAX)
        payloads: list[bytes] = []
        with trio.move_on_after(ANSWER_SECONDS_MAX):
            await stream.send_all(frames([wire.encode(hello)]))
            while not payloads:
                data = await stream.receive_some(READ_BYTES)
                if not data:
                    raise _Gone("the signer ended the connection: not the user it serves?")
                payloads = splitter.feed(data)
        if not payloads:
            raise _Gone("the signer does not answer")
        answer = wire.decode_welcome(payloads[0])
        if isinstance(answer, wire.Refusal):
            raise _Gone(f"the signer refuses this node: {answer.message} ({answer.code})")
        for body in answer.bodies:
            self._slots[body.kind] = max(self.slot_of(body.kind), body.slot)
        return answer.bodies

    async def _converse(self, stream: trio.SocketStream, asker: Asker) -> None:
        gone: list[Exception] = []
        async with trio.open_nursery() as nursery:

            async def until_gone(task: Callable[[], Awaitable[None]]) -> None:
                try:
                    await task()
                except (
                    _Gone,
                    RemoteProtocolError,
                    OSError,
                    trio.BrokenResourceError,
                    trio.ClosedResourceError,
                ) as error:
                    gone.append(error)
                nursery.cancel_scope.cancel()

            nursery.start_soon(until_gone, lambda: self._write(stream))
            nursery.start_soon(until_gone, lambda: self._read(stream, asker))
            nursery.start_soon(until_gone, self._watch)
        raise gone[0]

    async def _write(self, stream: trio.SocketStream) -> None:
        while True:
            payloads = []
            while self._held and self._held[0].ready:
                request = self._held.popleft().request
                self._number += 1
                self._asked.append((request, self._number, time.monotonic()))
                payloads.append(self._payload(request))
            if payloads:
                await stream.send_all(frames(payloads))
            await self._wake.wait()
            self._wake = trio.Event()

    def _payload(self, request: Sign) -> bytes:
        subject = request.body if request.block is None else request.block.encoded
        return wire.encode(
            wire.Request(
                self._number,
                request.kind,
                request.epoch,
                request.round,
                subject,
                request.two_chain,
                self._settled_upto,
                self._log.synced,
            )
        )

    async def _read(self, stream: trio.SocketStream, asker: Asker) -> None:
        splitter = FrameSplitter(wire.FRAME_BYTES_MAX)
        while True:
            data = await stream.receive_some(READ_BYTES)
            if not data:
                raise _Gone("the signer ended")
            for payload in splitter.feed(data):
                self._answered(wire.decode_answer(payload), asker)

    def _answered(self, answer: wire.Signature | wire.NotSigned, asker: Asker) -> None:
        if not self._asked or self._asked[0][1] != answer.number:
            raise _Gone("the signer answers what was not asked")
        request, _number, since = self._asked.popleft()
        if isinstance(answer, wire.NotSigned):
            lost = answer.code == PromisesLostError.code
            asker.refused((PromisesLostError if lost else SigningRefusedError)(answer.message))
            return
        self._on_answer(time.monotonic() - since)
        slot = request.epoch, request.round
        self._slots[request.kind] = max(self.slot_of(request.kind), slot)
        asker.signed(request, answer.signature)

    async def _watch(self) -> None:
        """Take the signer for gone when it lets a request wait."""
        while True:
            await trio.sleep(ANSWER_SECONDS_MAX / 4)
            if self._asked and time.monotonic() - self._asked[0][2] > ANSWER_SECONDS_MAX:
                raise _Gone("the signer does not answer")


class _Gone(Exception):
    """The signer is gone, or is not there for this node; why."""


_NO_MARK: Final = Mark({}, (-1, -1), {})
