"""The state as it was after any height: against a plain record of all states that ever were."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consensus.errors import LocalProtocolError
from consensus.state.changes import CHANGE_BYTES
from consensus.state.merkle import CHANGES
from consensus.state.state import Row, State
from node.past import Past, Pruned
from node.storage import versions
from node.storage.flush import BlockData, FlushBatch
from node.storage.store import Store

CHAIN = b"\x07" * 32
ZERO = bytes(32)


def key(number: int) -> bytes:
    return random.Random(number).randbytes(32)


class World:
    """A state over a store, with every state that ever was written down beside it."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.store = Store.open(folder, chain=CHAIN)
        self.state = State(self.store.state, 4, -1)
        self.recent: tuple[Any, ...] = ()
        self.then: list[dict[bytes, Row]] = []
        self.changes: list[list[bytes]] = []
        self.roots: list[bytes] = []
        self.past = Past(self.store, lambda: self.recent)
        self.remembers = bool(seed % 2)
        """Whether a flush is told the rows that were in memory."""

    def block(self, *keys: bytes, vh: bytes | None = None) -> int:
        writes = []
        for kh in keys:
            new = vh or bytes([self.random.choice((0, 1, 2, 3))]) + self.random.randbytes(31)
            writes.append((kh, new, self.random.randbytes(self.random.randrange(40))))
        applied = self.state.apply(writes)
        height = self.state.height
        self.then.append({**(self.then[-1] if self.then else {}), **applied.rows})
        self.changes.append(applied.changes)
        self.roots.append(applied.changes_root)
        changes = b"".join(applied.changes)
        found = SimpleNamespace(
            block=SimpleNamespace(height=height), rows=applied.rows, changes=changes
        )
        found.before = applied.before if self.remembers else ()
        self.recent = (*self.recent, found)
        return height

    def flush(self, upto: int, *, forget: int = -1) -> None:
        blocks = [
            BlockData(
                each.block.height, b"", b"", each.changes, None, (), (), each.rows, each.before
            )
            for each in self.recent
            if each.block.height <= upto
        ]
        rows = self.state.pending(upto)
        self.store.write(FlushBatch(upto, rows=rows, blocks=blocks, forget=forget))
        self.state.flushed(upto)
        self.recent = tuple(each for each in self.recent if each.block.height > upto)

    def check(self, keys: list[bytes], first: int = 0) -> None:
        for height in range(first, self.state.height + 1):
            found = self.past.rows_at(height, keys)
            assert found == [self.then[height].get(kh) for kh in keys], f"height {height}"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "state")
    yield made
    made.store.close()


@pytest.mark.parametrize("seed", range(6))
def test_every_row_of_every_height_is_told_whatever_was_flushed_when(
    tmp_path: Path, seed: int
) -> None:
    world = World(tmp_path / "state", seed)
    keys = [key(number) for number in range(7)]
    try:
        for _ in range(60):
            hot = keys[: world.random.choice((1, 1, 2, 7))]
            world.block(*(kh for kh in hot if world.random.random() < 0.7))
            if world.random.random() < 0.3:
                unflushed = range(world.store.height + 1, world.state.height + 1)
                world.flush(world.random.choice(unflushed))
            if world.random.random() < 0.1:
                world.check([*keys, key(99)])
        world.check([*keys, key(99)])
    finally:
        world.store.close()


def test_a_version_that_lived_between_two_flushes_is_kept(world: World) -> None:
    world.block(key(1))
    for _ in range(5):
        world.block(key(1))
    world.flush(5)
    values = {row.value for (row,) in (world.past.rows_at(h, [key(1)]) for h in range(6)) if row}
    assert len(values) == 6


def test_a_deleted_row_is_told_as_a_tombstone_and_what_was_before_as_a_row(world: World) -> None:
    world.block(key(1))
    world.block(key(1), vh=ZERO)
    world.block(key(1))
    world.flush(2)
    before, gone, back = (world.past.rows_at(height, [key(1)])[0] for height in range(3))
    assert before is not None
    assert before.vh != ZERO
    assert gone is not None
    assert gone.vh == ZERO
    assert back is not None
    assert back.vh != ZERO


