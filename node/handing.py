"""What an engine leaves to the one of the next epoch, in the same process.

A new engine is opened on the same folder in every epoch, as after a stop. Reading the whole state
again, for the hashes of its tree, would take as long as a start does: seconds for a million
records, in which nothing is certified. So the store stays open, and with it the state at its
height: what a fresh start would read and compute.

Not here: when an epoch is over (``engine``).
"""

from __future__ import annotations

from dataclasses import dataclass

from consensus.state.state import State
from node.storage.store import Store


@dataclass(frozen=True, slots=True)
class Handed:
    """The open store, and the state at its height."""

    store: Store
    state: State

    @property
    def whole(self) -> bool:
        """Whether the tree is that of the store: nothing above it, nothing below."""
        return self.state.height == self.state.flushed_height == self.store.height
