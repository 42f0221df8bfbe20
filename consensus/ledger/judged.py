"""What a decision says about how far a transaction was judged."""

from __future__ import annotations

from consensus.ledger.authority import Standing
from consensus.ledger.layout import encode_array


class Judged:
    """Fills while a transaction is judged: actions, powers and approvers, and the call at hand.

    All but ``call`` are encoded items of the decision.
    """

    __slots__ = ("actions", "call", "cosigners", "filled", "roles")

    def __init__(self) -> None:
        self.call: int | None = None
        self.actions: list[bytes] = []
        self.roles: list[bytes] = []
        self.cosigners: list[bytes] = []
        self.filled: list[bytes] = []

    def authority(self, standing: Standing) -> bytes:
        """Return the authority leaf, encoded."""
        roles, cosigners = encode_array(self.roles), encode_array(self.cosigners)
        if self.filled:
            return b"\x84" + standing.cbor + roles + cosigners + encode_array(self.filled)
        return b"\x83" + standing.cbor + roles + cosigners