@pytest.mark.parametrize("flushed", [0, 3, 7, 11])
def test_changes_are_listed_newest_first_from_memory_and_store(world: World, flushed: int) -> None:
    for height in range(12):
        world.block(*(kh for kh in (key(1), key(2)) if height % 3 or kh == key(2)))
    world.flush(flushed)
    expected = [h for h in range(11, -1, -1) if h % 3]
    found = list(world.past.changes_of(key(1), 11))
    assert [each.height for each in found] == expected
    assert [each.previous for each in found] == [*expected[1:], -1]
    assert [each.vh for each in found] == [world.then[h][key(1)].vh for h in expected]
    assert [each.height for each in world.past.changes_of(key(1), 6)] == [5, 4, 2, 1]
    assert list(world.past.changes_of(key(3), 11)) == []


def test_a_long_list_of_changes_goes_on_over_several_snapshots(world: World) -> None:
    for height in range(600):
        world.block(key(1))
        if height % 100 == 99:
            world.flush(height - 3)
    assert [each.height for each in world.past.changes_of(key(1), 599)] == [*range(599, -1, -1)]


@pytest.mark.parametrize("flushed", [0, 4])
def test_the_path_of_a_change_leads_to_the_changes_root_of_its_height(
    world: World, flushed: int
) -> None:
    for _ in range(5):
        world.block(*(key(number) for number in range(21)))
    world.flush(flushed)
    for height in range(5):
        found = world.past.change_path(height, key(13))
        record = key(13) + found.vh + found.previous.to_bytes(8, "big", signed=True)
        assert world.changes[height][found.index] == record
        leaf = versions_leaf(record)
        CHANGES.verify_path(world.roots[height], found.count, found.index, leaf, found.path)


def versions_leaf(record: bytes) -> bytes:
    from blake3 import blake3

    assert len(record) == CHANGE_BYTES
    return blake3(record, derive_key_context="comity 2026-11-21 change v1").digest()


