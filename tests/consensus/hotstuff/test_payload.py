"""Which batches go into a block."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.blocktree import BlockTree, Node
from consensus.hotstuff.events import ReplicaConfig
from consensus.hotstuff.payload import DELIVERED_MAX, PayloadPool, repeats_batch, within_limits
from consensus.hotstuff.types import PayloadItem

from . import builders as make
from .driver import CHAIN, batch

CONFIG = ReplicaConfig(
    CHAIN, payload_items_max=8, payload_bytes_max=10_000, payload_transactions_max=20
)


def tree() -> BlockTree:
    return BlockTree(1, make.GENESIS, make.GENESIS_QC, 100)


def grown(base: BlockTree, *payloads: list[PayloadItem]) -> Node:
    justify, node = make.GENESIS_QC, base.root
    for payload in payloads:
        block = make.block(justify, payload=payload)
        inserted = base.insert(block, 0)
        assert inserted is not None
        node, justify = inserted, make.quorum_cert(block)
    return node


def pool(*items: PayloadItem, config: ReplicaConfig = CONFIG) -> PayloadPool:
    made = PayloadPool(config)
    made.replace(items)
    made.refresh(tree().root, 5)
    return made


def numbers(chosen: tuple[PayloadItem, ...]) -> list[int]:
    return [item.number for item in chosen]


def test_protective_batches_come_first_in_the_order_told() -> None:
    items = (batch(1), batch(2, lane=1), batch(3), batch(4, lane=1))
    assert numbers(pool(*items).select(0)) == [2, 4, 1, 3]


def test_batches_of_the_chain_that_is_extended_are_left_out() -> None:
    node = grown(tree(), [batch(1)], [batch(3)])
    made = PayloadPool(CONFIG)
    made.replace((batch(1), batch(2), batch(3), batch(4)))
    made.refresh(node, 7)
    assert numbers(made.select(0)) == [2, 4]
    assert made.since_ms == 7


def test_batch_of_an_abandoned_branch_is_proposed_again() -> None:
    base = tree()
    first = grown(base, [batch(1)])
    made = PayloadPool(CONFIG)
    made.replace((batch(1),))
    made.refresh(first, 1)
    assert made.select(0) == ()
    rival = base.insert(make.chain(2)[0], 0)
    assert rival is not None
    made.refresh(rival, 9)
    assert numbers(made.select(0)) == [1]
    assert made.since_ms == 9


def test_delivered_batch_is_left_out_even_when_news_of_it_is_late() -> None:
    made = pool(batch(1), batch(2))
    made.delivered(make.block(payload=[batch(1)]))
    made.replace((batch(1), batch(2)))
    made.refresh(tree().root, 6)
    assert numbers(made.select(0)) == [2]


def test_memory_of_delivered_batches_is_bounded() -> None:
    made = pool()
    first = batch(1)
    made.delivered(make.block(payload=[first]))
    for start in range(2, DELIVERED_MAX + 2, 512):
        made.delivered(make.block(payload=[batch(start + i) for i in range(512)]))
    made.replace((first,))
    made.refresh(tree().root, 6)
    assert numbers(made.select(0)) == [1]


def test_time_since_work_waits_is_kept_until_there_is_none() -> None:
    base, made = tree(), PayloadPool(CONFIG)
    made.replace((batch(1),))
    made.refresh(base.root, 5)
    made.replace((batch(1), batch(2)))
    made.refresh(base.root, 8)
    assert made.since_ms == 5
    made.replace(())
    made.refresh(base.root, 9)
    assert made.since_ms is None
    assert made.select(0) == ()


def test_limits_on_items_bytes_and_transactions_cut_the_payload() -> None:
    assert len(pool(*(batch(i) for i in range(1, 20))).select(0)) == 8
    big = [batch(i, size_bytes=4_000) for i in range(1, 5)]
    assert numbers(pool(*big).select(0)) == [1, 2]
    many = [replace(batch(i), count=7) for i in range(1, 5)]
    assert numbers(pool(*many).select(0)) == [1, 2]


def test_a_tenth_of_the_room_is_kept_for_protective_batches() -> None:
    ordinary = [batch(i, size_bytes=3_000) for i in range(1, 5)]
    assert numbers(pool(*ordinary).select(0)) == [1, 2, 3]  # 9,000 of 10,000
    protective = batch(9, lane=1, size_bytes=1_000)
    assert numbers(pool(*ordinary, protective).select(0)) == [9, 1, 2, 3]


def test_limits_halve_with_each_failed_round_down_to_one_batch() -> None:
    items = [batch(i, size_bytes=1_000) for i in range(1, 9)]
    made = pool(*items)
    assert [len(made.select(failures)) for failures in (0, 1, 2, 3, 40)] == [8, 4, 2, 1, 1]


def test_batch_that_could_never_fit_is_passed_over() -> None:
    items = (batch(1, size_bytes=9_500), batch(2), replace(batch(3), count=21), batch(4))
    assert numbers(pool(*items).select(0)) == [2, 4]
    assert numbers(pool(batch(1, lane=1, size_bytes=9_500)).select(0)) == [1]


def test_what_is_selected_is_within_the_limits_that_votes_check() -> None:
    items = [batch(i, lane=i % 2, size_bytes=700 * (1 + i % 3)) for i in range(1, 30)]
    payload = pool(*items).select(0)
    assert within_limits(make.block(payload=payload), CONFIG)


def test_payload_beyond_a_limit_is_seen() -> None:
    for payload in (
        [batch(i) for i in range(9)],
        [batch(1, lane=1, size_bytes=10_001)],
        [batch(1, size_bytes=9_001)],
        [replace(batch(1), count=21)],
    ):
        assert not within_limits(make.block(payload=payload), CONFIG)
    assert within_limits(make.block(payload=[batch(1, size_bytes=9_000)]), CONFIG)
    assert within_limits(make.block(payload=[batch(1, lane=1, size_bytes=10_000)]), CONFIG)


def test_batch_repeated_from_an_undelivered_ancestor_is_seen() -> None:
    base = tree()
    assert repeats_batch(grown(base, [batch(1)], [batch(2)], [batch(1)]))
    assert not repeats_batch(grown(tree(), [batch(1)], [batch(2)], [batch(3)]))
    assert not repeats_batch(grown(tree(), [batch(1)], []))
