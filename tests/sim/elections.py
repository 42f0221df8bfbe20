"""Elections: what agencies want of the committee, and what a second reading makes of it.

They act as the charter lets them: chiefs of a quorum of the agencies with a seat agree on a change,
with the member files of those who come; after the notice, the first block of its time ends the
epoch; f + 1 agencies that object before end the change. ``Ballot`` draws what they want, and
``Electorate`` is told every act in certified order and says by rules written here alone what must
become of it. It shares nothing with the ledger.
"""

from __future__ import annotations

import random
from collections.abc import Set
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import nacl.bindings

from consensus import memberfile
from consensus.codec import Value
from consensus.committee import Committee
from consensus.ledger.kernel.committee import encode_changes
from consensus.memberfile import Member as MemberFile
from consensus.memberfile import Named
from tests.sim.epochs import Member, agency_of, row
from tests.sim.keys import KEYS_EACH, chief, key_name, node_name, pair
from tests.sim.options import Options

ADMIT, REPLACE, LEAVE = "admit", "replace", "leave"
OBJECTS: Final = 0.4
"""How often agencies object to a change that is to come, rather than wait for it."""
TOO_FEW: Final = 0.2
"""How often one agency too few agrees."""
RATHER: Final = 0.5
"""How often the choice falls on a traitor, or on one that comes back, where there is one."""
IMPATIENT: Final = 0.1
"""How often a change is asked for while another is to come."""


@dataclass(frozen=True, slots=True)
class Motion:
    """What an act asks of the committee.

    Args:
        number: of the change.
        wanted: ``(kind, member)`` each, with the key that it is to have; none for an objection.
        voices: machines whose chiefs sign, the author first.
        strangers: those of the wanted that are no agencies of the ledger yet.
    """

    number: int
    wanted: tuple[tuple[str, Member], ...]
    voices: tuple[int, ...]
    strangers: tuple[int, ...] = ()

    def inputs(self, chain: bytes) -> list[Value]:
        """Return the inputs of the charter's act."""
        if not self.wanted:
            return [self.number]
        changes = [self._change(chain, kind, member) for kind, member in self.wanted]
        return [self.number, encode_changes(changes), None]

    def _change(self, chain: bytes, kind: str, member: Member) -> list[Value]:
        agency, machine = agency_of(member[0]), member[0]
        if kind == LEAVE:
            return [kind, agency]
        new = machine in self.strangers
        file = member_file(chain, member, new)
        return [kind, agency, file, *([agency.title() if new else None, []] * (kind == ADMIT))]


@cache
def member_file(chain: bytes, member: Member, brings_chief: bool) -> bytes:
    """Return what a member says of itself, signed by both its keys."""
    name = chief(member[0])
    people = (Named(name, pair(f"id of {name}")[0], None, pair(name)[0]),) if brings_chief else ()

    def sign(data: bytes, name: str) -> bytes:
        return bytes(nacl.bindings.crypto_sign(data, pair(name)[1])[:64])

    return memberfile.encode(
        MemberFile(chain, row(member), people),
        lambda data: sign(data, key_name(*member)),
        lambda data: sign(data, node_name(*member)),
    )


@dataclass
class Coming:
    """A change that was agreed on and whose time is still to come."""

    number: int
    from_ms: int
    wanted: tuple[tuple[str, Member], ...]
    objectors: set[int] = field(default_factory=set)


