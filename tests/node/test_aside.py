"""What transactions overwrote: kept as long as they may be taken back, then removed bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest

from consensus.ledger.evidence import Overwritten
from consensus.ledger.executor import Aside
from consensus.state.record import Leaf
from node import aside
from node.storage.flush import FlushBatch
from node.storage.store import Store

DAY_MS = 86_400_000


def leaf(number: int) -> Leaf:
    return Leaf("text", number, bytes([number]) * 16, bytes([number]), bytes([number]) * 32)


def kept(number: int, days: int) -> Aside:
    return Aside(bytes([number]) * 32, days, (leaf(number), leaf(number + 1)))


async def store_with(folder: Path, *batches: list[aside.Change]) -> Store:
    store = Store.open(folder / "store", chain=bytes(32))
    for changes in batches:
        await store.flush(FlushBatch(height=0, aside=changes))
    return store


async def test_leaves_are_found_again_by_their_hashes(tmp_path: Path) -> None:
    store = await store_with(tmp_path, aside.entries([kept(7, 3)], 1000))
    value = store.view.aside(aside.key(bytes([7]) * 32))
    assert value is not None
    assert aside.read(value) == {
        bytes([n]) * 32: Overwritten(n, bytes([n]) * 16, bytes([n])) for n in (7, 8)
    }
    store.close()


def test_a_transaction_that_overwrote_nothing_takes_no_room() -> None:
    assert aside.entries([Aside(bytes(32), 3, ())], 1000) == []


async def test_each_is_removed_after_its_own_last_moment_and_not_before(tmp_path: Path) -> None:
    found = aside.entries([kept(7, 3), kept(9, 5)], 1000)
    store = await store_with(tmp_path, found)
    assert aside.ended(store.view.aside_keys, 1000 + 3 * DAY_MS) == []
    over = aside.ended(store.view.aside_keys, 1001 + 3 * DAY_MS)
    assert [key for key, _ in over] == [found[1][0], found[0][0]]
    await store.flush(FlushBatch(height=0, aside=over))
    assert store.view.aside(aside.key(bytes([7]) * 32)) is None
    assert store.view.aside(aside.key(bytes([9]) * 32)) is not None
    assert aside.ended(store.view.aside_keys, 1001 + 3 * DAY_MS) == []
    store.close()


async def test_a_flush_removes_only_so_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aside, "REMOVED_MAX", 2)
    store = await store_with(tmp_path, aside.entries([kept(n, 1) for n in range(1, 10, 2)], 0))
    left = []
    for _ in range(4):
        over = aside.ended(store.view.aside_keys, DAY_MS * 2)
        left.append(len(over) // 2)
        await store.flush(FlushBatch(height=0, aside=over))
    assert left == [2, 2, 1, 0]
    store.close()
