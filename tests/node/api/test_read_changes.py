"""Read rules over streams of changes: rows come to whom they would be shown; hashes to all."""

from __future__ import annotations

from typing import Any

import pytest

from comity.keys import Key
from consensus import changed
from consensus.changed import Part
from consensus.protocol import StateKey, Status, Stream, Subscribe
from consensus.reads import RecordRow
from consensus.state.record import HOLDS
from tests.comity.twin import CITIZEN, CITIZEN_TOKEN, Twin
from tests.node.api import test_recorded_methods as recorded
from tests.node.api.care import AUDITOR, CHIEF, CLERK, WORKER, Acts, absent, founded
from tests.node.api.test_read_past import MOVES
from tests.node.api.test_recorded_methods import seen
from tests.node.api.wire import Wire, port

CASE = StateKey("record", ("case", 1))
VISIT = StateKey("record", ("visit", 5))
FUND = StateKey("account", ("fund", "main"))


async def followed(wire: Wire, first: int, last: int) -> list[Part]:
    await wire.send((9, Subscribe(Stream.CHANGES, first)))
    found: list[Part] = []
    while not found or found[-1].height < last:
        answer = await wire.answer()
        assert answer is not None
        assert answer.status == Status.EVENT, answer.result
        found.append(changed.read_part(answer.result))
    return found


def shown(parts: list[Part], key: StateKey) -> list[int]:
    return [part.height for part in parts for row in part.rows if row.place == key]


@pytest.mark.parametrize(
    ("key", "cases", "visits", "funds"),
    [
        (AUDITOR, 2, 0, 0),
        (CHIEF, 1, 1, 2),
        (WORKER, 0, 0, 0),
        (CLERK, 0, 0, 0),
    ],
    ids=["agency", "southern office", "northern office", "nobody"],
)
async def test_a_row_comes_to_whom_it_may_be_shown_now_and_would_have_been_then(
    key: Key, cases: int, visits: int, funds: int
) -> None:
    twin = Twin(founded(MOVES))
    acts = Acts(twin)
    acts.do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1]))
    acts.do(WORKER, "move", [1], "south", expects=seen(1))
    acts.do(WORKER, "visit", 5, 40, expects=absent("visit", [5]))
    acts.do(CHIEF, "pay", "x", 10)
    async with port(twin) as (_, _, connect):
        wire = await connect(key)
        parts = await followed(wire, 0, twin.height)
        assert len(shown(parts, CASE)) == cases
        assert len(shown(parts, VISIT)) == visits
        assert len(shown(parts, FUND)) == funds
        for part in parts:  # that something changed is shown to everybody who may follow
            assert part.changes == b"".join(twin.applied[part.height].changes)


async def test_citizens_and_strangers_may_not_follow_changes() -> None:
    twin = Twin(founded())
    async with port(twin) as (_, _, connect):
        for key in (CITIZEN, None):
            wire = await connect(key)
            await wire.send((9, Subscribe(Stream.CHANGES, 0)))
            answer = await wire.answer()
            assert answer is not None
            assert answer.status == Status.DENIED


async def test_a_hold_and_the_leaf_of_holds_come_to_whom_holds_are_shown() -> None:
    twin = Twin(founded())
    acts = Acts(twin)
    acts.do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1]))
    acts.do(CHIEF, "watch", 1, protective=True)
    async with port(twin) as (_, _, connect):
        for key, holds in ((AUDITOR, 1), (CLERK, 0)):
            parts = await followed(await connect(key), 0, twin.height)
            rows = [row for part in parts for row in part.rows]
            assert len([row for row in rows if row.place.namespace == "hold"]) == holds
            leaves = [
                leaf
                for row in rows
                if isinstance(row.row, RecordRow)
                for leaf in row.row.leaves
                if leaf.name == HOLDS
            ]
            assert all((leaf.value is not None) is bool(holds) for leaf in leaves)


async def test_what_comes_is_recorded_before_it_comes() -> None:
    async with recorded.office() as here:
        wire = await here.connect(AUDITOR)
        last = here.twin.height
        await followed(wire, 1, last)
        before: Any = here.recorded()
        assert {*recorded.named([recorded.CASE])} <= {*before}
        here.twin.unrecordable = True
        here.acts.do(CHIEF, "pay", "x", 1)
        answer = await wire.answer()
        assert answer is not None
        assert answer.status == Status.UNAVAILABLE
