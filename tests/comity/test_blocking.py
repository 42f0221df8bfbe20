"""The blocking client: the client's methods, for threads that wait."""

from __future__ import annotations

import _thread
import asyncio
import gc
import inspect
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from comity import (
    BlockingClient,
    Call,
    Client,
    ClosedError,
    Decision,
    DraftError,
    KeyUnusableError,
    Listing,
    NotReachableError,
    RequestError,
)
from comity import blocking as module
from comity.acting import Acts
from comity.errors import WaitsForItselfError
from comity.session import Parcel, Server, Session
from consensus.errors import DecodeError
from consensus.protocol import Item, StateKey
from tests.comity.twin import AGENCIES, CITIZEN, OFFICIAL, Harness, Twin

PAY = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})
WAIT_SECONDS_MAX = 30


class SystemNursery:
    """Has tasks run beside the client in whichever loop asks for it."""

    def start_soon(self, function: Any, *arguments: Any) -> None:
        trio.lowlevel.spawn_system_task(function, *arguments)


@dataclass
class Network:
    """A twin that lives in the thread of the one client that dials it."""

    twin: Twin = field(default_factory=Twin)
    dialling: Callable[[], Any] | None = None
    """Awaited before each connection."""

    def __post_init__(self) -> None:
        nursery: Any = SystemNursery()
        servers = {name: self.twin.server(i) for i, name in enumerate(AGENCIES)}
        self.harness = Harness(self.twin, nursery, servers)

    async def dial(self, server: Server) -> trio.abc.Stream:
        if not self.harness.dialled:
            trio.lowlevel.spawn_system_task(self.twin.run)
        if self.dialling is not None:
            await self.dialling()
        return await self.harness.dial(server)

    def client(self, **options: Any) -> BlockingClient:
        usual: dict[str, Any] = {"servers": ["north"], "key": OFFICIAL, "patience_seconds": 1000.0}
        options = usual | options
        return BlockingClient.connect(self.twin.genesis.encode(), dial=self.dial, **options)

    @property
    def connections(self) -> int:
        return sum(len(server._connections) for server in self.harness.servers.values())


@pytest.fixture
def network() -> Network:
    return Network()


@pytest.fixture
def client(network: Network) -> Iterator[BlockingClient]:
    with network.client() as client:
        yield client


@pytest.fixture(autouse=True)
def no_thread_stays() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name == "comity client"]


def interrupt() -> None:
    """Do what Ctrl-C does."""
    ident = threading.main_thread().ident
    assert ident is not None
    signal.pthread_kill(ident, signal.SIGINT)


def until_idle(client: BlockingClient) -> None:
    """Wait until whatever is to be called in the client's loop has been, and its tasks ran."""
    client._loop.run(lambda _: trio.testing.wait_all_tasks_blocked())


# --- the same as the client -------------------------------------------------------------------

OTHER_RETURNS = {
    "connect": ("AsyncIterator[Client]", "BlockingClient"),
    "subscribe": ("AsyncGenerator[Height, None]", "Generator[Height, None, None]"),
    "follow": ("AsyncGenerator[Decision, None]", "Generator[Decision, None, None]"),
    "changes": ("AsyncGenerator[ChangedHeight, None]", "Generator[ChangedHeight, None, None]"),
}
OTHER_WORDS = {"connect", "subscribe", "follow", "changes", "deliver"}
"""Methods that say more, or something else, than their namesakes."""


