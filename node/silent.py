"""The signer of a node that follows without voting: it never signs, and keeps no mark.

So an agency whose promises are lost still has its own copy of the state (``[node] votes = false``).
The replica asks for no signature then; that this refuses is a second guard, as everywhere.

Not here: following (``engine``), and what a voter's signer keeps (``signer``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from consensus.hotstuff.events import NEVER
from consensus.hotstuff.types import SignKind
from node.errors import SigningRefusedError
from node.signer import Mark, SignedBody, Signer, Slot


class SilentSigner(Signer):
    """Signs nothing."""

    def sign(
        self, kind: SignKind, epoch: int, round_: int, body: bytes, *, two_chain: bool = False
    ) -> bytes:
        """Refuse.

        Raises:
            SigningRefusedError: always.
        """
        raise SigningRefusedError("this node does not vote")

    def adopt(self, bodies: Iterable[SignedBody]) -> None:
        """Promises are for whoever signs on."""

    def slot_of(self, kind: SignKind) -> Slot:
        """Return that every round was passed: no certificate shows that a promise is forgotten."""
        return NEVER, NEVER

    def settle(self, epoch: int, round_: int) -> None:
        """There is nothing to forget."""

    def recovered_bodies(
        self, after: Mapping[SignKind, Slot] | None = None
    ) -> tuple[SignedBody, ...]:
        """Return none."""
        return ()

    def write_mark(self, log_synced: int, mark: Mark | None = None) -> None:
        """There is no mark."""
