"""Reads that the rules want recorded: before they are answered, or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from comity import Call
from comity.errors import DraftError, NotReachableError, RequestError
from consensus.errors import RulesError
from consensus.ledger.rules import compile_rulebook, load_toml
from consensus.protocol import StateKey, Status
from tests.comity.twin import CITIZEN, CITIZEN_TOKEN, Twin, harness
from tests.node.api.care import AUDITOR, CLERK, IDS, RULES, WORKER, Acts, absent, founded
from tests.node.api.test_read_rules import Listed

LOGGED = RULES.replace('class = "restricted"', 'class = "restricted"\nlog_reads = true')
CASE = StateKey("record", ("case", 1))


def opened(kind: type[Twin] = Twin, text: str = LOGGED) -> Twin:
    """A network with case 1 of the citizen, in the north."""
    twin = kind(founded(text))
    Acts(twin).do(WORKER, "open", 1, [CITIZEN_TOKEN], "north", expects=absent("case", [1]))
    return twin


def noted(twin: Twin) -> list[tuple[str, str, bytes | None]]:
    assert all(place == CASE for place, _ in twin.reads)
    return [(each.method, each.purpose, each.principal) for _, each in twin.reads]


async def test_reads_of_a_logged_kind_are_recorded_with_who_and_what_for() -> None:
    twin = opened(Listed)
    async with harness(twin) as h, h.client(WORKER, purpose="appeal 17") as client:
        await client.get("record", "case", 1)
        await client.holds("record", "case", 1)
        await client.list_records("case")
        who = IDS[WORKER]
        assert noted(twin) == [(m, "appeal 17", who) for m in ("get", "holds", "list")]


async def test_other_reads_and_refused_ones_are_not_recorded() -> None:
    twin = opened()
    async with harness(twin) as h:
        async with h.client(CLERK) as client:
            with pytest.raises(RequestError):
                await client.get("record", "case", 1)
        async with h.client(WORKER) as client:
            await client.get("record", "person", CITIZEN_TOKEN)
    assert twin.reads == []
    plain = opened(text=RULES)
    async with harness(plain) as h, h.client(WORKER) as client:
        await client.get("record", "case", 1)
    assert plain.reads == []


async def test_what_cannot_be_recorded_is_not_shown() -> None:
    twin = opened(Listed)
    twin.unrecordable = True
    async with harness(twin) as h, h.client(WORKER, patience_seconds=1.0) as client:
        asked: list[Callable[[], Awaitable[object]]] = [
            lambda: client.get("record", "case", 1),
            lambda: client.holds("record", "case", 1),
            lambda: client.list_records("case"),
        ]
        for ask in asked:
            with pytest.raises((RequestError, NotReachableError)) as caught:
                await ask()
            if isinstance(caught.value, RequestError):
                assert caught.value.status == Status.UNAVAILABLE
        assert not (await client.get("record", "person", CITIZEN_TOKEN)).present


async def test_dry_run_on_a_logged_record_is_a_recorded_reading() -> None:
    text = (
        LOGGED
        + """
[actions.weigh]
actor  = { role = "care.worker" }
inputs = { number = "int" }
load   = [ ["case", "case/{input.number}"] ]
set    = [ { record = "case", fields = { region = "case.region" } } ]
"""
    )
    twin = opened(text=text)
    async with harness(twin) as h, h.client(WORKER) as client:
        call = Call("care", "weigh", {"number": 1})
        assert (await client.simulate(call, reads=[await client.get("record", "case", 1)])).code
        assert [each[0] for each in noted(twin)] == ["get", "simulate"]


async def test_readers_are_told_who_has_read_and_the_person_concerned_only_which_agency() -> None:
    twin = opened()
    async with harness(twin) as h:
        async with h.client(WORKER, purpose="visit") as client:
            await client.get("record", "case", 1)
        async with h.client(AUDITOR) as client:
            (found,) = await client.reads_of("record", "case", 1)
            assert (found.principal, found.agency, found.purpose) == (IDS[WORKER], "north", "visit")
            assert await client.reads_of("record", "case", 1, skip=1) == ()
        async with h.client(CITIZEN) as client:
            (found,) = await client.reads_of("record", "case", 1)
            assert (found.principal, found.agency, found.purpose) == (None, "north", "visit")
        async with h.client(CLERK) as client:
            for number in (1, 99):
                with pytest.raises(RequestError) as caught:
                    await client.reads_of("record", "case", number)
                assert caught.value.status == Status.DENIED


async def test_purpose_is_told_on_every_connection_and_is_short() -> None:
    twin = opened()
    async with harness(twin) as h, h.client(WORKER, purpose="again") as client:
        await client.get("record", "case", 1)
        h.cut()
        await client.get("record", "case", 1)
        assert [each[1] for each in noted(twin)] == ["again", "again"]
        with pytest.raises(DraftError):
            async with h.client(WORKER, purpose="x" * 257):
                pass


def test_logging_needs_readers() -> None:
    text = RULES.replace("[kinds.person]\n", "[kinds.person]\nlog_reads = true\n")
    with pytest.raises(RulesError, match="does not say who reads it"):
        compile_rulebook([load_toml(text)])
