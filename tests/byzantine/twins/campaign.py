"""Many scenarios: all short ones of each class first, then longer ones drawn at random."""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.byzantine.twins.field import Field
from tests.byzantine.twins.judge import Broken
from tests.byzantine.twins.scenario import Scenario, canonical, enumerate_all, sample
from tests.sim.errors import NO_OWN_BUG, described

ENUMERATED_ROUNDS = 2
ENUMERATED_FROM = 10_000
"""Scenarios of 1 and 2 rounds make some five thousand classes."""
SOMETIMES = (
    "votes for two blocks of a round",
    "two proposals for one round",
    "two votes in one round",
    "two timeouts for one round",
    "timeout below its round's parent",
    "commit vote by the two-chain",
    "delivered by a descendant's certificate",
    "voted block abandoned",
    "ordered block abandoned",
    "undo",
    "blocks fetched",
    "a message came rounds too late",
    "a split that nobody could end",
    "restart",
    "a folder was copied",
)
"""Situations that a campaign must have met to have tested what it says."""


@dataclass
class Tally:
    """What scenarios came to."""

    run: int = 0
    steps: int = 0
    marks: Counter[str] = field(default_factory=Counter)
    broken: list[tuple[Scenario, str, str]] = field(default_factory=list)
    """Scenario, promise, what."""

    def add(self, other: Tally) -> None:
        """Take over what another part came to."""
        self.run += other.run
        self.steps += other.steps
        self.marks.update(other.marks)
        self.broken += other.broken

    @property
    def missed(self) -> list[str]:
        """Situations never met."""
        return [mark for mark in SOMETIMES if not self.marks[mark]]


class Plans:
    """Scenarios, one of each class, in an order that depends on nothing but the arguments.

    Args:
        size: validators. count: scenarios. seed: of those drawn.
    """

    def __init__(self, size: int, count: int, seed: int = 0) -> None:
        self._size = size
        self._count = count
        self._seed = seed
        self.enumerated = 0
        self.pruned = 0
        """Scenarios left out because one of their class was there before."""

    def __iter__(self) -> Iterator[Scenario]:
        seen: set[Scenario] = set()
        for scenario in self._raw():
            least = canonical(scenario)
            if least in seen:
                self.pruned += 1
                continue
            seen.add(least)
            yield least
            if len(seen) >= self._count:
                return

    def _raw(self) -> Iterator[Scenario]:
        """Yield scenarios; with seed 0, all short ones first if there is room for them."""
        if self._size == 4 and self._seed == 0 and self._count >= ENUMERATED_FROM:
            for rounds in range(1, ENUMERATED_ROUNDS + 1):
                for scenario in enumerate_all(self._size, rounds):
                    self.enumerated += 1
                    yield scenario
        rng = random.Random(f"twins {self._size} {self._seed}")
        while True:
            yield sample(self._size, rng)


def run(scenarios: Iterable[Scenario]) -> Tally:
    """Run scenarios; a broken promise is noted and the next one begins."""
    tally = Tally()
    for scenario in scenarios:
        tally.run += 1
        stage = Field(scenario)
        try:
            tally.marks.update(stage.run().marks)
        except Broken as broken:
            tally.broken.append((scenario, broken.promise, str(broken)))
        except Exception as error:
            tally.broken.append((scenario, NO_OWN_BUG, f"{NO_OWN_BUG}: {described(error)}"))
        tally.steps += stage.steps
    return tally


def run_chunk(scenarios: list[Scenario]) -> Tally:
    """Run scenarios in a process of its own; its garbage is collected between chunks."""
    gc.disable()
    try:
        return run(scenarios)
    finally:
        gc.enable()
        gc.collect()
