"""Proposals as a client sees them: proved, found, approved, waited for, drafted again."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio

from comity import AbsentError, Call, RequestError
from comity.proposals import ProposedPage
from consensus import genesis as genesis_file
from consensus.errors import ProofError, VerificationError
from consensus.genesis import Genesis, Principal, RoleGiven
from consensus.ledger.rules import encode_definition, load_toml
from consensus.protocol import StateKey, Status
from tests.comity.test_lies import result
from tests.comity.twin import (
    CHARTER,
    CITIZEN,
    CITIZEN_TOKEN,
    OFFICIAL,
    RULES,
    Twin,
    harness,
    key_of,
    make_genesis,
)

REVIEWER, SECOND = key_of(60), key_of(61)
ACTS = "".join(
    f'\n[actions.{name}]\nkernel = true\nactor = {{ self = "who.principal" }}\n'
    for name in ("approve", "approve_protective", "object", "withdraw")
)
AGREED = """
[actions.agree]
summary = "Change a note's text, agreed"
legal = "s 6"
actor = { role = "notes.writer" }
inputs = { note = "ref:note", text = "text" }
load = [ ["note", "note/{input.note}"] ]
set = [ { record = "note", fields = { text = "input.text" } } ]
approvals = { role = "notes.reviewer", count = 2 }

