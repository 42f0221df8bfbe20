"""Heights with all that they changed: complete, each row the one that is certified; lies do not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

import pytest

from comity import Call, Client, NotReachableError, RequestError
from comity.changes import ChangedHeight
from comity.results import Entry
from consensus.answers import Answer
from consensus.errors import VerificationError
from consensus.protocol import Status
from node.api import changing
from tests.comity.twin import CITIZEN, harness

PAY = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})
NOTE = Call("notes", "write", {"number": 1, "text": "n", "amount": 5})


async def worked(client: Client) -> int:
    """Make payments, a note, a change of it and a refusal; return the last height."""
    await client.transact(PAY)
    await client.transact(NOTE, reads=await client.read_for(NOTE))
    await client.submit_group([await client.draft(PAY) for _ in range(3)])
    amend = Call("notes", "amend", {"note": [1], "text": "m"})
    await client.transact(amend, reads=await client.read_for(amend))
    done = await client.transact(Call("notes", "pay", {"source": "b", "target": "a", "amount": 99}))
    assert not done.applied
    return done.height


async def collect(client: Client, first: int, last: int) -> list[ChangedHeight]:
    found: list[ChangedHeight] = []
    async with aclosing(client.changes(first)) as feed:
        async for height in feed:
            found.append(height)
            if height.height.height == last:
                break
    return found


def named(height: ChangedHeight) -> dict[tuple[str, Any], Entry]:
    return {(entry.key.namespace, entry.key.components): entry for entry in height.entries.values()}


async def test_each_height_brings_its_decisions_and_every_row_it_made() -> None:
    async with harness() as h, h.client() as client:
        last = await worked(client)
        found = await collect(client, 0, last)
        assert [each.height.height for each in found] == [*range(last + 1)]
        start = named(found[0])
        assert {key: entry.value[1] for key, entry in start.items()} == {
            ("account", ("pot", "a")): 1_000_000,
            ("account", ("pot", "b")): 0,
        }
        assert found[0].height.decisions == ()
        for each in found[1:]:
            (own,) = await client.decisions(each.height.height)
            assert each.height == own
            assert each.statement == h.twin.statements[own.height]
            applied = h.twin.applied[own.height]
            assert [change.kh for change in each.changes] == sorted(applied.rows)
            for entry in each.entries.values():
                assert entry == await client.get_at(entry.key, own.height)
        notes = [
            (each.height.height, entry.fields["text"], entry.version)
            for each in found
            for (_, components), entry in named(each).items()
            if components == ("note", 1)
        ]
        assert [row[1:] for row in notes] == [("n", 1), ("m", 2)]
        pots = [named(each).get(("account", ("pot", "b"))) for each in found]
        assert [entry.value[1] for entry in pots if entry is not None] == [0, 1, 4]


async def test_it_goes_on_where_it_stopped_and_over_many_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changing, "PART_BYTES", 1)
    async with harness() as h, h.client() as client:
        last = await worked(client)
        whole = await collect(client, 0, last)
        monkeypatch.undo()
        assert whole == await collect(client, 0, last)
        assert whole[2:] == await collect(client, 2, last)


async def test_a_citizen_may_not_follow_changes() -> None:
    async with harness() as h, h.client() as client, h.client(key=CITIZEN) as citizen:
        await worked(client)
        with pytest.raises(RequestError) as caught:
            await collect(citizen, 1, 1)
        assert caught.value.reason == "DENIED"


Edit = Callable[[list[Any]], None]


def lying(edit: Edit) -> Callable[[Answer], list[Answer]]:
    def lie(answer: Answer) -> list[Answer]:
        if answer.status == Status.EVENT and answer.result[0] == 4 and answer.result[4]:
            edit(answer.result)
        return [answer]

    return lie


def leave_out_a_change(part: list[Any]) -> None:
    part[3] = part[3][72:]
    part[4] = []


def change_a_change(part: list[Any]) -> None:
    part[3] = bytes([part[3][0] ^ 1]) + part[3][1:]
    part[4] = []


def change_the_height_before(part: list[Any]) -> None:
    part[3] = part[3][:71] + bytes([part[3][71] ^ 1]) + part[3][72:]
    part[4] = []


def leave_out_a_decision(part: list[Any]) -> None:
    part[2] = part[2][1:] if part[2] else [b"\x80"]


def change_a_value(part: list[Any]) -> None:
    row = part[4][0][2]
    part[4][0][2] = [0, 1, row[2], b"\x84\x82cpota\x61a\x07\x00\x00"] if row[0] == 0 else None


def say_it_is_gone(part: list[Any]) -> None:
    part[4][0][2] = None


def name_another_place(part: list[Any]) -> None:
    part[4][0][1] = ["account", ["pot", "c"]]


def name_another_change(part: list[Any]) -> None:
    part[4][0][0] += 1


def name_no_change(part: list[Any]) -> None:
    part[4][0][0] = 10_000


def repeat_a_row(part: list[Any]) -> None:
    part[4] = [part[4][0], *part[4]]


def send_too_many_rows(part: list[Any]) -> None:
    part[4] = part[4] * 100


def begin_in_the_middle(part: list[Any]) -> None:
    part[2] = part[3] = None


def take_half(part: list[Any]) -> None:
    part[3] = part[3][:40]


LIES = [
    leave_out_a_change,
    change_a_change,
    change_the_height_before,
    leave_out_a_decision,
    change_a_value,
    say_it_is_gone,
    name_another_place,
    name_another_change,
    name_no_change,
    repeat_a_row,
    send_too_many_rows,
    begin_in_the_middle,
    take_half,
]


@pytest.mark.parametrize("edit", LIES, ids=lambda each: each.__name__)
async def test_a_node_that_lies_is_found_out_and_another_one_followed(edit: Edit) -> None:
    async with harness() as h, h.client(servers=["south"]) as writer:
        last = await worked(writer)
        truth = await collect(writer, 0, last)
        h.lies["north"] = lying(edit)
        async with h.client(servers=["north", "east"]) as client:
            assert await collect(client, 0, last) == truth
        async with h.client(servers=["north"], patience_seconds=0.3) as client:
            with pytest.raises((VerificationError, NotReachableError)):
                await collect(client, 0, last)


async def test_a_node_may_keep_rows_back_but_not_that_something_changed() -> None:
    def silent(part: list[Any]) -> None:
        part[4] = []

    async with harness() as h, h.client(servers=["south"]) as writer:
        last = await worked(writer)
        h.lies["north"] = lying(silent)
        async with h.client(servers=["north"]) as client:
            found = await collect(client, 0, last)
        truth = await collect(writer, 0, last)
        assert [each.changes for each in found] == [each.changes for each in truth]
        assert not any(each.entries for each in found)


async def test_more_is_promised_and_another_height_follows() -> None:
    def broken(part: list[Any]) -> None:
        part[5] = True

    async with harness() as h, h.client(servers=["south"]) as writer:
        last = await worked(writer)
        truth = await collect(writer, 0, last)
        h.lies["north"] = lying(broken)
        async with h.client(servers=["north", "east"]) as client:
            assert await collect(client, 0, last) == truth


async def test_what_a_node_no_longer_keeps_another_one_brings() -> None:
    lost = ["PRUNED", "this node keeps the past from height 3 on", "", 0, None, None]

    def forgetful(answer: Answer) -> list[Answer]:
        if answer.status == Status.EVENT and answer.request_id and answer.result[0] == 4:
            return [Answer(answer.request_id, Status.PRUNED, lost)]
        return [answer]

    async with harness() as h, h.client(servers=["south"]) as writer:
        last = await worked(writer)
        h.lies["north"] = forgetful
        async with h.client(servers=["north", "east"]) as client:
            assert len(await collect(client, 0, last)) == last + 1
        h.lies["east"] = forgetful
        async with h.client(servers=["north", "east"]) as client:
            with pytest.raises(RequestError) as caught:
                await collect(client, 0, last)
            assert caught.value.reason == "PRUNED"
