"""Asking for missing blocks: what, whom, when; and whose answers count."""

from __future__ import annotations

from consensus.hotstuff import events as ev
from consensus.hotstuff.blocktree import BlockTree
from consensus.hotstuff.fetching import NEAR_MAX, Fetcher, Target
from consensus.hotstuff.types import Block, BlocksRequest, BlocksResponse, Certificates

from . import builders as make
from .bench import Bench, result_statement
from .driver import CHAIN, batch

CONFIG = ev.ReplicaConfig(CHAIN)
FAR = Target(b"f" * 32, 900)


def tree(*rounds: int) -> BlockTree:
    grown = BlockTree(1, make.GENESIS, make.GENESIS_QC, 2000)
    for block in make.chain(*rounds):
        node = grown.insert(block, 0)
        assert node is not None
        grown.order(node, make.quorum_cert(block))
    return grown


def fetcher() -> Fetcher:
    return Fetcher(CONFIG, epoch=1, own=0, size=4)


def test_near_block_is_asked_for_by_id_of_two_peers_after_a_short_wait() -> None:
    made = fetcher()
    made.look(Target(b"n" * 32, NEAR_MAX), 100)
    assert made.due_ms == 120
    assert made.ask(tree(), 119) is None
    request = BlocksRequest(1, 1, b"n" * 32, NEAR_MAX)
    assert made.ask(tree(), 120) == ev.FetchBlocks(request, (1, 2))


def test_far_block_is_approached_by_pages_from_the_ordered_tip() -> None:
    made = fetcher()
    made.look(FAR, 0)
    page = BlocksRequest(1, 4, None, 32)
    assert made.ask(tree(1, 2, 3), 20) == ev.FetchBlocks(page, (1,))


def test_unanswered_request_goes_to_the_next_peers_at_intervals() -> None:
    made = fetcher()
    made.look(FAR, 0)
    asked = []
    for now_ms in (20, 269, 270, 520, 770):
        effect = made.ask(tree(), now_ms)
        asked.append(None if effect is None else effect.peers)
    assert asked == [(1,), None, (2,), (3,), (1,)]


def test_peer_that_showed_the_certificate_is_asked_first() -> None:
    made = fetcher()
    made.prefer(3)
    made.prefer(0)  # itself: no effect
    made.look(Target(b"n" * 32, 1), 0)
    effect = made.ask(tree(), 20)
    assert effect is not None
    assert effect.peers == (3, 1)


def test_answer_with_news_is_followed_by_the_next_request_at_once() -> None:
    made = fetcher()
    made.look(FAR, 0)
    made.ask(tree(), 20)
    made.answered(1, 30, linked=True, fresh=True)
    effect = made.ask(tree(1), 30)
    assert effect == ev.FetchBlocks(BlocksRequest(1, 2, None, 32), (1,))
    made.answered(1, 40, linked=True, fresh=False)
    assert made.ask(tree(1), 40) is None


def test_answer_that_does_not_link_makes_us_start_from_the_root() -> None:
    made = fetcher()
    made.look(FAR, 0)
    made.ask(tree(1, 2), 20)
    made.answered(1, 30, linked=False, fresh=False)
    made.look(Target(b"g" * 32, 901), 40)
    effect = made.ask(tree(1, 2), 270)
    assert effect == ev.FetchBlocks(BlocksRequest(1, 1, None, 32), (2,))


def test_target_below_the_ordered_tip_is_on_another_branch() -> None:
    made = fetcher()
    made.look(Target(b"s" * 32, 2), 0)
    effect = made.ask(tree(1, 2, 3), 20)
    assert effect is not None
    assert effect.request == BlocksRequest(1, 1, b"s" * 32, 2)


def test_no_pages_are_asked_for_while_execution_is_far_behind() -> None:
    made = Fetcher(ev.ReplicaConfig(CHAIN, fetch_ahead_max=2), 1, 0, 4)
    made.look(FAR, 0)
    assert made.ask(tree(1, 2, 3), 20) is None
    assert made.ask(tree(1, 2), 20) is not None


