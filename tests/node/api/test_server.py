"""The client port with an in-memory node: limits, access, bad senders, bulk answers."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

import pytest
import trio
import trio.testing

from comity.keys import Key
from consensus import answers, codec, protocol, reads
from consensus.protocol import (
    Event,
    Get,
    GetDecision,
    GetDecisions,
    GetStatements,
    GetStatus,
    Hello,
    Item,
    ListRecords,
    Request,
    StateKey,
    Status,
    Stream,
    Submit,
    Subscribe,
    Unsubscribe,
)
from node.api.backend import Rejected
from node.api.connection import Connection
from tests.comity.twin import CITIZEN, NODES, OFFICIAL, STRANGER
from tests.freeing import freed
from tests.node.api.wire import LIMITS, envelopes, payment, port

# --- hello ------------------------------------------------------------------------------------


async def test_greeting_names_chain_and_key_and_every_nonce_is_fresh() -> None:
    async with port() as (twin, _, connect):
        found = [(await connect()).greeting for _ in range(3)]
        assert {g.chain for g in found} == {twin.chain}
        assert {g.node_key for g in found} == {NODES[0].public}
        assert len({g.nonce for g in found}) == 3


async def test_welcome_says_who_one_is() -> None:
    async with port() as (_, _, connect):
        for key, access in ((None, 0), (STRANGER, 0), (OFFICIAL, 1), (CITIZEN, 2)):
            wire = await connect(greet=False)
            found = await wire.hello(key)
            assert answers.read_welcome(found.result).access == access


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"chain": b"x" * 32}, Status.WRONG_CHAIN),
        ({"version": 2}, Status.UNSUPPORTED),
        ({"signature": b"s" * 64}, Status.BAD_SIGNATURE),
        ({"key": STRANGER.public}, Status.BAD_SIGNATURE),
        ({"key": b"\0" * 32}, Status.BAD_SIGNATURE),
    ],
)
async def test_hello_that_does_not_prove_what_it_says_is_refused_and_closed(
    changes: dict[str, Any], status: Status
) -> None:
    async with port() as (_, _, connect):
        wire = await connect(greet=False)
        found = await wire.hello(OFFICIAL, **changes)
        assert (found.request_id, found.status) == (1, status)
        assert await wire.next() is None


async def test_a_connection_that_ended_is_freed_by_reference_counts() -> None:
    async with port() as (twin, _, connect):
        await connect()  # what a process does once

        async def ask_and_leave() -> None:
            wire = await connect()
            pays = Submit(True, envelopes(twin, 1, 2))
            pot = (StateKey("account", ("pot", "a")),)
            await wire.send((2, Get(0, pot)), (3, Subscribe(Stream.STATEMENTS, 0)), (4, pays))
            for _ in range(2):
                assert (await wire.answer()).status in (Status.OK, Status.EVENT)
            await wire.send((5, Get(twin.height + 9, pot)))  # waits for a height
            await trio.testing.wait_all_tasks_blocked()
            await wire.stream.aclose()
            await trio.testing.wait_all_tasks_blocked()

        with freed(Connection):
            await ask_and_leave()


async def test_proof_of_another_connection_is_refused() -> None:
    async with port() as (twin, _, connect):
        first = await connect()
        second = await connect(greet=False)
        await second.next()
        signed = protocol.session_message(
            twin.chain, NODES[0].public, first.greeting.nonce, OFFICIAL.public
        )
        hello = Hello(1, twin.chain, OFFICIAL.public, OFFICIAL.sign(signed))
        await second.send((1, hello))
        refused = await second.answer()
        assert refused.status == Status.BAD_SIGNATURE
        problem = answers.read_problem(refused.result)
        assert problem.hint == "sign over the nonce of this greeting with the key that hello names"


async def test_proof_for_another_node_is_refused() -> None:
    async with port() as (twin, _, connect):
        wire = await connect(greet=False)
        greeting = answers.read_greeting((await wire.next()).result)
        signed = protocol.session_message(
            twin.chain, NODES[1].public, greeting.nonce, OFFICIAL.public
        )
        await wire.send((1, Hello(1, twin.chain, OFFICIAL.public, OFFICIAL.sign(signed))))
        assert (await wire.answer()).status == Status.BAD_SIGNATURE


async def test_nothing_is_answered_before_hello() -> None:
    async with port() as (_, _, connect):
        wire = await connect(greet=False)
        await wire.next()
        await wire.send((1, GetStatus()))
        assert (await wire.answer()).status == Status.DENIED
        assert await wire.next() is None


# --- access -----------------------------------------------------------------------------------

READS: list[Request] = [
    Submit(True, ((Item.ENVELOPE, b"x"),)),
    GetDecision(b"t" * 32),
    Get(0, (StateKey("account", ("pot", "a")),)),
    ListRecords("note", None, 10),
    GetDecisions(0, 1),
    Subscribe(Stream.DECISIONS, 0),
]


@pytest.mark.parametrize("key", [None, STRANGER], ids=["anonymous", "unregistered"])
async def test_strangers_get_status_committee_and_statements_only(key: Key | None) -> None:
    async with port() as (_, _, connect):
        wire = await connect(key)
        for number, request in enumerate(READS, 2):
            await wire.send((number, request))
            found = await wire.answer()
            assert (found.request_id, found.status) == (number, Status.DENIED), request
        await wire.send((50, GetStatus()), (51, GetStatements(-1, 1)))
        found = [await wire.answer(), await wire.answer()]
        assert [a.status for a in found] == [Status.OK, Status.OK]
        assert found[1].result == [1]


async def test_salt_pool_is_shown_to_nobody() -> None:
    async with port() as (_, _, connect):
        wire = await connect()
        await wire.send((2, Get(0, (StateKey("pool", ()),))))
        assert (await wire.answer()).status == Status.DENIED


async def test_citizen_cannot_submit_for_others() -> None:
    async with port() as (twin, _, connect):
        wire = await connect(CITIZEN)
        await wire.send((2, Submit(True, envelopes(twin, 1, 1))))
        assert (await wire.answer()).status == Status.DENIED
        own = (Item.ENVELOPE, payment(twin, 1, CITIZEN)[1])
        await wire.send((3, Submit(True, (own,))))
        assert await wire.next() is not None
        receipts = await wire.next()
        assert receipts.result[0] == Event.RECEIPTS


# --- submissions --------------------------------------------------------------------------------


async def test_receipts_of_a_block_come_in_one_event_after_its_statement() -> None:
    async with port() as (twin, _, connect):
        wire = await connect()
        await wire.send(*((i, Submit(True, envelopes(twin, 10 * i, 3))) for i in (2, 3, 4)))
        first, second = await wire.next(), await wire.next()
        assert first.result[0] == Event.STATEMENT
        receipts = answers.read_receipts(second.result)
        assert receipts.total == 9
        places = {(r.request_id, r.item, r.position) for r in receipts.receipts}
        assert places == {(i, item, 0) for i in (2, 3, 4) for item in range(3)}
        assert twin.submissions == [9]


async def test_ticket_is_answered_before_the_block() -> None:
    async with port() as (twin, _, connect):
        twin.paused = True
        wire = await connect()
        txid, envelope = payment(twin, 1)
        bad = envelope[:-1] + bytes([envelope[-1] ^ 1])
        items = ((Item.ENVELOPE, envelope), (Item.ENVELOPE, bad))
        await wire.send((2, Submit(False, items)))
        good, failed = answers.read_tickets((await wire.answer()).result)
        assert good.txids == (txid,)
        assert failed.problem is not None
        assert failed.status == Status.MALFORMED


async def test_bad_signature_is_refused_by_item_and_the_rest_goes_on() -> None:
    async with port() as (twin, _, connect):
        wire = await connect()
        _, envelope = payment(twin, 1)
        value = codec.parse(envelope)
        value[1][0] = bytes(64)
        items = ((Item.ENVELOPE, codec.encode(value)), (Item.ENVELOPE, payment(twin, 2)[1]))
        await wire.send((2, Submit(True, items)))
        refused = await wire.answer()
        assert refused.status == Status.BAD_SIGNATURE
        problem = answers.read_problem(refused.result)
        assert (problem.item, problem.position) == (0, None)
        await wire.next()
        receipts = answers.read_receipts((await wire.next()).result)
        assert [(r.item, r.position) for r in receipts.receipts] == [(1, 0)]


async def test_decided_transaction_gets_its_receipt_again() -> None:
    async with port() as (twin, _, connect):
        wire = await connect()
        items = envelopes(twin, 1, 1)
        shown = []
        for number in (2, 3):
            await wire.send((number, Submit(True, items)))
            while True:
                found = await wire.next()
                if found.result[0] == Event.RECEIPTS:
                    break
            shown.append(answers.read_receipts(found.result).receipts[0])
        assert shown[0].decision == shown[1].decision
        assert shown[1].request_id == 3


async def test_lapsed_transaction_is_told() -> None:
    async with port() as (twin, server, connect):
        twin.paused = True
        wire = await connect()
        txid, envelope = payment(twin, 1)
        await wire.send((2, Submit(True, ((Item.ENVELOPE, envelope),))))
        await trio.testing.wait_all_tasks_blocked()
        await trio.sleep(0.1)
        assert server.waiting == 1
        server.lapsed([txid])
        found = await wire.answer()
        assert (found.request_id, found.status) == (2, Status.LAPSED)
        assert server.waiting == 0


async def test_nobody_is_told_after_leaving() -> None:
    async with port() as (twin, server, connect):
        twin.paused = True
        wire = await connect()
        await wire.send((2, Submit(True, envelopes(twin, 1, 5))))
        await trio.sleep(0.1)
        assert server.waiting == 5
        await wire.stream.aclose()
        await trio.sleep(0.1)
        assert (server.waiting, server.sessions) == (0, 0)
        twin.make_block(*twin.pool.values())


async def test_busy_pool_is_answered_with_a_time_to_wait() -> None:
    async with port() as (twin, server, connect):
        twin.rejection = Rejected(Status.BUSY, "BUSY", "the pool is full", retry_after_ms=250)
        wire = await connect()
        await wire.send((2, Submit(True, envelopes(twin, 1, 1))))
        found = await wire.answer()
        assert found.status == Status.BUSY
        assert answers.read_problem(found.result).retry_after_ms == 250
        assert server.requests["submit", Status.BUSY] == 1


async def test_tickets_of_a_busy_pool_are_counted_as_busy() -> None:
    async with port() as (twin, server, connect):
        twin.rejection = Rejected(Status.BUSY, "BUSY", "the pool is full", retry_after_ms=250)
        wire = await connect()
        await wire.send((2, Submit(False, envelopes(twin, 1, 3))))
        tickets = answers.read_tickets((await wire.answer()).result)
        assert [each.status for each in tickets] == [Status.BUSY] * 3
        assert server.requests["submit", Status.BUSY] == 3
        assert server.requests["submit", Status.OK] == 1


# --- limits -------------------------------------------------------------------------------------


async def test_requests_in_flight_of_one_key_are_bounded_over_its_connections() -> None:
    async with port(limits=replace(LIMITS, requests_in_flight_max=10)) as (twin, _, connect):
        twin.paused = True
        one, two = await connect(), await connect()
        await one.send((2, Submit(True, envelopes(twin, 1, 8))))
        await trio.sleep(0.01)
        await two.send((2, Submit(True, envelopes(twin, 100, 3))))
        found = await two.answer()
        assert found.status == Status.BUSY
        assert answers.read_problem(found.result).retry_after_ms > 0
        await two.send((3, Submit(False, envelopes(twin, 100, 2))))
        assert (await two.answer()).status == Status.OK


async def test_bytes_in_flight_of_one_key_are_bounded() -> None:
    async with port(limits=replace(LIMITS, bytes_in_flight_max=2000)) as (twin, _, connect):
        twin.paused = True
        wire = await connect()
        items = envelopes(twin, 1, 2)
        await wire.send((2, Submit(True, items[:1] * 3)), (3, Submit(True, items[1:] * 4)))
        found = await wire.answer()
        assert (found.request_id, found.status) == (3, Status.BUSY)


async def test_busy_key_does_not_shut_out_a_quiet_one() -> None:
    limits = replace(LIMITS, transactions_waiting_max=20, requests_in_flight_max=100)
    async with port(limits=limits) as (twin, _, connect):
        twin.paused = True
        greedy, quiet = await connect(), await connect(CITIZEN)
        await greedy.send((2, Submit(True, envelopes(twin, 1, 20))))
        await trio.sleep(0.01)
        await greedy.send((3, Submit(True, envelopes(twin, 50, 1))))
        assert (await greedy.answer()).status == Status.BUSY
        own = (Item.ENVELOPE, payment(twin, 1, CITIZEN)[1])
        await quiet.send((2, Submit(False, (own,))))
        assert (await quiet.answer()).status == Status.OK


async def test_connections_of_one_address_are_bounded() -> None:
    async with port(limits=replace(LIMITS, connections_per_address_max=2)) as (_, server, connect):
        await connect()
        second = await connect()
        third = await connect(greet=False)
        assert await third.next() is None
        assert server.cut == {"crowded": 1}
        await second.stream.aclose()
        await trio.sleep(0.1)
        assert server.sessions == 1
        await connect()


async def test_connections_of_one_key_are_bounded() -> None:
    async with port(limits=replace(LIMITS, connections_per_key_max=1)) as (_, _, connect):
        await connect()
        second = await connect(greet=False)
        assert (await second.hello(OFFICIAL)).status == Status.BUSY
        assert await second.next() is None
        await connect(CITIZEN)


async def test_client_that_never_greets_is_cut() -> None:
    async with port() as (_, server, connect):
        wire = await connect(greet=False)
        await wire.next()
        begin = trio.current_time()
        assert await wire.next() is None
        assert trio.current_time() - begin == pytest.approx(LIMITS.hello_seconds_max)
        assert server.sessions == 0
        assert server.cut == {"silent": 1}


async def test_slow_sender_is_told_and_cut_while_others_are_served() -> None:
    async with port() as (_, server, connect):
        slow, other = await connect(), await connect()
        begin = trio.current_time()
        for byte in protocol.frames([protocol.encode_request(2, GetStatus())]):
            await slow.raw(bytes([byte]))
            await trio.sleep(2)
            if slow.backlog or server.sessions == 1:
                break
        found = await slow.answer()
        assert (found.request_id, found.status) == (0, Status.MALFORMED)
        assert await slow.next() is None
        assert trio.current_time() - begin < 2 * LIMITS.frame_seconds_max
        assert server.cut == {"slow": 1}
        await other.send((2, GetStatus()))
        assert (await other.answer()).status == Status.OK


async def test_idle_connection_is_cut_and_one_that_waits_is_not() -> None:
    async with port() as (twin, server, connect):
        twin.paused = True
        idle, waiting = await connect(), await connect()
        await waiting.send((2, Submit(True, envelopes(twin, 1, 1))))
        begin = trio.current_time()
        assert await idle.next() is None
        assert trio.current_time() - begin == pytest.approx(LIMITS.idle_seconds_max)
        assert server.sessions == 1
        assert server.cut == {"silent": 1}
        twin.paused = False
        twin.bell.set()
        assert (await waiting.next()).result[0] == Event.STATEMENT


async def test_more_bytes_than_the_rate_allows_pause_the_reader() -> None:
    limits = replace(LIMITS, bytes_per_second_max=1000, bytes_burst_max=2000)
    async with port(limits=limits) as (_, _, connect):
        wire = await connect()
        begin = trio.current_time()
        frame = protocol.encode_request(2, Get(0, (StateKey("account", ("pot", "a" * 900)),)))
        for number in range(2, 8):
            await wire.raw(protocol.frames([frame.replace(b"\x83\x02", bytes([0x83, number]), 1)]))
            assert (await wire.answer()).status == Status.OK
        # before the last frame is read, hello and five frames were: some 4.9 kB, 2 kB at once
        assert 2.5 < trio.current_time() - begin < 3.5


# --- malformed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff",
        b"\xf6",
        codec.encode([]),
        codec.encode([1, "status"]),
        codec.encode([0, "status", []]),
        codec.encode([-1, "status", []]),
        codec.encode(["1", "status", []]),
        codec.encode([1, 2, []]),
        codec.encode([1, "", []]),
        codec.encode([2**31, "status", []]),
    ],
    ids=range(10),
)
async def test_frame_that_is_no_request_is_told_and_closed(payload: bytes) -> None:
    async with port() as (_, server, connect):
        wire, other = await connect(), await connect()
        await wire.raw(protocol.frames([payload]))
        found = await wire.answer()
        assert (found.request_id, found.status) == (0, Status.MALFORMED)
        assert answers.read_problem(found.result).hint
        assert await wire.next() is None
        await other.send((2, GetStatus()))
        assert (await other.answer()).status == Status.OK
        assert server.sessions == 1


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("status", [1]),
        ("decision", [b"x"]),
        ("get", [0, []]),
        ("get", [-1, [["account", ["a"]]]]),
        ("get", [0, [["account", ["a"]], ["account", ["a"]]]]),
        ("get", [0, [["account", ["a"]]] * 65]),
        ("submit", [True, []]),
        ("submit", [1, [[0, b"x"]]]),
        ("submit", [True, [[2, b"x"]]]),
        ("submit", [True, [[0, b""]]]),
        ("list", ["note", None, 0]),
        ("list", ["note", None, 1001]),
        ("decisions", [-65, 1]),
        ("decisions", [0, 65]),
        ("subscribe", [3, 0]),
        ("subscribe", [0, -1]),
        ("hello", [1, b"x" * 32, None, None]),
        ("get", [0, [["account", ["e\u0301"]]]]),
        ("get", [0, {"a": 1}]),
        ("get", [0, [["account", [1.5]]]]),
    ],
    ids=range(20),
)
async def test_malformed_params_are_told_under_their_id_and_closed(
    method: str, params: Any
) -> None:
    async with port() as (_, _, connect):
        wire = await connect()
        await wire.raw(protocol.frames([codec.encode([9, method, params])]))
        found = await wire.answer()
        assert (found.request_id, found.status) == (9, Status.MALFORMED)
        assert await wire.next() is None


@pytest.mark.parametrize(
    "payload",
    [
        b"\x83\x18\x02fstatus\x80",
        b"\x83\x02\x78\x06status\x80",
        b"\x83\x02fstatus\x98\x00",
        b"\x9f\x02fstatus\x80\xff",
        b"\x83\x02fstatus\x9f\xff",
    ],
    ids=["long id", "long text", "long array", "endless request", "endless params"],
)
async def test_request_that_is_not_canonical_is_refused(payload: bytes) -> None:
    async with port() as (_, _, connect):
        wire = await connect()
        await wire.raw(protocol.frames([payload]))
        found = await wire.answer()
        assert found.request_id in (0, 2)
        assert found.status == Status.MALFORMED
        assert await wire.next() is None


async def test_unknown_method_is_unsupported_and_the_connection_goes_on() -> None:
    async with port() as (_, _, connect):
        wire = await connect()
        await wire.raw(protocol.frames([codec.encode([2, "foretell", [1, "x"]])]))
        assert (await wire.answer()).status == Status.UNSUPPORTED
        await wire.send((3, GetStatus()))
        assert (await wire.answer()).status == Status.OK


@pytest.mark.parametrize("head", [b"\xff\xff\xff\xff", b"\x00\x10\x00\x01", b"\x00\x00\x00\x00"])
async def test_frame_of_impossible_length_is_refused_before_it_comes(head: bytes) -> None:
    async with port() as (_, _, connect):
        wire = await connect()
        await wire.raw(head)
        assert (await wire.answer()).status == Status.MALFORMED
        assert await wire.next() is None


async def test_id_in_use_is_refused() -> None:
    async with port() as (twin, _, connect):
        twin.paused = True
        wire = await connect()
        await wire.send((2, Submit(True, envelopes(twin, 1, 1))), (2, GetStatus()))
        found = await wire.answer()
        assert (found.request_id, found.status) == (0, Status.MALFORMED)


async def test_random_frames_never_hurt_the_server() -> None:
    async with port() as (_, server, connect):
        for seed in range(60):
            wire = await connect()
            length = seed * 7 % 90 + 1
            await wire.raw(protocol.frames([secrets.token_bytes(length)]))
            found = await wire.answer()
            assert found is None or found.status in (Status.MALFORMED, Status.UNSUPPORTED)
            await wire.stream.aclose()
        await trio.sleep(1)
        assert server.sessions == 0


# --- reads ----------------------------------------------------------------------------------------


async def test_statement_is_sent_once_while_both_sides_remember_it() -> None:
    async with port() as (_, _, connect):
        wire = await connect()
        key = (StateKey("account", ("pot", "a")),)
        for number in (2, 3, 4):
            await wire.send((number, Get(0, key)))
            assert (await wire.answer()).status == Status.OK
        assert [e[0] for e in wire.events] == [Event.STATEMENT]


async def test_read_of_a_future_height_waits_and_then_is_unavailable() -> None:
    async with port() as (twin, _, connect):
        wire = await connect()
        key = (StateKey("account", ("pot", "a")),)
        await wire.send((2, Get(2, key)))
        await trio.sleep(0.5)
        twin.make_block()
        found = await wire.answer()
        assert found.status == Status.OK
        assert found.result[0] == 2
        for height in (3, 1000):
            await wire.send((height, Get(height, key)))
            assert (await wire.answer()).status == Status.UNAVAILABLE


async def test_list_pages_without_gap_or_repeat() -> None:
    async with port() as (_, _, connect):
        wire = await connect()
        await wire.send((2, ListRecords("nothing", None, 10)))
        assert (await wire.answer()).status == Status.NOT_FOUND
        await wire.send((3, ListRecords("note", None, 10)))
        page = reads.read_page((await wire.answer()).result)
        assert (page.ids, page.next) == ((), None)


async def test_unknown_transaction_is_not_found() -> None:
    async with port() as (_, _, connect):
        wire = await connect()
        await wire.send((2, GetDecision(b"n" * 32)))
        assert (await wire.answer()).status == Status.NOT_FOUND


async def test_key_revoked_during_a_session_reads_nothing_more() -> None:
    async with port() as (twin, _, connect):
        wire = await connect()
        key = (StateKey("account", ("pot", "a")),)
        await wire.send((2, Get(0, key)))
        assert (await wire.answer()).status == Status.OK
        twin.identity = lambda key: None  # type: ignore[method-assign]
        twin.make_block()
        await wire.send((3, Get(0, key)))
        assert (await wire.answer()).status == Status.DENIED


# --- subscriptions --------------------------------------------------------------------------------


async def test_subscription_sends_the_past_then_the_present_and_ends() -> None:
    async with port() as (twin, _, connect):
        for _ in range(3):
            twin.make_block()
        wire = await connect(None)
        await wire.send((5, Subscribe(Stream.STATEMENTS, 2)))
        heights = [(await wire.answer()).result[1] for _ in range(3)]
        assert heights == [2, 3, 4]
        twin.make_block()
        assert (await wire.answer()).result[1] == 5
        await wire.send((6, Unsubscribe(5)))
        assert (await wire.answer()).request_id == 6
        twin.make_block()
        await wire.send((7, GetStatus()))
        assert (await wire.answer()).request_id == 7


async def test_subscription_to_heights_that_are_gone_is_told() -> None:
    async with port() as (twin, _, connect):
        twin.make_block()
        del twin.blocks[1]
        wire = await connect()
        await wire.send((5, Subscribe(Stream.DECISIONS, 1)))
        found = await wire.answer()
        assert (found.request_id, found.status) == (5, Status.NOT_FOUND)


async def test_subscriptions_of_a_connection_are_bounded() -> None:
    async with port() as (_, _, connect):
        wire = await connect()
        await wire.send(*((i, Subscribe(Stream.STATEMENTS, 99)) for i in range(2, 7)))
        found = await wire.answer()
        assert (found.request_id, found.status) == (6, Status.BUSY)
