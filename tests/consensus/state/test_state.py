"""The working state: roots against the model, undo, flushing, order, a bounded cache."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.errors import LocalProtocolError
from consensus.state import proof, tree
from consensus.state.state import MemoryBackend, Row, State
from consensus.state.subtree import root_of_row

from . import model

Write = tuple[bytes, bytes, bytes]


def key(number: int, prefix: bytes = b"") -> bytes:
    return (prefix + model.digest("test key", number.to_bytes(4, "big")))[:32]


def value_hash(number: int) -> bytes:
    return model.digest("test value", number.to_bytes(8, "big"))


def write(kh: bytes, number: int) -> Write:
    return kh, value_hash(number), number.to_bytes(8, "big")


CROWD = b"\xa7\x31\x88\x10"


class Pair:
    """A state under test beside the plain model, with the store's flushing under control."""

    def __init__(self, depth: int) -> None:
        self.depth = depth
        self.backend = MemoryBackend()
        self.state = State(self.backend, depth, -1)
        self.heights: list[dict[bytes, Row]] = [{}]

    @property
    def rows(self) -> dict[bytes, Row]:
        return self.heights[-1]

    def apply(self, writes: list[Write]) -> None:
        height = self.state.height + 1
        before = self.rows
        applied = self.state.apply(writes)
        changes = [
            (kh, vh, before[kh].changed_height if kh in before else -1) for kh, vh, _ in writes
        ]
        self.heights.append({**before, **{kh: Row(vh, height, v) for kh, vh, v in writes}})
        assert applied.changes == [kh + vh + model.eight(at) for kh, vh, at in sorted(changes)]
        assert applied.changes_root == model.changes_root(changes)
        assert applied.state_root == self.state.root
        self.check()

    def undo(self) -> None:
        self.state.undo()
        self.heights.pop()
        self.check()

    def check(self) -> None:
        entries = {kh: (row.vh, row.changed_height) for kh, row in self.rows.items()}
        assert self.state.root == model.state_root(self.depth, entries)
        assert self.state.key_count == len(entries)
        assert self.state.height == len(self.heights) - 2
        for kh, row in self.rows.items():
            assert self.state.get(kh) == row
        assert self.state.get(bytes(32)) is None

    def check_store(self) -> None:
        height = self.state.flushed_height
        assert {kh: self.backend.get(kh) for kh, _, _ in self.backend.entries()} == self.heights[
            height + 1
        ]
        again = State(self.backend, self.depth, height)
        entries = {kh: (row.vh, row.changed_height) for kh, row in self.heights[height + 1].items()}
        assert again.root == model.state_root(self.depth, entries)


def test_empty_state_has_the_root_of_no_entries() -> None:
    for depth in (4, 6, 16):
        assert State(MemoryBackend(), depth).root == model.state_root(depth, {})


@pytest.mark.parametrize("depth", [-2, 0, 2, 3, 5, 26])
def test_depth_that_genesis_may_not_choose_is_refused(depth: int) -> None:
    with pytest.raises(LocalProtocolError):
        State(MemoryBackend(), depth)


@pytest.mark.parametrize("depth", [4, 6, 8, 16])
@pytest.mark.parametrize("crowded", [0, 17, 200])
def test_root_equals_the_recursive_definition(depth: int, crowded: int) -> None:
    pair = Pair(depth)
    keys = [key(i) for i in range(300)] + [key(i, CROWD) for i in range(crowded)]
    pair.apply([write(kh, 1) for kh in keys])
    pair.apply([write(kh, 2) for kh in keys[::3]])
    pair.apply([write(kh, 3) for kh in keys[::50]] + [write(key(999, CROWD), 3)])


def test_page_holds_sixteen_entries_and_the_seventeenth_splits_it() -> None:
    pair = Pair(4)
    keys = [key(i, CROWD + bytes(20)) for i in range(18)]
    pair.apply([write(kh, 1) for kh in keys[:16]])
    assert isinstance(pair.state.prove([keys[0]]).pages[0], bytes)
    pair.apply([write(keys[16], 2)])
    pages = pair.state.prove([keys[0]]).pages
    assert set(pages[:-1]) == {17}
    assert len(pages) > (24 * 8 - 4) // 2, "one branch for every two bits that all keys share"
    pair.apply([write(keys[17], 3)])
    pair.undo()
    pair.undo()
    assert isinstance(pair.state.prove([keys[0]]).pages[0], bytes)


