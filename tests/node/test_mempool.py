"""The pool: quotas, turns, when a batch is cut, and that nothing accepted gets lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from consensus.errors import DecodeError
from consensus.genesis import Limits
from consensus.ledger import batch as batches
from consensus.ledger import group as groups
from consensus.ledger.batch import Item
from consensus.ledger.transaction import ORDINARY, PROTECTIVE, Draft, Transaction
from node import mempool
from node.mempool import Busy, Mempool, PoolLimits, TooLarge
from tests.consensus.ledger.authors import (
    ANNA,
    BORIS,
    CLARA,
    DORA,
    Author,
    draft,
    group_of,
    pay,
    payments,
    signed,
)

NOW = 1_000_000


def pool(network: Limits | None = None, **limits: int) -> Mempool:
    return Mempool(PoolLimits(**limits), network or Limits())


def cut_all(it: Mempool, now_ms: int = NOW) -> list[tuple[int, list[Item]]]:
    found = []
    while (due := it.cut(now_ms)) is not None:
        found.append(due)
    return found


def sequences(items: Sequence[Item]) -> list[int]:
    return [each.sequence for each in batches.transactions_of(items)]


def big(author: Author, sequence: int, size: int, *, protective: bool = False) -> Transaction:
    call = Draft("d", "a", b"A" * 32, [b"x" * size], b"P" * 32, protective=protective)
    return signed(author, sequence, calls=[call])


# --- accepting ------------------------------------------------------------------------------------


def test_added_transaction_is_known_until_it_is_settled() -> None:
    it, one = pool(), signed(ANNA, 1)
    assert it.add(one, NOW) == (one.txid,)
    assert one.txid in it
    assert (it.size_bytes, it.waiting) == (one.size_bytes, 1)
    it.cut(NOW)
    assert one.txid in it
    assert (it.in_flight_bytes, it.waiting) == (one.size_bytes, 0)
    it.settle([one.txid])
    assert one.txid not in it
    assert (it.size_bytes, it.in_flight_bytes) == (0, 0)


def test_sending_again_changes_nothing() -> None:
    it, one = pool(author_transactions_max=10), signed(ANNA, 1)
    it.add(one, NOW)
    assert it.add(one, NOW) == ()
    it.cut(NOW)
    assert it.add(one, NOW) == ()
    assert it.size_bytes == one.size_bytes
    assert it.cut(NOW + 100) is None


def test_group_adds_only_what_is_new() -> None:
    it = pool()
    group = group_of(payments(5), [ANNA])
    one = signed(ANNA, 2)
    assert one.txid == group.transactions[1].txid
    it.add(one, NOW)
    fresh = it.add(group, NOW)
    assert fresh == tuple(each.txid for each in group.transactions if each.txid != one.txid)
    assert it.add(group, NOW) == ()
    assert it.add(groups.part(group, 4, 1), NOW) == ()


def test_group_of_both_lanes_is_refused() -> None:
    drafts = [draft(ANNA, 1), draft(ANNA, 2, protective=True)]
    with pytest.raises(DecodeError, match="both lanes"):
        pool().add(group_of(drafts, [ANNA]), NOW)


# --- quotas ---------------------------------------------------------------------------------------


def test_author_s_count_is_limited_and_freed_by_decisions() -> None:
    it = pool(author_transactions_max=10)
    for sequence in range(1, 10):
        it.add(signed(ANNA, sequence), NOW)
    with pytest.raises(Busy) as refused:
        it.add(signed(ANNA, 10), NOW)
    assert refused.value.retry_after_ms > 0
    it.add(signed(BORIS, 1), NOW)
    it.cut(NOW)
    with pytest.raises(Busy):
        it.add(signed(ANNA, 10), NOW)
    it.settle([signed(ANNA, 1).txid])
    it.add(signed(ANNA, 10), NOW)


def test_a_tenth_of_an_author_s_quota_is_kept_for_protective_acts() -> None:
    it = pool(author_transactions_max=10)
    for sequence in range(1, 10):
        it.add(signed(ANNA, sequence), NOW)
    it.add(signed(ANNA, 10, protective=True), NOW)
    with pytest.raises(Busy):
        it.add(signed(ANNA, 11, protective=True), NOW)


def test_author_s_bytes_are_limited() -> None:
    it = pool(author_bytes_max=100_000)
    it.add(big(ANNA, 1, 50_000), NOW)
    with pytest.raises(Busy):
        it.add(big(ANNA, 2, 50_000), NOW)
    it.add(big(ANNA, 3, 30_000), NOW)


def test_pool_s_bytes_are_limited_with_a_tenth_for_protective_acts() -> None:
    it = pool(pool_bytes_max=100_000)
    it.add(big(ANNA, 1, 80_000), NOW)
    with pytest.raises(Busy):
        it.add(big(BORIS, 1, 12_000), NOW)
    it.add(big(BORIS, 2, 12_000, protective=True), NOW)
    with pytest.raises(Busy):
        it.add(big(CLARA, 3, 12_000, protective=True), NOW)


def test_group_is_taken_whole_or_not_at_all() -> None:
    it = pool(author_transactions_max=4)
    with pytest.raises(Busy):
        it.add(group_of(payments(5), [ANNA]), NOW)
    assert (it.size_bytes, it.waiting, it.due_ms()) == (0, 0, None)


def test_every_author_of_a_group_is_charged() -> None:
    it = pool(author_transactions_max=2)
    drafts = [draft(ANNA, 1), draft(BORIS, 1), draft(BORIS, 2)]
    it.add(group_of(drafts, [ANNA, BORIS]), NOW)
    with pytest.raises(Busy):
        it.add(signed(BORIS, 3), NOW)
    it.add(signed(ANNA, 2), NOW)


# --- too large ------------------------------------------------------------------------------------


def test_item_that_fits_no_batch_is_refused() -> None:
    with pytest.raises(TooLarge):
        pool(Limits(batch_bytes_max=10_000)).add(big(ANNA, 1, 10_000), NOW)


def test_largest_item_fits_exactly() -> None:
    one = big(ANNA, 1, 5_000)
    size = batches.item_bytes(one)
    network = Limits(batch_bytes_max=size + batches.FRAMING_BYTES_MAX)
    it = pool(network)
    it.add(one, NOW)
    ((lane, items),) = cut_all(it)
    batch = batches.build(63, 2**63 - 1, lane, items)
    assert batch.size_bytes <= network.batch_bytes_max
    with pytest.raises(TooLarge):
        pool(Limits(batch_bytes_max=network.batch_bytes_max - 1)).add(one, NOW)


def test_whole_group_beyond_a_batch_travels_in_parts() -> None:
    network = Limits(batch_transactions_max=10)
    it = pool(network)
    group = group_of(payments(21), [ANNA])
    it.add(group, NOW)
    found: list[Item] = []
    now_ms = NOW
    while len(batches.transactions_of(found)) < 21:
        for lane, items in cut_all(it, now_ms):
            batch = batches.build(0, 1, lane, items)
            assert batch.count <= 10
            found += items
        now_ms += 100
    assert sequences(found) == list(range(1, 22))
    assert all(isinstance(item, groups.Group) and item.root == group.root for item in found)


# --- when a batch is cut --------------------------------------------------------------------------


def test_idle_node_cuts_at_once() -> None:
    it = pool()
    assert it.due_ms() is None
    it.add(signed(ANNA, 1), NOW)
    assert it.due_ms() == NOW
    assert [sequences(items) for _, items in cut_all(it)] == [[1]]
    assert it.due_ms() is None


def test_batches_of_a_lightly_loaded_node_are_five_milliseconds_apart() -> None:
    it = pool()
    it.add(signed(ANNA, 1), NOW)
    it.cut(NOW)
    it.add(signed(ANNA, 2), NOW + 1)
    it.add(signed(ANNA, 3), NOW + 4)
    assert it.due_ms() == NOW + 5
    assert it.cut(NOW + 4) is None
    assert [sequences(items) for _, items in cut_all(it, NOW + 5)] == [[2, 3]]


def test_lightly_loaded_node_cuts_at_once_what_comes_later_than_that() -> None:
    it = pool()
    it.add(signed(ANNA, 1), NOW)
    it.cut(NOW)
    it.add(signed(ANNA, 2), NOW + 6)
    assert it.due_ms() == NOW + 6
    assert [sequences(items) for _, items in cut_all(it, NOW + 6)] == [[2]]


def test_clock_that_was_set_back_delays_no_batch_for_longer() -> None:
    it = pool()
    it.add(signed(ANNA, 1), NOW)
    it.cut(NOW)
    it.add(signed(ANNA, 2), NOW - 3_600_000)
    assert it.due_ms() == NOW - 3_600_000 + 5


def test_lightly_loaded_node_does_not_wait_for_256_kib() -> None:
    it = pool()
    it.add(signed(ANNA, 1), NOW)
    it.cut(NOW)
    it.add(big(ANNA, 2, 140_000), NOW + 1)
    assert it.due_ms() == NOW + 5
    it.add(big(ANNA, 3, 140_000), NOW + 2)
    assert it.due_ms() == NOW + 1
    assert [sequences(items) for _, items in cut_all(it, NOW + 2)] == [[2, 3]]


def test_node_under_load_waits_fifty_milliseconds_for_a_larger_batch() -> None:
    it = pool()
    for sequence in (1, 2, 3):
        it.add(big(ANNA, sequence, 200_000), NOW)
    cut_all(it, NOW)
    assert it.in_flight_bytes > mempool.LOAD_BYTES
    it.add(big(ANNA, 4, 200_000), NOW + 10)
    it.add(big(ANNA, 5, 200_000), NOW + 11)
    assert it.due_ms() == NOW + 60
    it.settle([big(ANNA, 1, 200_000).txid])
    assert it.due_ms() == NOW + 10  # lightly loaded again, and more than 256 KiB wait


def test_full_batch_is_cut_even_under_load() -> None:
    it = pool(Limits(batch_transactions_max=3))
    for sequence in (1, 2, 3):
        it.add(big(ANNA, sequence, 200_000), NOW)
    cut_all(it, NOW)
    for sequence in (4, 5, 6, 7):
        it.add(signed(ANNA, sequence), NOW + 10)
    assert [sequences(items) for _, items in cut_all(it, NOW + 10)] == [[4, 5, 6]]
    assert it.due_ms() == NOW + 60


def test_protective_lane_goes_first_in_batches_of_its_own_and_waits_least() -> None:
    it = pool()
    for sequence in (1, 2, 3):
        it.add(big(ANNA, sequence, 200_000), NOW)
    cut_all(it, NOW)
    it.add(signed(ANNA, 4), NOW + 10)
    it.add(signed(BORIS, 1, protective=True), NOW + 20)
    assert it.due_ms() == NOW + 20
    assert [(lane, sequences(items)) for lane, items in cut_all(it, NOW + 25)] == [
        (PROTECTIVE, [1])
    ]
    it.add(signed(BORIS, 2, protective=True), NOW + 30)
    assert [(lane, sequences(items)) for lane, items in cut_all(it, NOW + 60)] == [
        (PROTECTIVE, [2]),
        (ORDINARY, [4]),
    ]


def test_nothing_ordinary_is_cut_while_peers_could_not_hold_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mempool, "IN_FLIGHT_BYTES_MAX", 100_000)
    it = pool()
    it.add(big(ANNA, 1, 95_000), NOW)
    cut_all(it, NOW)
    it.add(signed(ANNA, 2), NOW)
    assert it.due_ms() is None
    assert cut_all(it, NOW + 10_000) == []
    it.add(signed(BORIS, 1, protective=True), NOW)
    assert [lane for lane, _ in cut_all(it, NOW + 10_000)] == [PROTECTIVE]
    it.settle([big(ANNA, 1, 95_000).txid])
    assert [sequences(items) for _, items in cut_all(it, NOW + 10_000)] == [[2]]


def test_authors_take_turns() -> None:
    it = pool(Limits(batch_transactions_max=4))
    for sequence in range(1, 6):
        it.add(signed(ANNA, sequence), NOW)
    it.add(signed(BORIS, 11), NOW + 1)
    it.add(signed(CLARA, 21), NOW + 2)
    it.add(signed(BORIS, 12), NOW + 3)
    found = [sequences(items) for _, items in cut_all(it, NOW + 100)]
    assert found == [[1, 11, 21, 2], [12, 3, 4, 5]]


def test_batches_stay_within_the_network_s_limits() -> None:
    network = Limits(batch_bytes_max=60_000, batch_transactions_max=7)
    it = pool(network)
    for sequence in range(1, 40):
        it.add(big((ANNA, BORIS, CLARA, DORA)[sequence % 4], sequence, 300 * sequence), NOW)
    found = cut_all(it, NOW + 10_000)
    for number, (lane, items) in enumerate(found, 1):
        batch = batches.build(0, number, lane, items)
        assert batch.size_bytes <= network.batch_bytes_max
        assert batch.count <= network.batch_transactions_max
    assert sorted(s for _, items in found for s in sequences(items)) == list(range(1, 40))


# --- leaving --------------------------------------------------------------------------------------


def test_expired_waiting_transactions_are_named() -> None:
    it = pool()
    late, soon = signed(ANNA, 1, not_after_ms=5000), signed(ANNA, 2, not_after_ms=4000)
    it.add(late, NOW)
    it.add(soon, NOW)
    assert it.expire(4000) == []
    assert it.expire(4001) == [soon.txid]
    assert (soon.txid in it, late.txid in it) == (False, True)
    assert [sequences(items) for _, items in cut_all(it, NOW + 100)] == [[1]]
    assert it.expire(9000) == []  # in flight: its fate is the batch's


def test_group_expires_with_its_last_transaction() -> None:
    it = pool()
    drafts = [draft(ANNA, n, not_after_ms=1000 * n) for n in (1, 2)]
    group = group_of(drafts, [ANNA])
    it.add(group, NOW)
    assert it.expire(1500) == []
    assert it.expire(2001) == [each.txid for each in group.transactions]
    assert (it.size_bytes, it.waiting) == (0, 0)


def test_what_was_decided_elsewhere_while_it_waited_is_not_sent() -> None:
    it = pool()
    it.add(signed(ANNA, 9), NOW)
    cut_all(it)
    one, two = signed(ANNA, 1), signed(ANNA, 2)
    it.add(one, NOW)
    it.add(two, NOW)
    it.settle([one.txid])
    assert [sequences(items) for _, items in cut_all(it, NOW + 100)] == [[2]]
    assert it.waiting == 0


def test_own_batches_found_in_the_log_count_again() -> None:
    it = pool(author_transactions_max=10)
    old = [signed(ANNA, sequence) for sequence in range(1, 10)]
    it.adopt(old)
    it.adopt(old)
    assert it.in_flight_bytes == sum(each.size_bytes for each in old)
    assert it.add(old[0], NOW) == ()
    with pytest.raises(Busy):
        it.add(signed(ANNA, 10), NOW)
    it.settle([each.txid for each in old])
    assert (it.size_bytes, it.in_flight_bytes) == (0, 0)


def test_settling_the_unknown_changes_nothing() -> None:
    it = pool()
    it.settle([b"t" * 32])
    assert it.size_bytes == 0


# --- accounts hold whatever happens ---------------------------------------------------------------

AUTHORS = (ANNA, BORIS, CLARA)
STOCK: list[Item] = [
    *[signed(author, n, not_after_ms=1000 * n) for author in AUTHORS for n in range(1, 7)],
    *[signed(author, n, calls=[pay(protective=True)]) for author in AUTHORS for n in (7, 8)],
    group_of(payments(5, first=20), [ANNA]),
    group_of([draft(a, 30 + n) for n, a in enumerate(AUTHORS)], AUTHORS),
    groups.part(group_of(payments(5, first=20), [ANNA]), 4, 1),
]


class PoolMachine(RuleBasedStateMachine):
    """Every accepted transaction is waiting, in flight, settled or reported lapsed: one of them."""

    def __init__(self) -> None:
        super().__init__()
        self.it = Mempool(PoolLimits(author_transactions_max=9), Limits(batch_transactions_max=5))
        self.now_ms = NOW
        self.accepted: dict[bytes, Transaction] = {}
        self.sent: set[bytes] = set()

    @rule(item=st.sampled_from(STOCK), wait_ms=st.integers(0, 30))
    def add(self, item: Item, wait_ms: int) -> None:
        self.now_ms += wait_ms
        flat = {each.txid: each for each in batches.transactions_of([item])}
        before = dict(self.accepted)
        try:
            fresh = self.it.add(item, self.now_ms)
        except Busy:
            return
        assert set(fresh) == set(flat) - set(before)
        self.accepted |= {txid: flat[txid] for txid in fresh}

    @rule()
    def cut(self) -> None:
        for lane, items in cut_all(self.it, self.now_ms):
            found = batches.transactions_of(items)
            assert 0 < len(found) <= 5
            assert all(each.lane == lane for each in found)
            self.sent |= {each.txid for each in found if each.txid in self.accepted}

    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        if self.accepted:
            chosen = data.draw(st.lists(st.sampled_from(sorted(self.accepted)), max_size=4))
            self.it.settle(chosen)
            for txid in chosen:
                self.accepted.pop(txid, None)
                self.sent.discard(txid)

    @rule(chain_time_ms=st.integers(0, 8000))
    def expire(self, chain_time_ms: int) -> None:
        for txid in self.it.expire(chain_time_ms):
            gone = self.accepted.pop(txid)
            assert txid not in self.sent
            assert gone.not_after_ms < chain_time_ms

    @invariant()
    def accounts_are_those_of_the_accepted(self) -> None:
        assert self.it.size_bytes == sum(each.size_bytes for each in self.accepted.values())
        assert self.it.in_flight_bytes == sum(self.accepted[t].size_bytes for t in self.sent)
        assert all(txid in self.it for txid in self.accepted)
        if self.sent != set(self.accepted):
            assert self.it.due_ms() is not None


PoolMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase
