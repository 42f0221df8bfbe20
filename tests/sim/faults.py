"""The faults of a run as a script: what happens when, drawn from the seed before it begins.

A script is data, so that a run can be kept with it (``seeds.toml``) and made smaller (``shrink``).
Times are virtual milliseconds from the beginning; faults planned beyond the safety phase are not
drawn. What a fault does is in ``simulation``; what each number means is said here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.sim.files import FAILURES
from tests.sim.options import Options

EFFECTS_MAX: Final = 40
"""A crash planned at an effect comes at one of so many next ones."""
BOTH_WAYS, OUTWARDS, INWARDS = range(3)
AT_ONCE: Final = -1
LEADER: Final = -1


@dataclass(frozen=True, slots=True)
class Fault:
    """One entry of a script.

    kind       numbers
    cut        duration, BOTH_WAYS or OUTWARDS or INWARDS, validators on one side (or LEADER)…
    ring       duration, 1 if messages go round in one direction only
    power      validator, effects until then or AT_ONCE
    kill       validator, effects until then or AT_ONCE: only the process ends
    all        validator at whose effect, effects until then or AT_ONCE: power fails everywhere
    away       duration, validators that are off for it…
    clock      by how much it is set, validators…
    disk       duration, place in FAILURES, validator; afterwards it is mended and the node restarts
    replay     how many recorded messages come again
    """

    at_ms: int
    kind: str
    numbers: tuple[int, ...]

    def to_value(self) -> list[int | str]:
        """Return it as it is kept in a file."""
        return [self.at_ms, self.kind, *self.numbers]

    @classmethod
    def from_value(cls, value: Sequence[int | str]) -> Fault:
        """Return what ``to_value`` was made of."""
        at_ms, kind, *numbers = value
        return cls(int(at_ms), str(kind), tuple(int(number) for number in numbers))

    def __str__(self) -> str:
        return (
            f"{self.at_ms / 1000:9.3f} s  {self.kind} {' '.join(map(str, self.numbers))}".rstrip()
        )


Script = tuple[Fault, ...]


def draw_script(options: Options) -> Script:
    """Return the faults of a seed; no other randomness enters them."""
    rng = random.Random(f"faults {options.seed}")
    faults: list[Fault] = []
    for every_ms, kind, numbers in _kinds(options, rng):
        at_ms = 0
        while every_ms:
            at_ms += 1 + int(rng.expovariate(1 / every_ms))
            if at_ms >= options.safety_ms:
                break
            faults.append(Fault(at_ms, kind, numbers()))
    for _ in range(options.all_crashes):
        at_ms = rng.randrange(options.safety_ms)
        effects = AT_ONCE if rng.random() < 0.5 else rng.randint(0, EFFECTS_MAX)
        faults.append(Fault(at_ms, "all", (rng.randrange(options.machines), effects)))
    if options.away_ms:
        at_ms = rng.randrange(max(1, options.safety_ms - options.away_ms))
        gone = rng.sample(range(options.size), options.faulty_max + 1)
        faults.append(Fault(at_ms, "away", (options.away_ms, *sorted(gone))))
    return tuple(sorted(faults, key=lambda fault: (fault.at_ms, fault.kind, fault.numbers)))


Numbers = Callable[[], tuple[int, ...]]


def _kinds(options: Options, rng: random.Random) -> list[tuple[int, str, Numbers]]:
    size = options.machines

    def cut() -> tuple[int, ...]:
        group = rng.sample(range(size), rng.randint(1, size - 1))
        if rng.random() < 0.3:
            group = [LEADER]
        way = rng.choice((OUTWARDS, INWARDS)) if rng.random() < 0.3 else BOTH_WAYS
        return rng.randint(1, options.partition_ms), way, *sorted(group)

    def crash() -> tuple[int, ...]:
        effects = AT_ONCE if rng.random() < 0.3 else rng.randint(0, EFFECTS_MAX)
        return rng.randrange(size), effects

    def clock() -> tuple[int, ...]:
        most_ms = options.jump_ms
        everybody = rng.random() < 0.2
        who = tuple(range(size)) if everybody else (rng.randrange(size),)
        return rng.randint(1, most_ms) * rng.choice((-1, 1)), *who

    def disk() -> tuple[int, ...]:
        return rng.randint(50, 1000), rng.randrange(len(FAILURES)), rng.randrange(size)

    return [
        (options.partition_every_ms, "cut", cut),
        (
            options.ring_every_ms,
            "ring",
            lambda: (rng.randint(1, options.partition_ms), rng.randrange(2)),
        ),
        (options.crash_every_ms, "power", crash),
        (options.kill_every_ms, "kill", crash),
        (options.jump_every_ms, "clock", clock),
        (options.disk_every_ms, "disk", disk),
        (options.replay_every_ms, "replay", lambda: (rng.randint(1, 20),)),
    ]
