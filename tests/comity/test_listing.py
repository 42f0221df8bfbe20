"""Lists of records: what an index of the ledger proves, in pages, and what no node can hide."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from comity import Call, Client, DraftError, Listing, MovedError, RequestError
from comity.listing import ATTEMPTS_MAX
from consensus import codec
from consensus.answers import Answer
from consensus.errors import DecodeError, ProofError
from consensus.protocol import Status
from tests.comity.shell import Shell, idle_shell, shell
from tests.comity.test_lies import is_rows, refused_with, result
from tests.comity.twin import CITIZEN, CITIZEN_TOKEN, harness

__all__ = ["idle_shell", "shell"]


def write(number: int, amount: int = 5, owner: list[Any] | None = None) -> Call:
    inputs = {"number": number, "text": "n", "amount": amount, "owner": owner}
    return Call("notes", "write", inputs)


async def do(client: Client, *calls: Call) -> None:
    """Make calls, each after reading what it needs."""
    for call in calls:
        assert (await client.transact(call, reads=await client.read_for(call))).applied


@asynccontextmanager
async def notes(*calls: Call) -> Any:
    """A network after these calls, and a client of it."""
    async with harness() as h, h.client() as client:
        await do(client, *calls)
        yield h, client


async def test_a_list_by_index_is_proved_with_its_size() -> None:
    async with notes(write(1), write(2, 6), write(3)) as (_, client):
        found = await client.list_records("note", index="amount", value=5)
        assert found.ids == ((1,), (3,))
        assert (found.total, found.proved, found.next) == (2, True, None)
        assert (found.kind, found.index, found.value) == ("note", "amount", 5)
        assert found.height == client.trust.height
        assert found.changed == found.height
        await do(client, Call("notes", "close", {"note": [1]}))
        assert (await client.list_records("note", index="amount", value=5)).ids == ((3,),)


async def test_a_list_of_what_nobody_has_is_proved_empty() -> None:
    async with notes() as (_, client):
        found = await client.list_records("note", index="amount", value=5)
        assert (found.ids, found.total, found.changed, found.next) == ((), 0, 0, None)
        assert (await client.list_all("note", index="amount", value=5)).ids == ()


async def test_a_list_by_reference_is_asked_for_with_its_components() -> None:
    enter = Call("notes", "enter", {"token": CITIZEN_TOKEN, "name": "Ada"})
    async with notes(enter, write(1, 5, [CITIZEN_TOKEN]), write(2)) as (_, client):
        found = await client.list_records("note", index="owner", value=[CITIZEN_TOKEN])
        assert found.ids == ((1,),)


async def test_pages_join_to_the_whole() -> None:
    async with notes(*map(write, range(1, 6))) as (_, client):
        seen, after = [], None
        while True:
            page = await client.list_records("note", index="amount", value=5, after=after, limit=2)
            seen.append([id_[0] for id_ in page.ids])
            assert page.total == 5
            after = page.next
            if after is None:
                break
        assert seen == [[1, 2], [3, 4], [5]]


async def test_a_page_after_a_change_is_refused() -> None:
    async with notes(*map(write, range(1, 4))) as (_, client):
        first = await client.list_records("note", index="amount", value=5, limit=2)
        await do(client, write(9, 7))  # of another amount: this list stays
        rest = await client.list_records("note", index="amount", value=5, after=first.next)
        assert rest.ids == ((3,),)
        await do(client, Call("notes", "close", {"note": [1]}))
        with pytest.raises(MovedError):
            await client.list_records("note", index="amount", value=5, after=first.next)


async def test_a_list_that_changes_while_it_is_read_is_begun_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with notes(*map(write, range(1, 4))) as (_, client):
        once = Client.list_records
        meddled: list[None] = []

        async def meddle(self: Client, *args: Any, **more: Any) -> Listing:
            if more["after"] is not None and len(meddled) < times:
                meddled.append(None)
                await do(client, write(10 + len(meddled)))
            return await once(self, *args, **(more | {"limit": 2}))

        monkeypatch.setattr(Client, "list_records", meddle)
        times = 2
        whole = await client.list_all("note", index="amount", value=5)
        assert [id_[0] for id_ in whole.ids] == [1, 2, 3, 11, 12]
        assert (whole.total, whole.next) == (5, None)
        times = 1000
        with pytest.raises(MovedError):
            await client.list_all("note", index="amount", value=5)
        assert len(meddled) == 2 + ATTEMPTS_MAX


async def test_all_records_of_a_kind_are_listed_unproved() -> None:
    async with notes(*map(write, range(1, 4))) as (_, client):
        first = await client.list_records("note", limit=2)
        assert (first.ids, first.next) == (((1,), (2,)), (2,))
        assert (first.proved, first.total, first.time_ms) == (False, None, None)
        assert (await client.list_records("note", after=first.next)).ids == ((3,),)
        assert (await client.list_all("note")).ids == ((1,), (2,), (3,))


async def test_what_the_ledger_keeps_no_index_of_is_not_asked_for() -> None:
    async with notes() as (_, client):
        for kind, index, value, said in (
            ("note", "text", "n", "keeps no index of note by text"),
            ("nope", "text", "n", "no domain has a kind 'nope'"),
            ("person", "name", "n", "keeps no index of person by name"),
            ("note", "amount", "5", "expected int, got text"),
            ("note", "amount", None, "expected int, got nothing"),
            ("note", "owner", 7, "expected an id"),
        ):
            with pytest.raises(DraftError, match=said):
                await client.list_records(kind, index=index, value=value)
        for after in ((1,), (1, 2, 3), (-1, 2), ("a", 2), (True, 2)):
            with pytest.raises(DraftError, match="no place in an index"):
                await client.list_records("note", index="amount", value=5, after=after)


async def test_a_citizen_lists_what_names_the_citizen_and_nothing_else() -> None:
    own: list[Any] = [CITIZEN_TOKEN]
    async with (
        notes(write(1, 5, own), write(2), write(3, 6, own)) as (h, _),
        h.client(CITIZEN) as citizen,
    ):
        found = await citizen.list_records("note", index="owner", value=own)
        assert found.ids == ((1,), (3,))
        for index, value in (("amount", 5), ("owner", [b"x" * 32])):
            with pytest.raises(RequestError) as caught:
                await citizen.list_records("note", index=index, value=value)
            assert caught.value.reason == "DENIED"


async def test_what_an_action_takes_from_an_index_is_read_for_it() -> None:
    async with notes(write(1), write(2, 6), write(3, 6)) as (_, client):
        both = Call("notes", "tidy", {"note": [2], "amount": 6})
        entries = await client.read_for(both)
        # two notes have that amount: the effect does not take place, and needs no version
        assert [entry.key.components for entry in entries] == []
        assert (await client.transact(both, reads=entries)).applied
        assert (await client.get("record", "note", 2)).version == 1
        only = Call("notes", "tidy", {"note": [1], "amount": 5})
        entries = await client.read_for(only)
        assert [entry.key.components for entry in entries] == [("note", 1)]
        assert (await client.transact(only, reads=entries)).applied
        assert (await client.get("record", "note", 1)).fields["status"] == "closed"
        await do(client, write(4, 6))
        many = Call("notes", "tidy", {"note": [4], "amount": 6})
        refused = await client.transact(many, reads=await client.read_for(many))
        assert (refused.code, refused.detail) == ("LIMIT", ["index", "note.amount", 3, 2])


async def test_a_list_is_read_in_three_requests_however_long_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with notes(write(1), write(2, 6), write(3, 6)) as (_, client):
        asked = []
        really = Client.get_many

        async def get_many(self: Client, keys: Any) -> Any:
            asked.append([key.namespace for key in keys])
            return await really(self, keys)

        monkeypatch.setattr(Client, "get_many", get_many)
        await client.read_for(Call("notes", "tidy", {"note": [2], "amount": 6}))
        assert asked == [["record"], ["index"], ["index", "index"], ["record", "record"]]


# --- lies -------------------------------------------------------------------------------------


def listed(client: Client) -> Any:
    return client.list_records("note", index="amount", value=1)


def shown(change: Callable[[list[Any]], Any]) -> Callable[[Answer], list[Answer]]:
    """Change rows that show more than one leaf; ``change`` gets the rows."""

    def rows(value: list[Any]) -> list[Any]:
        return [value[0], change(value[1]), value[2]]

    def index(value: Any) -> bool:
        return is_rows(value) and type(value[1]) is list and 2 <= len(value[1]) <= 3

    return result(rows, index)


LIES: list[tuple[Callable[[list[Any]], Any], type[Exception]]] = [
    (lambda rows: rows[:-1], ProofError),
    (lambda rows: [*rows, rows[-1]], ProofError),
    (lambda rows: [None], ProofError),
    (lambda rows: [rows[0], *rows[1:-1], None], ProofError),
    (lambda rows: [[0, 1, rows[0][2], codec.encode([0])]], ProofError),
    (lambda rows: [[0, 1, rows[0][2], codec.encode([2])], rows[1], rows[1]], ProofError),
    (lambda rows: [rows[0], [0, 1, rows[1][2], codec.encode([[2]])]], ProofError),
    (lambda rows: [rows[0], [1, b"h", [], []]], ProofError),
    (lambda rows: [[0, 1, rows[0][2], codec.encode([-1])], rows[1]], DecodeError),
    (lambda rows: [[0, 1, rows[0][2], codec.encode("x")], rows[1]], DecodeError),
    (lambda rows: [[0, 1, rows[0][2], codec.encode([2**62])], rows[1]], ProofError),
]


@pytest.mark.parametrize(("change", "error"), LIES, ids=range(len(LIES)))
async def test_a_list_that_is_cut_padded_or_changed_is_refused(
    change: Callable[[list[Any]], Any], error: type[Exception]
) -> None:
    await refused_with(shown(change), error, listed)  # type: ignore[arg-type]


async def test_a_node_that_knows_no_indexes_is_passed_over() -> None:
    def old(answer: Answer) -> list[Answer]:
        if answer.status == Status.OK and is_rows(answer.result) and len(answer.result[1]) == 2:
            problem = ["UNAVAILABLE", "not now", "ask another", 0, None, None]
            return [Answer(answer.request_id, Status.UNAVAILABLE, problem)]
        return [answer]

    async with harness() as h:
        h.lies["north"] = old
        async with h.client(servers=["north", "south"]) as client:
            await do(client, write(1))
            found = await client.list_records("note", index="amount", value=5)
            assert found.ids == ((1,),)


# --- the command ------------------------------------------------------------------------------


def test_the_command_lists_by_an_index(shell: Shell) -> None:
    for number in range(1, 4):
        shell.note(number)
    first = shell("list", "note", "--by", "amount=5", "--limit", "2", "--json")
    assert first.status == 0
    assert first.json["ids"] == [[1], [2]]
    assert first.json["by"] == {"amount": 5}
    assert (first.json["proved"], first.json["total"]) == (True, 3)
    after = first.json["next"]
    second = shell("list", "note", "--by", "amount=5", "--after", after, "--json").json
    assert (second["ids"], second["next"]) == ([[3]], None)
    assert shell("list", "note", "--by", "amount=5", "--all", "--json").json["ids"] == [
        [1], [2], [3],
    ]  # fmt: skip
    said = shell("list", "note", "--by", "amount=5", "--limit", "2").out
    assert "note by amount 5: 2 of 3 at height 4, proved" in said
    assert f"more: --after '{after}'" in said
    assert "all 3 at height" in shell("list", "note", "--by", "amount=5").out
    shell.note(4)
    moved = shell("list", "note", "--by", "amount=5", "--after", after)
    assert moved.status == 1
    assert "has changed since the page before" in moved.err
    assert shell("list", "note", "--all", "--json").json["ids"] == [[1], [2], [3], [4]]
    assert shell("get", "index/note.amount/5", "--json").json["value"] == [4]


def test_the_command_shows_fields_of_what_it_lists(shell: Shell) -> None:
    for number in (1, 2):
        shell.note(number, f"text {number}")
    words = ["list", "note", "--by", "amount=5", "--fields", "text,status,owner"]
    said = shell(*words, "--json").json
    assert said["ids"] == [[1], [2]]
    assert said["fields"] == [
        {"text": f"text {number}", "status": "open", "owner": None} for number in (1, 2)
    ]
    table = [line.split() for line in shell(*words).out.splitlines()]
    assert table[1:4] == [
        ["note", "text", "status", "owner"],
        ["note/1", "text", "1", "open", "-"],
        ["note/2", "text", "2", "open", "-"],
    ]
    assert shell("list", "note", "--fields", "amount", "--json").json["fields"] == [
        {"amount": 5}, {"amount": 5},
    ]  # fmt: skip
    assert shell("list", "note", "--by", "amount=6", "--fields", "text").status == 0


async def test_the_records_of_a_long_list_are_read_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("comity.listing.KEYS_MAX", 2)
    async with notes(*map(write, range(1, 6))) as (_, client):
        page = await client.list_all("note", index="amount", value=5)
        entries = await client.get_listed(page)
        assert [entry.key.components for entry in entries] == [("note", n) for n in range(1, 6)]
        assert all(entry.present for entry in entries)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        ("list note --fields colour", 2, "note has no field 'colour'"),
        ("list note --fields text,", 2, "note has no field ''"),
        ("list note --by amount", 2, "'amount' is not field=value"),
        ("list note --by =5", 2, "is not field=value"),
        ("list note --by amount=five", 2, "is no int"),
        ("list note --by text=n", 2, "keeps no index of note by text"),
        ("list nope --by text=n", 2, "no domain has a kind 'nope'"),
        ("list note --by amount=5 --after 3", 2, "is no place in an index"),
        ("list note --by amount=5 --after x@y", 2, "is no place in an index"),
        ("list note --all --after 3", 2, "--all begins with the first page"),
    ],
)
def test_bad_words_are_answered_with_what_to_do(
    idle_shell: Shell, words: str, status: int, said: str
) -> None:
    found = idle_shell(*words.split())
    assert found.status == status
    assert said in found.err
