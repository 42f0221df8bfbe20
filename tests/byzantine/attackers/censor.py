"""Leaves out of its blocks what others have batched: all of it, or every other batch."""

from __future__ import annotations

from dataclasses import replace

from consensus.hotstuff.types import Block, PayloadItem, Proposal, Vote
from tests.byzantine.attackers.attacker import REMEMBERED_MAX, Attacker
from tests.sim.network import Parcel


class Censor(Attacker):
    """Other leaders take up what was left out: nothing that the honest have accepted is lost."""

    name = "censor"
    shows = ("left out, and taken up by another leader",)

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._censored: dict[bytes, Block] = {}

    def tell(self, peer: int, parcel: Parcel) -> list[Parcel]:
        """Propose to every peer the same smaller block, and vote for that."""
        match parcel:
            case Proposal(block):
                payload = tuple(item for item in block.payload if not self._drops(block, item))
                if payload == block.payload:
                    return [parcel]
                self.left_out |= {item.digest for item in block.payload} - {
                    item.digest for item in payload
                }
                censored = self._censored[block.id] = replace(block, payload=payload)
                if len(self._censored) > REMEMBERED_MAX:
                    del self._censored[next(iter(self._censored))]
                return self.lies(self.propose(censored, parcel))
            case Vote() if parcel.block_id in self._censored:
                return [self.vote(self._censored[parcel.block_id], parcel)]
            case _:
                return [parcel]

    def _drops(self, block: Block, item: PayloadItem) -> bool:
        return item.origin != self.index and (block.round % 2 == 0 or item.number % 2 == 0)
