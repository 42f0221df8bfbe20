"""Read rules at the client port: on every method, for records, accounts, holds and decisions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from comity import decisions
from comity.keys import Key
from consensus import answers, reads
from consensus.ledger.transaction import (
    Transaction,
)
from consensus.protocol import (
    Get,
    GetDecision,
    GetDecisions,
    GetHolds,
    GetReads,
    Item,
    ListRecords,
    Request,
    StateKey,
    Status,
    Stream,
    Submit,
    Subscribe,
)
from consensus.state.record import HOLDS
from node.api import access, listing
from tests.comity.twin import CITIZEN, CITIZEN_TOKEN, Twin
from tests.node.api.care import AUDITOR, CHIEF, CLERK, WORKER, Acts, absent, founded
from tests.node.api.wire import Wire, port


def case(number: int) -> StateKey:
    return StateKey("record", ("case", number))


@asynccontextmanager
async def office() -> AsyncIterator[tuple[Twin, Acts, Any, dict[str, Transaction]]]:
    """Case 1 in the north (of the citizen), case 2 in the south, a visit, a payment."""
    twin = Twin(founded())
    acts = Acts(twin)
    done = {
        "one": acts.do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1])),
        "two": acts.do(WORKER, "open", 2, [b"q" * 32], "south", expects=absent("case", [2])),
        "visit": acts.do(WORKER, "visit", 5, 40, expects=absent("visit", [5])),
        "pay": acts.do(CHIEF, "pay", "x", 10),
    }
    async with port(twin) as (_, _, connect):
        yield twin, acts, connect, done


async def ask(wire: Wire, request: Request, number: int = 9) -> answers.Answer:
    await wire.send((number, request))
    found = await wire.answer()
    assert found is not None
    return found


async def status(connect: Any, key: Key, *keys: StateKey) -> Status:
    wire = await connect(key)
    return Status((await ask(wire, Get(0, keys))).status)


# --- get ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "one", "two"),
    [
        (WORKER, Status.OK, Status.DENIED),
        (CHIEF, Status.DENIED, Status.OK),
        (AUDITOR, Status.OK, Status.OK),
        (CITIZEN, Status.OK, Status.DENIED),
        (CLERK, Status.DENIED, Status.DENIED),
    ],
    ids=["scope", "other scope", "agency", "self", "nobody"],
)
async def test_record_is_shown_to_whom_a_rule_lets_in(key: Key, one: Status, two: Status) -> None:
    async with office() as (_, _, connect, _):
        assert await status(connect, key, case(1)) == one
        assert await status(connect, key, case(2)) == two


async def test_one_row_that_may_not_be_read_keeps_the_whole_answer() -> None:
    async with office() as (_, _, connect, _):
        assert await status(connect, WORKER, case(1), case(2)) == Status.DENIED


async def test_restricted_record_that_is_absent_looks_like_one_that_may_not_be_read() -> None:
    async with office() as (_, _, connect, _):
        told = []
        for number in (2, 77):
            wire = await connect(WORKER)
            found = await ask(wire, Get(0, (case(number),)))
            told.append((found.status, found.result))
        assert told[0] == told[1]
        assert told[0][0] == Status.DENIED
        assert await status(connect, AUDITOR, case(77)) == Status.OK


async def test_absence_of_what_is_not_restricted_is_proved_to_members_only() -> None:
    async with office() as (_, _, connect, _):
        there, nowhere = (StateKey("record", ("visit", n)) for n in (5, 6))
        assert await status(connect, CLERK, there) == Status.DENIED
        assert await status(connect, CLERK, nowhere) == Status.OK
        assert await status(connect, CITIZEN, nowhere) == Status.DENIED


async def test_account_is_shown_by_role_and_to_its_owner() -> None:
    async with office() as (_, _, connect, _):
        own, main = (StateKey("account", ("fund", id_)) for id_ in ([CITIZEN_TOKEN], "main"))
        found = {
            key: (await status(connect, key, own), await status(connect, key, main))
            for key in (CHIEF, WORKER, CITIZEN)
        }
        ok, denied = Status.OK, Status.DENIED
        assert found == {CHIEF: (ok, ok), WORKER: (denied, denied), CITIZEN: (ok, denied)}


async def test_reservation_is_shown_to_whoever_reads_its_account() -> None:
    async with office() as (twin, acts, connect, _):
        made = acts.do(CHIEF, "set_aside", 1, 100)
        there, nowhere = (StateKey("reservation", ("care", n)) for n in (1, 9))
        found = {
            key: (await status(connect, key, there), await status(connect, key, nowhere))
            for key in (CHIEF, AUDITOR, WORKER, CITIZEN)
        }
        ok, denied = Status.OK, Status.DENIED
        assert found == {
            CHIEF: (ok, denied),  # some cases are kept from the chief, and what there is of them
            AUDITOR: (denied, ok),
            WORKER: (denied, denied),
            CITIZEN: (denied, denied),
        }
        for key, closed in ((CHIEF, 0), (WORKER, 2)):
            wire = await connect(key)
            answer = answers.read_decision((await ask(wire, GetDecision(made.txid))).result)
            assert _leaves(answer.decision)[1] == closed
        assert twin.height


async def test_role_that_ends_ends_the_reading_of_an_open_connection() -> None:
    base = founded()
    ending = replace(
        base,
        roles=tuple(
            replace(each, until_ms=base.time_ms + 8_000) if each.role == "care.worker" else each
            for each in base.roles
        ),
    )
    twin = Twin(ending)
    acts = Acts(twin)
    acts.do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1]))
    async with port(twin) as (_, _, connect):
        wire = await connect(WORKER)
        assert (await ask(wire, Get(0, (case(1),)), 2)).status == Status.OK
        while twin.now_ms < base.time_ms + 8_000:
            twin.make_block()
        assert (await ask(wire, Get(0, (case(1),)), 3)).status == Status.DENIED


async def test_slots_and_unknown_holds_say_nothing_of_restricted_records() -> None:
    async with office() as (_, _, connect, _):
        for key in (StateKey("unique", ("care", "x", 1)), StateKey("hold", (b"h" * 32,))):
            assert await status(connect, WORKER, key) == Status.DENIED
            assert await status(connect, AUDITOR, key) == Status.OK


# --- holds ----------------------------------------------------------------------------------------


async def test_person_concerned_reads_the_record_and_not_the_holds_on_it() -> None:
    async with office() as (twin, acts, connect, _):
        acts.do(CHIEF, "watch", 1, protective=True)
        for key, may in ((WORKER, True), (AUDITOR, True), (CITIZEN, False), (CHIEF, False)):
            wire = await connect(key)
            found = await ask(wire, GetHolds(0, case(1)))
            assert (found.status == Status.OK) is may, key
        wire = await connect(CITIZEN)
        rows = reads.read_rows((await ask(wire, Get(0, (case(1),)))).result)
        (row,) = rows.rows
        assert isinstance(row, reads.RecordRow)
        closed = [leaf.name for leaf in row.leaves if leaf.hidden is not None]
        assert closed == [HOLDS]
        hold = StateKey("hold", (_hold_id(twin),))
        assert await status(connect, CITIZEN, hold) == Status.DENIED
        assert await status(connect, AUDITOR, hold) == Status.OK


def _hold_id(twin: Twin) -> bytes:
    (decision,) = twin.results[twin.height]
    for entry in decision.value("writes:care"):
        if entry[0][0] == "hold":
            found: bytes = entry[0][1][0]
            return found
    raise AssertionError("no hold was placed")


# --- lists ----------------------------------------------------------------------------------------


class Listed(Twin):
    """A twin whose node-local index has the cases."""

    def list_records(self, kind: str, after: Any, limit: int) -> reads.Page | None:
        if kind != "case":
            return None
        start = 0 if after is None else after[0] + 1
        numbers = [n for n in range(start, 60) if self._read(case(n))]
        more = len(numbers) > limit
        page = numbers[:limit]
        return reads.Page(self.height, tuple((n,) for n in page), (page[-1],) if more else None)


async def test_list_has_what_may_be_read_and_its_pages_name_nothing_else() -> None:
    twin = Listed(founded())
    acts = Acts(twin)
    for number in range(1, 13):
        region = "north" if number % 3 == 0 else "south"
        expects = absent("case", [number])
        acts.do(WORKER, "open", number, [CITIZEN_TOKEN], region, expects=expects)
    async with port(twin) as (_, _, connect):
        wire = await connect(WORKER)
        seen: list[Any] = []
        after: Any = None
        for number in range(2, 9):
            page = reads.read_page((await ask(wire, ListRecords("case", after, 3), number)).result)
            seen += [page.ids]
            after = page.next
            if after is None:
                break
        assert seen == [((3,), (6,), (9,)), ((12,),)]
        wire = await connect(AUDITOR)
        page = reads.read_page((await ask(wire, ListRecords("case", None, 100))).result)
        assert page.ids == tuple((n,) for n in range(1, 13))


async def test_list_gives_up_among_restricted_records_without_naming_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "SCAN_MAX", 2)
    monkeypatch.setattr(listing, "PAGE_MAX", 2)
    twin = Listed(founded())
    acts = Acts(twin)
    for number in range(1, 6):
        acts.do(WORKER, "open", number, [CITIZEN_TOKEN], "south", expects=absent("case", [number]))
    async with port(twin) as (_, _, connect):
        wire = await connect(WORKER)
        found = await ask(wire, ListRecords("case", None, 3))
        assert found.status == Status.UNAVAILABLE


# --- decisions ------------------------------------------------------------------------------------


def _leaves(data: bytes) -> tuple[set[str], int]:
    found = decisions.read(data)
    return set(found.leaves), found.closed


@pytest.mark.parametrize(
    ("key", "name", "closed"),
    [
        (WORKER, "one", 0),
        (WORKER, "two", 1),
        (AUDITOR, "two", 0),
        (CLERK, "one", 1),
        (CHIEF, "visit", 0),
        (CLERK, "visit", 1),
        (CHIEF, "pay", 0),
        (WORKER, "pay", 1),
    ],
)
async def test_decision_keeps_leaves_closed_that_name_what_may_not_be_read(
    key: Key, name: str, closed: int
) -> None:
    async with office() as (twin, _, connect, done):
        wire = await connect(key)
        found = answers.read_decision((await ask(wire, GetDecision(done[name].txid))).result)
        leaves, count = _leaves(found.decision)
        assert count == closed
        assert {"code", "authority", "reads"} <= leaves
        assert bool({"writes:care", "moves:care"} & leaves) is not bool(closed)
        whole = twin.blocks[found.height].roots[found.index]
        assert decisions.read(found.decision).root == whole


async def test_heights_and_subscriptions_close_the_same_leaves_and_keep_the_results_root() -> None:
    async with office() as (_, _, connect, _):
        wire = await connect(CLERK)
        heights = answers.read_decisions((await ask(wire, GetDecisions(0, 64), 2)).result)
        shown = {each.height: each.decisions for each in heights}
        await wire.send((3, Subscribe(Stream.DECISIONS, 2)))
        events = [answers.read_height_event((await wire.answer()).result) for _ in range(4)]
        assert [each.decisions for each in events] == [shown[n] for n in range(2, 6)]
        assert [_leaves(each.decisions[0])[1] for each in events if each.decisions] == [1, 1, 1, 1]


async def test_receipt_of_an_author_hides_what_the_author_may_not_read() -> None:
    async with office() as (_, acts, connect, _):
        envelope = acts.made(WORKER, "open", [9, [b"z" * 32], "south"], absent("case", [9]))
        wire = await connect(WORKER)
        await wire.send((2, Submit(True, ((Item.ENVELOPE, envelope),))))
        while True:
            found = await wire.next()
            if found.request_id == 0 and found.result[0] == 2:
                break
        (receipt,) = answers.read_receipts(found.result).receipts
        assert _leaves(receipt.decision) == ({"code", "authority", "reads"}, 1)


# --- who sees everything ----------------------------------------------------------------------


async def test_without_read_rules_nothing_is_closed() -> None:
    twin = Twin()
    async with port(twin) as (_, _, connect):
        wire = await connect()
        assert (await ask(wire, Get(0, (StateKey("account", ("pot", "a")),)))).status == Status.OK
        identity = twin.identity(CITIZEN.public)
        assert identity is not None
        assert identity.reader is not None
        assert identity.reader.sees_all


# --- keys that somebody made up -----------------------------------------------------------------

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    7,
    "",
    "case",
    "case.person",
    b"",
    b"x" * 32,
    [],
    ["case", 1],
)
SPACES = (
    "record", "account", "holds", "hold", "unique", "index", "reservation", "proposal", "role",
    "key", "principal", "agency", "grant", "rules", "sequence", "pool", "subject", "nothing", "~",
)  # fmt: skip


async def test_no_key_that_can_be_asked_for_makes_a_node_stumble() -> None:
    async with office() as (twin, _, connect, _):
        asked = [
            StateKey(space, components)
            for space in SPACES
            for components in [(), *((a,) for a in ODD), *((a, b) for a in ODD for b in ODD)]
        ]
        for key in (WORKER, CLERK, CITIZEN):
            identity = twin.identity(key.public)
            for each in asked:
                assert access.may_read(identity, key.public, each, None) in (True, False)
                assert access.may_see_holds(identity, each) in (True, False)
                assert access.closes_holds(identity, each) in (True, False)
                assert access.is_logged(identity, each) in (True, False)
            wire = await connect(key)
            for number, each in enumerate(asked[::83], 2):
                found = await ask(wire, Get(0, (each,)), number)
                assert found.status in (Status.OK, Status.DENIED)
            for number, each in enumerate(asked[::127], 9000):
                for request in (GetHolds(0, each), GetReads(each, 0, 1)):
                    found = await ask(wire, request, number)
                    assert found.status in (Status.OK, Status.DENIED)
