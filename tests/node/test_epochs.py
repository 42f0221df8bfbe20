"""Real engines cross the end of an epoch: flush, record, numbers of batches, those who were away.

No act of the ledger elects a committee here; the executor is made to, by one transaction. The town
watches that nobody ever signs two things for one slot of one epoch, and that all certify the same.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from consensus.committee import Committee, from_value
from consensus.errors import CertificateError
from consensus.evidence.trust import Chain
from consensus.hotstuff import wire
from consensus.hotstuff.events import FOLLOWER
from consensus.hotstuff.types import (
    BlocksRequest,
    BlocksResponse,
    epoch_of_number,
    number_before,
)
from consensus.ledger import batch as formats
from consensus.ledger.executor import BlockResult, BlockRun
from consensus.state.state import State
from node import batch_wire, epochs, execution
from node.batch_verdicts import Drop
from node.batches import BatchStore
from node.engine import Engine
from node.epochs import Ended
from node.errors import DamagedStoreError
from node.identity import Identity
from node.network.wire import Class
from tests.consensus.hotstuff import builders as make
from tests.node.machines import (  # noqa: F401 - the fixture is used by name
    CHAIN,
    GENESIS,
    SIZE,
    Town,
    inline_threads,
    running,
    transaction,
)

pytestmark = pytest.mark.usefixtures("inline_threads")

ELECTED: dict[bytes, tuple[int, ...]] = {}


class ElectingRun(BlockRun):
    """The executor, but for transactions by which these places of the first committee go on."""

    def finish(self) -> BlockResult:
        outcome = super().finish()
        orders = [ELECTED[t.txid] for t in outcome.transactions if t.txid in ELECTED]
        if not orders:
            return outcome
        rows = tuple(GENESIS.committee.validators[index] for index in orders[-1])
        return replace(outcome, next_committee=Committee(self._context.epoch + 1, rows))


@pytest.fixture(autouse=True)
def electing(monkeypatch: pytest.MonkeyPatch) -> None:
    ELECTED.clear()
    monkeypatch.setattr(execution, "BlockRun", ElectingRun)


def elect(town: Town, at: int, *order: int) -> None:
    (txid,) = town.submit(at)
    ELECTED[txid] = order


def in_epoch(town: Town, epoch: int, *indices: int) -> bool:
    chosen = [town.machines[index] for index in indices or range(SIZE)]
    return all(machine.powered and machine.epoch == epoch for machine in chosen)


def is_decided(town: Town, txid: bytes, *indices: int) -> bool:
    chosen = [town.machines[index] for index in indices or range(SIZE)]
    return all(
        machine.powered and machine.engine.chronicle.find(txid) is not None for machine in chosen
    )


async def test_committee_changes_under_work_and_loses_nothing(tmp_path: Path) -> None:
    town = Town(tmp_path)
    async with running(town):
        txids = town.submit(0, 5)
        await town.until(lambda: is_decided(town, txids[-1]))
        elect(town, 1, 3, 1, 0, 2)
        txids += [txid for at in range(SIZE) for txid in town.submit(at, 3)]
        await town.until(lambda: in_epoch(town, 2))
        txids += [txid for at in range(SIZE) for txid in town.submit(at, 3)]
        await town.until(lambda: all(is_decided(town, txid) for txid in txids))
        elect(town, 2, 0, 1, 2, 3)
        await town.until(lambda: in_epoch(town, 3))
        txids = town.submit(3, 2)
        await town.until(lambda: is_decided(town, txids[-1]))
        assert not town.faults
        for machine in town.machines:
            assert [each.epoch for each in machine.engine.identity.ended] == [1, 2]
            assert machine.engine.stopped is None
        steps = [each.step() for each in town.machines[0].engine.identity.ended]
        newest = town.machines[1].engine.chronicle.newest
        assert newest is not None
    chain = Chain(CHAIN, GENESIS.committee)
    with pytest.raises(CertificateError):
        chain.certificate(newest.encoded)
    chain.follow(steps)
    assert chain.certificate(newest.encoded).statement.epoch == 3


async def test_first_record_of_the_epoch_is_on_disk_before_anything_is_signed_there(
    tmp_path: Path,
) -> None:
    town = Town(tmp_path)
    seen: list[int] = []

    def tap(sender: int, peer: int, cls: Class, payload: bytes) -> bool:
        machine = town.machines[sender]
        if machine.epoch == 2 and sender not in seen:
            seen.append(sender)
            store = machine.engine.store
            ended = epochs.kept(store.view)
            assert store.height >= ended[0].height
            record = wire.decode_record(machine.engine._recovered.found.safety or b"")
            assert record.epoch == 2
            assert record.commit_cert == ended[0].certificate
        return True

    town.taps.append(tap)
    async with running(town):
        elect(town, 0, 1, 2, 3, 0)
        await town.until(lambda: in_epoch(town, 2))
        txids = town.submit(0)
        await town.until(lambda: is_decided(town, txids[0]))
    assert sorted(seen) == [0, 1, 2, 3]


async def test_blocks_of_an_earlier_epoch_are_served_up_to_its_end(tmp_path: Path) -> None:
    town = Town(tmp_path)
    served: list[BlocksResponse] = []

    def tap(sender: int, peer: int, cls: Class, payload: bytes) -> bool:
        if cls is Class.SYNC and payload[1] == wire.KIND_BLOCKS_RESPONSE:
            message = wire.decode_message(payload)
            assert isinstance(message, BlocksResponse)
            served.append(message)
        return True

    town.taps.append(tap)
    async with running(town):
        txids = town.submit(0)
        await town.until(lambda: is_decided(town, txids[0]))
        elect(town, 0, 1, 2, 3, 0)
        await town.until(lambda: in_epoch(town, 2))
        txids = town.submit(1)
        await town.until(lambda: is_decided(town, txids[0]))
        ordering, (end,) = town.machines[0].engine.ordering, town.machines[0].engine.identity.ended
        served.clear()
        for epoch in (1, 2, 3):
            ordering._serve(0, BlocksRequest(epoch, 1, None, 32))
        (page,) = served
        assert [block.epoch for block in page.blocks] == [1] * end.height
        assert page.certificate == end.certificate


async def test_what_was_batched_and_not_delivered_goes_into_batches_of_the_next_epoch(
    tmp_path: Path,
) -> None:
    town = Town(tmp_path)
    lost = True

    def tap(sender: int, peer: int, cls: Class, payload: bytes) -> bool:
        of_batches = cls is Class.BATCH or batch_wire.is_known(payload)
        return not (lost and sender == 2 and of_batches)

    town.taps.append(tap)
    async with running(town):
        txids = town.submit(2, 3)  # batched and logged, and nobody else has them
        await town.until(lambda: town.machines[2].engine.dissemination.batches.size_bytes > 0)
        elect(town, 0, 1, 2, 3, 0)
        await town.until(lambda: in_epoch(town, 2))
        lost = False
        await town.until(lambda: all(is_decided(town, txid) for txid in txids))
        numbers = town.machines[0].engine.dissemination.batches.held_counts()
        assert max(numbers) > number_before(2)


async def test_the_log_begins_anew_where_it_is_long_and_nothing_in_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.engine.LOG_BYTES_READ_AGAIN", 1)
    await test_what_was_batched_and_not_delivered_goes_into_batches_of_the_next_epoch(tmp_path)
    town = Town(tmp_path / "again")
    async with running(town):
        txids = town.submit(0, 3)
        await town.until(lambda: is_decided(town, txids[-1]))
        elect(town, 0, 1, 2, 3, 0)
        await town.until(lambda: in_epoch(town, 2))
        for machine in town.machines:
            assert machine.engine._recovered.log.start > 0


async def test_what_is_decided_by_now_is_not_batched_once_more_at_every_start(
    tmp_path: Path,
) -> None:
    town = Town(tmp_path)
    machine, lost = town.machines[2], True

    def tap(sender: int, peer: int, cls: Class, payload: bytes) -> bool:
        return not (lost and sender == 2 and cls is Class.BATCH)

    town.taps.append(tap)
    async with running(town) as nursery:
        txids = town.submit(2, 3)
        await town.until(lambda: machine.engine.dissemination.batches.size_bytes > 0)
        elect(town, 0, 1, 2, 3, 0)
        await town.until(lambda: in_epoch(town, 2))
        lost = False
        await town.until(lambda: all(is_decided(town, txid) for txid in txids))
        at = machine.height
        await town.until(lambda: machine.engine.store.height > at)
        made = machine.engine.dissemination.batches.held_counts()
        machine.cut_power()
        await town.until(lambda: not machine.powered)
        machine.lose()
        await nursery.start(machine.run)
        await trio.sleep(1)
        own = machine.engine.identity.index
        assert machine.engine.dissemination.batches.held_counts()[own] == made[own]
        assert machine.engine.dissemination.pool.waiting == 0


async def test_those_cut_off_at_the_boundary_follow_through_two_epochs(tmp_path: Path) -> None:
    town = Town(tmp_path)
    async with running(town):
        txids = town.submit(0)
        await town.until(lambda: is_decided(town, txids[0]))
        town.cuts = {frozenset({3, other}) for other in range(3)}
        elect(town, 0, 2, 3, 1, 0)
        await town.until(lambda: in_epoch(town, 2, 0, 1, 2))
        elect(town, 1, 3, 2, 1, 0)
        await town.until(lambda: in_epoch(town, 3, 0, 1, 2))
        town.cuts = set()
        for other in range(3):
            town.meet(other)
        await town.until(lambda: in_epoch(town, 3))
        txids = town.submit(3)
        await town.until(lambda: is_decided(town, txids[0]))
        assert town.machines[3].engine.stopped is None


async def test_the_state_is_handed_on_and_is_what_a_start_would_read(tmp_path: Path) -> None:
    town = Town(tmp_path)
    async with running(town):
        txids = town.submit(0, 3)
        await town.until(lambda: is_decided(town, txids[-1]))
        before = [machine.engine.execution.state for machine in town.machines]
        elect(town, 0, 1, 2, 3, 0)
        await town.until(lambda: in_epoch(town, 2))
        txids = town.submit(2, 3)
        await town.until(lambda: is_decided(town, txids[-1]))
        for machine, state in zip(town.machines, before, strict=True):
            engine = machine.engine
            assert engine.execution.state is state
            height = engine.store.height
            read = State(engine.store.state, GENESIS.tree_depth, height)
            assert read.root == engine.chronicle.state_root(height)


@pytest.mark.parametrize("cut", [7, 12, 17])
async def test_power_lost_while_the_log_begins_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    monkeypatch.setattr("node.engine.LOG_BYTES_READ_AGAIN", 1)
    await test_power_lost_anywhere_at_the_boundary(tmp_path, cut)


@pytest.mark.parametrize("cut", [2, 5, 8, 11, 14])
async def test_power_lost_anywhere_at_the_boundary(tmp_path: Path, cut: int) -> None:
    town = Town(tmp_path)
    victim = town.machines[2]
    async with running(town) as nursery:
        txids = town.submit(0)
        await town.until(lambda: is_decided(town, txids[0]))
        elect(town, 0, 1, 2, 3, 0)
        victim.disk.cut_at = victim.disk.operations + cut
        await town.until(lambda: in_epoch(town, 2, 0, 1, 3))
        await town.until(lambda: not victim.powered or victim.epoch == 2)
        victim.cut_power()
        await town.until(lambda: not victim.powered)
        victim.lose()
        await nursery.start(victim.run)
        await town.until(lambda: in_epoch(town, 2))
        txids = town.submit(2)
        await town.until(lambda: is_decided(town, txids[0]))
        assert victim.engine.stopped is None


async def test_power_lost_while_one_engine_hands_over_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine is no longer listening and not yet dead: it is cut off there, once."""
    town = Town(tmp_path)
    victim = town.machines[2]
    finish, lives = Engine.finish, [victim]

    async def cut(engine: Engine) -> None:
        if lives and engine is victim.engine:
            assert victim.powered
            assert not victim.listening
            lives.pop().cut_power()
        await finish(engine)

    monkeypatch.setattr(Engine, "finish", cut)
    async with running(town) as nursery:
        elect(town, 0, 1, 2, 3, 0)
        await town.until(lambda: not victim.powered)
        victim.lose()
        await nursery.start(victim.run)
        await town.until(lambda: in_epoch(town, 2))
        txids = town.submit(2)
        await town.until(lambda: is_decided(town, txids[0]))


