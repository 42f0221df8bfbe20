"""Taking transactions back as people do it: what is shown before, what happens, what is refused."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from comity import Call, RequestError
from comity.client import Client
from comity.results import Decision
from consensus import codec
from consensus.answers import Answer
from consensus.errors import ComityError
from consensus.genesis import Genesis, RoleGiven
from consensus.ledger.rules import encode_definition, load_toml
from tests.comity.shell import Shell, shell
from tests.comity.twin import (
    ADMINISTRATOR,
    CHARTER,
    CITIZEN,
    RULES,
    Twin,
    harness,
    make_genesis,
)

__all__ = ["shell"]

DAY_MS = 86_400_000


async def do(client: Client, name: str, **inputs: Any) -> Decision:
    call = Call("notes", name, inputs)
    done = await client.transact(call, reads=await client.read_for(call))
    assert done.applied, done.detail
    return done


async def corrected(client: Client) -> Decision:
    await do(client, "write", number=1, text="first", amount=5)
    return await do(client, "correct", note=[1], text="second")


async def test_preview_says_what_comes_back_and_doing_it_brings_it_back() -> None:
    async with harness() as h, h.client() as client:
        done = await corrected(client)
        shown = await client.reversal(done.txid)
        assert (shown.roles, shown.by, shown.obstacle) == (("notes.writer",), None, "")
        assert shown.until_ms == done.time_ms + 5 * DAY_MS
        [record] = shown.records
        assert (record.kind, record.id, record.voided, record.moved) == ("note", (1,), False, ())
        assert record.fields == {"text": "first"}
        back = await client.reverse(done.txid, "a slip")
        assert back.applied, back.detail
        note = await client.get("record", "note", 1)
        assert (note.fields["text"], note.version) == ("first", 3)
        after = await client.reversal(done.txid)
        assert after.by == back.txid
        assert "has taken it back" in after.obstacle


async def test_debt_is_foretold_and_booked() -> None:
    async with harness() as h, h.client() as client:
        lent = await do(client, "lend", source="a", target="b", amount=250)
        await do(client, "pay", source="b", target="a", amount=100)
        shown = await client.reversal(lent.txid)
        [payment] = shown.payments
        assert (payment.source, payment.target) == (("pot", "b"), ("pot", "a"))
        assert (payment.amount, payment.short, payment.shortfall) == (250, 100, ("debt", "b"))
        assert shown.slots == (("notes", "loan", "b"),)
        assert (await client.submit_reversal(shown)).applied
        debt = await client.get("account", "debt", "b")
        assert debt.value[1] == -100
        assert (await do(client, "lend", source="a", target="b", amount=1)).applied


async def test_what_others_changed_since_is_foretold_and_refused() -> None:
    async with harness() as h, h.client() as client:
        done = await corrected(client)
        await do(client, "amend", note=[1], text="third")
        shown = await client.reversal(done.txid)
        assert shown.records[0].moved == ("text",)
        assert shown.obstacle == "others have changed since what it would restore"
        refused = await client.submit_reversal(shown)
        assert (refused.code, refused.detail) == ("STALE", [["note", [1]], 3, ["text"]])


async def test_a_reversal_is_taken_back_with_the_same_two_steps() -> None:
    async with harness() as h, h.client() as client:
        done = await corrected(client)
        back = await client.reverse(done.txid)
        again = await client.reverse(back.txid)
        assert again.applied, again.detail
        note = await client.get("record", "note", 1)
        assert note.fields["text"] == "second"


async def test_evidence_is_good_right_after_the_act_and_long_after() -> None:
    for blocks, every in ((0, 1), (9, 1), (9, 3)):
        async with harness(Twin(certify_every=every)) as h, h.client() as client:
            done = await corrected(client)
            for _ in range(blocks):
                h.twin.make_block()
            back = await client.reverse(done.txid)
            assert back.applied, (blocks, every, back.detail)


async def test_what_cannot_be_taken_back_is_told_apart() -> None:
    async with harness() as h, h.client() as client:
        done = await do(client, "write", number=1, text="first", amount=5)
        with pytest.raises(RequestError, match="its rules do not say who may"):
            await client.reversal(done.txid)
        call = Call("notes", "pay", {"source": "a", "target": "b", "amount": 0})
        refused = await client.transact(call)
        with pytest.raises(RequestError, match="changed nothing"):
            await client.reversal(refused.txid)
        with pytest.raises(RequestError, match="no decision on this transaction"):
            await client.reversal(bytes(32))


async def test_a_node_that_no_longer_keeps_what_was_overwritten_says_so() -> None:
    async with harness() as h, h.client() as client:
        done = await corrected(client)
        h.twin.aside.clear()
        with pytest.raises(RequestError, match="is not kept here"):
            await client.reversal(done.txid)


async def test_citizens_get_no_evidence() -> None:
    async with harness() as h:
        async with h.client() as client:
            done = await corrected(client)
        async with h.client(CITIZEN) as client:
            with pytest.raises(RequestError) as caught:
                await client.reversal(done.txid)
            assert caught.value.problem.code == "DENIED"


async def test_somebody_without_the_role_is_refused() -> None:
    async with harness() as h:
        async with h.client() as client:
            done = await corrected(client)
        async with h.client(ADMINISTRATOR) as client:
            back = await client.reverse(done.txid)
            assert back.code == "NOT_AUTHORIZED"
            assert back.detail == [["role", "notes.writer", "missing"]]


def lying(at: int, value: object) -> Any:
    """Return a lie that replaces one part of the evidence of a reversal."""

    def lie(answer: Answer) -> list[Answer]:
        if answer.status == 0 and type(answer.result) is bytes:
            parts = codec.parse(answer.result)
            parts[at] = value
            return [Answer(answer.request_id, answer.status, codec.encode(parts))]
        return [answer]

    return lie


@pytest.mark.parametrize(
    ("at", "value"),
    [
        (0, b"\x80"),
        (1, 9),
        (2, [bytes(32)]),
        (3, b"\x80"),
        (4, 2),
        (4, 999),
        (5, [bytes(32)]),
        (6, []),
        (6, [[1, bytes(16), b"\x65wrong"]]),
    ],
)
@pytest.mark.parametrize("blocks", [0, 3])
async def test_evidence_that_a_node_made_up_is_not_signed(
    at: int, value: object, blocks: int
) -> None:
    async with harness() as h:
        async with h.client(servers=["east"]) as client:
            done = await corrected(client)
            for _ in range(blocks):
                h.twin.make_block()
        h.lies["north"] = lying(at, value)
        async with h.client(servers=["north"], patience_seconds=0.5) as client:
            if at == 5 and blocks == 0:
                return  # nothing certified says where that path leads
            with pytest.raises(ComityError):
                await client.reversal(done.txid)


# --- the command ------------------------------------------------------------------------------


def written(shell: Shell) -> str:
    """Return the transaction that changed a note's text, hex."""
    shell.note(1, "first")
    said = shell("submit", "notes.correct", "note=1", "text=second", "--json")
    txid: str = said.json["txid"]
    return txid


