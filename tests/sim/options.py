"""What one seed draws: a network, its faults, its machines and its load.

Swarm testing: each seed switches some faults off and others up, so that a run set meets
combinations that a mean setting would never show.
"""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """One run. Probabilities are of a message or batch; times are virtual milliseconds.

    Args:
        size: validators. ``real_signatures``: Ed25519 instead of keyed hashes.
        safety_ms: how long faults last; afterwards the network heals.
        delay_ms: least and most of most messages; ``spike``, ``spike_ms`` of the others.
        slow_link: ``(from, to, added ms)`` of one direction, or None.
        fifo: links keep their order.
        partition_every_ms, crash_every_ms: mean interval, 0 for never; ``all_crashes``: how often
            every machine loses power at one moment.
        restart_ms: longest time a crashed machine stays away.
        sync_ms: longest sync of a log or mark; ``sync_spike``: how often it is thirty times that.
        execute_ms: longest execution of a block; ``slow_node_ms``: added at node ``slow_node``.
        skew_ms: the clock of each node against virtual time.
        batch_every_ms: mean interval of batches; ``batch_size``: most transactions in one.
        repeat: a transaction is sent to a second node too; ``protective``: a batch of holds.
        short_lived: a transaction expires within seconds.
        stay_dead: validators that never come back after healing, at most f.
        healed_loss: messages lost even then.
        late: a validator that is away until healing, or None.
        traitor: a validator that lies (``byzantine``), or None; it counts among the f.
    """

    seed: int
    size: int
    real_signatures: bool
    safety_ms: int
    delay_ms: tuple[int, int]
    spike: float
    spike_ms: int
    slow_link: tuple[int, int, int] | None
    loss: float
    duplication: float
    fifo: bool
    partition_every_ms: int
    partition_ms: int
    crash_every_ms: int
    all_crashes: int
    restart_ms: int
    sync_ms: int
    sync_spike: float
    execute_ms: int
    slow_node: int
    slow_node_ms: int
    skew_ms: tuple[int, ...]
    timeout_base_ms: int
    timeout_max_ms: int
    resend_ms: int
    execution_ahead_max: int
    certified_ahead_max: int
    payload_items_max: int
    flush_heights: int
    batch_every_ms: int
    batch_size: int
    repeat: float
    protective: float
    short_lived: float
    stay_dead: int
    healed_loss: float
    late: int | None
    traitor: int | None

    @property
    def faulty_max(self) -> int:
        """f, by this file's own arithmetic."""
        return (self.size - 1) // 3

    @property
    def quorum(self) -> int:
        """Signatures that make a certificate, by this file's own arithmetic."""
        return self.size - (self.size - 1) // 3


def draw(seed: int, size: int | None = None) -> Options:
    """Return the options of a seed; no other randomness enters them.

    Args:
        size: validators, if the seed is not to choose.
    """
    rng = random.Random(seed)
    pick = rng.choice
    drawn = pick((4, 4, 4, 4, 4, 5, 7))
    size = size or drawn
    faulty_max = (size - 1) // 3
    late = rng.randrange(size) if rng.random() < 0.1 else None
    traitor = rng.randrange(size) if rng.random() < 0.3 and late is None else None
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
    if late is not None:  # so that there is much to catch up with
        crash_every_ms = partition_every_ms = all_crashes = 0
        delay_ms, loss, batch_every_ms = (1, 3), 0.0, 25
        timeout_base_ms, sync_ms = 100, min(sync_ms, 2)
    # Clocks further apart than the bound on block times cost more than a short round lasts.
    skew = pick((0, 0, 5, 100, 700 if timeout_base_ms == 1000 else 200))
    return Options(
        seed=seed,
        size=size,
        real_signatures=rng.random() < 0.03,
        safety_ms=pick((1000, 2000, 4000)) if late is None else 4000,
        delay_ms=delay_ms,
        spike=pick((0.0, 0.0, 0.01, 0.1)),
        spike_ms=pick((100, 500, 2500)),
        slow_link=pick((None, None, (*pick(links), pick((100, 400))))),
        loss=loss,
        duplication=pick((0.0, 0.0, 0.02, 0.2)),
        fifo=pick((False, True)),
        partition_every_ms=partition_every_ms,
        partition_ms=pick((200, 1000, 3000)),
        crash_every_ms=crash_every_ms,
        all_crashes=all_crashes,
        restart_ms=pick((30, 500, 3000)),
        sync_ms=sync_ms,
        sync_spike=pick((0.0, 0.0, 0.02)),
        execute_ms=pick((0, 1, 5, 30)),
        slow_node=rng.randrange(size),
        slow_node_ms=pick((0, 0, 0, 60, 300)),
        skew_ms=tuple(rng.randint(-skew, skew) for _ in range(size)),
        timeout_base_ms=timeout_base_ms,
        timeout_max_ms=4000,
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
        late=late,
        traitor=traitor,
    )
