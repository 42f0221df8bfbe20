"""Effects of a step in their order: what needs no disk at once, the rest behind its ``Persist``.

While a signature is asked for and not yet given, what is to be sent waits; the step that brings the
last one emits one ``Persist`` for all of it, and then all of it, in the order it was posted. Thus
proposal and own vote share one sync, and nothing leaves before the promise it contains is durable.
"""

from __future__ import annotations

from typing import Final

from consensus.hotstuff.blocktree import Node
from consensus.hotstuff.events import (
    Broadcast,
    CancelTimer,
    Deliver,
    Effect,
    EndEpoch,
    Halt,
    Persist,
    Send,
    SetTimer,
    Sign,
    Timer,
)
from consensus.hotstuff.safety import Refused, Safety
from consensus.hotstuff.wire import encode_record

TIMERS: Final = tuple(Timer)
NEVER: Final = -1

Posted = Broadcast | Send | Deliver | EndEpoch


class Outbox:
    """Collects the effects of one step after another."""

    def __init__(self) -> None:
        self._effects: list[Effect] = []
        self._posted: list[Posted] = []
        self._to_log: list[Node] = []
        self._promised = False
        self._timers: dict[Timer, int] = {}
        self._due_ms: int | None = None
        self._set_back_ms = 0
        self.halted = False

    def emit(self, effect: Effect) -> None:
        """Do this now; no disk is waited for."""
        self._effects.append(effect)

    def post(self, effect: Posted) -> None:
        """Do this once everything promised so far is durable."""
        self._posted.append(effect)

    def sign(self, request: Sign | Refused, subject: Node | None) -> bool:
        """Ask for a signature if it is allowed; ``subject`` must be logged before it is shown."""
        if isinstance(request, Refused):
            return False
        if subject is not None:
            self.log(subject)
        self._effects.append(request)
        return True

    def log(self, node: Node) -> None:
        """Have the next ``Persist`` contain a block and its ancestors, unless one did already."""
        branch: list[Node] = []
        walk: Node | None = node
        while walk is not None and not walk.logged:
            branch.append(walk)
            walk.logged = True
            walk = walk.parent
        self._to_log.extend(reversed(branch))

    def promise(self) -> None:
        """Note that a message was signed: the next ``Persist`` is due."""
        self._promised = True

    def halt(self, code: str, reason: str) -> None:
        """Stop for good: nothing posted leaves any more."""
        self._effects.append(Halt(code, reason))
        self.halted = True

    def fired(self, token: Timer) -> None:
        """Note that a timer is no longer set."""
        self._timers.pop(token, None)

    def is_due(self, now_ms: int) -> bool:
        """Whether a timer that was set has come due, fired or not."""
        return self._due_ms is not None and self._due_ms <= now_ms

    def clock_set_back(self, by_ms: int) -> None:
        """Note that the clock by which timers are set was set back: all are to be set anew."""
        self._set_back_ms += by_ms
        self._timers = dict.fromkeys(self._timers, NEVER)

    def set_timers(self, wanted: dict[Timer, int], now_ms: int) -> None:
        """Set and cancel timers so that exactly those ``wanted`` in the future are set."""
        ahead = {token: at_ms for token, at_ms in wanted.items() if at_ms > now_ms}
        self._due_ms = min(ahead.values(), default=None)
        if ahead == self._timers:
            return
        for token in TIMERS:
            at_ms = ahead.get(token)
            if at_ms == self._timers.get(token):
                continue
            if at_ms is None:
                self._effects.append(CancelTimer(token))
            else:
                self._effects.append(SetTimer(token, at_ms - self._set_back_ms))
        self._timers = ahead

    def finish(self, safety: Safety) -> list[Effect]:
        """Return the effects of the step."""
        effects, self._effects = self._effects, []
        if self.halted or safety.pending:
            return effects
        if self._promised:
            blocks = tuple(node.block for node in self._to_log)
            effects.append(Persist(encode_record(safety.record()), blocks))
            self._promised = False
            self._to_log = []
        effects.extend(self._posted)
        self._posted = []
        return effects
