"""The past as a client gets it: proved, complete, and refused when a node lies about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from comity import AbsentError, Call, DraftError, RequestError, StaleAnswerError
from comity.client import Client
from consensus import codec
from consensus.answers import Answer
from consensus.errors import ComityError, ProofError
from consensus.past import FORGOTTEN
from consensus.protocol import GetHistory, StateKey, Status
from tests.comity.twin import CITIZEN, STRANGER, Lie, Twin, harness


async def write(client: Client, number: int, text: str) -> Any:
    call = Call("notes", "write", {"number": number, "text": text, "amount": 1})
    return await client.transact(call, reads=await client.read_for(call))


async def amend(client: Client, number: int, text: str) -> Any:
    call = Call("notes", "amend", {"note": [number], "text": text})
    return await client.transact(call, reads=await client.read_for(call))


async def close(client: Client, number: int) -> Any:
    call = Call("notes", "close", {"note": [number]})
    return await client.transact(call, reads=await client.read_for(call))


async def story(client: Client) -> list[Any]:
    """A note that is written, amended twice, and closed, with other notes between."""
    return [
        await write(client, 1, "first"),
        await write(client, 2, "other"),
        await amend(client, 1, "second"),
        await write(client, 3, "other"),
        await amend(client, 1, "third"),
        await close(client, 1),
        await write(client, 4, "other"),
    ]


# --- a point ----------------------------------------------------------------------------------


async def test_a_record_is_shown_as_it_was_at_every_height() -> None:
    async with harness() as h, h.client() as client:
        made, _, second, _, third, closed, last = await story(client)
        texts = {}
        for height in range(last.height + 1):
            entry = await client.get("record", "note", 1, height=height)
            assert entry.height == height
            assert entry.time_ms == h.twin.statements[height].time_ms
            texts[height] = entry.fields.get("text"), entry.fields.get("status"), entry.version
        for height, found in texts.items():
            if height < made.height:
                assert found == (None, None, 0)
            elif height < second.height:
                assert found == ("first", "open", 1)
            elif height < third.height:
                assert found == ("second", "open", 2)
            elif height < closed.height:
                assert found == ("third", "open", 3)
            else:
                assert found == ("third", "closed", 4)


async def test_an_account_and_an_absence_are_shown_as_they_were() -> None:
    async with harness() as h, h.client() as client:
        pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 250})
        first = await client.transact(pay)
        second = await client.transact(pay)
        then = await client.get("account", "pot", "b", height=first.height)
        now = await client.get("account", "pot", "b", height=second.height)
        assert [then.value[1], now.value[1]] == [250, 500]
        never = await client.get("record", "note", 77, height=first.height)
        assert not never.present


async def test_a_time_is_the_greatest_height_that_is_not_later() -> None:
    async with harness() as h, h.client() as client:
        await story(client)
        times = [statement.time_ms for statement in h.twin.statements]
        newest = len(times) - 1
        for asked in sorted({*times, *(each + 1 for each in times), times[-1] + 10**9}):
            moment = await client.moment(asked)
            expected = max(height for height, each in enumerate(times) if each <= asked)
            assert (moment.height, moment.time_ms) == (expected, times[expected])
            assert moment.final == (expected < newest)
        with pytest.raises(AbsentError, match="had not begun"):
            await client.moment(times[0] - 1)
        made = await client.get("record", "note", 1, time_ms=times[3])
        assert made.height == max(h for h, each in enumerate(times) if each <= times[3])


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"height": -1}, DraftError, "is no height"),
        ({"height": 10**6}, AbsentError, "not certified yet"),
        ({"height": 1, "time_ms": 1}, DraftError, "a height and a time"),
        ({"time_ms": -1}, DraftError, "is no time"),
        ({"time_ms": 0}, AbsentError, "had not begun"),
    ],
)
async def test_no_such_height_or_time(
    options: dict[str, int], error: type[Exception], reason: str
) -> None:
    async with harness() as h, h.client() as client:
        await write(client, 1, "first")
        with pytest.raises(error, match=reason):
            await client.get("record", "note", 1, **options)


# --- all versions -----------------------------------------------------------------------------


async def test_all_versions_come_with_what_changed_and_by_which_transaction() -> None:
    async with harness() as h, h.client() as client:
        done = await story(client)
        made, second, third, closed = done[0], done[2], done[4], done[5]
        found = await client.history("record", "note", 1, transactions=True)
        assert found.complete
        assert (found.first, found.last) == (0, found.height)
        assert [each.height for each in found.versions] == [
            each.height for each in (made, second, third, closed)
        ]
        assert [each.transactions for each in found.versions] == [
            (each.txid,) for each in (made, second, third, closed)
        ]
        assert [each.time_ms for each in found.versions] == [
            h.twin.statements[each.height].time_ms for each in found.versions
        ]
        assert "text" in found.versions[0].changed
        assert [each.changed for each in found.versions[1:3]] == [("text",)] * 2
        assert "status" in found.versions[3].changed
        assert [each.entry.fields["text"] for each in found.versions if each.entry] == [
            "first",
            "second",
            "third",
            "third",
        ]
        assert not found.never


async def test_a_range_begins_with_what_was_in_force_and_ends_before_what_came_after() -> None:
    async with harness() as h, h.client() as client:
        done = await story(client)
        second, third = done[2], done[4]
        found = await client.history(
            "record", "note", 1, first=second.height + 1, last=third.height
        )
        assert [each.height for each in found.versions] == [second.height, third.height]
        assert (found.first, found.last) == (second.height + 1, third.height)
        before = await client.history("record", "note", 1, first=0, last=done[0].height - 1)
        assert before.versions == ()
        assert before.never
        assert before.complete


async def test_a_transaction_that_moved_an_account_is_found() -> None:
    async with harness() as h, h.client() as client:
        pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 250})
        done = await client.transact(pay)
        await write(client, 1, "other")
        found = await client.history("account", "pot", "b", transactions=True)
        assert found.versions[-1].transactions == (done.txid,)


async def test_a_long_history_comes_in_pages_and_joins() -> None:
    async with harness() as h, h.client() as client:
        pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})
        for _ in range(150):
            assert (await client.transact(pay)).applied
        found = await client.history("account", "pot", "b")
        amounts = [each.entry.value[1] for each in found.versions if each.entry]
        assert amounts == [*range(151)]
        assert found.complete
        some = await client.history("account", "pot", "b", limit=100)
        assert not some.complete
        assert len(some.versions) == 100
        rest = await client.history("account", "pot", "b", first=some.last + 1)
        heights = [each.height for each in (*some.versions, *rest.versions)]
        assert heights == [each.height for each in found.versions]


async def test_that_no_hold_was_active_is_proved_by_the_history_of_the_targets_list() -> None:
    async with harness() as h, h.client() as client:
        await story(client)
        target = ("record", ["note", 1])
        found = await client.history("holds", *target)
        assert found.versions == ()
        assert found.never
        assert found.complete


@pytest.mark.parametrize(
    ("options", "error", "reason"),
    [
        ({"first": -1}, DraftError, "no heights from -1"),
        ({"first": 5, "last": 4}, DraftError, "no heights from 5 to 4"),
        ({"first": 10**6}, AbsentError, "not certified yet"),
        ({"limit": 0}, DraftError, "1 to 1000"),
        ({"limit": 1001}, DraftError, "1 to 1000"),
    ],
)
async def test_no_such_range(options: dict[str, int], error: type[Exception], reason: str) -> None:
    async with harness() as h, h.client() as client:
        with pytest.raises(error, match=reason):
            await client.history("record", "note", 1, **options)


# --- who may ----------------------------------------------------------------------------------


async def test_who_may_not_read_a_record_does_not_get_its_past() -> None:
    async with harness() as h:
        async with h.client() as client:
            await write(client, 1, "first")
        for key in (CITIZEN, STRANGER, None):
            async with h.client(key) as client:
                for ask in (
                    client.history("record", "note", 1),
                    client.get("record", "note", 1, height=1),
                ):
                    with pytest.raises(RequestError) as refused:
                        await ask
                    assert refused.value.status == Status.DENIED


async def test_the_time_of_a_height_is_open_to_everybody() -> None:
    async with harness() as h:
        async with h.client() as client:
            await write(client, 1, "first")
        async with h.client(None) as client:
            assert (await client.moment(h.twin.statements[1].time_ms)).height >= 1


# --- beyond what is kept ----------------------------------------------------------------------


def forgetful(twin: Twin, horizon: int) -> None:
    """Make the twin keep no rows that were replaced up to ``horizon``."""
    real = twin.lineage

    async def lineage(key: StateKey, newest: int, first: int, last: int, limit: int) -> Any:
        found = await real(key, newest, first, last, limit)
        kh = twin.ledger.paths(key.namespace, key.components)
        line = [each.height for each in twin.kept.changes_of(kh, newest)][::-1]
        laid = [each for each in line if each <= found.last]
        after = dict(zip(line, [*line[1:], newest + 1], strict=True))
        shown = laid[len(laid) - len(found.rows) :]
        rows = [
            FORGOTTEN if after[height] <= horizon else row
            for height, row in zip(shown, found.rows, strict=True)
        ]
        return replace(found, rows=rows, horizon=horizon)

    twin.lineage = lineage  # type: ignore[method-assign]


async def test_what_is_no_longer_kept_is_known_to_have_been_there() -> None:
    async with harness() as h, h.client() as client:
        done = await story(client)
        forgetful(h.twin, done[4].height - 1)
        found = await client.history("record", "note", 1)
        assert found.complete
        assert [each.why for each in found.versions] == ["forgotten", "", "", ""]
        assert found.horizon == done[4].height - 1
        assert found.horizon_ms == h.twin.statements[found.horizon].time_ms
        with pytest.raises(RequestError) as refused:
            await client.get("record", "note", 1, height=done[0].height)
        assert refused.value.status == Status.PRUNED
        assert f"height {found.horizon}" in refused.value.message
        later = await client.get("record", "note", 1, height=done[2].height)
        assert later.fields["text"] == "second"


async def test_a_node_that_does_not_go_back_so_far_says_from_where_it_does() -> None:
    from node.api.backend import PrunedError

    async with harness() as h, h.client() as client:
        await story(client)

        async def lineage(*_: Any) -> Any:
            raise PrunedError(812, 1_790_000_000_000)

        h.twin.lineage = lineage
        with pytest.raises(RequestError) as refused:
            await client.history("record", "note", 1)
        assert refused.value.status == Status.PRUNED
        assert "from height 812 (2026-09-21 14:13:20Z) on" in refused.value.message


# --- lies -------------------------------------------------------------------------------------


def is_history(value: Any) -> bool:
    return type(value) is list and len(value) == 5 and type(value[2]) is bytes


def told(change: Callable[[list[Any]], Any]) -> Lie:
    def lie(answer: Answer) -> list[Answer]:
        if answer.status != Status.OK or not is_history(answer.result):
            return [answer]
        changed = change(codec.parse(codec.encode(answer.result)))
        return [Answer(answer.request_id, answer.status, changed)]

    return lie


def _text(result: list[Any]) -> list[Any]:
    for leaf in result[3][1][2]:
        if leaf[0] == "text":
            leaf[3] = codec.encode("forged")
    return result


def _steps(change: Callable[[list[Any]], Any]) -> Callable[[list[Any]], list[Any]]:
    def forged(result: list[Any]) -> list[Any]:
        proof = codec.parse(result[2])
        change(proof)
        return [*result[:2], codec.encode(proof), *result[3:]]

    return forged


LIES: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "a field": (_text, "is not what the state holds"),
    "a version left out": (
        lambda r: [*r[:3], r[3][1:], r[4]],
        "3 rows for 4 versions",
    ),
    "a step left out": (_steps(lambda p: p[1].pop(1)), "is left out"),
    "the first step left out": (_steps(lambda p: p[1].pop(0)), "was in force|rows for"),
    "the leaf left out": (_steps(lambda p: p.__setitem__(2, None)), "no later changes"),
    "an end too early": (lambda r: [r[0], r[1] - 1, *r[2:]], "show the same end|for no reason|no"),
    "an end too late": (lambda r: [r[0], r[1] + 1, *r[2:]], "another height"),
    "another height": (lambda r: [r[0] - 1, *r[1:]], "no proof of height|another|older"),
    "a row said to be deleted": (
        lambda r: [*r[:3], [None, *r[3][1:]], r[4]],
        "is said to be absent",
    ),
    "rows in another order": (
        lambda r: [*r[:3], r[3][::-1], r[4]],
        "is not what the state holds",
    ),
}


@pytest.mark.parametrize("name", LIES)
async def test_a_lie_about_the_past_is_noticed(name: str) -> None:
    change, reason = LIES[name]
    async with harness() as h:
        async with h.client() as client:
            await story(client)
        h.lies["north"] = told(change)
        async with h.client(patience_seconds=0.2) as client:
            with pytest.raises(ComityError, match=reason):
                await client.history("record", "note", 1)


async def test_a_history_that_stands_still_is_noticed() -> None:
    async with harness() as h:
        async with h.client() as client:
            await write(client, 1, "first")
            await write(client, 2, "other")
        real = h.twin.lineage

        async def short(key: StateKey, newest: int, first: int, last: int, limit: int) -> Any:
            return await real(key, newest, first, first, limit)

        h.twin.lineage = short
        async with h.client(patience_seconds=0.2) as client:
            with pytest.raises(ProofError, match="ends early and for no reason"):
                await client.history("record", "note", 1, first=2)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda height: height - 1, "not of a later time"),
        (lambda height: height + 1, "later time than was asked"),
        (lambda height: None, "no proof of height 0|had begun"),
    ],
)
async def test_a_wrong_height_of_a_time_is_noticed(
    change: Callable[[int], int | None], reason: str
) -> None:
    async with harness() as h:
        async with h.client() as client:
            await story(client)
        real = h.twin.moment
        h.twin.moment = lambda time_ms: change(real(time_ms))
        times = [statement.time_ms for statement in h.twin.statements]
        async with h.client(patience_seconds=0.2) as client:
            with pytest.raises(ProofError, match=reason):
                await client.moment(times[4])


async def test_an_old_height_is_not_taken_for_the_newest() -> None:
    async with harness() as h:
        async with h.client() as client:
            await story(client)
        newest, real = h.twin.height, h.twin.evidence
        h.twin.moment = lambda time_ms: newest - 2
        h.twin.evidence = lambda height: None if height == newest - 1 else real(height)
        async with h.client(patience_seconds=0.2) as client:
            await client.statements(-1)
            with pytest.raises(StaleAnswerError, match="is certified already"):
                await client.moment(10**15)


async def test_requests_for_the_past_are_bounded() -> None:
    from consensus import protocol
    from consensus.errors import DecodeError

    key = StateKey("record", ("note", 1))
    for request in (
        GetHistory(0, key, 0, None, 65),
        GetHistory(0, key, 0, None, 0),
        GetHistory(0, key, 5, 4, 1),
        GetHistory(0, key, -1, 4, 1),
    ):
        with pytest.raises(DecodeError):
            protocol.decode_request(protocol.encode_request(1, request))
