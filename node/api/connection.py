"""One client: reading its requests, answering them, following heights for it.

Six tasks a connection, none a request: the *reader* decodes and sorts what one receive brought, the
*submitter* hands everything that waits to the backend at once, the *querier* proves all reads that
wait under one state, the *follower* sends heights, the *outbox* sends everything that is ready at
once, and the *watch* has the deadlines. Tasks hold the connection, and it holds none of them but
what they take from: one that ended is freed at once, with all that was asked and not answered.

Whatever is malformed is answered, and ends the connection. A request that this software does not
know is answered UNSUPPORTED, and does not.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import trio

from consensus import answers, protocol
from consensus.answers import Problem, Receipt, Receipts, Ticket, Welcome
from consensus.codec import Value
from consensus.errors import ComityError, DecodeError, SignatureError, invariant
from consensus.protocol import (
    BadParams,
    Hello,
    Item,
    Purpose,
    Request,
    Status,
    Submit,
    Subscribe,
    UnknownMethod,
    Unsubscribe,
)
from consensus.release import ADVICE
from consensus.release import VERSION as RELEASE
from consensus.signing import verify
from node.api import access, reading, showing
from node.api.backend import (
    Admission,
    Admitted,
    ApiBackend,
    CertifiedBlock,
    Identity,
    Rejected,
    Submission,
)
from node.api.following import Follower, Subscriptions
from node.api.limits import ApiLimits
from node.api.outbox import Outbox
from node.api.querying import Asked, Querier
from node.bell import Bell
from node.network.errors import ConnectionLost, FrameError, SlowSender
from node.network.framing import FrameReader, FrameWriter, watch

RECEIPTS_BYTES_MAX: Final = 1024 * 1024
"""Decisions in one event, unless a single one is longer."""

Waiter = tuple["Connection", int, int, int]
"""A connection, the id of its request, item and position."""


class Hub(Protocol):
    """What a connection asks of the server it belongs to."""

    @property
    def backend(self) -> ApiBackend:
        """The node."""

    @property
    def limits(self) -> ApiLimits:
        """Bounds of the client port."""

    @property
    def chain(self) -> bytes:
        """Of the network."""

    @property
    def cut(self) -> Counter[str]:
        """Connections that this side ended, by reason, for telemetry."""

    @property
    def greeted(self) -> Counter[int]:
        """Hellos of this version, by minor version, for telemetry."""

    @property
    def node_key(self) -> bytes:
        """Of this node; session proofs bind it."""

    def proved(self, connection: Connection, key: bytes) -> bool:
        """Count a connection under the key it proved; False when the key has too many."""

    def spend(self, connection: Connection, count_bytes: int) -> float:
        """Charge received bytes and return how long to pause reading, in seconds."""

    def take_on(self, connection: Connection, count: int, count_bytes: int) -> bool:
        """Count requests and bytes in flight; False if a connection may not have as many more."""

    def let_go(self, connection: Connection, count: int, count_bytes: int) -> None:
        """Count that so many are answered."""

    def wait(self, txid: bytes, waiter: Waiter) -> None:
        """Have a waiter told of a transaction's certified decision."""

    def answered(self, method: str, status: Status) -> None:
        """Count an answer, for telemetry."""

    def finished(self, decides: bool, seconds: float) -> None:
        """Note how long a request took, and whether it waited for decisions; for telemetry."""


@dataclass(slots=True)
class Waiting:
    """A request in flight: the answers it still gets, and what it is charged.

    ``since`` it is here, of the runtime's clock, seconds; ``decides``: it waits for decisions.
    """

    method: str
    left: int
    count: int
    bytes: int
    since: float
    decides: bool


