"""The past of the real network: proved by every node, and after a power cut."""

from __future__ import annotations

import pytest

from comity import Call
from scripts.localnet import LocalNetwork
from tests.network.town import NAMES, client, kill, start

pytestmark = pytest.mark.process

NUMBER = 4711


async def test_every_node_proves_what_a_record_and_an_account_were(town: LocalNetwork) -> None:
    made = []
    async with client(town, "treasury") as clerk:
        for number in range(NUMBER, NUMBER + 3):
            call = Call("desk", "file", {"number": number, "desk": "open"})
            made.append(await clerk.transact(call, reads=await clerk.read_for(call)))
            assert made[-1].applied
        first, _, last = made
        found = await clerk.history("record", "file", NUMBER, transactions=True)
        assert [each.height for each in found.versions] == [first.height]
        assert found.versions[0].transactions == (first.txid,)
        assert found.complete
        before = await clerk.get("record", "file", NUMBER, height=first.height - 1)
        assert not before.present
        moment = await clerk.moment(last.time_ms)
        assert moment.height >= last.height
        assert moment.time_ms <= last.time_ms
    for agency in NAMES:
        async with client(town, agency) as other:
            again = await other.history("record", "file", NUMBER, last=found.last)
            assert [(v.height, v.entry) for v in again.versions] == [
                (v.height, v.entry) for v in found.versions
            ]
    kill(town, "treasury")
    await start(town, "treasury")
    async with client(town, "treasury") as clerk:
        again = await clerk.history("record", "file", NUMBER, last=found.last)
        assert [v.entry for v in again.versions] == [v.entry for v in found.versions]
        sequence = await clerk.history("sequence", clerk.key.public if clerk.key else b"")
        heights = [each.height for each in sequence.versions]
        assert heights == sorted(dict.fromkeys(heights))
        assert {each.height for each in made} <= {*heights}
