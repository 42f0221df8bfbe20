"""``comity node inspect`` of a node whose committee has changed: the log and the store span epochs.

What a start would do is compared with a start on the same data, wherever the power went: at the
ends of two epochs, and in the midst of the third.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from comity.cli.app import DONE, run
from consensus.hotstuff import wire
from tests.node.machines import Town, inline_threads, running  # noqa: F401 - used by name
from tests.node.test_epochs import elect, electing, in_epoch, is_decided  # noqa: F401 - by name
from tests.node.test_inspecting import Stopped, contents, here, laid_out  # noqa: F401 - used by name

pytestmark = pytest.mark.usefixtures("inline_threads", "electing", "here")

LAST = 3
"""The epoch of the others when the power goes."""


async def lived(folder: Path, cut: int | None) -> Stopped:
    """Have a node lose power after so many writes while its second epoch ends; None: after it."""
    town = Town(folder / "town")
    victim = town.machines[0]
    async with running(town) as nursery:
        txids = town.submit(0, 3)
        await town.until(lambda: is_decided(town, txids[-1]))
        elect(town, 1, 3, 1, 0, 2)
        await town.until(lambda: in_epoch(town, 2))
        txids = town.submit(0, 3)
        await town.until(lambda: is_decided(town, txids[-1]))
        elect(town, 2, 2, 3, 1, 0)
        if cut is not None:
            victim.disk.cut_at = victim.disk.operations + cut
        await town.until(lambda: in_epoch(town, LAST, 1, 2, 3))
        await town.until(lambda: not victim.powered or victim.epoch == LAST)
        if cut is None:
            txids = town.submit(0, 3)
            await town.until(lambda: is_decided(town, txids[-1]))
        victim.cut_power()
        await town.until(lambda: not victim.powered)
        nursery.cancel_scope.cancel()
    victim.lose()
    return laid_out(victim, victim.folder / "state", folder / "home", 0)


SOONER = (4, 13, None)
"""Those that stand for all where there is little time."""


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(cut, marks=[pytest.mark.long] * (cut not in SOONER))
        for cut in (1, 4, 7, 10, 13, 16, None)
    ],
)
def test_a_start_after_some_epochs_ends_as_was_said(tmp_path: Path, cut: int | None) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    stopped = trio.run(lived, tmp_path, cut, clock=clock)
    before = contents(stopped.folder)
    found = stopped.look()
    assert contents(stopped.folder) == before
    assert (found.start.starts, found.start.votes) == (True, True), found.start.why

    machine = stopped.open()
    engine, recovered = machine.engine, machine.engine._recovered.found
    identity = engine.identity
    engine.close()
    assert engine.votes
    assert [each.epoch for each in found.committees] == list(range(1, machine.epoch + 1))
    assert found.committees[-1] == identity.committee
    seat = next(each for each in found.seats if each.held == "key file")
    assert (seat.validator, seat.epoch) == (identity.index, machine.epoch)
    assert f"validator {identity.index} of epoch {machine.epoch}" in found.start.why
    assert found.store["height"] == engine.store.height
    assert recovered.safety is not None
    record = wire.decode_record(recovered.safety)
    if found.start.replay is not None:
        heights = {each.value.height for each in recovered.blocks}
        assert found.start.replay[0] == found.store["height"] + 1 == min(heights)
        assert heights >= set(range(found.start.replay[0], found.start.replay[1] + 1))
        assert found.start.replay[1] <= record.high_qc.height
    assert run(["node", "inspect", str(stopped.folder)]) == DONE
    assert run(["node", "inspect", str(stopped.folder), "--json"]) == DONE
