"""One replica on a bench: feed it events, give it its signatures, read its effects."""

from __future__ import annotations

from typing import TypeVar

from consensus.hotstuff import events as ev
from consensus.hotstuff import wire
from consensus.hotstuff.execution import statement_of
from consensus.hotstuff.replica import Replica
from consensus.hotstuff.types import (
    Block,
    Certificates,
    Message,
    SafetyRecord,
    Statement,
    first_record,
)

from . import builders as make
from .driver import CHAIN, START_MS, sign, verifier

E = TypeVar("E", bound=ev.Effect)
M = TypeVar("M", bound=Message)

ROOT = b"r" * 32


def result(root: bytes = ROOT) -> ev.ExecutionResult:
    return ev.ExecutionResult(1, root, root, root, root)


def result_statement(block: Block, root: bytes = ROOT) -> Statement:
    return statement_of(CHAIN, block, result(root))


class Bench:
    """A replica with index ``own``, started, at virtual time ``now_ms``.

    ``effects`` are those of the last call, with all that signing led to.
    """

    def __init__(
        self,
        own: int = 0,
        *,
        record: SafetyRecord | None = None,
        config: ev.ReplicaConfig | None = None,
        tip: ev.CertifiedTip | None = None,
        blocks: tuple[Block, ...] = (),
    ) -> None:
        self.own = own
        self.now_ms = START_MS
        self.held: tuple[int, ...] = ()
        self.verifier = verifier(make.COMMITTEE)
        self.replica = Replica(
            config or ev.ReplicaConfig(CHAIN),
            make.COMMITTEE,
            own,
            ev.RecoveredState(
                record or first_record(make.GENESIS),
                tip or ev.CertifiedTip(make.GENESIS, None),
                blocks,
            ),
        )
        self.effects: list[ev.Effect] = []
        self.feed(ev.Started())

    def feed(self, event: ev.Event, after_ms: int = 0) -> list[ev.Effect]:
        """Feed one event and the signatures it asks for."""
        self.now_ms += after_ms
        self.effects, waiting = [], [event]
        while waiting:
            for effect in self.replica.step(waiting.pop(0), self.now_ms):
                self.effects.append(effect)
                if isinstance(effect, ev.Sign):
                    signature = sign(self.own, effect.kind, effect.body)
                    waiting.append(ev.Signed(effect.kind, effect.body, signature, self.held))
        return self.effects

    def receive(self, message: Message, sender: int, after_ms: int = 0) -> list[ev.Effect]:
        """Verify a message as the runtime would, and feed it."""
        return self.feed(ev.Received(sender, self.verifier.verify(message, sender)), after_ms)

    def fire(self, token: ev.Timer = ev.Timer.ROUND, after_ms: int = 0) -> list[ev.Effect]:
        return self.feed(ev.TimerFired(token), after_ms)

    def hold(self, block: Block) -> list[ev.Effect]:
        return self.feed(ev.PayloadHeld(block.id))

    def executed(self, block: Block, root: bytes = ROOT) -> list[ev.Effect]:
        return self.feed(ev.Executed(block.id, result(root)))

    def order(self, block: Block) -> list[ev.Effect]:
        """Receive the block's proposal and, from its next leader, its certificate."""
        self.receive(make.proposal(block), make.COMMITTEE.leader(block.round))
        done = self.effects
        certificates = Certificates(1, make.quorum_cert(block), None, None)
        done += self.receive(certificates, make.COMMITTEE.leader(block.round + 1))
        self.effects = done
        return done

    def of(self, kind: type[E]) -> list[E]:
        """The effects of one kind."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    def said(self, kind: type[M]) -> list[M]:
        """The messages of one kind that were broadcast."""
        messages = (effect.message for effect in self.of(ev.Broadcast))
        return [message for message in messages if isinstance(message, kind)]

    def told(self, peer: int) -> list[Message]:
        """What was sent to one peer alone."""
        return [effect.message for effect in self.of(ev.Send) if effect.peer == peer]

    def persisted(self) -> list[SafetyRecord]:
        return [wire.decode_record(effect.record) for effect in self.of(ev.Persist)]

    def timer(self, token: ev.Timer) -> int | None:
        """When the timer was set in this call, after now; None if it was not."""
        times = [effect.at_ms for effect in self.of(ev.SetTimer) if effect.token is token]
        return times[-1] - self.now_ms if times else None
