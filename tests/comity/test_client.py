"""The client against an honest twin: what it returns is what the ledger holds."""

from __future__ import annotations

import pytest
import trio

from comity import Call, DraftError, KeyUnusableError, RequestError
from tests.comity.twin import CITIZEN, OFFICIAL, Twin, harness


def write(number: int, text: str = "hello", amount: int = 5) -> Call:
    return Call("notes", "write", {"number": number, "text": text, "amount": amount})


async def test_transaction_is_applied_and_its_record_read_back() -> None:
    async with harness() as h, h.client() as client:
        call = write(1, "first", 42)
        absent = await client.read_for(call)
        assert [e.present for e in absent] == [False]
        done = await client.transact(call, reads=absent)
        assert (done.state, done.code) == ("applied", "APPLIED")
        note = await client.get("record", "note", 1)
        assert note.fields["text"] == "first"
        assert note.fields["amount"] == 42
        assert note.version == 1
        assert note.changed == done.height


async def test_refusal_is_a_certified_result_with_its_detail() -> None:
    async with harness() as h, h.client() as client:
        first = write(1)
        reads = await client.read_for(first)
        assert (await client.transact(first, reads=reads)).applied
        second = await client.transact(write(1, "again"), reads=reads)
        assert (second.state, second.code) == ("refused", "STALE")
        assert second.detail == [["note", [1]], 1, []]


async def test_what_was_read_is_never_refreshed_silently() -> None:
    async with harness() as h, h.client() as client:
        made = write(1)
        await client.transact(made, reads=await client.read_for(made))
        amend = Call("notes", "amend", {"note": [1], "text": "mine"})
        old = await client.read_for(amend)
        other = Call("notes", "amend", {"note": [1], "text": "theirs"})
        assert (await client.transact(other, reads=await client.read_for(other))).applied
        late = await client.transact(amend, reads=old)
        assert (late.code, late.detail) == ("STALE", [["note", [1]], 2, ["text"]])


async def test_account_and_absence_are_proved() -> None:
    async with harness() as h, h.client() as client:
        pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 250})
        assert (await client.transact(pay)).applied
        pot = await client.get("account", "pot", "b")
        assert pot.value[1] == 250
        nothing = await client.get("account", "pot", "nobody")
        assert not nothing.present
        assert nothing.version == 0


async def test_program_whose_number_another_one_took_goes_on_beyond_it() -> None:
    pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})
    async with harness() as h, h.client() as one, h.client() as two:
        assert (await one.transact(pay)).applied
        for _ in range(3):
            assert (await two.transact(pay)).applied
        spent = await one.transact(pay)
        assert (spent.code, spent.detail) == ("SEQUENCE_SPENT", 2)
        assert (await one.transact(pay)).applied
        assert (await two.transact(pay)).code == "SEQUENCE_SPENT"
        assert all(each.applied for each in await two.submit_group([await two.draft(pay)]))


async def test_evidence_by_a_later_certificate_is_accepted() -> None:
    async with harness(Twin(certify_every=2)) as h, h.client() as client:
        call = write(1)
        done = await client.transact(call, reads=await client.read_for(call))
        assert done.applied
        assert done.height not in h.twin.certificates
        again = await client.decision(done.txid)
        assert again == done


async def test_group_is_one_signature_and_each_transaction_judged_alone() -> None:
    async with harness() as h, h.client() as client:
        drafts = []
        for number in (1, 2, 1):
            call = write(number)
            drafts.append(await client.draft(call, reads=await client.read_for(call)))
        done = await client.submit_group(drafts)
        assert [d.code for d in done] == ["APPLIED", "APPLIED", "STALE"]
        assert [d.txid for d in done] == [d.transaction.txid for d in drafts]


async def test_many_transactions_in_flight_from_one_task() -> None:
    async with harness() as h, h.client() as client:
        drafts = [
            await client.draft(Call("notes", "pay", {"source": "a", "target": "b", "amount": 1}))
            for _ in range(600)
        ]
        heard: list[int] = []
        from comity.session import Parcel
        from consensus.protocol import Item

        parcels = [Parcel(Item.ENVELOPE, (s := client.sign(d)).envelope, (s.txid,)) for d in drafts]
        rows = await client.deliver(parcels, lambda parcel, position, outcome: heard.append(parcel))
        assert all(row[0].applied for row in rows)
        assert sorted(heard) == list(range(600))
        assert sum(h.twin.submissions) == 600
        assert (await client.get("account", "pot", "b")).value[1] == 600


async def test_sequence_numbers_stay_within_the_window() -> None:
    async with harness() as h, h.client() as client:
        h.twin.paused = True
        pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})
        taken = [(await client.draft(pay)).transaction.sequence for _ in range(1024)]
        assert taken == list(range(1, 1025))
        with trio.move_on_after(1) as scope:
            await client.draft(pay)
        assert scope.cancelled_caught


