"""What one seed draws: a network, its faults, its machines and its load.

Swarm testing: each seed switches some faults off and others up, so that a run set meets
combinations that a mean setting would never show.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """One run. Probabilities are of a message or batch; times are virtual milliseconds.

    The defaults are a network without faults, so that a run that was kept stays what it was when an
    option is added.

    Args:
        size: validators. ``real_signatures``: Ed25519 instead of keyed hashes.
        safety_ms: how long faults last; afterwards the network heals.
        delay_ms: least and most of most messages; ``spike``, ``spike_ms`` of the others.
        slow_link: ``(from, to, added ms)`` of one direction, or empty.
        slow_peer: ``(validator, added ms)`` of all its links, or empty.
        fifo: links keep their order.
        partition_every_ms, ring_every_ms, crash_every_ms, kill_every_ms, jump_every_ms,
            disk_every_ms, replay_every_ms: mean interval of each fault, 0 for never.
        partition_ms: longest partition. ``jump_ms``: most by which a clock is set.
        all_crashes: how often every machine loses power at one moment.
        away_ms: for how long f + 1 validators are off at once, 0 if they are not.
        restart_ms: longest time a crashed machine stays away.
        sync_ms: longest sync of a log or mark; ``sync_spike``: how often it is thirty times that.
        reserve_bytes: step by which a log takes room. ``log_bytes``: when it begins a new segment.
        execute_ms: longest execution of a block; ``slow_node_ms``: added at node ``slow_node``.
        skew_ms: the clock of each node against virtual time.
        batch_every_ms: mean interval of batches; ``batch_size``: most transactions in one.
        repeat: a transaction is sent to a second node too; ``protective``: a batch of holds.
        short_lived: a transaction expires within seconds.
        stay_dead: validators that never come back after healing, at most f.
        healed_loss: messages lost even then.
        late: a validator that is away until healing, or None.
        traitors: machines that lie whenever they vote; they count among the f of each committee.
        spare: machines without a vote at first. ``elect_every_ms``: mean interval of elections, 0
            for never; ``elect_again``: how often the next one follows at once. ``notice_ms``: from
            an agreement to its effect.
    """

    seed: int
    size: int = 4
    real_signatures: bool = False
    safety_ms: int = 1000
    delay_ms: tuple[int, int] = (1, 3)
    spike: float = 0.0
    spike_ms: int = 0
    slow_link: tuple[int, ...] = ()
    slow_peer: tuple[int, ...] = ()
    loss: float = 0.0
    duplication: float = 0.0
    fifo: bool = False
    partition_every_ms: int = 0
    partition_ms: int = 1000
    ring_every_ms: int = 0
    replay_every_ms: int = 0
    crash_every_ms: int = 0
    kill_every_ms: int = 0
    disk_every_ms: int = 0
    jump_every_ms: int = 0
    jump_ms: int = 1
    all_crashes: int = 0
    away_ms: int = 0
    restart_ms: int = 500
    sync_ms: int = 0
    sync_spike: float = 0.0
    reserve_bytes: int = 4096
    log_bytes: int = 2**20
    execute_ms: int = 0
    slow_node: int = 0
    slow_node_ms: int = 0
    skew_ms: tuple[int, ...] = ()
    timeout_base_ms: int = 1000
    timeout_max_ms: int = 4000
    resend_ms: int = 1000
    execution_ahead_max: int = 2
    certified_ahead_max: int = 8
    payload_items_max: int = 128
    flush_heights: int = 32
    batch_every_ms: int = 150
    batch_size: int = 5
    repeat: float = 0.0
    protective: float = 0.0
    short_lived: float = 0.0
    stay_dead: int = 0
    healed_loss: float = 0.0
    late: int | None = None
    traitors: tuple[int, ...] = ()
    spare: int = 0
    elect_every_ms: int = 0
    elect_again: float = 0.0
    notice_ms: int = 50

    @property
    def machines(self) -> int:
        """Machines, with those that have no vote at first."""
        return self.size + self.spare

    @property
    def faulty_max(self) -> int:
        """f, by this file's own arithmetic."""
        return (self.size - 1) // 3

    @property
    def quorum(self) -> int:
        """Signatures that make a certificate, by this file's own arithmetic."""
        return self.size - (self.size - 1) // 3

    @property
    def is_long(self) -> bool:
        """Whether this is half an hour with little in it, rather than seconds full of faults."""
        return self.safety_ms > 60_000

    def to_table(self) -> dict[str, Any]:
        """Return what differs from the defaults, as it is kept in a file."""
        return {
            each.name: list(value) if isinstance(value, tuple) else value
            for each in fields(self)
            if (value := getattr(self, each.name)) != each.default
        }

    @classmethod
    def from_table(cls, table: Mapping[str, Any]) -> Options:
        """Return what ``to_table`` was made of.

        Raises:
            TypeError: an option is not known.
        """
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in table.items()
        }
        return cls(**values)

    def skew_of(self, index: int) -> int:
        """Return what a node's clock shows beyond virtual time in the beginning."""
        return self.skew_ms[index] if index < len(self.skew_ms) else 0


