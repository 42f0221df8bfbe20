"""A signer that goes and comes: what is asked again, what stays promised, and that rounds go on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from consensus.hotstuff import events as ev
from consensus.hotstuff.events import Sign
from consensus.hotstuff.safety import Refused, Safety
from consensus.hotstuff.types import SignKind, first_record, timeout_body, vote_body

from . import builders as make
from .driver import CHAIN, Node, sign
from .test_network import MINUTE_MS, World, batch
from .test_safety import B1, B2, QC1, QC2, enter, rule, safety, signed


def entered(*certificates: object) -> Safety:
    key = safety()
    for certificate in certificates:
        enter(key, certificate)  # type: ignore[arg-type]
    return key


def test_while_the_signer_is_away_nothing_is_asked_for() -> None:
    key = entered(QC1)
    key.leave()
    for request in (key.vote(B2), key.timeout(), key.commit_vote(make.statement(B1), None)):
        assert rule(request) == "whoever signs is away"
    assert key.come_back([]) == []
    assert isinstance(key.vote(B2), Sign)


def test_while_the_signer_is_away_its_leader_proposes_nothing() -> None:
    key = safety(own=make.COMMITTEE.leader(1))
    key.leave()
    assert rule(key.propose(B1)) == "whoever signs is away"
    key.come_back([])
    assert isinstance(key.propose(B1), Sign)


def test_what_was_asked_for_is_asked_again_word_for_word_in_its_order() -> None:
    key = entered(QC1)
    first, second = key.commit_vote(make.statement(B1), None), key.vote(B2)
    assert (key.pending, isinstance(first, Sign)) == (2, True)
    key.leave()
    assert key.pending == 0, "nothing waits for it"
    assert key.come_back([]) == [first, second]
    assert signed(key, first).body == make.statement(B1).encoded
    assert signed(key, second).round == 2


def test_a_request_of_a_round_that_is_over_is_not_asked_again_and_stays_promised() -> None:
    key = entered(QC1)
    assert isinstance(key.vote(B2), Sign)
    key.leave()
    enter(key, QC2)
    assert key.come_back([]) == []
    assert key.voted_round == 2


def test_a_vote_that_only_the_signer_knows_of_is_promised() -> None:
    key = entered(QC1)
    key.leave()
    key.come_back([(SignKind.VOTE, 2, vote_body(1, 2, b"x" * 32, 2))])
    assert rule(key.vote(B2)) == "voted in this round already"
    assert isinstance(key.timeout(), Sign)


def test_a_timeout_that_only_the_signer_knows_of_is_asked_for_again_word_for_word() -> None:
    key = entered(QC1)
    key.leave()
    key.come_back([(SignKind.TIMEOUT, 2, timeout_body(1, 2, 1))])
    assert rule(key.vote(B2)) == "voted in this round already"
    again = key.timeout()
    assert isinstance(again, Sign)
    assert again.body == timeout_body(1, 2, 1)
    signed(key, again)
    assert key.record().signed_timeouts == ((2, 1),)
    assert rule(key.timeout()) == "this round was given up already"


def test_its_certificate_may_be_the_recorded_one_where_a_higher_is_known_by_now() -> None:
    """The record is durable before a timeout is asked for, so that its certificate is there."""
    entry = make.timeout_cert(3, QC1)
    record = replace(first_record(make.GENESIS), high_qc=QC1, entry_cert=entry)
    key = safety(record)
    key.leave()
    key.learn_quorum(QC2)
    key.come_back([(SignKind.TIMEOUT, 4, timeout_body(1, 4, 1))])
    again = key.timeout()
    assert isinstance(again, Sign)
    assert again.body == timeout_body(1, 4, 1)


def test_a_timeout_with_an_unknown_certificate_is_not_signed_a_second_time() -> None:
    key = entered(make.timeout_cert(3, QC1))
    key.leave()
    key.come_back([(SignKind.TIMEOUT, 4, timeout_body(1, 4, 3))])
    assert "given up already" in rule(key.timeout())
    below = entered(QC1)
    below.leave()
    below.come_back([(SignKind.TIMEOUT, 9, timeout_body(1, 9, 1))])
    assert rule(below.timeout()) == "below the last voted round"


def test_no_timeout_reports_less_than_a_commit_vote_that_only_the_signer_knows_of() -> None:
    """Rule 4: whoever commit-voted in round r reports a certificate of r or later from then on."""
    statement = make.statement(B2)
    key = entered(QC1)
    key.leave()
    key.come_back([(SignKind.COMMIT_VOTE, 2, statement.encoded)])
    assert rule(key.timeout()) == "a certificate that was commit-voted on is not known here"
    enter(key, QC2)
    assert isinstance(key.timeout(), Sign)


def test_a_round_that_began_by_an_unknown_certificate_is_not_given_up_a_second_time() -> None:
    key = safety(replace(first_record(make.GENESIS), high_qc=QC1))
    key.leave()
    enter(key, make.quorum_cert(make.chain(1, 2, 3)[-1]))
    key.come_back([(SignKind.TIMEOUT, 4, timeout_body(1, 4, 1))])
    said = "given up already, before it was known how the round began"
    assert rule(key.timeout()) == said


def test_such_a_commit_vote_counts_until_it_is_settled() -> None:
    key = entered(QC1)
    key.leave()
    key.come_back([(SignKind.COMMIT_VOTE, 2, make.statement(B2).encoded)])
    key.learn_commit(make.commit_cert(make.statement(B1)))
    assert rule(key.timeout()) == "a certificate that was commit-voted on is not known here"
    key.learn_commit(make.commit_cert(make.statement(B2)))
    assert isinstance(key.timeout(), Sign)


def test_such_a_commit_vote_counts_no_more_once_it_is_settled() -> None:
    key = entered(QC1)
    key.learn_commit(make.commit_cert(make.statement(B2)))
    key.leave()
    key.come_back([(SignKind.COMMIT_VOTE, 2, make.statement(B2).encoded)])
    assert isinstance(key.timeout(), Sign)


def test_such_a_commit_vote_is_asked_for_again_word_for_word_and_no_other() -> None:
    statement = make.statement(B2)
    key = entered(QC1, QC2)
    key.leave()
    key.come_back([(SignKind.COMMIT_VOTE, 2, statement.encoded)])
    other = make.statement(B2, bytes([1]) * 32)
    assert rule(key.commit_vote(other, None)) == "commit-voted in this round already"
    again = key.commit_vote(statement, None)
    assert isinstance(again, Sign)
    assert again.body == statement.encoded
    assert isinstance(key.commit_vote(statement, None), Refused)


def test_a_timeout_signed_elsewhere_guards_commit_votes() -> None:
    """Rule 4: after a timeout of round 5 that reports 1, no commit vote for round 2."""
    key = entered(QC1, QC2)
    key.leave()
    key.come_back([(SignKind.TIMEOUT, 5, timeout_body(1, 5, 1))])
    assert isinstance(key.commit_vote(make.statement(B2), None), Refused)


def test_only_a_proposal_carries_its_block_and_only_a_timeout_its_record() -> None:
    key = entered(QC1)
    vote, timeout = key.vote(B2), key.timeout()
    assert isinstance(vote, Sign)
    assert isinstance(timeout, Sign)
    assert (vote.block, vote.record, timeout.block) == (None, b"", None)
    assert timeout.record
    led = make.block()
    leader = Safety(CHAIN, make.COMMITTEE, make.COMMITTEE.leader(1), first_record(make.GENESIS))
    request = leader.propose(led)
    assert isinstance(request, Sign)
    assert request.block is led


# --- whole networks -------------------------------------------------------------------------------


class Flaky(World):
    """Signers with a memory of their own that go in the midst of a request, and come back.

    Half of those that go have signed: their answer is lost. None ever signs twice for a slot, nor
    below its last one, but a commit vote under the two-chain or one that it knows: it would halt.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.away: set[int] = set()
        self.rate = 0.0
        self.lost_answers = 0
        self.signers: dict[int, dict[tuple[SignKind, int], bytes]] = {i: {} for i in range(4)}

    def last(self, index: int) -> dict[SignKind, tuple[int, bytes]]:
        found: dict[SignKind, tuple[int, bytes]] = {}
        for (kind, round_), body in sorted(self.signers[index].items()):
            found[kind] = round_, body
        return found

    def remember(self, index: int, asked: ev.Sign) -> bytes:
        """What ``node.signer`` would say, written down a second time."""
        known, last = self.signers[index], self.last(index).get(asked.kind, (0, b""))
        before = known.get((asked.kind, asked.round))
        if before is not None:
            assert before == asked.body, "two bodies for a slot"
            newest = asked.round == last[0] or asked.kind is SignKind.COMMIT_VOTE
            assert newest, "below the last one"
        else:
            below = asked.kind is SignKind.COMMIT_VOTE and asked.two_chain
            assert asked.round > last[0] or below, "below the last one"
        known[asked.kind, asked.round] = asked.body
        return sign(index, asked.kind, asked.body)

    def go(self, node: Node) -> None:
        self.away.add(node.index)

        def back(life: int = node.life) -> None:
            if node.life == life and node.replica is not None:
                self.away.discard(node.index)
                told = [(kind, *rest) for kind, rest in self.last(node.index).items()]
                self.step(node, ev.SignerBack(tuple(told)))

        self.at(self.now_ms + self.random.choice((0, 3, 40, 400, 2500)), back)

    def step(self, node: Node, event: ev.Event) -> None:
        if isinstance(event, ev.Started):
            assert node.replica is not None
            assert node.replica.step(ev.SignerAway(), self.now_ms) == []
            self.go(node)
        events = [event]
        while events and node.replica is not None:
            gone = False
            for effect in node.replica.step(events.pop(0), self.now_ms):
                if node.effects_left is not None:
                    node.effects_left -= 1
                    if node.effects_left < 0:
                        self.crash(node.index)
                        return
                if not isinstance(effect, ev.Sign):
                    self._obey(node, effect)
                    continue
                assert node.index not in self.away, "asked while the signer is away"
                if gone or self.random.random() < self.rate:
                    if not gone and self.random.random() < 0.5:
                        self.lost_answers += 1
                        self.remember(node.index, effect)
                    gone = True
                else:
                    signature = self.remember(node.index, effect)
                    events.append(ev.Signed(effect.kind, effect.body, signature))
            if gone:
                self.go(node)
                events.append(ev.SignerAway())
        self._drain(node)


