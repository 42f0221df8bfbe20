"""A bell wakes the task that waits for it, once for however many rings."""

from __future__ import annotations

import trio
import trio.testing

from node.bell import Bell


async def test_a_bell_rung_before_the_wait_is_heard_at_once() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    await bell.heard()
    with trio.move_on_after(0) as scope:
        await bell.heard()
    assert scope.cancelled_caught


async def test_a_waiting_task_wakes_once_for_many_rings() -> None:
    bell = Bell()
    heard = 0

    async def listen() -> None:
        nonlocal heard
        while True:
            await bell.heard()
            heard += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(listen)
        for times in (1, 2, 3):
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(5):
                bell.ring()
            await trio.testing.wait_all_tasks_blocked()
            assert heard == times
        nursery.cancel_scope.cancel()


async def test_a_cancelled_wait_takes_no_ring_with_it() -> None:
    bell = Bell()
    with trio.move_on_after(0):
        await bell.heard()
    bell.ring()
    await bell.heard()
