"""What all attackers have in common: a key, and a say in all that is sent."""

from __future__ import annotations

import random
from typing import ClassVar

from consensus import signing
from consensus.hotstuff.types import SIGN_TAGS, Block, Message, Proposal, SignKind, Vote, vote_body
from tests.sim.keys import Sign
from tests.sim.network import Parcel

REMEMBERED_MAX = 64


class Attacker:
    """A validator that lies.

    Args:
        index, size: its place, and how many there are.
        sign: with its own key.
        rng: the run's.
    """

    name: ClassVar[str] = ""
    shows: ClassVar[tuple[str, ...]] = ()
    """Marks of what the honest do about it, each of which some run must reach."""

    def __init__(
        self,
        index: int,
        size: int,
        sign: Sign,
        chain: bytes,
        rng: random.Random,
    ) -> None:
        self.index = index
        self.size = size
        self.rng = rng
        self.attacks = 0
        """How often it has lied."""
        self.left_out: set[bytes] = set()
        """Batches that it left out of its blocks, by digest."""
        self._sign = sign
        self._chain = chain

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Return what ``peer`` is sent in place of ``parcel``."""
        return [parcel]

    def hears(self, sender: int, parcel: Parcel) -> None:
        """Take note of what a peer says."""

    def lies(self, *said: Parcel) -> list[Parcel]:
        """Return what is said, counted as an attack."""
        self.attacks += 1
        return list(said)

    def sign(self, kind: SignKind, body: bytes) -> bytes:
        """Sign with the own key whatever is wanted."""
        return self._sign(signing.message(SIGN_TAGS[kind], self._chain, body))

    def propose(self, block: Block, like: Proposal) -> Proposal:
        """Return a block signed as a proposal."""
        return Proposal(block, self.sign(SignKind.PROPOSAL, block.id), None, None, like.commit_cert)

    def vote(self, block: Block, like: Vote | None = None) -> Vote:
        """Return a vote for a block."""
        body = vote_body(block.epoch, block.round, block.id, block.height)
        held = () if like is None else like.held
        signature = self.sign(SignKind.VOTE, body)
        return Vote(block.epoch, block.round, block.id, block.height, self.index, signature, held)


class Memory:
    """The last so many messages, oldest first."""

    def __init__(self) -> None:
        self.kept: list[Message] = []

    def keep(self, message: Message) -> None:
        """Keep one; the oldest goes."""
        self.kept.append(message)
        del self.kept[:-REMEMBERED_MAX]
