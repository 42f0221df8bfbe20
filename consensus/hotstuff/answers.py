"""Answering those who are behind with our certificates, without a storm.

Whoever sends a message of an old round, or certificates lower than ours, gets our highest. The same
peer is told the same certificates again only after half the resend interval, so that a lost answer
is repeated and a crowd of late messages is not answered one by one.
"""

from __future__ import annotations

from consensus.hotstuff.events import ReplicaConfig, Send
from consensus.hotstuff.outbox import Outbox
from consensus.hotstuff.rounds import Rounds
from consensus.hotstuff.types import Certificates

Marks = tuple[int, int, int]
"""Rounds of the highest quorum certificate, of entry, and of the commit certificate."""


class Answers:
    """What each peer was told last, and when."""

    def __init__(self, config: ReplicaConfig, own: int, rounds: Rounds, outbox: Outbox) -> None:
        self._again_ms = config.resend_ms // 2
        self._own = own
        self._rounds = rounds
        self._outbox = outbox
        self._given: dict[int, tuple[int, Marks]] = {}

    def forget(self, peer: int) -> None:
        """Note that a peer may have lost what it was told."""
        self._given.pop(peer, None)

    def is_behind(self, theirs: Certificates) -> bool:
        """Whether a peer's highest certificates lack something of ours.

        A lone quorum or timeout certificate is what somebody completed and tells the next leader,
        not all it has.
        """
        lone = (theirs.high_qc is None) != (theirs.timeout_cert is None)
        if lone and theirs.commit_cert is None:
            return False
        ours = marks(self._rounds.certificates())
        return any(mine > other for mine, other in zip(ours, marks(theirs), strict=True))

    def may(self, peer: int, now_ms: int) -> bool:
        """Whether the peer has not been told the same a moment ago."""
        given = self._given.get(peer)
        if given is None:
            return True
        at_ms, told = given
        return told != marks(self._rounds.certificates()) or now_ms - at_ms >= self._again_ms

    def give(self, peer: int, now_ms: int) -> None:
        """Send our certificates to a peer that is behind."""
        if peer != self._own and self.may(peer, now_ms):
            certificates = self._rounds.certificates()
            self._given[peer] = now_ms, marks(certificates)
            self._outbox.post(Send(peer, certificates))


def marks(message: Certificates) -> Marks:
    """Return how far a set of certificates reaches."""
    quorum = 0 if message.high_qc is None else message.high_qc.round
    timeout = 0 if message.timeout_cert is None else message.timeout_cert.round
    commit = 0 if message.commit_cert is None else message.commit_cert.statement.round
    return quorum, max(quorum, timeout), commit
