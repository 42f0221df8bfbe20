"""Questions to the real network: who reads, who may do what, what would become of an act."""

from __future__ import annotations

import pytest

from comity import Call
from comity.errors import RequestError
from consensus.codec import Value
from consensus.protocol import Status
from scripts.localnet import LocalNetwork
from tests.network.town import WALLETS, client, eventually, kill, start

pytestmark = pytest.mark.process

SOURCE, TARGET = WALLETS + 4, WALLETS + 5
"""Wallets that nobody else pays from or to."""


def promise(amount: int) -> Call:
    return Call("desk", "promise", {"source": SOURCE, "target": TARGET, "amount": amount})


async def test_restricted_records_are_shown_and_listed_to_their_readers_alone(
    town: LocalNetwork,
) -> None:
    auditor, visitor = town.key("integrity", "auditor"), town.key("registry", "visitor")
    async with client(town, "treasury") as clerk:
        for number, desk in ((1, "open"), (2, "shut")):
            call = Call("desk", "file", {"number": number, "desk": desk})
            made = await clerk.transact(call, reads=await clerk.read_for(call))
            assert made.applied
        assert (await clerk.get("record", "file", 2)).fields["desk"] == "shut"
        height = made.height

        async def listed() -> bool:
            return {(1,), (2,)} <= {*(await clerk.list_records("file")).ids}

        await eventually(listed, "the node's own index has both files")
    async with client(town, "treasury", key=auditor) as reader:
        assert (await reader.get("record", "file", 1)).present
        open_to_all = (await reader.list_records("file")).ids
        assert (1,) in open_to_all
        assert (2,) not in open_to_all
        shown = (await reader.decisions(height))[0].decisions or ()
        assert [each.closed for each in shown if each.txid == made.txid] == [1]
        for number in (2, 99):
            with pytest.raises(RequestError) as caught:
                await reader.get("record", "file", number)
            assert caught.value.status == Status.DENIED
    async with client(town, "treasury") as clerk:
        told = await clerk.reads_of("record", "file", 1)
        assert {(each.agency, each.method) for each in told} >= {
            ("treasury", "list"),
            ("integrity", "get"),
            ("integrity", "list"),
        }
        kill(town, "treasury")
    await start(town, "treasury")
    async with client(town, "treasury") as clerk:
        assert await clerk.reads_of("record", "file", 1) == told
    async with client(town, "treasury", key=visitor) as reader:
        assert (await reader.list_records("note")).height >= 0
        with pytest.raises(RequestError):
            await reader.get("record", "file", 1)


async def test_authority_is_found_from_the_nodes_own_list_and_proved(town: LocalNetwork) -> None:
    auditor = town.key("integrity", "auditor")
    async with client(town, "treasury") as clerk:

        async def known() -> Value:
            page = await clerk.list_records("principal", limit=1000)
            return list(page.ids) or None

        assert await eventually(known, "the node lists principals")
        who = layout_principal((await clerk.get("key", auditor.public)).value)
        found = await clerk.authority(who)
        assert found.agency == "integrity"
        assert [each.role for each in found.roles] == ["desk.auditor"]
        assert "desk.freeze" in found.actions
        assert [each.key for each in found.keys] == [auditor.public]
        assert "desk.promise" in found.roles[0].approves
        told = await clerk.access(who, "record", "note", 12345)
        assert told.allowed is True


def layout_principal(leaf: Value) -> bytes:
    """The principal that a key's leaf names."""
    return bytes(leaf[1])


async def test_draft_is_tried_out_and_names_who_could_approve_it(town: LocalNetwork) -> None:
    async with client(town, "treasury") as clerk:
        before = await clerk.get("account", "wallet", TARGET)
        found = await clerk.simulate(promise(1))
        assert (found.state, found.code) == ("refused", "NEEDS_APPROVAL")
        assert [each.agency for each in found.holders["desk.auditor"]] == ["integrity"]
        many = await clerk.simulate(
            Call("desk", "pay", {"source": SOURCE, "target": TARGET, "amount": 0}), promise(1)
        )
        assert [each.code for each in many.findings] == ["REQUIREMENT", "NEEDS_APPROVAL"]
        after = await clerk.get("account", "wallet", TARGET)
        assert after.value == before.value
