"""Carries out the faults of a script, and starts again what they stopped."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from tests.sim.faults import AT_ONCE, BOTH_WAYS, EFFECTS_MAX, INWARDS, LEADER, Fault, Script
from tests.sim.files import FAILURES
from tests.sim.node import SimNode

if TYPE_CHECKING:
    from tests.sim.simulation import Simulation

CRASH_LOOP: Final = 0.15
"""How often a machine that started loses power again within a few effects."""


class Injector:
    """Does what a script says to a simulation, until it heals."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._options = simulation.options
        self._clock = simulation.clock
        self._marks = simulation.marks
        self._dead: tuple[int, ...] = ()
        self._away: set[int] = set()
        self._takes_all: set[int] = set()
        self.healed = False

    def plan(self, script: Script) -> None:
        """Have all faults happen at their times."""
        for fault in script:
            self._clock.after(fault.at_ms, partial(self._happen, fault))

    def heal(self, dead: tuple[int, ...]) -> None:
        """End all faults: disks are mended, clocks set right, all but the ``dead`` started."""
        self.healed = True
        self._dead = dead
        self._away = set()
        for node in self._simulation.nodes:
            node.effects_left = None
            right_ms = self._options.skew_of(node.index)
            if node.skew_ms != right_ms:
                node.jump(right_ms - node.skew_ms)
            if node.index in dead:
                self._marks.reach("a validator stayed dead")
                node.crash()
            elif node.disk.files.failing:
                node.disk.files.failing = ""
                node.crash(power=False)
        self._simulation.network.heal()
        for node in self._simulation.nodes:
            if node.life is None:
                self.boot(node)

    # --- starting -----------------------------------------------------------------------------

    def boot(self, node: SimNode) -> None:
        """Start a machine that is off, unless it is to stay off."""
        if node.life is not None or node.index in self._dead or node.index in self._away:
            return
        node.crashed = partial(self._after_crash, node)
        if not node.boot():
            self._restart_later(node)
            return
        rng, options = self._clock.random, self._options
        if options.crash_every_ms and not self.healed and rng.random() < CRASH_LOOP:
            node.effects_left = rng.randint(0, EFFECTS_MAX)
        self._simulation.network.restarted(node.index)

    def _restart_later(self, node: SimNode) -> None:
        delay_ms = self._clock.random.randint(10, max(10, self._options.restart_ms))
        self._clock.after(delay_ms, partial(self.boot, node))

    def _after_crash(self, node: SimNode) -> None:
        if node.index in self._takes_all:
            self._takes_all.discard(node.index)
            self._marks.reach("all crashed at one node's effect")
            self._crash_all()
        self._restart_later(node)

    def _crash(self, node: SimNode, effects: int, *, power: bool = True) -> None:
        if node.life is None:
            return
        if effects == AT_ONCE:
            node.crash(power=power)
            self._restart_later(node)
        else:
            node.effects_left = effects

    def _crash_all(self) -> None:
        self._marks.reach("all crashed at once")
        for node in self._simulation.nodes:
            self._crash(node, AT_ONCE)

    # --- what happens -------------------------------------------------------------------------

    def _happen(self, fault: Fault) -> None:
        if self.healed:
            return
        self._clock.trace(f"fault: {fault.kind} {' '.join(map(str, fault.numbers))}".rstrip())
        nodes, numbers = self._simulation.nodes, fault.numbers
        match fault.kind:
            case "cut":
                self._cut(numbers[0], numbers[1], numbers[2:])
            case "ring":
                self._ring(numbers[0], one_way=bool(numbers[1]))
            case "power":
                self._crash(nodes[numbers[0]], numbers[1])
            case "kill":
                self._crash(nodes[numbers[0]], numbers[1], power=False)
            case "all" if numbers[1] == AT_ONCE:
                self._crash_all()
            case "all":
                self._takes_all.add(numbers[0])
                self._crash(nodes[numbers[0]], numbers[1])
            case "away":
                self._leave(numbers[0], numbers[1:])
            case "clock":
                if len(numbers) > len(nodes):
                    self._marks.reach("every clock set")
                for index in numbers[1:]:
                    nodes[index].jump(numbers[0])
            case "disk":
                self._fail_disk(numbers[0], FAILURES[numbers[1]], nodes[numbers[2]])
            case "replay":
                if self._simulation.network.replay(numbers[0]):
                    self._marks.reach("old message came again")

    def _cut(self, duration_ms: int, way: int, group: tuple[int, ...]) -> None:
        if group == (LEADER,):
            leaders = [
                node.alive.roster.at(node.alive.replica.leader)
                for node in self._simulation.nodes
                if node.life is not None
            ]
            group = tuple(leaders[:1])
        rest = [index for index in range(self._options.machines) if index not in group]
        pairs = [(a, b) for a in group for b in rest]
        if way == BOTH_WAYS:
            pairs += [(b, a) for a, b in pairs]
        else:
            self._marks.reach("one-way partition")
            if way == INWARDS:
                pairs = [(b, a) for a, b in pairs]
        self._cut_pairs(duration_ms, pairs)

    def _ring(self, duration_ms: int, *, one_way: bool) -> None:
        """Let each hear its neighbours only, or only the one before it."""
        size = self._options.machines
        heard = {(a, (a + 1) % size) for a in range(size)}
        if not one_way:
            heard |= {(b, a) for a, b in heard}
        everybody = [(a, b) for a in range(size) for b in range(size) if a != b]
        self._marks.reach("ring partition")
        self._cut_pairs(duration_ms, [pair for pair in everybody if pair not in heard])

    def _cut_pairs(self, duration_ms: int, pairs: list[tuple[int, int]]) -> None:
        network = self._simulation.network
        cut = network.cut(frozenset(pairs))
        self._clock.after(duration_ms, partial(network.mend, cut))

    def _leave(self, duration_ms: int, gone: tuple[int, ...]) -> None:
        self._marks.reach("f + 1 away")
        self._away |= {*gone}
        for index in gone:
            self._simulation.nodes[index].crash()

        def come_back() -> None:
            self._away -= {*gone}
            for index in gone:
                self.boot(self._simulation.nodes[index])

        self._clock.after(duration_ms, come_back)

    def _fail_disk(self, duration_ms: int, failure: str, node: SimNode) -> None:
        files = node.disk.files
        files.failing = failure

        def mend() -> None:
            if self.healed:
                return
            files.failing = ""
            if node.life is not None and node.life.stopped:
                node.crash(power=False)
                self._restart_later(node)

        self._clock.after(duration_ms, mend)