# --- parts --------------------------------------------------------------------------------------


def ended(epoch: int = 1) -> Ended:
    rows = GENESIS.committee.validators
    committee = Committee(epoch + 1, (*rows[1:], rows[0]))
    (block,) = make.chain(1)
    statement = replace(make.statement(block), epoch=epoch, next_committee_hash=committee.hash)
    return Ended(make.commit_cert(statement), committee)


class Meta:
    """A view that has nothing but meta entries."""

    def __init__(self, *entries: tuple[bytes, bytes]) -> None:
        self._entries = dict(entries)

    def meta(self, name: bytes) -> bytes | None:
        return self._entries.get(name)


def test_ends_of_epochs_are_read_as_they_were_written() -> None:
    one, two = ended(1), ended(2)
    assert epochs.kept(Meta(two.meta(), one.meta())) == (one, two)  # type: ignore[arg-type]
    assert epochs.kept(Meta()) == ()  # type: ignore[arg-type]
    assert from_value(one.step().committee) == one.committee


@pytest.mark.parametrize("damage", ["cut", "other committee", "other epoch", "garbage"])
def test_damaged_end_of_an_epoch_is_refused(damage: str) -> None:
    name, data = ended(1).meta()
    if damage == "cut":
        data = data[:-1]
    elif damage == "other committee":
        data = replace(ended(1), committee=GENESIS.committee).meta()[1]
    elif damage == "other epoch":
        data = ended(2).meta()[1]
    else:
        data = b"\xff" * 40
    with pytest.raises(DamagedStoreError, match="epoch 1"):
        epochs.kept(Meta((name, data)))  # type: ignore[arg-type]


