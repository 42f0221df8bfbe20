"""Scenarios made for rules that chance seldom meets, and a leader that lies in one.

Places of a network of 4: 0, 1 and 2 are honest, 3 and 4 are the two sites of validator 3.
``mark`` names what shows that a script came to its point; unbroken replicas reach it and keep
every promise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from consensus.hotstuff.types import (
    Block,
    Message,
    Proposal,
    QuorumCert,
    SignKind,
    Timeout,
    TimeoutCert,
    genesis_cert,
)
from tests.byzantine.twins.field import Field, sign
from tests.byzantine.twins.scenario import Scenario, Turn

EVERYBODY = range(5)
PROPOSALS, VOTES, TIMEOUTS, COMMIT_VOTES = range(4)


@dataclass(frozen=True)
class Script:
    """A scenario, the mark by which it came to its point, and who lies in it."""

    scenario: Scenario
    mark: str
    liar: Callable[[], Callable[[Field, int, Message], None]] | None = None


def places(*chosen: int) -> int:
    """Return a set of places."""
    return sum(1 << place for place in chosen)


def cut(
    round_: int, kind: int, senders: Iterable[int], receivers: Iterable[int]
) -> frozenset[tuple[int, int, int, int]]:
    """Return the directions from each sender to each receiver."""
    return frozenset((round_, kind, a, b) for a in senders for b in receivers if a != b)


def led(*leaders: int) -> tuple[Turn, ...]:
    """Return rounds without splits."""
    return tuple(Turn(leader) for leader in leaders)


class Deceiver:
    """Validator 3, leader of the last round: proposes on the genesis block whatever was ordered.

    Args:
        proved: with the timeout certificate of the round before; else without.
    """

    def __init__(self, round_: int, *, proved: bool) -> None:
        self._round = round_
        self._proved = proved
        self._timeouts: dict[int, Timeout] = {}
        self._done = False

    def __call__(self, field: Field, place: int, message: Message) -> None:
        """Hear what a site says."""
        if isinstance(message, Timeout) and message.round == self._round - 1:
            self._timeouts[message.validator] = message
        if self._done or len(self._timeouts) < field.committee.quorum:
            return
        self._done = True
        heard = sorted(self._timeouts.values(), key=lambda timeout: timeout.validator)
        entries = tuple((t.validator, t.high_round, t.signature) for t in heard)
        highest = max(heard, key=lambda timeout: timeout.high_round).high_qc
        entry = TimeoutCert(1, self._round - 1, entries, highest)
        justify: QuorumCert = genesis_cert(field.genesis)
        block = Block(
            1,
            self._round,
            1,
            field.genesis.id,
            justify,
            entry if self._proved else None,
            field.now_ms,
            (),
            field.committee.hash,
        )
        lie = Proposal(block, sign(3, SignKind.PROPOSAL, block.id), None, None, None)
        field.later(lambda: [field.tell(3, place, lie) for place in range(3)])


SCRIPTS = {
    # All have voted in round 1 and no certificate came; 2 restarts, and so does the second leader,
    # which shows it the other block again.
    "a second proposal after a restart": Script(
        Scenario(
            4,
            led(3, 0),
            restarts=((1, 1, places(2, 4)),),
            cuts=cut(1, VOTES, EVERYBODY, EVERYBODY),
        ),
        "two proposals for one round",
    ),
    # Nobody leads round 1 until all gave it up; then 2 restarts, and the leader begins.
    "a proposal after a timeout and a restart": Script(
        Scenario(
            4,
            led(3, 0),
            restarts=((1, 1, places(2, 4)),),
            down=places(3, 4),
            cuts=cut(1, TIMEOUTS, EVERYBODY, EVERYBODY),
        ),
        "restart",
    ),
    # Validator 3 is away; all others gave round 1 up, and lose power before that is heard.
    "all restart after their timeouts": Script(
        Scenario(
            4,
            led(3, 0),
            restarts=((1, 1, places(0, 1, 2)),),
            down=places(3, 4),
            cuts=cut(1, TIMEOUTS, EVERYBODY, EVERYBODY),
        ),
        "restart",
    ),
    # 0 and 3 alone see round 1 ordered; the others give it up and go on from genesis.
    "ordered where two know": Script(
        Scenario(
            4,
            led(0, 1, 2, 1),
            cuts=cut(1, VOTES, EVERYBODY, (1, 2, 4))
            | cut(1, TIMEOUTS, (0, 3), (1, 2, 4))
            | cut(1, COMMIT_VOTES, EVERYBODY, (1, 2, 4))
            | frozenset().union(
                *(cut(r, kind, (0, 3), (1, 2, 4)) for r in (2, 3, 4) for kind in range(4))
            ),
        ),
        "ordered block abandoned",
    ),
    # 2 does not give round 1 up itself, learns of its certificate late, and then gives round 2 up.
    "a certificate that comes after the round": Script(
        Scenario(
            4,
            led(0, 0, 1),
            late=1,
            patient=places(2),
            cuts=cut(1, VOTES, EVERYBODY, EVERYBODY)
            | cut(1, TIMEOUTS, EVERYBODY, (2,))
            | cut(2, VOTES, EVERYBODY, EVERYBODY),
        ),
        "a message came rounds too late",
    ),
    # Round 1 is given up, its certificate comes late, round 2 is given up, round 3 is certified
    # upon round 1; then all lose power.
    "restart above a round that was given up": Script(
        Scenario(
            4,
            led(0, 3, 0, 3, 2),
            late=1,
            restarts=((4, 3, places(0, 1, 2)),),
            cuts=cut(1, VOTES, EVERYBODY, EVERYBODY)
            | cut(2, PROPOSALS, (3, 4), EVERYBODY)
            | cut(4, PROPOSALS, (3, 4), EVERYBODY)
            | cut(4, TIMEOUTS, EVERYBODY, EVERYBODY),
        ),
        "restart",
    ),
    # 0 alone sees round 1 ordered, 2 alone round 2 beside it; 2 hears nothing of rounds 3 and 4,
    # which go on upon round 1, and nobody has commit votes: when 2 executes round 1 at last, only
    # the two-chain of 3 and 4 can lift what its commit vote of round 2 forbids.
    "a branch that another one overtook": Script(
        Scenario(
            4,
            led(0, 1, 0, 1, 0, 1),
            cuts=cut(1, VOTES, EVERYBODY, (1, 2, 3, 4))
            | cut(2, PROPOSALS, (0,), EVERYBODY)
            | cut(2, VOTES, EVERYBODY, (0, 1, 3, 4))
            | cut(3, PROPOSALS, (2,), EVERYBODY)
            | frozenset().union(
                *(
                    cut(round_, PROPOSALS, EVERYBODY, (2,)) | cut(round_, VOTES, EVERYBODY, (2,))
                    for round_ in (3, 4)
                ),
                *(cut(round_, COMMIT_VOTES, EVERYBODY, EVERYBODY) for round_ in (3, 4, 5)),
            ),
        ),
        "commit vote below the last one",
    ),
    "a leader below what timeouts report": Script(
        Scenario(4, led(0, 3, 3, 0), cuts=cut(1, COMMIT_VOTES, EVERYBODY, EVERYBODY)),
        "a liar spoke",
        lambda: Deceiver(3, proved=True),
    ),
    "a leader that leaves the proof out": Script(
        Scenario(4, led(0, 3, 3, 0), cuts=cut(1, COMMIT_VOTES, EVERYBODY, EVERYBODY)),
        "a liar spoke",
        lambda: Deceiver(3, proved=False),
    ),
}