[actions.consent]
summary = "Change a note's text with somebody's consent"
legal = "s 7"
actor = { role = "notes.writer" }
inputs = { note = "ref:note", text = "text", person = "ref:person" }
load = [ ["note", "note/{input.note}"] ]
set = [ { record = "note", fields = { text = "input.text" } } ]
approvals = { self = "input.person" }
"""


def genesis() -> Genesis:
    """A network with two who review what is agreed."""
    known = make_genesis()
    people = [(REVIEWER, bytes([104]) * 32, "east"), (SECOND, bytes([105]) * 32, "south")]
    principals = [Principal(id_, home, genesis_file.OFFICIAL, id_) for _, id_, home in people]
    return replace(
        known,
        principals=(*known.principals, *principals),
        keys=(*known.keys, *((key.public, id_) for key, id_, _ in people)),
        roles=(*known.roles, *(RoleGiven(id_, "notes.reviewer") for _, id_, _ in people)),
        rules=tuple(
            encode_definition(load_toml(text)) for text in (CHARTER + ACTS, RULES + AGREED)
        ),
    )


def world() -> Any:
    return harness(Twin(genesis=genesis()))


@asynccontextmanager
async def three() -> Any:
    """The author of proposals and two who may approve them."""
    async with (
        world() as h,
        h.client() as author,
        h.client(REVIEWER) as one,
        h.client(SECOND) as two,
    ):
        yield author, one, two


def agree(text: str = "better", number: int = 1) -> Call:
    return Call("notes", "agree", {"note": [number], "text": text})


async def noted(client: Any, number: int = 1) -> None:
    call = Call("notes", "write", {"number": number, "text": "a", "amount": 1})
    assert (await client.transact(call, reads=await client.read_for(call))).applied


async def proposed(client: Any, call: Call) -> bytes:
    decision = await client.propose(call, reads=await client.read_for(call), reason="agreed")
    assert (decision.state, decision.code) == ("proposed", "PROPOSED")
    txid: bytes = decision.txid
    return txid


async def test_a_proposal_is_proved_with_all_that_it_would_do() -> None:
    async with world() as h, h.client() as client:
        await noted(client)
        txid = await proposed(client, agree())
        found = await client.proposal(txid)
        assert (found.txid, found.state, found.agency) == (txid, "open", "north")
        assert (found.author, found.approvals, found.end) == (OFFICIAL.public, (), None)
        assert [call[:2] for call in found.calls] == [("notes", "agree")]
        assert found.draft is not None
        assert found.draft.inputs(0)[0] == [[1], "better"]
        assert (found.draft.reason, found.draft.seed) == ("agreed", b"")
        code, detail = found.refusal
        assert (code, detail[0][:3]) == ("NEEDS_APPROVAL", ["role", "notes.reviewer", 2])
        assert found.lacking == (["author"],)
        with pytest.raises(AbsentError, match="there is no proposal"):
            await client.proposal(bytes(32))
        assert (await client.get("proposal", txid, "draft")).value == txid
        assert (await client.get("proposal", txid)).value[0] == txid


async def test_what_waits_for_somebody_is_found_until_they_have_approved() -> None:
    async with (
        world() as h,
        h.client() as author,
        h.client(REVIEWER) as one,
        h.client(SECOND) as two,
    ):
        await noted(author)
        txid = await proposed(author, agree())
        assert (await author.pending()).proposals == ()
        assert [each.txid for each in (await one.pending()).proposals] == [txid]
        approval = await one.approve(txid)
        assert approval.applied
        assert (await one.pending()).proposals == ()
        (waiting,) = (await two.pending()).proposals
        assert [each.principal for each in waiting.approvals] == [bytes([104]) * 32]
        assert waiting.approvals[0].txid == approval.txid
        with pytest.raises(RequestError) as caught:
            await author.effect(txid)
        assert caught.value.status == Status.NOT_FOUND
        last = await two.approve(txid)
        done = await author.effect(txid)
        assert (done.txid, done.state, done.height) == (txid, "applied", last.height)
        assert done.index == last.index + 1
        assert (await author.decision(txid)).state == "proposed"
        found = await author.proposal(txid)
        assert (found.state, found.refusal, found.lacking) == ("executed", None, None)
        assert (await author.get("record", "note", 1)).fields["text"] == "better"
        ended = (await author.proposals("north", "executed")).proposals
        assert [each.txid for each in ended] == [txid]
        assert (await author.proposals("north")).proposals == ()


async def test_the_end_of_a_proposal_is_waited_for() -> None:
    async with world() as h, h.client() as author, h.client(REVIEWER) as one:
        await noted(author)
        txid = await proposed(author, agree())
        ends = []

        async def wait() -> None:
            ends.append(await author.settled(txid))

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await trio.sleep(1)
                assert not ends
                assert (await one.object_to(txid, "no")).applied
        with pytest.raises(AbsentError, match="there is no proposal"):
            await author.settled(bytes(32))
        (found,) = ends
        assert (found.state, found.end.why, found.end.agency) == ("objected", "no", "east")


async def test_a_subscriber_to_decisions_sees_both() -> None:
    async with (
        world() as h,
        h.client() as author,
        h.client(REVIEWER) as one,
        h.client(SECOND) as two,
    ):
        await noted(author)
        txid = await proposed(author, agree())
        await one.approve(txid)
        await two.approve(txid)
        heights = await author.decisions(0, 64)
        seen = [each.code for height in heights for each in height.decisions if each.txid == txid]
        assert seen == ["PROPOSED", "APPLIED"]


async def test_a_stale_proposal_is_drafted_again_and_says_what_moved() -> None:
    async with (
        world() as h,
        h.client() as author,
        h.client(REVIEWER) as one,
        h.client(SECOND) as two,
    ):
        await noted(author)
        txid = await proposed(author, agree())
        change = Call("notes", "amend", {"note": [1], "text": "meanwhile"})
        assert (await author.transact(change, reads=await author.read_for(change))).applied
        await one.approve(txid)
        await two.approve(txid)
        assert (await author.effect(txid)).code == "STALE"
        found = await author.proposal(txid)
        assert (found.state, found.end.why[0]) == ("stale", "STALE")
        again = await author.redraft(txid)
        assert again.was.txid == txid
        assert [(m.kind, m.id, m.before, m.now) for m in again.moved] == [("note", (1,), 1, 2)]
        assert [call.inputs for call in again.calls] == [{"note": [1], "text": "better"}]
        assert again.unsigned.transaction.reason == "agreed"
        decision = await author.submit(author.sign(again.unsigned))
        assert decision.state == "proposed"
        fresh = await author.proposal(decision.txid)
        assert fresh.approvals == ()
        for client in (one, two):
            await client.approve(decision.txid)
        assert (await author.effect(decision.txid)).applied


async def test_the_author_withdraws_and_a_stranger_cannot() -> None:
    async with world() as h, h.client() as author, h.client(REVIEWER) as one:
        await noted(author)
        txid = await proposed(author, agree())
        refused = await one.withdraw(txid)
        assert (refused.code, refused.detail) == ("NOT_AUTHORIZED", [["not the author"]])
        assert (await author.withdraw(txid)).applied
        assert (await one.approve(txid)).detail[0] == "WITHDRAWN"


async def test_many_proposals_come_in_pages_without_repeats() -> None:
    async with world() as h, h.client() as author, h.client(REVIEWER) as one:
        await noted(author)
        reads = await author.read_for(agree())
        drafts = [await author.draft(agree(str(n)), reads=reads, propose=True) for n in range(70)]
        done = await author.submit_group(drafts)
        assert {each.code for each in done} == {"PROPOSED"}
        found: list[bytes] = []
        after = None
        while True:
            page = await one.pending(after=after, limit=30)
            found += [each.txid for each in page.proposals]
            after = page.next
            if after is None:
                break
        assert sorted(found) == sorted(each.txid for each in done)
        oldest = await author.proposals("north", limit=10)
        assert len(oldest.proposals) == 10
        rest = await author.proposals("north", after=oldest.next)
        assert len({each.txid for each in oldest.proposals + rest.proposals}) == 70


async def test_a_citizen_sees_no_proposal_of_others() -> None:
    async with world() as h, h.client() as author, h.client(CITIZEN) as citizen:
        await noted(author)
        txid = await proposed(author, agree())
        for ask in (
            citizen.proposal(txid),
            citizen.proposal(bytes(32)),
            citizen.proposals("north"),
        ):
            with pytest.raises(RequestError) as caught:
                await ask
            assert caught.value.status == Status.DENIED
        assert await citizen.pending() == ProposedPage((), None)


def consent(person: bytes, text: str = "better") -> Call:
    return Call("notes", "consent", {"note": [1], "text": text, "person": [person]})


async def test_a_citizen_is_shown_what_waits_for_the_own_consent_and_what_came_of_it() -> None:
    async with world() as h, h.client() as author, h.client(CITIZEN) as citizen:
        await noted(author)
        mine = await proposed(author, consent(CITIZEN_TOKEN))
        other = await proposed(author, consent(bytes(32), "worse"))
        (waiting,) = (await citizen.pending()).proposals
        assert waiting.txid == mine
        found = await citizen.proposal(mine)
        assert found.draft is not None
        assert found.draft.inputs(0)[0] == [[1], "better", [CITIZEN_TOKEN]]
        entries = await citizen.get_many([StateKey("proposal", (mine,))])
        assert [each.present for each in entries] == [True]
        for keys in ([mine, other], [other], [bytes(32)]):
            with pytest.raises(RequestError) as caught:
                await citizen.get_many([StateKey("proposal", (each,)) for each in keys])
            assert caught.value.status == Status.DENIED
        with pytest.raises(RequestError) as caught:
            await citizen.get("proposal", mine, "draft")
        assert caught.value.status == Status.DENIED
        assert (await citizen.approve(mine)).applied
        assert (await citizen.pending()).proposals == ()
        assert (await citizen.settled(mine)).state == "executed"
        assert (await author.effect(mine)).applied
        refused = await citizen.propose(consent(CITIZEN_TOKEN), reads=[])
        assert refused.code == "NOT_AUTHORIZED"


def is_proposal(value: Any) -> bool:
    return type(value) is list and len(value) == 3 and type(value[0]) is list and value[1]


LIES: dict[str, Any] = {
    "inputs": lambda row: row[1][3].__setitem__(0, row[1][3][0].replace(b"better", b"worses")),
    "salts": lambda row: row[1][2].__setitem__(0, bytes(16)),
    "number of salts": lambda row: row[1][2].pop(),
    "seed's hash": lambda row: row[1].__setitem__(1, bytes(32)),
    "body": lambda row: row[1].__setitem__(0, row[1][0][:-1] + b"\x00"),
    "leaf": lambda row: row[0][1][0].__setitem__(3, row[0][1][0][3][:-1] + b"\x00"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_draft_or_leaf_that_was_changed_is_noticed(lie: str) -> None:
    async with world() as h:
        async with h.client() as client:
            await noted(client)
            txid = await proposed(client, agree())

        def change(row: list[Any]) -> list[Any]:
            LIES[lie](row)
            return row

        h.lies["north"] = result(change, is_proposal)
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises((ProofError, VerificationError)):
                await client.proposal(txid)


async def test_the_first_decision_shown_as_the_second_is_noticed() -> None:
    async with world() as h:
        async with h.client() as client:
            await noted(client)
            txid = await proposed(client, agree())
        h.twin.effects[txid] = h.twin.places[txid]
        async with h.client(patience_seconds=1.0) as client:
            with pytest.raises(ProofError, match="first decision"):
                await client.effect(txid)