def test_shape_does_not_depend_on_how_the_entries_came() -> None:
    keys = [key(i, CROWD) for i in range(60)] + [key(i) for i in range(60)]
    rows = [(kh, Row(value_hash(i), 0, b"")) for i, kh in enumerate(keys)]
    built = State(MemoryBackend(rows), 6).root
    applied = State(MemoryBackend(), 6, -1)
    assert applied.apply([(kh, row.vh, b"") for kh, row in rows]).state_root == built


def test_rebuild_in_small_parts_gives_the_same_root(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [key(i, CROWD) for i in range(60)] + [key(i) for i in range(60)]
    backend = MemoryBackend([(kh, Row(value_hash(i), 3, b"")) for i, kh in enumerate(keys)])
    whole = State(backend, 8, 3)
    monkeypatch.setattr(tree, "_BUILD_PAGES_MAX", 2)
    monkeypatch.setattr(tree, "NODES_MAX", 2)
    parts = State(backend, 8, 3)
    entries = {kh: (value_hash(i), 3) for i, kh in enumerate(keys)}
    assert whole.root == parts.root == model.state_root(8, entries)
    assert (parts.depth, parts.height, parts.flushed_height) == (8, 3, 3)


def test_result_does_not_depend_on_the_order_of_writes() -> None:
    keys = [key(i, CROWD) for i in range(20)] + [key(i) for i in range(20)]
    results = set()
    for seed in range(5):
        state = State(MemoryBackend(), 4, -1)
        writes = [write(kh, i) for i, kh in enumerate(keys)]
        random.Random(seed).shuffle(writes)
        first = state.apply(writes)
        second = state.apply(writes[:7][::-1] if seed % 2 else writes[:7])
        results.add((first.state_root, first.changes_root, tuple(first.changes)))
        assert second.state_root == state.root
    assert len(results) == 1


def test_block_without_writes_keeps_the_root_and_steps_the_height() -> None:
    pair = Pair(4)
    pair.apply([write(key(1), 1)])
    root = pair.state.root
    pair.apply([])
    assert pair.state.root == root


def test_tombstone_stays_an_entry_and_is_counted() -> None:
    pair = Pair(4)
    pair.apply([write(key(1), 1), write(key(2), 1)])
    pair.apply([(key(1), model.ZERO, b"")])
    assert pair.state.key_count == 2
    assert pair.state.get(key(1)) == Row(model.ZERO, 1, b"")
    shown = proof.verify(pair.state.prove([key(1)]).encode(), pair.state.root, [key(1)])
    assert shown == {key(1): (model.ZERO, 1)}
    pair.apply([write(key(1), 3)])


def test_key_written_while_its_older_write_is_flushed_and_then_undone_is_exact() -> None:
    """Written at h, certified; the flush is under way when h + 2 writes it again and is undone."""
    pair = Pair(4)
    kh, others = key(1), [key(i) for i in range(2, 40)]
    pair.apply([write(other, 0) for other in others])
    pair.apply([write(kh, 1)])
    rows = pair.state.pending(1)
    pair.apply([write(others[0], 2)])
    pair.apply([write(kh, 3)])
    pair.backend.write(rows)
    pair.check()
    assert pair.backend.get(kh) == Row(value_hash(1), 1, (1).to_bytes(8, "big"))
    pair.state.flushed(1)
    pair.check()
    pair.undo()
    assert kh not in pair.state._overlay, "the store holds it"
    pair.apply([write(kh, 4)])
    pair.undo()
    pair.undo()
    pair.check_store()
    with pytest.raises(LocalProtocolError):
        pair.state.undo()
    pair.check()


def test_undo_between_writing_the_store_and_hearing_of_it() -> None:
    pair = Pair(4)
    pair.apply([write(key(1), 0), write(key(2), 0)])
    pair.apply([write(key(1), 1), write(key(3), 1)])
    pair.apply([write(key(1), 2), write(key(4), 2)])
    pair.backend.write(pair.state.pending(1))
    pair.undo()
    pair.state.flushed(1)
    pair.check()
    pair.check_store()


def test_pending_rows_are_the_newest_of_each_key_up_to_the_height() -> None:
    pair = Pair(4)
    pair.apply([write(key(1), 0), write(key(2), 0)])
    pair.apply([write(key(1), 1)])
    pair.apply([write(key(1), 2), write(key(3), 2)])
    for height in (-1, 0, 1, 2):
        rows = pair.state.pending(height)
        assert rows == sorted(pair.heights[height + 1].items())


def test_key_written_twice_in_a_block_is_our_bug() -> None:
    state = State(MemoryBackend(), 4)
    root = state.root
    bad: list[list[Write]] = [
        [write(key(1), 1), write(key(1), 2)],
        [(b"short", value_hash(1), b"")],
        [(key(1), b"short", b"")],
    ]
    for writes in bad:
        with pytest.raises(LocalProtocolError):
            state.apply(writes)
    assert (state.root, state.height) == (root, 0)


def test_store_whose_entries_do_not_ascend_is_refused() -> None:
    class Unsorted(MemoryBackend):
        def entries(self):  # type: ignore[no-untyped-def]
            return reversed(list(super().entries()))

    backend = Unsorted([(key(i), Row(value_hash(i), 0, b"")) for i in range(3)])
    with pytest.raises(LocalProtocolError, match="ascend"):
        State(backend, 4)


def test_flushing_beyond_the_tip_or_backwards_is_refused() -> None:
    pair = Pair(4)
    pair.apply([write(key(1), 0)])
    for height in (1, -2):
        with pytest.raises(LocalProtocolError):
            pair.state.flushed(height)


def test_unflushed_heights_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consensus.state.state.UNFLUSHED_MAX", 3)
    pair = Pair(4)
    for height in range(3):
        pair.apply([write(key(height), height)])
    with pytest.raises(LocalProtocolError, match="flushed"):
        pair.state.apply([])
    pair.backend.write(pair.state.pending(0))
    pair.state.flushed(0)
    pair.apply([])


def test_memory_holds_only_what_is_not_flushed() -> None:
    pair = Pair(4)
    for height in range(5):
        pair.apply([write(key(i), height) for i in range(height, height + 3)])
    pair.backend.write(pair.state.pending(4))
    pair.state.flushed(4)
    assert not pair.state._overlay
    assert not pair.state._blocks


def test_row_is_read_from_the_store_once_and_an_absence_too() -> None:
    asked: list[bytes] = []

    class Counting(MemoryBackend):
        def get(self, kh: bytes) -> Row | None:
            asked.append(kh)
            return super().get(kh)

    backend = Counting([(key(1), Row(value_hash(1), 0, b"one"))])
    state = State(backend, 4)
    for _ in range(3):
        assert state.get(key(1)) == Row(value_hash(1), 0, b"one")
        assert state.get(key(2)) is None
    assert asked == [key(1), key(2)]
    state.apply([write(key(1), 5), write(key(2), 5)])
    state.undo()
    assert (state.get(key(1)), state.get(key(2))) == (Row(value_hash(1), 0, b"one"), None)
    state.apply([write(key(1), 6), write(key(2), 6)])
    backend.write(state.pending(1))
    state.flushed(1)
    assert state.get(key(1)) == Row(value_hash(6), 1, (6).to_bytes(8, "big"))
    assert state.get(key(2)) == Row(value_hash(6), 1, (6).to_bytes(8, "big"))
    assert asked == [key(1), key(2)]


def test_rows_kept_of_the_store_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("consensus.state.state.STORED_MAX", 8)
    state = State(MemoryBackend(), 4)
    for number in range(30):
        assert state.get(key(number)) is None
        assert len(state._stored) <= 8


def test_nodes_that_the_store_has_are_forgotten_and_all_others_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tree, "NODES_MAX", 8)
    pair = Pair(6)
    for height in range(4):
        pair.apply([write(key(number), height) for number in range(height, 40)])
    pair.backend.write(pair.state.pending(1))
    pair.state.flushed(1)
    pair.apply([write(key(0), 4)])
    pair.undo()
    assert len(pair.state._tree._nodes) > 8
    pair.backend.write(pair.state.pending(3))
    pair.state.flushed(3)
    assert len(pair.state._tree._nodes) <= 8
    pair.apply([write(key(number), 5) for number in range(40)])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32), st.sampled_from([4, 6, 8]), st.sampled_from([4, 16, 1 << 15]))