def draw(seed: int, size: int | None = None) -> Options:
    """Return the options of a seed; no other randomness enters them.

    Args:
        size: validators, if the seed is not to choose.
    """
    rng = random.Random(seed)
    size = rng.choice((4, 4, 4, 4, 4, 5, 7)) if size is None else size
    kind = rng.random()
    if kind < 0.05:
        return _long(rng, seed, size)
    return _electing(_short(rng, seed, size, late=kind > 0.9))


def _electing(options: Options) -> Options:
    """Return the same for three seeds of four, and else with committees that change."""
    rng = random.Random(f"epochs {options.seed}")
    if rng.random() >= 0.25 or options.late is not None:
        return options
    spare = rng.choice((0, 1, 2, 2))
    traitors = options.traitors
    if rng.random() < 0.4:  # of all machines, those that join among them
        count = rng.randint(0, options.faulty_max)
        traitors = tuple(sorted(rng.sample(range(options.size + spare), count)))
    return replace(
        options,
        safety_ms=max(options.safety_ms, rng.choice((4000, 8000, 16_000))),
        spare=spare,
        elect_every_ms=rng.choice((150, 300, 600)),
        elect_again=rng.choice((0.0, 0.3, 0.7)),
        notice_ms=rng.choice((20, 20, 300, 1000)),
        traitors=traitors,
        stay_dead=min(options.stay_dead, options.faulty_max - len(traitors)),
    )


