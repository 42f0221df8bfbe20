"""Engines together: power cuts at every operation of the disk, turned logs, restarts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio

from consensus.hotstuff import wire
from consensus.hotstuff.types import (
    CommitVote,
    Message,
    Proposal,
    SafetyRecord,
    SignKind,
    Timeout,
    Vote,
    first_record,
)
from consensus.keyfile import KeyKind
from node import flushing, opening
from node.identity import Identity
from node.opening import MARK_FILE
from node.storage import kinds
from node.storage.log import Log
from node.storage.recovery import Recovered, open_signer, recover
from tests.node.machines import CHAIN, GENESIS, SIZE, Machine, PowerDisk, Town, pair_of, running
from tests.node.machines import inline_threads as inline_threads

pytestmark = pytest.mark.usefixtures("inline_threads")
IDENTITY = Identity(GENESIS, CHAIN, 0)
FIRST = IDENTITY.first_block


# --- what a disk must still know ------------------------------------------------------------------


@dataclass
class Moment:
    """A machine just before an operation of its disk."""

    disk: PowerDisk
    store: Path
    sent: list[Message]
    operation: str
    carried: list[kinds.Entry]
    """What a new segment of the log would have begun with at this moment."""


class Watcher:
    """Keeps what a power cut before each operation of a machine's disk would leave."""

    def __init__(self, machine: Machine, folder: Path, keep: str) -> None:
        self.moments: list[Moment] = []
        self._machine = machine
        self._folder = folder
        self._keep = keep
        self._stores: dict[int, Path] = {}
        machine.disk.before = self._look

    def _look(self, operation: str) -> None:
        if not self._machine.listening:
            return
        self.moments.append(
            Moment(
                self._machine.disk.crash(keep=self._keep),
                self._store(),
                list(self._machine.sent),
                operation,
                self._machine.engine.carried(),
            )
        )

    def _store(self) -> Path:
        height = self._machine.engine.store.height
        if height not in self._stores:
            copy = self._folder / str(height)
            copy.mkdir(parents=True)
            shutil.copy(self._machine.folder / "state" / "data.mdb", copy)
            self._stores[height] = copy
        return self._stores[height]


