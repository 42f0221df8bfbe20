"""A client of a network whose committee changes: it follows, and reaches the members of now."""

from __future__ import annotations

from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from comity import receipts
from comity.errors import DraftError, NotReachableError
from comity.session import Server
from consensus import answers
from consensus.answers import Answer, EpochStep
from consensus.committee import Validator
from consensus.errors import CertificateError, RemoteProtocolError
from tests.comity.test_evidence import write
from tests.comity.twin import AGENCIES, Harness, Twin, certify, harness, key_of

pytestmark = pytest.mark.usefixtures("autojump_clock")


def rows(twin: Twin, *changes: tuple[int, dict[str, Any]]) -> list[Validator]:
    """The committee of now, with some of its rows changed."""
    found = list(twin.committee.validators)
    for index, fields in changes:
        found[index] = replace(found[index], **fields)
    return found


def watched(running: Harness) -> list[Server]:
    """Have every dialled server written down."""
    seen: list[Server] = []
    inner = running.dial

    async def dial(server: Server) -> trio.abc.Stream:
        seen.append(server)
        return await inner(server)

    running.dial = dial  # type: ignore[method-assign]
    return seen


async def test_a_client_goes_on_over_a_change_and_reaches_members_where_they_are_now() -> None:
    async with harness() as running:
        twin, seen = running.twin, watched(running)
        async with running.client(servers=["north", "south"]) as client:
            before = await client.get("record", "note", 1)
            assert client.trust.committee.epoch == 1
            twin.elect(*rows(twin, (0, {"client_host": "elsewhere", "client_port": 4321})))
            twin.make_block()
            running.cut()
            after = await client.get("record", "note", 1)
            assert after.height > before.height
            assert client.trust.committee.epoch == 2
            assert client.trust.committee == twin.committee
            running.cut()
            await client.get("record", "note", 1)
        assert seen[0].host != "elsewhere"
        assert (seen[-1].agency, seen[-1].host, seen[-1].port) == ("north", "elsewhere", 4321)


async def test_an_address_that_the_caller_gave_stays_and_the_certificate_follows() -> None:
    async with harness() as running:
        twin, seen = running.twin, watched(running)
        async with running.client(servers=["north=tunnel:99"]) as client:
            await client.status()
            twin.elect(*rows(twin, (0, {"client_port": 4321, "certificate": b"renewed"})))
            twin.make_block()
            for _ in range(2):
                running.cut()
                await client.get("record", "note", 1)
        assert {(each.host, each.port) for each in seen} == {("tunnel", 99)}
        assert seen[-1].certificate == b"renewed"


async def test_more_changes_than_fit_an_answer_are_followed_in_pages() -> None:
    twin = Twin()
    for number in range(2 * answers.EPOCHS_MAX + 3):
        twin.elect(*rows(twin, (1, {"peer_port": 2000 + number})))
    twin.make_block()
    async with harness(twin) as running, running.client() as client:
        found = await client.get("record", "note", 1)
        assert found.height == twin.height
        assert client.trust.committee == twin.committee
        assert (await client.committee()).epoch == 2 * answers.EPOCHS_MAX + 4
        assert client.trust.steps_to(1000) == tuple(twin.steps)


async def test_whoever_left_is_asked_last_and_who_came_is_used() -> None:
    async with harness() as running:
        twin, seen = running.twin, watched(running)
        first = rows(twin)
        async with running.client(servers=None) as client:
            await client.status()
            twin.elect(*first[1:], replace(first[0], agency="north again"))
            running.servers["north again"] = running.servers["north"]
            twin.make_block()
            running.cut()
            await client.get("record", "note", 1)
            running.cut()
            del seen[:]
            await client.get("record", "note", 1)
            assert seen[0].agency == "south"
            running.down |= set(AGENCIES[1:]) | {"north again"}
            running.cut()
            del seen[:]
            await client.get("record", "note", 1)
            assert [each.agency for each in seen][-1] == "north"
            assert "north again" in [each.agency for each in seen]


