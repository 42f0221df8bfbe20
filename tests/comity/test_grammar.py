"""The grammar of the client protocol is what client and node really say, and nothing wider.

The validator misjudges choices between arrays, so each message is checked against the rule of its
own kind and never against the choice of all.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pycddl
import pytest
import trio

from comity import Call, Client, RequestError
from comity.disclosing import Wanted
from comity.session import Server
from consensus import answers, codec, protocol
from consensus.errors import DecodeError
from consensus.ledger.rules import encode_definition, load_toml
from consensus.protocol import (
    GetCommittee,
    GetDecision,
    Hello,
    Item,
    Status,
    Submit,
    Subscribe,
    Unsubscribe,
)
from node.api.backend import Rejected
from tests.comity.twin import (
    ADMINISTRATOR,
    CHARTER,
    CITIZEN,
    OFFICIAL,
    Harness,
    Twin,
    harness,
    make_genesis,
)

GRAMMAR = Path("docs/protocol/client.cddl").read_text(encoding="utf-8")
EVENTS = {
    0: "greeting-event",
    1: "statement-event",
    2: "receipts-event",
    3: "height-event",
    4: "changes-event",
}
PAY = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})


@cache
def rule(name: str) -> Any:
    return pycddl.Schema(f"start = {name}\n{GRAMMAR}")


class Tap(trio.abc.Stream):
    """A stream of a client of which every message is checked against the grammar."""

    def __init__(self, inner: trio.abc.Stream, seen: dict[str, int]) -> None:
        self._inner = inner
        self._seen = seen
        self._requests = protocol.FrameSplitter(protocol.REQUEST_BYTES_MAX)
        self._answers = protocol.FrameSplitter(protocol.ANSWER_BYTES_MAX)
        self._methods: dict[int, str] = {}

    def _check(self, name: str, payload: bytes) -> None:
        rule(name).validate_cbor(payload)
        self._seen[name] = self._seen.get(name, 0) + 1

    async def send_all(self, data: Any) -> None:
        for payload in self._requests.feed(bytes(data)):
            request_id, method, _ = codec.parse(payload)
            self._methods[request_id] = method
            self._check(f"request-{method}", payload)
        await self._inner.send_all(data)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        data = bytes(await self._inner.receive_some(max_bytes))
        for payload in self._answers.feed(data):
            request_id, status, result = codec.parse(payload)
            if status == Status.EVENT:
                self._check(EVENTS[result[0]], payload)
            elif status == Status.OK:
                self._check(f"result-{self._methods[request_id]}", payload)
            else:
                self._check("problem-answer", payload)
        return data

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        await self._inner.aclose()


def tapped(h: Harness, seen: dict[str, int]) -> Callable[[Server], Awaitable[trio.abc.Stream]]:
    async def dial(server: Server) -> trio.abc.Stream:
        return Tap(await h.dial(server), seen)

    return dial


DISCLOSE = """
[actions.disclose]
kernel = true
actor = { self = "who.principal" }
"""


async def talk(h: Harness, client: Client) -> None:
    """Use everything that the client offers."""
    for number in (1, 2):
        call = Call("notes", "write", {"number": number, "text": "n", "amount": number})
        assert (await client.transact(call, reads=await client.read_for(call))).applied
    done = await client.transact(PAY)
    drafts = [await client.draft(PAY) for _ in range(3)]
    assert len(await client.submit_group(drafts)) == 3
    assert (await client.decision(done.txid)).applied
    await client.get("record", "note", 1)
    await client.get("record", "note", 99)
    await client.get("record", "note", 1, time_ms=h.twin.statements[1].time_ms)
    await client.history("account", "pot", "a")
    await client.history("record", "note", 99)
    await client.get("account", "pot", "a")
    await client.list_records("note", limit=1)
    assert (await client.list_records("note", index="amount", value=1)).ids == ((1,),)
    await client.decisions(-3, 3)
    await client.statements(0, 3)
    await client.rules(refresh=True)
    await client.status()
    await client.committee()
    async with aclosing(client.subscribe(1, decisions=True)) as feed:
        async for height in feed:
            if height.height == 3:
                break
    async with aclosing(client.changes(0)) as changes:
        async for changed in changes:
            if changed.height.height == 3:
                break
    async with aclosing(client.subscribe(1)) as feed:
        async for height in feed:
            if height.height == 2:
                break
    proposed = await client.propose(PAY)
    await client.proposal(proposed.txid)
    await client.effect(proposed.txid)
    await client.pending()
    lend = Call("notes", "lend", {"source": "a", "target": "b", "amount": 1})
    await client.reverse((await client.transact(lend)).txid)
    await client.proposals("north", "executed", limit=1)
    await client.bundle(done.txid)
    until_ms = await client.now_ms() + 3_600_000
    wanted = Wanted("note", [1], ["amount"])
    court = ["party", "Court"]
    made = await client.disclose(wanted, to=court, purpose="a case", legal="Act", until_ms=until_ms)
    assert made.opened is not None
    assert (await client.simulate(PAY)).code == "APPLIED"
    assert await client.reads_of("account", "pot", "a") == ()
    with pytest.raises(RequestError):
        await client.decision(bytes(32))
    h.twin.rejection = Rejected(Status.NOT_ADMITTED, "EXPIRED", "too late", "sign it again")
    with pytest.raises(RequestError, match="too late"):
        await client.transact(PAY)
    h.twin.rejection = None


async def test_everything_that_is_said_is_in_the_grammar() -> None:
    seen: dict[str, int] = {}
    base = make_genesis()
    rules = (encode_definition(load_toml(CHARTER + DISCLOSE)), *base.rules[1:])
    async with harness(Twin(replace(base, rules=rules), certify_every=3)) as h:
        genesis = h.twin.genesis.encode()
        for key in (OFFICIAL, ADMINISTRATOR):
            async with Client.connect(
                genesis, servers=["north"], key=key, purpose="test", dial=tapped(h, seen)
            ) as client:
                if key is OFFICIAL:
                    await talk(h, client)
                    continue
                targets = [["record", ["note", 1]]]
                inputs = {"targets": targets, "scopes": ["edit"], "legal": "Act"}
                call = Call("charter", "place_hold", {**inputs, "until": None})
                assert (await client.transact(call)).applied
                assert len((await client.holds("record", "note", 1)).holds) == 1
        async with Client.connect(
            genesis, servers=["north"], key=CITIZEN, dial=tapped(h, seen)
        ) as client:
            with pytest.raises(RequestError):
                await client.list_records("note")
    kinds = {name for name in seen if name.startswith("request-")}
    # Not of the twin, but of tests of their own: sealed values, whole heights.
    others = ("unsubscribe", "deliver", "sealed", "blocks", "past")
    assert kinds == {f"request-{m}" for m in protocol.METHODS if m not in others}
    results = {name for name in seen if name.startswith("result-")}
    assert results == {
        f"result-{m}" for m in protocol.METHODS if m not in ("subscribe", "submit", *others)
    }
    assert set(EVENTS.values()) <= set(seen)
    assert seen["problem-answer"] >= 3


def test_requests_that_the_client_does_not_send_are_in_the_grammar_too() -> None:
    for name, request in (
        ("request-hello", Hello(1, bytes(32))),
        ("request-hello", Hello(1, bytes(32), b"k" * 32, b"s" * 64)),
        ("request-submit", Submit(False, ((Item.GROUP, b"g"),))),
        ("request-unsubscribe", Unsubscribe(7)),
        ("request-decision", GetDecision(bytes(32))),
        ("request-committee", GetCommittee(2**63 - 1)),
        ("request-subscribe", Subscribe(protocol.Stream.DECISIONS, 0)),
    ):
        rule(name).validate_cbor(protocol.encode_request(2**31 - 1, request))


def test_tickets_committees_and_hidden_leaves_are_in_the_grammar() -> None:
    from consensus import reads

    problem = answers.Problem("BUSY", "full", "wait", 250)
    tickets = [answers.Ticket((bytes(32),)), answers.Ticket((), Status.BUSY, problem)]
    rule("result-submit").validate_cbor(
        answers.encode_answer(1, Status.OK, [t.to_value() for t in tickets])
    )
    step = answers.EpochStep(b"certificate", [2, []])
    rule("result-committee").validate_cbor(answers.encode_answer(1, Status.OK, [step.to_value()]))
    leaves = (reads.ShownLeaf("a", 1, hidden=bytes(32)),)
    rows = reads.Rows(1, (reads.RecordRow(b"h", leaves, (bytes(32),)), None), b"p")
    rule("result-get").validate_cbor(answers.encode_answer(1, Status.OK, rows.to_value()))


BAD_REQUESTS: list[Any] = [
    [0, "status", []],
    [2**31, "status", []],
    [1, "status", [1]],
    [1, "hello", [2, bytes(32), None]],
    [1, "hello", [1, bytes(31), None]],
    [1, "submit", [True, []]],
    [1, "submit", [1, [[0, b"x"]]]],
    [1, "submit", [True, [[2, b"x"]]]],
    [1, "decision", [bytes(31)]],
    [1, "get", [0, []]],
    [1, "get", [-1, [["record", []]]]],
    [1, "get", [0, [["", []]]]],
    [1, "holds", [0, ["record"]]],
    [1, "index", [0, "a.b", 1, 0, 0]],
    [1, "index", [0, "a.b", 1, 0, 257]],
    [1, "index", [0, "a.b", 1, -1, 1]],
    [1, "index", [0, "ab", 1, 0, 1]],
    [1, "index", [-1, "a.b", 1, 0, 1]],
    [1, "list", ["note", None, 0]],
    [1, "list", ["note", None, 1001]],
    [1, "decisions", [0, 65]],
    [1, "committee", []],
    [1, "statements", [0, 0]],
    [1, "subscribe", [3, 0]],
    [1, "unsubscribe", [0]],
]


@pytest.mark.parametrize("value", BAD_REQUESTS, ids=range(len(BAD_REQUESTS)))
def test_what_the_grammar_refuses_the_node_refuses(value: Any) -> None:
    payload = codec.encode(value)
    with pytest.raises(pycddl.ValidationError):
        rule(f"request-{value[1]}").validate_cbor(payload)
    if value[1] == "hello" and value[2][0] == 2:
        return  # readable, so that the node can answer UNSUPPORTED
    with pytest.raises(DecodeError):
        protocol.decode_request(payload)


def test_every_status_is_in_the_grammar() -> None:
    for status in Status:
        if status >= Status.MALFORMED:
            assert f"; {status.value} {status.name} " in GRAMMAR
