"""Private parts of old transactions go from store, log and memory; everything else goes on."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from consensus.ledger import decision
from consensus.state.merkle import RESULTS
from node import batch_wire, retention
from node.batch_wire import Absent, Request, Response
from node.network.wire import Class
from node.retention import META_PRIVATE, Retention
from node.retracing import NotKept, Retracing
from tests.node.machines import Machine, Town, running
from tests.node.machines import inline_threads as inline_threads

pytestmark = pytest.mark.usefixtures("inline_threads")
PERIOD_MS = 20_000
REASON = "a reason that nobody needs for good"


def digests(machine: Machine, height: int) -> list[bytes]:
    found = machine.engine.chronicle.ordered(height)
    assert found is not None
    return [item.digest for item in found[0].payload]


def filled(machine: Machine) -> tuple[int, list[bytes]]:
    """The first height that has batches, and these."""
    for height in range(1, machine.height + 1):
        if found := digests(machine, height):
            return height, found
    raise AssertionError("no height has a batch")


def everything(machine: Machine) -> bytes:
    """What the log's files hold now."""
    return b"".join(bytes(inode.shown) for inode in machine.disk.files.values())


def retracing(machine: Machine) -> Retracing:
    engine = machine.engine
    return Retracing(engine.ledger, engine.chronicle, engine.past, engine.execution.history.root)


@pytest.mark.trio
async def test_private_parts_go_after_their_period_and_all_else_is_served(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    town = Town(tmp_path)
    old, keeper = town.machines[1], town.machines[2]
    for machine in town.machines:
        machine.retention_ms = 0 if machine is keeper else PERIOD_MS
    async with running(town):
        txids = town.submit(0, 3, reason=REASON)
        await town.until(lambda: all(old.engine.chronicle.find(each) for each in txids))
        height, batches = filled(old)
        await town.until(lambda: old.engine.store.height >= height)
        assert all(old.engine.store.view.private(each) for each in batches)
        await trio.sleep(PERIOD_MS / 1000 + 5)
        town.submit(0, 1)
        await town.until(lambda: old.engine.retention.first > height, 120)
        await town.until(lambda: keeper.engine.store.height > height)
        view = old.engine.store.view
        assert [view.private(each) for each in batches] == [None] * len(batches)
        assert all(keeper.engine.store.view.private(each) for each in batches)
        assert REASON.encode() not in everything(old)
        assert REASON.encode() in b"".join(
            keeper.engine.store.view.private(each) or b"" for each in batches
        )
        # what is proved goes on being proved
        block = old.engine.chronicle.block(height)
        assert block is not None
        for index, encoded in enumerate(block.decisions):
            path = RESULTS.path(block.roots, index)
            assert decision.decode(encoded).root == block.roots[index]
            assert path is not None
        assert all(view.batch(each) for each in batches)
        # a new bundle needs what is gone, and it is said which part; who keeps it makes one
        with pytest.raises(NotKept, match="private parts of the block are not kept"):
            await retracing(old).prepare(height, 0)
        made = await retracing(keeper).prepare(height, 0)
        assert made.decided.decision.root == block.roots[0]
        # who asks for them is told that they are absent; who keeps them gives them
        answers: list[tuple[int, object]] = []

        def tap(sender: int, peer: int, cls: Class, payload: bytes) -> bool:
            if cls is Class.SYNC and batch_wire.is_known(payload):
                answers.append((sender, batch_wire.decode(payload, 1 << 20)))
            return True

        town.taps.append(tap)
        asked = batch_wire.encode(Request(tuple(batches)))
        for machine in (old, keeper):
            machine.engine.take(3, Class.SYNC, asked)
        assert (1, Absent(tuple(batches))) in answers
        assert {type(each) for sender, each in answers if sender == 2} == {Response}
        first = old.engine.retention.first
    for machine in town.machines:
        machine.lose()
    async with running(town):
        assert old.engine.store.view.meta(META_PRIVATE) is not None
        assert height < old.engine.retention.first <= first
        await town.until_certified(first + 1)
    assert town.faults == []


# --- steps ----------------------------------------------------------------------------------------


class Block:
    def __init__(self, height: int) -> None:
        self.time_ms = height * 1000
        self.payload = [type("Item", (), {"digest": bytes([height % 256]) * 32})]


def test_nothing_goes_where_everything_is_kept_for_good() -> None:
    kept = Retention(0, None, lambda height: pytest.fail("a block was looked at"))
    assert kept.step(10_000, 10**12) == (1, [])
    assert not kept.turns_log(10**12)


def test_step_is_bounded_and_goes_on_where_it_ended() -> None:
    kept = Retention(10_000, None, Block)  # type: ignore[arg-type, return-value]
    first, gone = kept.step(10_000, 10**9)
    assert (first, len(gone)) == (1 + retention.HEIGHTS_MAX, retention.HEIGHTS_MAX)
    assert kept.step(10_000, 10**9)[0] == first  # nothing was written in between
    kept.done(first)
    assert kept.step(10_000, 10**9)[0] == first + retention.HEIGHTS_MAX
    assert kept.step(first + 3, 10**9)[0] == first + 4  # nothing above the flush


def test_only_what_is_older_than_the_period_goes() -> None:
    kept = Retention(10_000, None, Block)  # type: ignore[arg-type, return-value]
    first, gone = kept.step(100, 15_000)
    assert (first, gone) == (5, [bytes([height]) * 32 for height in range(1, 5)])


def test_heights_below_a_snapshot_are_passed_over() -> None:
    def block(height: int) -> Block | None:
        return Block(height) if height > 50 else None

    kept = Retention(10_000, None, block)  # type: ignore[arg-type]
    first, gone = kept.step(60, 10**9)
    assert (first, len(gone)) == (61, 10)


def test_horizon_is_read_back() -> None:
    [(name, value)] = retention.meta(77)
    assert (name, Retention(1, value, Block).first) == (META_PRIVATE, 77)  # type: ignore[arg-type, return-value]


def test_log_is_turned_once_a_day_or_a_period() -> None:
    day = retention.DAY_MS
    kept = Retention(30 * day, None, Block)  # type: ignore[arg-type, return-value]
    turns = [kept.turns_log(at) for at in (day, day + 1, 2 * day - 1, 2 * day)]
    assert turns == [True, False, False, True]