async def test_a_node_that_makes_up_a_committee_is_left_for_another() -> None:
    async with harness() as running:
        twin = running.twin
        strangers = [replace(each, key=key_of(200 + i).public) for i, each in enumerate(rows(twin))]
        made_up = replace(twin.statements[0], height=1, next_committee_hash=b"h" * 32)
        step = EpochStep(certify(made_up), [2, [list(each.to_value()) for each in strangers]])
        asked = []

        def lie(answer: Answer) -> list[Answer]:
            if answer.result == []:
                asked.append(answer)
                return [replace(answer, result=[step.to_value()])]
            return [answer]

        running.lies["north"] = lie
        async with running.client(servers=["north", "south"]) as client:
            await client.get("record", "note", 1)
            assert client.trust.committee.epoch == 1
            assert asked
            reasons = client._network._pool.reasons
            assert isinstance(reasons["north"], CertificateError)
        async with running.client(servers=["north"]) as client:
            with pytest.raises((CertificateError, NotReachableError)):
                await client.get("record", "note", 1)


async def test_a_subscription_goes_on_in_the_next_epoch_and_misses_nothing() -> None:
    async with harness() as running:
        twin = running.twin
        async with running.client(servers=["north", "south"]) as client:
            first = twin.make_block()
            end = twin.elect(*rows(twin)[::-1])
            heights = []
            async with aclosing(client.subscribe(first)) as feed:
                async for each in feed:
                    heights.append((each.height, each.epoch))
                    if each.height == end:
                        running.cut()
                        twin.make_block()
                        twin.make_block()
                    if each.height == end + 2:
                        break
        assert heights == [(first, 1), (end, 1), (end + 1, 2), (end + 2, 2)]


async def test_a_receipt_shows_the_committees_that_lead_to_its_certificate() -> None:
    async with harness() as running:
        twin = running.twin
        twin.elect(*rows(twin, (2, {"peer_port": 77})))
        async with running.client() as client:
            txid = await write(client, 1)
            data = await client.receipt(txid)
        found = receipts.verify(data, twin.chain)
        assert found.newest.epoch == 2


def joined(running: Harness) -> None:
    """Have an agency that the genesis file does not name take the place of the first one."""
    first = rows(running.twin)
    running.twin.elect(*first[1:], replace(first[0], agency="late"))
    running.servers["late"] = running.servers["north"]
    running.twin.make_block()


async def test_a_member_that_joined_later_is_named_like_those_of_the_genesis_file() -> None:
    async with harness() as running:
        joined(running)
        seen = watched(running)
        async with running.client(servers=["late=tunnel:99"]) as client:
            assert client.trust.committee.epoch == 2
            del seen[:]
            found = await client.get("record", "note", 1)
            assert found.height == running.twin.height
        assert [(each.agency, each.host) for each in seen] == [("late", "tunnel")]
        async with running.client(servers=["late", "north"]) as client:  # who left is asked on
            running.down.add("late")
            await client.get("record", "note", 1)
            assert seen[-1].agency == "north"


async def test_a_member_that_the_first_node_does_not_know_yet_is_learned_of_from_others() -> None:
    async with harness() as running:
        joined(running)
        hidden = []

        def behind(answer: Answer) -> list[Answer]:
            with suppress(RemoteProtocolError):
                hidden.append(answers.read_committees(answer.result))
                return [replace(answer, result=[])]
            return [answer]

        running.lies["north"] = behind
        async with running.client(servers=["late"]) as client:
            await client.status()
        assert any(hidden)
        assert running.dialled[0] == "north"


async def test_a_name_that_no_committee_has_is_refused_with_those_of_the_newest() -> None:
    async with harness() as running:
        joined(running)
        with pytest.raises(DraftError, match="no agency 'nobody' has a node") as refused:
            async with running.client(servers=["nobody"]):
                pass
        assert "late" in refused.value.hint
        running.down |= set(AGENCIES)
        with pytest.raises(NotReachableError, match="names no agency 'late'"):
            async with running.client(servers=["late"]):
                pass
