"""What a hello shows: the newest certificates in which every signature of ours is durable.

A certificate holds our signature as soon as it was made, and a hello goes past the outbox. Shown
too early, peers would know more of this key than its disk does after a crash; so while something
waits for a sync, those of the last one are shown.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from consensus.hotstuff.events import Persist
from consensus.hotstuff.types import Certificates
from node.outbox import Outbox


class Shown:
    """What may be shown now.

    Args:
        outbox: where promises become durable.
        newest: returns the replica's newest certificates.
    """

    def __init__(self, outbox: Outbox, newest: Callable[[], Certificates]) -> None:
        self._outbox = outbox
        self._newest = newest
        self._certificates = newest()

    def persist(self, effect: Persist) -> None:
        """Put a promise into the outbox; what is known by now may be shown once it is durable."""
        self._outbox.put(effect)
        self._outbox.after_sync(partial(self._show, self._newest()))

    def certificates(self) -> Certificates:
        """Return what a hello shows."""
        if self._outbox.settled:
            self._certificates = self._newest()
        return self._certificates

    def _show(self, certificates: Certificates) -> None:
        self._certificates = certificates
