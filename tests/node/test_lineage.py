"""A node's proofs of its past: from memory and store, across flushes, and after forgetting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from consensus import codec
from consensus.ledger.layout import Paths
from consensus.past import FORGOTTEN
from consensus.protocol import StateKey
from consensus.state import statement
from consensus.state.changes import HistoryProof, Version, verify
from node import past
from node.api.backend import Lineage, PrunedError
from node.backend import Backend
from node.lineage import Lineages
from node.past import Pruned
from node.storage.flush import BlockData, FlushBatch
from node.storage.store import Store
from tests.consensus.ledger.authors import ANNA
from tests.node.machines import CHAIN, Machine, Town, inline_threads, running
from tests.node.test_backend import Checks, backend_of

__all__ = ["inline_threads"]

pytestmark = pytest.mark.usefixtures("inline_threads", "autojump_clock")

SPENT = StateKey("sequence", (ANNA.key,))
"""A leaf that every transaction of ANNA writes."""
KH = Paths(CHAIN)("sequence", (ANNA.key,))


async def shown(
    backend: Backend, machine: Machine, first: int, last: int | None = None, limit: int = 64
) -> tuple[tuple[Version, ...], Lineage]:
    """What the node proves, verified under its own certified statement."""
    chronicle = machine.engine.chronicle
    await machine.town.until(lambda: chronicle.executed == chronicle.certified)
    (proved,) = await backend.prove(0, [lambda _: [SPENT]])
    end = proved.height if last is None else last
    found = await backend.lineage(SPENT, proved.height, first, end, limit)
    newest = chronicle.statement(proved.height)
    assert newest is not None
    proof = HistoryProof(found.steps, proved.proof if found.ended else None)
    versions = verify(proof.encode(), statement.read(newest), KH, first, found.last)
    return versions, found


async def lived(town: Town, count: int) -> None:
    """Decide transactions one by one, each in a block of its own."""
    for _ in range(count):
        before = town.machines[0].height
        town.submit(0)
        await town.until(lambda before=before: town.machines[0].height > before)
    await town.until_certified(town.machines[0].height, 0)


async def test_all_changes_are_proved_from_memory_and_store(tmp_path: Path) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        backend = backend_of(machine, Checks(), [])
        await lived(town, 12)
        await town.until(lambda: machine.engine.store.height >= machine.height - 3)
        await lived(town, 2)
        assert machine.engine.store.height > 0
        versions, found = await shown(backend, machine, 0)
        assert found.last == versions[-1].height or found.ended
        values = [codec.parse(bytes(row)[24:])[0] for row in found.rows if isinstance(row, bytes)]
        assert len(values) == len(versions) >= 10
        heights = [each.height for each in versions]
        assert heights == sorted(heights)

        # Every single height is proved, and fits what the whole list says.
        for height in range(heights[0], found.last + 1):
            (one,), alone = await shown(backend, machine, height, height)
            expected = max(each for each in heights if each <= height)
            assert one.height == expected
            assert alone.rows == [found.rows[heights.index(expected)]]
        before, nothing = await shown(backend, machine, 0, heights[0] - 1)
        assert (before, nothing.rows) == ((), [])

        # Pages join without a gap.
        joined: dict[int, Any] = {}
        at = 0
        while at <= found.last:
            part, page = await shown(backend, machine, at, found.last, 3)
            joined.update({each.height: row for each, row in zip(part, page.rows, strict=True)})
            at = page.last + 1
        assert [*joined] == heights
        assert [*joined.values()] == [*found.rows]


async def test_the_height_of_a_time_is_found(tmp_path: Path) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        backend = backend_of(machine, Checks(), [])
        await lived(town, 8)
        chronicle = machine.engine.chronicle
        provable = chronicle.provable()
        times = {height: backend.time_of(height) for height in range(provable + 1)}
        for height, time_ms in times.items():
            assert time_ms is not None
            asked = backend.moment(time_ms)
            assert asked == max(h for h, each in times.items() if (each or 0) <= time_ms)
            assert asked >= height
        assert backend.moment((times[0] or 0) - 1) is None
        assert backend.moment(2**62) == provable


async def test_rows_older_than_a_node_is_to_keep_go_and_their_proofs_stay(tmp_path: Path) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        backend = backend_of(machine, Checks(), [])
        await lived(town, 8)
        await town.until(lambda: machine.engine.store.height >= 6)
        whole, _ = await shown(backend, machine, 0)
        flusher = machine.engine.flusher
        for_good, flusher._keep_days = flusher._keep_days, 2 / 86_400  # type: ignore[assignment]
        await lived(town, 6)
        await town.until(lambda: machine.engine.store.view.horizon >= 4)
        flusher._keep_days, now = for_good, machine.height
        await lived(town, 3)  # flushed by what forgets nothing: the horizon stays where it is
        await town.until(lambda: machine.engine.store.height > now)
        versions, found = await shown(backend, machine, 0)
        horizon = machine.engine.store.view.horizon
        assert found.horizon <= horizon
        assert [each.height for each in versions[: len(whole)]] == [each.height for each in whole]
        gone = [row == FORGOTTEN for row in found.rows]
        ends = [each.height for each in versions[1:]]
        assert gone[:-1] == [end <= found.horizon for end in ends]
        assert gone[0]
        assert not gone[-1]
        # what was in force at the horizon itself is told
        (_,), alone = await shown(backend, machine, found.horizon, found.horizon)
        assert FORGOTTEN not in alone.rows


async def test_nothing_is_forgotten_by_default(tmp_path: Path) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        await lived(town, 6)
        await town.until(lambda: machine.engine.store.height >= 4)
        assert machine.engine.store.view.horizon == 0


# --- beyond what is kept ----------------------------------------------------------------------


class Statements:
    """A chronicle that lacks statements below a height."""

    def __init__(self, lowest: int, newest: int) -> None:
        self.lowest, self.newest = lowest, newest

    def provable(self) -> int:
        return self.newest

    def statement(self, height: int) -> bytes | None:
        if not self.lowest <= height <= self.newest:
            return None
        return encoded(height, 1000 * height)

    def statement_under(self, height: int, size: int) -> tuple[bytes, list[bytes]] | None:
        raise LookupError


def encoded(height: int, time_ms: int) -> bytes:
    root = bytes(32)
    items = [root, 1, height, height, root, time_ms, 1, root, root, root, root, None]
    return codec.encode(items)


@pytest.mark.parametrize("lowest", [0, 1, 7, 20])
def test_a_time_before_what_is_kept_is_refused_with_what_is(lowest: int) -> None:
    lineages = Lineages(None, Statements(lowest, 20))  # type: ignore[arg-type]
    for height in range(21):
        asked = 1000 * height + 1
        if height < lowest:
            with pytest.raises(Pruned) as refused:
                lineages.at(asked)
            assert refused.value.horizon == lowest
        else:
            assert lineages.at(asked) == height


async def test_what_a_node_that_began_at_a_snapshot_lacks_is_refused_with_its_horizon(
    tmp_path: Path,
) -> None:
    town = Town(tmp_path)
    machine = town.machines[0]
    async with running(town):
        backend = backend_of(machine, Checks(), [])
        await lived(town, 6)
        chronicle = machine.engine.chronicle
        await town.until(lambda: machine.engine.store.height >= 4)
        await town.until(lambda: chronicle.executed == chronicle.certified)
        (proved,) = await backend.prove(0, [lambda _: [SPENT]])
        store = machine.engine.store
        with store._environment.begin(write=True) as txn:
            for height in range(4):
                txn.delete(height.to_bytes(8, "big"), db=store._opened.changes)
        with pytest.raises(PrunedError) as refused:
            await backend.lineage(SPENT, proved.height, 1, proved.height, 64)
        assert refused.value.height == 4
        assert refused.value.time_ms == backend.time_of(4)


# --- how much is forgotten at once --------------------------------------------------------------


def stored(folder: Path, heights: int) -> Store:
    store = Store.open(folder / "store", chain=bytes(32))
    blocks = [
        BlockData(
            height,
            codec.encode([b"", encoded(height, 1000 * height)]),
            b"",
            b"",
            None,
            (),
            (),
        )
        for height in range(heights)
    ]
    store.write(FlushBatch(heights - 1, blocks=blocks))
    return store


def test_heights_are_forgotten_by_time_and_some_at_a_flush(tmp_path: Path) -> None:
    store = stored(tmp_path, 600)
    assert past.forgotten(store.view, 0) == 0
    assert past.forgotten(store.view, 999) == 0
    assert past.forgotten(store.view, 1000) == 1
    assert past.forgotten(store.view, 17_500) == 17
    assert past.forgotten(store.view, 10**9) == past.FORGOTTEN_MAX
    for expected in (256, 512, 599, 599):
        forget = past.forgotten(store.view, 10**9)
        store.write(FlushBatch(599, forget=forget))
        assert store.view.horizon == expected
    store.close()