def differences(original: type, twin: type) -> list[str]:
    """What a class lacks of another's public methods, or has otherwise."""
    found = []
    for name, value in inspect.getmembers_static(original):
        if name.startswith("_"):
            continue
        ours = inspect.getattr_static(twin, name, None)
        if ours is None:
            found.append(f"{name}: missing")
            continue
        theirs = inspect.signature(getattr(original, name))
        its = inspect.signature(getattr(twin, name))
        expected = OTHER_RETURNS.get(name, (theirs.return_annotation,) * 2)
        if list(theirs.parameters.values()) != list(its.parameters.values()):
            found.append(f"{name}: parameters")
        if (theirs.return_annotation, its.return_annotation) != expected:
            found.append(f"{name}: returns")
        if isinstance(value, classmethod) is not isinstance(ours, classmethod):
            found.append(f"{name}: kind")
        if not inspect.getdoc(getattr(twin, name)):
            found.append(f"{name}: no words")
        elif name not in OTHER_WORDS and inspect.getdoc(getattr(original, name)) != inspect.getdoc(
            getattr(twin, name)
        ):
            found.append(f"{name}: words")
        if name != "connect" and inspect.iscoroutinefunction(getattr(twin, name)):
            found.append(f"{name}: does not wait")
    return found


def test_every_public_method_of_the_client_has_its_twin() -> None:
    assert differences(Client, BlockingClient) == []


def test_a_method_that_is_missing_or_differs_would_be_noticed() -> None:
    class Grown(Client):
        async def brand_new(self) -> int:
            """New."""
            return 1

        async def holds(self, namespace: str, *parts: Any) -> Any:
            """Return every unreleased hold on a target; none can be left out."""

        async def now_ms(self) -> float:  # type: ignore[override]
            """Return the newest certified chain time, asking once if none is known."""
            return 0.0

        async def status(self) -> Any:
            """Say something else."""

    assert differences(Grown, BlockingClient) == [
        "brand_new: missing",
        "holds: parameters",
        "holds: returns",
        "now_ms: returns",
        "status: returns",
        "status: words",
    ]


def test_documents_of_methods_that_differ_name_the_same_arguments_and_errors() -> None:
    for name in OTHER_WORDS:
        theirs = inspect.getdoc(getattr(Client, name)) or ""
        ours = inspect.getdoc(getattr(BlockingClient, name)) or ""
        assert theirs.partition("Raises:")[2] == ours.partition("Raises:")[2]
        for parameter in inspect.signature(getattr(Client, name)).parameters:
            assert (f"{parameter}:" in theirs) <= (f"{parameter}:" in ours)


def test_every_public_attribute_of_a_client_is_there(client: BlockingClient) -> None:
    real = client._loop.client
    public = [name for name in vars(real) if not name.startswith("_")]
    assert {"genesis", "chain", "trust", "key"} <= set(public)
    for name in public:
        assert getattr(client, name) is getattr(real, name)
        assert isinstance(inspect.getattr_static(BlockingClient, name), property)


def test_methods_are_plain_named_functions() -> None:
    assert BlockingClient.get.__qualname__ == "BlockingClient.get"
    assert BlockingClient.get.__module__ == "comity.blocking"
    assert str(inspect.signature(BlockingClient.get)).startswith("(self, namespace: 'str', *comp")


# --- results ----------------------------------------------------------------------------------


def test_transaction_is_applied_and_its_record_read_back(client: BlockingClient) -> None:
    call = Call("notes", "write", {"number": 1, "text": "first", "amount": 42})
    reads = client.read_for(call)
    assert [entry.present for entry in reads] == [False]
    done = client.transact(call, reads=reads)
    assert (done.state, done.code) == ("applied", "APPLIED")
    note = client.get("record", "note", 1)
    assert (note.fields["text"], note.fields["amount"]) == ("first", 42)
    assert client.transact(call, reads=reads).code == "STALE"
    assert client.decision(done.txid) == done


def test_draft_sign_and_submit_are_steps_of_their_own(client: BlockingClient) -> None:
    signed = client.sign(client.draft(PAY, reason="because"))
    first = client.submit(signed)
    assert first.applied
    assert client.submit(signed.envelope) == first


def test_group_gives_one_decision_each(client: BlockingClient) -> None:
    done = client.submit_group([client.draft(PAY), client.draft(PAY)])
    assert [each.code for each in done] == ["APPLIED", "APPLIED"]