@pytest.mark.parametrize("seed", range(3))
def test_networks_whose_signers_go_and_nodes_crash_keep_every_promise_and_go_on(seed: int) -> None:
    """``Network`` watches the promises; here also that a signer never has to refuse."""
    world = Flaky(seed=seed, sync_ms=2, execute_ms=2)
    world.start()
    world.rate = 0.05
    crashes = 0
    for number in range(60):
        world.submit(batch(number, origin=number % 4))
        world.run(world.random.choice((5, 50, 700)))
        if world.random.random() < 0.3:
            victim = world.random.randrange(4)
            world.nodes[victim].effects_left = world.random.randrange(60)
        for node in world.nodes:
            if node.replica is None:
                crashes += 1
                world.start(node.index)
    world.rate = 0.0
    for node in world.nodes:
        node.effects_left = None
        if node.replica is None:
            world.start(node.index)
    world.run(20_000)
    last = batch(60)
    world.submit(last)
    world.run_until(lambda: all(world.delivered(i, last) for i in range(4)), 30_000)
    assert not world.away
    assert world.lost_answers > 0
    assert crashes > 3


def test_with_f_plus_one_signers_away_nothing_is_certified_and_all_is_when_they_are_back() -> None:
    world = Flaky()
    world.start()
    world.run(3000)
    for index in (1, 2):
        world.step(world.nodes[index], ev.SignerAway())
        world.away.add(index)
    item = batch(1)
    world.submit(item)
    world.run(10 * MINUTE_MS)
    assert not any(world.delivered(i, item) for i in range(4))
    for index in (1, 2):
        world.away.discard(index)
        told = [(kind, *rest) for kind, rest in world.last(index).items()]
        world.step(world.nodes[index], ev.SignerBack(tuple(told)))
    assert world.run_until(lambda: all(world.delivered(i, item) for i in range(4)), 30_000) < 10_000


