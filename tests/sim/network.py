"""Links of a simulated network: messages are lost, late, doubled and out of order.

Some are recorded and come again much later, at whomever: they were signed, so anybody who saw them
may send them. A pair of nodes is cut in one direction or in both. When what cut them ends, or one
of them restarts, the link stands anew: both are told, each with the other's highest certificates.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from consensus.hotstuff import wire
from consensus.hotstuff.types import BlocksRequest, BlocksResponse, Message
from node.batch_wire import Absent, Announce, Push, Request, Response
from tests.sim.clock import Clock
from tests.sim.options import Options

Parcel = Message | Push | Request | Response | Absent | Announce

HEALED_DELAY_MS: Final = (1, 20)
CONNECT_MS: Final = (1, 60)
WIRE_CACHE_MAX: Final = 64
RECORDED_MAX: Final = 128
"""Messages of the past that may come again, each as likely."""


@dataclass
class Cut:
    """Directions that nothing passes."""

    pairs: frozenset[tuple[int, int]]


class Network:
    """All links.

    Args:
        receive: takes ``(to, from, parcel)`` when it arrives.
        connect: is told of a link that stands anew.
    """

    def __init__(
        self,
        options: Options,
        clock: Clock,
        receive: Callable[[int, int, Parcel], None],
        connect: Callable[[int, int], None],
    ) -> None:
        self._options = options
        self._clock = clock
        self._receive = receive
        self._connect = connect
        self._cuts: list[Cut] = []
        self._last_ms: dict[tuple[int, int], int] = {}
        self._healed = False
        self._decoded: dict[int, tuple[Message, Message]] = {}
        self._recorded: list[tuple[int, Parcel]] = []
        self._seen = 0
        self.lost = 0
        self.delivered = 0

    # --- messages ---

    def send(self, sender: int, receiver: int, parcel: Parcel) -> None:
        """Send one message; what arrives has been encoded and decoded."""
        clock, options = self._clock, self._options
        loss = options.healed_loss if self._healed else options.loss
        if self._is_cut(sender, receiver) or clock.chance(loss):
            self.lost += 1
            return
        arriving = self._through_wire(parcel)
        if options.replay_every_ms:
            self._record(sender, arriving)
        copies = 1
        if not self._healed and clock.chance(options.duplication):
            copies = 2
        for _ in range(copies):
            when_ms = clock.now_ms + self._delay_ms(sender, receiver)
            if options.fifo:
                when_ms = max(when_ms, self._last_ms.get((sender, receiver), 0))
                self._last_ms[sender, receiver] = when_ms
            clock.at(when_ms, lambda: self._arrive(sender, receiver, arriving))

    def _arrive(self, sender: int, receiver: int, parcel: Parcel) -> None:
        if self._is_cut(sender, receiver):
            self.lost += 1
            return
        self.delivered += 1
        self._receive(receiver, sender, parcel)

    def _record(self, sender: int, parcel: Parcel) -> None:
        """Keep an even sample of all that was ever sent."""
        if isinstance(
            parcel, Request | Response | Absent | Announce | BlocksRequest | BlocksResponse
        ):
            return
        self._seen += 1
        if len(self._recorded) < RECORDED_MAX:
            self._recorded.append((sender, parcel))
        elif (place := self._clock.random.randrange(self._seen)) < RECORDED_MAX:
            self._recorded[place] = sender, parcel

    def replay(self, count: int) -> int:
        """Have recorded messages come again; return how many."""
        rng, size = self._clock.random, self._options.machines
        chosen = rng.sample(self._recorded, min(count, len(self._recorded)))
        for sender, parcel in chosen:
            receiver = rng.choice([index for index in range(size) if index != sender])
            again = partial(self._arrive, sender, receiver, parcel)
            self._clock.after(rng.randint(0, 50), again)
        return len(chosen)

    def _through_wire(self, parcel: Parcel) -> Parcel:
        if isinstance(parcel, Push | Request | Response | Absent | Announce):
            return parcel
        known = self._decoded.get(id(parcel))
        if known is None:
            known = parcel, wire.decode_message(wire.encode_message(parcel))
            if len(self._decoded) >= WIRE_CACHE_MAX:
                del self._decoded[next(iter(self._decoded))]
            self._decoded[id(parcel)] = known
        return known[1]

    def _delay_ms(self, sender: int, receiver: int) -> int:
        options, rng = self._options, self._clock.random
        if self._healed:
            return rng.randint(*HEALED_DELAY_MS)
        delay_ms = rng.randint(*options.delay_ms)
        if options.spike and rng.random() < options.spike:
            delay_ms += rng.randint(0, options.spike_ms)
        slow = options.slow_link
        if slow and slow[:2] == (sender, receiver):
            delay_ms += slow[2]
        if options.slow_peer and options.slow_peer[0] in (sender, receiver):
            delay_ms += options.slow_peer[1]
        return delay_ms

    # --- links ---

    def _is_cut(self, sender: int, receiver: int) -> bool:
        return any((sender, receiver) in cut.pairs for cut in self._cuts)

    def cut(self, pairs: frozenset[tuple[int, int]]) -> Cut:
        """Cut directions; ``mend`` ends it."""
        cut = Cut(pairs)
        self._cuts.append(cut)
        return cut

    def mend(self, cut: Cut) -> None:
        """End a cut; links that it broke stand anew soon."""
        if cut in self._cuts:
            self._cuts.remove(cut)
            self._renew(sorted({(min(pair), max(pair)) for pair in cut.pairs}))

    def heal(self) -> None:
        """End all cuts, and all but a little of loss and delay."""
        self._healed = True
        for cut in list(self._cuts):
            self.mend(cut)

    def restarted(self, index: int) -> None:
        """A node is up: its links stand anew soon."""
        size = self._options.machines
        self._renew([tuple(sorted((index, peer))) for peer in range(size) if peer != index])  # type: ignore[misc]

    def _renew(self, pairs: list[tuple[int, int]]) -> None:
        for first, second in pairs:
            delay_ms = self._clock.random.randint(*CONNECT_MS)
            self._clock.after(delay_ms, lambda a=first, b=second: self._stand(a, b))  # type: ignore[misc]

    def _stand(self, first: int, second: int) -> None:
        if not self._is_cut(first, second) and not self._is_cut(second, first):
            self._connect(first, second)