def test_all_that_reads_returns_what_the_ledger_holds(
    client: BlockingClient, network: Network
) -> None:
    done = client.transact(PAY)
    twin = network.twin
    here, there = client.get_many(
        [StateKey("account", ("pot", "a")), StateKey("account", ("pot", "b"))]
    )
    assert (here.value[1], there.value[1]) == (999_999, 1)
    assert client.holds("account", "pot", "a").holds == ()
    (height,) = client.decisions(-1)
    assert height.height == twin.height == done.height
    assert height.decisions == (done,)
    assert [each.height for each in client.statements(1, 2)] == [1, 2]
    assert client.list_records("note").ids == ()
    assert client.rules() is client.rules()
    assert client.rules(refresh=True).height == twin.height
    assert client.status()["height"] == twin.height
    assert client.committee() == twin.genesis.committee
    assert client.now_ms() == twin.now_ms
    assert client.trust.height == twin.height
    assert client.chain == twin.chain


# --- errors -----------------------------------------------------------------------------------


def test_connecting_raises_as_the_client_does(network: Network) -> None:
    with pytest.raises(DecodeError):
        BlockingClient.connect(b"no genesis")
    with pytest.raises(DraftError, match="no agency 'nowhere'"):
        network.client(servers=["nowhere"])


def test_errors_of_the_client_arrive_as_they_are(client: BlockingClient) -> None:
    with pytest.raises(RequestError) as caught:
        client.decision(bytes(32))
    assert caught.value.reason == "NOT_FOUND"
    with pytest.raises(DraftError, match="pays"):
        client.draft(Call("notes", "pays", {}))
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        client.get("account", nonsense=1)  # type: ignore[call-arg]
    assert client.transact(PAY).applied


def test_anonymous_client_cannot_sign(network: Network) -> None:
    with network.client(key=None) as client, pytest.raises(KeyUnusableError):
        client.draft(PAY)


def test_patience_bounds_a_call(network: Network) -> None:
    network.harness.down.add("north")
    with (
        network.client(patience_seconds=0.02) as client,
        pytest.raises(NotReachableError, match="nothing listens at north"),
    ):
        client.status()


# --- deliver ----------------------------------------------------------------------------------


def parcels_of(client: BlockingClient, count: int) -> list[Parcel]:
    signed = [client.sign(client.draft(PAY)) for _ in range(count)]
    return [Parcel(Item.ENVELOPE, each.envelope, (each.txid,)) for each in signed]


def test_delivery_tells_each_outcome_in_the_calling_thread(client: BlockingClient) -> None:
    parcels = parcels_of(client, 20)
    heard: list[tuple[int, int, Any]] = []
    threads = set()

    def told(parcel: int, position: int, outcome: Any) -> None:
        threads.add(threading.current_thread())
        heard.append((parcel, position, outcome))
        assert client.decision(outcome.txid) == outcome  # the client may be used meanwhile

    rows = client.deliver(parcels, told)
    assert sorted(heard, key=lambda each: each[0]) == [(i, 0, row[0]) for i, row in enumerate(rows)]
    assert all(isinstance(row[0], Decision) and row[0].applied for row in rows)
    assert threads == {threading.current_thread()}
    assert [row[0].txid for row in client.deliver(parcels)] == [p.txids[0] for p in parcels]


def test_delivery_whose_listener_fails_ends_and_leaves_the_client_usable(
    client: BlockingClient, network: Network
) -> None:
    def told(parcel: int, position: int, outcome: Any) -> None:
        network.twin.paused = True
        raise ZeroDivisionError

    first, second = parcels_of(client, 2)
    never = Parcel(Item.ENVELOPE, client.sign(client.draft(PAY)).envelope, (bytes(32),))
    with pytest.raises(ZeroDivisionError):
        client.deliver([first, second, never], told)
    assert not client._loop._calls
    network.twin.paused = False
    assert client.transact(PAY).applied


# --- subscriptions ----------------------------------------------------------------------------