def test_any_sequence_of_blocks_undos_and_flushes_agrees_with_the_model(
    seed: int, depth: int, cache: int
) -> None:
    rng = random.Random(seed)
    pool = [key(i, CROWD) for i in range(25)] + [key(i, CROWD[:1]) for i in range(25)]
    pool += [key(i) for i in range(50)]
    numbers = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "NODES_MAX", cache)
        patch.setattr("consensus.state.state.STORED_MAX", cache)
        pair = Pair(depth)
        waiting: int | None = None
        for _ in range(25):
            match rng.choice(["apply", "apply", "apply", "undo", "store", "flushed", "prove"]):
                case "apply":
                    keys = rng.sample(pool, rng.choice([0, 1, 3, 30]))
                    pair.apply([write(kh, next(numbers)) for kh in keys])
                case "undo":
                    floor = pair.state.flushed_height if waiting is None else waiting
                    if pair.state.height > floor:
                        pair.undo()
                case "store" if waiting is None and pair.state.height >= 0:
                    waiting = rng.randint(max(0, pair.state.flushed_height), pair.state.height)
                    pair.backend.write(pair.state.pending(waiting))
                    pair.check()
                case "flushed" if waiting is not None:
                    pair.state.flushed(waiting)
                    waiting = None
                    pair.check()
                    pair.check_store()
                case "prove" if pair.state.height >= 0:
                    keys = rng.sample(pool, 5)
                    shown = proof.verify(pair.state.prove(keys).encode(), pair.state.root, keys)
                    for kh in keys:
                        row = pair.rows.get(kh)
                        assert shown[kh] == (row and (row.vh, row.changed_height))
        written = {name for block in pair.state._blocks for name in block.tree.nodes}
        assert written <= pair.state._tree._nodes.keys()
        for _ in range(25):  # past the heights of what was undone
            pair.apply([])
        pair.backend.write(pair.state.pending(pair.state.height))
        pair.state.flushed(pair.state.height)
        assert len(pair.state._tree._nodes) <= cache