def test_command_shows_asks_and_takes_back(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    txid = written(shell)
    seen = shell("reverse", txid, "--dry")
    assert seen.status == 0
    for words in ("taking it back would do this", "restored", "note/1", "first", "notes.writer"):
        assert words in seen.out
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    kept = shell("reverse", txid)
    assert (kept.status, "nothing was sent" in kept.err) == (1, True)
    assert "second" in shell("get", "note/1").out
    monkeypatch.setattr("sys.stdin", Terminal("y\n"))
    done = shell("reverse", txid, "--reason", "a slip")
    assert done.status == 0
    assert "first" in shell("get", "note/1").out
    again = shell("reverse", txid, "--yes")
    assert again.status == 1
    assert "It would be refused" in again.out
    assert "has taken it back" in again.out


def test_command_in_json_and_where_nobody_is_asked(shell: Shell) -> None:
    txid = written(shell)
    assert shell("reverse", txid, "--json").status == 2
    assert shell("reverse", txid).status == 2
    assert shell("reverse", "12").status == 2
    seen = shell("reverse", txid, "--dry", "--json").json
    assert seen["records"] == [
        {"record": "note/1", "voided": False, "fields": {"text": "first"}, "changed_since": []}
    ]
    assert (seen["roles"], seen["obstacle"]) == (["notes.writer"], "")
    done = shell("reverse", txid, "--yes", "--json")
    assert (done.status, done.json["code"]) == (0, "APPLIED")
    by = shell("reverse", txid, "--dry", "--json").json["reversed_by"]
    assert by == done.json["txid"]
    assert shell("reverse", "00" * 32, "--yes").status != 0


class Terminal(io.StringIO):
    """Somebody at a terminal who types something."""

    def isatty(self) -> bool:
        return True


AGREED = """
[actions.agreed]
summary = "Correct a note, which another must agree to undo"
legal = "s 8"
actor = { role = "notes.writer" }
inputs = { note = "ref:note", text = "text" }
load = [ ["note", "note/{input.note}"] ]
set = [ { record = "note", fields = { text = "input.text" } } ]
reversible = { by = "notes.writer", within_days = 5, approvals = { role = "notes.reviewer" } }
"""


def agreed() -> Genesis:
    """A network where a reversal needs a reviewer, who is an administrator."""
    known = make_genesis()
    (reviewer,) = [id_ for key, id_ in known.keys if key == ADMINISTRATOR.public]
    acts = "".join(
        f'\n[actions.{name}]\nkernel = true\nactor = {{ self = "who.principal" }}\n'
        for name in ("approve", "object")
    )
    texts = (CHARTER + acts, RULES + AGREED)
    return replace(
        known,
        roles=(*known.roles, RoleGiven(reviewer, "notes.reviewer")),
        rules=tuple(encode_definition(load_toml(text)) for text in texts),
    )


async def test_a_reversal_waits_for_the_approval_that_its_terms_ask_for() -> None:
    async with harness(Twin(agreed())) as h, h.client() as client, h.client(ADMINISTRATOR) as other:
        await do(client, "write", number=1, text="first", amount=5)
        done = await do(client, "agreed", note=[1], text="second")
        shown = await client.reversal(done.txid)
        assert (shown.approvals, shown.obstacle) == (("role notes.reviewer",), "")
        refused = await client.submit_reversal(shown)
        assert (refused.code, refused.detail[0][:2]) == (
            "NEEDS_APPROVAL",
            ["role", "notes.reviewer"],
        )
        proposed = await client.propose_reversal(shown, "a slip")
        assert proposed.state == "proposed"
        (waiting,) = (await other.pending()).proposals
        assert waiting.txid == proposed.txid
        assert (await other.approve(proposed.txid)).applied
        assert (await client.effect(proposed.txid)).applied
        assert (await client.get("record", "note", 1)).fields["text"] == "first"


def test_the_command_says_who_approves_and_has_a_reversal_stored(shell: Shell) -> None:
    assert "--propose" in shell("reverse", "--help").out


# --- what a reservation paid ------------------------------------------------------------------

PROMISES = """
[actions.promise]
actor   = { role = "notes.writer" }
inputs  = { promise = "text", amount = "money:USD" }
reserve = [ { id = ["{input.promise}"], from = "account/pot/a", amount = "input.amount" } ]

[actions.fulfil]
actor  = { role = "notes.writer" }
inputs = { promise = "text" }
post   = [ { id = ["{input.promise}"], from = "account/pot/a", to = "account/pot/b" } ]
reversible = { by = "notes.writer", within_days = 5 }
"""


def promising() -> Twin:
    rules = tuple(encode_definition(load_toml(text)) for text in (CHARTER, RULES + PROMISES))
    return Twin(replace(make_genesis(), rules=rules))


async def test_preview_says_what_is_reserved_again_and_what_of_that_is_posted_again() -> None:
    async with harness(promising()) as h, h.client() as client:
        pot = (await client.get("account", "pot", "a")).value[1]
        await do(client, "promise", promise="x", amount=pot)
        done = await do(client, "fulfil", promise="x")
        [payment] = (await client.reversal(done.txid)).payments
        assert (payment.amount, payment.short, payment.reserved) == (pot, 0, ("notes", "x"))
        back = await client.reverse(done.txid)
        assert back.applied, back.detail
        assert (await client.get("account", "pot", "a")).reserved == pot
        shown = await client.reversal(back.txid)
        [payment] = shown.payments
        assert (payment.short, payment.reserved, shown.obstacle) == (0, None, "")
        again = await client.submit_reversal(shown)
        assert again.applied, again.detail
        [payment] = (await client.reversal(again.txid)).payments
        assert payment.reserved == ("notes", "x")


async def test_preview_says_what_is_lacking_where_the_reservation_was_used_since() -> None:
    async with harness(promising()) as h, h.client() as client:
        pot = (await client.get("account", "pot", "a")).value[1]
        await do(client, "promise", promise="x", amount=pot)
        back = await client.reverse((await do(client, "fulfil", promise="x")).txid)
        await do(client, "fulfil", promise="x")
        shown = await client.reversal(back.txid)
        assert shown.payments[0].short == pot
        assert shown.obstacle
        refused = await client.submit_reversal(shown)
        assert refused.code == "INSUFFICIENT"
