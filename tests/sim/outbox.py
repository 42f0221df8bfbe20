"""Persist before send, on a simulated disk: one queue over all steps, as ``node.outbox`` has it.

While a sync runs, effects gather; the next sync covers them all. The log is synced, then the
signer's mark, then everything that waited is carried out, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from consensus.hotstuff.events import Broadcast, Deliver, Persist, Send
from consensus.hotstuff.types import Block
from node.checked import CheckedBatch
from tests.sim.disk import Disk, Group, Mark

Outgoing = Broadcast | Send | Deliver
Item = Outgoing | Persist | Callable[[], None]


class Machine(Protocol):
    """What the outbox needs of the node it belongs to."""

    def soon(self, delay_ms: int, action: Callable[[], None]) -> None:
        """Do ``action`` after a delay, unless this machine has crashed by then."""
        ...

    def sync_ms(self) -> int:
        """Return how long the next sync takes."""
        ...

    def snapshot(self, log_groups: int) -> Mark:
        """Return the signer's mark."""
        ...

    def act(self, effect: Outgoing) -> None:
        """Send or deliver."""
        ...


class Outbox:
    """The queue of one life of a node.

    Args:
        eager: act without waiting for the disk: a broken outbox, for tests of the harness.
    """

    def __init__(self, machine: Machine, disk: Disk, *, eager: bool = False) -> None:
        self._machine = machine
        self._disk = disk
        self._eager = eager
        self._queue: list[Item] = []
        self._blocks: list[Block] = []
        self._batches: list[CheckedBatch] = []
        self._busy = False
        self.writing: Group | None = None
        """What is being written to the log."""
        self.marking: Mark | None = None
        """What is being written as the mark."""

    def log_batch(self, batch: CheckedBatch) -> None:
        """Write a batch with the next sync."""
        self._batches.append(batch)

    def put(self, effect: Outgoing | Persist) -> None:
        """Take one effect, in order."""
        if isinstance(effect, Persist):
            self._blocks += effect.blocks
            self._queue.append(effect)
        elif self._eager or not (self._queue or self._busy):
            self._machine.act(effect)
        else:
            self._queue.append(effect)

    def after_sync(self, action: Callable[[], None]) -> None:
        """Do ``action`` once everything written so far is durable."""
        self._queue.append(action)

    def kick(self) -> None:
        """Begin a sync if there is something to sync and none runs."""
        if self._busy or not self._queue:
            return
        self._busy = True
        queue, self._queue = self._queue, []
        records = [item.record for item in queue if isinstance(item, Persist)]
        record = records[-1] if records else None
        group = Group(tuple(self._blocks), tuple(self._batches), record)
        self._blocks, self._batches = [], []
        mark = self._machine.snapshot(self._disk.groups + 1) if records else None
        self.writing = group
        self._machine.soon(self._machine.sync_ms(), lambda: self._logged(group, mark, queue))

    def _logged(self, group: Group, mark: Mark | None, queue: list[Item]) -> None:
        self.writing = None
        self._disk.append(group)
        if mark is None:
            self._carry_out(queue)
            return
        self.marking = mark
        self._machine.soon(self._machine.sync_ms(), lambda: self._marked(mark, queue))

    def _marked(self, mark: Mark, queue: list[Item]) -> None:
        self.marking = None
        self._disk.mark = mark
        self._carry_out(queue)

    def _carry_out(self, queue: list[Item]) -> None:
        for item in queue:
            match item:
                case Persist():
                    pass
                case Broadcast() | Send() | Deliver():
                    self._machine.act(item)
                case _:
                    item()
        self._busy = False
        self.kick()
