"""Proposes more than fits, batches that nobody has, and sends batches that cannot be read."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import PayloadItem, Proposal
from node.batch_wire import Push
from tests.byzantine.attackers.attacker import Attacker
from tests.sim.network import Parcel

HUGE_BYTES = 2**40


class MalformedPayload(Attacker):
    """Such a block gets no honest vote; whoever sends such a batch loses the link."""

    name = "oversized and malformed payload"
    shows = ("fault", "link dropped")

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Change a payload, or a batch."""
        rng = self.rng
        if isinstance(parcel, Proposal) and rng.random() < 0.5:
            digest = bytes([parcel.block.round % 256]) * 32
            item = PayloadItem(digest, self.index, 10**6, 0, 1, rng.choice((100, HUGE_BYTES)))
            block = replace(parcel.block, payload=(*parcel.block.payload, item))
            return self.lies(self.propose(block, parcel))
        if isinstance(parcel, Push) and rng.random() < 0.3:
            return self.lies(parcel, Push(parcel.public[:7] + b"\xff", parcel.private))
        return [parcel]
