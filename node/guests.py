"""What a node does for those who have no vote in its epoch: answers, and news of what is final.

An observer is told the newest commit certificate, at most once in TELL_SECONDS, and asks for the
blocks and batches that it lacks, as whoever catches up does. So what it costs a validator is one
message a height and what its pace allows, and nothing that it sends is ever checked for signatures.
A former member gets what ended the epochs that it lacks, and the blocks and batches of epochs up to
the last one in which it had a vote; its own frames count for as little.

Not here: who is let in (``network.guests``), the answers themselves (``ordering``,
``dissemination``, ``snapshots``).
"""

from __future__ import annotations

from typing import Final, Protocol

import trio

from consensus.errors import RemoteProtocolError
from consensus.hotstuff import wire
from consensus.hotstuff.epochs import elsewhere
from consensus.hotstuff.events import OtherEpoch
from consensus.hotstuff.types import BlocksRequest, Certificates
from node import batch_wire
from node.api.limits import ByteBudget
from node.batch_wire import Request
from node.bell import Bell
from node.dissemination import Dissemination
from node.network.guests import Guest
from node.network.wire import Class
from node.ordering import Ordering
from node.sealed import wire as sealed_wire
from node.snapshots import wire as snapshot_wire
from node.snapshots.serving import SnapshotServer
from node.snapshots.wire import Gone
from node.telemetry.metrics import Metrics

TELL_SECONDS: Final = 0.1
ASKS_PER_SECOND_MAX: Final = 40
ASKS_BURST_MAX: Final = 80
"""Questions of all guests together that are looked into; who gets no answer asks again."""


class Links(Protocol):
    """What is needed of ``node.network.peers.PeerNetwork``."""

    @property
    def guests(self) -> tuple[int, ...]:
        """Numbers of connected guests."""
        ...

    def guest(self, number: int) -> Guest | None:
        """Return who has a number."""
        ...

    def has_room(self, peer: int, cls: Class) -> bool:
        """Whether an answer would find room in a peer's queue."""
        ...

    def send(self, peer: int, cls: Class, payload: bytes) -> bool:
        """Queue a payload for one peer."""
        ...


class Guests:
    """The guests of one node in one epoch."""

    def __init__(
        self,
        ordering: Ordering,
        dissemination: Dissemination,
        snapshots: SnapshotServer,
        links: Links,
        metrics: Metrics,
    ) -> None:
        self._ordering = ordering
        self._dissemination = dissemination
        self._snapshots = snapshots
        self._links = links
        self._refused = metrics.observer_refused
        self._asks = ByteBudget(ASKS_PER_SECOND_MAX, ASKS_BURST_MAX)
        self._told_at: dict[int, float] = {}
        self._bell = Bell()

    def connected(self, peer: int, epoch: int) -> None:
        """A guest is there, and says in which epoch it is: bring it news."""
        self._told_at.pop(peer, None)
        self._greet(peer, epoch)

    def advanced(self) -> None:
        """A height is final."""
        self._bell.ring()

    async def run(self) -> None:
        """Tell observers what is final, until cancelled."""
        while True:
            await self._bell.heard()
            certificate = self._ordering.replica.certificates().commit_cert
            if self._links.guests and certificate is not None:
                news = Certificates(self._ordering.replica.epoch, None, None, certificate)
                payload = wire.encode_message(news)
                for number in self._links.guests:
                    guest = self._links.guest(number)
                    if guest is not None and guest.upto is None:
                        self._links.send(number, Class.CONSENSUS, payload)
            await trio.sleep(TELL_SECONDS)

    def receive(self, peer: int, cls: Class, payload: bytes) -> None:
        """Take a frame of a guest.

        Raises:
            RemoteProtocolError: malformed, or what no honest node without a vote sends.
        """
        guest = self._links.guest(peer)
        if guest is None or sealed_wire.is_known(payload):
            return  # sealed values are for the nodes of members
        if cls is Class.SYNC and snapshot_wire.is_known(payload):
            if guest.upto is None:
                self._snapshots.receive(peer, payload)
            else:
                self._links.send(peer, Class.SYNC, snapshot_wire.encode(Gone(0)))
        elif cls is Class.BATCH or batch_wire.is_known(payload):
            self._batches(peer, guest, payload)
        else:
            self._message(peer, guest, payload)

    def _batches(self, peer: int, guest: Guest, payload: bytes) -> None:
        message = self._dissemination.decode(payload)
        if isinstance(message, Request):
            if self._may_ask(peer):
                self._dissemination.serve(peer, message.digests, guest.upto)
        elif guest.upto is None:  # a former member may not know yet that it is one
            raise RemoteProtocolError("a node without a vote has no batches to show")

    def _message(self, peer: int, guest: Guest, payload: bytes) -> None:
        message = wire.decode_message(payload)
        own = self._ordering.replica.epoch
        other = elsewhere(message, own)
        match message:
            case BlocksRequest() if other is None:
                if (guest.upto is None or message.epoch <= guest.upto) and self._may_ask(peer):
                    self._ordering.ask(peer, message)
            case Certificates() if other is None:
                if guest.upto is None:
                    self._greet(peer, own)
            case _ if other is not None:
                self._greet(peer, other)
            case _:
                name = type(message).__name__
                raise RemoteProtocolError(f"a {name} of a node without a vote in epoch {own}")

    def _may_ask(self, peer: int) -> bool:
        """Whether a question is looked into: there is room for the answer, and it is one's turn."""
        now = trio.current_time()
        if self._links.has_room(peer, Class.SYNC) and self._asks.take(None, now):
            return True
        self._refused.inc()
        return False

    def _greet(self, peer: int, epoch: int) -> None:
        """Answer a guest that says where it is."""
        if epoch != self._ordering.replica.epoch:
            self._ordering.post(OtherEpoch(peer, epoch))
            return
        now = trio.current_time()
        if now - self._told_at.get(peer, float("-inf")) >= 5 * TELL_SECONDS:
            self._told_at[peer] = now
            self._links.send(peer, Class.CONSENSUS, self._ordering.extras())
