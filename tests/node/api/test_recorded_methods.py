"""Every method says whether what it shows is recorded; those that are, are, before they answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import pytest
import trio

from comity import decisions
from comity.keys import Key
from consensus import answers, protocol
from consensus.answers import Answer
from consensus.codec import Value
from consensus.ledger.disclosures import disclosure_id
from consensus.ledger.transaction import (
    PROPOSE,
    Draft,
    Expect,
    Transaction,
    assemble,
    build,
)
from consensus.protocol import (
    METHODS,
    Get,
    GetBlocks,
    GetBundle,
    GetCommittee,
    GetDecision,
    GetDecisions,
    GetDisclosed,
    GetEffect,
    GetHistory,
    GetHolds,
    GetIndex,
    GetMoment,
    GetPast,
    GetProposal,
    GetProposals,
    GetReads,
    GetReversal,
    GetRules,
    GetStatements,
    GetStatus,
    Item,
    ListRecords,
    Request,
    Simulate,
    StateKey,
    Status,
    Stream,
    Submit,
    Subscribe,
    Unsubscribe,
    method_of,
)
from node.api import recording
from tests.comity.test_disclosing import DISCLOSE
from tests.comity.test_proposals import ACTS
from tests.comity.twin import CHARTER, CITIZEN_TOKEN
from tests.node.api.care import AUDITOR, CHIEF, IDS, WORKER, Acts, absent, founded
from tests.node.api.test_read_rules import Listed, ask
from tests.node.api.test_recording import LOGGED
from tests.node.api.wire import Wire, port

CASE: Final = StateKey("record", ("case", 1))
NOWHERE: Final = StateKey("record", ("case", 77))
MAIN, TARGET = StateKey("account", ("fund", "main")), StateKey("account", ("fund", "x"))
OWN: Final = StateKey("account", ("fund", [CITIZEN_TOKEN]))
NORTH: Final = StateKey("index", ("case.region", "north"))
_CHIEF_READS: Final = 'read = [ { role = "care.chief" }'
RULES: Final = (
    LOGGED.replace('class = "restricted"', 'class = "restricted"\nindex = ["region"]')
    .replace(_CHIEF_READS, _CHIEF_READS + ', { agency = "south" }')
    .replace('currency = "USD"', 'currency = "USD"\nlog_reads = true')
    + """
[actions.correct]
actor  = { role = "care.worker" }
inputs = { number = "int", region = "text" }
load   = [ ["case", "case/{input.number}"] ]
set    = [ { record = "case", fields = { region = "input.region" } } ]
reversible = { by = "care.chief", within_days = 5 }

[actions.agree]
actor  = { role = "care.worker" }
inputs = { number = "int", region = "text" }
load   = [ ["case", "case/{input.number}"] ]
set    = [ { record = "case", fields = { region = "input.region" } } ]
approvals = { role = "care.chief" }
"""
)


def named(places: Sequence[StateKey]) -> list[str]:
    return sorted({repr(each) for each in places})


@dataclass
class Office:
    """A network with acts on case 1, of which the auditor signed none, and the node's port."""

    twin: Listed
    acts: Acts
    connect: Any
    done: dict[str, Transaction]

    def recorded(self) -> list[str]:
        return named([place for place, _ in self.twin.reads])

    def made(self, name: str) -> StateKey:
        """Where the hold or reservation is that an act made."""
        found = self.twin.find(self.done[name].txid)
        assert found is not None
        decision = self.twin.results[found.height][found.index]
        for (space, components), *_ in decision.value("writes:care") or ():
            if space in ("hold", "reservation"):
                return StateKey(space, tuple(components))
        raise AssertionError(name)


@asynccontextmanager
async def office() -> AsyncIterator[Office]:
    twin = Listed(founded(RULES, CHARTER + ACTS + DISCLOSE))
    acts = Acts(twin)
    do = acts.do
    done = {
        "open": do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1])),
        "set aside": do(CHIEF, "set_aside", 1, 100),
        "pay": do(CHIEF, "pay", "x", 10),
        "correct": do(WORKER, "correct", 1, "north", expects=seen(1)),
        "agree": do(WORKER, "agree", 1, "north", expects=seen(2), mode=PROPOSE),
        "agreed": do(WORKER, "agree", 1, "north", expects=seen(2), mode=PROPOSE),
    }
    do(CHIEF, "approve", done["agreed"].txid, domain="charter")
    words = [["agency", "south"], "why", "law", twin.now_ms + 3_600_000]
    done["disclose"] = do(WORKER, "disclose", "case", [1], 1, ["region"], *words, domain="charter")
    done["watch"] = do(CHIEF, "watch", 1, protective=True)
    async with port(twin) as (_, _, connect):
        yield Office(twin, acts, connect, done)


