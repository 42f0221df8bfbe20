"""One authenticated connection to one node: requests out, verified results in.

Two tasks a session, none a request. The reader takes all frames of a receive, verifies what they
say in the order they came, and settles whoever waits; the sender puts everything that waits into
one send. A node that answers what does not verify is cut off: every request in flight fails with
that error, and the caller asks another node.

Not here: which node, retries and time limits (``client``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Generic, NamedTuple, TypeVar

import trio

from comity import decisions
from comity.errors import ClientError, NotReachableError, OtherVersionError, RequestError
from comity.keys import Key
from comity.results import Outcome, Refusal
from comity.verify import Trust
from consensus import answers, protocol
from consensus.answers import Answer, Problem, StatementEvidence, Welcome
from consensus.changed import Part, Shown, read_part
from consensus.codec import Value
from consensus.errors import (
    ComityError,
    ProofError,
    RemoteProtocolError,
    VerificationError,
)
from consensus.hotstuff.types import Statement
from consensus.protocol import Event, Hello, Item, Request, Status, Submit, Subscribe, Unsubscribe
from consensus.release import ADVICE
from consensus.release import VERSION as RELEASE
from consensus.state.changes import CHANGE_BYTES
from consensus.state.merkle import RESULTS

T = TypeVar("T")

RECEIVE_BYTES_MAX: Final = 64 * 1024
HELLO_SECONDS_MAX: Final = 5.0
EVENTS_MAX: Final = 16
"""Heights of a subscription that wait for their reader; beyond, nothing more is received."""


class Statements(dict[int, Statement]):
    """The last statements that this connection brought, verified, by height, and what proved them.

    ``evidence`` is as it came.
    """

    __slots__ = ("evidence",)

    def __init__(self) -> None:
        super().__init__()
        self.evidence: dict[int, StatementEvidence] = {}

    def add(self, statement: Statement, evidence: StatementEvidence) -> None:
        """Take a verified statement."""
        self[statement.height] = statement
        self.evidence[statement.height] = evidence
        if len(self) > protocol.STATEMENTS_KEPT:
            oldest = next(iter(self))
            del self[oldest], self.evidence[oldest]


@dataclass(frozen=True, slots=True)
class Server:
    """Where a node listens for clients, and what proves that it is that node.

    ``agency`` names it among the servers of a client: its agency, and of an observer its name and
    address. One without ``votes`` is not asked to take transactions.
    """

    agency: str
    host: str
    port: int
    node_key: bytes
    certificate: bytes
    votes: bool = True


class FeedItem(NamedTuple):
    """A height of a subscription as received: what it proves is compared by whoever takes it.

    ``changes`` and ``rows`` are there in a stream of changes alone.
    """

    statement: Statement
    evidence: StatementEvidence
    decisions: tuple[bytes, ...] | None
    changes: bytes | None = None
    rows: tuple[Shown, ...] = ()


Feed = trio.MemoryReceiveChannel[FeedItem]
"""Heights of a subscription, in order."""

Dial = Callable[[Server], Awaitable[trio.abc.Stream]]
"""Returns a stream to a server whose node key has been checked."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One item to submit: an envelope or a group, and the txids in it."""

    kind: Item
    data: bytes
    txids: tuple[bytes, ...]


