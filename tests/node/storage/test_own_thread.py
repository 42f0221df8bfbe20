"""A thread of one's own: in order, one at a time, told to who waits, gone with its object."""

from __future__ import annotations

import gc
import threading
from functools import partial

import pytest
import trio
import trio.testing

from node.storage.own_thread import OwnThread


async def test_what_the_work_raises_is_raised_where_it_is_waited_for_and_the_next_goes_on() -> None:
    own = OwnThread("test")

    def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await own.run(fail)
    assert await own.run(threading.get_ident) not in (threading.get_ident(), None)
    assert await own.run(threading.get_ident) == await own.run(threading.get_ident)


async def test_pieces_have_their_turns_one_after_the_other() -> None:
    own = OwnThread("test")
    first = threading.Event()
    done: list[int] = []

    def work(number: int) -> None:
        first.wait()
        done.append(number)

    async def ask(number: int) -> None:
        await own.run(partial(work, number))
        done.append(-number)

    async with trio.open_nursery() as nursery:
        for number in range(1, 5):
            nursery.start_soon(ask, number)
            await trio.testing.wait_all_tasks_blocked()
        assert (own.waiting, done) == (3, [])
        first.set()
    assert own.waiting == 0
    assert [number for number in done if number > 0] == [1, 2, 3, 4]
    assert [number for number in done if number < 0] == [-1, -2, -3, -4]


async def test_a_wait_is_cancelled_before_its_turn_and_never_in_it() -> None:
    own = OwnThread("test")
    first = threading.Event()
    done: list[str] = []

    def work() -> None:
        first.wait()
        done.append("held")

    async def hold() -> None:
        await own.run(work)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(own.run, partial(done.append, "waited"))
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        await trio.lowlevel.cancel_shielded_checkpoint()
        assert own.waiting <= 1
        first.set()
    assert done == ["held"]
    assert await own.run(lambda: "again") == "again"


async def test_the_thread_ends_with_its_object() -> None:
    own = OwnThread("test")
    thread = await own.run(threading.current_thread)
    assert thread.is_alive()
    del own
    gc.collect()
    await trio.to_thread.run_sync(thread.join)
    assert not thread.is_alive()