def check_promises(moment: Moment, town: Town, machine: Machine, folder: Path) -> None:
    """Everything that the machine had sent is bound by what recovery finds."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(moment.store, folder / "state")
    # The disk knows the log and the mark by the paths of the machine's folder.
    recovered = recover_from(moment.disk, machine, folder)
    try:
        signer = open_signer(
            recovered,
            pair_of(40, KeyKind.VALIDATOR),
            machine.folder / MARK_FILE,
            chain=CHAIN,
            disk=moment.disk,
        )
        opening.refuse_rollback(recovered, signer)
        marks = {item.kind: item.round for item in signer.recovered_bodies()}
        check_found(moment, town, recovered, marks)
    finally:
        recovered.store.close()


def check_found(
    moment: Moment, town: Town, recovered: Recovered, marks: dict[SignKind, int] | None
) -> None:
    safety = recovered.found.safety
    record = first_record(FIRST) if safety is None else wire.decode_record(safety)
    for message in moment.sent:
        check_bound(message, record)
        if marks is not None:
            kind, round_ = slot_of(message)
            assert marks[kind] >= round_
        if isinstance(message, Vote):
            check_held(message, town, recovered)


def slot_of(message: Message) -> tuple[SignKind, int]:
    match message:
        case Vote():
            return SignKind.VOTE, message.round
        case Timeout():
            return SignKind.TIMEOUT, message.round
        case CommitVote():
            return SignKind.COMMIT_VOTE, message.round
        case Proposal(block):
            return SignKind.PROPOSAL, block.round
        case _:
            raise AssertionError(message)


def recover_from(disk: PowerDisk, machine: Machine, folder: Path) -> Recovered:
    prefix = machine.folder
    moved = {folder / path.relative_to(prefix): inode for path, inode in disk.files.items()}
    logs = disk.crash(keep="all")
    logs.files = logs.durable_names = moved
    return recover(folder, chain=CHAIN, disk=logs)


def check_bound(message: Message, record: SafetyRecord) -> None:
    settled = 0 if record.commit_cert is None else record.commit_cert.statement.round
    match message:
        case Vote():
            assert record.last_vote is not None
            assert record.last_vote.round >= message.round
        case Proposal(block):
            assert record.entry_cert.round + 1 >= block.round
        case Timeout():
            assert record.last_timeout is not None
            assert record.last_timeout.round >= message.round
            assert message.round <= settled or any(
                late >= message.round and high <= message.high_round
                for late, high in record.signed_timeouts
            )
        case CommitVote():
            own = {vote.round: vote.body for vote in record.commit_votes}
            assert message.round <= settled or own[message.round] == message.body
            assert record.high_qc.round >= message.round


def check_held(vote: Vote, town: Town, recovered: Recovered) -> None:
    """A voted block and its batches are on this disk."""
    view, found = recovered.store.view, recovered.found
    logged = {item.value.block_id for item in found.blocks}
    assert vote.height <= view.height or vote.block_id in logged
    held = {batch.digest for batch in opening.logged_batches(recovered, CHAIN)}
    for item in town.blocks[vote.block_id].payload:
        assert item.digest in held or view.private(item.digest) is not None


async def busy(town: Town, height: int) -> None:
    """Payload from every side until a height; one link fails and comes back meanwhile."""
    turn = 0
    while min(machine.height for machine in town.machines) < height:
        if turn == 3:
            town.cuts.add(frozenset({0, 1}))  # batches of 1 are fetched, out of their order
        if turn == 6:
            town.cuts.clear()
        town.submit(turn % SIZE, 1 + turn % 2)
        turn += 1
        await trio.sleep(0.03)


@pytest.mark.parametrize("keep", ["none", "all", "half"])
@pytest.mark.parametrize("rotate_bytes", [1, 6_000])
async def test_power_may_fail_before_any_operation_of_the_disk(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: object,
    keep: str,
    rotate_bytes: int,
) -> None:
    """Whatever was sent is bound and held after the restart, also while the log is turned."""
    monkeypatch.setattr(flushing, "LOG_BYTES_ROTATE", rotate_bytes)
    town = Town(tmp_path)
    machine = town.machines[0]
    watcher = Watcher(machine, tmp_path / "copies", keep)
    async with running(town):
        await busy(town, 8)
    assert not town.faults
    operations = {moment.operation for moment in watcher.moments}
    assert {"create", "rename", "truncate", "remove", "sync_folder"} <= operations
    kinds = {type(message) for message in machine.sent}
    assert {Vote, CommitVote, Proposal} <= kinds
    for moment in watcher.moments:
        check_promises(moment, town, machine, tmp_path / "again")


async def test_a_new_segment_may_begin_at_any_moment(
    tmp_path: Path, autojump_clock: object
) -> None:
    """What it would begin with is enough by itself, beside the store."""
    town = Town(tmp_path)
    machine = town.machines[0]
    watcher = Watcher(machine, tmp_path / "copies", "none")
    async with running(town):
        await busy(town, 8)
    heights = {int(moment.store.name) for moment in watcher.moments}
    assert len(heights) > 2
    for moment in watcher.moments:
        folder = tmp_path / "again"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(moment.store, folder / "state")
        disk = PowerDisk()
        log = Log.open(folder / "log", lambda *_: None, chain=CHAIN, disk=disk)
        log.rotate(moment.carried)
        recovered = recover(folder, chain=CHAIN, disk=disk.crash())
        try:
            check_found(moment, town, recovered, None)
        finally:
            recovered.store.close()


async def test_a_segment_may_begin_before_anything_was_promised(
    tmp_path: Path, autojump_clock: object
) -> None:
    """There is no record yet to carry; the node starts from it as a new one does."""
    town = Town(tmp_path)
    machine = town.machines[0]
    machine.open()
    assert machine.engine.carried() == []
    log = machine.engine._recovered.log
    log.rotate(machine.engine.carried())
    log.drop_before(log.end)
    machine.engine.close()
    async with running(town):
        town.submit(0)
        await town.until_certified(2)


async def test_a_log_turned_again_and_again_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """What a segment begins with does not count as growth, nor do restarts hide it."""
    monkeypatch.setattr(flushing, "LOG_BYTES_ROTATE", 20_000)
    town = Town(tmp_path)
    machine = town.machines[0]
    for height in (10, 20, 30):
        async with running(town):
            await busy(town, height)
            assert machine.engine.log_bytes < 50_000
        for each in town.machines:
            each.lose()
    assert machine.engine.writer.synced > 100_000


# --- restarts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", ["none", "half", "all"])
async def test_a_machine_loses_power_again_and_again_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object, keep: str
) -> None:
    """It never signs two things for one slot, and follows the others again each time."""
    monkeypatch.setattr(flushing, "LOG_BYTES_ROTATE", 3_000)
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town) as nursery:
        for life in range(12):
            target = max(town.statements, default=0) + 2
            machine.disk.cut_at = machine.disk.operations + 5 + 3 * life
            turn = 0
            while machine.powered:
                assert machine.engine.stopped is None or machine.engine.stopped.storage
                town.submit(1 + turn % 3)
                turn += 1
                await trio.sleep(0.02)
            machine.lose(keep)
            await nursery.start(machine.run)
            town.submit(0)
            await town.until_certified(target)
    assert not town.faults


@pytest.mark.parametrize("keep", ["none", "all"])
async def test_nothing_certified_is_lost_when_every_machine_loses_power_at_once(
    tmp_path: Path, autojump_clock: object, keep: str
) -> None:
    town = Town(tmp_path)
    for _ in range(4):
        async with running(town):
            # The statements that were announced are announced again: ``Machine.announce`` compares.
            await town.until_certified(max(town.statements, default=0))
            await busy(town, max(town.statements, default=0) + 4)
        for machine in town.machines:
            machine.lose(keep)
    assert not town.faults


async def test_transactions_of_a_node_that_lost_power_are_decided_once(
    tmp_path: Path, autojump_clock: object
) -> None:
    """Its own batch was logged and reached nobody; after the restart it is proposed."""
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town) as nursery:
        await busy(town, 2)
        town.cuts |= {frozenset({0, other}) for other in (1, 2, 3)}
        (txid,) = town.submit(0)
        await trio.sleep(0.2)
        machine.cut_power()
        await town.until(lambda: not machine.powered)
        machine.lose()
        town.cuts.clear()
        await nursery.start(machine.run)
        chronicles = [each.engine.chronicle for each in town.machines]
        await town.until(lambda: all(each.find(txid) is not None for each in chronicles))
        assert len({each.find(txid) for each in chronicles}) == 1
        assert txid not in machine.engine.dissemination.pool