def test_large_block_into_one_page_equals_the_definition() -> None:
    pair = Pair(4)
    pair.apply([write(key(i, CROWD), 1) for i in range(400)])
    pair.apply([write(key(i, CROWD), 2) for i in range(390, 700)])
    pair.undo()
    pair.undo()


def test_page_finds_a_key_whose_bytes_also_occur_across_entries() -> None:
    """A value hash may contain the bytes of another key; only aligned matches count."""
    first, second = key(1, CROWD), key(2, CROWD)
    low, high = sorted([first, second])
    pair = Pair(4)
    pair.apply([(low, high, b""), (high, low, b"")])
    pair.apply([(high, value_hash(2), b"")])
    pair.apply([(low, value_hash(3), b"")])
    third = max(key(i, CROWD) for i in range(3, 30))
    fresh = Pair(4)
    fresh.apply([(low, third, b""), (high, third, b"")])
    fresh.apply([(third, value_hash(1), b"")])


@given(st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=12), min_size=1, max_size=6))
def test_the_row_of_the_store_is_that_of_a_tree_without_what_lies_above_it(
    heights: list[list[int]],
) -> None:
    backend = MemoryBackend()
    state = State(backend, 8, -1)
    flushed = len(heights) // 2
    for height, firsts in enumerate(heights):
        keys = {bytes([first, height if first % 3 else 0]) * 16 for first in firsts}
        state.apply([(kh, bytes([height + 1]) * 32, b"value") for kh in keys])
        if height + 1 == flushed:
            backend.write(state.pending(height))
            state.flushed(height)
    alone = State(backend, 8, flushed - 1)
    for bits in (0, 4, 8):
        assert state.stored_row(bits) == alone.stored_row(bits)
        count, row = state.stored_row(bits)
        assert root_of_row(8, count, row) == alone.root
