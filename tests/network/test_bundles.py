"""Evidence bundles from real nodes, checked by nothing but the genesis hash."""

from __future__ import annotations

from dataclasses import replace

import pytest

from comity import Call
from comity.errors import RequestError
from consensus import genesis
from consensus.evidence import bundle as files
from consensus.evidence.bundle import Sealed
from consensus.evidence.stages import FailedError
from consensus.evidence.verify import verify
from scripts.localnet import LocalNetwork
from tests.network.town import AGENT, WALLETS, agreed, client, kill, start

pytestmark = pytest.mark.process

SOURCE, TARGET = WALLETS + 6, WALLETS + 7
NOTE = 700_101


async def test_any_node_proves_what_was_decided_before_all_of_them_died(
    town: LocalNetwork,
) -> None:
    chain = genesis.chain_id(town.genesis)
    auditor = town.key("integrity", "auditor")
    async with client(town, "treasury") as clerk:
        written = Call("desk", "write", {"number": NOTE, "text": "first", "amount": 1})
        made = await clerk.transact(written, reads=await clerk.read_for(written), reason="a test")
        paid = Call("desk", "pay", {"source": SOURCE, "target": TARGET, "amount": 3})
        payment = await clerk.transact(paid, reads=await clerk.read_for(paid))
        again = await clerk.transact(written, reads=await clerk.read_for(paid))
    assert (made.applied, payment.applied, again.state) == (True, True, "refused")
    height, _ = await agreed(town, height=again.height)
    kill(town, *town.agencies)
    await start(town, *town.agencies)
    for decision, agency in ((made, "treasury"), (payment, AGENT), (again, "integrity")):
        async with client(town, agency, key=auditor) as asked:
            data = await asked.bundle(
                decision.txid, heights=(1,), purpose="a check", audience="court"
            )
        found = verify(data, chain)
        assert (found.header.txid, found.judged) == (decision.txid, True)
        assert found.decision.root == decision.root
        assert found.newest.height >= height
        assert found.holder == auditor.public
        assert b"a test" not in data
        bundle = files.decode(files.unseal(data).content)
        forged = replace(bundle, decision=bundle.decision[:-1] + b"\x01")
        with pytest.raises((FailedError, files.DecodeError)):
            verify(Sealed(forged.content()).encode(), chain)
    async with client(town, key=auditor) as asked:
        data = await asked.bundle(made.txid, opened=("reason",))
        assert verify(data, chain).transaction.reason == "a test"
        with pytest.raises(RequestError) as caught:
            await asked.bundle(bytes(32))
        assert caught.value.reason == "NOT_FOUND"
        with pytest.raises(RequestError) as caught:
            await asked.bundle(made.txid, heights=(10**9,))
        assert caught.value.reason == "NOT_FOUND"
