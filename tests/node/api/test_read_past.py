"""Read rules over the past: each version is judged as if it were the present one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from comity.keys import Key
from consensus import past
from consensus.hashing import ZERO
from consensus.past import CLOSED
from consensus.protocol import GetHistory, GetMoment, StateKey, Status
from consensus.reads import RecordRow, SingleRow
from consensus.state import changes
from consensus.state.record import HOLDS
from consensus.state.statement import read
from node.api import recalling
from tests.comity.twin import CITIZEN, CITIZEN_TOKEN, Twin
from tests.node.api.care import AUDITOR, CHIEF, CLERK, RULES, WORKER, Acts, absent, founded
from tests.node.api.test_read_rules import ask
from tests.node.api.test_recorded_methods import seen
from tests.node.api.wire import Wire, port

MOVES = (
    RULES
    + """
[actions.move]
actor  = { role = "care.worker" }
inputs = { case = "ref:case", region = "text" }
load   = [ ["case", "case/{input.case}"] ]
set    = [ { record = "case", fields = { region = "input.region" } } ]
"""
)
CASE = StateKey("record", ("case", 1))
CASE_HOLDS = StateKey("holds", ("record", ["case", 1]))


@asynccontextmanager
async def office() -> AsyncIterator[tuple[Twin, Acts, Any]]:
    """Case 1, of the citizen: opened in the north, moved to the south, and back."""
    twin = Twin(founded(MOVES))
    acts = Acts(twin)
    acts.do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1]))
    acts.do(WORKER, "move", [1], "south", expects=seen(1))
    async with port(twin) as (_, _, connect):
        yield twin, acts, connect


async def history(wire: Wire, key: StateKey = CASE, limit: int = 9) -> past.History:
    found = await ask(wire, GetHistory(0, key, 0, None, limit))
    assert found.status == Status.OK, found.result
    return past.read_history(found.result)


def regions(found: past.History) -> list[Any]:
    """The region of each version, CLOSED where it is not shown."""
    told = []
    for row in found.rows:
        if isinstance(row, RecordRow):
            (region,) = [leaf.value for leaf in row.leaves if leaf.name == "region"]
            told.append(None if region is None else region[1:].decode())
        else:
            told.append(row)
    return told


@pytest.mark.parametrize(
    ("key", "now_south", "now_north"),
    [
        (AUDITOR, ["north", "south"], ["north", "south", "north"]),
        (CHIEF, [CLOSED, "south"], None),
        (WORKER, None, ["north", CLOSED, "north"]),
        (CITIZEN, ["north", "south"], ["north", "south", "north"]),
        (CLERK, None, None),
    ],
    ids=["agency", "southern office", "northern office", "self", "nobody"],
)
async def test_each_version_is_shown_to_whom_it_would_be_if_it_were_the_present_one(
    key: Key, now_south: list[Any] | None, now_north: list[Any] | None
) -> None:
    async with office() as (_, acts, connect):
        for expected in (now_south, now_north):
            wire = await connect(key)
            if expected is None:
                found = await ask(wire, GetHistory(0, CASE, 0, None, 9))
                assert found.status == Status.DENIED
            else:
                assert regions(await history(wire)) == expected
            if expected is now_south and expected is not now_north:
                acts.do(WORKER, "move", [1], "north", expects=seen(2))


async def test_a_closed_version_is_proved_to_have_been_there() -> None:
    async with office() as (twin, _, connect):
        found = await history(await connect(CHIEF))
        newest = read(twin.statements[found.height].encode())
        kh = twin.ledger.paths(CASE.namespace, CASE.components)
        versions = changes.verify(found.proof, newest, kh, 0, found.last)
        assert len(versions) == len(found.rows) == 2
        assert all(each.vh != ZERO for each in versions)


async def test_the_person_concerned_is_not_shown_the_leaf_of_holds_of_any_version() -> None:
    async with office() as (_, acts, connect):
        acts.do(CHIEF, "watch", 1, protective=True)
        for key, open_ in ((CITIZEN, False), (AUDITOR, True)):
            found = await history(await connect(key))
            leaves = [
                leaf
                for row in found.rows
                if isinstance(row, RecordRow)
                for leaf in row.leaves
                if leaf.name == HOLDS
            ]
            assert leaves
            assert all((leaf.value is not None) == open_ for leaf in leaves)
            assert all((leaf.hidden is None) == open_ for leaf in leaves)


async def test_the_history_of_holds_is_for_those_who_may_see_holds() -> None:
    async with office() as (_, acts, connect):
        acts.do(CHIEF, "watch", 1, protective=True)
        found = await history(await connect(AUDITOR), CASE_HOLDS)
        assert [type(row) for row in found.rows] == [SingleRow]
        for key in (CITIZEN, CLERK, WORKER):
            denied = await ask(await connect(key), GetHistory(0, CASE_HOLDS, 0, None, 9))
            assert denied.status == Status.DENIED


async def test_the_past_of_a_restricted_record_that_never_was_looks_like_one_not_to_be_read() -> (
    None
):
    async with office() as (_, _, connect):
        told = []
        for number in (1, 77):
            key = StateKey("record", ("case", number))
            found = await ask(await connect(CLERK), GetHistory(0, key, 0, None, 9))
            told.append((found.status, found.result))
        assert told[0] == told[1]
        assert told[0][0] == Status.DENIED


async def test_the_pool_has_no_past_for_anybody() -> None:
    async with office() as (_, _, connect):
        for key in (AUDITOR, CHIEF):
            request = GetHistory(0, StateKey("pool", ()), 0, None, 9)
            assert (await ask(await connect(key), request)).status == Status.DENIED


async def test_an_anonymous_connection_gets_times_and_no_past() -> None:
    async with office() as (twin, _, connect):
        wire = await connect(None)
        found = await ask(wire, GetMoment(twin.statements[1].time_ms))
        assert (found.status, found.result >= 1) == (Status.OK, True)
        denied = await ask(wire, GetHistory(0, CASE, 0, None, 9), 10)
        assert denied.status == Status.DENIED


async def test_a_history_of_long_rows_comes_in_more_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    async with office() as (_, acts, connect):
        for version in range(2, 8):
            acts.do(WORKER, "move", [1], f"region {version}", expects=seen(version))
        whole = await history(await connect(AUDITOR), limit=64)
        assert len(whole.rows) == 8
        monkeypatch.setattr(recalling, "ROWS_BYTES_MAX", 1)
        wire = await connect(AUDITOR)
        rows, at = [], 0
        while at <= whole.last:
            found = await ask(wire, GetHistory(0, CASE, at, whole.last, 64))
            page = past.read_history(found.result)
            assert len(page.rows) <= 2
            rows += [each for each in page.rows if each not in rows]
            at = page.last + 1
        assert rows == [*whole.rows]


async def test_a_history_from_a_height_that_is_not_reached_is_answered_soon() -> None:
    async with office() as (_, _, connect):
        wire = await connect(AUDITOR)
        found = await ask(wire, GetHistory(0, CASE, 10**6, None, 9))
        assert found.status == Status.UNAVAILABLE
        assert "has not reached" in str(found.result)