def test_subscription_yields_heights_in_order_with_their_decisions(
    client: BlockingClient,
) -> None:
    done = [client.transact(PAY) for _ in range(3)]
    seen = []
    for height in client.subscribe(1, decisions=True):
        seen.append((height.height, height.decisions))
        if height.height == done[-1].height:
            break
    assert [each[0] for each in seen] == list(range(1, done[-1].height + 1))
    assert [decision for _, row in seen for decision in row or ()] == done


def test_subscription_waits_for_heights_to_come(client: BlockingClient) -> None:
    with closing(client.subscribe(1)) as feed:
        first = client.transact(PAY)
        for height in feed:
            if height.height < first.height:
                continue
            if height.height > first.height:
                break
            second = client.transact(PAY)
    assert height.height == second.height == first.height + 1


def test_subscription_left_early_gives_its_connection_back(
    client: BlockingClient, network: Network
) -> None:
    client.status()
    until_idle(client)
    assert network.connections == 1
    client.transact(PAY)
    for _ in client.subscribe(1):
        assert network.connections == 2
        break
    until_idle(client)
    assert network.connections == 1
    assert not client._loop._calls


def test_subscription_that_nobody_began_leaves_nothing(
    client: BlockingClient, network: Network
) -> None:
    feed = client.subscribe(1)
    del feed
    until_idle(client)
    assert network.connections == 0


def test_subscription_takes_no_more_than_its_reader_asks_for(
    client: BlockingClient, network: Network
) -> None:
    for _ in range(6):
        client.transact(PAY)
    with closing(client.subscribe(1)) as feed:
        assert next(feed).height == 1
        until_idle(client)
        assert client.trust.height >= 6  # they are there
        frame = inspect.getgeneratorlocals(feed)
        assert frame["ready"].qsize() == 0
        assert next(feed).height == 2


def test_refused_subscription_raises(network: Network) -> None:
    with network.client(key=CITIZEN) as client, pytest.raises(RequestError) as caught:
        next(client.subscribe(1, decisions=True))
    assert caught.value.reason == "DENIED"


def test_subscription_ends_when_the_client_is_closed(client: BlockingClient) -> None:
    done = client.transact(PAY)
    seen = []
    for height in client.subscribe(1):
        seen.append(height.height)
        if height.height == done.height:
            threading.Thread(target=client.close).start()  # while the next one is waited for
    assert seen == list(range(1, done.height + 1))
    with pytest.raises(ClosedError):
        client.subscribe(1)


def test_subscription_begun_after_closing_ends_at_once(client: BlockingClient) -> None:
    feed = client.subscribe(1)
    client.close()
    assert list(feed) == []


# --- Ctrl-C -----------------------------------------------------------------------------------


@pytest.fixture
def interrupted_when_pooled(network: Network, monkeypatch: pytest.MonkeyPatch) -> Network:
    """The twin decides nothing, and somebody presses Ctrl-C when it has its first transaction."""
    admit = network.twin._admit

    def admitted(submission: Any) -> Any:
        if not network.twin.pool:
            interrupt()
        return admit(submission)

    network.twin.paused = True
    monkeypatch.setattr(network.twin, "_admit", admitted)
    return network


def test_ctrl_c_cancels_the_call_and_leaves_the_client_usable(
    interrupted_when_pooled: Network, client: BlockingClient
) -> None:
    signed = client.sign(client.draft(PAY))
    with pytest.raises(KeyboardInterrupt):
        client.submit(signed)
    assert not client._loop._calls
    assert client.status()["height"] == interrupted_when_pooled.twin.height
    interrupted_when_pooled.twin.paused = False
    client._loop.soon(interrupted_when_pooled.twin.bell.set)
    for height in client.subscribe(1, decisions=True):  # what was sent takes effect all the same
        if [each.txid for each in height.decisions or ()] == [signed.txid]:
            break
    assert client.decision(signed.txid).applied


def test_ctrl_c_ends_a_delivery_with_a_listener(
    interrupted_when_pooled: Network, client: BlockingClient
) -> None:
    parcels = parcels_of(client, 2)
    with pytest.raises(KeyboardInterrupt):
        client.deliver(parcels, lambda *_: None)
    assert not client._loop._calls


