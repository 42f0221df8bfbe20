"""What one replica holds for others at most: each limit of docs/limits.md is reached here."""

from __future__ import annotations

from consensus.hotstuff import events as ev
from consensus.hotstuff.announcing import ANNOUNCED_MAX, Announcer
from consensus.hotstuff.epochs import PEERS_MAX
from consensus.hotstuff.fetching import GUESTS_MAX, Fetcher, Target
from consensus.hotstuff.replica import ORPHANS_MAX
from consensus.hotstuff.rounds import PROPOSALS_MAX
from consensus.hotstuff.types import Block, BlocksRequest, Proposal

from . import builders as make
from .bench import Bench
from .driver import CHAIN
from .test_fetching import CONFIG, tree

SIZE = 4


def unlinked(count: int) -> list[Proposal]:
    """Proposals of rising rounds, of whose parents a replica has none."""
    found: list[Proposal] = []
    high = make.quorum_cert(make.block(make.quorum_cert(make.block())))
    for _ in range(count):
        parent: Block = make.block(high)
        found.append(make.proposal(make.block(make.quorum_cert(parent))))
        high = make.quorum_cert(make.block(make.quorum_cert(parent)))
    return found


def test_proposals_without_their_parents_are_bounded_and_the_lowest_round_goes() -> None:
    bench = Bench()
    said = unlinked(ORPHANS_MAX + 3)
    for each in said:
        bench.receive(each, make.COMMITTEE.leader(each.block.round))
    kept = [each.block.round for each in bench.replica._orphans.values()]
    assert kept == [each.block.round for each in said[3:]]


def test_rounds_whose_first_proposal_is_remembered_are_bounded_and_the_lowest_goes() -> None:
    bench = Bench()
    said = unlinked(PROPOSALS_MAX + 3)
    for each in said:
        bench.receive(each, make.COMMITTEE.leader(each.block.round))
    assert list(bench.replica._rounds._proposals) == [each.block.round for each in said[3:]]


def test_peers_without_a_vote_that_are_asked_for_blocks_are_bounded_and_the_oldest_goes() -> None:
    made = Fetcher(CONFIG, epoch=1, own=0, size=SIZE)
    for guest in range(SIZE, SIZE + GUESTS_MAX + 5):
        made.welcome(guest)
    made.look(Target(b"f" * 32, 900), 0)
    asked: list[int] = []
    for turn in range(1 + (SIZE - 1) + GUESTS_MAX):
        effect = made.ask(tree(), 20 + turn * 1000)
        assert effect is not None
        assert isinstance(effect.request, BlocksRequest)
        asked += effect.peers
    assert len({*asked}) == SIZE - 1 + GUESTS_MAX
    assert {*range(1, SIZE)} <= {*asked}
    assert not {*asked} & {*range(SIZE, SIZE + 5)}


def test_digests_of_one_announcement_are_bounded_and_the_others_follow() -> None:
    it = Announcer(SIZE)
    for number in range(1, ANNOUNCED_MAX + 8):
        it.held(number.to_bytes(32, "big"), 1, number, 0)
    told = []
    for now_ms in (50, 100):
        told += it.announcements(now_ms, (2,), lambda _digest: True)
    assert [len(digests) for _, digests in told] == [ANNOUNCED_MAX, 7]
    assert len({*told[0][1], *told[1][1]}) == ANNOUNCED_MAX + 7


def test_blocks_that_are_not_delivered_are_bounded_by_the_configuration() -> None:
    bench = Bench(config=ev.ReplicaConfig(CHAIN, tree_blocks_max=3))
    blocks = make.chain(1, 2, 3, 4, 5)
    for block in blocks:
        bench.receive(make.proposal(block), make.COMMITTEE.leader(block.round))
    assert [bench.replica._tree.get(block.id) is not None for block in blocks] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_block_that_waited_for_its_parent_is_not_taken_into_a_tree_that_this_one_fills() -> None:
    bench = Bench(config=ev.ReplicaConfig(CHAIN, tree_blocks_max=1))
    first, second = make.chain(1, 2)
    for block in (second, first):
        bench.receive(make.proposal(block), make.COMMITTEE.leader(block.round))
    tree_ = bench.replica._tree
    assert [tree_.get(each.id) is not None for each in (first, second)] == [True, False]
    assert list(bench.replica._orphans) == [second.id]


def test_peers_of_other_epochs_that_were_answered_are_bounded_and_the_oldest_goes() -> None:
    bench = Bench()
    for peer in range(PEERS_MAX + 1):
        bench.feed(ev.OtherEpoch(peer, 9))
        assert len(bench.told(peer)) == 1
    for peer, answers in ((PEERS_MAX, 0), (1, 0), (0, 1)):
        bench.feed(ev.OtherEpoch(peer, 9))
        assert len(bench.told(peer)) == answers
