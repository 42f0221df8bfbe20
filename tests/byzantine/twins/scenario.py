"""Who leads a round and who hears whom in it, and which of these plans are the same plan.

A network of n validators of which f are twins stands at ``places``: one for each key, in order,
then the second sites of the last f keys. A set of places is a bit mask.

Symmetry: honest validators may be renamed among themselves, the two sites of a key may be
exchanged, twins may be exchanged with twins, and the two sides of a split are the same split
either way. Only one plan of each class is run; code that treats indices differently beyond the
order of signers would escape this, and ``test_twins`` runs some classes whole.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations, product

KINDS = ("proposals", "votes", "timeouts", "commit votes")
FREE = 0
"""A split with everybody on one side."""


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """One round: its leader, and for each of KINDS the places on the one side of a split.

    Messages of a kind and round pass only between places of one side; certificates and blocks
    pass as proposals of the round that their sender is in.
    """

    leader: int
    splits: tuple[int, int, int, int] = (FREE, FREE, FREE, FREE)


@dataclass(frozen=True, slots=True)
class Scenario:
    """The first rounds of a network; afterwards everybody hears everybody.

    Args:
        size: validators.
        turns: from round 1.
        late: what a split held back arrives so many rounds later; 0: it is lost.
        restarts: ``(round, waits, places)``: these lose power and start again when a site has
            reached the round and timers have fired so often since; what was on its way to or
            from them is lost.
        copied: the second sites start in this round, from a copy of the first one's folder; 0:
            from the beginning.
        patient: places that give a round up some milliseconds later than the others.
        down: places that do not start before they restart.
        cuts: ``(round, kind, from, to)``: single directions, beyond the splits.
    """

    size: int
    turns: tuple[Turn, ...]
    late: int = 0
    restarts: tuple[tuple[int, int, int], ...] = ()
    copied: int = 0
    patient: int = 0
    down: int = 0
    cuts: frozenset[tuple[int, int, int, int]] = frozenset()

    def __str__(self) -> str:
        rows = ";".join(f"{t.leader}:" + ",".join(f"{s:x}" for s in t.splits) for t in self.turns)
        more = "".join(f" restart {p:x} in {r}+{w}" for r, w, p in self.restarts)
        more += f" copied in {self.copied}" if self.copied else ""
        more += f" patient {self.patient:x}" if self.patient else ""
        return f"n={self.size} late={self.late} {rows}{more}"


def twins_of(size: int) -> int:
    """How many keys have a second site: f."""
    return (size - 1) // 3


def keys_of(size: int) -> tuple[int, ...]:
    """Return the validator at each place."""
    return (*range(size), *range(size - twins_of(size), size))


@cache
def renamings(size: int) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]:
    """Return each renaming as ``(new place by place, new key by key)``."""
    count, places = twins_of(size), size + twins_of(size)
    honest = size - count
    found: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    twin_orders = tuple(permutations(range(count)))
    for order in permutations(range(honest)):
        for twins in twin_orders:
            for swapped in product((False, True), repeat=count):
                keys = [*order, *(honest + twin for twin in twins)]
                new = list(range(places))
                new[:honest] = order
                for twin, swap in enumerate(swapped):
                    first, second = honest + twins[twin], size + twins[twin]
                    new[honest + twin], new[size + twin] = (
                        (second, first) if swap else (first, second)
                    )
                found.append((tuple(new), tuple(keys)))
    return tuple(found)


@cache
def _mask_table(size: int) -> tuple[tuple[int, ...], ...]:
    """Return for each renaming the new split by old split, on the side without place 0."""
    places = size + twins_of(size)
    every = (1 << places) - 1
    tables: list[tuple[int, ...]] = []
    for new, _ in renamings(size):
        row: list[int] = []
        for mask in range(1 << places):
            moved = sum(1 << new[place] for place in range(places) if mask >> place & 1)
            row.append(every ^ moved if moved & 1 else moved)
        tables.append(tuple(row))
    return tuple(tables)


def canonical(scenario: Scenario) -> Scenario:
    """Return the least scenario of its class.

    The sites of a key are not alike once one was copied from the other: such scenarios stand for
    themselves. So do those of more than 4 validators: their classes are so large that two members
    are never drawn.
    """
    size = scenario.size
    if scenario.copied or scenario.cuts or scenario.down or size > CLASSES_UPTO:
        return scenario
    best, least = scenario, _order(scenario)
    for (new, keys), table in zip(renamings(size), _mask_table(size), strict=True):
        turns = tuple(
            Turn(keys[turn.leader], tuple([table[split] for split in turn.splits]))  # type: ignore[arg-type]
            for turn in scenario.turns
        )
        restarts = tuple((r, waits, _moved(places, new)) for r, waits, places in scenario.restarts)
        patient = _moved(scenario.patient, new)
        renamed = replace(scenario, turns=turns, restarts=restarts, patient=patient)
        if (order := _order(renamed)) < least:
            best, least = renamed, order
    return best


def _moved(places: int, new: tuple[int, ...]) -> int:
    return sum(1 << new[place] for place in range(len(new)) if places >> place & 1)


def _order(scenario: Scenario) -> tuple[object, ...]:
    return scenario.turns, scenario.restarts, scenario.patient


CLASSES_UPTO = 4

MODES = (
    (True, True, True, True),
    (True, True, False, True),
    (False, True, False, True),
    (True, False, True, False),
)
"""Which kinds a split holds back: all; not timeouts; votes of both kinds; all but votes."""


def sides(size: int) -> range:
    """Return every split, each once: those without place 0."""
    return range(0, 1 << (size + twins_of(size)), 2)


def turns_of(size: int) -> Iterator[Turn]:
    """Yield every turn with one split in one of MODES."""
    for leader, split in product(range(size), sides(size)):
        for mode in MODES if split else MODES[:1]:
            yield Turn(leader, tuple([split if each else FREE for each in mode]))  # type: ignore[arg-type]


def enumerate_all(size: int, rounds: int) -> Iterator[Scenario]:
    """Yield every scenario of so many turns, what was held back lost; equal classes included."""
    for turns in product(tuple(turns_of(size)), repeat=rounds):
        yield Scenario(size, turns)


def sample(size: int, rng: random.Random) -> Scenario:
    """Return a scenario drawn from those that are too many to enumerate."""
    rounds = rng.choice((3, 4, 4, 5, 6, 7))
    every = sides(size)
    split = rng.choice(every)
    turns: list[Turn] = []
    twins = range(size - twins_of(size), size)
    for _ in range(rounds):
        if rng.random() < 0.6:
            split = rng.choice(every)
        style = rng.random()
        if style < 0.15:
            splits = [FREE] * 4
        elif style < 0.6:
            splits = [split if each else FREE for each in rng.choice(MODES)]
        else:
            splits = [rng.choice((FREE, split, split, rng.choice(every))) for _ in KINDS]
        leader = rng.choice(twins) if rng.random() < 0.5 else rng.randrange(size)
        turns.append(Turn(leader, tuple(splits)))  # type: ignore[arg-type]
    late = rng.choice((0, 0, 1, 2))
    restarts: tuple[tuple[int, int, int], ...] = ()
    copied = 0
    style = rng.random()
    if style < 0.25:
        honest = (1 << (size - twins_of(size))) - 1
        everybody = (1 << (size + twins_of(size))) - 1
        restarts = tuple(
            (
                round_,
                rng.choice((0, 0, 1, 2, 4)),
                rng.choice((honest, 1 + rng.randrange(everybody))),
            )
            for round_ in sorted(rng.sample(range(1, rounds + 2), rng.choice((1, 1, 2))))
        )
    elif style < 0.4:
        copied = rng.randint(1, rounds)
    patient = rng.randrange(1 << size) if rng.random() < 0.2 else 0
    return Scenario(size, tuple(turns), late, restarts, copied, patient)
