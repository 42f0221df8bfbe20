"""Lists of the ledger's indexes at the client port: to whom what they list could be read anyway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from comity.keys import Key
from consensus.codec import Value
from consensus.protocol import Get, GetIndex, Request, StateKey, Status
from consensus.reads import SingleRow, read_rows
from tests.comity.twin import CITIZEN, CITIZEN_TOKEN, Twin
from tests.node.api.care import AUDITOR, CHIEF, CLERK, RULES, WORKER, Acts, absent, founded
from tests.node.api.test_read_rules import ask
from tests.node.api.wire import port

INDEXED = RULES.replace(
    'class = "restricted"', 'index = ["person", "region", "ward"]\nclass = "restricted"'
).replace(
    'fields.region = { type = "text", open = true }\n',
    'fields.region = { type = "text", open = true }\n'
    'fields.ward = { type = "int", optional = true }\n',
)
OWN: list[Value] = [CITIZEN_TOKEN]
OTHER: list[Value] = [b"q" * 32]


@asynccontextmanager
async def office() -> AsyncIterator[Any]:
    """Two cases of the citizen, in the north and in the south, and one of somebody else."""
    twin = Twin(founded(INDEXED))
    acts = Acts(twin)
    for number, who, region in ((1, OWN, "north"), (2, OWN, "south"), (3, OTHER, "south")):
        acts.do(WORKER, "open", number, who, region, expects=absent("case", [number]))
    async with port(twin) as (_, _, connect):
        yield connect


async def told(connect: Any, key: Key, request: Request) -> tuple[Status, int]:
    """Return the status of an answer and how many rows it shows."""
    found = await ask(await connect(key), request)
    if found.status != Status.OK:
        return Status(found.status), 0
    return Status.OK, len([row for row in read_rows(found.result).rows if row is not None])


DENIED = (Status.DENIED, 0)
CASES: list[tuple[Key, str, Value, tuple[Status, int]]] = [
    (WORKER, "case.region", "north", (Status.OK, 2)),
    (WORKER, "case.region", "south", DENIED),
    (WORKER, "case.region", "nowhere", DENIED),
    (WORKER, "case.person", OWN, DENIED),
    (CHIEF, "case.region", "south", (Status.OK, 3)),
    (CHIEF, "case.region", "north", DENIED),
    (AUDITOR, "case.region", "south", (Status.OK, 3)),
    (AUDITOR, "case.person", OTHER, (Status.OK, 2)),
    (AUDITOR, "case.ward", 7, (Status.OK, 0)),
    (CITIZEN, "case.person", OWN, (Status.OK, 3)),
    (CITIZEN, "case.person", OTHER, DENIED),
    (CITIZEN, "case.region", "north", DENIED),
    (CITIZEN, "case.ward", 7, DENIED),
    (CLERK, "case.region", "north", DENIED),
    (CLERK, "case.person", OWN, DENIED),
    (WORKER, "visit.day", 40, DENIED),
    (CHIEF, "visit.day", 40, (Status.OK, 0)),
    (CLERK, "person.name", "n", (Status.OK, 0)),
]


@pytest.mark.parametrize(("key", "index", "value", "expected"), CASES, ids=range(len(CASES)))
async def test_a_list_is_shown_to_whom_every_record_on_it_could_be_read(
    key: Key, index: str, value: Value, expected: tuple[Status, int]
) -> None:
    async with office() as connect:
        assert await told(connect, key, GetIndex(0, index, value, 0, 10)) == expected
        # the leaves one by one are shown no further
        size = await told(connect, key, Get(0, (StateKey("index", (index, value)),)))
        assert size[0] == expected[0]
        first = StateKey("index", (index, value, 0))
        assert (await told(connect, key, Get(0, (first,))))[0] == expected[0]


async def test_a_page_has_the_size_and_the_positions_asked_for() -> None:
    async with office() as connect:
        wire = await connect(AUDITOR)
        two, three = b"\x81\x81\x02", b"\x81\x81\x03"
        pages: tuple[tuple[int, int, list[bytes]], ...] = (
            (0, 1, [two]),
            (1, 1, [three]),
            (0, 9, [two, three]),
            (2, 9, []),
            (2**53, 9, []),
        )
        for number, (first, limit, shown) in enumerate(pages, start=2):
            request = GetIndex(0, "case.region", "south", first, limit)
            rows = read_rows((await ask(wire, request, number)).result).rows
            values = [row.value for row in rows if isinstance(row, SingleRow)]
            assert values == [b"\x81\x02", *shown]


async def test_reads_that_wait_together_are_proved_a_few_keys_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    really = Twin.prove

    async def prove(self: Twin, height_min: int, selects: Any) -> Any:
        found = await really(self, height_min, selects)
        asked.append(sum(len(each.keys) for each in found))
        return found

    monkeypatch.setattr(Twin, "prove", prove)
    many = tuple(StateKey("record", ("case", number)) for number in range(1, 65))
    async with office() as connect:
        wire = await connect(AUDITOR)
        requests: list[tuple[int, Request]] = [(number, Get(0, many)) for number in range(2, 12)]
        requests.insert(3, (20, GetIndex(0, "case.region", "south", 0, 256)))
        await wire.send(*requests)
        answered = [await wire.answer() for _ in requests]
    assert [each.request_id for each in answered] == [number for number, _ in requests]
    assert [each.status for each in answered] == [Status.OK] * 11
    assert sum(asked) == 10 * 64 + 3
    assert max(asked) <= 256
    assert len(asked) >= 4


async def test_nobody_anonymous_is_shown_a_list() -> None:
    async with office() as connect:
        found = await ask(await connect(None), GetIndex(0, "person.name", "n", 0, 10))
        assert found.status == Status.DENIED


@pytest.mark.parametrize(
    "components",
    [(), ("case.region",), ("case", "north"), ("", None), (3, "north"), (["case.region"], "north")],
)
async def test_a_place_that_is_no_leaf_of_an_index_is_answered(components: Any) -> None:
    async with office() as connect:
        for key in (WORKER, CITIZEN, AUDITOR):
            status, rows = await told(connect, key, Get(0, (StateKey("index", components),)))
            assert status in (Status.OK, Status.DENIED)
            assert rows == 0
