"""TCP relays between nodes, one for each pair, whose links can be cut, slowed and mended.

The dialer of a pair finds the relay's port in its configuration in place of the acceptor's. A relay
runs in a thread of its own, so that synchronous fixtures and every test can command it; a command
has taken effect when its call returns.

A direction that is cut takes nothing more from its sender and gives nothing to its receiver: bytes
wait, as they do in TCP when packets are lost, and neither side hears that the other has gone. New
connections are taken and stay silent. ``reset`` breaks what is open, as a firewall does.

Not here: which faults follow each other (the tests, ``soak``).
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import trio

CHUNK_BYTES = 64 * 1024
CHUNKS_AHEAD_MAX = 64
"""Chunks that wait for a slow link; more stay at their sender."""
COMMAND_SECONDS_MAX = 10.0
_LOST = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


@dataclass
class Way:
    """One direction of a link. ``bytes_per_second`` and ``delay_seconds`` are those of the line."""

    bytes_per_second: float = math.inf
    delay_seconds: float = 0.0
    carried_bytes: int = 0
    open: trio.Event = field(default_factory=trio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    @property
    def cut(self) -> bool:
        """Whether nothing goes through."""
        return not self.open.is_set()

    def shut(self) -> None:
        """Let nothing through."""
        if self.open.is_set():
            self.open = trio.Event()

    def mend(self) -> None:
        """Let everything through again, at once."""
        self.bytes_per_second, self.delay_seconds = math.inf, 0.0
        self.open.set()

    async def passable(self) -> None:
        """Return while the way is open."""
        while not self.open.is_set():
            await self.open.wait()


@dataclass
class Pair:
    """The relay of one pair: ``dialer`` connects to ``port`` and reaches ``target``."""

    dialer: str
    acceptor: str
    port: int
    target: int
    ways: dict[str, Way] = field(default_factory=dict)
    connections: dict[trio.CancelScope, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ways = {self.dialer: Way(), self.acceptor: Way()}  # by who sends

    async def serve(self, stream: trio.SocketStream) -> None:
        """Carry one connection until either side ends it, or ``reset`` does."""
        with trio.CancelScope() as scope:
            self.connections[scope] = None
            try:
                await self._carry(stream)
            except _LOST:
                pass
            finally:
                del self.connections[scope]
                await trio.aclose_forcefully(stream)

    async def _carry(self, near: trio.SocketStream) -> None:
        await self.ways[self.dialer].passable()  # a first packet that is lost opens nothing
        far = await trio.open_tcp_stream("127.0.0.1", self.target)
        try:
            async with trio.open_nursery() as nursery:
                scope = nursery.cancel_scope
                nursery.start_soon(_pump, near, far, self.ways[self.dialer], scope)
                nursery.start_soon(_pump, far, near, self.ways[self.acceptor], scope)
        finally:
            await trio.aclose_forcefully(far)


async def _pump(
    source: trio.SocketStream, target: trio.SocketStream, way: Way, scope: trio.CancelScope
) -> None:
    """Carry one direction; at its end, both end."""
    inlet, outlet = trio.open_memory_channel[tuple[float, bytes]](CHUNKS_AHEAD_MAX)

    async def take() -> None:
        with inlet, contextlib.suppress(*_LOST):
            while True:
                await way.passable()
                data = await source.receive_some(CHUNK_BYTES)
                if not data:
                    break
                await inlet.send((trio.current_time() + way.delay_seconds, bytes(data)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        with contextlib.suppress(*_LOST):
            async for due, data in outlet:
                await trio.sleep_until(due)
                await way.passable()
                await target.send_all(data)
                way.carried_bytes += len(data)
                if way.bytes_per_second < math.inf:
                    await trio.sleep(len(data) / way.bytes_per_second)
            await way.passable()
        scope.cancel()


class Relays:
    """All relays of a network; a context manager that runs them.

    Args:
        pairs: (dialer, acceptor) -> (port of the relay, port of the acceptor).
    """

    def __init__(self, pairs: Mapping[tuple[str, str], tuple[int, int]]) -> None:
        self._pairs = {
            frozenset(names): Pair(*names, port, target) for names, (port, target) in pairs.items()
        }
        self.names = tuple(dict.fromkeys(itertools.chain.from_iterable(pairs)))
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, name="relays", daemon=True)
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop = trio.Event()
        self._failure: BaseException | None = None

    # --- commands -----------------------------------------------------------------------------

    def cut(self, sender: str, receiver: str) -> None:
        """Lose everything that ``sender`` sends to ``receiver``; the other way stays as it is."""
        self._command(self._way(sender, receiver).shut)

    def separate(self, one: Iterable[str], other: Iterable[str]) -> None:
        """Lose everything between two groups, both ways."""
        for a, b in itertools.product(one, list(other)):
            self.cut(a, b)
            self.cut(b, a)

    def isolate(self, name: str) -> None:
        """Lose everything from and to one node."""
        self.separate([name], [each for each in self.names if each != name])

    def slow(
        self, sender: str, receiver: str, delay_seconds: float, bytes_per_second: float = math.inf
    ) -> None:
        """Make one way slow."""
        way = self._way(sender, receiver)

        def change() -> None:
            way.delay_seconds, way.bytes_per_second = delay_seconds, bytes_per_second

        self._command(change)

    def reset(self, one: str, other: str) -> None:
        """Break the connections of a pair; they may come again at once."""
        pair = self._pairs[frozenset((one, other))]

        def end() -> None:
            for scope in list(pair.connections):
                scope.cancel()

        self._command(end)

    def heal(self) -> None:
        """Mend every way. Who has given up a link must dial again."""

        def mend() -> None:
            for pair in self._pairs.values():
                for way in pair.ways.values():
                    way.mend()

        self._command(mend)

    def carried_bytes(self, sender: str, receiver: str) -> int:
        """How much ``receiver`` was given by ``sender``."""
        return self._way(sender, receiver).carried_bytes

    def _way(self, sender: str, receiver: str) -> Way:
        return self._pairs[frozenset((sender, receiver))].ways[sender]

    # --- running ------------------------------------------------------------------------------

    def _command(self, change: Callable[[], object]) -> None:
        done = threading.Event()
        assert self._token is not None, "the relays do not run"

        def carry_out() -> None:
            change()
            done.set()

        self._token.run_sync_soon(carry_out)
        assert done.wait(COMMAND_SECONDS_MAX), "the relays do not obey"

    def _main(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:  # told to whoever stops us
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        async with trio.open_nursery() as nursery:
            for pair in self._pairs.values():
                listeners = await trio.open_tcp_listeners(pair.port, host="127.0.0.1")
                nursery.start_soon(trio.serve_listeners, pair.serve, listeners)
            self._token = trio.lowlevel.current_trio_token()
            self._started.set()
            await self._stop.wait()
            nursery.cancel_scope.cancel()

    def __enter__(self) -> Relays:
        self._thread.start()
        assert self._started.wait(COMMAND_SECONDS_MAX), "the relays did not start"
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None and self._thread.is_alive():
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._stop.set)
        self._thread.join(COMMAND_SECONDS_MAX)
        if self._failure is not None:
            raise self._failure