def seen(version: int) -> list[Expect]:
    return [Expect("case", [1], version)]


def drafted(office: Office) -> bytes:
    """A draft of the auditor's own, that names case 1 though its action does not look at it."""
    twin = office.twin
    action = twin.ledger.rules(twin.state, twin.now_ms).book.action("care", "set_aside")
    assert action is not None
    params = action.schedule.at(twin.now_ms).digest
    unsigned = build(
        twin.chain,
        AUDITOR.public,
        1,
        twin.now_ms + 60_000,
        [Draft("care", "set_aside", action.action_id, [9, 5], params)],
        seed=bytes(32),
        expects=seen(3),
    )
    return assemble(unsigned, [bytes(64)])


def opened(office: Office) -> bytes:
    """The disclosure to the auditor's agency, of case 1 as it was at first."""
    return disclosure_id(office.done["disclose"].txid, 0)


Asked = tuple[str, Callable[[Office], Request], list[StateKey]]


def listed(*last: Value) -> StateKey:
    return StateKey("index", ("case.region", "north", *last))


WRITTEN: Final = [CASE, NORTH, listed(0), listed([1])]
"""What the writes of opening case 1 name."""
RECORDED: Final[list[Asked]] = [
    ("a record", lambda _: Get(0, (CASE,)), [CASE]),
    ("that there is none", lambda _: Get(0, (NOWHERE,)), [NOWHERE]),
    ("a hold", lambda o: Get(0, (o.made("watch"),)), [CASE]),
    ("a list of holds", lambda _: Get(0, (StateKey("holds", ("record", ["case", 1])),)), [CASE]),
    ("a reservation", lambda o: Get(0, (o.made("set aside"),)), [MAIN]),
    ("whether it is listed", lambda _: Get(0, (listed([1]),)), [listed([1]), CASE]),
    ("history", lambda _: GetHistory(0, CASE, 0, None, 9), [CASE]),
    ("history of a person's account", lambda _: GetHistory(0, OWN, 0, None, 9), [OWN]),
    ("history of none", lambda _: GetHistory(0, NOWHERE, 0, None, 9), [NOWHERE]),
    (
        "history of a list of holds",
        lambda _: GetHistory(0, StateKey("holds", ("record", ["case", 1])), 0, None, 9),
        [CASE],
    ),
    ("history of a hold", lambda o: GetHistory(0, o.made("watch"), 0, None, 9), [CASE]),
    ("history of an index", lambda _: GetHistory(0, listed(0), 0, None, 9), [listed(0), CASE]),
    ("holds", lambda _: GetHolds(0, CASE), [CASE]),
    ("index", lambda _: GetIndex(0, "case.region", "north", 0, 8), [NORTH, listed(0), CASE]),
    ("list", lambda _: ListRecords("case", None, 9), [CASE]),
    ("what was written", lambda o: GetDecision(o.done["open"].txid), WRITTEN),
    ("what was held", lambda o: GetDecision(o.done["watch"].txid), [CASE]),
    ("what was set aside", lambda o: GetDecision(o.done["set aside"].txid), [MAIN]),
    ("what was moved", lambda o: GetDecision(o.done["pay"].txid), [MAIN, TARGET]),
    ("effect", lambda o: GetEffect(o.done["agreed"].txid), [CASE]),
    ("decisions", lambda _: GetDecisions(0, 64), [*WRITTEN, MAIN, TARGET]),
    ("blocks", lambda _: GetBlocks(0, 64), [*WRITTEN, MAIN, TARGET]),
    ("followed", lambda _: Subscribe(Stream.DECISIONS, 2), [CASE]),
    ("reversal", lambda o: GetReversal(o.done["correct"].txid), [CASE]),
    ("disclosed", lambda o: GetDisclosed(0, (opened(o),)), [CASE]),
    ("bundle", lambda o: GetBundle(o.done["correct"].txid), [CASE]),
    ("a disclosure", lambda o: Get(0, (StateKey("disclosure", (opened(o),)),)), [CASE]),
    ("a draft", lambda o: GetProposal(0, o.done["agree"].txid), [CASE]),
    ("an ended draft", lambda o: GetProposal(0, o.done["agreed"].txid), [CASE]),
    ("simulate", lambda o: Simulate(drafted(o)), [CASE]),
]
"""What shows restricted data, how it is asked for, and what is recorded then."""