def _short(rng: random.Random, seed: int, size: int, *, late: bool) -> Options:
    """Return seconds full of faults. ``late``: there is much to catch up with instead."""
    pick = rng.choice
    faulty_max = (size - 1) // 3
    late_node = rng.randrange(size) if late else None
    traitor = rng.randrange(size) if rng.random() < 0.3 and not late else None
    dead_max = faulty_max - (traitor is not None)
    crash_every_ms = pick((0, 0, 300, 1000, 3000))
    partition_every_ms = pick((0, 0, 400, 1500))
    all_crashes = pick((0, 0, 1, 3))
    delay_ms = pick(((1, 3), (1, 3), (5, 20), (10, 60), (1, 150)))
    loss = pick((0.0, 0.0, 0.01, 0.05, 0.25))
    links = [(a, b) for a in range(size) for b in range(size) if a != b]
    sync_ms = pick((0, 2, 10, 40))
    # No round is given up before its syncs and messages can be through.
    timeout_base_ms = pick((100 if sync_ms <= 2 else 300, 300, 1000, 1000))
    batch_every_ms = pick((25, 60, 150, 400))
    if late:
        crash_every_ms = partition_every_ms = all_crashes = 0
        delay_ms, loss, batch_every_ms = (1, 3), 0.0, 25
        timeout_base_ms, sync_ms = 100, min(sync_ms, 2)
    # Clocks further apart than the bound on block times cost more than a short round lasts.
    skew = pick((0, 0, 5, 100, 700 if timeout_base_ms == 1000 else 200))
    return Options(
        seed=seed,
        size=size,
        real_signatures=rng.random() < 0.03,
        safety_ms=4000 if late else pick((1000, 2000, 4000)),
        delay_ms=delay_ms,
        spike=pick((0.0, 0.0, 0.01, 0.1)),
        spike_ms=pick((100, 500, 2500)),
        slow_link=pick(((), (), (*pick(links), pick((100, 400))))),
        slow_peer=pick(((), (), (), (rng.randrange(size), pick((50, 300))))),
        loss=loss,
        duplication=pick((0.0, 0.0, 0.02, 0.2)),
        fifo=pick((False, True)),
        partition_every_ms=partition_every_ms,
        partition_ms=pick((200, 1000, 3000)),
        ring_every_ms=0 if late else pick((0, 0, 0, 800)),
        replay_every_ms=pick((0, 0, 300)),
        crash_every_ms=crash_every_ms,
        kill_every_ms=0 if late else pick((0, 0, 0, 500)),
        disk_every_ms=0 if late else pick((0, 0, 0, 700)),
        jump_every_ms=0 if late else pick((0, 0, 0, 800)),
        jump_ms=pick((300, 5_000, 600_000)),
        all_crashes=all_crashes,
        restart_ms=pick((30, 500, 3000)),
        sync_ms=sync_ms,
        sync_spike=pick((0.0, 0.0, 0.02)),
        reserve_bytes=pick((1, 4096, 65_536)),
        log_bytes=pick((8192, 65_536, 2**20)),
        execute_ms=pick((0, 1, 5, 30)),
        slow_node=rng.randrange(size),
        slow_node_ms=pick((0, 0, 0, 60, 300)),
        skew_ms=tuple(rng.randint(-skew, skew) for _ in range(size)),
        timeout_base_ms=timeout_base_ms,
        resend_ms=pick((200, 1000)),
        execution_ahead_max=pick((1, 2, 2)),
        certified_ahead_max=pick((2, 8, 8)),
        payload_items_max=pick((128 if batch_every_ms < 100 else 2, 128, 128)),
        flush_heights=pick((1, 4, 32)),
        batch_every_ms=batch_every_ms,
        batch_size=pick((1, 2, 5)),
        repeat=pick((0.0, 0.1, 0.5)),
        protective=pick((0.0, 0.05, 0.2)),
        short_lived=pick((0.0, 0.1, 0.4)),
        stay_dead=pick((0, rng.randint(0, dead_max), dead_max)),
        healed_loss=pick((0.0, 0.0, 0.0, 0.02)),
        late=late_node,
        traitors=() if traitor is None else (traitor,),
    )


def _long(rng: random.Random, seed: int, size: int) -> Options:
    """Return half an hour with some work and some faults, f + 1 validators away for most of it."""
    pick = rng.choice
    faulty_max = (size - 1) // 3
    traitor = rng.randrange(size) if rng.random() < 0.2 else None
    skew = pick((0, 5, 100))
    return Options(
        seed=seed,
        size=size,
        safety_ms=1_800_000,
        delay_ms=pick(((1, 3), (5, 20), (10, 60))),
        spike=pick((0.0, 0.01)),
        spike_ms=2500,
        loss=pick((0.0, 0.01)),
        fifo=pick((False, True)),
        partition_every_ms=pick((0, 300_000)),
        partition_ms=120_000,
        ring_every_ms=pick((0, 600_000)),
        replay_every_ms=pick((0, 300_000)),
        crash_every_ms=pick((0, 300_000)),
        kill_every_ms=pick((0, 600_000)),
        disk_every_ms=pick((0, 600_000)),
        jump_every_ms=pick((0, 600_000)),
        jump_ms=600_000,
        all_crashes=pick((0, 1)),
        away_ms=pick((0, 600_000, 1_200_000)),
        restart_ms=pick((3000, 300_000)),
        sync_ms=pick((2, 10)),
        log_bytes=pick((65_536, 2**20)),
        execute_ms=pick((1, 5)),
        skew_ms=tuple(rng.randint(-skew, skew) for _ in range(size)),
        batch_every_ms=20_000,
        repeat=0.1,
        protective=0.02,
        short_lived=pick((0.0, 0.1)),
        stay_dead=pick((0, faulty_max - (traitor is not None))),
        traitors=() if traitor is None else (traitor,),
    )