def test_numbers_of_batches_tell_their_epoch() -> None:
    assert (number_before(1), epoch_of_number(1)) == (0, 1)
    assert epoch_of_number(number_before(2)) == 1
    assert epoch_of_number(number_before(2) + 1) == 2
    assert epoch_of_number(number_before(1000) + 1) == 1000


def test_batch_of_another_epoch_is_dropped_without_blame() -> None:
    one = formats.build(3, number_before(2) + 1, 0, [transaction(1)])
    late = BatchStore(4, 0, epoch=1).offer(1, one.public, b"")
    assert late is Drop.ELSEWHERE
    assert not late.fault
    early = formats.build(3, 7, 0, [transaction(1)])
    assert BatchStore(4, 0, epoch=2).offer(1, early.public, b"") is Drop.ELSEWHERE


def test_agency_finds_its_place_in_each_epoch_or_follows() -> None:
    first = Identity(GENESIS, CHAIN, 0)
    one = ended(1)
    second = first.at((one,))
    assert (first.index, second.index) == (0, 3)
    assert (second.index_in(1), second.index_in(2)) == (0, 3)
    assert second.agency == first.agency
    assert second.first_block == first.first_block
    assert (second.start.epoch, second.start.round) == (2, 0)
    gone = first.at((replace(one, committee=Committee(2, one.committee.validators[:3])),))
    assert (gone.index, gone.row, gone.index_in(1), gone.index_in(2)) == (FOLLOWER, None, 0, None)
    assert (gone.agency, gone.last_row) == (first.agency, first.row)
