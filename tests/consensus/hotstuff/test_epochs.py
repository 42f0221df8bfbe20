"""Epochs: how one ends, how the next begins, and how those follow who were away.

``World`` watches at every step that nothing is signed in an epoch whose record is not on disk, that
nothing beyond an epoch's end is executed, that an ending block is delivered by its own certificate,
and for forks, double signatures and the order of delivery.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from consensus.hotstuff import events as ev
from consensus.hotstuff.types import (
    Certificates,
    CommitVote,
    Message,
    Proposal,
    Vote,
    epoch_of,
)

from .driver import World, batch, ends_with

MINUTE_MS = 60_000


def in_epoch(world: World, epoch: int, *indexes: int) -> Callable[[], bool]:
    return lambda: all(
        world.nodes[i].epoch == epoch and world.nodes[i].replica is not None for i in indexes
    )


def all_deliver(world: World, number: int, limit_ms: int, *indexes: int) -> int:
    item = batch(number)
    world.submit(item)
    return world.run_until(lambda: all(world.delivered(i, item) for i in indexes), limit_ms)


def is_of(message: Message, *kinds: type) -> bool:
    return isinstance(message, kinds)


# --- in good times ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [(4, 5), (5, 4), (4, 7), (7, 4), (6, 5), (5, 6)],
)
def test_next_committee_goes_on_where_the_last_one_ended(before: int, after: int) -> None:
    world = World(before, spare=max(after - before, 0))
    world.start()
    world.run(500)
    members = tuple(range(after))
    world.elect(1, members)
    world.run_until(in_epoch(world, 2, *members), 2000)
    took = all_deliver(world, 2, 1500, *members)
    assert took <= 1000


def test_epoch_changes_without_a_failed_round_or_a_pause() -> None:
    world = World(4, spare=1)
    world.start()
    world.run(500)
    world.elect(1, (0, 1, 2, 3, 4))
    took = world.run_until(in_epoch(world, 2, 0, 1, 2, 3, 4), 2000)
    assert took <= 300
    assert all_deliver(world, 2, 1000, 0, 1, 2, 3) <= 300


def test_whole_committee_can_be_replaced() -> None:
    world = World(4, spare=4)
    world.start()
    world.run(500)
    world.elect(1, (4, 5, 6, 7))
    world.run_until(in_epoch(world, 2, 4, 5, 6, 7), 5000)
    all_deliver(world, 2, 2000, 4, 5, 6, 7)


def test_order_of_the_committee_may_change() -> None:
    world = World(4)
    world.start()
    world.run(500)
    world.elect(1, (3, 1, 0, 2))
    world.run_until(in_epoch(world, 2, 0, 1, 2, 3), 2000)
    all_deliver(world, 2, 2000, 0, 1, 2, 3)


def test_many_epochs_in_a_row() -> None:
    world = World(4, spare=3)
    world.start()
    for epoch, size in enumerate((5, 6, 7, 6, 5, 4), start=2):
        world.elect(epoch, tuple(range(size)))
        world.run_until(in_epoch(world, epoch, *range(size)), 5000)
    all_deliver(world, 100, 2000, 0, 1, 2, 3)
    ends = [b.epoch for b, c in world.nodes[0].disk.delivered if c is not None and ends_with(b, c)]
    assert ends == [1, 2, 3, 4, 5, 6]


def test_removed_node_follows_but_signs_nothing() -> None:
    world = World(5)
    world.start()
    world.run(500)
    world.elect(1, (0, 1, 2, 3))
    world.run_until(in_epoch(world, 2, 0, 1, 2, 3, 4), 2000)
    world.sent_log.clear()
    all_deliver(world, 2, 2000, 0, 1, 2, 3, 4)
    assert not [m for index, _, m in world.sent_log if index == 4 and not is_of(m, Certificates)]


# --- an epoch's end -----------------------------------------------------------------------------


def descendants_of_the_end(world: World, index: int) -> list[Proposal]:
    """Proposals of this node in the first epoch, made after it executed the ending block."""
    node = world.nodes[index]
    height = next(b.height for b, c in node.disk.delivered if c is not None and ends_with(b, c))
    return [
        m
        for i, _, m in world.sent_log
        if i == index and isinstance(m, Proposal) and m.block.epoch == 1 and m.block.height > height
    ]


def without_commit_votes(_from: int, _to: int, message: Message) -> int | None:
    return None if isinstance(message, CommitVote) else 10


def test_what_extends_the_end_is_empty_ordered_and_never_executed_or_signed() -> None:
    world = World(4, spare=1, delay=without_commit_votes)
    world.start()
    world.elect(1, (0, 1, 2, 3, 4))
    world.run(1000)
    for number in range(2, 20):
        world.submit(batch(number))
    world.run(20_000)
    node = world.nodes[0]
    assert node.replica is not None
    ending = node.roots[-1][0]
    assert node.results[ending] is not None
    made = [m.block for _, _, m in world.sent_log if isinstance(m, Proposal)]
    end = next(block for block in made if block.id == ending)
    beyond = [block for block in made if block.height > end.height]
    assert len(beyond) > 10
    assert not [block for block in beyond if block.payload]
    signed = [m.statement for _, _, m in world.sent_log if isinstance(m, CommitVote)]
    assert max(statement.height for statement in signed) == end.height
    assert not [m for _, _, m in world.sent_log if epoch_of(m) > 1]
    world.delay = lambda *_: 10  # the votes are sent again until they are counted
    world.run_until(in_epoch(world, 2, 0, 1, 2, 3, 4), 3000)
    assert world.nodes[0].disk.delivered[-1][0].id == ending
    everything = [batch(number) for number in range(2, 20)]
    world.run_until(lambda: all(world.delivered(4, item) for item in everything), 5000)


def test_payload_ordered_behind_the_end_returns_to_the_pool_and_is_delivered_once() -> None:
    slow = World(4, execute_ms=200)
    slow.start()
    slow.run(500)
    slow.elect(1, (3, 2, 1, 0))
    for number in range(2, 6):
        slow.run(30)
        slow.submit(batch(number))
    slow.run_until(in_epoch(slow, 2, 0, 1, 2, 3), 10_000)
    orphaned = {
        item.digest
        for _, _, m in slow.sent_log
        if isinstance(m, Proposal) and m.block.epoch == 1
        for item in m.block.payload
    }
    delivered = [b for b, _ in slow.nodes[0].disk.delivered]
    early = {item.digest for block in delivered if block.epoch == 1 for item in block.payload}
    assert orphaned - early, "no payload was ordered behind the end: the test shows nothing"
    everything = [batch(number) for number in range(2, 6)]
    slow.run_until(lambda: all(slow.delivered(0, item) for item in everything), 10_000)
    items = [item.digest for block, _ in slow.nodes[0].disk.delivered for item in block.payload]
    assert len(items) == len(set(items))


def test_old_epoch_ends_though_its_last_votes_were_lost_and_all_crashed() -> None:
    world = World(4, spare=1, delay=without_commit_votes, sync_ms=5)
    world.start()
    world.elect(1, (0, 1, 2, 3, 4))
    world.run(3000)
    world.crash()
    world.delay = lambda *_: 10
    world.run(100)
    world.start()
    world.run_until(in_epoch(world, 2, 0, 1, 2, 3, 4), 5000)
    all_deliver(world, 2, 3000, 0, 1, 2, 3, 4)


# --- those who were away ------------------------------------------------------------------------


class Cut:
    """Links to and from some nodes are down."""

    def __init__(self, *indexes: int) -> None:
        self.indexes = set(indexes)

    def __call__(self, sender: int, receiver: int, _message: Message) -> int | None:
        return None if (sender in self.indexes) != (receiver in self.indexes) else 10


@pytest.mark.parametrize("size", [4, 5, 6, 7])
def test_those_cut_off_at_the_boundary_come_back(size: int) -> None:
    """f + 1 nodes are away when the ending block is certified, or the last votes for it are lost.

    So nobody can go on until they are back; and then all do.
    """
    faulty_max = (size - 1) // 3
    cut = Cut()
    world = World(size, spare=1, delay=cut)
    world.start()
    world.run(500)
    away = tuple(range(faulty_max + 1))
    world.elect(1, tuple(range(size + 1)))
    world.run(35)  # proposed, not certified
    cut.indexes = set(away)
    world.run(10_000)
    cut.indexes = set()
    everybody = tuple(range(size + 1))
    world.run_until(in_epoch(world, 2, *everybody), 8000)
    all_deliver(world, 2, 5000, *everybody)


@pytest.mark.parametrize("size", [4, 7])
def test_faulty_many_may_be_away_over_many_epochs(size: int) -> None:
    faulty_max = (size - 1) // 3
    cut = Cut(*range(size - faulty_max, size))
    world = World(size, delay=cut)
    world.start()
    there = tuple(range(size - faulty_max))
    members = tuple(range(size))
    for epoch in range(2, 7):
        members = (*members[1:], members[0])
        world.elect(epoch, members, *there)
        world.run_until(in_epoch(world, epoch, *there), 20_000)
        world.run(2000)
    cut.indexes = set()
    world.run_until(in_epoch(world, 6, *range(size)), 10_000)
    all_deliver(world, 100, 5000, *range(size))


def test_newcomer_follows_five_epochs_from_genesis_though_the_first_members_are_gone() -> None:
    world = World(4, spare=5)
    world.start(0, 1, 2, 3, 4, 5, 6, 7)
    for epoch, first in enumerate(range(1, 5), start=2):
        members = tuple(range(first, first + 4))
        world.elect(epoch, members)
        world.run_until(in_epoch(world, epoch, *members), 10_000)
        world.run(500)
    world.elect(6, (4, 5, 6, 7, 8))
    world.run(2000)
    world.crash(0, 1, 2, 3)
    world.start(8)
    world.run_until(in_epoch(world, 6, 8), 20_000)
    all_deliver(world, 100, 5000, 4, 5, 6, 7, 8)
    assert [m for index, _, m in world.sent_log if index == 8 and is_of(m, Vote)]


def test_message_of_an_older_epoch_is_answered_with_what_ended_it_not_in_a_storm() -> None:
    cut = Cut(3)
    world = World(4, delay=cut)
    world.start()
    world.run(500)
    world.elect(1, (0, 1, 2, 3), 0, 1, 2)
    world.run_until(in_epoch(world, 2, 0, 1, 2), 2000)
    world.run(5000)
    world.sent_log.clear()
    node = world.nodes[0]
    for _ in range(100):
        world.step(node, ev.OtherEpoch(3, 1))
    told = [m for index, to, m in world.sent_log if (index, to) == (0, 3)]
    certificate = next(c for b, c in node.disk.delivered if c is not None and ends_with(b, c))
    assert told == [Certificates(1, None, None, certificate)]


def test_peer_of_a_later_epoch_is_told_where_we_are() -> None:
    world = World(4)
    world.start()
    world.run(500)
    world.sent_log.clear()
    node = world.nodes[0]
    for _ in range(100):
        world.step(node, ev.OtherEpoch(3, 9))
    told = [m for index, to, m in world.sent_log if (index, to) == (0, 3)]
    assert len(told) == 1
    assert isinstance(told[0], Certificates)
    assert told[0].epoch == 1


# --- crashes at the boundary --------------------------------------------------------------------


@pytest.mark.parametrize("victims", [(0,), (1, 2)])
def test_crash_before_every_effect_of_the_boundary_loses_nothing(victims: tuple[int, ...]) -> None:
    """One node, or f + 1, stop before the n-th effect from the election on, and start again."""
    for effects in itertools.count():
        world = World(4, spare=1, sync_ms=3)
        world.start()
        world.run(500)
        world.elect(1, (0, 1, 2, 3, 4))
        for index in victims:
            world.nodes[index].effects_left = effects
        world.run(400)
        untouched = all(world.nodes[index].replica is not None for index in victims)
        dead = [index for index in victims if world.nodes[index].replica is None]
        for index in victims:
            world.nodes[index].effects_left = None
        if dead:
            world.start(*dead)
        world.run_until(in_epoch(world, 2, 0, 1, 2, 3, 4), 10_000)
        all_deliver(world, 2, 8000, 0, 1, 2, 3, 4)
        if untouched:
            assert effects > 20
            return


def test_all_crash_at_every_moment_of_the_boundary() -> None:
    for after_ms in range(0, 150, 7):
        world = World(4, spare=1, sync_ms=5)
        world.start()
        world.run(500)
        world.elect(1, (0, 1, 2, 3, 4))
        world.run(after_ms)
        world.crash()
        world.start()
        world.elect(1, (0, 1, 2, 3, 4))
        world.run_until(in_epoch(world, 2, 0, 1, 2, 3, 4), 10_000)
        all_deliver(world, 2, 8000, 0, 1, 2, 3, 4)
