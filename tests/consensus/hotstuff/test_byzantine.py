"""One validator of four lies to everybody in its own name; the other three stay one and go on.

The liar runs the real replica, so its lies are as near to the truth as can be: it signs variants
of what it would say, tells each peer another one, repeats old messages under new circumstances,
keeps silent, and hands on certificates with a signature moved. ``World`` watches the honest ones.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import pytest

from consensus.errors import DecodeError, VerificationError
from consensus.hotstuff import events as ev
from consensus.hotstuff import wire
from consensus.hotstuff.types import (
    BlocksResponse,
    Certificates,
    CommitVote,
    Message,
    Proposal,
    SignKind,
    Timeout,
    Vote,
)

from .driver import Node, World, batch, sign

LIAR = 3


class Lies(World):
    """A network whose last validator sends variants of what its replica says."""

    refused = 0

    def _send(self, node: Node, peer: int, message: Message) -> None:
        if node.index != LIAR:
            super()._send(node, peer, message)
            return
        said = [message]
        match self.random.randrange(8):
            case 0:
                said = []
            case 1 | 2 | 3:
                said = [self._variant(message)]
            case 4:
                said = [message, self._variant(message)]
            case 5:
                old = [m for _, to, m in self.sent_log[-400:] if to == peer]
                said = [self.random.choice(old) if old else message]
        self.sent_log.append((LIAR, peer, message))
        for each in said:
            self._deliver_later(peer, each)

    def _deliver_later(self, peer: int, message: Message) -> None:
        data = wire.encode_message(message)
        self.at(self.now_ms + self.random.randint(1, 80), lambda: self.receive(peer, LIAR, data))

    def receive(self, index: int, sender: int, data: bytes) -> None:
        try:
            super().receive(index, sender, data)
        except (DecodeError, VerificationError):
            assert sender == LIAR, "an honest message was refused"
            self.refused += 1

    def _variant(self, message: Message) -> Message:
        """Return another message that the liar can sign, or one with a certificate spoiled."""
        random = self.random
        match message:
            case Vote():
                vote = replace(
                    message,
                    block_id=random.choice([message.block_id, random.randbytes(32)]),
                    height=message.height + random.choice((0, 0, 1)),
                    round=message.round + random.choice((0, 0, 1, 11)),
                    held=(2**62,) * random.choice((0, 4)),
                )
                return replace(vote, signature=sign(LIAR, SignKind.VOTE, vote.body))
            case Timeout():
                high = message.high_round + random.choice((-1, 1))
                timeout = replace(message, high_round=max(high, 0))
                if random.random() < 0.5:
                    timeout = replace(message, round=message.round + 1)
                return replace(timeout, signature=sign(LIAR, SignKind.TIMEOUT, timeout.body))
            case Proposal(block):
                other = replace(
                    block,
                    time_ms=block.time_ms + random.choice((0, 1, 400, 10**9)),
                    payload=random.choice([(), (batch(random.randrange(50)),), block.payload]),
                )
                if random.random() < 0.2:
                    other = replace(other, timeout_cert=None, round=block.round)
                signature = sign(LIAR, SignKind.PROPOSAL, other.id)
                return replace(message, block=other, signature=signature)
            case CommitVote(statement):
                lie = replace(statement, state_root=random.randbytes(32))
                return CommitVote(lie, LIAR, sign(LIAR, SignKind.COMMIT_VOTE, lie.encode()))
            case Certificates(_, high, _, commit) if high is not None and high.signatures:
                first, *rest = high.signatures
                moved = replace(high, signatures=(*rest, first))
                forged = replace(high, round=high.round + 5)
                return replace(message, high_qc=random.choice([moved, forged]), commit_cert=commit)
            case BlocksResponse(blocks, certificate):
                return BlocksResponse(blocks[random.randrange(len(blocks)) :], certificate)
        return message


@lru_cache(maxsize=8)
def deceived(seed: int) -> Lies:
    """Return a network after forty seconds of lies, losses and a restart, with work all along."""
    world = Lies(4, seed=seed)
    world.delay = lambda *_: None if world.random.random() < 0.05 else world.random.randint(1, 60)
    world.start()
    for second in range(40):
        world.submit(batch(second))
        if second % 13 == 7:
            away = world.random.randrange(3)
            world.crash(away)
            world.run(1500)
            world.start(away)
        world.run(1000)
    world.delay = lambda *_: 10
    return world


@pytest.mark.parametrize("seed", range(5))
def test_three_honest_validators_stay_one_and_certify_work_beside_a_liar(seed: int) -> None:
    world = deceived(seed)
    before = min(world.height(index) for index in range(3))
    item = batch(9999)
    world.submit(item)
    took_ms = world.run_until(
        lambda: all(world.delivered(index, item) for index in range(3)), 60_000
    )
    assert took_ms < 20_000
    assert before > 5
    assert not any(world.nodes[index].halted for index in range(3))
    chains = [[block.id for block, _ in world.nodes[i].disk.delivered] for i in range(3)]
    shortest = min(map(len, chains))
    assert len({tuple(chain[:shortest]) for chain in chains}) == 1
    assert world.refused > 0


def test_lies_are_kept_as_evidence_against_the_liar_alone() -> None:
    kinds: set[ev.EvidenceKind] = set()
    for seed in range(3):
        world = deceived(seed)
        for index in range(3):
            for found in world.nodes[index].evidence:
                if found.kind is ev.EvidenceKind.RESULTS_DISAGREE:
                    continue
                kinds.add(found.kind)
                for message in (found.first, found.second):
                    if isinstance(message, Proposal):
                        assert world.committee.leader(message.block.round) == LIAR
                    else:
                        assert isinstance(message, Vote | Timeout | CommitVote)
                        assert message.validator == LIAR
                assert found.first != found.second
    assert {ev.EvidenceKind.TWO_VOTES, ev.EvidenceKind.TWO_COMMIT_VOTES} <= kinds
