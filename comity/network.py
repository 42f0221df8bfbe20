"""One network as a client reaches it: asks and delivers through whichever node answers well.

A node that cannot be reached, is silent, busy, behind or caught lying is avoided for a while and
the next one is asked. What is submitted is submitted again as the same bytes, which is safe: a
transaction is decided only once. A fork stops everything at once.

Not here: what answers mean (``client``), one connection (``session``), which node (``pool``).
"""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Final, TypeVar

import trio

from comity.errors import (
    ForkError,
    NotReachableError,
    RequestError,
    UndecidedError,
    UnknownNodeError,
)
from comity.pool import Pool
from comity.results import Outcome
from comity.session import Delivery, Feed, FeedItem, Parcel, Server, Session, Statements
from comity.words import word
from consensus.answers import NO_VOTE, Problem
from consensus.codec import Value
from consensus.errors import ComityError, RemoteProtocolError, VerificationError
from consensus.protocol import GetStatements, GetStatus, Request, Status, Stream, Subscribe

T = TypeVar("T")

ATTEMPT_SECONDS_MAX: Final = 15.0
"""How long one node may take for a read before another is asked."""
DECIDE_SECONDS_MAX: Final = 10.0
"""How long one node may take to decide before the same bytes go to another as well."""
SILENCE_SECONDS_MAX: Final = 10.0
"""How long nothing may come of a subscription before its node is asked whether it still answers."""
PAUSE_SECONDS: Final = 0.05
PAUSE_SECONDS_MAX: Final = 2.0

_FAILED: Final = (NotReachableError, RemoteProtocolError, VerificationError)
"""What makes a client turn to another node."""
_NOT_KEPT: Final = (Status.NOT_FOUND, Status.PRUNED)
"""What a node says that no longer has a height; another one may."""


