"""Committees that change: who votes in which epoch, and how the nodes of an epoch are numbered.

A member is a machine with one of its keys. Machines keep their number for good; what a replica
calls a peer is its place in the epoch's committee, and for everybody else a number beyond.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

from consensus.committee import Committee, Validator
from consensus.hotstuff.events import FOLLOWER
from consensus.hotstuff.types import CommitCert
from node.network.tls import make_certificate
from tests.sim.keys import key_name, node_name, pair, seed_of

Member = tuple[int, int]
"""A machine, and which of its keys signs."""


def agency_of(machine: int) -> str:
    """Return the agency that a machine is of."""
    return f"agency-{machine}"


@cache
def row(member: Member) -> Validator:
    """Return what a committee says of a member."""
    machine, key = member
    name = node_name(machine, key)
    return Validator(
        agency_of(machine),
        pair(key_name(machine, key))[0],
        pair(name)[0],
        make_certificate(seed_of(name), agency_of(machine)),
        f"host-{machine}",
        1,
        f"host-{machine}",
        2,
    )


@dataclass(frozen=True)
class Ended:
    """An epoch's end: the certificate on its last block, and who votes in the next one."""

    certificate: CommitCert
    committee: Committee


@dataclass(frozen=True)
class Roster:
    """How the nodes of one epoch are numbered."""

    committee: Committee

    @property
    def size(self) -> int:
        """Members."""
        return len(self.committee.validators)

    @property
    def faulty_max(self) -> int:
        """f, by this file's own arithmetic."""
        return (self.size - 1) // 3

    @property
    def quorum(self) -> int:
        """Signatures that make a certificate, by this file's own arithmetic."""
        return self.size - self.faulty_max

    @cached_property
    def machines(self) -> tuple[int, ...]:
        """Members' machines, by place."""
        rows = self.committee.validators
        return tuple(int(each.agency.removeprefix("agency-")) for each in rows)

    def number(self, machine: int) -> int:
        """Return what a replica of this epoch calls a machine."""
        return self.machines.index(machine) if machine in self.machines else self.size + machine

    def at(self, number: int) -> int:
        """Return the machine of a number."""
        return self.machines[number] if number < self.size else number - self.size

    def own(self, machine: int) -> int:
        """Return the place at which a machine votes, or ``FOLLOWER``."""
        return self.machines.index(machine) if machine in self.machines else FOLLOWER


class Committees:
    """Every committee that was or is to be elected, by its hash.

    Args:
        first: of the first epoch.
    """

    def __init__(self, first: Committee) -> None:
        self._named = {first.hash: first}

    def know(self, committee: Committee) -> None:
        """Enter a committee; who may have elected it is not looked at here."""
        self._named.setdefault(committee.hash, committee)

    def named(self, committee_hash: bytes) -> Committee:
        """Return the committee of a hash."""
        return self._named[committee_hash]