def test_with_f_signers_away_the_others_go_on_and_the_node_follows() -> None:
    world = Flaky()
    world.start()
    world.run(3000)
    world.step(world.nodes[2], ev.SignerAway())
    world.away.add(2)
    for number in range(5):
        item = batch(number)
        world.submit(item, 0, 1, 2, 3)
        world.run_until(lambda item=item: all(world.delivered(i, item) for i in range(4)), 10_000)


def test_a_signer_that_comes_back_signs_at_once_what_was_executed_without_it() -> None:
    """One node is down and leads the round: without these commit votes the next block must come.

    All three others are needed. They order what leaders before it proposed while the first block is
    still being executed; then one signer goes until all is executed.
    """
    world = Flaky(execute_ms=700, config=ev.ReplicaConfig(CHAIN, timeout_base_ms=3000))
    world.start()
    world.crash(0)
    item = batch(1)
    world.submit(item)
    up = world.nodes[1:]
    world.run_until(lambda: all(n.replica and n.replica.ordered_height == 3 for n in up), 1000)
    world.step(world.nodes[1], ev.SignerAway())
    world.away.add(1)
    world.run(2000)
    assert {node.replica and node.replica.round for node in up} == {4}
    assert not any(world.delivered(node.index, item) for node in up)
    world.away.discard(1)
    told = [(kind, *rest) for kind, rest in world.last(1).items()]
    world.step(world.nodes[1], ev.SignerBack(tuple(told)))
    assert world.run_until(lambda: all(world.delivered(n.index, item) for n in up), 5000) == 10
