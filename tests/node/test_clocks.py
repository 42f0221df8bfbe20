"""Machines whose clocks are set while they work."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from node.steady import SteadyClock
from tests.node.machines import Town, running
from tests.node.machines import inline_threads as inline_threads

HOUR_MS = 3_600_000


def test_steady_clock_goes_on_when_the_clock_is_set_back_and_follows_it_forward() -> None:
    shown = [1000, 1010, 10, 25, 25, 500, 400, 401]
    clock = SteadyClock(lambda: shown.pop(0))
    assert [clock() for _ in range(8)] == [1000, 1010, 1010, 1025, 1025, 1500, 1500, 1501]


@pytest.mark.parametrize("by_ms", [-HOUR_MS, HOUR_MS], ids=["back", "forward"])
@pytest.mark.usefixtures("inline_threads")
async def test_work_goes_on_within_seconds_when_every_clock_is_set(
    by_ms: int, tmp_path: Path, autojump_clock: object
) -> None:
    """As many timers as there are were armed by the clock as it was, fetches and batches too."""
    town = Town(tmp_path)
    async with running(town):
        town.submit(0)
        await town.until_certified(1)
        town.submit(1)
        town.clocks_ms = by_ms
        began = trio.current_time()
        before = max(machine.height for machine in town.machines)
        for turn in range(4):
            town.submit(turn)
        await town.until_certified(before + 1)
        assert trio.current_time() - began < 10
