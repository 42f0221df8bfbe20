"""The product's signer with its mark, on simulated files and with the simulation's signatures."""

from __future__ import annotations

from node.signer import Signer as RealSigner
from tests.sim.keys import Keys


class Signer(RealSigner):
    """Signs for one validator. ``keys`` is to be set before it signs."""

    keys: Keys

    def _seal(self, signed: bytes) -> bytes:
        return self.keys.sign(self.public, signed)