def test_nothing_missing_means_nothing_due() -> None:
    made = fetcher()
    assert made.due_ms is None
    made.look(FAR, 0)
    made.look(None, 5)
    assert made.due_ms is None
    assert made.ask(tree(), 500) is None


def test_only_peers_that_were_asked_may_answer_and_each_once() -> None:
    made = fetcher()
    made.look(Target(b"n" * 32, 1), 0)
    made.ask(tree(), 20)
    assert not made.expects(3)
    assert made.expects(1)
    assert not made.expects(1)
    assert made.expects(2)


# --- through a replica --------------------------------------------------------------------------


def asking(*rounds: int) -> tuple[Bench, list[Block]]:
    """A replica that knows the certificate of the last of these rounds and has asked for it."""
    blocks = make.chain(*rounds)
    bench = Bench()
    shown = Certificates(1, make.quorum_cert(blocks[-1]), None, None)
    bench.receive(shown, 3)
    bench.fire(ev.Timer.FETCH, after_ms=20)
    assert len(bench.of(ev.FetchBlocks)) == 1
    return bench, blocks


def answer(bench: Bench, peer: int, response: BlocksResponse) -> None:
    bench.feed(ev.BlocksFetched(peer, bench.verifier.verify(response, peer)))


def test_blocks_named_by_a_certificate_in_hand_need_no_other_proof() -> None:
    bench, blocks = asking(1, 2)
    answer(bench, 3, BlocksResponse(tuple(blocks), None))
    assert bench.replica.ordered_height == 2
    assert bench.of(ev.CancelTimer) == [ev.CancelTimer(ev.Timer.FETCH)]


def test_lesson_15_blocks_that_nothing_certifies_are_not_taken() -> None:
    bench, blocks = asking(1, 2)
    answer(bench, 3, BlocksResponse((blocks[0],), None))
    assert bench.replica.ordered_height == 0


def test_blocks_nobody_asked_for_are_not_taken() -> None:
    bench = Bench()
    blocks = make.chain(1, 2)
    answer(bench, 3, BlocksResponse(tuple(blocks), make.quorum_cert(blocks[-1])))
    assert bench.replica.ordered_height == 0


def test_page_proved_by_a_commit_certificate_is_delivered_after_execution() -> None:
    bench, blocks = asking(*range(1, 30))
    proof = make.commit_cert(result_statement(blocks[1]))
    answer(bench, 3, BlocksResponse((blocks[0], blocks[1]), proof))
    assert bench.of(ev.Execute) == [ev.Execute(blocks[0])]
    bench.executed(blocks[0])
    assert bench.of(ev.Deliver) == []
    bench.executed(blocks[1])
    assert [effect.block for effect in bench.of(ev.Deliver)] == blocks[:2]


def test_page_that_does_not_link_changes_nothing_but_where_to_begin() -> None:
    bench, blocks = asking(*range(1, 30))
    page = BlocksResponse(tuple(blocks[9:12]), make.quorum_cert(blocks[11]))
    answer(bench, 3, page)
    assert bench.replica.ordered_height == 0
    bench.fire(ev.Timer.FETCH, after_ms=250)
    (fetch,) = bench.of(ev.FetchBlocks)
    assert fetch.request == BlocksRequest(1, 1, None, 32)


def test_payloads_of_the_next_ordered_blocks_are_required_ahead_of_execution() -> None:
    bench, blocks = Bench(), []
    high = make.GENESIS_QC
    for number in range(20):
        blocks.append(make.block(high, payload=[batch(number)]))
        high = make.quorum_cert(blocks[-1])
    bench.receive(Certificates(1, high, None, None), 3)
    bench.fire(ev.Timer.FETCH, after_ms=20)
    answer(bench, 3, BlocksResponse(tuple(blocks), high))
    assert [effect.block for effect in bench.of(ev.RequirePayload)] == blocks[:8]
    assert bench.of(ev.Execute) == []
    bench.hold(blocks[0])
    assert bench.of(ev.Execute) == [ev.Execute(blocks[0])]
    bench.executed(blocks[0])
    assert [effect.block for effect in bench.of(ev.RequirePayload)] == [blocks[8]]