class Network:
    """Asks and delivers. ``patience_seconds`` bounds every operation."""

    def __init__(self, pool: Pool, patience_seconds: float) -> None:
        self.patience_seconds = patience_seconds
        self._pool = pool

    async def ask(self, request: Request, read: Callable[[Value, Statements], T]) -> T:
        """Return what ``read`` makes of the first answer that verifies.

        Raises:
            RequestError: a node refused for a reason of the request's.
            NotReachableError: no node answered in time.
            OtherVersionError: no node speaks this release's version of the protocol.
            VerificationError, RemoteProtocolError: every node that could be reached gave an answer
                that fails.
        """
        deadline = trio.current_time() + self.patience_seconds
        pause = PAUSE_SECONDS
        while True:
            tried: dict[str, None] = {}
            lies: list[ComityError] = []
            wait = pause
            while (session := await self._next(tried, deadline)) is not None:
                tried[session.server.agency] = None
                try:
                    with trio.move_on_at(min(deadline, trio.current_time() + ATTEMPT_SECONDS_MAX)):
                        found = await session.ask(request, read)
                        self._pool.praised(session)
                        return found
                    self._pool.failed(session, _silent(session))
                except RequestError as error:
                    if not error.elsewhere:
                        raise
                    self._pool.failed(session, error)
                    wait = max(wait, error.problem.retry_after_ms / 1000)
                except ForkError:
                    raise
                except _FAILED as error:
                    self._pool.failed(session, error)
                    if not isinstance(error, NotReachableError):
                        lies.append(error)
            if lies and len(lies) == len(tried):
                raise lies[0]
            if (other := self._pool.other_version()) is not None:
                raise other
            if trio.current_time() + wait >= deadline:
                raise self._unreached(f"no node answered ({self._why() or 'no time was left'})")
            await trio.sleep(wait * _jitter())
            pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def agency(self) -> str:
        """Return the agency of the key that is proved, as a node says; empty for no such.

        Raises:
            NotReachableError: no node could be reached.
        """
        session = await self._next((), trio.current_time() + self.patience_seconds)
        if session is None:
            raise self._unreached(f"no node answered ({self._why() or 'no time was left'})")
        return session.welcome.agency or ""

    async def ask_at(
        self,
        server: Server,
        request: Request,
        read: Callable[[Value, Statements], T],
        seconds: float | None = None,
    ) -> T:
        """Return what ``read`` makes of the answer of one node, and of no other.

        Args:
            seconds: how long to try; None: as long as the client's patience lasts.

        Raises:
            RequestError: it refused.
            NotReachableError: it did not answer in time.
            VerificationError, RemoteProtocolError: its answer fails.
        """
        seconds = self.patience_seconds if seconds is None else seconds
        deadline = trio.current_time() + min(seconds, self.patience_seconds)
        pause = PAUSE_SECONDS
        while True:
            failure: ComityError = NotReachableError(f"{server.agency} did not answer in time")
            try:
                with trio.move_on_at(deadline):
                    session = await self._pool.at(server)
                    return await session.ask(request, read)
            except RequestError as error:
                if not error.elsewhere:
                    raise
                failure = error
                pause = max(pause, error.problem.retry_after_ms / 1000)
            except NotReachableError as error:
                failure = error
            if trio.current_time() + pause >= deadline:
                raise failure
            await self._sleep(pause, deadline)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def deliver(
        self,
        parcels: Sequence[Parcel],
        told: Callable[[int, int, Outcome], None] | None = None,
    ) -> list[list[Outcome]]:
        """Submit items; return each transaction's outcome, in the order of parcels.

        Raises:
            RequestError: none of the nodes has a vote; nothing was sent to one that has.
            OtherVersionError: none speaks this release's version of the protocol.
            UndecidedError: some were not decided in time; ``told`` has heard of the others.
            ForkError: the network contradicts itself.
        """
        delivery = Delivery(parcels, told)
        deadline = trio.current_time() + self.patience_seconds
        pause = PAUSE_SECONDS
        tried: dict[str, None] = {}
        sent = False
        while delivery.left:
            nobody = self._pool.without_vote()
            if nobody is not None and not sent:
                raise RequestError(Status.UNAVAILABLE, nobody)
            if trio.current_time() >= deadline:
                raise self._undecided(delivery)
            session = await self._next(tried, deadline, acts=True)
            if session is None or not session.alive:
                other = self._pool.other_version()
                if other is not None and not sent:
                    raise other
                tried.clear()
                await self._sleep(pause, deadline)
                pause = min(pause * 2, PAUSE_SECONDS_MAX)
                continue
            session.submit(delivery, delivery.open_parcels)
            with trio.move_on_at(min(trio.current_time() + DECIDE_SECONDS_MAX, deadline)) as scope:
                await delivery.settled()
            if not delivery.left:
                self._pool.praised(session)
            elif (problem := _no_vote(delivery)) is not None:
                self._pool.declined(session, problem)
                delivery.pause_ms, delivery.deferred = 0, None
                continue
            elif (refusal := _unavailable(delivery)) is not None:
                tried[session.server.agency] = None
                self._pool.failed(session, refusal)
                delivery.pause_ms, delivery.deferred = 0, None
            elif delivery.deferred is not None and not scope.cancelled_caught:
                wait = max(delivery.pause_ms / 1000, PAUSE_SECONDS)
                delivery.pause_ms, delivery.deferred = 0, None
                await self._sleep(wait, deadline)
            else:
                tried[session.server.agency] = None
                failure = session.failure or _silent(session)
                if isinstance(failure, ForkError):
                    raise failure
                self._pool.failed(session, failure)
            sent = True
        return [[outcome for outcome in row if outcome] for row in delivery.outcomes]

    async def follow(
        self, stream: Stream, from_height: int, read: Callable[[FeedItem], T]
    ) -> AsyncGenerator[T, None]:
        """Yield what ``read`` makes of heights from one on, each once and in order, for ever.

        Reconnects and resumes by itself, at another node where one ends, falls silent, stays behind
        or no longer keeps the height. ``read`` raises VerificationError or DecodeError to have
        the node replaced.

        Raises:
            RequestError: a node refused for a reason of the request's.
            NotReachableError: no node could be reached for as long as the patience lasts.
            ForkError: the network contradicts itself.
        """
        next_height = from_height
        pause = PAUSE_SECONDS
        deadline = trio.current_time() + self.patience_seconds
        without: dict[str, RequestError] = {}
        while True:
            session = await self._own_session(without, deadline)
            if session is not None:
                _, feed = session.subscribe(Subscribe(stream, next_height))
                failure: ComityError | None = None
                began = trio.current_time()
                try:
                    while (item := await self._item(session, feed, next_height)) is not None:
                        if item.statement.height != next_height:
                            failure = VerificationError("a height of a subscription is missing")
                            break
                        try:
                            found = read(item)
                        except (RemoteProtocolError, VerificationError) as error:
                            failure = error
                            break
                        yield found
                        next_height += 1
                        without.clear()
                        pause = PAUSE_SECONDS
                        began = trio.current_time()
                        deadline = began + self.patience_seconds
                finally:
                    session.close()
                deadline += trio.current_time() - began  # patience is for nodes that are not there
                failure = failure or session.failure or _silent(session)
                if isinstance(failure, ForkError):
                    raise failure
                if isinstance(failure, RequestError) and not failure.elsewhere:
                    if failure.status not in _NOT_KEPT or self._pool.size == len(without) + 1:
                        raise failure
                    without[session.server.agency] = failure
                    continue
                self._pool.failed(session, failure)
            if trio.current_time() >= deadline:
                if without:
                    raise next(iter(without.values()))
                raise self._unreached(f"no node can be followed ({self._why()})")
            await self._sleep(pause, deadline)
            pause = min(pause * 2, PAUSE_SECONDS_MAX)

    async def _item(self, session: Session, feed: Feed, next_height: int) -> FeedItem | None:
        """Return what comes next; None at the feed's end, or if the node is silent or behind."""
        asked = False
        while True:
            with trio.move_on_after(SILENCE_SECONDS_MAX):
                try:
                    return await feed.receive()
                except trio.EndOfChannel:
                    return None
            if asked or not await self._answers(session):
                return None
            await self._look_elsewhere(session)
            # if another node knows the next height, this one has as long again to bring it
            asked = session.trust.height >= next_height

    async def _answers(self, session: Session) -> bool:
        """Return whether a node from which nothing comes still answers."""
        with trio.move_on_after(SILENCE_SECONDS_MAX):
            try:
                await session.ask(GetStatus(), lambda result, statements: None)
            except RequestError:
                return True
            except _FAILED:
                return False
            return True
        return False

    async def _look_elsewhere(self, session: Session) -> None:
        """Learn the newest certified height that another node knows, if one can be reached."""
        deadline = trio.current_time() + SILENCE_SECONDS_MAX
        other = await self._next({session.server.agency: None}, deadline)
        if other is None:
            return
        with trio.move_on_at(deadline):
            try:
                await other.ask(GetStatements(-1, 1), lambda result, statements: None)
            except ForkError:
                raise
            except (RequestError, *_FAILED) as error:
                self._pool.failed(other, error)

    async def _own_session(self, without: Mapping[str, object], deadline: float) -> Session | None:
        """Return a connection for one subscription alone, to the best node not in ``without``."""
        shared = await self._next(without, deadline)
        if shared is None:
            return None
        try:
            return await self._pool.open(shared.server)
        except ForkError:
            raise
        except _FAILED as error:
            self._pool.failed(shared, error)
            return None

    async def _next(
        self, tried: Collection[str], deadline: float, *, acts: bool = False
    ) -> Session | None:
        with trio.move_on_at(deadline):
            try:
                return await self._pool.pick(tried, acts=acts)
            except NotReachableError:
                return None
        return None

    async def _sleep(self, seconds: float, deadline: float) -> None:
        left = max(0.0, deadline - trio.current_time())
        await trio.sleep(min(seconds * _jitter(), left))

    def _undecided(self, delivery: Delivery) -> UndecidedError:
        first = delivery.open_parcels[0]
        txid = delivery.parcels[first].txids[delivery.outcomes[first].index(None)]
        said = f"{delivery.left} of the transactions sent were not decided"
        if delivery.left == 1:
            said = f"transaction {word(txid)} was not decided"
        said += f" in {self.patience_seconds:g} s"
        why = self._why()
        return UndecidedError(f"{said} ({why})" if why else said, txid=txid)

    def _unreached(self, said: str) -> NotReachableError:
        """Return that nobody was reached; with the advice of a node that is another one, if any."""
        for reason in self._pool.reasons.values():
            if isinstance(reason, UnknownNodeError):
                return UnknownNodeError(said, hint=reason.hint)
        return NotReachableError(said)

    @property
    def unanswered(self) -> str:
        """Why each node failed last, where all have since one answered; else ""."""
        return self._why() if len(self._pool.reasons) == self._pool.size else ""

    def _why(self) -> str:
        said = ((name, error.message) for name, error in self._pool.reasons.items())
        return "; ".join(why if why.startswith(name) else f"{name}: {why}" for name, why in said)


def _silent(session: Session) -> NotReachableError:
    return NotReachableError(f"{session.server.agency} did not answer in time")


def _jitter() -> float:
    return random.uniform(0.5, 1.5)  # noqa: S311 (spreads retries, guards nothing)


def _no_vote(delivery: Delivery) -> Problem | None:
    """Return what a node said that takes nothing because it has no vote."""
    refusal = delivery.deferred
    if refusal is None or refusal.code != NO_VOTE:
        return None
    return Problem(refusal.code, refusal.message, refusal.hint)


def _unavailable(delivery: Delivery) -> NotReachableError | None:
    """Return why a node takes nothing at all, if it said that: it has halted."""
    refusal = delivery.deferred
    if refusal is None or refusal.status != Status.UNAVAILABLE:
        return None
    return NotReachableError(refusal.message)
