"""The client for scripts and notebooks: the same methods, each of which waits for its result.

    with BlockingClient.connect(genesis, servers=["treasury"], key=key) as client:
        entry = client.get("account", "programme")

One thread a client runs one trio loop with one ``Client`` in it. A method hands its work to that
loop and waits. What follows from that:

- Any number of threads may call; their calls run at once. A subscription belongs to one of them.
- Ctrl-C cancels the call that waits, as cancelling does there, and the client stays usable. A
  second one does not even wait for the cancelled call to end.
- Closing ends every call under way with ``ClosedError`` and every subscription as if it were over.
- A client that was never closed is closed when the interpreter exits, or with a ``ResourceWarning``
  when nothing refers to it any more.
- Callers may have event loops of their own, asyncio's or trio's: these stand still meanwhile. Only
  the client's own thread may not wait for itself (``WaitsForItselfError``).

Not here: what the methods do (``client``).
"""

from __future__ import annotations

import atexit
import threading
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import AbstractAsyncContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Concatenate, Final, Generic, ParamSpec, TypeVar

import trio

from comity.acting import Signed
from comity.blocking_feeds import BlockingFeeds
from comity.circulars import Circular
from comity.client import Client
from comity.errors import ClosedError, WaitsForItselfError
from comity.keys import Key
from comity.pool import dial_tls
from comity.results import Outcome
from comity.session import Dial, Parcel, Server
from comity.verify import Trust
from consensus.genesis import Genesis
from consensus.ledger.transaction import Unsigned

P = ParamSpec("P")
T = TypeVar("T")

EXIT_SECONDS_MAX: Final = 5.0
"""How long the interpreter's exit waits for a client that was not closed."""
INTERRUPT_SECONDS_MAX: Final = 0.5
"""How late Ctrl-C may be seen that came just before a wait began: it does not end such a wait."""
HEIGHTS_WAITING_MAX: Final = 1
"""Heights of a subscription that lie ready for their thread."""


def _outcome(future: Future[T]) -> T:
    """Return what a future comes to, or raise it; Ctrl-C ends the wait."""
    while not future.done():
        wait([future], INTERRUPT_SECONDS_MAX)
    return future.result()


def _item(queue: SimpleQueue[T]) -> T:
    """Return the next item of a queue; Ctrl-C ends the wait."""
    while True:
        with suppress(Empty):
            return queue.get(timeout=INTERRUPT_SECONDS_MAX)


@dataclass(slots=True, eq=False)
class _Call(Generic[T]):
    """Work that a thread handed to a loop."""

    work: Callable[[Client], Awaitable[T]]
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    future: Future[T] = field(default_factory=Future)
    begun: bool = False


