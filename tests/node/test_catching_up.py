"""A node that is behind has less to do than those that it follows, or it would never be with them.

What an ordered block names, honest nodes have checked: who fetches it leaves signatures out, and
takes it up before what no block names yet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path

import pytest

from consensus.hotstuff.types import PayloadItem
from node.batch_verdicts import Verify
from node.batches import BatchStore
from node.dissemination import Dissemination
from tests.consensus.ledger.authors import BORIS, batch_of, signed
from tests.node.machines import (  # noqa: F401 - the fixture is used by name
    CHAIN,
    SIZE,
    Machine,
    Town,
    inline_threads,
    running,
)

pytestmark = pytest.mark.usefixtures("inline_threads")


def signatures(machine: Machine) -> int:
    """Client signatures that a machine has checked in its present life."""
    return machine.engine.dissemination._verifier.signatures


async def decided(town: Town, txids: Sequence[bytes], *indices: int) -> None:
    chosen = [town.machines[index] for index in indices or range(SIZE)]
    await town.until(
        lambda: all(
            machine.powered and all(machine.engine.chronicle.find(txid) for txid in txids)
            for machine in chosen
        )
    )


async def test_who_comes_back_checks_no_signature_of_what_was_ordered_without_it(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    late = town.machines[3]
    async with running(town) as nursery:
        await decided(town, town.submit(0, 3))
        late.cut_power()
        await town.until(lambda: not late.powered)
        late.lose()
        txids: list[bytes] = []
        for at in range(3):
            for _ in range(4):
                txids += town.submit(at, 10)
                await decided(town, txids, 0, 1, 2)
        assert all(signatures(town.machines[at]) >= 80 for at in range(3)), "they checked others'"
        await nursery.start(late.run)
        await decided(town, txids)
        assert signatures(late) == 0
        await decided(town, town.submit(0, 5))
        assert signatures(late) == 5, "what is new is checked by everybody"
        assert not town.faults


async def test_one_that_was_cut_off_checks_none_either(
    tmp_path: Path, autojump_clock: object
) -> None:
    town = Town(tmp_path)
    async with running(town):
        await decided(town, town.submit(3, 2))
        before = signatures(town.machines[3])
        town.cuts = {frozenset({3, other}) for other in range(3)}
        txids = [txid for at in range(3) for txid in town.submit(at, 20)]
        await decided(town, txids, 0, 1, 2)
        town.cuts = set()
        for other in range(3):
            town.meet(other)
        await decided(town, txids)
        assert signatures(town.machines[3]) == before


async def test_what_an_ordered_block_names_is_checked_before_what_came_earlier() -> None:
    batches = BatchStore(4, 0)
    made = [batch_of(signed(BORIS, n, chain=CHAIN), origin=1, number=n) for n in range(1, 6)]
    store = Dissemination.__new__(Dissemination)  # only its queue is looked at
    store.batches, store._checks = batches, deque()
    for each in made:
        request = batches.offer(1, each.public, each.private)
        assert isinstance(request, Verify)
        store._checks.append(request)
    named = [
        PayloadItem(each.digest, 1, each.number, each.lane, each.count, each.size_bytes)
        for each in made
    ]
    batches.require(b"P" * 32, named[:2], 1, 0)  # a proposal: nobody vouches for it yet
    batches.require(b"R" * 32, named[3:4], 3, 0, ordered=True)
    batches.require(b"O" * 32, named[4:], 2, 0, ordered=True)
    taken = [store._next_check() for _ in made]
    order = [[each.digest for each in made].index(request.digest) for request, _ in taken]
    assert order == [4, 3, 0, 1, 2]
    assert [proved for _, proved in taken] == [True, True, False, False, False]


def test_a_batch_counts_as_proved_only_while_an_ordered_block_lacks_it() -> None:
    batches = BatchStore(4, 0)
    batch = batch_of(signed(BORIS, 1, chain=CHAIN), origin=1, number=1)
    named = [PayloadItem(batch.digest, 1, 1, batch.lane, batch.count, batch.size_bytes)]
    assert batches.proved_at(batch.digest) is None
    batches.require(b"P" * 32, named, 1, 0)
    assert batches.proved_at(batch.digest) is None, "a leader's word is no proof"
    batches.require(b"P" * 32, named, 1, 0, ordered=True)
    assert batches.proved_at(batch.digest) == 1
    batches.require(b"Q" * 32, named, 2, 0)
    assert batches.proved_at(batch.digest) == 1, "another leader's word takes nothing back"
    batches.release(b"P" * 32)
    batches.release(b"Q" * 32)
    assert batches.proved_at(batch.digest) is None
