"""Executors to come: what this release lacks is known from the act on that activates it.

A node that lacks one takes part until the first block of its time: that block it neither proposes
nor votes for nor executes. It stops signing, says which executor it lacks, and serves what it has;
a release that has the executor goes on from the same data. The time that counts is the block's, and
it counts when the block is about to be signed: then the rules of time have admitted it, so a leader
cannot have a node stop before its time.

Not here: what activates an executor (``consensus.ledger.kernel.executors``).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from consensus.errors import UnknownExecutorError
from consensus.hotstuff.events import Halt, Sign
from consensus.hotstuff.types import Proposal, SignKind
from consensus.ledger.ledger import Ledger
from consensus.ledger.view import Source
from consensus.release import VERSION
from node.errors import NewerExecutorError


class Horizon:
    """Until when this release can go on, by the executed state of one node.

    Args:
        ledger: knows which executors this release has.
        source: the executed state.
    """

    def __init__(self, ledger: Ledger, source: Source) -> None:
        self._ledger = ledger
        self._source = source
        self._proposed = (0, 0)
        """Round and time of the block that may be voted for next."""
        self._warned: tuple[int, int] | None = None

    def refuse_downgrade(self, height: int, time_ms: int) -> None:
        """Refuse data whose tip is of an executor that this release lacks.

        Raises:
            NewerExecutorError: it is.
        """
        found = self._ledger.lacking(self._source, time_ms)
        if found is not None and found[1] <= time_ms:
            raise NewerExecutorError(
                f"the state of height {height} is of executor {found[0]}, and this release "
                f"({VERSION}) has {self._known}"
            )

    def proposed(self, message: Proposal) -> None:
        """Note a verified proposal; the first of a round is the one that may be voted for."""
        if message.block.round > self._proposed[0]:
            self._proposed = message.block.round, message.block.time_ms

    def forbids(self, request: Sign) -> Halt | None:
        """Return why a block is not to be signed; None: this release can execute it.

        Cost: one row of the state a proposal or vote.
        """
        match request.kind:
            case SignKind.PROPOSAL if request.block is not None:
                time_ms = request.block.time_ms
            case SignKind.VOTE if request.round == self._proposed[0]:
                time_ms = self._proposed[1]
            case _:
                return None
        found = self._ledger.lacking(self._source, time_ms)
        if found is None or found[1] > time_ms:
            return None
        return self.halt(found[0])

    def halt(self, number: int) -> Halt:
        """Return what is said when a block of an executor comes that this release lacks."""
        error = UnknownExecutorError(number, self._ledger.executors)
        return Halt(error.code, f"{error.message} (release {VERSION}): {error.hint}")

    def news(self, time_ms: int) -> str | None:
        """Return what is to be told of an executor to come that is lacked, once; else None."""
        found = self._ledger.lacking(self._source, time_ms)
        if found is None or found == self._warned:
            return None
        self._warned = found
        return (
            f"from {_when(found[1])} on executor {found[0]} is in force, and this release "
            f"({VERSION}) has {self._known}: this node stops then; install one that has it before"
        )

    def lacks_from_ms(self, time_ms: int) -> int | None:
        """Return from when an executor is in force that this release lacks; None: none is."""
        found = self._ledger.lacking(self._source, time_ms)
        return None if found is None else found[1]

    def status(self, time_ms: int) -> dict[str, Any]:
        """Return what a node says of executors: the one in force, the next, what it has."""
        now, *then = self._ledger.executors_from(self._source, time_ms) or [(0, 0)]
        return {
            "in_force": now[0],
            "next": then[0][0] if then else None,
            "from_ms": then[0][1] if then else None,
            "known": list(self._ledger.executors),
        }

    @property
    def _known(self) -> str:
        return ", ".join(map(str, self._ledger.executors))


def _when(time_ms: int) -> str:
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")
