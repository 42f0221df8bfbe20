"""Executed heights: slices, undoing, taking back; what the chronicle shows; what a flush writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import trio

from consensus import codec
from consensus.errors import LocalProtocolError
from consensus.hotstuff.types import Block, CommitCert
from consensus.ledger import layout
from consensus.ledger.layout import Paths
from consensus.state import record
from consensus.state.record import encode_single
from consensus.state.state import Row
from node import chronicle, execution, flushing
from node.chronicle import Height
from node.flushing import META_NUMBERS, Flusher
from node.listed import id_of, index_entries, index_key
from tests.node.machines import SIZE, Machine, Town, running, transaction
from tests.node.machines import inline_threads as inline_threads

pytestmark = pytest.mark.usefixtures("inline_threads")


async def stood_still(town: Town, machine: Machine) -> None:
    """Run a while, then let one machine take up nothing more; its tasks go on."""
    for turn in range(SIZE):
        town.submit(turn)
    await town.until_certified(3)
    machine.engine.ordering.close()
    await town.until(lambda: machine.engine.chronicle.executed == machine.height)


def next_block(machine: Machine) -> Block:
    """An empty block on the executed tip, which no other node has seen."""
    tip = machine.engine.chronicle.ordered(machine.height)
    assert tip is not None
    return replace(
        tip[0],
        round=tip[0].round + 1,
        height=tip[0].height + 1,
        parent_id=tip[0].id,
        time_ms=tip[0].time_ms + 1,
        payload=(),
    )


# --- executing ------------------------------------------------------------------------------------


async def test_a_block_undone_and_executed_again_gives_the_same_result(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        await stood_still(town, machine)
        engine = machine.engine
        state, history = engine.execution.state, engine.execution.history
        before = state.height, state.root, history.size, history.root()
        block = next_block(machine)
        results: list[bytes] = []
        for _ in range(2):
            engine.execution.start(block)
            await town.until(lambda: engine.chronicle.executed == block.height)
            found = engine.chronicle._executed[block.height].statement
            results.append(found.encode())
            assert history.size == before[2] + 1
            engine.execution.undo(block.id)
            assert (state.height, state.root, history.size, history.root()) == before
        assert results[0] == results[1]
        with pytest.raises(LocalProtocolError, match="never undone"):
            engine.execution.undo(block.parent_id)


async def test_a_long_block_is_executed_in_slices_and_can_be_broken_off_between_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """The event loop gets its turns; what was broken off leaves no trace."""
    monkeypatch.setattr(execution, "SLICE_TRANSACTIONS", 2)
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        await stood_still(town, machine)
        engine = machine.engine
        engine.outbox.close()
        items = [transaction(number) for number in range(101, 121)]
        batch = engine.dissemination.batches.add_own(0, items, town.now_ms())
        before = engine.execution.state.root
        block = replace(next_block(machine), payload=(batch.item,))
        turns = 0
        engine.execution.start(block)
        while engine.chronicle.executed < block.height:
            await trio.lowlevel.checkpoint()
            turns += 1
        assert turns >= 20 // 2
        engine.execution.undo(block.id)

        engine.execution.start(block)
        for _ in range(4):
            await trio.lowlevel.checkpoint()
        assert engine.chronicle.executed < block.height
        engine.execution.rewind()
        await trio.sleep(1)
        assert engine.chronicle.executed == machine.height == engine.execution.state.height
        assert engine.execution.state.root == before


# --- the chronicle --------------------------------------------------------------------------------


async def test_a_height_reads_the_same_before_and_after_it_is_flushed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    monkeypatch.setattr(flushing, "SECONDS_MAX", 1000.0)
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        machine.engine.flusher._blocks = 1000
        txids = town.submit(0, 3)
        await stood_still(town, machine)
        known, store = machine.engine.chronicle, machine.engine.store
        assert store.height == 0
        heights = range(1, known.certified + 1)
        provable = known.provable()
        assert provable == known.certified

        def told() -> list[object]:
            rows: list[object] = [known.find(txid) for txid in txids]
            for height in heights:
                block = known.block(height)
                assert block is not None
                ordered = known.ordered(height)
                assert ordered is not None
                rows += [block.txids, block.roots, block.decisions, ordered[0].id]
                rows.append(known.state_root(height))
                evidence = known.evidence(height)
                assert evidence is not None
                rows.append(codec.encode(evidence.to_value()))
            return rows

        in_memory = told()
        assert await machine.engine.flusher.flush()
        assert store.height == provable
        assert known.unflushed_batches() == []
        assert told() == in_memory
        assert not await machine.engine.flusher.flush()

        # Beyond both ends there is nothing.
        for height in (-1, known.certified + 1):
            assert known.block(height) is None
            assert known.evidence(height) is None
        assert known.ordered(known.certified + 1) is None
        assert known.find(b"?" * 32) is None
        assert list(known.announced()) == []


async def test_heights_are_added_and_certified_in_order_and_only_so_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        await stood_still(town, machine)
        known = machine.engine.chronicle
        block = next_block(machine)
        assert known.newest is not None
        statement = replace(known.newest.statement, height=block.height)
        height = Height(block, statement, [], [], [], [], {}, b"", [], 0.0)
        with pytest.raises(LocalProtocolError, match="in order"):
            known.add(replace(height, block=replace(block, height=block.height + 1)))
        monkeypatch.setattr(chronicle, "HEIGHTS_MAX", len(known._executed))
        with pytest.raises(LocalProtocolError, match="wait to be flushed"):
            known.add(height)
        monkeypatch.undo()
        known.add(height)
        assert known.uncertified_tip() == block
        certificate = CommitCert(statement, known.newest.signatures)
        with pytest.raises(LocalProtocolError, match="certified in order"):
            known.certify(b"?" * 32, certificate)
        with pytest.raises(LocalProtocolError, match="only the tip"):
            known.undo(b"?" * 32)


# --- flushing -------------------------------------------------------------------------------------


async def test_a_flush_ends_where_a_certificate_is_and_counts_delivered_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """Commit votes for most heights are lost, so certificates cover several heights at once."""
    monkeypatch.setattr(flushing, "HEIGHTS_PER_FLUSH_MAX", 3)
    town = Town(tmp_path)
    machine = town.machines[0]
    turn = 0

    def lossy(_by: int, _peer: int, _cls: object, payload: bytes) -> bool:
        nonlocal turn
        turn += 1
        return payload[1:2] != b"\x04" or turn % 3 > 0

    town.taps.append(lossy)
    async with running(town):
        for number in range(12):
            town.submit(number % SIZE)
            await trio.sleep(0.1)
        await town.until_certified(10)
        await town.until(lambda: machine.engine.store.height >= 10)
        view = machine.engine.store.view
        assert view.certificate(view.height) is not None
        numbers = [0] * SIZE
        for height in range(1, view.height + 1):
            found = machine.engine.chronicle.ordered(height)
            assert found is not None
            for item in found[0].payload:
                numbers[item.origin] = max(numbers[item.origin], item.number)
        assert codec.parse(view.meta(META_NUMBERS) or b"") == numbers
        assert sum(numbers) > 4


async def test_whatever_was_not_flushed_before_a_crash_is_flushed_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, autojump_clock: object
) -> None:
    """After a start one certificate covers all of it: more heights than one flush is to write."""
    monkeypatch.setattr(flushing, "HEIGHTS_PER_FLUSH_MAX", 3)
    flush = Flusher.flush
    stuck: list[Flusher] = []

    async def held_up(flusher: Flusher) -> bool:
        if flusher in stuck:
            await trio.sleep_forever()
        return await flush(flusher)

    monkeypatch.setattr(Flusher, "flush", held_up)
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town) as nursery:
        stuck.append(machine.engine.flusher)
        await town.until_certified(9)
        assert machine.engine.store.height == 0
        machine.cut_power()
        await town.until(lambda: not machine.powered)
        machine.lose()
        await nursery.start(machine.run)
        await town.until(lambda: machine.engine.store.height >= 9)


def record_row(id_: list[codec.Value], *, writes: int = 1) -> Row:
    values = {"note": codec.encode(0)}
    stem = codec.encode("file") + codec.encode(1) + codec.encode(id_)
    stored, vh = record.create(b"k" * 32, stem, values, [bytes(16)])
    for number in range(1, writes):
        stored, vh = record.update(
            stored, b"k" * 32, {"note": codec.encode(number)}, [bytes(16)], number + 1
        )
    return Row(vh, 7, record.encode_row(stored))


def test_the_own_index_takes_new_records_however_often_written_and_keys_that_fit() -> None:
    """A record made and written again before the same flush is as new as any."""
    names = ["plain", "written twice", "stored"]
    rows = [
        (b"1" * 32, record_row([names[0]])),
        (b"2" * 32, record_row([names[1]], writes=3)),
        (b"3" * 32, record_row([names[2]], writes=3)),
        (b"4" * 32, record_row(["x" * 600])),
        (b"5" * 32, Row(b"v" * 32, 7, encode_single(1, bytes(16), codec.encode([0])))),
    ]
    found = index_entries(rows, lambda kh: kh == b"3" * 32, Paths(bytes(32)))
    assert [kh for _, kh in found] == [b"1" * 32, b"2" * 32]
    assert [key for key, _ in found] == [index_key("file", [name]) for name in names[:2]]
    assert index_key("file", ["a"]) == codec.encode("file") + b"\x81" + codec.encode("a")


def test_the_own_index_takes_kernel_objects_and_nothing_that_looks_like_one() -> None:
    paths = Paths(b"c" * 32)
    key = layout.Key(b"k" * 32, b"p" * 32, layout.ACTIVE, 0)
    role = layout.Role(b"p" * 32, "care.worker", [], 0, None, None, layout.ACTIVE)
    places = {("key", (key.key,)): key, ("role", (role.principal, role.role)): role}
    rows = [
        (
            paths(space, [*id_]),
            Row(b"v" * 32, 7, encode_single(1, bytes(16), codec.encode([*leaf]))),
        )
        for (space, id_), leaf in places.items()
    ]
    false = Row(b"v" * 32, 7, encode_single(1, bytes(16), codec.encode([*key])))
    account = Row(b"v" * 32, 7, encode_single(1, bytes(16), codec.encode([["pot", "a"], 1, 0, 0])))
    rows += [(paths("key", [b"x" * 32]), false), (paths("account", ["pot", "a"]), account)]
    found = index_entries(rows, lambda kh: False, paths)
    assert [key for key, _ in found] == [index_key(space, id_) for space, id_ in places]
    assert [
        id_of(space, row.value) for (space, _), (_, row) in zip(places, rows, strict=False)
    ] == [id_ for _, id_ in places]
