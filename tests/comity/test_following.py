"""Following decisions: each after a place comes once and in order, whichever nodes fail."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import trio

from comity import Call, Client, Cursor, Decision, DraftError, NotReachableError, RequestError
from comity.network import SILENCE_SECONDS_MAX
from consensus.answers import Answer
from consensus.protocol import Status
from tests.comity.shell import Shell, idle_shell, shell
from tests.comity.twin import Harness, harness

__all__ = ["idle_shell", "shell"]

PAY = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})


async def pay(client: Client, count: int = 1) -> list[tuple[int, int]]:
    """Make payments, two in a block where they are more than one; return their places."""
    done = await client.submit_group([await client.draft(PAY) for _ in range(count)])
    return [(each.height, each.index) for each in done]


async def collect(client: Client, after: Cursor | None, count: int) -> list[Decision]:
    """Follow until so many decisions have come."""
    found: list[Decision] = []
    async with aclosing(client.follow(after)) as feed:
        async for decision in feed:
            found.append(decision)
            if len(found) == count:
                break
    return found


def places(decisions: list[Decision]) -> list[tuple[int, int]]:
    return [(each.height, each.index) for each in decisions]


async def test_every_decision_after_a_place_comes_once_and_in_order() -> None:
    async with harness() as h, h.client() as client:
        made = [place for count in (1, 3, 2) for place in await pay(client, count)]
        assert len({height for height, _ in made}) == 3
        assert places(await collect(client, Cursor(0), 6)) == made
        for at, (height, index) in enumerate(made[:-1]):
            after = Cursor(height, index)
            assert places(await collect(client, after, 5 - at)) == made[at + 1 :]
        assert places(await collect(client, Cursor(made[1][0]), 5)) == made[1:]


async def test_without_a_place_only_what_is_new_comes() -> None:
    async with harness() as h, h.client() as client, h.client() as other:
        await pay(client)
        found: list[Decision] = []
        async with trio.open_nursery() as nursery:

            async def follow() -> None:
                found.extend(await collect(other, None, 2))

            nursery.start_soon(follow)
            await trio.testing.wait_all_tasks_blocked()
            made = await pay(client, 2)
        assert places(found) == made


async def test_a_cursor_is_kept_as_text_and_read_again() -> None:
    assert str(Cursor(812, 3)) == "812.3"
    assert Cursor.read("812.3") == Cursor(812, 3)
    assert Cursor.read(str(Cursor(5))) == Cursor(5, -1)
    assert Cursor(5, 9) < Cursor(6) < Cursor(6, 0)
    for text in ("", "812", "812.", ".3", "812.3.4", "-1.3", "812.-2", "8x.1", "9" * 30 + ".1"):
        with pytest.raises(DraftError):
            Cursor.read(text)


async def test_no_decision_is_lost_or_repeated_when_the_node_dies_in_the_middle() -> None:
    async with harness() as h, h.client(servers=["south"]) as writer:
        made = [place for _ in range(4) for place in await pay(writer, 2)]
        async with h.client(servers=["north", "east", "west"]) as client:
            found: list[Decision] = []
            async with aclosing(client.follow(Cursor(0))) as feed:
                async for decision in feed:
                    found.append(decision)
                    if len(found) in (3, 5, 9):
                        kill(h, ["north", "east", "west"][[3, 5, 9].index(len(found))])
                        if len(found) == 9:
                            h.down.discard("north")
                        made += await pay(writer, 2)
                    if len(found) == 14:
                        break
        assert places(found) == made
        assert {"north", "east", "west"} <= set(h.dialled)


def kill(h: Harness, agency: str) -> None:
    """End a node: its connections, and whoever dials it from now on."""
    h.down.add(agency)
    for connection in list(h.servers[agency]._connections):
        connection.stop()


async def test_another_client_goes_on_at_another_node_where_the_first_stopped() -> None:
    async with harness() as h, h.client(servers=["south"]) as writer:
        made = [place for _ in range(3) for place in await pay(writer, 2)]
        async with h.client(servers=["north"]) as first:
            before = await collect(first, Cursor(0), 3)
        kept = str(before[-1].cursor)
        kill(h, "north")
        made += await pay(writer)
        async with h.client(servers=["east"]) as second:
            after = await collect(second, Cursor.read(kept), 4)
        assert places(before + after) == made


class Frozen(trio.abc.Stream):
    """A stream that, once frozen, neither ends nor brings anything more."""

    def __init__(self, inner: trio.abc.Stream, frozen: set[str], name: str) -> None:
        self._inner, self._frozen, self._name = inner, frozen, name

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._inner.receive_some(max_bytes))
        if self._name in self._frozen:
            await trio.sleep_forever()
        return data

    async def send_all(self, data: Any) -> None:
        if self._name not in self._frozen:
            await self._inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


async def test_a_node_that_falls_silent_is_left(autojump_clock: trio.testing.MockClock) -> None:
    async with harness() as h, h.client(servers=["south"]) as writer:
        made = await pay(writer, 2)
        frozen: set[str] = set()
        dial = h.dial

        async def through(server: Any) -> trio.abc.Stream:
            return Frozen(await dial(server), frozen, server.agency)

        h.dial = through
        async with h.client(servers=["north", "east"]) as client:
            found: list[Decision] = []
            async with aclosing(client.follow(Cursor(0))) as feed:
                async for decision in feed:
                    found.append(decision)
                    if len(found) == 1:
                        frozen.add("north")
                    if len(found) == 2:
                        began = trio.current_time()
                        made += await pay(writer, 2)
                    if len(found) == 4:
                        break
        assert places(found) == made
        assert trio.current_time() - began < 3 * SILENCE_SECONDS_MAX


async def test_a_node_that_stays_behind_is_left(autojump_clock: trio.testing.MockClock) -> None:
    def behind(answer: Answer) -> list[Answer]:
        old = answer.status != Status.EVENT or answer.result[0] != 3 or answer.result[1] < 3
        return [answer] if old else []

    async with harness() as h, h.client(servers=["south"]) as writer:
        made = [place for _ in range(3) for place in await pay(writer)]
        h.lies["north"] = behind
        async with h.client(servers=["north", "east"]) as client:
            assert places(await collect(client, Cursor(0), 3)) == made
        assert "east" in h.dialled


async def test_a_node_that_no_longer_keeps_a_height_is_passed_over() -> None:
    lost = ["NOT_FOUND", "the decisions of height 1 are not kept here", "", 0, None, None]

    def forgetful(answer: Answer) -> list[Answer]:
        if answer.status == Status.EVENT and answer.request_id and answer.result[0] == 3:
            return [Answer(answer.request_id, Status.NOT_FOUND, lost)]
        return [answer]

    async with harness() as h, h.client(servers=["south"]) as writer:
        made = [place for _ in range(2) for place in await pay(writer)]
        h.lies["north"] = forgetful
        async with h.client(servers=["north", "east"]) as client:
            assert places(await collect(client, Cursor(0), 2)) == made
        h.lies["east"] = forgetful
        async with h.client(servers=["north", "east"]) as client:
            with pytest.raises(RequestError, match="not kept here") as caught:
                await collect(client, Cursor(0), 2)
            assert caught.value.reason == "NOT_FOUND"
        h.down.add("east")
        async with h.client(servers=["north", "east"], patience_seconds=0.3) as client:
            with pytest.raises(RequestError, match="not kept here"):
                await collect(client, Cursor(0), 2)
        h.down.add("north")
        async with h.client(servers=["north", "east"], patience_seconds=0.3) as client:
            with pytest.raises(NotReachableError):
                await collect(client, Cursor(0), 2)


async def test_an_idle_network_is_waited_for(autojump_clock: trio.testing.MockClock) -> None:
    async with harness() as h, h.client(servers=["south"]) as writer:
        made = await pay(writer)
        async with h.client(servers=["north", "east"]) as client, trio.open_nursery() as nursery:

            async def later() -> None:
                await trio.sleep(20 * SILENCE_SECONDS_MAX)
                made.extend(await pay(writer))

            nursery.start_soon(later)
            assert places(await collect(client, Cursor(0), 2)) == made


def test_the_command_goes_on_after_a_decision(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [shell.note(number).json for number in (1, 2, 2)]
    assert [each["code"] for each in made] == ["APPLIED", "APPLIED", "NOT_UNIQUE"]
    endless = Client.follow

    async def two(self: Client, after: Cursor | None = None) -> AsyncIterator[Decision]:
        left = 2
        async with aclosing(endless(self, after)) as feed:
            async for decision in feed:
                yield decision
                left -= 1
                if not left:
                    return

    monkeypatch.setattr(Client, "follow", two)
    after = f"{made[0]['height']}.{made[0]['index']}"
    words = ["decisions", "--follow", "--after", after]
    lines = shell(*words, "--json").out.splitlines()
    assert [json.loads(line)["txid"] for line in lines] == [each["txid"] for each in made[1:]]
    assert "NOT_UNIQUE" in shell(*words).out
    assert len(shell(*words, "--refused", "--json").out.splitlines()) == 1


def test_bad_places_are_answered_with_what_to_do(idle_shell: Shell) -> None:
    bad = [
        ("decisions --after 1.0", "--after goes with --follow"),
        ("decisions --follow --after 1.0 --last 3", "--after goes with --follow"),
        ("decisions --follow --after 1", "is no place of a decision"),
    ]
    for words, said in bad:
        found = idle_shell(*words.split())
        assert found.status == 2
        assert said in found.err
