"""The simulator with attackers in it, up to f; every promise of the simulator holds for the others.

What the honest do about an attacker, besides: what does not verify or cannot be read is counted
(``refused``, ``fault``), the link it came by drops and stands anew after a while, and what two
messages prove is kept as evidence, against attackers only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

from consensus.errors import ComityError, DecodeError, SignatureError
from consensus.hotstuff import events as ev
from consensus.hotstuff.types import Block, CommitVote, Message, Proposal, Timeout, Vote
from node.batch_verdicts import Verify
from node.batch_wire import Absent, Announce, Push, Request, Response
from tests.byzantine.attackers.attacker import Attacker
from tests.byzantine.attackers.table import ATTACKERS
from tests.sim.disk import Disk
from tests.sim.errors import Violation
from tests.sim.machine import Life
from tests.sim.network import Parcel
from tests.sim.node import SimNode
from tests.sim.options import Options, draw
from tests.sim.simulation import Result, Simulation
from tests.sim.watch import Watch

DROPPED_MS = 50
"""A link that brought something false is down for so long."""
CALM = {
    "real_signatures": False,
    "safety_ms": 1500,
    "partition_every_ms": 0,
    "ring_every_ms": 0,
    "replay_every_ms": 0,
    "crash_every_ms": 0,
    "kill_every_ms": 0,
    "disk_every_ms": 0,
    "jump_every_ms": 0,
    "all_crashes": 0,
    "away_ms": 0,
    "stay_dead": 0,
    "timeout_base_ms": 300,
    "sync_ms": 2,
    "batch_every_ms": 60,
    "late": None,
    "traitors": (),
    "spare": 0,
    "elect_every_ms": 0,
}
"""Other faults are left out, but for links: loss, delay, and what the seed draws besides."""


def options_of(seed: int, size: int) -> Options:
    """Return what a seed draws, without faults of machines."""
    known = {each.name for each in fields(Options)}
    calm = {name: value for name, value in CALM.items() if name in known}
    return replace(draw(seed, size), **calm)  # type: ignore[arg-type]


class Witness(Watch):
    """Judges the honest; what attackers say counts as said."""

    attackers: frozenset[int] = frozenset()
    seen: Counter[str]

    def sends(self, index: int, message: Message, disk: Disk) -> None:
        """Judge what leaves an honest machine."""
        if index in self.attackers:
            self.lies(index, message)
        else:
            super().sends(index, message, disk)

    def evidence(self, index: int, kind: ev.EvidenceKind, message: Message) -> None:
        """A node holds two messages against a validator, which must be an attacker."""
        self.seen[kind.value] += 1
        match message:
            case Proposal(block):
                culprit = self._founded.committee.leader(block.round)
            case Vote() | Timeout() | CommitVote():
                culprit = message.validator
            case _:
                culprit = -1
        if culprit not in self.attackers or kind is ev.EvidenceKind.RESULTS_DISAGREE:
            raise Violation("no evidence among the honest", f"node {index}: {kind.value}")


class WaryNode(SimNode):
    """An honest node: what is false costs its sender the link."""

    stage: AttackedSimulation

    def receive(self, sender: int, parcel: Parcel) -> None:
        """Take what a link brings, or drop the link."""
        try:
            super().receive(sender, parcel)
        except Violation as found:
            if found.promise != "no fault of the honest" or sender not in self.stage.attackers:
                raise
            self.stage.drops(self.index, sender, "fault")

    def _refuse(self, machine: int, error: ComityError) -> None:
        """Drop the link that brought a message that does not hold."""
        if machine not in self.stage.attackers:
            super()._refuse(machine, error)
        self.stage.drops(self.index, machine, "refused")

    def _checked(self, request: Verify) -> None:
        """Take a batch that was checked; a false one is remembered as refused."""
        try:
            super()._checked(request)
        except (DecodeError, SignatureError) as error:
            self.alive.batches.failed(request, error, self._clock.now_ms)
            self.stage.drops(self.index, request.sender, "fault")

    def _require(self, life: Life, block: Block, *, ordered: bool) -> None:
        try:
            super()._require(life, block, ordered=ordered)
        except Violation as found:
            leader = self._founded.committee.leader(block.round)
            if found.promise != "no fault of the honest" or leader not in self.stage.attackers:
                raise
            self.stage.seen["fault"] += 1


class LyingNode(WaryNode):
    """An honest node inside, and an attacker at its mouth."""

    attacker: Attacker

    def receive(self, sender: int, parcel: Parcel) -> None:
        """Let the attacker hear it too."""
        self.attacker.hears(sender, parcel)
        super().receive(sender, parcel)

    def _send(self, peer: int, parcel: Parcel) -> None:
        for said in self.attacker.tell(peer, parcel):
            if not isinstance(said, Push | Request | Response | Absent | Announce):
                self._watch.lies(self.index, said)
            try:
                super()._send(peer, said)
            except DecodeError:
                self.stage.drops(peer, self.index, "refused")


class AttackedSimulation(Simulation):
    """One run with attackers.

    Args:
        size: validators. names: attackers, at most f; which validators they are the seed draws.
    """

    def __init__(self, seed: int, size: int, names: tuple[str, ...]) -> None:
        super().__init__(seed, options=options_of(seed, size))
        if len(names) > (size - 1) // 3:
            raise ValueError("more attackers than f")
        self.seen: Counter[str] = Counter()
        chosen = self.clock.random.sample(range(size), len(names))
        watch = Witness(
            self.options, self.founded, self.committees, self.keys, self.marks, self.is_down
        )
        watch.attackers, watch.seen = frozenset(chosen), self.seen
        self.watch = watch
        disks = [node.disk for node in self.nodes]
        self.nodes = []
        self.attackers: dict[int, Attacker] = {}
        self._down: dict[tuple[int, int], None] = {}
        for index, disk in enumerate(disks):
            node: WaryNode = (
                LyingNode(self, index, disk) if index in chosen else WaryNode(self, index, disk)
            )
            node.stage = self
            if isinstance(node, LyingNode):
                kind = ATTACKERS[names[chosen.index(index)]]
                sign = self.keys.signer(self.founded.committee.keys[index])
                node.attacker = kind(index, size, sign, self.founded.chain, self.clock.random)
                self.attackers[index] = node.attacker
            self.nodes.append(node)

    @property
    def survivors(self) -> list[SimNode]:
        """The honest nodes."""
        return [node for node in self.nodes if node.index not in self.attackers]

    def drops(self, index: int, sender: int, why: str) -> None:
        """A node drops the link of a peer that is at fault; it stands anew after a while."""
        self.seen[why] += 1
        pair = (min(index, sender), max(index, sender))
        if pair in self._down:
            return
        self.seen["link dropped"] += 1
        self._down[pair] = None
        cut = self.network.cut(frozenset((pair, pair[::-1])))

        def again() -> None:
            del self._down[pair]
            self.network.mend(cut)

        self.clock.after(DROPPED_MS, again)

    def run(self) -> Result:
        """Run both phases.

        Raises:
            Violation: a promise was broken.
        """
        result = super().run()
        for mark, count in result.marks.items():
            if count and not self.seen[mark]:
                self.seen[mark] = count
        for attacker in self.attackers.values():
            for block in self.watch.chain.values():
                if self.founded.committee.leader(block.round) not in self.attackers:
                    taken = attacker.left_out & {item.digest for item in block.payload}
                    self.seen["left out, and taken up by another leader"] += len(taken)
        return result


def run(seed: int, size: int, names: tuple[str, ...]) -> AttackedSimulation:
    """Run one seed with attackers and return it with what was seen."""
    simulation = AttackedSimulation(seed, size, names)
    try:
        simulation.run()
    except Violation as found:
        listed = ",".join(names)
        found.add_note(
            f"again: scripts/attackers --attackers '{listed}' --nodes {size} --seeds {seed}"
        )
        raise
    return simulation