class Connection:
    """One client's connection, after its TLS handshake.

    Args:
        hub: the server.
        reader: of frames of the stream; nobody else uses it.
        writer: likewise.
        address: of the client, for limits.
        nonce: NONCE_BYTES of fresh randomness.
        minor: version of the protocol that both speak, as TLS has it.
    """

    def __init__(
        self,
        hub: Hub,
        reader: FrameReader,
        writer: FrameWriter,
        address: str,
        nonce: bytes,
        minor: int = 0,
    ) -> None:
        self.hub = hub
        self.key = b""
        self.holder = (address, b"")
        """Under whose name limits count this connection: its key, once proved, else its address."""
        self.txids: set[bytes] = set()
        self.outbox = Outbox(writer)
        self.purpose = ""
        """What its reads are for, as the client says."""
        self.identity: Identity | None = None
        self._identity_height = -1
        self._access = answers.ANONYMOUS
        self.due = trio.current_time() + hub.limits.hello_seconds_max
        """When the client will have asked for nothing for too long; see ``framing.Wait``."""
        self.seconds_min = min(hub.limits.hello_seconds_max, hub.limits.idle_seconds_max)
        self._reader = reader
        self._writer = writer
        self._nonce = nonce
        self._minor = minor
        self._greeted = False
        self.closing = False
        """An answer has been given after which nothing more is heard."""
        self._waiting: dict[int, Waiting] = {}
        self._submissions: list[tuple[int, Submit]] = []
        self._submit_bell = Bell()
        self._asked = Asked()
        self._subscriptions = Subscriptions()
        self._scope = trio.CancelScope()
        self._reading = trio.CancelScope()

    @property
    def access(self) -> int:
        """What the key may do at the newest certified height."""
        height = self.hub.backend.height
        if self.key and height != self._identity_height:
            self.identity = self.hub.backend.identity(self.key)
            self._identity_height = height
            self._access = access.level(self.identity)
        return self._access

    # --- tasks --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until the client leaves, breaks the protocol, or is too slow."""
        hub = self.hub
        greeting = answers.Greeting(
            protocol.VERSION,
            hub.chain,
            hub.node_key,
            self._nonce,
            hub.backend.height,
            RELEASE if self._minor else "",
        )
        self.outbox.put(0, Status.EVENT, greeting.to_value())
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._converse)
                nursery.start_soon(self._send)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._submit)
                nursery.start_soon(Querier(self, self._asked).run)
                nursery.start_soon(Follower(self, self._subscriptions).run)

    async def _converse(self) -> None:
        with self._reading:
            await self._read()
        with trio.move_on_after(self.hub.limits.send_seconds_max):
            await self.outbox.below(0)
        self.stop()

    async def _send(self) -> None:
        try:
            await self.outbox.run()
        except ConnectionLost:
            self.stop()

    async def _watch(self) -> None:
        try:
            await watch(self, self._reader, self._writer)
        except SlowSender as error:
            self.hub.cut["slow"] += 1
            self._end(0, Status.MALFORMED, error)
            self._reading.cancel()
        except ConnectionLost:
            self.hub.cut["silent" if self.due <= trio.current_time() else "unread"] += 1
            self.stop()

    def overdue(self) -> ConnectionLost:
        """Return what ends a connection that is not used."""
        return ConnectionLost("the client asks for nothing")

    async def _read(self) -> None:
        limits = self.hub.limits
        while not self.closing:
            await self.outbox.below(limits.outbound_bytes_max)
            before = self._reader.bytes_received
            try:
                payloads = await self._reader.read()
            except FrameError as error:
                self._end(0, Status.MALFORMED, error)
                return
            except ConnectionLost:
                return
            if not payloads:
                return
            for payload in payloads:
                self._receive(payload)
                if self.closing:
                    return
            pause = self.hub.spend(self, self._reader.bytes_received - before)
            if pause > 0:
                await trio.sleep(min(pause, limits.frame_seconds_max))

    async def _submit(self) -> None:
        while True:
            await self._submit_bell.heard()
            turn, self._submissions = self._submissions, []
            flat = [
                Submission(kind, data, self.key)
                for _, request in turn
                for kind, data in request.items
            ]
            admissions = await self.hub.backend.submit(flat)
            invariant(len(admissions) == len(flat), "one admission for every submission")
            at = 0
            for request_id, request in turn:
                part = admissions[at : at + len(request.items)]
                at += len(request.items)
                if request.wait:
                    self._await_decisions(request_id, part)
                else:
                    self._give_tickets(request_id, part)

    # --- requests -----------------------------------------------------------------------------

    def _receive(self, payload: bytes) -> None:
        try:
            request_id, request = protocol.decode_request(payload)
        except UnknownMethod as error:
            self.fail(error.request_id, Status.UNSUPPORTED, error)
            self.closing = not self._greeted
            return
        except BadParams as error:
            self._end(error.request_id, Status.MALFORMED, error)
            return
        except DecodeError as error:
            self._end(0, Status.MALFORMED, error)
            return
        if isinstance(request, Hello):
            self._hello(request_id, request)
        elif not self._greeted:
            self._end(request_id, Status.DENIED, ComityError("the first request is hello"))
        elif request_id in self._waiting or request_id in self._subscriptions:
            self._end(0, Status.MALFORMED, DecodeError(f"request id {request_id} is in use"))
        elif not access.allows(self.access, request):
            self._deny(request_id)
        else:
            self._start(request_id, request, len(payload))

    def _start(self, request_id: int, request: Request, size: int) -> None:
        count = 1
        match request:
            case Subscribe(stream, from_height):
                self._subscribe(request_id, stream, from_height)
                return
            case Purpose(text):
                self.purpose = text
                self.outbox.put(request_id, Status.OK, [])
                self._rest()
                return
            case Unsubscribe(subscription_id):
                self._subscriptions.remove(subscription_id)
                self.outbox.put(request_id, Status.OK, [])
                self._rest()
                return
            case Submit(_, items):
                count = len(items)
                if self._access == answers.CITIZEN and not self._authored(items):
                    self._deny(request_id)
                    return
        if not self.hub.take_on(self, count, size):
            self._busy(request_id, "too many requests of this key are in flight")
            return
        method = protocol.method_of(request)
        now, decides = trio.current_time(), isinstance(request, Submit) and request.wait
        self._waiting[request_id] = Waiting(method, count, count, size, now, decides)
        self.due = math.inf
        if isinstance(request, Submit):
            self._submissions.append((request_id, request))
            self._submit_bell.ring()
        else:
            self._asked.add(request_id, request)

    def _hello(self, request_id: int, request: Hello) -> None:
        hub = self.hub
        if self._greeted:
            self._end(request_id, Status.MALFORMED, DecodeError("hello comes once"))
            return
        if request.version != protocol.VERSION:
            hub.cut["version"] += 1
            said = (
                f"the client speaks version {request.version} of the client protocol, this node "
                f"{protocol.VERSION} (release {RELEASE})"
            )
            self._end(request_id, Status.UNSUPPORTED, ComityError(said, hint=ADVICE))
            return
        if request.chain != hub.chain:
            hint = "compare the genesis files"
            problem = ComityError("this node serves another network", hint=hint)
            self._end(request_id, Status.WRONG_CHAIN, problem)
            return
        hub.greeted[self._minor] += 1
        if request.key is not None and request.signature is not None:
            signed = protocol.session_message(hub.chain, hub.node_key, self._nonce, request.key)
            try:
                verify(request.key, signed, request.signature)
            except SignatureError as error:
                hint = "sign over the nonce of this greeting with the key that hello names"
                problem = SignatureError(error.message, hint=hint)
                self._end(request_id, Status.BAD_SIGNATURE, problem)
                return
            if not hub.proved(self, request.key):
                self._busy(request_id, "this key has too many connections")
                self.closing = True
                return
            self.key = request.key
            self.holder = ("", request.key)
        self._greeted = True
        level, who = self.access, self.identity
        if level != answers.ANONYMOUS:
            self._reader.allow(protocol.REQUEST_BYTES_MAX)
        welcome = Welcome(level, who.principal, who.agency) if who else Welcome(level)
        self.outbox.put(request_id, Status.OK, welcome.to_value())
        self._rest()

    def _subscribe(self, request_id: int, stream: protocol.Stream, from_height: int) -> None:
        if len(self._subscriptions) >= self.hub.limits.subscriptions_max:
            self._busy(request_id, "this connection follows enough already")
            return
        self.due = math.inf
        self._subscriptions.add(request_id, stream, from_height)

    def _authored(self, items: Sequence[tuple[Item, bytes]]) -> bool:
        return all(
            kind is Item.ENVELOPE and reading.sender_is_author(data, self.key)
            for kind, data in items
        )

    # --- submissions --------------------------------------------------------------------------

    def _give_tickets(self, request_id: int, admissions: Sequence[Admission]) -> None:
        tickets = [
            Ticket(admission.txids)
            if isinstance(admission, Admitted)
            else Ticket((), admission.status, _problem(admission))
            for admission in admissions
        ]
        for each in admissions:
            if isinstance(each, Rejected):  # a ticket is an answer of its own, as a decision is
                self.hub.answered(self._waiting[request_id].method, each.status)
        self.answer(request_id, [ticket.to_value() for ticket in tickets])

    def _await_decisions(self, request_id: int, admissions: Sequence[Admission]) -> None:
        waiting = self._waiting[request_id]
        waiting.left = sum(
            len(each.txids) if isinstance(each, Admitted) else 1 for each in admissions
        )
        for item, admission in enumerate(admissions):
            if isinstance(admission, Rejected):
                self.outbox.put(request_id, admission.status, _problem(admission, item).to_value())
                self._settle(request_id, 1, admission.status)
                continue
            for position, txid in enumerate(admission.txids):
                place = admission.decided.get(position)
                if place is None:
                    self.txids.add(txid)
                    self.hub.wait(txid, (self, request_id, item, position))
                    continue
                block = self.hub.backend.block(place.height)
                if block is None:
                    said = f"decided at height {place.height}, which is no longer kept here"
                    problem = Problem("NOT_FOUND", said, "", 0, item, position)
                    self.outbox.put(request_id, Status.NOT_FOUND, problem.to_value())
                    self._settle(request_id, 1, Status.NOT_FOUND)
                else:
                    path = reading.path_of(block, place.index)
                    found = [(place.index, (self, request_id, item, position))]
                    self.receipts(block, found, path)

    def receipts(
        self, block: CertifiedBlock, found: Sequence[tuple[int, Waiter]], path: Sequence[bytes]
    ) -> None:
        """Send the decisions of a block that this connection waits for.

        Args:
            found: indices in the block, each with a waiter of this connection.
            path: as ``CountTree.multi_path`` of these indices.
        """
        self.outbox.statement(block.height, block.evidence)
        identity = self.identity if self.access != answers.ANONYMOUS else None
        shown = partial(showing.receipt, identity, self.key)
        rows = tuple(
            Receipt(request_id, item, position, index, shown(block.decisions[index]))
            for index, (_, request_id, item, position) in found
        )
        event = Receipts(block.height, len(block.roots), tuple(path), rows)
        self.outbox.put(0, Status.EVENT, event.to_value())
        for _, (_, request_id, _, _) in found:
            self._settle(request_id, 1, Status.OK)

    def lapse(self, request_id: int, item: int, position: int) -> None:
        """Answer that a transaction left the pool undecided."""
        said = "the transaction's time passed before any block held it"
        hint = "submit it again with a later not_after; it can never take effect as it is"
        problem = Problem("LAPSED", said, hint, 0, item, position)
        self.outbox.put(request_id, Status.LAPSED, problem.to_value())
        self._settle(request_id, 1, Status.LAPSED)

    def shown(self, decision: bytes) -> bytes:
        """Return an encoded decision as the key may see it at the newest certified height."""
        return showing.shown(self.identity if self.access != answers.ANONYMOUS else None, decision)

    # --- answers ------------------------------------------------------------------------------

    def answer(self, request_id: int, result: Value) -> None:
        """Give a request its one answer."""
        self.outbox.put(request_id, Status.OK, result)
        self._settle(request_id, self._waiting[request_id].left, Status.OK)

    def fail(self, request_id: int, status: Status, error: ComityError) -> None:
        """Answer a request with an error."""
        self.refuse(request_id, status, Problem(status.name, error.message, error.hint))

    def refuse(self, request_id: int, status: Status, problem: Problem) -> None:
        """Answer a request, or a subscription that ends, with a problem."""
        self.outbox.put(request_id, status, problem.to_value())
        waiting = self._waiting.get(request_id)
        if waiting is not None:
            self._settle(request_id, waiting.left, status)
        else:
            self.hub.answered("other", status)

    def stop(self) -> None:
        """End the connection at once."""
        self._scope.cancel()

    def discharge(self) -> None:
        """Give back what is charged for requests that will not be answered any more."""
        for waiting in self._waiting.values():
            self.hub.let_go(self, waiting.count, waiting.bytes)
        self._waiting.clear()

    def height_certified(self) -> None:
        """Tell subscriptions that there is a new height."""
        self._subscriptions.advanced()

    def _end(self, request_id: int, status: Status, error: ComityError) -> None:
        self.fail(request_id, status, error)
        self.closing = True

    def _deny(self, request_id: int) -> None:
        hint = "prove a key of an official or system; docs/protocol lists who may what"
        self.fail(request_id, Status.DENIED, ComityError("this key may not do that", hint=hint))

    def _busy(self, request_id: int, said: str) -> None:
        retry_ms = self.hub.limits.busy_retry_ms
        problem = Problem("BUSY", said, "wait and try again", retry_ms)
        self.refuse(request_id, Status.BUSY, problem)

    def _settle(self, request_id: int, count: int, status: Status) -> None:
        """Note that ``count`` answers of a request are out."""
        waiting = self._waiting[request_id]
        waiting.left -= count
        self.hub.answered(waiting.method, status)
        if waiting.left <= 0:
            del self._waiting[request_id]
            self.hub.finished(waiting.decides, trio.current_time() - waiting.since)
            self.hub.let_go(self, waiting.count, waiting.bytes)
            self._rest()

    def _rest(self) -> None:
        """Start the idle clock when nothing is in flight and nothing is followed."""
        if not self._waiting and not len(self._subscriptions):
            self.due = trio.current_time() + self.hub.limits.idle_seconds_max


def _problem(rejected: Rejected, item: int | None = None) -> Problem:
    return Problem(rejected.code, rejected.message, rejected.hint, rejected.retry_after_ms, item)