def test_ctrl_c_ends_a_subscription_and_another_goes_on(
    client: BlockingClient, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = client.transact(PAY)
    real = trio.lowlevel.spawn_system_task
    seen = []

    def follow() -> None:
        for height in client.subscribe(done.height):
            seen.append(height.height)
            client._loop.soon(real, interrupt_when_idle)

    async def interrupt_when_idle() -> None:
        await trio.testing.wait_all_tasks_blocked()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        follow()
    assert seen == [done.height]
    until_idle(client)
    assert network.connections == 1
    second = client.transact(PAY)
    assert next(client.subscribe(done.height + 1)).height == second.height


def test_second_ctrl_c_waits_for_nothing(network: Network) -> None:
    freed = trio.Event()

    async def stubborn() -> None:
        interrupt()
        try:
            await trio.sleep_forever()
        finally:
            interrupt()
            with trio.CancelScope(shield=True):
                await freed.wait()

    network.dialling = stubborn
    with network.client() as client:
        with pytest.raises(KeyboardInterrupt):
            client.status()
        assert client._loop._calls
        client._loop.soon(freed.set)


def test_ctrl_c_before_a_call_has_begun_leaves_nothing_behind(
    client: BlockingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = client._loop
    real = module._Loop.soon

    def soon(self: Any, function: Any, *arguments: Any) -> None:
        if function == loop._accept:
            raise KeyboardInterrupt
        real(self, function, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(module._Loop, "soon", soon)
        with pytest.raises(KeyboardInterrupt):
            client.status()
    assert not loop._calls
    assert client.status()["ready"] is True


def test_ctrl_c_that_came_just_before_a_wait_is_seen_soon_after(network: Network) -> None:
    """``interrupt_main`` notes the signal like a handler that ran too early: no wait ends by it."""

    async def dialling() -> None:
        _thread.interrupt_main()
        await trio.sleep_forever()

    network.dialling = dialling
    with network.client() as client, pytest.raises(KeyboardInterrupt):
        client.status()


def test_ctrl_c_while_connecting_ends_the_thread() -> None:
    ended = threading.Event()

    @asynccontextmanager
    async def connect() -> AsyncIterator[Client]:
        interrupt()
        try:
            await trio.sleep_forever()
            yield
        finally:
            ended.set()

    with pytest.raises(KeyboardInterrupt):
        module._Loop(connect)
    assert ended.wait(WAIT_SECONDS_MAX)
    for thread in threading.enumerate():
        if thread.name == "comity client":
            thread.join(WAIT_SECONDS_MAX)


def test_ctrl_c_before_the_loop_runs_ends_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = threading.Event()
    threads: list[threading.Thread] = []
    start, run, stop = threading.Thread.start, trio.run, module._Loop.stop

    def started(thread: threading.Thread) -> None:
        threads.append(thread)
        start(thread)
        raise KeyboardInterrupt

    def run_late(*arguments: Any) -> None:
        assert stopped.wait(WAIT_SECONDS_MAX)
        run(*arguments)

    def stop_and_tell(loop: module._Loop) -> None:
        stop(loop)
        stopped.set()

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", started)
        patch.setattr(trio, "run", run_late)
        patch.setattr(module._Loop, "stop", stop_and_tell)
        with pytest.raises(KeyboardInterrupt):
            Network().client()
        (thread,) = threads
        thread.join(WAIT_SECONDS_MAX)
    assert not thread.is_alive()


# --- threads and loops ------------------------------------------------------------------------


def test_calls_of_many_threads_run_at_once(client: BlockingClient, network: Network) -> None:
    network.twin.paused = True
    threads = 8

    def pay(_: int) -> bool:
        return client.transact(PAY).applied

    with ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(pay, number) for number in range(threads)]
        for height in client.subscribe(0):
            if not height.height:
                while len(network.twin.pool) < threads:
                    client.status()
                network.twin.paused = False
                client._loop.soon(network.twin.bell.set)
            if client.get("account", "pot", "b").value[1] == threads:
                break
        assert all(each.result(WAIT_SECONDS_MAX) for each in waiting)


def test_callers_may_have_event_loops_of_their_own(client: BlockingClient) -> None:
    async def pay() -> bool:
        return client.transact(PAY).applied

    assert asyncio.run(pay())
    assert trio.run(pay)


def test_own_thread_is_told_instead_of_waiting_for_itself(network: Network) -> None:
    said: list[BaseException] = []

    async def dialling() -> None:
        for wrong in (own.status, own.close, lambda: own.subscribe(1)):
            try:
                wrong()
            except WaitsForItselfError as error:
                said.append(error)

    network.dialling = dialling
    own = network.client()
    with own:
        assert own.status()["ready"] is True
    assert len(said) == 3


# --- closing ----------------------------------------------------------------------------------

ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "get": ("account", "pot", "a"),
    "get_many": ([],),
    "holds": ("account", "pot", "a"),
    "decision": (bytes(32),),
    "decisions": (1,),
    "statements": (1,),
    "list_records": ("note",),
    "list_all": ("note",),
    "get_listed": (Listing("note", ((1,),), 0),),
    "authority": (bytes(32),),
    "access": (bytes(32), "account", "pot", "a"),
    "key_of": (bytes(32),),
    "simulate": (PAY,),
    "reads_of": ("account", "pot", "a"),
    "rules": (),
    "rule_set": ("notes", 1),
    "rule_history": ("notes",),
    "propose_rules": (b"",),
    "activate_rules": ("notes", 2, 0),
    "object_rules": ("notes", 2),
    "withdraw_rules": ("notes", 2),
    "status": (),
    "committee": (),
    "now_ms": (),
    "subscribe": (1,),
    "follow": (),
    "read_for": (PAY,),
    "draft": (PAY,),
    "transact": (PAY,),
    "submit": (b"",),
    "submit_group": ([],),
    "deliver": ([],),
    "__enter__": (),
}


def test_closed_client_says_so(client: BlockingClient) -> None:
    methods = {name for each in (Client, Acts) for name in vars(each) if name[0] != "_"}
    assert methods - set(ARGUMENTS) == {"circulate", "connect", "read_circular", "sign"}
    unsigned = client.draft(PAY)
    client.close()
    client.close()
    with pytest.raises(ClosedError):
        client.requirements(unsigned)
    for name, arguments in ARGUMENTS.items():
        with pytest.raises(ClosedError, match="this client is closed"):
            getattr(client, name)(*arguments)
    assert client.sign(unsigned).txid == unsigned.transaction.txid  # which asks nobody
    assert repr(client) == "<BlockingClient of 'twin', closed>"


def test_closing_ends_calls_of_other_threads(client: BlockingClient, network: Network) -> None:
    network.twin.paused = True
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.transact, PAY)
        while not network.twin.pool:
            client.status()
        client.close()
        with pytest.raises(ClosedError):
            waiting.result(WAIT_SECONDS_MAX)


