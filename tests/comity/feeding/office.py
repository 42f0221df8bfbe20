"""A twin whose rules have a field of every type, and copies of it.

Not here: the databases (``tests.databases``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from comity import Call, Client, Decision
from comity.feeding.following import Bounds, Follower, Progress, Sink
from consensus.codec import Value
from consensus.genesis import Genesis
from consensus.ledger.rules import encode_definition, load_toml
from tests.comity.twin import CHARTER, RULES, Harness, Twin, harness, make_genesis

EVERY: str = (
    RULES
    + """
[kinds.every]
fields.bool = { type = "bool" }
fields.int = { type = "int" }
fields.text = { type = "text", open = true }
fields.bytes = { type = "bytes" }
fields.money = { type = "money:USD" }
fields.month = { type = "month" }
fields.date = { type = "date" }
fields.time = { type = "time" }
fields.ref = { type = "ref", kind = "note", optional = true }
fields.digest = { type = "digest" }
fields.token = { type = "token:notes" }
fields.ints = { type = "list:int" }
fields.days = { type = "list:date" }
fields.refs = { type = "list:ref:note" }
fields.street = { type = "text", open = true, group = "address" }
fields.town = { type = "text", open = true, group = "address", optional = true }
fields.xmin = { type = "int", optional = true }

[actions.every]
summary = "Write a record with a field of every type"
actor = { role = "notes.writer" }
inputs = { bool = "bool", int = "int", text = "text", bytes = "bytes", money = "money:USD", \
month = "month", date = "date", time = "time", ref = "ref:note?", digest = "digest", \
token = "token:notes", ints = "list:int", days = "list:date", refs = "list:ref:note", \
street = "text", town = "text?", xmin = "int?" }
create = [ { kind = "every", id = ["{input.token}", "{input.int}"], set = { bool = "input.bool", \
int = "input.int", text = "input.text", bytes = "input.bytes", money = "input.money", \
month = "input.month", date = "input.date", time = "input.time", ref = "input.ref", \
digest = "input.digest", token = "input.token", ints = "input.ints", days = "input.days", \
refs = "input.refs", street = "input.street", town = "input.town", xmin = "input.xmin" } } ]
"""
)
TOKEN: bytes = b"\x11" * 32
FIRST: dict[str, Value] = {
    "bool": True,
    "int": -(2**63),
    "text": "a\0b 'c' \\ \t\n€",
    "bytes": b"\x00\xff",
    "money": 12_345,
    "month": 2026 * 12 + 10,
    "date": 20_000,
    "time": 1_790_000_000_123,
    "ref": [1],
    "digest": b"\x22" * 32,
    "token": TOKEN,
    "ints": [1, -2],
    "days": [0, 1],
    "refs": [[1], [2]],
    "street": "Main 1",
    "town": "X",
    "xmin": 7,
}
LAST: dict[str, Value] = {
    **FIRST,
    "bool": False,
    "int": 2**63 - 1,
    "text": "",
    "bytes": b"",
    "month": 1,
    "date": -719_528,
    "time": 0,
    "ref": None,
    "ints": [],
    "days": [-719_528, 2_932_896],
    "refs": [],
    "town": None,
    "xmin": None,
}


def every_genesis(rules: str = EVERY) -> Genesis:
    """The twin's network, with these rules."""
    found = tuple(encode_definition(load_toml(text)) for text in (CHARTER, rules))
    return replace(make_genesis(), rules=found)


@asynccontextmanager
async def office(twin: Twin | None = None) -> AsyncIterator[tuple[Harness, Client]]:
    """A running twin and a client of the official's."""
    async with harness(twin or Twin(every_genesis())) as h, h.client() as client:
        yield h, client


async def act(client: Client, action: str, **inputs: Value) -> Decision:
    """Do something in domain notes."""
    call = Call("notes", action, inputs)
    return await client.transact(call, reads=await client.read_for(call))


async def worked(client: Client) -> None:
    """Make something of everything: records, changes, payments, refusals, a reversal."""
    for number in (1, 2):
        assert (await act(client, "write", number=number, text=f"n{number}", amount=5)).applied
    assert (await act(client, "every", **FIRST)).applied
    assert (await act(client, "every", **LAST)).applied
    pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 10})
    await client.submit_group([await client.draft(pay) for _ in range(3)])
    corrected = await act(client, "correct", note=[1], text="slip")
    assert (await act(client, "pay", source="b", target="a", amount=31)).code == "INSUFFICIENT"
    assert (await client.reverse(corrected.txid, "a slip")).applied
    assert (await act(client, "close", note=[2])).applied


async def copied(client: Client, sink: Sink, first: int = 0, last: int | None = -1) -> Progress:
    """Write a copy up to the newest height, or another one."""
    follower = Follower(client, sink, Bounds(first, last, 2.0), lambda words: None)
    await follower.run()
    return follower.progress


async def until(condition: Callable[[], bool]) -> None:
    """Return once a condition holds; fail after some seconds."""
    with trio.fail_after(20):
        while not condition():  # noqa: ASYNC110 (what is waited for tells nobody)
            await trio.sleep(0.01)
