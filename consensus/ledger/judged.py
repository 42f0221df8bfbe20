"""What a decision says about how far a transaction was judged."""

from __future__ import annotations

from collections.abc import Sequence

from consensus.ledger.authority import Standing
from consensus.ledger.layout import encode_array
from consensus.state.record import Leaf


class Judged:
    """Fills while a transaction is judged: actions, powers and approvers, and the call at hand.

    All but ``call`` and ``overwritten`` are encoded items of the decision.
    """

    __slots__ = (
        "actions",
        "call",
        "cosigners",
        "filled",
        "links",
        "overwritten",
        "roles",
        "terms",
    )

    def __init__(self) -> None:
        self.call: int | None = None
        self.actions: list[bytes] = []
        self.roles: list[bytes] = []
        self.cosigners: list[bytes] = []
        self.filled: list[bytes] = []
        self.links: Sequence[bytes] = ()
        """To other transactions, of one that is applied."""
        self.terms: Sequence[bytes] = ()
        """On which terms it may be taken back; empty if it may not."""
        self.overwritten: Sequence[Leaf] = ()
        """Then, the leaves as they were that it overwrote."""

    def authority(self, standing: Standing) -> bytes:
        """Return the authority leaf, encoded."""
        roles, cosigners = encode_array(self.roles), encode_array(self.cosigners)
        if self.filled:
            return b"\x84" + standing.cbor + roles + cosigners + encode_array(self.filled)
        return b"\x83" + standing.cbor + roles + cosigners