def test_milestones_keep_the_search_short(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for height in range(400):
        world.block(key(1), vh=bytes([height % 50 > 0]) + key(height)[1:])
    world.flush(399)
    steps = []
    real = versions.PastView.change

    def counted(view: versions.PastView, height: int, kh: bytes) -> Any:
        steps.append(height)
        return real(view, height, kh)

    monkeypatch.setattr(versions.PastView, "change", counted)
    (row,) = world.past.rows_at(120, [key(1)])
    assert row == world.then[120][key(1)]
    assert steps == list(range(150, 120, -1))


# --- the horizon ------------------------------------------------------------------------------


def test_below_the_horizon_rows_are_refused_and_from_it_on_all_are_told(world: World) -> None:
    keys = [key(number) for number in range(4)]
    for height in range(12):
        world.block(*keys[: 1 + height % 4])
        if height % 4 == 3:
            world.flush(height, forget=height - 5)
    assert world.store.view.horizon == 6
    world.check(keys, first=6)
    with pytest.raises(Pruned) as refused:
        world.past.rows_at(5, keys)
    assert refused.value.horizon == 6
    assert "6" in refused.value.message
    assert refused.value.code == "PRUNED"


def test_changes_stay_below_the_horizon(world: World) -> None:
    for _ in range(10):
        world.block(key(1))
    world.flush(9, forget=8)
    assert [each.height for each in world.past.changes_of(key(1), 9)] == [*range(9, -1, -1)]
    assert world.past.change_path(0, key(1)).previous == -1


def test_forgetting_frees_what_was_replaced_and_nothing_twice(world: World) -> None:
    for _ in range(10):
        world.block(key(1))
    world.flush(4, forget=2)
    world.flush(9, forget=2)
    assert world.store.view.horizon == 2
    with world.store.reading() as view:
        assert view.horizon == 2
    world.check([key(1)], first=2)


def test_a_store_that_began_at_a_snapshot_says_where_its_past_begins(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state", chain=CHAIN)
    past = Past(store, lambda: ())
    old, new = Row(key(2), 500, b"old"), Row(key(3), 813, b"new")
    store.write(FlushBatch(812, rows=[(key(1), old)]))
    record = key(1) + new.vh + (500).to_bytes(8, "big")
    block = BlockData(813, b"", b"", record, None, (), (), {key(1): new})
    store.write(FlushBatch(813, rows=[(key(1), new)], blocks=[block]))
    assert past.rows_at(812, [key(1)]) == [old]
    assert past.rows_at(813, [key(1)]) == [new]
    with pytest.raises(Pruned) as refused:
        past.rows_at(811, [key(1)])
    assert refused.value.horizon == 812
    changes = past.changes_of(key(1), 813)
    assert next(changes).height == 813
    with pytest.raises(Pruned) as refused:
        list(past.changes_of(key(1), 600))
    assert refused.value.horizon == 813
    store.close()


def test_a_store_without_a_past_begins_it_where_it_is(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state", chain=CHAIN)
    store.write(FlushBatch(0, rows=[(key(1), Row(key(2), 0, b"old"))]))
    with store._environment.begin(write=True) as txn:
        txn.delete(b"_horizon", db=store._opened.meta)
        txn.put(b"_height", (40).to_bytes(8, "big"), db=store._opened.meta)
    store.renew()
    assert store.view.horizon == 40
    store.write(FlushBatch(41, blocks=[BlockData(41, b"", b"", b"", None, (), ())]))
    assert store.view.horizon == 40
    store.close()


# --- edges ------------------------------------------------------------------------------------


def test_heights_that_are_not_certified_are_a_bug_of_who_asks(world: World) -> None:
    world.block(key(1))
    for height in (-1, 1):
        with pytest.raises(LocalProtocolError, match="not certified"):
            world.past.rows_at(height, [key(1)])
    with pytest.raises(LocalProtocolError, match="at once"):
        world.past.rows_at(0, [key(1)] * 4097)
    with pytest.raises(LocalProtocolError, match="did not change"):
        world.past.change_path(0, key(2))


def test_rows_and_changes_of_a_height_must_match(world: World) -> None:
    row = Row(key(2), 0, b"")
    block = BlockData(0, b"", b"", b"\1" * 144, None, (), (), {key(1): row})
    with pytest.raises(LocalProtocolError, match="as many rows as changes"):
        world.store.write(FlushBatch(0, blocks=[block]))


def test_threads_read_while_heights_are_made_and_flushed(tmp_path: Path) -> None:
    world = World(tmp_path / "state", 3)
    keys = [key(number) for number in range(5)]
    for _ in range(20):
        world.block(*keys[:3])
    faults: list[BaseException] = []
    begun, done = threading.Event(), threading.Event()

    def read() -> None:
        chosen = random.Random(4)
        try:
            while not done.is_set():
                height = chosen.randrange(len(world.recent and world.then[:20]) or 20)
                found = world.past.rows_at(height, keys)
                assert found == [world.then[height].get(kh) for kh in keys]
                begun.set()
        except BaseException as error:
            faults.append(error)
            begun.set()

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    begun.wait(10)
    for _ in range(40):
        world.block(*keys)
        world.flush(world.state.height - 2)
    done.set()
    for thread in threads:
        thread.join(10)
    assert faults == []
    world.store.close()


def test_a_store_that_must_grow_waits_for_readers_and_then_they_go_on(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "state", chain=CHAIN, map_bytes=1 << 20)
    store.write(FlushBatch(0, rows=[(key(1), Row(key(2), 0, b"kept"))]))
    reading, leave = threading.Event(), threading.Event()
    found: list[Row | None] = []

    def read() -> None:
        with store.reading() as view:
            reading.set()
            leave.wait(10)
            found.append(view.row(key(1)))
        with store.reading() as view:
            found.append(view.row(key(1)))

    thread = threading.Thread(target=read)
    thread.start()
    reading.wait(10)
    threading.Timer(0.05, leave.set).start()
    rows = [(key(number), Row(key(2), 0, bytes(4000))) for number in range(2, 900)]
    store.write(FlushBatch(0, rows=rows))
    thread.join(10)
    assert found == [Row(key(2), 0, b"kept")] * 2
    store.close()


@pytest.mark.parametrize("seed", range(4))
def test_the_line_of_a_key_goes_on_from_any_height(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path / "state", seed)
    try:
        for height in range(50):
            world.block(*([key(1)] if world.random.random() < 0.6 else [key(2)]))
            if world.random.random() < 0.2:
                world.flush(world.random.randrange(world.store.height + 1, height + 1))
        line = [each.height for each in world.past.changes_of(key(1), 49)][::-1]
        with world.past.moment() as moment:
            for height in range(50):
                for count in (1, 3, 100):
                    before = [each for each in line if each <= height]
                    after = [each for each in line if each > height]
                    found = moment.line(key(1), height, count)
                    assert found == (before[-1] if before else -1, after[:count])
            assert moment.line(key(9), 3, 5) == (-1, [])
    finally:
        world.store.close()
