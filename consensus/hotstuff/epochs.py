"""Where one epoch ends and the next begins, as one replica sees it. A replica is of one epoch.

    B executed: its result names a next committee    what extends it is only ordered (execution)
    B certified by commit votes on B itself          Deliver … B, then EndEpoch: the last effect
    what was delivered is durable, then the record   a new Replica, of the next committee, from
                                                     the virtual certificate (epoch + 1, 0, B)

The record is ``types.next_record`` of B's certificate: it holds that certificate, and whatever the
key signs in the next epoch comes after it is on disk. In between nothing is signed at all.

A peer in an earlier epoch is answered with the certificate that ended its epoch, and one in a later
epoch is told where we are, so that it answers likewise. So anybody, however many epochs behind,
follows by the chain of those certificates: each names the committee that signed the next one.

Not here: who the next committee is (the executor's state), and keeping what ended epochs (storage).
"""

from __future__ import annotations

from typing import Final

from consensus.errors import present
from consensus.hotstuff.events import (
    Broadcast,
    CertifiedTip,
    EndEpoch,
    ReplicaConfig,
    Send,
    ServeEnd,
)
from consensus.hotstuff.outbox import Outbox
from consensus.hotstuff.rounds import Rounds
from consensus.hotstuff.types import (
    BlocksRequest,
    BlocksResponse,
    Certificates,
    Message,
    epoch_of,
    next_record,
)
from consensus.hotstuff.wire import encode_record

PEERS_MAX: Final = 256
"""Peers whose last answer is remembered; the oldest goes first."""


def elsewhere(message: Message, epoch: int) -> int | None:
    """Return the other epoch that a message, not yet verified, speaks of; None: take it up.

    Requests for blocks of earlier epochs are taken up like any: they are served from storage.
    Blocks of other epochs are late answers, which ``Replica.wants`` drops.

    Args:
        epoch: of the replica.
    """
    theirs = epoch_of(message)
    if theirs == epoch or isinstance(message, BlocksResponse):
        return None
    return None if isinstance(message, BlocksRequest) and theirs < epoch else theirs


class Boundary:
    """The end of one replica's epoch, and its peers beyond it."""

    def __init__(self, config: ReplicaConfig, epoch: int, rounds: Rounds, outbox: Outbox) -> None:
        self._epoch = epoch
        self._again_ms = config.resend_ms // 2
        self._rounds = rounds
        self._outbox = outbox
        self._answered: dict[int, tuple[int, int]] = {}
        self.ended = False
        """Whether ``EndEpoch`` was emitted: nothing more is done."""

    def other(self, peer: int, epoch: int, now_ms: int) -> None:
        """Answer a peer that spoke of another epoch; of the same one, not again at once."""
        before = self._answered.pop(peer, None)
        if before is not None and before[0] == epoch and now_ms - before[1] < self._again_ms:
            self._answered[peer] = before
            return
        self._answered[peer] = epoch, now_ms
        while len(self._answered) > PEERS_MAX:
            del self._answered[next(iter(self._answered))]
        if epoch < self._epoch:
            self._outbox.emit(ServeEnd(peer, epoch))
        else:
            self._outbox.post(Send(peer, self._rounds.certificates()))

    def end(self, tip: CertifiedTip, now_ms: int) -> None:
        """Leave the epoch, after telling all peers what ended it."""
        certificate = present(tip.commit_cert, "an epoch ends by a certificate")
        self.ended = True
        self._outbox.post(Broadcast(Certificates(self._epoch, None, None, certificate)))
        record = encode_record(next_record(certificate))
        self._outbox.post(EndEpoch(tip.block, certificate, record))
        self._outbox.set_timers({}, now_ms)
