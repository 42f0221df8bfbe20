"""Transactions that must not take effect, over the real network: each with its code and detail.

Decisions are certified; what is refused at the door is one node's word and enters no block.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import trio

from comity import Client, Decision, Refusal, RequestError
from comity.keys import Key, generate
from comity.session import Parcel
from consensus import codec
from consensus.codec import Value
from consensus.ledger import transaction
from consensus.ledger.transaction import Draft, Expect, Unsigned, assemble
from consensus.protocol import Item, Status
from scripts.localnet import LocalNetwork
from tests.network.town import NAMES, OPENING, WALLETS, client

pytestmark = pytest.mark.process

FIRST = WALLETS
"""The first of the wallets that the load leaves alone."""
HOUR_MS = 3_600_000
MALFORMED, BAD_SIGNATURE = Status.MALFORMED, Status.BAD_SIGNATURE


@dataclass
class Desk:
    """Somebody who writes transactions by hand, as no well-behaved program would."""

    client: Client
    key: Key

    async def write(
        self,
        action: str,
        inputs: Sequence[Value],
        *,
        domain: str = "desk",
        like: str = "",
        chain: bytes = b"",
        author: Key | None = None,
        sequence: int = 0,
        life_ms: int = HOUR_MS,
        **other: Any,
    ) -> Unsigned:
        """Return a transaction of one call, with a fresh number unless one is given.

        ``like`` names the action whose id and parameters it carries, ``other`` goes to the draft
        (action_id, params, protective) or to the transaction.
        """
        key = author or self.key
        if not sequence:
            entry = await self.client.get("sequence", key.public)
            sequence = (entry.value[0] if entry.present else 0) + 1
        known = (await self.client.rules()).book.rule_sets["desk"].actions[like or action]
        now_ms = await self.client.now_ms()
        draft = Draft(
            domain,
            action,
            other.pop("action_id", known.action_id),
            inputs,
            other.pop("params", known.schedule.at(now_ms).digest),
            other.pop("protective", known.protective),
        )
        return transaction.build(
            chain or self.client.chain,
            key.public,
            sequence,
            now_ms + life_ms,
            [draft],
            seed=secrets.token_bytes(32),
            **other,
        )

    async def send(self, unsigned: Unsigned, *signers: Key) -> Decision:
        """Sign with ``signers``, the author alone if none is given, and submit."""
        keys = signers or (self.key,)
        return await self.client.submit(
            assemble(unsigned, [k.sign(unsigned.message) for k in keys])
        )

    async def judge(self, action: str, inputs: Sequence[Value], **other: Any) -> tuple[str, Value]:
        """Write, send, and return code and detail."""
        done = await self.send(await self.write(action, inputs, **other))
        assert done.applied == (done.code == "APPLIED")
        return done.code, done.detail

    async def balance(self, wallet: int) -> int:
        return int((await self.client.get("account", "wallet", wallet)).value[1])


@asynccontextmanager
async def desk(
    town: LocalNetwork, agency: str = "social", name: str = "official"
) -> AsyncIterator[Desk]:
    key = town.key(agency, name)
    async with client(town, agency, key=key) as own:
        yield Desk(own, key)


def envelope(of: Unsigned, *signatures: bytes) -> bytes:
    """An envelope with any signatures, however wrong."""
    whole = of.transaction
    return codec.encode([whole.body, list(signatures), [list(whole.openings), whole.seed]])


# --- once and no more ----------------------------------------------------------------------------


async def test_the_same_bytes_sent_to_all_nodes_at_once_and_again_take_effect_once(
    town: LocalNetwork,
) -> None:
    decisions: list[Decision] = []
    async with desk(town) as d:
        before = await d.balance(FIRST)
        unsigned = await d.write("pay", [FIRST, FIRST + 1, 5])
        envelope = assemble(unsigned, [d.key.sign(unsigned.message)])

        async def send(agency: str) -> None:
            async with client(town, agency, key=d.key) as other:
                decisions.append(await other.submit(envelope))

        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for agency in NAMES:
                    nursery.start_soon(send, agency)
        assert len(decisions) == 2 * len(NAMES)
        assert {(each.code, each.height, each.index) for each in decisions} == {
            ("APPLIED", decisions[0].height, decisions[0].index)
        }
        assert all(each == decisions[0] for each in decisions)
        assert await d.balance(FIRST) == before - 5


async def test_sequence_numbers_are_taken_once_within_their_window(town: LocalNetwork) -> None:
    async with desk(town) as d:
        first = await d.write("pay", [FIRST, FIRST + 1, 1])
        number = first.transaction.sequence
        assert (await d.send(first)).code == "APPLIED"
        again = await d.judge("pay", [FIRST, FIRST + 1, 2], sequence=number)
        assert again == ("SEQUENCE_SPENT", number)
        far = number + 2**20 + 1
        ahead = await d.judge("pay", [FIRST, FIRST + 1, 1], sequence=far)
        assert ahead == ("SEQUENCE_AHEAD", [far, number + 2**20])
        jumped = number + 2000
        assert await d.judge("pay", [FIRST, FIRST + 1, 1], sequence=jumped) == ("APPLIED", None)
        old = await d.judge("pay", [FIRST, FIRST + 1, 1], sequence=number + 1)
        assert old == ("SEQUENCE_OLD", [number + 1, jumped - 1023])


# --- at the door ---------------------------------------------------------------------------------


async def test_what_no_block_may_hold_is_refused_at_the_door_and_spends_nothing(
    town: LocalNetwork,
) -> None:
    auditor = town.key("integrity", "auditor")
    visitor = town.key("registry", "visitor")
    async with desk(town) as d:
        unsigned = await d.write("pay", [FIRST, FIRST + 1, 7])
        good = d.key.sign(unsigned.message)
        both = await d.write("pay", [FIRST, FIRST + 1, 7], cosigners=[auditor.public])
        own, other = d.key.sign(both.message), auditor.sign(both.message)
        elsewhere = await d.write("pay", [FIRST, FIRST + 1, 7], chain=bytes(32))

        cases: dict[str, tuple[bytes, Status, str]] = {
            "unsigned": (envelope(unsigned, b""), MALFORMED, "a signature is missing"),
            "no signatures": (envelope(unsigned), MALFORMED, "0 items, allowed 1..33"),
            "zeros": (envelope(unsigned, bytes(64)), BAD_SIGNATURE, "does not verify"),
            "cut short": (envelope(unsigned, good[:63]), MALFORMED, "a signature of 63 bytes"),
            "signed by another": (
                envelope(unsigned, auditor.sign(unsigned.message)),
                BAD_SIGNATURE,
                "does not verify",
            ),
            "one too many": (
                envelope(unsigned, good, other),
                MALFORMED,
                "2 signatures, expected 1",
            ),
            "approval stripped": (envelope(both, own), MALFORMED, "1 signatures, expected 2"),
            "approval left empty": (envelope(both, own, b""), MALFORMED, "a signature is missing"),
            "exchanged": (envelope(both, other, own), BAD_SIGNATURE, "does not verify"),
            "approved by another": (
                envelope(both, own, visitor.sign(both.message)),
                BAD_SIGNATURE,
                "does not verify",
            ),
            "of another network": (
                envelope(elsewhere, d.key.sign(elsewhere.message)),
                MALFORMED,
                "of another network",
            ),
        }
        parcels = [Parcel(Item.ENVELOPE, data, (bytes(32),)) for data, _, _ in cases.values()]
        outcomes = [outcome for (outcome,) in await d.client.deliver(parcels)]
        for (name, (_, status, says)), outcome in zip(cases.items(), outcomes, strict=True):
            assert isinstance(outcome, Refusal), name
            assert outcome.status == status, (name, outcome)
            assert says in outcome.message, (name, outcome)
        assert (await d.client.submit(assemble(unsigned, [good]))).code == "APPLIED"
        again = await d.write("pay", [FIRST, FIRST + 1, 7], cosigners=[auditor.public])
        assert (await d.send(again, d.key, auditor)).code == "APPLIED"


# --- time, people, rules -------------------------------------------------------------------------


async def test_time_people_and_rules_are_judged_in_this_order(town: LocalNetwork) -> None:
    stranger = generate()
    async with desk(town) as d:
        pay = [FIRST, FIRST + 1, 1]
        deadline_ms, done = await too_late(d, pay)
        height = (await d.client.statements(done.height))[0]
        assert (done.code, done.detail) == ("EXPIRED", [deadline_ms, height.time_ms])
        early = await d.write("pay", pay, life_ms=48 * HOUR_MS)
        done = await d.send(early)
        height = (await d.client.statements(done.height))[0]
        latest_ms = height.time_ms + 24 * HOUR_MS
        deadline_ms = early.transaction.not_after_ms
        assert (done.code, done.detail) == ("NOT_AFTER_TOO_FAR", [deadline_ms, latest_ms])
        unknown = await d.send(await d.write("pay", pay, author=stranger), stranger)
        assert (unknown.code, unknown.detail) == ("UNKNOWN_KEY", stranger.public)
        both = await d.write("pay", pay, cosigners=[stranger.public])
        done = await d.send(both, d.key, stranger)
        assert (done.code, done.detail) == ("KEY_INACTIVE", [stranger.public, "unknown"])
        late = await d.judge("pay", pay, mode=1, life_ms=15 * 24 * HOUR_MS)
        assert late[0] == "NOT_AFTER_TOO_FAR"
        judged = await d.judge("pay", pay, under=[bytes(32)])
        assert judged == ("NOT_AUTHORIZED", [["grant", bytes(32), "missing"]])
        judged = await d.judge("nothing", pay, like="pay")
        assert judged == ("UNKNOWN_ACTION", ["desk", "nothing"])
        judged = await d.judge("pay", pay, domain="nowhere")
        assert judged == ("UNKNOWN_ACTION", ["nowhere", "pay"])
        judged = await d.judge("pay", pay, action_id=bytes(32))
        assert judged == ("RULES_MOVED", [1, False])
        judged = await d.judge("pay", pay, params=bytes(32))
        assert judged == ("RULES_MOVED", [1, True])
        judged = await d.judge("pay", pay, protective=True)
        assert judged == ("RULES_MOVED", [1, False])
    refused = ("NOT_AUTHORIZED", [["role", "desk.clerk", "missing"]])
    for agency, name in (("registry", "visitor"), ("integrity", "auditor")):
        async with desk(town, agency, name) as other:
            assert await other.judge("pay", pay) == refused


async def too_late(d: Desk, pay: Sequence[Value]) -> tuple[int, Decision]:
    """Send what has expired until a block holds it; a slow node may drop it before, and says so."""
    while True:
        late = await d.write("pay", pay, life_ms=-1000)
        try:
            return late.transaction.not_after_ms, await d.send(late)
        except RequestError as error:
            lapsed = error.status == Status.LAPSED
        assert lapsed


GOOD: dict[str, Value] = {
    "bool": True,
    "int": 1,
    "text": "x",
    "bytes": b"x",
    "list": [1],
    "money": 1,
    "month": 24_000,
    "date": 20_000,
    "time": 1_700_000_000_000,
    "ref": [1],
    "digest": bytes(32),
    "token": bytes(32),
    "sealed": bytes(32),
}
BAD: list[tuple[str, Value, str]] = [
    ("bool", 1, "expected bool, got int"),
    ("int", "1", "expected int, got text"),
    ("int", True, "expected int, got bool"),
    ("int", None, "expected int, got nothing"),
    ("text", b"x", "expected text, got bytes"),
    ("text", "x" * 5000, "5000 bytes of text, at most 4096"),
    ("bytes", "x", "expected bytes, got text"),
    ("bytes", bytes(5000), "5000 bytes, at most 4096"),
    ("list", 1, "expected list:int, got int"),
    ("list", ["x"], "expected int, got text"),
    ("list", [0] * 65, "65 items, at most 64"),
    ("money", "1", "expected money:USD, got text"),
    ("month", -1, "-1 is outside the range of month, 0 to 119999"),
    ("date", 2**40, "1099511627776 is outside the range of date, -719528 to 2932896"),
    ("time", -1, "-1 is outside the range of time, 0 to 253402300799999"),
    ("ref", 1, "expected an id (an array of components), got int"),
    ("ref", [], "an id has 1 to 8 components, got 0"),
    ("ref", [None], "expected a component of an id, got nothing"),
    ("digest", bytes(31), "digest has 32 bytes, got 31"),
    ("token", "x", "expected token:desk, got text"),
    ("sealed", b"", "sealed:treasury has 32 bytes, got 0"),
]


async def test_an_input_of_each_type_is_judged_and_named(town: LocalNetwork) -> None:
    async with desk(town) as d:
        good = await d.judge("fill", list(GOOD.values()))
        assert good == ("REQUIREMENT", ["NEVER", "the number is nought"])
        for name, value, says in BAD:
            bad = await d.judge("fill", list((GOOD | {name: value}).values()))
            assert bad == ("BAD_INPUT", [name, says])
        for inputs in (list(GOOD.values())[:-1], [*GOOD.values(), 1]):
            said = f"{len(inputs)} inputs, expected 13"
            assert await d.judge("fill", inputs) == ("BAD_INPUT", ["", said])


# --- records -------------------------------------------------------------------------------------


async def test_stale_missing_and_held_records_are_named(town: LocalNetwork) -> None:
    name: list[Value] = ["note", [77]]
    async with desk(town) as d:

        async def amend(*versions: int) -> tuple[str, Value]:
            expects = [Expect("note", [77], version) for version in versions]
            return await d.judge("amend", [[77], "text"], expects=expects)

        async def write(*versions: int) -> tuple[str, Value]:
            expects = [Expect("note", [77], version) for version in versions]
            return await d.judge("write", [77, "text", 1], expects=expects)

        assert await amend(1) == ("NOT_FOUND", ["note", name])
        assert await write() == ("STALE", [name, 0, []])
        assert await write(0) == ("APPLIED", None)
        assert await write(0) == ("STALE", [name, 1, []])
        assert await amend() == ("STALE", [name, 1, []])
        assert await amend(9) == ("STALE", [name, 1, []])
        assert await amend(1) == ("APPLIED", None)
        assert await amend(1) == ("STALE", [name, 2, ["text"]])
        async with desk(town, "integrity", "auditor") as auditor:
            assert await auditor.judge("freeze", [[77]]) == ("APPLIED", None)
        (hold,) = (await d.client.holds("record", "note", 77)).holds
        assert await amend(2) == ("HELD", [hold.id])


async def test_money_and_unique_slots_are_guarded(town: LocalNetwork) -> None:
    async with desk(town) as d:
        assert await d.judge("stamp", ["red"]) == ("APPLIED", None)
        assert await d.judge("stamp", ["red"]) == ("NOT_UNIQUE", [["unique", "stamp"]])
        poor = await d.judge("pay", [FIRST, FIRST + 1, 2 * OPENING])
        assert poor == ("INSUFFICIENT", [["wallet", FIRST], "floor"])
        rich = await d.judge("pay", [FIRST, FIRST + 1, 2**63 - 1])
        assert rich == ("INSUFFICIENT", [["wallet", FIRST], "floor"])
        absent = await d.judge("pay", [FIRST, 999, 1])
        assert absent == ("NOT_FOUND", ["wallet", ["account", ["wallet", 999]]])
        nothing = await d.judge("pay", [FIRST, FIRST + 1, 0])
        assert nothing == ("REQUIREMENT", ["AMOUNT", "the amount is positive"])
