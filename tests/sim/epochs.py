"""Committees that change: who votes in which epoch, and how the nodes of an epoch are numbered.

A transaction elects: once it is applied, the members that were drawn for it are the committee of
the next epoch, whatever it does besides. Nodes and oracles alike take that from ``elected``;
what the ledger's own act may do is not the matter here.

A member is a machine with one of its keys. Machines keep their number for good; what a replica
calls a peer is its place in the epoch's committee, and for everybody else a number beyond.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from consensus.committee import Committee, Validator
from consensus.hotstuff.events import FOLLOWER
from consensus.hotstuff.types import CommitCert
from tests.sim.keys import KEYS_EACH, key_name, pair

SIZE_MIN: Final = 4

Member = tuple[int, int]
"""A machine, and which of its keys signs."""


def row(member: Member) -> Validator:
    """Return what a committee says of a member."""
    machine, key = member
    return Validator(
        f"agency-{machine}",
        pair(key_name(machine, key))[0],
        pair(f"node {machine}")[0],
        b"certificate",
        "host",
        1,
        "host",
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
    """Every committee that is or was to be elected.

    Args:
        first: of the first epoch.
    """

    def __init__(self, first: Committee) -> None:
        self.first = first
        self._orders: dict[bytes, tuple[Member, ...]] = {}
        self._named = {first.hash: first}

    def order(self, txid: bytes, members: Sequence[Member]) -> None:
        """Have a transaction elect members, once it is applied."""
        self._orders[txid] = tuple(members)

    def elected(self, epoch: int, applied: Sequence[bytes]) -> Committee | None:
        """Return whom a block elects; of several orders in it, the last counts.

        Args:
            applied: its transactions that were applied, in order.
        """
        orders = [self._orders[txid] for txid in applied if txid in self._orders]
        if not orders:
            return None
        committee = Committee(epoch + 1, tuple(row(member) for member in orders[-1]))
        return self._named.setdefault(committee.hash, committee)

    def named(self, committee_hash: bytes) -> Committee:
        """Return the committee of a hash."""
        return self._named[committee_hash]


class Ballot:
    """Draws who is to vote next: one leaves, one joins, one gets a new key, all change places.

    Args:
        machines: how many there are.
        size: of the first committee.
    """

    def __init__(self, machines: int, size: int, rng: random.Random) -> None:
        self._machines = machines
        self._rng = rng
        self._members: list[Member] = [(machine, 0) for machine in range(size)]

    def draw(self) -> tuple[Member, ...]:
        """Return the next committee, one or two changes away from the one drawn before."""
        for _ in range(self._rng.choice((1, 1, 2))):
            self._change()
        return tuple(self._members)

    def _change(self) -> None:
        rng, members = self._rng, self._members
        outside = [m for m in range(self._machines) if m not in {each for each, _ in members}]
        kinds = ["key", "places"]
        kinds += ["leave"] * 2 if len(members) > SIZE_MIN else []
        kinds += ["join"] * 2 if outside else []
        match rng.choice(kinds):
            case "key":
                at = rng.randrange(len(members))
                machine, key = members[at]
                members[at] = machine, (key + 1) % KEYS_EACH
            case "places":
                rng.shuffle(members)
            case "leave":
                del members[rng.randrange(len(members))]
            case _:
                members.insert(rng.randint(0, len(members)), (rng.choice(outside), 0))