SHOWS_NONE: Final[dict[str, Callable[[Office], Request] | str]] = {
    "hello": "who the reader is",
    "purpose": "nothing",
    "unsubscribe": "nothing",
    "submit": "receipts, without what a reader who did not sign would be recorded for: below",
    "rules": lambda _: GetRules(0, None),
    "status": lambda _: GetStatus(),
    "committee": lambda _: GetCommittee(0),
    "statements": lambda _: GetStatements(0, 8),
    "moment": lambda _: GetMoment(0),
    "proposals": lambda _: GetProposals("north", 0, None, 8),
    "past": lambda _: GetPast(1),
    "reads": lambda _: GetReads(CASE, 0, 8),
    "deliver": "what its author sends",
    "sealed": "values, recorded whatever the rules say: in the tests of the keeper",
}


async def test_every_method_is_recorded_or_shows_nothing_to_record() -> None:
    async with office() as here:
        recorded = {method_of(request(here)) for _, request, _ in RECORDED}
    assert not recorded & set(SHOWS_NONE)
    assert recorded | set(SHOWS_NONE) == set(METHODS), (
        "say in node/api/recording.py, and here, whether what the new method shows is recorded"
    )


@pytest.mark.parametrize(("request_", "places"), [each[1:] for each in RECORDED], ids=[
    each[0] for each in RECORDED
])  # fmt: skip
async def test_what_is_shown_is_recorded(
    request_: Callable[[Office], Request], places: list[StateKey]
) -> None:
    async with office() as here:
        wire = await here.connect(AUDITOR)
        request = request_(here)
        found = await ask(wire, request)
        assert found.status in (Status.OK, Status.EVENT), found.result
        assert set(here.recorded()) >= set(named(places))
        if not isinstance(request, Subscribe):
            assert here.recorded() == named(places)
        assert {each.method for _, each in here.twin.reads} == {method_of(request)}
        assert {each.principal for _, each in here.twin.reads} == {IDS[AUDITOR]}


@pytest.mark.parametrize("request_", [each[1] for each in RECORDED], ids=[
    each[0] for each in RECORDED
])  # fmt: skip
async def test_what_cannot_be_recorded_is_not_shown(
    request_: Callable[[Office], Request],
) -> None:
    async with office() as here:
        here.twin.unrecordable = True
        wire = await here.connect(AUDITOR)
        found = await ask(wire, request_(here))
        assert found.status == Status.UNAVAILABLE
        assert wire.events == []  # and no statement of it either


@pytest.mark.parametrize("name", [name for name, each in SHOWS_NONE.items() if callable(each)])
async def test_what_shows_nothing_is_not_recorded(name: str) -> None:
    request = SHOWS_NONE[name]
    assert not isinstance(request, str)
    async with office() as here:
        wire = await here.connect(AUDITOR)
        found = await ask(wire, request(here))
        assert found.status == Status.OK
        assert here.recorded() == []


async def test_decisions_of_a_height_are_recorded_at_that_height() -> None:
    async with office() as here:
        wire = await here.connect(AUDITOR)
        await ask(wire, GetDecisions(0, 64))
        found = here.twin.find(here.done["pay"].txid)
        assert found is not None
        assert [e.height for place, e in here.twin.reads if place == TARGET] == [found.height]


# --- subscriptions --------------------------------------------------------------------------------


async def followed(wire: Wire) -> Answer:
    found = await wire.answer()
    assert found is not None
    return found


async def test_subscription_ends_at_the_height_that_cannot_be_recorded() -> None:
    async with office() as here:
        wire = await here.connect(AUDITOR)
        last = here.twin.height
        await wire.send((9, Subscribe(Stream.DECISIONS, last)))
        assert answers.read_height_event((await followed(wire)).result).height == last
        here.twin.unrecordable = True
        here.acts.do(CHIEF, "pay", "x", 1)
        ended = await followed(wire)
        assert (ended.request_id, ended.status) == (9, Status.UNAVAILABLE)
        here.twin.unrecordable = False
        await wire.send((9, Subscribe(Stream.DECISIONS, last + 1)))
        event = answers.read_height_event((await followed(wire)).result)
        assert event.height == last + 1
        assert here.recorded() == named([MAIN, TARGET, CASE])