def test_errors_of_the_block_pass_and_the_client_is_closed(network: Network) -> None:
    with pytest.raises(ZeroDivisionError), network.client() as client:
        raise ZeroDivisionError
    with pytest.raises(ClosedError):
        client.status()


def fail_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(self: Session) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Session, "run", run)


def zero_division(error: BaseException | None) -> bool:
    return isinstance(error, BaseExceptionGroup) and bool(error.subgroup(ZeroDivisionError))


def test_failure_of_the_loop_is_the_cause_of_what_callers_get(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_sessions(monkeypatch)
    with network.client() as client:
        for _ in range(2):
            with pytest.raises(ClosedError, match="has failed") as caught:
                client.status()
            assert zero_division(caught.value.__cause__)


def fail(loop: module._Loop) -> None:
    """Let something fail in a loop that belongs to no call."""

    async def divide() -> None:
        raise ZeroDivisionError

    def begin() -> None:
        assert loop._nursery is not None
        loop._nursery.start_soon(divide)

    loop.soon(begin)


def test_failure_ends_a_subscription_with_an_error(network: Network) -> None:
    with network.client() as client:
        client.transact(PAY)
        feed = client.subscribe(1)
        next(feed)
        fail(client._loop)
        with pytest.raises(ClosedError, match="has failed") as caught:
            list(feed)
        assert zero_division(caught.value.__cause__)


def test_call_that_comes_while_a_failed_loop_ends_is_told_why() -> None:
    leaving = threading.Event()
    left = trio.Event()

    @asynccontextmanager
    async def connect() -> AsyncIterator[Any]:
        try:
            yield None
        finally:
            with trio.CancelScope(shield=True):
                leaving.set()
                await left.wait()

    async def work(_: Client) -> None:
        raise AssertionError

    loop = module._Loop(connect)
    fail(loop)
    assert leaving.wait(WAIT_SECONDS_MAX)
    call = module._Call(work)
    loop.begin(call)
    loop.soon(left.set)
    with pytest.raises(ClosedError, match="has failed") as caught:
        call.future.result(WAIT_SECONDS_MAX)
    assert zero_division(caught.value.__cause__)
    loop.close()


def test_failure_that_no_call_has_told_is_raised_on_closing(network: Network) -> None:
    client = network.client()
    fail(client._loop)
    client._loop.join()
    with pytest.raises(BaseExceptionGroup) as caught:
        client.close()
    assert zero_division(caught.value)
    client.close()
    with pytest.raises(ClosedError):
        next(client.subscribe(1))


def test_client_that_is_forgotten_warns_and_ends(network: Network) -> None:
    client = network.client()
    client.status()
    thread = client._loop._thread
    gone = weakref.ref(client)
    holder = [client]
    del client
    with pytest.warns(ResourceWarning, match=r"<BlockingClient of 'twin', closed> was not closed"):
        holder.clear()
    assert gone() is None
    thread.join(WAIT_SECONDS_MAX)
    assert not thread.is_alive()


def test_iterator_keeps_its_client_alive(network: Network) -> None:
    client = network.client()
    client.transact(PAY)
    feed = client.subscribe(1)
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert next(feed).height == 1
    kept = gone()
    assert kept is not None
    feed.close()
    kept.close()


def test_object_that_was_not_made_by_connect_is_forgotten_in_silence() -> None:
    with pytest.raises(TypeError):
        BlockingClient()  # type: ignore[call-arg]
    gc.collect()


def run_script(text: str, *options: str) -> str:
    """What a program prints that begins with an open client of a twin."""
    done = subprocess.run(
        [sys.executable, *options, "-c", SCRIPT + text],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS_MAX,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


SCRIPT = """
from tests.comity.test_blocking import Network, PAY
client = Network().client()
client.transact(PAY)
"""


def test_clients_left_open_are_closed_when_the_interpreter_exits() -> None:
    said = run_script(
        """
import threading, trio

async def last():
    try:
        await trio.sleep_forever()
    finally:
        print("closed\\n", end="", flush=True)  # as one, for two threads say it

feed = client.subscribe(1)
print(next(feed).height, flush=True)
network = Network()
network.twin.paused = True
other = network.client()
threading.Thread(target=other.transact, args=(PAY,), daemon=True).start()
threading.excepthook = lambda _: None
while not network.twin.pool:
    other.status()
client._loop.soon(trio.lowlevel.spawn_system_task, last)
other._loop.soon(trio.lowlevel.spawn_system_task, last)
""",
        "-W",
        "error",
        "-X",
        "dev",
    )
    assert said.split() == ["1", "closed", "closed"]


def test_forked_process_is_told_that_the_client_stayed_behind() -> None:
    said = run_script(
        """
import os, warnings
warnings.simplefilter("ignore")
child = os.fork()
if not child:
    try:
        client.status()
    except Exception as error:
        print(type(error).__name__, flush=True)
    client.close()
    os._exit(0)
os.waitpid(child, 0)
print(client.status()["ready"])
client.close()
"""
    )
    assert said.split() == ["ClosedError", "True"]