class _Loop:
    """A thread that runs trio with a client in it, until ``stop``.

    Knows nothing of the ``BlockingClient`` in front of it, so that one can become garbage.
    Signal handlers and finalizers run in the middle of anything, therefore nothing here is locked:
    a call is first registered, then the loop's end looked for; the end is first noted, then what is
    registered fails. So one side always sees the other.

    Args:
        connect: makes the client, within the loop.

    Raises:
        Exception: whatever ``connect`` raises.
    """

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[Client]]) -> None:
        self._calls: set[_Call[Any]] = set()
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._nursery: trio.Nursery | None = None
        self._stopping = False
        self._over = False
        self._failure: BaseException | None = None
        self._failure_told = False
        connected: Future[Client] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(connect, connected), name="comity client", daemon=True
        )
        try:
            self._thread.start()
            self.client = _outcome(connected)
        except BaseException:
            self.stop()
            raise

    # --- in any thread ------------------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether calls are taken. False in a forked process, which has no such thread."""
        return not (self._stopping or self._over) and self._thread.is_alive()

    @property
    def failed(self) -> bool:
        """Whether it ended without being asked to."""
        return self._failure is not None

    def check(self) -> None:
        """Raise unless the calling thread can wait for this loop.

        Raises:
            ClosedError: it has ended, or is about to.
            WaitsForItselfError: this is its own thread.
        """
        if threading.current_thread() is self._thread:
            raise WaitsForItselfError("a client's own thread cannot wait for that client")
        if not self.open:
            raise self._closed()

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Return what ``work`` returns, or raise what it raises."""
        call = _Call(work)
        with self.under_way(call):
            return _outcome(call.future)

    @contextmanager
    def under_way(self, call: _Call[T]) -> Iterator[None]:
        """Begin a call; when the block fails, cancel it and wait until it has ended."""
        try:
            self.begin(call)
            yield
        except BaseException:
            if self.abandon(call):
                with suppress(Exception):
                    call.future.exception()
            raise

    def begin(self, call: _Call[T]) -> None:
        """Hand a call over; its future has the outcome.

        Raises:
            ClosedError, WaitsForItselfError: as ``check``; the call is forgotten.
        """
        self._calls.add(call)
        try:
            self.check()
        except BaseException:
            self._calls.discard(call)
            raise
        self.soon(self._accept, call)

    def abandon(self, call: _Call[T]) -> bool:
        """Have a call cancelled unless it has ended; return whether its future is still to come."""
        if call not in self._calls or self._over:
            return False
        self.soon(self._cancel, call)
        return True

    def soon(self, function: Callable[..., object], *arguments: object) -> None:
        """Have a function called in the loop, unless that ends before."""
        if self._token is not None and self._thread.is_alive():
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(function, *arguments)

    def stop(self) -> None:
        """Have everything cancelled, and do not wait for it. Again is nothing."""
        self._stopping = True
        self.soon(self._scope.cancel)

    def join(self, seconds_max: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(seconds_max)

    def close(self) -> None:
        """Stop and wait.

        Raises:
            WaitsForItselfError: this is its own thread.
            BaseException: what made it fail, unless somebody has been told.
        """
        if threading.current_thread() is self._thread:
            raise WaitsForItselfError("a client's own thread cannot close that client")
        self.stop()
        self.join()
        if self._failure is not None and not self._failure_told:
            self._failure_told = True
            raise self._failure

    def _closed(self) -> ClosedError:
        if self._failure is None:
            return ClosedError("this client is closed")
        self._failure_told = True
        error = ClosedError("this client has failed, and is closed")
        error.__cause__ = self._failure
        return error

    # --- in its own thread --------------------------------------------------------------------

    def _run(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Client]],
        connected: Future[Client],
    ) -> None:
        _running.add(self)
        try:
            trio.run(self._serve, connect, connected)
        except BaseException as error:
            if connected.done():
                self._failure = error
            else:
                connected.set_exception(error)
        finally:
            _running.discard(self)
            self._over = True
            for call in self._calls.copy():
                if not call.future.done():
                    call.future.set_exception(self._closed())
            if not connected.done():
                connected.set_exception(self._closed())

    async def _serve(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Client]],
        connected: Future[Client],
    ) -> None:
        self._token = trio.lowlevel.current_trio_token()
        if self._stopping:
            return
        with self._scope:
            async with connect() as client, trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    connected.set_result(client)
                    await trio.sleep_forever()
                finally:
                    self._nursery = None  # before it closes: a closed one takes no task

    def _accept(self, call: _Call[Any]) -> None:
        if self._nursery is not None:
            call.begun = True
            self._nursery.start_soon(self._perform, call)

    async def _perform(self, call: _Call[Any]) -> None:
        """Do a call. If all is cancelled it has no outcome here: ``_run`` knows why."""
        try:
            with call.scope:
                call.future.set_result(await call.work(self.client))
            if not call.future.done():
                call.future.cancel()
        except Exception as error:
            call.future.set_exception(error)
        finally:
            if call.future.done():
                self._calls.discard(call)

    def _cancel(self, call: _Call[Any]) -> None:
        call.scope.cancel()
        if not call.begun and call in self._calls:
            self._calls.discard(call)
            call.future.cancel()


_running: Final[set[_Loop]] = set()


@atexit.register
def _stop_all() -> None:
    for loop in _running.copy():
        loop.stop()
    for loop in _running.copy():
        loop.join(EXIT_SECONDS_MAX)


def _blocking(
    method: Callable[Concatenate[Client, P], Awaitable[T]],
) -> Callable[Concatenate[BlockingClient, P], T]:
    """Return the method that waits for ``method``: its arguments, result, errors and words."""

    @wraps(method)
    def wait(self: BlockingClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(lambda client: method(client, *args, **kwargs))

    wait.__module__ = __name__
    wait.__qualname__ = f"BlockingClient.{method.__name__}"
    return wait


class BlockingClient(BlockingFeeds):
    """A client of one network whose methods wait. Make one with ``connect``, and close it.

    Every method has the arguments, the result and the errors of its namesake in ``Client``. Beyond
    them each raises ClosedError once the client is closed.
    """

    def __init__(self, loop: _Loop) -> None:
        self._loop = loop

    @classmethod
    def connect(
        cls,
        genesis: bytes,
        *,
        servers: Sequence[str | Server] | None = None,
        key: Key | None = None,
        patience_seconds: float = 30.0,
        spread: bool = False,
        purpose: str = "",
        dial: Dial = dial_tls,
    ) -> BlockingClient:
        """Open a client, to be closed by ``with`` or ``close``.

        Connections are made when they are needed.

        Args:
            genesis: bytes of the genesis file, which the caller trusts.
            servers: agencies whose nodes to use, in order of preference, each ``name`` or
                ``name=host:port`` where it is not reached at its usual address; observers as
                ``court.crt=host:port`` or ``servers.observer``; None: the whole committee. For an
                agency that the genesis file does not name the committees are followed first.
            key: proved on every connection and signs transactions; None stays anonymous.
            patience_seconds: until an operation gives up.
            spread: use the servers in turn.
            purpose: what the reads are for; nodes record it where rules want reads recorded.
            dial: opens a stream to a server, for tests and tunnels; runs in the client's thread.

        Raises:
            DecodeError: the genesis file is malformed.
            DraftError: a server is not of the committee and no observer, or the purpose is too
                long.
            NotReachableError: a server is not of the first committee, and no node answered that
                could tell of later ones.
        """
        return cls(
            _Loop(
                lambda: Client.connect(
                    genesis,
                    servers=servers,
                    key=key,
                    patience_seconds=patience_seconds,
                    spread=spread,
                    purpose=purpose,
                    dial=dial,
                )
            )
        )

    def close(self) -> None:
        """Close the client and wait until its thread has ended. Closing again does nothing.

        Calls of other threads end with ClosedError, subscriptions end.

        Raises:
            WaitsForItselfError: called in the client's own thread, as from ``dial``.
        """
        self._loop.close()

    def __enter__(self) -> BlockingClient:
        self._loop.check()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        loop: _Loop | None = vars(self).get("_loop")  # none if it was not made by connect
        if loop is not None and loop.open:
            loop.stop()  # without waiting: this may be any thread, holding anything
            warnings.warn(f"{self!r} was not closed", ResourceWarning, stacklevel=2, source=self)

    def __repr__(self) -> str:
        state = "open" if self._loop.open else "closed"
        return f"<BlockingClient of {self.genesis.network!r}, {state}>"

    @property
    def genesis(self) -> Genesis:
        """The network's founding."""
        return self._loop.client.genesis

    @property
    def chain(self) -> bytes:
        """What every signature names."""
        return self._loop.client.chain

    @property
    def trust(self) -> Trust:
        """What has been seen certified; to be looked at only."""
        return self._loop.client.trust

    @property
    def key(self) -> Key | None:
        """What it signs with."""
        return self._loop.client.key

    # --- reading ------------------------------------------------------------------------------

    get = _blocking(Client.get)
    get_many = _blocking(Client.get_many)
    holds = _blocking(Client.holds)
    moment = _blocking(Client.moment)
    get_at = _blocking(Client.get_at)
    history = _blocking(Client.history)
    decision = _blocking(Client.decision)
    decisions = _blocking(Client.decisions)
    statements = _blocking(Client.statements)
    list_records = _blocking(Client.list_records)
    list_all = _blocking(Client.list_all)
    get_listed = _blocking(Client.get_listed)
    reviews = _blocking(Client.reviews)
    review = _blocking(Client.review)
    authority = _blocking(Client.authority)
    access = _blocking(Client.access)
    key_of = _blocking(Client.key_of)
    requirements = _blocking(Client.requirements)
    simulate = _blocking(Client.simulate)
    reads_of = _blocking(Client.reads_of)
    rules = _blocking(Client.rules)
    rule_set = _blocking(Client.rule_set)
    rule_history = _blocking(Client.rule_history)
    propose_rules = _blocking(Client.propose_rules)
    activate_rules = _blocking(Client.activate_rules)
    object_rules = _blocking(Client.object_rules)
    withdraw_rules = _blocking(Client.withdraw_rules)
    status = _blocking(Client.status)
    committee = _blocking(Client.committee)
    members = _blocking(Client.members)
    committee_change = _blocking(Client.committee_change)
    proposed_changes = _blocking(Client.proposed_changes)
    check_changes = _blocking(Client.check_changes)
    simulate_changes = _blocking(Client.simulate_changes)
    propose_changes = _blocking(Client.propose_changes)
    propose_member = _blocking(Client.propose_member)
    propose_leave = _blocking(Client.propose_leave)
    propose_agency = _blocking(Client.propose_agency)
    object_committee = _blocking(Client.object_committee)
    now_ms = _blocking(Client.now_ms)
    proposal = _blocking(Client.proposal)
    proposals = _blocking(Client.proposals)
    pending = _blocking(Client.pending)
    effect = _blocking(Client.effect)
    past = _blocking(Client.past)
    blocks = _blocking(Client.blocks)
    reversal = _blocking(Client.reversal)
    reverse = _blocking(Client.reverse)
    submit_reversal = _blocking(Client.submit_reversal)
    propose_reversal = _blocking(Client.propose_reversal)
    disclose = _blocking(Client.disclose)
    disclosed = _blocking(Client.disclosed)
    disclosures_of = _blocking(Client.disclosures_of)
    disclosures_about = _blocking(Client.disclosures_about)
    my_disclosures = _blocking(Client.my_disclosures)
    settled = _blocking(Client.settled)
    bundle = _blocking(Client.bundle)
    receipt = _blocking(Client.receipt)

    def _follow(
        self, subscribe: Callable[[Client], AbstractAsyncContextManager[AsyncIterator[T]]]
    ) -> Generator[T, None, None]:
        self._loop.check()
        return self._followed(subscribe)

    def _followed(
        self, subscribe: Callable[[Client], AbstractAsyncContextManager[AsyncIterator[T]]]
    ) -> Generator[T, None, None]:
        ready: SimpleQueue[T | None] = SimpleQueue()
        room = trio.Semaphore(HEIGHTS_WAITING_MAX)

        async def work(client: Client) -> None:
            async with subscribe(client) as feed:
                async for item in feed:
                    await room.acquire()
                    ready.put(item)

        call = _Call(work)
        call.future.add_done_callback(lambda _: ready.put(None))
        try:
            self._loop.begin(call)
            while (item := _item(ready)) is not None:
                yield item
                self._loop.soon(room.release)
            _outcome(call.future)
        except ClosedError:
            if self._loop.failed:
                raise
        finally:
            self._loop.abandon(call)  # without waiting, as it may be collected in any thread

    # --- drafting -----------------------------------------------------------------------------

    read_for = _blocking(Client.read_for)
    draft = _blocking(Client.draft)
    redraft = _blocking(Client.redraft)

    def sign(self, unsigned: Unsigned, signatures: Sequence[bytes] = ()) -> Signed:
        """Return a draft signed by this client's key, and by ``signatures`` of its cosigners."""
        return self._loop.client.sign(unsigned, signatures)

    def circulate(self, unsigned: Unsigned) -> Circular:
        """Return a draft signed by this client's key, to go round for other signatures."""
        return self._loop.client.circulate(unsigned)

    def read_circular(self, data: bytes) -> Circular:
        """Return the circular in bytes of somebody else; ``sign`` it, or submit its ``envelope``.

        Raises:
            DecodeError: it is none, or of another network.
            SignatureError: a signature that is there is wrong.
        """
        return self._loop.client.read_circular(data)

    # --- submitting ---------------------------------------------------------------------------

    transact = _blocking(Client.transact)
    unseal = _blocking(Client.unseal)
    erase = _blocking(Client.erase)
    submit = _blocking(Client.submit)
    submit_group = _blocking(Client.submit_group)
    propose = _blocking(Client.propose)
    approve = _blocking(Client.approve)
    object_to = _blocking(Client.object_to)
    withdraw = _blocking(Client.withdraw)

    def deliver(
        self,
        parcels: Sequence[Parcel],
        told: Callable[[int, int, Outcome], None] | None = None,
    ) -> list[list[Outcome]]:
        """Submit many items at once; return each transaction's outcome, in their order.

        This is the way for programs that submit much: one request carries any number of
        transactions, and ``told`` hears of each outcome (parcel, position, outcome) as it comes. It
        is called in the thread that waits here, and may use the client; what it raises ends this.

        Raises:
            UndecidedError: some were not decided in time; ``told`` has heard of the others.
            ForkError: the network contradicts itself.
        """
        if told is None:
            return self._loop.run(lambda client: client.deliver(parcels))
        heard: SimpleQueue[tuple[int, int, Outcome] | None] = SimpleQueue()  # one a transaction

        def hear(parcel: int, position: int, outcome: Outcome) -> None:
            heard.put((parcel, position, outcome))

        call = _Call(lambda client: client.deliver(parcels, hear))
        call.future.add_done_callback(lambda _: heard.put(None))
        with self._loop.under_way(call):
            while (row := _item(heard)) is not None:
                told(*row)
            return _outcome(call.future)
