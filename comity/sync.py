"""The client for scripts that are not asynchronous: the same calls, one after the other.

    with SyncClient(genesis, key=key) as client:
        print(client.get("account", "program"))

A background thread runs trio; every call blocks until its result is there. For many transactions at
once use ``Client.deliver``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import trio

from comity.client import Client, RulesInForce, Signed
from comity.drafting import Call
from comity.results import Decision, Entry, Height, Holds
from consensus.codec import Value
from consensus.committee import Committee
from consensus.errors import invariant
from consensus.reads import Page

T = TypeVar("T")
P = ParamSpec("P")


class SyncClient:
    """A blocking client of one network; use it as a context manager.

    Args:
        genesis: bytes of the genesis file.
        options: as of ``Client.connect``.
    """

    def __init__(self, genesis: bytes, **options: Any) -> None:
        self._genesis = genesis
        self._options = options
        self._client: Client | None = None
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._started: queue.Queue[BaseException | None] = queue.Queue(maxsize=1)
        self._thread = threading.Thread(target=self._run, name="comity", daemon=True)

    def __enter__(self) -> SyncClient:
        self._thread.start()
        error = self._started.get()
        if error is not None:
            raise error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._token is not None and self._stop is not None:
            trio.from_thread.run_sync(self._stop.set, trio_token=self._token)
            self._thread.join()

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as error:
            if self._client is None:
                self._started.put(error)
            else:
                raise

    async def _serve(self) -> None:
        stop = trio.Event()
        async with Client.connect(self._genesis, **self._options) as client:
            self._client, self._stop = client, stop
            self._token = trio.lowlevel.current_trio_token()
            self._started.put(None)
            await stop.wait()

    def _call(
        self,
        method: Callable[Concatenate[Client, P], Awaitable[T]],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> T:
        client, token = self._client, self._token
        invariant(client is not None, "use SyncClient in a with statement")

        async def run() -> T:
            return await method(client, *arguments, **options)  # type: ignore[arg-type]  # not None, see above

        return trio.from_thread.run(run, trio_token=token)

    def get(self, namespace: str, *components: Value) -> Entry:
        """As ``Client.get``."""
        return self._call(Client.get, namespace, *components)

    def holds(self, namespace: str, *components: Value) -> Holds:
        """As ``Client.holds``."""
        return self._call(Client.holds, namespace, *components)

    def decision(self, txid: bytes) -> Decision:
        """As ``Client.decision``."""
        return self._call(Client.decision, txid)

    def decisions(self, first: int, count: int = 1) -> tuple[Height, ...]:
        """As ``Client.decisions``."""
        return self._call(Client.decisions, first, count)

    def list_records(
        self, kind: str, *, after: tuple[Value, ...] | None = None, limit: int = 100
    ) -> Page:
        """As ``Client.list_records``."""
        return self._call(Client.list_records, kind, after=after, limit=limit)

    def rules(self, *, refresh: bool = False) -> RulesInForce:
        """As ``Client.rules``."""
        return self._call(Client.rules, refresh=refresh)

    def status(self) -> dict[str, Value]:
        """As ``Client.status``."""
        return self._call(Client.status)

    def committee(self) -> Committee:
        """As ``Client.committee``."""
        return self._call(Client.committee)

    def read_for(self, call: Call) -> tuple[Entry, ...]:
        """As ``Client.read_for``."""
        return self._call(Client.read_for, call)

    def transact(
        self,
        *calls: Call,
        reads: Sequence[Entry] = (),
        under: Sequence[bytes] = (),
        reason: str = "",
        not_after_ms: int | None = None,
    ) -> Decision:
        """As ``Client.transact``."""
        return self._call(
            Client.transact,
            *calls,
            reads=reads,
            under=under,
            reason=reason,
            not_after_ms=not_after_ms,
        )

    def submit(self, signed: Signed | bytes) -> Decision:
        """As ``Client.submit``."""
        return self._call(Client.submit, signed)
