"""The signer of a node that follows without voting: it never signs, and keeps no mark.

So an observer, an agency without a vote, and one whose promises are lost (``[node] votes = false``)
have their own copy of the state. The replica asks for no signature then; that this refuses is a
second guard, as everywhere.

Not here: following (``engine``), and what a voter's signer keeps (``signer``).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping

from consensus import keyfile
from consensus.hotstuff.events import NEVER
from consensus.hotstuff.types import SignKind
from consensus.keyfile import KeyKind, KeyPair
from node.errors import SigningRefusedError
from node.signer import Mark, SignedBody, Signer, Slot


class SilentSigner(Signer):
    """Signs nothing.

    Args:
        key: of the validator that does not vote; None: there is none.
        chain: hash of the genesis file.
    """

    def __init__(self, key: KeyPair | None, chain: bytes) -> None:
        super().__init__(
            key or keyfile.from_seed(KeyKind.VALIDATOR, secrets.token_bytes(32)), chain
        )

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