class Delivery:
    """What becomes of parcels: one final outcome a transaction, in any order.

    A node that is busy or unavailable gives no final outcome: such parcels stay open, and
    ``pause_ms`` says how long to wait before they are sent again.

    Args:
        parcels: what is submitted.
        told: called once for each transaction with parcel, position and outcome.
    """

    def __init__(
        self,
        parcels: Sequence[Parcel],
        told: Callable[[int, int, Outcome], None] | None = None,
    ) -> None:
        self.parcels = tuple(parcels)
        self.outcomes: list[list[Outcome | None]] = [[None] * len(p.txids) for p in parcels]
        self.left = sum(len(p.txids) for p in parcels)
        self.expecting = 0
        """Transactions sent on living sessions and not yet answered there."""
        self.pause_ms = 0
        self.deferred: Refusal | None = None
        self._changed = trio.Event()
        self._told = told

    @property
    def open_parcels(self) -> list[int]:
        """Indices of parcels that have a transaction without final outcome."""
        return [index for index, row in enumerate(self.outcomes) if None in row]

    def settle(self, parcel: int, position: int, outcome: Outcome) -> None:
        """Note what a node answered for one transaction; after a final outcome nothing counts."""
        if self.outcomes[parcel][position] is not None:
            return
        if isinstance(outcome, Refusal) and outcome.elsewhere:
            self.pause_ms = max(self.pause_ms, outcome.retry_after_ms)
            self.deferred = outcome
            return
        self.outcomes[parcel][position] = outcome
        self.left -= 1
        if self._told is not None:
            self._told(parcel, position, outcome)

    def expect(self, count: int) -> None:
        """Count answers that are due, or (negative) that came or will not come."""
        self.expecting += count
        if self.expecting <= 0 or not self.left:
            self._changed.set()

    async def settled(self) -> None:
        """Wait until everything has its outcome, or nothing more is due from any session."""
        self._changed = trio.Event()
        if self.left and self.expecting > 0:
            await self._changed.wait()


class _Question(Generic[T]):
    """A request with one answer."""

    __slots__ = ("done", "error", "read", "result")

    def __init__(self, read: Callable[[Value, Statements], T]) -> None:
        self.read = read
        self.done = trio.Event()
        self.result: T | None = None
        self.error: Exception | None = None


@dataclass(slots=True)
class _Sent:
    """Parcels under one request id; ``parcels[item]`` is the parcel's index in the delivery."""

    delivery: Delivery
    parcels: list[int]
    left: int


