"""How long a node is avoided that failed: once for a failure, however many requests it ended."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from comity.errors import NotReachableError
from comity.pool import AVOID_SECONDS, AVOID_SECONDS_MAX, Pool, servers_of
from comity.session import Server, Session
from comity.verify import Trust
from consensus.errors import VerificationError
from tests.comity.twin import make_genesis

UNDER_WAY = 50


class Place:
    """A pool of four nodes at which nobody listens, and in which order it turned to them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        committee = make_genesis().committee
        self.trust = Trust(bytes(32), committee)
        self.servers = servers_of(committee)
        self.asked: list[Server] = []
        self.pool = Pool(self.servers, self.trust, None, nursery, self.dial)

    async def dial(self, server: Server) -> trio.abc.Stream:
        self.asked.append(server)
        raise NotReachableError("nobody is there")

    def session(self, index: int) -> Session:
        one, _ = trio.testing.memory_stream_pair()
        return Session(self.servers[index], one, self.trust)

    async def first(self) -> str:
        """Whom the pool turns to first."""
        self.asked.clear()
        with pytest.raises(NotReachableError):
            await self.pool.pick(())
        return self.asked[0].agency


async def test_requests_that_fail_together_are_one_failure() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        session = place.session(0)
        for _ in range(UNDER_WAY):
            place.pool.failed(session, NotReachableError("the connection ended"))
        own = place.servers[0].agency
        assert await place.first() != own
        await trio.sleep(AVOID_SECONDS * 1.1)
        assert await place.first() == own


async def test_failures_in_a_row_are_avoided_longer_each_time() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        own = place.servers[0].agency
        for seconds in (1, 2, 4, 8):
            place.pool.failed(place.session(0), NotReachableError("again"))
            for index in (1, 2, 3):
                place.pool.praised(place.session(index))
            await trio.sleep(seconds - 0.01)
            assert place.pool._places[0].avoided_until > trio.current_time()
            await trio.sleep(0.02)
            assert place.pool._places[0].avoided_until < trio.current_time()
        assert await place.first() == own, "and is preferred again afterwards"


async def test_a_lie_is_avoided_for_longest_even_while_the_node_is_avoided() -> None:
    async with trio.open_nursery() as nursery:
        place = Place(nursery)
        place.pool.failed(place.session(0), NotReachableError("the connection ended"))
        place.pool.failed(place.session(0), VerificationError("a proof fails"))
        left = place.pool._places[0].avoided_until - trio.current_time()
        assert left > AVOID_SECONDS_MAX - 1