async def test_same_bytes_again_give_the_same_decision() -> None:
    async with harness() as h, h.client() as client:
        signed = client.sign(await client.draft(write(1), reads=await client.read_for(write(1))))
        first = await client.submit(signed)
        second = await client.submit(signed.envelope)
        assert first == second
        assert first.applied


async def test_decisions_of_a_range_are_complete() -> None:
    async with harness() as h, h.client() as client:
        pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})
        done = [await client.transact(pay) for _ in range(3)]
        heights = await client.decisions(2, 10)
        assert [h.height for h in heights] == [2, 3, 4]
        assert [d.txid for h in heights for d in h.decisions] == [d.txid for d in done]
        newest = await client.decisions(-1)
        assert [d.txid for h in newest for d in h.decisions] == [done[-1].txid]


async def test_subscription_brings_each_height_once_and_resumes() -> None:
    async with harness() as h, h.client(servers=["north", "east"]) as client:
        pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})
        for _ in range(2):
            await client.transact(pay)
        seen = []
        feed = client.subscribe(2, decisions=True)
        async for height in feed:
            seen.append((height.height, len(height.decisions)))
            if height.height == 3:
                h.cut()
                await client.transact(pay)
            if height.height == 4:
                break
        await feed.aclose()
        assert seen == [(2, 1), (3, 1), (4, 1)]


async def test_holds_on_a_target_are_complete() -> None:
    from tests.comity.twin import ADMINISTRATOR

    async with harness() as h, h.client(ADMINISTRATOR) as client:
        assert (await client.holds("record", "note", 1)).holds == ()
        targets = [["record", ["note", 1]]]
        inputs = {"targets": targets, "scopes": ["edit"], "until": None, "legal": "Act"}
        done = await client.transact(Call("charter", "place_hold", inputs), reason="inquiry")
        assert done.applied, done
        (hold,) = (await client.holds("record", "note", 1)).holds
        assert hold.scopes == ("edit",)
        assert hold.agency == "north"


async def test_rules_are_proved_and_compiled() -> None:
    async with harness() as h, h.client() as client:
        found = await client.rules()
        assert [(row.domain, row.number) for row in found.sets] == [("charter", 1), ("notes", 1)]
        assert "pay" in found.book.rule_sets["notes"].actions


async def test_unknown_words_get_a_suggestion() -> None:
    async with harness() as h, h.client() as client:
        with pytest.raises(DraftError, match="did you mean pay"):
            await client.draft(Call("notes", "pax", {}))
        with pytest.raises(DraftError, match="did you mean amount"):
            await client.draft(Call("notes", "pay", {"amout": 1}))
        with pytest.raises(DraftError, match="needs the input 'target'"):
            await client.draft(Call("notes", "pay", {"source": "a", "amount": 1}))
        with pytest.raises(DraftError, match="amount: expected money"):
            await client.draft(Call("notes", "pay", {"source": "a", "target": "b", "amount": "1"}))


async def test_a_failed_draft_gives_its_number_back() -> None:
    async with harness() as h, h.client() as client:
        with pytest.raises(DraftError):
            await client.draft(Call("notes", "pay", {}))
        pay = Call("notes", "pay", {"source": "a", "target": "b", "amount": 1})
        assert (await client.transact(pay)).applied


async def test_client_without_key_cannot_draft() -> None:
    async with harness() as h, h.client(None) as client:
        assert (await client.status())["height"] == 1
        with pytest.raises(KeyUnusableError):
            await client.draft(write(1))


async def test_citizen_reads_and_changes_the_own_record_only() -> None:
    async with harness() as h, h.client(OFFICIAL) as office, h.client(CITIZEN) as citizen:
        enter = Call("notes", "enter", {"token": bytes([7]) * 32, "name": "Ada"})
        await office.transact(enter, reads=await office.read_for(enter))
        other = Call("notes", "enter", {"token": bytes([8]) * 32, "name": "Bob"})
        await office.transact(other, reads=await office.read_for(other))
        rename = Call("notes", "rename", {"person": [bytes([7]) * 32], "name": "Ada L."})
        done = await citizen.transact(rename, reads=await citizen.read_for(rename))
        assert done.applied
        own = await citizen.get("record", "person", bytes([7]) * 32)
        assert own.fields["name"] == "Ada L."
        for forbidden in (
            citizen.get("record", "person", bytes([8]) * 32),
            citizen.get("account", "pot", "a"),
            citizen.get("pool"),
            citizen.list_records("note"),
            citizen.decisions(1),
        ):
            with pytest.raises(RequestError) as caught:
                await forbidden
            assert caught.value.reason == "DENIED"