class Session:
    """A connection to ``server``, open until ``run`` returns.

    Args:
        server: the node.
        stream: to it; its node key has been checked.
        trust: what the client knows to be certified; grows as evidence arrives.
        minor: version of the protocol that both speak, as TLS has it.
    """

    def __init__(
        self, server: Server, stream: trio.abc.Stream, trust: Trust, minor: int = 0
    ) -> None:
        self.server = server
        self.release = ""
        """Of the node's software, as far as it has said."""
        self._minor = minor
        self.trust = trust
        self.welcome = Welcome(answers.ANONYMOUS)
        self.failure: ComityError | None = None
        self._stream = stream
        self._scope = trio.CancelScope()
        self._splitter = protocol.FrameSplitter(protocol.ANSWER_BYTES_MAX)
        self._backlog: list[bytes] = []
        self._next_id = 1
        self._outbox: list[bytes] = []
        self._wake = trio.Event()
        self._statements = Statements()
        self._questions: dict[int, _Question[object]] = {}
        self._sent: dict[int, _Sent] = {}
        self._feeds: dict[int, trio.MemorySendChannel[FeedItem]] = {}
        self._parts: dict[int, list[Part]] = {}
        """Of heights of which more is to come, by subscription."""
        self.in_flight = 0
        """Transactions submitted here without outcome."""

    @property
    def alive(self) -> bool:
        """Whether requests can be made."""
        return self.failure is None

    # --- life ---------------------------------------------------------------------------------

    async def greet(self, key: Key | None) -> Welcome:
        """Shake hands and prove ``key``; before ``run``.

        Raises:
            NotReachableError: the connection ended or took too long.
            RemoteProtocolError, VerificationError: the other side is not the node it should be.
            OtherVersionError: the two speak different versions of the protocol.
            RequestError: it refused.
        """
        with trio.move_on_after(HELLO_SECONDS_MAX):
            return await self._greet(key)
        raise NotReachableError(f"{self.server.agency} did not greet in time")

    async def _greet(self, key: Key | None) -> Welcome:
        first = await self._one()
        self._expect_event(first)
        version = answers.greeted_version(first.result)
        if version != protocol.VERSION:
            raise OtherVersionError(
                f"the node of {self.server.agency} speaks version {version} of the client "
                f"protocol, this release ({RELEASE}) {protocol.VERSION}"
            )
        greeting = answers.read_greeting(first.result)
        self.release = greeting.release
        chain = self.trust.chain
        if greeting.chain != chain:
            raise VerificationError(
                f"the node of {self.server.agency} serves another network",
                hint="compare the genesis files",
            )
        if greeting.node_key != self.server.node_key:
            raise VerificationError("the node names another key than its certificate's")
        own = RELEASE if self._minor else ""
        hello = Hello(protocol.VERSION, chain, release=own)
        if key is not None:
            signed = protocol.session_message(
                chain, self.server.node_key, greeting.nonce, key.public
            )
            hello = Hello(protocol.VERSION, chain, key.public, key.sign(signed), own)
        request_id = self._take_id()
        await self._send(protocol.frames([protocol.encode_request(request_id, hello)]))
        answer = await self._one()
        if answer.request_id not in (0, request_id) or answer.status == Status.EVENT:
            raise RemoteProtocolError("the node answered something else than hello")
        if answer.status != Status.OK:
            problem = answers.read_problem(answer.result)
            if answer.status == Status.UNSUPPORTED:
                raise OtherVersionError(f"{self.server.agency}: {problem.message}")
            raise RequestError(answer.status, problem)
        self.welcome = answers.read_welcome(answer.result)
        return self.welcome

    async def run(self) -> None:
        """Receive and send until the connection ends; afterwards ``failure`` says why."""
        reason: ComityError = NotReachableError(f"the connection to {self.server.agency} ended")
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, nursery.cancel_scope)
                    try:
                        await self._receive()
                    except (RemoteProtocolError, VerificationError, ClientError) as error:
                        reason = error
                    nursery.cancel_scope.cancel()
        finally:
            self._fail(reason)
            await trio.aclose_forcefully(self._stream)

    def close(self) -> None:
        """End the session; whoever waits is told that it ended."""
        self._scope.cancel()

    def _fail(self, reason: ComityError) -> None:
        self.failure = reason
        questions, self._questions = self._questions, {}
        for question in questions.values():
            question.error = reason
            question.done.set()
        sent, self._sent = self._sent, {}
        for each in sent.values():
            each.delivery.expect(-each.left)
        self.in_flight = 0
        feeds, self._feeds = self._feeds, {}
        for feed in feeds.values():
            feed.close()

    async def _receive(self) -> None:
        backlog, self._backlog = self._backlog, []
        while True:
            for payload in backlog:
                await self._take(answers.decode_answer(payload))
            data = await self._some()
            if not data:
                return
            backlog = self._splitter.feed(data)

    async def _some(self) -> bytes:
        try:
            return bytes(await self._stream.receive_some(RECEIVE_BYTES_MAX))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NotReachableError(f"the connection to {self.server.agency} broke") from error

    async def _one(self) -> Answer:
        while not self._backlog:
            data = await self._some()
            if not data:
                raise NotReachableError(f"{self.server.agency} closed the connection")
            self._backlog = self._splitter.feed(data)
        return answers.decode_answer(self._backlog.pop(0))

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise NotReachableError(f"the connection to {self.server.agency} broke") from error

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake = trio.Event()
                payloads, self._outbox = self._outbox, []
                await self._send(protocol.frames(payloads))
        except NotReachableError:
            scope.cancel()

    # --- requests -----------------------------------------------------------------------------

    async def ask(self, request: Request, read: Callable[[Value, Statements], T]) -> T:
        """Return what ``read`` makes of the answer.

        Args:
            request: one that has a single answer.
            read: verifies and types the result; gets the statements that came before it.

        Raises:
            RequestError: the node answered with an error.
            ComityError: the session ended, for the reason it ended.
        """
        question = _Question(read)
        request_id = self._put(request)
        self._questions[request_id] = question  # type: ignore[assignment]  # one table for all T
        try:
            await question.done.wait()
        finally:
            self._questions.pop(request_id, None)
        if question.error is not None:
            raise question.error
        return question.result  # type: ignore[return-value]  # set with ``done``

    def submit(self, delivery: Delivery, parcels: Sequence[int]) -> None:
        """Send parcels (by index) of a delivery; their outcomes come to it.

        Raises:
            ComityError: the session has ended.
        """
        items = tuple((delivery.parcels[i].kind, delivery.parcels[i].data) for i in parcels)
        request_id = self._put(Submit(True, items))
        left = sum(len(delivery.parcels[i].txids) for i in parcels)
        self._sent[request_id] = _Sent(delivery, list(parcels), left)
        self.in_flight += left
        delivery.expect(left)

    def subscribe(self, request: Subscribe) -> tuple[int, Feed]:
        """Begin a subscription; return its id and the channel of statements with what came.

        While the channel is full nothing else is received: give it a session of its own.
        """
        sender, channel = trio.open_memory_channel[FeedItem](EVENTS_MAX)
        request_id = self._put(request)
        self._feeds[request_id] = sender
        return request_id, channel

    def unsubscribe(self, subscription_id: int) -> None:
        """End a subscription."""
        self._parts.pop(subscription_id, None)
        feed = self._feeds.pop(subscription_id, None)
        if feed is not None:
            feed.close()
            if self.alive:
                question: _Question[object] = _Question(lambda value, statements: None)
                self._questions[self._put(Unsubscribe(subscription_id))] = question

    def _put(self, request: Request) -> int:
        if self.failure is not None:
            raise self.failure
        request_id = self._take_id()
        self._outbox.append(protocol.encode_request(request_id, request))
        self._wake.set()
        return request_id

    def _take_id(self) -> int:
        request_id = self._next_id
        self._next_id = request_id % protocol.REQUEST_ID_MAX + 1
        return request_id

    # --- answers ------------------------------------------------------------------------------

    async def _take(self, answer: Answer) -> None:
        request_id, status = answer.request_id, answer.status
        if request_id == 0:
            self._take_event(answer)
        elif request_id in self._questions:
            self._answer(self._questions.pop(request_id), answer)
        elif request_id in self._sent:
            if status in (Status.OK, Status.EVENT):
                raise RemoteProtocolError("a submission was answered without a decision")
            self._refused(request_id, answers.read_problem(answer.result), status)
        elif request_id in self._feeds:
            await self._feed(request_id, answer)

    def _answer(self, question: _Question[object], answer: Answer) -> None:
        try:
            if answer.status == Status.OK:
                question.result = question.read(answer.result, self._statements)
            else:
                problem = answers.read_problem(answer.result)
                if answer.status == Status.UNSUPPORTED and self.release not in ("", RELEASE):
                    said = f"{problem.message}; its release is {self.release}, this one {RELEASE}"
                    problem = replace(problem, message=said, hint=ADVICE)
                question.error = RequestError(answer.status, problem)
        except (RemoteProtocolError, VerificationError) as error:
            question.error = error
            raise
        finally:
            question.done.set()

    def _take_event(self, answer: Answer) -> None:
        if answer.status != Status.EVENT:
            raise RequestError(answer.status, answers.read_problem(answer.result))
        self._expect_event(answer)
        match answer.result[0]:
            case Event.STATEMENT:
                evidence = answers.read_statement(answer.result)
                self._statements.add(self.trust.statement(evidence), evidence)
            case Event.RECEIPTS:
                self._receipts(answers.read_receipts(answer.result))
            case _:
                raise RemoteProtocolError("an unknown event")

    def _expect_event(self, answer: Answer) -> None:
        if answer.request_id == 0 and answer.status not in (Status.OK, Status.EVENT):
            raise RequestError(answer.status, answers.read_problem(answer.result))
        events = answer.status == Status.EVENT and answer.request_id == 0
        if not events or type(answer.result) is not list or not answer.result:
            raise RemoteProtocolError("expected an event of the connection")

    def _receipts(self, receipts: answers.Receipts) -> None:
        statement = statement_of(self._statements, receipts.height)
        found = {r.index: decisions.read(r.decision) for r in receipts.receipts}
        for index, decision in found.items():
            if (decision.height, decision.index) != (receipts.height, index):
                raise ProofError("a decision names another place than its receipt")
        leaves = {index: decision.root for index, decision in found.items()}
        if RESULTS.multi_root(receipts.total, leaves, receipts.path) != statement.results_root:
            raise ProofError("receipts lead to another results root")
        for receipt in receipts.receipts:
            sent = self._sent.get(receipt.request_id)
            if sent is None or receipt.item >= len(sent.parcels):
                raise RemoteProtocolError("a receipt that nobody waits for")
            parcel = sent.parcels[receipt.item]
            txids = sent.delivery.parcels[parcel].txids
            decision = found[receipt.index]
            if receipt.position >= len(txids) or decision.txid != txids[receipt.position]:
                raise ProofError("a receipt is about another transaction")
            self._settle(receipt.request_id, sent, parcel, receipt.position, decision)

    def _refused(self, request_id: int, problem: Problem, status: int) -> None:
        sent = self._sent[request_id]
        items = range(len(sent.parcels)) if problem.item is None else [problem.item]
        for item in items:
            if item >= len(sent.parcels):
                raise RemoteProtocolError("a refusal of an item that was not sent")
            parcel = sent.parcels[item]
            txids = sent.delivery.parcels[parcel].txids
            places = range(len(txids)) if problem.position is None else [problem.position]
            for position in places:
                if position >= len(txids):
                    raise RemoteProtocolError("a refusal of a transaction that was not sent")
                refusal = Refusal(
                    txids[position],
                    status,
                    problem.code,
                    problem.message,
                    problem.hint,
                    problem.retry_after_ms,
                )
                self._settle(request_id, sent, parcel, position, refusal)

    def _settle(
        self, request_id: int, sent: _Sent, parcel: int, position: int, outcome: Outcome
    ) -> None:
        sent.left -= 1
        self.in_flight -= 1
        if sent.left <= 0:
            self._sent.pop(request_id, None)
        sent.delivery.settle(parcel, position, outcome)
        sent.delivery.expect(-1)

    async def _feed(self, subscription_id: int, answer: Answer) -> None:
        if answer.status != Status.EVENT:  # the session's end closes the feed: then why is known
            raise RequestError(answer.status, answers.read_problem(answer.result))
        item = self._item(subscription_id, answer)
        if item is None:
            return
        try:
            await self._feeds[subscription_id].send(item)
        except trio.BrokenResourceError:
            self.unsubscribe(subscription_id)

    def _item(self, subscription_id: int, answer: Answer) -> FeedItem | None:
        """Return the height that an event ends; None if more of it is to come."""
        result = answer.result
        if type(result) is not list or not result or result[0] != Event.CHANGES:
            event = answers.read_height_event(result)
            statement = statement_of(self._statements, event.height)
            evidence = self._statements.evidence[event.height]
            return FeedItem(statement, evidence, event.decisions)
        part = read_part(result)
        before = self._parts.pop(subscription_id, [])
        first = before[0] if before else part
        if part.height != first.height or (part.changes is None) is not bool(before):
            raise RemoteProtocolError("parts of a height do not belong together")
        rows = [row for each in (*before, part) for row in each.rows]
        if len(rows) > len(first.changes or b"") // CHANGE_BYTES:
            raise RemoteProtocolError("a height shows more rows than it changed")
        if part.more:
            if not part.rows and before:
                raise RemoteProtocolError("a part of a height brings nothing")
            self._parts[subscription_id] = [*before, part]
            return None
        statement = statement_of(self._statements, part.height)
        evidence = self._statements.evidence[part.height]
        return FeedItem(statement, evidence, first.decisions, first.changes, tuple(rows))


def statement_of(statements: Statements, height: int) -> Statement:
    """Return the statement of a height that came before.

    Raises:
        ProofError: none came.
    """
    found = statements.get(height)
    if found is None:
        raise ProofError(f"no proof of height {height} came with the answer")
    return found