class Electorate:
    """The second reading: who votes after the acts told so far.

    Args:
        size: of the first committee.
        notice_ms: from an agreement to its effect.
    """

    def __init__(self, size: int, notice_ms: int) -> None:
        self._notice_ms = notice_ms
        self.epoch = 1
        self.members: tuple[Member, ...] = tuple((machine, 0) for machine in range(size))
        self.latest = 0
        self.coming: Coming | None = None
        self.objected = 0
        """Changes that objections ended."""
        self.agencies = set(range(size))
        """Machines whose agencies the ledger knows."""
        self.keys_used = dict(self.members)
        """The last key of each machine that was ever in force."""

    @property
    def seated(self) -> set[int]:
        """Machines with a seat."""
        return {machine for machine, _ in self.members}

    @property
    def faulty_max(self) -> int:
        """f, by this file's own arithmetic."""
        return (len(self.members) - 1) // 3

    @property
    def quorum(self) -> int:
        """Agencies that change the committee, by this file's own arithmetic."""
        return len(self.members) - self.faulty_max

    def change(self, motion: Motion, time_ms: int) -> str:
        """Return the name of the outcome that a change must have next, and enter it."""
        if self.coming is not None or motion.number != self.latest + 1:
            return "REQUIREMENT"
        if len(self.seated & {*motion.voices}) < self.quorum:
            return "NEEDS_APPROVAL"
        self.latest += 1
        self.coming = Coming(self.latest, time_ms + self._notice_ms, motion.wanted)
        self.agencies |= {machine for kind, (machine, _) in motion.wanted if kind == ADMIT}
        return "APPLIED"

    def objection(self, motion: Motion, time_ms: int) -> str:
        """Return the name of the outcome that an objection must have next, and enter it."""
        (machine,), coming = motion.voices, self.coming
        if motion.number > self.latest:
            return "NOT_FOUND"
        if machine not in self.seated:
            return "NOT_AUTHORIZED"
        if coming is None or coming.number != motion.number or coming.from_ms <= time_ms:
            return "REQUIREMENT"
        if machine in coming.objectors:
            return "REQUIREMENT"
        coming.objectors.add(machine)
        if len(coming.objectors) > self.faulty_max:
            self.coming = None
            self.objected += 1
        return "APPLIED"

    def end_block(self, time_ms: int) -> Committee | None:
        """Return who votes from the next block on, if this one ends the epoch."""
        if self.coming is None or self.coming.from_ms > time_ms:
            return None
        wanted, self.coming = self.coming.wanted, None
        changed = {machine: (kind, key) for kind, (machine, key) in wanted if kind != ADMIT}
        stay = [
            (machine, changed[machine][1] if machine in changed else key)
            for machine, key in self.members
            if changed.get(machine, ("", 0))[0] != LEAVE
        ]
        self.members = (*stay, *(member for kind, member in wanted if kind == ADMIT))
        self.keys_used |= dict(self.members)
        self.epoch += 1
        return Committee(self.epoch, tuple(row(member) for member in self.members))


class Ballot:
    """Draws what agencies want: one leaves or joins, takes another's place, or gets other keys.

    The number of a change says what it is to change: only on the committee that was known when it
    was drawn can it be agreed on. While another is to come, a number that is taken is asked for.
    No committee has fewer members than it takes to bear all that stay dead or lie.
    """

    def __init__(self, options: Options, rng: random.Random) -> None:
        self._machines = options.machines
        self._traitors = {*options.traitors}
        self._size_min = max(4, 3 * (options.stay_dead + len(options.traitors)) + 1)
        self._rng = rng

    def draw(self, now: Electorate) -> list[Motion]:
        """Return what is asked for next; several motions are of several authors."""
        rng = self._rng
        if now.coming is not None and rng.random() < OBJECTS:
            who = rng.sample(sorted(now.seated), now.faulty_max + 1)
            return [Motion(now.coming.number, (), (machine,)) for machine in who]
        if now.coming is not None and rng.random() >= IMPATIENT:
            return []
        motion = self._change(now)
        return [] if motion is None else [motion]

    def _one_of(self, machines: list[int], rather: Set[int]) -> int:
        """Choose a machine: a traitor, or one that was a member before, more often than others."""
        rng = self._rng
        chosen = [machine for machine in machines if machine in rather]
        return rng.choice(chosen if chosen and rng.random() < RATHER else machines)

    def _change(self, now: Electorate) -> Motion | None:
        rng, members = self._rng, dict(now.members)
        outside = [machine for machine in range(self._machines) if machine not in members]
        kinds = [REPLACE]
        kinds += [LEAVE] * 2 if len(members) > self._size_min else []
        kinds += [ADMIT, ADMIT, "place"] if outside else []
        kind, old = rng.choice(kinds), self._one_of(list(members), self._traitors)
        new = self._one_of(outside, self._traitors | now.keys_used.keys()) if outside else old
        wanted = {
            REPLACE: [(REPLACE, old)],
            LEAVE: [(LEAVE, old)],
            ADMIT: [(ADMIT, new)],
            "place": [(LEAVE, old), (ADMIT, new)],
        }[kind]
        keys = {machine: now.keys_used.get(machine, 0) + 1 for machine in (old, new)}
        if max(keys.values()) >= KEYS_EACH:
            return None
        count = now.quorum - (rng.random() < TOO_FEW)
        voices = rng.sample(sorted(now.seated), count)
        taken = now.coming is not None
        return Motion(
            now.latest + (not taken),
            tuple((kind, (machine, keys[machine])) for kind, machine in wanted),
            tuple(voices),
            tuple(each for each in (new,) if each not in now.agencies),
        )