async def test_statements_are_followed_without_being_recorded() -> None:
    async with office() as here:
        here.twin.unrecordable = True
        wire = await here.connect(AUDITOR)
        await wire.send((9, Subscribe(Stream.STATEMENTS, 1)))
        for number in range(1, here.twin.height + 1):
            assert answers.read_height_event((await followed(wire)).result).height == number


class Slow(Listed):
    """A twin whose log of reads takes its time."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.asked, self.goes_on = trio.Event(), trio.Event()

    async def record_reads(self, *arguments: Any) -> None:
        self.asked.set()
        await self.goes_on.wait()
        await super().record_reads(*arguments)


async def test_nothing_is_sent_while_it_is_recorded_nor_after_the_subscription_has_ended() -> None:
    twin = Slow(founded(RULES))
    Acts(twin).do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1]))
    async with port(twin) as (_, _, connect):
        wire = await connect(AUDITOR)
        await wire.send((9, Subscribe(Stream.DECISIONS, twin.height)))
        await twin.asked.wait()
        await wire.send((10, Unsubscribe(9)))
        assert (await followed(wire)).request_id == 10
        twin.goes_on.set()
        found = await ask(wire, GetStatus(), 11)
        assert found.request_id == 11
        assert CASE in [place for place, _ in twin.reads]  # rather too much than too little


# --- one's own acts ---------------------------------------------------------------------------


async def leaves(here: Office, key: Key, txid: bytes) -> set[str]:
    answer = await ask(await here.connect(key), GetDecision(txid))
    return set(decisions.read(answers.read_decision(answer.result).decision).leaves)


async def test_decision_on_an_own_act_is_no_reading() -> None:
    async with office() as here:
        assert "writes:care" in await leaves(here, WORKER, here.done["open"].txid)
        assert here.recorded() == []
        assert "writes:care" in await leaves(here, AUDITOR, here.done["open"].txid)
        assert here.recorded() == named(WRITTEN)


async def receipt(here: Office, key: Key, envelope: bytes) -> set[str]:
    """Send a transaction and return which leaves of its decision are shown."""
    wire = await here.connect(key)
    await wire.send((2, Submit(True, ((Item.ENVELOPE, envelope),))))
    while True:
        found = await wire.next()
        assert found is not None
        if found.request_id == 0 and found.result[0] == protocol.Event.RECEIPTS:
            break
    (row,) = answers.read_receipts(found.result).receipts
    return set(decisions.read(row.decision).leaves)


async def test_receipts_show_logged_records_to_those_alone_who_signed() -> None:
    async with office() as here:
        envelope = here.acts.made(WORKER, "open", [2, [b"q" * 32], "north"], absent("case", [2]))
        shown = {"code", "authority", "reads"}
        assert await receipt(here, AUDITOR, envelope) == shown
        assert await receipt(here, WORKER, envelope) == {*shown, "writes:care"}
        assert here.recorded() == []


# --- bounds -----------------------------------------------------------------------------------


def places(count: int, length: int = 1) -> list[StateKey]:
    return [StateKey("record", ("case", n, "x" * length)) for n in range(count)]


def test_places_of_one_answer_are_cut_into_entries_each_named_once() -> None:
    parts = recording.parts_of([*places(600), *places(600)])
    assert [len(each) for each in parts] == [256, 256, 88]
    assert [place for part in parts for place in part] == places(600)


def test_long_places_make_more_entries() -> None:
    parts = recording.parts_of(places(100, 8_000))
    assert [len(each) for each in parts] == [32, 32, 32, 4]  # 256 KiB of about 8,025 bytes each


@pytest.mark.parametrize("length", [17_000, 900_000])
async def test_key_that_no_record_can_have_is_not_looked_up(length: int) -> None:
    async with office() as here:
        wire = await here.connect(AUDITOR)
        found = await ask(wire, Get(0, (StateKey("record", ("case", "x" * length)),)))
        assert found.status == Status.NOT_FOUND
        assert (await ask(wire, Get(0, (CASE,)), 10)).status == Status.OK
        assert here.recorded() == named([CASE])
